"""The cost: ½ and 1/n, one output and many, the expanded form, cross-entropy, a cost of one's own."""

import functools
from collections.abc import Callable

import jax
import numpy as np
import optax
import pytest
from jax import numpy as jnp

from funcbp import backprop, layers, predict, rules

from .networks import computed, forward, half_squares, nonlinear_chain, random_weights, slope, with_sigmas
from .oracles import assert_close, assert_differs, assert_gradient

RNG = np.random.default_rng(2)
WIDTHS = (2, 3, 2)
SIGMAS = ("identity", "tanh", "sin")
WEIGHTS = random_weights(RNG, WIDTHS)
X, Y = RNG.normal(size=(3, 2)), RNG.normal(size=(3, 2))
NETWORK = nonlinear_chain(SIGMAS, WIDTHS)


def prediction() -> np.ndarray:
    """ŷ, in numpy."""
    return forward(SIGMAS, WEIGHTS, X)


@pytest.mark.formula("S2-002", "S2-004")
def test_a_network_is_a_pure_function_of_input_and_weights() -> None:
    """ŷ = f(x; w), and f_w for fixed w: the same under jit, partial and vmap over a family of w."""
    f = predict(NETWORK)
    params = with_sigmas(WEIGHTS)
    out = f(params, X)
    f_w = functools.partial(f, params)
    assert_close(f_w(X), out)
    assert_close(jax.jit(f)(params, X), out)
    family = jax.tree.map(lambda w: jnp.stack([jnp.asarray(w), 2 * jnp.asarray(w)]), params)
    assert_close(jax.vmap(f, (0, None))(family, X)[0], out)
    assert_close(out, forward(SIGMAS, WEIGHTS, X))


@pytest.mark.formula("S2-003")
def test_linear_regression_is_one_dense_layer() -> None:
    """y = w₁x₁ + … + w_nx_n = w·x."""
    w, x = np.array([0.3, -1.2, 0.7]), np.array([1.5, 0.2, -0.4])
    out = predict(layers.dense(1, bias=False))({"w": w[:, None]}, x[None])
    assert_close(out, np.array([[0.3 * 1.5 - 1.2 * 0.2 - 0.7 * 0.4]]))


@pytest.mark.formula("S2-009", "S2-010")
def test_half_squared_error_of_one_example() -> None:
    """½(ŷ - y)²: zero where they agree, more the more they differ; without ½ it is twice that."""
    deviation = np.array([0.0, 0.5, -1.0, 2.0])
    error, _ = rules.l2_loss.fwd(deviation + 0.3, np.full(4, 0.3))
    assert_close(error, np.array([0.0, 0.125, 0.5, 2.0]))
    assert np.all(np.diff(error) > 0)
    assert_close(rules.squared_error.fwd(deviation + 0.3, np.full(4, 0.3))[0], 2 * error)


@pytest.mark.formula("S2-011", "S2-013", "S2-014", "S2-126", "S2-127")
def test_cost_of_a_data_set_is_the_mean_over_n_examples() -> None:
    """C[w] = 1/n Σᵢ₌₁ⁿ ½(ŷ_i - y_i)², summed over outputs; printed with i = 0…n, which is n + 1 terms."""
    n, sweep = len(X), computed(NETWORK, with_sigmas(WEIGHTS), X, Y)
    terms = [
        sum((out - y) ** 2 for out, y in zip(*row, strict=True)) / 2
        for row in zip(prediction(), Y, strict=True)
    ]
    assert_close(sweep.per_example, np.array(terms))
    assert_close(sweep.value, sum(terms) / n)
    extra = np.concatenate([Y[:1] + 1, Y])
    one_more = half_squares(np.concatenate([prediction()[:1], prediction()]), extra) * (n + 1) / n
    assert_differs(one_more, sweep.value)


@pytest.mark.formula("S2-031", "C-36")
def test_gradient_of_a_batch_is_the_mean_of_the_gradients_of_its_examples() -> None:
    """∇C = 1/n Σᵢ ∇C_i, and the mean of the gradients of equal mini-batches."""
    params = with_sigmas(WEIGHTS)
    whole = computed(NETWORK, params, X, Y).grads
    each = [computed(NETWORK, params, X[i : i + 1], Y[i : i + 1]).grads for i in range(3)]
    assert_close(jax.tree.map(lambda *g: sum(g) / 3, *each), whole)
    assert_close(jax.jit(backprop(NETWORK, rules.l2_loss, microbatches=3))(params, X, Y).grads, whole)


