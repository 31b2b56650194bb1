"""Section IV: several nodes a layer and a σ at every node. The text leaves it unfinished; finished here."""

import functools
import itertools
from typing import Any

import jax
import numpy as np
import pytest
from jax import numpy as jnp

from funcbp import Sweep, layers, predict, rules

from .networks import (
    SIGMA,
    computed,
    forward,
    from_output,
    half_squares,
    linear_chain,
    nonlinear_chain,
    random_weights,
    sigma,
    slope,
    with_sigmas,
)
from .oracles import assert_close, assert_differs, assert_gradient

RNG = np.random.default_rng(5)
WIDTHS = (4, 3, 5, 2)
SIGMAS = ("softplus", "tanh", "sin", "sigmoid")
WEIGHTS = random_weights(RNG, WIDTHS)
W = [layer["w"].T for layer in WEIGHTS.values()]
X0, Y = RNG.normal(size=(4, 1)), RNG.normal(size=(2, 1))


@functools.cache
def sweep(sigmas: tuple[str, ...] = SIGMAS) -> Sweep:
    return computed(nonlinear_chain(sigmas, WIDTHS), with_sigmas(WEIGHTS), X0.T, Y.T)


@functools.cache
def chains() -> tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]]:
    """p_i, q_i and σ_i′(p_i), columns, from the definitions."""
    p, q = [X0], [np.asarray(sigma(SIGMAS[0], X0))]
    for i in range(3):
        p.append(W[i] @ q[i])
        q.append(np.asarray(sigma(SIGMAS[i + 1], p[-1])))
    return p, q, [slope(name, each) for name, each in zip(SIGMAS, p, strict=True)]


@pytest.mark.formula("S2-237", "S2-244")
def test_forward_chain() -> None:
    """p₀ = x₀, q_i = σ_i(p_i), p_{i+1} = W_{i,i+1}q_i; q₃ = σ₃(W₂₃σ₂(W₁₂σ₁(W₀₁σ₀(p₀))))."""
    p, q, _ = chains()
    expected = {f"sigma{i}": q[i].T for i in range(4)} | {f"w{i}{i + 1}": p[i + 1].T for i in range(3)}
    assert_close(sweep().activations, expected)
    s0, s1, s2, s3 = (functools.partial(sigma, name) for name in SIGMAS)
    nested = s3(W[2] @ s2(W[1] @ s1(W[0] @ s0(X0))))
    assert_close(jax.jit(predict(nonlinear_chain(SIGMAS, WIDTHS)))(with_sigmas(WEIGHTS), X0.T), nested.T)


@pytest.mark.formula("S2-236", "S2-284", "C-06", "C-07")
def test_the_unfinished_summary() -> None:
    """Δ₀ = (q₃-y)⊙σ₃′, Δ₁ = W₂₃ᵀΔ₀⊙σ₂′, Δ₂ = W₁₂ᵀΔ₁⊙σ₁′, Δ₃ = W₀₁ᵀΔ₂⊙σ₀′ = ∂C/∂x₀; δC/δW = Δ_{2-i}q_iᵀ."""
    _, q, slopes = chains()
    d0 = (q[3] - Y) * slopes[3]
    d1 = W[2].T @ d0 * slopes[2]
    d2 = W[1].T @ d1 * slopes[1]
    d3 = W[0].T @ d2 * slopes[0]
    deltas = (d0, d1, d2, d3)
    assert_close([d.T for d in from_output(sweep())], list(deltas))
    expected = {f"w{i}{i + 1}": {"w": (deltas[2 - i] @ q[i].T).T} for i in range(3)}
    assert_close({name: sweep().grads[name] for name in WEIGHTS}, expected)
    assert_gradient(lambda w: half_squares(forward(SIGMAS, w, X0.T), Y.T), WEIGHTS, expected)
    assert_gradient(lambda x: half_squares(forward(SIGMAS, WEIGHTS, x.T), Y.T), X0, d3)


@pytest.mark.formula("S2-067", "S2-114", "S2-234", "C-07")
def test_dictionary_of_the_indices() -> None:
    """The text counts δ's from the output, the library names the layer: δ_k there is δ of layer 3 - k here.

    Hence δC/δW_{i,i+1} = Δ_{2-i}q_iᵀ there is q_iᵀ δ_{i+1} here, with the δ of the layer that W leads to.
    """
    counted, found = from_output(sweep()), sweep()
    for k, name in enumerate(("w23", "w12", "w01")):
        assert counted[k] is found.deltas[name]
        assert_close(found.deltas[name], found.cotangents[name])
    assert counted[3] is found.x_ct
    assert [name for name in found.deltas if found.deltas[name] is None] == [f"sigma{i}" for i in range(4)]
    for i in range(3):
        name = f"w{i}{i + 1}"
        assert_close(found.grads[name]["w"], found.activations[f"sigma{i}"].T @ found.deltas[name])


