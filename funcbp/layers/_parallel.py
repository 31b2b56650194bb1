"""`parallel`: several layers that read the same input."""

import functools

import jax
from jax import numpy as jnp
from jax.tree_util import KeyPath

from ._layer import Backward, Context, Forward, Layer, Parts, PyTree, Visit, in_layer, split_key
from ._members import Members

__all__ = ["parallel"]


def parallel(*layers: Layer, **named: Layer) -> Layer:
    """Several layers on the same input; the output is the tuple (or, given by name, the dict) of theirs.

    Backward: x̄ is the sum of the branches' x̄ (an input without a derivative, None, adds nothing).

    Raises:
        TypeError: for both positions and names, or for nothing at all.

    >>> from funcbp.layers import activation, dense
    >>> two_heads = parallel(mean=dense(1), gate=activation("sigmoid"))
    """
    members = Members("parallel", layers, named)

    def init(key: jax.Array, x_spec: PyTree) -> tuple[PyTree, PyTree]:
        params, states = [], []
        for i, layer in enumerate(members.layers):
            with in_layer(members.places[i]):
                p, s = layer.init(jax.random.fold_in(key, i), x_spec)
            params.append(p)
            states.append(s)
        return members.build(params), members.build_state(states)

    def fwd(params: PyTree, state: PyTree, x: PyTree, context: Context) -> Forward:
        parts, states = members.split(params, "params"), members.split_state(state)
        results = []
        for i, layer in enumerate(members.layers):
            with in_layer(members.places[i]):
                results.append(layer.fwd(parts[i], states[i], x, split_key(context, i)))
        y, states, residuals, activations = zip(*results, strict=True)
        return Forward(members.build(y), members.build_state(states), residuals, members.build(activations))

    def bwd(
        params: PyTree, residuals: PyTree, y_ct: PyTree, visit: Visit, aux: PyTree, path: KeyPath
    ) -> Backward:
        parts, auxes = members.split(params, "params"), members.split_aux(aux)
        results = []
        for i, (layer, ct) in enumerate(zip(members.layers, members.split(y_ct, "y_ct"), strict=True)):
            with in_layer(members.places[i]):
                branch = (*path, members.keys[i])
                results.append(layer.bwd(parts[i], residuals[i], ct, visit, auxes[i], branch))
        collected, cotangents, x_cts = zip(*results, strict=True)
        x_ct = functools.reduce(_add, x_cts)
        return Backward(members.build(collected), members.build(cotangents), x_ct)

    return Layer(init, fwd, bwd, Parts("parallel", members.layers, {"members": members}))


def _add(a: PyTree, b: PyTree) -> PyTree:
    """The sum of two cotangents, in which None, for what has no derivative, adds nothing."""
    if a is None or b is None:
        return b if a is None else a
    if isinstance(a, jax.Array):
        return jnp.add(a, b)
    children, treedef = jax.tree.flatten(a, is_leaf=lambda n: n is not a)
    return treedef.unflatten([_add(*each) for each in zip(children, treedef.flatten_up_to(b), strict=True)])
