"""`Rows`: an embedding table."""

import jax
from jax import numpy as jnp
from jaxtyping import Array, Float, Int

from .._numerics import upcast
from ._base import Factor, factor

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
