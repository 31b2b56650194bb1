"""Normalization layers: their parameters, the running state of batch normalization, and where it refuses."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest
from jax import numpy as jnp

import funcbp
from funcbp import layers, rules
from funcbp.verify._pairs import evaluated

KEY = jax.random.key(0)
X = jnp.asarray(np.random.default_rng(1).standard_normal((4, 3, 6)) + 2, "float32")
TRAIN, EVALUATE = layers.Context(), layers.Context(train=False)


@pytest.mark.parametrize(
    ("layer", "rule", "names"),
    [
        (layers.layer_norm(eps=1e-2), lambda x: rules.layer_norm(x, eps=1e-2), {"gain", "bias"}),
        (layers.rms_norm(eps=1e-2), lambda x: rules.rms_norm(x, eps=1e-2), {"gain"}),
        (layers.rms_norm(gain=False), rules.rms_norm, set()),
        (layers.group_norm(3), lambda x: rules.group_norm(x, groups=3), {"gain", "bias"}),
        (layers.group_norm(2, bias=False), lambda x: rules.group_norm(x, groups=2), {"gain"}),
        (layers.instance_norm(gain=False), rules.instance_norm, {"bias"}),
        (layers.batch_norm(bias=False), lambda x: rules.batch_norm(x)[0], {"gain"}),
    ],
)
def test_a_layer_is_its_rule_and_begins_without_effect_of_its_parameters(
    layer: layers.Layer, rule: Callable[[jax.Array], jax.Array], names: set[str]
):
    params, state = layer.init(KEY, X)
    assert params.keys() == names
    forward = layer.fwd(params, state, X, TRAIN)
    y, pullback = jax.vjp(rule, X)
    np.testing.assert_allclose(forward.y, y, rtol=1e-6, atol=1e-6)

    factors: dict[str, Any] = {}
    y_ct = jnp.asarray(np.random.default_rng(2).standard_normal(X.shape), "float32")
    backward = layer.bwd(
        params, forward.residuals, y_ct, lambda path, p, f, aux: factors.update({path[0].key: f}), None, ()
    )
    np.testing.assert_allclose(backward.x_ct, pullback(y_ct)[0], rtol=1e-5, atol=1e-5)
    for name in names:
        expected = y_ct * y if name == "gain" else y_ct
        np.testing.assert_allclose(
            factors[name].gradient(), expected.sum((0, 1)), rtol=1e-5, atol=1e-5, err_msg=name
        )


def test_batch_norm_keeps_running_averages_and_evaluates_by_them():
    layer = layers.batch_norm(momentum=0.75)
    params, state = layer.init(KEY, X)
    np.testing.assert_array_equal(state["mean"], 0)
    np.testing.assert_array_equal(state["variance"], 1)
    for x in (X, 2 * X):
        expected = {
            "mean": 0.75 * state["mean"] + 0.25 * x.mean((0, 1)),
            "variance": 0.75 * state["variance"] + 0.25 * x.var((0, 1)),
        }
        state = layer.fwd(params, state, x, TRAIN).state
        for name, value in expected.items():
            np.testing.assert_allclose(state[name], value, rtol=1e-5)
    forward = layer.fwd(params, state, X, EVALUATE)
    assert forward.state is state
    np.testing.assert_allclose(
        forward.y, (X - state["mean"]) / jnp.sqrt(state["variance"] + 1e-5), rtol=1e-4, atol=1e-5
    )
    alone = layer.fwd(params, state, X[:1], EVALUATE).y
    np.testing.assert_allclose(forward.y[:1], alone, rtol=1e-6)


def test_the_gradient_of_the_evaluation_takes_the_statistics_for_given():
    network = layers.chain(layers.batch_norm(), layers.dense(1))
    params, state = network.init(KEY, X[:, 0])
    x, y = X[:, 0], jnp.zeros((4, 1))

    def value(params: Any, x: jax.Array) -> jax.Array:
        state_ = state[0]
        z = (x - state_["mean"]) / jnp.sqrt(state_["variance"] + 1e-5) * params[0]["gain"] + params[0]["bias"]
        return 0.5 * jnp.mean(jnp.sum((z @ params[1]["w"] + params[1]["b"]) ** 2, -1))

    sweep = jax.jit(funcbp.backprop(network, rules.l2_loss, train=False))(params, x, y, state=state)
    grads, x_ct = evaluated(jax.grad(value, argnums=(0, 1)), params, x)
    np.testing.assert_allclose(sweep.x_ct, x_ct, rtol=1e-5, atol=1e-6)
    for got, expected in zip(jax.tree.leaves(sweep.grads), jax.tree.leaves(grads), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("train", [True, False])
def test_statistics_of_16_bit_inputs_are_in_float32(train: bool):
    layer = layers.batch_norm(momentum=0.0)
    x = X.astype(jnp.bfloat16)
    params, state = layer.init(KEY, x)
    assert {a.dtype for a in jax.tree.leaves(state)} == {jnp.dtype("float32")}
    forward = layer.fwd(params, state, x, layers.Context(train=train))
    assert forward.y.dtype == jnp.bfloat16
    assert {a.dtype for a in jax.tree.leaves(forward.state)} == {jnp.dtype("float32")}
    if train:
        np.testing.assert_allclose(forward.state["mean"], x.astype(jnp.float32).mean((0, 1)), rtol=1e-6)
    backward = layer.bwd(params, forward.residuals, forward.y, lambda *_: None, None, ())
    assert backward.x_ct.dtype == jnp.bfloat16


def test_a_stack_of_blocks_has_a_state_for_each():
    network = layers.repeat(layers.chain(layers.dense(6), layers.batch_norm()), 2)
    params, state = network.init(KEY, X)
    assert jax.tree.leaves(state)[0].shape == (2, 6)
    sweep = jax.jit(funcbp.backprop(network, rules.l2_loss))(params, X, np.zeros_like(X), state=state)
    assert np.abs(sweep.state[1]["mean"][0] - sweep.state[1]["mean"][1]).max() > 0


def test_batch_norm_refuses_where_examples_must_be_independent():
    network = layers.chain(first=layers.dense(6), norm=layers.batch_norm())
    params, state = network.init(KEY, X)
    call = {"params": params, "x": X, "y": jnp.zeros_like(X), "state": state}
    with pytest.raises(ValueError, match="examples must be independent here") as error:
        funcbp.backprop(network, rules.l2_loss, microbatches=2)(**call)
    assert any("in layer `norm`" in note for note in error.value.__notes__)
    funcbp.backprop(network, rules.l2_loss, microbatches=2, train=False)(**call)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: layers.group_norm(0), ValueError, "`groups` must be at least 1, got 0"),
        (lambda: layers.batch_norm(momentum=1.5), ValueError, r"`momentum` must be in \[0, 1\], got 1.5"),
        (lambda: layers.rms_norm().fwd({}, (), X, TRAIN), ValueError, "rms_norm: params must be a dict of"),
        (
            lambda: layers.batch_norm().fwd(layers.batch_norm().init(KEY, X)[0], (), X, TRAIN),
            ValueError,
            "pass state= what `init` returned",
        ),
        (
            lambda: layers.batch_norm().fwd(*layers.batch_norm().init(KEY, X), X[..., :5], TRAIN),
            ValueError,
            r"running mean has shape \(6,\), the input 5 features",
        ),
        (
            lambda: layers.chain(layers.group_norm(4)).init(KEY, X),
            ValueError,
            "`groups` must divide the channels, got 4 groups for 6 channels",
        ),
        (lambda: layers.batch_norm().init(KEY, jnp.ones((2, 3), int)), TypeError, "batch_norm: the input"),
    ],
)
def test_errors_say_what_to_do(call: Callable[[], Any], error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        call()
