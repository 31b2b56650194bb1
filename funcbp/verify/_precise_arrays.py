"""Primitives that move numbers about and compute nothing: done by NumPy on arrays of any objects.

What is more than a NumPy function is done on positions: a primitive that gathers is applied to an array of
integers that says where each number comes from.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import mpmath
import numpy as np
from jax import lax
from jax import numpy as jnp

from ._precise_numbers import elementwise, is_precise, larger, smaller, to_numbers

__all__ = ["STRUCTURAL", "positions", "taken", "windows"]


def taken(x: np.ndarray, where: np.ndarray, fill: Any) -> np.ndarray:
    """The elements of an array at flat positions; a fill value where the position is negative."""
    padded = np.empty(x.size + 1, x.dtype)
    padded[:-1] = x.reshape(-1)
    padded[-1:] = [fill]
    return np.asarray(padded[np.where(where < 0, x.size, where)])


def positions(shape: Sequence[int]) -> np.ndarray:
    """The flat position of every element of an array."""
    return np.arange(math.prod(shape)).reshape(tuple(shape))


def windows(
    shape: Sequence[int],
    size: Sequence[int],
    strides: Sequence[int],
    padding: Sequence[tuple[int, int]],
    base_dilation: Sequence[int],
    window_dilation: Sequence[int],
) -> np.ndarray:
    """For every window over an array, the flat positions of its elements in one last axis; -1 for padding."""
    edges = [(low, high, dilation - 1) for (low, high), dilation in zip(padding, base_dilation, strict=True)]
    padded = pad(positions(shape), -1, edges)
    spans = [(n - 1) * d + 1 for n, d in zip(size, window_dilation, strict=True)]
    counts = [max((n - s) // t + 1, 0) for n, s, t in zip(padded.shape, spans, strides, strict=True)]
    found = []
    for offset in itertools.product(*map(range, size)):
        starts = [o * d for o, d in zip(offset, window_dilation, strict=True)]
        index = tuple(slice(a, a + c * t, t) for a, c, t in zip(starts, counts, strides, strict=True))
        found.append(padded[index][tuple(slice(c) for c in counts)])
    return np.stack(found, axis=-1) if found else np.zeros((*counts, 0), int)


def pad(x: np.ndarray, fill: Any, edges: Sequence[tuple[int, int, int]]) -> np.ndarray:
    """As `jax.lax.pad`: (low, high, interior) for each axis; negative low and high crop."""
    shape = [max((n - 1) * i + n, 0) if n else 0 for n, (_, _, i) in zip(x.shape, edges, strict=True)]
    whole = np.empty(
        [n + max(lo, 0) + max(hi, 0) for n, (lo, hi, _) in zip(shape, edges, strict=True)], x.dtype
    )
    whole[...] = fill
    inside = tuple(
        slice(max(lo, 0), max(lo, 0) + n, i + 1) for n, (lo, _, i) in zip(shape, edges, strict=True)
    )
    whole[inside] = x
    crop = tuple(
        slice(max(-lo, 0), n - max(-hi, 0)) for n, (lo, hi, _) in zip(whole.shape, edges, strict=True)
    )
    return whole[crop]


def _iota(equation: Any) -> np.ndarray:
    shape, axis = equation.params["shape"], equation.params["dimension"]
    index = np.arange(shape[axis]).reshape([-1 if k == axis else 1 for k in range(len(shape))])
    return to_numbers(np.broadcast_to(index, shape).astype(equation.params["dtype"]))


def _broadcast(equation: Any, x: Any, *_: Any) -> np.ndarray:
    shape, axes = equation.params["shape"], equation.params["broadcast_dimensions"]
    x = np.asarray(x)
    full = [1] * len(shape)
    for axis, n in zip(axes, x.shape, strict=True):
        full[axis] = n
    return np.broadcast_to(x.reshape(full), shape)


def _slice(equation: Any, x: np.ndarray) -> np.ndarray:
    p = equation.params
    strides = p["strides"] or (1,) * x.ndim
    return np.asarray(x[tuple(map(slice, p["start_indices"], p["limit_indices"], strides))])


def _starts(shape: Sequence[int], sizes: Sequence[int], given: Sequence[Any]) -> tuple[slice, ...]:
    begin = [min(max(int(s), 0), n - k) for s, n, k in zip(given, shape, sizes, strict=True)]
    return tuple(slice(b, b + k) for b, k in zip(begin, sizes, strict=True))


def _dynamic_slice(equation: Any, x: np.ndarray, *given: Any) -> np.ndarray:
    return np.asarray(x[_starts(x.shape, equation.params["slice_sizes"], given)])


def _dynamic_update(equation: Any, x: np.ndarray, new: np.ndarray, *given: Any) -> np.ndarray:
    del equation
    out = x.copy()
    out[_starts(x.shape, new.shape, given)] = new
    return out


def _pad(equation: Any, x: np.ndarray, fill: Any) -> np.ndarray:
    return pad(x, np.asarray(fill).item(), equation.params["padding_config"])


def _split(equation: Any, x: np.ndarray) -> list[np.ndarray]:
    ends = np.cumsum(equation.params["sizes"])[:-1]
    return list(np.split(x, ends, axis=equation.params["axis"]))


def _select(equation: Any, which: np.ndarray, *cases: np.ndarray) -> np.ndarray:
    del equation
    which = np.broadcast_to(np.asarray(which).astype(int), cases[0].shape)
    return np.asarray(np.take_along_axis(np.stack(cases), which[None], axis=0)[0])


def _gather(equation: Any, x: np.ndarray, indices: Any) -> np.ndarray:
    p = equation.params
    mode = p["mode"]
    where = lax.gather(
        jnp.asarray(positions(x.shape)),
        jnp.asarray(indices),
        p["dimension_numbers"],
        p["slice_sizes"],
        mode=mode,
        fill_value=-1 if mode == lax.GatherScatterMode.FILL_OR_DROP else None,
    )
    fill = p.get("fill_value")
    if is_precise(x):
        fill = mpmath.mpf("nan" if fill is None else fill)
    elif fill is None:
        # As JAX fills: the largest unsigned number, the smallest signed one.
        fill = (
            True
            if x.dtype == bool
            else np.iinfo(x.dtype).max
            if x.dtype.kind == "u"
            else np.iinfo(x.dtype).min
        )
    return taken(x, np.asarray(where), fill)


def _scatter(combine: Callable[[Any, Any], Any]) -> Callable[..., np.ndarray]:
    def scattered(equation: Any, x: np.ndarray, indices: Any, updates: np.ndarray) -> np.ndarray:
        where = _targets(equation, x.shape, indices, updates.shape)
        flat = x.reshape(-1).copy()
        for at, value in zip(where.reshape(-1).tolist(), updates.reshape(-1), strict=True):
            if at >= 0:
                flat[at] = combine(flat[at], value)
        return flat.reshape(x.shape)

    return scattered


def _targets(equation: Any, shape: tuple[int, ...], indices: Any, updates: tuple[int, ...]) -> np.ndarray:
    """Where each update goes: the gather that reads what the scatter writes, of positions."""
    d = equation.params["dimension_numbers"]
    batching = tuple(getattr(d, "operand_batching_dims", ()))
    left = [k for k in range(len(shape)) if k not in (*d.inserted_window_dims, *batching)]
    sizes = [1] * len(shape)
    for axis, window in zip(left, d.update_window_dims, strict=True):
        sizes[axis] = updates[window]
    numbers = lax.GatherDimensionNumbers(
        offset_dims=d.update_window_dims,
        collapsed_slice_dims=d.inserted_window_dims,
        start_index_map=d.scatter_dims_to_operand_dims,
        operand_batching_dims=batching,
        start_indices_batching_dims=tuple(getattr(d, "scatter_indices_batching_dims", ())),
    )
    mode = equation.params["mode"]
    fill = -1 if mode == lax.GatherScatterMode.FILL_OR_DROP else None
    index = jnp.asarray(positions(shape))
    return np.asarray(
        lax.gather(index, jnp.asarray(indices), numbers, tuple(sizes), mode=mode, fill_value=fill)
    )


def _convert(equation: Any, x: Any) -> Any:
    dtype = equation.params["new_dtype"]
    if jnp.issubdtype(dtype, jnp.complexfloating):
        return elementwise(mpmath.mpc, to_numbers(np.asarray(x, np.float64)) if not is_precise(x) else x)
    if jnp.issubdtype(dtype, jnp.floating):
        return elementwise(mpmath.re, x) if is_precise(x) else to_numbers(np.asarray(x, np.float64))
    if not is_precise(x):
        return np.asarray(x).astype(dtype)
    whole = elementwise(lambda v: int(v) if mpmath.isfinite(v) else 0, x)
    return whole.astype(dtype)


def _reshape(equation: Any, x: np.ndarray, *_: Any) -> np.ndarray:
    order = equation.params.get("dimensions")
    return np.reshape(x if order is None else x.transpose(order), equation.params["new_sizes"])


def _same(equation: Any, x: Any) -> Any:
    del equation
    return x


STRUCTURAL: dict[str, Callable[..., Any]] = {
    "broadcast_in_dim": _broadcast,
    "concatenate": lambda equation, *xs: np.concatenate(xs, axis=equation.params["dimension"]),
    "convert_element_type": _convert,
    "copy": _same,
    "copy_p": _same,
    "device_put": _same,
    "dynamic_slice": _dynamic_slice,
    "dynamic_update_slice": _dynamic_update,
    "expand_dims": lambda equation, x: np.expand_dims(x, equation.params["dimensions"]),
    "gather": _gather,
    "iota": _iota,
    "name": _same,
    "pad": _pad,
    "reduce_precision": _same,
    "reshape": _reshape,
    "rev": lambda equation, x: np.flip(x, equation.params["dimensions"]),
    "scatter": _scatter(lambda _, new: new),
    "scatter-add": _scatter(lambda old, new: old + new),
    "scatter-max": _scatter(larger),
    "scatter-min": _scatter(smaller),
    "scatter-mul": _scatter(lambda old, new: old * new),
    "scatter_add": _scatter(lambda old, new: old + new),
    "scatter_max": _scatter(larger),
    "scatter_min": _scatter(smaller),
    "scatter_mul": _scatter(lambda old, new: old * new),
    "select_n": _select,
    "sharding_constraint": _same,
    "slice": _slice,
    "split": _split,
    "squeeze": lambda equation, x: np.squeeze(x, equation.params["dimensions"]),
    "stop_gradient": _same,
    "transpose": lambda equation, x: np.transpose(x, equation.params["permutation"]),
}
"""What `(equation, *arrays)` gives, by the name of the primitive; of integers, too."""
