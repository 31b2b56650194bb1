"""Casts inside a function are ignored: what computes in narrow types has a float64 truth all the same."""

import jax
import numpy as np
import pytest
from jax import lax
from jax import numpy as jnp

from funcbp.verify import monte_carlo, vjp_oracle
from funcbp.verify._lift import lifted


def rng(seed=0):
    return np.random.default_rng(seed)


def dense(x, w, dtype):
    return jnp.tanh(jnp.matmul(x.astype(dtype), w.astype(dtype), preferred_element_type=dtype))


def recurrent(x, w, dtype):
    def step(carry, row):
        carry = lax.cond(carry.sum() > 0, jnp.tanh, jnp.sin, (carry + row.astype(dtype)) @ w.astype(dtype))
        return carry, jax.jit(jax.checkpoint(jax.nn.silu))(carry)

    last, ys = lax.scan(step, jnp.zeros(3, dtype), x)
    return ys.sum(0) + last


def indexed(x, w, dtype):
    x = x.astype(dtype)
    total = jnp.zeros(3, dtype).at[jnp.array([0, 0, 2, 1])].add(x[:, 0]) + jnp.sort(x, 0)[1]
    total = lax.reduce_precision(total, 5, 2) if dtype != jnp.float64 else total
    sizes = jnp.abs(lax.complex(x.astype(jnp.float32), x.astype(jnp.float32)))
    if dtype == jnp.float64:
        sizes = jnp.abs(lax.complex(x, x))
    return total + jnp.cumsum(sizes[0]).astype(dtype) + jnp.arange(3, dtype=dtype) @ w.astype(dtype)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("function", [dense, recurrent, indexed])
def test_a_lifted_gradient_is_that_of_the_function_without_casts(function, dtype):
    x, w = rng().standard_normal((4, 3)), rng(1).standard_normal((3, 3))

    def gradient(dtype):
        def pull(x, w):
            out, pullback = jax.vjp(lambda x, w: function(x, w, dtype), x, w)
            return pullback(jnp.cos(jnp.arange(out.size, dtype=out.dtype)).reshape(out.shape))

        return pull

    with jax.enable_x64(True):
        wide, narrow, plain = (
            f(jnp.asarray(x), jnp.asarray(w))
            for f in (lifted(gradient(dtype)), gradient(dtype), gradient(jnp.float64))
        )
    for a, b, c in zip(wide, narrow, plain, strict=True):
        # The cotangent itself is computed from an array of the narrow type, of whole numbers.
        np.testing.assert_allclose(a, c, rtol=1e-13, atol=1e-13)
        assert np.abs(b - c).max() > 1e-9


def test_casts_in_a_while_loop():
    def f(x):
        narrow = (0, x.astype(jnp.float32))
        return lax.while_loop(lambda s: s[0] < 2, lambda s: (s[0] + 1, jnp.sin(s[1])), narrow)[1]

    with jax.enable_x64(True):
        x = jnp.asarray(0.7)
        np.testing.assert_allclose(lifted(f)(x), jnp.sin(jnp.sin(x)), rtol=1e-15)


def test_the_oracle_ignores_casts():
    x = rng().standard_normal(5)
    truth, bound = vjp_oracle(lambda x: jnp.sin(x.astype(jnp.float32)), (x,), np.ones(5))
    np.testing.assert_allclose(truth[0], np.cos(x), rtol=1e-14)
    assert (bound[0] < 1e-13).all()


def test_monte_carlo_keeps_casts_unless_asked():
    def f(x):
        return x.astype(jnp.float32)

    with jax.enable_x64(True):
        x = jnp.asarray(0.1)
        assert float(monte_carlo(f)(0, x)[0]) != 0.1
        assert float(monte_carlo(f, lift=True)(0, x)[0]) == 0.1


def test_numbers_made_of_bits_stay_what_they_are():
    def noisy(x):
        return x * jax.random.uniform(jax.random.key(3), x.shape, jnp.float32)

    x = np.ones(4)
    with jax.enable_x64(True):
        np.testing.assert_array_equal(lifted(noisy)(jnp.asarray(x)), noisy(jnp.asarray(x)))
