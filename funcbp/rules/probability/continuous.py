"""Log-densities of one real number, elementwise: a log-density and its score, line by line.

Scales are positive numbers, not logarithms, as in `jax.scipy.stats`; at a scale of 0 there is no density, and
the result is NaN. z = (x - μ) / σ everywhere.
"""

import math
from typing import Any

import jax
from jax import numpy as jnp
from jax.scipy import special, stats
from jaxtyping import Array, Float

from ...domains import Normal, Point, Positive, Uniform
from ._density import density, ratio
from ._gamma import log_gamma

X = Float[Array, "*shape"]
_LOCATED = {"x": Normal(), "loc": Normal(), "scale": Positive()}
_FAR = {"x": 1e4, "loc": 0.0, "scale": 1.0}


def _normal_logpdf(x: X, loc: X, scale: X) -> X:
    """The normal distribution, as `jax.scipy.stats.norm.logpdf`."""
    z = (x - loc) / scale
    return -z * z / 2 - jnp.log(scale) - math.log(2 * math.pi) / 2


def _normal_score(x: X, loc: X, scale: X) -> tuple[X, X, X]:
    z = (x - loc) / scale
    return -z / scale, z / scale, (z - 1) * (z + 1) / scale


_NORMAL: dict[str, Any] = {
    "value": "-½ z² - log σ - ½ log 2π",
    "scores": "∂x = -z/σ, ∂μ = z/σ, ∂σ = (z - 1)(z + 1)/σ",
    "reference": stats.norm.logpdf,
    "domain": _LOCATED,
    "points": {
        "at the mode": Point({"x": 3.0, "loc": 3.0, "scale": 2.0}, {"x": 0.0, "loc": 0.0, "scale": -0.5}),
        "far out": Point(_FAR, {"x": -1e4, "loc": 1e4}),
    },
}
normal_logpdf = density(_normal_logpdf, _normal_score, **_NORMAL)


def _diagonal_normal_logpdf(x: X, loc: X, scale: X) -> X:
    """A normal distribution with independent components: the sum of their log-densities."""
    return _normal_logpdf(x, loc, scale)


diagonal_normal_logpdf = density(_diagonal_normal_logpdf, _normal_score, summed=True, **_NORMAL)


def _laplace_logpdf(x: X, loc: X, scale: X) -> X:
    """The Laplace distribution, as `jax.scipy.stats.laplace.logpdf`.

    At z = 0 the convention is sign 0 = 0, the middle of the kink; JAX takes the slope of the right branch.
    """
    z = (x - loc) / scale
    # Not abs: its derivative at 0 is 1 in JAX.
    return -z * jnp.sign(z) - jnp.log(2 * scale)


def _laplace_score(x: X, loc: X, scale: X) -> tuple[X, X, X]:
    z = (x - loc) / scale
    s = jnp.sign(z)
    return -s / scale, s / scale, (s * z - 1) / scale


laplace_logpdf = density(
    _laplace_logpdf,
    _laplace_score,
    value="-|z| - log 2σ",
    scores="∂x = -sign z/σ, ∂μ = sign z/σ, ∂σ = (|z| - 1)/σ",
    reference=stats.laplace.logpdf,
    domain=_LOCATED,
    points={
        "at the mode": Point(
            {"x": 3.0, "loc": 3.0, "scale": 2.0},
            {"x": 0.0, "loc": 0.0, "scale": -0.5},
            agrees=False,
            why="the middle of the kink; JAX has the right slope",
            smooth=False,
        ),
        "far out": Point(_FAR, {"x": -1.0, "loc": 1.0}),
    },
)


def _cauchy_logpdf(x: X, loc: X, scale: X) -> X:
    """The Cauchy distribution, as `jax.scipy.stats.cauchy.logpdf`."""
    z = (x - loc) / scale
    return -jnp.log1p(z * z) - jnp.log(math.pi * scale)


def _cauchy_score(x: X, loc: X, scale: X) -> tuple[X, X, X]:
    z = (x - loc) / scale
    rest = scale * (1 + z * z)
    return -2 * z / rest, 2 * z / rest, (z - 1) * (z + 1) / rest


cauchy_logpdf = density(
    _cauchy_logpdf,
    _cauchy_score,
    value="-log(1 + z²) - log πσ",
    scores="∂x = -2z/(σ(1 + z²)), ∂μ = -∂x, ∂σ = (z - 1)(z + 1)/(σ(1 + z²))",
    reference=stats.cauchy.logpdf,
    domain=_LOCATED,
    points={"far out": Point(_FAR)},
)


def _logistic_logpdf(x: X, loc: X, scale: X) -> X:
    """The logistic distribution, as `jax.scipy.stats.logistic.logpdf`."""
    half = (x - loc) / scale / 2
    # -2 log 2cosh(z/2), from the branch that does not overflow.
    down = jnp.where(half > 0, -half, half)
    return 2 * down - 2 * jnp.log1p(jnp.exp(2 * down)) - jnp.log(scale)


