"""Matrix rules: invariants, conventions, what autodiff does not use, and errors of wrong options."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest
from jax import numpy as jnp

import funcbp
from tests import at_once
from tests.at_once import rules as r

RNG = np.random.default_rng(2)
A, B, G = RNG.standard_normal((3, 3, 3))


def test_left_constants_come_back_on_the_left_and_right_ones_on_the_right(x64: None):
    """Not "every constant transposed and on the left of everything", which has the wrong shape or value."""
    y, a, b, x = (RNG.standard_normal(s) for s in ((2,), (2, 3), (3, 4), (4,)))
    _, a_ct, b_ct, _ = at_once.grad(r.bilinear_product, argnums=(0, 1, 2, 3))(y, a, b, x)
    np.testing.assert_allclose(a_ct, np.outer(y, b @ x), rtol=1e-12)
    np.testing.assert_allclose(b_ct, np.outer(a.T @ y, x), rtol=1e-12)


def test_the_half_is_used_up_by_two_occurrences(x64: None):
    a, x = RNG.standard_normal((2, 3)), RNG.standard_normal(3)
    np.testing.assert_allclose(at_once.grad(r.gram_form)(a, x), np.outer(a @ x, x), rtol=1e-12)


def test_commutation_and_duplication_matrices(x64: None):
    x = RNG.standard_normal((2, 3))
    vec = r.vectorize(x)
    np.testing.assert_array_equal(vec, x.T.ravel())
    np.testing.assert_array_equal(r.commutation(vec, rows=2), r.vectorize(x.T))
    k = at_once.jacrev(lambda v: r.commutation(v, rows=2))(vec)
    np.testing.assert_array_equal(k @ k.T, np.eye(6))
    np.testing.assert_array_equal(k.T, at_once.jacrev(lambda v: r.commutation(v, rows=3))(vec))
    # vec by columns: ∂vec(A X B) / ∂vec X = Bᵀ ⊗ A.
    a, b = RNG.standard_normal((4, 2)), RNG.standard_normal((3, 5))
    jacobian = at_once.jacrev(lambda v: r.vectorize(r.sandwich(a, v.reshape(3, 2).T, b)))(vec)
    np.testing.assert_allclose(jacobian, np.kron(b.T, a), atol=1e-14)


def test_kronecker_products_agree_with_each_other(x64: None):
    a, b, x = (RNG.standard_normal(s) for s in ((2, 3), (4, 2), (2, 3)))
    np.testing.assert_allclose(
        r.kronecker_vector_product(a, b, x), r.kronecker(a, b) @ r.vectorize(x), rtol=1e-12
    )
    columns = r.khatri_rao(a[:, :2], b)
    np.testing.assert_allclose(columns[:, 1], np.kron(a[:, 1], b[:, 1]), rtol=1e-12)


def test_factorizations_have_the_stated_signs():
    for x in (A, A[:, :2], A[:2]):
        q, upper = r.qr(x)
        assert (np.diag(upper) > 0).all()
        np.testing.assert_allclose(q @ upper, x, atol=1e-5)
        u, s, vt = r.svd(x)
        np.testing.assert_allclose((u * s) @ vt, x, atol=1e-5)
        assert (np.take_along_axis(u, np.abs(u).argmax(0)[None], 0) > 0).all()
    _, v = r.eigh(A + A.T)
    assert (np.take_along_axis(v, np.abs(v).argmax(0)[None], 0) > 0).all()
    p, lower, upper = r.lu(A)
    np.testing.assert_allclose(p @ lower @ upper, A, atol=1e-5)


@pytest.mark.parametrize(
    "name",
    ["eigh", "eigvalsh", "cholesky", "logdet_positive_definite", "expm_symmetric", "sqrtm_positive_definite"],
)
def test_cotangents_of_symmetric_matrices_are_symmetric(name: str):
    s = A @ A.T + np.eye(3, dtype=np.float32)
    gradient = at_once.grad(lambda x: sum(jnp.sum(G[:1] * o) for o in jax.tree.leaves(getattr(r, name)(x))))(
        s
    )
    np.testing.assert_allclose(gradient, gradient.T, rtol=1e-5, atol=1e-5)


def test_triangles_that_are_not_read_have_no_cotangent():
    for lower in (True, False):
        for rule in (r.solve_triangular, r.cho_solve):
            gradient = at_once.grad(lambda a, f=rule, low=lower: f(a, G, lower=low).sum())(A)
            np.testing.assert_array_equal(np.triu(gradient, 1) if lower else np.tril(gradient, -1), 0)


def test_equations_are_solved(x64: None):
    a, b = A + 3 * np.eye(3), B + 3 * np.eye(3)
    x = r.sylvester(a, b, G)
    np.testing.assert_allclose(a @ x + x @ b, G, atol=1e-12)
    x = r.lyapunov(a, G)
    np.testing.assert_allclose(a @ x + x @ a.T, G, atol=1e-12)
    w = r.lstsq(A[:, :2], G)
    np.testing.assert_allclose(A[:, :2].T @ (A[:, :2] @ w - G), 0, atol=1e-12)
    z = r.cayley(A - A.T)
    np.testing.assert_allclose(z @ z.T, np.eye(3), atol=1e-12)


def test_the_derivative_of_a_power_is_the_sum_over_the_places_of_x(x64: None):
    for power in (1, 2, 5, 6):
        ct = at_once.vjp(lambda x, k=power: r.matrix_power(x, power=k), A)[1](jnp.asarray(G))[0]
        m = np.linalg.matrix_power
        expected = sum(m(A.T, i) @ G @ m(A.T, power - 1 - i) for i in range(power))
        np.testing.assert_allclose(ct, expected, rtol=1e-9, atol=1e-9)


def test_the_size_of_the_cotangent_does_not_matter_to_the_exponential():
    pull = at_once.vjp(r.expm, A)[1]
    (one,), (huge,) = pull(jnp.asarray(G, jnp.float32)), pull(1e20 * jnp.asarray(G, jnp.float32))
    np.testing.assert_allclose(huge / 1e20, one, rtol=1e-4, atol=1e-4)


def test_a_low_rank_update_needs_no_square_matrix():
    n = 20_000  # n² numbers would be 1.6 GB
    d, u = jnp.ones(n), jnp.full((n, 1), 0.01)
    value, (d_ct, u_ct) = at_once.value_and_grad(r.logdet_low_rank_update, argnums=(0, 1))(d, u)
    np.testing.assert_allclose(value, np.log(3), rtol=1e-4)
    np.testing.assert_allclose(d_ct[0], 1 - 1e-4 / 3, rtol=1e-5)
    np.testing.assert_allclose(u_ct[0, 0], 0.02 / 3, rtol=1e-4)


def test_distances_of_near_points_keep_their_digits():
    x, y = jnp.array([[1000.0, 1000.0]]), jnp.array([[1000.0, 1000.25]])
    np.testing.assert_array_equal(r.squared_distances(x, y), [[0.0625]])
    np.testing.assert_array_equal(at_once.grad(lambda x: r.squared_distances(x, y).sum())(x), [[0.0, -0.5]])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: r.nested_form(G[0], A, G[1], sigma="step"),
            "nested_form: .*`sigma` must be one of.*got 'step'",
        ),
        (lambda: r.twice_nested_form(G[0], A, B, G[1], inner_sigma="step"), "`inner_sigma` must be one of"),
        (lambda: r.twice_nested_form(G[0], A, B, G[1], outer_sigma="step"), "`outer_sigma` must be one of"),
        (lambda: r.trace_power(A, power=-1), "trace_power: .*`power` must not be negative, got -1"),
        (lambda: r.power_form(G[0], A, G[1], power=-2), "power_form: .*got -2"),
        (lambda: r.trace_product_power(A, B, power=-1), "trace_product_power: .*got -1"),
        (lambda: r.commutation(jnp.ones(6), rows=4), "`rows` must divide the length 6 of `v`, got 4"),
        (lambda: r.commutation(jnp.ones(6), rows=0), "`rows` must divide.*got 0"),
        (lambda: r.symmetric_from_triangle(jnp.ones(5)), "`v` has length 5, which is no n"),
        (lambda: r.toeplitz_matrix(jnp.ones(4)), "`t` has length 4; give the 2 n - 1 diagonals"),
        (lambda: r.solve_triangular(A, B, trans=2), "`trans` must be 0 .* or 1 .*, got 2"),
        (lambda: r.vector_norm(G[0], ord=0.5), "`ord` must be 1 or more .*got 0.5"),
        (lambda: r.eigh(A, ties="zero"), "eigh: .*`ties` must be 'nan' or 'mask', got 'zero'"),
        (lambda: r.lstsq(A[:2], B[:2]), r"lstsq: `x` has shape \(2, 3\).*pinv\(x\) @ y"),
        (lambda: r.logdet_gram(A[:2]), r"logdet_gram: `x` has shape \(2, 3\)"),
    ],
)
def test_a_wrong_option_or_shape_is_named(call: Callable[[], Any], message: str):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("lengths", [(2, 3, 4, 5), (5, 4, 3, 2), (3, 2, 5, 4), (4, 5, 2, 3), (3, 5, 4, 2)])
@pytest.mark.parametrize("name", ["trace_sandwich", "trace_repeated", "squared_affine_residual"])
def test_the_order_of_products_is_of_no_consequence(name: str, lengths: tuple[int, ...], x64: None):
    m, n, k, j = lengths
    shapes = {
        "trace_sandwich": ((m, n), (n, k), (k, m)),
        "trace_repeated": ((m, n), (n, m), (m, n)),
        "squared_affine_residual": ((m, n), (n, k), (k, j), (m, j)),
    }[name]
    rule, rng = funcbp.catalogue()[name], np.random.default_rng(0)
    args = [jnp.asarray(rng.standard_normal(shape)) for shape in shapes]
    value, residuals = rule.fwd(*args)
    expected, pullback = jax.vjp(rule.reference, *args)
    np.testing.assert_allclose(value, expected, rtol=1e-12)
    for ours, theirs in zip(rule.bwd(residuals, jnp.array(0.7)), pullback(jnp.array(0.7)), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-12)
