"""Looks for the mutant that gives what the user returned, at every probe."""

import time
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import numpy as jnp

from .._problem import Typing
from .adjoints import JacobianMistake, jacobian_mistakes
from .axes import over_other_axes
from .elsewhere import elsewhere, functions, in_time
from .evidence import Evidence, Explanation, agree, outside
from .graph import trace
from .mistakes import mutants
from .mutants import Context, Mutant
from .paths import explained_by_paths
from .substitutions import Substitution, own_literals, substitutions
from .tape import Recorder, Tape

__all__ = ["Found", "Program"]

_FLOAT64 = Typing("float64", True)
_LARGEST = 200_000
_MOST_PATHS = 80
_MOST_LITERALS = 8


Mistake = Mutant | Substitution | JacobianMistake


class Found(NamedTuple):
    """A mutant with the leaves that it explains."""

    mutant: Mistake
    leaves: frozenset[int]
    whole: bool

    def explanation(self) -> Explanation:
        """It in words."""
        mutant = self.mutant
        line = None if mutant.source is None else str(mutant.source)
        return Explanation(mutant.cause, mutant.text, line, mutant.alternatives)


class Program:
    """The reference's program at the probes: graphs by shape, and recorded runs."""

    def __init__(self, evidence: Evidence, seconds: float) -> None:
        self.evidence = evidence
        # What mutants leave over is for clues.
        now = time.monotonic()
        self.end, self._end_of_search = now + seconds, now + 0.7 * seconds
        self._recorders: dict[Any, Recorder] = {}
        self._tapes: dict[int, Tape | None] = {}

    @property
    def late(self) -> bool:
        """Whether time is up."""
        return time.monotonic() > self.end

    @property
    def left(self) -> float:
        """How many seconds are left."""
        return self.end - time.monotonic()

    @cached_property
    def literals(self) -> tuple[float, ...]:
        """Numbers that the reference's own lines compute with, but for those that everybody uses."""
        tape = next((t for i in range(len(self.evidence.compared)) if (t := self.tape(i)) is not None), None)
        found = {abs(x) for x in own_literals(tape.graph).values()} if tape is not None else set()
        return tuple(sorted(found - {0.0, 0.5, 1.0, 2.0}))[:_MOST_LITERALS]

    def tape(self, probe: int) -> Tape | None:
        """The recorded run at a probe; None where its gradient is not the truth, as at a kink."""
        if probe not in self._tapes:
            try:
                self._tapes[probe] = self._record(probe)
            except (IndexError, KeyError, NotImplementedError, TypeError, ValueError):
                # A program that cannot be taken apart: algebra is what remains.
                self._tapes[probe] = None
        return self._tapes[probe]

    def _record(self, probe: int) -> Tape | None:
        compared = self.evidence.compared[probe]
        problem = self.evidence.problem
        with jax.enable_x64(True):
            values = problem.typed(compared.probe.values, _FLOAT64)
            if sum(np.size(x) for x in values) > _LARGEST:
                return None
            key = tuple((jnp.shape(x), jnp.result_type(x)) for x in values)
            if key not in self._recorders:
                self._recorders[key] = Recorder(trace(problem.reference, values), problem.wrt)
            recorder = self._recorders[key]
            outputs = jax.tree.leaves(compared.probe.cotangent)
            if len(outputs) != len(recorder.graph.outputs):
                return None
            tape = recorder.tape(values, outputs)
            gradient = tape.gradient()
        right = all(_close(g, t) for g, t in zip(gradient, compared.truth, strict=True))
        return tape if right else None

    def substituted(self, probe: int, other: Substitution) -> list[np.ndarray] | None:
        """The gradient with other ingredients; None where they cannot be had."""
        tape = self.tape(probe)
        if tape is None:
            return None
        compared = self.evidence.compared[probe]
        outputs = jax.tree.leaves(compared.probe.cotangent)
        with jax.enable_x64(True), np.errstate(all="ignore"):
            values = self.evidence.problem.typed(other.values(compared.probe.values), _FLOAT64)
            return tape.recorder.tape(values, outputs, other.numbers, other.forced).gradient()

    def context(self, leaf_order: Sequence[int]) -> tuple[int, Context] | None:
        """The probe to guess by, and its context: small, finite, and wrong in most of the leaves."""

        def worth(i: int) -> tuple[int, int]:
            c = self.evidence.compared[i]
            wrong = sum(bool(outside(c, k).any()) and bool(np.isfinite(c.mine[k]).all()) for k in leaf_order)
            return -wrong, sum(t.size for t in c.truth)

        for probe in sorted(range(len(self.evidence.compared)), key=worth):
            if worth(probe)[0] == 0:
                break
            tape = self.tape(probe)
            if tape is not None:
                names = tape.graph.names([leaf.name for leaf in self.evidence.problem.leaves])
                return probe, Context(tape.recorder, tape, names)
            if self.late:
                break
        return None

    def search(self, leaves: Sequence[int], *, furthest: int = 5) -> list[Found]:
        """Mutants that explain some of the wrong leaves, the best first; ranks up to `furthest`."""
        chosen = self.context(leaves)
        if chosen is None:
            return []
        probe, context = chosen
        found: list[Found] = []
        for stage in self._stages(context, furthest):
            for mutant in stage:
                if time.monotonic() > self._end_of_search:
                    return _best_first(found)
                explained = self._explained(probe, mutant, leaves)
                if explained:
                    found.append(explained)
            if any(f.leaves == frozenset(leaves) for f in found):
                return _best_first(found)
        return _best_first(found)

    def combined(self, leaves: Sequence[int]) -> Explanation | None:
        """One or two paths whose terms are there with other factors: n/(n - 1), none, minus, or any."""
        chosen = self.context(leaves)
        if chosen is None or self.late:
            return None
        dropped = [m for m in mutants(chosen[1]) if m.path is not None][:_MOST_PATHS]
        return explained_by_paths(self.evidence, leaves, dropped, self._lost)

    def _lost(self, probe: int, mutant: Mutant) -> list[np.ndarray] | None:
        """What goes through a path that a mutant drops; None where there is no recorded run."""
        tape = self.tape(probe)
        if tape is None or max(mutant.overrides) >= len(tape.graph.nodes):
            return None
        return [-d for d in tape.changed(mutant.overrides)]

    def _stages(self, context: Context, furthest: int) -> Iterator[Sequence[Mistake] | Iterator[Mutant]]:
        other = [
            *over_other_axes(context),
            *substitutions(self.evidence.problem.leaves, context.graph),
            *jacobian_mistakes(context.graph, context.recorder.wrt),
        ]
        near = sorted(
            [*mutants(context), *functions(context), *in_time(context), *other], key=lambda m: m.rank
        )
        for low, high in ((0, 2), (3, 3), (4, 6)):
            if low <= furthest:
                yield [m for m in near if low <= m.rank <= high]
        if furthest >= 5:
            yield elsewhere(context)

    def _explained(self, probe: int, mutant: Mistake, leaves: Sequence[int]) -> Found | None:
        guess = self._guess(probe, mutant)
        if guess is None:
            return None
        compared = self.evidence.compared
        candidates = [
            k for k in leaves if outside(compared[probe], k).any() and agree(compared[probe], k, guess[k])
        ]
        if not candidates:
            return None
        whole = True
        for i in range(len(compared)):
            if self.tape(i) is None:
                continue
            guess = self._guess(i, mutant)
            if guess is None:
                return None
            candidates = [k for k in candidates if agree(compared[i], k, guess[k])]
            whole = whole and all(agree(compared[i], k, g) for k, g in enumerate(guess))
        return Found(mutant, frozenset(candidates), whole) if candidates else None

    def _with_leaf(self, probe: int, leaf: int, guess: np.ndarray) -> list[np.ndarray]:
        """The truth with another cotangent of one leaf."""
        whole = list(self.evidence.compared[probe].truth)
        whole[leaf] = guess
        return whole

    def _guess(self, probe: int, mutant: Mistake) -> list[np.ndarray] | None:
        if isinstance(mutant, Substitution):
            return self.substituted(probe, mutant)
        tape = self.tape(probe)
        if isinstance(mutant, JacobianMistake):
            return None if tape is None else self._with_leaf(probe, mutant.leaf, mutant.guess(tape))
        if tape is None or max(mutant.overrides) >= len(tape.graph.nodes):
            return None
        truth = self.evidence.compared[probe].truth
        with np.errstate(all="ignore"):
            try:
                deltas = tape.changed(mutant.overrides)
            except (ValueError, IndexError, KeyError):
                # The mistake cannot be made at this shape.
                return None
            return [t + d for t, d in zip(truth, deltas, strict=True)]


def _best_first(found: list[Found]) -> list[Found]:
    return sorted(found, key=lambda f: (-len(f.leaves), not f.whole, f.mutant.rank))


def _close(gradient: np.ndarray, truth: np.ndarray) -> bool:
    usable = np.isfinite(truth) & np.isfinite(gradient)
    scale = np.abs(truth[usable]).max(initial=0.0)
    return bool((np.abs(gradient - truth)[usable] <= 1e-7 * scale + 1e-300).all())
