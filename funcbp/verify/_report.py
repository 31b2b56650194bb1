"""What a check found: right, wrong, or undecidable; where, and what to change."""

import enum
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import jax
import numpy as np
from jax import numpy as jnp

__all__ = ["Cause", "Checked", "Finding", "OnUndecidable", "Report", "plural"]

Verdict = Literal["right", "wrong", "undecidable"]
OnUndecidable = Literal["warn", "raise"]


class Cause(enum.Enum):
    """What kind of mistake a finding is; the value is how a report names it, `advice` what to do about it."""

    SIGN = "sign"
    CONSTANT_FACTOR = "constant factor"
    TRANSPOSED = "transposed"
    PERMUTED = "axis permuted or reversed"
    OFF_BY_ONE = "off by one"
    SWAPPED = "swapped"
    ZERO = "zero or ignored"
    REDUCTION = "sum over an axis"
    BROADCAST = "broadcasting not undone"
    TERM_MISSING = "term missing"
    FACTOR_MISSING = "factor missing"
    WRONG_POINT = "derivative at the wrong point"
    STATISTICS = "statistics treated as constants"
    TRANSPOSE_FORGOTTEN = "transpose forgotten"
    OVERWRITTEN = "duplicates overwritten"
    COTANGENT_IGNORED = "cotangent ignored"
    NOT_LINEAR = "not linear"
    REGION = "wrong in a region"
    KINK = "wrong at a kink"
    NONFINITE = "non-finite"
    PRECISION = "precision lost"
    DTYPE = "dtype"
    SHAPE = "shape"
    STRUCTURE = "structure"
    VMAP = "vmap differs"
    JIT_DIFFERS = "jit differs"
    SECOND_ORDER = "second order"
    STALE = "stale or impure"
    NONDETERMINISTIC = "nondeterministic"
    PRIMAL_DIFFERS = "primal differs"
    RAISES = "raises"
    LAYOUT = "layout"
    VALUE = "value"
    CONVENTION = "convention"
    GRAD_DIFFERS = "grad differs"
    COMPOSED = "composed"
    FORWARD = "forward"
    JACOBIAN = "jacobian"
    REFERENCE = "reference"

    @property
    def advice(self) -> str:
        """A sentence that says what to change.

        >>> Cause.SIGN.advice
        'It is minus the truth: flip the sign.'
        """
        return _ADVICE[self]


_ADVICE = {
    Cause.SIGN: "It is minus the truth: flip the sign.",
    Cause.CONSTANT_FACTOR: "It is the truth times a constant: look for a 2, ½, n, 1/n or √d too many or few.",
    Cause.TRANSPOSED: "It is the transpose of the truth: transpose it.",
    Cause.PERMUTED: "It is the truth with its axes permuted, or reversed along one: put the axes in order.",
    Cause.OFF_BY_ONE: "It is the truth shifted by one along an axis: look at the first and last step.",
    Cause.SWAPPED: "Two results are exchanged: return them in the order of the arguments.",
    Cause.ZERO: "It is zero: a cotangent is dropped, or the argument ignored.",
    Cause.REDUCTION: "A sum over an axis is missing, is a mean, or runs over another axis.",
    Cause.BROADCAST: "Broadcasting is not undone: sum over the axes that the forward pass repeated.",
    Cause.TERM_MISSING: "A path from the argument to the output is missing: add its term.",
    Cause.FACTOR_MISSING: "A factor of the chain rule is missing: multiply by it.",
    Cause.WRONG_POINT: "A derivative is evaluated elsewhere, as σ′(q) for σ′(p): use the right argument.",
    Cause.STATISTICS: "Means, variances or maxima depend on the argument, too: differentiate through them.",
    Cause.TRANSPOSE_FORGOTTEN: "A matrix inside is not transposed, which shows unless it is symmetric.",
    Cause.OVERWRITTEN: "Where an index occurs twice, contributions overwrite each other: add them.",
    Cause.COTANGENT_IGNORED: "It does not depend on the output's cotangent: multiply by it.",
    Cause.NOT_LINEAR: "It is not linear in the output's cotangent: use the cotangent once, as a factor.",
    Cause.REGION: "It is wrong only in a region of the arguments: look at the branch for that region.",
    Cause.KINK: "At a kink or tie it is outside of the convex hull of the gradients around: split ties.",
    Cause.NONFINITE: "It is NaN or infinite where the truth is finite: take the limit, or guard it.",
    Cause.PRECISION: "Digits are lost that its dtype has: look for a cast, or for cancellation.",
    Cause.DTYPE: "Every cotangent has its argument's dtype: cast the result.",
    Cause.SHAPE: "Every cotangent has its argument's shape.",
    Cause.STRUCTURE: "The cotangents have the tree of the arguments, None just where no derivative is.",
    Cause.VMAP: "It is right alone and wrong under `jax.vmap`: look for a fixed shape or axis.",
    Cause.JIT_DIFFERS: "It differs between `jax.jit` and without: look for Python state.",
    Cause.SECOND_ORDER: "Its own derivative is wrong: look for `stop_gradient` and for constants.",
    Cause.STALE: "A call depends on an earlier one, or changes its inputs: make the function pure.",
    Cause.NONDETERMINISTIC: "Two equal calls differ: take the key or the state as an argument.",
    Cause.PRIMAL_DIFFERS: "The function itself is not the reference: correct the forward pass first.",
    Cause.RAISES: "It raised where the reference did not.",
    Cause.LAYOUT: "It is the Jacobian in another layout: convert it, or say so with `layout=`.",
    Cause.VALUE: "It is further from the truth than rounding explains: compare it term by term.",
    Cause.CONVENTION: "At a named point it is not what the convention states.",
    Cause.GRAD_DIFFERS: "`bwd` is right, but the derivative of the callable through JAX is not.",
    Cause.COMPOSED: "It is right alone and wrong between two other functions.",
    Cause.FORWARD: "The forward-mode derivative of `primal` is wrong.",
    Cause.JACOBIAN: "A Jacobian through the callable or through `primal` is wrong.",
    Cause.REFERENCE: "The reference's derivative is not that of its values: central differences disagree.",
}


