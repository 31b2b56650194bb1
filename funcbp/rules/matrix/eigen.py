"""Eigenvalues and eigenvectors of symmetric matrices.

Numbers in brackets are equations of the Matrix Cookbook (Petersen and Pedersen, 15 November 2012).
"""

from typing import Any

import jax
from jax import lax
from jax import numpy as jnp

from ...domains import Point
from ._algebra import T, diag, in_float32, sym
from ._bases import eigh_reference
from ._domains import SeparateEigenvalues, eye
from ._identity import identity
from ._signs import with_positive_largest


def _eigvalsh(s: jax.Array) -> tuple[jax.Array, tuple[jax.Array]]:
    w, v = jnp.linalg.eigh(s)
    return w, (v,)


eigvalsh = identity(
    "eigvalsh",
    "The eigenvalues of a symmetric matrix, ascending.",
    "λ, with S = V Diag(λ) Vᵀ",
    "dλ_i = v_iᵀ dS v_i (Hellmann and Feynman)",
    "S̄ = V Diag(λ̄) Vᵀ",
    _eigvalsh,
    lambda ct, v: ((v * ct[..., None, :]) @ T(v),),
    axes="s: n n",
    domain={"s": SeparateEigenvalues()},
    points={
        "all eigenvalues equal": Point(
            {"s": eye},
            {"s": eye},
            agrees=False,
            why="as by any other eigenvectors, for their sum",
            smooth=False,
        )
    },
    sizes=({"n": 3},),
    reference=in_float32(lambda s: eigh_reference(s)[0]),
    source="Cookbook (65)-(67); Giles 2008, 3.1",
    saves="V",
    note="A function of the symmetric part of S, so that S̄ is symmetric. Where eigenvalues are equal this "
    "is right for functions that treat them alike (their sum), and a subgradient of the convex ones "
    "(the largest).",
)


def _eigh(s: jax.Array, *, ties: str = "nan") -> tuple[tuple[jax.Array, jax.Array], tuple[Any, ...]]:
    if ties not in ("nan", "mask"):
        raise ValueError(f"eigh: static option `ties` must be 'nan' or 'mask', got {ties!r}.")
    w, v = jnp.linalg.eigh(s)
    v = with_positive_largest(v)
    return (w, v), (w, v)


def _eigh_pullback(
    cts: tuple[jax.Array, jax.Array], w: jax.Array, v: jax.Array, *, ties: str = "nan"
) -> tuple[jax.Array]:
    w_ct, v_ct = cts
    gap = w[..., None, :] - w[..., :, None]
    tie = gap == 0
    inverse = jnp.where(tie, 0, 1 / jnp.where(tie, 1, gap))
    if ties == "nan":
        # V̄ = 0 says that only the eigenvalues are used: they have a derivative where they are equal.
        used = jnp.any(v_ct != 0, (-1, -2), keepdims=True)
        off = ~jnp.eye(w.shape[-1], dtype=bool)
        inverse = jnp.where(tie & off & used, jnp.nan, inverse)
    return (v @ (diag(w_ct) + sym(inverse * (T(v) @ v_ct))) @ T(v),)


def _eigh_reference(s: jax.Array, ties: str = "nan") -> tuple[jax.Array, jax.Array]:
    del ties
    w, v = eigh_reference(s)
    largest = jnp.take_along_axis(v, jnp.argmax(jnp.abs(v), -2, keepdims=True), -2)
    return w, v * lax.stop_gradient(jnp.copysign(1, largest))


eigh = identity(
    "eigh",
    "Eigenvalues, ascending, and eigenvectors of a symmetric matrix.",
    "λ, V, with S = V Diag(λ) Vᵀ, Vᵀ V = I",
    "dλ = diag(Vᵀ dS V) and dV = V (F ⊙ Vᵀ dS V), with F_ij = 1 / (λ_j - λ_i) beside the diagonal, 0 on it",
    "S̄ = V (Diag(λ̄) + sym(F ⊙ Vᵀ V̄)) Vᵀ",
    _eigh,
    _eigh_pullback,
    axes="s: n n",
    outputs=("w", "v"),
    domain={"s": SeparateEigenvalues()},
    points={
        "eigenvalues equal": Point(
            {"s": eye}, agrees=False, why="eigenvectors are not continuous there: NaN, as in JAX; not a mask"
        )
    },
    settings=({"ties": "mask"},),
    sizes=({"n": 3},),
    reference=in_float32(_eigh_reference),
    source="Cookbook (67), (68); Giles 2008, 3.1; ChainRules symmetric.jl",
    saves="λ, V",
    note="A function of the symmetric part of S, so that S̄ is symmetric. The sign of an eigenvector is "
    "free: its entry of largest magnitude is positive, else the factors are those of `jnp.linalg.eigh`. "
    "Where eigenvalues are equal, ties='nan' gives NaN as soon as V̄ is not 0; ties='mask' takes F = 0 "
    "there. That is right only for what depends on a whole eigenspace (its projection) and treats its "
    "eigenvalues alike; a function V Diag(f(λ)) Vᵀ is no such thing, and silently wrong: see "
    "`expm_symmetric`.",
)
