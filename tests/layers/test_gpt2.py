"""A GPT-2-shaped model in ten lines, against `jax.grad` of one written out in plain JAX."""

import jax
import numpy as np
import optax
import pytest
from jax import numpy as jnp

import funcbp
from funcbp import layers, rules
from funcbp._compat import quick_jit
from funcbp.verify._pairs import evaluated
from tests.support import drawn

VOCABULARY, WIDTH, HEADS, DEPTH, CONTEXT = 11, 6, 2, 2, 7
KEY = jax.random.key(0)
LOSS = rules.softmax_cross_entropy_with_integer_labels


@pytest.fixture(autouse=True)
def _float64():
    with jax.enable_x64(True):
        yield


def gpt2(tied: bool = True, **options) -> layers.Layer:
    network = layers.chain(
        tokens=layers.embedding(VOCABULARY, WIDTH, dtype="float64"),
        positions=layers.positional_embedding(CONTEXT),
        blocks=layers.repeat(layers.transformer_block(WIDTH, heads=HEADS, causal=True, **options), DEPTH),
        norm=layers.layer_norm(),
        out=layers.dense(VOCABULARY, bias=False),
    )
    return layers.tied(network, {"out.w": "tokens.table.T"}) if tied else network


def plain_norm(p, x):
    centered = x - x.mean(-1, keepdims=True)
    return centered / jnp.sqrt((centered**2).mean(-1, keepdims=True) + 1e-5) * p["gain"] + p["bias"]


def plain_rotary(x, positions, base):
    half = x.shape[-1] // 2
    angle = positions[:, :, None, None] * base ** (-jnp.arange(half) / half)
    a, b = x[..., :half], x[..., half:]
    turned = (a * jnp.cos(angle) - b * jnp.sin(angle), a * jnp.sin(angle) + b * jnp.cos(angle))
    return jnp.concatenate(turned, -1)


