"""Zeros, ties and masks: where popular backward passes are wrong."""

import jax
import numpy as np
import pytest
from jax import numpy as jnp

from funcbp import Rule
from tests import at_once
from tests.at_once import rules


def pulled(rule: Rule, x: jax.Array, **statics) -> np.ndarray:
    """x̄ for a cotangent of ones."""

    def run(x: jax.Array) -> jax.Array:
        out, residuals = rule.fwd(x, **statics)
        return rule.bwd(residuals, jnp.ones_like(out), **statics)[0]

    return np.asarray(jax.jit(run)(x))


def divided(x: jax.Array) -> jax.Array:
    """The popular backward pass of cumprod, for a cotangent of ones."""
    return jnp.cumsum(jnp.cumprod(x)[::-1])[::-1] / x


def test_cumprod_is_right_where_the_division_is_not():
    x = jnp.array([2.0, 4.0, 3.0])
    np.testing.assert_allclose(pulled(rules.cumprod, x), divided(x), rtol=1e-6)
    x = jnp.array([2.0, 0.0, 3.0])
    assert np.isnan(divided(x)).any()
    np.testing.assert_array_equal(pulled(rules.cumprod, x), [1, 2 + 2 * 3, 0])
    np.testing.assert_array_equal(pulled(rules.prod, x), [0, 6, 0])


def test_a_product_that_underflows_has_a_gradient_all_the_same():
    x = jnp.full(200, 0.5, jnp.float32)  # 2⁻²⁰⁰ is 0 in float32
    found = pulled(rules.cumprod, x)
    np.testing.assert_allclose(found[:3], [2, 1, 0.5], rtol=1e-6)
    assert np.isfinite(found).all()


def test_a_tie_of_maxima_is_shared_and_adds_up_to_one():
    x = jnp.array([3.0, 1.0, 3.0, 3.0])
    third = np.float32(1 / 3)
    np.testing.assert_array_equal(pulled(rules.max, x), [third, 0, third, third])
    mask_without_count = (x == x.max()).astype(float)
    assert mask_without_count.sum() == 3  # the shipped mistake: three times the gradient
    np.testing.assert_array_equal(pulled(rules.min, -x), pulled(rules.max, x))


@pytest.mark.parametrize("reverse", [False, True])
def test_of_equal_running_maxima_the_first_is_read(reverse: bool):
    x = jnp.array([1.0, 5.0, 5.0, 2.0, 5.0])
    expected = [0, 0, 0, 0, 5] if reverse else [1, 4, 0, 0, 0]
    np.testing.assert_array_equal(pulled(rules.cummax, x, reverse=reverse), expected)
    np.testing.assert_array_equal(pulled(rules.cummin, -x, reverse=reverse), expected)


def test_a_running_maximum_passes_nan_on():
    q = rules.cummax(jnp.array([1.0, jnp.nan, 2.0]))
    assert np.isnan(q).tolist() == [False, True, True]


def test_an_order_statistic_has_one_place():
    x = jnp.array([2.0, 7.0, 2.0, 1.0])
    weights = jnp.array([1.0, 10.0, 100.0, 1000.0])
    _, residuals = rules.sort.fwd(x)
    np.testing.assert_array_equal(rules.sort.bwd(residuals, weights)[0], [10, 1000, 100, 1])
    _, residuals = rules.sort.fwd(x, descending=True)
    np.testing.assert_array_equal(rules.sort.bwd(residuals, weights, descending=True)[0], [100, 1, 10, 1000])
    np.testing.assert_array_equal(pulled(rules.top_k_values, x, k=2), [1, 1, 0, 0])
    np.testing.assert_array_equal(pulled(rules.quantile, x), [0.5, 0, 0.5, 0])
    np.testing.assert_allclose(pulled(rules.quantile, x, q=0.75), [0, 0.25, 0.75, 0])


def test_the_median_of_an_even_number_is_between_two():
    assert float(rules.quantile(jnp.array([4.0, 1.0, 3.0, 2.0]))) == 2.5


def test_nothing_leaks_out_of_the_unselected_branch():
    mask, x = jnp.array([True, False]), jnp.array([1.0, jnp.nan])
    np.testing.assert_array_equal(at_once.grad(lambda x: rules.where(mask, x, 0 * x).sum())(x), [1, 0])
    np.testing.assert_array_equal(at_once.grad(lambda x: rules.dropout(x, mask).sum())(x), [2, 0])
    np.testing.assert_array_equal(rules.masked_fill(x, ~mask), [1, 0])
    assert np.isnan(x * mask.astype(x.dtype)).any()  # the product with the mask, a shipped mistake
    # A cotangent of NaN stays on its own side.
    _, residuals = rules.where.fwd(mask, x, x)
    _, x_ct, y_ct = rules.where.bwd(residuals, jnp.array([1.0, jnp.nan]))
    np.testing.assert_array_equal(x_ct, [1, 0])
    assert y_ct[0] == 0


def test_a_selection_cannot_help_an_infinite_slope_below_it():
    """The trap: 0 · ∞ in the rule of the root. The remedy is a second selection below."""

    def once(x: jax.Array) -> jax.Array:
        return rules.where(x > 0, jnp.sqrt(x), 0 * x).sum()

    def twice(x: jax.Array) -> jax.Array:
        return rules.where(x > 0, jnp.sqrt(rules.where(x > 0, x, jnp.ones_like(x))), 0 * x).sum()

    x = jnp.array([4.0, 0.0])
    assert np.isnan(at_once.grad(once)(x)[1])
    np.testing.assert_array_equal(at_once.grad(twice)(x), [0.25, 0])


def test_the_ends_of_a_clip_have_half_the_slope():
    x = jnp.array([-1.0, 0.0, 0.5, 1.0, 2.0])
    np.testing.assert_array_equal(pulled(rules.clip, x), [0, 0.5, 1, 0.5, 0])
    np.testing.assert_array_equal(pulled(rules.clip, x, min=-1.0), [0.5, 1, 1, 0.5, 0])


def test_leading_minus_infinity_of_a_cumulative_logsumexp():
    x = jnp.array([-jnp.inf, -jnp.inf, 0.0, 0.0])
    np.testing.assert_allclose(pulled(rules.cumlogsumexp, x), [0, 0, 1.5, 0.5], rtol=1e-6)
