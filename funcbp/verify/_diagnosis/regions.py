"""A range of some value that tells wrong elements from right ones, unless it does so by chance.

Among hundreds of values some one puts a few wrong elements on one side of a threshold by luck: what counts is
in how many ways the elements could have been arranged.
"""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

__all__ = ["Candidate", "Region", "region"]

# How many arrangements there must be for one that separates to be no luck, a power of ten: for the argument
# itself, for another, and for one of the many intermediate values.
_ENOUGH = (1.0, 3.0, 5.0)


class Candidate(NamedTuple):
    """A value of the forward or backward pass, at every probe that has a recorded run.

    Attributes:
        name: in words.
        line: of the reference; None for an argument.
        values: probe by probe; None where there is no recorded run.
        own: whether it is the argument whose cotangent is looked at.
    """

    name: str
    line: str | None
    values: tuple[np.ndarray | None, ...]
    own: bool = False


class Region(NamedTuple):
    """Where elements are wrong.

    Attributes:
        condition: in words: `"|x| > 1"`.
        line: of the reference that the value belongs to.
        exact: whether it is a single point, such as `"x = 0"`.
        margin: how far the right elements stay away, as a share of all that was seen.
    """

    condition: str
    line: str | None
    exact: bool
    margin: float


def region(
    candidates: Iterable[Candidate], marks: Sequence[np.ndarray], trivial: Sequence[np.ndarray]
) -> Region | None:
    """The region with the widest margin, the earlier of two that are alike.

    Args:
        candidates: values that may tell right from wrong.
        marks: which elements are wrong, probe by probe.
        trivial: which are right only because both numbers are zero: these tell nothing.
    """
    best: Region | None = None
    for candidate in candidates:
        told = [
            (np.broadcast_to(v, m.shape)[~z], m[~z])
            for v, m, z in zip(candidate.values, marks, trivial, strict=True)
            if v is not None
        ]
        if not any(m.any() for _, m in told):
            continue
        values = np.concatenate([v for v, _ in told])
        marked = np.concatenate([m for _, m in told])
        if marked.all() or not np.isfinite(values).all() or np.iscomplexobj(values):
            continue
        for name, of in ((candidate.name, values), (f"|{candidate.name}|", np.abs(values))):
            found = _range(candidate, name, of, marked)
            if found is not None and (best is None or found.margin > best.margin * 1.5):
                best = found
    return best


def _range(candidate: Candidate, name: str, x: np.ndarray, marked: np.ndarray) -> Region | None:
    line = candidate.line
    low, high = x[marked].min(), x[marked].max()
    if (((x >= low) & (x <= high)) != marked).any():
        return None
    wrong, right = np.unique(x[marked]), np.unique(x[~marked])
    below, above = right[right < low], right[right > high]
    if low == high:
        telling = len(right) > 2 and (low == 0 or (int(marked.sum()) > 1 and float(f"{low:.3g}") == low))
        return Region(f"{name} = {low:.6g}", line, True, 10.0) if telling else None
    kind = 0 if candidate.own else 1 if line is None else 2
    if not _no_luck(len(wrong), len(right), bool(below.size and above.size), kind):
        return None
    # What is right at one special value only, such as zero, is so by coincidence.
    if 1 in (below.size, above.size):
        return None
    spread = np.ptp(x) or 1.0
    gap = min((low - below.max()) if below.size else spread, (above.min() - high) if above.size else spread)
    if below.size and above.size:
        text = f"{_between(below.max(), low)} < {name} < {_between(above.min(), high)}"
    elif below.size:
        text = f"{name} > {_between(below.max(), low)}"
    else:
        text = f"{name} < {_between(above.min(), high)}"
    return Region(text, line, False, gap / spread)


def _no_luck(wrong: int, right: int, two_sided: bool, kind: int) -> bool:
    """Whether so many different values would hardly fall on two sides of a threshold by luck."""
    arrangements = math.lgamma(wrong + right + 1) - math.lgamma(wrong + 1) - math.lgamma(right + 1)
    fitting = math.log(wrong + right) if two_sided else 0.0
    return min(wrong, right) > min(kind, 1) + 1 and (arrangements - fitting) / math.log(10) > _ENOUGH[kind]


def _between(outer: float, inner: float) -> str:
    """The shortest number between a right and a wrong value: the threshold as a person wrote it."""
    if outer * inner < 0:
        return "0"
    for digits in range(1, 9):
        for x in (outer, inner, (outer + inner) / 2):
            text = f"{x:.{digits}g}"
            if min(outer, inner) <= float(text) <= max(outer, inner):
                return text
    return f"{inner:.9g}"
