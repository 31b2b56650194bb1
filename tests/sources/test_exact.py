"""The same recurrence over other numbers: exact in Fractions, and over a type that counts its products."""

from collections import Counter
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any, ClassVar, NamedTuple

import jax
import numpy as np
import pytest

from funcbp import backprop, layers, rules

from .networks import linear_chain, nonlinear_chain, random_weights, with_sigmas
from .oracles import EPS

# Rational functions and their derivatives, for exact arithmetic.
RATIONAL: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "identity": (lambda p: p, lambda p: 0 * p + 1),
    "square": (lambda p: p * p, lambda p: 2 * p),
    "cube": (lambda p: p * p * p, lambda p: 3 * p * p),
    "bell": (lambda p: 1 / (1 + p * p), lambda p: -2 * p / ((1 + p * p) * (1 + p * p))),
}


class Met(NamedTuple):
    """What met at a weight: what went in, and the δ of what came out."""

    a: Any
    delta: Any


def weight(times: Callable[[Any, Any], Any], transposed: Callable[[Any], Any]) -> layers.Layer:
    """p = q W over whatever numbers `times` multiplies."""
    return layers.leaf(
        lambda key, spec: ({"w": None}, ()),
        lambda params, state, q, context: (times(q, params["w"]), state, q),
        lambda params, q, p_ct: ({"w": Met(q, p_ct)}, times(p_ct, transposed(params["w"]))),
        pre_activation=True,
    )


def rational(name: str) -> layers.Layer:
    sigma, slope = RATIONAL[name]
    return layers.leaf(
        lambda key, spec: ((), ()),
        lambda params, state, p, context: (sigma(p), state, p),
        lambda params, p, q_ct: ((), slope(p) * q_ct),
    )


class Result(NamedTuple):
    value: Any
    grads: dict[str, Any]
    deltas: list[Any]
    x_ct: Any
    activations: dict[str, Any]


def matrix_sweep(
    sigmas: Sequence[str], weights: dict[str, np.ndarray], x: np.ndarray, y: np.ndarray
) -> Result:
    """Forward and backward through `layers.chain` on arrays of Fractions; C = 1/n Σ ½|q_L - y|²."""
    members = {"sigma0": rational(sigmas[0])}
    for name, sigma in zip(weights, sigmas[1:], strict=True):
        members |= {name: weight(np.matmul, np.transpose), f"sigma{name[-1]}": rational(sigma)}
    network = layers.chain(**members)
    params = with_sigmas({name: {"w": w} for name, w in weights.items()})
    forward = network.fwd(params, (), x, layers.Context())
    residual = forward.y - y
    backward = network.bwd(
        params, forward.residuals, residual / len(x), lambda path, w, met, aux: met.a.T @ met.delta, None, ()
    )
    grads = {name: backward.collected[name]["w"] for name in weights}
    deltas = [backward.cotangents[name].value for name in weights]
    return Result((residual**2).sum() / 2 / len(x), grads, deltas[::-1], backward.x_ct, forward.activations)


def fractions(rng: np.random.Generator, *shape: int) -> np.ndarray:
    numbers = [
        Fraction(int(a), int(b)) for a, b in zip(*rng.integers(1, 9, (2, int(np.prod(shape)))), strict=True)
    ]
    signs = rng.choice([-1, 1], len(numbers))
    out = np.empty(len(numbers), object)
    out[:] = [int(s) * f for s, f in zip(signs, numbers, strict=True)]
    return out.reshape(shape)


def exact_weights(rng: np.random.Generator, widths: Sequence[int]) -> dict[str, np.ndarray]:
    return {f"w{i}{i + 1}": fractions(rng, n, widths[i + 1]) for i, n in enumerate(widths[:-1])}


def equal(actual: np.ndarray, expected: np.ndarray) -> bool:
    return actual.shape == expected.shape and bool(np.all(actual == expected))


