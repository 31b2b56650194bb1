"""Matrices of matrix calculus that no library has: commutation, duplication, elimination, Khatri-Rao.

The first three are selections; vech A stacks the columns of A from the diagonal down.
"""

import jax
import numpy as np
from jax import numpy as jnp

from ._names import Name, subscript
from ._operator import Operator, Shape, Vec, structure
from .selection import Commutation, Selection
from .transposed import Transposed

__all__ = ["KhatriRao", "commutation", "duplication", "elimination"]


def commutation(rows: int, columns: int) -> Operator:
    """K, with K vec X = vec Xᵀ for X of (rows × columns).

    >>> commutation(2, 2).as_matrix(vec="columns").astype(int).tolist()
    [[1, 0, 0, 0], [0, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 1]]
    """
    return Commutation((rows, columns))


def duplication(n: int) -> Operator:
    """D, with D vech S = vec S for symmetric S of (n × n): vech S to S.

    >>> (duplication(2) @ jnp.array([1.0, 2.0, 3.0])).tolist()
    [[1.0, 2.0], [2.0, 3.0]]
    """
    place = np.zeros((n, n), np.int32)
    columns, rows = np.triu_indices(n)
    place[rows, columns] = place[columns, rows] = np.arange(len(rows))
    return Selection(jnp.asarray(place.ravel()), (len(rows),), (n, n), f"D{subscript(n)}")


def elimination(n: int) -> Operator:
    """L, with L vec A = vech A for A of (n × n).

    >>> (elimination(2) @ jnp.array([[1.0, 5.0], [2.0, 3.0]])).tolist()
    [1.0, 2.0, 3.0]
    """
    columns, rows = np.triu_indices(n)
    return Selection(jnp.asarray(rows * n + columns), (n, n), (len(rows),), f"L{subscript(n)}")


@structure("a", "b")
class KhatriRao(Operator):
    """A ⊙ₖ B, whose column k is a_k ⊗ b_k: vec by columns of B Diag(x) Aᵀ, so dx ↦ B Diag(dx) Aᵀ.

    Attributes:
        a: A, (m, k).
        b: B, (n, k).
        sizes: m, n, k.
        names: of A and B.

    >>> A, B = jnp.array([[1.0, 2.0]]), jnp.array([[3.0, 4.0], [5.0, 6.0]])
    >>> KhatriRao(A, B, (1, 2, 2)).as_matrix(vec="columns").tolist()
    [[3.0, 8.0], [5.0, 12.0]]
    """

    a: jax.Array
    b: jax.Array
    sizes: tuple[int, int, int]
    names: tuple[Name, Name] = (Name.of("A"), Name.of("B"))

    @property
    def in_shape(self) -> Shape:
        """(k,)."""
        return (self.sizes[2],)

    @property
    def out_shape(self) -> Shape:
        """(n, m)."""
        return (self.sizes[1], self.sizes[0])

    @property
    def T(self) -> Operator:
        """Y ↦ diag(Bᵀ Y A)."""
        return Transposed(self)

    def push(self, x_t: jax.Array) -> jax.Array:
        """B Diag(dx) Aᵀ."""
        return (self.b * x_t) @ self.a.T

    def pull(self, y_ct: jax.Array) -> jax.Array:
        """diag(Bᵀ Ȳ A)."""
        return jnp.sum(self.b * (y_ct @ self.a), 0)

    def show(self, vec: Vec = "columns") -> str:
        """A ⊙ₖ B, or B ⊙ₖ A."""
        a, b = (name.text for name in self.names)
        return f"{a} ⊙ₖ {b}" if vec == "columns" else f"{b} ⊙ₖ {a}"

    def as_tensor(self) -> jax.Array:
        """B_nk A_mk."""
        return self.b[:, None, :] * self.a[None, :, :]

    def singular_values(self) -> jax.Array:
        """√ of the eigenvalues of AᵀA ⊙ BᵀB, the Gram matrix of the columns."""
        gram = (self.a.T @ self.a) * (self.b.T @ self.b)
        found = jnp.sqrt(jnp.maximum(jnp.linalg.eigvalsh(gram)[::-1], 0))
        return found[: min(self.sizes[2], self.sizes[0] * self.sizes[1])]
