"""The multivariate normal distribution and mixtures of normal distributions.

Parameters are shared by all examples, so that their cotangents are sums over them.
"""

import math

import jax
import numpy as np
from jax import lax
from jax import numpy as jnp
from jax.scipy import stats
from jax.scipy.linalg import cho_solve, solve_triangular
from jaxtyping import Array, Float

from ... import _numerics
from ..._numerics import upcast
from ..._rule import Rule
from ...domains import Normal, Point, Positive, PositiveDefinite, Triangular
from .._checks import check_cotangent
from .._specs import Spec
from ..matrix._algebra import in_float32

X = Float[Array, "*batch n"]
Mean = Float[Array, " n"]
Matrix = Float[Array, "n n"]
Values = Float[Array, "*batch"]
Rows = Float[Array, "batch n"]


def _rows(x: jax.Array) -> jax.Array:
    """All leading axes in one."""
    return x.reshape(math.prod(x.shape[:-1]), x.shape[-1])


def _whitened(x: X, mean: Mean, factor: Matrix) -> tuple[Rows, Values]:
    """z = L⁻¹ (x - μ) of every example, and the log-density."""
    z = solve_triangular(factor, _rows(upcast(x) - upcast(mean)).T, lower=True).T
    constant = jnp.sum(jnp.log(jnp.diagonal(factor))) + x.shape[-1] / 2 * math.log(2 * math.pi)
    return z, (-jnp.sum(z * z, -1) / 2 - constant).reshape(x.shape[:-1])


def multivariate_normal_cholesky_logpdf_fwd(
    x: X, mean: Mean, scale_tril: Matrix
) -> tuple[Values, tuple[Rows, Matrix, Spec]]:
    """The normal distribution with covariance L Lᵀ, from its Cholesky factor L.

    Forward, with z = L⁻¹ (x - μ):     ℓ = -½ ‖z‖² - Σ log L_ii - n/2 log 2π
    Backward, with α = L⁻ᵀ z:          x̄ = -α ℓ̄      μ̄ = Σ α ℓ̄
                                       L̄ = tril(Σ ℓ̄ α zᵀ) - Diag(1/L_ii) Σ ℓ̄

    Derivation. dz = L⁻¹ (dx - dμ - dL z), so d(-½ ‖z‖²) = -zᵀ dz = αᵀ (dμ - dx + dL z). Only the lower
    triangle of L is read, the cotangent of the upper one is 0. The backward pass needs one triangular solve
    for all vectors and one product: n² a vector each, nothing cubic in n.

    Saves z and L; x is not kept.
    """
    factor = jnp.tril(upcast(scale_tril))
    z, value = _whitened(x, mean, factor)
    return value.astype(x.dtype), (z, scale_tril, Spec.of(x))


def _solved_back(z: Rows, factor: Matrix) -> Rows:
    """α = L⁻ᵀ z of every row."""
    return solve_triangular(factor, z.T, lower=True, trans=1).T


def multivariate_normal_cholesky_logpdf_bwd(
    residuals: tuple[Rows, Matrix, Spec], value_ct: Values
) -> tuple[X, Mean, Matrix]:
    """x̄ = -α ℓ̄, μ̄ = Σ α ℓ̄, L̄ = tril(Σ ℓ̄ α zᵀ) - Diag(1/L_ii) Σ ℓ̄."""
    z, scale_tril, x = residuals
    check_cotangent("multivariate_normal_cholesky_logpdf", value_ct, x.shape[:-1], x.dtype)
    factor = jnp.tril(upcast(scale_tril))
    ct = upcast(value_ct).reshape(-1, 1)
    weighted = _solved_back(z, factor) * ct
    factor_ct = jnp.tril(_numerics.matmul(weighted.T, z)) - jnp.diag(jnp.sum(ct) / jnp.diagonal(factor))
    dtype = x.dtype
    return (-weighted).reshape(x.shape).astype(dtype), weighted.sum(0).astype(dtype), factor_ct.astype(dtype)


def _cholesky_reference(x: X, mean: Mean, scale_tril: Matrix) -> Values:
    factor = jnp.tril(scale_tril)
    centered = x - mean
    whitened = jnp.einsum("ij,...j->...i", jnp.linalg.inv(factor), centered)
    _, logdet = jnp.linalg.slogdet(factor)
    return -jnp.sum(whitened**2, -1) / 2 - logdet - x.shape[-1] / 2 * math.log(2 * math.pi)


