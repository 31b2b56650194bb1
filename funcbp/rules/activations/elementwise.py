"""Elementwise activations q = σ(p), one line a function; `_table.py` says what becomes of a line.

Where a function has a kink, its derivative there is that of jax.nn.
"""

import functools
import math

import jax
from jax import lax
from jax import numpy as jnp
from jaxtyping import Array, Float

from ..._rule import Rule
from ...domains import Normal
from .._checks import check_cotangent
from ._table import at, elementwise, require_positive

X = Float[Array, "*shape"]
_SELU_SCALE, _SELU_ALPHA = 1.0507009873554804934193349852946, 1.6732632423543772848170429916717


def _decaying(p: jax.Array) -> jax.Array:
    """e^(-|p|), which never overflows."""
    return jnp.exp(-_magnitude(p))


def _magnitude(p: jax.Array) -> jax.Array:
    """|p| in two branches.

    Not `abs`, for whose derivative at 0 JAX takes 1: that is wrong on either branch once another term of p is
    added. What else depends on the sign of p takes the same branch at 0.
    """
    return jnp.where(p > 0, p, -p)


def _logistic(p: jax.Array) -> jax.Array:
    # e / (1 + e) loses nothing where it is small.
    e = _decaying(p)
    return jnp.where(p > 0, 1, e) / (1 + e)


def _softplus(p: jax.Array) -> jax.Array:
    return _relu(p) + jnp.log1p(_decaying(p))


def _relu(p: jax.Array) -> jax.Array:
    # Not `maximum`, whose derivative at 0 is ½ in JAX; in this order NaN passes.
    return jnp.where(p <= 0, 0, p)


def _relu6(p: jax.Array) -> jax.Array:
    return jnp.where(p >= 6, 6, _relu(p))


def _leaky_relu(p: jax.Array, negative_slope: float) -> jax.Array:
    why = "σ′ is read off the sign of q; for a slope of 0 use relu"
    require_positive("leaky_relu", "negative_slope", negative_slope, why)
    return jnp.where(p >= 0, p, negative_slope * p)


def _elu(name: str, p: jax.Array, alpha: float, width: float) -> jax.Array:
    require_positive(name, "alpha", alpha, "σ′ is read off the sign of q; for 0 use relu")
    return jnp.where(p > 0, p, alpha * jnp.expm1(jnp.where(p > 0, 0, p) / width))


def _squareplus(p: jax.Array, b: float) -> jax.Array:
    require_positive("squareplus", "b", b, "σ′ is read off q, which is 0 otherwise; for 0 use relu")
    # (p + r) / 2 would cancel left of 0.
    return _relu(p) + b / (2 * (jnp.sqrt(p * p + b) + _magnitude(p)))


def _sparse_plus(p: jax.Array) -> jax.Array:
    return jnp.where(p <= -1, 0, jnp.where(p >= 1, p, (p + 1) ** 2 / 4))


def _sparse_plus_derivative(q: jax.Array) -> jax.Array:
    return jnp.where(q >= 1, 1, jnp.where(q <= 0, 0, jnp.sqrt(jnp.where(q <= 0, 1, q))))


def _silu(p: jax.Array) -> jax.Array:
    return p * _logistic(p)


def _silu_derivative(p: jax.Array) -> jax.Array:
    # s and 1 - s from one exponential, neither as a difference.
    e = _decaying(p)
    s, rest = jnp.where(p > 0, 1, e) / (1 + e), jnp.where(p > 0, e, 1) / (1 + e)
    return s * (1 + p * rest)


def _tanh_softplus(p: jax.Array) -> tuple[jax.Array, jax.Array]:
    """t = tanh(softplus(p)) = ((1 + eᵖ)² - 1) / ((1 + eᵖ)² + 1), and 1 - t, neither as a difference."""
    e = _decaying(p)
    above, below = jnp.where(p > 0, 1 + 2 * e, e * (e + 2)), jnp.where(p > 0, 2 * e * e, 2)
    return above / (above + below), below / (above + below)


def _mish(p: jax.Array) -> jax.Array:
    return p * _tanh_softplus(p)[0]


