"""Elements put elsewhere: a permutation, a slice, a frame.

What was cut off gets the cotangent 0; what reached a constant is dropped.
"""

import jax
from jax import lax
from jax import numpy as jnp
from jaxtyping import Array, Float, Int

from ...domains import Integers, Normal, Point
from .._specs import Spec
from ._linear import linear

X = Float[Array, "*shape"]


def _flip(x: X, *, axis: int = -1) -> X:
    """The order along `axis` reversed, as `jnp.flip`."""
    return jnp.flip(x, axis)


def _at(x: jax.Array, axis: int, start: int | None, stop: int | None, step: int = 1) -> jax.Array:
    index = [slice(None)] * x.ndim
    index[axis] = slice(start, stop, step)
    return x[tuple(index)]


flip = linear(
    _flip,
    lambda y_ct, axis: jnp.flip(y_ct, axis),
    y="y_i = x_(n-1-i)",
    x_ct="x̄_i = ȳ_(n-1-i)",
    because="reversing is symmetric, and its own inverse",
    reference=lambda x, axis=-1: _at(x, axis, None, None, -1),
    domain={"x": Normal()},
    settings=({"axis": 0},),
)


def _roll(x: X, *, shift: int = 1, axis: int = -1) -> X:
    """Elements moved around by `shift` along `axis`, as `jnp.roll`."""
    return jnp.roll(x, shift, axis)


def _rolled(x: X, shift: int = 1, axis: int = -1) -> X:
    cut = -shift % max(x.shape[axis], 1)
    return jnp.concatenate([_at(x, axis, cut, None), _at(x, axis, None, cut)], axis)


roll = linear(
    _roll,
    lambda y_ct, shift, axis: jnp.roll(y_ct, -shift, axis),
    y="y_(i+s mod n) = x_i",
    x_ct="x̄_i = ȳ_(i+s mod n)",
    because="of a permutation it is the inverse",
    reference=_rolled,
    domain={"x": Normal()},
    settings=({"shift": -2, "axis": 0}, {"shift": 8}),
)


def _pad(x: X, *, low: int = 1, high: int = 1, axis: int = -1, constant: float = 0.0) -> X:
    """A frame of `low` and `high` constants around `axis`, as `jnp.pad`; negative widths cut off instead, as
    in `lax.pad`.

    Raises ValueError where more is cut off than there is.
    """
    if x.shape[axis] + low + high < 0:
        raise ValueError(
            f"pad: low = {low} and high = {high} cut off more than the {x.shape[axis]} elements of axis "
            f"{axis}; choose widths of at least {-x.shape[axis]} in all."
        )
    return lax.pad(x, jnp.asarray(constant, x.dtype), _frame(x.ndim, low, high, axis))


def _frame(ndim: int, low: int, high: int, axis: int) -> list[tuple[int, int, int]]:
    config = [(0, 0, 0)] * ndim
    config[axis] = (low, high, 0)
    return config


def _unpadded(y_ct: X, low: int, high: int, axis: int) -> jax.Array:
    return lax.pad(y_ct, jnp.zeros((), y_ct.dtype), _frame(y_ct.ndim, -low, -high, axis))


def _padded(x: X, low: int = 1, high: int = 1, axis: int = -1, constant: float = 0.0) -> X:
    n = x.shape[axis]
    index = jnp.arange(n + low + high) - low
    outside = (index < 0) | (index >= n)
    return jnp.take(x, jnp.where(outside, n, index), axis, mode="fill", fill_value=constant)


pad = linear(
    _pad,
    _unpadded,
    y="y = (c, x, c)",
    x_ct="x̄ = the middle of ȳ",
    because="the frame is constant; padding by -low and -high undoes it, and puts 0 where x was cut off",
    reference=_padded,
    domain={"x": Normal()},
    settings=({"low": 0, "high": 2, "axis": 0, "constant": 3.0}, {"low": -1, "high": 2}),
)


def _concatenate(
    a: Float[Array, "*batch first"], b: Float[Array, "*batch second"]
) -> Float[Array, "*batch n"]:
    """Two arrays one after the other along the last axis, as `jnp.concatenate`."""
    return jnp.concatenate([a, b], -1)


concatenate = linear(
    _concatenate,
    lambda y_ct, a: (y_ct[..., : a.shape[-1]], y_ct[..., a.shape[-1] :]),
    y="y = (a, b)",
    x_ct="(ā, b̄) = ȳ",
    because="each gets back its own part",
    reference=lambda a, b: (
        jnp.zeros((*a.shape[:-1], a.shape[-1] + b.shape[-1]), a.dtype)
        .at[..., : a.shape[-1]]
        .set(a)
        .at[..., a.shape[-1] :]
        .set(b)
    ),
    domain={"a": Normal(), "b": Normal()},
)


