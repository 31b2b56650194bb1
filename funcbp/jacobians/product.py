"""Products: the chain rule."""

from collections.abc import Sequence

import jax

from ._names import parenthesized
from ._operator import Operator, Shape, Vec, size, structure
from .diagonal import Diagonal
from .identity import Identity
from .scaled import Scaled, scale
from .selection import Commutation

__all__ = ["Product", "compose", "factors_of"]


@structure("factors")
class Product(Operator):
    """J_1 J_2 … J_n: the last is applied first.

    Attributes:
        factors: the operators, as they are written.
    """

    factors: tuple[Operator, ...]

    @property
    def in_shape(self) -> Shape:
        """Shape of the input."""
        return self.factors[-1].in_shape

    @property
    def out_shape(self) -> Shape:
        """Shape of the output."""
        return self.factors[0].out_shape

    @property
    def T(self) -> Operator:
        """The transposed factors, the other way round."""
        return _product([factor.T for factor in reversed(self.factors)])

    def push(self, x_t: jax.Array) -> jax.Array:
        """Factor after factor, from the right: forward mode."""
        for factor in reversed(self.factors):
            x_t = factor.push(x_t)
        return x_t

    def pull(self, y_ct: jax.Array) -> jax.Array:
        """Factor after factor, from the left: the δ recurrence."""
        for factor in self.factors:
            y_ct = factor.pull(y_ct)
        return y_ct

    def show(self, vec: Vec = "columns") -> str:
        """The factors side by side."""
        return " ".join(parenthesized(factor.show(vec), "⊗+−") for factor in self.factors)

    def diagonal(self) -> jax.Array:
        """diag(Diag(s) J) = s ⊙ diag(J)."""
        first, *rest = self.factors
        if isinstance(first, Diagonal):
            return first.entries * _product(rest).diagonal()
        *rest, last = self.factors
        if isinstance(last, Diagonal):
            return last.entries * _product(rest).diagonal()
        return super().diagonal()

    def logdet(self) -> jax.Array:
        """The sum, where all factors are square."""
        self.require_square("logdet")
        if any(size(f.in_shape) != size(f.out_shape) for f in self.factors):
            return super().logdet()
        return sum((factor.logdet() for factor in self.factors[1:]), self.factors[0].logdet())

    def singular_values(self) -> jax.Array:
        """A permutation does not change them."""
        rest = list(self.factors)
        while len(rest) > 1 and isinstance(rest[0], Commutation):
            rest.pop(0)
        while len(rest) > 1 and isinstance(rest[-1], Commutation):
            rest.pop()
        return rest[0].singular_values() if len(rest) == 1 else super().singular_values()


def compose(last: Operator, first: Operator) -> Operator:
    """`last` after `first`, simplified where the structures allow it.

    Raises:
        ValueError: where the output of `first` has not the shape of the input of `last`.
    """
    if last.in_shape != first.out_shape:
        raise ValueError(
            f"J @ K: the input of J has shape {last.in_shape}, the output of K {first.out_shape}; "
            "they must be equal."
        )
    if isinstance(last, Scaled):
        return scale(last.factor, compose(last.operator, first), last.name)
    if isinstance(first, Scaled):
        return scale(first.factor, compose(last, first.operator), first.name)
    done: list[Operator] = []
    waiting = [*factors_of(last), *factors_of(first)]
    while waiting:
        factor = waiting.pop(0)
        if isinstance(factor, Identity):
            continue
        together = done[-1].after(factor) if done else None
        if together is None:
            done.append(factor)
        else:
            done.pop()
            waiting[:0] = factors_of(together)
    return _product(done) if done else Identity(first.in_shape)


def factors_of(operator: Operator) -> tuple[Operator, ...]:
    """The factors of a product, or the operator itself."""
    return operator.factors if isinstance(operator, Product) else (operator,)


def _product(factors: Sequence[Operator]) -> Operator:
    return factors[0] if len(factors) == 1 else Product(tuple(factors))
