"""Guesses at the structure of one array: what arbitrary numbers would hardly show."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ._structured_rows import (
    Definite,
    Diagonal,
    Mirrored,
    OneHot,
    Orthogonal,
    Sorted,
    SumToOne,
    Triangular,
    UnitRows,
    adjoint,
)
from ._structures import Magnitudes, Near, Observed, Permutations, Reals, Structure, UnitInterval

__all__ = ["Guess", "Seen", "guess", "guess_integers", "in_every_row", "reals"]

_FEW = 32  # more distinct values than this are no labels, unless they are whole numbers

Guess = tuple[Structure, str, float]  # the set, in words, and how likely arbitrary numbers look the same


@dataclass(frozen=True)
class Seen:
    """The example's values of one leaf, in float64 (complex128), and what matters about the leaf."""

    value: np.ndarray
    eps: float
    wrt: bool
    accompanied: bool

    @property
    def close(self) -> float:
        """How far a sum of a row may be from one."""
        return self.eps * max(16, max(self.value.shape, default=1))


def guess(seen: Seen) -> Guess | None:
    """The first structure seen in an array of numbers; None if there is none."""
    return next(filter(None, (detect(seen) for detect in _DETECTORS)), None)


def guess_integers(value: np.ndarray, lengths: frozenset[int]) -> Guess:
    """What an array of whole numbers is: there is always something to keep.

    Each of 0 .. n-1 once is a permutation only of an axis that another argument has (`lengths`); else it
    picks a few entries of a longer one.
    """
    n = value.shape[-1] if value.ndim else 0
    if n > 2 and n in lengths and (np.sort(value, -1) == np.arange(n)).all():
        rows = value.size // n
        each = math.exp(math.lgamma(n + 1) - n * math.log(n))
        return Permutations(), "each of 0 .. n-1 once", each**rows
    seen = Observed(tuple(value.ravel().tolist()) or (0,))
    return _in_order(seen, value, 3) or (seen, "the whole numbers seen", 0.0)


def reals(value: np.ndarray) -> Reals:
    """All numbers, with the mean and scale of some."""
    is_complex = np.iscomplexobj(value)
    size = float(np.sqrt(np.mean(np.square(np.abs(value))))) if value.size else 0.0
    spread = float(value.std()) if value.size >= 4 else 0.0
    if spread == 0:
        return Reals(0.0, size or 1.0, is_complex)
    return Reals(complex(value.mean()) if is_complex else float(value.mean()), spread, is_complex)


def in_every_row(value: np.ndarray, what: Any) -> bool:
    """Whether a value is in every row, of more than one element."""
    return bool(value.ndim > 0 and value.shape[-1] > 1 and (value == what).any(-1).all())


def _is_constant(value: np.ndarray) -> bool:
    return bool((value == value.flat[0]).all())


def _not_finite(seen: Seen) -> Guess | None:
    if np.isfinite(seen.value).all():
        return None
    present = float(seen.value.max()) if not np.isnan(seen.value).any() else math.nan
    values = tuple(seen.value.ravel().tolist())
    return Observed(values, present if in_every_row(seen.value, present) else None), "the values seen", 0.0


def _hyperparameter(seen: Seen) -> Guess | None:
    if seen.value.ndim or np.iscomplexobj(seen.value) or not seen.accompanied or not seen.value > 0:
        return None
    chance = 0.5 if seen.wrt else 0.0
    return Near(float(seen.value)), "a positive number of that order", chance


def _one_hot(seen: Seen) -> Guess | None:
    x = seen.value
    if np.iscomplexobj(x) or not np.isin(x, (0, 1)).all():
        return None
    for axis in range(-1, -x.ndim - 1, -1):
        if x.shape[axis] > 1 and (x.sum(axis) == 1).all():
            if not seen.wrt:
                return OneHot(axis), "one-hot", 0.0
            if not _is_square(x):
                return SumToOne(axis), "non-negative, and summing to one along an axis", 0.0
    return None


def _mask(seen: Seen) -> Guess | None:
    x = seen.value
    if seen.wrt or not x.ndim or not np.isin(x, (0, 1)).all() or not x.any():
        return None
    values = (0.0, 1.0, 1.0) if _is_constant(x) else tuple(x.ravel().tolist())
    if in_every_row(x, 1):
        return Observed(values, 1.0), "zeros and ones, with a one in every row", 0.0
    return Observed(values), "zeros and ones", 0.0


def _simplex(seen: Seen) -> Guess | None:
    x = seen.value
    if np.iscomplexobj(x) or not (x >= 0).all() or (_is_square(x) and np.isin(x, (0, 1)).all()):
        return None
    for axis in range(-1, -x.ndim - 1, -1):
        if x.shape[axis] > 1 and np.abs(x.sum(axis) - 1).max() <= seen.close:
            return SumToOne(axis), "non-negative, and summing to one along an axis", 0.0
    return None


def _is_square(x: np.ndarray) -> bool:
    return x.ndim > 1 and x.shape[-1] == x.shape[-2] > 1


def _symmetric(seen: Seen) -> Guess | None:
    x = seen.value
    if not _is_square(x) or _is_constant(x):
        return None
    tolerance = seen.eps * 16 * np.abs(x).max()
    off = x[..., ~np.eye(x.shape[-1], dtype=bool)]
    word = "Hermitian" if np.iscomplexobj(x) else "symmetric"
    hollow = not np.diagonal(x, axis1=-2, axis2=-1).any()
    if np.abs(x - adjoint(x)).max() <= tolerance:
        values = np.linalg.eigvalsh((x + adjoint(x)) / 2)
        if (values > tolerance).all() and not (not seen.wrt and np.isin(x, (0, 1)).all()):
            scale = float(np.exp(np.log(values).mean()))
            return Definite(scale, np.iscomplexobj(x)), f"{word} positive definite", 0.0
        return Mirrored(_entries(off, seen), 1, hollow), word, 0.0
    if np.abs(x + adjoint(x)).max() <= tolerance:
        return Mirrored(reals(off), -1), f"skew-{word}", 0.0
    return None


