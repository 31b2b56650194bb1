"""The LaTeX of every golden derivation goes through a parser of LaTeX, and leaves no command behind."""

import re
from collections.abc import Iterator
from xml.etree import ElementTree

import pytest
from latex2mathml.converter import convert

from .goldens import FOLDER

BEGIN, END = "\\begin{aligned}\n", "\n\\end{aligned}"
ROWS = re.compile(r" \\\\(?:\[1ex\])?\n")
CELLS = re.compile(r" ?(?<!\\)&+ ?")
REASON = re.compile(r"\\text\{(.*)\}")


def formulas(latex: str) -> Iterator[str]:
    """The cells of an `aligned` environment; of a reason what stands between dollars.

    The parser knows neither the environment nor formulas inside of text.
    """
    assert latex.startswith(BEGIN)
    assert latex.endswith(END)
    for row in ROWS.split(latex.removeprefix(BEGIN).removesuffix(END)):
        for cell in filter(None, CELLS.split(row)):
            reason = REASON.fullmatch(cell)
            if reason is None:
                yield cell
                continue
            prose, *between = reason[1].split("$")
            assert len(between) % 2 == 0, cell
            yield from between[::2]
            assert not re.search(r"[\\^{}#%&]|(?<!\\)_", "".join([prose, *between[1::2]]).replace("\\_", ""))


def mathml(formula: str) -> str:
    # The parser closes what is open; what is left of an alignment is no XML.
    assert formula.count("{") == formula.count("}"), formula
    words = "".join(ElementTree.fromstring(convert(formula)).itertext())
    assert "\\" not in words, formula
    assert "$" not in words, formula
    return words


@pytest.mark.parametrize("wrong", [r"\derivative x", r"\frac{1}{2", "x & y", "$x$"])
def test_what_is_no_formula_is_seen(wrong: str) -> None:
    with pytest.raises((AssertionError, ElementTree.ParseError)):
        mathml(wrong)


@pytest.mark.parametrize("name", sorted(path.stem for path in FOLDER.glob("*.txt")))
def test_golden_latex_is_parsed(name: str) -> None:
    latex = (FOLDER / f"{name}.txt").read_text(encoding="utf-8").rpartition("-" * 80)[2].strip()
    found = [mathml(formula) for formula in formulas(latex)]
    assert any(words.startswith("∂") and "=" in words for words in found)
