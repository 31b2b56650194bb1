"""One node a layer: x₀ → x₁ → x₂ → x₃ (section I), and with a σ at every node (section II)."""

import functools

import jax
import numpy as np
import pytest
from jax import numpy as jnp

from funcbp import Sweep, predict, rules

from .networks import (
    SIGMA,
    forward,
    from_output,
    half_squares,
    linear_chain,
    nonlinear_chain,
    random_weights,
    run,
    sigma,
    slope,
    with_sigmas,
)
from .oracles import assert_close, assert_differs, assert_gradient

W01, W12, W23, X0, Y = 0.7, -1.3, 0.9, 1.1, 0.4
SIGMAS = ("softplus", "tanh", "sin", "sigmoid")


def column(value: float) -> np.ndarray:
    return np.array([[value]])


WEIGHTS = {name: {"w": column(w)} for name, w in (("w01", W01), ("w12", W12), ("w23", W23))}
X1, X2, X3 = W01 * X0, W12 * W01 * X0, W23 * W12 * W01 * X0


@functools.cache
def linear() -> Sweep:
    return run(linear_chain((1,) * 4), WEIGHTS, column(X0), column(Y))


@functools.cache
def nonlinear(sigmas: tuple[str, ...] = SIGMAS, y: float = Y) -> Sweep:
    return run(nonlinear_chain(sigmas, (1,) * 4), with_sigmas(WEIGHTS), column(X0), column(y))


def number(array: jax.Array) -> float:
    assert array.size == 1
    return float(array.reshape(()))


@pytest.mark.formula("S2-038", "S2-039", "S2-040", "S2-041", "S2-042", "S2-043", "S2-054")
def test_forward_chain_of_the_linear_network() -> None:
    """x₁ = w₀₁x₀, x₂ = w₁₂x₁, ŷ = x₃ = w₂₃x₂; w_ij takes node i to node j."""
    out = linear().activations
    expected = {"w01": column(X1), "w12": column(X2), "w23": column(X3)}
    assert_close(out, expected)
    assert_close(predict(linear_chain((1,) * 4))(WEIGHTS, column(X0)), column(W23 * (W12 * (W01 * X0))))


@pytest.mark.formula("S2-044")
def test_a_linear_network_is_one_weight() -> None:
    """x₃ = w_c x₀ with w_c = w₂₃w₁₂w₀₁."""
    collapsed = {"w01": {"w": column(W23 * W12 * W01)}}
    one, three = linear_chain((1, 1)), linear_chain((1,) * 4)
    assert_close(predict(one)(collapsed, column(X0)), predict(three)(WEIGHTS, column(X0)))


@pytest.mark.formula("S2-045", "S2-079")
@pytest.mark.parametrize(("sigmas", "is_linear"), [(("identity",) * 4, True), (SIGMAS, False)])
def test_only_without_a_nonlinear_activation_is_a_network_linear(sigmas: tuple, is_linear: bool) -> None:
    """g(a x + b y) = a g(x) + b g(y) for a stack of linear nodes; one nonlinear σ breaks it."""
    g = functools.partial(predict(nonlinear_chain(sigmas, (1,) * 4)), with_sigmas(WEIGHTS))
    a, b, x, y = 2.0, -0.7, column(X0), column(0.3)
    check = assert_close if is_linear else assert_differs
    check(g(a * x + b * y), a * g(x) + b * g(y))


@pytest.mark.formula("S2-080", "S2-081", "S2-158")
def test_the_definition_of_linear() -> None:
    """αx is linear; √x is not (√13 ≠ 5), and by that definition neither is αx + b, though its slope is α."""
    a, b, x, y, alpha, intercept = 2.0, -0.7, 1.1, 0.3, 1.7, 0.9
    assert_close(np.array(alpha * (a * x + b * y)), np.array(a * (alpha * x) + b * (alpha * y)))
    assert np.sqrt(4) + np.sqrt(9) == 5
    assert np.sqrt(4 + 9) != 5
    assert_gradient(lambda t: alpha * t + intercept, np.array(x), np.array(alpha))
    affine = alpha * (a * x + b * y) + intercept
    assert_differs(np.array(affine), np.array(a * (alpha * x + intercept) + b * (alpha * y + intercept)))


