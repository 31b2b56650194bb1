"""Lines of a derivation as text, LaTeX and Markdown."""

import unicodedata
from collections.abc import Sequence

from ._lines import Line

__all__ = ["latex", "markdown", "text"]

_RULES_COLUMN = 66


def _width(line: str) -> int:
    return sum(not unicodedata.combining(c) for c in line)


def text(lines: Sequence[Line], header: str, footer: Sequence[str]) -> str:
    """Aligned at the equals signs, rules in a column of their own, results in a box."""
    left = max((_width(line.left) for line in lines if _width(line.left) <= 24 and not line.boxed), default=0)
    plain = [line for line in lines if not line.boxed]
    out = [header, ""]
    for line in plain:
        if not line.right:
            out.append("")
            continue
        equation = " " * (left - _width(line.left)) + line.left + " = " + line.right
        gap = " " * max(3, _RULES_COLUMN - _width(equation))
        out.append(equation + (f"{gap}{line.reason}" if line.reason else ""))
    while out and not out[-1]:
        out.pop()
    boxed = [f"{line.left} = {line.right}" for line in lines if line.boxed]
    width = max(map(_width, boxed), default=0)
    out += ["", "┌" + "─" * (width + 2) + "┐"]
    out += [f"│ {line}{' ' * (width - _width(line))} │" for line in boxed]
    out.append("└" + "─" * (width + 2) + "┘")
    if footer:
        out += ["", *(f"with {note}" if k == 0 else f"     {note}" for k, note in enumerate(footer))]
    return "\n".join(out)


def latex(lines: Sequence[Line]) -> str:
    """An `aligned` environment, results in boxes."""
    rows = []
    gap = ""
    for line in lines:
        if not line.right:
            gap = "[1ex]"
            continue
        if gap and rows:
            rows[-1] += rf" \\{gap}"
            gap = ""
        elif rows:
            rows[-1] += r" \\"
        if line.boxed:
            rows.append(rf"& \boxed{{{line.left} = {line.right}}}")
            continue
        reason = rf" && \text{{{_escaped(line.reason)}}}" if line.reason else ""
        rows.append(f"{line.left} &= {line.right}{reason}")
    return "\\begin{aligned}\n" + "\n".join(rows) + "\n\\end{aligned}"


_MATHS_IN_TEXT = {
    "⊙": r"$\odot$",
    "−": "$-$",
    "⟨": r"$\langle$",
    "⟩": r"$\rangle$",
    "Σ": r"$\Sigma$",
    "Φ": r"$\Phi$",
    "‖": r"$\Vert$",
    "²": "$^2$",
    "⁻¹": "$^{-1}$",
    "⁻ᵀ": r"$^{-\top}$",
    "ᵀ": r"$^{\top}$",
    "ᶻ": "$^z$",
    "↔": r"$\leftrightarrow$",
    "δ": r"$\delta$",
    "σ": r"$\sigma$",
}


def _escaped(reason: str) -> str:
    """Prose for `\\text`; what is between dollars is a formula already."""
    prose, *between = reason.split("$")
    parts = [_escaped_prose(prose)]
    for formula, more in zip(between[::2], between[1::2], strict=True):
        parts += [f"${formula}$", _escaped_prose(more)]
    return "".join(parts)


def _escaped_prose(prose: str) -> str:
    prose = prose.replace("_", r"\_")
    for symbol, code in _MATHS_IN_TEXT.items():
        prose = prose.replace(symbol, code)
    return prose


def markdown(lines: Sequence[Line], header: str, footer: Sequence[str]) -> str:
    """Prose around the LaTeX."""
    notes = [f"\nWith {'; '.join(footer)}."] if footer else []
    return "\n".join([f"{header}.", "", "$$", latex(lines), "$$", *notes])
