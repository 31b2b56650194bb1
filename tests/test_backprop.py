"""The sweep against `jax.grad` of independent spellings, and everything that it takes or collects."""

import jax
import numpy as np
import optax
import pytest
from jax import numpy as jnp

import funcbp
from funcbp import backprop, layers, rules
from funcbp.verify._pairs import evaluated
from tests.networks import CROSS_ENTROPY, KEY, compiled, compiled_mlp, data, mlp, mlp_value
from tests.support import (
    assert_gradient,
    assert_trees_close,
    assert_trees_equal,
    drawn,
    masked_mean,
    running_norm,
)

DTYPES = ["float64", "float32"]


@pytest.fixture(autouse=True)
def _float64():
    with jax.enable_x64(True):
        yield


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_multilayer_perceptron(dtype):
    params, x, y = data(dtype)
    result = compiled_mlp()(params, x, y)
    assert_gradient(result.grads, lambda p: mlp_value(p, x.astype("float64"), y), params, dtype)
    np.testing.assert_allclose(result.value, evaluated(mlp_value, params, x, y), rtol=1e-5)


@pytest.mark.parametrize("dtype", ["float64", pytest.param("float32", marks=pytest.mark.long)])
def test_everything_in_one_network(dtype):
    """Tied embedding, scanned dropout blocks, running statistics, a mask and example weights."""
    vocabulary, width, times, rate = 7, 4, 3, 0.3
    block = layers.chain(
        layers.layer_norm(), layers.dense(width), layers.activation("tanh"), layers.dropout(rate)
    )
    network = layers.tied(
        layers.chain(
            embed=layers.embedding(vocabulary, width, dtype=dtype),
            body=layers.repeat(layers.chain(layers.residual(block), running_norm()), times),
            pool=masked_mean(),
            out=layers.dense(vocabulary, bias=False),
        ),
        {"out.w": "embed.table.T"},
    )
    ids = jnp.asarray(np.random.default_rng(2).integers(0, vocabulary, (5, 4)))
    y = np.arange(5) % vocabulary
    mask = np.arange(4)[None] < np.array([1, 2, 3, 4, 4])[:, None]
    weights = np.array([1.0, 0.0, 2.0, 1.0, 0.5])
    params, state = drawn(network, ids)

    @jax.jit
    def kept():
        keys = jax.random.split(jax.random.fold_in(KEY, 1), times)
        keys = [jax.random.fold_in(jax.random.fold_in(key, 0), 3) for key in keys]
        return [jax.random.bernoulli(key, 1 - rate, (5, 4, width)) for key in keys]

    kept = kept()

    def spelled(p):
        dtype = p["embed"]["table"].dtype
        x = p["embed"]["table"][ids]
        norm, dense, gain = p["body"][0][0], p["body"][0][1], p["body"][1]
        means = []
        for i in range(times):
            h = (x - x.mean(-1, keepdims=True)) / jnp.sqrt(x.var(-1, keepdims=True) + 1e-5)
            h = jnp.tanh((h * norm["gain"][i] + norm["bias"][i]) @ dense["w"][i] + dense["b"][i])
            x = x + h * jnp.where(kept[i], 1 / (1 - rate), 0).astype(dtype)
            means.append(x.mean((0, 1)))
            x = gain[i] * (x - x.mean((0, 1)))
        pooled = (x * mask[..., None]).sum(1) / mask.sum(1)[:, None]
        z = pooled @ p["embed"]["table"].T
        values = optax.losses.softmax_cross_entropy_with_integer_labels(z, y)
        return (weights * values).sum() / weights.sum(), jnp.stack(means)

    sweep = compiled(network, CROSS_ENTROPY, collect=("deltas",))
    result = sweep(params, ids, y, state=state, key=KEY, mask=mask, weights=weights)
    assert_gradient(result.grads, lambda p: spelled(p)[0], params, dtype)
    value, means = evaluated(spelled, params)
    np.testing.assert_allclose(result.value, value, rtol=1e-5)
    np.testing.assert_allclose(result.state["body"][1], 0.1 * means, rtol=1e-4, atol=1e-6)
    assert result.deltas["body"][0][1].shape == (times, 5, 4, width)


