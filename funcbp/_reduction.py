"""From a loss of every example to one value: weights, sum and mean."""

import jax
from jax import numpy as jnp

__all__ = ["example_weights", "value_cotangent"]

_WRONG = (
    "backprop: `weights` has shape {}, the loss {}; weights must have the shape of its leading axes, one for "
    "each example or position."
)


def value_cotangent(values: jax.Array, weights: jax.Array, total: jax.Array | None) -> jax.Array:
    """∂value/∂values: the weight of each value, over the sum of the weights for a mean."""
    if weights.shape != values.shape[: weights.ndim]:
        raise ValueError(_WRONG.format(weights.shape, values.shape))
    if total is not None:
        weights = weights * jnp.where(total == 0, 0, 1 / jnp.where(total == 0, 1, total))
    weights = weights.astype(jnp.promote_types(values.dtype, jnp.float32))
    return jnp.broadcast_to(
        weights.reshape(*weights.shape, *(1,) * (values.ndim - weights.ndim)), values.shape
    )


def example_weights(weights: jax.Array | None, batch: int) -> jax.Array:
    """The weights, or ones for a batch of examples."""
    # In the widest type there is: 1/n rounded to float32 would leave float64 gradients with float32's digits.
    widest = jnp.result_type(float)
    if weights is None:
        return jnp.ones(batch, widest)
    weights = jnp.asarray(weights)
    if weights.shape[:1] != (batch,):
        raise ValueError(_WRONG.format(weights.shape, f"({batch}, …)"))
    return weights.astype(jnp.promote_types(weights.dtype, widest))
