"""A small network, its value spelled in plain JAX, and data for both."""

from typing import Any

import jax
import optax
from jax import numpy as jnp

from funcbp import backprop, layers, rules

KEY = jax.random.key(0)
CROSS_ENTROPY = rules.softmax_cross_entropy_with_integer_labels


def compiled(network: layers.Layer, loss: Any, **options: Any) -> Any:
    return jax.jit(backprop(network, loss, **options))


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
    x = jax.random.normal(jax.random.key(1), (batch, 7), dtype)
    y = jnp.arange(batch) % 3
    params, _ = mlp().init(KEY, x)
    params = jax.tree.map(lambda p: p + 0.1, params)
    return params, x, y
