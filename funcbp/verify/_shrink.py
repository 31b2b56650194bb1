"""From an input that shows a mistake to the simplest one that still does."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import jax
import numpy as np

from ._problem import Probe, Problem

__all__ = ["shrink"]

_ROUNDS = 8


def shrink(
    problem: Problem,
    probe: Probe,
    allowed: Sequence[Callable[[np.ndarray], bool]],
    fails: Callable[[Sequence[Probe]], Sequence[bool]],
) -> Probe:
    """A simpler probe that still fails: leaves of zeros, ones or round numbers, a cotangent of ones.

    Greedy, as property-based testing does it: the first simplification that still fails is kept, until none
    does.

    Args:
        problem: names the leaves.
        probe: fails.
        allowed: for each leaf, whether it may have a value.
        fails: which of some probes show the mistake, too.
    """
    for _ in range(_ROUNDS):
        candidates = list(_simpler(problem, probe, allowed))
        failing = [c for c, bad in zip(candidates, fails(candidates), strict=True) if bad]
        if not failing:
            break
        probe = failing[0]
    return probe


def _simpler(
    problem: Problem, probe: Probe, allowed: Sequence[Callable[[np.ndarray], bool]]
) -> Iterator[Probe]:
    if problem.kind != "gradient":
        for cotangent in _simpler_cotangents(probe.cotangent):
            yield replace(probe, cotangent=cotangent)
    for i, leaf in enumerate(problem.leaves):
        if not leaf.differentiable:
            continue
        for value in _simpler_arrays(np.asarray(probe.values[i])):
            if allowed[i](value):
                values = (*probe.values[:i], value, *probe.values[i + 1 :])
                yield replace(probe, values=values)


def _simpler_cotangents(cotangent: Any) -> Iterator[Any]:
    ones = jax.tree.map(np.ones_like, cotangent)
    if any((x != 1).any() for x in jax.tree.leaves(cotangent)):
        yield ones


def _simpler_arrays(x: np.ndarray) -> Iterator[np.ndarray]:
    """Simpler arrays, the simplest first."""
    if not np.any(x):
        return
    yield np.zeros_like(x)
    if (x != 1).any():
        yield np.ones_like(x)
    for digits in (0, 1):
        rounded = np.round(x, digits)
        if (rounded != x).any():
            yield rounded
    if x.ndim and x.shape[0] > 1 and np.any(x[1:]):
        yield np.concatenate([x[:1], np.zeros_like(x[1:])])
        half = x.shape[0] // 2
        yield np.concatenate([x[:half], np.zeros_like(x[half:])])
