"""Several layers in a row, of which at most one is guilty."""

import jax
from jax import numpy as jnp

from ._case import Family, array, integers

family = Family("chains")


def dense(p, x):
    return x @ p["w"] + p["b"]


def dense_fwd(p, x):
    return dense(p, x), (p, x)


def dense_bwd(residuals, dy):
    p, x = residuals
    return {"w": x.T @ dy, "b": dy.sum(0)}, dy @ p["w"].T


def tanh_bwd(y, dy):
    return (dy * (1 - y**2),)


def relu_bwd(y, dy):
    return (jnp.where(y > 0, dy, 0),)


def sigmoid_bwd(y, dy):
    return (dy * y * (1 - y),)


def normalize(x):
    return (x - x.mean(-1, keepdims=True)) / jnp.sqrt(x.var(-1, keepdims=True) + 1e-5)


def normalize_fwd(x):
    y = normalize(x)
    return y, (y, 1 / jnp.sqrt(x.var(-1, keepdims=True) + 1e-5))


def normalize_bwd(residuals, dy):
    y, r = residuals
    centered = dy - dy.mean(-1, keepdims=True)
    return (r * (centered - y * jnp.mean(dy * y, -1, keepdims=True)),)


def softmax_bwd(p, dy):
    return (p * (dy - jnp.sum(dy * p, -1, keepdims=True)),)


def doubled(function):
    """fwd of an activation whose backward pass needs its output."""
    return lambda x: (function(x),) * 2


DENSE = (dense_fwd, dense_bwd)
TANH = (doubled(jnp.tanh), tanh_bwd)
RELU = (doubled(jax.nn.relu), relu_bwd)
SIGMOID = (doubled(jax.nn.sigmoid), sigmoid_bwd)
NORMALIZE = (normalize_fwd, normalize_bwd)
SOFTMAX = (doubled(jax.nn.softmax), softmax_bwd)

REFERENCES = [dense, jnp.tanh, dense, normalize, dense, jax.nn.softmax]
PERCEPTRON = [dense, jax.nn.sigmoid, dense, jax.nn.relu, dense]


def layers(*widths):
    entries = [
        None if n is None else {"w": array((m, n), i), "b": array((n,), i + 50)}
        for i, (m, n) in enumerate(widths)
    ]
    return entries, array((5, widths[0][0]), 99)


def reference_args():
    return layers((4, 6), (6, None), (6, 6), (6, None), (6, 3), (3, None))


def perceptron_args():
    return layers((4, 6), (6, None), (6, 6), (6, None), (6, 2))


@family.chain(REFERENCES, reference_args)
def six_right_steps():
    return [DENSE, TANH, DENSE, NORMALIZE, DENSE, SOFTMAX]


@family.chain(PERCEPTRON, perceptron_args)
def perceptron_right():
    return [DENSE, SIGMOID, DENSE, RELU, DENSE]


@family.chain([jnp.sin, jnp.tanh, jnp.exp], lambda: (array((6,)),))
def without_parameters():
    return [
        (lambda x: (jnp.sin(x), x), lambda x, dy: (dy * jnp.cos(x),)),
        TANH,
        (doubled(jnp.exp), lambda y, dy: (dy * y,)),
    ]


@family.chain(PERCEPTRON, perceptron_args, "FACTOR_MISSING", where="steps[1]")
def sigmoid_passes_delta_on():
    """The activation's derivative is forgotten in one step."""
    return [DENSE, (doubled(jax.nn.sigmoid), lambda y, dy: (dy,)), DENSE, RELU, DENSE]


@family.chain(REFERENCES, reference_args, "STATISTICS", "TERM_MISSING", where="steps[3]")
def normalization_without_statistics():
    """Mean and variance are constants in the fourth of six steps."""
    frozen = (normalize_fwd, lambda residuals, dy: (residuals[1] * dy,))
    return [DENSE, TANH, DENSE, frozen, DENSE, SOFTMAX]


