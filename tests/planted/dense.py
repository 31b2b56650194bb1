"""Linear layers, activations and small networks."""

from itertools import pairwise
from typing import NamedTuple

import jax
import numpy as np
from jax import numpy as jnp

from ._case import Family, array, normal

family = Family("dense")


def linear(x, w, b):
    return x @ w + b


def linear_fwd(x, w, b):
    return linear(x, w, b), (x, w)


@family.vjp(linear, normal((6, 4), (4, 3), (3,)), fwd=linear_fwd)
def linear_bwd(residuals, dy):
    x, w = residuals
    return dy @ w.T, x.T @ dy, dy.sum(0)


@family.vjp(linear, normal((6, 4), (4, 4), (4,)), "TRANSPOSED", fwd=linear_fwd)
def weight_gradient_transposed(residuals, dy):
    """δᵀx instead of xᵀδ; a square layer hides it from the shapes."""
    x, w = residuals
    return dy @ w.T, dy.T @ x, dy.sum(0)


@family.vjp(linear, normal((6, 4), (4, 4), (4,)), "TRANSPOSE_FORGOTTEN", fwd=linear_fwd)
def weights_not_transposed(residuals, dy):
    """δW instead of δWᵀ in a square layer."""
    x, w = residuals
    return dy @ w, x.T @ dy, dy.sum(0)


@family.vjp(linear, normal((6, 4), (4, 3), (3,)), "REDUCTION", "CONSTANT_FACTOR", fwd=linear_fwd)
def bias_averaged(residuals, dy):
    """The mean over the batch where the sum belongs; a factor 1/6."""
    x, w = residuals
    return dy @ w.T, x.T @ dy, dy.mean(0)


@family.vjp(linear, normal((5, 4), (4, 5), (5,)), "REDUCTION", fwd=linear_fwd)
def bias_summed_over_units(residuals, dy):
    """Summed over the wrong axis; batch and width are equal."""
    x, w = residuals
    return dy @ w.T, x.T @ dy, dy.sum(1)


@family.vjp(linear, normal((6, 4), (4, 3), (3,)), "REDUCTION", "SHAPE", "BROADCAST", fwd=linear_fwd)
def bias_not_summed(residuals, dy):
    """δ itself as the gradient of the bias."""
    x, w = residuals
    return dy @ w.T, x.T @ dy, dy


@family.vjp(linear, normal((6, 4), (4, 3), (3,)), "REDUCTION", fwd=linear_fwd)
def bias_of_the_first_example(residuals, dy):
    """Only the first row of the batch reaches the bias."""
    x, w = residuals
    return dy @ w.T, x.T @ dy, dy[0]


@family.vjp(linear, normal((4, 4), (4, 4), (4,)), "SWAPPED", fwd=linear_fwd)
def input_and_weight_swapped(residuals, dy):
    """The two cotangents are returned in the wrong order."""
    x, w = residuals
    return x.T @ dy, dy @ w.T, dy.sum(0)


@family.vjp(linear, normal((8, 4), (4, 3), (3,)), "CONSTANT_FACTOR", fwd=linear_fwd)
def weight_divided_by_batch(residuals, dy):
    """A 1/n that belongs to the loss, applied once more."""
    x, w = residuals
    return dy @ w.T, x.T @ dy / x.shape[0], dy.sum(0)


@family.vjp(linear, normal((6, 4), (4, 3), (3,)), "ZERO", fwd=linear_fwd)
def bias_forgotten(residuals, dy):
    """The bias never learns."""
    x, w = residuals
    return dy @ w.T, x.T @ dy, jnp.zeros(w.shape[1], dy.dtype)


def scaled(x, scale):
    return x * scale


@family.vjp(scaled, normal((6, 4), (4,)), "BROADCAST", "SHAPE", "REDUCTION", fwd=lambda x, s: (x * s, (x, s)))
def scale_keeps_the_batch(residuals, dy):
    """Broadcasting over the batch is not undone."""
    x, scale = residuals
    return dy * scale, dy * x


