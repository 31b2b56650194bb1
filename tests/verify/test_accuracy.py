"""Errors in ulps: of a gradient and of autodiff, against a truth with more digits than either."""

import jax
import numpy as np
import pytest
from jax import numpy as jnp

import funcbp
from funcbp.verify import accuracy
from funcbp.verify._accuracy import ulps


def pull(values, cotangent):
    (x,) = values
    return jax.vjp(lambda x: jnp.expm1(2 * x) / (jnp.exp(2 * x) + 1), x)[1](cotangent)


def exactly(x, ct):
    return ct / np.cosh(x.astype(np.float64)) ** 2


@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "float64"])
def test_both_are_compared_with_more_digits(dtype):
    x = np.linspace(-0.5, 9.0, 50).astype(jnp.dtype(dtype))
    ct = np.ones(50, jnp.dtype(dtype))
    found = ulps([exactly(x, ct).astype(x.dtype)], pull, [x], ct)
    assert found.truth == ("40 digits" if dtype == "float64" else "float64")
    assert found.dtypes == (dtype,)
    (mine,), (autodiff,) = found.mine, found.autodiff
    assert mine.median <= mine.high <= mine.largest < 4
    assert autodiff.largest > 100 * mine.largest  # 1 - tanh² by subtraction, where tanh is almost 1
    assert str(found) == f"yours {mine.high:.3g} ulp, autodiff {autodiff.high:.3g} ulp"


def test_what_is_not_finite_is_infinitely_wrong():
    x, ct = np.array([0.5, 1.0]), np.ones(2)
    mine = exactly(x, ct)
    mine[1] = np.nan
    assert ulps([mine], pull, [x], ct).mine[0].largest == np.inf
    assert ulps([mine], pull, [x], ct, truth=[mine]).mine[0].largest == 0


def test_one_rounding_is_half_an_ulp():
    def product(values, cotangent):
        return (values[0] * cotangent,)

    x = np.random.default_rng(0).uniform(1, 2, 1000)
    found = ulps([x * x], product, [x], x)
    assert 0.4 < found.mine[0].largest <= 0.5
    assert found.mine == found.autodiff


def test_a_rule_in_float64_is_measured_against_more_digits():
    found = accuracy(funcbp.rules.tanh, "float64")
    assert found.dtype == "float64"
    assert 0 < found.ours < 1.01 * found.autodiff  # both lose digits where tanh is almost 1
    assert found.elements > 8
