"""The pairs (mine, truth) at all probes, and when a guess agrees with what the user returned."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from .._problem import Compared, Problem
from .._report import Cause

__all__ = ["Diagnosis", "Evidence", "Explanation", "listed"]

# A guess is compared with float64 numbers that came by another route: some thousand eps of the largest.
_RELATIVE = 1e-8
# It must explain nearly all of the discrepancy, or noise would pass for an explanation.
_UNEXPLAINED = 1e-3
_BOUNDS = 4.0


@dataclass(frozen=True)
class Diagnosis:
    """Why some of the cotangents are wrong.

    Attributes:
        leaves: indices into `Problem.wrt`.
        cause: what kind of mistake.
        message: what is wrong and what to change.
        line: the line of the reference that it belongs to: `"file.py:12, in loss: p = x @ w"`.
        alternatives: other causes that explain the same numbers.
        factor: the constant factor, where it is one.
    """

    leaves: tuple[int, ...]
    cause: Cause
    message: str
    line: str | None = None
    alternatives: tuple[Cause, ...] = ()
    factor: float | None = None


@dataclass(frozen=True)
class Explanation:
    """A cause that fits; without the leaves that it fits, and equal for all of them.

    Attributes:
        cause: what kind of mistake.
        text: goes after the names of the leaves and a colon.
        line: of the reference.
        alternatives: other causes that fit.
        factor: the constant factor, where it is one.
    """

    cause: Cause
    text: str
    line: str | None = None
    alternatives: tuple[Cause, ...] = ()
    factor: float | None = None


@dataclass(frozen=True)
class Evidence:
    """What came out at all probes, and how to compare a guess with it. Leaves count as in `Problem.wrt`."""

    problem: Problem
    compared: tuple[Compared, ...]

    @cached_property
    def wrong(self) -> tuple[int, ...]:
        """The leaves with an element outside of its bound at some probe."""
        return tuple(k for k in range(len(self.problem.wrt)) if self.wrong_at(k))

    @cached_property
    def finite(self) -> "Evidence":
        """Without the probes where the user's numbers are not finite: no guess gives these.

        Only as far as every leaf that is wrong remains so.
        """
        kept = tuple(
            c
            for c in self.compared
            if all(
                m.shape != t.shape or np.isfinite(m[np.isfinite(t)]).all()
                for m, t in zip(c.mine, c.truth, strict=True)
            )
        )
        other = Evidence(self.problem, kept)
        return other if other.wrong == self.wrong else self

    def wrong_at(self, leaf: int) -> list[int]:
        """The probes at which a leaf is wrong."""
        return [i for i, c in enumerate(self.compared) if outside(c, leaf).any()]

    def name(self, leaf: int) -> str:
        """The leaf's name."""
        return self.problem.leaves[self.problem.wrt[leaf]].name

    def mine(self, leaf: int) -> list[np.ndarray]:
        """What the user returned, probe by probe."""
        return [c.mine[leaf] for c in self.compared]

    def truth(self, leaf: int) -> list[np.ndarray]:
        """The truth, probe by probe."""
        return [c.truth[leaf] for c in self.compared]

    def agrees(self, leaf: int, guesses: Sequence[np.ndarray | None]) -> bool:
        """Whether guesses, one for each probe, are what the user returned; None says nothing of a probe.

        A probe that is wrong must be among those spoken of.
        """
        told = False
        for c, guess in zip(self.compared, guesses, strict=True):
            if guess is None:
                continue
            if not agree(c, leaf, guess):
                return False
            told = told or bool(outside(c, leaf).any())
        return told


def outside(c: Compared, leaf: int) -> np.ndarray:
    """Which elements of a leaf are outside of their bounds. NaN for NaN is none of the user's mistakes."""
    mine, truth = c.mine[leaf], c.truth[leaf]
    if mine.shape != truth.shape:
        return np.ones(truth.shape or (1,), bool)
    with np.errstate(invalid="ignore"):
        close = np.abs(mine - truth) <= c.bound[leaf]
    return ~(close | (mine == truth) | ~np.isfinite(truth))


def agree(c: Compared, leaf: int, guess: np.ndarray) -> bool:
    """Whether a guess is what the user returned at a probe, as far as that is finite."""
    mine, truth, bound = c.mine[leaf], c.truth[leaf], c.bound[leaf]
    if mine.shape != np.shape(guess) or mine.shape != truth.shape:
        return False
    with np.errstate(all="ignore"):
        usable = np.isfinite(truth)
        if not np.isfinite(guess[usable]).all() or not np.isfinite(mine[usable]).all():
            return False
        error = np.abs(mine - guess)[usable]
        scale = np.abs(mine[usable]).max(initial=0.0)
        allowed = _BOUNDS * np.where(np.isfinite(bound), bound, 0)[usable] + _RELATIVE * scale
        if (error > allowed).any():
            return False
        wrong = outside(c, leaf)[usable]
        discrepancy = np.abs(mine - truth)[usable]
        return bool((error[wrong] <= _UNEXPLAINED * discrepancy[wrong].max(initial=0.0) + 1e-300).all())


def listed(names: Sequence[str]) -> str:
    """Names as a sentence has them.

    >>> listed(["a"]), listed(["a", "b", "c"])
    ('a', 'a, b and c')
    """
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last
