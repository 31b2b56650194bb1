"""Elementary functions q = σ(p) of every element; `_table.py` says what becomes of a line."""

import functools
import math

import jax
from jax import lax
from jax import numpy as jnp

from ...domains import Positive, Uniform
from ._table import at, elementwise


def _log1mexp(p: jax.Array) -> jax.Array:
    # Each branch where it loses nothing (Mächler 2012); in the other it is fed a number that does no harm.
    near = p < math.log(2)
    small, large = jnp.where(near, p, 1), jnp.where(near, 1, p)
    return jnp.where(near, jnp.log(-jnp.expm1(-small)), jnp.log1p(-jnp.exp(-large)))


def _power_derivative(p: jax.Array, exponent: float) -> jax.Array:
    return exponent * jnp.power(p, exponent - 1) if exponent else jnp.zeros_like(p)


_rule = functools.partial(elementwise, __name__)
_POSITIVE, _MODERATE, _INSIDE = Positive(), Uniform(-4.0, 4.0), Uniform(-0.95, 0.95)

# fmt: off
exp = _rule("exp", "q = eᵖ, σ′ = q", jnp.exp, lambda q: q, "q", jnp.exp, domain=_MODERATE)
expm1 = _rule(
    "expm1", "q = eᵖ - 1, σ′ = q + 1", jnp.expm1, lambda q: q + 1, "q", jnp.expm1, domain=_MODERATE)
log = _rule("log", "q = log p, σ′ = 1 / p", jnp.log, lambda p: 1 / p, "p", jnp.log, domain=_POSITIVE)
log1p = _rule(
    "log1p", "q = log(1 + p), σ′ = 1 / (1 + p)", jnp.log1p, lambda p: 1 / (1 + p), "p", jnp.log1p,
    {"at 0": at(0.0, 1.0)}, domain=_POSITIVE)
log1mexp = _rule(
    "log1mexp", "q = log(1 - e⁻ᵖ), σ′ = 1 / (eᵖ - 1)",
    _log1mexp, lambda p: 1 / jnp.expm1(p), "p", jax.nn.log1mexp, domain=_POSITIVE)
logit = _rule(
    "logit", "q = log(p / (1 - p)), σ′ = 1 / (p (1 - p))",
    lambda p: jnp.log(p / (1 - p)), lambda p: 1 / (p * (1 - p)), "p", jax.scipy.special.logit,
    domain=Uniform(0.02, 0.98))
sqrt = _rule(
    "sqrt", "q = √p, σ′ = 1 / (2q)", jnp.sqrt, lambda q: 1 / (2 * q), "q", jnp.sqrt,
    note="At 0, σ′ = ∞.", domain=_POSITIVE)
rsqrt = _rule(
    "rsqrt", "q = 1 / √p, σ′ = -1 / (2 p √p)", lax.rsqrt, lambda p: -lax.rsqrt(p) / (2 * p), "p", lax.rsqrt,
    note="From q, σ′ = -q³ / 2 would have three times the rounding error of q.", domain=_POSITIVE)
cbrt = _rule(
    "cbrt", "q = ∛p, σ′ = 1 / (3q²)", jnp.cbrt, lambda q: 1 / (3 * q * q), "q", jnp.cbrt,
    note="At 0, σ′ = ∞.", domain=_POSITIVE)
reciprocal = _rule(
    "reciprocal", "q = 1 / p, σ′ = -q²", lambda p: 1 / p, lambda q: -q * q, "q", jnp.reciprocal,
    domain=_POSITIVE)
square = _rule(
    "square", "q = p², σ′ = 2 p", lambda p: p * p, lambda p: 2 * p, "p", jnp.square, {"bottom": at(0.0, 0.0)})
power = _rule(
    "power", "q = pⁿ, σ′ = n pⁿ⁻¹",
    lambda p, exponent: jnp.power(p, exponent), _power_derivative, "p",
    lambda p, exponent=2.0: jnp.power(p, exponent), {"at 0": at(0.0, 0.0)},
    "n is `exponent`, fixed at trace time. For n = 0, σ′ = 0 everywhere.",
    _POSITIVE, exponent=(2.0, 1.0, 0.0, -1.5))
absolute = _rule(
    "absolute", "q = |p|, σ′ = sign p", lambda p: p * jnp.sign(p), jnp.sign, "p", jnp.abs,
    {"kink at 0": at(0.0, 0.0, "0 by symmetry; jnp.abs has 1", smooth=False, agrees=False)},
    "At 0, σ′ = 0, the least of the subgradients; jnp.abs has 1.")
sin = _rule("sin", "q = sin p, σ′ = cos p", jnp.sin, jnp.cos, "p", jnp.sin)
cos = _rule("cos", "q = cos p, σ′ = -sin p", jnp.cos, lambda p: -jnp.sin(p), "p", jnp.cos)
tan = _rule(
    "tan", "q = tan p, σ′ = 1 + q²", jnp.tan, lambda q: 1 + q * q, "q", jnp.tan, domain=Uniform(-1.4, 1.4))
arcsin = _rule(
    "arcsin", "q = arcsin p, σ′ = 1 / √((1 - p)(1 + p))",
    jnp.arcsin, lambda p: lax.rsqrt((1 - p) * (1 + p)), "p", jnp.arcsin, domain=_INSIDE)
arccos = _rule(
    "arccos", "q = arccos p, σ′ = -1 / √((1 - p)(1 + p))",
    jnp.arccos, lambda p: -lax.rsqrt((1 - p) * (1 + p)), "p", jnp.arccos, domain=_INSIDE)
arctan = _rule(
    "arctan", "q = arctan p, σ′ = 1 / (1 + p²)", jnp.arctan, lambda p: 1 / (1 + p * p), "p", jnp.arctan)
sinh = _rule(
    "sinh", "q = sinh p, σ′ = cosh p = √(1 + q²)", jnp.sinh, lambda q: jnp.sqrt(1 + q * q), "q", jnp.sinh,
    domain=_MODERATE)
cosh = _rule("cosh", "q = cosh p, σ′ = sinh p", jnp.cosh, jnp.sinh, "p", jnp.cosh, domain=_MODERATE)
arcsinh = _rule(
    "arcsinh", "q = arsinh p, σ′ = 1 / √(1 + p²)", jnp.arcsinh, lambda p: lax.rsqrt(1 + p * p), "p",
    jnp.arcsinh)
arccosh = _rule(
    "arccosh", "q = arcosh p, σ′ = 1 / √((p - 1)(p + 1))",
    jnp.arccosh, lambda p: lax.rsqrt((p - 1) * (p + 1)), "p", jnp.arccosh, domain=Uniform(1.1, 5.0))
arctanh = _rule(
    "arctanh", "q = artanh p, σ′ = 1 / ((1 - p)(1 + p))",
    jnp.arctanh, lambda p: 1 / ((1 - p) * (1 + p)), "p", jnp.arctanh, domain=_INSIDE)
erf = _rule(
    "erf", "q = erf p, σ′ = 2 e^(-p²) / √π",
    lax.erf, lambda p: 2 / math.sqrt(math.pi) * jnp.exp(-p * p), "p", lax.erf)
erfc = _rule(
    "erfc", "q = 1 - erf p, σ′ = -2 e^(-p²) / √π",
    lax.erfc, lambda p: -2 / math.sqrt(math.pi) * jnp.exp(-p * p), "p", lax.erfc)
# fmt: on
