"""Gradients in the dtype of their arguments, where nothing but comparisons is left of them."""

import jax
import numpy as np
import pytest
from jax import numpy as jnp

import funcbp

FUNCTIONS = {
    "absolute values": lambda x: jnp.sum(jnp.abs(x)),
    "relu": lambda x: 2 * jnp.sum(jax.nn.relu(x)),
    "maximum": lambda x: jnp.sum(jnp.maximum(x, 0.5)),
    "chosen": lambda x: jnp.sum(jnp.where(x > 0.2, x, -x)),
}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_gradient_has_the_dtype_of_its_argument(name, dtype):
    x = jnp.asarray([[-1.0, 0.25], [2.0, 0.75]], dtype)
    _, gradients = funcbp.derive(FUNCTIONS[name], x, names=["x"]).value_and_grad(x)
    expected = jax.grad(FUNCTIONS[name])(x)
    assert gradients["x"].dtype == expected.dtype
    np.testing.assert_array_equal(gradients["x"], expected)


def test_a_recurrence_starts_in_the_dtype_of_its_states():
    """Backwards from a gradient of ±1; a loop's state may not change its dtype."""

    def f(x, A):
        last, _ = jax.lax.scan(lambda h, a: (h + jnp.tanh(h * a), None), x, A)
        return jnp.sum(jnp.abs(last))

    x, A = jnp.array([0.5, -1.0]), jnp.array([[1.0, 2.0], [-1.0, 0.5], [0.3, 0.1]])
    _, gradients = funcbp.derive(f, x, A, names=["x", "A"]).value_and_grad(x, A)
    for found, expected in zip((gradients["x"], gradients["A"]), jax.grad(f, (0, 1))(x, A), strict=True):
        assert found.dtype == expected.dtype
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_a_reciprocal_root_of_a_diagonal_reads_the_diagonal():
    def f(x, S):
        return x @ jnp.diagonal(jax.lax.rsqrt(1 + S**2))

    x, S = jnp.array([1.0, 2.0]), jnp.array([[0.5, 3.0], [-2.0, 1.0]])
    d = funcbp.derive(f, x, S, names=["x", "S"])
    assert "jnp.diagonal" in d.source()
    assert d.check().ok
