"""`Sum`: a parameter that is used more than once."""

import functools
import operator

import jax

from ._base import Factor, factor

__all__ = ["Sum"]


@factor()
class Sum(Factor):
    """∂C/∂W of a shared parameter: one term for each use.

    Attributes:
        terms: the factor of each use.
    """

    terms: tuple[Factor, ...]

    def gradient(self) -> jax.Array:
        """The sum of the terms' gradients.

        >>> from jax import numpy as jnp
        >>> from funcbp.factors import Total
        >>> Sum((Total(jnp.ones((2, 1))), Total(jnp.ones((3, 1))))).gradient()
        Array([5.], dtype=float32)
        """
        return functools.reduce(operator.add, (term.gradient() for term in self.terms))
