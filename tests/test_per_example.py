"""What is per example, of every layer, against `vmap` of `jax.grad` and of the sweep of one example."""

import functools

import jax
import numpy as np
import pytest
from jax import numpy as jnp

import funcbp
from funcbp import backprop, layers, rules
from funcbp.verify._pairs import evaluated
from tests.per_example import (
    BATCH,
    CROSS_ENTROPY,
    EVALUATED,
    KEY,
    NETWORKS,
    TIME,
    WIDTH,
    assert_close,
    leaf_norms,
    problem,
    summed,
    total_norms,
)

NAMES = ("norms", "squared_norms", "gram", "second_moment", "per_example_grads", "factors")


@pytest.fixture(autouse=True)
def _float64():
    with jax.enable_x64(True):
        yield


# The others are traced, and computed by NumPy.
COMPILED = {"mlp", "repeat in repeat", "conv", "grouped conv", "conv transposed", "batch_norm, evaluated"}


def called(function):
    return lambda *args, **arrays: evaluated(lambda args, arrays: function(*args, **arrays), args, arrays)


@pytest.mark.parametrize("name", NETWORKS)
def test_norms_and_clipped_sums_of_every_layer(name):
    network, options, args, arrays, each = problem(name)
    norms = total_norms(each)
    bound = float(np.median(norms))
    clip = funcbp.clipped_grad(network, CROSS_ENTROPY, max_norm=bound, **options)
    result = (jax.jit if name in COMPILED else called)(clip)(*args, **arrays)
    c = np.minimum(1, bound / norms)
    assert (c < 1).any()
    assert (c == 1).any()
    assert_close((result.norms, result.coefficients), (norms, c))
    assert_close(result.grads, jax.tree.map(lambda g: np.tensordot(c, g, 1), each))


@pytest.mark.parametrize("name", ["mlp", "repeat", pytest.param("gpt2", marks=pytest.mark.long)])
def test_everything_that_can_be_collected(name):
    network, options, args, arrays, each = problem(name)
    sweep = backprop(network, CROSS_ENTROPY, collect=NAMES, **options)
    result = jax.jit(lambda *args: sweep(*args, **arrays))(*args)
    flat = np.concatenate([g.reshape(BATCH, -1) for g in jax.tree.leaves(each)], axis=1)
    assert_close(result.norms, total_norms(each))
    summed = jax.tree.map(lambda a: a.reshape(BATCH, -1).sum(1), result.squared_norms)
    assert_close(summed, leaf_norms(each))
    assert_close(result.gram, flat @ flat.T)
    assert_close(result.second_moment, jax.tree.map(lambda g: np.square(g).sum(0), each))
    assert_close(result.per_example_grads, each)
    assert_close(result.grads, jax.tree.map(lambda g: g.mean(0), each))
    gradients = jax.tree.map(
        lambda f: evaluated(lambda f: f.gradient(), f),
        result.factors,
        is_leaf=lambda f: isinstance(f, funcbp.factors.Factor),
    )
    assert_close(gradients, jax.tree.map(lambda g: g.sum(0), each))


