"""Selective recompute: the same numbers, in the memory that `jax.checkpoint` takes with the same policy."""

import jax
import numpy as np
import pytest
from jax import lax
from jax import numpy as jnp

import funcbp
from funcbp import layers, rules
from tests.support import assert_trees_close, drawn, running_norm

KEY = jax.random.key(0)
DEPTH, WIDTH, BATCH = 32, 32, 64
POLICIES = jax.checkpoint_policies


def block(activation="gelu"):
    up, down = layers.dense(2 * WIDTH), layers.dense(WIDTH)
    return layers.residual(layers.chain(layers.layer_norm(), up, layers.activation(activation), down))


def plain(policy, activation=jax.nn.gelu):
    def step(x, params):
        norm, up, _, down = params
        z = (x - x.mean(-1, keepdims=True)) * lax.rsqrt(x.var(-1, keepdims=True) + 1e-5)
        z = z * norm["gain"] + norm["bias"]
        return x + activation(z @ up["w"] + up["b"]) @ down["w"] + down["b"], None

    def loss(params, x, y):
        # Within a scan nothing can be merged; this is what its documentation asks for.
        x, _ = lax.scan(jax.checkpoint(step, policy=policy, prevent_cse=False), x, params)
        return jnp.mean(0.5 * jnp.sum((x - y) ** 2, -1))

    return jax.value_and_grad(loss)


def of(one, depth=DEPTH):
    return funcbp.value_and_grad(layers.repeat(one, depth), rules.l2_loss)


def compiled(function, depth=DEPTH):
    x = jnp.asarray(np.random.default_rng(0).standard_normal((BATCH, WIDTH)), "float32")
    params, _ = drawn(layers.repeat(block(), depth), x)
    function = jax.jit(function).lower(params, x, 0 * x).compile()
    return function(params, x, 0 * x), function.memory_analysis().temp_size_in_bytes


@pytest.fixture(scope="module")
def everything_kept():
    return compiled(of(block()))


@pytest.mark.parametrize(
    ("save", "policy"), [("nothing", POLICIES.nothing_saveable), ("p", POLICIES.dots_saveable)]
)
def test_memory_and_numbers_are_those_of_jax_checkpoint(save, policy, everything_kept):
    values, temp = compiled(of(layers.recompute(block(), save)))
    expected, rival = compiled(plain(policy))
    assert_trees_close(values, expected, ulps=512)
    assert_trees_close(values, everything_kept[0])
    assert temp <= 1.05 * rival
    assert temp < everything_kept[1] - 4 * DEPTH * BATCH * WIDTH


def matmuls(save, activation):
    """Products of the compiled backward pass of one block that are as large as its forward ones."""
    one = layers.recompute(layers.chain(layers.dense(8), layers.activation(activation)), save)
    params, _ = drawn(one, jnp.ones((4, 8)))

    @jax.jit
    def again(params, residuals, ct):
        def visit(path, parameter, factor, aux):
            return None

        return one.bwd(params, residuals, ct, visit, None, ()).x_ct

    residuals = one.fwd(params, (), jnp.ones((4, 8)), layers.Context()).residuals
    return again.lower(params, residuals, jnp.ones((4, 8))).as_text().count("dot_general")


def test_what_is_kept_is_not_made_again():
    # One product is that of x̄. From q alone σ′ of tanh is had, not that of gelu.
    assert {save: matmuls(save, "tanh") for save in ("nothing", "p", "q")} == {"nothing": 2, "p": 1, "q": 1}
    assert {save: matmuls(save, "gelu") for save in ("nothing", "p", "q")} == {"nothing": 2, "p": 1, "q": 2}


@pytest.mark.parametrize("save", ["nothing", "q", lambda path, spec: path == "mix.inner.0"])
def test_state_random_keys_masks_and_weights_are_those_of_the_first_pass(save):
    def masking(params, state, x, context):
        mask = jnp.ones(x.shape[:2]) if context.mask is None else context.mask
        return x * mask[..., None], state, mask

    masked = layers.leaf(
        lambda key, spec: ((), ()), masking, lambda params, mask, ct: ((), ct * mask[..., None])
    )
    inner = layers.residual(layers.chain(layers.dense(6), layers.activation("tanh"), layers.dropout(0.5)))
    body = layers.chain(norm=running_norm(), mix=layers.chain(inner=inner, mask=masked), out=layers.dense(6))
    x = jnp.asarray(np.random.default_rng(0).standard_normal((4, 3, 6)), "float32")
    params, state = drawn(body, x)
    mask = np.float32(np.arange(12).reshape(4, 3) % 3 > 0)
    results = []
    for network in (body, layers.recompute(body, save)):
        sweep = funcbp.backprop(network, rules.l2_loss, collect=("activations", "deltas"))
        results.append(jax.jit(sweep)(params, x, 0 * x, state=state, key=KEY, mask=mask))
    assert_trees_close(results[1], results[0])


def test_the_policy_sees_paths_and_shapes():
    seen = {}
    network = layers.recompute(
        layers.chain(
            a=layers.residual(layers.chain(layers.dense(6), layers.activation("relu"))), b=layers.dense(2)
        ),
        lambda path, spec: seen.update({path: spec.shape}) or path == "b",
    )
    params, _ = drawn(network, jnp.ones((4, 6)))
    residuals = network.fwd(params, (), jnp.ones((4, 6)), layers.Context()).residuals
    assert seen == {"a.0": (4, 6), "a.1": (4, 6), "b": (4, 2)}
    assert sorted(a.shape for a in jax.tree.leaves(residuals)) == [(4, 2), (4, 6)]


def test_a_replaced_backward_pass_is_kept():
    doubled = layers.dense(3)
    doubled = doubled._replace(
        bwd=lambda *args: layers.dense(3).bwd(*args)._replace(x_ct=jnp.full((4, 6), 7.0))
    )
    network = layers.recompute(layers.chain(doubled, layers.activation("tanh")), "p")
    params, _ = drawn(network, jnp.ones((4, 6)))
    sweep = jax.jit(funcbp.backprop(network, rules.l2_loss))(params, jnp.ones((4, 6)), jnp.ones((4, 3)))
    assert (sweep.x_ct == 7).all()


def test_refusals():
    with pytest.raises(ValueError, match="`save` must be 'nothing', 'p', 'q' or a function"):
        layers.recompute(layers.dense(2), "dots")
    with pytest.raises(ValueError, match="nothing inside is a pre-activation"):
        layers.recompute(layers.repeat(layers.dense(2), 2), "p")
    with pytest.raises(ValueError, match="nothing inside is the output of an activation"):
        layers.recompute(layers.dense(2), "q")
    with pytest.raises(TypeError, match="the layer is a function, not a Layer"):
        layers.recompute(layers.dense)
