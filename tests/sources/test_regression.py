"""Linear regression, one response ŷ = Xw and several Ŷ = XW: the thread's formulas, as printed and corrected.

The network is one `dense` layer without a bias. Its output is the prediction, so that its δ is ∂MSE/∂ŷ.
"""

import functools
from collections.abc import Callable

import jax
import numpy as np
import optax
import pytest
from jax import numpy as jnp

from funcbp import Rule, Sweep, backprop, layers, rules, training
from funcbp.factors import Outer

from .networks import half_squares, run
from .oracles import EPS, assert_close, assert_differs, assert_gradient, central_differences

N, M, K = 5, 3, 2  # instances, features, responses
rng = np.random.default_rng(0)
X, SQUARE = (
    rng.normal(size=(N, M)),
    rng.normal(size=(M, M)),
)  # n ≠ m: ill-typed is an error; n = m: only wrong
W, Y = rng.normal(size=(M, K)), rng.normal(size=(N, K))
DW = rng.normal(size=(M, K))
w, y = W[:, 0], Y[:, 0]
r, E = X @ w - y, Y - X @ W
NETWORK = layers.dense(K, bias=False)


def fit(
    weights: np.ndarray, x: np.ndarray, y: np.ndarray, loss: Rule = rules.l2_loss, **options: str
) -> Sweep:
    """One sweep of the layer with these weights, as numpy arrays."""
    network = layers.dense(weights.shape[1], bias=False)
    return jax.device_get(
        jax.jit(functools.partial(run, network, loss=loss, **options))({"w": weights}, x, y)
    )


@functools.cache
def one() -> Sweep:
    """One response: the weights are one column, and so is everything at the output."""
    return fit(w[:, None], X, y[:, None])


@functools.cache
def several() -> Sweep:
    return fit(W, X, Y)


def descent(printed_sign: int, steps: int = 3) -> list[float]:
    """The costs along w ← w - η g with the library's step; -1 turns g into what the thread prints."""
    optimizer = optax.sgd(printed_sign * 0.1)
    step = training.make_step(NETWORK, rules.l2_loss, optimizer)
    params, state, opt_state, costs = {"w": jnp.asarray(W)}, (), optimizer.init({"w": jnp.asarray(W)}), []
    for _ in range(steps):
        params, state, opt_state, metrics = step(params, state, opt_state, X, Y)
        costs.append(float(metrics["value"]))
    return costs


def jacrev(function: Callable, at: np.ndarray) -> np.ndarray:
    """The Jacobian of a function made of rules, row by row from their own backward passes."""
    return np.asarray(jax.jit(jax.jacrev(function))(at))


