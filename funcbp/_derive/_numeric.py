"""The value of an expression, computed with NumPy: for a few small arrays, without compiling anything."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from ._nodes import ADD, CONTRACTION, VARIABLE, Node
from ._operations import PLACE, SLICE
from ._scalars import Dimension, Scalar, scalar_of_dimension

__all__ = ["value_of"]


def value_of(
    node: Node, values: Mapping[str, np.ndarray], sizes: Mapping[str, int], memo: dict[Node, np.ndarray]
) -> np.ndarray:
    """An expression at values of its variables.

    Args:
        node: the expression.
        values: by name of variable.
        sizes: of the named dimensions.
        memo: what is known already, which must be of the same values; it is added to.

    Raises:
        KeyError: for a variable without a value, as those of a recurrence's steps.
    """
    if node not in memo:
        memo[node] = _computed(node, values, sizes, memo)
    return memo[node]


def _computed(
    node: Node, values: Mapping[str, np.ndarray], sizes: Mapping[str, int], memo: dict[Node, np.ndarray]
) -> np.ndarray:
    if node.op is VARIABLE:
        return values[node.data]
    simpler = node.op.expanded(node)
    if simpler is not None:
        return value_of(simpler, values, sizes, memo)
    args = [value_of(a, values, sizes, memo) for a in node.args]
    shape = tuple(_size(d, sizes) for d in node.shape)
    if node.op is ADD:
        return np.broadcast_to(sum(args, np.zeros(())), shape)
    if node.op is CONTRACTION:
        return _contracted(node, args, shape, sizes)
    if node.op is SLICE:
        return args[0][_part(node, sizes)]
    if node.op is PLACE:
        whole = np.zeros(shape)
        whole[_part(node, sizes)] = args[0]
        return whole
    names = [f"argument{k}" for k in range(len(args))]
    namespace: dict[str, Any] = {"jnp": np, "jax": jax, **sizes, **dict(zip(names, args, strict=True))}
    return np.asarray(eval(node.op.python(node, names), namespace))


def _contracted(
    node: Node, args: list[np.ndarray], shape: tuple[int, ...], sizes: Mapping[str, int]
) -> np.ndarray:
    coefficient, labels, out = node.data
    number = np.float64(coefficient.value(dict(sizes)))
    present = [k for k in out if any(k in ks for ks in labels)]
    if not args:
        return np.broadcast_to(number, shape)
    operands = [x for pair in zip(args, labels, strict=True) for x in (pair[0], list(pair[1]))]
    product = number * np.einsum(*operands, present)
    missing = tuple(a for a, k in enumerate(out) if k not in present)
    return np.broadcast_to(np.expand_dims(product, missing), shape)


def _size(dimension: Dimension, sizes: Mapping[str, int]) -> int:
    return _whole(scalar_of_dimension(dimension), sizes)


def _whole(scalar: Scalar, sizes: Mapping[str, int]) -> int:
    return round(scalar.value(dict(sizes)))


def _part(node: Node, sizes: Mapping[str, int]) -> tuple[Any, ...]:
    """The index of the part that a slice takes, or that is filled in."""
    axis, start, stop, stride, drop = node.data
    first = _whole(start, sizes)
    index = first if drop else slice(first, _whole(stop, sizes), stride)
    return (*[slice(None)] * axis, index)
