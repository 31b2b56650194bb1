"""Rotary embedding and linear attention: against other formulations, invariants, errors."""

import functools

import jax
import numpy as np
import pytest
from jax import numpy as jnp

from funcbp import rules
from funcbp._compat import quick_jit
from tests.support import assert_trees_close

X = jax.random.normal(jax.random.key(0), (2, 5, 3, 4))
PLACES = jnp.broadcast_to(jnp.arange(5), (2, 5))


@pytest.mark.parametrize("interleaved", [False, True])
def test_a_rotation_preserves_lengths_and_is_undone_by_its_pullback(interleaved):
    y, residuals = rules.rotary_embedding.fwd(X, PLACES, interleaved=interleaved)
    np.testing.assert_allclose(jnp.linalg.norm(y, axis=-1), jnp.linalg.norm(X, axis=-1), rtol=1e-5)
    back, none = rules.rotary_embedding.bwd(residuals, y, interleaved=interleaved)
    np.testing.assert_allclose(back, X, rtol=1e-4, atol=1e-5)
    assert none is None
    assert not np.allclose(y[:, 1:], X[:, 1:], atol=0.1)
    again, _ = rules.rotary_embedding.fwd(y, PLACES, interleaved=interleaved)
    assert not np.allclose(again, X, atol=0.1)  # what a pullback without the sign would give


def test_the_pairs_of_channels():
    x = jnp.array([1.0, 0.0, 0.0, 0.0])[None, None]
    turned = rules.rotary_embedding(x, jnp.array([1]), base=100.0)
    np.testing.assert_allclose(turned[0, 0], [np.cos(1), 0, np.sin(1), 0], rtol=1e-6)
    turned = rules.rotary_embedding(x, jnp.array([1]), base=100.0, interleaved=True)
    np.testing.assert_allclose(turned[0, 0], [np.cos(1), np.sin(1), 0, 0], rtol=1e-6)
    second = rules.rotary_embedding(x[..., ::-1], jnp.array([1]), base=100.0, interleaved=True)
    np.testing.assert_allclose(second[0, 0], [0, 0, -np.sin(0.1), np.cos(0.1)], rtol=1e-6)


def test_products_depend_on_the_distance_alone():
    q, k = X[:1, :1], X[1:, :1]

    def product(at, to):
        q_at, k_to = (rules.rotary_embedding(x, jnp.array([[t]])) for x, t in ((q, at), (k, to)))
        return (q_at * k_to).sum(-1)

    np.testing.assert_allclose(product(7, 3), product(14, 10), rtol=1e-4, atol=1e-5)
    assert not np.allclose(product(7, 3), product(3, 7), atol=1e-3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: rules.rotary_embedding(X[..., :3], PLACES), "turned in pairs, `x` has 3, an odd number"),
        (lambda: rules.rotary_embedding(X, PLACES, base=0.0), "`base` must be positive, got 0.0"),
        (lambda: rules.causal_linear_attention(X, X, X, block=0), "`block` must be at least 1, got 0"),
    ],
)
def test_errors_say_what_to_do(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def recurrence(query, key, value):
    """One position after the other, with the state Σ k vᵀ."""
    state, out = jnp.zeros((2, 3, 4, 4)), []
    for t in range(query.shape[1]):
        state = state + key[:, t, :, :, None] * value[:, t, :, None, :]
        out.append(jnp.einsum("bnc,bncf->bnf", query[:, t], state))
    return jnp.stack(out, axis=1)


@pytest.mark.parametrize("block", [1, 2, 64])
def test_blocks_of_any_size_are_the_recurrence(block):
    def pulled(function):
        def both(*args):
            out, pull = jax.vjp(function, *args)
            return out, pull(jnp.sin(X))

        return quick_jit(both)(X, X[::-1], jnp.cos(X))

    rule = functools.partial(rules.causal_linear_attention, block=block)
    assert_trees_close(pulled(rule), pulled(recurrence))


def test_the_last_position_sees_all():
    args = (X, X[::-1], jnp.cos(X))
    causal, full = rules.causal_linear_attention(*args), rules.linear_attention(*args)
    np.testing.assert_allclose(causal[:, -1], full[:, -1], rtol=1e-4, atol=1e-4)


def test_nothing_of_the_size_of_all_states_is_kept():
    time, channels = 1024, 16
    x = jnp.ones((1, time, 1, channels))
    states = 4 * time * channels * channels

    def temp(function):
        step = jax.jit(jax.grad(lambda a: function(*a).sum()))
        return step.lower((x, x, x)).compile().memory_analysis().temp_size_in_bytes

    def by_scan(query, key, value):
        def step(m, each):
            q, k, v = each
            m = m + k[:, None] * v[None, :]
            return m, q @ m

        return jax.lax.scan(
            step, jnp.zeros((channels, channels)), (query[0, :, 0], key[0, :, 0], value[0, :, 0])
        )[1]

    assert temp(by_scan) >= states
    assert temp(rules.causal_linear_attention) < states / 2
