"""What is fed into a backward pass: cotangents, and values in the types that probes hold."""

from typing import Any

import jax
import numpy as np
from jax import numpy as jnp

from ._problem import Kind, Leaf

__all__ = ["draw_cotangent", "one_hot_cotangent", "widened"]


def draw_cotangent(kind: Kind, out_spec: Any, rng: np.random.Generator) -> Any:
    """A cotangent of the output: signed, no two elements alike; 1 if the question is about a gradient.

    Args:
        kind: of the problem.
        out_spec: tree of `jax.ShapeDtypeStruct`. Outputs that are not floating get zeros.
        rng: where the numbers come from.
    """
    return jax.tree.map(lambda spec: _cotangent(kind, spec, rng), out_spec)


def _cotangent(kind: Kind, spec: Any, rng: np.random.Generator) -> np.ndarray:
    if not jnp.issubdtype(spec.dtype, jnp.inexact):
        return np.zeros(spec.shape)
    is_complex = jnp.issubdtype(spec.dtype, jnp.complexfloating)
    if kind == "gradient":
        return np.ones(spec.shape, complex if is_complex else float)
    drawn = _signed(rng, spec.shape)
    return drawn + 1j * _signed(rng, spec.shape) if is_complex else drawn


def _signed(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    # Away from zero: an element with a tiny cotangent would go unseen.
    return rng.uniform(0.25, 2.0, shape) * np.where(rng.random(shape) < 0.5, -1.0, 1.0)


def one_hot_cotangent(like: Any, rng: np.random.Generator) -> Any:
    """A cotangent that is 1 at one element of every output, and 0 elsewhere."""

    def one(c: np.ndarray) -> np.ndarray:
        hot = np.zeros_like(c)
        if c.size:
            hot.flat[rng.integers(c.size)] = 1.0
        return hot

    return jax.tree.map(one, like)


def widened(value: Any, leaf: Leaf) -> Any:
    """A value for a leaf as probes hold it: float64 or complex128; the rest in the leaf's own dtype."""
    if leaf.kind == "key":
        return value
    kinds = {"floating": np.float64, "complex": np.complex128}
    return np.asarray(value).astype(kinds.get(leaf.kind, leaf.value.dtype))
