"""Why a candidate is wrong: what shows by itself first, then the diagnosis."""

import re
from collections.abc import Sequence
from dataclasses import replace

import jax
import numpy as np

from .._compat import enable_x64
from ._compare import judge
from ._diagnosis import Diagnosis, diagnose
from ._evaluate import Evaluator
from ._linearity import nonlinear
from ._problem import Compared, like_output
from ._report import Cause
from ._search import WIDE, Search
from ._suspects import Look

__all__ = ["reasons"]

_WRONG, _RIGHT = 8, 6  # comparisons that a diagnosis is given
_LONGEST = 12.0  # seconds for the diagnosis
_NARROW = re.compile(r"(?:new_dtype|preferred_element_type)=(bfloat16|float16|float32)")


def reasons(search: Search, look: Look, known: Cause | None) -> tuple[Diagnosis, ...]:
    """What is wrong at a comparison, every wrong leaf in one diagnosis; one without leaves is about the
    value itself."""
    leaves = tuple(i for i, wrong in enumerate(look.wrong) if wrong.any())
    if known is not None:
        return (Diagnosis(leaves, known, known.advice),)
    primal = Cause.PRIMAL_DIFFERS
    found = (Diagnosis((), primal, primal.advice),) if look.value_wrong else ()
    if not leaves:
        return found
    evident = _evident(search, look, leaves) or _layout(search, look, leaves) or _casts(search, look, leaves)
    return (*found, evident) if evident else found + _diagnoses(search, look)


def _evident(search: Search, look: Look, leaves: tuple[int, ...]) -> Diagnosis | None:
    """NaN and infinities; digits that only the narrow dtype loses."""
    infinite = sum(
        int((wrong & ~np.isfinite(mine)).sum())
        for mine, wrong in zip(look.mine.cotangents, look.wrong, strict=True)
    )
    if 2 * infinite > sum(int(wrong.sum()) for wrong in look.wrong):
        return Diagnosis(leaves, Cause.NONFINITE, Cause.NONFINITE.advice)
    wide = [x for x in search.seen.looks if x.typing == WIDE and x.probe is look.probe]
    if look.typing != WIDE and wide and not wide[0].suspicious:
        message = f"right in float64, wrong in {look.typing}. {Cause.PRECISION.advice}"
        return Diagnosis(leaves, Cause.PRECISION, message)
    return None


def _layout(search: Search, look: Look, leaves: tuple[int, ...]) -> Diagnosis | None:
    """Another way to read a Jacobian in which it is right."""
    wrong = [x for x in search.seen.looks if x.typing == look.typing and x.suspicious and _same(x, look)]
    for name, backward in search.problem.others.items():
        other = Evaluator(search.problem.with_candidate(backward), search.options.seed, chunk=1)
        try:
            fits = all(_right(other, x) for x in wrong[:3])
        except ValueError:
            continue  # its shape is not that of this layout
        if fits:
            swapped = "denominator" in (name, search.problem.layout)
            cause = Cause.TRANSPOSED if swapped else Cause.LAYOUT
            return Diagnosis(leaves, cause, f"It is right in layout {name!r}. {cause.advice}")
    return None


def _right(evaluator: Evaluator, look: Look) -> bool:
    outcome = evaluator.eager(look.probe, look.typing)
    parts = zip(outcome.cotangents, look.truth.cotangents, look.bound, strict=True)
    return not any(judge(m, t, bound)[0].any() for m, t, bound in parts)


def _casts(search: Search, look: Look, leaves: tuple[int, ...]) -> Diagnosis | None:
    """Whether it is right without the casts to narrower types that it makes inside."""
    narrow = _narrow_types(search)
    if not narrow or look.typing != WIDE:
        return None
    outcome = search.evaluator.without_casts([look.probe])[0]
    parts = zip(outcome.cotangents, look.truth.cotangents, look.bound, strict=True)
    if any(judge(m, t, bound)[0].any() for m, t, bound in parts):
        return None
    message = f"It is right without its casts to {' and '.join(narrow)}: keep the dtype of the arguments."
    return Diagnosis(leaves, Cause.PRECISION, message)


