"""What the normalizations share: they differ in the axes of their means, and in whether x is centered.

With ⟨·⟩ the mean over those axes, a = x - μ where x is centered and a = x where it is not,

    r = (⟨a²⟩ + ε)^(-1/2)      x̂ = r a      dr = -r² ⟨x̂ ⊙ da⟩      dx̂ = r (da - x̂ ⟨x̂ ⊙ da⟩)

for every ε. As a matrix, r (I - x̂x̂ᵀ/n) is symmetric, and so is centering, I - 11ᵀ/n: the pullback is the same
two maps, the other way round. They commute, because ⟨x̂⟩ = 0 where x is centered:

    x̄ = r (g - x̂ ⟨x̂ ⊙ g⟩)      with g - ⟨g⟩ for g where x is centered

Where ⟨a²⟩ + ε is 0 (a constant or zero row with ε = 0) x̂ is 0/0: here x̂ = 0 and x̄ = 0, autodiff has NaN.
"""

import math
from collections.abc import Sequence

import jax
from jax import lax
from jax import numpy as jnp

from ..._numerics import upcast
from ...factors import Elementwise, Factor, Total

__all__ = [
    "affine",
    "affine_pullback",
    "centered",
    "inverse_root",
    "mean_over",
    "scaling_ct",
    "standardized",
]

Axes = int | Sequence[int]


def mean_over(x: jax.Array, axes: Axes) -> jax.Array:
    """The mean over `axes`, which stay as axes of size one; 0 for the mean of nothing."""
    axes = (axes,) if isinstance(axes, int) else tuple(axes)
    count = math.prod(x.shape[axis] for axis in axes)
    return jnp.sum(x, axis=axes, keepdims=True) / max(count, 1)


def centered(x: jax.Array, axes: Axes) -> jax.Array:
    """x - ⟨x⟩; its own pullback."""
    return x - mean_over(x, axes)


def inverse_root(square: jax.Array) -> jax.Array:
    """s^(-1/2), and 0 at 0, where its derivative is 0, too."""
    positive = square > 0
    return jnp.where(positive, lax.rsqrt(jnp.where(positive, square, 1)), 0)


def standardized(x: jax.Array, axes: Axes, eps: float) -> tuple[jax.Array, jax.Array, jax.Array]:
    """x̂, μ and the variance σ²."""
    mean = mean_over(x, axes)
    variance = mean_over(jnp.square(x - mean), axes)
    return inverse_root(variance + eps) * (x - mean), mean, variance


def scaling_ct(g: jax.Array, x_hat: jax.Array, r: jax.Array, axes: Axes) -> jax.Array:
    """r (g - x̂ ⟨x̂ ⊙ g⟩)."""
    return r * (g - x_hat * mean_over(x_hat * g, axes))


def affine(x_hat: jax.Array, gain: jax.Array | None, bias: jax.Array | None) -> jax.Array:
    """y = γ ⊙ x̂ + β, where they are."""
    y = x_hat if gain is None else upcast(gain) * x_hat
    return y if bias is None else y + upcast(bias)


def affine_pullback(
    ct: jax.Array, x_hat: jax.Array, gain: jax.Array | None, bias: jax.Array | None
) -> tuple[jax.Array, Factor | None, Factor | None]:
    """g = γ ⊙ ȳ, and the factors of γ and β: γ̄ = Σ x̂ ⊙ ȳ, β̄ = Σ ȳ."""
    return (
        ct if gain is None else upcast(gain) * ct,
        None if gain is None else Elementwise(x_hat, ct),
        None if bias is None else Total(ct),
    )