@dataclass(frozen=True)
class Finding:
    """One mistake.

    Attributes:
        where: which result, as a path with the index of the worst element: `"x_ct[2, 0]"`.
        cause: what kind of mistake.
        message: a sentence that tells what to change.
        expected: the true value, where there is one.
        actual: the value found.
        bound: the largest error that would have counted as rounding.
        at: the inputs that show it, by name.
        seed: the seed that draws these inputs again.
        situation: in which dtype, with which options, at which kind of input.
        line: of the reference's source that the mistake belongs to.
        alternatives: other causes that explain the same numbers.
    """

    where: str
    cause: Cause
    message: str
    expected: Any = None
    actual: Any = None
    bound: float | None = None
    at: Mapping[str, Any] = field(default_factory=dict)
    seed: int | None = None
    situation: str = ""
    line: str | None = None
    alternatives: tuple[Cause, ...] = ()

    def __str__(self) -> str:
        lines = [f"{self.where}: {self.cause.value}. {self.message}"]
        if self.expected is not None or self.actual is not None:
            allowed = "" if self.bound is None else f", allowed error {self.bound:.2g}"
            lines.append(f"  expected {_number(self.expected)}, got {_number(self.actual)}{allowed}")
        if self.line:
            lines.append(f"  from {self.line}")
        if self.alternatives:
            lines.append(f"  or else: {', '.join(cause.value for cause in self.alternatives)}")
        if self.situation:
            lines.append(f"  in {self.situation}")
        for name, value in self.at.items():
            lines.append(f"  at {name} = {_short(value)}")
        if self.seed is not None:
            lines.append(f"  seed {self.seed}")
        return "\n".join(lines)


@dataclass(frozen=True)
class Checked:
    """What was looked at, so that a pass can be told from a check of nothing.

    Attributes:
        elements: numbers compared with a true value within a bound.
        by_leaf: the same for every result by name; undecided ones are not counted.
        examples: sets of inputs.
        points: named points.
        settings: combinations of static options and present arguments.
        dtypes: names of the dtypes.
        worst: largest error as a fraction of what was allowed.
        decisions: of how many branch decisions of the reference both outcomes were seen, and of how many.
        oracles: where the truth came from.
        seconds: how long it took.
    """

    elements: int = 0
    by_leaf: Mapping[str, int] = field(default_factory=dict)
    examples: int = 0
    points: int = 0
    settings: int = 0
    dtypes: tuple[str, ...] = ()
    worst: float = 0.0
    decisions: tuple[int, int] = (0, 0)
    oracles: tuple[str, ...] = ()
    seconds: float | None = None

    def __str__(self) -> str:
        looked = [
            f"{plural(self.elements, 'element')} of {plural(len(self.by_leaf), 'result')}",
            f"in {plural(self.examples, 'example')}",
        ]
        points = [plural(self.points, "named point")] if self.points else []
        settings = [plural(self.settings, "setting")] if self.settings else []
        rest = [*points, *settings, ", ".join(self.dtypes) or "no dtype"]
        took = "" if self.seconds is None else f"; {self.seconds:.1f} s"
        against = f"; against {' and '.join(self.oracles)}" if self.oracles else ""
        both, branches = self.decisions
        sides = f"; {both} of {plural(branches, 'decision')} seen both ways" if branches else ""
        return (
            f"{' '.join(looked)}, {', '.join(rest)}; "
            f"largest error {100 * self.worst:.0f} % of the allowed{sides}{against}{took}"
        )


