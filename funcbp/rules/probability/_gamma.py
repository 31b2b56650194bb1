"""log Γ to the last digits of float32, where XLA's is off by 1e-6, which is all there is near 1 and 2."""

import math

import jax
import numpy as np
from jax import lax
from jax import numpy as jnp

__all__ = ["log_gamma"]

_TERMS = 16  # of the series at 2, in which |z| ≤ ½: the k-th is below 4⁻ᵏ
_LARGE = 8.5


def _zeta_less_one(k: int, n: int = 20) -> float:
    """ζ(k) - 1: a sum, and what is left of it by Euler and Maclaurin."""
    return sum(i**-k for i in range(2, n)) + n ** (1 - k) / (k - 1) + n**-k / 2 + k * n ** (-k - 1) / 12


_SERIES = [(-1) ** k * _zeta_less_one(k) / k for k in range(_TERMS, 1, -1)] + [1 - float(np.euler_gamma), 0.0]


def log_gamma(x: jax.Array) -> jax.Array:
    """log Γ(x) for x > 0, elementwise; `lax.lgamma` in float64.

    Below 8.5 from the series at 2, log Γ(2 + z) = (1 - γ) z + Σ_(k≥2) (-1)ᵏ (ζ(k) - 1) zᵏ / k with |z| ≤ ½
    (Abramowitz, Stegun 6.1.33), and Γ(x + 1) = x Γ(x).

    >>> float(log_gamma(jnp.float32(1.0))), float(log_gamma(jnp.float32(2.0)))
    (0.0, 0.0)
    """
    if x.dtype == jnp.float64:
        return lax.lgamma(x)
    small = jnp.where(x < _LARGE, x, 2)
    steps = lax.stop_gradient(jnp.round(small)) - 2
    series = jnp.polyval(jnp.asarray(_SERIES, x.dtype), small - 2 - steps)
    up = math.prod(jnp.where(steps >= i, small - i, 1) for i in range(1, 7))
    down = math.prod(jnp.where(steps <= -i, small + (i - 1), 1) for i in (1, 2))
    return jnp.where(x < _LARGE, series + jnp.log(up) - jnp.log(down), lax.lgamma(x))
