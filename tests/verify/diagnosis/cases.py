"""A problem with its evidence out of a reference and a wrong gradient, for small planted mistakes."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from funcbp.verify._diagnosis import Diagnosis, diagnose
from funcbp.verify._problem import Compared, Kind, Probe, Problem, Typing
from tests.at_once import at_once

F64 = Typing("float64", True)


def problem_of(
    function: Callable[..., Any],
    backward: Callable[..., tuple[Any, ...]],
    args: tuple[Any, ...],
    *,
    kind: Kind = "vjp",
    argnums: tuple[int, ...] | None = None,
) -> Problem:
    """`backward(*args, ct)` gives one tree for each of `argnums`."""
    if argnums is None:
        argnums = tuple(i for i, a in enumerate(args) if jax.tree.leaves(a)[0].dtype.kind in "fc")
    return Problem(kind, "test", function, lambda a, ct: (None, backward(*a, ct)), args, argnums)


def compared_of(problem: Problem, arguments: Sequence[tuple[Any, ...]]) -> list[Compared]:
    """Truth and candidate in float64 at several arguments, with a bound of rounding's size."""
    rng = np.random.default_rng(1)
    found = []
    with jax.enable_x64(True):
        for args in arguments:
            values = tuple(np.asarray(x) for x in jax.tree.leaves(args))
            typed = problem.cast(values, F64)
            out = at_once(problem.reference)(*typed)
            cotangent = jax.tree.map(lambda o: _drawn(rng, o), out)
            if problem.kind == "gradient":
                cotangent = jax.tree.map(lambda o: np.ones(np.shape(o)), out)
            truth = tuple(map(np.asarray, at_once(problem.pull)(typed, cotangent)[1]))
            mine = tuple(np.asarray(m) for m in at_once(problem.candidate)(typed, cotangent)[1])
            bound = tuple(1e-12 * np.abs(t).max(initial=0.0) + 1e-14 + np.zeros(t.shape) for t in truth)
            found.append(Compared(Probe("test", values, cotangent), truth, bound, mine))
    return found


def diagnosed(
    function: Callable[..., Any],
    backward: Callable[..., tuple[Any, ...]],
    draw: Callable[[np.random.Generator], tuple[Any, ...]],
    *,
    kind: Kind = "vjp",
    argnums: tuple[int, ...] | None = None,
    probes: int = 3,
) -> tuple[Diagnosis, ...]:
    """The diagnosis of a wrong backward pass at a few drawn arguments."""
    rng = np.random.default_rng(0)
    arguments = [draw(rng) for _ in range(probes)]
    problem = problem_of(function, backward, arguments[0], kind=kind, argnums=argnums)
    return diagnose(problem, compared_of(problem, arguments), seconds=30.0)


def _drawn(rng: np.random.Generator, like: jax.Array) -> np.ndarray:
    values = rng.normal(size=np.shape(like))
    return values + 1j * rng.normal(size=np.shape(like)) if like.dtype.kind == "c" else values
