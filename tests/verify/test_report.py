"""Comparisons and reports: where, why, what to change; NaN never passes, nor does a check of nothing."""

import numpy as np
import pytest

from funcbp import rules
from funcbp.verify import Cause, Checked, Finding, Report, assert_rule, check_rule, compare

TRUTH = {"x_ct": np.array([[1.0, 2.0], [3.0, 4.0]]), "b_ct": np.array([5.0, 6.0])}
BOUND = {name: 1e-6 * np.abs(x) for name, x in TRUTH.items()}


def with_x(x: object) -> dict[str, object]:
    return {**TRUTH, "x_ct": x}


def test_equal_trees_pass_and_are_counted():
    found = compare(TRUTH, TRUTH, BOUND)
    assert found.findings == ()
    assert found.decided == {"x_ct": 4, "b_ct": 2}


def test_the_worst_element_is_named():
    x = TRUTH["x_ct"].copy()
    x[0, 1], x[1, 0] = 2.001, 3.1
    (finding,) = compare(with_x(x), TRUTH, BOUND).findings
    assert finding.where == "x_ct[1, 0]"
    assert (finding.expected, finding.actual) == (3.0, 3.1)
    assert finding.cause is Cause.VALUE
    assert "2 of 4 elements" in finding.message


@pytest.mark.parametrize(
    ("factor", "text"),
    [(-1, "flip the sign"), (2, "twice"), (0.5, "half"), (0, "dropped"), (1.25, "1.25 times")],
)
def test_a_constant_factor_is_told(factor: float, text: str):
    (finding,) = compare(with_x(factor * TRUTH["x_ct"]), TRUTH, BOUND).findings
    assert text in finding.message


@pytest.mark.parametrize(
    ("actual", "cause"),
    [
        (np.array([[1.0, np.nan], [3.0, 4.0]]), Cause.NONFINITE),
        (np.array([[1.0, np.inf], [3.0, 4.0]]), Cause.NONFINITE),
        (TRUTH["x_ct"].ravel(), Cause.SHAPE),
        (TRUTH["x_ct"].astype(np.float32), Cause.DTYPE),
        (None, Cause.STRUCTURE),
    ],
)
def test_causes(actual: object, cause: Cause):
    (finding,) = compare(with_x(actual), TRUTH, BOUND, dtype="float64").findings
    assert finding.cause is cause


def test_another_tree_is_a_finding():
    (finding,) = compare({"x_ct": TRUTH["x_ct"]}, TRUTH, BOUND).findings
    assert finding.cause is Cause.STRUCTURE


def test_an_array_where_none_is_right_is_a_finding():
    (finding,) = compare({"i_ct": np.zeros(2)}, {"i_ct": None}, {"i_ct": None}).findings
    assert finding.cause is Cause.STRUCTURE
    assert "no derivative" in finding.message


def test_nan_in_the_truth_is_undecided_not_equal():
    truth = with_x(np.array([[1.0, np.nan], [3.0, 4.0]]))
    found = compare(truth, truth, BOUND)
    assert found.findings == ()
    assert found.decided["x_ct"] == 3
    assert "x_ct: 1 element where the truth itself is NaN or infinite" in found.undecided[0]


def test_an_infinity_of_the_same_sign_is_right_and_of_the_other_undecided():
    truth = {"x_ct": np.array([np.inf, -np.inf])}
    found = compare({"x_ct": np.array([np.inf, np.inf])}, truth, {"x_ct": np.zeros(2)})
    assert found.decided == {"x_ct": 1}
    assert len(found.undecided) == 1


def test_a_bound_above_every_value_is_undecided():
    found = compare({"x_ct": np.array([1.0])}, {"x_ct": np.array([2.0])}, {"x_ct": np.array([50.0])})
    assert found.findings == ()
    assert found.decided == {"x_ct": 0}
    assert Report("f", checked=Checked(by_leaf=found.decided)).verdict == "undecidable"


def test_a_check_of_nothing_is_not_a_pass():
    report = Report("f")
    assert report.verdict == "undecidable"
    with pytest.raises(AssertionError, match="f: undecidable"):
        report.raise_if_failed()


def test_the_text_of_a_report():
    finding = Finding(
        "w_ct[0, 1]",
        Cause.VALUE,
        "Flip the sign.",
        1.0,
        -1.0,
        1e-6,
        {"x": np.ones(2)},
        7,
        "float32, random inputs",
    )
    report = Report(
        "rule `dense`", (finding,), ("b_ct: unknown",), Checked(10, {"w_ct": 10}, 2, 0, 1, ("float32",))
    )
    assert str(report).splitlines() == [
        "rule `dense`: wrong",
        "  checked 10 elements of 1 result in 2 examples, 1 setting, float32; "
        "largest error 0 % of the allowed",
        "",
        "  w_ct[0, 1]: value. Flip the sign.",
        "    expected 1, got -1, allowed error 1e-06",
        "    in float32, random inputs",
        "    at x = [1., 1.]",
        "    seed 7",
        "",
        "  not decided:",
        "    b_ct: unknown",
    ]
    with pytest.raises(AssertionError, match="Flip the sign"):
        report.raise_if_failed()


def test_a_report_of_a_rule_says_what_was_looked_at():
    report = check_rule(rules.tanh, examples=4, dtypes=("float32",))
    assert report.ok
    assert report.checked.dtypes == ("float32",)
    assert report.checked.points == 3
    assert 0 < report.checked.worst < 1
    assert str(report).startswith("rule `tanh`: right\n  checked ")
    assert_rule(rules.tanh, examples=4, dtypes=("float32",))


def test_every_cause_is_documented():
    for cause in Cause:
        assert cause.advice.endswith(".")
    assert len({cause.advice for cause in Cause}) == len({cause.value for cause in Cause}) == len(Cause)


def test_one_of_something_is_singular():
    text = str(Checked(1, {"x_ct": 1}, 1, 1, 1, ("float32",)))
    assert "1 element of 1 result in 1 example, 1 named point, 1 setting, float32" in text