def _logistic_score(x: X, loc: X, scale: X) -> tuple[X, X, X]:
    z = (x - loc) / scale
    t = jnp.tanh(z / 2)
    return -t / scale, t / scale, (z * t - 1) / scale


logistic_logpdf = density(
    _logistic_logpdf,
    _logistic_score,
    value="-2 log 2cosh(z/2) - log σ",
    scores="∂x = -tanh(z/2)/σ, ∂μ = tanh(z/2)/σ, ∂σ = (z tanh(z/2) - 1)/σ",
    reference=stats.logistic.logpdf,
    domain=_LOCATED,
    points={"at the mode": Point({"x": 0.0, "loc": 0.0}), "far out": Point(_FAR, {"x": -1.0, "loc": 1.0})},
)


def _student_t_logpdf(x: X, df: X, loc: X, scale: X) -> X:
    """Student's t distribution with ν degrees of freedom, as `jax.scipy.stats.t.logpdf`."""
    z = (x - loc) / scale
    normalizer = log_gamma((df + 1) / 2) - log_gamma(df / 2) - jnp.log(math.pi * df) / 2
    return normalizer - jnp.log(scale) - (df + 1) / 2 * jnp.log1p(z * z / df)


def _student_t_score(x: X, df: X, loc: X, scale: X) -> tuple[X, X, X, X]:
    z = (x - loc) / scale
    weight = (df + 1) / (df + z * z)
    slope = weight * z / scale
    df_score = special.digamma((df + 1) / 2) - special.digamma(df / 2)
    df_score = (df_score - jnp.log1p(z * z / df) + (weight * z * z - 1) / df) / 2
    return -slope, df_score, slope, (df * (z - 1) * (z + 1) / (df + z * z)) / scale


student_t_logpdf = density(
    _student_t_logpdf,
    _student_t_score,
    value="log Γ((ν+1)/2) - log Γ(ν/2) - ½ log πν - log σ - (ν+1)/2 log(1 + z²/ν)",
    scores=(
        "∂x = -w z/σ, ∂μ = w z/σ, ∂σ = ν (z - 1)(z + 1)/((ν + z²) σ), "
        "∂ν = ½ (ψ((ν+1)/2) - ψ(ν/2) - log(1 + z²/ν) + (w z² - 1)/ν), w = (ν+1)/(ν + z²)"
    ),
    reference=stats.t.logpdf,
    domain={"x": Normal(), "df": Uniform(1.0, 10.0), "loc": Normal(), "scale": Positive()},
    points={"at the mode": Point({"x": 3.0, "loc": 3.0}, {"x": 0.0, "loc": 0.0}), "far out": Point(_FAR)},
)


def _gamma_logpdf(x: X, a: X, scale: X) -> X:
    """The gamma distribution with shape a, as `jax.scipy.stats.gamma.logpdf` with location 0.

    For x ≥ 0; at x = 0 with a = 1 (the exponential distribution) the slope is -1/θ.
    """
    return special.xlogy(a - 1, x / scale) - x / scale - log_gamma(a) - jnp.log(scale)


gamma_logpdf = density(
    _gamma_logpdf,
    lambda x, a, scale: (
        ratio(a - 1, x) - 1 / scale,
        jnp.log(x / scale) - special.digamma(a),
        (x / scale - a) / scale,
    ),
    value="(a - 1) log(x/θ) - x/θ - log Γ(a) - log θ",
    scores="∂x = (a - 1)/x - 1/θ, ∂a = log(x/θ) - ψ(a), ∂θ = (x/θ - a)/θ",
    reference=lambda x, a, scale: stats.gamma.logpdf(x, a, 0, scale),
    domain={"x": Positive(), "a": Uniform(0.5, 5.0), "scale": Positive()},
    points={
        "exponential at 0": Point(
            {"x": 0.0, "a": 1.0, "scale": 2.0},
            {"x": -0.5, "scale": -0.5},
            agrees=False,
            why="0 log x has the slope 0, also at 0; JAX gives NaN",
        )
    },
)


def _beta_logpdf(x: X, a: X, b: X) -> X:
    """The beta distribution, as `jax.scipy.stats.beta.logpdf`.

    For 0 ≤ x ≤ 1; where an exponent is 0 its term has the slope 0, also at the end.
    """
    normalizer = log_gamma(a) + log_gamma(b) - log_gamma(a + b)
    return special.xlogy(a - 1, x) + special.xlog1py(b - 1, -x) - normalizer


def _beta_score(x: X, a: X, b: X) -> tuple[X, X, X]:
    both = special.digamma(a + b)
    return (
        ratio(a - 1, x) - ratio(b - 1, 1 - x),
        jnp.log(x) - special.digamma(a) + both,
        jnp.log1p(-x) - special.digamma(b) + both,
    )


