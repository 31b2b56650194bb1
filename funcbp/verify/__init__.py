"""Is a backward pass right? Oracles, error bounds, checks and reports."""

from ._accuracy import Accuracy as Accuracy
from ._accuracy import accuracy as accuracy
from ._bounds import FACTOR as FACTOR
from ._bounds import HALF_FACTOR as HALF_FACTOR
from ._bounds import allowance as allowance
from ._compare import Comparison as Comparison
from ._compare import compare as compare
from ._montecarlo import monte_carlo as monte_carlo
from ._oracles import Oracle as Oracle
from ._oracles import finite_differences as finite_differences
from ._oracles import oracle as oracle
from ._oracles import vjp_oracle as vjp_oracle
from ._report import Cause as Cause
from ._report import Checked as Checked
from ._report import Finding as Finding
from ._report import Report as Report
from ._rule_checks import assert_rule as assert_rule
from ._rule_checks import check_rule as check_rule

__all__ = [
    "FACTOR",
    "HALF_FACTOR",
    "Accuracy",
    "Cause",
    "Checked",
    "Comparison",
    "Finding",
    "Oracle",
    "Report",
    "accuracy",
    "allowance",
    "assert_rule",
    "check_rule",
    "compare",
    "finite_differences",
    "monte_carlo",
    "oracle",
    "vjp_oracle",
]
