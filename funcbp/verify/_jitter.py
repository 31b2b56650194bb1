"""Gradients around a point: every decision of a program that is a tie there, taken one way and another.

A program is evaluated on pairs: values as they are, and a *view* of them that is moved by less than rounding
could move them. Comparisons, maxima, signs and sorts look at the view; everything else computes with the
values. So a tie falls one way or another, and the result is exactly the gradient on that side of the kink,
not the gradient at some distance from it.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
from jax import lax
from jax import numpy as jnp

from .. import _compat
from .._compat import JaxprEqn
from ._lift import lifted
from ._montecarlo import uniform
from ._pairs import EXACT, SUMS, Disturbance, Pair, evaluate, inexact

__all__ = ["AMPLITUDE", "KINDS", "gradients_around"]

AMPLITUDE = 2.0**-40  # of the terms of a sum: far more than float64's rounding, less than anybody's step

_INPUT = 2.0**-44  # inputs are exact: only equal ones have to be told apart
_TINY = 1e-280
_DECISIONS = frozenset(
    {"argmax", "argmin", "ceil", "eq", "floor", "ge", "gt", "le", "lt", "ne", "round", "sign"}
)
_ORDERED = frozenset({"sort", "top_k"})
_BY_WINDOW = frozenset({"select_and_gather_add", "select_and_scatter_add"})
_BOTH = EXACT | {"cummax", "cummin", "max", "min", "reduce_max", "reduce_min"}
_PRODUCTS = frozenset({"div", "mul"})

KINDS = ("elements", "arrays", "ramp", "moved", "strong")
"""What a row says: how much of the noise is drawn for each element, for each array at once, and falls along
each array; how far the inputs themselves are moved; and whether zero times anything is zero."""


class _Jitter(Disturbance):
    def __init__(self, values: jax.Array | None, row: dict[str, Any], amplitude: Any) -> None:
        super().__init__(values)
        self.row, self.amplitude = row, amplitude

    def direction(self, shape: tuple[int, ...]) -> jax.Array:
        """Which way, and how far, each element is moved: between -1 and 1."""
        elements, array = self.draw(*shape), self.take(1)[0]
        ramp = jnp.linspace(1.0, -1.0, max(math.prod(shape), 1) + 1)[: math.prod(shape)].reshape(shape)
        return (
            self.row["elements"] * elements + self.row["arrays"] * jnp.sign(array) + self.row["ramp"] * ramp
        )

    def viewed(self, value: Any, size: Any) -> Pair:
        """A value, and the view of it moved by up to `size`."""
        if not inexact(value):
            return Pair(value, value)
        return Pair(value, value + (size + _TINY) * self.direction(jnp.shape(value)))

    def given(self, value: Any) -> Pair:
        """An input. Where the row says so it is moved itself, relative to its own size."""
        if not inexact(value):
            return Pair(value, value)
        absolute = jnp.abs(value)
        largest = jnp.max(absolute, initial=0.0)
        absolute = jnp.where(absolute > 0, absolute, jnp.where(largest > 0, largest, 1.0))
        direction = self.direction(jnp.shape(value))
        view = value + (_INPUT * jnp.abs(value) + _TINY) * direction
        moved = value + self.row["moved"] * absolute * direction
        return Pair(moved, jnp.where(self.row["moved"] > 0, moved, view))

    def primitive(self, name: str, equation: JaxprEqn, inputs: list[Pair]) -> list[Pair]:
        values, views = [p.exact for p in inputs], [p.noisy for p in inputs]
        if name in _DECISIONS:
            return [Pair(x, x) for x in _compat.bind(equation, views)]
        if name in _ORDERED:
            return _ordered(name, equation, values, views)
        if name in _BY_WINDOW:
            outputs = _compat.bind(equation, [values[0], *views[1:]])
            return [Pair(x, x) for x in outputs]
        outputs = _compat.bind(equation, values)
        if name in _BOTH:
            if all(p.exact is p.noisy for p in inputs):
                return [Pair(x, x) for x in outputs]
            return [Pair(x, y) for x, y in zip(outputs, _compat.bind(equation, views), strict=True)]
        if name in _PRODUCTS and inexact(outputs[0]):
            outputs = [_strong(name, values, outputs[0], self.row["strong"])]
        if not any(map(inexact, outputs)):
            return [Pair(x, x) for x in outputs]
        size = _terms(name, equation, values)
        return [self.viewed(x, self.amplitude * (jnp.abs(x) if size is None else size)) for x in outputs]


def _strong(name: str, values: list[Any], output: Any, strong: Any) -> Any:
    # What where() discards has a zero cotangent; its derivative may be infinite, and is not meant.
    x, y = values
    zero = (x == 0) | (y == 0) if name == "mul" else (x == 0)
    return jnp.where((strong > 0) & zero, jnp.zeros_like(output), output)


def _terms(name: str, equation: JaxprEqn, values: list[Any]) -> Any:
    """The sum of the terms' absolute values, for sums; None for what adds nothing up."""
    if name in ("add", "add_any", "sub"):
        return jnp.abs(values[0]) + jnp.abs(values[1])
    if name in SUMS:
        (size,) = _compat.bind(equation, [jnp.abs(x) if inexact(x) else x for x in values])
        return jnp.abs(size)
    return None


