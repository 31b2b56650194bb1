"""Inverse, determinant, trace, Cholesky factor, eigenvalues, quadratic forms and Jacobian layouts."""

import jax
from jax import numpy as jnp
from jax import scipy as jsp

from ._case import Family, array, normal, spd

family = Family("matrix")


def invertible():
    return (array((4, 4)) + 3 * jnp.eye(4, dtype=jnp.float32),)


def positive_definite():
    return (spd(4),)


def quadratic(x, a):
    return x @ a @ x


@family.gradient(quadratic, normal((5,), (5, 5)))
def quadratic_form(x, a):
    return (a + a.T) @ x


@family.gradient(quadratic, normal((5,), (5, 5)), "TERM_MISSING")
def quadratic_form_half(x, a):
    """2Ax is for symmetric A; here only Ax."""
    return a @ x


@family.gradient(quadratic, normal((5,), (5, 5)), "TRANSPOSE_FORGOTTEN", "TERM_MISSING")
def quadratic_form_as_if_symmetric(x, a):
    """2Ax for an A that is not symmetric."""
    return 2 * a @ x


@family.gradient(lambda x, a: 0.5 * x @ (a + a.T) @ x, normal((5,), (5, 5)), "CONSTANT_FACTOR")
def quadratic_form_doubled(x, a):
    """The ½ of the energy is forgotten."""
    return 2 * (a + a.T) @ x


def inverse_fwd(a):
    b = jnp.linalg.inv(a)
    return b, b


@family.vjp(jnp.linalg.inv, invertible, fwd=inverse_fwd)
def inverse_bwd(b, dy):
    return (-b.T @ dy @ b.T,)


@family.vjp(jnp.linalg.inv, invertible, "SIGN", fwd=inverse_fwd)
def inverse_sign(b, dy):
    """The minus of d(A⁻¹) = -A⁻¹ dA A⁻¹ is lost."""
    return (b.T @ dy @ b.T,)


@family.vjp(jnp.linalg.inv, invertible, "TRANSPOSE_FORGOTTEN", fwd=inverse_fwd)
def inverse_not_transposed(b, dy):
    """Written as for dA, not for its adjoint."""
    return (-b @ dy @ b,)


@family.gradient(lambda a: jnp.linalg.slogdet(a)[1], invertible)
def logdet(a):
    return jnp.linalg.inv(a).T


@family.gradient(lambda a: jnp.linalg.slogdet(a)[1], invertible, "TRANSPOSED", "TRANSPOSE_FORGOTTEN")
def logdet_not_transposed(a):
    """A⁻¹, right for symmetric matrices only."""
    return jnp.linalg.inv(a)


@family.gradient(jnp.linalg.det, invertible, "FACTOR_MISSING", "CONSTANT_FACTOR")
def determinant_without_determinant(a):
    """The gradient of log det given for det."""
    return jnp.linalg.inv(a).T


@family.gradient(lambda a: 2 * jnp.sum(jnp.log(jnp.diag(jnp.linalg.cholesky(a)))), positive_definite)
def logdet_by_cholesky(a):
    """For symmetric positive definite matrices."""
    return jnp.linalg.inv(a)


def cholesky_fwd(a):
    factor = jnp.linalg.cholesky(a)
    return factor, factor


def lower_halved(a):
    return jnp.tril(a) - 0.5 * jnp.diag(jnp.diag(a))


@family.vjp(jnp.linalg.cholesky, positive_definite, fwd=cholesky_fwd)
def cholesky_bwd(factor, dy):
    inner = lower_halved(factor.T @ dy)
    half = jsp.linalg.solve_triangular(factor, (inner + inner.T) / 2, lower=True, trans=1)
    return (jsp.linalg.solve_triangular(factor, half.T, lower=True, trans=1),)


@family.vjp(jnp.linalg.cholesky, positive_definite, "FACTOR_MISSING", "CONSTANT_FACTOR", fwd=cholesky_fwd)
def cholesky_diagonal_not_halved(factor, dy):
    """Φ halves the diagonal; here it does not."""
    inner = jnp.tril(factor.T @ dy)
    half = jsp.linalg.solve_triangular(factor, (inner + inner.T) / 2, lower=True, trans=1)
    return (jsp.linalg.solve_triangular(factor, half.T, lower=True, trans=1),)


def solve_fwd(a, b):
    x = jnp.linalg.solve(a, b)
    return x, (a, x)


def system():
    return *invertible(), array((4,), 7)


@family.vjp(jnp.linalg.solve, system, fwd=solve_fwd)
def solve_bwd(residuals, dy):
    a, x = residuals
    adjoint = jnp.linalg.solve(a.T, dy)
    return -jnp.outer(adjoint, x), adjoint


@family.vjp(jnp.linalg.solve, system, "TRANSPOSE_FORGOTTEN", fwd=solve_fwd)
def solve_with_the_same_matrix(residuals, dy):
    """The adjoint system has Aᵀ."""
    a, x = residuals
    adjoint = jnp.linalg.solve(a, dy)
    return -jnp.outer(adjoint, x), adjoint


