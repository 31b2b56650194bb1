"""Spectral normalization by the vectors of a power iteration."""

import jax
import numpy as np
from jax import numpy as jnp

from tests import at_once
from tests.at_once import rules

RNG = np.random.default_rng(0)
W, CT = jnp.asarray(RNG.standard_normal((2, 4, 3)), jnp.float32)


def unit(x: jax.Array) -> jax.Array:
    return x / jnp.linalg.norm(x)


def test_once_the_iteration_has_converged_it_is_the_exact_rule():
    u = unit(jnp.ones(4))
    for _ in range(100):
        v = unit(W.T @ u)
        u = unit(W @ v)
    exact, exact_pullback = at_once.vjp(rules.spectral_norm, W)
    y, pullback = at_once.vjp(rules.spectral_norm_by_vectors, W, u, v)
    np.testing.assert_allclose(y, exact, rtol=1e-5)
    np.testing.assert_allclose(pullback(CT)[0], exact_pullback(CT)[0], rtol=1e-4, atol=1e-5)


def test_before_that_u_and_v_are_constants_as_in_pytorch():
    u, v = unit(jnp.array([1.0, 2.0, -1.0, 0.5])), unit(jnp.array([1.0, 0.0, -1.0]))
    w_ct, u_ct, v_ct = at_once.vjp(rules.spectral_norm_by_vectors, W, u, v)[1](CT)
    sigma = u @ W @ v
    expected = CT / sigma - jnp.sum(CT * W) / sigma**2 * jnp.outer(u, v)
    np.testing.assert_allclose(w_ct, expected, rtol=1e-4, atol=1e-5)
    assert not u_ct.any()
    assert not v_ct.any()
    _, moved = at_once.jvp(rules.spectral_norm_by_vectors.primal, (W, u, v), (0 * W, u + 1, v + 1))
    assert not moved.any()
