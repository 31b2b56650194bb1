"""Sums: the product rule, and skip connections."""

import functools
from collections.abc import Sequence

import jax

from ._operator import Operator, Shape, Vec, structure
from .identity import Identity
from .product import compose, factors_of
from .scaled import Scaled

__all__ = ["Sum", "add"]


@structure("terms")
class Sum(Operator):
    """J_1 + J_2 + … + J_n.

    Attributes:
        terms: the operators.
    """

    terms: tuple[Operator, ...]

    @property
    def in_shape(self) -> Shape:
        """Shape of the input."""
        return self.terms[0].in_shape

    @property
    def out_shape(self) -> Shape:
        """Shape of the output."""
        return self.terms[0].out_shape

    @property
    def T(self) -> Operator:
        """The transposed terms."""
        return Sum(tuple(term.T for term in self.terms))

    def push(self, x_t: jax.Array) -> jax.Array:
        """The sum over the terms."""
        first, *rest = (term.push(x_t) for term in self.terms)
        return sum(rest, first)

    def pull(self, y_ct: jax.Array) -> jax.Array:
        """The sum over the terms."""
        first, *rest = (term.pull(y_ct) for term in self.terms)
        return sum(rest, first)

    def show(self, vec: Vec = "columns") -> str:
        """The terms with + between them."""
        first, *rest = (term.show(vec) for term in self.terms)
        return first + "".join(f" − {t[1:]}" if t[0] == "−" else f" + {t}" for t in rest)

    def as_tensor(self) -> jax.Array:
        """The sum of the tensors."""
        first, *rest = (term.as_tensor() for term in self.terms)
        return sum(rest, first)

    def diagonal(self) -> jax.Array:
        """The sum of the diagonals."""
        first, *rest = (term.diagonal() for term in self.terms)
        return sum(rest, first)

    def trace(self) -> jax.Array:
        """The sum of the traces."""
        first, *rest = (term.trace() for term in self.terms)
        return sum(rest, first)


def add(a: Operator, b: Operator) -> Operator:
    """a + b: terms of one structure are one; what both are applied to is written, and computed, once.

    Raises:
        TypeError: for something that is not an operator.
        ValueError: for operators of different shapes.
    """
    if not isinstance(b, Operator):
        raise TypeError(f"J + K: K must be an operator, got {type(b).__name__}.")
    if (a.in_shape, a.out_shape) != (b.in_shape, b.out_shape):
        raise ValueError(
            f"J + K: J takes {a.in_shape} to {a.out_shape}, K {b.in_shape} to {b.out_shape}; "
            "they must be equal."
        )
    own, other = _split(a), _split(b)
    count = _shared(own, other)
    if count:
        rest = add(_together(own[:-count], a.out_shape), _together(other[:-count], a.out_shape))
        return compose(rest, _together(own[-count:], a.in_shape))
    terms = list(a.terms) if isinstance(a, Sum) else [a]
    for term in b.terms if isinstance(b, Sum) else (b,):
        for k, other in enumerate(terms):
            together = other.plus(term)
            if together is not None:
                terms[k] = together
                break
        else:
            terms.append(term)
    return terms[0] if len(terms) == 1 else Sum(tuple(terms))


def _split(operator: Operator) -> tuple[Operator, ...]:
    """The factors; a number in front is one of its own."""
    if isinstance(operator, Scaled):
        number = Scaled(operator.factor, Identity(operator.out_shape), operator.name)
        return (number, *factors_of(operator.operator))
    return factors_of(operator)


def _shared(own: Sequence[Operator], other: Sequence[Operator]) -> int:
    """How many factors at the end are the same objects."""
    pairs = zip(reversed(own), reversed(other), strict=False)
    return next((k for k, (a, b) in enumerate(pairs) if a is not b), min(len(own), len(other)))


def _together(factors: Sequence[Operator], shape: Shape) -> Operator:
    return functools.reduce(compose, factors, Identity(shape))
