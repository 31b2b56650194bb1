"""What the texts ask or leave open: Jacobians, differentials, alternatives to the sweep, the landscape."""

import itertools
from typing import Any

import jax
import numpy as np
import pytest
from jax import numpy as jnp

from funcbp import backprop, factors, layers, rules

from .networks import (
    computed,
    forward,
    half_squares,
    linear_chain,
    nonlinear_chain,
    random_weights,
    slope,
    with_sigmas,
)
from .oracles import assert_close, assert_differs

RNG = np.random.default_rng(8)
WIDTHS = (3, 2, 2)
SIGMAS = ("identity", "tanh", "sin")
WEIGHTS = random_weights(RNG, WIDTHS)
X, Y = RNG.normal(size=(2, 3)), RNG.normal(size=(2, 2))
NETWORK = nonlinear_chain(SIGMAS, WIDTHS)


def stacked(matrix: Any) -> np.ndarray:
    """vec: the columns below one another."""
    return np.asarray(matrix).T.ravel()


def by_columns(jacobian: Any) -> np.ndarray:
    """∂out_ab/∂in_cd as the matrix ∂vec(out)/∂vec(in)ᵀ."""
    a, b, c, d = jacobian.shape
    return np.asarray(jacobian).transpose(1, 0, 3, 2).reshape(a * b, c * d)


def commutation(rows: int, columns: int) -> np.ndarray:
    """K with vec(Xᵀ) = K vec(X)."""
    place = np.arange(rows * columns).reshape(columns, rows).T
    return np.eye(place.size)[stacked(place.T)]


@pytest.mark.formula("C-21")
def test_kronecker_jacobians(rng: np.random.Generator) -> None:
    """∂vec(AXB)/∂vec(X)ᵀ = Bᵀ ⊗ A; of XW: I ⊗ X and Wᵀ ⊗ I; vec(Xᵀ) = K vec(X). Row by row: A ⊗ Bᵀ."""
    A, M, B = rng.normal(size=(2, 3)), rng.normal(size=(3, 4)), rng.normal(size=(4, 2))
    tensor = jax.jit(jax.jacobian(lambda M: A @ M @ B))(M)
    assert_close(by_columns(tensor), np.kron(B.T, A))
    assert_close(np.asarray(tensor).reshape(4, 12), np.kron(A, B.T))
    W = WEIGHTS["w01"]["w"]
    product = rules.matmul.primal
    assert_close(by_columns(jax.jit(jax.jacobian(lambda W: product(X, W)))(W)), np.kron(np.eye(2), X))
    assert_close(by_columns(jax.jit(jax.jacobian(lambda X: product(X, W)))(X)), np.kron(W.T, np.eye(2)))
    assert_close(commutation(3, 4) @ stacked(M), stacked(M.T))


@pytest.mark.formula("C-22")
def test_kronecker_products_are_applied_without_being_formed(rng: np.random.Generator) -> None:
    """(I⊗X)ᵀvec(G) = vec(XᵀG), (Bᵀ⊗A)vec(X) = vec(AXB), (A⊗B)(C⊗D) = AC⊗BD, (A⊗B)ᵀ = Aᵀ⊗Bᵀ."""
    A, C, B, D = (
        rng.normal(size=(2, 3)),
        rng.normal(size=(3, 2)),
        rng.normal(size=(4, 2)),
        rng.normal(size=(2, 3)),
    )
    G, M = rng.normal(size=(2, 2)), rng.normal(size=(3, 4))
    outer = factors.Outer(jnp.asarray(X), jnp.asarray(G))
    assert_close(np.kron(np.eye(2), X).T @ stacked(G), stacked(outer.gradient()))
    assert_close(np.kron(B.T, A) @ stacked(M), stacked(A @ M @ B))
    assert_close(np.kron(A, B) @ np.kron(C, D), np.kron(A @ C, B @ D))
    assert_close(np.kron(A, B).T, np.kron(A.T, B.T))


