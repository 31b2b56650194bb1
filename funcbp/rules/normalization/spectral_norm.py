"""Spectral normalization (Miyato et al. 2018, arXiv:1802.05957): a matrix over its largest singular value."""

import jax
from jax import numpy as jnp
from jaxtyping import Array, Float

from ..._numerics import upcast
from ..._rule import Rule
from ...domains import Point, WellConditioned
from .._checks import check_cotangent

W = Float[Array, "*batch in out"]
U = Float[Array, "*batch in"]
V = Float[Array, "*batch out"]
S = Float[Array, "*batch 1 1"]


def spectral_norm_fwd(w: W) -> tuple[W, tuple[W, U, V, S]]:
    """A matrix over its largest singular value, which is computed exactly, by an SVD.

    Forward, with W = U Σ Vᵀ and u, σ, v the first column, number, column:

        y = W/σ

    Backward:

        w̄ = (ȳ - ⟨ȳ, y⟩ u vᵀ)/σ

    Derivation. dσ = uᵀ dW v, because duᵀu = dvᵀv = 0; so dy = dW/σ - y (uᵀ dW v)/σ, and ⟨ȳ, y⟩ u vᵀ is the
    transpose of the second term.

    Where the largest singular value is repeated there is no gradient; u vᵀ of the pair that the SVD gives is
    one of the subgradients (autodiff of `jnp.linalg.norm` averages over the pairs). At W = 0: y = 0 and w̄ = 0
    (autodiff: NaN).

    Saves u, v, σ, and W (alive anyway).
    """
    left, values, right = jnp.linalg.svd(upcast(w), full_matrices=False)
    u, v, sigma = left[..., 0], right[..., 0, :], values[..., :1, None]
    return (upcast(w) * _inverse(sigma)).astype(w.dtype), (w, u, v, sigma)


def spectral_norm_bwd(residuals: tuple[W, U, V, S], y_ct: W) -> tuple[W]:
    """w̄ = (ȳ - ⟨ȳ, y⟩ u vᵀ)/σ."""
    w, u, v, sigma = residuals
    check_cotangent("spectral_norm", y_ct, w.shape, w.dtype)
    ct, inverse = upcast(y_ct), _inverse(sigma)
    along = jnp.sum(ct * upcast(w), axis=(-2, -1), keepdims=True) * inverse
    return ((inverse * (ct - along * u[..., :, None] * v[..., None, :])).astype(w.dtype),)


def _inverse(sigma: jax.Array) -> jax.Array:
    """1/σ, and 0 at 0."""
    zero = sigma == 0
    return jnp.where(zero, 0, 1 / jnp.where(zero, 1, sigma))


def _spectral_norm_reference(w: W) -> W:
    return w / jnp.linalg.norm(upcast(w), ord=2, axis=(-2, -1), keepdims=True).astype(w.dtype)


spectral_norm = Rule(
    spectral_norm_fwd,
    spectral_norm_bwd,
    reference=_spectral_norm_reference,
    domain={"w": WellConditioned()},
    points={
        "rank one": Point({"w": 3.0}),
        "zero matrix": Point(
            {"w": 0.0}, {"w": 0.0}, agrees=False, why="W/σ is 0/0: 0 here, NaN in JAX", smooth=False
        ),
    },
    sizes=({"batch": (2,), "in": 3, "out": 4}, {"batch": (), "in": 4, "out": 2}, {"in": 1, "out": 1}),
    formula="y = W/σ₁; w̄ = (ȳ - ⟨ȳ, y⟩ u₁v₁ᵀ)/σ₁",
    saves="W, u₁, v₁, σ₁",
)
