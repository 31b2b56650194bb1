"""A program with taps: what is noted where a parameter meets data, and the zeros that are added there."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np
from jax import numpy as jnp

from .. import _compat
from ..factors import Factor, Total
from ._factors import of_parameter
from ._views import View, replayed

__all__ = ["Frame", "Operand", "Use", "Value", "spec_of"]

PyTree = Any


@dataclass(frozen=True)
class Value:
    """Anything in a program that is no view of a parameter.

    Attributes:
        array: the value.
        data: whether it depends on the example.
        owners: the parameters that it is a function of, while it is a function of nothing else, and how many
            numbers of each.
    """

    array: Any
    data: bool = True
    owners: frozenset[tuple[int, int]] = frozenset()


Operand = View | Value


@dataclass(frozen=True)
class Use:
    """A place where a view of a parameter met data in a way that is known.

    Attributes:
        base: the parameter.
        spec: shape and dtype of the tap, the zeros that were added to what came out; their gradient is δ.
        factor: `(record, δ) -> Factor` of the parameter, of arrays with the examples on their first axis.
    """

    base: int
    spec: jax.ShapeDtypeStruct
    factor: Callable[[PyTree, jax.Array], Factor]


@dataclass
class Frame:
    """The parameters of a program (or of the body of a loop), and what is noted while it runs.

    A program is run twice: to see what there is to be noted, where all taps are zeros of its own, and with
    the taps that it is differentiated with respect to. What is noted is the same both times.

    Attributes:
        bases: the parameters, by number.
        taps: those of the uses, in order; None for zeros of its own.
        tapped: parameters with a zero added to them, by number, for where nothing better is known.
        uses: where parameters met data.
        records: what they met, one for each use.
        whole: the parameters of which `tapped` was asked for.
        unknown: of these, the ones of which gradients were formed that are larger than what they met in, and
            why.
    """

    bases: Sequence[jax.Array]
    taps: Sequence[jax.Array] | None = None
    tapped: dict[int, jax.Array] = field(default_factory=dict)
    uses: list[Use] = field(default_factory=list)
    records: list[PyTree] = field(default_factory=list)
    whole: dict[int, None] = field(default_factory=dict)
    unknown: dict[int, str] = field(default_factory=dict)

    def note(self, use: Use, record: PyTree = ()) -> jax.Array:
        """The tap of a use; the record may be set later, by its number."""
        self.uses.append(use)
        self.records.append(record)
        if self.taps is None:
            return jnp.zeros(use.spec.shape, use.spec.dtype)
        return self.taps[len(self.uses) - 1]

    def plain(self, operand: Operand) -> Value:
        """What any operation may be applied to: a view becomes a value that depends on a tap."""
        if isinstance(operand, Value):
            return operand
        base, size = operand.base, operand.array.size
        whole = self.bases[base].size
        if size < whole and operand.isometric:
            array = operand.array + self.note(_part(operand, self.bases[base].shape))
            return Value(array, data=False, owners=frozenset(((base, size),)))
        self.whole[base] = None
        tapped = self.bases[base] if self.taps is None else self.tapped[base]
        return Value(replayed(operand.moves, tapped), data=False, owners=frozenset(((base, whole),)))

    def constant(self, operand: Operand) -> Value:
        """What has no derivative."""
        return Value(operand.array, data=isinstance(operand, Value) and operand.data)

    def apply(self, equation: _compat.JaxprEqn, operands: Sequence[Operand]) -> list[Operand]:
        """An equation as it is, whatever it does: the way that is always right."""
        stops = equation.primitive.name == "stop_gradient" or not any(map(_inexact, equation.outvars))
        values = [self.constant(o) if stops else self.plain(o) for o in operands]
        outputs = _compat.bind(equation, [v.array for v in values])
        data = any(v.data for v in values)
        owners = frozenset().union(*(v.owners for v in values))
        if data:
            largest = max((math.prod(np.shape(o)) for o in outputs), default=0)
            self.met(owners, equation.primitive.name, largest)
            owners = frozenset()
        return [
            Value(o, data, owners if _inexact(v) else frozenset())
            for o, v in zip(outputs, equation.outvars, strict=True)
        ]

    def met(self, owners: frozenset[tuple[int, int]], primitive: str, size: int) -> None:
        """Note that what is made of these parameters met data in a result of so many numbers."""
        for base, numbers in owners:
            if numbers > size:
                self.unknown.setdefault(
                    base, f"its way into `{primitive}` is not one of those that are known"
                )


def spec_of(array: jax.Array) -> jax.ShapeDtypeStruct:
    """Shape and dtype."""
    return jax.ShapeDtypeStruct(np.shape(array), array.dtype)


def _part(view: View, shape: tuple[int, ...]) -> Use:
    """A use of a part of a parameter of `shape`, of which the gradients of examples are formed."""

    def factor(_: PyTree, delta: jax.Array) -> Factor:
        return of_parameter(Total(delta, view.array.ndim), shape, view.moves)

    return Use(view.base, spec_of(view.array), factor)


def _inexact(variable: Any) -> bool:
    dtype = getattr(variable.aval, "dtype", None)
    return dtype is not None and jnp.issubdtype(dtype, jnp.inexact)
