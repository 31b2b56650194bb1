"""`repeat`: equal blocks one after the other, as one scan."""

import jax
from jax import lax
from jax.tree_util import KeyPath

from ._chain import output_spec
from ._layer import Backward, Context, Forward, Layer, PyTree, Visit, in_layer

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
    if times < 1:
        raise ValueError(f"repeat: `times` must be at least 1, got {times}.")

    def init(key: jax.Array, x_spec: PyTree) -> tuple[PyTree, PyTree]:
        params, state = jax.vmap(lambda k: block.init(k, x_spec))(jax.random.split(key, times))
        one = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape[1:], a.dtype), (params, state))
        with in_layer(f"the block of a repeat of {times}"):
            _check(x_spec, output_spec(block, *one, x_spec))
        return params, state

    def fwd(params: PyTree, state: PyTree, x: PyTree, context: Context) -> Forward:
        keys = None if context.key is None else jax.random.split(context.key, times)

        def step(x: PyTree, each: tuple[PyTree, PyTree, jax.Array | None]) -> tuple[PyTree, PyTree]:
            p, s, key = each
            y, s, residuals, activations = block.fwd(p, s, x, context._replace(key=key))
            _check(x, y)
            return y, (s, residuals, activations)

        with in_layer(f"the block of a repeat of {times}"):
            y, (state, residuals, activations) = lax.scan(step, x, (params, state, keys), length=times)
        return Forward(y, state, residuals, activations)

    def bwd(
        params: PyTree, residuals: PyTree, y_ct: PyTree, visit: Visit, aux: PyTree, path: KeyPath
    ) -> Backward:
        def step(ct: PyTree, each: tuple[PyTree, PyTree, PyTree]) -> tuple[PyTree, PyTree]:
            p, r, a = each
            collected, cotangents, ct = block.bwd(p, r, ct, visit, a, path)
            return ct, (collected, cotangents)

        with in_layer(f"the block of a repeat of {times}"):
            x_ct, (collected, cotangents) = lax.scan(
                step, y_ct, (params, residuals, aux), reverse=True, length=times
            )
        return Backward(collected, cotangents, x_ct)

    return Layer(init, fwd, bwd)


def _check(x: PyTree, y: PyTree) -> None:
    def spec(tree: PyTree) -> PyTree:
        return jax.tree.map(lambda a: f"{a.dtype.name}[{', '.join(map(str, a.shape))}]", tree)

    if spec(x) != spec(y):
        raise ValueError(
            f"repeat: a block must give back the shape and dtype that it takes, got {spec(x)} -> {spec(y)}."
        )
