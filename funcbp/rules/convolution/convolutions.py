"""Convolution and transposed convolution over 1, 2, 3, … spatial axes; channels last."""

from collections.abc import Sequence

from jax import lax
from jax import numpy as jnp
from jaxtyping import Array, Float

from ..._correlation import Geometry, correlate, input_ct
from ..._rule import Rule
from ...domains import Normal, Point
from ...factors import Factor, Patches, Total
from .._checks import check_cotangent
from ._options import Numbers, Padding, extent, lax_padding, output_length, padding_of, per_axis

X = Float[Array, "batch *inputs in"]
W = Float[Array, "*window in_per_group out"]
B = Float[Array, " out"]
Pads = Sequence[tuple[int, int]]
P = Float[Array, "batch *outputs out"]


def conv_general_fwd(
    x: X,
    w: W,
    b: B | None = None,
    *,
    strides: Numbers = None,
    padding: Padding = None,
    dilation: Numbers = None,
    input_dilation: Numbers = None,
) -> tuple[P, tuple[X, W, B | None]]:
    """Convolution (of neural networks: the kernel is not flipped), with or without a bias.

    Forward, for the output at t, with stride s, dilation d and l zeros in front:

        p_t = Σ_j x_{s t + d j - l} W_j + b

    Backward, with δ = p̄, sums over all examples and over what meets in s t + d j = i + l:

        x̄_i = Σ δ_t W_jᵀ      W̄_j = Σ x_iᵀ δ_t      b̄ = Σ δ_t

    Derivation. All three are derivatives of one form, Σ x_i W_j δ_t over s t + d j = i + l. Solved for i, it
    is a correlation of δ, s - 1 zeros between its entries, with the flipped kernel, d (k - 1) - l zeros in
    front; solved for j, a correlation of x with δ as the kernel, in which stride and dilation change places
    and the batch is what is contracted. (`input_dilation` e: e i for i; then x̄ has stride e.)

    Groups are read from the shapes: in / in_per_group of them, each with its part of the channels of x and of
    the output; 1 for an ordinary kernel, `in` for a depthwise one, `(*window, 1, multiple * in)`.

    Options are one number for all spatial axes, or a tuple. `padding`: None (none), "SAME", "CAUSAL", a
    number, or pairs.

    Saves x, W and b, all alive anyway. Products accumulate in float32 at least and are rounded once. Raises
    ValueError for options that do not fit the shapes.
    """
    geometry = _geometry("conv_general", x, w, strides, padding, dilation, input_dilation)
    p = correlate(x, w, geometry)
    if b is not None:
        p = p + b
    return p.astype(x.dtype), (x, w, b)


def conv_general_pullback(
    residuals: tuple[X, W, B | None],
    p_ct: P,
    *,
    strides: Numbers = None,
    padding: Padding = None,
    dilation: Numbers = None,
    input_dilation: Numbers = None,
) -> tuple[X, Factor, Factor | None]:
    """x̄ = Σ δ_t W_jᵀ, and the factors of W and b."""
    x, w, _ = residuals
    geometry = _geometry("conv_general", x, w, strides, padding, dilation, input_dilation)
    return _pullback("conv_general", residuals, p_ct, geometry)


def _pullback(
    rule: str, residuals: tuple[X, W, B | None], p_ct: P, geometry: Geometry
) -> tuple[X, Factor, Factor | None]:
    x, w, b = residuals
    check_cotangent(rule, p_ct, (x.shape[0], *geometry.outputs, w.shape[-1]), x.dtype)
    x_ct = input_ct(w, p_ct, geometry).astype(x.dtype)
    return x_ct, Patches(x, p_ct, geometry), None if b is None else Total(p_ct)


def _geometry(
    rule: str,
    x: X,
    w: W,
    strides: Numbers,
    padding: Padding,
    dilation: Numbers,
    input_dilation: Numbers,
) -> Geometry:
    rank = x.ndim - 2
    if w.ndim != x.ndim:
        raise ValueError(
            f"{rule}: `x` has {rank} spatial axes, its shape {x.shape} is (batch, *spatial, in); the kernel "
            f"has {w.ndim - 2}, its shape {w.shape} is (*window, in, out)."
        )
    strides = per_axis(rule, "strides", strides, rank)
    dilation = per_axis(rule, "dilation", dilation, rank)
    input_dilation = per_axis(rule, "input_dilation", input_dilation, rank)
    inputs, window = x.shape[1:-1], w.shape[:-2]
    extents = [extent(k, d) for k, d in zip(window, dilation, strict=True)]
    lengths = [extent(n, e) for n, e in zip(inputs, input_dilation, strict=True)]
    pads = padding_of(rule, padding, lengths, extents, strides)
    outputs = [output_length(rule, *each) for each in zip(lengths, pads, extents, strides, strict=True)]
    low = tuple(front for front, _ in pads)
    groups = _groups(rule, x, w)
    return Geometry(inputs, window, tuple(outputs), strides, dilation, input_dilation, low, groups)


