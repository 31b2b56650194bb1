"""Factors of views of a parameter, as factors of the parameter."""

import functools
import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax import numpy as jnp

from .._numerics import matmul
from ..factors import Factor, Kronecker, Outer, Rows, Stacked, Sum, Total, Transposed
from ..factors._base import factor
from ._views import Move, carried_back, normal_form

__all__ = ["Positions", "Viewed", "of_parameter", "over_steps", "summed"]


@factor("parameter", "moves")
class Viewed(Factor):
    """∂C/∂W of a parameter of which a view was used: the factor of the view, carried back.

    Attributes:
        of: the factor of the view.
        parameter: the shape of the parameter.
        moves: how the view is made of it; isometric.
    """

    of: Factor
    parameter: tuple[int, ...]
    moves: tuple[Move, ...]

    def gradient(self) -> jax.Array:
        """The view's gradient, carried back.

        >>> moves = (("slice", (1, 0), (3, 1), None),)
        >>> Viewed(Total(jnp.ones((2, 1)), 2), (3, 1), moves).gradient().tolist()
        [[0.0], [1.0], [1.0]]
        """
        return self._back(self.of.gradient())

    def scaled(self, c: jax.Array | float) -> Factor:
        """The view's factor, scaled."""
        return Viewed(self.of.scaled(c), self.parameter, self.moves)

    def per_example(self) -> jax.Array:
        """Those of the view, carried back: `(examples, *parameter)`."""
        return jax.vmap(self._back)(self.of.per_example())

    def squared_norms(self) -> jax.Array:
        """Those of the view: every entry is in one place at most."""
        return self.of.squared_norms()

    def second_moment(self) -> jax.Array:
        """That of the view, carried back."""
        return self._back(self.of.second_moment())

    def kronecker(self, form: str = "expand") -> Kronecker | None:
        """Those of the view, for a reshaped parameter: vec is the same; else None."""
        return self.of.kronecker(form) if all(name == "reshape" for name, *_ in self.moves) else None

    def examples(self) -> int:
        """Those of the view."""
        return self.of.examples()

    def shape(self) -> tuple[int, ...]:
        """That of the parameter."""
        return self.parameter

    def parts(self) -> tuple[Factor, ...]:
        """The terms of the view's factor."""
        return tuple(Viewed(part, self.parameter, self.moves) for part in self.of.parts())

    def _back(self, gradient: jax.Array) -> jax.Array:
        return carried_back(self.moves, gradient, self.parameter)

    def _inner(self, other: Factor) -> jax.Array:
        if isinstance(other, Viewed) and _alike(self, other):
            return self.of.inner(other.of)
        return jnp.sum(_flat(self) * _flat(other), axis=1)

    def _gram(self, other: Factor) -> jax.Array:
        if isinstance(other, Viewed) and _alike(self, other):
            return self.of.gram(other.of)
        return matmul(_flat(self), _flat(other).T)

    def _each(self, function: Callable[[Factor], jax.Array]) -> jax.Array:
        # A stack has the examples on its second axis, so that blocks of them cannot be cut off here.
        return Total(self.per_example(), len(self.parameter))._each(function)


@factor()
class Positions(Factor):
    """∂C/∂W of a parameter that one example used at many positions: a sum over one more axis.

    Attributes:
        of: a factor whose arrays have the axis of positions behind that of the examples.
    """

    of: Factor

    def gradient(self) -> jax.Array:
        """The sum over examples and positions.

        >>> Positions(Total(jnp.ones((2, 3, 4)), 1)).per_example().tolist()
        [[3.0, 3.0, 3.0, 3.0], [3.0, 3.0, 3.0, 3.0]]
        """
        if self._delta().ndim == self._own_axes():
            return self.of.gradient()
        return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), self.of).gradient()

    def scaled(self, c: jax.Array | float) -> Factor:
        """The inner factor, scaled."""
        return Positions(self.of.scaled(c))

    def _delta(self) -> jax.Array:
        return self.of._delta()

    def _own_axes(self) -> int:
        return self.of._own_axes() + 1


@factor()
class Uses(Sum):
    """A sum of factors of different views of a parameter, or of stacks and what is none.

    Their arrays have the examples on different axes; what is compared entry by entry are gradients of
    examples.

    Attributes:
        terms: a `Viewed` of each use.
    """

    def scaled(self, c: jax.Array | float) -> Factor:
        """The sum of the terms, scaled."""
        return Uses(tuple(term.scaled(c) for term in self.terms))

    def per_example(self) -> jax.Array:
        """The sum of those of the terms."""
        return functools.reduce(operator.add, (term.per_example() for term in self.terms))

    def second_moment(self) -> jax.Array:
        """Of the gradients of the examples."""
        return jnp.sum(jnp.square(self.per_example()), axis=0)

    def shape(self) -> tuple[int, ...]:
        """That of every term."""
        return self.terms[0].shape()

    def _project(self, left: jax.Array, right: jax.Array) -> jax.Array:
        return Total(self.per_example(), len(self.shape()))._project(left, right)


def of_parameter(factor: Factor, shape: tuple[int, ...], moves: tuple[Move, ...]) -> Factor:
    """The factor of a parameter of `shape`, from that of its view."""
    for scale in (move[1] for move in moves if move[0] == "scale"):
        factor = factor.scaled(scale)
    moves = normal_form(shape, moves)
    if not moves:
        return factor
    if moves == (("transpose", (1, 0)),):
        return Transposed(factor)
    return Viewed(factor, shape, moves)


def over_steps(factor: Factor) -> Factor:
    """The factor of a parameter that a loop used at every step, from those of the steps, stacked.

    The steps are positions of one factor: ‖Σ_t g_t‖² has the products of all pairs of steps.
    """
    if isinstance(factor, Viewed):
        return Viewed(over_steps(factor.of), factor.parameter, factor.moves)
    if isinstance(factor, Transposed):
        return Transposed(over_steps(factor.of))
    if isinstance(factor, Stacked):
        return Stacked(jax.vmap(over_steps)(_swapped(factor.of)))
    if isinstance(factor, Outer | Rows):
        return _swapped(factor)
    if isinstance(factor, Positions):
        merged = jax.tree.map(lambda a: a.reshape(a.shape[0], -1, *a.shape[3:]), _swapped(factor.of))
        return Positions(merged)
    return Positions(_swapped(factor))


def summed(factors: Sequence[Factor], shape: tuple[int, ...]) -> Factor:
    """One factor for all uses of a parameter."""
    if len(factors) == 1:
        return factors[0]
    if any(isinstance(f, Viewed | Stacked) for f in factors):
        # Views that differ, and stacks with what is none, can only be compared as parameters.
        return Uses(tuple(f if isinstance(f, Viewed) else Viewed(f, shape, ()) for f in factors))
    return Sum(tuple(factors))


def _alike(a: Factor, b: Factor) -> bool:
    """Whether two factors have the same structure all the way down, and so the examples on the same axes."""
    return jax.tree.structure(a) == jax.tree.structure(b)


def _swapped(tree: Any) -> Any:
    return jax.tree.map(lambda a: jnp.swapaxes(a, 0, 1), tree)


def _flat(factor: Factor) -> jax.Array:
    return factor.per_example().reshape(factor.examples(), math.prod(factor.shape()))