@pytest.mark.formula("S2-046", "S2-047")
def test_cost_of_the_linear_network() -> None:
    """C = ½(x₃ - y)² = ½(w₂₃w₁₂w₀₁x₀ - y)²."""
    assert_close(linear().value, np.array((X3 - Y) ** 2 / 2))
    assert_close(linear().value, np.array(0.5 * (W23 * W12 * W01 * X0 - Y) ** 2))


@pytest.mark.formula("S2-048", "S2-049", "S2-050", "S2-051", "S2-056")
def test_derivatives_of_the_linear_network() -> None:
    """∂C/∂w₂₃ = (x₃-y)w₁₂w₀₁x₀, ∂C/∂w₁₂ = (x₃-y)w₂₃w₀₁x₀, ∂C/∂w₀₁ = (x₃-y)w₂₃w₁₂x₀: one for each weight."""
    expected = {
        "w01": {"w": column((X3 - Y) * W23 * W12 * X0)},
        "w12": {"w": column((X3 - Y) * W23 * W01 * X0)},
        "w23": {"w": column((X3 - Y) * W12 * W01 * X0)},
    }
    assert_close(linear().grads, expected)
    assert_gradient(lambda w: half_squares(forward(None, w, column(X0)), column(Y)), WEIGHTS, expected)


@pytest.mark.formula("S2-052")
def test_the_half_cancels_the_two() -> None:
    """Without ½ every derivative has a factor 2, which ½ takes away."""
    doubled = run(linear_chain((1,) * 4), WEIGHTS, column(X0), column(Y), rules.squared_error)
    assert_close(doubled.grads, jax.tree.map(lambda g: 2 * g, linear().grads))
    assert_close(doubled.value, 2 * linear().value)


@pytest.mark.formula("S2-053", "S2-098")
@pytest.mark.parametrize("sigmas", [("identity",) * 4, SIGMAS])
def test_derivatives_are_proportional_to_the_deviation(sigmas: tuple[str, ...]) -> None:
    """Every derivative is (ŷ - y) times something without y; a right prediction has none at all."""
    prediction = number(predict(nonlinear_chain(sigmas, (1,) * 4))(with_sigmas(WEIGHTS), column(X0)))
    each = [nonlinear(sigmas, y).grads for y in (Y, -2.0)]
    scaled = jax.tree.map(lambda g: g * (prediction - Y) / (prediction + 2.0), each[1])
    assert_close(scaled, each[0])
    right = run(nonlinear_chain(sigmas, (1,) * 4), with_sigmas(WEIGHTS), column(X0), column(prediction))
    assert all(number(g) == 0 for g in jax.tree.leaves(right.grads))
    assert number(right.value) == number(right.x_ct) == 0


@pytest.mark.formula("S2-098")
def test_a_saturated_node_has_no_derivatives_though_the_prediction_is_wrong() -> None:
    """The converse fails: σ₁′ = 0 makes every derivative left of it zero, whatever ŷ - y is."""
    weights = WEIGHTS | {"w01": {"w": column(1e4)}}
    sweep = run(
        nonlinear_chain(("identity", "tanh", "sin", "sigmoid"), (1,) * 4),
        with_sigmas(weights),
        column(X0),
        column(Y),
    )
    assert number(sweep.value) > 0
    assert number(sweep.grads["w01"]["w"]) == 0


