"""From what a search has seen to a report: which finding, why, at which input, and what was looked at."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import jax
import numpy as np

from .._compat import enable_x64
from ._accuracy import ulps
from ._coverage import coverage
from ._diagnosis import Diagnosis
from ._precise import NotPrecise
from ._problem import Probe
from ._reasons import reasons
from ._report import Cause, Checked, Finding, Report, plural
from ._search import EXAMPLE, WIDE, Search
from ._shrink import shrink
from ._suspects import Look, explain

__all__ = ["conclude"]


def conclude(search: Search) -> Report:
    """The report of a search that has run."""
    seen = search.seen
    findings = list(seen.findings)
    if seen.mistakes:
        findings += _findings(search)
    notes = [a.phrase for a in search.assumptions if a.narrow]
    accuracy = _accuracy(search)
    return Report(
        search.problem.subject,
        tuple(findings),
        tuple(seen.undecided),
        _checked(search),
        tuple([*notes, *seen.notes, *accuracy]),
        seen.unexplained,
    )


def _findings(search: Search) -> list[Finding]:
    look, known, how = search.seen.mistakes[0]
    found = []
    for diagnosis in reasons(search, look, known):
        if diagnosis.leaves:
            found.append(_finding(search, _shown(search, look, diagnosis), diagnosis, how))
        else:
            found.append(_of_value(search, look, diagnosis))
    return found


def _of_value(search: Search, look: Look, diagnosis: Diagnosis) -> Finding:
    """The finding that the function itself is another one."""
    truth, mine = (
        np.concatenate([np.ravel(x) for x in jax.tree.leaves(v)]) for v in (look.truth.value, look.mine.value)
    )
    worst = int(np.argmax(np.abs(mine - truth)))
    return Finding(
        "value",
        diagnosis.cause,
        diagnosis.message,
        _plain(truth[worst]),
        _plain(mine[worst]),
        None,
        _inputs(search, look),
        search.options.seed,
        f"{look.typing}, {look.probe.label}",
    )


def _inputs(search: Search, look: Look) -> dict[str, Any]:
    return {leaf.name: x for leaf, x in zip(search.problem.leaves, look.probe.values, strict=False)}


def _shown(search: Search, look: Look, diagnosis: Diagnosis) -> Look:
    """A simple input that shows what a diagnosis is about."""
    candidates = [look] if any(look.wrong[i].any() for i in diagnosis.leaves) else []
    candidates += [
        x
        for x in search.seen.looks
        if x.suspicious
        and len(x.wrong) == len(look.wrong)
        and any(x.wrong[i].any() for i in diagnosis.leaves)
    ]
    first = candidates[0]
    if first.probe.label.startswith("second order") or diagnosis.cause in (Cause.VMAP, Cause.JIT_DIFFERS):
        return first

    def fails(probes: Sequence[Probe]) -> list[bool]:
        # Told apart by their labels, which survive rounding.
        named = [replace(probe, label=f"simpler {i}") for i, probe in enumerate(probes)]
        seen = {x.probe.label: x for x in search.examine(named, [first.typing])}
        looks = [seen.get(probe.label) for probe in named]
        return [x is not None and any(_clearly(x, i) for i in diagnosis.leaves) for x in looks]

    allowed = [_inside(search, i) for i in range(len(search.problem.leaves))]
    again = search.examine([shrink(search.problem, first.probe, allowed, fails)], [first.typing])
    if again and any(_clearly(again[0], i) for i in diagnosis.leaves):
        same_kind = diagnosis.cause is Cause.KINK or explain(search.evaluator, again[0]).kind == "mistake"
        return again[0] if same_kind else first
    return first


def _clearly(look: Look, leaf: int) -> bool:
    """Whether a leaf is wrong by more than a few bounds, and not because everything is zero."""
    wrong = look.wrong[leaf]
    if not wrong.any():
        return False
    mine, truth = look.mine.cotangents[leaf], look.truth.cotangents[leaf]
    error = np.abs(mine - truth)[wrong].max()
    return bool(not np.isfinite(error) or error > 1e-4 * np.abs(truth).max(initial=0.0))


def _inside(search: Search, leaf: int) -> Any:
    assumption = search.assumptions[leaf]

    def allowed(value: np.ndarray) -> bool:
        return not assumption.narrow or assumption.domain.contains(value)

    return allowed


def _finding(search: Search, look: Look, diagnosis: Diagnosis, how: str) -> Finding:
    leaf = max(diagnosis.leaves, key=lambda i: int(look.wrong[i].any()))
    truth, mine = look.truth.cotangents[leaf], look.mine.cotangents[leaf]
    wrong, bound = look.wrong[leaf], look.bound[leaf]
    with np.errstate(all="ignore"):
        error = np.where(np.isfinite(mine), np.abs(mine - truth), np.inf)
        excess = np.where(wrong, error / np.maximum(bound, np.finfo(np.float64).tiny), -1.0)
    at = tuple(int(i) for i in np.unravel_index(int(np.argmax(excess)), truth.shape))
    problem = search.problem
    name = problem.leaves[problem.wrt[leaf]].name
    count = f"{int(wrong.sum())} of {plural(truth.size, 'element')} wrong"
    message = diagnosis.message if how == "" else f"{diagnosis.message} ({how})"
    return Finding(
        f"{name}[{', '.join(map(str, at))}]" if at else name,
        diagnosis.cause,
        f"{message} {count} here.",
        _plain(truth[at]),
        _plain(mine[at]),
        float(bound[at]),
        _inputs(search, look),
        search.options.seed,
        f"{look.typing}, {look.probe.label}",
        diagnosis.line,
        diagnosis.alternatives,
    )


def _plain(x: Any) -> Any:
    return complex(x) if np.iscomplexobj(x) else float(x)


def _checked(search: Search) -> Checked:
    seen = search.seen
    names = [search.problem.leaves[i].name for i in search.problem.wrt]
    by_leaf = dict.fromkeys(names, 0)
    elements = 0
    for x in seen.looks:
        if len(x.decided) != len(names):
            continue
        for name, count in zip(names, x.decided, strict=True):
            by_leaf[name] += count
            elements += count
    for i in search.problem.wrt:
        if np.size(search.problem.leaves[i].value) == 0:
            del by_leaf[search.problem.leaves[i].name]
    return Checked(
        elements=elements,
        by_leaf=by_leaf,
        examples=len({id(x.probe) for x in seen.looks}),
        points=len(search.options.points or {}),
        dtypes=tuple(str(typing) for typing in search.typings),
        worst=max((x.worst for x in seen.looks), default=0.0),
        decisions=coverage(search.problem, _of_this_size(search)),
        oracles=("jax.vjp in float64, bounds by Monte Carlo arithmetic",),
        seconds=search.seconds,
    )


def _of_this_size(search: Search) -> list[Probe]:
    """The probes that have the shapes of the problem, each once."""
    shapes = [np.shape(leaf.value) for leaf in search.problem.leaves]
    probes = {id(x.probe): x.probe for x in search.seen.looks if x.probe.inside}
    return [p for p in probes.values() if [np.shape(value) for value in p.values] == shapes]


def _accuracy(search: Search) -> list[str]:
    """How accurate the candidate and autodiff are in the example's dtypes, in ulps."""
    right = [x for x in search.right(ordinary=True) if x.probe.label != EXAMPLE]
    if search.seen.over or not right:
        return []
    shown = right[0]
    problem, typing = search.problem, shown.typing
    with enable_x64(typing.x64):
        values = problem.typed(shown.probe.values, typing)
        dtypes = [values[i].dtype for i in problem.wrt]
    mine, auto = (
        [x.astype(dtype) for x, dtype in zip(y.cotangents, dtypes, strict=True)]
        for y in (shown.mine, shown.auto)
    )
    truth = None if typing == WIDE else shown.truth.cotangents
    try:
        found = ulps(
            mine, search.evaluator.cotangents, values, shown.probe.cotangent, autodiff=auto, truth=truth
        )
    except NotPrecise:
        return []
    return [f"accuracy at fresh values, 99th percentile against {found.truth}: {found}"]
