"""Convolutions against loops in plain Python, in geometries of every kind; and how they go wrong."""

import itertools
from typing import Any

import jax
import numpy as np
import pytest
from jax import lax
from jax import numpy as jnp

from funcbp import _correlation, factors, rules

pytestmark = pytest.mark.usefixtures("x64")

# Shapes of input and kernel; strides, pairs of padding, dilation, input dilation.
GEOMETRIES = {
    "1-D": ((2, 6, 2), (3, 2, 3), (1,), ((0, 0),), (1,), (1,)),
    "2-D, every option by axis": ((2, 6, 5, 2), (3, 2, 2, 3), (2, 1), ((1, 2), (0, 1)), (1, 2), (2, 1)),
    "3-D": ((1, 3, 4, 3, 2), (2, 1, 3, 2, 2), (1, 2, 1), ((0, 0), (1, 0), (2, 1)), (1, 1, 1), (1, 1, 1)),
    "stride that leaves inputs over": ((1, 8, 1), (2, 1, 1), (3,), ((0, 0),), (1,), (1,)),
    "stride beyond the window": ((1, 9, 1), (2, 1, 2), (4,), ((1, 1),), (1,), (1,)),
    "padding beyond the window": ((1, 3, 1), (2, 1, 1), (1,), ((4, 3),), (1,), (1,)),
    "negative padding": ((2, 7, 2), (3, 2, 1), (1,), ((-1, -2),), (1,), (1,)),
    "groups": ((2, 5, 6), (3, 2, 9), (2,), ((1, 1),), (1,), (1,)),
    "depthwise": ((2, 4, 4, 3), (2, 3, 1, 6), (1, 2), ((0, 1), (1, 1)), (1, 1), (1, 1)),
    "one by one": ((2, 3, 3, 2), (1, 1, 2, 3), (1, 1), ((0, 0), (0, 0)), (1, 1), (1, 1)),
    "one input": ((2, 1, 3), (3, 3, 2), (1,), ((1, 1),), (1,), (1,)),
}