@pytest.mark.parametrize(
    "loss", ["squared_error", "l2_loss", "sigmoid_binary_cross_entropy", "softmax_cross_entropy"]
)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_losses_and_reductions(loss, reduction):
    params, x, _ = data()
    y = jnp.asarray(np.random.default_rng(3).dirichlet(np.ones(3), 6))
    weights = np.array([1.0, 0.0, 2.0, 1.0, 0.5, 3.0])

    def value(p):
        h = jnp.tanh(x @ p[0]["w"] + p[0]["b"])
        h = jax.nn.gelu(h @ p[2]["w"] + p[2]["b"])
        values = getattr(optax.losses, loss)(h @ p[4]["w"] + p[4]["b"], y).reshape(6, -1).sum(-1)
        return (weights * values).sum() / (weights.sum() if reduction == "mean" else 1)

    result = compiled(mlp(), getattr(rules, loss), reduction=reduction)(params, x, y, weights=weights)
    assert_gradient(result.grads, value, params)


def test_weights_of_positions():
    x = jnp.asarray(np.random.default_rng(2).standard_normal((2, 3, 7)))
    y, weights = np.array([[0, 1, 2], [2, 1, 0]]), np.array([[1.0, 0.0, 1.0], [1.0, 1.0, 0.0]])
    params, _, _ = data()
    result = compiled(mlp(), CROSS_ENTROPY, collect=("per_example",))(params, x, y, weights=weights)
    assert_gradient(result.grads, lambda p: mlp_value(p, x, y, weights), params)
    assert result.per_example.shape == (2,)
    unweighted = compiled_mlp()(params, x, y)
    assert_gradient(unweighted.grads, lambda p: 3 * mlp_value(p, x, y), params)


def test_weights_that_sum_to_zero_give_zero():
    params, x, y = data()
    result = compiled_mlp()(params, x, y, weights=np.zeros(6))
    assert result.value == 0
    assert all((g == 0).all() for g in jax.tree.leaves(result.grads))


def test_what_has_no_weight_may_be_anything():
    """Padded labels that are none, as -1, with weight 0."""
    params, x, y = data()
    y, weights = np.asarray(y), np.array([1, 1, 0, 1, 0, 1])
    padded = compiled_mlp()(params, x, np.where(weights, y, -1), weights=weights)
    real = np.flatnonzero(weights)
    x, y = np.asarray(x)[real], y[real]
    assert_trees_close(padded.value, compiled_mlp()(params, x, y).value)
    assert_gradient(padded.grads, lambda p: mlp_value(p, x, y), params)


def test_an_empty_batch():
    params, x, y = data()
    x, y = np.asarray(x)[:0], np.asarray(y)[:0]
    result = compiled(mlp(), CROSS_ENTROPY, collect=("per_example",))(params, x, y)
    assert result.value == 0
    assert result.per_example.shape == (0,)
    assert all((g == 0).all() for g in jax.tree.leaves(result.grads))


def test_a_loss_of_ones_own_is_a_pair():
    params, x, _ = data()
    y = jnp.asarray(np.random.default_rng(3).standard_normal((6, 3)))
    log_cosh = (lambda z, y: jnp.log(jnp.cosh(z - y)).sum(-1), lambda z, y: jnp.tanh(z - y))
    by_hand = compiled(mlp(), log_cosh)(params, x, y)

    def one(z, y):
        return jnp.log(jnp.cosh(z - y)).sum()

    by_jax = compiled(mlp(), (jax.vmap(one), jax.vmap(jax.grad(one))))(params, x, y)
    assert_trees_close(by_hand.grads, by_jax.grads)


