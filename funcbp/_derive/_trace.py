"""From a JAX function to one expression, by way of its jaxpr. Axes of size 1 are dropped on the way."""

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import jax
import numpy as np

from .. import _compat
from ._algebra import broadcast, constant
from ._choices import number
from ._errors import UnsupportedError
from ._nodes import Node
from ._scalars import Dimension, scalar_of_float

__all__ = ["Equation", "Rule", "Trace", "dimension", "live"]

Rule = Callable[["Equation"], Node | list[Node]]


def dimension(size: Any) -> Dimension:
    """A size of a jaxpr as an int or the spelling of a polynomial.

    Raises:
        UnsupportedError: for a size with `min`, `max` or integer division in it.
    """
    if isinstance(size, (int, np.integer)):
        return int(size)
    text = str(size)
    if "(" in text:
        raise UnsupportedError(f"the size {text}")
    return text


def live(shape: Sequence[Any]) -> list[int]:
    """The axes that are kept: those whose size is not 1."""
    return [k for k, size in enumerate(shape) if not (isinstance(size, (int, np.integer)) and size == 1)]


class Equation:
    """One equation of a jaxpr, with the nodes of its operands.

    Attributes:
        name: of the primitive.
        params: of the primitive.
        args: the operands, without axes of size 1.
        shapes: of the operands in the jaxpr.
        out: shape of the first result in the jaxpr.
        trace: the trace that it belongs to.
    """

    def __init__(self, trace: "Trace", equation: _compat.JaxprEqn, args: list[Node]) -> None:
        self.trace, self.jax, self.args = trace, equation, args
        self.name, self.params = equation.primitive.name, equation.params
        self.shapes = [tuple(getattr(v.aval, "shape", ())) for v in equation.invars]
        self.out = tuple(getattr(equation.outvars[0].aval, "shape", ()))

    @property
    def dims(self) -> tuple[Dimension, ...]:
        """The shape of the first result, without axes of size 1."""
        return tuple(dimension(self.out[k]) for k in live(self.out))

    @property
    def dtype(self) -> np.dtype:
        """The dtype of the first operand."""
        aval: Any = self.jax.invars[0].aval
        return np.dtype(aval.dtype)

    def aligned(self, index: int) -> Node:
        """An operand repeated to the shape of the result."""
        shape, kept = self.shapes[index], live(self.out)
        axes = [kept.index(k) for k in live(shape)]
        return broadcast(self.args[index], axes, self.dims)

    def refuse(self, why: str = "") -> UnsupportedError:
        """The error that names the primitive and the line of code."""
        frames = [f for e in (self.jax, *reversed(self.trace.callers)) for f in _compat.frames(e)]
        where = next((f"{file}:{line}" for file, line, _ in frames if _is_users(file)), "")
        reason = f": {why}" if why else " is not supported"
        return UnsupportedError(
            f"derive: the operation `{self.name}`{f' at {where}' if where else ''}{reason}"
        )


def _is_users(file: str) -> bool:
    folders = Path(file).parts
    return "jax" not in folders and "_derive" not in folders and not file.startswith("<")


class Trace:
    """Interprets a jaxpr by the rules of its primitives.

    Attributes:
        rules: by name of primitive.
        notes: conditions that were met on the way.
        callers: the calls inside of which it is.
    """

    def __init__(self, rules: Mapping[str, Rule]) -> None:
        self.rules = rules
        self.notes: list[str] = []
        self.callers: list[_compat.JaxprEqn] = []

    def run(self, closed: _compat.ClosedJaxpr, args: Sequence[Node]) -> list[Node]:
        """The nodes of the results of a closed jaxpr."""
        env: dict[Any, Node] = dict(zip(closed.jaxpr.invars, args, strict=True))
        consts = {v: _constant(c) for v, c in zip(closed.jaxpr.constvars, closed.consts, strict=True)}

        def read(atom: Any) -> Node:
            if isinstance(atom, _compat.Literal):
                return _known(atom.val)
            if atom in consts:
                return consts[atom]()
            return env[atom]

        needed = _needed(closed.jaxpr)
        for equation, used in zip(closed.jaxpr.eqns, needed, strict=True):
            if not used:
                continue
            found = Equation(self, equation, [read(v) for v in equation.invars])
            rule = self.rules.get(found.name)
            if rule is None:
                raise found.refuse()
            outs = rule(found)
            outs = outs if isinstance(outs, list) else [outs]
            env.update(zip(equation.outvars, outs, strict=True))
        return [read(v) for v in closed.jaxpr.outvars]

    def inside(
        self, caller: _compat.JaxprEqn, closed: _compat.ClosedJaxpr, args: Sequence[Node]
    ) -> list[Node]:
        """The results of a jaxpr that an equation calls."""
        self.callers.append(caller)
        outs = self.run(closed, args)
        self.callers.pop()
        return outs


def _needed(jaxpr: _compat.Jaxpr) -> list[bool]:
    """For every equation, whether a result depends on it."""
    wanted = {v for v in jaxpr.outvars if not isinstance(v, _compat.Literal)}
    out = []
    for equation in reversed(jaxpr.eqns):
        used = any(v in wanted for v in equation.outvars) or bool(equation.effects)
        if used:
            wanted.update(v for v in equation.invars if not isinstance(v, _compat.Literal))
        out.append(used)
    return out[::-1]


def _known(value: Any) -> Node:
    """A number that is in the program."""
    value = float(value)
    return constant(scalar_of_float(value)) if np.isfinite(value) else number(value)


def _constant(value: Any) -> Callable[[], Node]:
    """An array that the function closes over: one number everywhere, or refused when it is used."""

    def read() -> Node:
        array = np.asarray(value)
        shape = tuple(array.shape[k] for k in live(array.shape))
        if not array.size or (array != array.flat[0]).any():
            raise UnsupportedError(
                f"derive: the function closes over an array of shape {array.shape}; pass it as an argument, "
                "so that it has a name"
            )
        return broadcast(_known(array.flat[0]), (), shape)

    return read


def fraction(value: Any) -> Fraction:
    """A parameter of a primitive as an exact number."""
    return scalar_of_float(float(value)).number


def trace_shapes(
    function: Callable[..., Any], specs: Sequence[jax.ShapeDtypeStruct]
) -> tuple[_compat.ClosedJaxpr, Any]:
    """The jaxpr of a function in float64 and the tree of its result."""
    with _compat.enable_x64():
        closed, out = jax.make_jaxpr(function, return_shape=True)(*specs)
    return closed, out
