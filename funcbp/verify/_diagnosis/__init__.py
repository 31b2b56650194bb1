"""Why a gradient is wrong: the cause that explains the user's numbers at every input that was tried.

First algebra on the pair (mine, truth), then mutation: the human mistakes, planted one at a time in the
reference's backward pass, until one gives what the user returned. What nothing explains is not explained.
"""

from collections.abc import Sequence

from .._problem import Compared, Problem
from .._report import Cause
from . import algebra
from .evidence import Diagnosis, Evidence, Explanation, listed

__all__ = ["Diagnosis", "diagnose"]


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
    del seconds
    evidence = Evidence(problem, tuple(compared))
    found = {leaf: algebra.explain(evidence, leaf) for leaf in evidence.wrong}
    unknown = Explanation(Cause.VALUE, "wrong for a reason that was not found")
    return _grouped(evidence, {leaf: why or unknown for leaf, why in found.items()})


def _grouped(evidence: Evidence, found: dict[int, Explanation]) -> tuple[Diagnosis, ...]:
    groups: dict[Explanation, list[int]] = {}
    for leaf, why in found.items():
        groups.setdefault(why, []).append(leaf)
    return tuple(
        Diagnosis(
            tuple(leaves),
            why.cause,
            f"{listed([evidence.name(leaf) for leaf in leaves])}: {why.text}.",
            why.line,
            why.alternatives,
            why.factor,
        )
        for why, leaves in groups.items()
    )
