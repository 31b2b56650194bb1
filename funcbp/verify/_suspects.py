"""What is further from the truth than rounding of the reference explains, and whether that is a mistake.

A deviation is no mistake where the candidate's own rounding explains it, where autodiff in the same dtype is
no better, at a kink where it lies within the convex hull of the gradients around, or where no derivative
exists.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from .._compat import enable_x64
from ._bounds import allowance, eps_of
from ._compare import judge
from ._evaluate import Evaluator, Outcome, Truth
from ._kinks import examine
from ._oracles import magnitude
from ._precise import NotPrecise, precisely
from ._problem import Probe, Problem, Typing

__all__ = ["Explained", "Look", "coarsest", "explain", "look"]

Kind = Literal["mistake", "kink", "convention", "rounding", "undefined", "undecided"]

_KINKS: Mapping[str, Kind] = {
    "inside": "convention",
    "outside": "kink",
    "undefined": "undefined",
    "undecided": "undecided",
}
_FAR = 1e-2
_LAST_DIGITS, _MOVED = 4.0, 8
_LITTLE = 1e-4  # relative to the leaf: more is no rounding in float64
_WORK = 300_000  # operations in high precision: a second
_SAME_VALUE = 1e-5  # relative: a primal that is not the reference is off by more
_NO_WORSE = 8.0  # times autodiff's error in the same dtype, at its worst element: then it is rounding


@dataclass(frozen=True)
class Look:
    """What was seen at one probe in one typing, leaf by leaf as in `Problem.wrt`.

    Attributes:
        probe: the inputs.
        typing: the dtypes.
        truth: the true outcome.
        bound: the largest error of every element that counts as rounding.
        auto: autodiff's outcome in the same dtypes.
        mine: the candidate's.
        wrong: which elements are further off.
        value_wrong: whether the value that the candidate gives is not the reference's.
        decided: how many elements of each leaf could be judged.
        worst: largest error of the right ones, as a fraction of its bound.
    """

    probe: Probe
    typing: Typing
    truth: Outcome
    bound: tuple[np.ndarray, ...]
    auto: Outcome
    mine: Outcome
    wrong: tuple[np.ndarray, ...]
    decided: tuple[int, ...]
    worst: float
    value_wrong: bool = False

    @property
    def suspicious(self) -> bool:
        """Whether any element is further off than allowed, or the value is."""
        return self.value_wrong or any(w.any() for w in self.wrong)


class Explained(NamedTuple):
    """Why a suspect deviates: `"mistake"` or a reason why it is none, and words for the report."""

    kind: Kind
    text: str = ""


def look(
    problem: Problem,
    probe: Probe,
    typing: Typing,
    truth: Truth,
    auto: Outcome,
    mine: Outcome,
    rtol: float | None = None,
) -> Look | None:
    """Compare one outcome with the truth; None where the function itself is not finite."""
    if not _finite(truth.exact.value) or not _finite(auto.value):
        return None
    dtype = coarsest(problem, typing)
    scale = float(magnitude((_numbers(problem, probe), probe.cotangent)))
    bounds, wrongs, decided, worst = [], [], [], 0.0
    for t, s, m in zip(truth.exact.cotangents, truth.spread.cotangents, mine.cotangents, strict=True):
        bound = allowance(t, s, dtype, scale)
        if rtol is not None:
            bound = np.maximum(bound, rtol * np.abs(np.where(np.isfinite(t), t, 0)).max(initial=0.0))
        wrong, decidable, error = judge(m, t, bound)
        same_infinity = ~np.isfinite(t) & (m == t)
        with np.errstate(all="ignore"):
            ratio = np.where(decidable & ~wrong & (bound > 0), error / bound, 0.0)
        worst = max(worst, float(ratio.max(initial=0.0)))
        bounds.append(bound)
        wrongs.append(wrong)
        decided.append(int((decidable | same_infinity).sum()))
    return Look(
        probe,
        typing,
        truth.exact,
        tuple(bounds),
        auto,
        mine,
        tuple(wrongs),
        tuple(decided),
        worst,
        _value_differs(mine.value, truth, dtype),
    )


def _value_differs(mine: Any, truth: Truth, dtype: str) -> bool:
    """Whether a value is not the reference's, by much more than rounding."""
    if mine is None:
        return False
    relative = max(_SAME_VALUE, 64 * eps_of(dtype))
    leaves = (jax.tree.leaves(x) for x in (mine, truth.exact.value, truth.spread.value))
    for m, t, s in zip(*leaves, strict=True):
        allowed = allowance(t, s, dtype) + relative * np.abs(t).max(initial=0.0)
        if not (np.abs(m - t) <= allowed).all():
            return True
    return False


