"""What private training refuses, and what it says."""

import math

import jax
import optax
import pytest
from jax import numpy as jnp

from funcbp import layers, rules, training

KEY = jax.random.key(0)
LOSS = rules.softmax_cross_entropy_with_integer_labels
NETWORK = layers.dense(4)
X, Y = jnp.ones((6, 3)), jnp.arange(6) % 4
NOISE = {"noise_multiplier": 0.7, "expected_batch_size": 8.0}
REFUSED = [
    ({}, ValueError, "give either `max_norm` or `coefficients`"),
    (
        {"max_norm": 1.0, "noise_multiplier": -1.0},
        ValueError,
        "`noise_multiplier` must be finite",
    ),
    ({"max_norm": 1.0, "noise_multiplier": math.nan}, ValueError, "`noise_multiplier`"),
    (
        {"max_norm": 1.0, "expected_batch_size": 0},
        ValueError,
        "`expected_batch_size` must be",
    ),
    ({"coefficients": jnp.square}, ValueError, "`sensitivity` belongs to `coefficients`"),
    ({"max_norm": 1.0, "sensitivity": 1.0}, ValueError, "`sensitivity` belongs to `coefficients`"),
    (
        {"coefficients": jnp.square, "sensitivity": math.inf},
        ValueError,
        "be positive and finite, got inf",
    ),
    ({"max_norm": training.AdaptiveClipping(), "per": "layer"}, ValueError, "norm over the whole network"),
    ({"max_norm": 1.0, "optimizer": None}, TypeError, "must be of optax"),
    ({"max_norm": 1.0, "microbatches": 0}, ValueError, "`microbatches` must be at least 1"),
]


@pytest.mark.parametrize(("options", "error", "message"), REFUSED)
def test_errors_say_what_to_do(options, error, message):
    with pytest.raises(error, match=message):
        training.make_private_step(NETWORK, LOSS, **{"optimizer": optax.sgd(1.0)} | NOISE | options)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"quantile": 1.5}, "quantile"),
        ({"initial": 0.0}, "initial"),
        ({"learning_rate": -1.0}, "learning_rate"),
    ],
)
def test_adaptive_clipping_refuses(options, name):
    with pytest.raises(ValueError, match=f"`{name}` must be"):
        training.AdaptiveClipping(**options)


def test_add_noise_refuses_what_is_no_sensitivity():
    with pytest.raises(ValueError, match="`sensitivity` must be finite"):
        training.add_noise(1.0, math.inf, KEY)


def test_an_optimizer_does_not_get_the_loss():
    params, _ = NETWORK.init(KEY, X)
    init, step = training.make_private_step(NETWORK, LOSS, optax.polyak_sgd(), max_norm=1.0, **NOISE)
    with pytest.raises(TypeError, match="value"):
        step(params, (), init(params, KEY), X, Y)


def test_layers_that_couple_examples_refuse():
    network = layers.chain(layers.dense(3), layers.batch_norm(), layers.dense(4))
    params, state = network.init(KEY, X)
    init, step = training.make_private_step(network, LOSS, optax.sgd(1.0), max_norm=1.0, **NOISE)
    with pytest.raises(ValueError, match="batch_norm: examples must be independent"):
        step(params, state, init(params, KEY), X, Y)