@pytest.mark.formula("S2-052", "S2-127")
@pytest.mark.parametrize(
    ("rule", "reduction", "factor"),
    [
        (rules.l2_loss, "mean", lambda n: 1 / n),  # 1/2n Σ
        (rules.squared_error, "mean", lambda n: 2 / n),  # 1/n Σ
        (rules.l2_loss, "sum", lambda n: 1),  # ½ Σ
        (rules.squared_error, "sum", lambda n: 2),  # Σ
    ],
)
def test_prefactors(rule: object, reduction: str, factor: Callable[[int], float]) -> None:
    """Cost with 1/2n, 1/n, ½ or nothing before Σ(ŷ - y)²: gradient with 1/n, 2/n, 1 or 2 before Xᵀ(ŷ - y)."""
    n, w = 3, {"w": WEIGHTS["w01"]["w"][:, :2]}
    sweep = computed(layers.dense(2, bias=False), w, X, Y, rule, reduction=reduction)
    residual = X @ w["w"] - Y
    assert_close(sweep.value, factor(n) / 2 * np.sum(residual**2))
    assert_close(sweep.grads, {"w": factor(n) * X.T @ residual})


@pytest.mark.formula("S2-126", "S2-128", "S2-129", "S2-133", "S2-241")
def test_cost_as_a_product_of_vectors() -> None:
    """C = ½(x₃-y)ᵀ(x₃-y) = ½Σ(x_i-y_i)², a number; "½(q₃-y)²" of a column is none: no product with itself."""
    q, y = prediction()[:1].T, Y[:1].T
    row = (q - y).T
    assert row.shape == (1, 2)
    sweep = computed(NETWORK, with_sigmas(WEIGHTS), X[:1], Y[:1])
    assert_close(sweep.value, (row @ (q - y) / 2)[0, 0])
    assert_close(sweep.value, np.sum((q - y) ** 2) / 2)
    with pytest.raises(ValueError, match="matmul"):
        (q - y) @ (q - y)


@pytest.mark.formula("S2-134", "S2-136", "S2-137", "S2-142")
def test_expanded_square() -> None:
    """½[x₃ᵀx₃ - x₃ᵀy - yᵀx₃ + yᵀy]; x₃ᵀy = yᵀx₃ = a₁b₁ + … + a_nb_n, hence a factor 2."""
    q, y = prediction()[0], Y[0]
    expanded = (q @ q - q @ y - y @ q + y @ y) / 2
    assert_close(computed(NETWORK, with_sigmas(WEIGHTS), X[:1], Y[:1]).value, expanded)
    assert_close(q @ y, q[0] * y[0] + q[1] * y[1])
    assert_close(q @ y, y @ q)
    assert_close(expanded, (q @ q - 2 * y @ q + y @ y) / 2)


# ½qᵀq - yᵀq and its derivative q - y: ½(q-y)ᵀ(q-y) without the constant.
DROPPED = (lambda q, y: jnp.sum(q * q / 2 - y * q, axis=-1), lambda q, y: q - y)


@pytest.mark.formula("S2-135", "S2-138", "S2-140", "S2-216", "S2-242", "S2-243")
def test_the_dropped_constant() -> None:
    """C′ = ½q₃ᵀq₃ - yᵀq₃ = C - ½yᵀy has the gradients of C; printed C - yᵀy is off by half of it."""
    whole = computed(NETWORK, with_sigmas(WEIGHTS), X[:1], Y[:1])
    dropped = computed(NETWORK, with_sigmas(WEIGHTS), X[:1], Y[:1], DROPPED)
    assert_close(dropped.grads, whole.grads)
    assert_close(dropped.deltas, whole.deltas)
    assert_close(dropped.value, whole.value - Y[0] @ Y[0] / 2)
    assert_differs(dropped.value, whole.value - Y[0] @ Y[0])


@pytest.mark.formula("S2-139", "S2-243")
def test_the_quadratic_and_the_linear_term() -> None:
    """½x₃ᵀx₃ - yᵀx₃; printed once as ½x₃ᵀy - yᵀx₃, and once with +yᵀq₃ for the linear term."""
    q, y = prediction()[0], Y[0]
    value = computed(NETWORK, with_sigmas(WEIGHTS), X[:1], Y[:1], DROPPED).value
    assert_close(value, q @ q / 2 - y @ q)
    assert_differs(q @ y / 2 - y @ q, value)
    assert_differs(q @ q / 2 + y @ q, value)


@pytest.mark.formula("S2-141")
@pytest.mark.parametrize("constant", [0.5, 1.0])
def test_a_constant_does_not_move_the_minimum(constant: float) -> None:
    """arg min f = arg min (f - c): the same weights on a line through them, for ½yᵀy and for yᵀy."""
    costs = np.array(
        [half_squares(forward(None, {"w01": {"w": t * np.eye(2)}}, X), Y) for t in np.linspace(-1, 1, 21)]
    )
    assert np.argmin(costs - constant * np.sum(Y**2)) == np.argmin(costs)