def _narrow_types(search: Search) -> list[str]:
    """The types narrower than float64 that the candidate casts to in float64."""
    problem = search.problem
    if WIDE in search.evaluator.untraceable:
        return []
    with enable_x64():
        values = problem.typed(problem.example, WIDE)
        out = jax.eval_shape(problem.reference, *values)
        ones = jax.tree.map(lambda o: np.ones(o.shape), out)
        program = jax.make_jaxpr(lambda *v: problem.candidate(v, like_output(ones, out)))(*values)
    return list(dict.fromkeys(_NARROW.findall(str(program))))


def _diagnoses(search: Search, look: Look) -> tuple[Diagnosis, ...]:
    bent = nonlinear(search.evaluator, look.probe, look.typing, search.options.seed)
    found = (Diagnosis(bent, Cause.NOT_LINEAR, Cause.NOT_LINEAR.advice),) if bent else ()
    rest = [_without(compared, bent) for compared in _evidence(search, look)]
    diagnoses = found + diagnose(search.problem, rest, seconds=_LONGEST)
    if all(d.cause is not Cause.VALUE for d in diagnoses):
        return diagnoses
    captured = _captured(search, look)
    message = f"It does not change with {captured}, as the truth does. {Cause.STALE.advice}"
    return tuple(
        replace(d, cause=Cause.STALE, message=message) if captured and d.cause is Cause.VALUE else d
        for d in diagnoses
    )


def _captured(search: Search, look: Look) -> str | None:
    """An argument that changes the truth and not the candidate: its value was taken from elsewhere."""
    problem, rng = search.problem, np.random.default_rng(search.options.seed)
    for i, leaf in enumerate(problem.leaves):
        if not leaf.differentiable or not leaf.value.size:
            continue
        moved = search.assumptions[i].domain.sample(rng, leaf.value.shape, {})
        values = (*look.probe.values[:i], np.asarray(moved), *look.probe.values[i + 1 :])
        both = [look.probe, replace(look.probe, values=values)]
        mine = [outcome.cotangents for outcome in search.evaluator.candidate(both, look.typing)]
        auto = [outcome.cotangents for outcome in search.evaluator.autodiff(both, look.typing)]
        if _equal(*mine) and not _equal(*auto):
            return leaf.name
    return None


def _equal(x: Sequence[np.ndarray], y: Sequence[np.ndarray]) -> bool:
    return all(np.array_equal(a, b, equal_nan=True) for a, b in zip(x, y, strict=True))


def _without(compared: Compared, leaves: Sequence[int]) -> Compared:
    """The same with some leaves taken as right: they have their diagnosis."""
    pairs = enumerate(zip(compared.mine, compared.truth, strict=True))
    return replace(compared, mine=tuple(t if k in leaves else m for k, (m, t) in pairs))


def _evidence(search: Search, look: Look) -> list[Compared]:
    """The comparison that shows the mistake, and others: wrong and right ones, in float64 where possible."""
    typing = WIDE if any(other.typing == WIDE for other in search.seen.looks) else look.typing
    others = [x for x in search.seen.looks if x.typing == typing and x.probe.inside and _same(x, look)]
    others.sort(key=lambda x: not x.probe.ordinary)
    wrong = [x for x in others if x.suspicious and x.probe is not look.probe][: _WRONG - 1]
    right = [x for x in others if not x.suspicious][:_RIGHT]
    own = [x for x in others if x.probe is look.probe][:1] or [look]
    return [Compared(x.probe, x.truth.cotangents, x.bound, x.mine.cotangents) for x in own + wrong + right]


def _same(x: Look, y: Look) -> bool:
    """Whether two comparisons are of the same shapes."""
    pairs = zip(x.truth.cotangents, y.truth.cotangents, strict=False)
    return len(x.wrong) == len(y.wrong) and all(a.shape == b.shape for a, b in pairs)
