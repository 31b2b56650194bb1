"""Gates of a mixture of experts: which are open, and who learns of it."""

import jax
import numpy as np
import pytest
from jax import numpy as jnp

from funcbp import rules

LOGITS = 2 * jax.random.normal(jax.random.key(0), (6, 5))


@pytest.mark.parametrize("k", [1, 2, 5])
def test_k_gates_are_open_and_sum_to_one(k: int):
    gates = rules.top_k_gates(LOGITS, k=k)
    assert ((gates > 0).sum(-1) == k).all()
    np.testing.assert_allclose(gates.sum(-1), 1, rtol=1e-6)
    largest = jnp.sort(LOGITS, -1)[:, -k:]
    np.testing.assert_allclose(jnp.sort(gates, -1)[:, -k:], jax.nn.softmax(largest), rtol=1e-6)


def test_all_gates_open_are_a_softmax():
    np.testing.assert_allclose(rules.top_k_gates(LOGITS, k=5), jax.nn.softmax(LOGITS), rtol=1e-6)


def test_a_single_gate_is_1_and_teaches_the_router_nothing():
    gates, pullback = jax.vjp(lambda z: rules.top_k_gates(z, k=1), LOGITS)
    assert set(np.unique(gates)) == {0, 1}
    np.testing.assert_array_equal(pullback(LOGITS)[0], jnp.zeros((6, 5)))


def test_of_equal_logits_the_first_is_taken_by_value_and_by_gradient():
    logits = jnp.array([0.0, 1.0, 0.0, 0.0])
    gates, pullback = jax.vjp(rules.top_k_gates, logits)
    assert (gates > 0).tolist() == [True, True, False, False]
    (ct,) = pullback(jnp.array([1.0, 2.0, 100.0, 100.0]))
    assert (ct != 0).tolist() == [True, True, False, False]
    np.testing.assert_allclose(ct.sum(), 0, atol=1e-6)


@pytest.mark.parametrize("k", [0, 6, -1])
def test_a_number_of_gates_that_is_not_there(k: int):
    with pytest.raises(ValueError, match=f"`k` must be from 1 to the number of experts, 5, got {k}"):
        rules.top_k_gates(LOGITS, k=k)


def test_a_mixture_is_a_weighted_sum():
    values = jax.random.normal(jax.random.key(1), (6, 5, 3))
    gates = rules.top_k_gates(LOGITS)
    expected = sum(gates[:, e, None] * values[:, e] for e in range(5))
    np.testing.assert_allclose(rules.mixture(gates, values), expected, rtol=1e-5, atol=1e-6)
