"""Identity: what a skip connection passes on."""

import jax
from jax import numpy as jnp

from . import _names
from ._operator import Operator, Shape, Vec, held_in, size, structure

__all__ = ["Identity"]


@structure()
class Identity(Operator):
    """dY = dX, of every shape.

    >>> print(Identity((2, 3)))
    I₆
    """

    shape: Shape

    in_shape = out_shape = held_in("shape")

    @property
    def T(self) -> Operator:
        """Itself."""
        return self

    def push(self, x_t: jax.Array) -> jax.Array:
        """The tangent itself."""
        return x_t

    def pull(self, y_ct: jax.Array) -> jax.Array:
        """The cotangent itself."""
        return y_ct

    def show(self, vec: Vec = "columns") -> str:
        """I, with its size."""
        del vec
        return _names.identity(size(self.shape)).text

    def diagonal(self) -> jax.Array:
        """Ones."""
        return jnp.ones(self.shape)

    def logdet(self) -> jax.Array:
        """0."""
        return jnp.zeros(())

    def singular_values(self) -> jax.Array:
        """Ones."""
        return jnp.ones(size(self.shape))