def test_a_half_is_half():
    params, x, _ = data()
    y = jnp.zeros((6, 3))
    whole, half = (compiled(mlp(), loss)(params, x, y) for loss in (rules.squared_error, rules.l2_loss))
    assert_trees_equal(jax.tree.map(lambda g: g / 2, whole.grads), half.grads)


def test_cotangents_are_the_gradients_of_zeros_added_to_every_output():
    params, x, y = data()
    result = compiled(mlp(), CROSS_ENTROPY, collect=("activations", "cotangents", "deltas"))(params, x, y)

    def perturbed(zeros):
        p0 = x @ params[0]["w"] + params[0]["b"] + zeros[0]
        q0 = jnp.tanh(p0) + zeros[1]
        p1 = q0 @ params[2]["w"] + params[2]["b"] + zeros[2]
        q1 = jax.nn.gelu(p1) + zeros[3]
        z = q1 @ params[4]["w"] + params[4]["b"] + zeros[4]
        return optax.losses.softmax_cross_entropy_with_integer_labels(z, y).mean(), (p0, q0, p1, q1, z)

    zeros = jax.tree.map(np.zeros_like, result.activations)
    expected, activations = evaluated(jax.grad(perturbed, has_aux=True), zeros)
    assert_trees_close(result.activations, activations)
    assert_trees_close(result.cotangents, expected)
    assert_trees_close(result.deltas, (expected[0], None, expected[2], None, expected[4]))
    assert_trees_close(result.x_ct, evaluated(jax.grad(lambda x: mlp_value(params, x, y)), x))


def test_what_was_not_asked_for_is_none():
    params, x, y = data()
    result = compiled_mlp()(params, x, y)
    assert result[4:] == (None,) * 12


def test_per_example_values_are_not_scaled():
    params, x, y = data()
    sweep = compiled(mlp(), CROSS_ENTROPY, collect=("per_example",))
    result = sweep(params, x, y, weights=np.arange(6.0))
    each = evaluated(jax.vmap(lambda x, y: mlp_value(params, x[None], y[None])), x, y)
    np.testing.assert_allclose(result.per_example, each, rtol=1e-12)


def test_visit_sees_every_factor_once():
    params, x, y = data()

    def norms(path, parameter, factor, aux):
        if isinstance(factor, funcbp.factors.Outer):
            return (factor.a**2).sum(-1) * (factor.delta**2).sum(-1)
        return (factor.delta**2).sum(-1)

    result = compiled(mlp(), CROSS_ENTROPY, reduction="sum", visit=norms)(params, x, y)
    each = evaluated(jax.vmap(lambda x, y: jax.grad(mlp_value)(params, x[None], y[None])), x, y)
    expected = jax.tree.map(lambda g: (g**2).reshape(6, -1).sum(-1), each)
    assert_trees_close(result.collected, expected)
    assert_trees_close(result.grads, jax.tree.map(lambda g: g.sum(0), each))


def test_an_update_inside_the_sweep_through_aux():
    network = layers.chain(
        layers.dense(5), layers.repeat(layers.residual(layers.dense(5)), 3), layers.dense(3)
    )
    _, x, y = data()
    params, _ = drawn(network, x)
    momentum = jax.tree.map(np.ones_like, params)

    def update(path, parameter, factor, m):
        m = 0.9 * m + factor.gradient()
        return parameter - 0.1 * m, m

    result = compiled(network, CROSS_ENTROPY, visit=update)(params, x, y, aux=momentum)
    m = jax.tree.map(lambda m, g: 0.9 * m + g, momentum, result.grads)
    expected = jax.tree.map(lambda p, m: (p - 0.1 * m, m), params, m)
    assert_trees_close(result.collected, expected)