def _mish_derivative(p: jax.Array) -> jax.Array:
    t, rest = _tanh_softplus(p)
    return t + p * _logistic(p) * rest * (1 + t)


def _hard_tanh(p: jax.Array) -> jax.Array:
    return jnp.where(p < -1, -1, jnp.where(p > 1, 1, p))


def _hard_silu(p: jax.Array) -> jax.Array:
    return jnp.where(p <= -3, 0, jnp.where(p >= 3, p, p * (p + 3) / 6))


def _hard_silu_derivative(p: jax.Array) -> jax.Array:
    return jnp.where(p <= -3, 0, jnp.where(p >= 3, 1, (2 * p + 3) / 6))


def _sparse_sigmoid(p: jax.Array) -> jax.Array:
    # The one function whose derivative at its kinks is what `clip` has.
    return jnp.clip((p + 1) / 2, 0, 1)


def _sparse_sigmoid_derivative(p: jax.Array) -> jax.Array:
    return (jnp.sign(p + 1) - jnp.sign(p - 1)) / 4


def _gelu(p: jax.Array, approximate: bool) -> jax.Array:
    return p * (_gaussian_cdf_by_tanh(p)[0] if approximate else _gaussian_cdf(p))


def _gelu_derivative(p: jax.Array, approximate: bool) -> jax.Array:
    cdf, density = _gaussian_cdf_by_tanh(p) if approximate else (_gaussian_cdf(p), _gaussian_density(p))
    return cdf + p * density


def _gaussian_cdf(p: jax.Array) -> jax.Array:
    return lax.erfc(-p * math.sqrt(0.5)) / 2


def _gaussian_density(p: jax.Array) -> jax.Array:
    return jnp.exp(-p * p / 2) / math.sqrt(2 * math.pi)


# Traced once and inlined: with some twenty operations it is most of the trace time of a deep network.
@functools.partial(jax.jit, inline=True)
def _gaussian_cdf_by_tanh(p: jax.Array) -> tuple[jax.Array, jax.Array]:
    # Beyond ±20 tanh is ±1 to the last bit in float64; the clip keeps p³ and 0 · ∞ out of it.
    x = jnp.clip(p, -20, 20)
    c = math.sqrt(2 / math.pi)
    t = jnp.tanh(c * (x + 0.044715 * x**3))
    return (1 + t) / 2, (1 - t) * (1 + t) / 2 * c * (1 + 3 * 0.044715 * x**2)


def identity_fwd(p: X) -> tuple[X, tuple[()]]:
    """q = p.

    Forward:     q = p
    Backward:    p̄ = q̄

    Derivation. dq = dp.

    Saves nothing.
    """
    return p, ()


def identity_bwd(residuals: tuple[()], q_ct: X) -> tuple[X]:
    """p̄ = q̄."""
    del residuals
    check_cotangent("identity", q_ct)
    return (q_ct,)


identity = Rule(
    identity_fwd, identity_bwd, reference=lambda p: p, domain={"p": Normal(2.0)}, formula="q = p, σ′ = 1"
)

_MIDDLE = {"middle": at(0.0, 0.5)}
_SATURATES = {"saturated above": at(1e4, 0.0), "saturated below": at(-1e4, 0.0)}
_LINEAR_ABOVE = {"large": at(1e4, 1.0), "far below": at(-1e4, 0.0)}
_rule = functools.partial(elementwise, __name__)

# fmt: off
relu = _rule(
    "relu", "q = max(p, 0), σ′ = [q > 0]", _relu, lambda q: jnp.where(q > 0, 1, 0), "q", jax.nn.relu,
    {"kink at 0": at(0.0, 0.0, "as jax.nn.relu; jnp.maximum(p, 0) has ½", smooth=False)}, "At 0, σ′ = 0.")
relu6 = _rule(
    "relu6", "q = min(max(p, 0), 6), σ′ = [0 < q < 6]",
    _relu6, lambda q: jnp.where((q > 0) & (q < 6), 1, 0), "q", jax.nn.relu6,
    {"kink at 0": at(0.0, 0.0, smooth=False), "kink at 6": at(6.0, 0.0, smooth=False)},
    "At 0 and 6, σ′ = 0, as in jax.nn.")
