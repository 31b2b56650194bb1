"""The value of an expression of the derivation, in JAX: it may be traced."""

from collections.abc import Mapping
from typing import Any

import jax
from jax import numpy as jnp

from .._derive._nodes import ADD, CONTRACTION, VARIABLE, Node
from .._derive._scalars import Dimension

__all__ = ["Values", "shape_of"]


class Values:
    """Values of nodes, each computed once.

    Args:
        variables: the arrays by name, without axes of size 1.
    """

    def __init__(self, variables: Mapping[str, jax.Array]) -> None:
        self._variables, self._memo = variables, dict[Node, jax.Array]()

    def __call__(self, node: Node) -> jax.Array:
        """The value of a node."""
        if node not in self._memo:
            self._memo[node] = self._computed(node)
        return self._memo[node]

    def of(self, node: Node, *args: jax.Array) -> jax.Array:
        """The operation of a node, applied to other arguments."""
        names = [f"argument{k}" for k in range(len(args))]
        namespace: dict[str, Any] = {"jnp": jnp, "jax": jax, **dict(zip(names, args, strict=True))}
        return jnp.asarray(eval(node.op.python(node, names), namespace))

    def _computed(self, node: Node) -> jax.Array:
        if node.op is VARIABLE:
            return self._variables[node.data]
        simpler = node.op.expanded(node)
        if simpler is not None:
            return self(simpler)
        args = [self(a) for a in node.args]
        if node.op is ADD:
            return jnp.broadcast_to(sum(args[1:], args[0]), shape_of(node))
        if node.op is CONTRACTION:
            return _contracted(node, args)
        return self.of(node, *args)


def shape_of(node: Node) -> tuple[int, ...]:
    """The shape of a node of a trace whose sizes are numbers."""
    return tuple(map(_whole, node.shape))


def _whole(dimension: Dimension) -> int:
    return int(dimension)


def _contracted(node: Node, args: list[jax.Array]) -> jax.Array:
    coefficient, labels, out = node.data
    number, shape = coefficient.value({}), shape_of(node)
    if not args:
        return jnp.full(shape, number)
    present = [k for k in out if any(k in ks for ks in labels)]
    letters = {k: i for i, k in enumerate(dict.fromkeys(k for ks in labels for k in ks))}
    operands = [x for a, ks in zip(args, labels, strict=True) for x in (a, [letters[k] for k in ks])]
    product = jnp.einsum(*operands, [letters[k] for k in present])
    missing = [axis for axis, k in enumerate(out) if k not in present]
    return number * jnp.broadcast_to(jnp.expand_dims(product, missing), shape)
