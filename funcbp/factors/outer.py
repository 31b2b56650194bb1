"""`Outer`: the weight of a dense layer."""

import jax
from jaxtyping import Array, Float

from .._numerics import matmul
from ._base import Factor, factor

__all__ = ["Outer"]


@factor()
class Outer(Factor):
    """∂C/∂W = Σ a δᵀ, for p = a W with rows as examples: ∂W = Aᵀ Δ.

    Attributes:
        a: what went into the layer, `(*batch, in)`.
        delta: ∂C/∂p, `(*batch, out)`.
    """

    a: Float[Array, "*batch in"]
    delta: Float[Array, "*batch out"]

    def gradient(self) -> jax.Array:
        """Aᵀ Δ with all leading axes flattened: `(in, out)`.

        >>> from jax import numpy as jnp
        >>> Outer(jnp.array([1.0, 2.0]), jnp.array([3.0, 4.0, 5.0])).gradient()
        Array([[ 3.,  4.,  5.],
               [ 6.,  8., 10.]], dtype=float32)
        """
        a = self.a.reshape(-1, self.a.shape[-1]) if self.a.size else self.a.reshape(0, self.a.shape[-1])
        delta = self.delta.reshape(a.shape[0], self.delta.shape[-1])
        return matmul(a.T, delta)
