"""Linear regression, one response and several: every formula of the thread through the library."""

import jax
from jax import numpy as jnp

from funcbp import backprop, layers, rules


def test_the_mean_over_examples_divides_in_the_data_s_own_precision():
    with jax.enable_x64(True):
        x, y = jnp.ones((3, 1), jnp.float64), jnp.zeros((3, 1), jnp.float64)
        sweep = backprop(layers.dense(1, bias=False), rules.l2_loss, collect=("deltas",))
        for weights in (None, jnp.ones(3, jnp.float32)):
            result = sweep({"w": jnp.ones((1, 1), jnp.float64)}, x, y, weights=weights)
            assert result.deltas[0, 0] == 1 / 3
