"""A small network, its value spelled in plain JAX, and data for both."""

import functools
from typing import Any

import jax
import numpy as np
import optax
from jax import numpy as jnp

from funcbp import backprop, layers, rules
from tests.support import drawn

KEY = jax.random.key(0)
CROSS_ENTROPY = rules.softmax_cross_entropy_with_integer_labels


def compiled(network: layers.Layer, loss: Any, **options: Any) -> Any:
    return jax.jit(backprop(network, loss, **options))


@functools.cache
def compiled_mlp() -> Any:
    """The plain sweep of `mlp`, compiled once for all tests of one process."""
    return compiled(mlp(), CROSS_ENTROPY)


def mlp() -> layers.Layer:
    return layers.chain(
        layers.dense(5),
        layers.activation("tanh"),
        layers.dense(4, after="tanh"),
        layers.activation("gelu"),
        layers.dense(3),
    )


def mlp_value(params, x, y, weights=None):
    p = jnp.tanh(x @ params[0]["w"] + params[0]["b"])
    p = jax.nn.gelu(p @ params[2]["w"] + params[2]["b"])
    z = p @ params[4]["w"] + params[4]["b"]
    values = optax.losses.softmax_cross_entropy_with_integer_labels(z, y)
    return values.mean() if weights is None else (weights * values).sum() / weights.sum()


def data(dtype="float64", batch=6):
    x = jnp.asarray(np.random.default_rng(1).standard_normal((batch, 7)), dtype)
    y = jnp.asarray(np.arange(batch) % 3)
    params, _ = drawn(mlp(), x)
    return params, x, y
