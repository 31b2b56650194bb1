"""`chain`: layers one after the other."""

from typing import Any

import jax
from jax.tree_util import DictKey, KeyPath, SequenceKey

from ._layer import Backward, Context, Forward, Layer, PyTree, Visit, in_layer, split_key

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
    if bool(layers) == bool(named):
        raise TypeError("chain: give layers either by position or by name, and at least one.")
    names: tuple[Any, ...] = tuple(named) if named else tuple(range(len(layers)))
    members = tuple(named.values()) if named else layers
    for name, layer in zip(names, members, strict=True):
        if not isinstance(layer, Layer):
            raise TypeError(
                f"chain: layer `{name}` is a {type(layer).__name__}, not a Layer; did you forget to call it?"
            )
    keys = [DictKey(n) if named else SequenceKey(n) for n in names]
    places = [f"`{n}` of a chain of {len(members)}" for n in names]

    def build(values: list[Any]) -> PyTree:
        return dict(zip(names, values, strict=True)) if named else tuple(values)

    def split(tree: PyTree, what: str) -> list[PyTree]:
        fits = (
            isinstance(tree, dict) and tree.keys() == set(names) if named else isinstance(tree, (tuple, list))
        )
        if not fits or len(tree) != len(members):
            raise ValueError(
                f"chain: {what} must be a {'dict' if named else 'tuple'} with one entry a layer, for "
                f"{list(names)}, got {jax.tree.structure(tree)}; use what `init` returned."
            )
        return [tree[n] for n in names]

    def split_state(state: PyTree) -> list[PyTree]:
        return [()] * len(members) if isinstance(state, tuple) and not state else split(state, "state")

    def build_state(states: list[PyTree]) -> PyTree:
        return build(states) if jax.tree.leaves(states) else ()

    def init(key: jax.Array, x_spec: PyTree) -> tuple[PyTree, PyTree]:
        params, states = [], []
        for i, layer in enumerate(members):
            with in_layer(places[i]):
                p, s = layer.init(jax.random.fold_in(key, i), x_spec)
                x_spec = output_spec(layer, p, s, x_spec)
            params.append(p)
            states.append(s)
        return build(params), build_state(states)

    def fwd(params: PyTree, state: PyTree, x: PyTree, context: Context) -> Forward:
        states, residuals, activations = split_state(state), [], []
        for i, (layer, p) in enumerate(zip(members, split(params, "params"), strict=True)):
            with in_layer(places[i]):
                x, states[i], r, a = layer.fwd(p, states[i], x, split_key(context, i))
            residuals.append(r)
            activations.append(a)
        return Forward(x, build_state(states), tuple(residuals), build(activations))

    def bwd(
        params: PyTree, residuals: PyTree, y_ct: PyTree, visit: Visit, aux: PyTree, path: KeyPath
    ) -> Backward:
        parameters = split(params, "params")
        aux_parts = [None] * len(members) if aux is None else split(aux, "aux")
        collected: list[PyTree] = [None] * len(members)
        cotangents: list[PyTree] = [None] * len(members)
        for i in reversed(range(len(members))):
            with in_layer(places[i]):
                collected[i], cotangents[i], y_ct = members[i].bwd(
                    parameters[i], residuals[i], y_ct, visit, aux_parts[i], (*path, keys[i])
                )
        return Backward(build(collected), build(cotangents), y_ct)

    return Layer(init, fwd, bwd)


def output_spec(layer: Layer, params: PyTree, state: PyTree, x_spec: PyTree) -> PyTree:
    """Shape and dtype of a layer's output."""
    return jax.eval_shape(
        lambda p, s, x, key: layer.fwd(p, s, x, Context(key)).y, params, state, x_spec, jax.random.key(0)
    )