@pytest.mark.formula("S2-006")
def test_cross_entropy_is_the_negative_log_likelihood(rng: np.random.Generator) -> None:
    """-Σ_k y_k log q_k with q = softmax(p); with a one-hot label, -log q_label."""
    logits, labels = rng.normal(size=(3, 4)), np.array([2, 0, 3])
    q = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    one_hot = np.eye(4)[labels]
    expected = -np.log(q[np.arange(3), labels])
    assert_close(jax.jit(rules.softmax_cross_entropy.primal)(logits, one_hot), expected)
    assert_close(jax.jit(rules.softmax_cross_entropy_with_integer_labels.primal)(logits, labels), expected)
    assert_close(-np.sum(one_hot * np.log(q), axis=1), expected)


@pytest.mark.formula("C-15", "C-16", "S2-007")
@pytest.mark.parametrize("total", [1.0, 1.7])
def test_delta_of_softmax_with_cross_entropy(rng: np.random.Generator, total: float) -> None:
    """δ₀ = Jᵀ(-y ⊘ q) with J = Diag(q) - qqᵀ, which is (Σy) q - y; "⊙ σ′", the diagonal alone, is wrong."""
    p, y = rng.normal(size=(1, 4)), rng.dirichlet(np.ones(4))[None] * total
    q = (np.exp(p) / np.exp(p).sum())[0]
    jacobian = np.diag(q) - np.outer(q, q)
    assert_close(jax.jit(jax.jacobian(lambda p: rules.softmax(p)))(p[0]), jacobian)
    (through_softmax,) = rules.softmax.bwd(jnp.asarray(q)[None], -y / q)
    assert_close(through_softmax, jacobian.T @ (-y / q)[0] * np.ones((1, 1)))
    assert_close(through_softmax, y.sum() * q[None] - y)
    sweep = computed(
        layers.chain(p=layers.dense(4, bias=False)),
        {"p": {"w": np.eye(4)}},
        p,
        y,
        rules.softmax_cross_entropy,
    )
    assert_close(sweep.deltas["p"], y.sum() * q[None] - y)
    assert_differs(-y / q * np.diag(jacobian), sweep.deltas["p"])


@pytest.mark.formula("C-17")
def test_delta_of_logistic_with_binary_cross_entropy(rng: np.random.Generator) -> None:
    """δ₀ = ∇_q c ⊙ q(1-q) = q - y: σ′ cancels."""
    p, y = rng.normal(size=(1, 3)), rng.uniform(size=(1, 3))
    q = 1 / (1 + np.exp(-p))
    sweep = computed(
        layers.chain(p=layers.dense(3, bias=False)),
        {"p": {"w": np.eye(3)}},
        p,
        y,
        rules.sigmoid_binary_cross_entropy,
    )
    assert_close(sweep.deltas["p"], q - y)
    assert_close(sweep.deltas["p"], (-y / q + (1 - y) / (1 - q)) * q * (1 - q))


COSTS = {
    "log-cosh": (lambda q, y: jnp.log(jnp.cosh(q - y)), lambda q, y: jnp.tanh(q - y)),
    "Huber": (lambda q, y: optax.losses.huber_loss(q, y, delta=0.7), lambda q, y: jnp.clip(q - y, -0.7, 0.7)),
    "fourth power": (lambda q, y: (q - y) ** 4 / 4, lambda q, y: (q - y) ** 3),
}


@pytest.mark.formula("S2-007", "S2-008", "C-19")
@pytest.mark.parametrize("name", COSTS)
def test_a_cost_of_ones_own_changes_the_first_delta_only(name: str) -> None:
    """δ₀ = ∇_q c ⊙ σ_L′(p_L); below that the recurrence is what it was."""
    value, derivative = COSTS[name]
    n, sweep = len(X), computed(NETWORK, with_sigmas(WEIGHTS), X, Y, COSTS[name])
    p1, p2 = (np.asarray(sweep.activations[name]) for name in ("w01", "w12"))
    d0 = np.asarray(derivative(prediction(), Y)) / n * slope("sin", p2)
    d1 = d0 @ WEIGHTS["w12"]["w"].T * slope("tanh", p1)
    assert_close({"w12": sweep.deltas["w12"], "w01": sweep.deltas["w01"]}, {"w12": d0, "w01": d1})
    grads = {name: sweep.grads[name] for name in WEIGHTS}
    assert_gradient(lambda w: jnp.sum(value(forward(SIGMAS, w, X), Y)) / n, WEIGHTS, grads)