DEPTHS = [
    (1, "squares"),
    (2, "cross-entropy"),
    (3, "squares"),
    (6, "cross-entropy"),
]


@pytest.mark.formula("C-09", "C-10", "C-11", "C-12", "C-18")
@pytest.mark.parametrize(("depth", "loss"), DEPTHS)
def test_any_depth_with_bias_and_batch(depth: int, loss: str) -> None:
    """Δ₀ = 1/N (Q_L-Y)⊙σ_L′ or 1/N (softmax(P_L)-Y), Δ_{k+1} = WᵀΔ_k⊙σ′; δC/δW = Δ_{H-i}Q_iᵀ, δC/δb = Δ1.
    In columns as the text has it, (n, N), and in rows as the library: Δ_{k+1} = Δ_kWᵀ⊙σ′, δC/δW = QᵀΔ.
    """
    rng, n = np.random.default_rng(depth), 3
    widths = tuple(int(w) for w in rng.integers(1, 5, depth + 1))
    widths = (*widths[:-1], max(widths[-1], 2))
    sigmas = [*(str(s) for s in rng.choice(list(SIGMA), depth)), "tanh" if loss == "squares" else "identity"]
    weights, x = random_weights(rng, widths, bias=True), rng.normal(size=(n, widths[0]))
    y = rng.normal(size=(n, widths[-1])) if loss == "squares" else rng.dirichlet(np.ones(widths[-1]), n)
    rule = rules.l2_loss if loss == "squares" else rules.softmax_cross_entropy
    network = nonlinear_chain(sigmas, widths, bias=True)
    found = computed(network, with_sigmas(weights), x, y, rule)

    P, Q = [x.T], [np.asarray(sigma(sigmas[0], x.T))]
    for i in range(depth):
        layer = weights[f"w{i}{i + 1}"]
        P.append(layer["w"].T @ Q[i] + layer["b"][:, None] @ np.ones((1, n)))
        Q.append(np.asarray(sigma(sigmas[i + 1], P[-1])))
    slopes = [slope(name, p) for name, p in zip(sigmas, P, strict=True)]
    softmax = np.exp(P[-1]) / np.exp(P[-1]).sum(0)
    deltas = [(Q[-1] - y.T) * slopes[-1] / n if loss == "squares" else (softmax - y.T) / n]
    for i in reversed(range(depth)):
        deltas.append(weights[f"w{i}{i + 1}"]["w"] @ deltas[-1] * slopes[i])
    assert_close([d.T for d in from_output(found)], deltas)
    hidden, columns, rows = depth - 1, {}, {}
    for i in range(depth):
        d = deltas[hidden - i]
        columns[f"w{i}{i + 1}"] = {"w": (d @ Q[i].T).T, "b": (d @ np.ones((n, 1)))[:, 0]}
        rows[f"w{i}{i + 1}"] = {"w": Q[i] @ d.T, "b": d.T.sum(0)}
    grads = {name: found.grads[name] for name in weights}
    assert_close(grads, columns)
    assert_close(grads, rows)

    def value(w: Any) -> jax.Array:
        out = forward(sigmas, w, x)
        return half_squares(out, y) if loss == "squares" else -jnp.sum(y * jax.nn.log_softmax(out)) / n

    assert_gradient(value, weights, columns)


@pytest.mark.formula("C-10")
def test_a_bias_is_the_weight_of_a_constant_node() -> None:
    """p = Wq + b = [W b][q; 1]: δC/δb is the last column of that matrix's gradient."""
    x, y, w, b = X0.T, Y.T, RNG.normal(size=(4, 2)), RNG.normal(size=2)
    with_bias = computed(layers.dense(2), {"w": w, "b": b}, x, y)
    joined = computed(layers.dense(2, bias=False), {"w": np.vstack([w, b])}, np.hstack([x, [[1.0]]]), y)
    assert_close(np.vstack([with_bias.grads["w"], with_bias.grads["b"]]), joined.grads["w"])