@pytest.mark.parametrize("frozen", [("0",), ("2.w", "4"), lambda path: path.endswith("b"), "0"])
def test_frozen_parameters_have_zero_gradients_and_the_others_their_own(frozen):
    params, x, y = data()
    full, part = (
        compiled_mlp()(params, x, y),
        compiled(mlp(), CROSS_ENTROPY, frozen=frozen)(params, x, y),
    )
    names = (frozen,) if isinstance(frozen, str) else frozen
    paths, treedef = jax.tree_util.tree_flatten_with_path(full.grads)
    for (path, g), own in zip(paths, jax.tree.leaves(part.grads), strict=True):
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        still = names(name) if callable(names) else any(name == n or name.startswith(f"{n}.") for n in names)
        assert_trees_equal(own, np.zeros_like(g) if still else g)
    assert treedef == jax.tree.structure(part.grads)


def test_products_of_frozen_weights_are_not_computed():
    params, x, y = data()

    def products(**options):
        sweep = backprop(mlp(), CROSS_ENTROPY, **options)
        return str(jax.make_jaxpr(lambda *a: sweep(*a).grads)(params, x, y)).count("dot_general")

    assert products() - products(frozen=("2.w",)) == 1
    assert products() - products(frozen=("0", "2", "4")) == 3


def test_bfloat16_compute_gives_float32_gradients_of_float32_parameters():
    params, x, y = data("float32", batch=64)
    precision = funcbp.Precision(compute="bfloat16")
    sweep = compiled(mlp(), CROSS_ENTROPY, precision=precision, collect=("activations", "per_example"))
    result = sweep(params, x, y)
    full = compiled_mlp()(params, x, y)
    assert {g.dtype for g in jax.tree.leaves(result.grads)} == {jnp.dtype("float32")}
    assert result.activations[0].dtype == jnp.bfloat16
    assert result.value.dtype == result.per_example.dtype == result.x_ct.dtype == jnp.float32
    for g, expected in zip(jax.tree.leaves(result.grads), jax.tree.leaves(full.grads), strict=True):
        assert np.linalg.norm(np.asarray(g) - expected) < 0.02 * np.linalg.norm(expected)


def test_bfloat16_gradients_are_accumulated_in_float32():
    """Σ over 4096 examples of products that bfloat16 holds exactly, whose sum it does not."""
    network = layers.dense(1, bias=False)
    x, y = jnp.ones((4096, 1), "float32"), jnp.zeros((4096, 1), "float32")
    params = {"w": jnp.ones((1, 1), "float32")}
    precision = funcbp.Precision(compute="bfloat16")
    result = compiled(network, rules.l2_loss, reduction="sum", precision=precision)(params, x, y)
    assert result.grads["w"].item() == 4096


@pytest.mark.parametrize("parts", [2, pytest.param(3, marks=pytest.mark.long), 6])
def test_microbatches_add_up_to_the_full_batch(parts):
    params, x, y = data()
    weights = np.array([1.0, 0.0, 2.0, 1.0, 0.5, 3.0])
    options = {"collect": ("per_example",)}
    full = compiled(mlp(), CROSS_ENTROPY, **options)(params, x, y, weights=weights)
    sweep = compiled(mlp(), CROSS_ENTROPY, microbatches=parts, **options)
    accumulated = sweep(params, x, y, weights=weights)
    assert_trees_close(accumulated._replace(state=()), full)


def test_microbatches_accumulate_half_precision_in_float32():
    network = layers.dense(1, bias=False)
    x, y = jnp.ones((512, 1), "bfloat16"), jnp.zeros((512, 1), "bfloat16")
    params = {"w": jnp.ones((1, 1), "bfloat16")}
    sweep = compiled(network, rules.l2_loss, reduction="sum", microbatches=512)
    assert sweep(params, x, y).grads["w"].item() == 512  # bfloat16 stops counting at 256


def test_the_evaluation_pass_has_gradients_too():
    network = layers.chain(layers.dense(5), running_norm(), layers.dropout(0.5), layers.dense(3))
    _, x, y = data()
    params, _ = drawn(network, x)
    mean = jnp.asarray(np.arange(5.0))
    state = ((), mean, (), ())
    result = compiled(network, CROSS_ENTROPY, train=False)(params, x, y, state=state)

    def outputs(p):
        h = p[1] * (x @ p[0]["w"] + p[0]["b"] - mean)
        return h @ p[3]["w"] + p[3]["b"]

    assert_gradient(
        result.grads,
        lambda p: optax.losses.softmax_cross_entropy_with_integer_labels(outputs(p), y).mean(),
        params,
    )
    assert_trees_equal(result.state, state)
    predicted = jax.jit(lambda p: funcbp.predict(network)(p, x, state=state))(params)
    assert_trees_close(predicted, evaluated(outputs, params))


