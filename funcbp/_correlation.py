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

Groups of channels, on the CPU: XLA has no fast convolution of them there, and for w̄ a very slow one. Tap by
tap, with x_j what lies under tap j at every output, each of the three is a few products of matrices,

    y = Σ_j x_j w_j      x̄ = Σ_j back_j(δ w_jᵀ)      w̄_j = x_jᵀ δ

where back_j, the transpose of taking x_j, puts the outputs back where tap j was. The first is a sum over the
channels of a group, too, of elementwise products. With many taps, or many such channels, it is a convolution.
"""

import functools
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import jax
from jax import lax
from jax import numpy as jnp

from ._numerics import accumulator, upcast

__all__ = ["Geometry", "correlate", "input_ct", "kernel_ct", "under_taps"]

# As many terms are written out; with more of them the program would be long.
_TERMS = 64


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
    convolved = functools.partial(
        _convolve,
        layout=(_IMAGES, _KERNEL, _IMAGES),
        sliding=(g.outputs, g.strides, g.low, g.input_dilation, g.dilation),
        input_groups=g.groups,
    )
    terms = math.prod(g.window) * w.shape[-2]
    return _by_platform(x, w, g, _correlate_by_taps, convolved, terms)


def input_ct(w: jax.Array, y_ct: jax.Array, geometry: Geometry) -> jax.Array:
    """x̄_i = Σ w_j δ_t, in float32 at least."""
    g = geometry
    low = tuple(d * (k - 1) - low for d, k, low in zip(g.dilation, g.window, g.low, strict=True))

    def convolved(w: jax.Array, y_ct: jax.Array) -> jax.Array:
        return _convolve(
            y_ct,
            _flipped(w, g.groups),
            (_IMAGES, _KERNEL, _IMAGES),
            (g.inputs, g.input_dilation, low, g.strides, g.dilation),
            input_groups=g.groups,
        )

    return _by_platform(w, y_ct, g, _input_ct_by_taps, convolved, math.prod(g.window))


def kernel_ct(x: jax.Array, y_ct: jax.Array, geometry: Geometry) -> jax.Array:
    """w̄_j = Σ x_i δ_t, in float32 at least: the batch is contracted, the channels of x are left over."""
    g = geometry
    convolved = functools.partial(
        _convolve,
        layout=(_TRANSPOSED_IMAGES, _TRANSPOSED_IMAGES, _KERNEL_OUT),
        sliding=(g.window, g.dilation, g.low, g.input_dilation, g.strides),
        batch_groups=g.groups,
    )
    return _by_platform(x, y_ct, g, _kernel_ct_by_taps, convolved, math.prod(g.window))


def under_taps(x: jax.Array, geometry: Geometry) -> Iterator[jax.Array]:
    """x_j, what lies under tap j at every output, for the taps in the order of the kernel's axes.

    Args:
        x: `(batch, *inputs, channels)`.
        geometry: how the kernel slides over x.
    """
    g = geometry
    padded = lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *_surroundings(g), (0, 0, 0)])
    for starts in _starts(g):
        ends = [i + s * (m - 1) + 1 for i, s, m in zip(starts, g.strides, g.outputs, strict=True)]
        yield lax.slice(padded, (0, *starts, 0), (x.shape[0], *ends, x.shape[-1]), (1, *g.strides, 1))


def _back(taps: Iterator[jax.Array], g: Geometry) -> jax.Array:
    """The transpose of `under_taps`: Σ_j back_j(z_j)."""
    total = jnp.zeros((), jnp.float32)
    for starts, z in zip(_starts(g), taps, strict=True):
        room = zip(starts, g.strides, g.dilation, g.window, strict=True)
        config = [(i, d * (k - 1) - i, s - 1) for i, s, d, k in room]
        total = total + lax.pad(z, jnp.zeros((), z.dtype), [(0, 0, 0), *config, (0, 0, 0)])
    config = [(-front, -behind, 0) for front, behind, _ in _surroundings(g)]
    dilated = lax.pad(total, jnp.zeros((), total.dtype), [(0, 0, 0), *config, (0, 0, 0)])
    return lax.slice(dilated, (0,) * dilated.ndim, dilated.shape, (1, *g.input_dilation, 1))


def _starts(g: Geometry) -> Iterator[tuple[int, ...]]:
    """d j, the place of every tap, for the first output."""
    return itertools.product(*(range(0, d * k, d) for d, k in zip(g.dilation, g.window, strict=True)))


def _surroundings(g: Geometry) -> list[tuple[int, int, int]]:
    """Zeros in front of the input, behind it and between its entries, so that it ends with the last tap."""
    sizes = zip(g.inputs, g.window, g.outputs, g.strides, g.dilation, g.input_dilation, g.low, strict=True)
    return [(low, s * (m - 1) + d * (k - 1) - e * (n - 1) - low, e - 1) for n, k, m, s, d, e, low in sizes]


def _by_platform(
    a: jax.Array,
    b: jax.Array,
    g: Geometry,
    by_taps: Callable[[jax.Array, jax.Array, Geometry], jax.Array],
    convolved: Callable[[jax.Array, jax.Array], jax.Array],
    terms: int,
) -> jax.Array:
    if g.groups == 1 or not 0 < terms <= _TERMS:
        return convolved(a, b)
    return lax.platform_dependent(a, b, cpu=lambda a, b: by_taps(upcast(a), upcast(b), g), default=convolved)


def _correlate_by_taps(x: jax.Array, w: jax.Array, g: Geometry) -> jax.Array:
    kernels = _split(w, g.groups).reshape(-1, *w.shape[-2:-1], g.groups, w.shape[-1] // g.groups)
    total = jnp.zeros((), x.dtype)
    for x_j, w_j in zip(under_taps(x, g), kernels, strict=True):
        channels = jnp.moveaxis(_split(x_j, g.groups), -1, 0)
        total = sum((x_ji[..., None] * w_ji for x_ji, w_ji in zip(channels, w_j, strict=True)), start=total)
    return _merged(total)


def _input_ct_by_taps(w: jax.Array, y_ct: jax.Array, g: Geometry) -> jax.Array:
    delta = _split(y_ct, g.groups)
    kernels = _split(w, g.groups).reshape(-1, w.shape[-2], *delta.shape[-2:])
    if w.shape[-2] == 1:
        return _back((jnp.sum(delta * w_j[0], -1) for w_j in kernels), g)
    return _back((_merged(jnp.einsum("...go,igo->...gi", delta, w_j)) for w_j in kernels), g)


def _kernel_ct_by_taps(x: jax.Array, y_ct: jax.Array, g: Geometry) -> jax.Array:
    delta = _split(y_ct, g.groups)
    if x.shape[-1] == g.groups:
        places = tuple(range(delta.ndim - 2))
        taps = [jnp.sum(x_j[..., None] * delta, places)[None] for x_j in under_taps(x, g)]
    else:
        pairs = (_split(x_j, g.groups) for x_j in under_taps(x, g))
        taps = [jnp.einsum("b...gi,b...go->igo", x_j, delta) for x_j in pairs]
    return _merged(jnp.stack(taps)).reshape(*g.window, x.shape[-1] // g.groups, y_ct.shape[-1])


def _split(x: jax.Array, groups: int) -> jax.Array:
    return x.reshape(*x.shape[:-1], groups, x.shape[-1] // groups)


def _merged(x: jax.Array) -> jax.Array:
    return x.reshape(*x.shape[:-2], x.shape[-2] * x.shape[-1])


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
