"""`parallel`: several layers that read the same input."""

import jax
from jax import numpy as jnp
from jax.tree_util import DictKey, KeyPath, SequenceKey

from ._layer import Backward, Context, Forward, Layer, PyTree, Visit, in_layer, split_key

__all__ = ["parallel"]


def parallel(*layers: Layer, **named: Layer) -> Layer:
    """Several layers on the same input; the output is the tuple (or, given by name, the dict) of theirs.

    Backward: x̄ is the sum of the branches' x̄ (an input without a derivative, None, adds nothing).

    Raises:
        TypeError: for both positions and names, or for nothing at all.

    >>> from funcbp.layers import activation, dense
    >>> two_heads = parallel(mean=dense(1), gate=activation("sigmoid"))
    """
    if bool(layers) == bool(named):
        raise TypeError("parallel: give layers either by position or by name, and at least one.")
    names = tuple(named) if named else tuple(range(len(layers)))
    members = tuple(named.values()) if named else layers
    keys = [DictKey(n) if named else SequenceKey(n) for n in names]

    def build(values: list[PyTree]) -> PyTree:
        return dict(zip(names, values, strict=True)) if named else tuple(values)

    def init(key: jax.Array, x_spec: PyTree) -> tuple[PyTree, PyTree]:
        pairs = [layer.init(jax.random.fold_in(key, i), x_spec) for i, layer in enumerate(members)]
        states = [s for _, s in pairs]
        return build([p for p, _ in pairs]), build(states) if jax.tree.leaves(states) else ()

    def fwd(params: PyTree, state: PyTree, x: PyTree, context: Context) -> Forward:
        results = []
        for i, (name, layer) in enumerate(zip(names, members, strict=True)):
            with in_layer(f"`{name}` of a parallel"):
                part = () if isinstance(state, tuple) and not state else state[name]
                results.append(layer.fwd(params[name], part, x, split_key(context, i)))
        states = [r.state for r in results]
        return Forward(
            build([r.y for r in results]),
            build(states) if jax.tree.leaves(states) else (),
            tuple(r.residuals for r in results),
            build([r.activations for r in results]),
        )

    def bwd(
        params: PyTree, residuals: PyTree, y_ct: PyTree, visit: Visit, aux: PyTree, path: KeyPath
    ) -> Backward:
        results = []
        for i, (name, layer) in enumerate(zip(names, members, strict=True)):
            with in_layer(f"`{name}` of a parallel"):
                part = None if aux is None else aux[name]
                results.append(
                    layer.bwd(params[name], residuals[i], y_ct[name], visit, part, (*path, keys[i]))
                )
        x_ct = results[0].x_ct
        for r in results[1:]:
            x_ct = jax.tree.map(_add, x_ct, r.x_ct, is_leaf=lambda a: a is None)
        return Backward(build([r.collected for r in results]), build([r.cotangents for r in results]), x_ct)

    return Layer(init, fwd, bwd)


def _add(a: jax.Array | None, b: jax.Array | None) -> jax.Array | None:
    if a is None or b is None:
        return b if a is None else a
    return jnp.add(a, b)