def test_inputs_may_be_a_tree_with_integers():
    """x = {ids, features}: only the features have a cotangent."""

    def fwd(table, state, x, context):
        return table[x["ids"]] * x["features"], state, x

    def pullback(table, x, y_ct):
        rows = funcbp.factors.Rows(x["ids"], x["features"] * y_ct, table.shape[0])
        return rows, {"ids": None, "features": table[x["ids"]] * y_ct}

    network = layers.leaf(lambda key, spec: (jnp.ones((4, 3)), ()), fwd, pullback)
    x = {
        "ids": jnp.array([1, 3, 1]),
        "features": jnp.asarray(np.random.default_rng(3).standard_normal((3, 3))),
    }
    table, _ = network.init(KEY, x)
    result = compiled(network, rules.l2_loss)(table, x, np.zeros((3, 3)))

    def value(table, features):
        return 0.5 * ((table[x["ids"]] * features) ** 2).sum() / 3

    grads, features_ct = evaluated(jax.grad(value, (0, 1)), table, x["features"])
    assert_trees_close((result.grads, result.x_ct), (grads, {"ids": None, "features": features_ct}))


def test_jit_changes_nothing():
    params, x, y = data()
    sweep = backprop(mlp(), CROSS_ENTROPY, collect=("activations", "cotangents", "deltas", "per_example"))
    assert_trees_close(jax.jit(sweep)(params, x, y), sweep(params, x, y))


def test_an_ensemble_by_vmap():
    _, x, y = data()
    network = layers.chain(mlp(), layers.dropout(0.2))
    keys = jax.random.split(KEY, 3)
    params = jax.tree.map(lambda *p: jnp.asarray(np.stack(p)), *(drawn(network, x, i)[0] for i in range(3)))
    sweep = backprop(network, CROSS_ENTROPY, collect=("deltas",))
    together = jax.jit(jax.vmap(lambda p, key: sweep(p, x, y, key=key)))(params, keys)
    single = jax.jit(sweep)
    for i in range(3):
        alone = single(jax.tree.map(lambda p, i=i: np.asarray(p)[i], params), x, y, key=keys[i])
        assert_trees_close(jax.tree.map(lambda a, i=i: np.asarray(a)[i], together), alone)


def test_the_sweep_itself_can_be_differentiated():
    """Second order: the derivative of the gradient, by forward mode through the sweep."""
    params, x, y = data()
    tangent = jax.tree.map(np.ones_like, params)

    def gradient(p):
        return backprop(mlp(), CROSS_ENTROPY)(p, x, y).grads

    by_hand = jax.jit(lambda p, t: jax.jvp(gradient, (p,), (t,))[1])(params, tangent)
    reference = jax.grad(lambda p: mlp_value(p, x, y))
    by_jax = evaluated(lambda p, t: jax.jvp(reference, (p,), (t,))[1], params, tangent)
    assert_trees_close(by_hand, by_jax, ulps=256)


def test_value_and_grad_is_the_same_sweep():
    params, x, y = data()
    value, grads = jax.jit(funcbp.value_and_grad(mlp(), CROSS_ENTROPY))(params, x, y)
    result = compiled_mlp()(params, x, y)
    assert_trees_equal((value, grads), (result.value, result.grads))


def test_numpy_arrays_are_taken():
    params, x, y = data()
    as_numpy = jax.tree.map(np.asarray, (params, x, y))
    assert_trees_equal(
        backprop(mlp(), CROSS_ENTROPY)(*as_numpy), backprop(mlp(), CROSS_ENTROPY)(params, x, y)
    )
