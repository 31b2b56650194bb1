"""Products of 16-bit arrays: accumulated in float32, rounded once, on every backend and under vmap."""

import jax
import numpy as np
import pytest
from jax import numpy as jnp

from funcbp import rules

HALVES = ["bfloat16", "float16"]


@pytest.mark.parametrize("dtype", HALVES)
def test_a_batched_product(dtype):
    a = jax.random.normal(jax.random.key(0), (2, 3, 4)).astype(dtype)
    b = jax.random.normal(jax.random.key(1), (2, 4, 5)).astype(dtype)
    exact = np.asarray(a, np.float64) @ np.asarray(b, np.float64)
    product = rules.matmul(a, b)
    assert product.dtype == dtype
    np.testing.assert_allclose(np.asarray(product, np.float64), exact, rtol=jnp.finfo(dtype).eps, atol=1e-6)


@pytest.mark.parametrize("dtype", HALVES)
def test_jacobians_and_per_example_gradients_of_dense(dtype):
    x = jax.random.normal(jax.random.key(0), (3, 4)).astype(dtype)
    w = jax.random.normal(jax.random.key(1), (4, 2)).astype(dtype)
    jacobian = jax.jit(jax.jacrev(lambda w: rules.dense(x, w)))(w)
    np.testing.assert_array_equal(jacobian, jnp.einsum("ac,bd->abcd", x, jnp.eye(2, dtype=dtype)))
    each = jax.vmap(jax.grad(lambda w, x: rules.dense(x, w).sum()), (None, 0))(w, x)
    np.testing.assert_array_equal(each, jnp.broadcast_to(x[:, :, None], (3, 4, 2)))


@pytest.mark.parametrize("dtype", HALVES)
def test_products_accumulate_in_float32(dtype):
    ones = jnp.ones((1, 4096), dtype)
    assert rules.matmul(ones, ones.T).item() == 4096  # 16 bits stop counting at 256, or at 2048
    w_ct = jax.grad(lambda w: rules.dense(ones.T, w).astype("float32").sum())(jnp.ones((1, 1), dtype))
    assert w_ct.item() == 4096


def test_the_gradient_of_a_weight_keeps_its_digits_in_bfloat16():
    """`Outer` hands back Σ xᵀ δ as it was accumulated; autodiff rounds it to the dtype of W."""
    x = jax.random.normal(jax.random.key(0), (256, 48)).astype("bfloat16")
    w = jax.random.normal(jax.random.key(1), (48, 32)).astype("bfloat16")
    delta = jax.random.normal(jax.random.key(2), (256, 32)).astype("bfloat16")
    exact = np.asarray(x, np.float64).T @ np.asarray(delta, np.float64)

    def error(gradient):
        return np.linalg.norm(np.asarray(gradient, np.float64) - exact) / np.linalg.norm(exact)

    _, factor, _ = rules.dense.pullback((x, w, None), delta)
    (by_autodiff,) = jax.vjp(lambda w: x @ w, w)[1](delta)
    assert factor.gradient().dtype == jnp.float32
    assert error(factor.gradient()) < 5e-7
    assert 1e-3 < error(by_autodiff) < 3e-3
