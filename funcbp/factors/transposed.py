"""`Transposed`: a parameter that was used as its transpose."""

import jax

from ._base import Factor, factor

__all__ = ["Transposed"]


@factor()
class Transposed(Factor):
    """∂C/∂W, for a use of Wᵀ: the transpose of that use's factor.

    Attributes:
        of: the factor of Wᵀ.
    """

    of: Factor

    def gradient(self) -> jax.Array:
        """The transpose of the inner gradient.

        >>> from jax import numpy as jnp
        >>> from funcbp.factors import Outer
        >>> Transposed(Outer(jnp.array([1.0, 2.0]), jnp.array([3.0]))).gradient()
        Array([[3., 6.]], dtype=float32)
        """
        return self.of.gradient().T
