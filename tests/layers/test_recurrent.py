"""Recurrent networks as layers: what they compute, masks, states, errors."""

import jax
import numpy as np
import pytest
from jax import numpy as jnp

import funcbp
from funcbp import layers, rules
from funcbp._compat import quick_jit
from funcbp.verify._pairs import evaluated
from tests.support import assert_trees_close, drawn

KEY = jax.random.key(0)
X = jnp.asarray(np.random.default_rng(1).standard_normal((2, 4, 3)), "float32")
MASK = jnp.asarray(np.arange(4) < np.array([[4], [2]]))
LAYERS = {"elman": layers.elman, "gru": layers.gru, "lstm": layers.lstm}
NAMES = list(LAYERS)


def start(name):
    return (np.zeros((2, 5), "float32"),) * (2 if name == "lstm" else 1)


@pytest.mark.parametrize("name", NAMES)
def test_it_is_the_rule(name):
    network = LAYERS[name](5)
    params, state = drawn(network, X)
    assert state == ()
    y = network.fwd(params, (), X, layers.Context(mask=MASK)).y
    expected = getattr(rules, name)(X, *start(name), **params, mask=MASK)[0]
    np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize("name", NAMES)
def test_the_last_state_alone_is_that_of_each_sequence(name):
    network = LAYERS[name](5, last=True)
    params, _ = drawn(network, X)
    run = quick_jit(funcbp.backprop(network, rules.l2_loss, reduction="sum"))
    result = run(params, X, np.zeros((2, 5), "float32"), mask=MASK)

    def value(params, x):
        every = getattr(rules, name).reference(x, *start(name), **params)[0]
        return ((every[0, 3] ** 2).sum() + (every[1, 1] ** 2).sum()) / 2

    grads, x_ct = evaluated(jax.grad(value, (0, 1)), params, X)
    assert_trees_close(result.grads, grads)
    assert_trees_close(result.x_ct, x_ct)
    assert not np.any(result.x_ct[1, 2:])


def test_initial_parameters():
    params, _ = layers.lstm(4, forget_bias=2.0).init(KEY, X)
    assert params["b"].tolist() == [0.0] * 4 + [2.0] * 4 + [0.0] * 8
    for gate in jnp.split(params["w_state"], 4, axis=1):
        np.testing.assert_allclose(gate.T @ gate, np.eye(4), atol=1e-6)
    assert layers.gru(4).init(KEY, X)[0].keys() == {"w_in", "w_state", "b", "b_state"}


@pytest.mark.parametrize("name", NAMES)
def test_a_state_makes_two_batches_one_sequence(name):
    network, whole = LAYERS[name](5, stateful=True), LAYERS[name](5)
    params, state = network.init(KEY, X[:, :2])
    assert all(not np.any(s) for s in state)
    first = network.fwd(params, state, X[:, :2], layers.Context())
    second = network.fwd(params, first.state, X[:, 2:], layers.Context())
    y = jnp.concatenate([first.y, second.y], axis=1)
    np.testing.assert_allclose(y, whole.fwd(params, (), X, layers.Context()).y, rtol=1e-6)


def test_truncation_inside_of_a_batch_is_that_of_a_stateful_layer():
    """δ is cut every two steps, or the sequence is: gradients of the parameters are the same."""
    cut, stateful = layers.gru(5, truncate=2), layers.gru(5, stateful=True)
    params, state = drawn(stateful, X[:, :2])
    options = {"reduction": "sum"}
    whole = quick_jit(funcbp.backprop(cut, rules.l2_loss, **options))(
        params, X, np.zeros((2, 4, 5), "float32")
    )
    part = quick_jit(funcbp.backprop(stateful, rules.l2_loss, **options))
    first = part(params, X[:, :2], np.zeros((2, 2, 5), "float32"), state=state)
    second = part(params, X[:, 2:], np.zeros((2, 2, 5), "float32"), state=first.state)
    assert_trees_close(whole.grads, jax.tree.map(np.add, first.grads, second.grads))
    full = quick_jit(funcbp.backprop(layers.gru(5), rules.l2_loss, **options))(
        params, X, np.zeros((2, 4, 5), "float32")
    )
    assert not np.allclose(full.grads["w_state"], whole.grads["w_state"], rtol=1e-2)


def test_in_both_directions_by_composition():
    def backward() -> layers.Layer:
        return layers.chain(flipped(), layers.gru(5), flipped())

    network = layers.parallel(forward=layers.gru(5), backward=backward())
    params, _ = drawn(network, X)
    y = network.fwd(params, (), X, layers.Context()).y
    other = layers.gru(5).fwd(params["backward"][1], (), X[:, ::-1], layers.Context()).y[:, ::-1]
    np.testing.assert_array_equal(y["backward"], other)


def flipped() -> layers.Layer:
    return layers.leaf(
        lambda key, spec: ((), ()),
        lambda params, state, x, context: (x[:, ::-1], state, ()),
        lambda params, residuals, y_ct: ((), y_ct[:, ::-1]),
    )


def test_a_repeat_of_recurrent_layers_saves_no_parameters_and_no_mask():
    network = layers.repeat(layers.lstm(3), 4)
    params, _ = drawn(network, X)

    def saved(params, x, mask):
        return network.fwd(params, (), x, layers.Context(mask=mask)).residuals

    leaves = jax.tree.leaves(jax.eval_shape(saved, params, X, MASK))
    assert [a.shape for a in leaves if a.dtype == bool] == [MASK.shape]
    assert not {a.shape for a in leaves} & {p.shape for p in jax.tree.leaves(params)}


def run(layer, x=X, state=()):
    return layer.fwd(drawn(layer, X)[0], state, x, layers.Context())


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: layers.lstm(0), ValueError, "lstm: `features` must be at least 1, got 0"),
        (lambda: layers.gru(4).fwd({}, (), X, layers.Context()), ValueError, "gru: params must be a dict of"),
        (
            lambda: run(layers.elman(4), X[0, 0]),
            ValueError,
            r"must be \(\*batch, time, in\), got float32\[3\]",
        ),
        (
            lambda: run(layers.lstm(4, stateful=True), X[:1], (jnp.zeros((2, 4)),) * 2),
            ValueError,
            r"the state is float32\[2, 4\], the input float32\[1, 4, 3\]",
        ),
        (lambda: run(layers.gru(4, truncate=0)), ValueError, "`truncate` must be None or a number of steps"),
    ],
)
def test_errors_say_what_to_do(make, error, message):
    with pytest.raises(error, match=message):
        make()
