"""Adding up what single comparisons of a rule found, into one report."""

from collections import Counter
from dataclasses import replace
from typing import Any

import jax
import numpy as np
from jax import numpy as jnp
from jax.typing import DTypeLike

from .._rule import Rule
from ._cases import Cases, Variant
from ._compare import Comparison
from ._report import Checked, Finding, Report

__all__ = ["BASE", "Collector"]

BASE = "one by one"


class Collector:
    """Findings, what is undecided, and counts."""

    def __init__(self, rule: Rule, seed: int) -> None:
        self.rule, self.seed = rule, seed
        self.findings: list[Finding] = []
        self.undecided: Counter[str] = Counter()
        self.by_leaf: Counter[str] = Counter()
        self.examples = 0
        self.worst = 0.0
        self.settings: set[str] = set()
        self.dtypes: set[str] = set()

    def add_findings(self, findings: tuple[Finding, ...]) -> None:
        """Findings that belong to no example."""
        self.findings += [replace(f, seed=self.seed) for f in findings]

    def add(
        self, variant: Variant, made: Cases, dtype: DTypeLike, what: str, found: Comparison, rows: np.ndarray
    ) -> None:
        """A comparison of stacked examples; `rows` are their indices among the cases."""
        for finding, index in zip(found.findings, found.indices, strict=True):
            at: dict[str, Any] = {}
            kind = what
            if index and index[0] < len(rows):
                row = int(rows[index[0]])
                kind = f"{what}, {made.kinds[row]} inputs"
                at = {a.name: x[row] for a, x in zip(variant.present, made.args, strict=True)}
                at["cotangent"] = jax.tree.map(lambda c, r=row: c[r], made.cotangent)
                where = finding.where.split("[")[0]
                rest = f"[{', '.join(map(str, index[1:]))}]" if index[1:] else ""
                finding = replace(finding, where=where + rest)
            situation = ", ".join(filter(None, [jnp.dtype(dtype).name, kind, str(variant)]))
            self.findings.append(replace(finding, at=at, seed=self.seed, situation=situation))
        if what == BASE:  # the rest would say it again
            place = ", ".join(filter(None, [jnp.dtype(dtype).name, str(variant)]))
            self.undecided.update(f"{text} ({place})" for text in found.undecided)
        self.by_leaf.update(found.decided)
        self.worst = max(self.worst, found.worst)

    def count(self, variant: Variant, made: Cases, dtype: DTypeLike) -> None:
        """A set of examples that was gone through."""
        self.examples += len(made.kinds)
        self.settings.add(str(variant))
        self.dtypes.add(jnp.dtype(dtype).name)

    def report(self, dtypes: tuple[DTypeLike, ...]) -> Report:
        """All of it."""
        checked = Checked(
            elements=sum(self.by_leaf.values()),
            by_leaf=dict(self.by_leaf),
            examples=self.examples,
            points=len(self.rule.points),
            settings=len(self.settings),
            dtypes=tuple(jnp.dtype(d).name for d in dtypes if jnp.dtype(d).name in self.dtypes),
            worst=self.worst,
        )
        return Report(f"rule `{self.rule.name}`", tuple(self.findings), tuple(self.undecided), checked)
