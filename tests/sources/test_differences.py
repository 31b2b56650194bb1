"""Finite differences: what they cost and how far off they are, against one sweep."""

import functools

import jax
import numpy as np
import pytest
from jax import numpy as jnp

from .networks import computed, nonlinear_chain, with_sigmas
from .oracles import assert_close, central_differences

X, Y = 1.1, 0.4
WEIGHTS = np.array([0.7, -1.3, 0.9])
CALLS = {"forward": 0}


def cost(w: np.ndarray) -> np.floating:
    """½(q₃ - y)² with q₃ = tanh(w₂₃ sin(w₁₂ tanh(w₀₁x₀))), counting its calls."""
    CALLS["forward"] += 1
    return (np.tanh(w[2] * np.sin(w[1] * np.tanh(w[0] * X))) - Y) ** 2 / 2


@functools.cache
def backpropagated() -> np.ndarray:
    params = {name: {"w": w.reshape(1, 1)} for name, w in zip(("w01", "w12", "w23"), WEIGHTS, strict=True)}
    sigmas = ("identity", "tanh", "sin", "tanh")
    grads = computed(
        nonlinear_chain(sigmas, (1,) * 4), with_sigmas(params), np.array([[X]]), np.array([[Y]])
    ).grads
    return np.array([float(grads[name]["w"][0, 0]) for name in params])


def one_sided(epsilon: float) -> np.ndarray:
    here = cost(WEIGHTS)
    return np.array([(cost(WEIGHTS + epsilon * e) - here) / epsilon for e in np.eye(3)])


def central(epsilon: float) -> np.ndarray:
    differences = [cost(WEIGHTS + epsilon * e) - cost(WEIGHTS - epsilon * e) for e in np.eye(3)]
    return np.array(differences) / (2 * epsilon)


def error(estimate: np.ndarray) -> float:
    exact = backpropagated()
    return float(np.max(np.abs(estimate - exact) / np.abs(exact)))


@pytest.mark.formula("S2-072", "S2-073", "S2-074")
@pytest.mark.parametrize(("method", "order"), [(one_sided, 1), (central, 2)])
def test_order_of_the_error(method: object, order: int) -> None:
    """(C[w+ε] - C[w])/ε errs by O(ε); (C[w+ε] - C[w-ε])/2ε by O(ε²), and is the better behaved."""
    steps = np.array([1e-2, 1e-3, 1e-4])
    errors = np.array([error(method(step)) for step in steps])
    slopes = np.diff(np.log10(errors)) / np.diff(np.log10(steps))
    assert np.all(np.abs(slopes - order) < 0.1)


@pytest.mark.formula("S2-075", "S2-076", "C-30")
@pytest.mark.parametrize(("method", "passes"), [(one_sided, 3 + 1), (central, 2 * 3)])
def test_number_of_forward_passes(method: object, passes: int) -> None:
    """2N passes for N central derivatives, N + 1 one-sided; a sweep is one forward, one back."""
    CALLS["forward"] = 0
    method(1e-4)
    assert CALLS["forward"] == passes


@pytest.mark.formula("S2-077", "C-30")
def test_best_attainable_error() -> None:
    """Rounding u/ε against truncation: best near u^½ one-sided, u^⅓ central; the sweep has neither."""
    steps = 10.0 ** -np.arange(1, 13)
    one, two = (np.array([error(method(step)) for step in steps]) for method in (one_sided, central))
    assert 1e-9 <= steps[one.argmin()] <= 1e-7
    assert 1e-7 <= steps[two.argmin()] <= 1e-4
    assert error(closed_form()) < 1e-14 < two.min() < one.min() / 10


def closed_form() -> np.ndarray:
    """The derivatives of `cost`, by the text's δ's."""
    q1 = np.tanh(WEIGHTS[0] * X)
    q2 = np.sin(WEIGHTS[1] * q1)
    q3 = np.tanh(WEIGHTS[2] * q2)
    d0 = (q3 - Y) * (1 - q3) * (1 + q3)
    d1 = d0 * WEIGHTS[2] * np.cos(WEIGHTS[1] * q1)
    d2 = d1 * WEIGHTS[1] * (1 - q1) * (1 + q1)
    return np.array([d2 * X, d1 * q1, d0 * q2])


def test_the_oracle_finds_what_the_sweep_finds() -> None:
    assert_close(closed_form(), backpropagated())

    def value(w: jax.Array) -> jax.Array:
        return (jnp.tanh(w[2] * jnp.sin(w[1] * jnp.tanh(w[0] * X))) - Y) ** 2 / 2

    assert np.max(np.abs(central_differences(value, WEIGHTS) - closed_form())) < 1e-10
