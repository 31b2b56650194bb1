"""`repeat`: equal blocks one after the other, as one scan."""

import operator
from collections.abc import Sequence

import jax
from jax import lax
from jax.tree_util import KeyPath

from ._chain import output_spec
from ._in_place import reverse_scan
from ._layer import (
    Backward,
    Context,
    Forward,
    Layer,
    Parts,
    PyTree,
    Visit,
    as_spec,
    in_layer,
    path_string,
    require_layer,
)
from ._saved import Saved, once

__all__ = ["repeat"]


def repeat(block: Layer, times: int) -> Layer:
    """`times` copies of `block`, one after the other, their parameters stacked on a new first axis.

    Both passes are a scan: trace and compile time do not grow with depth. The block's output must have the
    shape and dtype of its input. What is collected, activations and cotangents are stacked likewise; a path
    names the stacked parameter, the same for every block.

    Raises:
        ValueError: for `times` below one, or a block whose output differs from its input in tree, shape or
            dtype.
    """
    require_layer("repeat: the block", block)
    times = operator.index(times)
    if times < 1:
        raise ValueError(f"repeat: `times` must be at least 1, got {times}.")

    def init(key: jax.Array, x_spec: PyTree) -> tuple[PyTree, PyTree]:
        x_spec = as_spec(x_spec)
        params, state = jax.vmap(lambda k: block.init(k, x_spec))(jax.random.split(key, times))
        one = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape[1:], a.dtype), (params, state))
        with in_layer(f"the block of a repeat of {times}"):
            _check(x_spec, output_spec(block, *one, x_spec))
        return params, state

    def fwd(params: PyTree, state: PyTree, x: PyTree, context: Context) -> Forward:
        _check_stacked(params, times)
        keys = None if context.key is None else jax.random.split(context.key, times)
        shared = tuple(jax.tree.leaves((context.mask, context.positions)))

        def step(x: PyTree, each: tuple[PyTree, PyTree, jax.Array | None]) -> tuple[PyTree, PyTree]:
            p, s, key = each
            y, s, residuals, activations = block.fwd(p, s, x, context._replace(key=key))
            _check(x, y)
            return y, (s, once((residuals, activations), shared).own)

        with in_layer(f"the block of a repeat of {times}"):
            y, (state, saved) = lax.scan(step, x, (params, state, keys), length=times)
        residuals, activations = saved.beside(shared).tree(saved.stacked)
        return Forward(y, state, once(residuals, shared), activations)

    def bwd(
        params: PyTree, residuals: Saved, y_ct: PyTree, visit: Visit, aux: PyTree, path: KeyPath
    ) -> Backward:
        def step(ct: PyTree, p: PyTree, r: Sequence[jax.Array], a: PyTree) -> tuple[PyTree, PyTree]:
            collected, cotangents, ct = block.bwd(p, residuals.tree(r), ct, visit, a, path)
            return ct, (collected, cotangents)

        with in_layer(f"the block of a repeat of {times}"):
            x_ct, (collected, cotangents) = reverse_scan(step, y_ct, params, residuals.stacked, aux, times)
        return Backward(collected, cotangents, x_ct)

    return Layer(init, fwd, bwd, Parts("repeat", (block,), {"times": times}))


def _check_stacked(params: PyTree, times: int) -> None:
    for path, a in jax.tree_util.tree_leaves_with_path(params):
        if a.shape[:1] != (times,):
            raise ValueError(
                f"repeat: the first axis of params is the block, of {times}, but `{path_string(path)}` has "
                f"shape {a.shape}; use what `init` returned."
            )


def _check(x: PyTree, y: PyTree) -> None:
    def spec(tree: PyTree) -> PyTree:
        return jax.tree.map(lambda a: f"{a.dtype.name}[{', '.join(map(str, a.shape))}]", tree)

    if spec(x) != spec(y):
        raise ValueError(
            f"repeat: a block must give back the shape and dtype that it takes, got {spec(x)} -> {spec(y)}."
        )
