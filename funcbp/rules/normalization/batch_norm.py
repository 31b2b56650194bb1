"""Batch normalization (Ioffe, Szegedy 2015, arXiv:1502.03167): by the batch's statistics, or by given ones.

The last axis is the features, all others are what the statistics are taken over: examples, and positions.
"""

import math

import jax
from jax import numpy as jnp
from jaxtyping import Array, Float

from ..._numerics import upcast
from ..._rule import Rule
from ...domains import Normal, Point, Positive
from ...factors import Factor
from .._checks import check_cotangent
from ._standardized import affine, affine_pullback, centered, inverse_root, scaling_ct, standardized

X = Float[Array, "*batch features"]
Param = Float[Array, " features"]
Out = tuple[X, Param, Param]
Residuals = tuple[X, Param | None, Param | None, Param, Param]


def batch_norm_fwd(
    x: X, gain: Param | None = None, bias: Param | None = None, *, eps: float = 1e-5
) -> tuple[Out, Residuals]:
    """Batch normalization in training; gives the batch's mean and biased variance beside y.

    Forward, for each feature, with μ, σ² its mean and biased variance over all n examples and positions:

        r = (σ² + ε)^(-1/2)      x̂ = r (x - μ)      y = γ ⊙ x̂ + β

    Backward, with g = γ ⊙ ȳ, ⟨·⟩ the mean over examples and positions, and s the cotangent of σ²:

        x̄ = r (g - ⟨g⟩ - x̂ ⟨g ⊙ x̂⟩) + (μ̄ + 2 s (x - μ))/n      γ̄ = Σ ȳ ⊙ x̂      β̄ = Σ ȳ

    Derivation. As in layer normalization, over the other axes: ⟨x - μ⟩ = 0 gives dr = -r² ⟨x̂ ⊙ dx⟩, so dx̂ =
    r (I - 11ᵀ/n - x̂x̂ᵀ/n) dx. Beside it dμ = ⟨dx⟩ and dσ² = 2 ⟨(x - μ) ⊙ dx⟩. The means couple the examples:
    x̄ of one of them depends on the ȳ of all, and a gradient of one example alone does not exist.

    Saves x, γ, β (alive anyway) and μ, σ² (in float32 at least, unlike the outputs: what a running average
    should be made of). A feature that is the same in all examples (a batch of one) has x̂ = 0; with ε = 0 also
    x̄ = 0 (autodiff: NaN).
    """
    x_hat, mean, variance = standardized(upcast(x), _examples(x), eps)
    mean, variance = mean.reshape(x.shape[-1]), variance.reshape(x.shape[-1])
    y = affine(x_hat, gain, bias)
    out = y.astype(x.dtype), mean.astype(x.dtype), variance.astype(x.dtype)
    return out, (x, gain, bias, mean, variance)


def batch_norm_pullback(
    residuals: Residuals, out_ct: Out, *, eps: float = 1e-5
) -> tuple[X, Factor | None, Factor | None]:
    """x̄ = r (g - ⟨g⟩ - x̂ ⟨g ⊙ x̂⟩) + (μ̄ + 2 s (x - μ))/n, and the factors of γ and β."""
    x, gain, bias, mean, variance = residuals
    y_ct, mean_ct, variance_ct = out_ct
    check_cotangent("batch_norm", y_ct, x.shape, x.dtype, output="y")
    check_cotangent("batch_norm", mean_ct, mean.shape, x.dtype, output="mean")
    check_cotangent("batch_norm", variance_ct, variance.shape, x.dtype, output="variance")
    axes, r, deviation = _examples(x), inverse_root(variance + eps), upcast(x) - mean
    x_hat = r * deviation
    g, gain_factor, bias_factor = affine_pullback(upcast(y_ct), x_hat, gain, bias)
    count = max(math.prod(x.shape[:-1]), 1)
    of_moments = (upcast(mean_ct) + 2 * upcast(variance_ct) * deviation) / count
    x_ct = scaling_ct(centered(g, axes), x_hat, r, axes) + of_moments
    return x_ct.astype(x.dtype), gain_factor, bias_factor


def _examples(x: X) -> tuple[int, ...]:
    return tuple(range(x.ndim - 1))