def plain_attention(p, x, mask, positions, groups, base):
    batch, time, _ = x.shape
    q, k, v = (
        (x @ p[n]["w"] + p[n]["b"]).reshape(batch, time, h, -1)
        for n, h in (("query", HEADS), ("key", groups), ("value", groups))
    )
    if base:
        q, k = plain_rotary(q, positions, base), plain_rotary(k, positions, base)
    k, v = (jnp.repeat(a, HEADS // groups, axis=2) for a in (k, v))
    logits = jnp.einsum("bthc,bshc->bhts", q, k) / np.sqrt(q.shape[-1])
    seen = jnp.tri(time, dtype=bool) & (True if mask is None else mask[:, None, None, :])
    weights = jax.nn.softmax(jnp.where(seen, logits, -1e30))
    o = jnp.einsum("bhts,bshc->bthc", weights, v).reshape(batch, time, -1)
    return o @ p["output"]["w"] + p["output"]["b"]


def plain_logits(params, ids, mask=None, positions=None, groups=HEADS, base=None):
    positions = jnp.arange(ids.shape[1]) + 0 * ids if positions is None else positions
    x = params["tokens"]["table"][ids] + params["positions"]["table"][positions]
    for i in range(DEPTH):
        p = jax.tree.map(lambda a, i=i: a[i], params["blocks"])
        attention, mlp = p["attention"], p["mlp"]
        inside = plain_norm(attention["norm"], x)
        x = x + plain_attention(attention["attention"], inside, mask, positions, groups, base)
        h = jax.nn.gelu(plain_norm(mlp["norm"], x) @ mlp["up"]["w"] + mlp["up"]["b"])
        x = x + h @ mlp["down"]["w"] + mlp["down"]["b"]
    out = params["out"]["w"]
    return plain_norm(params["norm"], x) @ (params["tokens"]["table"].T if out is None else out)


def plain_value(params, ids, targets, weights, **options):
    losses = optax.softmax_cross_entropy_with_integer_labels(plain_logits(params, ids, **options), targets)
    return (weights * losses).sum() / weights.sum()


def data(network, batch=3, time=5):
    ids, targets = map(jnp.asarray, np.random.default_rng(1).integers(0, VOCABULARY, (2, batch, time)))
    params, _ = drawn(network, ids)
    return params, ids, targets


def assert_close(actual, expected):
    """Within 1e-11 of the largest number of its leaf; or of the tree's, for a leaf that is 0 but for rounding
    (the bias of the keys without rotation: weights do not change where all logits of a row do)."""
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    overall = max(np.abs(e).max() for e in jax.tree.leaves(expected))
    leaves = jax.tree_util.tree_leaves_with_path(actual)
    for (path, a), e in zip(leaves, jax.tree.leaves(expected), strict=True):
        assert a.dtype == e.dtype == np.float64
        scale = np.abs(e).max() if np.abs(e).max() > 1e-12 * overall else overall
        np.testing.assert_allclose(a, e, rtol=0, atol=1e-11 * scale, err_msg=jax.tree_util.keystr(path))


def test_the_gradient_is_that_of_a_plain_spelling():
    network = gpt2()
    params, ids, targets = data(network)
    weights = np.ones(ids.shape)
    value, grads = quick_jit(funcbp.value_and_grad(network, LOSS))(params, ids, targets, weights=weights)
    expected = evaluated(jax.value_and_grad(plain_value), params, ids, targets, weights)
    np.testing.assert_allclose(value, expected[0], rtol=1e-13)
    assert_close(grads, expected[1])


def test_masks_positions_rotation_groups_and_blocks_of_keys():
    network = gpt2(tied=False, key_value_heads=1, rotary_base=100.0, block=2, head_features=4)
    params, ids, targets = data(network)
    mask = np.arange(5) < np.array([[5], [2], [4]])
    positions = np.clip(np.arange(5) + np.array([[0], [1], [2]]), 0, CONTEXT - 1)
    weights = mask.astype("float64")
    sweep = quick_jit(funcbp.value_and_grad(network, LOSS))
    value, grads = sweep(params, ids, targets, weights=weights, mask=mask, positions=positions)

    def plain(params):
        return plain_value(
            params, ids, targets, weights, mask=mask, positions=positions, groups=1, base=100.0
        )

    expected = evaluated(jax.value_and_grad(plain), params)
    np.testing.assert_allclose(value, expected[0], rtol=1e-13)
    assert_close(grads, expected[1])
    # Where nothing is seen and nothing has weight, the ids do not matter.
    other = np.where(mask, ids, (np.asarray(ids) + 1) % VOCABULARY)
    again = sweep(params, other, targets, weights=weights, mask=mask, positions=positions)
    np.testing.assert_allclose(again[0], value, rtol=1e-13)


def test_later_tokens_do_not_change_earlier_outputs():
    network = gpt2()
    params, ids, _ = data(network)
    logits = quick_jit(funcbp.predict(network))
    changed = logits(params, ids.at[:, 3].set(0))
    np.testing.assert_array_equal(changed[:, :3], logits(params, ids)[:, :3])


def test_the_mask_and_the_positions_are_not_stacked_by_a_repeat():
    network = gpt2(rotary_base=100.0, head_features=4, block=2)
    params, ids, _ = data(network)
    mask, positions = jnp.ones(ids.shape, bool), jnp.arange(5) + 0 * ids

    def saved(params, ids, mask, positions):
        context = layers.Context(mask=mask, positions=positions)
        return network.fwd(params, (), ids, context).residuals

    leaves = jax.tree.leaves(jax.eval_shape(saved, params, ids, mask, positions))
    assert not [a.shape for a in leaves if a.dtype == bool and a.shape[0] == DEPTH]
    assert not [a.shape for a in leaves if a.dtype == ids.dtype and a.shape[0] == DEPTH]
    # x of the block, of its mlp and of the last product once each, with what the rules save between them.
    assert sum(a.shape == (DEPTH, *ids.shape, WIDTH) for a in leaves) == 4
