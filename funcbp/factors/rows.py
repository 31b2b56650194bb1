"""`Rows`: an embedding table."""

import math

import jax
from jax import numpy as jnp
from jaxtyping import Array, Float, Int

from .._numerics import upcast
from ._base import Factor, factor
from ._pairs import OneHot, Pairs

__all__ = ["Rows"]


@factor("size")
class Rows(Factor):
    """∂C/∂E, for rows looked up by id: row i is the sum of the δ's of every place where id i was read.

    Attributes:
        ids: which row was read, `(*batch)`.
        delta: the cotangent of what was read, `(*batch, features)`.
        size: number of rows of the table.
    """

    ids: Int[Array, "*batch"]
    delta: Float[Array, "*batch features"]
    size: int

    def gradient(self) -> jax.Array:
        """The δ's added up by id: `(size, features)`. Duplicate ids add; an id out of range adds nothing.

        >>> from jax import numpy as jnp
        >>> Rows(jnp.array([0, 2, 0]), jnp.array([[1.0], [2.0], [3.0]]), 3).gradient()
        Array([[4.],
               [0.],
               [2.]], dtype=float32)
        """
        delta = upcast(self.delta)
        # Negative ids would count from the end; the forward pass reads nothing there.
        ids = jnp.where(self.ids < 0, self.size, self.ids)
        return jnp.zeros((self.size, delta.shape[-1]), delta.dtype).at[ids].add(delta, mode="drop")

    def merged(self) -> "Rows":
        """The same gradients from a factor in which no example reads a row twice: `(examples, positions)`.

        The δ's of places where an example read the same row are added up at the first of them, in order of
        the ids; what is left over reads no row. No table is formed, nor a pair of positions: the ids are
        sorted.

        >>> merged = Rows(jnp.array([[2, 0, 2]]), jnp.array([[[1.0], [2.0], [3.0]]]), 3).merged()
        >>> merged.ids.tolist(), merged.delta.ravel().tolist()
        ([[0, 2, 3]], [2.0, 4.0, 0.0])
        """
        ids, delta = self._by_position()
        known = (ids >= 0) & (ids < self.size)
        delta = jnp.where(known[..., None], upcast(delta), 0)
        merged_ids, merged = jax.vmap(_added_up)(jnp.where(known, ids, self.size), delta)
        return Rows(jnp.where(merged_ids < 0, self.size, merged_ids), merged, self.size)

    def squared_norms(self) -> jax.Array:
        """Σ_ts [i_t = i_s] ⟨δ_t, δ_s⟩, which is the sum of the squares once the δ's of each id are added up.

        The first form for 2 T ≤ features: it takes a quarter of the memory there, in about the same time. The
        second, `merged`, does not grow with T².

        >>> Rows(jnp.array([[0, 1, 0]]), jnp.array([[[1.0], [2.0], [3.0]]]), 5).squared_norms()
        Array([20.], dtype=float32)
        """
        pairs = self.pairs()
        if 2 * pairs.positions <= self.delta.shape[-1]:
            return pairs.inner(pairs)
        return jnp.sum(jnp.square(self.merged().delta), axis=(1, 2))

    def second_moment(self) -> jax.Array:
        """The squares of the merged δ's, added up by id."""
        merged = self.merged()
        return Rows(merged.ids, jnp.square(merged.delta), self.size).gradient()

    def pairs(self) -> Pairs:
        """Rows of the identity, and δ_t."""
        ids, delta = self._by_position()
        return Pairs(OneHot(ids, self.size), delta)

    def _project(self, left: jax.Array, right: jax.Array) -> jax.Array:
        self.examples()
        return self.pairs().project(left, right)

    def _by_position(self) -> tuple[jax.Array, jax.Array]:
        """Ids `(examples, positions)` and δ's `(examples, positions, features)`."""
        self.examples()
        count, *positions = self.ids.shape
        length = math.prod(positions)
        return self.ids.reshape(count, length), self.delta.reshape(count, length, self.delta.shape[-1])


def _added_up(ids: jax.Array, delta: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Of one example: every id once, in order, and -1 behind them; the sums of their δ's."""
    order = jnp.argsort(ids)
    ids, delta = ids[order], delta[order]
    place = jnp.cumsum(jnp.diff(ids, prepend=ids[:1]) != 0)
    sums = jax.ops.segment_sum(delta, place, ids.shape[0], indices_are_sorted=True)
    return jnp.full_like(ids, -1).at[place].set(ids), sums
