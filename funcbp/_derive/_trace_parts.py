"""What the primitives are that take arrays apart and put them together: slices, blocks, repetition."""

from fractions import Fraction
from typing import Any

import numpy as np

from ._algebra import add, broadcast
from ._nodes import Node
from ._operations import place_axis, reshape, reverse, slice_axis
from ._predicates import constant_value, is_zero
from ._scalars import ZERO, Scalar, scalar_of_dimension
from ._trace import Equation, dimension, live
from ._trace_rules import RULES, is_one, kept_axes, rule

__all__ = ["RULES"]


@rule("slice")
def _slice(eqn: Equation) -> Node:
    strides = eqn.params["strides"] or (1,) * len(eqn.out)
    return _sliced(eqn, list(eqn.params["start_indices"]), eqn.out, strides)


def _sliced(eqn: Equation, starts: list[Any], sizes: Any, strides: Any) -> Node:
    node, shape = eqn.args[0], eqn.shapes[0]
    for k in reversed(live(shape)):
        axis = live(shape).index(k)
        start = starts[k] if isinstance(starts[k], Scalar) else scalar_of_dimension(dimension(starts[k]))
        size = dimension(sizes[k])
        stop = start.plus(scalar_of_dimension(size) * Scalar(Fraction(strides[k])))
        node = slice_axis(node, axis, start, stop, strides[k], size)
    return node


@rule("dynamic_slice")
def _dynamic_slice(eqn: Equation) -> Node:
    starts = [constant_value(n) for n in eqn.args[1:]]
    if any(s is None for s in starts):
        raise eqn.refuse("the beginning of the slice is not known when it is traced")
    sizes = [int(s) if _is_number(s) else s for s in eqn.params["slice_sizes"]]
    return _sliced(eqn, starts, sizes, (1,) * len(sizes))


def _is_number(size: Any) -> bool:
    return isinstance(size, (int, np.integer))


@rule("gather")
def _gather(eqn: Equation) -> Node:
    """Indexing with numbers that the program knows: x[0], X[:, 1], x[1:3]."""
    numbers, start = eqn.params["dimension_numbers"], constant_value(eqn.args[1])
    if start is None or start.powers or len(eqn.shapes[1]) != 1:
        raise eqn.refuse("indices that depend on data")
    if numbers.operand_batching_dims:
        raise eqn.refuse("batched indices")
    starts: list[Any] = [0] * len(eqn.shapes[0])
    for k in numbers.start_index_map:
        size = eqn.shapes[0][int(k)]
        first = int(start.number)
        starts[int(k)] = first if first >= 0 or not _is_number(size) else first + int(size)
    return _sliced(eqn, starts, eqn.params["slice_sizes"], (1,) * len(starts))


@rule("split")
def _split(eqn: Equation) -> list[Node]:
    axis, start, parts = eqn.params["axis"], ZERO, []
    k = live(eqn.shapes[0]).index(axis)
    for size in eqn.params["sizes"]:
        stop = start.plus(scalar_of_dimension(dimension(size)))
        parts.append(slice_axis(eqn.args[0], k, start, stop, 1, dimension(size)))
        start = stop
    return parts


@rule("concatenate")
def _concatenate(eqn: Equation) -> Node:
    axis, start, parts = eqn.params["dimension"], ZERO, []
    k = live(eqn.out).index(axis)
    for node, shape in zip(eqn.args, eqn.shapes, strict=True):
        size = dimension(shape[axis])
        parts.append(place_axis(node, k, start, size, eqn.dims))
        start = start.plus(scalar_of_dimension(size))
    return add(*parts)


@rule("stack")
def _stack(eqn: Equation) -> Node:
    axis = eqn.params["axis"]
    if axis not in live(eqn.out):
        return eqn.args[0]
    k = live(eqn.out).index(axis)
    parts = [place_axis(node, k, Scalar(Fraction(n)), 1, eqn.dims) for n, node in enumerate(eqn.args)]
    return add(*parts)


@rule("tile")
def _tile(eqn: Equation) -> Node:
    """Repeated along new axes, each of which then becomes one with the axis behind it."""
    shape: list[Any] = []
    axes: list[int] = []
    for repeats, size in zip(eqn.params["reps"], eqn.shapes[0], strict=True):
        shape += [] if repeats == 1 else [int(repeats)]
        if not is_one(size):
            axes.append(len(shape))
            shape.append(dimension(size))
    return reshape(broadcast(eqn.args[0], axes, shape), eqn.dims)


@rule("pad")
def _pad(eqn: Equation) -> Node:
    """Zeros around, which is all that has a name here."""
    node, config = eqn.args[0], eqn.params["padding_config"]
    if not is_zero(eqn.args[1]) or any(
        between or _is_negative(before) or _is_negative(after) for before, after, between in config
    ):
        raise eqn.refuse("only with zeros, around and not between")
    shape, kept = list(eqn.shapes[0]), live(eqn.out)
    for axis in kept:
        size, shape[axis] = dimension(shape[axis]), eqn.out[axis]
        whole = tuple(dimension(shape[k]) for k in live(shape))
        start = scalar_of_dimension(dimension(config[axis][0]))
        node = place_axis(node, live(shape).index(axis), start, size, whole)
    return node


def _is_negative(size: Any) -> bool:
    return _is_number(size) and size < 0


@rule("rev")
def _rev(eqn: Equation) -> Node:
    axes = kept_axes(eqn, "dimensions")
    return reverse(eqn.args[0], axes) if axes else eqn.args[0]
