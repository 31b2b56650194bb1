"""The structure of any function, by the differential form of its derivation.

J of a node is Σ_k (∂node/∂argument_k) J(argument_k), a product of structures along every path; what several
paths share is written once. A node is differentiated as `derive` does it; dF is linear in d of what moves,
and a linear expression of matrices is a sum of L dX R, S ⊙ dX and transposes.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax import numpy as jnp

from .._derive._errors import UnsupportedError
from .._derive._nodes import (
    ADD,
    CONTRACTION,
    VARIABLE,
    Node,
    Session,
    keeping_products,
    topological,
    variable,
)
from .._derive._operations import PLACE, RESHAPE, REVERSE, SLICE
from .._derive._softmax import LOG_SOFTMAX, SOFTMAX
from .._derive._trace import Trace, live, trace_shapes
from .._derive._trace_calls import RULES
from ._contraction import by_factor, written
from ._operator import Operator, Shape, size
from ._rows import log_softmax_rows, softmax_rows
from ._values import Values, shape_of
from .identity import Identity
from .kronecker import Kronecker
from .matrix_free import MatrixFree
from .product import compose
from .selection import Selection
from .sum import add

__all__ = ["of_function"]

_MOVING = "·"


@dataclasses.dataclass(frozen=True)
class _FunctionMaps:
    """Derivatives of a function by one leaf of its arguments, by automatic differentiation."""

    function: Callable[..., Any]
    structure: Any
    position: int

    def push(self, args: Any, x_t: jax.Array) -> jax.Array:
        """Forward mode; where a function has only a backward pass, the transpose of that."""
        x = args[self.position]
        try:
            return jax.jvp(self._at(args), (x,), (x_t,))[1]
        except TypeError:
            y, pull = jax.vjp(self._at(args), x)
            return jax.linear_transpose(lambda ct: pull(ct)[0], y)(x_t)[0]

    def pull(self, args: Any, y_ct: jax.Array) -> jax.Array:
        """The backward pass."""
        return jax.vjp(self._at(args), args[self.position])[1](y_ct)[0]

    def _at(self, args: Sequence[Any]) -> Callable[[jax.Array], jax.Array]:
        def at(x: jax.Array) -> jax.Array:
            leaves = [*args[: self.position], x, *args[self.position + 1 :]]
            return self.function(*jax.tree.unflatten(self.structure, leaves))

        return at


def of_function(
    function: Callable[..., Any],
    structure: Any,
    leaves: Sequence[jax.Array],
    names: Sequence[str],
    position: int,
) -> Operator:
    """The Jacobian of `function` by the leaf at `position` of its arguments.

    Args:
        function: of arrays and trees of them; returns an array.
        structure: the tree of its arguments.
        leaves: the arrays.
        names: of the leaves.
        position: which one.
    """

    def flat(*arrays: Any) -> Any:
        return function(*jax.tree.unflatten(structure, arrays))

    spec = jax.eval_shape(flat, *leaves)
    if not isinstance(spec, jax.ShapeDtypeStruct) or not jnp.issubdtype(spec.dtype, jnp.floating):
        raise TypeError(f"jacobian: the function must return one array of real numbers; it returns {spec}.")
    try:
        found = _derived(flat, leaves, names, position)
        return _reshaped(found, leaves[position].shape, spec.shape)
    except UnsupportedError:  # the derivation covers some of JAX; automatic differentiation the rest
        maps = _FunctionMaps(function, structure, position)
        name = f"∂{getattr(function, '__name__', 'f').replace('<lambda>', 'f')}/∂{names[position]}"
        return MatrixFree(tuple(leaves), maps, leaves[position].shape, spec.shape, name)


def _derived(
    flat: Callable[..., Any], leaves: Sequence[jax.Array], names: Sequence[str], position: int
) -> Operator:
    specs = [jax.ShapeDtypeStruct(x.shape, np.float64 if _floating(x) else x.dtype) for x in leaves]
    try:
        closed, _ = trace_shapes(flat, specs)
    except TypeError as error:
        raise UnsupportedError("a function that cannot be traced in float64") from error
    arrays = {
        name: x.reshape([x.shape[k] for k in live(x.shape)]) for name, x in zip(names, leaves, strict=True)
    }
    session = Session()
    with session.active(), keeping_products():
        (root,) = Trace(RULES).run(closed, [variable(name, x.shape) for name, x in arrays.items()])
        if names[position] not in root.variables:
            raise UnsupportedError("a function that is constant")
        values = Values(arrays)
        sums = [node for node in topological([root]) if node.op is ADD]
        return _jacobian(root, names[position], values, {}, sums)


def _floating(x: jax.Array) -> bool:
    return jnp.issubdtype(x.dtype, jnp.floating)


def _jacobian(
    node: Node, moving: str, values: Values, memo: dict[Node, Operator], sums: Sequence[Node] = ()
) -> Operator:
    """The operator from d of the variable `moving` to d of the node; `sums` are those of the expression."""
    if node not in memo:
        if node.op is VARIABLE:
            return Identity(shape_of(node))
        parts = [
            compose(local, _jacobian(argument, moving, values, memo, sums))
            for local, argument in _parts(node, moving, values, sums)
        ]
        memo[node] = functools.reduce(add, parts)
    return memo[node]


def _parts(node: Node, moving: str, values: Values, sums: Sequence[Node]) -> list[tuple[Operator, Node]]:
    """The derivative by every argument that depends on `moving`, and the argument."""
    if node.op is ADD:
        same = Identity(shape_of(node))
        terms = [term for term in _terms(node, sums) if moving in term.variables]
        if any(shape_of(term) != same.out_shape for term in terms):
            raise UnsupportedError("a sum with a term that is repeated to its shape")
        return [(same, term) for term in terms]
    places = [k for k, a in enumerate(node.args) if moving in a.variables]
    return [(_local(node, k, values), node.args[k]) for k in places]


def _terms(node: Node, sums: Sequence[Node]) -> list[Node]:
    """The terms of a sum; what is a sum of its own elsewhere, as before a skip connection, is one term."""
    inside = [other for other in sums if set(other.args) < set(node.args)]
    if not inside:
        return list(node.args)
    largest = max(inside, key=lambda other: len(other.args))
    return [largest, *(term for term in node.args if term not in largest.args)]


def _local(node: Node, position: int, values: Values) -> Operator:
    """The derivative of one operation by one of its arguments."""
    if node.op is CONTRACTION:
        return by_factor(node, position, values)
    if node.op in (SLICE, PLACE, RESHAPE, REVERSE):
        return _selection(node, values)
    if node.op in (SOFTMAX, LOG_SOFTMAX) and node.data == (node.rank - 1,):
        make = softmax_rows if node.op is SOFTMAX else log_softmax_rows
        name = f"softmax({written(node.args[0])})"
        return make(jax.nn.softmax(values(node.args[0])), name)
    if node.op.linear:
        raise UnsupportedError(f"{node.op.name} as an operator")
    move = variable(_MOVING, node.args[position].shape)
    try:
        differential = node.op.differential(node, position, move)
    except NotImplementedError as error:
        raise UnsupportedError(f"the differential of {node.op.name}") from error
    return _jacobian(differential, _MOVING, values, {})


def _selection(node: Node, values: Values) -> Operator:
    """An operation that moves entries, read off where it moves their numbers."""
    before, after = shape_of(node.args[0]), shape_of(node)
    count = size(before)
    numbers = values.of(node, jnp.arange(1, count + 1).reshape(before)).ravel()
    index = jnp.where(numbers == 0, count, numbers - 1).astype(int)
    return Selection(index, before, after, node.op.name)


def _reshaped(operator: Operator, in_shape: Shape, out_shape: Shape) -> Operator:
    """With the axes of size 1 that the derivation leaves out."""
    if (operator.in_shape, operator.out_shape) == (in_shape, out_shape):
        return operator
    before = _inserting(operator.in_shape, in_shape).T
    after = _inserting(operator.out_shape, out_shape)
    return compose(after, compose(operator, before))


def _inserting(without: Shape, shape: Shape) -> Kronecker:
    """The identity from an array to the same with axes of size 1: of which the first is its rows."""
    if len(without) < 2:
        return Kronecker(None, None, without, (), shape, ())
    split = next(k for k in range(len(shape)) if size(shape[: k + 1]) == without[0] != 1) + 1
    return Kronecker(None, None, without[:1], without[1:], shape[:split], shape[split:])
