"""What is per example takes the memory of δ's, not that of gradients: exact bytes, never times."""

import itertools

import jax
from jax import numpy as jnp

from funcbp import adapters
from scripts.bench_measure import matmul_flops

SIZES, BATCH = (784, 512, 512, 10), 64


def loss(params, x, y):
    for w, b in params[:-1]:
        x = jax.nn.relu(x @ w + b)
    w, b = params[-1]
    return -jax.nn.log_softmax(x @ w + b)[y]


def arguments():
    def spec(*shape, dtype=jnp.float32):
        return jax.ShapeDtypeStruct(shape, dtype)

    params = [(spec(m, n), spec(n)) for m, n in itertools.pairwise(SIZES)]
    return params, spec(BATCH, SIZES[0]), spec(BATCH, dtype=jnp.int32)


def temp(function):
    return jax.jit(function).lower(*arguments()).compile().memory_analysis().temp_size_in_bytes


def gradients(*args):
    return jax.vmap(jax.grad(loss), (None, 0, 0))(*args)


def squares(tree):
    return sum(jnp.sum(jnp.square(g).reshape(g.shape[0], -1), 1) for g in jax.tree.leaves(tree))


def test_norms():
    def norms(*args):
        return adapters.per_example(loss)(*args).norms

    mine, theirs = temp(norms), temp(lambda *args: jnp.sqrt(squares(gradients(*args))))
    print(f"norms: {mine:,} bytes, vmap(grad) {theirs:,}")
    assert mine <= theirs / 200
    # Forward, and back to all layers but the first: no product that is a gradient.
    forward = [2 * BATCH * m * n for m, n in itertools.pairwise(SIZES)]
    assert matmul_flops(norms, *arguments()) == 2 * sum(forward) - forward[0]


def test_clipped_sums():
    def clipped(*args):
        return adapters.clipped_grad(loss, max_norm=1.0)(*args).grads

    def clipped_by_vmap(*args):
        each = gradients(*args)
        c = 1 / jnp.maximum(jnp.sqrt(squares(each)), 1)
        return jax.tree.map(lambda g: jnp.tensordot(c, g, 1), each)

    mine, theirs = temp(clipped), temp(clipped_by_vmap)
    print(f"clipped sums: {mine:,} bytes, vmap(grad) {theirs:,}")
    assert mine <= theirs / 200
