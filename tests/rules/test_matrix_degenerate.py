"""Matrix rules at degenerate points: finite and right where autodiff is NaN, or NaN on purpose."""

import itertools
import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest
from jax import numpy as jnp
from jax.scipy import linalg as jsl

from tests import at_once
from tests.at_once import rules as r

N = 3
RNG = np.random.default_rng(1)
EYE = np.eye(N)
ONES = np.ones((N, N))
G = RNG.standard_normal((N, N))
E, H = RNG.standard_normal((2, N, N))


def sym(x: np.ndarray) -> np.ndarray:
    return (x + x.T) / 2


def masked(
    s: jax.Array, f: Callable[[jax.Array], jax.Array], slope: Callable[[jax.Array], jax.Array]
) -> jax.Array:
    """The popular gradient of sum(f(S)): through eigenvectors, with 1 / (λ_j - λ_i) set to 0 at ties."""
    w, v = jnp.linalg.eigh(s)
    gap = w[None, :] - w[:, None]
    inverse = jnp.where(gap == 0, 0, 1 / jnp.where(gap == 0, 1, gap))
    g = v.T @ ONES @ v
    v_ct = 2 * g * f(w)[None, :]
    return v @ (jnp.diag(jnp.diag(g) * slope(w)) + (inverse * v_ct + (inverse * v_ct).T) / 2) @ v.T


def test_the_popular_mask_is_right_apart_from_ties_and_silently_wrong_at_them(x64: None):
    truth = at_once.grad(lambda s: jsl.expm((s + s.T) / 2).sum())
    ours = at_once.grad(lambda s: r.expm_symmetric(s).sum())
    apart = sym(G) + np.diag([0.0, 3.0, 6.0])
    np.testing.assert_allclose(masked(apart, jnp.exp, jnp.exp), truth(apart), rtol=1e-9)
    np.testing.assert_allclose(ours(apart), truth(apart), rtol=1e-9)
    np.testing.assert_allclose(truth(EYE), np.e * ONES, rtol=1e-12)
    np.testing.assert_allclose(ours(EYE), np.e * ONES, rtol=1e-12)
    np.testing.assert_allclose(masked(EYE, jnp.exp, jnp.exp), np.e * EYE, rtol=1e-12)  # wrong, and finite

    def through_eigenvectors(s: jax.Array) -> jax.Array:
        w, v = jnp.linalg.eigh(s)
        return jnp.sum(v * jnp.exp(w) @ v.T)

    assert np.isnan(at_once.grad(through_eigenvectors)(EYE)).all()