def looped(x: np.ndarray, w: np.ndarray, delta: np.ndarray | None, geometry: Any) -> tuple[np.ndarray, ...]:
    """y, x̄ and w̄ term by term; δ is 0 where not given."""
    strides, pads, dilation, input_dilation = geometry
    window, inner, groups = w.shape[:-2], w.shape[-2], x.shape[-1] // w.shape[-2]
    outputs = []
    for n, k, s, pad, d, e in zip(
        x.shape[1:-1], window, strides, pads, dilation, input_dilation, strict=True
    ):
        last = e * (n - 1) + sum(pad) - d * (k - 1)
        outputs.append(len(range(0, last + 1, s)))
    y = np.zeros((x.shape[0], *outputs, w.shape[-1]))
    delta = y if delta is None else delta
    x_ct, w_ct, outer = np.zeros_like(x), np.zeros_like(w), w.shape[-1] // groups
    for t, j in itertools.product(np.ndindex(*outputs), np.ndindex(*window)):
        steps = zip(t, j, strides, pads, dilation, strict=True)
        at = [s * a + d * b - low for a, b, s, (low, _), d in steps]
        if any(p % e for p, e in zip(at, input_dilation, strict=True)):
            continue
        i = tuple(p // e for p, e in zip(at, input_dilation, strict=True))
        if any(not 0 <= p < n for p, n in zip(i, x.shape[1:-1], strict=True)):
            continue
        for b, g in itertools.product(range(x.shape[0]), range(groups)):
            into, out = slice(g * inner, (g + 1) * inner), slice(g * outer, (g + 1) * outer)
            read, kernel, ct = x[(b, *i, into)], w[(*j, slice(None), out)], delta[(b, *t, out)]
            y[(b, *t, out)] += read @ kernel
            x_ct[(b, *i, into)] += kernel @ ct
            w_ct[(*j, slice(None), out)] += np.outer(read, ct)
    return y, x_ct, w_ct


@pytest.mark.parametrize("name", GEOMETRIES)
def test_a_convolution_is_its_loops(name: str):
    x_shape, w_shape, *geometry = GEOMETRIES[name]
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal(x_shape), rng.standard_normal(w_shape)
    y, _, _ = looped(x, w, None, geometry)
    delta = rng.standard_normal(y.shape)
    _, x_ct, w_ct = looped(x, w, delta, geometry)
    options = dict(zip(("strides", "padding", "dilation", "input_dilation"), geometry, strict=True))

    @jax.jit
    def both(x: jax.Array, w: jax.Array, delta: jax.Array) -> Any:
        y, residuals = rules.conv_general.fwd(x, w, **options)
        return y, *rules.conv_general.bwd(residuals, delta, **options)

    got_y, got_x_ct, got_w_ct, none = both(x, w, delta)
    assert none is None
    np.testing.assert_allclose(got_y, y, atol=1e-13)
    np.testing.assert_allclose(got_x_ct, x_ct, atol=1e-13)
    np.testing.assert_allclose(got_w_ct, w_ct, atol=1e-13)


@pytest.mark.parametrize("name", ["groups", "depthwise"])
def test_groups_are_the_same_tap_by_tap_and_convolved(name: str, monkeypatch: pytest.MonkeyPatch):
    (shape, kernel, strides, pads, dilation, input_dilation), rng = GEOMETRIES[name], np.random.default_rng(0)
    x, w = jnp.asarray(rng.standard_normal(shape)), jnp.asarray(rng.standard_normal(kernel))
    options = {"strides": strides, "padding": pads, "dilation": dilation, "input_dilation": input_dilation}
    found = []
    for terms in (64, 0):
        monkeypatch.setattr(_correlation, "_TERMS", terms)
        y, residuals = rules.conv_general.fwd(x, w, **options)
        found.append((y, *rules.conv_general.bwd(residuals, jnp.cos(y), **options)[:2]))
    for by_taps, convolved in zip(*found, strict=True):
        np.testing.assert_allclose(by_taps, convolved, rtol=1e-12, atol=1e-12)


def test_named_padding_is_that_of_lax():
    x, w = jnp.ones((1, 7, 6, 1)), jnp.ones((3, 2, 1, 1))
    for name, strides, dilation in (("SAME", 2, 1), ("SAME", 3, 2), ("VALID", 1, 2)):
        expected = lax.conv_general_dilated(
            x,
            w,
            (strides,) * 2,
            name,
            rhs_dilation=(dilation,) * 2,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        y = rules.conv_general(x, w, strides=strides, padding=name, dilation=dilation)
        np.testing.assert_array_equal(y, expected)


def test_a_transposed_convolution_is_that_of_lax():
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((2, 4, 3, 2)), rng.standard_normal((3, 2, 2, 3))
    for strides, padding, dilation in (
        ((1, 1), "VALID", (1, 1)),
        ((2, 3), "VALID", (1, 2)),
        ((2, 4), "SAME", (1, 1)),
        ((1, 2), "SAME", (2, 1)),
        ((2, 1), ((1, 2), (0, 1)), (1, 1)),
    ):
        static = {"strides": strides, "padding": padding}
        expected = lax.conv_transpose(x, w, rhs_dilation=dilation, **static)
        y = rules.conv_transpose(x, w, dilation=dilation, **static)
        np.testing.assert_allclose(y, expected, atol=1e-13)


def test_causal_padding_sees_no_later_input():
    x, w = jnp.ones((1, 6, 1)), jnp.ones((3, 1, 1))
    jacobian = jax.jacrev(lambda x: rules.conv_general(x, w, padding="CAUSAL", dilation=2)[0, :, 0])(x)
    seen = np.asarray(jacobian[:, 0, :, 0]) != 0
    assert not np.triu(seen, 1).any()
    np.testing.assert_array_equal(seen[5], [False, True, False, True, False, True])


def test_a_transposed_convolution_is_the_backward_pass_of_a_convolution():
    """⟨conv(a), b⟩ = ⟨a, conv_transpose(b)⟩, with the kernel flipped and its channels exchanged."""
    rng = np.random.default_rng(0)
    a, b, w = (rng.standard_normal(s) for s in ((2, 7, 6, 3), (2, 3, 3, 2), (3, 2, 3, 2)))
    y, residuals = rules.conv_general.fwd(a, w, strides=2)
    assert y.shape == b.shape
    a_ct, _, _ = rules.conv_general.bwd(residuals, jnp.asarray(b), strides=2)
    exchanged = jnp.flip(w, (0, 1)).swapaxes(-1, -2)
    np.testing.assert_allclose(rules.conv_transpose(b, exchanged, strides=2), a_ct, atol=1e-13)


def test_shortcuts_of_the_backward_pass_that_are_wrong():
    """A kernel that is not flipped, and δ that is not spread out over the stride."""
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((1, 7, 2)), rng.standard_normal((3, 2, 2))
    y, residuals = rules.conv_general.fwd(x, w)
    delta = jnp.asarray(rng.standard_normal(y.shape))
    x_ct, w_ct, _ = rules.conv_general.bwd(residuals, delta)
    exchanged = w.swapaxes(-1, -2)
    np.testing.assert_allclose(rules.conv_general(delta, exchanged[::-1], padding=2), x_ct, atol=1e-13)
    assert np.abs(rules.conv_general(delta, exchanged, padding=2) - x_ct).max() > 0.1
    np.testing.assert_allclose(factors.Outer(x[:, 2:], delta).gradient(), w_ct[2], atol=1e-13)

    y, residuals = rules.conv_general.fwd(x, w, strides=2)
    delta = jnp.asarray(rng.standard_normal(y.shape))
    x_ct, _, _ = rules.conv_general.bwd(residuals, delta, strides=2)
    spread = jnp.zeros((1, 5, 2)).at[:, ::2].set(delta)
    np.testing.assert_allclose(rules.conv_general(spread, exchanged[::-1], padding=2), x_ct, atol=1e-13)
    crowded = rules.conv_general(delta, exchanged[::-1], padding=((4, 2),))
    assert np.abs(crowded - x_ct).max() > 0.1


def test_the_kernel_factor_is_the_sum_over_patches():
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((2, 5, 2)), rng.standard_normal((2, 2, 3))
    y, residuals = rules.conv_general.fwd(x, w)
    delta = jnp.asarray(rng.standard_normal(y.shape))
    _, factor, none = rules.conv_general.pullback(residuals, delta)
    assert none is None
    assert isinstance(factor, factors.Patches)
    patches = np.stack([x[:, :-1], x[:, 1:]], axis=2)
    np.testing.assert_allclose(factor.gradient(), np.einsum("btji,bto->jio", patches, delta), atol=1e-13)
    assert len(jax.tree.leaves(factor)) == 2  # the geometry is static


def test_16_bit_kernels_have_gradients_summed_in_float32():
    x, delta = jnp.ones((1, 3000, 1), jnp.bfloat16), jnp.ones((1, 3000, 1), jnp.bfloat16)
    _, residuals = rules.conv_general.fwd(x, jnp.ones((1, 1, 1), jnp.bfloat16))
    _, factor, _ = rules.conv_general.pullback(residuals, delta)
    assert factor.gradient().dtype == jnp.float32
    assert factor.gradient() == 3000  # bfloat16 has 2992 and 3008


X, W = np.ones((2, 5, 4, 4)), np.ones((3, 2, 4, 6))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strides": (1, 2, 1)}, r"`strides` has 3 entries, \(1, 2, 1\), for 2 spatial axes"),
        ({"strides": 0}, "`strides` must be whole numbers above zero, got 0"),
        ({"dilation": (1, 0.5)}, r"`dilation` must be whole numbers above zero, got \(1, 0.5\)"),
        ({"padding": "FULL"}, "`padding` must be None, 'VALID', 'SAME', 'CAUSAL', a number, or a pair"),
        ({"padding": ((1, 1),)}, r"`padding` must be .* for each of 2 spatial axes, got \(\(1, 1\),\)"),
        ({"dilation": 4}, "a window over 9 places does not fit into an axis of 5 with padding"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        rules.conv_general(X, W, **options)
    if "FULL" not in str(options) and options != {"dilation": 4}:
        with pytest.raises(ValueError, match=message):
            rules.conv_transpose(X, W, **options)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((3, 2, 3, 6), "the kernel takes 3 channels and gives 6, the input has 4"),
        ((3, 2, 2, 5), "the kernel takes 2 channels and gives 5, the input has 4"),
        ((3, 2, 8, 6), "the kernel takes 8 channels"),
        ((3, 4, 6), r"`x` has 2 spatial axes, its shape \(2, 5, 4, 4\) is .*; the kernel has 1"),
    ],
)
def test_a_kernel_that_does_not_fit_is_refused(shape: tuple[int, ...], message: str):
    with pytest.raises(ValueError, match=message):
        rules.conv_general(X, np.ones(shape))
