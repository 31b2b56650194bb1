"""The Euclidean projection onto the simplex, over the last axis."""

import jax
from jax import lax
from jax import numpy as jnp

__all__ = ["above", "threshold"]


def above(z: jax.Array, tau: jax.Array) -> jax.Array:
    """max(z - τ, 0): the projection of z, if τ is its threshold."""
    # Not `maximum`, whose derivative at 0 is ½ in JAX; and NaN is not to pass for 0.
    return jnp.where(z <= tau, 0, z - tau)


def threshold(z: jax.Array) -> jax.Array:
    """The τ with Σ max(z - τ, 0) = 1, for every row.

    τ = (Σ z - 1) / |S| over the support S, the z above τ. From all that can be in it, what is not above the τ
    of the set leaves the set, until nothing does (Michelot 1986): a few short sums, many times faster than to
    sort.
    """
    # Shifted, or large scores would drown the 1.
    fixed = lax.stop_gradient(z)
    fixed = fixed - jnp.max(fixed, axis=-1, keepdims=True, initial=-jnp.inf)

    def fewer(state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        support, _ = state
        left = support & (fixed > _mean_excess(fixed, support))
        return left, jnp.any(left != support)

    support, _ = lax.while_loop(lambda state: state[1], fewer, (fixed > -1, jnp.array(True)))
    top = lax.stop_gradient(jnp.max(z, axis=-1, keepdims=True, initial=-jnp.inf))
    return top + _mean_excess(z - top, support)


def _mean_excess(z: jax.Array, support: jax.Array) -> jax.Array:
    """(Σ z - 1) / |S|."""
    count = jnp.sum(support, axis=-1, keepdims=True)
    # A row with NaN has no support.
    return (jnp.sum(jnp.where(support, z, 0), axis=-1, keepdims=True) - 1) / jnp.maximum(count, 1)