def _split(x: X, *, index: int = 1, axis: int = -1) -> tuple[X, X]:
    """The parts before and from `index` on along `axis`, as `jnp.split(x, [index], axis)`.

    Raises ValueError for an index that is negative or beyond the end.
    """
    if not 0 <= index <= x.shape[axis]:
        raise ValueError(
            f"split: index = {index} is outside the {x.shape[axis]} elements of axis {axis}; choose one from "
            f"0 to {x.shape[axis]}."
        )
    return _at(x, axis, None, index), _at(x, axis, index, None)


split = linear(
    _split,
    lambda y_ct, axis: jnp.concatenate(y_ct, axis),
    y="(y₁, y₂) = x",
    x_ct="x̄ = (ȳ₁, ȳ₂)",
    because="each part goes back to its place",
    reference=lambda x, index=1, axis=-1: tuple(jnp.split(x, [index], axis)),
    domain={"x": Normal()},
    settings=({"axis": 0}, {"index": 2}, {"index": 0}),
)

Start = Int[Array, ""]
Rows = Float[Array, "rows *features"]


def _dynamic_slice_in_dim(x: Rows, start: Start, *, size: int = 1) -> Rows:
    """`size` rows from row `start` on, as `jax.lax.dynamic_slice_in_dim` along the first axis.

    A start too near the end, or negative beyond the beginning, is moved so that the slice lies within x; the
    backward pass reads it in the same way. Raises ValueError for a size that x does not have.
    """
    _check_fits("dynamic_slice_in_dim", "size =", size, x.shape[0])
    return lax.dynamic_slice_in_dim(x, start, size)


dynamic_slice_in_dim = linear(
    _dynamic_slice_in_dim,
    lambda y_ct, x, start: lax.dynamic_update_slice_in_dim(jnp.zeros(x.shape, x.dtype), y_ct, start, 0),
    y="y_i = x_(s+i)",
    x_ct="x̄_(s+i) = ȳ_i, 0 elsewhere",
    because="each row goes back to where it was read",
    reference=lambda x, start, size=1: x[_start_of(x, start, size) + jnp.arange(size)],
    domain={"x": Normal(), "start": Integers(0, "rows")},
    points={
        "start beyond the end": Point({"start": 100.0}),
        "start counted from the end": Point({"start": -1.0}),
    },
    settings=({"size": 3},),
    saves="s",
)


def _check_fits(rule: str, what: str, size: int, rows: int) -> None:
    if not 0 <= size <= rows:
        raise ValueError(f"{rule}: {what} {size} does not fit into the {rows} rows of x; make it smaller.")


def _start_of(x: jax.Array, start: jax.Array, size: int) -> jax.Array:
    if size > x.shape[0]:
        raise ValueError("a slice longer than the array")
    return jnp.clip(jnp.where(start < 0, start + x.shape[0], start), 0, x.shape[0] - size)


def _dynamic_update_slice_in_dim(x: Rows, update: Float[Array, "some *features"], start: Start) -> Rows:
    """x with the rows from `start` on replaced, as `jax.lax.dynamic_update_slice_in_dim` along the first
    axis.

    A start is moved as by `dynamic_slice_in_dim`, so that the update lies within x. Raises ValueError for an
    update that is longer than x.
    """
    _check_fits("dynamic_update_slice_in_dim", "an update of length", update.shape[0], x.shape[0])
    return lax.dynamic_update_slice_in_dim(x, update, start, 0)


def _slice_and_rest(y_ct: jax.Array, update: Spec, start: jax.Array) -> tuple[jax.Array, jax.Array]:
    nothing = jnp.zeros(update.shape, y_ct.dtype)
    read = lax.dynamic_slice_in_dim(y_ct, start, update.shape[0])
    return lax.dynamic_update_slice_in_dim(y_ct, nothing, start, 0), read


dynamic_update_slice_in_dim = linear(
    _dynamic_update_slice_in_dim,
    _slice_and_rest,
    y="y = x, but y_(s+i) = u_i",
    x_ct="x̄ = ȳ, but x̄_(s+i) = 0; ū_i = ȳ_(s+i)",
    because="what was overwritten has no influence left",
    reference=lambda x, update, start: x.at[
        _start_of(x, start, update.shape[0]) + jnp.arange(update.shape[0])
    ].set(update),
    domain={"x": Normal(), "update": Normal(), "start": Integers(0, 4)},
    points={"start beyond the end": Point({"start": 100.0})},
    sizes=({"rows": 5, "some": 2, "features": (3,)},),
    saves="s",
)
