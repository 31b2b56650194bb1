"""Every rule through everything that can be checked of it, in four dtypes and over many shapes, with counts.

Default settings and all others, every subset of optional arguments, all transformations, second order,
Jacobians, named points. A rule whose source has not changed since is skipped, so that a run that was stopped
goes on where it was; hours for all of them on two cores.

    python scripts/check_rules.py --jobs 2
    python scripts/check_rules.py --only losses gelu   # these families and rules, again
"""

import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console
from rich.table import Table

from funcbp import Rule
from funcbp.verify import check_rule
from scripts.rule_rows import Rows, collect

RESULTS = Path(__file__).parent / "results" / "rules.json"
WIDE, HALF = ("float64", "float32"), ("bfloat16", "float16")


@dataclass(frozen=True)
class Config:
    """Check the rules of the catalogue, all of it.

    Attributes:
        only: families and rules to check, even if nothing has changed; none for all that has.
        jobs: processes.
        out: the JSON, read first and written after every rule.
    """

    only: tuple[str, ...] = ()
    jobs: int = max((os.cpu_count() or 2) // 2, 1)
    out: Path = RESULTS


def checked(rule: Rule) -> dict[str, Any]:
    """Verdict and counts of one rule."""
    start = time.perf_counter()
    reports = [check_rule(rule, dtypes=WIDE, tier="long"), check_rule(rule, dtypes=HALF)]
    counts = [report.checked for report in reports]
    wrong = next((r for r in reports if r.verdict != "right"), None)
    return {
        "verdict": "right" if wrong is None else wrong.verdict,
        "report": "" if wrong is None else str(wrong),
        "elements": sum(c.elements for c in counts),
        "examples": sum(c.examples for c in counts),
        "settings": counts[0].settings,
        "points": counts[0].points,
        "dtypes": [d for c in counts for d in c.dtypes],
        "undecided": sum(len(r.undecided) for r in reports),
        "seconds": round(time.perf_counter() - start, 1),
    }


def table(rows: Rows) -> Table:
    made = Table(
        "rule", "verdict", "elements", "examples", "settings", "points", "seconds", title="Rules, all of it"
    )
    for name, row in rows.items():
        counts = (f"{row[k]:,}" for k in ("elements", "examples", "settings", "points"))
        made.add_row(name, row["verdict"], *counts, f"{row['seconds']:.0f}")
    sums = [f"{sum(r[k] for r in rows.values()):,}" for k in ("elements", "examples", "settings", "points")]
    right = sum(r["verdict"] == "right" for r in rows.values())
    made.add_row("all", f"{right} of {len(rows)} right", *sums, "")
    return made


def main(config: Config) -> None:
    # Most of the time is compilation of what runs once. The processes inherit it.
    os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")
    rows = collect(checked, config.only, config.jobs, config.out)
    console = Console(width=None if sys.stdout.isatty() else 120)
    failed = {name: row for name, row in rows.items() if row.get("verdict") != "right"}
    console.print(table({name: row for name, row in rows.items() if "verdict" in row}))
    for name, row in failed.items():
        console.print(f"{name}: {row.get('error') or row['report']}", markup=False)
    raise SystemExit(1 if failed else 0)


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
