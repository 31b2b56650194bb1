"""Networks with every layer that has parameters, and the gradients of single examples through them."""

import functools

import jax
import numpy as np
from jax import numpy as jnp

import funcbp
from funcbp import layers, rules
from funcbp.verify._pairs import evaluated
from tests.support import drawn

KEY = jax.random.key(0)
BATCH, TIME, WIDTH, WORDS = 4, 3, 4, 7
CROSS_ENTROPY = rules.softmax_cross_entropy_with_integer_labels


def language_model(*blocks, **options):
    """A tied embedding below and above."""
    return layers.tied(
        layers.chain(
            embed=layers.embedding(WORDS, WIDTH, dtype="float64"),
            positions=layers.positional_embedding(TIME),
            body=layers.chain(*blocks, layers.layer_norm()),
            unembed=layers.dense(WORDS, bias=False),
        ),
        {"unembed.w": "embed.table.T"},
    )


def dense(features=WIDTH, **options):
    return layers.dense(features, **options)


def images(*parts):
    return layers.chain(*parts, layers.global_avg_pool(), dense(3))


def sequences(part):
    return layers.chain(part, dense(3))


BLOCK = functools.partial(layers.transformer_block, WIDTH, heads=2, hidden=5, causal=True)
EVALUATED = layers.chain(dense(), layers.batch_norm(), dense(3))
NETWORKS = {
    "mlp": (layers.chain(dense(), layers.activation("tanh"), dense(3)), "vectors"),
    "prelu": (layers.chain(dense(), layers.activation("gelu"), layers.rms_norm(), dense(3)), "vectors"),
    "positions": (sequences(dense()), "sequences"),
    "repeat": (layers.chain(dense(), layers.repeat(layers.residual(dense()), 3), dense(3)), "vectors"),
    "repeat in repeat": (
        layers.chain(layers.repeat(layers.repeat(layers.residual(dense()), 2), 3), dense(3)),
        "sequences",
    ),
    "norms": (sequences(layers.chain(dense(), layers.layer_norm(), layers.rms_norm())), "sequences"),
    "conv": (images(layers.conv(4, 3, strides=2, padding=1), layers.group_norm(2)), "images"),
    "grouped conv": (images(layers.conv(4, 2, groups=2), layers.instance_norm()), "images"),
    "conv transposed": (images(layers.conv_transpose(2, 2, strides=2)), "images"),
    "attention": (sequences(layers.multi_head_attention(2, rotary_base=100.0)), "sequences"),
    "blocked attention": (sequences(layers.multi_head_attention(2, block=2, causal=True)), "sequences"),
    "gated": (sequences(layers.gated_mlp(5)), "sequences"),
    "mixture": (sequences(layers.mixture_of_experts(layers.gated_mlp(3), 3, k=2)), "sequences"),
    "elman": (sequences(layers.elman(WIDTH)), "sequences"),
    "gru": (sequences(layers.gru(WIDTH)), "sequences"),
    "lstm": (layers.chain(layers.lstm(WIDTH, last=True), dense(3)), "sequences"),
    "parallel": (layers.chain(layers.add(dense(), dense()), dense(3)), "vectors"),
    "batch_norm, evaluated": (EVALUATED, "vectors"),
    "gpt2": (language_model(layers.repeat(BLOCK(), 2)), "ids"),
}


def inputs(kind):
    shapes = {"vectors": (BATCH, WIDTH), "sequences": (BATCH, TIME, WIDTH), "images": (BATCH, 4, 4, WIDTH)}
    rng = np.random.default_rng(1)
    if kind == "ids":
        x = rng.integers(0, WORDS, (BATCH, TIME))
        return jnp.asarray(x), jnp.asarray(np.roll(x, 1, axis=1))
    return jnp.asarray(rng.standard_normal(shapes[kind])), None


@functools.cache
def problem(name):
    """The network, its loss, arguments, and the gradients of single examples."""
    with jax.enable_x64(True):
        network, kind = NETWORKS[name]
        x, y = inputs(kind)
        params, state = network.init(KEY, x) if network is EVALUATED else drawn(network, x)
        train = "evaluated" not in name
        z = jax.eval_shape(functools.partial(funcbp.predict(network), state=state), params, x)
        labels = np.random.default_rng(2).integers(0, z.shape[-1], z.shape[:-1])
        y = jnp.asarray(labels) if y is None else y
        one = funcbp.value_and_grad(network, CROSS_ENTROPY, reduction="sum", train=train)
        each = evaluated(jax.vmap(lambda x, y: one(params, x[None], y[None], state=state)[1]), x, y)
        options = {"train": train}
        return network, options, (params, x, y), {"state": state}, each


def leaf_norms(each):
    return jax.tree.map(lambda g: np.square(g).reshape(BATCH, -1).sum(1), each)


def total_norms(each):
    return np.sqrt(sum(jax.tree.leaves(leaf_norms(each))))


def assert_close(actual, expected, tolerance=1e-11):
    """Every element within a part of the largest; the gradient of a bias of keys is 0 but for rounding."""
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    largest = max(np.abs(e).max(initial=0) for e in jax.tree.leaves(expected))
    for a, e in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert a.shape == e.shape
        np.testing.assert_allclose(a, e, rtol=tolerance, atol=tolerance * largest)


def summed(c, each):
    """Σ c_n g_n."""
    return jax.tree.map(lambda g: np.tensordot(c, g, 1), each)
