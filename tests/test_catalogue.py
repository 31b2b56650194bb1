"""Every rule of the catalogue, against float64 autodiff of its reference and all that goes with it."""

import jax
import numpy as np
import pytest
from jax import numpy as jnp

from funcbp import Rule, catalogue
from funcbp.verify import accuracy, assert_rule, check_rule
from scripts import check_rules
from scripts.rule_rows import read

RULES = [pytest.param(rule, id=name) for name, rule in catalogue().items()]
HALF = ("bfloat16", "float16")


@pytest.mark.parametrize("rule", RULES)
def test_value_and_cotangents_are_right(rule: Rule):
    report = check_rule(rule, tier="quick", examples=24)
    report.raise_if_failed()
    assert set(report.checked.dtypes) == {"float64", "float32"}
    assert report.checked.elements > 200
    assert report.checked.points == len(rule.points)
    named = {f"{a.name}_ct" for a in rule.signature.arguments if a.differentiable}
    assert {leaf.partition("[")[0].partition(".")[0] for leaf in report.checked.by_leaf} == named | {"out"}


@pytest.mark.long
@pytest.mark.parametrize("rule", RULES)
def test_all_of_it_over_many_shapes(rule: Rule):
    row = check_rules.checked(rule)
    assert row["verdict"] == "right", row["report"]
    assert row["dtypes"] == ["float64", "float32", *HALF]


@pytest.mark.long
@pytest.mark.parametrize("dtype", ["float32", *HALF])
@pytest.mark.parametrize("rule", RULES)
def test_is_as_accurate_as_autodiff(rule: Rule, dtype: str):
    measured = accuracy(rule, dtype)
    assert measured.ours <= max(2, 1.5 * measured.autodiff)
    assert measured.elements >= 256


@pytest.mark.long
@pytest.mark.parametrize("rule", RULES)
def test_no_false_alarm_over_many_seeds(rule: Rule):
    for seed in range(1, 50):
        assert_rule(rule, seed=seed, tier="quick")


def test_every_rule_has_gone_through_all_of_it_and_was_right():
    rows = read(check_rules.RESULTS)
    assert rows.keys() == catalogue().keys()
    assert not [row.get("error") or row["report"] for row in rows.values() if row.get("verdict") != "right"]


def test_dense_jacobian_is_a_kronecker_product(x64: None):
    """∂vec(xW)/∂vec(W): X ⊗ I when vec stacks rows (`jnp.ravel`), I ⊗ X when it stacks columns."""
    rng = np.random.default_rng(0)
    x, w = jnp.asarray(rng.standard_normal((4, 3))), jnp.asarray(rng.standard_normal((3, 2)))
    dense = catalogue()["dense"]
    jacobian = jax.jacrev(dense, argnums=1)(x, w)
    np.testing.assert_array_equal(jacobian, np.einsum("ac,bd->abcd", x, np.eye(2)))
    np.testing.assert_array_equal(jacobian.reshape(8, 6), np.kron(x, np.eye(2)))
    by_columns = jacobian.transpose(1, 0, 3, 2).reshape(8, 6)
    np.testing.assert_array_equal(by_columns, np.kron(np.eye(2), x))
    np.testing.assert_array_equal(jax.jacfwd(dense.primal, argnums=1)(x, w), jacobian)
