"""Every rule of the catalogue, against float64 autodiff of its reference and all that goes with it."""

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax import numpy as jnp

from funcbp import Rule, catalogue
from funcbp.verify import accuracy, assert_rule, check_rule

RULES = [pytest.param(rule, id=name) for name, rule in catalogue().items()]
SHAPES = ((), (3,), (2, 3), (0,), (1, 4))


@pytest.mark.parametrize("rule", RULES)
def test_values_cotangents_and_all_transformations_are_right(rule: Rule):
    report = check_rule(rule)
    report.raise_if_failed()
    assert set(report.checked.dtypes) == {"float64", "float32"}
    assert report.checked.elements > 1000
    assert report.checked.points == len(rule.points)
    assert report.checked.settings >= len(rule.settings)
    named = {f"{a.name}_ct" for a in rule.signature.arguments if a.differentiable}
    assert set(report.checked.by_leaf) == named | {"out"}


@pytest.mark.parametrize("rule", RULES)
def test_bfloat16_is_within_what_storing_16_bits_costs(rule: Rule):
    assert_rule(rule, dtypes=("bfloat16",))


@pytest.mark.parametrize("rule", RULES)
def test_float32_is_as_accurate_as_autodiff(rule: Rule):
    measured = accuracy(rule, "float32")
    assert measured.ours <= max(2, 1.5 * measured.autodiff)
    assert measured.elements >= 256


@pytest.mark.parametrize("rule", RULES)
def test_bfloat16_is_no_worse_than_autodiff_in_bfloat16(rule: Rule):
    measured = accuracy(rule, "bfloat16")
    assert measured.ours <= 1 + measured.autodiff


@pytest.mark.long
@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "float16"])
@pytest.mark.parametrize("rule", RULES)
def test_many_shapes_and_inputs(rule: Rule, dtype: str):
    assert_rule(rule, dtypes=(dtype,), tier="long", examples=512)


@pytest.mark.long
@pytest.mark.parametrize("rule", RULES)
def test_no_false_alarm_over_many_seeds(rule: Rule):
    for seed in range(1, 50):
        assert_rule(rule, seed=seed)


@given(
    name=st.sampled_from(sorted(catalogue())), shape=st.sampled_from(SHAPES), seed=st.integers(0, 2**32 - 1)
)
def test_the_callable_is_linear_in_the_cotangent(name: str, shape: tuple[int, ...], seed: int):
    rule, rng = catalogue()[name], np.random.default_rng(seed)
    lengths = {
        axis: 2 + i
        for i, axis in enumerate(dict.fromkeys(x for a in rule.signature.arguments for x in a.axes))
    }
    args = []
    for argument in rule.signature.arguments:
        own = [shape if axis.startswith("*") else (lengths[axis],) for axis in argument.axes]
        values = rule.domain[argument.name].sample(rng, sum(own, ()), lengths)
        args.append(jnp.asarray(values, jnp.float32 if argument.floating else jnp.int32))
    if name == "softmax" and shape == ():
        return  # no axis to normalize
    out, residuals = rule.fwd(*args)
    cotangent = jnp.asarray(rng.standard_normal(out.shape), jnp.float32)
    once, fourfold = rule.bwd(residuals, cotangent), rule.bwd(residuals, 4 * cotangent)
    for one, four, x in zip(once, fourfold, args, strict=True):
        assert (one is None) == (not jnp.issubdtype(x.dtype, jnp.floating))
        if one is not None:
            # A power of two goes through every rounding unchanged.
            np.testing.assert_array_equal(4 * one, four)


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