@pytest.mark.formula("S2-033", "S2-055", "S2-059", "S2-060", "S2-061", "S2-062", "S2-063")
def test_backward_chain_of_the_linear_network() -> None:
    """δ₀ = x₃ - y, δ₁ = w₂₃δ₀, δ₂ = w₁₂δ₁, δ₃ = w₀₁δ₂: ∂C/∂ of x₃, x₂, x₁ and, never used there, x₀."""
    d0 = X3 - Y
    d1 = W23 * d0
    d2 = W12 * d1
    d3 = W01 * d2
    written_out = (X3 - Y, W23 * (X3 - Y), W12 * W23 * (X3 - Y), W01 * W12 * W23 * (X3 - Y))
    assert_close(from_output(linear()), [column(d) for d in (d0, d1, d2, d3)])
    assert_close(from_output(linear()), [column(d) for d in written_out])
    assert_gradient(lambda x: (x - Y) ** 2 / 2, np.array(X3), np.array(d0))
    assert_gradient(lambda x: (W23 * x - Y) ** 2 / 2, np.array(X2), np.array(d1))
    assert_gradient(lambda x: (W23 * W12 * x - Y) ** 2 / 2, np.array(X1), np.array(d2))
    assert_gradient(lambda x: (W23 * W12 * W01 * x - Y) ** 2 / 2, np.array(X0), np.array(d3))


@pytest.mark.formula("S2-064", "S2-065", "S2-066", "S2-067", "S2-068")
@pytest.mark.parametrize("i", [0, 1, 2])
def test_index_pattern_of_three_weights(i: int) -> None:
    """∂C/∂w_{i,i+1} = δ_A x_B with A + B = 2 and B = i the source: δ₀x₂, δ₁x₁, δ₂x₀."""
    deltas, x = from_output(linear()), (X0, X1, X2)
    assert_close(linear().grads[f"w{i}{i + 1}"]["w"], deltas[2 - i] * x[i])


@pytest.mark.formula("S2-070")
@pytest.mark.parametrize("hidden", range(6))
def test_index_pattern_of_any_depth(hidden: int) -> None:
    """∂C/∂w_{i,i+1} = δ_{H-i} x_i, H the number of hidden layers."""
    widths = (1,) * (hidden + 2)
    weights = random_weights(np.random.default_rng(hidden), widths)
    sweep = run(linear_chain(widths), weights, column(X0), column(Y))
    x = [column(X0), *sweep.activations.values()]
    deltas = from_output(sweep)
    expected = {f"w{i}{i + 1}": {"w": deltas[hidden - i] * x[i]} for i in range(hidden + 1)}
    assert len(deltas) == hidden + 2
    assert_close(sweep.grads, expected)
    assert_gradient(lambda w: half_squares(forward(None, w, column(X0)), column(Y)), weights, expected)


@pytest.mark.formula("S2-058")
@pytest.mark.parametrize(("name", "w"), [("w01", W01), ("w12", W12), ("w23", W23)])
def test_the_red_factor_is_the_missing_one(name: str, w: float) -> None:
    """Printed (x₃-y)w₂₃w₁₂w₀₁x₀ for every weight, with that weight in red: it is to be left out."""
    with_red = (X3 - Y) * W23 * W12 * W01 * X0
    assert_differs(column(with_red), linear().grads[name]["w"])
    assert_close(column(with_red / w), linear().grads[name]["w"])


@pytest.mark.formula("S2-069")
def test_the_two_is_the_number_of_hidden_layers_not_of_hidden_nodes() -> None:
    """With one node a layer both are 2; with three nodes in each hidden layer δ_{6-i} does not exist."""
    widths = (1, 3, 3, 1)
    weights = random_weights(np.random.default_rng(0), widths)
    sweep = run(linear_chain(widths), weights, column(X0), column(Y))
    deltas, x = from_output(sweep), [column(X0), *sweep.activations.values()]
    for i in range(3):
        assert_close(sweep.grads[f"w{i}{i + 1}"]["w"], x[i].T @ deltas[2 - i])
        with pytest.raises(IndexError):
            deltas[6 - i]


# Section II. p₀ = x₀; the closed forms below are in p and q as the text writes them.
S0, S1, S2, S3 = SIGMAS


@functools.cache
def values() -> dict[str, float]:
    """p₀ … q₃ and the σ′, from the definitions."""
    out, p = {}, X0
    for i, (name, w) in enumerate(zip(SIGMAS, (W01, W12, W23, 1.0), strict=True)):
        q = float(sigma(name, p))
        out |= {f"p{i}": p, f"q{i}": q, f"s{i}": float(slope(name, np.array(p)))}
        p = w * q
    return out


