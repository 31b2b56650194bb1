"""Section III: several nodes a layer, no activations, written in columns as the text does."""

import functools

import jax
import numpy as np
import pytest
from jax import numpy as jnp

from funcbp import Sweep, predict

from .networks import computed, forward, from_output, half_squares, linear_chain, random_weights, run
from .oracles import assert_close, assert_differs, assert_gradient

RNG = np.random.default_rng(4)
WIDTHS = (4, 3, 5, 2)
NETWORK = linear_chain(WIDTHS)
WEIGHTS = random_weights(RNG, WIDTHS)
W01, W12, W23 = (WEIGHTS[name]["w"].T for name in ("w01", "w12", "w23"))
X0, Y = RNG.normal(size=(4, 1)), RNG.normal(size=(2, 1))
X1, X2, X3 = W01 @ X0, W12 @ W01 @ X0, W23 @ W12 @ W01 @ X0


@functools.cache
def sweep() -> Sweep:
    return computed(NETWORK, WEIGHTS, X0.T, Y.T)


def gradient(name: str) -> np.ndarray:
    """δC/δW_ij in the text's layout, (destination, source)."""
    return np.asarray(sweep().grads[name]["w"]).T


def cost(weights: dict, x: np.ndarray = X0, y: np.ndarray = Y) -> jax.Array:
    return half_squares(forward(None, weights, x.T), y.T)


@pytest.mark.formula("S2-116", "S2-117", "S2-118", "S2-119", "S2-123", "S2-215", "S2-231")
def test_forward_chain() -> None:
    """x₁ = W₀₁x₀, x₂ = W₁₂x₁, x₃ = W₂₃x₂ = W₂₃W₁₂W₀₁x₀."""
    assert_close(sweep().activations, {"w01": X1.T, "w12": (W12 @ X1).T, "w23": (W23 @ X2).T})
    assert_close(jax.jit(predict(NETWORK))(WEIGHTS, X0.T), X3.T)


@pytest.mark.formula("S2-039", "S2-121", "S2-122")
def test_rows_of_the_matrix_are_destinations(rng: np.random.Generator) -> None:
    """x_a^(1) = Σ_b w_ab^(01) x_b^(0): ij are source and destination, but ab destination and source."""
    by_element = [sum(W01[a, b] * X0[b, 0] for b in range(4)) for a in range(3)]
    assert_close(sweep().activations["w01"], np.array([by_element]))
    slopes = np.asarray(jax.jit(jax.jacobian(lambda w: (X0.T @ w.T)[0]))(W01))
    for a in range(3):
        assert_close(slopes[a, a], X0[:, 0])
        assert np.all(np.delete(slopes[a], a, axis=0) == 0)
    square = rng.normal(size=(4, 4))
    assert_differs(square.T @ X0, square @ X0)


@pytest.mark.formula("S2-120", "S2-150", "S2-212")
def test_dimensions() -> None:
    """dim W_ij = (n_j, n_i); O₁O₂ needs columns of O₁ = rows of O₂, or there is an error with the layer."""
    assert [w.shape for w in (W01, W12, W23)] == [(3, 4), (5, 3), (2, 5)]
    assert (W12 @ W01).shape == (5, 4)
    with pytest.raises(ValueError, match="matmul"):
        W01 @ W12
    swapped = WEIGHTS | {"w12": WEIGHTS["w23"]}
    with pytest.raises(ValueError, match=r"(?s)has shape \(5, 2\), this layer's is .any, 5.*in layer `w12`"):
        computed(NETWORK, swapped, X0.T, Y.T)
    cut = WEIGHTS | {"w12": jax.tree.map(lambda w: w[:2], WEIGHTS["w12"])}
    with pytest.raises(ValueError, match=r"(?s)expected.*in = 3.*in layer `w12` of a chain of 3"):
        computed(NETWORK, cut, X0.T, Y.T)


