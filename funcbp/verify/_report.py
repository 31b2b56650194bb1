"""What a check found: right, wrong, or undecidable; where, and what to change."""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

__all__ = ["Cause", "Checked", "Finding", "Report", "plural"]

Verdict = Literal["right", "wrong", "undecidable"]


class Cause(enum.Enum):
    """What kind of mistake a finding is.

    Attributes:
        STRUCTURE: the tree of cotangents is not that of the arguments, or None is not exactly where no
        derivative is. SHAPE: a cotangent does not have its argument's shape.
        DTYPE: a cotangent does not have its argument's dtype.
        RAISES: the function under test raised where the reference did not.
        VALUE: an element is further from the truth than rounding explains.
        NONFINITE: NaN or infinity where the truth is finite.
        PRIMAL_DIFFERS: the function itself is not the reference.
        NOT_LINEAR: a cotangent is not linear in the output's cotangent.
        CONVENTION: at a named point the result is not what the convention states.
        JIT_DIFFERS: right under `jax.jit`, wrong without.
        VMAP_DIFFERS: right one example at a time, wrong under `jax.vmap`.
        GRAD_DIFFERS: `bwd` is right, but the derivative of the callable through JAX is not.
        COMPOSED: right alone, wrong between two other functions.
        FORWARD: the forward-mode derivative of `primal` is wrong.
        SECOND_ORDER: the derivative of the backward pass is wrong.
        JACOBIAN: a Jacobian through the callable or through `primal` is wrong.
        REFERENCE: the reference's derivative is not that of its values (finite differences disagree).
    """

    STRUCTURE = "structure"
    SHAPE = "shape"
    DTYPE = "dtype"
    RAISES = "raises"
    VALUE = "value"
    NONFINITE = "non-finite"
    PRIMAL_DIFFERS = "primal differs"
    NOT_LINEAR = "not linear"
    CONVENTION = "convention"
    JIT_DIFFERS = "jit differs"
    VMAP_DIFFERS = "vmap differs"
    GRAD_DIFFERS = "grad differs"
    COMPOSED = "composed"
    FORWARD = "forward"
    SECOND_ORDER = "second order"
    JACOBIAN = "jacobian"
    REFERENCE = "reference"


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

    def __str__(self) -> str:
        lines = [f"{self.where}: {self.cause.value}. {self.message}"]
        if self.expected is not None or self.actual is not None:
            allowed = "" if self.bound is None else f", allowed error {self.bound:.2g}"
            lines.append(f"  expected {_number(self.expected)}, got {_number(self.actual)}{allowed}")
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
    """

    elements: int = 0
    by_leaf: Mapping[str, int] = field(default_factory=dict)
    examples: int = 0
    points: int = 0
    settings: int = 0
    dtypes: tuple[str, ...] = ()
    worst: float = 0.0

    def __str__(self) -> str:
        return (
            f"{plural(self.elements, 'element')} of {plural(len(self.by_leaf), 'result')} in "
            f"{plural(self.examples, 'example')}, {plural(self.points, 'named point')}, "
            f"{plural(self.settings, 'setting')}, {', '.join(self.dtypes) or 'no dtype'}; "
            f"largest error {100 * self.worst:.0f} % of the allowed"
        )


@dataclass(frozen=True)
class Report:
    """The result of a check.

    Attributes:
        subject: what was checked.
        findings: the mistakes, none if it is right.
        undecided: what could not be judged, and why, in words.
        checked: what was looked at.

    >>> report = Report("f", checked=Checked(elements=2, by_leaf={"x_ct": 2}))
    >>> report.verdict, report.ok
    ('right', True)
    """

    subject: str
    findings: tuple[Finding, ...] = ()
    undecided: tuple[str, ...] = ()
    checked: Checked = Checked()

    @property
    def verdict(self) -> Verdict:
        """`"wrong"` with a finding; `"undecidable"` if some result had no element that could be judged."""
        if self.findings:
            return "wrong"
        decided = self.checked.elements > 0 and all(self.checked.by_leaf.values())
        return "right" if decided else "undecidable"

    @property
    def ok(self) -> bool:
        """Whether the verdict is `"right"`."""
        return self.verdict == "right"

    def __str__(self) -> str:
        lines = [f"{self.subject}: {self.verdict}", f"  checked {self.checked}"]
        for finding in self.findings:
            lines += ["", *(f"  {line}" for line in str(finding).splitlines())]
        if self.undecided:
            lines += ["", "  not decided:", *(f"    {text}" for text in self.undecided)]
        return "\n".join(lines)

    def raise_if_failed(self) -> None:
        """Raise `AssertionError` with the whole report unless the verdict is `"right"`."""
        if not self.ok:
            raise AssertionError(str(self))


def plural(count: int, noun: str) -> str:
    """A count with its noun.

    >>> plural(1, "element"), plural(0, "element")
    ('1 element', '0 elements')
    """
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _number(x: Any) -> str:
    return f"{x:.17g}" if isinstance(x, float) else str(x)


def _short(x: Any) -> str:
    if x is None:
        return "None"
    with np.printoptions(threshold=24, precision=9, linewidth=100):
        return " ".join(np.array2string(np.asarray(x), separator=", ").split())
