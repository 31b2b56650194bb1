"""`funcbp rules`: the catalogue as a table, a family of it, or one rule whole."""

import difflib
import importlib.resources
import inspect
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.table import Table

from .._rule import Rule, catalogue
from .errors import UsageError
from .printing import show

__all__ = ["Rules", "rules"]

_COLUMNS = ("rule", "family", "formula", "at kinks and edges", "saves", "float32 ulp", "saved bytes", "time")


@dataclass(frozen=True)
class Rules:
    """The catalogue of hand-derived backward passes: all of it, one family, or one rule whole.

    Attributes:
        name: A rule or a family; none for the whole catalogue.
    """

    name: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="NAME")] = None


def rules(config: Rules) -> int:
    """Print what was asked for.

    Raises:
        UsageError: if there is neither a rule nor a family of that name.
    """
    every = catalogue()
    if config.name is not None and config.name in every:
        show(_whole(every[config.name]))
        return 0
    families = sorted({rule.family for rule in every.values()})
    chosen = [rule for rule in every.values() if config.name in (None, rule.family)]
    if not chosen:
        close = difflib.get_close_matches(str(config.name), [*every, *families], n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        raise UsageError(
            f"There is no rule or family {config.name!r}; {hint}Families are {', '.join(families)}; "
            f"rules are {', '.join(every)}."
        )
    rows = measured()
    _table([_row(rule, rows.get(rule.name)) for rule in chosen])
    show(
        f"\n{len(chosen)} rules. float32 ulp: error of the cotangents, 99th percentile, and autodiff's in "
        "parentheses; saved bytes and time: relative to jax.vjp of the reference. funcbp rules NAME shows a "
        "rule whole.",
        aside=True,
    )
    return 0


def measured() -> dict[str, dict[str, Any]]:
    """What scripts/measure_rules.py found, by rule; empty if it has not been run."""
    table = importlib.resources.files("funcbp.rules") / "measured.json"
    return json.loads(table.read_text(encoding="utf-8"))["rules"] if table.is_file() else {}


def _row(rule: Rule, found: dict[str, Any] | None) -> tuple[str, ...]:
    points, saves = "; ".join(rule.points) or "-", rule.saves or "nothing"
    return rule.name, rule.family, rule.formula, points, saves, *_measures(found)


def _measures(found: dict[str, Any] | None) -> tuple[str, str, str]:
    if found is None or "error" in found:
        return "-", "-", "-"
    ours, autodiff = found["ulps"]["float32"]
    saved, theirs = found["saved_bytes"]
    less = f"{saved / theirs:.2g}x" if theirs else "0" if saved == 0 else f"{saved} B"
    return f"{ours:.1f} ({autodiff:.1f})", less, f"{found['time_ratio']:.2f}x"


def _table(rows: Sequence[tuple[str, ...]]) -> None:
    console = Console(file=sys.stdout, highlight=False, markup=False)
    if not console.is_terminal:
        widths = [max(map(len, column)) for column in zip(_COLUMNS, *rows, strict=True)]
        for row in (_COLUMNS, *rows):
            cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            show("  ".join(cells).rstrip())
        return
    table = Table(*_COLUMNS, show_lines=True)
    table.columns[0].no_wrap = True
    table.columns[0].style = "bold"
    for row in rows:
        table.add_row(*row)
    console.print(table)


def _source(rule: Rule) -> str:
    """File and line where the rule is assigned: the functions of a table's line are written elsewhere."""
    path = str(sys.modules[rule.fwd.__module__].__file__)
    with open(path, encoding="utf-8") as file:
        line = next((i for i, text in enumerate(file, 1) if text.startswith(f"{rule.name} = ")), 1)
    return f"{path}:{line}"


def _whole(rule: Rule) -> str:
    arguments = ", ".join(
        f"{a.name}: {' '.join(a.axes)}{' (optional)' if a.optional else ''}" for a in rule.signature.arguments
    )
    options = "".join(f", {name}={value!r}" for name, value in rule.signature.statics.items())
    facts = [
        ("family", rule.family),
        ("formula", rule.formula),
        ("saves", rule.saves or "nothing"),
        ("domain", ", ".join(f"{name}: {domain}" for name, domain in rule.domain.items())),
        ("source", _source(rule)),
    ]
    lines = [f"{rule.name}({arguments}{options})", ""]
    if "ulps" in (found := measured().get(rule.name, {})):
        ulps = ", ".join(
            f"{dtype} {ours:.3g} ({theirs:.3g})" for dtype, (ours, theirs) in found["ulps"].items()
        )
        pairs = {k: found[k] for k in ("saved_bytes", "temp_bytes", "flops")}
        counts = ", ".join(f"{k.replace('_', ' ')} {a} ({b})" for k, (a, b) in pairs.items())
        facts += [
            ("error", f"{ulps} ulp (autodiff's)"),
            ("cost", f"{counts}, time {found['time_ratio']:.2f}"),
        ]
    lines += [f"{name:<8} {text}" for name, text in facts if text]
    for label, point in rule.points.items():
        at = ", ".join(f"{name} = {value}" for name, value in point.at.items())
        expected = "".join(f", there {name}_ct = {value}" for name, value in point.expected.items())
        why = f" ({point.why})" if point.why else ""
        lines.append(f"{'point':<8} {label}: {at}{expected}{why}")
    if rule.__doc__:
        lines += ["", inspect.cleandoc(rule.__doc__)]
    return "\n".join(lines)
