"""The decisions a program takes: comparisons, maxima, roundings, found in its jaxpr."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import lax
from jax import numpy as jnp
from jax.core import Tracer

from .. import _compat
from .._compat import ClosedJaxpr, JaxprEqn, Literal

__all__ = ["constants", "decisions", "labels"]

_KEPT = 256  # decisions of one equation; large arrays are sampled evenly

_COMPARISONS = frozenset({"eq", "ge", "gt", "le", "lt", "max", "min", "ne"})
_FROM_ZERO = frozenset({"abs", "sign"})
_JUMPS = frozenset({"ceil", "floor", "is_finite", "round"})
_ARGUMENT = {
    "argmax": jnp.argmax,
    "argmin": jnp.argmin,
    "reduce_max": jnp.argmax,
    "reduce_min": jnp.argmin,
}
_SAME_NUMBER = frozenset(
    {"broadcast_in_dim", "convert_element_type", "copy", "expand_dims", "reshape", "squeeze", "stop_gradient"}
)
_ARITHMETIC: dict[str, Callable[..., float]] = {
    "add": lambda a, b: a + b,
    "div": lambda a, b: a / b if b else math.nan,
    "mul": lambda a, b: a * b,
    "neg": lambda a: -a,
    "sqrt": lambda a: math.sqrt(a) if a >= 0 else math.nan,
    "sub": lambda a, b: a - b,
}


# The number on the other side of a comparison of integers with a constant on the right.
_NEXT_TO = {"eq": 0, "ne": 0, "gt": 0, "ge": -1, "le": 1}


class _Entry(NamedTuple):
    """A value of the program, and the number that it always is, if there is one."""

    value: Any
    constant: float | None = None


class _Ledger:
    """What has been decided so far, and the numbers that were compared with."""

    def __init__(self) -> None:
        self.states: list[jax.Array] = []
        self.constants: list[float] = []
        self.labels: list[int] = []

    def add(self, state: Any) -> None:
        """Records an array of discrete states."""
        flat = jnp.ravel(state)
        step = max(1, -(-flat.size // _KEPT))
        self.states.append(flat[::step].astype(jnp.int32))

    def sign(self, difference: Any) -> None:
        """Records on which side of zero something is."""
        if jnp.issubdtype(jnp.result_type(difference), jnp.floating):
            self.add(jnp.where(jnp.isnan(difference), 2, jnp.sign(difference)))

    def compared(self, *entries: _Entry) -> None:
        """Records a number that something else was compared with."""
        if any(jnp.issubdtype(jnp.result_type(e.value), jnp.floating) for e in entries):
            known = [e.constant for e in entries if e.constant is not None]
            if len(known) < len(entries):
                self.constants += [abs(c) for c in known if math.isfinite(c)]

    def flat(self) -> jax.Array:
        """All states."""
        return jnp.concatenate(self.states) if self.states else jnp.zeros(0, jnp.int32)


def decisions(function: Callable[..., Any]) -> Callable[..., jax.Array]:
    """`(*args) -> states`: a flat vector of integers; two inputs with equal states take the same branches.

    A state is on which side of each other two compared numbers are, which element is the largest, the order
    of what is sorted, the value of what is rounded. Found inside of calls, scans and all branches of a
    `cond`; not inside of `while`. Traceable.

    >>> step = decisions(lambda x: jnp.where(x > 1, x, jnp.abs(x)))
    >>> step(2.0).tolist(), step(-0.5).tolist()
    ([1, 1], [-1, -1])
    """

    def states(*args: Any) -> jax.Array:
        return _recorded(function, args).flat()

    return states


def constants(function: Callable[..., Any], *args: Any) -> list[float]:
    """The positive numbers, and zero, that a function compares something with, in the order of the program.

    >>> constants(lambda x: jnp.where(jnp.abs(x) < 2.5, x, 0.0), 1.0)
    [0.0, 2.5]
    """
    found: list[float] = []

    def record(*args: Any) -> int:
        found.extend(_recorded(function, args).constants)
        return 0

    jax.eval_shape(record, *args)
    return list(dict.fromkeys(found))


def labels(function: Callable[..., Any], *args: Any) -> list[int]:
    """The whole numbers that a function treats apart: a padding index, an ignored label.

    `<` is left out: JAX's own indexing asks whether an index is negative.

    >>> labels(lambda y: jnp.where(y != -100, y, 0), 3)
    [-100]
    """
    found: list[int] = []

    def record(*args: Any) -> int:
        found.extend(_recorded(function, args).labels)
        return 0

    jax.eval_shape(record, *args)
    return list(dict.fromkeys(found))


def _recorded(function: Callable[..., Any], args: Sequence[Any]) -> _Ledger:
    closed = jax.make_jaxpr(function)(*args)
    ledger = _Ledger()
    _evaluate(closed, [_Entry(x) for x in jax.tree.leaves(args)], ledger)
    return ledger


def _constant(x: Any) -> _Entry:
    known = not isinstance(x, Tracer) and np.shape(x) == () and np.isrealobj(x)
    number = known and jnp.issubdtype(jnp.result_type(x), jnp.number)
    return _Entry(x, float(x) if number else None)


def _evaluate(closed: ClosedJaxpr, entries: Sequence[_Entry], ledger: _Ledger) -> list[_Entry]:
    environment: dict[Any, _Entry] = {}
    environment.update(zip(closed.jaxpr.constvars, map(_constant, closed.consts), strict=True))
    environment.update(zip(closed.jaxpr.invars, entries, strict=True))

    def read(atom: Any) -> _Entry:
        return _constant(atom.val) if isinstance(atom, Literal) else environment[atom]

    for equation in closed.jaxpr.eqns:
        outputs = _equation(equation, [read(atom) for atom in equation.invars], ledger)
        environment.update(zip(equation.outvars, outputs, strict=True))
    return [read(atom) for atom in closed.jaxpr.outvars]


def _equation(equation: JaxprEqn, inputs: list[_Entry], ledger: _Ledger) -> list[_Entry]:
    name = equation.primitive.name
    inner = _compat.called(equation)
    if inner is not None:
        return _evaluate(inner, inputs, ledger)
    if name == "scan":
        return _scan(equation, inputs, ledger)
    if name == "cond":
        for branch in equation.params["branches"]:
            _evaluate(branch, inputs[1:], ledger)
    outputs = _compat.bind(equation, [entry.value for entry in inputs])
    _record(name, equation, inputs, outputs, ledger)
    return [_Entry(x, _folded(name, inputs)) for x in outputs]


def _folded(name: str, inputs: list[_Entry]) -> float | None:
    known = [entry.constant for entry in inputs if entry.constant is not None]
    if not known or len(known) < len(inputs):
        return None
    if name in _SAME_NUMBER:
        return known[0]
    return _ARITHMETIC[name](*known) if name in _ARITHMETIC else None


def _record(name: str, equation: JaxprEqn, inputs: list[_Entry], outputs: list[Any], ledger: _Ledger) -> None:
    if not inputs:
        return
    first = inputs[0].value
    if name in _COMPARISONS:
        ledger.sign(first - inputs[1].value if _is_floating(first) else first)
        ledger.compared(*inputs)
        if name in _NEXT_TO and jnp.issubdtype(jnp.result_type(first), jnp.integer):
            ledger.labels += [int(x.constant) + _NEXT_TO[name] for x in inputs if x.constant is not None]
    elif name in _FROM_ZERO:
        ledger.sign(first)
        ledger.compared(inputs[0], _Entry(0.0, 0.0))
    elif name == "clamp" and _is_floating(first):
        low, x, high = inputs
        ledger.sign(x.value - low.value)
        ledger.sign(x.value - high.value)
        ledger.compared(x, low)
        ledger.compared(x, high)
    elif name in _ARGUMENT and _is_floating(first):
        ledger.add(_winner(_ARGUMENT[name], first, equation.params["axes"]))
    elif name == "sort" and _is_floating(first):
        ledger.add(jnp.argsort(first, axis=equation.params["dimension"]))
    elif name == "top_k" and _is_floating(first):
        ledger.add(outputs[1])
    elif _is_floating(first) and _rounds(name, outputs):
        ledger.add(outputs[0])


def _rounds(name: str, outputs: list[Any]) -> bool:
    return name in _JUMPS or (name == "convert_element_type" and not _is_inexact(outputs[0]))


def _is_inexact(x: Any) -> bool:
    return jnp.issubdtype(jnp.result_type(x), jnp.inexact)


def _is_floating(x: Any) -> bool:
    return jnp.issubdtype(jnp.result_type(x), jnp.floating)


def _winner(argument: Callable[..., jax.Array], x: jax.Array, axes: Sequence[int]) -> jax.Array:
    kept = [axis for axis in range(x.ndim) if axis not in axes]
    rows = jnp.transpose(x, (*kept, *axes)).reshape(*(x.shape[axis] for axis in kept), -1)
    return argument(rows, axis=-1) if rows.shape[-1] else jnp.zeros(rows.shape[:-1])


def _scan(equation: JaxprEqn, inputs: list[_Entry], ledger: _Ledger) -> list[_Entry]:
    body = equation.params["jaxpr"]
    consts, carries = _compat.scan_counts(equation)
    fixed = inputs[:consts]
    carry, xs = (
        [entry.value for entry in part]
        for part in (inputs[consts : consts + carries], inputs[consts + carries :])
    )

    def step(carry: list[Any], now: list[Any]) -> tuple[list[Any], tuple[list[Any], jax.Array]]:
        within = _Ledger()
        outputs = _evaluate(body, [*fixed, *map(_Entry, carry), *map(_Entry, now)], within)
        ledger.constants += within.constants
        ledger.labels += within.labels
        values = [entry.value for entry in outputs]
        return values[:carries], (values[carries:], within.flat())

    length, reverse = equation.params["length"], equation.params["reverse"]
    last, (ys, states) = lax.scan(step, carry, xs, length=length, reverse=reverse)
    if states.size:
        ledger.add(states)
    return [_Entry(x) for x in (*last, *ys)]
