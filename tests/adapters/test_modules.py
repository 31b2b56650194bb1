"""Modules of equinox and flax, as they are."""

import equinox as eqx
import flax.linen as nn
import jax
import numpy as np
import pytest
from flax import nnx
from jax import lax
from jax import numpy as jnp

from funcbp import adapters
from tests.adapters.oracle import CLIPPED, check, filled, normal

BATCH, TIME, WIDTH, WORDS = 3, 4, 4, 7


@pytest.fixture(autouse=True)
def _float64():
    with jax.enable_x64(True):
        yield


def squared(z, y):
    return jnp.sum((z - y) ** 2)


class Block(eqx.Module):
    first: eqx.nn.LayerNorm
    attention: eqx.nn.MultiheadAttention
    second: eqx.nn.LayerNorm
    mlp: eqx.nn.MLP

    def __init__(self, key):
        keys = jax.random.split(key)
        self.first, self.second = eqx.nn.LayerNorm(WIDTH), eqx.nn.LayerNorm(WIDTH)
        self.attention = eqx.nn.MultiheadAttention(2, WIDTH, dropout_p=0.1, key=keys[0])
        self.mlp = eqx.nn.MLP(WIDTH, WIDTH, 5, 1, activation=jax.nn.gelu, key=keys[1])

    def __call__(self, x, key):
        a = jax.vmap(self.first)(x)
        mask = jnp.tril(jnp.ones((len(x), len(x)), bool))
        x = x + self.attention(a, a, a, mask=mask, key=key)
        return x + jax.vmap(self.mlp)(jax.vmap(self.second)(x))


class Transformer(eqx.Module):
    embedding: eqx.nn.Embedding
    blocks: list[Block]
    out: eqx.nn.Linear

    def __init__(self, key):
        keys = jax.random.split(key, 3)
        self.embedding = eqx.nn.Embedding(WORDS, WIDTH, key=keys[0])
        self.blocks = [Block(keys[1])]
        self.out = eqx.nn.Linear(WIDTH, WORDS, key=keys[2])

    def __call__(self, ids, key):
        x = jax.vmap(self.embedding)(ids)
        for block in self.blocks:
            x = block(x, key)
        return jax.vmap(self.out)(x)


def cross_entropy(model, ids, y, key):
    return -jnp.take_along_axis(jax.nn.log_softmax(model(ids, key)), y[:, None], 1).sum()


def words():
    ids = np.random.default_rng(1).integers(0, WORDS, (BATCH, TIME))
    return jnp.asarray(ids), jnp.asarray(np.roll(ids, 1, axis=1)), jax.random.split(jax.random.key(2), BATCH)


def test_equinox_transformer():
    """Attention with dropout, of which every example has a key; embedding, norms, MLP."""
    model = filled(eqx.filter_eval_shape(Transformer, jax.random.key(0)))
    check(cross_entropy, model, *words(), names=CLIPPED)


def test_equinox_in_a_few_lines():
    model = filled(eqx.filter_eval_shape(Transformer, jax.random.key(0)))
    clip = adapters.clipped_grad(cross_entropy, max_norm=1.0, strict=True)
    result = eqx.filter_eval_shape(eqx.filter_jit(clip), model, *words())
    assert result.norms.shape == (BATCH,)
    updated = eqx.filter_eval_shape(eqx.apply_updates, model, result.grads)
    assert jax.tree.structure(updated) == jax.tree.structure(model)


def test_equinox_layers_in_a_scan():
    def loss(model, x, y):
        layers, out = model
        dynamic, static = eqx.partition(layers, eqx.is_array)
        x, _ = lax.scan(lambda x, own: (jnp.tanh(eqx.combine(own, static)(x)), None), x, dynamic)
        return squared(out(x), y)

    def init(key):
        layers = eqx.filter_vmap(lambda key: eqx.nn.Linear(WIDTH, WIDTH, key=key))(jax.random.split(key, 3))
        return layers, eqx.nn.Linear(WIDTH, 2, key=key)

    model = filled(eqx.filter_eval_shape(init, jax.random.key(0)))
    kinds = "Stacked(Transposed(Outer)) Total Transposed(Outer) Total"
    check(loss, model, normal(BATCH, WIDTH), normal(BATCH, 2), kinds=kinds)


def test_equinox_cells_over_time():
    def loss(model, x, y):
        gru, lstm = model
        start = jnp.zeros(WIDTH)
        h, states = lax.scan(lambda h, a: (gru(a, h), h), start, x)
        (h, _), _ = lax.scan(lambda state, a: (lstm(a, state), None), (h, start), states)
        return squared(h, y)

    def init(key):
        return eqx.nn.GRUCell(3, WIDTH, key=key), eqx.nn.LSTMCell(WIDTH, WIDTH, key=key)

    model = filled(eqx.filter_eval_shape(init, jax.random.key(0)))
    kinds = "Transposed(Outer) Transposed(Outer) Total Total Transposed(Outer) Transposed(Outer) Total"
    check(loss, model, normal(BATCH, TIME, 3), normal(BATCH, WIDTH), kinds=kinds)


def test_equinox_convolution_and_group_norm():
    def loss(model, x, y):
        conv, norm, back = model
        return squared(back(jax.nn.relu(norm(conv(x)))).mean((1, 2)), y)

    def init(key):
        conv = eqx.nn.Conv2d(2, 4, 3, stride=2, padding=1, key=key)
        return conv, eqx.nn.GroupNorm(2, 4), eqx.nn.ConvTranspose2d(4, 2, 3, stride=2, key=key)

    model = filled(eqx.filter_eval_shape(init, jax.random.key(0)))
    check(loss, model, normal(BATCH, 2, 6, 6), normal(BATCH, 2))


def test_flax_linen():
    class Model(nn.Module):
        @nn.compact
        def __call__(self, ids):
            embed = nn.Embed(WORDS, WIDTH, param_dtype=jnp.float64)
            x = embed(ids)
            x = nn.LayerNorm(param_dtype=jnp.float64)(x)
            x = x + nn.MultiHeadDotProductAttention(2, param_dtype=jnp.float64)(x, x)
            return embed.attend(nn.Dense(WIDTH, param_dtype=jnp.float64)(x))

    model = Model()
    ids, y, _ = words()
    params = filled(jax.eval_shape(model.init, jax.random.key(0), ids[0])["params"])

    def loss(params, ids, y):
        logits = model.apply({"params": params}, ids)
        return -jnp.take_along_axis(jax.nn.log_softmax(logits), y[:, None], 1).sum()

    check(loss, params, ids, y)


def test_flax_nnx():
    class Model(nnx.Module):
        def __init__(self, rngs):
            self.conv = nnx.Conv(2, 4, (3, 3), param_dtype=jnp.float64, rngs=rngs)
            self.norm = nnx.BatchNorm(4, use_running_average=True, param_dtype=jnp.float64, rngs=rngs)
            self.out = nnx.Linear(4, 3, param_dtype=jnp.float64, rngs=rngs)

        def __call__(self, x):
            return self.out(nnx.relu(self.norm(self.conv(x))).mean((1, 2)))

    graph, params, rest = nnx.split(nnx.eval_shape(lambda: Model(nnx.Rngs(0))), nnx.Param, ...)
    params, rest = filled(params), jax.tree.map(jnp.abs, filled(rest))

    def loss(params, x, y):
        return squared(nnx.merge(graph, params, rest)(x[None])[0], y)

    kinds = "Total Patches Total Total Total Outer"
    check(loss, params, normal(BATCH, 5, 5, 2), normal(BATCH, 3), kinds=kinds)
