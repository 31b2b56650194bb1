"""`Transposed`: a parameter that was used as its transpose."""

import jax

from ._base import Factor, Kronecker, factor
from ._pairs import Pairs

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

    def scaled(self, c: jax.Array | float) -> Factor:
        """The transpose of the inner factor, scaled."""
        return Transposed(self.of.scaled(c))

    def squared_norms(self) -> jax.Array:
        """Those of the inner factor."""
        return self.of.squared_norms()

    def second_moment(self) -> jax.Array:
        """The transpose of the inner one."""
        return self.of.second_moment().T

    def kronecker(self, form: str = "expand") -> Kronecker | None:
        """The inner factors with rows and columns exchanged."""
        inner = self.of.kronecker(form)
        return None if inner is None else Kronecker(inner.columns, inner.rows)

    def examples(self) -> int:
        """Those of the inner factor."""
        return self.of.examples()

    def parts(self) -> tuple[Factor, ...]:
        """The transposes of the inner factor's terms."""
        return tuple(Transposed(part) for part in self.of.parts())

    def pairs(self) -> Pairs | None:
        """δ_t and a_t: (Σ a δᵀ)ᵀ = Σ δ aᵀ."""
        inner = self.of.pairs()
        return None if inner is None else inner.transposed

    def _project(self, left: jax.Array, right: jax.Array) -> jax.Array:
        return self.of._project(right, left)
