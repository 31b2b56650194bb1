"""Formulas of rules as LaTeX: all of them are understood, and what comes out parses."""

import re

import pytest
from latex2mathml.converter import convert

from scripts.family_pages import families, page
from scripts.measure_rules import RESULTS
from scripts.rule_rows import read
from scripts.typeset import UnknownSymbol, latex


@pytest.mark.parametrize(
    ("formula", "expected"),
    [
        ("W̄ = Σ xᵀ δ", r"\bar{W} = \sum x^{T} \delta"),
        ("x̂ = r (x - μ)", r"\hat{x} = r (x - \mu )"),
        ("ȳ, ŷ", r"\bar{y},\ \hat{y}"),
        ("1 / (1 + e⁻ᵖ)", "1 / (1 + e^{-p})"),
        ("e^(p - max p)", r"e^{p - \operatorname{max} p}"),
        ("√(2/π) x", r"\sqrt{2/\pi } x"),
        ("σ′(p₂)", r"\sigma ^{\prime }(p_{2})"),
        ("yᵀ Σ⁻¹ y", r"y^{T} \Sigma ^{-1} y"),
        ("s_k   e_(t-1)", r"s_{k} \qquad e_{t-1}"),
        ("yᵀAx dW", "y^{T}Ax dW"),
        ("0 where the mask is", r"0 \text{ where the mask is}"),
        ("q = p   (a term with y = 0 is 0)", r"q = p \qquad \text{(a term with y = 0 is 0)}"),
    ],
)
def test_a_formula(formula: str, expected: str):
    found = latex(formula)
    assert re.sub(r" +", " ", found).strip() == expected
    convert(found)


def test_an_unknown_symbol_is_named():
    with pytest.raises(UnknownSymbol, match=r"'☃' \(U\+2603, SNOWMAN\)"):
        latex("p + ☃")


@pytest.mark.parametrize("family", families())
def test_every_formula_of_a_page_parses(family: str):
    text = page(family, families()[family], read(RESULTS))
    blocks = re.findall(r"```math\n(.*?)\n```", text, re.DOTALL)
    assert len(blocks) == text.count("```math") >= len(families()[family])
    for block in blocks:
        rows = block.removeprefix("\\begin{aligned}\n").removesuffix("\n\\end{aligned}").split(" \\\\\n")
        for row in rows:
            assert row.count("{") - row.count(r"\{") == row.count("}") - row.count(r"\}"), row
            convert(row.removeprefix("& "))


@pytest.mark.parametrize("family", families())
def test_a_page_shows_every_rule(family: str):
    text = page(family, families()[family], read(RESULTS))
    for rule in families()[family]:
        assert f"\n## {rule.name}\n" in text
        for label in rule.points:
            assert f"**{label}**" in text
