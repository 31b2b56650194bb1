"""One page for every family of rules: formulas and derivations typeset, conventions, accuracy and cost."""

import importlib
import inspect
import re
from collections.abc import Iterator
from typing import Any

import funcbp
from funcbp import Rule
from scripts.rule_rows import Rows
from scripts.typeset import latex

__all__ = ["families", "overview", "page"]

_LABELED = re.compile(r"^((?:Forward|Backward)[^:]*:)\s{2,}(\S.*)$")
_MARKUP = re.compile(r"([\\*_<>\[\]#$])")


def families() -> dict[str, list[Rule]]:
    """The rules of every family, in the order of the catalogue."""
    found: dict[str, list[Rule]] = {}
    for rule in funcbp.catalogue().values():
        found.setdefault(rule.family, []).append(rule)
    return found


def page(family: str, rules: list[Rule], measured: Rows) -> str:
    """Markdown, with mathematics in ```math blocks."""
    about = inspect.cleandoc(importlib.import_module(f"funcbp.rules.{family}").__doc__ or "")
    parts = [f"# {family.replace('_', ' ').capitalize()}", about, _GENERATED, _overview(rules, measured)]
    shown: set[str] = set()
    for rule in rules:
        module = inspect.unwrap(rule.fwd).__module__
        # What a table of functions derives once stands at the head of its module.
        if "Derivation" not in (rule.__doc__ or "") and module not in shown:
            shown.add(module)
            parts.append(_typeset(importlib.import_module(module).__doc__ or ""))
        parts.append(_whole(rule))
    return "\n\n".join(parts) + "\n"


def overview() -> str:
    """Families and their rules, each with a link to its page."""
    lines = ["| family | rules |", "| --- | --- |"]
    for family, rules in families().items():
        names = ", ".join(f"`{rule.name}`" for rule in rules)
        title = family.replace("_", " ")
        lines.append(f"| [{title}](funcbp/rules/{family}/README.md) ({len(rules)}) | {names} |")
    return "\n".join(lines)


_GENERATED = (
    "Written by `scripts/make_docs.py` from the rules themselves; measured by `scripts/measure_rules.py`. "
    "ulp: error of the cotangents against float64, 99th percentile. Saved: bytes kept for the backward pass "
    "beside inputs and output. The second number is `jax.vjp` of the reference."
)


def _overview(rules: list[Rule], measured: Rows) -> str:
    headings = (
        "| rule | float32 ulp | bfloat16 ulp | float16 ulp | saved bytes | temporary bytes | FLOPs | time |"
    )
    lines = [headings, "| --- " * 8 + "|"]
    for rule in rules:
        row = measured.get(rule.name)
        cells = _cells(row) if row and "ulps" in row else ("-",) * 7
        lines.append(f"| [`{rule.name}`](#{rule.name}) | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    ulps = (_pair(row["ulps"].get(d)) for d in ("float32", "bfloat16", "float16"))
    counts = (_pair(row[k]) for k in ("saved_bytes", "temp_bytes", "flops"))
    return (*ulps, *counts, f"{row['time_ratio']:.2f}")


def _pair(pair: list[float] | None) -> str:
    return "-" if pair is None else " / ".join(f"{x:.3g}" if x < 1e3 else f"{x:,.0f}" for x in pair)


def _whole(rule: Rule) -> str:
    arguments = ", ".join(
        f"{a.name}: {' '.join(a.axes) or 'scalar'}" + (" | None" if a.optional else "")
        for a in rule.signature.arguments
    )
    options = "".join(f", {name}={value!r}" for name, value in rule.signature.statics.items())
    parts = [f"## {rule.name}", f"`{rule.name}({arguments}{options})`"]
    doc = rule.__doc__ or ""
    if "Derivation" not in doc:
        parts.append(_math([rule.formula]))
        doc = doc.removeprefix(rule.formula).removeprefix(", elementwise; p̄ = σ′ ⊙ q̄. ")
    parts.append(_typeset(doc))
    parts.append("\n".join(_points(rule)))
    return "\n\n".join(filter(None, parts))


def _points(rule: Rule) -> Iterator[str]:
    for label, point in rule.points.items():
        at = ", ".join(f"{name} = {_value(v)}" for name, v in point.at.items())
        there = ", ".join(f"{name}_ct = {_value(v)}" for name, v in point.expected.items())
        told = ", ".join(filter(None, (f"at `{at}`" if at else "", f"`{there}`" if there else "")))
        yield f"- **{label}**: {told}" + (f" ({_text(point.why)})" if point.why else "")


def _value(value: Any) -> str:
    if callable(value):
        return "a constructed array"
    return f"{value:g}" if isinstance(value, float | int) else str(value)


def _typeset(doc: str) -> str:
    """Paragraphs as text, indented blocks and what stands behind `Forward:` as mathematics."""
    parts = []
    for block in inspect.cleandoc(doc).split("\n\n"):
        lines = [line for line in block.split("\n") if line.strip()]
        if lines and all(line.startswith("    ") for line in lines):
            parts.append(_math([line.strip() for line in lines]))
        elif lines and all(_LABELED.match(line) or line.startswith("     ") for line in lines):
            parts += _labeled(lines)
        else:
            parts.append(_text("\n".join(line.strip() for line in lines)))
    return "\n\n".join(parts)


def _labeled(lines: list[str]) -> Iterator[str]:
    formulas: list[str] = []
    for line in lines:
        if found := _LABELED.match(line):
            if formulas:
                yield _math(formulas)
            yield _text(found[1])
            formulas = [found[2]]
        else:
            formulas.append(line.strip())
    yield _math(formulas)


def _math(formulas: list[str]) -> str:
    shown = [latex(f) for f in formulas]
    if len(shown) > 1:
        rows = " \\\\\n".join(f"& {f}" for f in shown)
        shown = [f"\\begin{{aligned}}\n{rows}\n\\end{{aligned}}"]
    return f"```math\n{shown[0]}\n```"


def _text(text: str) -> str:
    """Escaped for Markdown, but for what is in backticks."""
    pieces = text.split("`")
    return "`".join(p if i % 2 else _MARKUP.sub(r"\\\1", p) for i, p in enumerate(pieces))