def _groups(rule: str, x: X, w: W) -> int:
    channels, inner, out = x.shape[-1], *w.shape[-2:]
    groups = channels // inner if inner else 1
    if groups < 1 or groups * inner != channels or out % groups:
        raise ValueError(
            f"{rule}: the kernel takes {inner} channels and gives {out}, the input has {channels}; the first "
            "must be equal to the last, or, for groups, divide it so many times as also divide the second."
        )
    return groups


def _of_patches(
    x: X, w: W, b: B | None, strides: Numbers, pads: Pads, dilation: Numbers, input_dilation: Numbers
) -> P:
    """The patches that the kernel sees, formed, times the kernel: slow, plain, and under `vmap` as it is."""
    rank, channels = x.ndim - 2, x.shape[-1]

    def each(value: Numbers) -> tuple[int, ...]:
        return value if isinstance(value, tuple) else (value or 1,) * rank

    between = [e - 1 for e in each(input_dilation)]
    config = [(0, 0, 0), *((*pad, e) for pad, e in zip(pads, between, strict=True)), (0, 0, 0)]
    q = lax.pad(x, jnp.zeros((), x.dtype), config)
    for axis, k, s, d in reversed(
        list(zip(range(1, rank + 1), w.shape, each(strides), each(dilation), strict=False))
    ):
        starts = jnp.arange(0, q.shape[axis] - d * (k - 1), s)
        q = jnp.take(q, starts[:, None] + d * jnp.arange(k), axis=axis)
    groups = channels // w.shape[-2]
    q = q.reshape(*q.shape[:-1], groups, w.shape[-2])
    kernel = w.reshape(*w.shape[:-1], groups, w.shape[-1] // groups)
    taps, places = "jkl"[:rank], "tuv"[:rank]
    slid = "".join(t + j for t, j in zip(places, taps, strict=True))
    y = jnp.einsum(f"b{slid}gi,{taps}igo->b{places}go", q, kernel)
    y = y.reshape(*y.shape[:-2], w.shape[-1])
    return y if b is None else y + b


def _conv_general_reference(
    x: X,
    w: W,
    b: B | None = None,
    *,
    strides: Numbers = None,
    padding: Padding = None,
    dilation: Numbers = None,
    input_dilation: Numbers = None,
) -> P:
    rank = x.ndim - 2
    pads = lax_padding(padding, rank)
    if isinstance(pads, str):
        steps, spread = per_axis("", "", strides, rank), per_axis("", "", dilation, rank)
        extents = [(k - 1) * d + 1 for k, d in zip(w.shape, spread, strict=False)]
        causal = [(k - 1, 0) for k in extents]
        pads = causal if pads == "CAUSAL" else lax.padtype_to_pads(x.shape[1:-1], extents, steps, pads)
    return _of_patches(x, w, b, strides, pads, dilation, input_dilation)


conv_general = Rule(
    conv_general_fwd,
    conv_general_pullback,
    reference=_conv_general_reference,
    domain={"x": Normal(), "w": Normal(), "b": Normal()},
    points={"zero kernel": Point({"w": 0.0}, {"x": 0.0})},
    settings=(
        {"strides": 2, "padding": "SAME"},
        {"padding": 1, "dilation": 2},
        {"strides": 2, "padding": 1, "dilation": 2, "input_dilation": 2},
        {"padding": "CAUSAL"},
        {"padding": -1, "input_dilation": 2},
    ),
    sizes=(
        {"batch": 2, "inputs": (4, 3), "in": 4, "window": (3, 2), "in_per_group": 2, "out": 4},
        {"batch": 1, "inputs": (6,), "in": 3, "window": (3,), "in_per_group": 3, "out": 2},
        {"batch": 2, "inputs": (7,), "in": 3, "window": (3,), "in_per_group": 1, "out": 6},
        {"batch": 1, "inputs": (5, 5, 6), "in": 2, "window": (2, 3, 2), "in_per_group": 2, "out": 2},
    ),
    formula="p = x ⋆ W + b; x̄ = δ ⋆ W flipped, W̄ = x ⋆ δ, b̄ = Σ δ",
    saves="x, W, b",
)


Kernel = Float[Array, "*window in out"]


def conv_transpose_fwd(
    x: X,
    w: Kernel,
    b: B | None = None,
    *,
    strides: Numbers = None,
    padding: Padding = None,
    dilation: Numbers = None,
) -> tuple[P, tuple[X, Kernel, B | None]]:
    """Transposed convolution, as `jax.lax.conv_transpose`: s - 1 zeros between the inputs, stride one.

    Forward, for the output at t, with stride s, dilation d and l zeros in front:

        p_t = Σ_j x_i W_j + b      over s i + l = t + d j

    Backward, with δ = p̄:

        x̄_i = Σ_j δ_{s i + l - d j} W_jᵀ      W̄_j = Σ x_iᵀ δ_t      b̄ = Σ δ_t

    Derivation. A convolution with input dilation s. x̄ is an ordinary convolution of δ with stride s: that is
    what the name says. Its kernel is W flipped, in and out exchanged; `lax.conv_transpose` with
    `transpose_kernel=True` takes that kernel.

    `padding`: None or "VALID" gives s n + max(k - s, 0) outputs for n inputs, k the extent of the kernel;
    "SAME" s n; pairs are zeros added to the dilated input.

    Saves x, W and b, all alive anyway. Products accumulate in float32 at least and are rounded once. Raises
    ValueError for options that do not fit the shapes.
    """
    geometry = _transposed_geometry(x, w, strides, padding, dilation)
    p = correlate(x, w, geometry)
    if b is not None:
        p = p + b
    return p.astype(x.dtype), (x, w, b)


def conv_transpose_pullback(
    residuals: tuple[X, Kernel, B | None],
    p_ct: P,
    *,
    strides: Numbers = None,
    padding: Padding = None,
    dilation: Numbers = None,
) -> tuple[X, Factor, Factor | None]:
    """x̄_i = Σ_j δ_{s i + l - d j} W_jᵀ, and the factors of W and b."""
    x, w, _ = residuals
    geometry = _transposed_geometry(x, w, strides, padding, dilation)
    return _pullback("conv_transpose", residuals, p_ct, geometry)


def _transposed_geometry(x: X, w: Kernel, strides: Numbers, padding: Padding, dilation: Numbers) -> Geometry:
    rank = x.ndim - 2
    steps = per_axis("conv_transpose", "strides", strides, rank)
    if padding in (None, "VALID", "SAME") and w.ndim == x.ndim:
        extents = map(extent, w.shape[:-2], per_axis("conv_transpose", "dilation", dilation, rank))
        padding = tuple(_transposed_pads(k, s, padding) for k, s in zip(extents, steps, strict=True))
    return _geometry("conv_transpose", x, w, None, padding, dilation, steps)


def _transposed_pads(taps: int, stride: int, padding: Padding) -> tuple[int, int]:
    """With n inputs dilated to s (n - 1) + 1, what makes s n outputs, or room for whole kernels."""
    if padding != "SAME":
        return taps - 1, max(taps, stride) - 1
    total = taps + stride - 2
    front = taps - 1 if stride > taps - 1 else -(-total // 2)
    return front, total - front


def _conv_transpose_reference(
    x: X,
    w: Kernel,
    b: B | None = None,
    *,
    strides: Numbers = None,
    padding: Padding = None,
    dilation: Numbers = None,
) -> P:
    geometry = _transposed_geometry(x, w, strides, padding, dilation)
    pads = [
        (low, m - 1 + d * (k - 1) - s * (n - 1) - low)
        for n, k, m, s, d, low in zip(
            geometry.inputs,
            geometry.window,
            geometry.outputs,
            geometry.input_dilation,
            geometry.dilation,
            geometry.low,
            strict=True,
        )
    ]
    return _of_patches(x, w, b, None, pads, dilation, strides)


conv_transpose = Rule(
    conv_transpose_fwd,
    conv_transpose_pullback,
    reference=_conv_transpose_reference,
    domain={"x": Normal(), "w": Normal(), "b": Normal()},
    points={"zero kernel": Point({"w": 0.0}, {"x": 0.0})},
    settings=(
        {"strides": 2, "padding": "SAME"},
        {"strides": 3, "padding": "SAME"},
        {"strides": 2},
        {"strides": 2, "padding": 1, "dilation": 2},
    ),
    sizes=(
        {"batch": 2, "inputs": (2, 2), "in": 2, "window": (3, 2), "out": 3},
        {"batch": 1, "inputs": (4,), "in": 3, "window": (3,), "out": 2},
        {"batch": 1, "inputs": (2, 3, 2), "in": 1, "window": (3, 2, 2), "out": 2},
    ),
    formula="p = x (dilated) ⋆ W + b; x̄ = δ ⋆ W flipped with stride s, W̄ = x ⋆ δ, b̄ = Σ δ",
    saves="x, W, b",
)
