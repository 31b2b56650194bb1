"""The search for an input at which a candidate is wrong: what is looked at, in which order, until when."""

import functools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import numpy as np

from .._compat import enable_x64
from . import _conduct
from ._breakpoints import between
from ._evaluate import CHUNK, Evaluator, Outcome
from ._inference import infer
from ._options import Options
from ._probes import probes
from ._problem import Probe, Problem, Typing
from ._report import Cause, Finding
from ._resized import resized
from ._subjects import vjp_problem
from ._suspects import Explained, Look, explain, look
from ._typings import WIDE, as_drawn, typings_of

__all__ = ["WIDE", "Search", "Seen"]

EXAMPLE = "the example"

_EXPLAINED = 24  # suspects of which the reason is sought: conventions at kinks come in numbers
_SECOND_ORDER = 3  # probes
_CLOSE = 1e-12
_NOTHING = 1e-30


@dataclass
class Seen:
    """What a search has seen so far.

    Attributes:
        findings: mistakes that name themselves.
        looks: every comparison with the truth.
        mistakes: comparisons that show a mistake, with the cause where that is already clear.
        notes: for the report: conventions, assumptions, differences that are no mistakes.
        undecided: what could not be judged.
        unexplained: differences whose reason was not sought any more.
    """

    findings: list[Finding] = field(default_factory=list)
    looks: list[Look] = field(default_factory=list)
    mistakes: list[tuple[Look, Cause | None, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    undecided: list[str] = field(default_factory=list)
    unexplained: int = 0

    @property
    def over(self) -> bool:
        """Whether something is wrong."""
        return bool(self.findings or self.mistakes)


class Search:
    """One search.

    Args:
        problem: reference, candidate and example.
        options: what to look at.
        chunk: inputs that are evaluated together.
    """

    def __init__(self, problem: Problem, options: Options, chunk: int = CHUNK) -> None:
        self.options = options
        self.typings = typings_of(problem, options.dtypes)
        self.given = self.typings[0]
        self.problem = problem = as_drawn(problem, self.given)
        self.evaluator = Evaluator(problem, options.seed, chunk)
        self.assumptions = infer(problem, options.domain)
        self.seen = Seen()
        self.started = time.monotonic()
        with enable_x64():
            self.out = jax.eval_shape(problem.reference, *problem.typed(problem.example, WIDE))

    def run(self) -> Seen:
        """Everything, until something is wrong or the time is up."""
        stages: list[tuple[str, Callable[[], None]]] = [
            ("first call", self._conduct),
            ("repeated calls", self._purity),
            ("inputs", self._probes),
            ("without jit", self._eager),
            ("thresholds", self._between),
            ("vmap", self._vmap),
            ("other sizes", self._resized),
        ]
        if self.options.order > 1:
            stages.append(("second order", self._second_order))
        with np.errstate(all="ignore"):
            for name, stage in stages:
                if self.seen.over:
                    break
                if self.late:
                    self.seen.undecided.append(f"{name}: not looked at, the budget was used up")
                    continue
                self.options.tell(name)
                stage()
        return self.seen

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.monotonic() - self.started

    @property
    def late(self) -> bool:
        """Whether the budget is used up."""
        return self.seconds > self.options.budget

    def examine(self, given: Sequence[Probe], typings: Sequence[Typing] | None = None) -> list[Look]:
        """Compare the candidate with the truth at some probes."""
        given = [self.evaluator.rounded(probe, self.given) for probe in given]
        given = [probe for probe in given if _usable(self.problem, probe)]
        if not given:
            return []
        looks = []
        truths = self.evaluator.truth(given)
        for typing in typings or self.typings:
            autos = self._autodiff(given, typing, truths)
            mine = self.evaluator.candidate(given, typing)
            for probe, truth, auto, outcome in zip(given, truths, autos, mine, strict=False):
                seen = look(self.problem, probe, typing, truth, auto, outcome, self.options.rtol)
                looks += [] if seen is None else [seen]
        return looks

    def agrees_with_autodiff(self, given: Sequence[Probe]) -> bool:
        """Whether the candidate and autodiff are so close in float64 that no bound is needed to tell."""
        given = [self.evaluator.rounded(probe, self.given) for probe in given]
        both = (self.evaluator.candidate(given, WIDE), self.evaluator.autodiff(given, WIDE))
        for mine, auto in zip(*both, strict=True):
            for m, a in zip(mine.cotangents, auto.cotangents, strict=True):
                if not (np.abs(m - a) <= _CLOSE * np.abs(a).max(initial=0.0)).all():
                    return False
        return True

    def _autodiff(self, given: Sequence[Probe], typing: Typing, truths: Sequence[Any]) -> list[Outcome]:
        if typing == WIDE:
            return [truth.exact for truth in truths]
        return self.evaluator.autodiff(given, typing)

    def _conduct(self) -> None:
        self.seen.findings += _conduct.first_call(self.problem, self.given)

    @functools.cached_property
    def inputs(self) -> list[Probe]:
        """Where to look, in the example's shapes."""
        options = self.options
        return probes(self.problem, self.assumptions, self.out, options.seed, options.samples)

    def _purity(self) -> None:
        others = [probe for probe in self.inputs if probe.inside and probe.label != EXAMPLE][:2]
        self.seen.findings += _conduct.purity(self.evaluator, self.given, others)

    def _eager(self) -> None:
        if self.given in self.evaluator.untraceable:
            return
        for probe in [x.probe for x in self.right() if x.probe.label != EXAMPLE][:2]:
            outcome = self.evaluator.eager(probe, self.given)
            self._same_as_jitted(probe, outcome, Cause.JIT_DIFFERS, "without jit")

    def _probes(self) -> None:
        self._settle(self.examine(self.inputs + self._points()))
        for typing, error in self.evaluator.untraceable.items():
            told = next(iter(str(error).splitlines()), "")
            text = f"{typing}: cannot be traced by jit, called directly ({type(error).__name__}: {told})"
            self.seen.notes.append(text)

    def _points(self) -> list[Probe]:
        rng = np.random.default_rng(self.options.seed)
        made = []
        for label, args in (self.options.points or {}).items():
            values = jax.tree.leaves(args)
            arrays = [
                x
                for x, like in zip(values, jax.tree.leaves(self.problem.args), strict=True)
                if hasattr(like, "dtype") or isinstance(like, float | complex)
            ]
            made.append(Probe(f"{label}, as given", tuple(map(np.asarray, arrays)), _random(self, rng)))
        return made

    def _between(self) -> None:
        base = [look.probe for look in self.right(ordinary=True)]
        if len(base) < 2:
            return
        found = between(self.problem, base, self.options.seed, assumptions=self.assumptions)
        self._settle(self.examine(found))

    def _resized(self) -> None:
        """Sizes beside the example's: one of length one, and large arrays, which hit a narrow band.

        What is wrong there everywhere may have been written for one size: that is no mistake.
        """
        own = self._size(self.problem)
        others = resized(self.problem, self.assumptions, self.options.seed)
        single = [other for other in others if 0 < self._size(other.problem) < own]
        large = [other for other in others if self._size(other.problem) > own]
        for label, problem, at in [*single[:1], *large[:1]]:
            if self.late or self.seen.over:
                return
            self._other_size(label, Search(problem, replace(self.options, samples=1), len(at)), at)

    @staticmethod
    def _size(problem: Problem) -> int:
        """Elements of all that is differentiated; none if some of it is empty."""
        sizes = [np.size(problem.leaves[i].value) for i in problem.wrt]
        return sum(sizes) if all(sizes) else 0

    def _other_size(self, label: str, inner: "Search", at: Sequence[Probe]) -> None:
        if inner.agrees_with_autodiff(at):
            return
        looks = inner.examine(at, [WIDE])
        if looks and all(look.suspicious for look in looks if look.probe.ordinary):
            self._remember(self.seen.undecided, f"{label}: differs everywhere; is it written for one size?")
            return
        inner._settle(looks)
        self.seen.looks += inner.seen.looks
        self.seen.mistakes += inner.seen.mistakes
        if inner.seen.mistakes:
            self.problem, self.evaluator = inner.problem, inner.evaluator

    def _vmap(self) -> None:
        base = [look.probe for look in self.right(ordinary=True)][:3]
        if len(base) < 2 or self.given in self.evaluator.untraceable:
            return
        wrt = set(self.problem.wrt)
        first = self.problem.wrt[:1]
        everything = frozenset(range(len(self.problem.leaves)))
        for shared in {frozenset(), everything - set(first) if len(wrt) > 1 else frozenset()}:
            batch = [self._sharing(base[0], probe, shared) for probe in base]
            try:
                outcomes = self.evaluator.vmapped(batch, self.given, shared)
            except NotImplementedError as error:
                self.seen.notes.append(f"vmap: not supported ({error})")
                return
            except Exception as error:
                told = next(iter(str(error).splitlines()), "")
                message = f"It raises under vmap ({type(error).__name__}: {told}). {Cause.VMAP.advice}"
                self.seen.findings.append(Finding("result", Cause.VMAP, message, situation="jax.vmap"))
                return
            for probe, outcome in zip(batch, outcomes, strict=True):
                self._same_as_jitted(probe, outcome, Cause.VMAP, "under vmap")

    def _sharing(self, first: Probe, probe: Probe, shared: frozenset[int]) -> Probe:
        pairs = enumerate(zip(first.values, probe.values, strict=True))
        return replace(probe, values=tuple(a if i in shared else b for i, (a, b) in pairs))

    def _same_as_jitted(self, probe: Probe, outcome: Outcome, cause: Cause, how: str) -> None:
        """A mistake, if the outcome is wrong where the same computed under jit, one by one, is right."""
        truth = self.evaluator.truth([probe])
        auto = self._autodiff([probe], self.given, truth)[0]
        seen = look(self.problem, probe, self.given, truth[0], auto, outcome, self.options.rtol)
        if seen is None or not seen.suspicious:
            return
        alone = self.examine([probe], [self.given])
        if alone and not alone[0].suspicious:
            self.seen.mistakes.append((seen, cause, how))

    def _second_order(self) -> None:
        base = [look.probe for look in self.right(ordinary=True)][:_SECOND_ORDER]
        if not base or self.given in self.evaluator.untraceable:
            self.seen.undecided.append("second order: there is no smooth input to look at")
            return
        problem = self.problem
        count = len(problem.leaves)

        def of(*values: Any) -> Any:
            return problem.pull(values[:count], values[count])[1]

        def mine(*values: Any) -> Any:
            return problem.candidate(values[:count], values[count])[1]

        rng = np.random.default_rng(self.options.seed)
        with enable_x64(self.given.x64):
            example = problem.typed(problem.example, self.given)
            out = jax.eval_shape(problem.reference, *example)
            cotangent = jax.tree.map(lambda o: np.ones(o.shape, o.dtype), out)
        at = problem.wrt if problem.kind == "gradient" else (*problem.wrt, count)
        second = vjp_problem(mine, of, (*example, cotangent), at)
        inner = Search(replace(second, subject=problem.subject), self.options, _SECOND_ORDER)
        made = []
        for probe in base:
            values = (*probe.values, *jax.tree.leaves(probe.cotangent))
            made.append(Probe("second order", values, _random(inner, rng)))
        try:
            inner._settle(inner.examine(made))
        except Exception as error:
            told = next(iter(str(error).splitlines()), "")
            message = f"Its derivative raises {type(error).__name__}: {told}. {Cause.SECOND_ORDER.advice}"
            self.seen.findings.append(Finding("result", Cause.SECOND_ORDER, message))
            return
        self.seen.looks += inner.seen.looks
        if inner.seen.mistakes:
            self.problem, self.evaluator = inner.problem, inner.evaluator
        self.seen.mistakes += [(seen, Cause.SECOND_ORDER, how) for seen, _, how in inner.seen.mistakes]

    def right(self, ordinary: bool = False) -> list[Look]:
        """Comparisons inside of what is assumed, in the example's dtypes, that showed nothing."""
        return [
            look
            for look in self.seen.looks
            if look.typing == self.given
            and not look.suspicious
            and look.probe.inside
            and (look.probe.ordinary or not ordinary)
        ]

    def _settle(self, looks: list[Look]) -> None:
        """Sort out suspects: mistakes, conventions, rounding."""
        self.seen.looks += looks
        suspects = [look for look in looks if look.suspicious]
        suspects.sort(key=lambda look: (not look.probe.inside, not look.probe.ordinary, look.typing != WIDE))
        explained = 0
        for suspect in suspects:
            if explained >= _EXPLAINED:
                break
            if self.late and explained:
                self.seen.unexplained += 1
                continue
            if any(known is not Cause.KINK for _, known, _ in self.seen.mistakes):
                break
            explained += 1
            self._sort_out(suspect, explain(self.evaluator, suspect, self.options.seed), looks)
        # What is wrong beside a kink, too, is not about the kink.
        self.seen.mistakes.sort(key=lambda mistake: mistake[1] is Cause.KINK)

    def _sort_out(self, suspect: Look, why: Explained, looks: Sequence[Look]) -> None:
        note = f"{suspect.probe.label}, {suspect.typing}: {why.text}"
        if why.kind in ("mistake", "kink") and not suspect.probe.inside:
            self._remember(self.seen.notes, f"{suspect.probe.label}: differs there; domain= decides")
        elif why.kind == "mistake" and _subnormal(suspect):
            self._remember(self.seen.undecided, f"{suspect.probe.label}: differs at numbers below 1e-30")
        elif why.kind == "mistake" and self._only_wide(suspect, looks):
            self._remember(self.seen.notes, f"in float64 it keeps only the digits of {self.given}: a cast")
        elif why.kind == "mistake":
            self.seen.mistakes.append((suspect, None, why.text))
        elif why.kind == "kink":
            self.seen.mistakes.append((suspect, Cause.KINK, why.text))
        elif why.kind == "undecided":
            self._remember(self.seen.undecided, note)
        elif why.kind in ("convention", "undefined"):
            self._remember(self.seen.notes, note)

    def _only_wide(self, suspect: Look, looks: Sequence[Look]) -> bool:
        """Whether only the digits are missing that the example's dtypes do not have."""
        if suspect.typing == self.given or suspect.typing != WIDE:
            return False
        same = [look for look in looks if look.probe is suspect.probe and look.typing == self.given]
        if not same or same[0].suspicious:
            return False
        parts = zip(suspect.mine.cotangents, suspect.truth.cotangents, same[0].bound, strict=True)
        return all((np.abs(m - t) <= bound).all() for m, t, bound in parts)

    @staticmethod
    def _remember(notes: list[str], text: str) -> None:
        if text not in notes:
            notes.append(text)


def _subnormal(suspect: Look) -> bool:
    """Whether it takes numbers next to nothing to show a difference: an iteration need not converge there."""
    smallest = [np.abs(x[x != 0]).min(initial=1.0) for x in suspect.probe.values if x.dtype.kind in "fc"]
    finite = all(np.isfinite(m).all() for m in suspect.mine.cotangents)
    return finite and not suspect.probe.ordinary and min(smallest, default=1.0) < _NOTHING


def _usable(problem: Problem, probe: Probe) -> bool:
    return all(
        np.isfinite(x).all() or not np.isfinite(leaf.value).all()
        for leaf, x in zip(problem.leaves, probe.values, strict=True)
        if leaf.differentiable
    )


def _random(search: Search, rng: np.random.Generator) -> Any:
    one = search.problem.kind == "gradient"
    return jax.tree.map(lambda o: np.ones(()) if one else rng.standard_normal(o.shape), search.out)
