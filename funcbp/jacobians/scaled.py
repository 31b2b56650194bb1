"""A number times an operator."""

from fractions import Fraction
from typing import Any

import jax
from jax import numpy as jnp

from ._names import parenthesized
from ._operator import Operator, Shape, Vec, size, structure

__all__ = ["Scaled", "scale"]


@structure("factor", "operator")
class Scaled(Operator):
    """c J.

    Attributes:
        factor: c, a scalar.
        operator: J.
        name: of c.
    """

    factor: jax.Array
    operator: Operator
    name: str = "c"

    @property
    def in_shape(self) -> Shape:
        """Shape of the input."""
        return self.operator.in_shape

    @property
    def out_shape(self) -> Shape:
        """Shape of the output."""
        return self.operator.out_shape

    @property
    def T(self) -> Operator:
        """c Jᵀ."""
        return Scaled(self.factor, self.operator.T, self.name)

    def push(self, x_t: jax.Array) -> jax.Array:
        """c (J dX)."""
        return self.factor * self.operator.push(x_t)

    def pull(self, y_ct: jax.Array) -> jax.Array:
        """c (Ȳ J)."""
        return self.factor * self.operator.pull(y_ct)

    def show(self, vec: Vec = "columns") -> str:
        """c in front."""
        sign = "−" if self.name == "−1" else f"{self.name} "
        return f"{sign}{parenthesized(self.operator.show(vec), '⊗+−')}"

    def as_tensor(self) -> jax.Array:
        """c times the tensor."""
        return self.factor * self.operator.as_tensor()

    def diagonal(self) -> jax.Array:
        """c times the diagonal."""
        return self.factor * self.operator.diagonal()

    def logdet(self) -> jax.Array:
        """n log |c| + log |det J|."""
        return size(self.in_shape) * jnp.log(jnp.abs(self.factor)) + self.operator.logdet()

    def singular_values(self) -> jax.Array:
        """|c| times those of J."""
        return jnp.abs(self.factor) * self.operator.singular_values()


def scale(factor: Any, operator: Operator, name: str | None = None) -> Operator:
    """c J; a number in front of a number is one number.

    Raises:
        TypeError: for a factor that is no scalar.
    """
    if name is None:
        name = f"{factor:g}".replace("-", "−") if isinstance(factor, (int, float)) else "c"
    if jnp.ndim(factor) != 0:
        raise TypeError(
            f"an operator can be multiplied by a scalar; got an array of shape {jnp.shape(factor)}."
        )
    factor = jnp.asarray(factor, operator.dtype)
    if isinstance(operator, Scaled):
        return scale(factor * operator.factor, operator.operator, _product(name, operator.name))
    return operator if name == "1" else Scaled(factor, operator, name)


def _product(a: str, b: str) -> str:
    """The name of a product of numbers: multiplied where both are."""
    try:
        return str(Fraction(a.replace("−", "-")) * Fraction(b.replace("−", "-"))).replace("-", "−")
    except ValueError:
        return f"{a}·{b}"
