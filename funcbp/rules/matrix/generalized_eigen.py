"""Eigenvalues and eigenvectors of a pair of symmetric matrices: A v = λ B v.

B is positive definite, the eigenvectors are orthonormal in it, and C = L⁻¹ A L⁻ᵀ with B = L Lᵀ has the same
eigenvalues.
"""

import jax
from jax import lax
from jax import numpy as jnp
from jax.scipy import linalg as jsl

from ...domains import Point
from ._algebra import T, diag, diagonal, in_float32, sym
from ._bases import eigh_reference
from ._domains import NearIdentity, SeparateEigenvalues, eye
from ._identity import identity
from ._signs import with_positive_largest


def _decomposed(a: jax.Array, b: jax.Array) -> tuple[jax.Array, jax.Array]:
    lower = jnp.linalg.cholesky(b)
    half = jsl.solve_triangular(lower, sym(a), lower=True)
    w, u = jnp.linalg.eigh(jsl.solve_triangular(lower, T(half), lower=True))
    return w, jsl.solve_triangular(lower, u, trans=1, lower=True)


def _values(a: jax.Array, b: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    w, v = _decomposed(a, b)
    return w, (w, v)


def _reference(a: jax.Array, b: jax.Array) -> tuple[jax.Array, jax.Array]:
    """By the inverse of the symmetric root of B instead of its Cholesky factor."""
    d, q = eigh_reference(b)
    root = (q / jnp.sqrt(d)[..., None, :]) @ T(q)
    w, u = eigh_reference(root @ sym(a) @ root)
    v = root @ u
    largest = jnp.take_along_axis(v, jnp.argmax(jnp.abs(v), -2, keepdims=True), -2)
    return w, v * lax.stop_gradient(jnp.copysign(1, largest))


eigvalsh_generalized = identity(
    "eigvalsh_generalized",
    "The generalized eigenvalues of a symmetric and a positive definite matrix, ascending.",
    "λ, with A V = B V Diag(λ), Vᵀ B V = I",
    "dλ_i = v_iᵀ (dA - λ_i dB) v_i",
    "Ā = V Diag(λ̄) Vᵀ, B̄ = -V Diag(λ ⊙ λ̄) Vᵀ",
    _values,
    lambda ct, w, v: ((v * ct[..., None, :]) @ T(v), -(v * (w * ct)[..., None, :]) @ T(v)),
    axes="a: n n, b: n n",
    domain={"a": SeparateEigenvalues(), "b": NearIdentity()},
    points={
        "all eigenvalues equal": Point(
            {"a": eye, "b": eye},
            {"a": eye, "b": lambda shape: -eye(shape)},
            agrees=False,
            why="as by any other eigenvectors, for their sum",
            smooth=False,
        )
    },
    sizes=({"n": 3},),
    reference=in_float32(lambda a, b: _reference(a, b)[0]),
    source="from `eigvalsh`; van der Aa, ter Morsche and Mattheij 2007; scipy.linalg.eigh(a, b)",
    saves="λ, V",
    note="A function of the symmetric parts of A and B, so that Ā and B̄ are symmetric. Where eigenvalues are "
    "equal, as for `eigvalsh`. If B is not positive definite all is NaN.",
)


def _vectors(a: jax.Array, b: jax.Array) -> tuple[tuple[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]:
    w, v = _decomposed(a, b)
    v = with_positive_largest(v)
    return (w, v), (w, v)


def _vectors_pullback(
    cts: tuple[jax.Array, jax.Array], w: jax.Array, v: jax.Array
) -> tuple[jax.Array, jax.Array]:
    w_ct, v_ct = cts
    m = T(v) @ v_ct
    gap = w[..., None, :] - w[..., :, None]
    tie = gap == 0
    inverse = jnp.where(tie, 0, 1 / jnp.where(tie, 1, gap))
    # V̄ = 0 says that only the eigenvalues are used: they have a derivative where they are equal.
    used = jnp.any(v_ct != 0, (-1, -2), keepdims=True)
    inverse = jnp.where(tie & ~jnp.eye(w.shape[-1], dtype=bool) & used, jnp.nan, inverse)
    k = diag(w_ct) + inverse * m
    of_b = k * w[..., None, :] + diag(diagonal(m)) / 2
    return v @ sym(k) @ T(v), -(v @ sym(of_b) @ T(v))


eigh_generalized = identity(
    "eigh_generalized",
    "Generalized eigenvalues, ascending, and eigenvectors of a symmetric and a positive definite matrix.",
    "λ, V, with A V = B V Diag(λ), Vᵀ B V = I",
    "with F_ij = 1 / (λ_j - λ_i) beside the diagonal, 0 on it, dλ_i = v_iᵀ (dA - λ_i dB) v_i and dV = V C, "
    "C_ij = F_ij v_iᵀ (dA - λ_j dB) v_j beside the diagonal, C_ii = -½ v_iᵀ dB v_i from d(Vᵀ B V) = 0",
    "with M = Vᵀ V̄ and K = Diag(λ̄) + F ⊙ M, Ā = V sym(K) Vᵀ, B̄ = -V sym(K Diag(λ) + ½ Diag(diag M)) Vᵀ",
    _vectors,
    _vectors_pullback,
    axes="a: n n, b: n n",
    outputs=("w", "v"),
    domain={"a": SeparateEigenvalues(), "b": NearIdentity()},
    points={
        "eigenvalues equal": Point(
            {"a": eye, "b": eye}, agrees=False, why="eigenvectors are not continuous there: NaN, as in JAX"
        )
    },
    sizes=({"n": 3},),
    reference=in_float32(_reference),
    source="from `eigh`; van der Aa, ter Morsche and Mattheij 2007; scipy.linalg.eigh(a, b)",
    saves="λ, V",
    note="A function of the symmetric parts of A and B, so that Ā and B̄ are symmetric. Columns have length 1 "
    "in B, not in I; their sign is free: the entry of largest magnitude is positive. Where eigenvalues are "
    "equal the result is NaN as soon as V̄ is not 0. If B is not positive definite all is NaN.",
)