multivariate_normal_cholesky_logpdf = Rule(
    multivariate_normal_cholesky_logpdf_fwd,
    multivariate_normal_cholesky_logpdf_bwd,
    reference=in_float32(_cholesky_reference),
    domain={"x": Normal(), "mean": Normal(), "scale_tril": Triangular()},
    points={
        "at the mean": Point({"x": 1.0, "mean": 1.0}, {"x": 0.0, "mean": 0.0}),
        "standard": Point({"x": 0.0, "mean": 0.0, "scale_tril": lambda shape: np.eye(shape[-1])}, {"x": 0.0}),
    },
    formula="ℓ = -½ ‖z‖² - Σ log L_ii + c, z = L⁻¹ (x - μ); x̄ = -L⁻ᵀ z, L̄ = tril(L⁻ᵀ z zᵀ) - Diag(1/L_ii)",
    saves="z, L",
)


def multivariate_normal_logpdf_fwd(x: X, mean: Mean, cov: Matrix) -> tuple[Values, tuple[Rows, Matrix, Spec]]:
    """The normal distribution with covariance Σ, as `jax.scipy.stats.multivariate_normal.logpdf`.

    Forward, with L Lᵀ = Σ, z = L⁻¹ (x - μ):     ℓ = -½ ‖z‖² - Σ log L_ii - n/2 log 2π
    Backward, with α = Σ⁻¹ (x - μ) = L⁻ᵀ z:      x̄ = -α ℓ̄      μ̄ = Σ α ℓ̄      Σ̄ = ½ Σ ℓ̄ (α αᵀ - Σ⁻¹)

    Derivation. d log det Σ = tr(Σ⁻¹ dΣ) and dΣ⁻¹ = -Σ⁻¹ dΣ Σ⁻¹ (Matrix Cookbook 43, 40): nothing is pulled
    back through the factorization, which the value needs anyway. The cotangent is the symmetric matrix that
    autodiff of a symmetrized Cholesky factorization gives, too.

    Saves z and L; x is not kept.
    """
    factor = lax.linalg.cholesky(upcast(cov))
    z, value = _whitened(x, mean, factor)
    return value.astype(x.dtype), (z, factor, Spec.of(x))


def multivariate_normal_logpdf_bwd(
    residuals: tuple[Rows, Matrix, Spec], value_ct: Values
) -> tuple[X, Mean, Matrix]:
    """x̄ = -α ℓ̄, μ̄ = Σ α ℓ̄, Σ̄ = ½ Σ ℓ̄ (α αᵀ - Σ⁻¹)."""
    z, factor, x = residuals
    check_cotangent("multivariate_normal_logpdf", value_ct, x.shape[:-1], x.dtype)
    ct = upcast(value_ct).reshape(-1, 1)
    alpha = _solved_back(z, factor)
    weighted = alpha * ct
    inverse = cho_solve((factor, True), jnp.eye(x.shape[-1], dtype=factor.dtype))
    cov_ct = (_numerics.matmul(weighted.T, alpha) - jnp.sum(ct) * inverse) / 2
    # Rounding leaves the two products of a pair of elements apart.
    cov_ct = (cov_ct + cov_ct.T) / 2
    dtype = x.dtype
    return (-weighted).reshape(x.shape).astype(dtype), weighted.sum(0).astype(dtype), cov_ct.astype(dtype)


multivariate_normal_logpdf = Rule(
    multivariate_normal_logpdf_fwd,
    multivariate_normal_logpdf_bwd,
    reference=in_float32(stats.multivariate_normal.logpdf),
    domain={"x": Normal(), "mean": Normal(), "cov": PositiveDefinite()},
    points={
        "at the mean": Point({"x": 1.0, "mean": 1.0}, {"x": 0.0, "mean": 0.0}),
        "standard": Point({"x": 0.0, "mean": 0.0, "cov": lambda shape: np.eye(shape[-1])}, {"x": 0.0}),
    },
    formula="ℓ = -½ ‖z‖² - Σ log L_ii + c, z = L⁻¹ (x - μ); x̄ = -α, Σ̄ = ½ (α αᵀ - Σ⁻¹), α = L⁻ᵀ z",
    saves="z, L",
)

