"""The boxed identities of the backpropagation texts come out in their own form, errata corrected."""

import jax
import numpy as np
import pytest
from jax import numpy as jnp

import funcbp
from funcbp._compat import quick_jit

from .cases import CASES
from .goldens import derivation

FACTORED = {
    "linear": {"A": "y xᵀ"},
    "linear_two": {"A": "y xᵀ Bᵀ", "B": "Aᵀ y xᵀ"},
    "quadratic": {"A": "A x xᵀ"},
    "quadratic_two": {"A": "A B x xᵀ Bᵀ", "B": "Aᵀ A B x xᵀ"},
    "activated": {"A": "δ xᵀ"},
    "nested": {"A": "δ₂ q₁ᵀ", "B": "δ₁ xᵀ"},
    "quadratic_nested": {"A": "δ₂ q₁ᵀ", "B": "δ₁ xᵀ"},
    "squared_nested": {"A": "δ₂ q₁ᵀ", "B": "δ₁ xᵀ"},
    "chain_linear": {"W23": "r x₂ᵀ", "W12": "δ_x₂ x₁ᵀ", "W01": "δ_x₁ x₀ᵀ"},
    "chain_nonlinear": {"W23": "δ₃ q₂ᵀ", "W12": "δ₂ q₁ᵀ", "W01": "δ₁ x₀ᵀ"},
    "least_squares": {"W": "(1/m) Xᵀ R"},
    "logistic_layer": {"w": "δ x", "b": "δ"},
    "cross_entropy": {"Z": "(1/m) (softmax(Z) − Y)"},
    "cross_entropy_by_hand": {"Z": "(1/m) (softmax(Z) − Y)"},
}
EXPANDED = {
    "activated": {"A": "(y ⊙ σ′(A x)) xᵀ"},
    "nested": {
        "A": "(y ⊙ σ′(A tanh(B x))) tanh(B x)ᵀ",
        "B": "((Aᵀ (y ⊙ σ′(A tanh(B x)))) ⊙ tanh′(B x)) xᵀ",
    },
    "quadratic_activated": {"A": "(σ(A x) ⊙ σ′(A x)) xᵀ"},
    "quadratic_nested": {"A": "(σ(A tanh(B x)) ⊙ σ′(A tanh(B x))) tanh(B x)ᵀ"},
    "chain_linear": {
        "W23": "(W₂₃ W₁₂ W₀₁ x₀ − y) x₀ᵀ W₀₁ᵀ W₁₂ᵀ",
        "W12": "W₂₃ᵀ (W₂₃ W₁₂ W₀₁ x₀ − y) x₀ᵀ W₀₁ᵀ",
        "W01": "W₁₂ᵀ W₂₃ᵀ (W₂₃ W₁₂ W₀₁ x₀ − y) x₀ᵀ",
    },
    "least_squares": {"W": "(1/m) Xᵀ (X W − Y)"},
    "logistic_layer": {"w": "(σ(wᵀ x + b) − y) σ′(wᵀ x + b) x"},
    "binary_cross_entropy": {"p": "σ(p) − y"},
}


@pytest.mark.parametrize("name", FACTORED)
def test_factored_form(name: str) -> None:
    gradients = derivation(CASES[name]).gradients
    assert {k: g.factored for k, g in gradients.items()} == FACTORED[name]


@pytest.mark.parametrize("name", EXPANDED)
def test_expanded_form(name: str) -> None:
    gradients = derivation(CASES[name]).gradients
    assert {k: gradients[k].expanded for k in EXPANDED[name]} == EXPANDED[name]


@pytest.mark.long  # the golden tests compare the same functions, at other arguments
@pytest.mark.parametrize("name", sorted({*FACTORED, *EXPANDED}))
def test_equals_jax_to_twelve_digits(name: str, x64) -> None:
    case, d = CASES[name], derivation(CASES[name])
    rng = np.random.default_rng(5)
    values = {n: rng.normal(size=s.shape) for n, s in zip(case.dims, case.specs, strict=True)}
    if case.assume:
        values["Y"] = np.asarray(jax.nn.softmax(values["Y"]))
    positions = tuple(list(case.dims).index(n) for n in d.wrt)
    value, gradients = quick_jit(jax.value_and_grad(case.function, positions))(*values.values())
    found_value, found = d.quick(*values.values())
    np.testing.assert_allclose(found_value, value, rtol=1e-12)
    for n, truth in zip(d.wrt, gradients, strict=True):
        assert np.abs(found[n] - truth).max() <= 1e-12 * np.abs(truth).max()


def test_constants_stay_on_their_side() -> None:
    """The imputed rule "transpose every constant and tack it on the left" is false already for yᵀABx: left
    constants come back transposed on the left, right ones transposed on the right."""
    d = derivation(CASES["linear_two"])
    assert d.gradients["A"].factored == "y xᵀ Bᵀ"
    rng = np.random.default_rng(0)
    A, B = rng.normal(size=(3, 3)), rng.normal(size=(3, 3))
    x, y = rng.normal(size=3), rng.normal(size=3)
    truth = jax.grad(lambda A: y @ A @ B @ x)(jnp.asarray(A))
    np.testing.assert_allclose(np.outer(y, x) @ B.T, truth, rtol=1e-5)
    assert not np.allclose(B.T @ np.outer(y, x), truth, rtol=1e-2)


def test_a_matrix_that_occurs_twice_brings_two_terms() -> None:
    d = funcbp.derive(lambda A, x, y: y @ A @ A @ x, jnp.ones((3, 3)), jnp.ones(3), jnp.ones(3), wrt="A")
    assert d.gradients["A"].factored == "y xᵀ Aᵀ + Aᵀ y xᵀ"