def _ordered(name: str, equation: JaxprEqn, values: list[Any], views: list[Any]) -> list[Pair]:
    if name == "top_k":
        top, order = _compat.bind(equation, views)
        axis = equation.params.get("axis", values[0].ndim - 1)
        return [Pair(jnp.take_along_axis(values[0], order, axis), top), Pair(order, order)]
    axis, keys = equation.params["dimension"], equation.params["num_keys"]
    iota = lax.broadcasted_iota(jnp.int32, values[0].shape, axis)
    *_, order = lax.sort((*views, iota), dimension=axis, num_keys=keys, is_stable=True)
    return [
        Pair(jnp.take_along_axis(x, order, axis), jnp.take_along_axis(y, order, axis))
        for x, y in zip(values, views, strict=True)
    ]


def gradients_around(pull: Callable[..., Any]) -> Callable[..., Any]:
    """`(seed, rows, draws, factors, amplitude, values, cotangent) -> leaves` with a leading axis of rows.

    `rows` has a column for each of `KINDS`. Rows with the same number in `draws` share their noise, times
    their factor (-1: the other way); a negative number is the same noise for everything, 1. Traceable, where
    64-bit types are enabled.
    """

    def run(
        seed: Any, rows: Any, draws: Any, factors: Any, amplitude: Any, values: Any, cotangent: Any
    ) -> list[Any]:
        closed = jax.make_jaxpr(lifted(pull))(values, cotangent)
        given = [jnp.asarray(x) for x in jax.tree.leaves(values)]
        held = [Pair(x, x) for x in map(jnp.asarray, jax.tree.leaves(cotangent))]

        def evaluated(noise: Any) -> list[Any]:
            pairs = [noise.given(x) for x in given]
            return [pair.exact for pair in evaluate(closed, [*pairs, *held], noise)]

        nothing = dict.fromkeys(KINDS, jnp.zeros(()))
        count = _Jitter(None, nothing, amplitude).count(evaluated)

        def one(now: tuple[Any, Any, Any]) -> list[Any]:
            row, draw, factor = now
            drawn = uniform(seed * 1009 + jnp.maximum(draw, 0), 1, count)[0]
            settings = dict(zip(KINDS, row, strict=True))
            settings["ramp"] = settings["ramp"] * factor
            return evaluated(_Jitter(factor * jnp.where(draw < 0, 1.0, drawn), settings, amplitude))

        return lax.map(one, (rows, draws, factors))

    return run