@pytest.mark.formula("S2-085")
def test_a_different_activation_at_every_node() -> None:
    """σ_i may differ from node to node, not only from layer to layer: Δ⊙σ′ takes each node's own."""
    sigmas = ("identity", ("tanh", "sin", "square"), "identity", ("softplus", "silu"))
    found = computed(nonlinear_chain(sigmas, WIDTHS), with_sigmas(WEIGHTS), X0.T, Y.T)
    grads = {name: found.grads[name] for name in WEIGHTS}
    assert_gradient(lambda w: half_squares(forward(sigmas, w, X0.T), Y.T), WEIGHTS, grads)
    p1, p3 = (np.asarray(found.activations[name]) for name in ("w01", "w23"))
    d0 = (np.asarray(found.activations["sigma3"]) - Y.T) * slope(sigmas[3], p3)
    d2 = d0 @ W[2] @ W[1] * slope(sigmas[1], p1)
    assert_close(found.deltas["w01"], d2)
    assert_differs(d0 @ W[2] @ W[1] * slope("tanh", p1), d2)


@pytest.mark.formula("S2-090", "S2-235", "C-08")
@pytest.mark.parametrize("widths", [WIDTHS, (1,) * 4])
def test_identity_activations_give_section_three(widths: tuple[int, ...], rng: np.random.Generator) -> None:
    """σ = id: IV is III; one node a layer as well: I."""
    weights, x, y = (
        random_weights(rng, widths),
        rng.normal(size=(1, widths[0])),
        rng.normal(size=(1, widths[-1])),
    )
    with_identity = computed(nonlinear_chain(("identity",) * 4, widths), with_sigmas(weights), x, y)
    plain = computed(linear_chain(widths), weights, x, y)
    assert_close({name: with_identity.grads[name] for name in weights}, plain.grads)
    assert_close(from_output(with_identity), from_output(plain))
    if widths == (1,) * 4:
        w01, w12, w23 = (layer["w"] for layer in weights.values())
        assert_close(plain.grads["w01"]["w"], (w23 * w12 * w01 * x - y) * w23 * w12 * x)


@pytest.mark.formula("C-08")
def test_one_node_a_layer_gives_section_two(rng: np.random.Generator) -> None:
    """n_i = 1: IV is II, ∂C/∂w₀₁ = (q₃-y)σ₃′w₂₃σ₂′w₁₂σ₁′q₀."""
    weights, x, y = random_weights(rng, (1,) * 4), np.array([[0.7]]), np.array([[0.2]])
    found = computed(nonlinear_chain(SIGMAS, (1,) * 4), with_sigmas(weights), x, y)
    s3, s2, s1 = (slope(SIGMAS[i], found.activations[f"w{i - 1}{i}"]) for i in (3, 2, 1))
    q0, q3 = found.activations["sigma0"], found.activations["sigma3"]
    w12, w23 = weights["w12"]["w"], weights["w23"]["w"]
    assert_close(found.grads["w01"]["w"], (q3 - y) * s3 * w23 * s2 * w12 * s1 * q0)


@pytest.mark.formula("S2-238")
@pytest.mark.parametrize("name", [*SIGMA, "softmax"])
def test_elementwise_means_a_diagonal_jacobian(name: str) -> None:
    """σ acts on each entry of a vector: ∂q_i/∂p_j = σ′(p_i) δ_ij. Softmax does not qualify."""
    p = np.array([0.3, -1.2, 0.8])
    rule = getattr(rules, name)
    (q, residuals), basis = rule.fwd(p), np.eye(3)
    jacobian = np.stack([rule.bwd(residuals, jnp.asarray(e))[0] for e in basis])
    off_diagonal = jacobian - np.diag(np.diag(jacobian))
    if name == "softmax":
        assert_close(jacobian, np.diag(q) - np.outer(q, q))
        assert np.all(off_diagonal[~np.eye(3, dtype=bool)] != 0)
    else:
        assert_close(jacobian, np.diag(slope(name, p)))


@pytest.mark.formula("S2-239", "S2-240")
def test_w_ij_maps_q_i_to_p_j() -> None:
    """Of the products W_ij p_k and W_ij q_k the shapes allow those with k = i; the others are errors."""
    p, q, _ = chains()
    for (i, weight), k, vector in itertools.product(enumerate(W), range(4), (p, q)):
        if k == i:
            assert rules.dense.primal(vector[k].T, weight.T).shape == p[i + 1].T.shape
        else:
            with pytest.raises(ValueError, match=r"dense: argument `w` has shape .*, expected \(in, out\)"):
                rules.dense.primal(vector[k].T, weight.T)
    crossed = with_sigmas(WEIGHTS) | {"w01": WEIGHTS["w12"], "w12": WEIGHTS["w01"]}
    with pytest.raises(ValueError, match=r"(?s)dense: .*in layer `w01` of a chain of 7"):
        computed(nonlinear_chain(SIGMAS, WIDTHS), crossed, X0.T, Y.T)


