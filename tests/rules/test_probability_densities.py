"""Densities and entropies: closed values, the identities of a score, and what happens at the edges."""

import math

import jax
import numpy as np
import pytest
from jax import numpy as jnp

from funcbp import Rule
from funcbp.rules.probability._gamma import log_gamma
from tests import at_once
from tests.at_once import rules

GRID = np.linspace(-400, 400, 80001)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("normal_logpdf", (0.5, 1.5)),
        ("laplace_logpdf", (0.5, 1.5)),
        ("logistic_logpdf", (0.5, 1.5)),
        ("student_t_logpdf", (5.0, 0.5, 1.5)),
    ],
)
def test_a_density_integrates_to_one_and_its_score_to_zero(
    name: str, parameters: tuple[float, ...], x64: None
):
    """∫ p = 1 for all parameters, so that ∫ p ∂(log p)/∂θ = 0."""
    rule = rules.__dict__[name]
    args = [jnp.asarray(GRID), *(jnp.full(GRID.shape, p) for p in parameters)]

    def run(*args: jax.Array) -> tuple[jax.Array, ...]:
        value, residuals = rule.fwd(*args)
        return value, rule.bwd(residuals, jnp.ones_like(value))

    value, scores = jax.jit(run)(*args)
    density = np.exp(value) * (GRID[1] - GRID[0])
    assert abs(density.sum() - 1) < 1e-4
    for score in scores:
        assert abs((density * score).sum()) < 1e-4
    np.testing.assert_allclose(scores[0], -scores[-2], rtol=1e-12)  # of x - μ only


def test_closed_values():
    zero, one = jnp.zeros(()), jnp.ones(())
    assert math.isclose(rules.normal_logpdf(zero, zero, one), -0.5 * math.log(2 * math.pi), rel_tol=1e-6)
    assert math.isclose(rules.laplace_logpdf(zero, zero, one), -math.log(2), rel_tol=1e-6)
    assert math.isclose(rules.cauchy_logpdf(zero, zero, one), -math.log(math.pi), rel_tol=1e-6)
    assert math.isclose(rules.beta_logpdf(0.5 * one, 2 * one, 2 * one), math.log(1.5), rel_tol=1e-6)
    assert math.isclose(rules.poisson_logpmf(jnp.int32(3), zero), -1 - math.log(6), rel_tol=1e-6)
    assert math.isclose(rules.categorical_entropy(jnp.full(8, 0.125)), math.log(8), rel_tol=1e-6)
    alpha = jnp.ones(3)
    assert math.isclose(rules.dirichlet_logpdf(alpha / 3, alpha), math.log(2), rel_tol=1e-6)  # uniform


def test_log_gamma_keeps_the_digits_that_xla_loses():
    x = np.concatenate([np.linspace(0.01, 12, 500), [1 + 2**-20, 2 - 2**-20]]).astype(np.float32)
    truth = np.array([math.lgamma(v) for v in x.astype(float)])
    error = np.abs(np.asarray(jax.jit(log_gamma)(x), float) - truth)
    assert (error <= 4 * np.finfo(np.float32).eps * np.abs(truth) + 1e-7 * (x < 3)).all()


def test_an_outcome_that_cannot_be():
    p = jnp.array([0.0, 1.0, 0.5])
    np.testing.assert_array_equal(rules.bernoulli_logpmf(jnp.array([1, 0, 2]), p), [-np.inf] * 3)
    assert rules.poisson_logpmf(jnp.int32(-1), jnp.zeros(())) == -np.inf
    row = jnp.array([0.25, 0.75])
    value, residuals = rules.categorical_logpmf.fwd(jnp.array([2, -1]), jnp.stack([row, row]))
    np.testing.assert_array_equal(value, [-np.inf] * 2)
    np.testing.assert_array_equal(rules.categorical_logpmf.bwd(residuals, jnp.ones(2))[1], np.zeros((2, 2)))