def explain(evaluator: Evaluator, suspect: Look, seed: int = 0) -> Explained:
    """Whether a suspect is a mistake."""
    if suspect.value_wrong:
        return Explained("mistake")
    if suspect.typing.dtype != "float64" and _no_worse_than_autodiff(suspect):
        return Explained("rounding", "no further off than autodiff in the same dtype")
    if not _far_off(suspect) and _own_rounding(evaluator, suspect):
        return Explained("rounding", "within the rounding of the formula used")
    if _precise(evaluator, suspect):
        return Explained("rounding", "closer to a truth of 40 digits than autodiff is")
    kink = _kink(evaluator, suspect, seed)
    if kink is not None:
        return kink
    if _ill_conditioned(evaluator, suspect, seed):
        return Explained("rounding", "the last digits of the arguments move the truth as far")
    if not suspect.probe.ordinary and _both_out_of_range(suspect):
        return Explained("rounding", "autodiff in the same dtype leaves the range there, too")
    return Explained("mistake")


def coarsest(problem: Problem, typing: Typing) -> str:
    """The floating dtype with the fewest digits among the arguments."""
    if typing.dtype is not None:
        return typing.dtype
    with enable_x64(typing.x64):
        dtypes = {
            np.finfo(x.dtype).dtype.name if x.dtype.kind == "c" else x.dtype.name
            for leaf, x in zip(problem.leaves, problem.typed(problem.example, typing), strict=True)
            if leaf.differentiable
        }
    return max(dtypes, key=eps_of)


def _far_off(suspect: Look) -> bool:
    """Whether it is off by much at ordinary values in float64: that cannot be rounding."""
    return (
        suspect.typing.dtype == "float64"
        and suspect.probe.ordinary
        and any(
            bool((np.abs(m - t)[wrong] > _FAR * np.abs(t).max(initial=0.0)).any())
            for m, _, t, wrong in _parts(suspect)
        )
    )


def _no_worse_than_autodiff(suspect: Look) -> bool:
    for m, a, t, wrong in _parts(suspect):
        if not wrong.any():
            continue
        with np.errstate(all="ignore"):
            mine, auto = np.abs(m - t), np.abs(a - t)
        if not np.isfinite(m[wrong]).all() or not np.isfinite(auto[wrong]).all():
            return False
        if not (mine[wrong] <= _NO_WORSE * max(auto.max(initial=0.0), 0.0)).all():
            return False
    return True


def _both_out_of_range(suspect: Look) -> bool:
    return all(
        (not np.isfinite(m[wrong]).all() and not np.isfinite(a[wrong]).all()) or not wrong.any()
        for m, a, _, wrong in _parts(suspect)
    )


