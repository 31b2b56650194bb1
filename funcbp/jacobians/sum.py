"""Sums: the product rule, and skip connections."""

import jax

from ._operator import Operator, Shape, Vec, structure
from .identity import Identity
from .product import Product, compose, factors_of

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
    shared = _shared(a, b)
    if shared:
        tail = shared[0] if len(shared) == 1 else Product(shared)
        return compose(add(_without(a, len(shared)), _without(b, len(shared))), tail)
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


def _shared(a: Operator, b: Operator) -> tuple[Operator, ...]:
    """The factors at the end that both have, the same objects."""
    own, other = factors_of(a), factors_of(b)
    count = 0
    while count < min(len(own), len(other)) and own[-1 - count] is other[-1 - count]:
        count += 1
    return own[len(own) - count :]


def _without(operator: Operator, count: int) -> Operator:
    factors = factors_of(operator)[: len(factors_of(operator)) - count]
    if not factors:
        return Identity(operator.out_shape)
    return factors[0] if len(factors) == 1 else Product(factors)
