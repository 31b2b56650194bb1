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


@pytest.mark.parametrize(("dtype", "chunk"), [("float32", 1), ("float32", 4), ("bfloat16", 4)])
def test_chunks_do_not_change_the_result(dtype: str, chunk: int):
    def loss(x: jax.Array, w: jax.Array) -> jax.Array:
        return LOSS(x, w, labels, chunk=chunk).astype("float32").mean()

    x, w, labels = drawn(6, 5, 11, dtype)
    tolerance = 1e-5 if dtype == "float32" else 0.02
    expected = jax.jit(jax.value_and_grad(plain, argnums=(0, 1)))(*upcast((x, w)), labels)
    value, gradients = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))(x, w)
    assert [g.dtype for g in gradients] == [x.dtype, w.dtype]
    for actual, true in zip((value, *upcast(gradients)), (expected[0], *expected[1]), strict=True):
        np.testing.assert_allclose(actual, true, rtol=tolerance, atol=tolerance)


def upcast(arrays: tuple[jax.Array, ...]) -> list[jax.Array]:
    return [x.astype("float32") for x in arrays]


def test_leading_axes_and_none():
    x, w, labels = drawn(6, 5, 11)
    loss = jax.jit(LOSS)
    stacked = loss(x.reshape(2, 3, 5), w, labels.reshape(2, 3))
    np.testing.assert_allclose(stacked.ravel(), loss(x, w, labels), rtol=1e-6)
    assert jax.eval_shape(loss, x[:0], w, labels[:0]).shape == (0,)


def test_a_label_that_is_no_class_is_seen_unless_it_is_masked_out():
    x, w, _ = drawn(3, 5, 11)

    @jax.jit
    def pull(ct: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        value, residuals = LOSS.fwd(x, w, jnp.array([3, 11, -1]), chunk=4)
        return value, *LOSS.bwd(residuals, ct, chunk=4)[:2]

    value, _, w_ct = pull(jnp.ones(3))
    assert np.isnan(value).tolist() == [False, True, True]
    assert np.isnan(w_ct).all()
    for ct in pull(jnp.array([1.0, 0.0, 0.0]))[1:]:
        assert np.isfinite(ct).all()


def test_extreme_logits_are_finite():
    x, w, labels = drawn(6, 5, 11)
    loss = jax.jit(jax.value_and_grad(lambda x, w: LOSS(x, w, labels, chunk=3).sum(), argnums=(0, 1)))
    value, gradients = loss(1e4 * x, w)
    assert np.isfinite(value)
    assert all(np.isfinite(g).all() for g in gradients)