@pytest.mark.formula("S2-077", "S2-068", "S2-070", "S2-055")
@pytest.mark.parametrize("hidden", range(6))
def test_linear_chain_is_exact_in_fractions(hidden: int) -> None:
    """∂C/∂w_{i,i+1} = δ_{H-i}x_i, δ_{k+1} = wδ_k: equal to the closed form, and, C being quadratic in each
    weight, to its difference quotient for any ε: no approximation at all."""
    rng = np.random.default_rng(hidden)
    weights, x, y = exact_weights(rng, (1,) * (hidden + 2)), fractions(rng, 1, 1), fractions(rng, 1, 1)
    identities = ("identity",) * (hidden + 2)
    found = matrix_sweep(identities, weights, x, y)
    product = np.prod([w[0, 0] for w in weights.values()]) * x[0, 0]
    assert found.value == (product - y[0, 0]) ** 2 / 2
    epsilon = Fraction(3, 7)
    for name, w in weights.items():
        assert found.grads[name][0, 0] == (product - y[0, 0]) * product / w[0, 0]
        above, below = (
            matrix_sweep(identities, weights | {name: w + step}, x, y).value for step in (epsilon, -epsilon)
        )
        assert found.grads[name][0, 0] == (above - below) / (2 * epsilon)


@pytest.mark.formula("S2-077", "S2-221", "S2-226", "S2-230", "S2-232")
def test_linear_network_is_exact_in_fractions() -> None:
    """δC/δW₀₁ = W₁₂ᵀW₂₃ᵀ(x₃-y)x₀ᵀ, δC/δW₁₂ = W₂₃ᵀ(x₃-y)x₁ᵀ, δC/δW₂₃ = (x₃-y)x₂ᵀ, in columns."""
    rng = np.random.default_rng(1)
    weights, x, y = exact_weights(rng, (3, 2, 4, 2)), fractions(rng, 1, 3), fractions(rng, 1, 2)
    found = matrix_sweep(("identity",) * 4, weights, x, y)
    W01, W12, W23 = (w.T for w in weights.values())
    x0, target = x.T, y.T
    x3 = W23 @ W12 @ W01 @ x0
    assert equal(found.grads["w01"].T, W12.T @ W23.T @ (x3 - target) @ x0.T)
    assert equal(found.grads["w12"].T, W23.T @ (x3 - target) @ (W01 @ x0).T)
    assert equal(found.grads["w23"].T, (x3 - target) @ (W12 @ W01 @ x0).T)
    assert equal(found.x_ct.T, W01.T @ W12.T @ W23.T @ (x3 - target))


@pytest.mark.formula("S2-077", "C-06", "C-07", "C-11")
@pytest.mark.parametrize("batch", [1, 3])
def test_nonlinear_network_is_exact_in_fractions(batch: int) -> None:
    """Δ₀ = 1/N (Q₃-Y)⊙σ₃′, Δ_{k+1} = WᵀΔ_k⊙σ′, δC/δW_{i,i+1} = Δ_{2-i}Q_iᵀ, in columns; σ rational."""
    rng, sigmas = np.random.default_rng(2), ("bell", "square", "bell", "cube")
    weights, x, y = exact_weights(rng, (2, 3, 2, 2)), fractions(rng, batch, 2), fractions(rng, batch, 2)
    found = matrix_sweep(sigmas, weights, x, y)
    W, P, Q = [w.T for w in weights.values()], [x.T], [RATIONAL[sigmas[0]][0](x.T)]
    for i, w in enumerate(W):
        P.append(w @ Q[i])
        Q.append(RATIONAL[sigmas[i + 1]][0](P[-1]))
    slopes = [RATIONAL[name][1](p) for name, p in zip(sigmas, P, strict=True)]
    delta = [(Q[3] - y.T) / batch * slopes[3]]
    for i in (2, 1, 0):
        delta.append(W[i].T @ delta[-1] * slopes[i])
    for i in range(3):
        assert equal(found.grads[f"w{i}{i + 1}"].T, delta[2 - i] @ Q[i].T)
        assert equal(found.deltas[i].T, delta[i])
    assert equal(found.x_ct.T, delta[3])


