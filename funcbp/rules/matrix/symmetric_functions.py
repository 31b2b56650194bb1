"""Functions of a symmetric matrix: one line a function, right also where eigenvalues are equal.

All have the same backward pass, S̄ = V (f[λ_i, λ_j] ⊙ Vᵀ sym(Z̄) V) Vᵀ with the divided differences f[a, b] =
(f(a) - f(b)) / (a - b), f[a, a] = f′(a). Each line gives them in a form in which nothing cancels.
"""

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax import numpy as jnp

from ..._rule import Rule
from ...domains import Domain, Point, PositiveDefinite, Symmetric
from ._algebra import in_float32, sym
from ._bases import eigh_reference
from ._divided import Spectral
from ._identity import identity


def _ratio(numerator: jax.Array, denominator: jax.Array, limit: Any) -> jax.Array:
    """numerator / denominator, and `limit` at 0 / 0."""
    zero = denominator == 0
    return jnp.where(zero, limit, numerator / jnp.where(zero, 1, denominator))


def _half_log_ratio(a: jax.Array, b: jax.Array) -> jax.Array:
    """½ log(a / b), exact also where a is near b."""
    return jnp.arctanh((a - b) / (a + b))


def _exp_difference(a: jax.Array, b: jax.Array) -> jax.Array:
    high, low = jnp.maximum(a, b), jnp.minimum(a, b)
    return jnp.exp(high) * _ratio(-jnp.expm1(low - high), high - low, 1)


def _log_difference(a: jax.Array, b: jax.Array) -> jax.Array:
    return _ratio(2 * _half_log_ratio(a, b), a - b, 1 / a)


def _power_difference(power: float) -> Callable[[jax.Array, jax.Array], jax.Array]:
    def difference(a: jax.Array, b: jax.Array) -> jax.Array:
        # a, b = m e^(±t): the difference of the powers is 2 mᵖ sinh(p t), that of the numbers 2 m sinh t.
        t = _half_log_ratio(a, b)
        return jnp.exp((power - 1) / 2 * (jnp.log(a) + jnp.log(b))) * _ratio(
            jnp.sinh(power * t), jnp.sinh(t), power
        )

    return difference


def _exp() -> Spectral:
    return Spectral(jnp.exp, _exp_difference, jnp.exp)


def _log() -> Spectral:
    return Spectral(jnp.log, _log_difference, lambda a: -1 / (a * a))


def _sqrt() -> Spectral:
    def difference(a: jax.Array, b: jax.Array) -> jax.Array:
        return 1 / (jnp.sqrt(a) + jnp.sqrt(b))

    return Spectral(jnp.sqrt, difference, lambda a: -1 / (4 * a * jnp.sqrt(a)))


def _inverse_sqrt() -> Spectral:
    def difference(a: jax.Array, b: jax.Array) -> jax.Array:
        return -1 / (jnp.sqrt(a) * jnp.sqrt(b) * (jnp.sqrt(a) + jnp.sqrt(b)))

    return Spectral(lambda a: 1 / jnp.sqrt(a), difference, lambda a: 3 / (4 * a * a * jnp.sqrt(a)))


def _power(*, power: float = 1.5) -> Spectral:
    def second(a: jax.Array) -> jax.Array:
        return power * (power - 1) * a ** (power - 2)

    return Spectral(lambda a: a**power, _power_difference(power), second)


def _diagonal(*values: float) -> Callable[[tuple[int, ...]], np.ndarray]:
    return lambda shape: np.broadcast_to(np.diag(values), shape)