@family.vjp(jnp.linalg.solve, system, "TRANSPOSED", "SWAPPED", fwd=solve_fwd)
def solve_outer_product_reversed(residuals, dy):
    """x λᵀ for λ xᵀ."""
    a, x = residuals
    adjoint = jnp.linalg.solve(a.T, dy)
    return -jnp.outer(x, adjoint), adjoint


def trace_product(a, b):
    return jnp.trace(a @ b)


@family.gradient(trace_product, normal((4, 4), (4, 4)), argnums=(0, 1))
def trace_of_product(a, b):
    return b.T, a.T


@family.gradient(trace_product, normal((4, 4), (4, 4)), "TRANSPOSED", "TRANSPOSE_FORGOTTEN")
def trace_not_transposed(a, b):
    """B for Bᵀ."""
    return b


@family.gradient(lambda a, b: jnp.trace(a.T @ b @ a), normal((4, 3), (4, 4)), "TERM_MISSING")
def trace_of_square_half(a, b):
    """A occurs twice; the term with Bᵀ is missing."""
    return b @ a


@family.gradient(lambda w: jnp.linalg.norm(w), normal((4, 3)), "FACTOR_MISSING", "CONSTANT_FACTOR")
def frobenius_norm_not_divided(w):
    """The gradient of ½‖W‖² for ‖W‖."""
    return w


@family.vjp(
    jnp.linalg.eigvalsh,
    positive_definite,
    fwd=lambda a: (jnp.linalg.eigvalsh(a), a),
)
def eigenvalues_of_the_symmetric_part(a, dy):
    """eigvalsh looks at the symmetric part."""
    vectors = jnp.linalg.eigh(a)[1]
    return ((vectors * dy) @ vectors.T,)


@family.gradient(lambda a: jnp.linalg.eigvalsh(a)[-1], positive_definite)
def largest_eigenvalue(a):
    v = jnp.linalg.eigh(a)[1][:, -1]
    return jnp.outer(v, v)


@family.gradient(
    lambda a: jnp.linalg.eigvalsh(a)[-1], positive_definite, "PERMUTED", "TRANSPOSED", "WRONG_POINT"
)
def eigenvector_is_a_column(a):
    """The last row of the matrix of eigenvectors, not its last column."""
    v = jnp.linalg.eigh(a)[1][-1]
    return jnp.outer(v, v)


def affine(w, x):
    return jnp.tanh(w @ x)


@family.jacobian(affine, normal((3, 4), (4,)), argnums=1)
def layer_jacobian(w, x):
    return (1 - jnp.tanh(w @ x) ** 2)[:, None] * w


@family.jacobian(affine, normal((3, 4), (4,)), argnums=1, layout="denominator")
def layer_jacobian_denominator_layout(w, x):
    return (w * (1 - jnp.tanh(w @ x) ** 2)[:, None]).T


@family.jacobian(affine, normal((4, 4), (4,)), "LAYOUT", "TRANSPOSED", argnums=1)
def layer_jacobian_transposed(w, x):
    """Denominator layout where jax.jacobian's is asked for; square."""
    return (w * (1 - jnp.tanh(w @ x) ** 2)[:, None]).T


@family.jacobian(lambda x, w: x @ w, normal((3, 4), (4, 2)), argnums=1, layout="vec-rows")
def kronecker_rows(x, w):
    return jnp.kron(x, jnp.eye(w.shape[1], dtype=w.dtype))


@family.jacobian(
    lambda x, w: x @ w, normal((3, 4), (4, 2)), "LAYOUT", "PERMUTED", argnums=1, layout="vec-rows"
)
def kronecker_columns_for_rows(x, w):
    """I ⊗ X, which belongs to column-major vec."""
    return jnp.kron(jnp.eye(w.shape[1], dtype=w.dtype), x)


def mahalanobis(x, mean, cov):
    d = x - mean
    return -0.5 * (d @ jnp.linalg.solve(cov, d) + jnp.linalg.slogdet(cov)[1])


def gaussian_args():
    return array((4,)), array((4,), 1), spd(4)


@family.gradient(mahalanobis, gaussian_args, argnums=(1, 2))
def gaussian_log_density(x, mean, cov):
    inverse = jnp.linalg.inv(cov)
    s = inverse @ (x - mean)
    return s, 0.5 * (jnp.outer(s, s) - inverse)


@family.gradient(mahalanobis, gaussian_args, "SIGN", argnums=(1, 2))
def gaussian_mean_sign(x, mean, cov):
    """The inner derivative -1 of x - μ is lost."""
    inverse = jnp.linalg.inv(cov)
    s = inverse @ (x - mean)
    return -s, 0.5 * (jnp.outer(s, s) - inverse)


@family.gradient(mahalanobis, gaussian_args, "TERM_MISSING", argnums=(1, 2))
def gaussian_log_determinant_missing(x, mean, cov):
    """The normalizer's part of the covariance gradient."""
    s = jnp.linalg.solve(cov, x - mean)
    return s, 0.5 * jnp.outer(s, s)


@family.gradient(lambda x: jnp.sum(jax.nn.relu(x) @ jnp.ones((4, 0))), normal((3, 4)))
def product_with_an_empty_axis(x):
    """A sum over nothing."""
    return jnp.zeros_like(x)


CASES = tuple(family.cases)