def _diagonal(seen: Seen) -> Guess | None:
    x = seen.value
    if not _is_square(x) or not x.any() or (np.triu(x, 1) + np.tril(x, -1)).any():
        return None
    entries = np.diagonal(x, axis1=-2, axis2=-1)
    if np.iscomplexobj(x) or (entries <= 0).any():
        return Diagonal(reals(entries)), "diagonal", 0.0
    logarithms = np.log(entries)
    positive = Magnitudes(float(np.exp(logarithms.mean())), max(float(logarithms.std()), 0.5))
    return Diagonal(positive), "diagonal and positive", 0.0


def _triangular(seen: Seen) -> Guess | None:
    x = seen.value
    if not _is_square(x) or not x.any():
        return None
    for lower in (True, False):
        inside = np.tril(x) if lower else np.triu(x)
        if (inside == x).all():
            n = x.shape[-1]
            kept = x[..., np.tril(np.ones((n, n), bool)) if lower else np.triu(np.ones((n, n), bool))]
            diagonal = np.diagonal(x, axis1=-2, axis2=-1)
            positive = not np.iscomplexobj(x) and bool((diagonal > 0).all())
            return Triangular(reals(kept), lower, positive), "triangular", 0.0
    return None


def _orthogonal(seen: Seen) -> Guess | None:
    x = seen.value
    if not _is_square(x) or np.abs(x @ adjoint(x) - np.eye(x.shape[-1])).max() > seen.close:
        return None
    if np.iscomplexobj(x):
        return Orthogonal(is_complex=True), "unitary", 0.0
    proper = bool((np.linalg.det(x) > 0).all())
    return Orthogonal(proper), "rotations" if proper else "orthogonal", 0.0


def _unit_rows(seen: Seen) -> Guess | None:
    x = seen.value
    if np.iscomplexobj(x) or not x.ndim or x.shape[-1] < 2 or (seen.wrt and np.isin(x, (0, 1)).all()):
        return None
    if np.abs(np.linalg.norm(x, axis=-1) - 1).max() > seen.close:
        return None
    return UnitRows(), "rows of length one", 0.0


def _labels(seen: Seen) -> Guess | None:
    x = seen.value
    if seen.wrt or np.iscomplexobj(x) or x.size < 4 or _is_constant(x):
        return None
    whole = (x == np.round(x)).all()
    distinct = len(np.unique(x))
    if not whole and distinct > min(x.size / 2, _FEW):
        return None
    largest = float(x.max())
    keep = largest if distinct == 2 and in_every_row(x, largest) else None
    return Observed(tuple(x.ravel().tolist()), keep), "the values seen", 0.0


def _signs(seen: Seen) -> Guess | None:
    """What the signs and the range of the numbers say."""
    x = seen.value
    if np.iscomplexobj(x) or not x.ndim or (_is_constant(x) and x.flat[0] in (0, 1)):
        return None
    if (x > 0).all() and (x < 1).all() and (x.size > 2 or not seen.wrt):
        odds = np.log(x) - np.log1p(-x)
        spread = float(odds.std()) or 1.5
        return UnitInterval(float(odds.mean()), spread, 2 * seen.eps), "between zero and one", 0.34**x.size
    if x.size < 4 or not (x >= 0).all():
        return None
    positive = x[x > 0]
    logarithms = np.log(positive)
    median, spread = float(np.exp(logarithms.mean())), float(logarithms.std()) or 1.0
    if positive.size == x.size:
        return Magnitudes(median, spread), "positive", 0.5**x.size
    if seen.wrt and (x == np.round(x)).all():  # arange(6.0), typed by hand: says nothing
        return None
    return Magnitudes(median, spread, 1 - positive.size / x.size), "not negative", 0.5**x.size


def _ordered(seen: Seen) -> Guess | None:
    if np.iscomplexobj(seen.value):
        return None
    return _in_order(_entries(seen.value, seen), seen.value, 5 if seen.wrt else 4)


def _in_order(entries: Structure, value: np.ndarray, least: int) -> Guess | None:
    if not value.ndim or value.shape[-1] < least or _is_constant(value):
        return None
    steps = value[..., 1:] >= value[..., :-1]
    falls = value[..., 1:] <= value[..., :-1]
    if not steps.all() and not falls.all():
        return None
    chance = math.exp(-math.lgamma(value.shape[-1] + 1)) ** (value.size // value.shape[-1])
    return Sorted(entries, not steps.all()), "sorted", chance


def _entries(value: np.ndarray, seen: Seen) -> Structure:
    """A structure for single numbers."""
    if not seen.wrt and value.size and np.isin(value, (0, 1)).all():
        return Observed((0.0, 1.0))
    inner = replace(seen, value=value)
    guess = (_labels(inner) or _signs(inner)) if value.size else None
    if guess is not None and isinstance(guess[0], Observed):
        return Observed(guess[0].values)
    return guess[0] if guess is not None else reals(value)


_DETECTORS: tuple[Callable[[Seen], Guess | None], ...] = (
    _not_finite,
    _hyperparameter,
    _one_hot,
    _simplex,
    _diagonal,
    _symmetric,
    _mask,
    _orthogonal,
    _triangular,
    _ordered,
    _labels,
    _unit_rows,
    _signs,
)