@family.chain(REFERENCES, reference_args, "TRANSPOSE_FORGOTTEN", where="steps[2]")
def square_layer_not_transposed():
    """δW in the one square layer."""

    def bwd(residuals, dy):
        p, x = residuals
        return {"w": x.T @ dy, "b": dy.sum(0)}, dy @ p["w"]

    return [DENSE, TANH, (dense_fwd, bwd), NORMALIZE, DENSE, SOFTMAX]


@family.chain(PERCEPTRON, perceptron_args, "CONSTANT_FACTOR", "REDUCTION", where="steps[4]")
def last_layer_divides_by_batch():
    """The last layer averages its weight gradient."""

    def bwd(residuals, dy):
        p, x = residuals
        return {"w": x.T @ dy / len(x), "b": dy.sum(0)}, dy @ p["w"].T

    return [DENSE, SIGMOID, DENSE, RELU, (dense_fwd, bwd)]


@family.chain(PERCEPTRON, perceptron_args, "REDUCTION", "CONSTANT_FACTOR", where="steps[2]")
def hidden_bias_averaged():
    """Mean for sum in the middle layer's bias."""

    def bwd(residuals, dy):
        p, x = residuals
        return {"w": x.T @ dy, "b": dy.mean(0)}, dy @ p["w"].T

    return [DENSE, SIGMOID, (dense_fwd, bwd), RELU, DENSE]


@family.chain(REFERENCES, reference_args, "TERM_MISSING", where="steps[5]")
def softmax_diagonal_only():
    """The last step forgets the other classes."""
    diagonal = (doubled(jax.nn.softmax), lambda p, dy: (dy * p * (1 - p),))
    return [DENSE, TANH, DENSE, NORMALIZE, DENSE, diagonal]


@family.chain(REFERENCES, reference_args, "WRONG_POINT", where="steps[1]")
def tanh_derivative_of_the_input():
    """1 - z² with the input of tanh."""
    wrong = (lambda z: (jnp.tanh(z), z), lambda z, dy: (dy * (1 - z**2),))
    return [DENSE, wrong, DENSE, NORMALIZE, DENSE, SOFTMAX]


@family.chain(PERCEPTRON, perceptron_args, "SIGN", where="steps[0]")
def first_layer_ascends():
    """The parameters of the first layer get minus their gradient."""

    def bwd(residuals, dy):
        p, x = residuals
        return {"w": -x.T @ dy, "b": -dy.sum(0)}, dy @ p["w"].T

    return [(dense_fwd, bwd), SIGMOID, DENSE, RELU, DENSE]


def embed(table, tokens):
    return table[tokens].mean(1)


EMBEDDED = [embed, dense, jnp.tanh]


def embedded_args():
    return [array((7, 4)), {"w": array((4, 4), 1), "b": array((4,), 2)}, None], integers((5, 6), 7)


def embed_fwd(table, tokens):
    return embed(table, tokens), (table, tokens)


@family.chain(EMBEDDED, embedded_args)
def embedding_below_a_layer():
    def bwd(residuals, dy):
        table, tokens = residuals
        spread = jnp.broadcast_to(dy[:, None] / tokens.shape[1], (*tokens.shape, dy.shape[1]))
        return jnp.zeros_like(table).at[tokens].add(spread), None

    return [(embed_fwd, bwd), DENSE, TANH]


@family.chain(EMBEDDED, embedded_args, "OVERWRITTEN", where="steps[0]")
def embedding_overwrites():
    """.set for .add at the very bottom, where no δ leaves."""

    def bwd(residuals, dy):
        table, tokens = residuals
        spread = jnp.broadcast_to(dy[:, None] / tokens.shape[1], (*tokens.shape, dy.shape[1]))
        return jnp.zeros_like(table).at[tokens].set(spread), None

    return [(embed_fwd, bwd), DENSE, TANH]


CASES = tuple(family.cases)
