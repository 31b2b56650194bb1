"""Primitives that add up, search and sort, on arrays of mpmath numbers."""

from collections.abc import Callable
from typing import Any

import mpmath
import numpy as np
from mpmath import mpf

from ._precise_arrays import taken, windows
from ._precise_numbers import larger, smaller, to_numbers, wrapped

__all__ = ["SUMMED", "NotPrecise", "product"]


class NotPrecise(NotImplementedError):
    """A program cannot be evaluated in high precision; `reason` says what stands in the way."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"{reason} is not evaluated in high precision.")
        self.reason = reason


def product(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """x yᵀ for x of shape (..., m, k) and y of shape (..., n, k)."""
    out = np.empty((*x.shape[:-1], y.shape[-2]), object)
    rights = {at: [y[at][j].tolist() for j in range(y.shape[-2])] for at in np.ndindex(y.shape[:-2])}
    for at in np.ndindex(x.shape[:-1]):
        left = x[at].tolist()
        for j, right in enumerate(rights[at[:-1]]):
            out[(*at, j)] = mpmath.fdot(zip(left, right, strict=True))
    return out


def _dot(equation: Any, x: Any, y: Any) -> np.ndarray:
    (left, right), (left_batch, right_batch) = equation.params["dimension_numbers"]
    x, y = (
        _split(to_numbers(_number(x)), left_batch, left),
        _split(to_numbers(_number(y)), right_batch, right),
    )
    (xs, batch, rows), (ys, _, columns) = x, y
    return product(xs, ys).reshape((*batch, *rows, *columns))


def _number(x: Any) -> Any:
    return x if x.dtype == object else np.asarray(x, np.float64)


def _split(x: np.ndarray, batch: Any, contracted: Any) -> tuple[np.ndarray, list[int], list[int]]:
    """With axes (batch..., free, contracted); the sizes of the batch axes; of the free ones."""
    free = [k for k in range(x.ndim) if k not in (*batch, *contracted)]
    sizes = [[x.shape[k] for k in axes] for axes in (batch, free, contracted)]
    moved = x.transpose(*batch, *free, *contracted)
    flat = moved.reshape(*sizes[0], int(np.prod(sizes[1], dtype=int)), int(np.prod(sizes[2], dtype=int)))
    return flat, sizes[0], sizes[1]


def _convolution(equation: Any, x: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    p = equation.params
    numbers = p["dimension_numbers"]
    x, kernel = to_numbers(_number(x)), to_numbers(_number(kernel))
    x, kernel = x.transpose(numbers.lhs_spec), kernel.transpose(numbers.rhs_spec)
    space = x.shape[2:]
    where = windows(
        space, kernel.shape[2:], p["window_strides"], p["padding"], p["lhs_dilation"], p["rhs_dilation"]
    )
    # Groups of features, and of examples for a kernel's gradient, each have their own part of the kernel.
    groups, batches = p["feature_group_count"], p["batch_group_count"]
    outputs = []
    for g, part in enumerate(np.split(kernel, groups * batches)):
        rows = np.split(x, batches)[g // groups] if batches > 1 else x
        rows = np.split(rows, groups, axis=1)[g % groups]
        patches = taken_each(rows, where)
        flat = patches.reshape(len(rows), int(np.prod(where.shape[:-1], dtype=int)), -1)
        value = product(flat, part.reshape(len(part), -1)[None].repeat(len(rows), axis=0))
        outputs.append(np.moveaxis(value, -1, 1))
    out = np.concatenate(outputs, axis=1)
    out = out.reshape(*out.shape[:2], *where.shape[:-1])
    return out.transpose(np.argsort(numbers.out_spec))


def taken_each(rows: np.ndarray, where: np.ndarray) -> np.ndarray:
    """Patches (examples, windows..., channels, window) of rows (examples, channels, ...)."""
    n, channels = rows.shape[:2]
    size = int(np.prod(rows.shape[2:], dtype=int))
    base = np.arange(n * channels).reshape(n, channels, *(1,) * where.ndim) * size
    index = np.where(where < 0, -1, base + where)
    return np.moveaxis(taken(rows, index, mpf(0)), 1, -2)


def _last(x: np.ndarray, axes: Any) -> np.ndarray:
    """With the given axes as one last axis."""
    kept = [k for k in range(x.ndim) if k not in axes]
    return x.transpose(*kept, *axes).reshape(*[x.shape[k] for k in kept], -1)


def _reduced(function: Callable[[Any, Any], Any], start: float) -> Callable[..., np.ndarray]:
    ufunc = np.frompyfunc(function, 2, 1)

    def reduced(equation: Any, x: np.ndarray, *_: Any) -> np.ndarray:
        rows = _last(x, equation.params["axes"])
        if rows.shape[-1] == 0:
            return wrapped(mpf(start), rows.shape[:-1])
        return wrapped(ufunc.reduce(rows, axis=-1), rows.shape[:-1])

    return reduced


def _sum(equation: Any, x: np.ndarray, *_: Any) -> np.ndarray:
    rows = _last(x, equation.params["axes"])
    out = np.empty(rows.shape[:-1], object)
    for at in np.ndindex(out.shape):
        out[at] = mpmath.fsum(rows[at].tolist())
    return out


def _accumulated(function: Callable[[Any, Any], Any]) -> Callable[..., np.ndarray]:
    ufunc = np.frompyfunc(function, 2, 1)

    def accumulated(equation: Any, x: np.ndarray) -> np.ndarray:
        axis, reverse = equation.params["axis"], equation.params["reverse"]
        turned = np.flip(x, axis) if reverse else x
        out = ufunc.accumulate(turned, axis=axis)
        return np.flip(out, axis) if reverse else out

    return accumulated


def _log_sum(x: Any, y: Any) -> Any:
    high, low = larger(x, y), smaller(x, y)
    if mpmath.isinf(high):
        return high
    return high + mpmath.log1p(mpmath.exp(low - high)) if low != -mpmath.inf else high


def _best(pick: Callable[..., Any]) -> Callable[..., np.ndarray]:
    def best(equation: Any, x: np.ndarray) -> np.ndarray:
        (axis,) = equation.params["axes"]
        return np.asarray(pick(x, axis=axis)).astype(equation.params["index_dtype"])

    return best


def _order(keys: list[np.ndarray], axis: int) -> np.ndarray:
    order = np.broadcast_to(
        np.arange(keys[0].shape[axis]).reshape([-1 if k == axis else 1 for k in range(keys[0].ndim)]),
        keys[0].shape,
    )
    for key in reversed(keys):
        now = np.take_along_axis(key, order, axis)
        order = np.take_along_axis(order, np.argsort(now, axis=axis, kind="stable"), axis)
    return order


def _sort(equation: Any, *arrays: np.ndarray) -> list[np.ndarray]:
    axis = equation.params["dimension"]
    order = _order(list(arrays[: equation.params["num_keys"]]), axis)
    return [np.take_along_axis(np.asarray(x), order, axis) for x in arrays]


def _top(equation: Any, x: np.ndarray) -> list[np.ndarray]:
    axis = equation.params.get("axis", x.ndim - 1) % x.ndim
    order = np.take(_order([-x], axis), range(equation.params["k"]), axis)
    return [np.take_along_axis(x, order, axis), order.astype(np.int32)]


def _of_windows(function: Callable[[Any, Any], Any], start: float) -> Callable[..., np.ndarray]:
    ufunc = np.frompyfunc(function, 2, 1)

    def reduced(equation: Any, x: np.ndarray) -> np.ndarray:
        rows = taken(x, _windows(equation, x.shape), mpf(start))
        return wrapped(ufunc.reduce(rows, axis=-1), rows.shape[:-1])

    return reduced


def _windows(equation: Any, shape: tuple[int, ...]) -> np.ndarray:
    p = equation.params
    ones = (1,) * len(shape)
    dilations = p.get("base_dilation", ones), p.get("window_dilation", ones)
    return windows(shape, p["window_dimensions"], p["window_strides"], p["padding"], *dilations)


def _chosen(equation: Any, operand: np.ndarray) -> np.ndarray:
    """The flat position of the element that each window selects: the first of the best ones."""
    where = _windows(equation, operand.shape)
    best = mpf("-inf") if equation.params["select_prim"].name == "ge" else mpf("inf")
    rows = taken(operand, where, best)
    index = np.argmax(rows, axis=-1) if best < 0 else np.argmin(rows, axis=-1)
    return np.take_along_axis(where, index[..., None], -1)[..., 0]


def _select_and_gather(equation: Any, tangents: np.ndarray, operand: np.ndarray) -> np.ndarray:
    return taken(tangents, _chosen(equation, operand), mpf(0))


def _select_and_scatter(equation: Any, source: np.ndarray, operand: np.ndarray) -> np.ndarray:
    out = wrapped(mpf(0), (operand.size,))
    for at, value in zip(_chosen(equation, operand).reshape(-1).tolist(), source.reshape(-1), strict=True):
        out[at] += value
    return out.reshape(operand.shape)


SUMMED: dict[str, Callable[..., Any]] = {
    "argmax": _best(np.argmax),
    "argmin": _best(np.argmin),
    "conv_general_dilated": _convolution,
    "cumlogsumexp": _accumulated(_log_sum),
    "cummax": _accumulated(larger),
    "cummin": _accumulated(smaller),
    "cumprod": _accumulated(lambda x, y: x * y),
    "cumsum": _accumulated(lambda x, y: x + y),
    "dot_general": _dot,
    "reduce_max": _reduced(larger, -np.inf),
    "reduce_min": _reduced(smaller, np.inf),
    "reduce_prod": _reduced(lambda x, y: x * y, 1.0),
    "reduce_sum": _sum,
    "reduce_window_max": _of_windows(larger, -np.inf),
    "reduce_window_min": _of_windows(smaller, np.inf),
    "reduce_window_sum": _of_windows(lambda x, y: x + y, 0.0),
    "select_and_gather_add": _select_and_gather,
    "select_and_scatter_add": _select_and_scatter,
    "sort": _sort,
    "top_k": _top,
}
"""What `(equation, *arrays)` gives, by the name of the primitive."""
