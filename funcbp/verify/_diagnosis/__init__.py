"""Why a gradient is wrong: the cause that explains the user's numbers at every input that was tried.

First algebra on the pair (mine, truth), then mutation: the human mistakes, planted one at a time in the
reference's backward pass, until one gives what the user returned. What nothing explains is not explained.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from .._problem import Compared, Problem
from .._report import Cause
from . import algebra
from .clues import clue, nonfinite
from .derived import in_derivation
from .evidence import Diagnosis, Evidence, Explanation, listed
from .search import Found, Program

__all__ = ["Diagnosis", "diagnose"]

_LONGEST = 3.0
# What no line of a derivation is about: the gradient's shape, its places, and single numbers.
_OUTSIDE = frozenset({Cause.SHAPE, Cause.BROADCAST, Cause.NONFINITE, Cause.KINK, Cause.SWAPPED})


def diagnose(
    problem: Problem, compared: Sequence[Compared], *, seconds: float = 10.0
) -> tuple[Diagnosis, ...]:
    """Why leaves are wrong: every wrong leaf in just one diagnosis, consistent with all probes.

    Args:
        problem: the reference and the candidate.
        compared: what came out at some probes; right ones count, too.
        seconds: how long it may take, about.

    Returns:
        One diagnosis for each cause; `Cause.VALUE` for what nothing explains. Empty if nothing is wrong.
    """
    evidence = Evidence(problem, tuple(compared))
    if not evidence.wrong:
        return ()
    with np.errstate(all="ignore"):
        return _diagnosed(evidence, seconds)


def _diagnosed(evidence: Evidence, seconds: float) -> tuple[Diagnosis, ...]:
    wrong = evidence.wrong
    program = Program(evidence, seconds)
    found = {leaf: why for leaf in wrong if (why := algebra.shape(evidence, leaf)) is not None}
    for leaf in wrong:
        if leaf not in found and (why := nonfinite(evidence, leaf, program)) is not None:
            found[leaf] = why
    if len(evidence.finite.compared) < len(evidence.compared):
        evidence = evidence.finite
        program = Program(evidence, seconds)
    rest = [leaf for leaf in wrong if leaf not in found]
    simple = {
        leaf: why for leaf in rest if (why := algebra.explain(evidence, leaf, program.literals)) is not None
    }
    if len(simple) == len(rest) and len(set(simple.values())) <= 1:
        found |= _located(program, rest, simple)
    else:
        found |= _mutated(program, rest, simple)
    for leaf in wrong:
        if leaf not in found:
            found[leaf] = clue(evidence, leaf, program)
    known = _explained_by_derivation(evidence, [k for k in wrong if found[k].cause is Cause.VALUE], program)
    diagnoses = _grouped(evidence, {leaf: known.get(leaf, found[leaf]) for leaf in wrong})
    return tuple(d if known.keys() & set(d.leaves) else _with_line(evidence, d, program) for d in diagnoses)


def _explained_by_derivation(
    evidence: Evidence, leaves: list[int], program: Program
) -> dict[int, Explanation]:
    """What nothing else explains, a mistake in the derivation may."""
    where = in_derivation(evidence, leaves, min(program.left, _LONGEST)) if leaves else None
    if where is None or where.cause is None:
        return {}
    return dict.fromkeys(leaves, Explanation(where.cause, where.text.removesuffix(".")))


def _with_line(evidence: Evidence, diagnosis: Diagnosis, program: Program) -> Diagnosis:
    """The diagnosis with the line of the derivation."""
    if diagnosis.cause in _OUTSIDE:
        return diagnosis
    where = in_derivation(evidence, diagnosis.leaves, min(program.left, _LONGEST))
    if where is None:
        return diagnosis
    return replace(diagnosis, message=f"{diagnosis.message} {where.text[0].upper()}{where.text[1:]}")


def _located(program: Program, leaves: list[int], simple: dict[int, Explanation]) -> dict[int, Explanation]:
    """One simple cause for all leaves, with the line of the mutant that does the same."""
    if not leaves:
        return {}
    why = simple[leaves[0]]
    if why.cause not in (Cause.SIGN, Cause.CONSTANT_FACTOR, Cause.ZERO):
        return simple
    same = [f for f in program.search(leaves, furthest=3) if f.leaves == frozenset(leaves)]
    summed = [f for f in same if f.mutant.cause is Cause.REDUCTION and f.whole]
    if why.cause is Cause.CONSTANT_FACTOR and summed:
        why = replace(summed[0].explanation(), factor=why.factor)
    elif same:
        nearest = [f for f in same if f.mutant.rank == same[0].mutant.rank]
        lines = {f.explanation().line for f in nearest}
        others = tuple(dict.fromkeys(f.mutant.cause for f in nearest if f.mutant.cause is not why.cause))
        why = replace(why, line=lines.pop() if len(lines) == 1 else None, alternatives=others)
    return dict.fromkeys(leaves, why)


def _mutated(program: Program, leaves: list[int], simple: dict[int, Explanation]) -> dict[int, Explanation]:
    """The mutants that explain all leaves, or the most; algebra for single leaves goes before them."""
    matches = program.search(leaves)
    full = [f for f in matches if f.leaves == frozenset(leaves)]
    if full:
        return dict.fromkeys(leaves, _with_alternatives(full))
    scaled = program.combined(leaves) if len(leaves) > len(simple) else None
    if scaled is not None:
        return dict.fromkeys(leaves, scaled)
    found = dict(simple)
    pending = [leaf for leaf in leaves if leaf not in found]
    while pending:
        best = max(matches, key=lambda f: len(f.leaves.intersection(pending)), default=None)
        if best is None or not best.leaves.intersection(pending):
            break
        covered = best.leaves.intersection(pending)
        rivals = [f for f in matches if covered <= f.leaves]
        found |= dict.fromkeys(covered, _with_alternatives(rivals))
        pending = [leaf for leaf in pending if leaf not in covered]
    return found


def _with_alternatives(matches: list[Found]) -> Explanation:
    first, *others = matches
    why = first.explanation()
    causes = [*why.alternatives, *(f.mutant.cause for f in others if f.mutant.rank <= first.mutant.rank + 1)]
    return replace(why, alternatives=tuple(dict.fromkeys(c for c in causes if c is not why.cause)))


def _grouped(evidence: Evidence, found: dict[int, Explanation]) -> tuple[Diagnosis, ...]:
    groups: dict[Explanation, list[int]] = {}
    for leaf, why in found.items():
        groups.setdefault(why, []).append(leaf)
    return tuple(
        Diagnosis(
            tuple(leaves),
            why.cause,
            f"{listed([evidence.name(leaf) for leaf in leaves])}: {why.text}{_at(why.line)}.",
            why.line,
            why.alternatives,
            why.factor,
        )
        for why, leaves in groups.items()
    )


def _at(line: str | None) -> str:
    return "" if line is None else f" ({line})"
