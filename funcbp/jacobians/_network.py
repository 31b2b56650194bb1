"""A network's Jacobian: the product of its layers' operators, from one forward pass.

With p = q W + b and q = σ(p) in turn, ∂vec(Q_L)/∂vec(W_l) = [Π Diag(vec σ′) (Wᵀ ⊗ I)] (I ⊗ Q_l), vec stacking
columns. A layer that is made of rules has their structure; a chain is the product, a skip connection I + J,
branches a sum, equal blocks a product over them, and a parameter that is used twice has the sum of both uses.
Every other layer is matrix-free: forward mode of its `fwd`, and its `bwd`.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax import lax
from jax import numpy as jnp

from ..layers import Context, Layer
from ..layers._layer import Parts, in_layer, path_string
from ._at import At, Done, Kind, PyTree, is_array, mapped, matrix_free, parts_of, picked
from ._layers import LEAVES
from ._operator import Operator
from .identity import Identity
from .product import compose
from .repeated import Repeated, RepeatedByParameter
from .selection import Commutation, Selection
from .sum import add
from .tensor_product import tensor_product

__all__ = ["of_network"]

_EVALUATION = Context(None, False)


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
    at = At(params, state, x, called, (), context, argnum == 1, argnum == 0)
    spec = jax.eval_shape(lambda params, x: network.fwd(params, state, x, context).y, params, x)
    paths, structure = jax.tree_util.tree_flatten_with_path(spec)
    each = [_walk(network, at.moved(pick=path)) for path, _ in paths]
    return structure.unflatten([done.by_x if argnum == 1 else done.by_params for done in each])


def _walk(layer: Layer, at: At) -> Done:
    """The layer's operators, by what kind of layer it is."""
    parts = parts_of(layer)
    return _KINDS.get(parts.kind, matrix_free)(layer, at, parts)


def _chain(layer: Layer, at: At, inside: Parts) -> Done:
    """J = J_L … J_2 J_1."""
    members = inside.options["members"]
    parts, states = members.split(at.params, "params"), members.split_state(at.state)
    done: list[Done] = []
    y, name, last = at.x, at.name, len(parts) - 1
    for i, member in enumerate(members.layers):
        with in_layer(members.places[i]):
            inner = at.moved(
                params=parts[i],
                state=states[i],
                x=y,
                name=name,
                place=(*at.place, str(members.names[i])),
                by_x=at.by_x or i > 0,
                pick=at.pick if i == last else (),
            )
            done.append(_walk(member, inner))
        if i < last and not is_array(done[-1].y):
            return matrix_free(layer, at, inside)
        y, name = done[-1].y, done[-1].name
    return _multiplied(done, at, members.build)


def _multiplied(done: Sequence[Done], at: At, build: Callable[[list[PyTree]], PyTree]) -> Done:
    """The product of what was done one after the other."""
    if not at.pick and not is_array(done[-1].y):
        return Done(done[-1].y, done[-1].name, None, None)
    after: Operator = Identity(picked(done[-1].y, at.pick).shape)
    by_params: list[PyTree] = []
    for one in reversed(done):
        by_params.append(mapped(functools.partial(compose, after), one.by_params))
        if one.by_x is not None:
            after = compose(after, one.by_x)
    own = build(by_params[::-1]) if at.by_params else None
    return Done(done[-1].y, done[-1].name, after if at.by_x else None, own)


def _residual(layer: Layer, at: At, inside: Parts) -> Done:
    """J = I + J of the body."""
    if inside.options["entry"] is not None or not is_array(at.x):
        return matrix_free(layer, at, inside)
    done = _walk(inside.layers[0], at)
    by_x = None if done.by_x is None else add(Identity(at.x.shape), done.by_x)
    return Done(at.x + done.y, at.called("y"), by_x, done.by_params)


def _recompute(layer: Layer, at: At, inside: Parts) -> Done:
    """J of the layer: it differs in what is kept."""
    del layer
    return _walk(inside.layers[0], at)


def _add(layer: Layer, at: At, inside: Parts) -> Done:
    """J = Σ J of the branches."""
    members = parts_of(inside.layers[0]).options["members"]
    done = [_branch(members, i, at.moved(pick=())) for i in range(len(members.layers))]
    if not all(is_array(one.y) for one in done):
        return matrix_free(layer, at, inside)
    y = functools.reduce(jnp.add, (one.y for one in done))
    by_x = functools.reduce(add, [one.by_x for one in done if one.by_x is not None]) if at.by_x else None
    by_params = members.build([one.by_params for one in done]) if at.by_params else None
    return Done(y, at.called("y"), by_x, by_params)


