"""Transposed: what has no structure of its own when it is turned round."""

import jax

from ._operator import Operator, Shape, Vec, structure

__all__ = ["Transposed"]


@structure("operator")
class Transposed(Operator):
    """Jᵀ: pushes as J pulls.

    Attributes:
        operator: J.
    """

    operator: Operator

    @property
    def in_shape(self) -> Shape:
        """Shape of the input."""
        return self.operator.out_shape

    @property
    def out_shape(self) -> Shape:
        """Shape of the output."""
        return self.operator.in_shape

    @property
    def T(self) -> Operator:
        """J."""
        return self.operator

    def push(self, x_t: jax.Array) -> jax.Array:
        """What J does with a cotangent."""
        return self.operator.pull(x_t)

    def pull(self, y_ct: jax.Array) -> jax.Array:
        """What J does with a tangent."""
        return self.operator.push(y_ct)

    def show(self, vec: Vec = "columns") -> str:
        """Its formula, transposed."""
        text = self.operator.show(vec)
        return f"({text})ᵀ" if " " in text else f"{text}ᵀ"

    def diagonal(self) -> jax.Array:
        """That of J."""
        return self.operator.diagonal()

    def trace(self) -> jax.Array:
        """That of J."""
        return self.operator.trace()

    def logdet(self) -> jax.Array:
        """That of J."""
        return self.operator.logdet()

    def singular_values(self) -> jax.Array:
        """Those of J."""
        return self.operator.singular_values()
