"""Probes between the thresholds of two programs.

A backward pass that turns at 0.99 where its function turns at 1 is wrong only in between. Along a line
between two points, every decision of the reference and of the candidate is followed: where one changes is
found by bisection, and between two neighboring changes a probe is placed, first where one program has changed
and the other has not.
"""

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import numpy as jnp

from .._compat import enable_x64, quick_jit
from ._decisions import constants, decisions, labels
from ._inference import Assumption, infer
from ._problem import Probe, Problem, Typing, like_output
from ._structures import Reals

__all__ = ["between", "special_labels", "thresholds"]

_WIDE = Typing("float64", True)
_BATCH = 64
_BISECTIONS = 24
_SAME = 1e-7  # of the line: changes closer than this are one
_LINES = 3
_FAR = 32.0  # one more line leads this much further out
_SECONDS = 5.0


class _Changes(NamedTuple):
    """Where along a line something changes: sorted positions, and whether in only one of the programs."""

    at: np.ndarray
    alone: np.ndarray


def thresholds(problem: Problem) -> list[float]:
    """The numbers, as magnitudes, that the reference or the candidate compares something with."""
    found: list[float] = []
    with enable_x64():
        values = problem.typed(problem.example, _WIDE)
        for function in _programs(problem):
            found += constants(function, values)
    return list(dict.fromkeys(found))


def special_labels(problem: Problem) -> list[int]:
    """The whole numbers that the reference asks its integers to be equal to."""
    with enable_x64():
        return labels(problem.reference, *problem.typed(problem.example, _WIDE))