def _batch_norm_reference(
    x: X, gain: Param | None = None, bias: Param | None = None, *, eps: float = 1e-5
) -> Out:
    examples = tuple(range(x.ndim - 1))
    mean, variance = jnp.mean(x, axis=examples), jnp.var(x, axis=examples)
    y = jax.nn.standardize(x, mean=mean, variance=variance, epsilon=eps)
    y = y if gain is None else y * gain
    return (y if bias is None else y + bias), mean, variance


batch_norm = Rule(
    batch_norm_fwd,
    batch_norm_pullback,
    reference=_batch_norm_reference,
    domain={"x": Normal(), "gain": Normal(), "bias": Normal()},
    points={"constant feature": Point({"x": 3.0})},
    settings=({"eps": 1e-2},),
    sizes=({"batch": (3, 2)}, {"batch": (5,)}, {"batch": (1,)}, {"batch": (2, 1, 3)}),
    formula="y = γ ⊙ x̂ + β, x̂ = r (x - μ) over the batch; x̄ = r (g - ⟨g⟩ - x̂ ⟨g ⊙ x̂⟩), g = γ ⊙ ȳ",
    saves="x, γ, β, μ, σ²",
)


InferenceResiduals = tuple[X, Param, Param, Param | None, Param | None]


def batch_norm_inference_fwd(
    x: X,
    mean: Param,
    variance: Param,
    gain: Param | None = None,
    bias: Param | None = None,
    *,
    eps: float = 1e-5,
) -> tuple[X, InferenceResiduals]:
    """Batch normalization in evaluation: with a given mean and variance of every feature.

    Forward:     r = (σ² + ε)^(-1/2)      x̂ = r (x - μ)      y = γ ⊙ x̂ + β
    Backward:    x̄ = r g      μ̄ = -Σ r g      s = -½ r² Σ g ⊙ x̂      γ̄ = Σ ȳ ⊙ x̂      β̄ = Σ ȳ

    with g = γ ⊙ ȳ and s the cotangent of σ².

    Derivation. μ and σ² do not depend on x: dx̂ = r (dx - dμ) - ½ r² x̂ dσ². No example sees another.

    Saves its arguments. Where σ² + ε = 0: r = 0, and all with it.
    """
    x_hat = inverse_root(upcast(variance) + eps) * (upcast(x) - upcast(mean))
    return affine(x_hat, gain, bias).astype(x.dtype), (x, mean, variance, gain, bias)


def batch_norm_inference_pullback(
    residuals: InferenceResiduals, y_ct: X, *, eps: float = 1e-5
) -> tuple[X, Param, Param, Factor | None, Factor | None]:
    """x̄ = r g, μ̄ = -Σ r g, s = -½ r² Σ g ⊙ x̂, and the factors of γ and β."""
    x, mean, variance, gain, bias = residuals
    check_cotangent("batch_norm_inference", y_ct, x.shape, x.dtype)
    r = inverse_root(upcast(variance) + eps)
    x_hat = r * (upcast(x) - upcast(mean))
    g, gain_factor, bias_factor = affine_pullback(upcast(y_ct), x_hat, gain, bias)
    x_ct = (r * g).astype(x.dtype)
    mean_ct = -r * jnp.sum(g, axis=_examples(x))
    variance_ct = -r * r / 2 * jnp.sum(g * x_hat, axis=_examples(x))
    return x_ct, mean_ct.astype(x.dtype), variance_ct.astype(x.dtype), gain_factor, bias_factor


def _batch_norm_inference_reference(
    x: X,
    mean: Param,
    variance: Param,
    gain: Param | None = None,
    bias: Param | None = None,
    *,
    eps: float = 1e-5,
) -> X:
    y = jax.nn.standardize(x, mean=mean, variance=variance, epsilon=eps)
    y = y if gain is None else y * gain
    return y if bias is None else y + bias


batch_norm_inference = Rule(
    batch_norm_inference_fwd,
    batch_norm_inference_pullback,
    reference=_batch_norm_inference_reference,
    domain={"x": Normal(), "mean": Normal(), "variance": Positive(), "gain": Normal(), "bias": Normal()},
    points={"at the mean": Point({"x": 3.0, "mean": 3.0}), "variance zero": Point({"variance": 0.0})},
    settings=({"eps": 1e-2},),
    formula="y = γ ⊙ x̂ + β, x̂ = r (x - μ), μ, r given; x̄ = r g, g = γ ⊙ ȳ",
    saves="x, μ, σ², γ, β",
)