def layer(x, w):
    return jnp.tanh(x @ w)


def layer_fwd(x, w):
    z = x @ w
    return jnp.tanh(z), (x, w, z)


@family.vjp(layer, normal((6, 4), (4, 3)), "WRONG_POINT", fwd=layer_fwd)
def tanh_derivative_of_preactivation(residuals, dy):
    """1 - z² with the pre-activation instead of the activation."""
    x, w, z = residuals
    delta = dy * (1 - z**2)
    return delta @ w.T, x.T @ delta


@family.vjp(layer, normal((6, 4), (4, 3)), "NOT_LINEAR", fwd=layer_fwd)
def delta_clipped_inside(residuals, dy):
    """Gradient clipping moved into the backward pass."""
    x, w, z = residuals
    delta = jnp.clip(dy * (1 - jnp.tanh(z) ** 2), -0.1, 0.1)
    return delta @ w.T, x.T @ delta


@family.vjp(jax.nn.relu, normal((5, 7)), "NOT_LINEAR", "WRONG_POINT", fwd=lambda x: (jnp.maximum(x, 0), x))
def relu_gated_by_delta(residuals, dy):
    """The gate is taken from δ, not from the input ("guided" backpropagation)."""
    return (jnp.where((residuals > 0) & (dy > 0), dy, 0),)


@family.vjp(jax.nn.silu, normal((5, 7)), "TERM_MISSING", fwd=lambda x: (x * jax.nn.sigmoid(x), x))
def silu_without_product_rule(x, dy):
    """σ(x) only; x σ'(x) is missing."""
    return (dy * jax.nn.sigmoid(x),)


@family.vjp(
    lambda x: jax.nn.leaky_relu(x, 0.1),
    normal((5, 7)),
    "REGION",
    fwd=lambda x: (jnp.where(x > 0, x, 0.1 * x), x),
)
def leaky_relu_without_leak(x, dy):
    """The slope on the negative side is forgotten."""
    return (jnp.where(x > 0, dy, 0),)


@family.vjp(
    lambda x: jax.nn.gelu(x, approximate=False),
    normal((5, 7)),
    "FACTOR_MISSING",
    "TERM_MISSING",
    "CONSTANT_FACTOR",
    fwd=lambda x: (jax.nn.gelu(x, approximate=False), x),
)
def gelu_density_unnormalized(x, dy):
    """1/√(2π) of the normal density is forgotten in the second term."""
    return (dy * (jax.scipy.stats.norm.cdf(x) + x * jnp.exp(-(x**2) / 2)),)


def swiglu(x, gate, up):
    return jax.nn.silu(x @ gate) * (x @ up)


def swiglu_fwd(x, gate, up):
    return swiglu(x, gate, up), (x, gate, up)


@family.vjp(swiglu, normal((4, 5), (5, 6), (5, 6)), fwd=swiglu_fwd)
def swiglu_bwd(residuals, dy):
    x, gate, up = residuals
    g, u = x @ gate, x @ up
    s = jax.nn.sigmoid(g)
    dg, du = dy * u * (s + g * s * (1 - s)), dy * g * s
    return dg @ gate.T + du @ up.T, x.T @ dg, x.T @ du


@family.vjp(swiglu, normal((4, 5), (5, 6), (5, 6)), "TERM_MISSING", fwd=swiglu_fwd)
def swiglu_input_through_gate_only(residuals, dy):
    """x feeds two matrices; the path through `up` is forgotten."""
    x, gate, up = residuals
    g, u = x @ gate, x @ up
    s = jax.nn.sigmoid(g)
    dg, du = dy * u * (s + g * s * (1 - s)), dy * g * s
    return dg @ gate.T, x.T @ dg, x.T @ du


def residual_block(x, w):
    return x + jax.nn.relu(x @ w)


def residual_fwd(x, w):
    return residual_block(x, w), (x, w)


@family.vjp(residual_block, normal((6, 4), (4, 4)), "TERM_MISSING", fwd=residual_fwd)
def skip_path_lost(residuals, dy):
    """δ through the block only, not along the skip connection."""
    x, w = residuals
    delta = dy * (x @ w > 0)
    return delta @ w.T, x.T @ delta


