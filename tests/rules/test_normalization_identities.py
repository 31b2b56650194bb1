"""Normalizations: what each is in terms of another, what its backward pass is orthogonal to, and its limits
where autodiff has NaN."""

from collections.abc import Callable

import jax
import numpy as np
import pytest
from jax import numpy as jnp

from tests import at_once
from tests.at_once import rules

pytestmark = pytest.mark.usefixtures("x64")


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def gradient(function: Callable[[jax.Array], jax.Array], x: np.ndarray, seed: int = 1) -> np.ndarray:
    """x̄ for a random cotangent."""
    y, pullback = at_once.vjp(function, x)
    return np.asarray(pullback(normal(*y.shape, seed=seed))[0])


X = normal(4, 3, 6)
CENTERED = {
    "layer_norm": (lambda x: rules.layer_norm(x, eps=0.0), (-1,)),
    "batch_norm": (lambda x: rules.batch_norm(x, eps=0.0)[0], (0, 1)),
    "group_norm": (lambda x: rules.group_norm(x, groups=1, eps=0.0), (1, 2)),
    "instance_norm": (lambda x: rules.instance_norm(x, eps=0.0), (1,)),
    "standardize": (lambda x: rules.standardize(x, axis=(0, 2), epsilon=0.0), (0, 2)),
}
SCALED = CENTERED | {
    "rms_norm": (lambda x: rules.rms_norm(x, eps=0.0), (-1,)),
    "l2_normalize": (lambda x: rules.l2_normalize(x, axis=1), (1,)),
    "weight_norm": (lambda x: rules.weight_norm(x, np.ones(6)), (0, 1)),
    "spectral_norm": (rules.spectral_norm, (1, 2)),
}


@pytest.mark.parametrize("name", CENTERED)
def test_what_does_not_see_a_shift_has_a_gradient_of_sum_zero(name: str):
    function, axes = CENTERED[name]
    x_ct = gradient(function, X)
    assert np.abs(x_ct).max() > 0.1
    np.testing.assert_allclose(x_ct.sum(axes), 0, atol=1e-13)


@pytest.mark.parametrize("name", SCALED)
def test_what_does_not_see_a_scale_has_a_gradient_orthogonal_to_x(name: str):
    function, axes = SCALED[name]
    x_ct = gradient(function, X)
    assert np.abs(x_ct).max() > 0.1
    np.testing.assert_allclose((x_ct * X).sum(axes), 0, atol=1e-13)


def test_statistics_taken_for_constants_break_both():
    """The most common wrong backward pass: r γ ȳ, which is right in evaluation only."""
    mean, variance = X.mean((0, 1)), X.var((0, 1))
    x_ct = gradient(lambda x: rules.batch_norm_inference(x, mean, variance, eps=0.0), X)
    assert np.abs(x_ct.sum((0, 1))).min() > 0.1
    assert np.abs((x_ct * X).sum((0, 1))).min() > 0.1


def test_batch_norm_is_its_evaluation_with_the_paths_through_mean_and_variance():
    gain, bias, y_ct = normal(6, seed=2), normal(6, seed=3), normal(4, 3, 6, seed=4)
    (y, mean, variance), residuals = rules.batch_norm.fwd(X, gain, bias)
    given, of_given = rules.batch_norm_inference.fwd(X, mean, variance, gain, bias)
    np.testing.assert_allclose(y, given, rtol=1e-13, atol=1e-13)

    zeros = jnp.zeros(6)
    x_ct, gain_ct, bias_ct = rules.batch_norm.bwd(residuals, (y_ct, zeros, zeros))
    direct, mean_ct, variance_ct, *rest = rules.batch_norm_inference.bwd(of_given, y_ct)
    (through_variance,) = rules.var.bwd(X, variance_ct, axis=(0, 1))
    np.testing.assert_allclose(x_ct, direct + mean_ct / 12 + through_variance, atol=1e-13)
    np.testing.assert_allclose((gain_ct, bias_ct), rest, rtol=1e-13)

    x_ct, *_ = rules.batch_norm.bwd(residuals, (0 * y_ct, mean_ct, variance_ct))
    np.testing.assert_allclose(x_ct, jnp.broadcast_to(mean_ct / 12, X.shape) + through_variance, atol=1e-13)


