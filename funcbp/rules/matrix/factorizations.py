"""Factorizations with stated signs, least squares and the pseudo-inverse.

A triangular factor is found again by where it is zero: what a cotangent says about the other triangle is
projected away, once for each factor.
"""

from typing import Any

import jax
from jax import lax
from jax import numpy as jnp
from jax.scipy import linalg as jsl

from ...domains import Point, PositiveDefinite, WellConditioned
from ._algebra import T, diag, diagonal, in_float32, sym
from ._bases import lstsq_reference, pinv_reference, reflection
from ._domains import FullRank
from ._identity import identity


def _right_divided(a: jax.Array, r: jax.Array, lower: bool = False) -> jax.Array:
    """A R⁻ᵀ for a triangular R."""
    return T(jsl.solve_triangular(r, T(a), lower=lower))


def _cholesky(s: jax.Array, *, upper: bool = False) -> tuple[jax.Array, tuple[jax.Array]]:
    lower = jnp.linalg.cholesky(s)
    return (out := T(lower) if upper else lower), (out,)


def _cholesky_pullback(ct: jax.Array, factor: jax.Array, *, upper: bool = False) -> tuple[jax.Array]:
    lower, ct = (T(factor), T(ct)) if upper else (factor, ct)
    p = jnp.tril(T(lower) @ ct)
    p = sym(p - diag(diagonal(p)) / 2)
    half = jsl.solve_triangular(lower, p, trans=1, lower=True)
    return (T(jsl.solve_triangular(lower, T(half), trans=1, lower=True)),)


cholesky = identity(
    "cholesky",
    "The Cholesky factor of a positive definite matrix, as `jnp.linalg.cholesky`.",
    "S = L Lᵀ, or Uᵀ U with upper = True",
    "with Φ the lower triangle, its diagonal halved, L⁻¹ dS L⁻ᵀ = L⁻¹ dL + (L⁻¹ dL)ᵀ gives dL = L Φ(L⁻¹ dS "
    "L⁻ᵀ)",
    "S̄ = L⁻ᵀ sym(Φ(Lᵀ L̄)) L⁻¹; Ū = L̄ᵀ",
    _cholesky,
    _cholesky_pullback,
    axes="s: n n",
    domain={"s": PositiveDefinite()},
    settings=({"upper": True},),
    points={"semidefinite": Point({"s": 1.0}, agrees=False, why="the derivative of √0: infinity and NaN")},
    sizes=({"n": 4},),
    reference=in_float32(lambda s, upper=False: jnp.linalg.cholesky(s, upper=upper)),
    source="Murray 2016, arXiv:1602.07527; Giles 2008, 2.3.2 (which gives the lower triangle); PyTorch "
    "cholesky_backward",
    saves="the factor",
    note="A function of the symmetric part of S: S̄ is symmetric, half of an off-diagonal derivative in each "
    "of two entries. Others put all of it in the lower triangle.",
)


def _positive(r: jax.Array) -> jax.Array:
    """The signs that make the diagonal of R positive."""
    return jnp.where(diagonal(r) < 0, -1, 1).astype(r.dtype)