def between(
    problem: Problem,
    points: Sequence[Probe],
    seed: int = 0,
    budget: int = 48,
    assumptions: Sequence[Assumption] | None = None,
) -> list[Probe]:
    """Probes between the thresholds that lie on the lines between some points, the most suspicious first.

    Args:
        problem: the question. A candidate that cannot be traced is left out.
        points: at least two probes; lines go from each to the next.
        seed: decides which changes are followed where there are many.
        budget: number of probes at most.
        assumptions: from `infer`; leaves whose values cannot be mixed stay as at the start of a line.
    """
    rng = np.random.default_rng(seed)
    assumptions = infer(problem) if assumptions is None else assumptions
    started, found = time.monotonic(), []
    with enable_x64():
        values = problem.typed(problem.example, _WIDE)
        programs = [
            function for function in _programs(problem) if jax.eval_shape(decisions(function), values).size
        ]
        if not programs:
            return []
        line = _Line(problem, programs)
        pairs = [(a, b) for a, b in itertools.pairwise(points) if a.inside and b.inside][:_LINES]
        pairs += [(a, _far(b, assumptions)) for a, b in pairs[:1]]
        for low, high in pairs:
            moving = tuple(_mixes(assumptions[i], low, high, i) for i in range(len(values)))
            if any(moving) and time.monotonic() - started < _SECONDS:
                found.append(line.probes(low, high, moving, rng, -(-budget // len(pairs))))
    ranked = [probe for rank in range(budget) for probes in found for probe in probes[rank : rank + 1]]
    return ranked[:budget]


def _programs(problem: Problem) -> list[Callable[[Sequence[Any]], Any]]:
    """The reference and, if it can be traced, the candidate, as functions of values for the leaves."""

    def reference(values: Sequence[Any]) -> Any:
        return problem.reference(*values)

    def candidate(values: Sequence[Any]) -> Any:
        out = jax.eval_shape(reference, values)
        ones = jax.tree.map(lambda o: jnp.ones(o.shape), out)
        return problem.candidate(values, like_output(ones, out))

    values = problem.typed(problem.example, _WIDE)
    try:
        jax.eval_shape(candidate, values)
    except Exception:  # whatever a user's function raises: its calls are judged elsewhere
        return [reference]
    return [reference, candidate]


def _mixes(assumption: Assumption, low: Probe, high: Probe, i: int) -> bool:
    a, b = low.values[i], high.values[i]
    if not jnp.issubdtype(a.dtype, jnp.inexact) or np.array_equal(a, b):
        return False
    finite = np.isfinite(a).all() and np.isfinite(b).all()
    return bool(finite and assumption.domain.contains(a + 0.375 * (b - a)))


def _far(probe: Probe, assumptions: Sequence[Assumption]) -> Probe:
    """The same probe with everything that may have any magnitude further out."""
    values = tuple(
        _FAR * value if isinstance(assumption.domain, Reals) else value
        for value, assumption in zip(probe.values, assumptions, strict=True)
    )
    return replace(probe, values=values, ordinary=False)


class _Line:
    """Follows the decisions of programs along lines; compiled once."""

    def __init__(self, problem: Problem, programs: Sequence[Callable[[Sequence[Any]], Any]]) -> None:
        self.problem = problem

        def states(t: jax.Array, start: Sequence[Any], step: Sequence[Any]) -> list[jax.Array]:
            values = [x if d is None else x + t * d for x, d in zip(start, step, strict=True)]
            return [decisions(program)(values) for program in programs]

        self._states = quick_jit(lambda ts, start, step: jax.lax.map(lambda t: states(t, start, step), ts))

    def probes(
        self, low: Probe, high: Probe, moving: Sequence[bool], rng: np.random.Generator, at_most: int
    ) -> list[Probe]:
        """Probes between the changes from one probe to another."""
        start = self.problem.typed(low.values, _WIDE)
        end = self.problem.typed(high.values, _WIDE)
        step = [b - a if m else None for a, b, m in zip(start, end, moving, strict=True)]
        changes = self._changes(lambda ts: self._states(jnp.asarray(ts), start, step), rng)
        ordinary = low.ordinary and high.ordinary
        return [
            Probe("between two thresholds", _mixed(low, high, moving, t), low.cotangent, ordinary)
            for t in _middles(changes)[:at_most]
        ]

    def _changes(self, states: Callable[[np.ndarray], list[Any]], rng: np.random.Generator) -> _Changes:
        # One batch of the grid has its ends; the cells in between are where to look.
        grid = np.linspace(0.0, 1.0, _BATCH)
        seen = [np.asarray(s) for s in states(grid)]
        sizes = np.cumsum([s.shape[1] for s in seen])
        joined = np.concatenate(seen, axis=1)
        cell, which = np.nonzero(joined[1:] != joined[:-1])
        cell, which = _fewest(cell, which, rng)
        low, high, left = grid[cell], grid[cell + 1], joined[cell, which]
        for _ in range(_BISECTIONS if cell.size else 0):
            middle = (low + high) / 2
            padded = np.concatenate([middle, np.zeros(_BATCH - middle.size)])
            now = np.concatenate([np.asarray(s) for s in states(padded)], axis=1)
            same = now[np.arange(middle.size), which] == left
            low, high = np.where(same, middle, low), np.where(same, high, middle)
        return _merged((low + high) / 2, np.searchsorted(sizes, which, side="right"))


def _fewest(cell: np.ndarray, which: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """As many changes as fit into a batch, of cells with few of them first: there a gap means something."""
    counts = np.bincount(cell, minlength=_BATCH)
    order = np.lexsort((rng.random(cell.size), cell, counts[cell]))[:_BATCH]
    return cell[order], which[order]


def _merged(at: np.ndarray, program: np.ndarray) -> _Changes:
    order = np.argsort(at)
    at, program = at[order], program[order]
    if not at.size:
        return _Changes(at, np.zeros(0, bool))
    groups = np.split(np.arange(at.size), np.flatnonzero(np.diff(at) > _SAME) + 1)
    alone = [len(set(program[group])) == 1 for group in groups]
    return _Changes(np.asarray([at[group[0]] for group in groups]), np.asarray(alone))


def _middles(changes: _Changes) -> list[float]:
    """Midpoints between neighboring changes: those that only one program knows first, then the closest."""
    if not changes.at.size:
        return []
    at = np.concatenate([[0.0], changes.at, [1.0]])
    alone = np.concatenate([[False], changes.alone, [False]]).astype(int)
    width = np.diff(at)
    order = np.lexsort((width, -(alone[1:] + alone[:-1])))
    return [float((at[k] + at[k + 1]) / 2) for k in order if width[k] > 0]


def _mixed(low: Probe, high: Probe, moving: Sequence[bool], t: float) -> tuple[Any, ...]:
    return tuple(a + t * (b - a) if m else a for a, b, m in zip(low.values, high.values, moving, strict=True))
