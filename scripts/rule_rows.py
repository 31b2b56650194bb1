"""Tables with a row for every rule, made in several processes: written after every row, and gone on with."""

import functools
import hashlib
import inspect
import json
import multiprocessing
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

import funcbp
from funcbp import Rule
from scripts.bench_measure import describe_machine, write_json

__all__ = ["Rows", "collect", "fingerprint", "read"]

Rows = dict[str, dict[str, Any]]


def read(path: Path) -> Rows:
    """The rows of a table, by rule; none if there is no table yet."""
    return json.loads(path.read_text(encoding="utf-8"))["rules"] if path.exists() else {}


def collect(row_of: Callable[[Rule], dict[str, Any]], only: tuple[str, ...], jobs: int, out: Path) -> Rows:
    """The table at `out`, with rows for what is named in `only`, or else for all whose source has changed.

    Args:
        row_of: of a rule; importable, because it is called in other processes. A row of `{"error": ...}`
            stands for what it raises: one rule that cannot be run does not stop the others.
        only: families and rules.
        jobs: processes.
        out: the JSON, written atomically after every row.
    """
    every = funcbp.catalogue()
    rows = {name: row for name, row in read(out).items() if name in every}
    wanted = _select(only, rows)
    # A fresh process for every few: JAX is not safe to fork, and what it has compiled piles up. (Not a
    # ProcessPoolExecutor: with max_tasks_per_child it can hang, python/cpython#115634.)
    context = multiprocessing.get_context("spawn")
    with (
        context.Pool(jobs, maxtasksperchild=16) as pool,
        Progress(console=Console(stderr=True)) as progress,
    ):
        task = progress.add_task("", total=len(wanted))
        for name, row in pool.imap_unordered(functools.partial(_row, row_of), wanted):
            rows[name] = row
            progress.update(task, advance=1, description=name)
            write_json(out, describe_machine() | {"rules": rows}, sort_keys=True)
    return {name: rows[name] for name in every if name in rows}


def _row(row_of: Callable[[Rule], dict[str, Any]], name: str) -> tuple[str, dict[str, Any]]:
    rule = funcbp.catalogue()[name]
    about = {"family": rule.family, "source": fingerprint(rule)}
    try:
        return name, about | row_of(rule)
    except Exception:
        return name, about | {"error": traceback.format_exc()}


def _select(only: tuple[str, ...], rows: Rows) -> list[str]:
    every = funcbp.catalogue()
    if unknown := set(only) - set(every) - {r.family for r in every.values()}:
        raise SystemExit(f"There is neither a rule nor a family {min(unknown)!r}; see `funcbp rules`.")
    if only:
        return [n for n, r in every.items() if {n, r.family} & set(only)]
    return [n for n, r in every.items() if rows.get(n, {}).get("source") != fingerprint(r)]


def fingerprint(rule: Rule) -> str:
    """Of the files a rule is written in: its own, and that of the table, if it is a line of one."""
    files = {str(sys.modules[rule.fwd.__module__].__file__), inspect.getfile(inspect.unwrap(rule.fwd))}
    return _fingerprint(tuple(sorted(files)))


@functools.cache
def _fingerprint(paths: tuple[str, ...]) -> str:
    return hashlib.sha256(b"".join(Path(path).read_bytes() for path in paths)).hexdigest()[:16]
