"""Sparsemax is a projection: closed values, optimality, its Jacobian."""

import jax
import numpy as np
import pytest
from jax import numpy as jnp

from tests import at_once
from tests.at_once import rules

P = 2 * jax.random.normal(jax.random.key(0), (16, 7))


@pytest.mark.parametrize("t", [-3.0, -1.0, -0.25, 0.0, 0.5, 1.0, 3.0])
def test_two_entries(t: float):
    """Martins & Astudillo 2016, section 2.3: sparsemax (t, 0) = min(max((1 + t) / 2, 0), 1)."""
    first = np.clip((1 + t) / 2, 0, 1)
    np.testing.assert_allclose(rules.sparsemax(jnp.array([t, 0.0])), [first, 1 - first], atol=1e-7)


def test_it_is_the_nearest_point_of_the_simplex():
    """Optimality: p - q is τ where q > 0, and at most τ where q = 0."""
    q = np.asarray(rules.sparsemax(P), np.float64)
    np.testing.assert_allclose(q.sum(-1), 1, rtol=1e-6)
    assert (q >= 0).all()
    assert (q == 0).any()
    gap = np.asarray(P, np.float64) - q
    tau = np.array([row[kept].mean() for row, kept in zip(gap, q > 0, strict=True)])[:, None]
    np.testing.assert_allclose(np.where(q > 0, gap - tau, 0), 0, atol=1e-6)
    assert (gap <= tau + 1e-6).all()


def test_its_jacobian_is_a_projection_onto_what_sums_to_zero():
    p = P[0]
    jacobian = np.asarray(at_once.jacrev(rules.sparsemax)(p))
    support = np.asarray(rules.sparsemax(p)) > 0
    n = support.sum()
    expected = np.outer(support, support) * (np.eye(7) - 1 / n)
    np.testing.assert_allclose(jacobian, expected, atol=1e-6)
    np.testing.assert_allclose(at_once.jacfwd(rules.sparsemax.primal)(p), expected, atol=1e-6)


def test_an_entry_at_the_threshold_is_outside_in_every_mode():
    p = jnp.array([1.0, 0.0])  # τ = 0 with one entry and with two
    for jacobian in (at_once.jacrev(rules.sparsemax)(p), at_once.jacfwd(rules.sparsemax.primal)(p)):
        np.testing.assert_array_equal(jacobian, np.zeros((2, 2)))


def test_a_row_with_nan_is_nan_and_the_others_are_not():
    q = rules.sparsemax(jnp.array([[1.0, jnp.nan, 0.0], [0.0, 0.0, -5.0]]))
    assert np.isnan(q[0]).all()
    assert q[1].tolist() == [0.5, 0.5, 0.0]
