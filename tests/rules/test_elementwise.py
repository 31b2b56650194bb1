"""Elementwise functions where their spelling has branches: at 0, at signed zeros, far out and at NaN."""

import jax
import numpy as np
import pytest
from jax import numpy as jnp

from tests import at_once
from tests.at_once import rules

AT_0 = {  # value, first and second derivative
    "softplus": (np.log(2), 0.5, 0.25),
    "sigmoid": (0.5, 0.25, 0.0),
    "silu": (0.0, 0.5, 0.5),
    "gelu": (0.0, 0.5, 2 / np.sqrt(2 * np.pi)),
    "tanh": (0.0, 1.0, 0.0),
    "log_sigmoid": (-np.log(2), 0.5, -0.25),
    "squareplus": (1.0, 0.5, 0.25),
    "mish": (0.0, 0.6, 0.64),
}
KINKS = {  # where, and the slope there in jax.nn
    "relu": {0: 0.0},
    "relu6": {0: 0.0, 6: 0.0},
    "leaky_relu": {0: 1.0},
    "hard_tanh": {-1: 1.0, 1: 1.0},
    "hard_sigmoid": {-3: 0.0, 3: 0.0},
    "hard_silu": {-3: 0.0, 3: 1.0},
    "sparse_sigmoid": {-1: 0.25, 1: 0.25},
    "sparse_plus": {-1: 0.0, 1: 1.0},
    "selu": {0: 1.0507009873554805 * 1.6732632423543772},
}


@pytest.mark.parametrize("zero", [0.0, -0.0])
@pytest.mark.parametrize("name", AT_0)
def test_derivatives_at_0(name: str, zero: float):
    rule, (value, first, second) = getattr(rules, name), AT_0[name]
    np.testing.assert_allclose(rule(zero), value, rtol=1e-6)
    for derivative in (at_once.grad(rule), at_once.grad(rule.primal), at_once.jacfwd(rule.primal)):
        np.testing.assert_allclose(derivative(zero), first, rtol=1e-6)
    for derivative in (
        at_once.grad(at_once.grad(rule)),
        at_once.hessian(rule.primal),
        at_once.jacfwd(at_once.jacfwd(rule.primal)),
    ):
        np.testing.assert_allclose(derivative(zero), second, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", KINKS)
def test_the_slope_at_a_kink_is_that_of_jax_nn_in_every_mode(name: str):
    rule, reference = getattr(rules, name), getattr(jax.nn, name)
    for kink, slope in KINKS[name].items():
        for p in (float(kink), -0.0) if kink == 0 else (float(kink),):
            for derivative in (at_once.grad(rule), at_once.grad(rule.primal), at_once.jacfwd(rule.primal)):
                np.testing.assert_allclose(derivative(p), slope, rtol=1e-6)
            np.testing.assert_allclose(at_once.grad(reference)(p), slope, rtol=1e-6)


def test_the_absolute_value_has_the_slope_0_at_0_where_jax_has_1():
    assert at_once.grad(rules.absolute)(0.0) == at_once.jacfwd(rules.absolute.primal)(0.0) == 0
    assert at_once.grad(jnp.abs)(0.0) == 1


@pytest.mark.parametrize(
    ("name", "option", "wrong"),
    [
        ("leaky_relu", "negative_slope", 0.0),
        ("elu", "alpha", -1.0),
        ("celu", "alpha", 0.0),
        ("squareplus", "b", 0),
    ],
)
def test_an_option_whose_derivative_cannot_be_read_off_the_result_is_refused(
    name: str, option: str, wrong: float
):
    with pytest.raises(ValueError, match=f"{name}: `{option}` must be above 0, got {wrong!r}.*use relu"):
        getattr(rules, name)(jnp.ones(2), **{option: wrong})


@pytest.mark.parametrize("name", ["exp", "sqrt", "reciprocal", "tan", "sinh", "cbrt", "elu", "softplus"])
def test_what_is_said_to_be_saved_is_saved(name: str):
    """σ′ from q: nothing is kept beside the result, which the next layer keeps anyway."""
    rule = getattr(rules, name)
    q, residuals = rule.fwd(jnp.ones(3))
    assert rule.saves == "q"
    assert residuals is q


@pytest.mark.parametrize("p", [-1e4, -30.0, -3.0])
def test_squareplus_keeps_its_digits_left_of_0(p: float):
    """(p + √(p² + b)) / 2 cancels there: jax.nn.squareplus has no digit left at -1e4."""
    exact = 2.0 / (np.hypot(p, 2.0) - p)
    np.testing.assert_allclose(rules.squareplus(p), exact, rtol=1e-6)
    np.testing.assert_allclose(at_once.grad(rules.squareplus)(p), exact / np.hypot(p, 2.0), rtol=1e-6)


def test_a_power_that_is_constant_has_no_slope_at_0():
    assert at_once.grad(lambda p: rules.power(p, exponent=0.0))(0.0) == 0
    assert at_once.grad(lambda p: rules.power(p, exponent=1.0))(0.0) == 1


def test_binary_cross_entropy_at_an_undecided_logit():
    loss = rules.sigmoid_binary_cross_entropy
    for function in (loss, loss.primal):
        np.testing.assert_allclose(at_once.grad(function)(0.0, 0.8), -0.3, rtol=1e-6)
        np.testing.assert_allclose(at_once.grad(at_once.grad(function))(0.0, 0.8), 0.25, rtol=1e-6)
    np.testing.assert_allclose(at_once.jacfwd(loss.primal)(0.0, 0.8), -0.3, rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "values", "slopes"),
    [
        ("relu", [np.inf, 0, 200, 0, np.nan], [1, 0, 1, 0]),
        ("softplus", [np.inf, 0, 200, 0, np.nan], [1, 0, 1, 0]),
        ("sigmoid", [1, 0, 1, 0, np.nan], [0, 0, 0, 0]),
        ("tanh", [1, -1, 1, -1, np.nan], [0, 0, 0, 0]),
        ("relu6", [6, 0, 6, 0, np.nan], [0, 0, 0, 0]),
        ("elu", [np.inf, -1, 200, -1, np.nan], [1, 0, 1, 0]),
        ("log_sigmoid", [0, -np.inf, 0, -200, np.nan], [0, 1, 0, 1]),
        ("hard_tanh", [1, -1, 1, -1, np.nan], [0, 0, 0, 0]),
        ("hard_silu", [np.inf, 0, 200, 0, np.nan], [1, 0, 1, 0]),
        ("sparse_plus", [np.inf, 0, 200, 0, np.nan], [1, 0, 1, 0]),
    ],
)
def test_far_out_and_at_nan(name: str, values: list[float], slopes: list[float]):
    rule, x = getattr(rules, name), jnp.array([np.inf, -np.inf, 200, -200, np.nan])
    np.testing.assert_array_equal(rule(x), values)
    np.testing.assert_array_equal(at_once.vmap(at_once.grad(rule))(x[:4]), slopes)
    np.testing.assert_array_equal(at_once.vmap(at_once.jacfwd(rule.primal))(x[:4]), slopes)
