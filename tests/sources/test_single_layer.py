"""One layer s = σ(Wx) with squared error: the thread's formulas, its chain rule and its differentials.

The text's W is 5×4 and acts on a column; the layer's kernel is its transpose. σ is the logistic function
there and any function of the catalogue here.
"""

import functools
from collections.abc import Callable

import jax
import numpy as np
import pytest
from jax import numpy as jnp

from funcbp import Sweep, catalogue, layers, predict, rules
from tests import at_once

from .networks import SIGMA, run
from .oracles import assert_close, assert_differs, assert_gradient, odot

IN, OUT = 4, 5
rng = np.random.default_rng(1)
X, Y = rng.normal(size=IN), rng.normal(size=OUT)
W, DW = rng.normal(size=(2, OUT, IN)) / 2
V = W @ X
PARAMS = {"v": {"w": W.T}, "s": ()}

s = 1 / (1 + np.exp(-V))
S = np.diag(s)

# σ′ in closed form, written without looking at the library's.
SLOPES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    **{name: derivative for name, (_, derivative) in SIGMA.items()},
    "relu": lambda v: np.where(v > 0, 1.0, 0.0),
    "gelu": lambda v: np.asarray(jax.vmap(jax.grad(jax.nn.gelu))(v)),
}


@functools.cache
def layer(sigma: str = "sigmoid") -> Sweep:
    """The sweep of one example, as numpy arrays."""
    sweep = at_once.at_once(functools.partial(run, network(sigma), reduction="sum"))
    return sweep(PARAMS, X[None], Y[None])


def network(sigma: str) -> layers.Layer:
    return layers.chain(v=layers.dense(OUT, bias=False), s=layers.activation(sigma))


def gradient(sigma: str = "sigmoid") -> np.ndarray:
    """∂E/∂W in the shape of the text's W."""
    return layer(sigma).grads["v"]["w"].T


def cost(weights: jax.Array, sigma: str = "sigmoid") -> jax.Array:
    """E(W) from the rules' primals, which forward mode can differentiate."""
    p = rules.dense.primal(X, weights.T)
    return rules.l2_loss.primal(catalogue()[sigma].primal(p), Y).sum()


def jvp(function: Callable, at: np.ndarray, tangent: np.ndarray) -> np.ndarray:
    return at_once.jvp(function, (at,), (tangent,))[1]


def jacrev(function: Callable, at: np.ndarray) -> np.ndarray:
    return at_once.jacrev(function)(at)


