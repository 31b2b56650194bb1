"""The update inside the reverse sweep: `make_step`'s numbers, never the gradients of all blocks at once."""

import jax
import numpy as np
import optax
import optax.contrib
import pytest
from jax import numpy as jnp

import funcbp
from funcbp import layers, rules, training
from tests.support import assert_trees_equal, drawn, running_norm

KEY = jax.random.key(0)
LOSS = rules.softmax_cross_entropy_with_integer_labels
IDS = np.random.default_rng(0).integers(0, 7, (4, 3), "int32")
WEIGHTS = np.array([[1.0, 0.0, 2.0]] * 4)


def language_model():
    """A tied embedding, blocks of blocks in a scan, dropout, and a layer that has a state."""
    inner = layers.repeat(layers.chain(layers.dense(6), layers.activation("tanh")), 2)
    transposed = layers.tied(layers.chain(*[layers.dense(6)] * 2), {"1.w": "0.w.T"})
    untied = layers.chain(
        embed=layers.embedding(7, 6),
        blocks=layers.repeat(layers.residual(layers.chain(inner, layers.dropout(0.2))), 3),
        shared=layers.repeat(layers.chain(transposed, layers.activation("tanh")), 2),
        norm=running_norm(),
        unembed=layers.dense(7, bias=False),
    )
    return layers.tied(untied, {"unembed.w": "embed.table.T"})


def two_stacks():
    embed, block = layers.embedding(7, 6), layers.chain(layers.dense(6), layers.activation("tanh"))
    return layers.chain(embed=embed, blocks=layers.repeat(block, 3), out=layers.dense(7))


def started(network, dtype):
    return jax.tree.map(lambda a: jnp.asarray(np.asarray(a), dtype), drawn(network, IDS))


def after(make, network, optimizer, dtype, steps=3, **options):
    params, state = started(network, dtype)
    opt_state = optimizer.init(params)
    step = make(network, LOSS, optimizer, donate=False, **options)
    for i in range(steps):
        key = jax.random.fold_in(KEY, i)
        result = step(params, state, opt_state, IDS, IDS, key, weights=WEIGHTS.astype(dtype))
        params, state, opt_state, _ = result
    return result


def both(*args, **options):
    makes = (training.make_in_sweep_step, training.make_step)
    found, expected = (after(make, *args, **options) for make in makes)
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    return found, expected


def assert_close(found, expected, error):
    for a, e in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert (a.dtype, a.shape) == (e.dtype, e.shape)
        np.testing.assert_allclose(a, e, rtol=0, atol=error * max(1, np.abs(e).max()))


