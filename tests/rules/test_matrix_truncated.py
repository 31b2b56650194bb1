"""Leading singular triplets, and generalized eigenvalues: against other ways to the same numbers."""

import jax
import numpy as np
import pytest
import scipy.linalg
from jax import numpy as jnp

from tests import at_once
from tests.at_once import rules as r

RNG = np.random.default_rng(3)
X = RNG.standard_normal((5, 4))
A = (lambda x: x + x.T)(RNG.standard_normal((4, 4)))
B = (lambda x: x @ x.T + np.eye(4))(RNG.standard_normal((4, 4)))


@pytest.mark.parametrize("k", [1, 2, 3, 4])
@pytest.mark.parametrize("transposed", [False, True])
def test_truncated_svd_is_a_part_of_the_whole_one(x64: None, k: int, transposed: bool):
    x = jnp.asarray(X.T if transposed else X)
    u, s, vh = r.svd(x)
    found, pullback = at_once.vjp(lambda x: r.truncated_svd(x, k=k), x)
    for ours, whole in zip(found, (u[:, :k], s[:k], vh[:k]), strict=True):
        np.testing.assert_array_equal(ours, whole)
    cts = tuple(jnp.asarray(RNG.standard_normal(o.shape)) for o in found)
    whole = at_once.vjp(lambda x: [o[:, :k] if i == 0 else o[:k] for i, o in enumerate(r.svd(x))], x)[1]
    np.testing.assert_allclose(pullback(cts)[0], whole(list(cts))[0], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("left_out", [[0.5, 0.5], [0.0, 0.0]])
def test_what_is_left_out_may_be_equal_or_zero(x64: None, left_out: list[float]):
    x, h = jnp.asarray(np.eye(5, 4) * np.array([3.0, 2.0, *left_out])), 1e-6
    weight = jnp.asarray(RNG.standard_normal(X.shape))

    def best(x: jax.Array) -> jax.Array:
        u, s, vh = r.truncated_svd(x, k=2)
        return jnp.sum(weight * (u * s @ vh))

    step = RNG.standard_normal(X.shape)
    slope = (best(x + h * step) - best(x - h * step)) / (2 * h)
    np.testing.assert_allclose(jnp.sum(at_once.grad(best)(x) * step), slope, rtol=1e-7)

    def by_all(x: jax.Array) -> jax.Array:
        u, s, vh = jnp.linalg.svd(x, full_matrices=False)
        return jnp.sum(weight * (u[:, :2] * s[:2] @ vh[:2]))

    assert np.isnan(at_once.grad(by_all)(x)).any()


@pytest.mark.parametrize("k", [0, 5])
def test_truncated_svd_of_a_rank_that_there_is_not(k: int):
    with pytest.raises(ValueError, match=rf"`k` must be from 1 to 4, .* shape \(5, 4\), got {k}"):
        r.truncated_svd(jnp.asarray(X), k=k)


def test_generalized_eigenvectors_are_those_of_scipy(x64: None):
    w, v = r.eigh_generalized(jnp.asarray(A), jnp.asarray(B))
    expected, vectors = scipy.linalg.eigh(A, B)
    np.testing.assert_allclose(w, expected, rtol=1e-12)
    np.testing.assert_allclose(r.eigvalsh_generalized(jnp.asarray(A), jnp.asarray(B)), expected, rtol=1e-12)
    np.testing.assert_allclose(np.abs(v), np.abs(vectors), rtol=1e-10)
    np.testing.assert_allclose(v.T @ B @ v, np.eye(4), atol=1e-12)
    assert (np.take_along_axis(np.asarray(v), np.argmax(np.abs(v), 0)[None], 0) > 0).all()


def test_generalized_eigenvectors_of_the_identity_are_the_ordinary_ones(x64: None):
    a, eye = jnp.asarray(A), jnp.eye(4)
    cts = jnp.asarray(RNG.standard_normal(4)), jnp.asarray(RNG.standard_normal((4, 4)))
    ours = at_once.vjp(lambda a: r.eigh_generalized(a, eye), a)[1](cts)[0]
    np.testing.assert_allclose(ours, at_once.vjp(r.eigh, a)[1](cts)[0], rtol=1e-9, atol=1e-11)


def test_the_rayleigh_quotient_is_stationary_in_scale_of_both(x64: None):
    # λ(c A, c B) = λ(A, B), so that Ā : A + B̄ : B = 0.
    a, b = jnp.asarray(A), jnp.asarray(B)
    a_ct, b_ct = at_once.vjp(r.eigvalsh_generalized, a, b)[1](jnp.asarray(RNG.standard_normal(4)))
    np.testing.assert_allclose(jnp.sum(a_ct * a) + jnp.sum(b_ct * b), 0, atol=1e-11)


def test_without_a_positive_definite_metric_there_is_nothing():
    assert np.isnan(r.eigvalsh_generalized(jnp.asarray(A), -jnp.asarray(B))).all()