def _by_eigenvectors(f: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    def reference(s: jax.Array, **options: Any) -> jax.Array:
        w, v = eigh_reference(s)
        return jnp.einsum("...ik,...k,...jk->...ij", v, f(w, **options), v)

    return reference


def spectral(
    name: str,
    function: str,
    differences: str,
    of: Callable[..., Spectral],
    f: Callable[..., Any],
    slope: Callable[[float], float],
    domain: Domain,
    note: str,
    settings: tuple[Mapping[str, Any], ...] = (),
) -> Rule:
    """The rule of one function f, whose derivative is `slope`; `of` says how to compute with it."""

    def forward(s: jax.Array, **options: Any) -> Any:
        w, v = jnp.linalg.eigh(s)
        return of(**options).apply(sym(s), w, v), (s, w, v)

    def backward(ct: jax.Array, s: jax.Array, w: jax.Array, v: jax.Array, **options: Any) -> Any:
        return (of(**options).derivative(ct, sym(s), w, v),)

    vars(forward)["__signature__"] = inspect.signature(of)
    vars(forward)["__module__"] = __name__

    def differences_at_1_1_2(shape: tuple[int, ...]) -> np.ndarray:
        across = float(f(jnp.asarray(2.0)) - f(jnp.asarray(1.0)))
        table = np.array([[slope(1.0), slope(1.0), across]] * 2 + [[across, across, slope(2.0)]])
        return np.broadcast_to(table, shape)

    equal = "finite and right; by way of eigenvectors it is NaN"
    return identity(
        name,
        f"{function} of a symmetric matrix, right also where eigenvalues are equal.",
        f"Z = {function} = V Diag(f(λ)) Vᵀ",
        f"dZ = V (f[λ_i, λ_j] ⊙ Vᵀ dS V) Vᵀ, with f[a, b] = {differences}",
        "S̄ = V (f[λ_i, λ_j] ⊙ Vᵀ sym(Z̄) V) Vᵀ",
        forward,
        backward,
        axes="s: n n",
        domain={"s": domain},
        settings=settings,
        sizes=({"n": 3},),
        points={
            "all eigenvalues equal": Point(
                {"s": _diagonal(1, 1, 1)}, {"s": slope(1.0)}, agrees=False, why=equal
            ),
            "two eigenvalues equal": Point(
                {"s": _diagonal(1, 1, 2)},
                {"s": differences_at_1_1_2},
                agrees=False,
                why=equal,
            ),
        },
        reference=in_float32(_by_eigenvectors(f)),
        source="Daleckii and Krein; Higham, Functions of Matrices, 3.11; ChainRules symmetric.jl",
        saves="S, λ, V",
        note=f"{note} A function of the symmetric part of S, so that S̄ is symmetric. The second derivative "
        "of the rule is right where eigenvalues are equal, too; that of `primal` is NaN there.",
    )


_POSITIVE = "For positive eigenvalues; at 0 the derivative is infinite."

expm_symmetric = spectral(
    "expm_symmetric",
    "exp S",
    "eᵃ (1 - e⁻ᵈ) / d, d = a - b",
    _exp,
    lambda a: jnp.exp(a),
    math.exp,
    Symmetric(),
    "",
)
logm_positive_definite = spectral(
    "logm_positive_definite",
    "log S",
    "2 artanh((a - b) / (a + b)) / (a - b)",
    _log,
    lambda a: jnp.log(a),
    lambda a: 1 / a,
    PositiveDefinite(),
    _POSITIVE,
)
sqrtm_positive_definite = spectral(
    "sqrtm_positive_definite",
    "S^½",
    "1 / (√a + √b)",
    _sqrt,
    lambda a: jnp.sqrt(a),
    lambda a: 0.5 / math.sqrt(a),
    PositiveDefinite(),
    _POSITIVE,
)
inverse_sqrtm_positive_definite = spectral(
    "inverse_sqrtm_positive_definite",
    "S^(-½)",
    "-1 / (√a √b (√a + √b))",
    _inverse_sqrt,
    lambda a: a**-0.5,
    lambda a: -0.5 * a**-1.5,
    PositiveDefinite(),
    "Whitening. " + _POSITIVE,
)
power_positive_definite = spectral(
    "power_positive_definite",
    "Sᵖ",
    "(a b)^((p - 1) / 2) sinh(p t) / sinh t, t = ½ log(a / b)",
    _power,
    lambda a, power=1.5: a**power,
    lambda a: 1.5 * a**0.5,
    PositiveDefinite(),
    _POSITIVE,
    ({"power": -1.0}, {"power": 0.25}),
)