@pytest.mark.formula("C-23")
def test_jacobian_of_the_network_as_a_product() -> None:
    """∂vec(Q_L)/∂vec(W₀₁)ᵀ = Diag(σ₂′)(I⊗W₁₂)Diag(σ₁′)(Qᵀ⊗I), one column an example."""
    n, found = len(X), computed(NETWORK, with_sigmas(WEIGHTS), X, Y)
    W01, W12 = (layer["w"].T for layer in WEIGHTS.values())
    s1, s2 = (np.diag(stacked(slope(SIGMAS[i], found.activations[f"w{i - 1}{i}"]).T)) for i in (1, 2))
    below = s2 @ np.kron(np.eye(n), W12) @ s1
    of_w01 = jax.jit(jax.jacobian(lambda W: forward(SIGMAS, WEIGHTS | {"w01": {"w": W.T}}, X).T))(W01)
    assert_close(by_columns(of_w01), below @ np.kron(X, np.eye(2)))
    through_the_sweep = (below @ np.kron(X, np.eye(2))).T @ stacked((forward(SIGMAS, WEIGHTS, X) - Y).T / n)
    assert_close(stacked(found.grads["w01"]["w"].T), through_the_sweep)


@pytest.mark.formula("C-29")
def test_layouts_of_a_jacobian() -> None:
    """Numerator layout J_ab = ∂y_a/∂x_b (jax.jacobian's) chains as J_zyJ_yx; the transposes the other way."""
    f, g = (
        (lambda x: jnp.tanh(WEIGHTS["w01"]["w"].T @ x)),
        (lambda y: jnp.sin(WEIGHTS["w12"]["w"].T @ y) * y[0]),
    )
    whole = lambda x: g(f(x))  # noqa: E731 (a composition)
    all_four = jax.jit(
        lambda x: (jax.jacrev(f)(x), jax.jacrev(g)(f(x)), jax.jacrev(whole)(x), jax.jacfwd(whole)(x))
    )
    J_yx, J_zy, backward, forward = map(np.asarray, all_four(X[0]))
    assert_close(backward, J_zy @ J_yx)
    assert_close(forward.T, J_yx.T @ J_zy.T)
    assert J_yx.shape == (2, 3)


@pytest.mark.formula("C-27")
def test_rules_of_differentials(rng: np.random.Generator) -> None:
    """d(AB) = dA B + A dB, d(A⊙B), d(Aᵀ) = (dA)ᵀ, dσ(V) = σ′(V)⊙dV, d(A:B) = dA:B + A:dB, d tr = tr d."""
    A, B, dA, dB = rng.normal(size=(4, 2, 2))
    for function, expected in (
        (lambda A, B: A @ B, dA @ B + A @ dB),
        (lambda A, B: A * B, dA * B + A * dB),
        (lambda A, B: A.T, dA.T),
        (lambda A, B: jnp.tanh(B), slope("tanh", B) * dB),
        (lambda A, B: jnp.sum(A * B), np.sum(dA * B) + np.sum(A * dB)),
        (lambda A, B: jnp.trace(A @ B), np.trace(dA @ B + A @ dB)),
    ):
        differential = jax.jit(lambda at, along, f=function: jax.jvp(f, at, along)[1])
        assert_close(differential((A, B), (dA, dB)), expected)


@pytest.mark.formula("C-43")
def test_total_derivative() -> None:
    """d/dt f(x₁(t), …, x_n(t)) = ∇f · ẋ."""
    path, f = (lambda t: jnp.stack([jnp.sin(t), t**2, jnp.exp(-t)])), (lambda x: x[0] * x[1] + jnp.tanh(x[2]))
    t = 0.7
    x, x_dot = np.array([np.sin(t), t**2, np.exp(-t)]), np.array([np.cos(t), 2 * t, -np.exp(-t)])
    gradient = np.array([x[1], x[0], slope("tanh", x[2])])
    assert_close(jax.jit(jax.grad(lambda t: f(path(t))))(t), gradient @ x_dot)


def gradient() -> np.ndarray:
    """∇C of the sweep, flat, W₀₁ first."""
    grads = computed(NETWORK, with_sigmas(WEIGHTS), X, Y).grads
    return np.concatenate([np.ravel(grads[name]["w"]) for name in WEIGHTS])


def unflatten(flat: Any) -> Any:
    return {"w01": {"w": flat[:6].reshape(3, 2)}, "w12": {"w": flat[6:].reshape(2, 2)}}


POINT = np.concatenate([layer["w"].ravel() for layer in WEIGHTS.values()])


def flat_value(flat: jax.Array) -> jax.Array:
    return half_squares(forward(SIGMAS, unflatten(flat), X), Y)


