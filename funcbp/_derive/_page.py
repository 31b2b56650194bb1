"""A derivation as a page of its own: HTML with the maths as MathML, which needs nothing else to be read."""

import html
from collections.abc import Sequence
from typing import Any

from latex2mathml.converter import convert

from ._steps import Line

__all__ = ["page"]

# Browsers set single letters in italics and names of operators with space on both sides, and know no bold
# digits and no colon as an operator: what has to look otherwise is text, and space is said.
_AS_BROWSERS_NEED_IT = (
    (r"\mathrm{d}", r"\text{d}"),
    (r"\mathbf{1}", r"\text{𝟏}"),
    (r"\operatorname{", r"\,\text{"),
    (" : ", r" \;:\; "),
)

_STYLE = """
:root { color-scheme: light dark; --soft: color-mix(in srgb, currentcolor 65%, transparent);
        --line: #8886; --wash: #8881; --box: #3b82f6; }
body { max-width: 85rem; margin: 2rem auto; padding: 0 1.5rem; font: 1rem/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; margin-bottom: 0.25rem; }
h2 { font-size: 1.1rem; margin: 2rem 0 0.5rem; }
math { font-size: 1.1rem; math-style: normal; }
.given, .notes, .rule { color: var(--soft); }
.wide { overflow-x: auto; }
table { border-spacing: 0; }
td { padding: 0.3rem 0; white-space: nowrap; vertical-align: baseline; }
td.left { text-align: right; padding-right: 0.5rem; }
td.rule { padding-left: 2.5rem; font-size: 0.875rem; white-space: normal; min-width: 12rem; }
td.rule:empty { padding: 0; min-width: 0; }
tbody + tbody > tr:first-child > td { padding-top: 1.1rem; }
.results { display: inline-block; border: 2px solid var(--box); border-radius: 0.4rem; padding: 0.5rem 1rem; }
pre { overflow-x: auto; padding: 1rem; border: 1px solid var(--line); border-radius: 0.4rem;
      background: var(--wash); font: 0.875rem/1.45 ui-monospace, monospace; }
""".strip()


def page(derivation: Any, title: str, report: str = "") -> str:
    """The derivation, the boxed gradients and the generated code as one HTML document.

    Args:
        derivation: a `Derivation`.
        title: of the page.
        report: what a check said; a section of its own if there is something.

    Returns:
        HTML that refers to nothing outside of itself.
    """
    lines = derivation._lines("latex")
    results = "\n".join(_row(line) for line in lines if line.boxed)
    notes = "<br>\n".join(map(html.escape, derivation._footer()))
    parts = [
        f"<h1>{html.escape(title)}</h1>",
        f'<p class="given">{html.escape(derivation._header())}</p>',
        "<h2>Derivation</h2>",
        f'<div class="wide"><table>\n{_groups(lines)}\n</table></div>',
        "<h2>Result</h2>",
        f'<div class="wide"><div class="results"><table>\n{results}\n</table></div></div>',
        *([f'<p class="notes">with {notes}</p>'] if notes else []),
        "<h2>Code</h2>",
        f"<pre><code>{html.escape(derivation.source().rstrip())}</code></pre>",
        *([f"<h2>Check</h2>\n<pre>{html.escape(report)}</pre>"] if report else []),
    ]
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{html.escape(title)}</title>
<style>
{_STYLE}
</style>
</head>
<body>
{chr(10).join(parts)}
</body>
</html>
"""


def _groups(lines: Sequence[Line]) -> str:
    """Rows in groups, which lines without a right-hand side separate."""
    groups: list[list[str]] = [[]]
    for line in lines:
        if not line.right:
            groups.append([])
        elif not line.boxed:
            groups[-1].append(_row(line))
    return "\n".join("<tbody>\n" + "\n".join(rows) + "\n</tbody>" for rows in groups if rows)


def _row(line: Line) -> str:
    left = mathml(line.left) if line.left else ""
    cells = (("left", left), ("right", mathml(f"= {line.right}")), ("rule", html.escape(line.reason)))
    return "<tr>" + "".join(f'<td class="{name}">{cell}</td>' for name, cell in cells) + "</tr>"


def mathml(latex: str) -> str:
    """One formula."""
    for written, needed in _AS_BROWSERS_NEED_IT:
        latex = latex.replace(written, needed)
    return convert(latex)
