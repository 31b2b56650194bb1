"""The log marginal likelihood of a Gaussian process (Rasmussen, Williams 2006, sections 2.2 and 5.4.1)."""

import math
from typing import Any

import jax
from jax import lax
from jax import numpy as jnp
from jax.scipy import stats
from jax.scipy.linalg import cho_solve
from jaxtyping import Array, Float

from ..._numerics import upcast
from ..._rule import Rule
from ...domains import Normal, Point, Uniform
from .._checks import check_cotangent
from ..matrix._algebra import in_float32

X = Float[Array, "points features"]
Y = Float[Array, " points"]
Scalar = Float[Array, ""]
Matrix = Float[Array, "points points"]
Arguments = tuple[X, Y, Scalar, Scalar, Scalar]


def gaussian_process_log_likelihood_fwd(
    x: X, y: Y, amplitude: Scalar, length_scale: Scalar, noise: Scalar
) -> tuple[Scalar, tuple[Arguments, Matrix, Y]]:
    """log p(y | x) under a Gaussian process with the squared exponential kernel and noise; the mean is 0.

    Forward, with D_ij = ‖x_i - x_j‖² / l², F = a² e^(-D/2), K = F + s² I = L Lᵀ and α = K⁻¹ y:

        ℓ = -½ yᵀα - Σ log L_ii - n/2 log 2π

    Backward, with G = ½ (α αᵀ - K⁻¹) ℓ̄ and H = G ⊙ F:

        ȳ = -α ℓ̄      x̄_i = -2/l² Σ_j H_ij (x_i - x_j)
        ā = 2/a Σ H      l̄ = 1/l Σ H ⊙ D      s̄ = 2 s tr G

    Derivation. dℓ = G : dK - αᵀ dy: d(yᵀK⁻¹y) = -αᵀ dK α + 2 αᵀ dy and d log det K = tr(K⁻¹ dK) (Matrix
    Cookbook 40, 43). A hyperparameter θ moves K by ∂K/∂θ: θ̄ = G : ∂K/∂θ. One Cholesky factorization serves
    value and gradient; K⁻¹ comes from it by n solves, and that is all that is cubic in n. Autodiff pulls back
    through the factorization (two triangular solves with n right sides, and products) and keeps the kernel's
    intermediates.

    Amplitude a, length scale l and noise s are positive numbers. K must be positive definite (s > 0, or all
    points apart); otherwise the result is NaN.

    Saves the arguments, α and L, one matrix; D and F are recomputed.
    """
    gap, kernel = _kernel(x, amplitude, length_scale)
    del gap
    n = x.shape[0]
    factor = lax.linalg.cholesky(kernel + upcast(noise) ** 2 * jnp.eye(n, dtype=kernel.dtype))
    alpha = cho_solve((factor, True), upcast(y))
    logdet = jnp.sum(jnp.log(jnp.diagonal(factor)))
    value = -jnp.sum(upcast(y) * alpha) / 2 - logdet - n / 2 * math.log(2 * math.pi)
    return value.astype(x.dtype), ((x, y, amplitude, length_scale, noise), factor, alpha)


def _differences(x: X) -> jax.Array:
    return upcast(x)[:, None] - upcast(x)[None]


def _kernel(x: X, amplitude: Scalar, length_scale: Scalar) -> tuple[Matrix, Matrix]:
    """D and F."""
    gap = jnp.sum((_differences(x) / upcast(length_scale)) ** 2, -1)
    return gap, upcast(amplitude) ** 2 * jnp.exp(-gap / 2)


def gaussian_process_log_likelihood_bwd(
    residuals: tuple[Arguments, Matrix, Y], value_ct: Scalar
) -> tuple[jax.Array, ...]:
    """ȳ = -α ℓ̄, θ̄ = G : ∂K/∂θ with G = ½ (α αᵀ - K⁻¹) ℓ̄."""
    (x, _, amplitude, length_scale, noise), factor, alpha = residuals
    check_cotangent("gaussian_process_log_likelihood", value_ct, (), x.dtype)
    ct, a, l, s = (upcast(z) for z in (value_ct, amplitude, length_scale, noise))  # noqa: E741
    gap, kernel = _kernel(x, amplitude, length_scale)
    inverse = cho_solve((factor, True), jnp.eye(len(x), dtype=factor.dtype))
    g = (alpha[:, None] * alpha - inverse) / 2 * ct
    h = g * kernel
    x_ct = -2 / l**2 * jnp.sum(h[..., None] * _differences(x), 1)
    hyper = (2 / a * jnp.sum(h), jnp.sum(h * gap) / l, 2 * s * jnp.trace(g))
    found = (x_ct, -alpha * ct, *hyper)
    return tuple(z.astype(x.dtype) for z in found)


def _reference(x: X, y: Y, amplitude: Scalar, length_scale: Scalar, noise: Scalar) -> Any:
    square = jnp.sum(x[:, None] ** 2 + x[None] ** 2 - 2 * x[:, None] * x[None], -1)
    cov = amplitude**2 * jnp.exp(-square / (2 * length_scale**2)) + noise**2 * jnp.eye(len(x), dtype=x.dtype)
    return stats.multivariate_normal.logpdf(y, jnp.zeros_like(y), cov)


gaussian_process_log_likelihood = Rule(
    gaussian_process_log_likelihood_fwd,
    gaussian_process_log_likelihood_bwd,
    reference=in_float32(_reference),
    domain={
        "x": Normal(),
        "y": Normal(),
        "amplitude": Uniform(0.5, 1.5),
        "length_scale": Uniform(0.5, 1.5),
        "noise": Uniform(0.3, 1.0),
    },
    points={
        "all points the same": Point({"x": 1.0}, {"x": 0.0, "length_scale": 0.0}),
        "nothing observed": Point({"y": 0.0}, {"y": 0.0}),
    },
    sizes=({"points": 4, "features": 2},),
    formula="ℓ = log N(y; 0, K); θ̄ = G : ∂K/∂θ, G = ½ (α αᵀ - K⁻¹), α = K⁻¹ y",
    saves="x, y, θ, L, α",
)
