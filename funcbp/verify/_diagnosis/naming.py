"""Constants by name: a factor of 0.03125 is 1/n, n the length of axis 0 of x."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from .evidence import Evidence

__all__ = ["Named", "constants", "identify"]


class Named(NamedTuple):
    """A number with its name, and its value at every probe."""

    name: str
    where: str
    values: tuple[float, ...]

    def __str__(self) -> str:
        return f"{self.name}, {self.where}" if self.where else self.name


# Numbers that everybody drops or doubles; the rest only counts where no size and no argument fits.
_FIRST = {"2": 2.0, "1/2": 0.5}
_LAST = {
    "3": 3.0,
    "1/3": 1 / 3,
    "4": 4.0,
    "1/4": 0.25,
    "π": math.pi,
    "1/π": 1 / math.pi,
    "2π": 2 * math.pi,
    "1/(2π)": 0.5 / math.pi,
    "√2": math.sqrt(2),
    "1/√2": math.sqrt(0.5),
    "√(2π)": math.sqrt(2 * math.pi),
    "1/√(2π)": 1 / math.sqrt(2 * math.pi),
    "√(2/π)": math.sqrt(2 / math.pi),
    "log 2": math.log(2),
    "1/log 2": 1 / math.log(2),
    "log 10": math.log(10),
    "1/log 10": 1 / math.log(10),
    "10": 10.0,
    "1/10": 0.1,
    "100": 100.0,
    "1/100": 0.01,
}
_OF_SIZE = {
    "n": lambda n: n,
    "1/n": lambda n: 1 / n,
    "√n": lambda n: math.sqrt(n),
    "1/√n": lambda n: 1 / math.sqrt(n),
    "n - 1": lambda n: n - 1,
    "1/(n - 1)": lambda n: 1 / (n - 1),
    "(n - 1)/n": lambda n: (n - 1) / n,
    "n/(n - 1)": lambda n: n / (n - 1),
    "2/n": lambda n: 2 / n,
    "n/2": lambda n: n / 2,
    "1/(2n)": lambda n: 1 / (2 * n),
    "2n": lambda n: 2 * n,
    "n²": lambda n: n * n,
    "1/n²": lambda n: 1 / (n * n),
    "n + 1": lambda n: n + 1,
}
_OF_SCALAR = {
    "c": lambda c: c,
    "1/c": lambda c: 1 / c,
    "c²": lambda c: c * c,
    "1/c²": lambda c: 1 / (c * c),
    "√c": lambda c: math.sqrt(c),
    "1/√c": lambda c: 1 / math.sqrt(c),
    "1 - c": lambda c: 1 - c,
    "1/(1 - c)": lambda c: 1 / (1 - c),
    "(1 - c)/c": lambda c: (1 - c) / c,
    "c/(1 - c)": lambda c: c / (1 - c),
    "1 + c": lambda c: 1 + c,
    "2c": lambda c: 2 * c,
    "1/(2c)": lambda c: 0.5 / c,
    "c/2": lambda c: c / 2,
    "2/c": lambda c: 2 / c,
}


def identify(evidence: Evidence, factors: Sequence[float | None], literals: Sequence[float]) -> Named | None:
    """The name of a factor that has these values at the probes; None where a probe does not tell."""
    told = [(i, f) for i, f in enumerate(factors) if f is not None]
    for named in constants(evidence, literals):
        if all(math.isclose(named.values[i], f, rel_tol=1e-7) for i, f in told):
            return named
    return None


def constants(evidence: Evidence, literals: Sequence[float]) -> Iterator[Named]:
    """Every number that has a name, the likeliest first."""
    count = len(evidence.compared)
    yield from (Named(name, "", (value,) * count) for name, value in _FIRST.items())
    yield from _sizes(evidence)
    yield from _scalars(evidence)
    for literal in literals:
        yield from _expanded(f"{literal:g}", "of the reference", (literal,) * count)
    yield from (Named(name, "", (value,) * count) for name, value in _LAST.items())


def _sizes(evidence: Evidence) -> Iterator[Named]:
    for where, sizes in _axes(evidence).items():
        for name, function in _OF_SIZE.items():
            values = tuple(_safely(function, n) for n in sizes)
            yield Named(name, f"n = {'/'.join(map(str, dict.fromkeys(sizes)))}, {where}", values)


def _axes(evidence: Evidence) -> dict[str, tuple[int, ...]]:
    """Lengths of axes and numbers of elements of all arguments and outputs, probe by probe."""
    found: dict[str, tuple[int, ...]] = {}
    shapes = {
        leaf.name: [np.shape(c.probe.values[i]) for c in evidence.compared]
        for i, leaf in enumerate(evidence.problem.leaves)
    }
    axes = {
        (name, axis): tuple(shape[axis] for shape in per_probe)
        for name, per_probe in shapes.items()
        for axis in range(min(map(len, per_probe), default=0))
    }
    for (name, axis), sizes in axes.items():
        found[f"the length of axis {axis} of {name}"] = sizes
    for name, per_probe in shapes.items():
        if per_probe and len(per_probe[0]) > 1:
            found[f"the number of elements of {name}"] = tuple(math.prod(s) for s in per_probe)
        if per_probe and len(per_probe[0]) > 2:
            found[f"the elements of {name} without its last axis"] = tuple(
                math.prod(s[:-1]) for s in per_probe
            )
    first: dict[tuple[int, ...], str] = {}
    for where, sizes in found.items():
        first.setdefault(sizes, where)
    return {where: sizes for sizes, where in first.items() if max(sizes) > 1}


def _scalars(evidence: Evidence) -> Iterator[Named]:
    for i, leaf in enumerate(evidence.problem.leaves):
        values = [c.probe.values[i] for c in evidence.compared]
        if leaf.kind in ("floating", "integer") and all(np.size(v) == 1 for v in values):
            yield from _expanded(leaf.name, "an argument", tuple(float(np.reshape(v, ())) for v in values))


def _expanded(name: str, where: str, values: tuple[float, ...]) -> Iterator[Named]:
    for form, function in _OF_SCALAR.items():
        results = tuple(_safely(function, v) for v in values)
        yield Named(form, f"c = {name}, {where}" if where else f"c = {name}", results)


def _safely(function: Callable[[float], float], value: float) -> float:
    try:
        return float(function(value))
    except (ArithmeticError, ValueError):
        return math.nan