def test_one_normalization_is_another_over_other_axes():
    rows, gain, bias = normal(5, 6), normal(6, seed=2), normal(6, seed=3)

    def same(one: Callable[[jax.Array], jax.Array], other: Callable[[jax.Array], jax.Array], x: np.ndarray):
        np.testing.assert_allclose(one(x), other(x), atol=1e-13)
        np.testing.assert_allclose(gradient(one, x), gradient(other, x), atol=1e-13)

    same(lambda x: rules.group_norm(x, gain, bias), lambda x: rules.layer_norm(x, gain, bias), rows)
    same(lambda x: rules.batch_norm(x)[0], lambda x: rules.layer_norm(x.T).T, rows)
    same(lambda x: rules.group_norm(x, gain, bias, groups=6), lambda x: rules.instance_norm(x, gain, bias), X)
    same(lambda x: rules.standardize(x), lambda x: rules.layer_norm(x), X)
    same(lambda x: rules.rms_norm(x, eps=0.0), lambda x: np.sqrt(6) * rules.l2_normalize(x), X)
    same(lambda x: rules.weight_norm(x, np.ones(6)), lambda x: rules.l2_normalize(x, axis=0), rows)


def test_groups_are_neighbors():
    x = normal(2, 3, 6)
    parts = [rules.group_norm(part) for part in jnp.split(x, 2, axis=-1)]
    np.testing.assert_allclose(rules.group_norm(x, groups=2), jnp.concatenate(parts, -1), rtol=1e-13)
    strided = rules.group_norm(x[..., ::2])
    assert np.abs(rules.group_norm(x, groups=2)[..., ::2] - strided).max() > 0.01


DEGENERATE = {
    "layer_norm": (rules.layer_norm, {"eps": 0.0}, np.full((2, 3), 3.0)),
    "rms_norm": (rules.rms_norm, {"eps": 0.0}, np.zeros((2, 3))),
    "group_norm": (rules.group_norm, {"groups": 3, "eps": 0.0}, np.arange(6.0).reshape(2, 3)),
    "instance_norm": (rules.instance_norm, {"eps": 0.0}, np.arange(6.0).reshape(2, 1, 3)),
    "standardize": (rules.standardize, {"epsilon": 0.0}, np.full((2, 3), 3.0)),
    "l2_normalize": (rules.l2_normalize, {}, np.zeros((2, 3))),
    "spectral_norm": (rules.spectral_norm, {}, np.zeros((2, 3))),
    "std": (rules.std, {"axis": -1}, np.full((2, 3), 3.0)),
}


@pytest.mark.parametrize("name", DEGENERATE)
def test_nothing_to_divide_by_gives_zero_where_autodiff_has_nan(name: str):
    rule, static, x = DEGENERATE[name]
    for function in (lambda x: rule(x, **static), lambda x: rule.primal(x, **static)):
        y, pullback = at_once.vjp(function, x)
        np.testing.assert_array_equal(y, 0)
        np.testing.assert_array_equal(pullback(jnp.ones_like(y))[0], 0)
    y, pullback = at_once.vjp(lambda x: rule.reference(x, **static), x)
    assert np.isnan(pullback(jnp.ones_like(y))[0]).any()


def test_a_batch_of_one_has_no_spread():
    x = normal(1, 6)
    (y, mean, variance), residuals = rules.batch_norm.fwd(x, eps=0.0)
    np.testing.assert_array_equal(y, 0)
    np.testing.assert_array_equal(mean, x[0])
    np.testing.assert_array_equal(variance, 0)
    x_ct, *_ = rules.batch_norm.bwd(residuals, (jnp.ones((1, 6)), jnp.ones(6), jnp.ones(6)), eps=0.0)
    np.testing.assert_array_equal(x_ct, 1)  # the path through the mean is left


