"""A chain of steps: the one that is wrong, found by giving every step the reference's δ.

Comparing the gradients of a whole network leaf by leaf blames every layer below the mistake, because δ is
wrong from there on. Here each step is asked alone, at the activation and the δ that the reference has there.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Unpack

import jax
import numpy as np

from .._rule import Rule
from ._check import check_vjp
from ._options import CheckOptions, options_of
from ._report import Checked, Finding, OnUndecidable, Report
from ._subjects import Pair, pair_of

__all__ = ["assert_chain", "check_chain"]

Step = Rule | Pair | Callable[..., Any]


def check_chain(
    steps: Sequence[Step],
    *,
    of: Sequence[Callable[..., Any]] | None = None,
    args: tuple[Any, ...],
    **options: Unpack[CheckOptions],
) -> Report:
    """Which of the steps of a chain has a wrong backward pass; each is checked as by `check_vjp`.

    Args:
        steps: one after the other. Each is a `Rule`, a pair `(fwd, bwd)` or a function with a custom VJP, of
            `(params, x)`, or of `x` alone where its entry in `params` is None.
        of: their references, in the same order; None: what `fwd` computes, differentiated by `jax.vjp` (a
            mistake in `fwd` itself then goes unseen).
        args: `(params, x)`, with one entry of `params` for each step, or `(x,)` if no step has any.
        **options: as for `check_gradient`; `budget` is for all steps together.

    Returns:
        A Report whose findings say which step they are about.

    Raises:
        ValueError: if the lengths of `steps`, `of` and `params` differ.
        TypeError: if `args` is neither `(params, x)` nor `(x,)`.

    >>> import jax.numpy as jnp, numpy as np
    >>> right = (lambda x: (jnp.sin(x), x), lambda x, ct: (ct * jnp.cos(x),))
    >>> wrong = (lambda x: (jnp.tanh(x), jnp.tanh(x)), lambda q, ct: (ct * (1 - q),))
    >>> report = check_chain([right, wrong, right], args=(np.linspace(-1, 1, 6),))
    >>> [finding.where.partition(":")[0] for finding in report.findings]
    ['steps[1]']
    """
    settings = options_of(**options)
    references = [_own(step) for step in steps] if of is None else list(of)
    params, x = _parts(args, len(steps))
    _same_length("of", references, steps)
    inputs = _activations(references, params, x)
    reports = []
    for i, (step, reference, given) in enumerate(zip(steps, references, inputs, strict=True)):
        settings.tell(f"step {i + 1} of {len(steps)}")
        share = {**options, "budget": settings.budget / len(steps)}
        reports.append(check_vjp(step, of=reference, args=given, **share))  # ty: ignore[invalid-argument-type]
    return _joined(reports)


def assert_chain(steps: Sequence[Step], *, on_undecidable: OnUndecidable = "warn", **options: Any) -> None:
    """Raise `AssertionError` with the report of `check_chain(steps, **options)` if a step is wrong.

    Args:
        steps: as for `check_chain`.
        on_undecidable: whether to `"warn"` or `"raise"` where nothing could be decided.
        **options: as for `check_chain`.
    """
    check_chain(steps, **options).raise_if_failed(on_undecidable)


def _own(step: Step) -> Callable[..., Any]:
    if isinstance(step, Rule):
        return step.reference
    pair = pair_of(step)
    if pair is None:
        raise ValueError(
            "of must be given: the steps that are no (fwd, bwd) pairs have no forward pass of their own."
        )
    fwd = pair[0]
    return lambda *args: fwd(*args)[0]


def _parts(args: tuple[Any, ...], count: int) -> tuple[list[Any], Any]:
    if len(args) == 1:
        return [None] * count, args[0]
    if len(args) != 2:
        raise TypeError(f"args must be (params, x) or (x,), not {len(args)} entries.")
    params = args[0]
    if isinstance(params, dict):
        params = list(params.values())
    _same_length("params", params, range(count))
    return list(params), args[1]


def _same_length(name: str, given: Sequence[Any], steps: Sequence[Any]) -> None:
    if len(given) != len(steps):
        raise ValueError(f"{name} must have one entry for each of the {len(steps)} steps, not {len(given)}.")


def _activations(
    references: Sequence[Callable[..., Any]], params: Sequence[Any], x: Any
) -> list[tuple[Any, ...]]:
    """The arguments of every step, with the activation that the reference has there."""
    given = []
    for reference, p in zip(references, params, strict=True):
        args = (x,) if p is None else (p, x)
        given.append(args)
        x = jax.tree.map(np.asarray, reference(*args))
    return given


def _joined(reports: Sequence[Report]) -> Report:
    findings: list[Finding] = []
    undecided, notes = [], []
    by_leaf = {}
    for i, report in enumerate(reports):
        place = f"steps[{i}]"
        findings += [replace(f, where=f"{place}: {f.where}") for f in report.findings]
        undecided += [f"{place}: {text}" for text in report.undecided]
        notes += [f"{place}: {text}" for text in report.notes]
        by_leaf |= {f"{place}: {name}": count for name, count in report.checked.by_leaf.items()}
    every = [report.checked for report in reports]
    checked = Checked(
        elements=sum(c.elements for c in every),
        by_leaf=by_leaf,
        examples=sum(c.examples for c in every),
        dtypes=tuple(dict.fromkeys(name for c in every for name in c.dtypes)),
        worst=max((c.worst for c in every), default=0.0),
        oracles=tuple(dict.fromkeys(name for c in every for name in c.oracles)),
        seconds=sum(c.seconds or 0.0 for c in every),
    )
    return Report(
        f"chain of {len(reports)} steps",
        tuple(findings),
        tuple(undecided),
        checked,
        tuple(notes),
        sum(report.unexplained for report in reports),
    )
