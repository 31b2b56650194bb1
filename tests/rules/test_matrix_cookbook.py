"""The Matrix Cookbook (Petersen and Pedersen, 15 November 2012), chapter 2, equation by equation.

Every gradient here goes through rules of the catalogue only; the right-hand sides are those of the book.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from jax import numpy as jnp

from tests import at_once
from tests.at_once import rules as r

N = 3
RNG = np.random.default_rng(0)
A, B, C, D, X = (RNG.standard_normal((N, N)) + 2 * np.eye(N) for _ in range(5))
DX = RNG.standard_normal((N, N))
TALL = RNG.standard_normal((N + 1, N))
WIDE = RNG.standard_normal((N + 1, N + 1))
SQUARE_SYMMETRIC = WIDE + WIDE.T
S = X @ X.T + np.eye(N)
W = A + A.T
a, b, c, x = (RNG.standard_normal(N) for _ in range(4))
I = np.eye(N)  # noqa: E741
inv, det, power = np.linalg.inv, np.linalg.det, np.linalg.matrix_power

Case = tuple[Callable[[Any], Any], Any, Any]


# For each number: the matrix function of X, and its differential for dX.
DIFFERENTIALS: dict[int, Case] = {
    36: (r.trace, X, np.trace(DX)),
    37: (lambda x: r.sandwich(x, B, x), X, DX @ B @ X + X @ B @ DX),
    38: (lambda x: r.hadamard(x, x), X, 2 * X * DX),
    39: (lambda x: r.kronecker(x, x), X, np.kron(DX, X) + np.kron(X, DX)),
    40: (r.inv, X, -inv(X) @ DX @ inv(X)),
    41: (r.det, X, np.trace(det(X) * inv(X) @ DX)),
    42: (r.det, X, det(X) * np.trace(inv(X) @ DX)),
    43: (lambda x: r.slogdet(x)[1], X, np.trace(inv(X) @ DX)),
    44: (r.matrix_transpose, X, DX.T),
    46: (
        lambda x: r.det(r.sandwich(x, B, x)),
        X,
        det(X @ B @ X) * np.trace(inv(X @ B @ X) @ (DX @ B @ X + X @ B @ DX)),
    ),
    59: (lambda x: r.inv(r.gram(x)), X, -inv(X.T @ X) @ (DX.T @ X + X.T @ DX) @ inv(X.T @ X)),
}


def geometric(left: np.ndarray, m: np.ndarray, right: np.ndarray, k: int) -> np.ndarray:
    """Σ mⁱ left right mᵏ⁻¹⁻ⁱ."""
    return sum((power(m, i) @ left @ right @ power(m, k - 1 - i) for i in range(k)), np.zeros((N, N)))


M = inv(TALL.T @ SQUARE_SYMMETRIC @ TALL)
SY = SQUARE_SYMMETRIC
Y = A @ X @ B + C
U2, V2 = power(X, 2) @ a, power(X, 2) @ b

# For each number: a scalar function, where, and its gradient there.
GRADIENTS: dict[int, Case] = {
    49: (r.det, X, det(X) * inv(X).T),
    51: (lambda x: r.det(r.sandwich(A, x, B)), X, det(A @ X @ B) * inv(X).T),
    52: (lambda x: r.det_quadratic(x, A), X, 2 * det(X.T @ A @ X) * inv(X).T),
    53: (lambda x: r.det_quadratic(x, SY), TALL, 2 / det(M) * SY @ TALL @ M),
    54: (
        lambda x: r.det_quadratic(x, WIDE),
        TALL,
        det(TALL.T @ WIDE @ TALL)
        * (WIDE @ TALL @ inv(TALL.T @ WIDE @ TALL) + WIDE.T @ TALL @ inv(TALL.T @ WIDE.T @ TALL)),
    ),
    55: (r.logdet_gram, TALL, 2 * np.linalg.pinv(TALL).T),
    57: (lambda x: r.slogdet(x)[1], X, inv(X).T),
    58: (lambda x: r.det(r.matrix_power(x, power=3)), X, 3 * det(power(X, 3)) * inv(X).T),
    61: (lambda x: r.inverse_form(a, x, b), X, -inv(X).T @ np.outer(a, b) @ inv(X).T),
    62: (lambda x: r.det(r.inv(x)), X, -det(inv(X)) * inv(X).T),
    63: (lambda x: r.trace_inverse(A, x, B), X, -(inv(X) @ B @ A @ inv(X)).T),
    64: (lambda x: r.trace(r.inv(x + A)), X, -(inv(X + A) @ inv(X + A)).T),
    65: (lambda s: r.eigvalsh(s).sum(), S, I),
    66: (lambda s: r.eigvalsh(s).prod(), S, det(S) * inv(S).T),
    69: (lambda x: r.linear_form(x, I, a), x, a),
    70: (lambda x: r.linear_form(a, x, b), X, np.outer(a, b)),
    71: (lambda x: r.linear_form(a, r.matrix_transpose(x), b), X, np.outer(b, a)),
    72: (lambda x: r.quadratic_form(a, x), X, np.outer(a, a)),
    76: (lambda x: r.trace_product(x, np.ones((N, N))) ** 2, X, 2 * X.sum() * np.ones((N, N))),
    77: (lambda x: r.sandwich_form(b, x, I, c), X, X @ (np.outer(b, c) + np.outer(c, b))),
    78: (
        lambda x: r.affine_bilinear_form(x, B, b, C, D, c),
        x,
        B.T @ C @ (D @ x + c) + D.T @ C.T @ (B @ x + b),
    ),
    81: (lambda x: r.quadratic_form(x, B), x, (B + B.T) @ x),
    82: (lambda x: r.sandwich_form(b, x, D, c), X, D.T @ X @ np.outer(b, c) + D @ X @ np.outer(c, b)),
    83: (lambda x: r.affine_quadratic_form(x, b, c, D), X, np.outer((D + D.T) @ (X @ b + c), b)),
    84: (lambda s: r.weighted_residual(a, A, s, W), x, -2 * A.T @ W @ (a - A @ x)),
    85: (lambda x: r.weighted_residual(x, I, a, W), x, 2 * W @ (x - a)),
    86: (lambda s: r.weighted_residual(a, I, s, W), x, -2 * W @ (a - x)),
    87: (lambda x: r.weighted_residual(x, A, a, W), x, 2 * W @ (x - A @ a)),
    88: (lambda m: r.weighted_residual(x, m, a, W), A, -2 * W @ np.outer(x - A @ a, a)),
    91: (lambda x: r.power_form(a, x, b, power=3), X, geometric(I, X.T, np.outer(a, b), 3)),
    92: (
        lambda x: r.linear_form(a, r.gram(r.matrix_power(x, power=2)), b),
        X,
        sum(
            power(X.T, i) @ (np.outer(V2, power(X, 1 - i) @ a) + np.outer(U2, power(X, 1 - i) @ b))
            for i in range(2)
        ),
    ),
    97: (lambda x: r.quadratic_form(x, A) + r.linear_form(b, I, x), x, (A + A.T) @ x + b),
    99: (r.trace, X, I),
    100: (lambda x: r.trace_product(x, A), X, A.T),
    101: (lambda x: r.trace_sandwich(A, x, B), X, A.T @ B.T),
    102: (lambda x: r.trace_sandwich(A, r.matrix_transpose(x), B), X, B @ A),
    103: (lambda x: r.trace_product(r.matrix_transpose(x), A), X, A),
    104: (lambda x: r.trace_product(A, r.matrix_transpose(x)), X, A),
    105: (lambda x: r.trace(r.kronecker(A, x)), X, np.trace(A) * I),
    106: (lambda x: r.trace_power(x, power=2), X, 2 * X.T),
    107: (lambda x: r.trace_product_power(B, x, power=2), X, (X @ B + B @ X).T),
    108: (lambda x: r.trace_quadratic(x, B), X, B @ X + B.T @ X),
    109: (lambda x: r.trace_sandwich(B, x, r.matrix_transpose(x)), X, B @ X + B.T @ X),
    110: (lambda x: r.trace_sandwich(x, r.matrix_transpose(x), B), X, B @ X + B.T @ X),
    111: (lambda x: r.trace_sandwich_gram(I, x, B), X, X @ B.T + X @ B),
    112: (lambda x: r.trace_sandwich(B, r.matrix_transpose(x), x), X, X @ B.T + X @ B),
    113: (lambda x: r.trace_product(r.gram(x), B), X, X @ B.T + X @ B),
    114: (lambda x: r.trace_repeated(A, x, B), X, A.T @ X.T @ B.T + B.T @ X.T @ A.T),
    115: (lambda x: r.trace(r.gram(x)), X, 2 * X),
    116: (lambda x: r.trace_bilinear_quadratic(x, C, B @ B.T), X, C.T @ X @ B @ B.T + C @ X @ B @ B.T),
    117: (lambda x: r.trace_bilinear_quadratic(x, B, C), X, B @ X @ C + B.T @ X @ C.T),
    118: (lambda x: r.trace_sandwich_gram(C @ A, x, B), X, A.T @ C.T @ X @ B.T + C @ A @ X @ B),
    119: (lambda x: r.squared_affine_residual(A, x, B, C), X, 2 * A.T @ Y @ B.T),
    120: (lambda x: r.trace(r.kronecker(x, x)), X, 2 * np.trace(X) * I),
    121: (lambda x: r.trace_power(x, power=4), X, 4 * power(X, 3).T),
    122: (lambda x: r.trace_product_power(A, x, power=3), X, geometric(A, X, I, 3).T),
    123: (
        lambda x: r.trace_product_power(B @ B.T, r.sandwich(r.matrix_transpose(x), C, x), power=2),
        X,
        C @ X @ X.T @ C @ X @ B @ B.T
        + C.T @ X @ B @ B.T @ X.T @ C.T @ X
        + C @ X @ B @ B.T @ X.T @ C @ X
        + C.T @ X @ X.T @ C.T @ X @ B @ B.T,
    ),
    124: (lambda x: r.trace_inverse(A, x, B), X, -inv(X).T @ A.T @ B.T @ inv(X).T),
    125: (lambda x: r.trace_quadratic_inverse(x, SY, A), TALL, -SY @ TALL @ M @ (A + A.T) @ M),
    126: (
        lambda x: r.trace_quadratic_inverse(x, SY, r.gram(x)),
        TALL,
        -2 * SY @ TALL @ M @ TALL.T @ TALL @ M + 2 * TALL @ M,
    ),
    127: (
        lambda x: r.trace_product(r.inv(S + r.sandwich(r.matrix_transpose(x), SY, x)), r.gram(x)),
        TALL,
        -2 * SY @ TALL @ (Z := inv(S + TALL.T @ SY @ TALL)) @ TALL.T @ TALL @ Z + 2 * TALL @ Z,
    ),
    128: (lambda x: r.trace(r.matrix_power(x, power=4)), X, (4 * power(X, 3)).T),
    129: (lambda x: r.vector_norm(x - a), x, (x - a) / np.linalg.norm(x - a)),
    131: (lambda x: r.vector_norm(x) ** 2, x, 2 * x),
    132: (lambda x: r.frobenius_norm(x) ** 2, X, 2 * X),
}


@pytest.mark.parametrize("number", DIFFERENTIALS)
def test_differential(x64: None, number: int):
    function, at, expected = DIFFERENTIALS[number]
    out, pull = at_once.vjp(function, at)
    assert np.shape(expected) == out.shape
    weight = RNG.standard_normal(out.shape)
    (ct,) = pull(jnp.asarray(weight))  # ⟨weight, dZ⟩ = ⟨X̄, dX⟩ for this dX
    np.testing.assert_allclose(np.sum(ct * DX), np.sum(weight * expected), rtol=1e-10)


@pytest.mark.parametrize("number", GRADIENTS)
def test_gradient(x64: None, number: int):
    function, at, expected = GRADIENTS[number]
    gradient = at_once.grad(function)(at)
    np.testing.assert_allclose(gradient, expected, rtol=1e-9, atol=1e-9 * np.abs(expected).max())
    assert np.abs(gradient - 1.01 * expected).max() > 1e-3 * np.abs(expected).max()


def test_47_48_second_differentials_of_the_determinant(x64: None):
    np.testing.assert_allclose(at_once.grad(r.det)(X) @ X.T, det(X) * I, atol=1e-9)
    second = at_once.jvp(lambda m: jnp.sum(at_once.grad(r.det)(m) * DX), (X,), (DX,))[1]
    z = inv(X) @ DX
    np.testing.assert_allclose(second, det(X) * (np.trace(z) ** 2 - np.trace(z @ z)), rtol=1e-9)


def test_56_by_the_pseudo_inverse(x64: None):
    # log det XᵀX by X⁺: XᵀX = (X⁺ X⁺ᵀ)⁻¹.
    plus = np.linalg.pinv(TALL)
    gradient = at_once.grad(lambda p: -r.logdet_gram(r.matrix_transpose(p)))(plus)
    np.testing.assert_allclose(gradient, -2 * TALL.T, rtol=1e-9)
    np.testing.assert_allclose(r.pinv(plus), TALL, rtol=1e-9)


def test_60_73_74_75_79_80_entry_by_entry(x64: None):
    unit = np.einsum("ik,jl->ijkl", I, I)  # ∂X_ij / ∂X_kl
    cases = [
        (r.inv, -np.einsum("ik,lj->ijkl", inv(X), inv(X))),  # (60)
        (lambda x: r.sandwich(I, x, I), unit),  # (73)
        (lambda x: r.sandwich(I, x, A), np.einsum("ik,lj->ijkl", I, A)),  # (74)
        (lambda x: r.sandwich(r.matrix_transpose(x), A, I), np.einsum("il,kj->ijkl", I, A)),  # (75)
        (
            lambda x: r.sandwich(r.matrix_transpose(x), B, x),  # (79), (80)
            np.einsum("lj,ik->ijkl", I, X.T @ B) + np.einsum("il,kj->ijkl", I, B @ X),
        ),
    ]
    for function, expected in cases:
        np.testing.assert_allclose(at_once.jacrev(function)(X), expected, atol=1e-10)


def test_67_68_eigenvalues_and_eigenvectors(x64: None):
    w, v = np.linalg.eigh(S)
    ds = DX + DX.T
    jacobians = at_once.jacrev(lambda s: r.eigh(s))(S)
    _, v_ours = r.eigh(S)
    for i in range(N):
        sign = np.sign(v[:, i] @ v_ours[:, i])
        moved = np.einsum("ijk,jk->i", jacobians[0], ds)[i]
        np.testing.assert_allclose(moved, v[:, i] @ ds @ v[:, i], rtol=1e-9)
        expected = sign * np.linalg.pinv(w[i] * I - S) @ ds @ v[:, i]
        np.testing.assert_allclose(np.einsum("aijk,jk->ai", jacobians[1], ds)[:, i], expected, rtol=1e-8)


def test_90_powers_entry_by_entry(x64: None):
    expected = sum(np.einsum("ik,lj->ijkl", power(X, i), power(X, 2 - i)) for i in range(3))
    np.testing.assert_allclose(at_once.jacrev(lambda x: r.matrix_power(x, power=3))(X), expected, rtol=1e-9)


def test_98_the_hessian_of_a_quadratic_form(x64: None):
    hessian = at_once.jacrev(at_once.grad(lambda x: r.quadratic_form(x, A)))(x)
    np.testing.assert_allclose(hessian, A + A.T, rtol=1e-12)


def test_130_the_hessian_of_the_length(x64: None):
    d = x - a
    length = np.linalg.norm(d)
    expected = I / length - np.outer(d, d) / length**3
    np.testing.assert_allclose(
        at_once.jacrev(at_once.grad(lambda x: r.vector_norm(x - a)))(x), expected, atol=1e-12
    )


TRIANGLE = np.tril_indices(N)
SYMMETRIC: dict[int, Case] = {
    138: (lambda s: r.linear_form(a, s, b), S, np.outer(a, b) + np.outer(b, a) - np.diag(a * b)),
    139: (lambda s: r.trace_product(A, s), S, A + A.T - A * I),
    140: (r.det, S, det(S) * (2 * inv(S) - inv(S) * I)),
    141: (r.logdet_positive_definite, S, 2 * inv(S) - inv(S) * I),
}


@pytest.mark.parametrize("number", SYMMETRIC)
def test_symmetric_matrices_by_their_free_entries(x64: None, number: int):
    function, at, expected = SYMMETRIC[number]
    gradient = at_once.grad(lambda v: function(r.symmetric_from_triangle(v)))(at[TRIANGLE])
    np.testing.assert_allclose(gradient, expected[TRIANGLE], rtol=1e-9)


def test_142_143_144_diagonal_and_toeplitz_matrices(x64: None):
    d = np.diag(X).copy()
    gradient = at_once.grad(lambda d: r.trace_product(A, r.diagonal_matrix(d)))(d)
    np.testing.assert_allclose(np.diag(gradient), A * I)
    t = RNG.standard_normal(2 * N - 1)
    sums = np.array([np.trace(A.T, -k) for k in range(1 - N, N)])
    by_diagonals = at_once.grad(lambda t: r.trace_product(A, r.toeplitz_matrix(t)))(t)
    np.testing.assert_allclose(by_diagonals, sums, rtol=1e-12)
    half = t[N - 1 :]
    symmetric = at_once.grad(lambda h: r.trace_product(A, r.toeplitz_matrix(jnp.concatenate([h[:0:-1], h]))))(
        half
    )
    np.testing.assert_allclose(symmetric[1:], (sums + sums[::-1])[N:], rtol=1e-12)
    np.testing.assert_allclose(symmetric[0], sums[N - 1], rtol=1e-12)