@pytest.mark.formula("S2-083", "S2-084", "S2-086", "S2-087", "S2-088", "S2-089", "S2-091", "S2-100")
def test_forward_chain_with_activations() -> None:
    """p₀ = x₀, q_i = σ_i(p_i), p_{i+1} = w_{i,i+1}q_i: all there by name, with σ₀ on the raw input."""
    q0 = float(sigma(S0, X0))
    q1 = float(sigma(S1, W01 * q0))
    q2 = float(sigma(S2, W12 * q1))
    q3 = float(sigma(S3, W23 * q2))
    names = ("sigma0", "w01", "sigma1", "w12", "sigma2", "w23", "sigma3")
    expected = dict(zip(names, (q0, W01 * q0, q1, W12 * q1, q2, W23 * q2, q3), strict=True))
    assert_close(nonlinear().activations, {name: column(value) for name, value in expected.items()})
    nested = sigma(S3, W23 * sigma(S2, W12 * sigma(S1, W01 * sigma(S0, X0))))
    assert_close(
        predict(nonlinear_chain(SIGMAS, (1,) * 4))(with_sigmas(WEIGHTS), column(X0)), column(float(nested))
    )


@pytest.mark.formula("S2-092", "S2-093")
def test_cost_with_activations() -> None:
    """C = ½(q₃ - y)²."""
    assert_close(nonlinear().value, np.array((values()["q3"] - Y) ** 2 / 2))


@pytest.mark.formula("S2-094", "S2-095", "S2-096", "S2-111", "S2-112", "S2-113")
def test_derivatives_with_activations() -> None:
    """∂C/∂w₂₃ = (q₃-y)σ₃′σ₂(p₂), ∂C/∂w₁₂ = (q₃-y)σ₃′w₂₃σ₂′σ₁(p₁), ∂C/∂w₀₁ = (q₃-y)σ₃′w₂₃σ₂′w₁₂σ₁′σ₀(p₀)."""
    v = values()
    expected = {
        "w01": {"w": column((v["q3"] - Y) * v["s3"] * W23 * v["s2"] * W12 * v["s1"] * v["q0"])},
        "w12": {"w": column((v["q3"] - Y) * v["s3"] * W23 * v["s2"] * v["q1"])},
        "w23": {"w": column((v["q3"] - Y) * v["s3"] * v["q2"])},
    }
    grads = {name: nonlinear().grads[name] for name in WEIGHTS}
    assert_close(grads, expected)
    assert_gradient(lambda w: half_squares(forward(SIGMAS, w, column(X0)), column(Y)), WEIGHTS, expected)


@pytest.mark.formula("S2-097")
@pytest.mark.parametrize("name", SIGMA)
def test_sigma_prime_is_the_derivative_of_sigma(name: str) -> None:
    """σ′(p) = dσ/dp, for every σ that these tests use."""
    p = np.linspace(-2.1, 2.3, 9)
    assert_gradient(lambda p: jnp.sum(sigma(name, p)), p, slope(name, p))


@pytest.mark.formula("S2-101")
def test_backward_chains_with_activations() -> None:
    """(q₃-y), ·σ₃′, ·w₂₃, ·σ₂′, ·w₁₂, ·σ₁′, ·w₀₁, ·σ₀′ are ∂C/∂ of q₃, p₃, q₂, p₂, q₁, p₁, q₀, p₀."""
    v, sweep = values(), nonlinear()
    factors = (v["q3"] - Y, v["s3"], W23, v["s2"], W12, v["s1"], W01, v["s0"])
    names = ("sigma3", "w23", "sigma2", "w12", "sigma1", "w01", "sigma0")
    found = [*(sweep.cotangents[name] for name in names), sweep.x_ct]
    assert_close(found, [column(c) for c in np.cumprod(factors)])


