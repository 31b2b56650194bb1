"""Elementwise functions q = σ(p): one line a function.

Forward, elementwise:     q = σ(p)
Backward, elementwise:    p̄ = σ′(p) ⊙ q̄

Derivation. dq = σ′(p) ⊙ dp, so q̄ : dq = (σ′(p) ⊙ q̄) : dp; the Jacobian Diag(σ′(p)) is symmetric.

Each line says what is saved: `q` where σ′ can be had from it (the array is alive anyway, as the next layer's
input), else `p`. Half precision is computed in float32 and rounded once at the end.
"""

import functools
import math
from collections.abc import Callable, Hashable, Mapping
from typing import Any

import jax
from jax import lax
from jax import numpy as jnp
from jaxtyping import Array, Float

from ..._numerics import upcast
from ..._rule import Rule
from ...domains import Normal, Point
from .._checks import check_cotangent

X = Float[Array, "*shape"]


def _elementwise(
    name: str,
    formula: str,
    sigma: Callable[[jax.Array], jax.Array],
    derivative: Callable[[jax.Array], jax.Array],
    saves: str,
    reference: Callable[..., jax.Array],
    points: Mapping[str, Point] | None = None,
    note: str = "",
) -> Rule:
    """The rule of one function; `derivative` takes what `saves` names, `"p"` or `"q"`."""

    def fwd(p: X) -> tuple[X, X]:
        q = sigma(upcast(p)).astype(p.dtype)
        return q, q if saves == "q" else p

    def bwd(residuals: X, q_ct: X) -> tuple[X]:
        check_cotangent(name, q_ct, residuals.shape, residuals.dtype)
        return ((derivative(upcast(residuals)) * upcast(q_ct)).astype(q_ct.dtype),)

    return _named(name, formula, fwd, bwd, saves, reference, points, note=note)


def _named(
    name: str,
    formula: str,
    fwd: Any,
    bwd: Any,
    saves: str,
    reference: Callable[..., jax.Array],
    points: Mapping[str, Point] | None = None,
    settings: tuple[Mapping[str, Hashable], ...] = (),
    note: str = "",
) -> Rule:
    fwd.__name__, bwd.__name__ = f"{name}_fwd", f"{name}_bwd"
    saved = f"Saves {saves or 'nothing'}."
    fwd.__doc__ = " ".join(filter(None, (f"{formula}, elementwise; p̄ = σ′ ⊙ q̄.", saved, note)))
    domain = {"p": Normal(2.0)}
    return Rule(
        fwd,
        bwd,
        reference=reference,
        domain=domain,
        points=points,
        settings=settings,
        formula=formula,
        saves=saves,
    )


def _decaying(p: jax.Array) -> jax.Array:
    """e^(-|p|), which never overflows.

    One of two branches, not `abs`, for whose derivative at 0 JAX takes 1: that is wrong on either branch once
    another term of p is added. What else depends on the sign of p takes the same branch at 0.
    """
    return jnp.exp(jnp.where(p > 0, -p, p))


def _logistic(p: jax.Array) -> jax.Array:
    # e / (1 + e) loses nothing where it is small.
    e = _decaying(p)
    return jnp.where(p > 0, 1, e) / (1 + e)


def _softplus(p: jax.Array) -> jax.Array:
    return _relu(p) + jnp.log1p(_decaying(p))


def _relu(p: jax.Array) -> jax.Array:
    # Not `maximum`, whose derivative at 0 is ½ in JAX; in this order NaN passes.
    return jnp.where(p <= 0, 0, p)


def _silu(p: jax.Array) -> jax.Array:
    return p * _logistic(p)


def _silu_derivative(p: jax.Array) -> jax.Array:
    # s and 1 - s from one exponential, neither as a difference.
    e = _decaying(p)
    s, rest = jnp.where(p > 0, 1, e) / (1 + e), jnp.where(p > 0, e, 1) / (1 + e)
    return s * (1 + p * rest)


