"""Multi-head attention and transformer blocks as layers: options, equivalences, errors."""

import jax
import numpy as np
import pytest
from jax import numpy as jnp

import funcbp
from funcbp import layers, rules
from funcbp._compat import quick_jit
from funcbp.verify._pairs import evaluated
from tests.support import assert_trees_close, assert_trees_equal, drawn

KEY = jax.random.key(0)
X = jnp.asarray(np.random.default_rng(1).standard_normal((2, 5, 6)), "float32")


def sweep(network, x=X, **options):
    params, state = drawn(network, x)
    run = quick_jit(funcbp.backprop(network, rules.l2_loss, reduction="sum"))
    y = jax.eval_shape(lambda: network.fwd(params, state, x, layers.Context(KEY)).y)
    return run(params, x, np.zeros(y.shape, y.dtype), key=KEY, **options)


def test_it_is_the_rule_between_projections():
    network = layers.multi_head_attention(2, causal=True)
    params, _ = drawn(network, X)

    def both(params):
        q, k, v = (
            (X @ params[n]["w"] + params[n]["b"]).reshape(2, 5, 2, 3) for n in ("query", "key", "value")
        )
        o = jax.nn.dot_product_attention(q, k, v, is_causal=True).reshape(2, 5, 6)
        y = network.fwd(params, (), X, layers.Context(KEY)).y
        return y, o @ params["output"]["w"] + params["output"]["b"]

    np.testing.assert_allclose(*evaluated(both, params), rtol=1e-4, atol=1e-5)


def test_blocks_of_keys_change_nothing():
    options = {"causal": True, "dropout_rate": 0.5, "soft_cap": 3.0, "key_value_heads": 1}
    plain = sweep(layers.multi_head_attention(2, **options))
    blocked = sweep(layers.multi_head_attention(2, block=2, **options))
    assert_trees_close(blocked.grads, plain.grads)
    assert_trees_close(blocked.x_ct, plain.x_ct)


def test_dropout_is_off_in_evaluation_and_needs_a_key_in_training():
    network = layers.multi_head_attention(2, dropout_rate=0.5)
    params, _ = drawn(network, X)
    without = layers.multi_head_attention(2).fwd(params, (), X, layers.Context(KEY)).y
    np.testing.assert_array_equal(network.fwd(params, (), X, layers.Context(None, False)).y, without)
    assert not np.array_equal(network.fwd(params, (), X, layers.Context(KEY)).y, without)
    with pytest.raises(ValueError, match="needs a random key; pass key="):
        network.fwd(params, (), X, layers.Context())


def test_a_mask_hides_keys_and_with_four_axes_pairs():
    network = layers.multi_head_attention(2)
    params, _ = drawn(network, X)
    mask = np.arange(5) < np.array([[5], [3]])

    def y(x, mask):
        return evaluated(lambda x, mask: network.fwd(params, (), x, layers.Context(mask=mask)).y, x, mask)

    changed = np.array(X)
    changed[1, 4] = 100
    np.testing.assert_array_equal(y(changed, mask)[1, :3], y(X, mask)[1, :3])
    np.testing.assert_array_equal(y(X, mask[:, None, None]), y(X, mask))
    other = layers.multi_head_attention(2, causal=True)
    causal = evaluated(lambda x: other.fwd(params, (), x, layers.Context()).y, X)
    np.testing.assert_allclose(y(X, np.tri(5, dtype=bool)[None, None]), causal, rtol=1e-6)


def test_rotary_positions_are_relative():
    network = layers.multi_head_attention(1, rotary_base=100.0)
    params, _ = drawn(network, X)

    def y(positions):
        return evaluated(lambda at: network.fwd(params, (), X, layers.Context(positions=at)).y, positions)

    places = np.broadcast_to(np.arange(5, dtype="int32"), (2, 5))
    np.testing.assert_array_equal(y(None), y(places))
    np.testing.assert_allclose(y(places + 7), y(places), rtol=1e-4, atol=1e-5)
    assert not np.allclose(y(2 * places), y(places), atol=1e-3)


def test_a_block_is_two_residual_chains():
    network = layers.transformer_block(6, heads=2, hidden=5, bias=False, sigma="relu")
    params, _ = drawn(network, X)
    assert jax.tree.map(lambda a: a.shape, params) == {
        "attention": {
            "norm": {"gain": (6,)},
            "attention": {n: {"w": (6, 6)} for n in ("query", "key", "value", "output")},
            "dropout": (),
        },
        "mlp": {
            "norm": {"gain": (6,)},
            "up": {"w": (6, 5)},
            "sigma": (),
            "down": {"w": (5, 6)},
            "dropout": (),
        },
    }
    assert network.fwd(params, (), X, layers.Context(KEY)).y.shape == X.shape


def test_learned_positions_are_read_at_the_positions_of_the_context():
    network = layers.positional_embedding(7)
    result = sweep(network, positions=jnp.array([[0, 1, 2, 3, 4], [2, 3, 2, 2, 6]]))
    params, _ = drawn(network, X)
    y = X + params["table"][jnp.array([[0, 1, 2, 3, 4], [2, 3, 2, 2, 6]])]
    rows = [y[0, 0], y[0, 1], y[0, 2] + y[1, 0] + y[1, 2] + y[1, 3], y[0, 3] + y[1, 1], y[0, 4], 0 * y[0, 0]]
    assert_trees_close(result.grads["table"], jnp.stack([*rows, y[1, 4]]))
    assert_trees_equal(result.x_ct, y)
    outside = network.fwd(params, (), X, layers.Context(positions=jnp.full((2, 5), 7))).y
    assert np.isnan(outside).all()
    assert np.isnan(network.fwd(params, (), X, layers.Context(positions=jnp.full((2, 5), -1))).y).all()


def attention(x=X, mask=None, **options):
    network = layers.multi_head_attention(2, **options)
    params, _ = drawn(network, x)
    return network.fwd(params, (), x, layers.Context(KEY, mask=mask))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: layers.multi_head_attention(0), ValueError, "`heads` must be at least 1"),
        (lambda: layers.multi_head_attention(3, key_value_heads=2), ValueError, "got 3 and 2"),
        (lambda: layers.multi_head_attention(4).init(KEY, X), ValueError, "6 wide, no multiple of 4 heads"),
        (lambda: attention(X[0]), ValueError, r"must be \(batch, time, in\), got float32\[5, 6\]"),
        (lambda: attention(mask=jnp.ones((5, 2), bool)), ValueError, r"the mask is bool\[5, 2\]; it must be"),
        (
            lambda: layers.multi_head_attention(2).fwd({}, (), X, layers.Context()),
            ValueError,
            "params must be a dict of query, key, value and output",
        ),
        (
            lambda: layers.multi_head_attention(2, bias=False).fwd(
                layers.multi_head_attention(2).init(KEY, X)[0], (), X, layers.Context()
            ),
            ValueError,
            "multi_head_attention, query: params must be a dict of .'w'.",
        ),
        (lambda: layers.positional_embedding(0), ValueError, "`size` must be at least 1"),
        (lambda: sweep(layers.positional_embedding(4)), ValueError, "5 positions, but the table has 4"),
    ],
)
def test_errors_say_what_to_do(make, error, message):
    with pytest.raises(error, match=message):
        make()