beta_logpdf = density(
    _beta_logpdf,
    _beta_score,
    value="(a - 1) log x + (b - 1) log(1 - x) - log B(a, b)",
    scores="∂x = (a - 1)/x - (b - 1)/(1 - x), ∂a = log x - ψ(a) + ψ(a + b), ∂b likewise of 1 - x",
    reference=stats.beta.logpdf,
    domain={"x": Uniform(0.05, 0.95), "a": Uniform(0.5, 5.0), "b": Uniform(0.5, 5.0)},
    points={
        "uniform at 0": Point(
            {"x": 0.0, "a": 1.0, "b": 1.0},
            {"x": 0.0},
            agrees=False,
            why="the slope of 0 log x is 0; JAX: NaN",
        ),
        "triangle at 1": Point(
            {"x": 1.0, "a": 2.0, "b": 1.0},
            {"x": 1.0},
            agrees=False,
            why="the slope of 0 log x is 0; JAX: NaN",
        ),
    },
)


def _normal_sample(loc: X, scale: X, noise: X) -> X:
    """A reparameterized draw of the normal distribution; `noise` is standard normal and an argument.

    A scale of 0 is allowed: the draw is μ.
    """
    return loc + scale * noise


normal_sample = density(
    _normal_sample,
    lambda loc, scale, noise: (jnp.ones_like(loc), noise, scale),
    value="μ + σ ε",
    scores="∂μ = 1, ∂σ = ε, ∂ε = σ",
    reference=lambda loc, scale, noise: jax.vmap(jnp.polyval, (0, 0))(
        jnp.stack([scale, loc], -1).reshape(-1, 2), noise.reshape(-1)
    ).reshape(loc.shape),
    domain={"loc": Normal(), "scale": Positive(), "noise": Normal()},
    points={"zero scale": Point({"scale": 0.0}, {"loc": 1.0, "noise": 0.0})},
)


def _kl_diagonal_normal(loc: X, scale: X, other_loc: X, other_scale: X) -> X:
    """KL(p‖q) of two normal distributions with independent components, p = N(μ, σ²) and q = N(m, s²)."""
    r, d = (scale - other_scale) / other_scale, (loc - other_loc) / other_scale
    # ½ (σ²/s² - 1) - log(σ/s) by r = σ/s - 1: the difference of near numbers is taken once. (Not far from 1:
    # in float64, XLA's log1p loses 100 ulps between -0.42 and -0.3.)
    log_ratio = jnp.where(jnp.abs(r) < 0.25, jnp.log1p(r), jnp.log(scale / other_scale))
    return r * (r + 2) / 2 - log_ratio + d * d / 2


def _kl_score(loc: X, scale: X, other_loc: X, other_scale: X) -> tuple[X, X, X, X]:
    near, d = (scale - other_scale) * (scale + other_scale) / other_scale**2, (loc - other_loc) / other_scale
    slope = d / other_scale
    return slope, near / scale, -slope, -(near + d * d) / other_scale


kl_diagonal_normal = density(
    _kl_diagonal_normal,
    _kl_score,
    summed=True,
    value="½ (σ²/s² - 1) - log(σ/s) + ½ d², d = (μ - m)/s",
    scores="∂μ = d/s, ∂σ = (σ² - s²)/(s² σ), ∂m = -d/s, ∂s = -((σ² - s²)/s² + d²)/s",
    reference=lambda loc, scale, other_loc, other_scale: (
        jnp.log(other_scale / scale) + (scale**2 + (loc - other_loc) ** 2) / (2 * other_scale**2) - 0.5
    ),
    domain={"loc": Normal(), "scale": Positive(), "other_loc": Normal(), "other_scale": Positive()},
    points={
        "equal": Point(
            {"loc": 1.0, "scale": 2.0, "other_loc": 1.0, "other_scale": 2.0},
            {"loc": 0.0, "scale": 0.0, "other_loc": 0.0, "other_scale": 0.0},
        )
    },
)


def _kl_standard_normal(loc: X, log_variance: X) -> X:
    """KL(N(μ, eᵛ)‖N(0, 1)) with independent components: the regularizer of a variational autoencoder.

    The log-variance v is free: eᵛ never vanishes (Kingma, Welling 2014, arXiv:1312.6114, Appendix B).
    """
    return (loc * loc + jnp.expm1(log_variance) - log_variance) / 2


kl_standard_normal = density(
    _kl_standard_normal,
    lambda loc, log_variance: (loc, jnp.expm1(log_variance) / 2),
    summed=True,
    value="½ (μ² + eᵛ - 1 - v)",
    scores="∂μ = μ, ∂v = ½ (eᵛ - 1)",
    reference=lambda loc, log_variance: -0.5 * (1 + log_variance - loc**2 - jnp.exp(log_variance)),
    domain={"loc": Normal(), "log_variance": Normal()},
    points={"equal": Point({"loc": 0.0, "log_variance": 0.0}, {"loc": 0.0, "log_variance": 0.0})},
)
