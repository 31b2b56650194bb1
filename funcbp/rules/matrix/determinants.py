"""Determinants and their logarithms, right also where the matrix is singular.

Numbers in brackets are equations of the Matrix Cookbook (Petersen and Pedersen, 15 November 2012).
"""

import functools
from typing import Any

import jax
import numpy as np
from jax import numpy as jnp
from jax.scipy import linalg as jsl

from ...domains import Point, PositiveDefinite, Uniform, WellConditioned
from ._algebra import T, derived, diag, diagonal, dot, identity_like, in_float32, inner, sym
from ._bases import in_another_basis
from ._domains import FullRank, eye
from ._identity import identity, scalar


def _signed_factors(x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """LU factors, pivots, and the sign of the permutation."""
    lu, pivots = jsl.lu_factor(x)
    swaps = jnp.sum(pivots != jnp.arange(x.shape[-1], dtype=pivots.dtype), -1)
    return lu, pivots, jnp.where(swaps % 2 == 0, 1, -1).astype(x.dtype)


def _expanded(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Determinant and cofactors of at most three rows, written out: no division, and right at every rank."""
    n = x.shape[-1]
    if n == 3:
        # Counting around, C_ij = x_(i+1, j+1) x_(i+2, j+2) - x_(i+1, j+2) x_(i+2, j+1): number by number,
        # which compiles to one loop.
        e = [[x[..., i % 3, j % 3] for j in range(5)] for i in range(5)]
        rows = [
            [e[i + 1][j + 1] * e[i + 2][j + 2] - e[i + 1][j + 2] * e[i + 2][j + 1] for j in range(3)]
            for i in range(3)
        ]
        cofactors = jnp.stack([jnp.stack(row, -1) for row in rows], -2)
    elif n == 2:
        cofactors = jnp.flip(x, (-2, -1)) * np.array([[1, -1], [-1, 1]], x.dtype)
    else:
        cofactors = jnp.ones_like(x)
    value = dot(x[..., 0, :], cofactors[..., 0, :]) if n else jnp.ones(x.shape[:-2], x.dtype)
    return value, cofactors


def _factored(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The same by one LU factorization."""
    lu, pivots, sign = _signed_factors(x)
    u = diagonal(lu)
    # det(X) X⁻ᵀ with every zero on U's diagonal a tiny number: det and inverse have it as factor and divisor,
    # so that it cancels, and what is left is the adjugate. What is only as large as that number is 0.
    tiny = float(jnp.finfo(x.dtype).tiny) ** 0.3
    size = jnp.max(jnp.abs(u), -1, keepdims=True, initial=0)
    v = jnp.where(u == 0, tiny * jnp.where(size == 0, 1, size), u)
    inverse = jsl.lu_solve((lu + diag(v - u), pivots), identity_like(x), trans=1)
    cofactors = (sign * jnp.prod(v, -1))[..., None, None] * inverse
    singular = jnp.any(u == 0, -1)[..., None, None]
    noise = singular & (jnp.abs(cofactors) < tiny**0.75 * size[..., None] ** max(x.shape[-1] - 1, 0))
    # Of the zero matrix nothing is left to compare with.
    noise = noise | (size == 0)[..., None] & (x.shape[-1] > 1)
    return sign * jnp.prod(u, -1), jnp.where(noise, 0, cofactors)


def _cofactors_tangent(dx: jax.Array, x: jax.Array) -> jax.Array:
    # In the singular bases, with σ_ij the product of all singular values but i and j, and H = Uᵀ dX V,
    # the cofactors move by Σ_j σ_ij H_jj on the diagonal and by -σ_ij H_ji beside it.
    u, s, vt = jnp.linalg.svd(x, full_matrices=False)
    n = x.shape[-1]
    same = np.eye(n, dtype=bool)
    others = ~(same[:, None, :] | same[None, :, :])
    sigma = jnp.prod(jnp.where(others, s[..., None, None, :], 1), -1) * ~same
    h = T(u) @ dx @ T(vt)
    m = diag(jnp.sum(sigma * diagonal(h)[..., None, :], -1)) - sigma * T(h)
    return (jnp.linalg.det(u) * jnp.linalg.det(vt))[..., None, None] * (u @ m @ vt)


def _det_and_cofactors_tangent(dx: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    return inner(det_and_cofactors(x)[1], dx), _cofactors_tangent(dx, x)


def det_and_cofactors(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The determinant and its gradient, with exact derivatives of both at every rank."""
    if x.shape[-1] <= 3:
        return _expanded(x)
    return derived(_factored(x), x, _det_and_cofactors_tangent)


def _laplace(x: jax.Array) -> jax.Array:
    """The determinant by expansion along the first row."""
    if x.shape[-1] == 0:
        return jnp.ones(x.shape[:-2], x.dtype)
    minors = [jnp.concatenate([x[..., 1:, :j], x[..., 1:, j + 1 :]], -1) for j in range(x.shape[-1])]
    return sum((-1) ** j * x[..., 0, j] * _laplace(minor) for j, minor in enumerate(minors))


def _cornered(corner: float, *rows: tuple[float, ...]) -> Any:
    """Three rows, with a diagonal of `corner` before them where the matrix has more."""

    def matrix(shape: tuple[int, ...]) -> np.ndarray:
        x = corner * np.eye(shape[-1])
        x[-3:, -3:] = rows
        return np.broadcast_to(x, shape)

    return matrix


_NO_COLUMN = _cornered(1, (0, 1, 2), (0, 3, 1), (0, 1, 4))
_RANK_2 = _cornered(1, (1, 2, 3), (4, 5, 6), (7, 8, 9))

det = scalar(
    "det",
    "The determinant.",
    "C = det X",
    "dC = adj(X)ᵀ : dX (Jacobi), with the adjugate adj(X) = det(X) X⁻¹ where X is invertible",
    "∂X = adj(X)ᵀ, the cofactors",
    lambda x: ((found := det_and_cofactors(x))[0], (found[1],)),
    lambda cofactors: (cofactors,),
    axes="x: n n",
    points={
        "rank n - 1": Point({"x": _RANK_2}, {"x": _cornered(0, (-3, 6, -3), (6, -12, 6), (-3, 6, -3))}),
        "rank n - 1, a column of zeros": Point(
            {"x": _NO_COLUMN},
            {"x": _cornered(0, (11, 0, 0), (-2, 0, 0), (-5, 0, 0))},
        ),
        "rank 1": Point({"x": 1.0}, {"x": 0.0}),
        "X = I": Point({"x": eye}, {"x": eye}),
    },
    sizes=({"n": 3}, {"n": 4}),
    reference=_laplace,
    source="Cookbook (46)-(50), (62); Giles 2008, 2.2.4",
    saves="the cofactors",
    note="By expansion up to n = 3, else from one LU factorization; at every rank: the cofactors at rank "
    "n - 1, zero below. det(X) X⁻ᵀ would be 0 · ∞. The second derivative is exact at every rank, too.",
)


def _slogdet(x: jax.Array) -> tuple[tuple[jax.Array, jax.Array], tuple[Any, ...]]:
    lu, pivots, sign = _signed_factors(x)
    u = diagonal(lu)
    sign = sign * jnp.prod(jnp.sign(u), -1)
    return (sign, jnp.sum(jnp.log(jnp.where(u < 0, -u, u)), -1)), (lu, pivots)


def _slogdet_pullback(ct: tuple[jax.Array, jax.Array], lu: jax.Array, pivots: jax.Array) -> tuple[jax.Array]:
    # C̄ goes in before the division: C̄ = 0 gives 0 without asking whether X⁻¹ overflows.
    return (jsl.lu_solve((lu, pivots), ct[1][..., None, None] * identity_like(lu), trans=1),)


slogdet = identity(
    "slogdet",
    "Sign of the determinant and logarithm of its absolute value, as `jnp.linalg.slogdet`.",
    "s = sign det X, C = log |det X|",
    "ds = 0, dC = X⁻ᵀ : dX",
    "X̄ = C̄ X⁻ᵀ; s̄ is not used",
    _slogdet,
    _slogdet_pullback,
    axes="x: n n",
    outputs=("sign", "logabsdet"),
    domain={"x": FullRank()},
    points={"singular": Point({"x": 0.0}, agrees=False, why="log 0: minus infinity, and NaN")},
    sizes=({"n": 4},),
    reference=in_float32(lambda x: tuple(jnp.linalg.slogdet(x))),
    source="Cookbook (43), (57); Giles 2008, 2.2.4; ChainRules dense.jl",
    saves="the LU factors",
)


def _logdet_positive_definite(s: jax.Array) -> tuple[jax.Array, tuple[Any, ...]]:
    cholesky = jnp.linalg.cholesky(s)
    beside, roots = jnp.tril(cholesky, -1), diagonal(cholesky)
    # Cholesky's diagonal is a root, rounded: to square it again, and to divide by it twice, is most of the
    # error of S⁻¹. What it is the root of is had from S for n² operations; below 0 is only its rounding.
    d = diagonal(s) - jnp.sum(jnp.square(beside), -1)
    d = jnp.where(d > 0, d, jnp.square(roots))
    return jnp.sum(jnp.log(d), -1), (beside * (roots / d)[..., None, :], d)


def _symmetric_inverse(lower: jax.Array, d: jax.Array) -> tuple[jax.Array]:
    solve = functools.partial(jsl.solve_triangular, lower, lower=True, unit_diagonal=True)
    return (sym(solve(solve(identity_like(lower)) / d[..., None], trans=1)),)


logdet_positive_definite = scalar(
    "logdet_positive_definite",
    "The logarithm of the determinant of a positive definite matrix, by its Cholesky factor.",
    "C = log det S = Σ log d, S = L Diag(d) Lᵀ with ones on the diagonal of L",
    "dC = S⁻¹ : dS",
    "∂S = S⁻¹ = L⁻ᵀ Diag(d)⁻¹ L⁻¹",
    _logdet_positive_definite,
    _symmetric_inverse,
    axes="s: n n",
    domain={"s": PositiveDefinite()},
    points={
        "singular": Point({"s": 0.0}, agrees=False, why="log 0: NaN, as of all that is not positive definite")
    },
    sizes=({"n": 4},),
    reference=in_float32(lambda s: jnp.linalg.slogdet((s + T(s)) / 2)[1]),
    source="Cookbook (57), (141)",
    saves="L, d",
    note="A function of the symmetric part of S, so that ∂S is symmetric: the gradient among symmetric "
    "matrices. That by the free entries, 2 S⁻¹ - S⁻¹ ⊙ I, has `symmetric_from_triangle` before it.",
)


def _logdet_gram(x: jax.Array) -> tuple[jax.Array, tuple[Any, ...]]:
    if x.shape[-2] < x.shape[-1]:
        raise ValueError(
            f"logdet_gram: `x` has shape {x.shape}; it must not have fewer rows than columns, or Xᵀ X is "
            f"singular."
        )
    q, r = jnp.linalg.qr(x)
    return jnp.sum(jnp.log(jnp.square(diagonal(r))), -1), (q, r)


logdet_gram = scalar(
    "logdet_gram",
    "The logarithm of the determinant of a Gram matrix, by a QR factorization.",
    "C = log det Xᵀ X = 2 Σ log |R_ii|, X = Q R",
    "dC = tr (Xᵀ X)⁻¹ (dXᵀ X + Xᵀ dX) = 2 (X⁺)ᵀ : dX",
    "∂X = 2 X (Xᵀ X)⁻¹ = 2 (X⁺)ᵀ = 2 Q R⁻ᵀ",
    _logdet_gram,
    lambda q, r: (2 * T(jsl.solve_triangular(r, T(q))),),
    axes="x: m n",
    domain={"x": WellConditioned()},
    points={"rank deficient": Point({"x": 0.0}, agrees=False, why="log 0: minus infinity, and NaN")},
    sizes=({"m": 5, "n": 3},),
    reference=in_float32(lambda x: jnp.linalg.slogdet(T(z := in_another_basis(x)) @ z)[1]),
    source="Cookbook (55), (56)",
    saves="Q, R",
    note="Xᵀ X is never formed, which would square the condition number.",
)


def _det_quadratic(x: jax.Array, a: jax.Array) -> tuple[jax.Array, tuple[Any, ...]]:
    p = a @ x
    value, cofactors = det_and_cofactors(T(x) @ p)
    return value, (x, a, p, cofactors)


def _det_quadratic_gradients(
    x: jax.Array, a: jax.Array, p: jax.Array, cofactors: jax.Array
) -> tuple[jax.Array, ...]:
    q = x @ cofactors
    return p @ T(cofactors) + T(a) @ q, q @ T(x)


det_quadratic = scalar(
    "det_quadratic",
    "The determinant of a congruence, of any square matrix A.",
    "C = det Xᵀ A X",
    "with the cofactors F of Xᵀ A X, dC = F : (dXᵀ A X + Xᵀ dA X + Xᵀ A dX)",
    "∂X = A X Fᵀ + Aᵀ X F, ∂A = X F Xᵀ",
    _det_quadratic,
    _det_quadratic_gradients,
    axes="x: n k, a: n n",
    sizes=({"n": 4, "k": 2},),
    points={"X = 0": Point({"x": 0.0}, {"x": 0.0, "a": 0.0})},
    reference=lambda x, a: _laplace(jnp.einsum("...ni,...nm,...mj->...ij", x, a, x)),
    source="Cookbook (51)-(54)",
    saves="X, A, A X, F",
    note="F = C (Xᵀ A X)⁻ᵀ where there is an inverse; right also where there is none.",
)


def _updated(d: jax.Array, u: jax.Array) -> tuple[jax.Array, tuple[Any, ...]]:
    v = u / d[..., None]
    lower = jnp.linalg.cholesky(jnp.eye(u.shape[-1], dtype=u.dtype) + T(u) @ v)
    return jnp.sum(jnp.log(d), -1) + 2 * jnp.sum(jnp.log(diagonal(lower)), -1), (d, u, lower)


def _updated_gradients(d: jax.Array, u: jax.Array, lower: jax.Array) -> tuple[jax.Array, ...]:
    v = u / d[..., None]
    w = T(jsl.cho_solve((lower, True), T(v)))
    return 1 / d - dot(w, v), 2 * w


logdet_low_rank_update = scalar(
    "logdet_low_rank_update",
    "The logarithm of the determinant of a diagonal plus a low-rank matrix, by the determinant lemma.",
    "C = log det(Diag(d) + U Uᵀ) = Σ log d + log det K, K = I + Uᵀ V, V = Diag(d)⁻¹ U",
    "with M = Diag(d) + U Uᵀ, dC = M⁻¹ : (Diag(dd) + dU Uᵀ + U dUᵀ), and M⁻¹ U = V K⁻¹",
    "∂d = 1 / d - (V K⁻¹ ⊙ V) 1, ∂U = 2 V K⁻¹",
    _updated,
    _updated_gradients,
    axes="d: n, u: n k",
    domain={"d": Uniform(0.5, 2.0)},
    sizes=({"n": 4, "k": 2},),
    points={"U = 0": Point({"d": 2.0, "u": 0.0}, {"d": 0.5, "u": 0.0})},
    reference=in_float32(lambda d, u: jnp.linalg.slogdet(diag(d) + u @ T(u))[1]),
    source="Cookbook (24), (57); Harville, Matrix Algebra, 18.1",
    saves="d, U, the Cholesky factor of K",
    note="O(n k²) operations and no n×n matrix. Where U Uᵀ is much larger than d, digits of ∂d cancel.",
)