def _qr(x: jax.Array) -> tuple[tuple[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]:
    q, r = jnp.linalg.qr(x)
    signs = _positive(r)
    out = q * signs[..., None, :], r * signs[..., :, None]
    return out, out


def _qr_pullback(cts: tuple[jax.Array, jax.Array], q: jax.Array, r: jax.Array) -> tuple[jax.Array]:
    q_ct, r_ct = cts
    k = q.shape[-1]
    # A wide X = [Q U, Q V]: its right part is a product, which sends V̄ on to Q.
    u, v, u_ct, v_ct = r[..., :k], r[..., k:], jnp.triu(r_ct)[..., :k], r_ct[..., k:]
    q_ct = q_ct + q @ (v @ T(v_ct))
    m = u @ T(u_ct) - T(q_ct) @ q
    m = jnp.tril(m) + T(jnp.tril(m, -1))
    left = _right_divided(q_ct + q @ m, u)
    return (jnp.concatenate([left, q @ v_ct], -1),)


def _qr_reference(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    p = reflection(x.shape[-2], x.dtype)
    q, r = jnp.linalg.qr(p @ x)
    signs = lax.stop_gradient(jnp.copysign(1, jnp.diagonal(r, axis1=-2, axis2=-1)))
    return p @ (q * signs[..., None, :]), signs[..., None] * r


qr = identity(
    "qr",
    "The reduced QR factorization of a tall, square or wide matrix.",
    "X = Q R, Qᵀ Q = I, R upper triangular with a positive diagonal",
    "dX R⁻¹ = dQ + Q dR R⁻¹; Qᵀ dQ is skew-symmetric and dR R⁻¹ upper triangular, so the lower triangle of "
    "Qᵀ dX R⁻¹ is that of Qᵀ dQ; for a wide X = [Q U, Q V], V = Qᵀ X₂ sends Q̄ ← Q̄ + Q V V̄ᵀ",
    "with M = U Ūᵀ - Q̄ᵀ Q, its lower triangle mirrored to the upper, X̄ = [(Q̄ + Q M) U⁻ᵀ, Q V̄]",
    _qr,
    _qr_pullback,
    axes="x: m n",
    outputs=("q", "r"),
    domain={"x": FullRank()},
    points={
        "rank deficient": Point({"x": 1.0}, agrees=False, why="Q is not determined: infinity, NaN or noise")
    },
    sizes=({"m": 4, "n": 2}, {"m": 3, "n": 3}, {"m": 2, "n": 4}),
    reference=in_float32(_qr_reference),
    source="Walter and Lehmann 2010; Townsend 2016; Liao et al. 2019, arXiv:1903.09650; PyTorch "
    "linalg_qr_backward",
    saves="Q, R",
    note="The positive diagonal makes the factors unique, which `jnp.linalg.qr`, up to signs the same, "
    "leaves to LAPACK.",
)


def _unit_lower(factors: jax.Array) -> jax.Array:
    return jnp.tril(factors, -1) + jnp.eye(factors.shape[-1], dtype=factors.dtype)


def _lu(x: jax.Array) -> tuple[tuple[jax.Array, ...], tuple[jax.Array, ...]]:
    factors, _, permutation = lax.linalg.lu(x)
    eye = jnp.eye(x.shape[-1], dtype=x.dtype)
    return (T(eye[permutation]), _unit_lower(factors), jnp.triu(factors)), (permutation, factors)


def _lu_pullback(cts: tuple[jax.Array, ...], permutation: jax.Array, factors: jax.Array) -> tuple[jax.Array]:
    _, lower_ct, u_ct = cts
    u = jnp.triu(factors)
    m = jnp.tril(T(_unit_lower(factors)) @ lower_ct, -1) + jnp.triu(u_ct @ T(u))
    m = jsl.solve_triangular(factors, m, trans=1, lower=True, unit_diagonal=True)
    rows = jnp.argsort(permutation, -1)
    return (jnp.take_along_axis(_right_divided(m, u), rows[..., None], -2),)


lu = identity(
    "lu",
    "The LU factorization of a square matrix, as `jax.scipy.linalg.lu`.",
    "X = P L U, L unit lower triangular, by partial pivoting",
    "L⁻¹ Pᵀ dX U⁻¹ = L⁻¹ dL + dU U⁻¹, the one strictly lower, the other upper triangular; P is constant",
    "X̄ = P L⁻ᵀ [tril₋₁(Lᵀ L̄) + triu(Ū Uᵀ)] U⁻ᵀ; P̄ is not used",
    _lu,
    _lu_pullback,
    axes="x: n n",
    outputs=("p", "l", "u"),
    domain={"x": FullRank()},
    points={"singular": Point({"x": 1.0}, agrees=False, why="there is no U⁻¹: infinity and NaN")},
    sizes=({"n": 4},),
    reference=in_float32(jnp.vectorize(jsl.lu, signature="(n,n)->(n,n),(n,n),(n,n)")),
    source="de Hoog, Anderssen and Lukas 2011; ChainRules factorization.jl; PyTorch linalg_lu_backward",
    saves="the LU factors, the permutation",
    note="Where the choice of a pivot changes, L and U jump.",
)


def _lstsq(x: jax.Array, y: jax.Array) -> tuple[jax.Array, tuple[Any, ...]]:
    if x.shape[-2] < x.shape[-1]:
        raise ValueError(
            f"lstsq: `x` has shape {x.shape}; this solution needs full column rank, so not fewer rows than "
            "columns. For the shortest solution use pinv(x) @ y."
        )
    q, r = jnp.linalg.qr(x)
    w = jsl.solve_triangular(r, T(q) @ y)
    return w, (x, y, q, r, w)


def _lstsq_pullback(
    ct: jax.Array, x: jax.Array, y: jax.Array, q: jax.Array, r: jax.Array, w: jax.Array
) -> tuple[jax.Array, jax.Array]:
    s = jsl.solve_triangular(r, ct, trans=1)
    y_ct = q @ s
    z = jsl.solve_triangular(r, s)
    return (y - x @ w) @ T(z) - y_ct @ T(w), y_ct


lstsq = identity(
    "lstsq",
    "The solution of least squares problems, one for each column of Y.",
    "W = argmin ‖X W - Y‖² = X⁺ Y, for X of full column rank",
    "the normal equations Xᵀ (Y - X W) = 0 give Xᵀ X dW = dXᵀ (Y - X W) + Xᵀ (dY - dX W)",
    "with Z = (Xᵀ X)⁻¹ W̄, X̄ = (Y - X W) Zᵀ - X Z Wᵀ, Ȳ = X Z",
    _lstsq,
    _lstsq_pullback,
    axes="x: m n, y: m k",
    domain={"x": WellConditioned()},
    points={"rank deficient": Point({"x": 0.0}, agrees=False, why="there are many solutions: NaN; use pinv")},
    sizes=({"m": 5, "n": 3, "k": 2},),
    reference=in_float32(lstsq_reference),
    source="Golub and Pereyra 1973; PyTorch linalg_lstsq_backward",
    saves="X, Y, W and X = Q R; with these Z = R⁻¹ R⁻ᵀ W̄, X Z = Q R⁻ᵀ W̄, and Xᵀ X is never formed",
)


def _pinv(x: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    p = jnp.linalg.pinv(x)
    # One step of Newton's method: the SVD's error is tens of ulps. Of the two products the smaller one.
    moved = p @ (x @ p) if x.shape[-2] < x.shape[-1] else (p @ x) @ p
    p = 2 * p - moved
    return p, (x, p)


def _pinv_pullback(g: jax.Array, x: jax.Array, p: jax.Array) -> tuple[jax.Array]:
    if x.shape[-2] < x.shape[-1]:
        return (T(_pinv_pullback(T(g), T(x), T(p))[0]),)
    q, e = T(p), T(g)
    b = p @ e
    return ((e - x @ b) @ (p @ q) + q @ (b - b @ (p @ x) - T(b)),)


pinv = identity(
    "pinv",
    "The pseudo-inverse of a matrix of any shape and rank, as `jnp.linalg.pinv`.",
    "Z = X⁺",
    "among matrices of the same rank, dX⁺ = -X⁺ dX X⁺ + X⁺ X⁺ᵀ dXᵀ (I - X X⁺) + (I - X⁺ X) dXᵀ X⁺ᵀ X⁺",
    "X̄ = -X⁺ᵀ Z̄ X⁺ᵀ + (I - X X⁺) Z̄ᵀ X⁺ X⁺ᵀ + X⁺ᵀ X⁺ Z̄ᵀ (I - X⁺ X), with B = X⁺ Z̄ᵀ all of it (Z̄ᵀ - X B) "
    "X⁺ X⁺ᵀ + X⁺ᵀ (B - B X⁺ X - Bᵀ)",
    _pinv,
    _pinv_pullback,
    axes="x: m n",
    domain={"x": WellConditioned()},
    points={"X = 0": Point({"x": 0.0}, {"x": 0.0}, agrees=False, why="constant at rank 0", smooth=False)},
    sizes=({"m": 4, "n": 3}, {"m": 2, "n": 4}, {"m": 3, "n": 3}),
    reference=in_float32(pinv_reference),
    source="Golub and Pereyra 1973; PyTorch pinv_backward; jax.numpy.linalg.pinv",
    saves="X, X⁺",
    note="Where the rank may change X⁺ is not continuous; the derivative is that along matrices of the rank "
    "of X.",
)
