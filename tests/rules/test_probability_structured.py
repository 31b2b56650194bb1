"""Likelihoods with structure: against enumeration, against each other, and what they cost."""

import itertools
from collections import Counter
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest
from jax import numpy as jnp
from jax.scipy import stats

from funcbp import rules

RNG = np.random.default_rng(0)


def enumerated(initial: np.ndarray, a: np.ndarray, b: np.ndarray) -> tuple[Any, ...]:
    """log Z, γ and Σ ξ by all paths."""
    steps, states = b.shape
    paths = list(itertools.product(range(states), repeat=steps))
    scores = np.array(
        [
            initial[p[0]]
            + sum(b[t, p[t]] for t in range(steps))
            + sum(a[i, j] for i, j in itertools.pairwise(p))
            for p in paths
        ]
    )
    weights = np.exp(scores - scores.max())
    log_z, weights = scores.max() + np.log(weights.sum()), weights / weights.sum()
    gamma, xi = np.zeros_like(b), np.zeros_like(a)
    for path, weight in zip(paths, weights, strict=True):
        for t, state in enumerate(path):
            gamma[t, state] += weight
        for i, j in itertools.pairwise(path):
            xi[i, j] += weight
    return log_z, gamma, xi


def pulled(rule: Any, *args: Any) -> tuple[Any, Any]:
    def run(*args: Any) -> tuple[Any, Any]:
        value, residuals = rule.fwd(*args)
        return value, rule.bwd(residuals, jnp.ones_like(value))

    return jax.jit(run)(*args)