def test_an_entropy_that_is_fed_by_a_softmax_has_no_nan_at_certainty():
    """p ⊙ p̄ is what a softmax passes on: with the true p̄ = ∞ at p = 0 that is NaN, in JAX, too."""

    def through_probabilities(z: jax.Array) -> jax.Array:
        return rules.categorical_entropy(jax.nn.softmax(z))

    def plainly(z: jax.Array) -> jax.Array:
        return -(jax.nn.softmax(z) * jnp.log(jax.nn.softmax(z))).sum()

    z = jnp.array([0.0, 300.0, 0.0])
    assert np.isfinite(jax.jit(at_once.grad(through_probabilities))(z)).all()
    assert np.isnan(jax.jit(at_once.grad(plainly))(z)).any()
    z = jnp.array([0.3, -1.0, 2.0])
    np.testing.assert_allclose(
        jax.jit(at_once.grad(through_probabilities))(z),
        jax.jit(at_once.grad(rules.softmax_entropy))(z),
        rtol=1e-5,
        atol=1e-7,
    )


def test_divergences_vanish_at_equality_and_agree():
    loc, log_variance = jnp.array([0.5, -1.0]), jnp.array([0.3, -0.2])
    scale = jnp.exp(log_variance / 2)
    assert rules.kl_diagonal_normal(loc, scale, loc, scale) == 0
    np.testing.assert_allclose(
        rules.kl_standard_normal(loc, log_variance),
        rules.kl_diagonal_normal(loc, scale, jnp.zeros(2), jnp.ones(2)),
        rtol=1e-6,
    )


def test_a_divergence_of_near_distributions_keeps_its_digits():
    """σ/s² - 1/σ, as it is differentiated, has lost three of float32's seven digits at σ = 1.001, s = 1."""
    scale = jnp.float32(1.001)[None]
    zero, one = jnp.zeros(1), jnp.ones(1)
    r = float(scale[0]) - 1
    exact = ((1 + r) ** 2 - 1) / 2 - math.log1p(r)
    assert math.isclose(rules.kl_diagonal_normal(zero, scale, zero, one), exact, rel_tol=1e-4)
    scale_ct = at_once.grad(rules.kl_diagonal_normal, 1)(zero, scale, zero, one)
    np.testing.assert_allclose(scale_ct, [(1 + r) - 1 / (1 + r)], rtol=3e-7)


def test_a_draw_passes_its_cotangent_through_the_noise():
    loc, scale, noise = jnp.array([1.0, 2.0]), jnp.array([0.5, 0.0]), jnp.array([2.0, 3.0])
    value, residuals = rules.normal_sample.fwd(loc, scale, noise)
    np.testing.assert_array_equal(value, [2, 2])
    loc_ct, scale_ct, noise_ct = rules.normal_sample.bwd(residuals, jnp.array([1.0, 10.0]))
    np.testing.assert_array_equal(loc_ct, [1, 10])
    np.testing.assert_array_equal(scale_ct, [2, 30])
    np.testing.assert_array_equal(noise_ct, [0.5, 0])


@pytest.mark.parametrize("rule", [rules.beta_logpdf, rules.gamma_logpdf])
def test_the_slope_at_one_has_a_slope(rule: Rule):
    """(a - 1)/x vanishes at a = 1, but its derivative by a does not."""
    slope = at_once.grad(at_once.grad(rule), argnums=1)(0.5, 1.0, 2.0)
    np.testing.assert_allclose(slope, 1 / 0.5, rtol=1e-6)


def test_a_flat_dirichlet_has_slopes_too():
    x, alpha = jnp.array([0.2, 0.8]), jnp.array([1.0, 3.0])
    mixed = at_once.jacfwd(at_once.grad(rules.dirichlet_logpdf), argnums=1)(x, alpha)
    np.testing.assert_allclose(mixed, np.diag(1 / np.asarray(x)), rtol=1e-6)
