"""Diagonal plus low rank: softmax and normalizations, of one row."""

import jax
from jax import numpy as jnp

from ._operator import Operator, Shape, Vec, structure

__all__ = ["DiagonalPlusLowRank"]


@structure("entries", "u", "v")
class DiagonalPlusLowRank(Operator):
    """dy = d ⊙ dx + U Vᵀ dx, that is Diag(d) + U Vᵀ, of vectors.

    Attributes:
        entries: d, (n,).
        u: U, (n, rank).
        v: V, (n, rank).
        n: the length of the vectors.
        name: the formula.

    >>> q = jnp.array([0.25, 0.75])
    >>> softmax = DiagonalPlusLowRank(q, -q[:, None], q[:, None], 2, "Diag(q) − q qᵀ")
    >>> softmax.as_matrix().tolist()
    [[0.1875, -0.1875], [-0.1875, 0.1875]]
    """

    entries: jax.Array
    u: jax.Array
    v: jax.Array
    n: int
    name: str = "Diag(d) + U Vᵀ"
    transposed_name: str = ""

    @property
    def in_shape(self) -> Shape:
        """Shape of the input."""
        return (self.n,)

    @property
    def out_shape(self) -> Shape:
        """Shape of the output."""
        return (self.n,)

    @property
    def T(self) -> Operator:
        """Diag(d) + V Uᵀ."""
        other = self.transposed_name or f"({self.name})ᵀ"
        return DiagonalPlusLowRank(self.entries, self.v, self.u, self.n, other, self.name)

    def push(self, x_t: jax.Array) -> jax.Array:
        """d ⊙ dx + U (Vᵀ dx)."""
        return self.entries * x_t + self.u @ (x_t @ self.v)

    def pull(self, y_ct: jax.Array) -> jax.Array:
        """d ⊙ ȳ + V (Uᵀ ȳ)."""
        return self.entries * y_ct + self.v @ (y_ct @ self.u)

    def show(self, vec: Vec = "columns") -> str:
        """The formula."""
        del vec
        return self.name

    def as_tensor(self) -> jax.Array:
        """Diag(d) + U Vᵀ."""
        return jnp.diag(self.entries) + self.u @ self.v.T

    def diagonal(self) -> jax.Array:
        """d and the diagonal of U Vᵀ."""
        return self.entries + jnp.sum(self.u * self.v, -1)

    def logdet(self) -> jax.Array:
        """log |det(I + Vᵀ Diag(d)⁻¹ U)| + Σ log |d|, the determinant of the rank's size.

        Where the matrix is singular, as softmax's is, what is left is rounding: very negative, or -∞.
        """
        inner = jnp.eye(self.u.shape[-1], dtype=self.dtype) + self.v.T @ (self.u / self.entries[:, None])
        return jnp.linalg.slogdet(inner)[1] + jnp.sum(jnp.log(jnp.abs(self.entries)))
