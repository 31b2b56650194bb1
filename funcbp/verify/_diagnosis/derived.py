"""The line of the derivation that a mistake sits in: found by mistakes in the derivation's own formulas."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jax import numpy as jnp

from .._problem import Compared, Typing
from .._report import Cause
from .evidence import Evidence, agree, outside

if TYPE_CHECKING:
    from ..._derive._workings import At, Workings

__all__ = ["InDerivation", "in_derivation"]

_FLOAT64 = Typing("float64", True)
_MOST_EQUATIONS = 120
_LARGEST = 20_000  # elements of all arguments together
_SHOWN = 120  # characters of a line
_CAUSES = {
    "constant": Cause.CONSTANT_FACTOR,
    "factor": Cause.FACTOR_MISSING,
    "other": Cause.FACTOR_MISSING,
    "point": Cause.WRONG_POINT,
    "sign": Cause.SIGN,
    "sum": Cause.REDUCTION,
    "term": Cause.TERM_MISSING,
    "transpose": Cause.TRANSPOSE_FORGOTTEN,
}


@dataclass(frozen=True)
class InDerivation:
    """Where in the derivation of the reference a mistake sits.

    Attributes:
        text: a sentence, which begins with a small letter.
        cause: what kind of mistake; None where only the line is known.
    """

    text: str
    cause: Cause | None


def in_derivation(evidence: Evidence, leaves: Sequence[int], seconds: float) -> InDerivation | None:
    """The line that is wrong in the derivation of the reference, for leaves that one mistake explains.

    None where the reference is not derived (an operation without a rule, a recurrence, a large program), and
    where it takes longer than `seconds`.
    """
    end = time.monotonic() + seconds
    if seconds <= 0 or sum(np.size(leaf.value) for leaf in evidence.problem.leaves) > _LARGEST:
        return None
    from ..._derive._workings import Workings  # `derive` is built on this package

    with jax.enable_x64(True), np.errstate(all="ignore"):
        try:
            derived = _Derived(evidence, leaves, Workings.of)
            with derived.workings.built.session.active():
                return derived.search(end)
        # The reference is a user's: whatever stands in the way of deriving it, the report does without.
        except Exception:
            return None


class _Derived:
    """The derivation of the reference at all probes, and the leaves that a mistake has to explain."""

    def __init__(self, evidence: Evidence, leaves: Sequence[int], derive: Callable[..., "Workings"]) -> None:
        self.evidence, self.leaves = evidence, frozenset(leaves)
        self.workings = _workings(evidence, derive)
        self.names = self.workings.built.program.wrt
        self.probes: list[tuple[Compared, At]] = []
        for compared in sorted(evidence.compared, key=lambda c: not self._wrong_at(c)):
            at = self.workings.at([*compared.probe.values, *_cotangents(evidence, compared)])
            gradients = at.gradients()
            right = all(_close(gradients[n], t) for n, t in zip(self.names, compared.truth, strict=True))
            if right:
                self.probes.append((compared, at))

    def _wrong_at(self, compared: Compared) -> bool:
        return any(outside(compared, k).any() for k in self.leaves)

    def search(self, end: float) -> InDerivation | None:
        """The mistake that explains what the user returned, else the line that all that is wrong hangs on."""
        if not self.probes or not self._wrong_at(self.probes[0][0]):
            return None
        for mistaken in self.workings.mistaken():
            if time.monotonic() > end:
                break
            reached = self.workings.reached(mistaken)
            if all(self.names[k] in reached for k in self.leaves) and self._explains(mistaken):
                more = [k for k in mistaken.slips if k != mistaken.first]
                lines = " and ".join(map(self._line, [mistaken.first, *more[:1]]))
                return InDerivation(f"in the derivation, {lines}: {mistaken.text}.", _CAUSES[mistaken.kind])
        line = self.workings.common_line(frozenset(self.names[k] for k in self.leaves))
        return None if line is None else InDerivation(f"the derivation has {self._line(line)}.", None)

    def _explains(self, mistaken: Any) -> bool:
        for compared, at in self.probes:
            try:
                guess = at.gradients(mistaken)
            except (FloatingPointError, ValueError, np.linalg.LinAlgError):
                return False
            if not all(self._agrees(compared, k, guess[name]) for k, name in enumerate(self.names)):
                return False
        return True

    def _agrees(self, compared: Compared, leaf: int, guess: np.ndarray) -> bool:
        """Of a leaf that has another cause nothing is asked."""
        if leaf not in self.leaves and leaf in self.evidence.wrong:
            return True
        return agree(compared, leaf, guess)

    def _line(self, line: int) -> str:
        text = self.workings.written(line)
        return text if len(text) <= _SHOWN else text.partition(" = ")[0] + " = …"


def _workings(evidence: Evidence, derive: Callable[..., "Workings"]) -> "Workings":
    """Derive ⟨cotangent, reference⟩, a number, by everything that is looked at."""
    problem, first = evidence.problem, evidence.compared[0]
    values, cotangents = problem.typed(first.probe.values, _FLOAT64), _cotangents(evidence, first)
    names = _identifiers([leaf.name for leaf in problem.leaves])
    free = (f"ct{k or ''}" for k in range(len(cotangents) + len(names)))
    names += [n for n in free if n not in names][: len(cotangents)]

    def paired(*given: Any) -> Any:
        outputs = jax.tree.leaves(problem.reference(*given[: len(values)]))
        weights = given[len(values) :]
        if not weights:
            return outputs[0]
        return sum(jnp.sum(w * o) for w, o in zip(weights, outputs, strict=True))

    program = jax.make_jaxpr(paired)(*values, *cotangents)
    if len(program.jaxpr.eqns) > _MOST_EQUATIONS:
        raise ValueError("a large program")
    wrt = [names[i] for i in problem.wrt]
    return derive(paired, [*values, *cotangents], names, wrt)


def _cotangents(evidence: Evidence, compared: Compared) -> list[np.ndarray]:
    if evidence.problem.kind == "gradient":
        return []
    return [np.asarray(x, np.float64) for x in jax.tree.leaves(compared.probe.cotangent)]


def _identifiers(names: Sequence[str]) -> list[str]:
    """Names of leaves as variables: the last key of the path where no other has it."""
    keys = [n.replace("]", "").replace("'", "").replace(".", "[").split("[") for n in names]
    last = [k[-1] for k in keys]
    return [k[-1] if last.count(k[-1]) == 1 and k[-1].isidentifier() else "_".join(k) for k in keys]


def _close(found: np.ndarray, truth: np.ndarray) -> bool:
    usable = np.isfinite(truth)
    scale = np.abs(truth[usable]).max(initial=0.0)
    return bool((np.abs(found - truth)[usable] <= 1e-7 * scale + 1e-300).all())