@dataclass(frozen=True)
class Report:
    """The result of a check.

    Attributes:
        subject: what was checked.
        findings: the mistakes, none if it is right.
        undecided: what could not be judged, and why, in words.
        checked: what was looked at.
        notes: what else is worth knowing: conventions taken, assumptions made, accuracy.
        unexplained: differences from the truth that may be mistakes, or kinks or rounding.

    >>> report = Report("f", checked=Checked(elements=2, by_leaf={"x_ct": 2}))
    >>> report.verdict, report.ok
    ('right', True)
    """

    subject: str
    findings: tuple[Finding, ...] = ()
    undecided: tuple[str, ...] = ()
    checked: Checked = Checked()
    notes: tuple[str, ...] = ()
    unexplained: int = 0

    @property
    def verdict(self) -> Verdict:
        """`"wrong"` with a finding; `"undecidable"` if some result had no element that could be judged, or a
        difference is left unexplained."""
        if self.findings:
            return "wrong"
        checked = self.checked
        nothing = not checked.by_leaf and checked.examples > 0  # every result is an empty array
        decided = (checked.elements > 0 or nothing) and all(checked.by_leaf.values()) and not self.unexplained
        return "right" if decided else "undecidable"

    @property
    def ok(self) -> bool:
        """False only where the verdict is `"wrong"`."""
        return self.verdict != "wrong"

    def __str__(self) -> str:
        lines = [f"{self.subject}: {self.verdict}", f"  checked {self.checked}"]
        for finding in self.findings:
            lines += ["", *(f"  {line}" for line in str(finding).splitlines())]
        if self.undecided:
            lines += ["", "  not decided:", *(f"    {text}" for text in self.undecided)]
        if self.unexplained:
            text = f"{plural(self.unexplained, 'difference')} from the truth, not looked into; raise budget="
            lines += ["", f"  {text}"]
        if self.notes:
            lines += ["", "  notes:", *(f"    {text}" for text in self.notes)]
        return "\n".join(lines)

    def raise_if_failed(self, on_undecidable: OnUndecidable = "raise") -> None:
        """Raise `AssertionError` with the whole report if the verdict is `"wrong"`.

        Args:
            on_undecidable: what to do where nothing could be decided: raise, too, or warn.

        Raises:
            AssertionError: as said.
            ValueError: if `on_undecidable` is neither `"warn"` nor `"raise"`.
        """
        if on_undecidable not in get_args(OnUndecidable):
            raise ValueError(f"on_undecidable must be 'warn' or 'raise', not {on_undecidable!r}.")
        if self.verdict == "wrong" or (self.verdict == "undecidable" and on_undecidable == "raise"):
            raise AssertionError(str(self))
        if self.verdict == "undecidable":
            warnings.warn(str(self), stacklevel=3)


def plural(count: int, noun: str) -> str:
    """A count with its noun.

    >>> plural(1, "element"), plural(0, "element")
    ('1 element', '0 elements')
    """
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _number(x: Any) -> str:
    return f"{x:.17g}" if isinstance(x, float) else str(x)


def _short(x: Any) -> str:
    if x is None or (hasattr(x, "dtype") and jnp.issubdtype(x.dtype, jax.dtypes.prng_key)):
        return str(x)
    if isinstance(x, tuple | list) and any(np.ndim(part) for part in x):
        return ", ".join(map(_short, x))  # of several outputs, whose shapes may differ
    with np.printoptions(threshold=24, precision=9, linewidth=100):
        return " ".join(np.array2string(np.asarray(x), separator=", ").split())
