"""A rule at its arguments, and what can be read off its passes there."""

import dataclasses
from collections.abc import Hashable
from functools import cached_property
from typing import Any

import jax
from jax import numpy as jnp

from .._rule import Rule

__all__ = ["Call"]


@dataclasses.dataclass(frozen=True)
class _RuleMaps:
    """Derivatives of a rule: forward mode of its primal, and its backward pass."""

    rule: Rule
    static: tuple[tuple[str, Hashable], ...]
    position: int

    def push(self, args: Any, x_t: jax.Array) -> jax.Array:
        """Forward mode."""

        def at(x: jax.Array) -> jax.Array:
            return self.rule.primal(
                *args[: self.position], x, *args[self.position + 1 :], **dict(self.static)
            )

        return jax.jvp(at, (args[self.position],), (x_t,))[1]

    def pull(self, args: Any, y_ct: jax.Array) -> jax.Array:
        """The rule's backward pass."""
        _, residuals = self.rule.fwd(*args, **dict(self.static))
        return self.rule.bwd(residuals, y_ct, **dict(self.static))[self.position]


@dataclasses.dataclass(frozen=True, eq=False)
class Call:
    """A rule at its arguments, to be differentiated by one of them.

    Attributes:
        rule: the rule.
        args: its arrays; None for one that is left out.
        static: its options.
        position: of the argument.
        names: what the arguments are called.
    """

    rule: Rule
    args: tuple[Any, ...]
    static: dict[str, Any]
    position: int
    names: tuple[str, ...]

    @property
    def x(self) -> jax.Array:
        """The argument."""
        return self.args[self.position]

    @property
    def argument(self) -> str:
        """What the rule calls the argument."""
        return self.rule.signature.arguments[self.position].name

    @property
    def name(self) -> str:
        """Of the derivative."""
        if sum(a.floating for a in self.rule.signature.arguments) == 1:
            return f"{self.rule.name}′({self.names[self.position]})"
        return f"∂{self.rule.name}/∂{self.names[self.position]}"

    @cached_property
    def done(self) -> tuple[jax.Array, Any]:
        """Output and residuals."""
        return self.rule.fwd(*self.args, **self.static)

    @property
    def out(self) -> jax.Array:
        """The output."""
        return self.done[0]

    @cached_property
    def gradient(self) -> jax.Array:
        """What a cotangent of ones comes back as."""
        return self.rule.bwd(self.done[1], jnp.ones_like(self.out), **self.static)[self.position]

    @cached_property
    def push_of_ones(self) -> jax.Array:
        """What a tangent of ones goes to."""
        return self.maps.push(self.args, jnp.ones_like(self.x))

    @property
    def maps(self) -> _RuleMaps:
        """How the derivative is applied."""
        return _RuleMaps(self.rule, tuple(sorted(self.static.items())), self.position)

    def named(self, name: str) -> tuple[jax.Array, str]:
        """Another argument, and what it is called."""
        place = [a.name for a in self.rule.signature.arguments].index(name)
        return self.args[place], self.names[place]