@pytest.mark.formula("S2-077")
def test_in_floats_only_rounding_remains() -> None:
    """The float64 sweep against the same chain in Fractions of the very same numbers: a few ulps."""
    widths, rng = (2, 3, 2), np.random.default_rng(3)
    weights = random_weights(rng, widths)
    x, y = rng.normal(size=(1, 2)), rng.normal(size=(1, 2))
    exact = np.vectorize(Fraction, otypes=[object])
    truth = matrix_sweep(
        ("identity", "square", "square"), {k: exact(w["w"]) for k, w in weights.items()}, exact(x), exact(y)
    )
    network = nonlinear_chain(("identity", "square", "square"), widths)
    sweep = backprop(network, rules.l2_loss)(with_sigmas(weights), x, y)
    for name, gradient in truth.grads.items():
        error = exact(np.asarray(sweep.grads[name]["w"])) - gradient
        assert np.max(np.abs(error)) < 16 * EPS * np.max(np.abs(gradient))


class Counted:
    """A number that counts the products it takes part in."""

    products: ClassVar[Counter[str]] = Counter()
    during: ClassVar[str] = ""

    def __init__(self, value: float) -> None:
        self.value = value

    def __mul__(self, other: "Counted") -> "Counted":
        Counted.products[Counted.during] += 1
        return Counted(self.value * other.value)


@pytest.mark.formula("S2-030", "S2-071", "C-30")
@pytest.mark.parametrize("hidden", range(5))
def test_two_passes_give_all_derivatives(hidden: int) -> None:
    """H + 1 products forward, H backward (one more for ∂C/∂x₀), H + 1 for the gradients."""
    names = [f"w{i}{i + 1}" for i in range(hidden + 1)]
    network = layers.chain(**{name: weight(Counted.__mul__, lambda w: w) for name in names})
    params = {name: {"w": Counted(1.1)} for name in names}
    Counted.products.clear()

    def visit(path: Any, w: Counted, met: Met, aux: Any) -> Counted:
        Counted.during = "gradients"
        gradient = met.a * met.delta
        Counted.during = "backward"
        return gradient

    Counted.during = "forward"
    forward = network.fwd(params, (), Counted(0.7), layers.Context())
    Counted.during = "backward"
    network.bwd(params, forward.residuals, Counted(0.3), visit, None, ())
    assert Counted.products == {"forward": hidden + 1, "backward": hidden + 1, "gradients": hidden + 1}


def products_of(function: Callable[..., Any], *args: Any) -> int:
    """How many matrix products are left of a function once what it does not need is dropped."""
    return jax.jit(function).lower(*args).as_text().count("stablehlo.dot_general")


@pytest.mark.formula("S2-071")
@pytest.mark.parametrize("hidden", [0, 1, 3])
def test_products_of_the_sweep(hidden: int) -> None:
    """3H + 2 for value and gradients, one more for ∂C/∂x₀; 3H with the first weight frozen: no δ for it."""
    widths = (2,) * (hidden + 2)
    weights, x, y = random_weights(np.random.default_rng(0), widths), np.ones((3, 2)), np.ones((3, 2))
    network = linear_chain(widths)
    sweep = backprop(network, rules.l2_loss)
    assert products_of(lambda w: sweep(w, x, y).value, weights) == hidden + 1
    assert products_of(lambda w: sweep(w, x, y)[:2], weights) == 3 * hidden + 2
    assert products_of(lambda w: sweep(w, x, y)[:4], weights) == 3 * hidden + 3
    frozen = backprop(network, rules.l2_loss, frozen=("w01",))
    assert products_of(lambda w: frozen(w, x, y).grads, weights) == 3 * hidden