@pytest.mark.parametrize("s", [EYE, np.diag([1.0, 1.0, 2.0]), np.zeros((N, N)), 1e-9 * sym(G) + EYE])
def test_two_derivatives_of_a_matrix_function_at_equal_and_nearly_equal_eigenvalues(x64: None, s: np.ndarray):
    def second(f: Callable[[Any], Any]) -> Any:
        return at_once.jvp(lambda x: at_once.vjp(f, x)[1](jnp.asarray(G))[0], (s,), (H,))

    def exponential(x: jax.Array) -> jax.Array:
        return jsl.expm((x + x.T) / 2)

    moved = [at_once.jvp(f, (s,), (E,))[1] for f in (r.expm_symmetric.primal, exponential)]
    np.testing.assert_allclose(*moved, rtol=1e-9, atol=1e-9)
    (pulled, ours), (pulled_truth, truth) = second(r.expm_symmetric), second(exponential)
    np.testing.assert_allclose(pulled, pulled_truth, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(ours, truth, rtol=1e-6, atol=1e-6)  # nearly equal ones: eight digits or so


@pytest.mark.parametrize(
    ("name", "value", "slope", "curvature"),
    [
        ("logm_positive_definite", np.log(2), 1 / 2, -1 / 4),
        ("sqrtm_positive_definite", np.sqrt(2), 1 / np.sqrt(8), -1 / (8 * np.sqrt(2))),
        ("inverse_sqrtm_positive_definite", 1 / np.sqrt(2), -(2**-2.5), 0.75 * 2**-2.5),
        ("power_positive_definite", 2**1.5, 1.5 * np.sqrt(2), 0.75 / np.sqrt(2)),
    ],
)
def test_functions_of_a_multiple_of_the_identity(
    x64: None, name: str, value: float, slope: float, curvature: float
):
    rule, s = getattr(r, name), 2 * EYE
    np.testing.assert_allclose(rule(s), value * EYE, rtol=1e-12, atol=1e-15)
    pull = lambda x: at_once.vjp(rule, x)[1](jnp.asarray(G))[0]  # noqa: E731
    first, second = at_once.jvp(pull, (s,), (sym(H),))
    np.testing.assert_allclose(first, slope * sym(G), rtol=1e-12)
    # f(2 I + t H) = f(2) + f′ t H + ½ f″ t² H²
    np.testing.assert_allclose(second, curvature / 2 * (sym(G) @ sym(H) + sym(H) @ sym(G)), rtol=1e-10)


def test_eigenvectors_at_ties_are_nan_unless_they_are_not_used(x64: None):
    assert np.isnan(at_once.grad(lambda s: r.eigh(s)[1][0, 1])(EYE)).all()
    assert np.isnan(at_once.grad(lambda s: r.eigh(s)[1][0, 2])(np.diag([1.0, 1.0, 2.0]))).any()
    np.testing.assert_array_equal(at_once.grad(lambda s: r.eigh(s)[0].sum())(EYE), EYE)
    np.testing.assert_array_equal(at_once.grad(lambda s: r.eigvalsh(s).sum())(EYE), EYE)


def test_a_mask_serves_the_projection_of_a_separate_cluster(x64: None):
    v = np.linalg.qr(RNG.standard_normal((N, N)))[0]
    s = v @ np.diag([1.0, 1.0, 4.0]) @ v.T
    s = sym(s)

    def projection(s: jax.Array) -> jax.Array:
        _, v = r.eigh(s, ties="mask")
        return jnp.sum(G * (v[:, 2:] @ v[:, 2:].T))

    p = np.outer(v[:, 2], v[:, 2])
    rest = (np.eye(N) - p) / (4 - 1)  # dP = (S - 4)⁺-terms: P dS R + R dS P
    expected = p @ sym(G) @ rest + rest @ sym(G) @ p
    np.testing.assert_allclose(at_once.grad(projection)(s), expected, atol=1e-6)


@pytest.mark.parametrize("n", [2, 3, 4, 5])
def test_determinant_of_rank_n_minus_1_has_the_adjugate(x64: None, n: int):
    u, _, vt = np.linalg.svd(np.random.default_rng(n).standard_normal((n, n)))
    for first, last in ((3.0, 0.0), (3.0, 1e-17), (2.0, 0.0)):
        sigma = np.array([first, *(n - 2) * [2.0], last])
        expected = np.linalg.det(u) * np.linalg.det(vt) * np.prod(sigma[:-1]) * np.outer(u[:, -1], vt[-1])
        np.testing.assert_allclose(at_once.grad(r.det)(u * sigma @ vt), expected, atol=1e-12)
    z = np.diag([1.0, *(n - 2) * [2.0], 0.0])
    assert not np.isfinite(np.linalg.det(z) * jnp.linalg.inv(z).T).all()
    np.testing.assert_array_equal(at_once.grad(r.det)(z), np.diag([*(n - 1) * [0.0], 2.0 ** (n - 2)]))
    np.testing.assert_array_equal(at_once.grad(r.det)(np.zeros((n, n))), np.zeros((n, n)))


@pytest.mark.parametrize("diagonal", [[0, 0, 0], [1, 0, 0], [1, 1, 1], [1, 2, 0], [1, 2, 0, 0], [0, 1, 2, 3]])
def test_the_second_derivative_of_the_determinant_is_exact_at_every_rank(x64: None, diagonal: list[int]):
    x = np.diag(np.array(diagonal, float))
    h = np.random.default_rng(2).standard_normal(x.shape)

    def leibniz(m: jax.Array) -> jax.Array:
        permutations = list(itertools.permutations(range(len(m))))
        signs = [round(np.linalg.det(np.eye(len(m))[list(p)])) for p in permutations]
        return sum(
            s * math.prod(m[i, j] for i, j in enumerate(p)) for s, p in zip(signs, permutations, strict=True)
        )

    (ours, truth) = (at_once.jvp(at_once.grad(f), (x,), (h,))[1] for f in (r.det, leibniz))
    np.testing.assert_allclose(ours, truth, atol=1e-12)


def test_determinants_of_at_most_one_row():
    assert r.det(jnp.zeros((0, 0))) == 1
    assert at_once.grad(r.det)(jnp.zeros((0, 0))).shape == (0, 0)
    np.testing.assert_array_equal(at_once.grad(r.det)(jnp.zeros((1, 1))), [[1.0]])


def test_logdet_where_cholesky_rounds_otherwise_than_its_diagonal_does(monkeypatch: pytest.MonkeyPatch):
    # As on a device that sums in another order: a last pivot above 0 that is 0 when computed again.
    monkeypatch.setattr(jnp.linalg, "cholesky", lambda s: jnp.array([[1.0, 0.0], [1.0, 1e-4]], s.dtype))
    value, gradient = at_once.value_and_grad(r.logdet_positive_definite)(jnp.ones((2, 2)))
    np.testing.assert_allclose(value, np.log(1e-8), rtol=1e-6)
    np.testing.assert_allclose(gradient, 1e8 * np.array([[1, -1], [-1, 1]]), rtol=1e-6)


def test_norms_are_0_at_0_and_jax_is_nan_there():
    zero, matrix = jnp.zeros(N), jnp.zeros((N, N))
    assert np.isnan(at_once.grad(jnp.linalg.norm)(zero)).all()
    for order in (1.0, 2.0, 3.0, np.inf):
        for function in (r.vector_norm, r.vector_norm.primal):
            np.testing.assert_array_equal(
                at_once.grad(lambda x, f=function, p=order: f(x, ord=p))(zero), zero
            )
    for rule in (r.frobenius_norm, r.nuclear_norm, r.operator_norm):
        np.testing.assert_array_equal(at_once.grad(rule)(matrix), matrix)
    np.testing.assert_array_equal(at_once.grad(lambda x: r.vector_norm(x) ** 2)(zero), zero)


def test_norms_neither_overflow_nor_underflow():
    for size in (1e30, 1e-30):
        x = jnp.array([3.0, -4.0]) * size
        np.testing.assert_allclose(r.vector_norm(x), 5 * size, rtol=1e-6)
        np.testing.assert_allclose(at_once.grad(r.vector_norm)(x), [0.6, -0.8], rtol=1e-6)
        assert not 0 < jnp.sqrt(jnp.sum(x * x)) < np.inf


def test_kinks_of_the_1_norm_and_the_maximum_norm():
    x = jnp.array([0.0, 2.0, -2.0, 1.0])
    np.testing.assert_array_equal(at_once.grad(lambda x: r.vector_norm(x, ord=1))(x), [0, 1, -1, 1])
    assert at_once.grad(lambda x: jnp.linalg.norm(x, ord=1))(x)[0] == 1
    np.testing.assert_array_equal(at_once.grad(lambda x: r.vector_norm(x, ord=np.inf))(x), [0, 0.5, -0.5, 0])


def test_nuclear_norm_has_the_least_subgradient_and_a_hessian_at_equal_singular_values(x64: None):
    x = np.outer([1.0, 2.0, 2.0], [2.0, 0.0, 0.0])
    np.testing.assert_allclose(at_once.grad(r.nuclear_norm)(x), x / 6, atol=1e-12)
    hessian = at_once.jvp(at_once.grad(r.nuclear_norm), (EYE,), (H,))[1]
    np.testing.assert_allclose(hessian, (H - H.T) / 2, atol=1e-12)
    assert np.isnan(at_once.jvp(at_once.grad(lambda x: jnp.linalg.svd(x)[1].sum()), (EYE,), (H,))[1]).any()
    np.testing.assert_allclose(
        at_once.vjp(r.polar_factor, EYE)[1](jnp.asarray(G))[0], (G - G.T) / 2, atol=1e-12
    )


def test_operator_norm_has_a_subgradient_of_rank_1(x64: None):
    gradient = at_once.grad(r.operator_norm)(EYE)
    assert np.linalg.matrix_rank(gradient) == 1
    np.testing.assert_allclose([np.linalg.norm(gradient), np.trace(gradient)], 1, rtol=1e-12)


@pytest.mark.parametrize("shape", [(5, 3), (3, 5)])
def test_pseudo_inverse_below_full_rank_follows_matrices_of_its_rank(x64: None, shape: tuple[int, int]):
    left, right = RNG.standard_normal((shape[0], 2)), RNG.standard_normal((2, shape[1]))
    moved_left, moved_right = RNG.standard_normal((shape[0], 2)), RNG.standard_normal((2, shape[1]))
    weight, h = RNG.standard_normal(shape[::-1]), 1e-6
    ct = at_once.vjp(r.pinv, left @ right)[1](jnp.asarray(weight))[0]
    at = [np.linalg.pinv((left + t * moved_left) @ (right + t * moved_right), rcond=1e-10) for t in (h, -h)]
    slope = np.sum(weight * (at[0] - at[1])) / (2 * h)
    np.testing.assert_allclose(np.sum(ct * (moved_left @ right + left @ moved_right)), slope, rtol=1e-6)
    np.testing.assert_array_equal(
        at_once.vjp(r.pinv, np.zeros(shape))[1](jnp.asarray(weight))[0], np.zeros(shape)
    )


@pytest.mark.parametrize("rule", ["inv", "slogdet", "solve", "cholesky", "logdet_positive_definite"])
def test_at_a_singular_matrix_what_is_infinite_is_not_made_finite(rule: str):
    args = [jnp.zeros((2, 2))] * (2 if rule == "solve" else 1)
    gradient = at_once.grad(
        lambda x: sum(jnp.sum(o) for o in jax.tree.leaves(getattr(r, rule)(x, *args[1:])))
    )
    assert not np.isfinite(gradient(args[0])).all()
