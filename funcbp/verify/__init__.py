"""Is a backward pass right? Oracles, error bounds, checks and reports."""

from ._accuracy import Accuracy as Accuracy
from ._accuracy import accuracy as accuracy
from ._bounds import FACTOR as FACTOR
from ._bounds import HALF_FACTOR as HALF_FACTOR
from ._bounds import allowance as allowance
from ._check import assert_gradient as assert_gradient
from ._check import assert_jacobian as assert_jacobian
from ._check import assert_vjp as assert_vjp
from ._check import check_gradient as check_gradient
from ._check import check_jacobian as check_jacobian
from ._check import check_vjp as check_vjp
from ._compare import Comparison as Comparison
from ._compare import compare as compare
from ._montecarlo import monte_carlo as monte_carlo
from ._oracles import Oracle as Oracle
from ._oracles import finite_differences as finite_differences
from ._oracles import oracle as oracle
from ._oracles import vjp_oracle as vjp_oracle
from ._planting import Mistake as Mistake
from ._planting import Sensitivity as Sensitivity
from ._planting import plant as plant
from ._planting import sensitivity as sensitivity
from ._report import Cause as Cause
from ._report import Checked as Checked
from ._report import Finding as Finding
from ._report import Report as Report
from ._rule_checks import assert_rule as assert_rule
from ._rule_checks import check_rule as check_rule
from ._steps import assert_chain as assert_chain
from ._steps import check_chain as check_chain

__all__ = [
    "FACTOR",
    "HALF_FACTOR",
    "Accuracy",
    "Cause",
    "Checked",
    "Comparison",
    "Finding",
    "Mistake",
    "Oracle",
    "Report",
    "Sensitivity",
    "accuracy",
    "allowance",
    "assert_chain",
    "assert_gradient",
    "assert_jacobian",
    "assert_rule",
    "assert_vjp",
    "check_chain",
    "check_gradient",
    "check_jacobian",
    "check_rule",
    "check_vjp",
    "compare",
    "finite_differences",
    "monte_carlo",
    "oracle",
    "plant",
    "sensitivity",
    "vjp_oracle",
]
