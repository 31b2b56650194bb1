"""Comparing what was computed with what is true: element by element, leaf by leaf, each within its own
bound."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np
from jax import numpy as jnp
from jax.typing import DTypeLike

from .._signature import describe
from ._report import Cause, Finding, plural

__all__ = ["Comparison", "compare", "judge"]

_HINTS = {
    -1.0: "it is minus the truth: flip the sign",
    2.0: "it is twice the truth: a factor 2 too many, or a ½ forgotten",
    0.5: "it is half of the truth: a factor 2 is missing, or a ½ too many",
}


@dataclass(frozen=True)
class Comparison:
    """What a comparison found.

    Attributes:
        findings: one for each wrong leaf, at its worst element.
        undecided: what could not be judged, in words.
        decided: for every leaf, the number of elements judged.
        worst: the largest error as a fraction of its bound (of the right elements).
        indices: for every finding, the index of its worst element.
    """

    findings: tuple[Finding, ...] = ()
    undecided: tuple[str, ...] = ()
    decided: Mapping[str, int] = field(default_factory=dict)
    worst: float = 0.0
    indices: tuple[tuple[int, ...], ...] = ()


def compare(
    actual: Any,
    truth: Any,
    bound: Any,
    *,
    dtype: DTypeLike | None = None,
    cause: Cause = Cause.VALUE,
    batch_axes: int = 0,
    situation: str = "",
) -> Comparison:
    """Compare a pytree with the truth, every element within its own bound.

    NaN is never equal to anything: where the truth is finite it is a finding, where the truth is not the
    element is undecided (an infinity of the same sign is right). An element whose bound is not finite, or
    larger than every true value of its leaf, is undecided.

    Args:
        actual: what was computed.
        truth: what is true, None where there must be None.
        bound: the largest error that counts as rounding; tree and shapes of `truth`.
        dtype: which floating leaves must have; None: not checked.
        cause: of a finding about a value.
        batch_axes: how many leading axes count independent cases.
        situation: for the findings.

    Returns:
        A Comparison. Errors in `actual` are findings, never exceptions.
    """
    expected, tree = jax.tree_util.tree_flatten_with_path(truth, is_leaf=_is_none)
    found, found_tree = jax.tree.flatten(actual, is_leaf=_is_none)
    if tree != found_tree:
        message = f"Return the tree {tree}, not {found_tree}."
        finding = Finding("result", Cause.STRUCTURE, message, str(tree), str(found_tree), situation=situation)
        return Comparison((finding,), indices=((),))
    bounds = jax.tree.leaves(bound, is_leaf=_is_none)
    total = Comparison()
    for (path, t), a, b in zip(expected, found, bounds, strict=True):
        name = _name(path)
        contract = _contract(name, a, t, dtype, situation)
        if contract is not None:
            total = _merged(total, Comparison((contract,), decided={name: 0}, indices=((),)))
        elif t is not None:
            total = _merged(total, _leaf(name, a, t, b, cause, batch_axes, situation))
    return total


def _is_none(x: Any) -> bool:
    return x is None


def _name(path: tuple[Any, ...]) -> str:
    if path and isinstance(getattr(path[0], "key", None), str):
        return path[0].key + jax.tree_util.keystr(path[1:])
    return f"result{jax.tree_util.keystr(path)}"


def _contract(name: str, actual: Any, truth: Any, dtype: DTypeLike | None, situation: str) -> Finding | None:
    """The finding about a leaf that cannot be compared, or has the wrong dtype."""
    if (actual is None) != (truth is None):
        message = (
            "Return an array here, not None."
            if actual is None
            else "Return None here: there is no derivative."
        )
        return Finding(name, Cause.STRUCTURE, message, describe(truth), describe(actual), situation=situation)
    if truth is None:
        return None
    if np.shape(actual) != np.shape(truth):
        message = f"Return shape {np.shape(truth)}, not {np.shape(actual)}: is a sum missing, or a transpose?"
        return Finding(name, Cause.SHAPE, message, np.shape(truth), np.shape(actual), situation=situation)
    if dtype is not None and np.asarray(actual).dtype != np.dtype(dtype):
        found = np.asarray(actual).dtype
        message = f"Return {np.dtype(dtype)}, not {found}: cast the result to its argument's dtype."
        return Finding(
            name,
            Cause.DTYPE,
            message,
            str(np.dtype(dtype)),
            str(np.asarray(actual).dtype),
            situation=situation,
        )
    return None


def _leaf(
    name: str, actual: Any, truth: Any, bound: Any, cause: Cause, batch_axes: int, situation: str
) -> Comparison:
    limit = _largest(np.asarray(actual).dtype)
    a, t, b = (np.asarray(x, np.float64) for x in (actual, truth, bound))
    # What a dtype cannot hold is infinite in it.
    t = np.where(np.isinf(a) & (a * t > 0) & (np.abs(t) + b > limit), a, t)
    wrong, decidable, error = judge(a, t, b, batch_axes)
    finite, same_infinity = np.isfinite(t), np.isinf(t) & (a == t)
    ratios = np.where(decidable & ~wrong, error / np.where(b > 0, b, 1), 0)
    notes = []
    if count := int((~finite & ~same_infinity).sum()):
        notes.append(
            f"{name}: {plural(count, 'element')} where the truth itself is NaN or infinite{_in(situation)}"
        )
    if count := int((finite & ~decidable).sum()):
        notes.append(
            f"{name}: {plural(count, 'element')} where rounding may exceed every true value{_in(situation)}"
        )
    decided = {name: int(decidable.sum() + same_infinity.sum())}
    worst = float(ratios.max(initial=0.0))
    if not wrong.any():
        return Comparison((), tuple(notes), decided, worst)
    finding, index = _finding(name, a, t, b, wrong, error, cause, situation)
    return Comparison((finding,), tuple(notes), decided, worst, (index,))


def _largest(dtype: np.dtype) -> float:
    return float(jnp.finfo(dtype).max) if jnp.issubdtype(dtype, jnp.floating) else np.inf


def judge(
    actual: np.ndarray, truth: np.ndarray, bound: np.ndarray, batch_axes: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which elements are wrong, which can be judged, and how far each is off (infinitely, if not finite).

    An element cannot be judged where its truth is not finite, or its bound exceeds every true value of its
    leaf (of its case, with `batch_axes`): then only NaN and infinity are wrong.
    """
    axes = tuple(range(batch_axes, truth.ndim))
    with np.errstate(all="ignore"):
        finite, size = np.isfinite(truth), np.abs(truth)
        scale = np.max(np.where(finite, size, 0), axis=axes, keepdims=True, initial=0)
        loose = ~np.isfinite(bound) | ((bound > scale) & (scale > 0) & (bound > size))
        error = np.where(np.isfinite(actual), np.abs(actual - truth), np.inf)
    decidable = finite & (~loose | ~np.isfinite(actual))
    return decidable & ~(error <= bound), decidable, error