Weights = Float[Array, " components"]
Components = Float[Array, "components n"]
Parameters = tuple[X, Weights, Components, Components]


def gaussian_mixture_logpdf_fwd(
    x: X, logits: Weights, loc: Components, scale: Components
) -> tuple[Values, Parameters]:
    """A mixture of diagonal normal distributions with the weights softmax(logits).

    Forward, with z_k = (x - μ_k) / σ_k:

        c_k = log softmax(w)_k - Σ (½ z_k² + log σ_k) - n/2 log 2π      ℓ = log Σ_k e^(c_k)

    Backward, with the responsibilities γ_k = e^(c_k - ℓ), sums over examples:

        x̄ = -ℓ̄ Σ_k γ_k z_k / σ_k      w̄ = Σ ℓ̄ (γ - softmax(w))
        μ̄_k = Σ ℓ̄ γ_k z_k / σ_k       σ̄_k = Σ ℓ̄ γ_k (z_k² - 1) / σ_k

    Derivation. dℓ = Σ_k γ_k dc_k: a log-sum-exp weighs the derivatives of its terms by the responsibilities,
    the E step of expectation maximization (Dempster, Laird, Rubin 1977).

    Saves x and the parameters, all alive anyway; c and γ are recomputed.
    """
    terms = _component_terms(x, logits, loc, scale)
    return jax.nn.logsumexp(terms, -1).astype(x.dtype), (x, logits, loc, scale)


def _normalized(x: X, loc: Components, scale: Components) -> jax.Array:
    return (upcast(x)[..., None, :] - upcast(loc)) / upcast(scale)


def _component_terms(x: X, logits: Weights, loc: Components, scale: Components) -> jax.Array:
    z = _normalized(x, loc, scale)
    constant = jnp.sum(jnp.log(upcast(scale)), -1) + x.shape[-1] / 2 * math.log(2 * math.pi)
    return jax.nn.log_softmax(upcast(logits)) - jnp.sum(z * z, -1) / 2 - constant


def gaussian_mixture_logpdf_bwd(residuals: Parameters, value_ct: Values) -> tuple[jax.Array, ...]:
    """w̄ = Σ ℓ̄ (γ - softmax(w)); the others are ℓ̄ γ_k times the derivative of c_k."""
    x, logits, loc, scale = residuals
    check_cotangent("gaussian_mixture_logpdf", value_ct, x.shape[:-1], x.dtype)
    ct = upcast(value_ct)[..., None]
    gamma = jax.nn.softmax(_component_terms(x, logits, loc, scale), -1) * ct
    z, s = _normalized(x, loc, scale), upcast(scale)
    weighted, batch = gamma[..., None] * z, tuple(range(x.ndim - 1))
    logits_ct = jnp.sum(gamma, batch) - jnp.sum(ct) * jax.nn.softmax(upcast(logits))
    loc_ct = jnp.sum(weighted, batch) / s
    scale_ct = jnp.sum(gamma[..., None] * (z - 1) * (z + 1), batch) / s
    x_ct = -jnp.sum(weighted / s, -2)
    return tuple(g.astype(x.dtype) for g in (x_ct, logits_ct, loc_ct, scale_ct))


def _mixture_reference(x: X, logits: Weights, loc: Components, scale: Components) -> Values:
    each = stats.norm.logpdf(x[..., None, :], loc, scale).sum(-1)
    return jax.nn.logsumexp(each + logits, -1) - jax.nn.logsumexp(logits)


gaussian_mixture_logpdf = Rule(
    gaussian_mixture_logpdf_fwd,
    gaussian_mixture_logpdf_bwd,
    reference=_mixture_reference,
    domain={"x": Normal(), "logits": Normal(), "loc": Normal(), "scale": Positive()},
    points={
        "equal components": Point({"loc": 0.0, "scale": 1.0, "logits": 0.0}, {"logits": 0.0}),
        "far from all": Point({"x": 1e3, "scale": 1.0}),
        "a component without weight": Point({"logits": (0.0, -float("inf"), 0.0)}),
    },
    sizes=({"n": 2, "components": 3},),
    formula="ℓ = log Σ_k π_k N(x; μ_k, σ_k²); μ̄_k = Σ γ_k z_k/σ_k, w̄ = Σ (γ - π), γ the responsibilities",
    saves="x, w, μ, σ",
)