def network(params, x, y):
    hidden = jax.nn.sigmoid(x @ params["w1"] + params["b1"])
    return jnp.mean(jnp.sum((hidden @ params["w2"] + params["b2"] - y) ** 2, axis=1))


def network_args():
    shapes = {"w1": (4, 5), "b1": (5,), "w2": (5, 2), "b2": (2,)}
    params = {name: array(shape, seed) for seed, (name, shape) in enumerate(shapes.items())}
    return params, array((6, 4), 10), array((6, 2), 11)


def square_network_args():
    shapes = {"w1": (4, 4), "b1": (4,), "w2": (4, 4), "b2": (4,)}
    params = {name: array(shape, seed) for seed, (name, shape) in enumerate(shapes.items())}
    return params, array((6, 4), 10), array((6, 4), 11)


def network_sweep(params, x, y):
    a = jax.nn.sigmoid(x @ params["w1"] + params["b1"])
    output = a @ params["w2"] + params["b2"]
    d2 = 2 * (output - y) / len(x)
    return a, d2, jnp.sum((output - y) ** 2) / len(x)


@family.gradient(network, network_args)
def network_gradient(params, x, y):
    a, d2, value = network_sweep(params, x, y)
    d1 = d2 @ params["w2"].T * a * (1 - a)
    return value, {"w1": x.T @ d1, "b1": d1.sum(0), "w2": a.T @ d2, "b2": d2.sum(0)}


@family.gradient(network, network_args, "FACTOR_MISSING")
def sigmoid_derivative_missing(params, x, y):
    """σ' is forgotten on the way to the first layer."""
    a, d2, _ = network_sweep(params, x, y)
    d1 = d2 @ params["w2"].T
    return {"w1": x.T @ d1, "b1": d1.sum(0), "w2": a.T @ d2, "b2": d2.sum(0)}


@family.gradient(network, network_args, "WRONG_POINT")
def sigmoid_derivative_of_activation_again(params, x, y):
    """σ'(a) for σ'(z): the sigmoid is applied to what already is one."""
    a, d2, _ = network_sweep(params, x, y)
    again = jax.nn.sigmoid(a)
    d1 = d2 @ params["w2"].T * again * (1 - again)
    return {"w1": x.T @ d1, "b1": d1.sum(0), "w2": a.T @ d2, "b2": d2.sum(0)}


@family.gradient(network, square_network_args, "WRONG_POINT", "VALUE")
def second_layer_met_by_the_input(params, x, y):
    """The activation that meets δ is the network's input, not the layer's."""
    a, d2, _ = network_sweep(params, x, y)
    d1 = d2 @ params["w2"].T * a * (1 - a)
    return {"w1": x.T @ d1, "b1": d1.sum(0), "w2": x.T @ d2, "b2": d2.sum(0)}


@family.gradient(network, square_network_args, "SWAPPED")
def biases_swapped(params, x, y):
    """The two bias gradients are stored under each other's name."""
    a, d2, _ = network_sweep(params, x, y)
    d1 = d2 @ params["w2"].T * a * (1 - a)
    return {"w1": x.T @ d1, "b1": d2.sum(0), "w2": a.T @ d2, "b2": d1.sum(0)}


def regularized(w, x, y):
    return jnp.mean((x @ w - y) ** 2) + 0.1 * jnp.sum(w**2)


@family.gradient(regularized, normal((4,), (9, 4), (9,)), "TERM_MISSING")
def weight_decay_missing(w, x, y):
    """Only the data term."""
    return 2 * x.T @ (x @ w - y) / len(y)


class Layer(NamedTuple):
    w: jax.Array
    b: jax.Array


def deep(layers, x):
    for p in layers[:-1]:
        x = jax.nn.relu(x @ p.w + p.b)
    return jnp.sum((x @ layers[-1].w + layers[-1].b) ** 2)


