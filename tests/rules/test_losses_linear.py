"""The chunked output layer with its cross-entropy: equal to the plain one, in a fraction of the memory."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax
import pytest
from jax import numpy as jnp

from funcbp import rules
from scripts.bench_measure import matmul_flops

ROWS, IN, CLASSES, CHUNK = 512, 64, 8192, 512
LOSS = rules.linear_softmax_cross_entropy
PLAIN = optax.losses.softmax_cross_entropy_with_integer_labels


def drawn(rows: int, features: int, classes: int, dtype: Any = jnp.float32) -> tuple[Any, Any, Any]:
    keys = jax.random.split(jax.random.key(0), 3)
    x, w = (
        jax.random.normal(k, s) for k, s in zip(keys, ((rows, features), (features, classes)), strict=False)
    )
    return x.astype(dtype), w.astype(dtype), jax.random.randint(keys[2], (rows,), 0, classes)


def in_chunks(x: jax.Array, w: jax.Array, labels: jax.Array) -> jax.Array:
    return LOSS(x, w, labels, chunk=CHUNK).mean()


def plain(x: jax.Array, w: jax.Array, labels: jax.Array) -> jax.Array:
    return PLAIN(x @ w, labels).mean()


def checkpointed_rows(x: jax.Array, w: jax.Array, labels: jax.Array) -> jax.Array:
    """The rival: as many logits at a time, made again by `jax.checkpoint`, in chunks of rows."""
    rows = ROWS * CHUNK // CLASSES
    part = jax.checkpoint(lambda given: PLAIN(given[0] @ w, given[1]))
    return jax.lax.map(part, (x.reshape(-1, rows, IN), labels.reshape(-1, rows))).mean()


def checkpointed_columns(x: jax.Array, w: jax.Array, labels: jax.Array) -> jax.Array:
    """The rival in chunks of classes: a log-partition that is carried along."""

    @jax.checkpoint
    def step(state: Any, given: Any) -> tuple[Any, None]:
        top, total, picked = state
        part, number = given
        z = x @ part
        new = jax.lax.stop_gradient(jnp.maximum(top, z.max(1)))
        total = total * jnp.exp(top - new) + jnp.exp(z - new[:, None]).sum(1)
        one_hot = (labels - number * CHUNK)[:, None] == jnp.arange(CHUNK)
        return (new, total, picked + jnp.where(one_hot, z, 0).sum(1)), None

    parts = w.reshape(IN, -1, CHUNK).swapaxes(0, 1)
    start = (jnp.full(ROWS, -1e30), jnp.zeros(ROWS), jnp.zeros(ROWS))
    (top, total, picked), _ = jax.lax.scan(step, start, (parts, jnp.arange(len(parts))))
    return (top + jnp.log(total) - picked).mean()


def temp_bytes(loss: Callable[..., jax.Array]) -> int:
    given = jax.eval_shape(lambda: drawn(ROWS, IN, CLASSES))
    compiled = jax.jit(jax.grad(loss, argnums=(0, 1))).lower(*given).compile()
    return compiled.memory_analysis().temp_size_in_bytes


def test_temporary_memory():
    ours = temp_bytes(in_chunks)
    assert temp_bytes(plain) > 20 * ours
    assert temp_bytes(checkpointed_rows) > 2 * ours
    assert temp_bytes(checkpointed_columns) > 3 * ours


def test_products_of_matrices():
    given, one = jax.eval_shape(lambda: drawn(ROWS, IN, CLASSES)), 2 * ROWS * IN * CLASSES
    assert matmul_flops(in_chunks, *given) == one
    assert matmul_flops(jax.grad(in_chunks), *given) == 2 * one  # W frozen
    assert matmul_flops(jax.grad(in_chunks, argnums=(0, 1)), *given) == 4 * one


def test_what_is_saved_is_no_larger_than_the_input():
    given = jax.eval_shape(lambda: drawn(ROWS, IN, CLASSES))
    _, (x, w, labels, *saved) = jax.eval_shape(LOSS.fwd, *given)
    assert (x.shape, w.shape, labels.shape) == tuple(g.shape for g in given)
    assert sum(leaf.size for leaf in jax.tree.leaves(saved)) == ROWS * (IN + 2)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_chunks_do_not_change_the_result(dtype: str):
    x, w, labels = drawn(6, 5, 11, dtype)
    tolerance = {"rtol": 1e-5, "atol": 1e-5} if dtype == "float32" else {"rtol": 0.02, "atol": 0.02}
    wide = [v.astype("float32") for v in (x, w)]
    expected = jax.jit(jax.value_and_grad(plain, argnums=(0, 1)))(*wide, labels)
    for chunk in (1, 4, 1024):
        value, gradients = jax.jit(
            jax.value_and_grad(
                lambda x, w, chunk=chunk: LOSS(x, w, labels, chunk=chunk).astype("float32").mean(),
                argnums=(0, 1),
            )
        )(x, w)
        assert [g.dtype for g in gradients] == [x.dtype, w.dtype]
        for actual, true in zip((value, *gradients), (expected[0], *expected[1]), strict=True):
            np.testing.assert_allclose(actual.astype("float32"), true, **tolerance)


def test_leading_axes_and_none():
    x, w, labels = drawn(6, 5, 11)
    flat = LOSS(x, w, labels)
    np.testing.assert_allclose(LOSS(x.reshape(2, 3, 5), w, labels.reshape(2, 3)).ravel(), flat, rtol=1e-6)
    np.testing.assert_allclose(LOSS(x[0], w, labels[0]), flat[0], rtol=1e-6)
    assert LOSS(x[:0], w, labels[:0]).shape == (0,)


def test_a_label_that_is_no_class_is_seen_unless_it_is_masked_out():
    x, w, _ = drawn(3, 5, 11)
    value, pullback = jax.vjp(lambda x, w: LOSS(x, w, jnp.array([3, 11, -1]), chunk=4), x, w)
    assert np.isnan(value).tolist() == [False, True, True]
    assert np.isnan(pullback(jnp.ones(3))[1]).all()
    x_ct, w_ct = pullback(jnp.array([1.0, 0.0, 0.0]))
    assert np.isfinite(x_ct).all()
    assert np.isfinite(w_ct).all()


def test_extreme_logits_are_finite():
    x, w, labels = drawn(6, 5, 11)
    loss = jax.jit(jax.value_and_grad(lambda x, w: LOSS(x, w, labels, chunk=3).sum(), argnums=(0, 1)))
    value, gradients = loss(1e4 * x, w)
    assert np.isfinite(value)
    assert all(np.isfinite(g).all() for g in gradients)
