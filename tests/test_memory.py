"""What the sweep costs in memory and matrix products: exact counts of the compiled program, never times."""

import itertools

import jax
import pytest
from jax import lax
from jax import numpy as jnp

import funcbp
from funcbp import layers, rules
from scripts.bench_measure import matmul_flops
from tests.support import drawn

DEPTH, WIDTH, BATCH = 8, 32, 64
X, Y = jnp.ones((BATCH, WIDTH)), jnp.ones((BATCH, WIDTH))
STACK = 4 * DEPTH * BATCH * WIDTH  # bytes of one array of every block
SMALL = STACK // 4


def temp(function, *args):
    return jax.jit(function).lower(*args).compile().memory_analysis().temp_size_in_bytes


def mlp():
    parts = [layers.dense(64), layers.activation("relu"), layers.dense(64), layers.activation("relu")]
    return layers.chain(*parts, layers.dense(WIDTH))


def blocks(activation="gelu", norm=True):
    parts = [layers.dense(WIDTH), layers.activation(activation), layers.dense(WIDTH)]
    return layers.repeat(
        layers.residual(layers.chain(*([layers.layer_norm()] if norm else []), *parts)), DEPTH
    )


def initialized(network):
    return drawn(network, X)[0]


def plain_mlp(params, x, y):
    for p in params[:-1:2]:
        x = jax.nn.relu(x @ p["w"] + p["b"])
    x = x @ params[-1]["w"] + params[-1]["b"]
    return jnp.mean(0.5 * jnp.sum((x - y) ** 2, -1))


def plain_blocks(activation, norm):
    def step(x, params):
        z = x
        if norm:
            gain, bias = params[0]["gain"], params[0]["bias"]
            z = (x - x.mean(-1, keepdims=True)) * lax.rsqrt(x.var(-1, keepdims=True) + 1e-5) * gain + bias
        up, _, down = params[-3:]
        return x + activation(z @ up["w"] + up["b"]) @ down["w"] + down["b"], None

    def loss(params, x, y):
        x, _ = lax.scan(step, x, params)
        return jnp.mean(0.5 * jnp.sum((x - y) ** 2, -1))

    return loss


def test_mlp_needs_no_more_than_autodiff():
    sizes = (784, 512, 512, 10)
    x, y = jnp.ones((256, 784)), jnp.ones((256, 10))
    parts = [layers.dense(512), layers.activation("relu")] * 2
    network = layers.chain(*parts, layers.dense(10))
    params, _ = drawn(network, x)
    sweep = funcbp.value_and_grad(network, rules.l2_loss)
    autodiff = jax.value_and_grad(plain_mlp)
    # Both hold the same arrays. XLA's schedule may keep the last δ, (256, 10), longer on either side.
    assert temp(sweep, params, x, y) <= temp(autodiff, params, x, y) + 4 * y.size
    forward = sum(2 * 256 * a * b for a, b in itertools.pairwise(sizes))
    # ∂W and x̄ of every layer, but not x̄ of the first.
    expected = 3 * forward - 2 * 256 * 784 * 512
    assert matmul_flops(sweep, params, x, y) == matmul_flops(autodiff, params, x, y) == expected


@pytest.mark.parametrize("norm", [False, True], ids=["bare", "layer_norm"])
@pytest.mark.parametrize("name", ["relu", "gelu"])
def test_blocks_in_a_scan_need_no_more_than_autodiff(name, norm):
    network = blocks(name, norm)
    params = initialized(network)
    sweep = funcbp.value_and_grad(network, rules.l2_loss)
    autodiff = jax.value_and_grad(plain_blocks(getattr(jax.nn, name), norm))
    assert temp(sweep, params, X, Y) <= temp(autodiff, params, X, Y)


def test_repeat_saves_each_array_once():
    # The input of the block, and the output of relu: residual of relu and of the dense layer after it.
    network = blocks("relu", norm=False)
    saved = jax.eval_shape(
        lambda p, x: network.fwd(p, (), x, layers.Context()).residuals, initialized(network), X
    )
    assert sum(a.size * a.dtype.itemsize for a in jax.tree.leaves(saved)) == 2 * STACK


def test_repeat_does_not_stack_what_every_block_sees():
    def fwd(params, state, x, context):
        return x * context.mask, state, context.mask

    masked = layers.leaf(lambda key, spec: ((), ()), fwd, lambda params, mask, y_ct: ((), y_ct * mask))
    network = layers.repeat(masked, DEPTH)

    def saved(x, mask):
        return network.fwd((), (), x, layers.Context(mask=mask)).residuals

    assert [a.shape for a in jax.tree.leaves(jax.eval_shape(saved, X, X))] == [X.shape]
    mask = jnp.arange(BATCH * WIDTH).reshape(X.shape) % 2.0
    sweep = funcbp.backprop(network, rules.l2_loss, reduction="sum")((), X, 0 * Y, mask=mask)
    assert jnp.array_equal(sweep.x_ct, mask)


def sweep_of(network, *fields, **options):
    sweep = funcbp.backprop(network, rules.l2_loss, **options)

    def function(params, x, y):
        result = sweep(params, x, y)
        return [getattr(result, field) for field in ("value", "grads", *fields)]

    return function


def test_what_is_not_asked_for_is_not_stacked():
    params = initialized(blocks())
    plain = temp(sweep_of(blocks()), params, X, Y)
    unread = temp(sweep_of(blocks(), collect=("activations", "cotangents", "deltas")), params, X, Y)
    assert unread == plain


def test_deltas_cost_their_own_bytes():
    params = initialized(blocks())

    def outputs_and_temp(*fields):
        compiled = jax.jit(sweep_of(blocks(), *fields, collect=fields)).lower(params, X, Y).compile()
        memory = compiled.memory_analysis()
        return memory.output_size_in_bytes, memory.temp_size_in_bytes

    out, scratch = outputs_and_temp()
    out_deltas, scratch_deltas = outputs_and_temp("deltas")
    # Two dense layers in a block; the pointers of the output tuple come on top.
    assert 2 * STACK <= out_deltas - out < 2 * STACK + 256
    assert scratch_deltas <= scratch + SMALL


def test_frozen_parameters_have_no_products():
    params = initialized(mlp())

    def flops(*frozen):
        return matmul_flops(funcbp.value_and_grad(mlp(), rules.l2_loss, frozen=frozen), params, X, Y)

    first, middle = 2 * BATCH * WIDTH * 64, 2 * BATCH * 64 * 64
    # Nothing is below the first layer: its δ is not needed either. That of the middle layer is.
    assert flops() - flops("0") == first + middle
    assert flops() - flops("2") == middle


def test_microbatches_take_the_memory_of_one_part():
    network = layers.chain(blocks(), layers.dense(WIDTH))
    params = initialized(network)
    whole, parts = (
        temp(funcbp.value_and_grad(network, rules.l2_loss, microbatches=n), params, X, Y) for n in (1, 8)
    )
    gradients = sum(a.nbytes for a in jax.tree.leaves(params))
    # The sum of the gradients is held beside those of one part.
    assert parts < whole / 8 + 2 * gradients + SMALL < whole
