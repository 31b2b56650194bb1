"""Signs that a factorization leaves free, by one convention."""

import jax
from jax import numpy as jnp

__all__ = ["signs_of", "with_positive_largest"]


def signs_of(v: jax.Array) -> jax.Array:
    """For every column the sign, ±1, of its entry of largest magnitude: a constant of differentiation."""
    if v.shape[-2] == 0:
        return jnp.ones((*v.shape[:-2], v.shape[-1]), v.dtype)
    largest = jnp.take_along_axis(v, jnp.argmax(jnp.abs(v), -2, keepdims=True), -2)[..., 0, :]
    return jnp.where(largest < 0, -1, 1).astype(v.dtype)


def with_positive_largest(v: jax.Array) -> jax.Array:
    """The columns of V, the entry of largest magnitude positive in each."""
    return v * signs_of(v)[..., None, :]
