"""A layer where it is in a network, and what is known of it after its forward pass."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax import numpy as jnp
from jax.tree_util import KeyPath

from .._rule import Rule
from ..factors import contract
from ..layers import Context, Layer
from ..layers._layer import Parts, path_string
from ._calls import Call
from ._names import subscript
from ._operator import Operator
from ._rules import of_rule
from .matrix_free import MatrixFree

__all__ = ["At", "Done", "Kind", "is_array", "mapped", "matrix_free", "of_call", "parts_of", "picked"]

PyTree = Any


@dataclasses.dataclass(frozen=True)
class Done:
    """A layer after its forward pass.

    Attributes:
        y: the output.
        name: what it is called.
        by_x: ∂y/∂x; None if that is not asked for.
        by_params: ∂y/∂θ in the tree of the parameters; None if that is not asked for.
    """

    y: PyTree
    name: str
    by_x: Operator | None
    by_params: PyTree


@dataclasses.dataclass(frozen=True)
class At:
    """Where a layer is: what it reads, and what is asked of it.

    Attributes:
        params: its parameters.
        state: its state.
        x: its input.
        name: what the input is called.
        place: the names of the layers that it is in.
        context: of the forward pass.
        by_x: whether ∂y/∂x is wanted.
        by_params: whether ∂y/∂θ is wanted.
        pick: which array of the output is differentiated, where there are several; if empty there, none is.
    """

    params: PyTree
    state: PyTree
    x: Any
    name: str
    place: tuple[str, ...]
    context: Context
    by_x: bool
    by_params: bool
    pick: KeyPath = ()

    def called(self, name: str) -> str:
        """A name with the place of the layer."""
        index = "".join(subscript(int(p)) if p.isdigit() else f"_{p}" for p in self.place)
        return name + index

    def moved(self, **changes: Any) -> "At":
        """The same with some changes."""
        return dataclasses.replace(self, **changes)


Kind = Callable[[Layer, At, Parts], Done]


@dataclasses.dataclass(frozen=True)
class _LayerMaps:
    """Derivatives of a layer by its input (position None) or one of its parameters."""

    layer: Layer
    position: int | None
    pick: KeyPath

    def push(self, args: Any, x_t: jax.Array) -> jax.Array:
        """Forward mode of the layer's `fwd`."""
        params, state, x, mask, positions = args
        context = Context(None, False, mask, positions)
        leaves, structure = jax.tree.flatten(params)

        def at(moved: jax.Array) -> jax.Array:
            if self.position is None:
                return picked(self.layer.fwd(params, state, moved, context).y, self.pick)
            moving = [*leaves[: self.position], moved, *leaves[self.position + 1 :]]
            return picked(self.layer.fwd(structure.unflatten(moving), state, x, context).y, self.pick)

        return jax.jvp(at, (x if self.position is None else leaves[self.position],), (x_t,))[1]

    def pull(self, args: Any, y_ct: jax.Array) -> jax.Array:
        """The layer's `bwd`."""
        params, state, x, mask, positions = args
        y, _, residuals, _ = self.layer.fwd(params, state, x, Context(None, False, mask, positions))
        at = dict(jax.tree_util.tree_leaves_with_path(y))
        y_cts = [y_ct if path == self.pick else jnp.zeros_like(leaf) for path, leaf in at.items()]
        y_ct = jax.tree.structure(y).unflatten(y_cts)
        done = self.layer.bwd(params, residuals, y_ct, _gradient, None, ())
        return done.x_ct if self.position is None else jax.tree.leaves(done.collected)[self.position]


def _gradient(path: Any, parameter: jax.Array, factor: Any, aux: Any) -> jax.Array:
    del path, aux
    return contract(factor, parameter.dtype)


def picked(y: PyTree, pick: KeyPath) -> Any:
    """The array of an output that is differentiated."""
    return dict(jax.tree_util.tree_leaves_with_path(y))[pick]


def is_array(y: PyTree) -> bool:
    """Whether an output is one array."""
    return isinstance(y, jax.Array)


def parts_of(layer: Layer) -> Parts:
    """What the layer is made of; for one that does not say, the name of what made it."""
    return layer.parts or Parts(getattr(layer.fwd, "__qualname__", "layer").split(".")[0])


def matrix_free(layer: Layer, at: At, inside: Parts) -> Done:
    """What no structure is known of: forward mode of its `fwd`, and its `bwd`."""
    y = layer.fwd(at.params, at.state, at.x, at.context).y
    if not at.pick and not is_array(y):
        return Done(y, at.called("y"), None, None)
    args = (at.params, at.state, at.x, at.context.mask, at.context.positions)
    rule = inside.options.get("rule")
    kind = inside.kind.rpartition(".")[2] if rule is None else rule.name

    def operator(position: int | None, shape: tuple[int, ...], of: str) -> Operator:
        maps = _LayerMaps(layer, position, at.pick)
        return MatrixFree(args, maps, shape, picked(y, at.pick).shape, f"∂{at.called(kind)}/∂{of}")

    by_params: PyTree = None
    if at.by_params:
        entries, structure = jax.tree_util.tree_flatten_with_path(at.params)
        found = [operator(k, leaf.shape, path_string(path)) for k, (path, leaf) in enumerate(entries)]
        by_params = structure.unflatten(found)
    by_x = operator(None, at.x.shape, at.name) if at.by_x else None
    return Done(y, at.called("y"), by_x, by_params)


def of_call(
    rule: Rule, args: Sequence[Any], names: Sequence[str], position: int = 0, **static: Any
) -> tuple[jax.Array, Operator]:
    """A rule's output, and its derivative by one of its arguments."""
    arrays, options = rule.signature.bind(tuple(args), static)
    call = Call(rule, arrays, options, position, tuple(names))
    return call.out, of_rule(call)


def mapped(change: Callable[[Operator], Operator], tree: PyTree) -> PyTree:
    """Every operator of a tree, changed."""
    return jax.tree.map(change, tree, is_leaf=lambda leaf: isinstance(leaf, Operator))
