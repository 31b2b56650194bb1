"""Every rule through everything that can be checked of it, in four dtypes and over many shapes, with counts.

Default settings and all others, every subset of optional arguments, all transformations, second order,
Jacobians, named points. A rule whose source has not changed since is skipped, so that a run that was stopped
goes on where it was; hours for all of them on two cores.

    python scripts/check_rules.py --jobs 2
    python scripts/check_rules.py --only losses gelu   # these families and rules, again
"""

import json
import multiprocessing
import os
import sys
import time
import traceback
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

import funcbp
from funcbp import Rule
from funcbp.verify import check_rule
from scripts.bench_measure import describe_machine
from scripts.measure_rules import fingerprint, select, write

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
        "family": rule.family,
        "source": fingerprint(rule),
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


def _checked_by_name(name: str) -> tuple[str, dict[str, Any]]:
    rule = funcbp.catalogue()[name]
    try:
        return name, checked(rule)
    except Exception:  # one rule that cannot be run is a result, too: the others go on
        counts = dict.fromkeys(("elements", "examples", "settings", "points", "undecided", "seconds"), 0)
        row = {"family": rule.family, "source": fingerprint(rule), "verdict": "raises", "dtypes": []}
        return name, row | counts | {"report": traceback.format_exc()}


def table(rows: dict[str, dict[str, Any]]) -> Table:
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
    known = json.loads(config.out.read_text(encoding="utf-8"))["rules"] if config.out.exists() else {}
    wanted = select(config.only, known)
    rows = {n: row for n, row in known.items() if n in funcbp.catalogue()}
    # A fresh process each: JAX is not safe to fork, and what it has compiled would pile up.
    context = multiprocessing.get_context("spawn")
    with (
        ProcessPoolExecutor(config.jobs, mp_context=context, max_tasks_per_child=4) as pool,
        Progress(console=Console(stderr=True)) as progress,
    ):
        task = progress.add_task("checking", total=len(wanted))
        for done in as_completed(pool.submit(_checked_by_name, name) for name in wanted):
            name, rows[name] = done.result()
            progress.update(task, advance=1, description=f"{name}: {rows[name]['verdict']}")
            write(config.out, describe_machine() | {"rules": rows})
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(table({n: rows[n] for n in funcbp.catalogue() if n in rows}))
    wrong = {n: row for n, row in rows.items() if row["verdict"] != "right"}
    for row in wrong.values():
        console.print(row["report"])
    raise SystemExit(1 if wrong else 0)


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