@pytest.mark.formula("S2-240")
def test_w_ij_of_p_i_has_the_right_shape_and_the_wrong_value() -> None:
    """W_ij p_i slips through the shapes: only names catch it, and it is harmless only if σ_i = id."""
    skipped = layers.chain(w01=layers.dense(3, bias=False), w12=layers.dense(5, bias=False))
    params = {name: WEIGHTS[name] for name in ("w01", "w12")}
    for name, check in (("tanh", assert_differs), ("identity", assert_close)):
        right = layers.chain(
            w01=layers.dense(3, bias=False), sigma1=layers.activation(name), w12=layers.dense(5, bias=False)
        )
        check(jax.jit(predict(skipped))(params, X0.T), jax.jit(predict(right))(params | {"sigma1": ()}, X0.T))


@pytest.mark.formula("C-14")
def test_odot_is_a_diagonal_matrix() -> None:
    """Δ_{k+1} = Diag(σ′)WᵀΔ_k, for the logistic (S - S²)WᵀΔ_k with S = Diag(q)."""
    logistic = ("identity",) + ("sigmoid",) * 3
    found = sweep(logistic)
    deltas = [np.asarray(d).T for d in from_output(found)]
    for k, i in ((0, 2), (1, 1)):
        S = np.diag(np.asarray(found.activations[f"sigma{i}"])[0])
        assert_close(deltas[k + 1], (S - S @ S) @ W[i].T @ deltas[k])
        assert_close(deltas[k + 1], np.diag(slope("sigmoid", chains_of(found, i))) @ W[i].T @ deltas[k])


def chains_of(found: Sweep, i: int) -> np.ndarray:
    """p_i of a sweep, flat."""
    return np.asarray(found.activations[f"w{i - 1}{i}"])[0]


@pytest.mark.formula("C-13")
def test_one_logistic_layer() -> None:
    """L = 1, N = 1: Δ₀q₀ᵀ = (S - S²)(s - y)xᵀ."""
    network = nonlinear_chain(("identity", "sigmoid"), (4, 3))
    y = RNG.normal(size=(3, 1))
    found = computed(network, with_sigmas({"w01": WEIGHTS["w01"]}), X0.T, y.T)
    s = np.asarray(found.activations["sigma1"]).T
    S = np.diag(s[:, 0])
    assert_close(np.asarray(found.grads["w01"]["w"]).T, (S - S @ S) @ (s - y) @ X0.T)


@pytest.mark.formula("C-20")
def test_a_delta_is_what_vjp_carries() -> None:
    """One pullback a layer, as in jax.vjp: G ↦ (QᵀG, GWᵀ) for a product, G ↦ G⊙σ′(P) for an activation."""
    order = ("sigma0", "w01", "sigma1", "w12", "sigma2", "w23", "sigma3")

    @jax.jit
    def carried(x: jax.Array, y: jax.Array) -> tuple[dict[str, jax.Array], dict[str, Any], jax.Array]:
        pullbacks, cotangents, grads = [], {}, {}
        for name in order:
            plain = (
                (lambda w, q: q @ w) if name in WEIGHTS else functools.partial(sigma, SIGMAS[int(name[-1])])
            )
            x, pullback = jax.vjp(plain, *((WEIGHTS[name]["w"], x) if name in WEIGHTS else (x,)))
            pullbacks.append((name, pullback))
        ct = x - y
        for name, pullback in reversed(pullbacks):
            cotangents[name] = ct
            *of_weight, ct = pullback(ct)
            if of_weight:
                grads[name] = {"w": of_weight[0]}
        return cotangents, grads, ct

    cotangents, grads, x_ct = carried(X0.T, Y.T)
    assert_close(cotangents, sweep().cotangents)
    assert_close(grads, {name: sweep().grads[name] for name in WEIGHTS})
    assert_close(x_ct, sweep().x_ct)


@pytest.mark.formula("C-28")
def test_differentials_through_the_network() -> None:
    """dq_l = σ_l′⊙dp_l, dp_{l+1} = dW q_l + W dq_l, dC = (q₃-y) : dq₃ = Σ Δ_{2-l}q_lᵀ : dW_l."""
    _, q, slopes = chains()
    dW = [RNG.normal(size=w.shape) for w in W]
    dq = np.zeros_like(X0)
    for i in range(3):
        dq = slopes[i + 1] * (dW[i] @ q[i] + W[i] @ dq)
    deltas = [np.asarray(d).T for d in from_output(sweep())]
    assert_close(np.sum((q[3] - Y) * dq), sum(np.sum(deltas[2 - i] @ q[i].T * dW[i]) for i in range(3)))
