"""Reversible blocks: the gradient of the plain network in memory that does not grow with depth."""

import jax
import numpy as np
import optax
import pytest
from jax import lax
from jax import numpy as jnp

import funcbp
from funcbp import layers, rules, training
from funcbp.verify._pairs import evaluated
from tests.support import assert_trees_close, drawn, running_norm

KEY = jax.random.key(0)
WIDTH = 6


def network(times, dropout=0.0, width=WIDTH):
    f = layers.chain(
        layers.dense(5), layers.activation("tanh"), layers.dense(width // 2), layers.dropout(dropout)
    )
    return layers.reversible(f, layers.chain(layers.layer_norm(), layers.dense(width // 2)), times)


def plain(params, x, y):
    def block(x, p):
        x1, x2 = x
        up, _, down, _ = p["f"]
        y1 = x1 + jnp.tanh(x2 @ up["w"] + up["b"]) @ down["w"] + down["b"]
        norm, dense = p["g"]
        z = (y1 - y1.mean(-1, keepdims=True)) * lax.rsqrt(y1.var(-1, keepdims=True) + 1e-5)
        return (y1, x2 + (z * norm["gain"] + norm["bias"]) @ dense["w"] + dense["b"]), None

    x, _ = lax.scan(block, tuple(jnp.split(x, 2, -1)), params)
    return jnp.mean(0.5 * jnp.sum((jnp.concatenate(x, -1) - y) ** 2, -1))


def data(times, dtype, width=WIDTH, batch=4):
    x, y = (jnp.asarray(a, dtype) for a in np.random.default_rng(0).standard_normal((2, batch, width)))
    return drawn(network(times, width=width), x)[0], x, y


def errors(times, dtype):
    """Largest relative error of a gradient, and that of jax.grad in the same precision."""
    with jax.enable_x64(True):
        params, x, y = data(times, "float64")
        truth = evaluated(jax.grad(plain, (0, 1)), params, x, y)
        params, x, y = jax.tree.map(lambda a: a.astype(dtype), (params, x, y))
        result = jax.jit(funcbp.backprop(network(times), rules.l2_loss))(params, x, y)
        rival = jax.jit(jax.grad(plain, (0, 1)))(params, x, y)

    def error(tree):
        pairs = zip(*(jax.device_get(jax.tree.leaves(each)) for each in (tree, truth)), strict=True)
        return max(float(np.abs(a - t).max() / np.abs(t).max()) for a, t in pairs)

    return error((result.grads, result.x_ct)), error(rival)


def test_gradient_is_that_of_the_plain_network():
    by_hand, by_jax = errors(8, "float64")
    assert by_hand < 1e-10
    assert by_jax < 1e-10


def test_in_float32_the_reconstruction_loses_digits_with_depth():
    (shallow, rival_shallow), (deep, rival_deep) = errors(2, "float32"), errors(64, "float32")
    assert shallow < 16 * rival_shallow
    assert deep > 4 * shallow
    # What is lost is lost in the reconstruction: it is more than autodiff loses, but of use.
    assert rival_deep < deep < 1e-3


def test_memory_does_not_grow_with_depth():
    def temp(function, times):
        arrays = data(times, "float32", width=64, batch=32)
        return jax.jit(function).lower(*arrays).compile().memory_analysis().temp_size_in_bytes

    shallow, deep = (
        temp(funcbp.value_and_grad(network(times, width=64), rules.l2_loss), times) for times in (8, 64)
    )
    assert deep <= shallow + 64
    activation = 4 * 32 * 32
    assert temp(jax.value_and_grad(plain), 64) > 64 * activation + temp(jax.value_and_grad(plain), 8)


def test_a_pair_is_two_halves_and_everything_is_collected():
    net, (params, x, y) = network(3, dropout=0.5), data(3, "float32")
    collect = ("norms", "activations", "cotangents", "deltas", "factors")
    sweep = jax.jit(funcbp.backprop(net, rules.l2_loss, collect=collect, reduction="sum"))
    found = sweep(params, x, y, key=KEY)
    halves = tuple(jnp.split(x, 2, -1))
    joining = layers.leaf(
        lambda key, spec: ((), ()),
        lambda params, state, x, context: (jnp.concatenate(x, -1), state, ()),
        lambda params, residuals, ct: ((), tuple(jnp.split(ct, 2, -1))),
    )
    pair = funcbp.backprop(layers.chain(net, joining), rules.l2_loss)
    other = jax.jit(pair)((params, ()), halves, y, key=jax.random.key(1))
    assert [a.shape for a in other.x_ct] == [(4, 3), (4, 3)]

    # The masks of dropout are drawn a second time going back: with others this would not be the gradient.
    def value(params, x):
        out = net.fwd(params, (), x, layers.Context(KEY)).y
        return jnp.sum(0.5 * (out - y) ** 2)

    expected = jax.jit(jax.grad(value, (0, 1)))(params, x)
    assert_trees_close((found.grads, found.x_ct), expected, ulps=256)
    assert found.activations["f"][1].shape == found.cotangents["f"][1].shape == (3, 4, 5)
    assert found.deltas["g"][1].shape == (3, 4, 3)
    per_example = jax.tree.map(
        lambda f: evaluated(lambda f: f.per_example(), f),
        found.factors,
        is_leaf=lambda n: isinstance(n, funcbp.factors.Factor),
    )
    squares = sum(np.sum(g**2, tuple(range(1, g.ndim))) for g in jax.tree.leaves(per_example))
    np.testing.assert_allclose(found.norms, np.sqrt(squares), rtol=1e-5)


def test_it_trains_inside_the_sweep():
    net, (params, x, y) = network(3), data(3, "float32")
    optimizer, results = optax.adam(1e-2), []
    for make in (training.make_in_sweep_step, training.make_step):
        step = make(net, rules.l2_loss, optimizer, donate=False)
        results.append(step(params, (), optimizer.init(params), x, y))
    for a, e in zip(*map(jax.tree.leaves, results), strict=True):
        np.testing.assert_allclose(a, e, rtol=1e-4, atol=1e-5)


def test_a_state_is_used_in_evaluation_and_refused_in_training():
    net = layers.reversible(running_norm(), layers.dense(3), 2)
    x = jax.random.normal(KEY, (4, 6))
    params, state = net.init(KEY, x)
    assert state["f"].shape == (2, 3)
    with pytest.raises(ValueError, match="f or g has a state, which moves in training"):
        funcbp.backprop(net, rules.l2_loss)(params, x, x, state=state)
    state = jax.tree.map(lambda a: a + 0.5, state)
    result = jax.jit(funcbp.backprop(net, rules.l2_loss, train=False))(params, x, x, state=state)
    value = lambda x: net.fwd(params, state, x, layers.Context(None, False)).y  # noqa: E731
    expected = evaluated(jax.grad(lambda z: jnp.mean(0.5 * jnp.sum((value(z) - x) ** 2, -1))), x)
    assert_trees_close(result.x_ct, expected)


@pytest.mark.parametrize(
    ("f", "x", "error", "message"),
    [
        (
            layers.dense(2),
            jnp.ones((2, 6)),
            ValueError,
            "f must give an array like that which it is added to",
        ),
        (layers.dense(2), jnp.ones((2, 5)), ValueError, "two equal halves"),
        (layers.dense(2), jnp.ones((2, 4), int), TypeError, "must be floating"),
        (layers.dense(2), {"a": jnp.ones((2, 4))}, TypeError, "an array, or a pair of arrays"),
        (layers.dense, jnp.ones((2, 4)), TypeError, "f is a function, not a Layer"),
    ],
)
def test_refusals(f, x, error, message):
    with pytest.raises(error, match=message):
        layers.reversible(f, layers.dense(3), 2).init(KEY, x)


def test_wrong_counts():
    with pytest.raises(ValueError, match="`times` must be at least 1"):
        layers.reversible(layers.dense(2), layers.dense(2), 0)
    params, x, _ = data(2, "float32")
    with pytest.raises(ValueError, match="the first axis of params is the block, of 3"):
        network(3).fwd(params, (), x, layers.Context())
    with pytest.raises(ValueError, match=r"a dict of \['f', 'g'\]"):
        network(3).fwd((), (), x, layers.Context())
