"""The optax step: any optimizer unchanged, the trajectory of `jax.grad`, no second compilation."""

import functools

import chex
import jax
import numpy as np
import optax
import optax.contrib
import pytest
from jax import numpy as jnp

import funcbp
from funcbp import layers, rules, training
from funcbp.verify._pairs import evaluated
from tests.support import assert_trees_close, assert_trees_equal, drawn

KEY = jax.random.key(0)
LOSS = rules.softmax_cross_entropy_with_integer_labels
NETWORK = layers.chain(layers.dense(8), layers.activation("tanh"), layers.dense(3))
X = jnp.asarray(np.random.default_rng(0).standard_normal((16, 5)), "float32")
Y = np.arange(16, dtype="int32") % 3


def value(params):
    z = jnp.tanh(X @ params[0]["w"] + params[0]["b"]) @ params[2]["w"] + params[2]["b"]
    return optax.losses.softmax_cross_entropy_with_integer_labels(z, Y).mean()


def steps(network, optimizer, count=5, **options):
    return go(training.make_step(network, LOSS, optimizer, **options), network, optimizer, count)


def go(step, network, optimizer, count):
    params, state = drawn(network, X)
    opt_state = optimizer.init(params)
    for i in range(count):
        params, state, opt_state, metrics = step(params, state, opt_state, X, Y, jax.random.fold_in(KEY, i))
    return params, metrics


OPTIMIZERS = {
    "sgd": optax.sgd(0.1),
    "momentum": optax.sgd(0.1, momentum=0.9),
    "nesterov": optax.sgd(0.1, momentum=0.9, nesterov=True),
    "rmsprop": optax.rmsprop(1e-2),
    "adam": optax.adam(1e-2),
    "adamw and clipping on a schedule": optax.chain(
        optax.clip_by_global_norm(0.5), optax.adamw(optax.cosine_decay_schedule(1e-2, 10), weight_decay=0.1)
    ),
    "two optimizers": optax.multi_transform(
        {"w": optax.adam(1e-2), "b": optax.sgd(0.1)},
        lambda params: jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key, params),
    ),
    "polyak_sgd": optax.polyak_sgd(),
    "lbfgs": optax.lbfgs(),
    "reduce_on_plateau": optax.chain(optax.adam(1e-2), optax.contrib.reduce_on_plateau(patience=1)),
}


# A step asks an optimizer only which arguments it takes.
ALIKE = ("momentum", "nesterov", "rmsprop")
EVERY = [pytest.param(name, marks=pytest.mark.long) if name in ALIKE else name for name in OPTIMIZERS]


@functools.cache
def step_of(name):
    """Compiled once for all tests."""
    return training.make_step(NETWORK, LOSS, OPTIMIZERS[name])


@pytest.mark.parametrize("name", EVERY)
def test_any_optimizer_follows_the_trajectory_of_jax_grad(name):
    optimizer = optax.with_extra_args_support(OPTIMIZERS[name])
    params, _ = drawn(NETWORK, X)
    opt_state = optimizer.init(params)

    @jax.jit
    def step(params, opt_state):
        v, grads = jax.value_and_grad(value)(params)
        updates, opt_state = optimizer.update(grads, opt_state, params, value=v, grad=grads, value_fn=value)
        return optax.apply_updates(params, updates), opt_state

    for _ in range(5):
        params, opt_state = step(params, opt_state)
    by_hand, metrics = go(step_of(name), NETWORK, OPTIMIZERS[name], 5)
    for a, b in zip(jax.tree.leaves(by_hand), jax.tree.leaves(params), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)
    assert float(metrics["value"]) < float(evaluated(value, drawn(NETWORK, X)[0]))


def test_plain_gradient_descent_is_optax_sgd():
    params, _ = drawn(NETWORK, X)
    grads = jax.jit(funcbp.backprop(NETWORK, LOSS))(params, X, Y).grads
    expected = jax.tree.map(lambda w, g: w - np.float32(0.1) * np.asarray(g), params, grads)
    assert_trees_close(steps(NETWORK, optax.sgd(0.1), count=1)[0], expected, ulps=1)


def test_metrics_are_those_before_the_update():
    params, _ = drawn(NETWORK, X)
    _, metrics = steps(NETWORK, optax.sgd(0.1), count=1)
    expected, norm = evaluated(lambda p: (value(p), optax.tree.norm(jax.grad(value)(p))), params)
    np.testing.assert_allclose(metrics["value"], expected, rtol=1e-6)
    np.testing.assert_allclose(metrics["gradient_norm"], norm, rtol=1e-5)


@pytest.mark.parametrize("name", ["adam", "lbfgs", "reduce_on_plateau"])
def test_nothing_recompiles_between_steps(name):
    traces = []

    def counting():
        plain = layers.activation("identity")
        return plain._replace(fwd=lambda *args: traces.append(1) or plain.fwd(*args))

    network, optimizer = layers.chain(*[NETWORK, counting()]), OPTIMIZERS[name]
    params, state = drawn(network, X)
    opt_state = optimizer.init(params)
    step = training.make_step(network, LOSS, optimizer)
    once = set()
    for _ in range(4):
        params, state, opt_state, _ = step(params, state, opt_state, X, Y)
        once.add(len(traces))
    assert len(once) == 1