@pytest.mark.formula("S2-090", "S2-099", "S2-102")
def test_identity_activations_recover_the_linear_network() -> None:
    """σ_i = id, id′ = 1: p_i = q_i and all of section I; each backward chain comes twice."""
    same, plain = nonlinear(("identity",) * 4), linear()
    assert_close({name: same.grads[name] for name in WEIGHTS}, plain.grads)
    assert_close(from_output(same), from_output(plain))
    for i in range(3):
        assert_close(same.activations[f"w{i}{i + 1}"], same.activations[f"sigma{i + 1}"])
        assert_close(same.cotangents[f"w{i}{i + 1}"], same.cotangents[f"sigma{i + 1}"])


@pytest.mark.formula("S2-103")
@pytest.mark.parametrize(("name", "w"), [("w01", W01), ("w12", W12), ("w23", W23)])
def test_the_red_factor_is_missing_with_activations_too(name: str, w: float) -> None:
    """Printed with the weight itself, in red, among the factors: it is to be left out."""
    found = number(nonlinear().grads[name]["w"])
    before = number(nonlinear().deltas[name])
    source = {"w01": values()["q0"], "w12": values()["q1"], "w23": values()["q2"]}[name]
    assert_close(np.array(found), np.array(before * source))
    assert_differs(np.array(before * w * source), np.array(found))


@pytest.mark.formula("S2-104", "S2-105", "S2-107", "S2-109")
def test_deltas_with_activations_written_out() -> None:
    """δ₀ = (q₃-y)σ₃′(p₃) now holds σ₃′; δ₁, δ₂ and δ₃ = ∂C/∂x₀ as products of everything right of them."""
    v = values()
    d0 = (v["q3"] - Y) * v["s3"]
    d1 = (v["q3"] - Y) * v["s3"] * W23 * v["s2"]
    d2 = (v["q3"] - Y) * v["s3"] * W23 * v["s2"] * W12 * v["s1"]
    d3 = (v["q3"] - Y) * v["s3"] * W23 * v["s2"] * W12 * v["s1"] * W01 * v["s0"]
    assert_close(from_output(nonlinear()), [column(d) for d in (d0, d1, d2, d3)])
    assert_gradient(lambda x: half_squares(forward(SIGMAS, WEIGHTS, x), column(Y)), column(X0), column(d3))


@pytest.mark.parametrize(
    ("k", "w", "i"),
    [
        pytest.param(1, W23, 2, marks=pytest.mark.formula("S2-106")),
        pytest.param(2, W12, 1, marks=pytest.mark.formula("S2-108")),
        pytest.param(3, W01, 0, marks=pytest.mark.formula("S2-110")),
    ],
)
def test_delta_recurrence(k: int, w: float, i: int) -> None:
    """δ_k = δ_{k-1} w σ_i′(p_i) with the σ of that very node; printed without an index, it is another's."""
    deltas, v = from_output(nonlinear()), values()
    assert_close(deltas[k], deltas[k - 1] * w * v[f"s{i}"])
    of_the_output = float(slope(S3, np.array(v[f"p{i}"])))
    assert_differs(deltas[k - 1] * w * of_the_output, deltas[k])


@pytest.mark.formula("S2-114")
@pytest.mark.parametrize("i", [0, 1, 2])
def test_index_pattern_with_activations(i: int) -> None:
    """∂C/∂w_{i,i+1} = δ_{2-i} q_i."""
    grad = nonlinear().grads[f"w{i}{i + 1}"]["w"]
    assert_close(grad, from_output(nonlinear())[2 - i] * values()[f"q{i}"])


@pytest.mark.formula("S2-115")
def test_q_alone_is_not_enough_for_the_backward_pass() -> None:
    """p² and sin p repeat at points where their slopes differ, so p must be kept; tanh′ is 1 - q²."""
    for rule, p in ((rules.square, (1.5, -1.5)), (rules.sin, (0.4, np.pi - 0.4))):
        p = jnp.array(p)
        (q, residuals), ones = rule.fwd(p), jnp.ones(2)
        assert_close(q[0], q[1])
        (p_ct,) = rule.bwd(residuals, ones)
        assert_close(p_ct, slope(rule.name, p))
        assert_differs(p_ct[0], p_ct[1])
        assert rule.saves == "p"
    assert rules.tanh.saves == rules.sigmoid.saves == "q"