OPTIMIZERS = {
    "sgd": optax.sgd(0.1),
    "momentum": optax.sgd(0.1, momentum=0.9, nesterov=True),
    "adam": optax.adam(1e-2),
    "adamw on a schedule": optax.adamw(optax.cosine_decay_schedule(1e-2, 4), weight_decay=0.1),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_it_is_the_same_step(name, x64):
    options = {"reduction": "sum"} if name == "sgd" else {"frozen": ("blocks.0.b", "out.w")}
    found, expected = both(two_stacks(), OPTIMIZERS[name], "float64", **options)
    assert_close(found, expected, 1e-12)
    start, _ = started(two_stacks(), "float64")
    assert not np.array_equal(found.params["blocks"][0]["w"], start["blocks"][0]["w"])
    if "frozen" in options:
        assert_trees_equal(found.params["blocks"][0]["b"], start["blocks"][0]["b"])
        assert_trees_equal(found.params["out"]["w"], start["out"]["w"])


def test_shared_parameters_nested_stacks_state_and_random_keys(x64):
    found, expected = both(language_model(), OPTIMIZERS["adam"], "float64")
    assert_close(found, expected, 1e-12)


def test_parameters_stay_in_float32_where_the_network_computes_in_bfloat16():
    half = {"precision": funcbp.Precision(compute="bfloat16")}
    found, expected = both(two_stacks(), OPTIMIZERS["momentum"], "float32", steps=1, **half)
    assert_close(found, expected, 1e-6)


def test_gradients_of_a_stack_are_never_held_at_once():
    width, depth = 32, 64
    body = layers.chain(layers.dense(width), layers.activation("gelu"), layers.dense(width))
    network = layers.repeat(layers.residual(body), depth)
    x = jnp.ones((1, width))
    params, state = drawn(network, x)

    def temp(make, optimizer):
        step = make(network, rules.l2_loss, optimizer, donate=True)
        compiled = step.__wrapped__.lower(params, state, optimizer.init(params), x, x).compile()
        memory = compiled.memory_analysis()
        # Params and opt_state are written where they were.
        held = sum(a.nbytes for a in jax.tree.leaves((params, optimizer.init(params))))
        assert memory.alias_size_in_bytes >= held
        return memory.temp_size_in_bytes

    gradients = sum(a.nbytes for a in jax.tree.leaves(params))
    for name in ("sgd", "adam"):
        rival = temp(training.make_step, OPTIMIZERS[name])
        assert rival > gradients
        assert temp(training.make_in_sweep_step, OPTIMIZERS[name]) <= rival / 8


def test_buffers_are_given_unless_asked_not_to():
    network, optimizer = layers.repeat(layers.dense(2), 2), optax.sgd(0.1)
    for options, gone in (({}, True), ({"donate": False}, False)):
        params, state = drawn(network, jnp.eye(2))
        step = training.make_in_sweep_step(network, rules.l2_loss, optimizer, **options)
        step(params, state, optimizer.init(params), jnp.eye(2), jnp.eye(2))
        assert params["w"].is_deleted() == gone


@pytest.mark.parametrize(
    ("optimizer", "message"),
    [
        (optax.chain(optax.clip_by_global_norm(1e9), optax.sgd(0.1)), "looks at all gradients at once"),
        (optax.apply_if_finite(optax.sgd(0.1), 3), "looks at all gradients at once"),
        (optax.chain(optax.add_noise(0.1, 0.5, KEY), optax.sgd(0.1)), "looks at all gradients at once"),
        (optax.polyak_sgd(), "cannot update one parameter by itself"),
        (optax.adamw(1e-3, mask={"w": True, "b": False}), "cannot update one parameter by itself"),
    ],
    ids=["global norm", "finite", "noise", "value", "mask by name"],
)
def test_optimizers_that_need_more_than_one_gradient_are_refused(optimizer, message):
    with pytest.raises(ValueError, match=message):
        training.make_in_sweep_step(layers.dense(2), rules.l2_loss, optimizer)


@pytest.mark.parametrize(
    "optimizer",
    [
        optax.chain(optax.clip_by_block_rms(1.0), optax.sgd(0.1)),
        optax.adamw(1e-1, mask=lambda params: jax.tree.map(lambda p: p.ndim > 1, params)),
        optax.adafactor(1e-2, min_dim_size_to_factor=2),
    ],
    ids=["norm of an array", "mask by ndim", "factored"],
)
def test_optimizers_that_take_a_stack_as_a_whole_are_refused_for_stacks_only(optimizer):
    x = jnp.eye(2)
    network = layers.repeat(layers.dense(2), 2)
    params, state = drawn(network, x)
    step = training.make_in_sweep_step(network, rules.l2_loss, optimizer)
    with pytest.raises(ValueError, match=r"`b` is a stack of the blocks .* does not treat it block by block"):
        step(params, state, optimizer.init(params), x, x)

    flat = layers.chain(layers.dense(2))
    results = []
    for make in (training.make_in_sweep_step, training.make_step):
        params, state = drawn(flat, x)
        results.append(
            make(flat, rules.l2_loss, optimizer, donate=False)(params, state, optimizer.init(params), x, x)
        )
    for a, e in zip(jax.tree.leaves(results[0]), jax.tree.leaves(results[1]), strict=True):
        np.testing.assert_allclose(a, e, rtol=1e-5, atol=1e-6)


def test_refusals():
    network, sgd = layers.dense(2), optax.sgd(0.1)
    with pytest.raises(ValueError, match="`microbatches` must be 1, got 2"):
        training.make_in_sweep_step(network, rules.l2_loss, sgd, microbatches=2)
    with pytest.raises(TypeError, match=r"`optimizer` must be of optax"):
        training.make_in_sweep_step(network, rules.l2_loss, 0.1)
    params, state = drawn(network, jnp.eye(2))
    step = training.make_in_sweep_step(network, rules.l2_loss, optax.adam(1e-3))
    with pytest.raises(ValueError, match=r"not .* as optimizer.init\(params\) or the last step gave it"):
        step(params, state, sgd.init(params), jnp.eye(2), jnp.eye(2))
    nothing = training.make_in_sweep_step(layers.activation("relu"), rules.l2_loss, sgd)
    with pytest.raises(ValueError, match="no parameters to update"):
        nothing((), (), sgd.init(()), jnp.eye(2), jnp.eye(2))


def test_what_replaces_in_place_must_fit():
    network = layers.repeat(layers.dense(2), 2)
    params, _ = drawn(network, jnp.eye(2))
    aux = jax.tree.map(lambda a: layers.InPlace((a,)), params)
    for returned in (None, layers.InPlace((jnp.zeros(3),))):
        sweep = funcbp.backprop(network, rules.l2_loss, visit=lambda *_, r=returned: r)
        with pytest.raises(ValueError, match="must have their shapes and dtypes"):
            sweep(params, jnp.eye(2), jnp.eye(2), aux=aux)