@pytest.mark.parametrize("steps", [1, 4])
@pytest.mark.parametrize("forbidden", [(), ((0, 1),), ((0, 0), (1, 0), (2, 0))])
def test_a_hidden_markov_model_against_all_paths(
    steps: int, forbidden: tuple[tuple[int, int], ...], x64: None
):
    initial, a, b = (RNG.standard_normal(shape) for shape in ((3,), (3, 3), (steps, 3)))
    for i, j in forbidden:
        a[i, j] = -np.inf
    log_z, gamma, xi = enumerated(initial, a, b)
    value, (initial_ct, a_ct, b_ct, mask_ct) = pulled(
        rules.hmm_log_likelihood, *map(jnp.asarray, (initial, a, b))
    )
    assert mask_ct is None
    for actual, expected in ((value, log_z), (initial_ct, gamma[0]), (a_ct, xi), (b_ct, gamma)):
        np.testing.assert_allclose(actual, expected, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(b_ct.sum(-1), 1, rtol=1e-12)
    np.testing.assert_allclose(a_ct.sum(), steps - 1, rtol=1e-12, atol=1e-12)
    assert all(a_ct[i, j] == 0 for i, j in forbidden)


def test_padding_makes_no_difference():
    b, a = jnp.asarray(RNG.standard_normal((5, 3))), jnp.asarray(RNG.standard_normal((3, 3)))
    tags, mask = jnp.array([1, 1, 2, 0, 0]), jnp.arange(5) < 3
    value, (b_ct, a_ct, _, _) = pulled(rules.crf_log_likelihood, b, a, tags, mask)
    expected, (b_short, a_short, _, _) = pulled(rules.crf_log_likelihood, b[:3], a, tags[:3])
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    np.testing.assert_allclose(a_ct, a_short, atol=1e-5)
    np.testing.assert_allclose(b_ct[:3], b_short, atol=1e-6)
    assert not b_ct[3:].any()
    # An ignored mask, a shipped mistake, passes any test whose masks are all ones.
    assert not np.allclose(jax.jit(rules.crf_log_likelihood)(b, a, tags), value)


def test_one_state_is_certain():
    b, a = jnp.array([[1.0], [2.0], [3.0]]), jnp.array([[0.5]])
    assert jax.jit(rules.crf_log_partition)(b, a) == 7
    assert jax.jit(rules.crf_log_likelihood)(b, a, jnp.zeros(3, int)) == 0


def test_probabilities_of_all_tag_sequences_add_up_to_one():
    b, a = jnp.asarray(RNG.standard_normal((3, 2))), jnp.asarray(RNG.standard_normal((2, 2)))
    tags = jnp.array(list(itertools.product(range(2), repeat=3)))
    values = jax.jit(rules.crf_log_likelihood)(jnp.broadcast_to(b, (8, 3, 2)), a, tags)
    np.testing.assert_allclose(np.exp(values).sum(), 1, rtol=1e-5)


def test_what_is_impossible_is_nan_in_autodiff_and_zero_here():
    b, a = jnp.zeros((3, 2)), jnp.array([[0.0, -jnp.inf], [0.0, -jnp.inf]])
    reference = jax.jit(jax.grad(rules.crf_log_partition.reference, 1))(b, a)
    assert np.isnan(reference).any()
    _, (b_ct, a_ct, _) = pulled(rules.crf_log_partition, b, a)
    np.testing.assert_allclose(b_ct, [[0.5, 0.5], [1, 0], [1, 0]])
    np.testing.assert_allclose(a_ct, [[1.5, 0], [0.5, 0]])
    value, cts = pulled(rules.crf_log_partition, jnp.full((3, 2), -jnp.inf), a)
    assert value == -np.inf
    assert not any(ct.any() for ct in cts[:2])


@pytest.mark.parametrize(
    "rule", [rules.hmm_log_likelihood, rules.crf_log_partition, rules.crf_log_likelihood]
)
def test_a_chain_needs_a_step(rule: Any):
    b, a, tags = jnp.zeros((0, 2)), jnp.zeros((2, 2)), jnp.zeros(0, int)
    args = {rules.hmm_log_likelihood: (a[0], a, b), rules.crf_log_partition: (b, a)}.get(rule, (b, a, tags))
    with pytest.raises(ValueError, match=rf"{rule.name}: there are no time steps .* give at least one"):
        rule(*args)


def test_a_mixture_of_one_is_a_normal_distribution():
    x, loc, scale = (jnp.asarray(RNG.uniform(0.5, 1.5, shape)) for shape in ((4, 2), (1, 2), (1, 2)))
    value, (x_ct, logits_ct, loc_ct, scale_ct) = pulled(
        rules.gaussian_mixture_logpdf, x, jnp.zeros(1), loc, scale
    )
    wide = [jnp.broadcast_to(z, x.shape) for z in (loc, scale)]
    expected, cts = pulled(rules.diagonal_normal_logpdf, x, *wide)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    np.testing.assert_allclose(x_ct, cts[0], rtol=1e-5)
    np.testing.assert_allclose(loc_ct[0], cts[1].sum(0), rtol=1e-5)
    np.testing.assert_allclose(scale_ct[0], cts[2].sum(0), rtol=1e-4)
    np.testing.assert_allclose(logits_ct, [0], atol=1e-6)


def test_a_covariance_and_its_factor_have_corresponding_cotangents():
    """Σ = L Lᵀ: L̄ = 2 tril(Σ̄ L), for a symmetric Σ̄."""
    factor = np.tril(RNG.standard_normal((3, 3))) + 3 * np.eye(3)
    x, mean = jnp.asarray(RNG.standard_normal((5, 3))), jnp.zeros(3)
    value, (x_ct, _, cov_ct) = pulled(
        rules.multivariate_normal_logpdf, x, mean, jnp.asarray(factor @ factor.T)
    )
    same, (x_same, _, factor_ct) = pulled(
        rules.multivariate_normal_cholesky_logpdf, x, mean, jnp.asarray(factor)
    )
    np.testing.assert_allclose(value, same, rtol=1e-5)
    np.testing.assert_allclose(x_ct, x_same, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(factor_ct, 2 * np.tril(cov_ct @ factor), rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(cov_ct, cov_ct.T)


PROCESS = (
    jnp.asarray(RNG.standard_normal((64, 3)), jnp.float32),
    jnp.asarray(RNG.standard_normal(64), jnp.float32),
    jnp.float32(1.0),
    jnp.float32(0.7),
    jnp.float32(0.5),
)


def primitives(function: Callable[..., Any], *args: Any) -> Counter[str]:
    """How often each primitive occurs, inner functions included."""
    counts: Counter[str] = Counter()

    def walk(jaxpr: Any) -> None:
        for equation in jaxpr.eqns:
            counts[equation.primitive.name] += 1
            for value in equation.params.values():
                inner = getattr(value, "jaxpr", value)
                if hasattr(inner, "eqns"):
                    walk(inner)

    walk(jax.make_jaxpr(function)(*args).jaxpr)
    return counts


def test_a_gaussian_process_is_factorized_once_and_never_differentiated_through():
    every = tuple(range(5))
    ours, autodiff = (
        primitives(jax.value_and_grad(f, every), *PROCESS)
        for f in (rules.gaussian_process_log_likelihood, rules.gaussian_process_log_likelihood.reference)
    )
    assert ours["cholesky"] == autodiff["cholesky"] == 1
    cubic = ("dot_general", "triangular_solve")
    assert sum(ours[p] for p in cubic) < sum(autodiff[p] for p in cubic)


@pytest.mark.long
def test_a_gaussian_process_needs_no_more_memory_than_autodiff():
    every = tuple(range(5))
    ours, autodiff = (
        jax.jit(jax.value_and_grad(f, every)).lower(*PROCESS).compile().memory_analysis().temp_size_in_bytes
        for f in (rules.gaussian_process_log_likelihood, rules.gaussian_process_log_likelihood.reference)
    )
    assert ours < autodiff


def test_a_gaussian_process_with_independent_points_is_independent():
    """Points far apart: K = (a² + s²) I."""
    x = 1e3 * jnp.arange(4.0)[:, None]
    y = jnp.array([1.0, -2.0, 0.5, 3.0])
    value, cts = pulled(rules.gaussian_process_log_likelihood, x, y, *map(jnp.float32, (1.0, 1.0, 2.0)))
    np.testing.assert_allclose(value, stats.norm.logpdf(y, 0, np.sqrt(5)).sum(), rtol=1e-6)
    slope = (np.square(y) / 25 - 1 / 5).sum()  # ∂ℓ/∂a = Σ ½ (α² - K⁻¹) 2a
    np.testing.assert_allclose(cts[2], slope, rtol=1e-5)
    np.testing.assert_allclose(cts[4], 2 * slope, rtol=1e-5)
    assert not cts[0].any()
    assert cts[3] == 0