def frobenius(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """A:B = tr(AᵀB); a vector is a column."""
    a, b = (m if m.ndim == 2 else m[:, None] for m in (a, b))
    return np.trace(a.T @ b)


@pytest.mark.formula("S1-01", "S1-02", "S1-03", "S1-06", "S1-19")
def test_forward_pass_and_cost() -> None:
    """x₁ = W₁x₀, x₂ = f(x₁), E = ½‖x₂-y‖² = ½(s-y):(s-y), by name; ∂E/∂x₂ = x₂-y is a vector."""
    out = layer()
    assert_close(out.activations["v"][0], W @ X)
    assert_close(out.activations["s"][0], s)
    assert_close(out.value, np.sum((s - Y) ** 2) / 2)
    assert_close(out.value, frobenius(s - Y, s - Y) / 2)
    assert_close(out.cotangents["s"][0], s - Y)


@pytest.mark.formula("S1-04")
def test_the_one_weight_matrix_is_the_first() -> None:
    """W₁ is 5×4, which makes x₁, x₂ and y 5-vectors. A 5×4 matrix that acts on x₂ is ill-typed."""
    spec = jax.ShapeDtypeStruct((1, IN), "float64")
    params, _ = jax.eval_shape(network("sigmoid").init, jax.random.key(0), spec)
    assert params["v"]["w"].shape == W.T.shape
    assert layer().activations["v"].shape == layer().activations["s"].shape == Y[None].shape
    with pytest.raises(ValueError, match="expected"):
        rules.dense(layer().activations["s"], W.T)


@pytest.mark.formula("S1-05")
def test_the_chain_rule_is_a_contraction_of_tensors() -> None:
    """∂E/∂W₁ = ∂E/∂x₂ · ∂x₂/∂x₁ · ∂x₁/∂W₁, sizes (5)(5, 5)(5, 5, 4); by an absent W₂ it is 0."""
    by_x2 = layer().cotangents["s"][0]
    by_x1 = jacrev(rules.sigmoid, V)
    by_w = jacrev(lambda w: rules.dense(X, w.T), W)
    assert (by_x2.shape, by_x1.shape, by_w.shape) == ((5,), (5, 5), (5, 5, 4))
    assert_close(gradient(), np.einsum("a,ab,bcd->cd", by_x2, by_x1, by_w))
    by_absent = jacrev(lambda absent: rules.dense(X, W.T), W)
    assert_differs(np.einsum("a,ab,bcd->cd", by_x2, by_x1, by_absent), gradient())


@pytest.mark.formula("S1-02", "S1-07", "S1-13", "S1-16", "S1-23", "S1-33", "C-13")
@pytest.mark.parametrize("sigma", list(SLOPES))
def test_gradient_of_a_layer_with_an_elementwise_activation(sigma: str) -> None:
    """∂x₂/∂x₁ = Diag(σ′(x₁)); δ = Diag(σ′)(s-y) = σ′⊙(s-y); ∂E/∂W = δ xᵀ. The logistic has σ′ = s-s⊙s."""
    q, slope = layer(sigma).activations["s"][0], SLOPES[sigma](V)
    delta = odot(slope, q - Y)
    assert_close(jacrev(catalogue()[sigma], V), np.diag(slope))
    assert_close(layer(sigma).deltas["v"][0], delta)
    assert_close(layer(sigma).deltas["v"][0], np.diag(slope) @ (q - Y))
    assert_close(gradient(sigma), np.outer(delta, X))
    assert_close(layer(sigma).x_ct[0], W.T @ delta)
    assert_gradient(lambda w: jnp.sum((catalogue()[sigma].reference(w @ X) - Y) ** 2) / 2, W, gradient(sigma))
    if sigma == "sigmoid":
        assert_close(slope, s - odot(s, s))
        assert_close(gradient(), (S - S @ S) @ np.outer(s - Y, X))
    else:  # S - S² in the place of another function's Diag(σ′)
        assert_differs(gradient(sigma), np.outer(odot(q - odot(q, q), q - Y), X))


@pytest.mark.formula("C-16")
def test_gradient_of_a_layer_whose_activation_is_not_elementwise() -> None:
    """Softmax: Diag(q) - qqᵀ takes the place of Diag(σ′); it is full, symmetric, and more than q⊙(1-q)."""
    q, J = layer("softmax").activations["s"][0], jacrev(rules.softmax, V)
    assert_close(q, np.exp(V) / np.exp(V).sum())
    assert_close(J, np.diag(q) - np.outer(q, q))
    assert_close(J, J.T)
    assert np.all(J != 0)
    assert_close(layer("softmax").deltas["v"][0], J @ (q - Y))
    assert_close(gradient("softmax"), np.outer(J @ (q - Y), X))
    assert_gradient(lambda w: jnp.sum((jax.nn.softmax(w @ X) - Y) ** 2) / 2, W, gradient("softmax"))
    assert_differs(layer("softmax").deltas["v"][0], odot(odot(q, 1 - q), q - Y))
    # Under -Σ y log q the same Jacobian leaves q - y, for labels that sum to one.
    labels = np.abs(Y) / np.abs(Y).sum()
    residuals = rules.softmax.fwd(V)[1]
    assert_close(rules.softmax.bwd(residuals, jnp.asarray(-labels / q))[0], q - labels)


@pytest.mark.parametrize("sigma", [*SLOPES, "softmax"])
def test_the_right_prediction_has_no_gradient(sigma: str) -> None:
    # Not compiled as a whole: σ(v) - y in one fused operation would see the digits that σ(v) is rounded by.
    y = predict(network(sigma))(PARAMS, X[None])
    out = run(network(sigma), PARAMS, X[None], y)
    assert not any(np.any(a) for a in (out.value, out.deltas["v"], out.grads["v"]["w"], out.x_ct))


def test_the_identity_is_linear_regression() -> None:
    """σ = id: δ = s - y = Wx - y, and S - S² has nothing to do with it."""
    assert_close(layer("identity").deltas["v"][0], V - Y)
    assert_close(gradient("identity"), np.outer(W @ X - Y, X))


# A vector by a matrix.


@pytest.mark.formula("S1-08")
def test_a_vector_by_a_matrix() -> None:
    """∂v_a/∂W_cd = δ_ac x_d: three indices, or I⊗xᵀ when vec W stacks rows, xᵀ⊗I when it stacks columns."""
    tensor = jacrev(lambda w: rules.dense(X, w.T), W)
    assert tensor.ndim == 3
    assert_close(tensor, np.einsum("ac,d->acd", np.eye(OUT), X))
    rows, columns = tensor.reshape(OUT, -1), tensor.transpose(0, 2, 1).reshape(OUT, -1)
    assert_close(rows, np.kron(np.eye(OUT), X))
    assert_close(columns, np.kron(X, np.eye(OUT)))
    assert_differs(rows, np.kron(X, np.eye(OUT)))
    assert_differs(columns, np.kron(np.eye(OUT), X))


@pytest.mark.formula("S1-09", "S1-11")
def test_weight_by_weight_and_row_by_row() -> None:
    """∂E/∂w_ij for every i, j, or ∂E/∂w_i for every row, put together is the matrix δ xᵀ."""
    slope = SLOPES["sigmoid"](V)
    entries = [[(s[i] - Y[i]) * slope[i] * X[j] for j in range(IN)] for i in range(OUT)]
    rows = [(s[i] - Y[i]) * slope[i] * X for i in range(OUT)]
    assert_close(gradient(), np.array(entries))
    assert_close(gradient(), np.stack(rows))
    unit = layers.chain(layers.dense(1, bias=False), layers.activation("sigmoid"))
    fit = jax.jit(functools.partial(run, unit))
    for i in range(OUT):
        own = jax.device_get(fit(({"w": W[i, :, None]}, ()), X[None], Y[None, i : i + 1]))
        assert_close(own.grads[0]["w"][:, 0], gradient()[i])


@pytest.mark.formula("S1-10")
def test_the_total_derivative() -> None:
    """g(t) = f(x₁(t), x₂(t)) has g′ = ∂f/∂x₁ x₁′ + ∂f/∂x₂ x₂′: both cotangents of a rule are needed."""
    t = np.array(0.7)
    residuals = rules.l2_loss.fwd(np.sin(t), np.tanh(t))[1]
    by_x1, by_x2 = jax.device_get(rules.l2_loss.bwd(residuals, jnp.ones(())))
    slope = by_x1 * np.cos(t) + by_x2 / np.cosh(t) ** 2
    assert_gradient(lambda t: (jnp.sin(t) - jnp.tanh(t)) ** 2 / 2, t, slope)
    assert_close(jacrev(lambda t: rules.l2_loss(rules.sin(t), rules.tanh(t)), t), slope)
    assert_differs(by_x1 * np.cos(t), slope)


@pytest.mark.formula("S1-12", "S1-13")
def test_the_label_of_the_same_output_is_meant() -> None:
    """2·½(x₂⁽ⁱ⁾-y⁽ⁱ⁾) and its product with f′ x₀⁽ʲ⁾ are numbers; with y for y⁽ⁱ⁾, vectors."""
    slope = SLOPES["sigmoid"](V)
    for i in range(OUT):
        assert_close(layer().cotangents["s"][0, i], np.asarray(2 * 0.5 * (s[i] - Y[i])))
        assert (2 * 0.5 * (s[i] - Y)).shape == Y.shape
        for j in range(IN):
            assert_close(gradient()[i, j], np.asarray(2 * 0.5 * (s[i] - Y[i]) * slope[i] * X[j]))
            assert (2 * 0.5 * (s[i] - Y) * slope[i] * X[j]).shape == Y.shape


# The differentials of the answer.


@pytest.mark.formula("S1-14", "S1-15", "S1-17", "S1-18", "S1-32")
def test_differentials_of_the_layer() -> None:
    """dv = dW x; ds = (s-s⊙s)⊙dv = (S-S²)dv for the logistic function, σ′⊙dv for any; d is linear."""
    dv = jvp(lambda w: rules.dense.primal(X, w.T), W, DW)
    assert_close(dv, DW @ X)
    ds = jvp(rules.sigmoid.primal, V, dv)
    assert_close(ds, odot(s - odot(s, s), dv))
    assert_close(ds, (S - S @ S) @ dv)
    assert_close(jacrev(rules.sigmoid, V), S - S @ S)
    q = np.tanh(V)
    assert_close(jvp(rules.tanh.primal, V, dv), odot(1 - odot(q, q), dv))
    assert_differs(jvp(rules.tanh.primal, V, dv), odot(q - odot(q, q), dv))
    for a, b in ((2.0, -0.7), (1.0, 1.0)):
        combined = a * jvp(cost, W, DW) + b * jvp(cost, W, W)
        assert_close(jvp(cost, W, a * DW + b * W), combined)
    assert (dv.shape, ds.shape) == (V.shape, s.shape)


@pytest.mark.formula("S1-20", "S1-21", "S1-22", "S1-24", "S1-25", "S1-26", "S1-27", "S1-28")
def test_the_derivation_line_by_line() -> None:
    """dE = (s-y):ds = (s-y):(S-S²)dv = (S-S²)(s-y):dW x = (S-S²)(s-y)xᵀ:dW, so ∂E/∂W = (S-S²)(sxᵀ-yxᵀ)."""
    d_e, dv, B = jvp(cost, W, DW), DW @ X, S - S @ S
    ds = jvp(lambda w: rules.sigmoid.primal(rules.dense.primal(X, w.T)), W, DW)
    for line in (
        frobenius(s - Y, ds),
        frobenius(s - Y, B @ dv),
        frobenius(B @ (s - Y), DW @ X),
        frobenius(np.outer(B @ (s - Y), X), DW),
        frobenius(gradient(), DW),
        np.sum(odot(gradient(), DW)),
    ):
        assert_close(d_e, line)
    assert_close(gradient(), B @ (np.outer(s, X) - np.outer(Y, X)))


@pytest.mark.formula("S1-29", "S1-30")
def test_frobenius_algebra_and_identification() -> None:
    """A:B = B:A = Aᵀ:Bᵀ, A:BC = BᵀA:C = ACᵀ:B, A:(B⊙C) = (A⊙B):C; if dE = G:dW for all dW, then ∂E/∂W = G."""
    rng = np.random.default_rng(2)
    a, b, c = rng.normal(size=(3, OUT, IN))
    left, right = rng.normal(size=(OUT, 3)), rng.normal(size=(3, IN))
    product = frobenius(a, left @ right)
    for other in (frobenius(left.T @ a, right), frobenius(a @ right.T, left)):
        assert_close(other, product)
    for other in (frobenius(b, a), frobenius(a.T, b.T), np.sum(odot(a, b))):
        assert_close(other, frobenius(a, b))
    assert_close(frobenius(odot(a, b), c), frobenius(a, odot(b, c)))
    assert_close(frobenius(a, b + c), frobenius(a, b) + frobenius(a, c))
    basis = np.eye(OUT * IN).reshape(-1, OUT, IN)
    entries = jax.jit(jax.vmap(lambda dw: jax.jvp(cost, (W,), (dw,))[1]))(basis)
    assert_close(entries.reshape(OUT, IN), gradient())


@pytest.mark.formula("S1-31")
def test_no_tensor_is_formed() -> None:
    """The sweep's largest array has as many numbers as W; the tensor ∂v/∂W has five times as many."""
    jaxpr = jax.make_jaxpr(functools.partial(run, network("sigmoid")))(PARAMS, X[None], Y[None])
    assert max(variable.aval.size for variable in made_by(jaxpr.jaxpr)) == W.size
    assert jacrev(lambda w: rules.dense(X, w.T), W).size == OUT * W.size


def made_by(jaxpr: object) -> list:
    """Everything a computation makes on its way, in the functions that it calls too."""
    made = []
    for equation in jaxpr.eqns:
        made += equation.outvars
        for parameter in equation.params.values():
            if hasattr(parameter, "jaxpr"):
                made += made_by(parameter.jaxpr)
    return made