def _own_rounding(evaluator: Evaluator, suspect: Look) -> bool:
    """Whether the candidate's formula, right but for rounding, can be as far off as it is."""
    problem = evaluator.problem
    wide = Typing("float64", True)
    if wide in evaluator.untraceable:
        return False
    run = evaluator.own_spread()
    with enable_x64(), jax.default_matmul_precision("highest"):
        values = problem.typed(suspect.probe.values, wide)
        exact, spread = jax.device_get(run(values, suspect.probe.cotangent))
    dtype = coarsest(problem, suspect.typing)
    scale = float(magnitude((_numbers(problem, suspect.probe), suspect.probe.cotangent)))
    at = zip(exact[1], spread[1], suspect.bound, _parts(suspect), strict=True)
    for e, s, bound, (m, _, t, wrong) in at:
        own = allowance(e, s, dtype, scale)
        with np.errstate(all="ignore"):
            explained = np.isfinite(own) & np.isfinite(m) & (np.abs(m - t) <= own + bound)
        if not explained[wrong].all():
            return False
    return True


def _ill_conditioned(evaluator: Evaluator, suspect: Look, seed: int) -> bool:
    """Whether arguments that differ in their last digits only have a truth as far off as the candidate is:
    then it is the right answer to nearly the right question."""
    if not all(np.isfinite(m[wrong]).all() for m, _, _, wrong in _parts(suspect)):
        return False
    problem, rng = evaluator.problem, np.random.default_rng(seed)
    eps = _LAST_DIGITS * eps_of(coarsest(problem, suspect.typing))

    def moved() -> Probe:
        values = tuple(
            x * (1 + eps * rng.uniform(-1, 1, np.shape(x))) if leaf.differentiable else x
            for leaf, x in zip(problem.leaves, suspect.probe.values, strict=True)
        )
        return replace(suspect.probe, values=values)

    near = evaluator.autodiff([moved() for _ in range(_MOVED)], Typing("float64", True))
    for i, (m, _, t, wrong) in enumerate(_parts(suspect)):
        with np.errstate(all="ignore"):
            span = np.max([np.abs(x.cotangents[i] - t) for x in near], axis=0, initial=0.0)
        if not (np.abs(m - t) <= _NO_WORSE * span)[wrong].all():
            return False
    return True


def _precise(evaluator: Evaluator, suspect: Look) -> bool:
    """Whether what deviates little in float64 is as close to a truth of more digits as autodiff is."""
    if suspect.typing.dtype != "float64" or not all(_little(*part) for part in _parts(suspect)):
        return False
    try:
        found = precisely(evaluator.cotangents, largest=_WORK)(suspect.probe.values, suspect.probe.cotangent)
    except NotPrecise:
        return False
    for (m, a, _, wrong), exact in zip(_parts(suspect), found, strict=True):
        mine, auto = np.abs(m - exact)[wrong], np.abs(a - exact)[wrong]
        if not (mine <= _NO_WORSE * auto + 4 * eps_of("float64") * np.abs(exact)[wrong]).all():
            return False
    return True


def _little(mine: np.ndarray, auto: np.ndarray, truth: np.ndarray, wrong: np.ndarray) -> bool:
    del auto
    return bool((np.abs(mine - truth)[wrong] <= _LITTLE * np.abs(truth).max(initial=0.0)).all())


def _kink(evaluator: Evaluator, suspect: Look, seed: int) -> Explained | None:
    found = examine(
        evaluator.cotangents,
        suspect.probe.values,
        suspect.probe.cotangent,
        suspect.mine.cotangents,
        suspect.bound,
        seed,
        amplitude=eps_of(coarsest(evaluator.problem, suspect.typing)),
    )
    return Explained(_KINKS[found.kind], found.message) if found.kind in _KINKS else None


def _parts(suspect: Look) -> Sequence[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    return list(
        zip(
            suspect.mine.cotangents,
            suspect.auto.cotangents,
            suspect.truth.cotangents,
            suspect.wrong,
            strict=True,
        )
    )


def _numbers(problem: Problem, probe: Probe) -> list[Any]:
    return [x for leaf, x in zip(problem.leaves, probe.values, strict=True) if leaf.differentiable]


def _finite(tree: Any) -> bool:
    leaves = [np.asarray(x) for x in jax.tree.leaves(tree)]
    return all(np.isfinite(x).all() for x in leaves if x.dtype.kind in "fc")
