"""Layers that only tests need, and the comparison of a sweep with the oracle of `funcbp.verify`."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax import numpy as jnp

from funcbp import factors, layers
from funcbp.verify import vjp_oracle

PyTree = Any


def drawn(network: layers.Layer, x: Any, seed: int = 0) -> tuple[PyTree, PyTree]:
    """Parameters with the tree, shapes and dtypes of `network.init`, and a state of zeros.

    NumPy draws them: what `init` does one operation at a time is compiled one operation at a time, and that
    takes longer than most sweeps.
    """
    rng = np.random.default_rng(seed)

    def draw(path: Any, spec: Any) -> jax.Array:
        deviation = 0.3 if len(spec.shape) < 2 else 1 / np.sqrt(spec.shape[-2])
        gain = path and getattr(path[-1], "key", None) == "gain"
        return jnp.asarray(deviation * rng.standard_normal(spec.shape) + bool(gain), spec.dtype)

    params, state = jax.eval_shape(network.init, jax.random.key(0), x)
    zeros = jax.tree.map(lambda spec: jnp.asarray(np.zeros(spec.shape, spec.dtype)), state)
    return jax.tree_util.tree_map_with_path(draw, params), zeros


def assert_gradient(
    grads: PyTree, value: Callable[[PyTree], jax.Array], params: PyTree, dtype: str = "float64"
) -> None:
    """`grads` is ∂value/∂params, within the verifier's own bound, with the tree and dtypes of params."""
    truth, bound = vjp_oracle(value, (params,), np.float64(1.0), dtype)
    assert jax.tree.structure(grads) == jax.tree.structure(params)
    leaves = jax.tree_util.tree_leaves_with_path(grads)
    rest = (jax.tree.leaves(tree) for tree in (truth[0], bound[0], params))
    for (path, g), t, b, p in zip(leaves, *rest, strict=True):
        where = jax.tree_util.keystr(path)
        assert g.dtype == p.dtype, f"{where}: {g.dtype}, not {p.dtype}"
        assert g.shape == p.shape, f"{where}: {g.shape}, not {p.shape}"
        excess = np.abs(np.asarray(g, np.float64) - t) - b
        assert np.isfinite(b).all(), f"{where}: no bound"
        assert (excess <= 0).all(), f"{where}: off by {excess.max():.1e} more than rounding explains"


def assert_trees_equal(actual: PyTree, expected: PyTree) -> None:
    """Same tree, dtypes and bits."""
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for a, e in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert a.dtype == e.dtype
        np.testing.assert_array_equal(a, e)


def assert_trees_close(actual: PyTree, expected: PyTree, ulps: float = 64) -> None:
    """Same tree, every element within some ulps of its leaf's largest: for two orders of summation."""
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for a, e in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert a.dtype == e.dtype
        scale = np.abs(np.asarray(e)).max(initial=0) * jnp.finfo(e.dtype).eps
        np.testing.assert_allclose(a, e, rtol=0, atol=ulps * scale)


def running_norm() -> layers.Layer:
    """y = γ (x - μ): in training μ is the mean of the batch, and moves a running mean."""

    def fwd(gain: jax.Array, state: jax.Array, x: jax.Array, context: layers.Context) -> tuple[Any, ...]:
        axes = tuple(range(x.ndim - 1))
        mean = x.mean(axes) if context.train else state
        state = 0.9 * state + 0.1 * mean if context.train else state
        return gain * (x - mean), state, (x - mean, jnp.bool_(context.train))

    def pullback(gain: jax.Array, residuals: tuple[Any, ...], y_ct: jax.Array) -> tuple[Any, jax.Array]:
        centered, train = residuals
        ct = gain * y_ct
        coupled = ct - ct.mean(tuple(range(ct.ndim - 1)))
        return factors.Elementwise(centered, y_ct), jnp.where(train, coupled, ct)

    def init(key: jax.Array, x_spec: Any) -> tuple[PyTree, PyTree]:
        return jnp.ones(x_spec.shape[-1], x_spec.dtype), jnp.zeros(x_spec.shape[-1], x_spec.dtype)

    return layers.leaf(init, fwd, pullback)


def masked_mean() -> layers.Layer:
    """The mean over the positions that `context.mask` lets through."""

    def fwd(params: Any, state: Any, x: jax.Array, context: layers.Context) -> tuple[Any, ...]:
        mask = jnp.ones(x.shape[:2], bool) if context.mask is None else context.mask
        weights = mask / mask.sum(1, keepdims=True)
        return jnp.einsum("bt,btf->bf", weights.astype(x.dtype), x), state, weights.astype(x.dtype)

    def pullback(params: Any, weights: jax.Array, y_ct: jax.Array) -> tuple[Any, jax.Array]:
        return (), weights[:, :, None] * y_ct[:, None, :]

    return layers.leaf(lambda key, x_spec: ((), ()), fwd, pullback)
