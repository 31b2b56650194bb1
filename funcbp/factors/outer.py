"""`Outer`: the weight of a dense layer."""

import math

import jax
from jax import numpy as jnp
from jaxtyping import Array, Float

from .._numerics import matmul, upcast
from ._base import Factor, Kronecker, factor
from ._pairs import Pairs

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

    def second_moment(self) -> jax.Array:
        """(A²)ᵀ (Δ²), squared entry by entry, where there are no positions; else in blocks.

        >>> Outer(jnp.array([[1.0], [2.0]]), jnp.array([[3.0], [1.0]])).second_moment()
        Array([[13.]], dtype=float32)
        """
        if self.a.ndim > 2:
            return super().second_moment()
        self.examples()
        return matmul(jnp.square(upcast(self.a)).T, jnp.square(upcast(self.delta)))

    def kronecker(self, form: str = "expand") -> Kronecker:
        """A and G with A ⊗ G ≈ Σ_n vec(g_n) vec(g_n)ᵀ (Eschenhagen et al. 2023, arXiv:2311.00636).

        With M vectors a and δ, A = 1/M Σ a aᵀ and G = Σ δ δᵀ, where

            expand    every position is taken as an example
            reduce    a is the mean over the positions of an example, δ their sum: Σ_t a_t δ_tᵀ ≈ ā δ̂ᵀ

        Both are exact for one example without positions, and where all a are equal (expand: without
        positions).

        Args:
            form: "expand" or "reduce".

        >>> factors = Outer(jnp.array([[2.0]]), jnp.array([[3.0, 1.0]])).kronecker()
        >>> factors.rows.tolist(), factors.columns.tolist()
        ([[4.0]], [[9.0, 3.0], [3.0, 1.0]])
        """
        if form not in ("expand", "reduce"):
            raise ValueError(f"kronecker: `form` must be 'expand' or 'reduce', got {form!r}.")
        self.examples()
        a, delta = self._by_position()
        if form == "reduce":
            a, delta = upcast(a).mean(1, keepdims=True), upcast(delta).sum(1, keepdims=True)
        a, delta = (x.reshape(x.shape[0] * x.shape[1], x.shape[2]) for x in (a, delta))
        return Kronecker(matmul(a.T, a) / max(1, a.shape[0]), matmul(delta.T, delta))

    def pairs(self) -> Pairs:
        """a_t and δ_t."""
        return Pairs(*self._by_position())

    def _project(self, left: jax.Array, right: jax.Array) -> jax.Array:
        self.examples()
        return self.pairs().project(left, right)

    def _by_position(self) -> tuple[jax.Array, jax.Array]:
        """Both as `(examples, positions, width)`."""
        count, *positions, _ = self.a.shape
        length = math.prod(positions)
        a, delta = (x.reshape(count, length, x.shape[-1]) for x in (self.a, self.delta))
        return a, delta