def _parallel(layer: Layer, at: At, inside: Parts) -> Done:
    """That of the branch whose output is differentiated; by the others' parameters 0."""
    if not at.pick:
        return matrix_free(layer, at, inside)
    members, (chosen, *rest) = inside.options["members"], at.pick
    which = members.keys.index(chosen)
    done = _branch(members, which, at.moved(pick=tuple(rest)))
    y = jax.eval_shape(lambda: layer.fwd(at.params, at.state, at.x, at.context).y)
    if not at.by_params:
        return Done(y, done.name, done.by_x, None)
    nothing = functools.partial(_nothing, picked(y, at.pick).shape)
    by_params = [jax.tree.map(nothing, part) for part in members.split(at.params, "params")]
    by_params[which] = done.by_params
    return Done(y, done.name, done.by_x, members.build(by_params))


def _branch(members: Any, i: int, at: At) -> Done:
    """The i-th of several layers that read the same."""
    params, states = members.split(at.params, "params"), members.split_state(at.state)
    with in_layer(members.places[i]):
        place = (*at.place, str(members.names[i]))
        return _walk(members.layers[i], at.moved(params=params[i], state=states[i], place=place))


def _nothing(out_shape: tuple[int, ...], x: jax.Array) -> Operator:
    return Selection(jnp.full(out_shape, x.size), x.shape, out_shape, "0")


def _repeat(layer: Layer, at: At, inside: Parts) -> Done:
    """J = J_n … J_2 J_1, the blocks' operators stacked."""
    if not is_array(at.x):
        return matrix_free(layer, at, inside)
    (block,) = inside.layers

    def step(params: PyTree, state: PyTree, x: jax.Array) -> Done:
        return _walk(block, at.moved(params=params, state=state, x=x, by_x=True))

    return _scanned(at, inside.options["times"], step)


def _scanned(at: At, times: int, step: Callable[[PyTree, PyTree, jax.Array], Done]) -> Done:
    """Equal blocks one after the other."""

    def forth(x: jax.Array, each: tuple[PyTree, PyTree]) -> tuple[jax.Array, jax.Array]:
        return step(*each, x).y, x

    def operators(*each: Any) -> tuple[Any, PyTree]:
        done = step(*each)
        return done.by_x, done.by_params

    y, inputs = lax.scan(forth, at.x, (at.params, at.state), length=times)
    by_x, by_params = jax.vmap(operators, axis_size=times)(at.params, at.state, inputs)
    whole = by_x if isinstance(by_x, Identity) else Repeated(by_x, times)
    own = mapped(lambda operator: RepeatedByParameter(by_x, operator, times), by_params)
    return Done(y, at.called("y"), whole if at.by_x else None, own)


def _reversible(layer: Layer, at: At, inside: Parts) -> Done:
    """Every block is (I + S₂ᵀ G S₁) (I + S₁ᵀ F S₂), with S the halves of the last axis."""
    if not is_array(at.x):
        return matrix_free(layer, at, inside)
    f, g = inside.layers
    *lead, width = at.x.shape
    half = width // 2

    def part(k: int) -> Operator:
        cut = Selection(jnp.arange(half) + k * half, (width,), (half,), f"S{'₁₂'[k]}")
        return tensor_product(Identity(tuple(lead)), cut)

    def step(params: PyTree, state: PyTree, x: jax.Array) -> Done:
        same, done = Identity(x.shape), dict[str, Any]()
        shear: dict[str, Operator] = {}
        for name, one, reads, writes in (("f", f, part(1), part(0)), ("g", g, part(0), part(1))):
            inner = at.moved(
                params=params[name],
                state=state[name] if state else (),
                x=reads.push(x),
                place=(*at.place, name),
                by_x=True,
            )
            done[name] = _walk(one, inner)
            x = x + writes.pull(done[name].y)
            shear[name] = add(same, compose(writes.T, compose(done[name].by_x, reads)))
            done[name] = mapped(functools.partial(compose, writes.T), done[name].by_params)
        by_f = mapped(functools.partial(compose, shear["g"]), done["f"])
        by_params = {"f": by_f, "g": done["g"]} if at.by_params else None
        return Done(x, "x", compose(shear["g"], shear["f"]), by_params)

    return _scanned(at, inside.options["times"], step)


def _tied(layer: Layer, at: At, inside: Parts) -> Done:
    """By a parameter that is used several times: the sum over its uses."""
    del layer
    done = _walk(inside.layers[0], at.moved(params=inside.options["whole"](at.params)))
    if not at.by_params:
        return done
    leaves = jax.tree_util.tree_leaves_with_path(done.by_params, is_leaf=lambda a: isinstance(a, Operator))
    uses = {path_string(path): operator for path, operator in leaves}
    for target, source in inside.options["share"].items():
        use, name = uses.pop(target), source.removesuffix(".T")
        if name != source:
            use = compose(use, Commutation(use.in_shape[::-1]))
        uses[name] = add(uses[name], use)
    by_params = jax.tree.structure(at.params).unflatten(uses.values())
    return Done(done.y, done.name, done.by_x, by_params)


_KINDS: dict[str, Kind] = {
    **LEAVES,
    "chain": _chain,
    "residual": _residual,
    "recompute": _recompute,
    "add": _add,
    "parallel": _parallel,
    "repeat": _repeat,
    "reversible": _reversible,
    "tied": _tied,
}