leaky_relu = _rule(
    "leaky_relu", "q = p if p ≥ 0 else κ p, σ′ = 1 if q ≥ 0 else κ",
    _leaky_relu, lambda q, negative_slope: jnp.where(q >= 0, 1, negative_slope), "q", jax.nn.leaky_relu,
    {"kink at 0": at(0.0, 1.0, smooth=False)},
    "κ > 0 is `negative_slope`. At 0, σ′ = 1, as in jax.nn.", negative_slope=(0.01, 0.3))
elu = _rule(
    "elu", "q = p if p > 0 else α (eᵖ - 1), σ′ = 1 if q > 0 else q + α",
    lambda p, alpha: _elu("elu", p, alpha, 1.0), lambda q, alpha: jnp.where(q > 0, 1, q + alpha), "q",
    jax.nn.elu,
    {"joint at 0": at(0.0, 1.0, smooth=False), **_LINEAR_ABOVE},
    "α > 0. At 0, a kink unless α = 1, σ′ = α, as in jax.nn.", alpha=(1.0, 0.3))
celu = _rule(
    "celu", "q = p if p > 0 else α (e^(p/α) - 1), σ′ = 1 if q > 0 else q/α + 1",
    lambda p, alpha: _elu("celu", p, alpha, alpha), lambda q, alpha: jnp.where(q > 0, 1, q / alpha + 1), "q",
    jax.nn.celu,
    {"joint at 0": at(0.0, 1.0, smooth=False), **_LINEAR_ABOVE}, "α > 0.", alpha=(1.0, 0.3))
selu = _rule(
    "selu", "q = λ p if p > 0 else λ α (eᵖ - 1), σ′ = λ if p > 0 else λ α eᵖ",
    lambda p: _SELU_SCALE * _elu("selu", p, _SELU_ALPHA, 1.0),
    lambda p: _SELU_SCALE * jnp.where(p > 0, 1, _SELU_ALPHA * jnp.exp(jnp.where(p > 0, 0, p))), "p",
    jax.nn.selu,
    {"kink at 0": at(0.0, _SELU_SCALE * _SELU_ALPHA, smooth=False)},
    "λ = 1.0507…, α = 1.6732… (Klambauer et al. 2017, arXiv:1706.02515). At 0, σ′ = λ α, as in jax.nn. From "
    "q, σ′ = q + λ α would lose twice the digits that autodiff does.")
sigmoid = _rule(
    "sigmoid", "q = 1 / (1 + e⁻ᵖ), σ′ = q (1 - q)", _logistic, lambda q: q * (1 - q), "q",
    jax.nn.sigmoid, {"middle": at(0.0, 0.25), **_SATURATES})
log_sigmoid = _rule(
    "log_sigmoid", "q = -log(1 + e⁻ᵖ), σ′ = 1 - e^q", lambda p: -_softplus(-p), lambda q: -jnp.expm1(q), "q",
    jax.nn.log_sigmoid, {**_MIDDLE, "large": at(1e4, 0.0), "far below": at(-1e4, 1.0)})
hard_sigmoid = _rule(
    "hard_sigmoid", "q = min(max(p + 3, 0), 6) / 6, σ′ = [0 < q < 1] / 6",
    lambda p: _relu6(p + 3) / 6, lambda q: jnp.where((q > 0) & (q < 1), 1 / 6, 0), "q", jax.nn.hard_sigmoid,
    {"kink at -3": at(-3.0, 0.0, smooth=False), "kink at 3": at(3.0, 0.0, smooth=False)},
    "At ±3, σ′ = 0, as in jax.nn.")
sparse_sigmoid = _rule(
    "sparse_sigmoid", "q = min(max((p + 1) / 2, 0), 1), σ′ = ½ [-1 < p < 1]",
    _sparse_sigmoid, _sparse_sigmoid_derivative, "p", jax.nn.sparse_sigmoid,
    {"kink at -1": at(-1.0, 0.25, smooth=False), "kink at 1": at(1.0, 0.25, smooth=False)},
    "At ±1, σ′ = ¼, the mean of both sides, as in jax.nn.")
