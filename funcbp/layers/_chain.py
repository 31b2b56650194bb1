"""`chain`: layers one after the other."""

import jax
from jax.tree_util import KeyPath

from ._layer import Backward, Context, Forward, Layer, Parts, PyTree, Visit, in_layer, split_key
from ._members import Members

__all__ = ["chain", "output_spec"]


def chain(*layers: Layer, **named: Layer) -> Layer:
    """Layers one after the other, in the order given.

    Given by position, their parameters (activations, δ's, …) are a tuple; given by name, a dict with those
    names. (JAX sorts the keys of a dict that passes through `jit`; the layers keep their order.)

    Raises:
        TypeError: for something that is not a Layer, for both positions and names, or for nothing at all.

    >>> from funcbp.layers import activation, dense
    >>> network = chain(hidden=dense(5), sigma=activation("tanh"), out=dense(1))
    >>> params, state = network.init(jax.random.key(0), jax.ShapeDtypeStruct((8, 3), "float32"))
    >>> jax.tree.map(lambda a: a.shape, params)["hidden"]
    {'b': (5,), 'w': (3, 5)}
    """
    members = Members("chain", layers, named)

    def init(key: jax.Array, x_spec: PyTree) -> tuple[PyTree, PyTree]:
        params, states = [], []
        for i, layer in enumerate(members.layers):
            with in_layer(members.places[i]):
                p, s = layer.init(jax.random.fold_in(key, i), x_spec)
                x_spec = output_spec(layer, p, s, x_spec)
            params.append(p)
            states.append(s)
        return members.build(params), members.build_state(states)

    def fwd(params: PyTree, state: PyTree, x: PyTree, context: Context) -> Forward:
        parts, states = members.split(params, "params"), members.split_state(state)
        residuals, activations = [], []
        for i, layer in enumerate(members.layers):
            with in_layer(members.places[i]):
                x, states[i], r, a = layer.fwd(parts[i], states[i], x, split_key(context, i))
            residuals.append(r)
            activations.append(a)
        return Forward(x, members.build_state(states), tuple(residuals), members.build(activations))

    def bwd(
        params: PyTree, residuals: PyTree, y_ct: PyTree, visit: Visit, aux: PyTree, path: KeyPath
    ) -> Backward:
        parts, auxes = members.split(params, "params"), members.split_aux(aux)
        collected: list[PyTree] = [None] * len(parts)
        cotangents: list[PyTree] = [None] * len(parts)
        for i in reversed(range(len(parts))):
            with in_layer(members.places[i]):
                collected[i], cotangents[i], y_ct = members.layers[i].bwd(
                    parts[i], residuals[i], y_ct, visit, auxes[i], (*path, members.keys[i])
                )
        return Backward(members.build(collected), members.build(cotangents), y_ct)

    return Layer(init, fwd, bwd, Parts("chain", members.layers, {"members": members}))


def output_spec(layer: Layer, params: PyTree, state: PyTree, x_spec: PyTree) -> PyTree:
    """Shape and dtype of a layer's output."""
    return jax.eval_shape(
        lambda p, s, x, key: layer.fwd(p, s, x, Context(key)).y, params, state, x_spec, jax.random.key(0)
    )