@pytest.mark.formula("S2-130", "S2-131", "S2-132", "S2-174", "S2-269")
def test_transposes(rng: np.random.Generator) -> None:
    """(Aᵀ)_ij = a_ji, dim Aᵀ = (n, m), (AB)ᵀ = BᵀAᵀ and not AᵀBᵀ, which need not even exist."""
    A = np.array([[11.0, 12.0, 13.0], [21.0, 22.0, 23.0]])
    assert_close(A.T, np.array([[11.0, 21.0], [12.0, 22.0], [13.0, 23.0]]))
    assert_close((W12 @ W01).T, W01.T @ W12.T)
    with pytest.raises(ValueError, match="matmul"):
        W12.T @ W01.T
    left, right = rng.normal(size=(2, 3, 3))
    assert_close((left @ right).T, right.T @ left.T)
    assert_differs((left @ right).T, left.T @ right.T)
    assert_differs(left @ right, right @ left)


@pytest.mark.formula("S2-125", "S2-147", "S2-155")
def test_the_gradient_of_a_matrix_has_its_shape() -> None:
    """(δC/δW_ij)_ab = ∂C/∂w_ab^(ij): n₀n₁ + n₁n₂ + n₂n₃ of them."""
    assert sum(g.size for g in jax.tree.leaves(sweep().grads)) == 4 * 3 + 3 * 5 + 5 * 2
    for name, W in (("w01", W01), ("w12", W12), ("w23", W23)):
        assert gradient(name).shape == W.shape
    for a, b in ((0, 0), (2, 3)):
        one = jax.grad(lambda w, a=a, b=b: cost(WEIGHTS | {"w01": {"w": jnp.asarray(W01).at[a, b].set(w).T}}))
        assert_close(jax.jit(one)(W01[a, b]), gradient("w01")[a, b])


@pytest.mark.formula("S2-216", "S2-217", "S2-218", "S2-223", "S2-227")
def test_cost_in_terms_of_the_weights() -> None:
    """½x₃ᵀx₃ - yᵀx₃ with x₃ = W₂₃W₁₂W₀₁x₀, and with D or u for what does not depend on one of the weights."""
    dropped = float(sweep().value) - (Y.T @ Y)[0, 0] / 2
    assert_close((X3.T @ X3 - 2 * Y.T @ X3)[0, 0] / 2, dropped)
    D, u, E = W23 @ W12, W01 @ X0, W12 @ W01
    for form in (
        X0.T @ W01.T @ W12.T @ W23.T @ W23 @ W12 @ W01 @ X0 / 2 - Y.T @ W23 @ W12 @ W01 @ X0,
        X0.T @ W01.T @ D.T @ D @ W01 @ X0 / 2 - Y.T @ D @ W01 @ X0,
        u.T @ W12.T @ W23.T @ W23 @ W12 @ u / 2 - Y.T @ W23 @ W12 @ u,
        X0.T @ E.T @ W23.T @ W23 @ E @ X0 / 2 - Y.T @ W23 @ E @ X0,
    ):
        assert_close(form[0, 0], dropped)


@pytest.mark.formula("S2-219", "S2-220", "S2-221")
def test_gradient_of_the_first_matrix() -> None:
    """δC/δW₀₁ = (DᵀD)W₀₁(x₀x₀ᵀ) - Dᵀyx₀ᵀ with D = W₂₃W₁₂, which is W₁₂ᵀW₂₃ᵀ(x₃-y)x₀ᵀ."""
    D = W23 @ W12
    assert_close(gradient("w01"), D.T @ D @ W01 @ (X0 @ X0.T) - D.T @ Y @ X0.T)
    spelled = W12.T @ W23.T @ (W23 @ W12 @ W01 @ X0) @ X0.T - W12.T @ W23.T @ Y @ X0.T
    assert_close(gradient("w01"), spelled)
    assert_close(gradient("w01"), W12.T @ W23.T @ (X3 - Y) @ X0.T)