def _gelu_fwd(p: X, *, approximate: bool = True) -> tuple[X, X]:
    x = upcast(p)
    q = x * _gaussian_cdf_by_tanh(x)[0] if approximate else x * _gaussian_cdf(x)
    return q.astype(p.dtype), p


def _gelu_bwd(residuals: X, q_ct: X, *, approximate: bool = True) -> tuple[X]:
    check_cotangent("gelu", q_ct, residuals.shape, residuals.dtype)
    p = upcast(residuals)
    cdf, density = _gaussian_cdf_by_tanh(p) if approximate else (_gaussian_cdf(p), _gaussian_density(p))
    return (((cdf + p * density) * upcast(q_ct)).astype(q_ct.dtype),)


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


def _identity_fwd(p: X) -> tuple[X, tuple[()]]:
    return p, ()


def _identity_bwd(residuals: tuple[()], q_ct: X) -> tuple[X]:
    del residuals
    check_cotangent("identity", q_ct)
    return (q_ct,)


def _at(p: float, ct: float, why: str = "", smooth: bool = True) -> Point:
    return Point({"p": p}, {"p": ct}, why=why, smooth=smooth)


_MIDDLE = {"middle": _at(0.0, 0.5)}
_SATURATES = {"saturated above": _at(1e4, 0.0), "saturated below": _at(-1e4, 0.0)}
_LINEAR_ABOVE = {"large": _at(1e4, 1.0), "far below": _at(-1e4, 0.0)}

# fmt: off
identity = _named(
    "identity", "q = p, σ′ = 1", _identity_fwd, _identity_bwd, "", lambda p: p)
relu = _elementwise(
    "relu", "q = max(p, 0), σ′ = [q > 0]", _relu, lambda q: jnp.where(q > 0, 1, 0), "q", jax.nn.relu,
    {"kink at 0": _at(0.0, 0.0, "as jax.nn.relu; jnp.maximum(p, 0) has ½", smooth=False)}, "At 0, σ′ = 0.")
sigmoid = _elementwise(
    "sigmoid", "q = 1 / (1 + e⁻ᵖ), σ′ = q (1 - q)", _logistic, lambda q: q * (1 - q), "q",
    jax.nn.sigmoid, {"middle": _at(0.0, 0.25), **_SATURATES})
tanh = _elementwise(
    "tanh", "q = tanh p, σ′ = (1 - q)(1 + q)", jnp.tanh, lambda q: (1 - q) * (1 + q), "q",
    jnp.tanh, {"middle": _at(0.0, 1.0), **_SATURATES})
softplus = _elementwise(
    "softplus", "q = log(1 + eᵖ), σ′ = 1 - e^(-q)", _softplus, lambda q: -jnp.expm1(-q), "q",
    jax.nn.softplus, {**_MIDDLE, **_LINEAR_ABOVE})
silu = _elementwise(
    "silu", "q = p s, s = 1 / (1 + e⁻ᵖ), σ′ = s (1 + p (1 - s))", _silu, _silu_derivative, "p",
    jax.nn.silu, {**_MIDDLE, **_LINEAR_ABOVE})
gelu = _named(
    "gelu", "q = p Φ(p), σ′ = Φ(p) + p Φ′(p)", _gelu_fwd, _gelu_bwd, "p",
    jax.nn.gelu, {**_MIDDLE, **_LINEAR_ABOVE}, ({"approximate": False},),
    "Φ is the normal distribution function, or, with `approximate` (the default, as in jax.nn), "
    "½ (1 + tanh √(2/π) (p + 0.044715 p³)).")
sin = _elementwise(
    "sin", "q = sin p, σ′ = cos p", jnp.sin, jnp.cos, "p",
    jnp.sin)
square = _elementwise(
    "square", "q = p², σ′ = 2 p", lambda p: p * p, lambda p: 2 * p, "p",
    jnp.square, {"bottom": _at(0.0, 0.0)})
# fmt: on