@pytest.mark.formula("C-38")
def test_forward_mode_needs_a_pass_for_each_weight() -> None:
    """N Jacobian-vector products give the gradient without a backward pass."""
    one = lambda e: jax.jvp(flat_value, (jnp.asarray(POINT),), (e,))[1]  # noqa: E731 (to be mapped)
    slopes = jax.jit(jax.vmap(one))(np.eye(POINT.size))
    assert_close(slopes, gradient())


@pytest.mark.formula("S2-036", "C-39")
def test_forward_gradient() -> None:
    """E[(g·v)v] = g if E[vvᵀ] = I: exact over all 2ᴺ sign vectors; SPSA has a difference quotient for g·v."""
    g, signs = gradient(), np.array(list(itertools.product([-1.0, 1.0], repeat=POINT.size)))
    assert_close((signs * (signs @ g)[:, None]).mean(0), g)
    epsilon = 1e-5
    values = jax.jit(jax.vmap(flat_value))(np.concatenate([POINT + epsilon * signs, POINT - epsilon * signs]))
    above, below = np.split(np.asarray(values), 2)
    estimate = (signs * ((above - below) / (2 * epsilon))[:, None]).mean(0)
    assert np.max(np.abs(estimate - g)) < 1e-8 * np.max(np.abs(g))


def aligned(features: int, feedback: np.ndarray) -> layers.Layer:
    """A dense layer whose backward pass uses `feedback` in the place of Wᵀ."""
    return layers.leaf(
        layers.dense(features, bias=False).init,
        lambda params, state, q, context: (q @ params["w"], state, q),
        lambda params, q, p_ct: ({"w": factors.Outer(q, p_ct)}, p_ct @ feedback),
        pre_activation=True,
    )


@pytest.mark.formula("C-40")
def test_feedback_alignment(rng: np.random.Generator) -> None:
    """Δ_{k+1} = B_kΔ_k⊙σ′ with a fixed random B: no gradient unless B = Wᵀ; the last layer's always is."""
    exact = computed(NETWORK, with_sigmas(WEIGHTS), X, Y).grads
    for feedback, first in ((rng.normal(size=(2, 2)), assert_differs), (WEIGHTS["w12"]["w"].T, assert_close)):
        network = layers.chain(
            w01=layers.dense(2, bias=False),
            sigma1=layers.activation("tanh"),
            w12=aligned(2, feedback),
            sigma2=layers.activation("sin"),
        )
        found = jax.jit(backprop(network, rules.l2_loss))(WEIGHTS | {"sigma1": (), "sigma2": ()}, X, Y).grads
        assert_close(found["w12"], exact["w12"])
        first(found["w01"], exact["w01"])


@pytest.mark.formula("S2-037", "C-42")
def test_landscape_of_the_linear_chain() -> None:
    """C = ½(w₂w₁x₀-y)²: at w = 0 a saddle with eigenvalues ±x₀y, for three weights no curvature at all.

    Minima are not isolated; the Hessian there is x₀²aaᵀ, of rank one. Scaling (kw₁, w₂/k) changes nothing.
    """
    x0, y = 1.3, 0.8

    def cost(w: Any) -> Any:
        weights = {f"w{i}{i + 1}": {"w": w[i].reshape(1, 1)} for i in range(len(w))}
        return half_squares(forward(None, weights, np.array([[x0]])), np.array([[y]]))

    eigenvalues = np.linalg.eigvalsh(jax.jit(jax.hessian(cost))(np.zeros(2)))
    assert_close(eigenvalues, np.array([-x0 * y, x0 * y]))
    assert np.all(np.asarray(jax.jit(jax.hessian(cost))(np.zeros(3))) == 0)
    w01, w12 = 0.7, -1.3
    best = np.array([w01, w12, y / x0 / (w01 * w12)])
    a = np.prod(best) / best
    assert_close(jax.jit(jax.hessian(cost))(best), x0**2 * np.outer(a, a))
    weights = {name: {"w": np.array([[w]])} for name, w in zip(("w01", "w12", "w23"), best, strict=True)}
    sweep = computed(linear_chain((1,) * 4), weights, np.array([[x0]]), np.array([[y]]))
    assert abs(float(sweep.value)) < 1e-30
    w, k = np.array([0.4, 0.9, -1.1]), 4.0
    assert_close(cost(w * np.array([k, 1 / k, 1.0])), cost(w))
