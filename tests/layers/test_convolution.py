"""Convolution and pooling layers, and `add`."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest
from jax import numpy as jnp

import funcbp
from funcbp import layers, rules
from tests.support import assert_gradient, assert_trees_close, drawn

KEY = jax.random.key(0)
X = jnp.asarray(np.random.default_rng(1).standard_normal((2, 5, 4, 4)), "float32")
CONTEXT = layers.Context(KEY)


@pytest.mark.parametrize(
    ("layer", "shape", "y_shape"),
    [
        (layers.conv(6, 3), (3, 3, 4, 6), (2, 3, 2, 6)),
        (layers.conv(6, (3, 2), strides=2, padding="SAME", groups=2), (3, 2, 2, 6), (2, 3, 2, 6)),
        (layers.conv(8, 2, groups=4, padding=1), (2, 2, 1, 8), (2, 6, 5, 8)),
        (layers.conv_transpose(3, 2, strides=2, padding="SAME"), (2, 2, 4, 3), (2, 10, 8, 3)),
        (layers.conv_transpose(3, (3, 2), strides=(1, 2)), (3, 2, 4, 3), (2, 7, 8, 3)),
    ],
)
def test_shapes(layer: layers.Layer, shape: tuple[int, ...], y_shape: tuple[int, ...]):
    params, state = layer.init(KEY, X)
    assert params["w"].shape == shape
    assert params["b"].shape == shape[-1:]
    assert jax.eval_shape(lambda: layer.fwd(params, state, X, CONTEXT).y).shape == y_shape


def test_the_default_initializer_counts_what_a_pixel_reads():
    w = layers.conv(64, 3, groups=2, after="relu").init(KEY, jnp.ones((1, 5, 5, 32)))[0]["w"]
    assert np.var(w) == pytest.approx(2 / (9 * 16), rel=0.05)


def test_a_small_network_of_convolutions_is_differentiated():
    network = layers.chain(
        layers.conv(4, 2, strides=(2, 1), groups=2),
        layers.activation("tanh"),
        layers.max_pool(2, strides=1),
        layers.conv_transpose(2, 2, strides=2, bias=False),
        layers.avg_pool(2, padding="SAME"),
        layers.global_avg_pool(),
    )
    params, _ = drawn(network, X)
    y = np.ones((2, 2), "float32")

    def value(params: Any) -> jax.Array:
        first, _, _, up, *_ = params
        q = jnp.tanh(
            rules.conv_general.reference(X.astype(first["w"].dtype), first["w"], first["b"], strides=(2, 1))
        )
        q = rules.max_pool.reference(q, window=2, strides=1)
        q = rules.conv_transpose.reference(q, up["w"], strides=2)
        q = rules.avg_pool.reference(q, padding="SAME").mean((1, 2))
        return 0.5 * jnp.mean(jnp.sum((q - y) ** 2, -1))

    sweep = jax.jit(funcbp.backprop(network, rules.l2_loss, collect=("deltas",)))(params, X, y)
    assert_gradient(sweep.grads, value, params, "float32")
    assert [None if d is None else d.shape for d in sweep.deltas] == [
        (2, 2, 3, 4),
        None,
        None,
        (2, 2, 4, 2),
        None,
        None,
    ]


def test_add_with_an_identity_is_residual():
    body = layers.chain(layers.dense(4), layers.activation("tanh"))
    summed, skipped = layers.add(body, layers.activation("identity")), layers.residual(body)
    params, _ = drawn(skipped, X)
    y = np.zeros_like(X)
    a = jax.jit(funcbp.backprop(summed, rules.l2_loss))((params, ()), X, y)
    b = jax.jit(funcbp.backprop(skipped, rules.l2_loss))(params, X, y)
    assert_trees_close((a.value, a.grads[0], a.x_ct), (b.value, b.grads, b.x_ct))


def test_add_by_name_has_trees_by_name():
    network = layers.add(wide=layers.dense(3), narrow=layers.dense(3, bias=False))
    params, state = drawn(network, X)
    assert params.keys() == {"wide", "narrow"}
    run = jax.jit(funcbp.backprop(network, rules.l2_loss, collect=("cotangents",)))
    sweep = run(params, X, np.zeros((*X.shape[:-1], 3), "float32"), state=state)
    np.testing.assert_array_equal(sweep.cotangents["wide"], sweep.cotangents["narrow"])
    np.testing.assert_allclose(sweep.grads["wide"]["w"], sweep.grads["narrow"]["w"])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: layers.conv(0, 3), ValueError, "`features` must be at least 1, got 0"),
        (lambda: layers.conv(4, 3, groups=0), ValueError, "`groups` must be at least 1"),
        (lambda: layers.conv(4, 3, groups=3).init(KEY, X), ValueError, "conv: `groups` must divide .* got 3"),
        (lambda: layers.conv(4, (3,)).init(KEY, X), ValueError, "conv: `window` has 1 entries"),
        (
            lambda: layers.conv(4, 3).init(KEY, jnp.ones((2, 5), int)),
            TypeError,
            "conv: the input must be one",
        ),
        (
            lambda: layers.conv(4, 3).fwd(layers.conv(4, 2).init(KEY, X)[0], (), X, CONTEXT),
            ValueError,
            r"parameter `w` has shape \(2, 2, 4, 4\), this layer's is \(3, 3, 4, 4\)",
        ),
        (
            lambda: layers.chain(layers.conv(4, 3, dilation=4)).init(KEY, X),
            ValueError,
            "a window over 9 places does not fit",
        ),
        (
            lambda: layers.add(layers.dense(3), layers.dense(4)).init(KEY, X),
            ValueError,
            r"add: the layers' outputs must be equal .*\[2, 5, 4, 3\].*\[2, 5, 4, 4\]",
        ),
        (lambda: layers.add(), TypeError, "by position or by name, and at least one"),
    ],
)
def test_errors_say_what_to_do(call: Callable[[], Any], error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        call()
