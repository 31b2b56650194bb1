"""Pooling: ties, counts, bins; and resizing."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest
from jax import lax
from jax import numpy as jnp

from tests import at_once
from tests.at_once import rules

pytestmark = pytest.mark.usefixtures("x64")


def image(rows: Any) -> np.ndarray:
    """One example with one channel."""
    return np.asarray(rows, float)[None, ..., None]


def x_ct_of(rule: Callable[..., Any], x: np.ndarray, y_ct: Any = None, **static: Any) -> np.ndarray:
    """x̄ of the only example and channel, by default for a cotangent of ones."""
    y, pullback = at_once.vjp(lambda x: rule(x, **static), x)
    ct = jnp.ones_like(y) if y_ct is None else jnp.asarray(y_ct, float).reshape(y.shape)
    return np.asarray(pullback(ct)[0])[0, ..., 0]


def test_the_first_maximum_in_the_order_of_rows_gets_everything():
    tied = image([[0, 2, 2], [2, 1, 2]])
    for rule, static in (
        (rules.max_pool, {"window": (2, 3)}),
        (rules.adaptive_max_pool, {"size": 1}),
        (rules.global_max_pool, {}),
    ):
        np.testing.assert_array_equal(x_ct_of(rule, tied, **static), [[0, 1, 0], [0, 0, 0]])


def test_windows_of_zeros_after_a_relu_are_ties_and_the_equality_mask_counts_them_twice():
    """The popular backward pass δ ⊙ (x = y) gives more than there was to give."""
    x = np.zeros((1, 4, 4, 1))
    x_ct = x_ct_of(rules.max_pool, x, [[1, 2], [3, 4]])
    expected = np.zeros((4, 4))
    expected[::2, ::2] = [[1, 2], [3, 4]]
    np.testing.assert_array_equal(x_ct, expected)

    y = np.asarray(rules.max_pool(x))
    masked = np.where(x == y.repeat(2, 1).repeat(2, 2), 1, 0)
    assert masked.sum() == 4 * x_ct_of(rules.max_pool, x).sum() == 16


def test_what_overlapping_windows_send_adds_up():
    x = image([0, 3, 1, 2])
    np.testing.assert_array_equal(
        x_ct_of(rules.max_pool, x, [1, 10, 100], window=2, strides=1), [0, 11, 0, 100]
    )
    np.testing.assert_array_equal(
        x_ct_of(rules.max_pool, x, [1, 10, 100, 1000], window=3, strides=1, padding=1), [0, 111, 0, 1000]
    )


def test_ties_in_overlapping_boxes_are_those_of_reduce_window():
    """Pooling one axis after the other keeps the order of rows."""
    x = np.random.default_rng(0).integers(0, 3, (3, 7, 6, 2)).astype(float)

    def reduced(x: jax.Array) -> jax.Array:
        return lax.reduce_window(x, -jnp.inf, lax.max, (1, 3, 3, 1), (1, 2, 1, 1), "SAME")

    y, pullback = at_once.vjp(reduced, x)
    y_ct = np.random.default_rng(1).standard_normal(y.shape)
    ours, residuals = rules.max_pool.fwd(x, window=3, strides=(2, 1), padding="SAME")
    np.testing.assert_array_equal(ours, y)
    x_ct = rules.max_pool.bwd(residuals, jnp.asarray(y_ct), window=3, strides=(2, 1), padding="SAME")[0]
    np.testing.assert_allclose(x_ct, pullback(y_ct)[0], atol=1e-14)


def test_a_nan_is_the_maximum():
    x = image([1.0, np.nan, 3.0, 4.0])
    y = rules.max_pool(x)
    assert np.isnan(y[0, 0, 0])
    assert y[0, 1, 0] == 4
    np.testing.assert_array_equal(x_ct_of(rules.max_pool, x), [0, 1, 0, 1])


def test_padding_counts_in_an_average_or_not():
    x, options = image([2.0, 4.0, 6.0]), {"window": 2, "strides": 2, "padding": ((1, 0),)}
    np.testing.assert_array_equal(rules.avg_pool(x, **options)[0, :, 0], [1, 5])
    np.testing.assert_array_equal(x_ct_of(rules.avg_pool, x, **options), [0.5, 0.5, 0.5])
    options["count_include_pad"] = False
    np.testing.assert_array_equal(rules.avg_pool(x, **options)[0, :, 0], [2, 5])
    np.testing.assert_array_equal(x_ct_of(rules.avg_pool, x, **options), [1, 0.5, 0.5])


def test_adaptive_bins_cover_the_axis_and_may_share_an_entry():
    """Of 5 entries in 3 bins: 0-1, 1-3, 3-4."""
    x = image([0.0, 1, 2, 3, 10])
    np.testing.assert_allclose(rules.adaptive_avg_pool(x, size=3)[0, :, 0], [0.5, 2, 6.5])
    np.testing.assert_allclose(
        x_ct_of(rules.adaptive_avg_pool, x, [6, 12, 18], size=3), [3, 3 + 4, 4, 4 + 9, 9]
    )
    np.testing.assert_array_equal(rules.adaptive_max_pool(x, size=3)[0, :, 0], [1, 3, 10])
    np.testing.assert_array_equal(x_ct_of(rules.adaptive_max_pool, x, [6, 12, 18], size=3), [0, 6, 0, 12, 18])
    np.testing.assert_array_equal(rules.adaptive_avg_pool(x, size=5), x)
    np.testing.assert_array_equal(rules.adaptive_avg_pool(x, size=10)[0, ::2], x[0])


def test_pooling_to_one_is_global_pooling():
    x = np.random.default_rng(0).standard_normal((2, 3, 4, 2))
    np.testing.assert_allclose(rules.adaptive_avg_pool(x)[:, 0, 0], rules.global_avg_pool(x), rtol=1e-14)
    np.testing.assert_allclose(rules.avg_pool(x, window=(3, 4))[:, 0, 0], x.mean((1, 2)), rtol=1e-14)
    np.testing.assert_array_equal(rules.adaptive_max_pool(x)[:, 0, 0], rules.global_max_pool(x))


def test_linear_pooling_saves_no_array():
    x = jnp.ones((2, 4, 4, 3))
    for rule in (rules.avg_pool, rules.adaptive_avg_pool, rules.global_avg_pool, rules.resize):
        assert jax.tree.leaves(rule.fwd(x)[1]) == []


def test_what_is_read_twice_by_nearest_neighbors_adds_up():
    x = image([1.0, 2.0, 3.0])
    np.testing.assert_array_equal(rules.resize(x, size=6, method="nearest")[0, :, 0], [1, 1, 2, 2, 3, 3])
    np.testing.assert_array_equal(
        x_ct_of(rules.resize, x, [1, 2, 4, 8, 16, 32], size=6, method="nearest"), [3, 12, 48]
    )
    np.testing.assert_array_equal(rules.resize(x, size=2, method="nearest")[0, :, 0], [1, 3])


@pytest.mark.parametrize("method", ["nearest", "linear", "cubic", "lanczos3"])
def test_interpolation_keeps_a_constant_and_spreads_a_cotangent_in_full(method: str):
    x = np.full((1, 5, 4, 1), 2.0)
    np.testing.assert_allclose(rules.resize(x, size=(8, 3), method=method), 2, rtol=1e-14)
    y_ct = np.random.default_rng(0).standard_normal((8, 3))
    x_ct = x_ct_of(rules.resize, x, y_ct, size=(8, 3), method=method)
    np.testing.assert_allclose(x_ct.sum(), y_ct.sum(), rtol=1e-13)


X = np.ones((2, 5, 4, 3))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: rules.max_pool(X, window=6), "a window over 6 places does not fit into an axis of 5"),
        (lambda: rules.max_pool(X, window=2, padding=2), "a window of 2 .* sees nothing but padding"),
        (lambda: rules.avg_pool(X, window=(2, 2, 2)), "`window` has 3 entries"),
        (lambda: rules.avg_pool(X, strides=0), "`strides` must be whole numbers above zero, got 0"),
        (lambda: rules.adaptive_avg_pool(X, size=0), "`size` must be whole numbers above zero"),
        (lambda: rules.adaptive_max_pool(X[:, :0]), "there are no positions in x"),
        (lambda: rules.global_max_pool(X[:, :0]), "global_max_pool: there are no positions in x"),
        (lambda: rules.global_avg_pool(X[:, :0]), "global_avg_pool: there are no positions in x"),
        (lambda: rules.resize(X[:, :0]), "resize: there are no positions in x"),
        (lambda: rules.resize(X, method="bicubic"), "`method` must be one of .*'cubic'.*, got 'bicubic'"),
    ],
)
def test_options_that_do_not_fit_are_refused(call: Callable[[], Any], message: str):
    with pytest.raises(ValueError, match=message):
        call()
