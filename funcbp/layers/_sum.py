"""`add`: the sum of what several layers make of the same input."""

import functools

import jax
from jax import numpy as jnp
from jax.tree_util import KeyPath

from .._signature import describe
from ._chain import output_spec
from ._layer import Backward, Context, Forward, Layer, Parts, PyTree, Visit, as_spec
from ._parallel import parallel

__all__ = ["add"]


def add(*layers: Layer, **named: Layer) -> Layer:
    """y = Σ layer(x) over the layers; backward each of them gets ȳ, and x̄ is the sum of their x̄.

    With an identity in it that is `residual`; with a projection, the shortcut of a block that changes the
    shape. Parameters, state, activations and cotangents are those of `parallel`.

    Raises:
        TypeError: for both positions and names, or for nothing at all.
        ValueError: at `init`, when the outputs differ in tree, shape or dtype; nothing is broadcast.

    >>> from funcbp.layers import activation, chain, dense
    >>> block = add(body=chain(dense(8), activation("relu"), dense(4)), shortcut=dense(4, bias=False))
    """
    branches = parallel(*layers, **named)

    def each(y_ct: PyTree) -> PyTree:
        return dict.fromkeys(named, y_ct) if named else (y_ct,) * len(layers)

    def init(key: jax.Array, x_spec: PyTree) -> tuple[PyTree, PyTree]:
        x_spec = as_spec(x_spec)
        params, state = branches.init(key, x_spec)
        _check(output_spec(branches, params, state, x_spec))
        return params, state

    def fwd(params: PyTree, state: PyTree, x: PyTree, context: Context) -> Forward:
        outputs, state, residuals, activations = branches.fwd(params, state, x, context)
        _check(outputs)
        y = functools.reduce(lambda a, b: jax.tree.map(jnp.add, a, b), _values(outputs))
        return Forward(y, state, residuals, activations)

    def bwd(
        params: PyTree, residuals: PyTree, y_ct: PyTree, visit: Visit, aux: PyTree, path: KeyPath
    ) -> Backward:
        return branches.bwd(params, residuals, each(y_ct), visit, aux, path)

    return Layer(init, fwd, bwd, Parts("add", (branches,)))


def _values(outputs: PyTree) -> list[PyTree]:
    return list(outputs.values() if isinstance(outputs, dict) else outputs)


def _check(outputs: PyTree) -> None:
    kinds = [jax.tree.map(describe, y) for y in _values(outputs)]
    if any(kind != kinds[0] for kind in kinds):
        raise ValueError(f"add: the layers' outputs must be equal in shape and dtype, got {kinds}.")