def jacobian(x: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """∂Ŷ_ab/∂W_cd: an array of four axes."""
    return jacrev(lambda v: rules.dense(x, v), weights)


def differential(value: Callable, at: tuple, tangents: tuple) -> np.ndarray:
    """The differential of a function made of rules' primals."""
    return np.asarray(jax.jit(lambda: jax.jvp(value, at, tangents)[1])())


def predicted(v: jax.Array) -> jax.Array:
    return rules.dense.primal(X, v)


def cost(v: jax.Array) -> jax.Array:
    """The library's forward pass as a function of W, for the differential of the cost."""
    return rules.l2_loss.primal(predicted(v), Y).sum() / N


def vec(a: np.ndarray) -> np.ndarray:
    """Columns on top of each other, as the texts have it; `np.ravel` stacks rows."""
    return np.ravel(a, order="F")


def test_the_mean_over_examples_divides_in_the_data_s_own_precision() -> None:
    sweep = backprop(layers.dense(1, bias=False), rules.l2_loss, collect=("deltas",))
    for weights in (None, jnp.ones(3, jnp.float32)):
        result = sweep({"w": np.ones((1, 1))}, np.ones((3, 1)), np.zeros((3, 1)), weights=weights)
        assert result.deltas[0, 0] == 1 / 3


# One response: the question.


@pytest.mark.formula("S0-01", "S0-19", "S0-25", "S0-26", "S0-27", "S0-29", "S0-30")
def test_gradient_of_one_response_and_the_sign_of_the_answer() -> None:
    """∂MSE/∂w = Jᵀ ∂MSE/∂ŷ = Xᵀ(Xw-y)/n, as the question has it; the answer prints Xᵀ(y-Xw)/n."""
    out = one()
    gradient = X.T @ (X @ w - y) / N
    assert_gradient(lambda v: half_squares(X @ v, y), w, gradient)
    assert_close(out.activations[:, 0], X @ w)
    assert_close(out.deltas[:, 0], (X @ w - y) / N)
    assert_close(out.grads["w"][:, 0], gradient)
    assert_close(jacobian(X, w[:, None])[:, 0, :, 0].T @ out.deltas[:, 0], gradient)
    assert_differs(out.deltas[:, 0], 2 / (2 * N) * (y - X @ w))
    assert_differs(out.grads["w"][:, 0], X.T @ (y - X @ w) / N)
    assert_close(out.grads["w"][:, 0], -X.T @ (y - X @ w) / N)


@pytest.mark.formula("S0-02", "S0-24")
def test_cost_of_one_response() -> None:
    """MSE = 1/2n Σ_i (ŷ_i-y_i)² = 1/2n εᵀε; without the index i the summand is a vector, n times the same."""
    predictions, epsilon = X @ w, y - X @ w
    assert_close(one().value, np.array(sum((predictions[i] - y[i]) ** 2 for i in range(N)) / (2 * N)))
    assert_close(one().value, epsilon @ epsilon / (2 * N))
    assert (sum((predictions - y) ** 2 for _ in range(N)) / (2 * N)).shape == (N,)


@pytest.mark.formula("S0-03")
def test_the_prediction_sums_over_features_not_over_instances() -> None:
    """ŷ_i = Σ_j x_ij w_j, j ≤ m. With n terms, w_n has to exist, and for n < m features are lost."""
    sums = np.array([sum(X[i, j] * w[j] for j in range(M)) for i in range(N)])
    assert_close(one().activations[:, 0], sums)
    with pytest.raises(IndexError):
        sum(X[0, j] * w[j] for j in range(N))
    few = X[: M - 1]
    out = fit(w[:, None], few, y[: M - 1, None])
    assert_differs(out.activations[:, 0], few[:, : M - 1] @ w[: M - 1])


@pytest.mark.formula("S0-04")
@pytest.mark.parametrize(
    ("loss", "reduction", "convention", "prefactor"),
    [
        (rules.l2_loss, "mean", 1 / (2 * N), 1 / N),
        (rules.squared_error, "mean", 1 / N, 2 / N),
        (rules.l2_loss, "sum", 1 / 2, 1.0),
        (rules.squared_error, "sum", 1.0, 2.0),
    ],
    ids=["1/2n", "1/n", "1/2", "none"],
)
def test_gradient_prefactors(loss: Rule, reduction: str, convention: float, prefactor: float) -> None:
    """Cost 1/2n: gradient 1/n; 1/n: 2/n; ½: 1; none: 2. Per-example values have the ½, never the 1/n."""
    out = fit(W, X, Y, loss, reduction=reduction)
    assert_gradient(lambda v: convention * jnp.sum((X @ v - Y) ** 2), W, out.grads["w"])
    assert_close(out.value, convention * np.sum(E**2))
    assert_close(out.deltas, -prefactor * E)
    assert_close(out.grads["w"], prefactor * X.T @ (X @ W - Y))
    assert_close(out.per_example, prefactor / 2 * (N if reduction == "mean" else 1) * np.sum(E**2, axis=1))


@pytest.mark.formula("S0-06", "S0-07", "S0-08", "S0-09", "S0-10", "S0-11")
def test_the_derivative_by_the_predictions_line_by_line() -> None:
    """½n Σ_j ∂(ŷ_j-y_j)²/∂ŷ_i = 1/n Σ_j (ŷ_j-y_j) ∂(ŷ_j-y_j)/∂ŷ_i = 1/n Σ_j (ŷ_j-y_j) δ_ij = (ŷ_i-y_i)/n."""
    squares = jacrev(lambda v: rules.squared_error(v, y), X @ w)  # [j, i]
    residuals = jacrev(lambda v: v - y, X @ w)
    assert one().value.shape == ()
    assert one().deltas.shape == (N, 1)
    for line in (
        np.array([sum(squares[j, i] for j in range(N)) / (2 * N) for i in range(N)]),
        np.array([sum(r[j] * residuals[j, i] for j in range(N)) / N for i in range(N)]),
        np.array([sum(r[j] * (i == j) for j in range(N)) / N for i in range(N)]),
        np.array([(X[i] @ w - y[i]) / N for i in range(N)]),
        np.concatenate([r[i : i + 1] for i in range(N)]) / N,
    ):
        assert_close(one().deltas[:, 0], line)


@pytest.mark.formula("S0-12", "S0-13")
def test_index_clash_in_the_jacobian() -> None:
    """∂ŷ_j/∂w_i = Σ_k x_jk δ_ki = x_ji. As printed, j is both free and summed: x_ii for every j."""
    for x in (X, SQUARE):
        printed_indices = jacobian(x, w[:, None])[:, 0, :, 0].T  # [i, j]
        entries = [[sum(x[j, k] * (k == i) for k in range(M)) for j in range(len(x))] for i in range(M)]
        assert_close(printed_indices, np.array(entries))
        clash = [sum(x[i, k] * (k == i) for k in range(M)) for i in range(M)]
        assert_differs(printed_indices, np.repeat(np.array(clash)[:, None], len(x), axis=1))


@pytest.mark.formula("S0-14", "S0-15", "S0-20", "S0-28", "C-29")
def test_the_jacobian_is_x_or_its_transpose_by_layout() -> None:
    """Numerator layout, as jax.jacrev: X. Denominator layout: Xᵀ, which is also the map of the pullback."""
    displayed = np.array([[X[j, i] for j in range(N)] for i in range(M)])
    numerator = jacobian(X, w[:, None])[:, 0, :, 0]
    assert_close(numerator, X)
    assert_close(jax.jit(jax.jacfwd(functools.partial(rules.dense.primal, X)))(w[:, None])[:, 0, :, 0], X)
    assert_close(numerator.T, displayed)
    assert displayed.shape != numerator.shape
    square = jacobian(SQUARE, w[:, None])[:, 0, :, 0]
    assert_close(square, SQUARE)
    assert_differs(square, SQUARE.T)
    _, w_ct, _ = rules.dense.bwd(rules.dense.fwd(X, w[:, None])[1], r[:, None])
    assert_close(w_ct[:, 0], X.T @ r)
    # The chain rule: J_g J_f in numerator layout, J_fᵀ J_gᵀ in the other; here g(ŷ) = ½(ŷ-y)², elementwise.
    chained = jacrev(lambda v: rules.l2_loss(rules.dense(X, v)[:, 0], y), w[:, None])
    assert_close(chained[..., 0], np.diag(r) @ X)
    assert_close(chained[..., 0].T, X.T @ np.diag(r))


@pytest.mark.formula("S0-05", "S0-16", "S0-17", "S0-18")
def test_the_chain_rule_and_its_transposes() -> None:
    """∂MSE/∂w_i = Σ_j ∂MSE/∂ŷ_j ∂ŷ_j/∂w_i = (column i of X)ᵀ g: x_ji, not x_ij; one transpose, not two."""
    g, J = one().deltas[:, 0], jacobian(X, w[:, None])[:, 0, :, 0]
    gradient = one().grads["w"][:, 0]
    assert_close(gradient, np.array([sum(g[j] * J[j, i] for j in range(N)) for i in range(M)]))
    assert_close(gradient, np.array([sum(r[j] * X[j, i] for j in range(N)) / N for i in range(M)]))
    for i in range(M):
        assert_close(gradient[i], J[:, i].T @ g)
    assert_close(gradient, X.T @ r / N)
    with pytest.raises(ValueError, match="mismatch"):
        X.T.T @ g
    square = fit(w[:, None], SQUARE, y[:M, None])
    residual = SQUARE @ w - y[:M]
    assert_close(square.grads["w"][:, 0], SQUARE.T @ residual / M)
    assert_differs(
        square.grads["w"][:, 0],
        np.array([sum(residual[j] * SQUARE[i, j] for j in range(M)) for i in range(M)]) / M,
    )
    assert_differs(square.grads["w"][:, 0], SQUARE.T.T @ square.deltas[:, 0])


@pytest.mark.formula("S0-31")
def test_descent_with_the_printed_sign_ascends() -> None:
    """w - η/n Xᵀ(Xw-y) lowers the cost at every step; with the answer's sign each step raises it."""
    down, up = descent(1), descent(-1)
    assert down[0] == up[0]
    assert down[0] > down[1] > down[2]
    assert up[0] < up[1] < up[2]


# The Jacobian by a matrix.


@pytest.mark.formula("S0-21", "S0-22", "S0-36")
def test_three_indices_for_an_instance_and_four_for_a_batch() -> None:
    """∂ŷ_b/∂W_cd = x_c δ_bd; ∂Ŷ_ab/∂W_cd = X_ac δ_bd; the gradient of the cost is a matrix like W."""
    single = jacrev(lambda v: rules.dense(X[0], v), W)
    assert_close(single, np.einsum("c,bd->bcd", X[0], np.eye(K)))
    assert_close(jacobian(X, W), np.einsum("ac,bd->abcd", X, np.eye(K)))
    assert_close(jax.jit(jax.jacfwd(predicted))(W), jacobian(X, W))
    assert (single.ndim, jacobian(X, W).ndim) == (3, 4)
    assert several().grads["w"].shape == (M, K)
    # The texts that write columns have W: (k, m), ŷ = Wx, and so x_d δ_bc.
    columns = jacrev(lambda v: rules.dense(X[0], v.T), W.T)
    assert_close(columns, np.einsum("d,bc->bcd", X[0], np.eye(K)))


@pytest.mark.formula("S0-37", "C-21")
def test_kronecker_products_by_layout() -> None:
    """∂vec Ŷ/∂vec W is I⊗X when vec stacks columns, X⊗I when it stacks rows; not the other way round."""
    rows = jacobian(X, W).reshape(N * K, M * K)
    columns = jacobian(X, W).transpose(1, 0, 3, 2).reshape(N * K, M * K)
    assert_close(rows, np.kron(X, np.eye(K)))
    assert_close(columns, np.kron(np.eye(K), X))
    assert_differs(rows, np.kron(np.eye(K), X))
    assert_differs(columns, np.kron(X, np.eye(K)))
    assert_close(vec(X @ W), np.kron(np.eye(K), X) @ vec(W))
    assert_close(np.ravel(X @ W), np.kron(X, np.eye(K)) @ np.ravel(W))
    # By X the same two layouts are Wᵀ⊗I and I⊗Wᵀ; AXB has Bᵀ⊗A and A⊗Bᵀ.
    a = np.random.default_rng(1).normal(size=(2, N))
    by_x = jacrev(lambda v: rules.dense(v, W), X)
    assert_close(by_x.reshape(N * K, N * M), np.kron(np.eye(N), W.T))
    assert_close(by_x.transpose(1, 0, 3, 2).reshape(N * K, N * M), np.kron(W.T, np.eye(N)))
    both = jacrev(lambda v: rules.matmul(rules.matmul(a, v), W), X)
    assert_close(both.reshape(2 * K, N * M), np.kron(a, W.T))
    assert_close(both.transpose(1, 0, 3, 2).reshape(2 * K, N * M), np.kron(W.T, a))
    # K of vec Xᵀ = K vec X takes one layout to the other.
    commutation = np.eye(N * M)[np.arange(N * M).reshape(M, N).ravel(order="F")]
    assert_close(vec(X.T), commutation @ vec(X))


@pytest.mark.formula("S0-38", "C-22")
def test_the_tensor_is_applied_without_being_formed() -> None:
    """I⊗X is nmk numbers among zeros; the sweep keeps X and δ, n(m+k) of them, and contracts to Xᵀδ."""
    dense = np.kron(np.eye(K), X)
    assert dense.size == N * K * M * K
    assert np.count_nonzero(dense) == N * M * K
    keep = backprop(NETWORK, rules.l2_loss, visit=lambda path, parameter, factor, aux: factor)
    factor = keep({"w": W}, X, Y).collected["w"]
    assert isinstance(factor, Outer)
    assert factor.a.size + factor.delta.size == N * (M + K)
    delta = several().deltas
    assert_close(vec(factor.gradient()), dense.T @ vec(delta))
    assert_close(np.ravel(factor.gradient()), np.kron(X, np.eye(K)).T @ np.ravel(delta))
    # Transpose and product, factor by factor.
    rng = np.random.default_rng(2)
    a, b = rng.normal(size=(M, 2)), rng.normal(size=(K, 2))
    assert_close(np.kron(X, W).T, np.kron(X.T, W.T))
    assert_close(np.kron(X, W) @ np.kron(a, b), np.kron(X @ a, W @ b))


@pytest.mark.formula("S0-23", "S0-45")
def test_three_notations_one_gradient() -> None:
    """Indices and Kronecker's δ, vec and ⊗, differentials: all are what the sweep returns."""
    gradient, delta = several().grads["w"], several().deltas
    assert_close(gradient, np.einsum("ab,ac,bd->cd", delta, X, np.eye(K)))
    assert_close(vec(gradient), np.kron(np.eye(K), X).T @ vec(delta))
    # dMSE = tr(dWᵀ G) for every dW: the unit matrices read off G entry by entry.
    basis = np.eye(M * K).reshape(M * K, M, K)
    entries = jax.jit(jax.vmap(lambda dw: jax.jvp(cost, (W,), (dw,))[1]))(basis)
    assert_close(entries.reshape(M, K), gradient)
    assert_close(differential(cost, (W,), (DW,)), np.trace(DW.T @ gradient))


# Several responses: the answer.


@pytest.mark.formula("S0-43", "C-12")
def test_gradient_of_several_responses_and_its_sign() -> None:
    """∂MSE/∂W = Xᵀ(XW-Y)/n = -XᵀE/n; the answer prints Xᵀ(Y-XW)/n."""
    gradient = X.T @ (X @ W - Y) / N
    assert_gradient(lambda v: half_squares(X @ v, Y), W, gradient)
    assert_close(several().grads["w"], gradient)
    assert_close(several().grads["w"], -X.T @ E / N)
    assert_differs(several().grads["w"], X.T @ (Y - X @ W) / N)
    assert_close(several().x_ct, (X @ W - Y) @ W.T / N)
    assert_close(central_differences(cost, W), several().grads["w"], terms=int(1e-8 / EPS))


@pytest.mark.formula("S0-33", "S0-34")
def test_cost_of_several_responses() -> None:
    """1/2n ‖E‖²_F = 1/2n tr EᵀE: mean over instances, sum over responses. The answer loses the square."""
    assert_close(several().value, np.array(np.linalg.norm(E) ** 2 / (2 * N)))
    assert_close(several().value, np.trace(E.T @ E) / (2 * N))
    assert_close(several().per_example, np.sum(E**2, axis=1) / 2)
    assert_differs(several().value, np.array(np.linalg.norm(E) / (2 * N)))
    assert_differs(several().value, np.trace(E.T @ E) / (2 * N * K))


@pytest.mark.formula("S0-32", "S0-44")
def test_responses_decouple_and_one_is_the_vector_case() -> None:
    """Column b of Ŷ, of δ and of the gradient belong to the model whose w is column b of W."""
    for b in range(K):
        single = fit(W[:, b : b + 1], X, Y[:, b : b + 1])
        assert_close(several().activations[:, b], single.activations[:, 0])
        assert_close(several().deltas[:, b], single.deltas[:, 0])
        assert_close(several().grads["w"][:, b], single.grads["w"][:, 0])
    assert_close(one().grads["w"][:, 0], X.T @ (X @ w - y) / N)


@pytest.mark.formula("S0-35", "S0-39", "S0-40", "S0-41", "S0-42")
def test_the_differential_form_and_its_signs() -> None:
    """dMSE = 1/n tr(dEᵀE) = -1/n tr(dŶᵀE) = -1/n tr(dWᵀXᵀE); in print other signs, and no ᵀ on dW."""
    d_mse = differential(cost, (W,), (DW,))
    d_predictions = differential(predicted, (W,), (DW,))
    d_error = differential(lambda v: Y - predicted(v), (W,), (DW,))
    assert_close(d_error, -d_predictions)
    assert_close(d_error, -X @ DW)
    for corrected in (
        2 / (2 * N) * np.trace(d_error.T @ E),
        -np.trace(d_predictions.T @ E) / N,
        -np.trace(DW.T @ X.T @ E) / N,
    ):
        assert_close(d_mse, corrected)
        assert_differs(d_mse, -corrected)
    assert_close(-2 / (2 * N) * np.trace(d_error.T @ E), np.trace(d_predictions.T @ E) / N)
    with pytest.raises(ValueError, match="matmul"):
        DW @ X.T @ E
    rng = np.random.default_rng(3)
    dw, e = rng.normal(size=(M, M)), rng.normal(size=(N, M))  # m = k: typed, and still another number
    for sign in (1, -1):
        assert_differs(sign * np.trace(dw @ X.T @ e), np.trace(dw.T @ X.T @ e))


def test_the_right_prediction_has_no_gradient() -> None:
    """ŷ = y gives exactly zero; at the closed-form solution XᵀX W = XᵀY it is the products that cancel."""
    exact = fit(W, X, several().activations)
    assert not np.any(exact.grads["w"])
    assert not np.any(exact.deltas)
    assert exact.value == 0
    solution = fit(np.linalg.solve(X.T @ X, X.T @ Y), X, Y)
    assert_close(solution.grads["w"] + X.T @ Y / N, X.T @ Y / N)
    assert solution.value > 0