@pytest.mark.formula("S2-224", "S2-225", "S2-226")
def test_gradient_of_the_second_matrix() -> None:
    """δC/δW₁₂ = W₂₃ᵀW₂₃W₁₂uuᵀ - W₂₃ᵀyuᵀ = W₂₃ᵀ(x₃-y)x₁ᵀ; printed once as that of W₀₁, of another shape."""
    u = W01 @ X0
    printed = W23.T @ W23 @ W12 @ u @ u.T - W23.T @ Y @ u.T
    assert_close(gradient("w12"), printed)
    assert printed.shape != gradient("w01").shape
    assert_close(gradient("w12"), W23.T @ X3 @ X1.T - W23.T @ Y @ X1.T)
    assert_close(gradient("w12"), W23.T @ (X3 - Y) @ X1.T)


@pytest.mark.formula("S2-228", "S2-229", "S2-230")
def test_gradient_of_the_third_matrix() -> None:
    """δC/δW₂₃ = W₂₃D(x₀x₀ᵀ)Dᵀ - yx₀ᵀDᵀ = (x₃-y)x₂ᵀ, D = W₁₂W₀₁; printed with yᵀx₀ᵀ, which does not exist."""
    D = W12 @ W01
    assert_close(gradient("w23"), W23 @ D @ (X0 @ X0.T) @ D.T - Y @ X0.T @ D.T)
    assert_close(gradient("w23"), W23 @ W12 @ W01 @ X0 @ X0.T @ W01.T @ W12.T - Y @ X0.T @ W01.T @ W12.T)
    assert_close(gradient("w23"), (X3 - Y) @ X2.T)
    with pytest.raises(ValueError, match="matmul"):
        Y.T @ X0.T


@pytest.mark.formula("S2-144", "S2-221", "S2-226", "S2-230", "S2-234")
def test_all_gradients() -> None:
    """δC/δW_{i,i+1} = Δ_{2-i}x_iᵀ: the chains are there with matrices too."""
    x, deltas = (X0, X1, X2), from_output(sweep())
    expected = {f"w{i}{i + 1}": {"w": x[i] @ deltas[2 - i]} for i in range(3)}
    assert_close(sweep().grads, expected)
    assert_gradient(cost, WEIGHTS, expected)


@pytest.mark.formula("S2-033", "S2-232")
def test_backward_chain() -> None:
    """Δ₀ = x₃-y, Δ₁ = W₂₃ᵀ(x₃-y), Δ₂ = W₁₂ᵀW₂₃ᵀ(x₃-y), Δ₃ = W₀₁ᵀW₁₂ᵀW₂₃ᵀ(x₃-y) = ∂C/∂x₀."""
    chain = [X3 - Y, W23.T @ (X3 - Y), W12.T @ W23.T @ (X3 - Y), W01.T @ W12.T @ W23.T @ (X3 - Y)]
    assert_close([d.T for d in from_output(sweep())], chain)
    for k, W in enumerate((W23, W12, W01)):
        assert_close(chain[k + 1], W.T @ chain[k])
    assert_gradient(lambda x: cost(WEIGHTS, x), X0, chain[3])


@pytest.mark.formula("S2-233", "S2-126")
def test_a_delta_is_a_vector_for_each_example(rng: np.random.Generator) -> None:
    """dim Δ_k = (n_{3-k}, 1); the "matrices" of the text they are only for N examples, (n_{3-k}, N)."""
    for k, delta in enumerate(from_output(sweep())):
        assert delta.T.shape == (WIDTHS[3 - k], 1)
    batch = computed(NETWORK, WEIGHTS, rng.normal(size=(3, 4)), rng.normal(size=(3, 2)))
    for k, delta in enumerate(from_output(batch)):
        assert delta.T.shape == (WIDTHS[3 - k], 3)