def test_a_weight_of_zero_length_beside_others():
    v, gain = normal(3, 2) * [0, 1], np.array([2.0, 3.0])
    w, residuals = rules.weight_norm.fwd(v, gain)
    np.testing.assert_array_equal(w[:, 0], 0)
    np.testing.assert_allclose(jnp.linalg.norm(w[:, 1]), 3)
    v_ct, gain_ct = rules.weight_norm.bwd(residuals, jnp.ones((3, 2)))
    np.testing.assert_array_equal(v_ct[:, 0], 0)
    assert gain_ct[0] == 0
    np.testing.assert_allclose(gain_ct[1], w[:, 1].sum() / 3)


def test_variance_and_deviation_of_known_numbers():
    x = jnp.array([1.0, 2.0, 3.0, 4.0])
    assert rules.var(x) == 1.25
    assert rules.var(x, ddof=1) == pytest.approx(5 / 3)
    np.testing.assert_allclose(at_once.grad(rules.var)(x), (x - 2.5) / 2)
    np.testing.assert_allclose(at_once.grad(lambda x: rules.var(x, ddof=1))(x), 2 * (x - 2.5) / 3)
    np.testing.assert_allclose(at_once.grad(rules.std)(x), (x - 2.5) / 4 / np.sqrt(1.25))


def test_equal_numbers_have_no_deviation_in_any_dtype():
    """The mean of equal numbers is in general not one of them, after rounding."""
    x = jnp.full(7, 0.1, jnp.float32)
    assert jnp.mean(x) != x[0]
    assert rules.std(x) == 0
    np.testing.assert_array_equal(at_once.grad(rules.std)(x), 0)


def test_standardize_with_a_mask_reaches_the_statistics_from_everywhere():
    x, where = jnp.array([1.0, 2.0, 5.0]), jnp.array([True, True, False])
    y = rules.standardize(x, where, epsilon=0.0)
    np.testing.assert_allclose(y, [-1, 1, 7])
    jacobian = at_once.jacrev(lambda x: rules.standardize(x, where, epsilon=0.0))(x)
    np.testing.assert_allclose(jacobian, [[0, 0, 0], [0, 0, 0], [6, -8, 2]], atol=1e-13)
    nothing = rules.standardize(x, jnp.zeros(3, bool), epsilon=0.25)
    np.testing.assert_allclose(nothing, 2 * x)


def test_the_gradient_of_spectral_norm_is_that_of_the_estimate_at_the_singular_vectors():
    w = normal(3, 4)
    u, _, vt = np.linalg.svd(w)
    given = gradient(lambda w: w / (u[:, 0] @ w @ vt[0]), w)
    np.testing.assert_allclose(gradient(rules.spectral_norm, w), given, atol=1e-13)


def test_spectral_norm_at_repeated_singular_values_has_the_subgradient_of_one_pair():
    w_ct = gradient(rules.spectral_norm, jnp.eye(3))
    y_ct = normal(3, 3, seed=1)
    taken = y_ct - w_ct  # ⟨ȳ, I⟩ u vᵀ
    assert np.linalg.matrix_rank(taken, tol=1e-12) == 1
    np.testing.assert_allclose(np.linalg.norm(taken), abs(np.trace(y_ct)), rtol=1e-12)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: rules.group_norm(X, groups=4), "`groups` must divide the channels, got 4 groups for 6"),
        (lambda: rules.group_norm(X, groups=0), "`groups` must divide the channels, got 0"),
        (lambda: rules.var(X, axis=3), r"var: `axis` is 3, but x has shape \(4, 3, 6\)"),
        (lambda: rules.std(X, axis=(0, -4)), r"std: `axis` is \(0, -4\)"),
        (lambda: rules.standardize(X, axis=5), "standardize: `axis` is 5"),
    ],
)
def test_options_that_do_not_fit_are_refused(call: Callable[[], jax.Array], message: str):
    with pytest.raises(ValueError, match=message):
        call()
