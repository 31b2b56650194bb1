"""An LSTM language model in ten lines, against `jax.grad` of one written out in plain JAX."""

import jax
import numpy as np
import optax
import pytest
from jax import numpy as jnp

import funcbp
from funcbp import layers, rules
from funcbp._compat import quick_jit
from funcbp.verify._pairs import evaluated
from tests.layers.test_gpt2 import assert_close
from tests.support import drawn

VOCABULARY, WIDTH, FEATURES = 7, 3, 4
KEY = jax.random.key(0)
LOSS = rules.softmax_cross_entropy_with_integer_labels


@pytest.fixture(autouse=True)
def _float64():
    with jax.enable_x64(True):
        yield


def language_model(**options) -> layers.Layer:
    return layers.chain(
        tokens=layers.embedding(VOCABULARY, WIDTH, dtype="float64"),
        first=layers.lstm(FEATURES, **options),
        second=layers.lstm(FEATURES, **options),
        out=layers.dense(VOCABULARY),
    )


def plain_lstm(p, x, state, mask):
    h, c = state
    every = []
    for t in range(x.shape[1]):
        i, f, g, o = jnp.split(x[:, t] @ p["w_in"] + h @ p["w_state"] + p["b"], 4, axis=-1)
        c_new = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        h_new = jax.nn.sigmoid(o) * jnp.tanh(c_new)
        h, c = (jnp.where(mask[:, t, None], new, old) for new, old in ((h_new, h), (c_new, c)))
        every.append(h)
    return jnp.stack(every, 1), (h, c)


def plain_value(params, ids, targets, mask, states):
    x = params["tokens"]["table"][ids]
    x, first = plain_lstm(params["first"], x, states["first"], mask)
    x, second = plain_lstm(params["second"], x, states["second"], mask)
    logits = x @ params["out"]["w"] + params["out"]["b"]
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
    return (mask * losses).sum() / mask.sum(), {"first": first, "second": second}


def data(network, batch=3, time=4):
    ids, targets = map(jnp.asarray, np.random.default_rng(1).integers(0, VOCABULARY, (2, batch, time)))
    mask = np.arange(time) < np.array([[4], [2], [3]])
    params, state = drawn(network, ids)
    return params, state, ids, targets, mask


def test_the_gradient_is_that_of_a_plain_spelling():
    network = language_model()
    params, _, ids, targets, mask = data(network)
    zeros = (np.zeros((3, FEATURES)),) * 2
    plain = jax.value_and_grad(plain_value, has_aux=True)
    (value, _), expected = evaluated(plain, params, ids, targets, mask, {"first": zeros, "second": zeros})
    sweep = quick_jit(funcbp.value_and_grad(network, LOSS))
    found, grads = sweep(params, ids, targets, weights=mask.astype("float64"), mask=mask)
    np.testing.assert_allclose(found, value, rtol=1e-13)
    assert_close(grads, expected)


def test_a_stateful_model_goes_on_where_the_last_batch_ended():
    network = language_model(stateful=True)
    params, state, ids, targets, mask = data(network)
    sweep = quick_jit(funcbp.backprop(network, LOSS))
    plain = jax.value_and_grad(plain_value, has_aux=True)
    states = {name: state[name] for name in ("first", "second")}
    for _ in range(2):
        (value, states), expected = evaluated(plain, params, ids, targets, mask, states)
        result = sweep(params, ids, targets, state=state, weights=mask.astype("float64"), mask=mask)
        np.testing.assert_allclose(result.value, value, rtol=1e-13)
        assert_close(result.grads, expected)
        state = result.state
        for name, expected_state in states.items():
            np.testing.assert_allclose(state[name], expected_state, rtol=1e-12)
    assert not np.allclose(states["first"][0], 0)