@pytest.mark.formula("S2-222")
def test_a_right_prediction_has_no_gradient(rng: np.random.Generator) -> None:
    """x₃ = y: nothing to correct."""
    square = (2,) * 4
    network, weights, x = linear_chain(square), random_weights(rng, square), rng.normal(size=(2, 2))
    right = run(network, weights, x, predict(network)(weights, x))
    assert all(np.all(np.asarray(g) == 0) for g in jax.tree.leaves(right.grads))


@pytest.mark.formula("S2-057")
def test_factors_stand_from_output_to_input() -> None:
    """W₂₃W₁₂W₀₁x₀ reads the network from right to left; from left to right it does not exist."""
    assert (W23 @ W12 @ W01 @ X0).shape == (2, 1)
    with pytest.raises(ValueError, match="matmul"):
        W01 @ W12 @ W23


@pytest.mark.formula("S2-235", "C-08")
def test_one_node_a_layer_is_the_scalar_chain() -> None:
    """n_i = 1: ∂C/∂w₀₁ = (x₃-y)w₂₃w₁₂x₀ and so on, section I."""
    a, b, c, x, y = 0.7, -1.3, 0.9, 1.1, 0.4
    weights = {name: {"w": np.array([[w]])} for name, w in (("w01", a), ("w12", b), ("w23", c))}
    narrow = computed(linear_chain((1,) * 4), weights, np.array([[x]]), np.array([[y]]))
    r = c * b * a * x - y
    expected = {"w01": r * c * b * x, "w12": r * c * a * x, "w23": r * b * a * x}
    assert_close(narrow.grads, {name: {"w": np.array([[g]])} for name, g in expected.items()})


@pytest.mark.formula("S2-124", "C-31")
def test_collapse_to_one_matrix() -> None:
    """W_c = W₂₃W₁₂W₀₁ is the same function; dC/dW_c = (x₃-y)x₀ᵀ, dC/dW₁₂ = W₂₃ᵀ(dC/dW_c)W₀₁ᵀ, …"""
    collapsed = computed(linear_chain((4, 2)), {"w01": {"w": (W23 @ W12 @ W01).T}}, X0.T, Y.T)
    of_the_whole = np.asarray(collapsed.grads["w01"]["w"]).T
    assert_close(collapsed.value, sweep().value)
    assert_close(of_the_whole, (X3 - Y) @ X0.T)
    assert_close(gradient("w01"), (W23 @ W12).T @ of_the_whole)
    assert_close(gradient("w12"), W23.T @ of_the_whole @ W01.T)
    assert_close(gradient("w23"), of_the_whole @ (W12 @ W01).T)
    assert_close(from_output(collapsed)[1], from_output(sweep())[3])


@pytest.mark.formula("S2-124", "S2-044")
def test_the_collapsed_matrix_is_another_problem_to_learn(rng: np.random.Generator) -> None:
    """rank W_c ≤ the narrowest layer, and a step on the factors is not a step on W_c."""
    narrow = random_weights(rng, (4, 1, 2))
    assert np.linalg.matrix_rank((narrow["w01"]["w"] @ narrow["w12"]["w"]).T) == 1
    eta = 0.1
    on_the_factors = np.eye(4)
    for name in WEIGHTS:
        on_the_factors = on_the_factors @ (WEIGHTS[name]["w"] - eta * np.asarray(sweep().grads[name]["w"]))
    on_the_whole = W23 @ W12 @ W01 - eta * (X3 - Y) @ X0.T
    assert_differs(on_the_factors.T, on_the_whole)


@pytest.mark.formula("S2-127", "S2-133")
def test_sum_over_outputs() -> None:
    """C = ½[(x₁-y₁)² + … + (x_n-y_n)²]: summed over outputs, no 1/n."""
    assert_close(sweep().value, sum((X3[i, 0] - Y[i, 0]) ** 2 for i in range(2)) / 2)
    mean_over_outputs = np.mean((X3 - Y) ** 2 / 2)
    assert_differs(mean_over_outputs, sweep().value)
