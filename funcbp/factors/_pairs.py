"""Gradients that are sums over positions of outer products, and their inner products position by position.

With g = Σ_t l_t r_tᵀ and g′ = Σ_s l′_s r′_sᵀ

    ⟨g, g′⟩ = Σ_ts ⟨l_t, l′_s⟩ ⟨r_t, r′_s⟩

and neither gradient is formed. A side is an array of vectors, or of rows of the identity, of which only the
number is kept: their product with a vector is one of its entries, with each other 1 or 0.
"""

from dataclasses import dataclass
from typing import cast

import jax
from jax import numpy as jnp

from .._numerics import accumulator, matmul, upcast
from ._blocks import block_length, mapped

__all__ = ["OneHot", "Pairs", "products"]


@dataclass(frozen=True)
class OneHot:
    """Rows of the identity by number, `(*batch, positions)`; a number out of [0, size) is no row: zero."""

    ids: jax.Array
    size: int


jax.tree_util.register_dataclass(OneHot, data_fields=["ids"], meta_fields=["size"])
Side = jax.Array | OneHot


@dataclass(frozen=True)
class Pairs:
    """Σ_t left_t right_tᵀ for every example; each side `(examples, positions, width)`, or `OneHot`."""

    left: Side
    right: Side

    @property
    def examples(self) -> int:
        """N."""
        return _vectors(self.left)[0]

    @property
    def positions(self) -> int:
        """T."""
        return _vectors(self.left)[1]

    @property
    def transposed(self) -> "Pairs":
        """The same for gᵀ."""
        return Pairs(self.right, self.left)

    def work(self, other: "Pairs") -> int:
        """Multiplications that ⟨g, g′⟩ of two examples takes, position by position."""
        widths = sum(_work(a, b) for a, b in ((self.left, other.left), (self.right, other.right)))
        return self.positions * other.positions * widths

    def shorter(self, other: "Pairs", gradients: int) -> bool:
        """Whether products of positions take fewer multiplications than so many gradients of an example."""
        t, s = self.positions, other.positions
        size = _width(self.left) * _width(self.right)
        return self.work(other) <= (t if gradients == 1 else t + s) * size

    def inner(self, other: "Pairs") -> jax.Array:
        """⟨g_n, g′_n⟩: `(examples,)`."""

        def one(a: Pairs, b: Pairs) -> jax.Array:
            return jnp.sum(_products(a.left, b.left) * _products(a.right, b.right))

        return jax.vmap(one)(self, other)

    def gram(self, other: "Pairs") -> jax.Array:
        """⟨g_n, g′_m⟩: `(examples, other's examples)`; one product of matrices for each side, in blocks."""
        flat = Pairs(_flat(other.left), _flat(other.right))
        t, s, count = self.positions, other.positions, other.examples

        def row(one: Pairs) -> jax.Array:
            both = _products(one.left, flat.left) * _products(one.right, flat.right)
            return jnp.sum(both.reshape(t, count, s), axis=(0, 2))

        return mapped(row, self, block_length((self, other), t * s * count))

    def project(self, left: jax.Array, right: jax.Array) -> jax.Array:
        """Σ_t (leftᵀ l_t) ⊙ (rightᵀ r_t) of every example, for `(width, k)` each: `(examples, k)`."""
        return jnp.sum(_rows(self.left, left) * _rows(self.right, right), axis=1)


jax.tree_util.register_dataclass(Pairs, data_fields=["left", "right"], meta_fields=[])


def products(a: jax.Array, b: jax.Array) -> jax.Array:
    """⟨a_n, b_m⟩ of vectors, `(N, width)` and `(M, width)`: by the operations of `Pairs.gram`.

    Where both are taken of the same δ's, as for a weight and its bias, XLA then has one product.
    """
    return jax.vmap(lambda one: _products(one[None], b)[0])(a)


def _vectors(side: Side) -> tuple[int, ...]:
    return side.ids.shape if isinstance(side, OneHot) else side.shape[:-1]


def _width(side: Side) -> int:
    return side.size if isinstance(side, OneHot) else side.shape[-1]


def _work(a: Side, b: Side) -> int:
    return 1 if isinstance(a, OneHot) or isinstance(b, OneHot) else a.shape[-1]


def _flat(side: Side) -> Side:
    """Examples and positions as one axis."""
    if isinstance(side, OneHot):
        return OneHot(side.ids.reshape(-1), side.size)
    return side.reshape(side.shape[0] * side.shape[1], side.shape[2])


def _products(a: Side, b: Side) -> jax.Array:
    """⟨a_t, b_s⟩ for all t and s: `(T, S)`."""
    if isinstance(a, OneHot) and isinstance(b, OneHot):
        known = (a.ids >= 0) & (a.ids < a.size)
        return ((a.ids[:, None] == b.ids) & known[:, None]).astype(jnp.float32)
    if isinstance(a, OneHot):
        return _rows(a, upcast(cast(jax.Array, b)).T)
    if isinstance(b, OneHot):
        return _rows(b, upcast(a).T).T
    if a.shape[0] == b.shape[0] == 1:
        # Under vmap a product of matrices with one row each is slower than what it is: a sum of products.
        return jnp.sum(upcast(a) * upcast(b), axis=-1, keepdims=True)
    if a.dtype == b.dtype == accumulator(a):
        # Unlike a product with the transpose, this never has XLA lay out b twice.
        return jnp.einsum("ti,si->ts", a, b)
    return matmul(a, b.T)


def _rows(side: Side, matrix: jax.Array) -> jax.Array:
    """Each vector times a matrix `(width, k)`; for rows of the identity, the rows of the matrix."""
    if isinstance(side, OneHot):
        ids = jnp.where(side.ids < 0, side.size, side.ids)
        return jnp.take(matrix, ids, axis=0, mode="fill", fill_value=0)
    return matmul(side, matrix)