def _finding(
    name: str,
    a: np.ndarray,
    t: np.ndarray,
    b: np.ndarray,
    wrong: np.ndarray,
    error: np.ndarray,
    cause: Cause,
    situation: str,
) -> tuple[Finding, tuple[int, ...]]:
    with np.errstate(all="ignore"):
        excess = np.where(wrong, error / np.where(b > 0, b, np.finfo(np.float64).tiny), -1)
    infinite = wrong & ~np.isfinite(a)
    if 2 * infinite.sum() < wrong.sum():  # most are plainly wrong: that says more than the NaNs do
        excess = np.where(infinite, -1, excess)
    index = tuple(int(i) for i in np.unravel_index(int(np.argmax(excess)), t.shape))
    many = f"{int(wrong.sum())} of {plural(t.size, 'element')}"
    if not np.isfinite(a[index]):
        cause = Cause.NONFINITE if cause is Cause.VALUE else cause
        message = f"{many} are wrong; NaN or infinity here where the true value is finite: take the limit."
    else:
        message = (
            f"{many} are further from the truth than rounding explains (the worst by "
            f"{excess[index]:.3g} times the allowed error); {_hint(a, t, b, wrong)}."
        )
    where = f"{name}[{', '.join(map(str, index))}]" if index else name
    return Finding(
        where, cause, message, float(t[index]), float(a[index]), float(b[index]), situation=situation
    ), index


def _hint(a: np.ndarray, t: np.ndarray, b: np.ndarray, wrong: np.ndarray) -> str:
    usable = np.isfinite(a) & np.isfinite(t)
    a, t, b, wrong = a[usable], t[usable], b[usable], wrong[usable]
    for factor, text in _HINTS.items():
        if np.all(np.abs(a - factor * t) <= (1 + abs(factor)) * b):
            return text
    if np.all(np.abs(a) <= b):
        return "it is zero: a term or the whole cotangent is dropped"
    center = np.sum(a * t) / max(np.sum(t * t), np.finfo(np.float64).tiny)
    if np.all(np.abs(a - center * t) <= (1 + abs(center)) * b + 1e-6 * np.abs(t)):
        return f"it is {center:.6g} times the truth everywhere: look for a constant factor"
    if wrong.mean() < 0.5:
        return "the others are right: look for what is special about this element"
    return "compare the terms of this cotangent with the derivation"


def _in(situation: str) -> str:
    return f" ({situation})" if situation else ""


def _merged(x: Comparison, y: Comparison) -> Comparison:
    return Comparison(
        x.findings + y.findings,
        x.undecided + y.undecided,
        {**x.decided, **y.decided},
        max(x.worst, y.worst),
        x.indices + y.indices,
    )