tanh = _rule(
    "tanh", "q = tanh p, σ′ = (1 - q)(1 + q)", jnp.tanh, lambda q: (1 - q) * (1 + q), "q",
    jnp.tanh, {"middle": at(0.0, 1.0), **_SATURATES})
hard_tanh = _rule(
    "hard_tanh", "q = min(max(p, -1), 1), σ′ = [-1 ≤ p ≤ 1]",
    _hard_tanh, lambda p: jnp.where((p < -1) | (p > 1), 0, 1), "p", jax.nn.hard_tanh,
    {"kink at -1": at(-1.0, 1.0, smooth=False), "kink at 1": at(1.0, 1.0, smooth=False)},
    "At ±1, σ′ = 1, as in jax.nn.")
soft_sign = _rule(
    "soft_sign", "q = p / (1 + |p|), σ′ = 1 / (1 + |p|)²",
    lambda p: p / (1 + _magnitude(p)), lambda p: 1 / (1 + _magnitude(p)) ** 2, "p", jax.nn.soft_sign,
    {"middle": at(0.0, 1.0, smooth=False), **_SATURATES} | {"saturated above": at(1e4, 1 / 10001**2),
     "saturated below": at(-1e4, 1 / 10001**2)},
    "From q, σ′ = (1 - |q|)² would lose its digits far out. σ″ jumps at 0.")
softplus = _rule(
    "softplus", "q = log(1 + eᵖ), σ′ = 1 - e^(-q)", _softplus, lambda q: -jnp.expm1(-q), "q",
    jax.nn.softplus, {**_MIDDLE, **_LINEAR_ABOVE})
squareplus = _rule(
    "squareplus", "q = (p + √(p² + b)) / 2, σ′ = q / (q + b / (4q))",
    _squareplus, lambda q, b: q / (q + b / (4 * q)), "q", jax.nn.squareplus,
    _MIDDLE,
    "b > 0. q - b / (4q) = p and q + b / (4q) = √(p² + b).", b=(4.0, 0.5))
sparse_plus = _rule(
    "sparse_plus", "q = 0, (p + 1)² / 4 or p, for p ≤ -1, between, and ≥ 1, σ′ = min(√q, 1)",
    _sparse_plus, _sparse_plus_derivative, "q", jax.nn.sparse_plus,
    {"joint at -1": at(-1.0, 0.0, smooth=False), "joint at 1": at(1.0, 1.0, smooth=False)},
    "σ″ jumps at ±1.")
silu = _rule(
    "silu", "q = p s, s = 1 / (1 + e⁻ᵖ), σ′ = s (1 + p (1 - s))", _silu, _silu_derivative, "p",
    jax.nn.silu, {**_MIDDLE, **_LINEAR_ABOVE})
hard_silu = _rule(
    "hard_silu", "q = 0, p (p + 3) / 6 or p, for p ≤ -3, between, and ≥ 3, σ′ = 0, (2 p + 3) / 6 or 1",
    _hard_silu, _hard_silu_derivative, "p", jax.nn.hard_silu,
    {"kink at -3": at(-3.0, 0.0, smooth=False), "kink at 3": at(3.0, 1.0, smooth=False), **_LINEAR_ABOVE},
    "At -3 and 3, σ′ = 0 and 1, the outer sides, as in jax.nn. Also called hard_swish.")
mish = _rule(
    "mish", "q = p t, t = tanh(log(1 + eᵖ)), σ′ = t + p (1 - t)(1 + t) / (1 + e⁻ᵖ)",
    _mish, _mish_derivative, "p", jax.nn.mish, {"middle": at(0.0, 0.6), **_LINEAR_ABOVE})
gelu = _rule(
    "gelu", "q = p Φ(p), σ′ = Φ(p) + p Φ′(p)", _gelu, _gelu_derivative, "p",
    jax.nn.gelu, {**_MIDDLE, **_LINEAR_ABOVE},
    "Φ is the normal distribution function, or, with `approximate` (the default, as in jax.nn), "
    "½ (1 + tanh √(2/π) (p + 0.044715 p³)).", approximate=(True, False))
# fmt: on
