"""What one planted case is, and how a family of them is written down."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import jax
import numpy as np
from jax import numpy as jnp

Kind = Literal["gradient", "vjp", "jacobian", "chain"]
Arguments = Callable[[], tuple[Any, ...]]


@dataclass(frozen=True)
class Case:
    """A hand-written derivative as a user would bring it, and what is known about it.

    Attributes:
        name: family and function, "dense/bias_not_summed".
        family: file of the case.
        kind: which check it is for.
        mine: what the user wrote: a gradient, a (fwd, bwd) pair, a `jax.custom_vjp`, a Jacobian, or a chain.
        of: the function (for a chain: functions) it should be the derivative of.
        args: makes the example, as it would stand in the user's test.
        options: keyword options of the check.
        causes: names of the causes that are right answers, best first; empty for a correct derivative.
        note: what was done wrong, or what makes a correct one hard.
        exposed: makes arguments at which a bug shows that the example hides.
        conventional: for a correct one, where and why it differs from `jax.vjp` in float64.
        where: for a chain, the guilty step.
    """

    name: str
    family: str
    kind: Kind
    mine: Any
    of: Any
    args: Arguments
    options: Mapping[str, Any] = field(default_factory=dict)
    causes: tuple[str, ...] = ()
    note: str = ""
    exposed: Arguments | None = None
    conventional: str = ""
    where: str = ""

    @property
    def is_bug(self) -> bool:
        """Whether a checker should reject it."""
        return bool(self.causes)


class Family:
    """Collects the cases of one file; the name is the decorated function's, the note its docstring's."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.cases: list[Case] = []

    def add(self, kind: Kind, mine: Any, of: Any, args: Arguments, *causes: str, **rest: Any) -> None:
        """Adds a case; what `rest` has that no field is called is an option of the check."""
        named = rest.pop("named", mine)
        known = {name: rest.pop(name) for name in ("exposed", "conventional", "where") if name in rest}
        name = f"{self.name}/{named.__name__.strip('_')}"
        note = " ".join((named.__doc__ or "").split())
        self.cases.append(Case(name, self.name, kind, mine, of, args, rest, causes, note, **known))

    def gradient(self, of: Any, args: Arguments, *causes: str, **rest: Any) -> Callable[[Any], Any]:
        """Decorates a gradient of the scalar function `of`; the causes say what is wrong with it."""

        def add(mine: Any) -> Any:
            self.add("gradient", mine, of, args, *causes, **rest)
            return mine

        return add

    def vjp(
        self, of: Any, args: Arguments, *causes: str, fwd: Any = None, **rest: Any
    ) -> Callable[[Any], Any]:
        """Decorates the bwd that belongs to `fwd`; without one, a custom_vjp function."""

        def add(mine: Any) -> Any:
            self.add("vjp", mine if fwd is None else (fwd, mine), of, args, *causes, named=mine, **rest)
            return mine

        return add

    def jacobian(self, of: Any, args: Arguments, *causes: str, **rest: Any) -> Callable[[Any], Any]:
        """Decorates a Jacobian of `of`."""

        def add(mine: Any) -> Any:
            self.add("jacobian", mine, of, args, *causes, **rest)
            return mine

        return add

    def chain(self, of: Any, args: Arguments, *causes: str, **rest: Any) -> Callable[[Any], Any]:
        """Decorates a function without arguments that gives the list of steps."""

        def add(mine: Any) -> Any:
            self.add("chain", mine(), of, args, *causes, named=mine, **rest)
            return mine

        return add


def array(shape: tuple[int, ...], seed: int = 0, dtype: Any = jnp.float32, scale: float = 1.0) -> jax.Array:
    """Standard normal numbers."""
    return jnp.asarray(scale * np.random.default_rng(seed).standard_normal(shape), dtype)


def normal(*shapes: tuple[int, ...], dtype: Any = jnp.float32, scale: float = 1.0) -> Arguments:
    """One normal array for every shape."""

    def make() -> tuple[Any, ...]:
        return tuple(array(shape, seed, dtype, scale) for seed, shape in enumerate(shapes, start=1))

    return make


def integers(shape: tuple[int, ...], high: int, seed: int = 0) -> jax.Array:
    """Whole numbers in [0, high)."""
    return jnp.asarray(np.random.default_rng(seed).integers(0, high, shape), jnp.int32)


def positive(shape: tuple[int, ...], seed: int = 0, low: float = 0.2, high: float = 2.0) -> jax.Array:
    """Uniform numbers away from zero."""
    return jnp.asarray(np.random.default_rng(seed).uniform(low, high, shape), jnp.float32)


def spd(n: int, seed: int = 0) -> jax.Array:
    """A symmetric, well conditioned positive definite matrix."""
    factor = np.random.default_rng(seed).standard_normal((n, n))
    return jnp.asarray(factor @ factor.T / n + np.eye(n), jnp.float32)
