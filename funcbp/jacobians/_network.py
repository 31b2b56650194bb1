"""A network's Jacobian: the product of its layers' operators, from one forward pass.

With p = q W + b and q = σ(p) in turn, ∂vec(Q_L)/∂vec(W_l) = [Π Diag(vec σ′) (Wᵀ ⊗ I)] (I ⊗ Q_l), vec stacking
columns. A layer that is one rule has that rule's structure; a chain is the product, a skip connection I + J;
every other layer is matrix-free: forward mode of its `fwd`, and its `bwd`.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax import numpy as jnp

from .. import rules
from ..factors import contract
from ..layers import Context, Layer
from ..layers._layer import Parts, in_layer, path_string
from ._calls import Call
from ._names import subscript
from ._operator import Operator
from ._rules import of_rule
from .identity import Identity
from .matrix_free import MatrixFree
from .product import compose
from .sum import add

__all__ = ["of_network"]

PyTree = Any
_EVALUATION = Context(None, False)


@dataclasses.dataclass(frozen=True)
class _Done:
    """A layer after its forward pass.

    Attributes:
        y: the output.
        name: what it is called.
        by_x: ∂y/∂x; None if that is not asked for.
        by_params: ∂y/∂θ in the tree of the parameters; None if that is not asked for.
    """

    y: jax.Array
    name: str
    by_x: Operator | None
    by_params: PyTree


@dataclasses.dataclass(frozen=True)
class _At:
    """Where a layer is: what it reads, and what is asked of it."""

    params: PyTree
    state: PyTree
    x: Any
    name: str
    place: tuple[str, ...]
    context: Context
    by_x: bool
    by_params: bool

    def called(self, name: str) -> str:
        """A name with the place of the layer."""
        index = "".join(subscript(int(p)) if p.isdigit() else f"_{p}" for p in self.place)
        return name + index


@dataclasses.dataclass(frozen=True)
class _LayerMaps:
    """Derivatives of a layer by its input (position None) or one of its parameters."""

    layer: Layer
    position: int | None

    def push(self, args: Any, x_t: jax.Array) -> jax.Array:
        """Forward mode of the layer's `fwd`."""
        params, state, x, mask, positions = args
        context = Context(None, False, mask, positions)
        leaves, structure = jax.tree.flatten(params)

        def at(moved: jax.Array) -> jax.Array:
            if self.position is None:
                return self.layer.fwd(params, state, moved, context).y
            moving = [*leaves[: self.position], moved, *leaves[self.position + 1 :]]
            return self.layer.fwd(jax.tree.unflatten(structure, moving), state, x, context).y

        return jax.jvp(at, (x if self.position is None else leaves[self.position],), (x_t,))[1]

    def pull(self, args: Any, y_ct: jax.Array) -> jax.Array:
        """The layer's `bwd`."""
        params, state, x, mask, positions = args
        residuals = self.layer.fwd(params, state, x, Context(None, False, mask, positions)).residuals
        done = self.layer.bwd(params, residuals, y_ct, _gradient, None, ())
        return done.x_ct if self.position is None else jax.tree.leaves(done.collected)[self.position]


def _gradient(path: Any, parameter: jax.Array, factor: Any, aux: Any) -> jax.Array:
    del path, aux
    return contract(factor, parameter.dtype)


def of_network(
    network: Layer,
    *args: Any,
    argnum: int,
    names: Sequence[str] | None = None,
    state: PyTree = (),
    mask: PyTree = None,
    positions: PyTree = None,
) -> Any:
    """The Jacobian of a network's output by its input, or by every parameter.

    Args:
        network: a Layer.
        args: params, x.
        argnum: 0 for the parameters, 1 for the input.
        names: of both, of which the second is what the input is called.
        state: as for `backprop`, as are mask and positions.
        mask: which positions count.
        positions: their indices.
    """
    if len(args) != 2:
        raise TypeError(f"jacobian: of a layer it takes params and x, got {len(args)} arguments.")
    params, x = jax.tree.map(jnp.asarray, args)
    if argnum == 1 and not (hasattr(x, "dtype") and jnp.issubdtype(x.dtype, jnp.floating)):
        raise TypeError("jacobian: the input must be one array of real numbers to be differentiated by.")
    called = "x" if names is None else names[-1]
    context = _EVALUATION._replace(mask=mask, positions=positions)
    done = _walk(network, _At(params, state, x, called, (), context, argnum == 1, argnum == 0))
    return done.by_x if argnum == 1 else done.by_params


def _walk(layer: Layer, at: _At) -> _Done:
    """The layer's operators, by what kind of layer it is."""
    parts = _parts(layer)
    return _KINDS.get(parts.kind, _matrix_free)(layer, at, parts)


def _parts(layer: Layer) -> Parts:
    """What the layer is made of; for one that does not say, the name of what made it."""
    return layer.parts or Parts(getattr(layer.fwd, "__qualname__", "layer").split(".")[0])


