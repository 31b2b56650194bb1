"""Reports on a terminal, in a pipe and as JSON."""

import dataclasses
import enum
import json
import math
import os
import sys
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

from ..verify import Report
from .errors import UsageError

__all__ = ["jsonable", "progress", "show", "show_report", "write_json", "write_text"]

_COLORS = {"right": "bold green", "wrong": "bold red", "undecidable": "bold yellow"}


def show(text: Text | str, *, aside: bool = False) -> None:
    """Print a text: with its styles on a terminal, and as it is, unwrapped, elsewhere.

    Args:
        text: what to print.
        aside: to stderr, because stdout belongs to something else.
    """
    stream = sys.stderr if aside else sys.stdout
    console = Console(file=stream, highlight=False, markup=False, soft_wrap=True)
    console.print(text)


def show_report(report: Report, *, aside: bool = False) -> None:
    """Print a report: the words of `str(report)`, with colors on a terminal; `aside` to stderr."""
    text = Text(str(report))
    first = text.plain.partition("\n")[0]
    text.stylize(_COLORS[report.verdict], len(first) - len(report.verdict), len(first))
    for finding in report.findings:
        text.highlight_words([f"{finding.where}: {finding.cause.value}."], "bold red")
        text.highlight_words([finding.cause.advice], "bold")
    text.highlight_regex(r"(?m)^ {4}expected (?P<green>.+?), got (?P<red>.+?)(?=, allowed|$)")
    text.highlight_regex(r"(?m)^ {4}(in|at|seed) .*$", "dim")
    text.highlight_regex(r"(?m)^  (not decided|notes):$", "yellow")
    show(text, aside=aside)


@contextmanager
def progress(what: str) -> Generator[Callable[[str], None]]:
    """A line on stderr while something runs; gives a function that takes the name of the present stage."""
    console = Console(file=sys.stderr, highlight=False, markup=False)
    if not console.is_terminal:
        console.print(f"{what} ...", soft_wrap=True)
        yield _unseen
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda stage: bar.update(task, description=f"{what}: {stage}")


def _unseen(stage: str) -> None:
    del stage


def write_json(value: Any, where: str) -> None:
    """Write a value as strict JSON, to stdout for `"-"`, else to a file that is whole or not there."""
    write_text(json.dumps(jsonable(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n", where)


def write_text(text: str, where: str) -> None:
    """Write a text, to stdout for `"-"`, else to a file that is whole or not there.

    Raises:
        UsageError: if the file cannot be written.
    """
    if where == "-":
        sys.stdout.write(text)
        return
    path = Path(where)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        unfinished.write_text(text, encoding="utf-8")
        unfinished.replace(path)
    except OSError as error:
        raise UsageError(f"cannot write {where}: {error.strerror}.") from error
    finally:
        unfinished.unlink(missing_ok=True)


def jsonable(value: Any) -> Any:
    """A value in what JSON has: records as objects, arrays as lists, NaN and infinities as strings.

    >>> jsonable({"x": np.array([1.0, np.inf]), "z": 1 + 2j})
    {'x': [1.0, 'Infinity'], 'z': {'real': 1.0, 'imag': 2.0}}
    """
    if isinstance(value, Report):
        return {"verdict": value.verdict, "ok": value.ok, **_fields(value)}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _fields(value)
    if isinstance(value, enum.Enum):
        return {"name": value.name, "value": value.value}
    if isinstance(value, Mapping):
        return {str(key): jsonable(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(entry) for entry in value]
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        return _array(value)
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, complex):
        return {"real": _number(value.real), "imag": _number(value.imag)}
    return str(value)


def _fields(value: Any) -> dict[str, Any]:
    return {f.name: jsonable(getattr(value, f.name)) for f in dataclasses.fields(value)}


def _array(value: Any) -> Any:
    key = jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key)
    array = np.asarray(jax.random.key_data(value) if key else value)
    if array.dtype.kind in "biufc":
        return jsonable(array.tolist())
    # bfloat16 and its kin, which NumPy does not know as numbers.
    return jsonable(array.astype(np.float64).tolist())


def _number(value: float) -> float | str:
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
