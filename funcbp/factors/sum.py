"""`Sum`: a parameter that is used more than once."""

import functools
import itertools
import operator

import jax
from jax import numpy as jnp

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

    def scaled(self, c: jax.Array | float) -> Factor:
        """The sum of the terms, scaled."""
        return Sum(tuple(term.scaled(c) for term in self.terms))

    def squared_norms(self) -> jax.Array:
        """‖Σ_i g_i‖² = Σ_i ‖g_i‖² + 2 Σ_{i<j} ⟨g_i, g_j⟩, where no g_i is formed that need not be.

        For terms that cancel, an absolute error of some ulps of Σ ‖g_i‖² remains; never below 0.
        """
        parts = self.parts()
        squares = sum(part.squared_norms() for part in parts)
        crossed = sum(a.inner(b) for a, b in itertools.combinations(parts, 2))
        return jnp.maximum(squares + 2 * crossed, 0)

    def examples(self) -> int:
        """Those of the terms, which all have the same."""
        counts = {term.examples() for term in self.terms}
        if len(counts) > 1:
            raise ValueError(f"Sum: the terms must have the same examples, got {sorted(counts)} of them.")
        return counts.pop()

    def parts(self) -> tuple[Factor, ...]:
        """The terms, and those of terms that are sums themselves."""
        return tuple(part for term in self.terms for part in term.parts())

    def _project(self, left: jax.Array, right: jax.Array) -> jax.Array:
        return functools.reduce(operator.add, (term._project(left, right) for term in self.terms))