def _chain(layer: Layer, at: _At, inside: Parts) -> _Done:
    """J = J_L … J_2 J_1."""
    del layer
    members = inside.options["members"]
    parts, states = members.split(at.params, "params"), members.split_state(at.state)
    done: list[_Done] = []
    y, name = at.x, at.name
    for i, member in enumerate(members.layers):
        with in_layer(members.places[i]):
            place = (*at.place, str(members.names[i]))
            inner = _At(parts[i], states[i], y, name, place, at.context, at.by_x or i > 0, at.by_params)
            done.append(_walk(member, inner))
        y, name = done[-1].y, done[-1].name
    after: Operator = Identity(y.shape)
    by_params: list[PyTree] = []
    for one in reversed(done):
        by_params.append(_mapped(lambda operator, after=after: compose(after, operator), one.by_params))
        if one.by_x is not None:
            after = compose(after, one.by_x)
    return _Done(
        y, name, after if at.by_x else None, members.build(by_params[::-1]) if at.by_params else None
    )


def _residual(layer: Layer, at: _At, inside: Parts) -> _Done:
    """J = I + J of the body."""
    if inside.options["entry"] is not None:
        return _matrix_free(layer, at, inside)
    done = _walk(inside.layers[0], at)
    by_x = None if done.by_x is None else add(Identity(at.x.shape), done.by_x)
    return _Done(at.x + done.y, at.called("y"), by_x, done.by_params)


def _recompute(layer: Layer, at: _At, inside: Parts) -> _Done:
    """J of the layer: it differs in what is kept."""
    del layer
    return _walk(inside.layers[0], at)


def _dense(layer: Layer, at: _At, inside: Parts) -> _Done:
    del layer, inside
    return _ruled(rules.dense, at, ("w", "b"), "p", {})


def _activation(layer: Layer, at: _At, inside: Parts) -> _Done:
    del layer
    return _ruled(inside.options["rule"], at, (), "q", inside.options["static"])


def _normalization(layer: Layer, at: _At, inside: Parts) -> _Done:
    del layer
    wanted = [a.name for a in inside.options["rule"].signature.arguments[1:]]
    return _ruled(inside.options["rule"], at, wanted, "y", inside.options["static"])


def _embedding(layer: Layer, at: _At, inside: Parts) -> _Done:
    del inside
    y = layer.fwd(at.params, at.state, at.x, at.context).y
    table = at.params["table"]
    call = Call(rules.embedding, (table, at.x), {}, 0, (at.called("table"), at.name))
    return _Done(y, at.called("q"), None, {"table": of_rule(call)} if at.by_params else None)


def _dropout(layer: Layer, at: _At, inside: Parts) -> _Done:
    """In evaluation it lets everything through."""
    del layer, inside
    return _Done(at.x, at.name, Identity(at.x.shape) if at.by_x else None, ())


def _ruled(rule: Any, at: _At, wanted: Sequence[str], output: str, static: dict[str, Any]) -> _Done:
    """A layer that is a rule of its input and its parameters."""
    args = (at.x, *(at.params.get(name) if wanted else None for name in wanted))
    names = (at.name, *(at.called(name) for name in wanted))
    arrays, options = rule.signature.bind(args, static)
    calls = [Call(rule, arrays, options, k, names) for k in range(len(args))]
    by_params: PyTree = {n: of_rule(calls[k]) for k, n in enumerate(wanted, 1) if args[k] is not None}
    return _Done(
        calls[0].out,
        at.called(output),
        of_rule(calls[0]) if at.by_x else None,
        (by_params if wanted else ()) if at.by_params else None,
    )


def _matrix_free(layer: Layer, at: _At, inside: Parts) -> _Done:
    del inside
    y = layer.fwd(at.params, at.state, at.x, at.context).y
    args = (at.params, at.state, at.x, at.context.mask, at.context.positions)
    kind = _parts(layer).kind

    def operator(position: int | None, shape: tuple[int, ...], of: str) -> Operator:
        maps = _LayerMaps(layer, position)
        return MatrixFree(args, maps, shape, y.shape, f"∂{at.called(kind)}/∂{of}")

    by_params: PyTree = None
    if at.by_params:
        entries, structure = jax.tree_util.tree_flatten_with_path(at.params)
        found = [operator(k, leaf.shape, path_string(path)) for k, (path, leaf) in enumerate(entries)]
        by_params = jax.tree.unflatten(structure, found)
    by_x = operator(None, at.x.shape, at.name) if at.by_x else None
    return _Done(y, at.called("y"), by_x, by_params)


def _mapped(change: Callable[[Operator], Operator], tree: PyTree) -> PyTree:
    return jax.tree.map(change, tree, is_leaf=lambda leaf: isinstance(leaf, Operator))


_KINDS: dict[str, Callable[[Layer, _At, Parts], _Done]] = {
    "chain": _chain,
    "residual": _residual,
    "recompute": _recompute,
    "dense": _dense,
    "activation": _activation,
    "_normalization": _normalization,
    "embedding": _embedding,
    "dropout": _dropout,
}