def test_against_jax_grad():
    """A GPT-2-like stack with a tied embedding, spelled in plain JAX."""
    network, _, (params, ids, y), _, each = problem("gpt2")

    def affine(p, x):
        return x @ p["w"] + p["b"]

    def norm(p, x):
        x = (x - x.mean(-1, keepdims=True)) / jnp.sqrt(x.var(-1, keepdims=True) + 1e-5)
        return x * p["gain"] + p["bias"]

    def block(x, p):
        a = norm(p["attention"]["norm"], x)
        parts = p["attention"]["attention"]
        q, k, v = (affine(parts[n], a).reshape(TIME, 2, WIDTH // 2) for n in ("query", "key", "value"))
        logits = jnp.einsum("thf,shf->hts", q, k) / jnp.sqrt(WIDTH // 2)
        weights = jax.nn.softmax(jnp.where(jnp.tri(TIME, dtype=bool), logits, -jnp.inf))
        out = jnp.einsum("hts,shf->thf", weights, v).reshape(TIME, WIDTH)
        x = x + affine(parts["output"], out)
        m = p["mlp"]
        return x + affine(m["down"], jax.nn.gelu(affine(m["up"], norm(m["norm"], x)))), None

    def loss(p, ids, y):
        x = p["embed"]["table"][ids] + p["positions"]["table"][: ids.shape[0]]
        x, _ = jax.lax.scan(block, x, p["body"][0])
        logits = norm(p["body"][1], x) @ p["embed"]["table"].T
        return -jnp.take_along_axis(jax.nn.log_softmax(logits), y[:, None], 1).sum()

    by_jax = evaluated(jax.vmap(jax.grad(loss), (None, 0, 0)), params, ids, y)
    assert_close(each, by_jax, 1e-9)
    norms = total_norms(by_jax)
    clipped = jax.jit(funcbp.clipped_grad(network, CROSS_ENTROPY, max_norm=float(norms.mean())))
    result = clipped(params, ids, y)
    assert_close(result.norms, norms, 1e-9)
    c = np.minimum(1, norms.mean() / norms)
    assert_close(result.grads, jax.tree.map(lambda g: np.tensordot(c, g, 1), by_jax), 1e-9)


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_weights_are_those_of_each_examples_own_loss(reduction):
    """The gradient of w_n l_n, whatever the reduction; a label without weight may be none."""
    network, _, (params, x, y), _, each = problem("mlp")
    weights = np.array([1.0, 2.0, 0.0, 0.5])
    y = np.where(np.arange(BATCH) == 2, -1, y)
    sweep = backprop(network, CROSS_ENTROPY, collect=NAMES[:4], reduction=reduction)
    result = jax.jit(sweep)(params, x, y, weights=weights)
    each = jax.tree.map(lambda g: g * np.asarray(weights).reshape(-1, *(1,) * (g.ndim - 1)), each)
    assert_close(result.norms, total_norms(each))
    assert_close(result.second_moment, jax.tree.map(lambda g: np.square(g).sum(0), each))
    assert result.gram[2].tolist() == [0.0] * BATCH
    clipped = funcbp.clipped_grad(network, CROSS_ENTROPY, max_norm=0.4)
    result = jax.jit(clipped)(params, x, y, weights=weights)
    assert_close(result.grads, summed(np.minimum(1, 0.4 / np.maximum(total_norms(each), 1e-9)), each))
    nothing = jax.jit(sweep)(params, x, y, weights=np.zeros(BATCH))
    assert nothing.norms.tolist() == [0.0] * BATCH


def test_weights_of_positions_weigh_within_an_example():
    network, _, (params, x, y), _, _ = problem("positions")
    x, y = np.asarray(x), np.asarray(y)
    weights = np.arange(BATCH * TIME, dtype=float).reshape(BATCH, TIME)
    sweep = jax.jit(backprop(network, CROSS_ENTROPY, collect=("norms",)))
    one = backprop(network, CROSS_ENTROPY, reduction="sum")
    each = jax.vmap(lambda x, y, w: one(params, x[None], y[None], weights=w[None]).grads)
    expected = total_norms(evaluated(each, x, y, weights))
    assert_close(sweep(params, x, y, weights=weights).norms, expected)


def test_norms_of_microbatches_are_joined():
    network, _, args, *_ = problem("repeat")
    names = ("norms", "squared_norms", "second_moment")
    whole, parts = (
        jax.jit(backprop(network, CROSS_ENTROPY, collect=names, microbatches=n))(*args) for n in (1, 2)
    )
    assert_close(parts, whole)


def test_frozen_parameters_take_no_part():
    network, _, args, _, each = problem("mlp")
    sweep = backprop(network, CROSS_ENTROPY, collect=NAMES, frozen=("0", "2.b"))
    result = jax.jit(lambda *args: sweep(*args)._replace(factors=None))(*args)
    assert_close(result.norms, total_norms(each[2]["w"]))
    for name in ("squared_norms", "second_moment", "per_example_grads"):
        tree = getattr(result, name)
        assert tree[0] == {"b": None, "w": None}
        assert tree[2]["b"] is None
    clip = functools.partial(funcbp.clipped_grad, network, CROSS_ENTROPY, max_norm=0.2)
    clipped = jax.jit(clip(frozen=("0", "2.b")))(*args)
    c = np.minimum(1, 0.2 / total_norms(each[2]["w"]))
    assert_close(clipped.grads[2]["w"], summed(c, each[2]["w"]))
    assert not clipped.grads[0]["w"].any()
    still = jax.jit(clip(frozen=lambda path: True))(*args)
    assert still.norms.tolist() == [0.0] * BATCH


def test_kronecker_factors_of_weights():
    network, _, args, _, _ = problem("repeat")
    result = jax.jit(backprop(network, CROSS_ENTROPY, collect=("kronecker", "factors")))(*args)
    assert result.kronecker[0]["b"] is None
    assert result.kronecker[1]["w"].rows.shape == (3, WIDTH, WIDTH)
    assert_close(result.kronecker[1]["w"], result.factors[1]["w"].kronecker())
    assert_close(result.kronecker[2]["w"], result.factors[2]["w"].kronecker("expand"))


@pytest.mark.parametrize("name", ["norms", "factors", "gram"])
def test_layers_that_couple_examples_refuse(name):
    x, y = jnp.ones((BATCH, WIDTH)), jnp.zeros(BATCH, int)
    params, state = EVALUATED.init(KEY, x)
    with pytest.raises(ValueError, match="batch_norm: examples must be independent here"):
        backprop(EVALUATED, CROSS_ENTROPY, collect=(name,))(params, x, y, state=state)
    with pytest.raises(ValueError, match="batch_norm: examples must be independent here"):
        funcbp.clipped_grad(EVALUATED, CROSS_ENTROPY, max_norm=1.0)(params, x, y, state=state)


def test_a_layer_that_loses_the_examples_is_refused():
    def flat(x):
        return x.reshape(-1, x.shape[-1])

    network = layers.leaf(
        lambda key, spec: (jnp.ones(spec.shape[-1:]), ()),
        lambda gain, state, x, context: (gain * x, state, x),
        lambda gain, x, y_ct: (funcbp.factors.Elementwise(flat(x), flat(y_ct)), gain * y_ct),
    )
    x = jnp.ones((2, 3, 4))
    with pytest.raises(ValueError, match="the factor of `0` has 6 on its first axis, the batch 2 examples"):
        backprop(layers.chain(network), rules.l2_loss, collect=("norms",))((jnp.ones(4),), x, x)


def test_what_pairs_or_keeps_all_examples_is_refused_in_microbatches():
    network, _, _, _, _ = problem("mlp")
    for name in ("gram", "per_example_grads", "factors", "kronecker"):
        with pytest.raises(ValueError, match="with microbatches only"):
            backprop(network, CROSS_ENTROPY, collect=(name,), microbatches=2)
