"""`Total`: a bias."""

import jax
from jaxtyping import Array, Float

from .._numerics import upcast
from ._base import Factor, factor

__all__ = ["Total"]


@factor("ndim")
class Total(Factor):
    """∂C/∂b = Σ δ, over all axes that b does not have.

    Attributes:
        delta: ∂C/∂p, `(*batch, *parameter)`.
        ndim: number of trailing axes that belong to the parameter.
    """

    delta: Float[Array, "*shape"]
    ndim: int = 1

    def gradient(self) -> jax.Array:
        """The sum over the leading axes.

        >>> from jax import numpy as jnp
        >>> Total(jnp.array([[1.0, 2.0], [3.0, 4.0]])).gradient()
        Array([4., 6.], dtype=float32)
        """
        return upcast(self.delta).sum(tuple(range(self.delta.ndim - self.ndim)))

    def _own_axes(self) -> int:
        return self.ndim
