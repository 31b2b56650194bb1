"""Layer normalization over the last axis (Ba, Kiros, Hinton 2016, arXiv:1607.06450)."""

import jax
from jax import numpy as jnp
from jaxtyping import Array, Float

from ..._numerics import upcast
from ..._rule import Rule
from ...domains import Normal, Point
from ...factors import Factor
from .._checks import check_cotangent
from ._standardized import affine, affine_pullback, centered, inverse_root, scaling_ct, standardized

X = Float[Array, "*batch features"]
Stat = Float[Array, "*batch 1"]
Param = Float[Array, " features"]
Residuals = tuple[X, Param | None, Param | None, Stat, Stat]


def layer_norm_fwd(
    x: X, gain: Param | None = None, bias: Param | None = None, *, eps: float = 1e-5
) -> tuple[X, Residuals]:
    """Layer normalization; gain and bias may be absent.

    Forward, for each row x of n features, with μ, σ² its mean and biased variance:

        r = (σ² + ε)^(-1/2)      x̂ = r (x - μ)      y = γ ⊙ x̂ + β

    Backward, with ȳ the cotangent of y, g = γ ⊙ ȳ, and ⟨·⟩ the mean over a row:

        x̄ = r (g - ⟨g⟩ - x̂ ⟨g ⊙ x̂⟩)      γ̄ = Σ ȳ ⊙ x̂      β̄ = Σ ȳ

    Derivation. ⟨x - μ⟩ = 0 gives dr = -r² ⟨x̂ ⊙ dx⟩, so dx̂ = r (I - 11ᵀ/n - x̂x̂ᵀ/n) dx, for every ε. That
    matrix is symmetric: the pullback is the same map, applied to g.

    Saves x, γ, β (alive anyway) and μ, r (one number a row); x̂ is recomputed. At a constant row r =
    ε^(-1/2), x̂ = 0; with ε = 0 both are 0, and x̄ with them (autodiff: NaN).
    """
    x_hat, mean, variance = standardized(upcast(x), -1, eps)
    y = affine(x_hat, gain, bias)
    return y.astype(x.dtype), (x, gain, bias, mean, inverse_root(variance + eps))


def layer_norm_pullback(
    residuals: Residuals, y_ct: X, *, eps: float = 1e-5
) -> tuple[X, Factor | None, Factor | None]:
    """x̄ = r (g - ⟨g⟩ - x̂ ⟨g ⊙ x̂⟩), and the factors of γ and β."""
    del eps  # already inside r
    x, gain, bias, mean, r = residuals
    check_cotangent("layer_norm", y_ct, x.shape, x.dtype)
    x_hat = r * (upcast(x) - mean)
    g, gain_factor, bias_factor = affine_pullback(upcast(y_ct), x_hat, gain, bias)
    x_ct = scaling_ct(centered(g, -1), x_hat, r, -1)
    return x_ct.astype(x.dtype), gain_factor, bias_factor


def _layer_norm_reference(
    x: X, gain: Param | None = None, bias: Param | None = None, *, eps: float = 1e-5
) -> X:
    y = jax.nn.standardize(x, axis=-1, variance=jnp.var(x, axis=-1, keepdims=True), epsilon=eps)
    y = y if gain is None else y * gain
    return y if bias is None else y + bias


layer_norm = Rule(
    layer_norm_fwd,
    layer_norm_pullback,
    reference=_layer_norm_reference,
    domain={"x": Normal(), "gain": Normal(), "bias": Normal()},
    points={"constant row": Point({"x": 3.0})},
    settings=({"eps": 1e-2},),
    formula="y = γ ⊙ x̂ + β, x̂ = r (x - μ); x̄ = r (g - ⟨g⟩ - x̂ ⟨g ⊙ x̂⟩), g = γ ⊙ ȳ",
    saves="x, γ, β, μ, r",
)
