"""Diagonal: elementwise functions."""

import jax
from jax import numpy as jnp

from ._operator import Operator, Shape, Vec, held_in, size, structure

__all__ = ["Diagonal"]


@structure("entries")
class Diagonal(Operator):
    """dY = S ⊙ dX, that is Diag(vec S): the Jacobian of q = σ(p), with S = σ′(p).

    Attributes:
        entries: S, of the shape of input and output.
        shape: that shape.
        name: of S.

    >>> sigma = Diagonal(jnp.array([1.0, 2.0]), (2,), "σ′(p)")
    >>> print(sigma @ sigma.T)
    Diag(σ′(p) ⊙ σ′(p))
    >>> (sigma @ jnp.array([1.0, 1.0])).tolist(), float(sigma.trace())
    ([1.0, 2.0], 3.0)
    """

    entries: jax.Array
    shape: Shape
    name: str = "s"

    in_shape = out_shape = held_in("shape")

    @property
    def T(self) -> Operator:
        """Itself."""
        return self

    def push(self, x_t: jax.Array) -> jax.Array:
        """S ⊙ dX."""
        return self.entries * x_t

    def pull(self, y_ct: jax.Array) -> jax.Array:
        """S ⊙ Ȳ."""
        return self.entries * y_ct

    def show(self, vec: Vec = "columns") -> str:
        """Diag(S); how vec stacks is how S is stacked."""
        del vec
        return f"Diag({self.name})"

    def after(self, first: Operator) -> Operator | None:
        """Diag(S) Diag(R) = Diag(S ⊙ R)."""
        if isinstance(first, Diagonal):
            return Diagonal(self.entries * first.entries, self.shape, f"{self.name} ⊙ {first.name}")
        return None

    def plus(self, other: Operator) -> Operator | None:
        """Diag(S) + Diag(R) = Diag(S + R)."""
        if isinstance(other, Diagonal):
            return Diagonal(self.entries + other.entries, self.shape, f"{self.name} + {other.name}")
        return None

    def as_tensor(self) -> jax.Array:
        """S on the diagonal of zeros."""
        return jnp.diag(self.entries.ravel()).reshape(self.shape * 2)

    def diagonal(self) -> jax.Array:
        """S."""
        return self.entries

    def logdet(self) -> jax.Array:
        """Σ log |s|."""
        return jnp.sum(jnp.log(jnp.abs(self.entries)))

    def singular_values(self) -> jax.Array:
        """|s|, sorted."""
        return jnp.sort(jnp.abs(self.entries).reshape(size(self.shape)), descending=True)