def deep_args():
    widths = (4, 6, 5, 3)
    layers = [Layer(array((m, n), m), array((n,), n)) for m, n in pairwise(widths)]
    return layers, array((7, 4), 3)


@family.gradient(deep, deep_args)
def nested_parameters(layers, x):
    activations = [x]
    for p in layers[:-1]:
        activations.append(jnp.maximum(activations[-1] @ p.w + p.b, 0))
    delta = 2 * (activations[-1] @ layers[-1].w + layers[-1].b)
    grads = []
    for p, a in zip(reversed(layers), reversed(activations), strict=True):
        grads.append(Layer(a.T @ delta, delta.sum(0)))
        delta = delta @ p.w.T * (a > 0)
    return grads[::-1]


def autoencoder(w, x):
    return 0.5 * jnp.sum((jnp.tanh(x @ w) @ w.T - x) ** 2)


@family.gradient(autoencoder, normal((6, 3), (8, 6)))
def tied_weights(w, x):
    h = jnp.tanh(x @ w)
    error = h @ w.T - x
    return error.T @ h + x.T @ (error @ w * (1 - h**2))


@family.gradient(autoencoder, normal((6, 3), (8, 6)), "TERM_MISSING")
def tied_weights_encoder_only(w, x):
    """Only one of the two places where w is used."""
    h = jnp.tanh(x @ w)
    return x.T @ ((h @ w.T - x) @ w * (1 - h**2))


def homework_loss(params, x, y):
    h = jnp.maximum(0, x @ params["W1"] + params["b1"])
    logits = h @ params["W2"] + params["b2"]
    picked = jnp.take_along_axis(jax.nn.log_softmax(logits), y[:, None], 1)
    return -picked.mean() + 0.05 * (jnp.sum(params["W1"] ** 2) + jnp.sum(params["W2"] ** 2))


def homework_args():
    rng = np.random.default_rng(0)
    params = {
        "W1": 0.1 * rng.standard_normal((4, 10)),
        "b1": np.zeros(10),
        "W2": 0.1 * rng.standard_normal((10, 3)),
        "b2": np.zeros(3),
    }
    return params, 10 * rng.standard_normal((5, 4)), np.array([0, 1, 2, 2, 1])


def homework_sweep(params, x, y):
    n = x.shape[0]
    hidden = np.maximum(0, np.dot(x, params["W1"]) + params["b1"])
    scores = np.dot(hidden, params["W2"]) + params["b2"]
    exp_scores = np.exp(scores - scores.max(axis=1, keepdims=True))
    dscores = exp_scores / exp_scores.sum(axis=1, keepdims=True)
    dscores[np.arange(n), y] -= 1
    return hidden, dscores / n


@family.gradient(homework_loss, homework_args)
def homework_numpy(params, x, y):
    """The two-layer network of a well known course, in numpy and float64."""
    x, y = np.asarray(x), np.asarray(y)
    hidden, dscores = homework_sweep(params, x, y)
    dhidden = np.dot(dscores, params["W2"].T)
    dhidden[hidden <= 0] = 0
    return {
        "W1": np.dot(x.T, dhidden) + 0.1 * params["W1"],
        "b1": dhidden.sum(axis=0),
        "W2": np.dot(hidden.T, dscores) + 0.1 * params["W2"],
        "b2": dscores.sum(axis=0),
    }


@family.gradient(homework_loss, homework_args, "CONSTANT_FACTOR", "TERM_MISSING")
def homework_regularization_halved(params, x, y):
    """The loss has reg‖W‖² without ½, its gradient is written for the one with ½."""
    x, y = np.asarray(x), np.asarray(y)
    hidden, dscores = homework_sweep(params, x, y)
    dhidden = np.dot(dscores, params["W2"].T)
    dhidden[hidden <= 0] = 0
    return {
        "W1": np.dot(x.T, dhidden) + 0.05 * params["W1"],
        "b1": dhidden.sum(axis=0),
        "W2": np.dot(hidden.T, dscores) + 0.05 * params["W2"],
        "b2": dscores.sum(axis=0),
    }


CASES = tuple(family.cases)