def test_a_step_inside_a_jitted_loop_is_traced_once():
    optimizer = optax.adam(1e-2)
    params, state = drawn(NETWORK, X)
    step = training.make_step(NETWORK, LOSS, optimizer)

    @jax.jit
    @chex.assert_max_traces(n=1)
    def epoch(params, opt_state):
        def body(carry, key):
            params, opt_state = carry
            result = step(params, state, opt_state, X, Y, key)
            return (result.params, result.opt_state), result.metrics["value"]

        return jax.lax.scan(body, (params, opt_state), jax.random.split(KEY, 5))

    opt_state = optimizer.init(params)
    for _ in range(2):
        (params, opt_state), values = epoch(params, opt_state)
    assert values[-1] < values[0]


def test_frozen_parameters_stay_whatever_the_optimizer_does():
    optimizer = optax.adamw(1e-1, weight_decay=0.5)
    before, _ = drawn(NETWORK, X)
    after, _ = steps(NETWORK, optimizer, frozen=("0",))
    assert_trees_equal(after[0], before[0])
    assert not np.array_equal(after[2]["w"], before[2]["w"])


def test_donated_buffers_are_gone_and_the_others_are_not():
    optimizer = optax.adam(1e-2)
    for donate in (True, False):
        params, state = drawn(NETWORK, X)
        step = training.make_step(NETWORK, LOSS, optimizer, donate=donate)
        step(params, state, optimizer.init(params), X, Y)
        assert params[0]["w"].is_deleted() == donate


@pytest.mark.parametrize("name", EVERY)
def test_every_optimizer_can_be_given_its_buffers(name):
    params, _ = steps(NETWORK, OPTIMIZERS[name], count=2, donate=True)
    kept, _ = go(step_of(name), NETWORK, OPTIMIZERS[name], 2)
    if name == "lbfgs":  # compiled without XLA's fusion emitters, its line search rounds differently
        assert_trees_close(params, kept, ulps=4)
    else:
        assert_trees_equal(params, kept)


def test_an_optimizer_is_given_only_what_it_takes():
    sam = optax.contrib.sam(optax.sgd(0.1), optax.sgd(0.01), sync_period=2)
    _, metrics = steps(NETWORK, sam, count=4)
    assert np.isfinite(metrics["value"])


def test_an_optimizer_that_was_not_called_is_named():
    with pytest.raises(TypeError, match="`optimizer` must be of optax"):
        training.make_step(NETWORK, LOSS, optax.adam)


def test_the_norm_of_half_precision_gradients_does_not_overflow():
    network = layers.dense(1, bias=False)
    step = training.make_step(network, rules.squared_error, optax.sgd(0.0), reduction="sum")
    x, y = jnp.full((1, 4), 50, "float16"), jnp.zeros((1, 1), "float16")
    params = {"w": jnp.ones((4, 1), "float16")}
    result = step(params, (), optax.sgd(0.0).init(params), x, y)
    assert float(result.metrics["gradient_norm"]) == pytest.approx(2 * 50 * 400, rel=1e-3)


def test_weakly_typed_parameters_do_not_retrace():
    step = training.make_step(NETWORK, LOSS, optax.sgd(0.1))
    params, _ = drawn(NETWORK, X)
    params[0]["b"] = jnp.broadcast_to(jnp.asarray(1.0), (8,))
    for _ in range(3):
        params, *_ = step(params, (), optax.sgd(0.1).init(params), X, Y)
    assert step.__wrapped__._cache_size() == 1


def test_options_of_the_sweep_reach_it():
    network = layers.chain(NETWORK, layers.dropout(0.1))
    plain, _ = steps(network, optax.sgd(0.1))
    for options in (
        {"microbatches": 4},
        {"precision": funcbp.Precision(compute="bfloat16")},
        {"reduction": "sum"},
    ):
        changed, metrics = steps(network, optax.sgd(0.1), **options)
        assert not np.array_equal(changed[0][0]["w"], plain[0][0]["w"])
        assert np.isfinite(metrics["value"])


def test_what_was_asked_for_is_among_the_metrics():
    def visit(path, parameter, factor, aux):
        return jnp.linalg.norm(factor.delta)

    _, metrics = steps(NETWORK, optax.sgd(0.1), count=1, collect=("deltas", "per_example"), visit=visit)
    assert metrics.keys() == {"value", "gradient_norm", "deltas", "per_example", "collected"}
    assert metrics["deltas"][2].shape == (16, 3)
    np.testing.assert_allclose(metrics["per_example"].mean(), metrics["value"], rtol=1e-6)
    assert metrics["collected"][2]["w"] == jnp.linalg.norm(metrics["deltas"][2])


def test_the_gradient_of_the_value_function_is_the_sweep():
    f = training.value_function(NETWORK, LOSS)
    params, _ = drawn(NETWORK, X)
    v, grads = jax.jit(jax.value_and_grad(f))(params, X, Y)
    result = jax.jit(funcbp.backprop(NETWORK, LOSS))(params, X, Y)
    assert_trees_close((v, grads), (result.value, result.grads), ulps=4)
    assert_trees_close(
        jax.jit(jax.grad(lambda p: 3 * f(p, X, Y)))(params),
        jax.tree.map(lambda g: 3 * np.asarray(g), grads),
        ulps=4,
    )
