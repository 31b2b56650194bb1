"""Correlation of an array with a kernel that slides over it: one trilinear form, and its three derivatives.

In one dimension, with stride s, dilation d of the kernel, dilation e of the input and l zeros in front of it,

    C = Σ x_i w_j δ_t      over all i, j, t with      e i + l = s t + d j

The output y of a convolution (of neural networks: the kernel is not flipped) is the derivative of C with
respect to δ, the two backward passes are the other two; each sums over what the other two meet in:

    y_t = Σ x_i w_j      x̄_i = Σ w_j δ_t      w̄_j = Σ x_i δ_t

`lax.conv_general_dilated` gives o_c = Σ a_i b_j over (input dilation) i + (padding) = (stride) c + (kernel
dilation) j, and the condition can be written so for each of the three:

             a, b             input dilation    padding          stride    kernel dilation
    y        x, w             e                 l                s         d
    w̄        x, δ             e                 l                d         s
    x̄        δ, w flipped     s                 d (k - 1) - l    e         d

In w̄ stride and dilation change places. In x̄ the kernel of k taps is flipped, j → k - 1 - j, which brings d j
to the other side. The padding behind is what gives the output its length. Several dimensions: the same in
each. Channels and batch are contracted where the result does not have them: in for y, out for x̄, batch for w̄.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import jax
from jax import lax
from jax import numpy as jnp

from ._numerics import accumulator

__all__ = ["Geometry", "correlate", "input_ct", "kernel_ct"]


@dataclass(frozen=True)
class Geometry:
    """How a kernel slides: one entry for each spatial axis.

    Attributes:
        inputs: length n of the input.
        window: number k of taps.
        outputs: length m of the output.
        strides: s, steps in the padded input from one output to the next.
        dilation: d, steps from one tap to the next.
        input_dilation: e, steps from one input to the next, with zeros between.
        low: l, zeros in front (negative: inputs left out).
        groups: channels in so many equal parts, each convolved by itself.
    """

    inputs: tuple[int, ...]
    window: tuple[int, ...]
    outputs: tuple[int, ...]
    strides: tuple[int, ...]
    dilation: tuple[int, ...]
    input_dilation: tuple[int, ...]
    low: tuple[int, ...]
    groups: int = 1


def correlate(x: jax.Array, w: jax.Array, geometry: Geometry) -> jax.Array:
    """y_t = Σ x_i w_j, in float32 at least.

    Args:
        x: `(batch, *inputs, in)`.
        w: `(*window, in / groups, out)`.
        geometry: how w slides over x.
    """
    g = geometry
    return _convolve(
        x,
        w,
        (_IMAGES, _KERNEL, _IMAGES),
        (g.outputs, g.strides, g.low, g.input_dilation, g.dilation),
        input_groups=g.groups,
    )


def input_ct(w: jax.Array, y_ct: jax.Array, geometry: Geometry) -> jax.Array:
    """x̄_i = Σ w_j δ_t, in float32 at least."""
    g = geometry
    low = tuple(d * (k - 1) - low for d, k, low in zip(g.dilation, g.window, g.low, strict=True))
    return _convolve(
        y_ct,
        _flipped(w, g.groups),
        (_IMAGES, _KERNEL, _IMAGES),
        (g.inputs, g.input_dilation, low, g.strides, g.dilation),
        input_groups=g.groups,
    )


def kernel_ct(x: jax.Array, y_ct: jax.Array, geometry: Geometry) -> jax.Array:
    """w̄_j = Σ x_i δ_t, in float32 at least: the batch is contracted, the channels of x are left over."""
    g = geometry
    return _convolve(
        x,
        y_ct,
        (_TRANSPOSED_IMAGES, _TRANSPOSED_IMAGES, _KERNEL_OUT),
        (g.window, g.dilation, g.low, g.input_dilation, g.strides),
        batch_groups=g.groups,
    )


def _flipped(w: jax.Array, groups: int) -> jax.Array:
    """The taps in reverse order, and in each group in and out exchanged."""
    *window, inner, out = w.shape
    w = lax.rev(w, range(len(window))).reshape(*window, inner, groups, out // groups)
    return jnp.swapaxes(w, -3, -1).reshape(*window, out // groups, groups * inner)


# Which axes are (batch, channels) of images, (out, in) of a kernel; the others are spatial.
_IMAGES = (0, -1)
_TRANSPOSED_IMAGES = (-1, 0)
_KERNEL = (-1, -2)
_KERNEL_OUT = (-2, -1)


def _convolve(
    a: jax.Array,
    b: jax.Array,
    layout: Sequence[tuple[int, int]],
    sliding: Sequence[tuple[int, ...]],
    input_groups: int = 1,
    batch_groups: int = 1,
) -> jax.Array:
    left, right, result = (_axes(named, a.ndim) for named in layout)
    outputs, strides, low, input_dilation, dilation = sliding
    lengths = zip(
        outputs,
        strides,
        low,
        input_dilation,
        dilation,
        [a.shape[i] for i in left[2:]],
        [b.shape[i] for i in right[2:]],
        strict=True,
    )
    padding = [
        (before, s * (m - 1) + d * (k - 1) - e * (n - 1) - before) for m, s, before, e, d, n, k in lengths
    ]
    return lax.conv_general_dilated(
        a,
        b,
        strides,
        padding,
        lhs_dilation=input_dilation,
        rhs_dilation=dilation,
        dimension_numbers=lax.ConvDimensionNumbers(left, right, result),
        preferred_element_type=accumulator(a, b),
        feature_group_count=input_groups,
        batch_group_count=batch_groups,
    )


def _axes(named: tuple[int, int], ndim: int) -> tuple[int, ...]:
    first, second = (axis % ndim for axis in named)
    return (first, second, *(axis for axis in range(ndim) if axis not in (first, second)))
