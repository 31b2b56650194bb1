"""`Elementwise`: a gain."""

import jax
from jaxtyping import Array, Float

from .._numerics import upcast
from ._base import Factor, factor

__all__ = ["Elementwise"]


@factor("ndim")
class Elementwise(Factor):
    """∂C/∂γ = Σ a ⊙ δ, for p = γ ⊙ a.

    Attributes:
        a: what the parameter multiplies, `(*batch, *parameter)`.
        delta: ∂C/∂p, the same shape.
        ndim: number of trailing axes that belong to the parameter.
    """

    a: Float[Array, "*shape"]
    delta: Float[Array, "*shape"]
    ndim: int = 1

    def gradient(self) -> jax.Array:
        """The sum of a ⊙ δ over the leading axes.

        >>> from jax import numpy as jnp
        >>> Elementwise(jnp.array([[1.0, 2.0], [3.0, 4.0]]), jnp.array([[1.0, 1.0], [1.0, 0.5]])).gradient()
        Array([4., 4.], dtype=float32)
        """
        product = upcast(self.a) * upcast(self.delta)
        return product.sum(tuple(range(product.ndim - self.ndim)))

    def _own_axes(self) -> int:
        return self.ndim
