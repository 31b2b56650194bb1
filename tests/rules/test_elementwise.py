"""Elementwise functions where their spelling has branches: at 0, at signed zeros, far out and at NaN."""

import jax
import numpy as np
import pytest
from jax import numpy as jnp

from funcbp import rules

AT_0 = {  # value, first and second derivative
    "softplus": (np.log(2), 0.5, 0.25),
    "sigmoid": (0.5, 0.25, 0.0),
    "silu": (0.0, 0.5, 0.5),
    "gelu": (0.0, 0.5, 2 / np.sqrt(2 * np.pi)),
    "tanh": (0.0, 1.0, 0.0),
}


@pytest.mark.parametrize("zero", [0.0, -0.0])
@pytest.mark.parametrize("name", AT_0)
def test_derivatives_at_0(name: str, zero: float):
    rule, (value, first, second) = getattr(rules, name), AT_0[name]
    np.testing.assert_allclose(rule(zero), value, rtol=1e-6)
    for derivative in (jax.grad(rule), jax.grad(rule.primal), jax.jacfwd(rule.primal)):
        np.testing.assert_allclose(derivative(zero), first, rtol=1e-6)
    for derivative in (
        jax.grad(jax.grad(rule)),
        jax.hessian(rule.primal),
        jax.jacfwd(jax.jacfwd(rule.primal)),
    ):
        np.testing.assert_allclose(derivative(zero), second, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("zero", [0.0, -0.0])
def test_the_slope_of_relu_at_its_kink_is_0_in_every_mode(zero: float):
    for derivative in (jax.grad(rules.relu), jax.grad(rules.relu.primal), jax.jacfwd(rules.relu.primal)):
        assert derivative(zero) == 0


def test_binary_cross_entropy_at_an_undecided_logit():
    loss = rules.sigmoid_binary_cross_entropy
    for function in (loss, loss.primal):
        np.testing.assert_allclose(jax.grad(function)(0.0, 0.8), -0.3, rtol=1e-6)
        np.testing.assert_allclose(jax.grad(jax.grad(function))(0.0, 0.8), 0.25, rtol=1e-6)
    np.testing.assert_allclose(jax.jacfwd(loss.primal)(0.0, 0.8), -0.3, rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "values", "slopes"),
    [
        ("relu", [np.inf, 0, 200, 0, np.nan], [1, 0, 1, 0]),
        ("softplus", [np.inf, 0, 200, 0, np.nan], [1, 0, 1, 0]),
        ("sigmoid", [1, 0, 1, 0, np.nan], [0, 0, 0, 0]),
        ("tanh", [1, -1, 1, -1, np.nan], [0, 0, 0, 0]),
    ],
)
def test_far_out_and_at_nan(name: str, values: list[float], slopes: list[float]):
    rule, x = getattr(rules, name), jnp.array([np.inf, -np.inf, 200, -200, np.nan])
    np.testing.assert_array_equal(rule(x), values)
    np.testing.assert_array_equal(jax.vmap(jax.grad(rule))(x[:4]), slopes)
    np.testing.assert_array_equal(jax.vmap(jax.jacfwd(rule.primal))(x[:4]), slopes)
