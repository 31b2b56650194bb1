"""The same question at other sizes: axes of length one and zero, and arrays that are large."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import numpy as np

from .._compat import ClosedJaxpr, Jaxpr, JaxprEqn, enable_x64
from ._cotangents import draw_cotangent, widened
from ._inference import Assumption
from ._problem import Probe, Problem, Typing, like_output
from ._structures import Reals

__all__ = ["Resized", "resized"]

_WIDE = Typing("float64", True)
_ELEMENTS = 10**5  # of all arguments together, when enlarged
_INTERMEDIATE = 2 * 10**6  # elements of all arrays inside together
_HALF_WIDTH = 8.0


class Resized(NamedTuple):
    """A problem at another size.

    Attributes:
        label: what is different: `"axes of length 5 now have length 1"`.
        problem: the question, with an example of that size.
        probes: where to look.
    """

    label: str
    problem: Problem
    probes: tuple[Probe, ...]


def resized(problem: Problem, assumptions: Sequence[Assumption], seed: int = 0) -> list[Resized]:
    """The problem at a few other sizes at which both functions can be traced.

    Axes of equal length in the example are taken as the same axis, and change together. Only what traces with
    consistent shapes is returned: no function is called here.

    Args:
        problem: the question, with its example.
        assumptions: what its leaves may be, from `infer`.
        seed: of the values.
    """
    rng = np.random.default_rng(seed)
    lengths = _lengths(problem)
    found: list[Resized] = []
    for length in lengths[:3]:
        found += _at(problem, assumptions, {length: 1}, rng)
    for length in lengths[:2]:
        empty = _at(problem, assumptions, {length: 0}, rng)
        if empty:
            found += empty
            break
    for length in lengths[:3]:
        large = _enlarged(problem, assumptions, length, rng)
        if large:
            found += large
            break
    return found


def _lengths(problem: Problem) -> list[int]:
    """Lengths of axes; first those of leading axes (batches), and among these the most frequent."""
    shapes = [np.shape(leaf.value) for leaf in problem.leaves if leaf.kind != "key"]
    lengths = {n for shape in shapes for n in shape if n > 1}

    def rank(length: int) -> tuple[int, int, int]:
        repeated = max(shape.count(length) for shape in shapes)
        return repeated, -sum(shape[:1] == (length,) for shape in shapes), length

    return sorted(lengths, key=rank)


def _enlarged(
    problem: Problem, assumptions: Sequence[Assumption], length: int, rng: np.random.Generator
) -> list[Resized]:
    before = _program(problem)
    twice = _reshaped(problem, assumptions, {length: 2 * length}, rng)
    after = _program(twice) if twice else None
    if before is None or after is None or after.equations > before.equations:
        return []  # loops unrolled by Python: tracing many steps would take forever
    growth = 2
    exponent = max(1.0, np.log2(after.elements / max(before.elements, 1)))
    while True:
        elements = sum(
            int(np.prod(_shape(leaf.value, {length: 2 * growth * length}))) for leaf in problem.leaves
        )
        if elements > _ELEMENTS or after.elements * growth**exponent > _INTERMEDIATE:
            break
        growth *= 2
    return _at(problem, assumptions, {length: growth * length}, rng, wide=True) if growth > 2 else []


def _shape(value: Any, sizes: Mapping[int, int]) -> tuple[int, ...]:
    return tuple(sizes.get(n, n) for n in np.shape(value))


def _reshaped(
    problem: Problem, assumptions: Sequence[Assumption], sizes: Mapping[int, int], rng: np.random.Generator
) -> Problem | None:
    """The problem with an example of other sizes; None if indices would no longer fit."""
    ((length, size),) = sizes.items()
    values = []
    for leaf, assumption in zip(problem.leaves, assumptions, strict=True):
        shape = np.shape(leaf.value) if leaf.kind == "key" else _shape(leaf.value, sizes)
        drawn = leaf.value
        if shape != np.shape(leaf.value):
            drawn = assumption.domain.sample(rng, shape, {})
        if leaf.kind == "integer" and np.size(drawn):
            largest = int(np.max(drawn))
            if size == 0 and largest < length:
                return None
            if size <= largest < length:
                drawn = np.minimum(drawn, size - 1)
        values.append(drawn if leaf.kind == "key" else _like(drawn, leaf.value))
    return replace(problem, args=problem.pack(values))


def _like(drawn: Any, value: np.ndarray) -> Any:
    return np.asarray(drawn).astype(value.dtype)


def _at(
    problem: Problem,
    assumptions: Sequence[Assumption],
    sizes: Mapping[int, int],
    rng: np.random.Generator,
    wide: bool = False,
) -> list[Resized]:
    other = _reshaped(problem, assumptions, sizes, rng)
    if other is None or [x.kind for x in other.leaves] != [x.kind for x in problem.leaves]:
        return []
    if _program(other) is None:
        return []
    with enable_x64():
        out = jax.eval_shape(other.reference, *other.typed(other.example, _WIDE))
    ((before, now),) = sizes.items()
    label = f"axes of length {before} now have length {now}"
    probes = tuple(_probes(other, assumptions, out, rng, label, wide))
    return [Resized(label, other, probes)]


def _probes(
    problem: Problem,
    assumptions: Sequence[Assumption],
    out: Any,
    rng: np.random.Generator,
    label: str,
    wide: bool,
) -> Iterator[Probe]:
    values = [widened(leaf.value, leaf) for leaf in problem.leaves]
    yield Probe(label, tuple(values), draw_cotangent(problem.kind, out, rng))
    for i, (leaf, assumption) in enumerate(zip(problem.leaves, assumptions, strict=True)):
        if wide and leaf.differentiable and isinstance(assumption.domain, Reals):
            values[i] = widened(rng.uniform(-_HALF_WIDTH, _HALF_WIDTH, np.shape(leaf.value)), leaf)
        elif leaf.kind != "integer":
            values[i] = widened(assumption.domain.sample(rng, np.shape(leaf.value), {}), leaf)
    yield Probe(label, tuple(values), draw_cotangent(problem.kind, out, rng))


class _Program(NamedTuple):
    equations: int
    elements: int


def _program(problem: Problem) -> _Program | None:
    """How large both functions together are; None if one cannot be traced, or returns other shapes."""

    def both(values: tuple[Any, ...], cotangent: Any) -> Any:
        out, cotangents = problem.pull(values, cotangent)
        return out, cotangents, problem.candidate(values, like_output(cotangent, out))[1]

    try:
        with enable_x64():
            values = problem.typed(problem.example, _WIDE)
            out = jax.eval_shape(problem.reference, *values)
            closed, (_, truth, mine) = jax.make_jaxpr(both, return_shape=True)(values, out)
    except Exception:  # another size is not for these functions: whatever they raise says so
        return None
    if [np.shape(x) for x in truth] != [np.shape(x) for x in mine]:
        return None
    return _Program(*_measured(closed.jaxpr))


def _measured(jaxpr: Jaxpr) -> tuple[int, int]:
    """The number of equations, and of elements of everything computed."""
    equations, elements = 0, 0
    for equation in jaxpr.eqns:
        times = equation.params.get("length", 1) if equation.primitive.name == "scan" else 1
        inside = [_measured(inner) for inner in _inner(equation)]
        equations += 1 + sum(count for count, _ in inside)
        elements += times * sum(count for _, count in inside)
        elements += sum(int(np.prod(getattr(v.aval, "shape", ()))) for v in equation.outvars)
    return equations, elements


def _inner(equation: JaxprEqn) -> Iterator[Jaxpr]:
    for parameter in equation.params.values():
        for part in parameter if isinstance(parameter, tuple) else (parameter,):
            if isinstance(part, ClosedJaxpr):
                yield part.jaxpr
            elif isinstance(part, Jaxpr):
                yield part
