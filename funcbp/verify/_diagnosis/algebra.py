"""Causes that show in the pair (mine, truth) alone: a sign, a factor, an order of axes, an exchange.

Each is one line in a table: a function from the truth to what a person who makes that mistake returns.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from .._report import Cause
from .evidence import Evidence, Explanation
from .naming import identify

__all__ = ["explain", "shape"]


class Transform(NamedTuple):
    """What a mistake makes of the truth."""

    cause: Cause
    text: str
    of: Callable[[np.ndarray], np.ndarray]
    scaled: bool = True


def shape(evidence: Evidence, leaf: int) -> Explanation | None:
    """What is wrong with a leaf of another shape than the truth; None if its shape is right."""
    pairs = list(zip(evidence.mine(leaf), evidence.truth(leaf), strict=True))
    if all(m.shape == t.shape for m, t in pairs):
        return None
    mine, truth = next((m, t) for m, t in pairs if m.shape != t.shape)
    extra = mine.ndim - truth.ndim
    if extra > 0 and all(m.ndim == t.ndim + extra and _summed(m, t) for m, t in pairs):
        axes = listed_axes(tuple(range(extra)))
        text = f"of shape {mine.shape}: its broadcasting is not undone; sum over axis {axes}"
        return Explanation(Cause.BROADCAST, text, alternatives=(Cause.SHAPE, Cause.REDUCTION))
    if all(m.T.shape == t.shape and np.allclose(m.T, t, rtol=1e-7) for m, t in pairs):
        text = f"of shape {mine.shape}: the transpose of the truth; transpose it"
        return Explanation(Cause.TRANSPOSED, text, alternatives=(Cause.SHAPE,))
    return Explanation(Cause.SHAPE, f"of shape {mine.shape}, where {truth.shape} is expected")


def _summed(mine: np.ndarray, truth: np.ndarray) -> bool:
    total = mine.sum(tuple(range(mine.ndim - truth.ndim)))
    return total.shape == truth.shape and np.allclose(total, truth, rtol=1e-7)


def explain(evidence: Evidence, leaf: int, literals: Sequence[float] = ()) -> Explanation | None:
    """The first transform of the truth that is what the user returned at every probe."""
    plain = _zero(evidence, leaf) or _scaled(evidence, leaf, evidence.truth(leaf), literals)
    if plain is not None:
        return plain
    transforms = list(_transforms(evidence.truth(leaf)[0]))
    for transform in transforms:
        if evidence.agrees(leaf, _transformed(evidence, leaf, transform)):
            return Explanation(transform.cause, transform.text)
    exchanged = _exchanged(evidence, leaf)
    if exchanged is not None:
        return exchanged
    for transform in transforms:
        if transform.scaled:
            factor = _scaled(evidence, leaf, _transformed(evidence, leaf, transform), literals)
            if factor is not None:
                return Explanation(
                    transform.cause, f"{transform.text}; and besides: {factor.text}", factor=factor.factor
                )
    return None


def _transformed(evidence: Evidence, leaf: int, transform: Transform) -> list[np.ndarray]:
    return [transform.of(t) for t in evidence.truth(leaf)]


def _zero(evidence: Evidence, leaf: int) -> Explanation | None:
    if evidence.agrees(leaf, [np.zeros_like(t) for t in evidence.truth(leaf)]):
        return Explanation(
            Cause.ZERO, "always zero; the argument is ignored, or its cotangent dropped", factor=0.0
        )
    return None


def _scaled(
    evidence: Evidence, leaf: int, values: list[np.ndarray], literals: Sequence[float]
) -> Explanation | None:
    """Whether it is the values times one number for each probe that has a name, or one number for all."""
    mine = evidence.mine(leaf)
    if any(m.shape != v.shape for m, v in zip(mine, values, strict=True)):
        return None
    factors = [_ratio(m, v) for m, v in zip(mine, values, strict=True)]
    told = [f for f in factors if f is not None]
    if not told or 0 in told:
        return None
    guesses = [v if f is None else f * v for f, v in zip(factors, values, strict=True)]
    if not evidence.agrees(leaf, guesses):
        return None
    if np.allclose(told, -1, rtol=1e-7):
        return Explanation(Cause.SIGN, "minus the truth; flip the sign", factor=-1.0)
    for sign, word in ((1, ""), (-1, "minus ")):
        named = identify(evidence, [None if f is None else sign * f for f in factors], literals)
        if named:
            text = f"the truth times {word}{named}; divide by it"
            return Explanation(Cause.CONSTANT_FACTOR, text, factor=told[0])
    # One number without a name must have shown itself in several numbers.
    elements = sum(v.size for f, v in zip(factors, values, strict=True) if f is not None)
    if elements < 3 or not np.allclose(told, told[0], rtol=1e-7):
        return None
    text = f"the truth times {told[0]:.9g} everywhere; look for that factor"
    return Explanation(Cause.CONSTANT_FACTOR, text, factor=told[0])


def _ratio(mine: np.ndarray, truth: np.ndarray) -> float | None:
    """The real factor in the sense of least squares; None where the truth is zero or not finite."""
    usable = np.isfinite(truth) & np.isfinite(mine)
    mine, truth = mine[usable], truth[usable]
    top = np.abs(truth).max(initial=0.0)
    if top == 0:
        return None
    truth, mine = truth / top, mine / top
    return float(np.vdot(truth, mine).real / np.vdot(truth, truth).real)


def _exchanged(evidence: Evidence, leaf: int) -> Explanation | None:
    for other in range(len(evidence.problem.wrt)):
        if other != leaf and evidence.agrees(leaf, evidence.truth(other)):
            text = f"what belongs to {evidence.name(other)}; return the results in the order of the arguments"
            return Explanation(Cause.SWAPPED, text)
    return None


def _transforms(like: np.ndarray) -> Iterator[Transform]:
    yield Transform(Cause.SIGN, "the absolute value of the truth", np.abs)
    text = "the complex conjugate of the truth: the sign of its imaginary part is wrong; conjugate it"
    yield Transform(Cause.SIGN, text, np.conj, scaled=False)
    yield from _permutations(like)
    yield from _reversals(like)
    yield from _shifts(like)
    yield from _sums(like)
    yield Transform(
        Cause.FACTOR_MISSING,
        "one everywhere; multiply by the derivative and the cotangent",
        np.ones_like,
        scaled=False,
    )


def _permutations(like: np.ndarray) -> Iterator[Transform]:
    shape, identity = like.shape, tuple(range(like.ndim))
    for axes in itertools.permutations(range(like.ndim)) if like.ndim <= 5 else ():
        if axes == identity:
            continue
        swapped = sum(a != b for a, b in zip(axes, identity, strict=True)) == 2
        reshaped = tuple(shape[a] for a in axes) != shape
        if swapped:
            i, j = (a for a, b in zip(axes, identity, strict=True) if a != b)
            which = "" if like.ndim == 2 else f" in axes {j} and {i}"
            text = f"the transpose of the truth{which}; transpose it"
            cause = Cause.TRANSPOSED
        else:
            text, cause = f"the truth with its axes in the order {axes}; permute them back", Cause.PERMUTED
        if reshaped:
            text += " (a reshape has hidden the wrong shape)"
        yield Transform(cause, text, lambda t, axes=axes: np.transpose(t, axes).reshape(t.shape))


def _reversals(like: np.ndarray) -> Iterator[Transform]:
    for count in range(1, like.ndim + 1):
        for axes in itertools.combinations(range(like.ndim), count):
            text = f"the truth reversed along axis {listed_axes(axes)}; reverse it back"
            yield Transform(Cause.PERMUTED, text, lambda t, axes=axes: np.flip(t, axes))


def _shifts(like: np.ndarray) -> Iterator[Transform]:
    for axis in range(like.ndim):
        for step in (1, -1):
            direction = "later" if step > 0 else "earlier"
            text = f"the truth one step {direction} along axis {axis}; shift it back by one"
            yield Transform(
                Cause.OFF_BY_ONE, text, lambda t, a=axis, s=step: np.roll(t, s, a) if t.shape[a] > 1 else t
            )
            for fill, what in ((0.0, "zero"), (None, "a copy of its neighbor")):
                yield Transform(
                    Cause.OFF_BY_ONE,
                    f"{text}, and what has moved in is {what}",
                    lambda t, a=axis, s=step, f=fill: _shifted(t, s, a, f),
                )
        for index, which in ((0, "first"), (-1, "last")):
            text = f"zero at the {which} index of axis {axis}, and right elsewhere; include that step"
            yield Transform(Cause.OFF_BY_ONE, text, lambda t, a=axis, i=index: _blank(t, i, a), scaled=False)


def _sums(like: np.ndarray) -> Iterator[Transform]:
    for axis in range(like.ndim):
        for name, reduce in (("summed", np.sum), ("averaged", np.mean)):
            text = f"the truth {name} over axis {axis} and spread over it again; keep that axis"
            yield Transform(
                Cause.REDUCTION,
                text,
                lambda t, a=axis, r=reduce: np.broadcast_to(r(t, axis=a, keepdims=True), t.shape),
            )
    if like.ndim > 1:
        for name, reduce in (("summed", np.sum), ("averaged", np.mean)):
            text = f"the truth {name} over all axes and spread over them again; keep them"
            yield Transform(Cause.REDUCTION, text, lambda t, r=reduce: np.full_like(t, r(t)))


def _shifted(t: np.ndarray, step: int, axis: int, fill: float | None) -> np.ndarray:
    if t.shape[axis] == 0:
        return t
    moved = np.moveaxis(np.roll(t, step, axis), axis, 0).copy()
    edge = 0 if step > 0 else -1
    moved[edge] = np.moveaxis(t, axis, 0)[edge] if fill is None else fill
    return np.moveaxis(moved, 0, axis)


def _blank(t: np.ndarray, index: int, axis: int) -> np.ndarray:
    if t.shape[axis] < 2:
        return t
    blank = np.moveaxis(t.copy(), axis, 0)
    blank[index] = 0
    return np.moveaxis(blank, 0, axis)


def listed_axes(axes: tuple[int, ...]) -> str:
    """Axes in words.

    >>> listed_axes((0, 2))
    '0 and 2'
    """
    return " and ".join(map(str, axes))
