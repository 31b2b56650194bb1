"""Norms of vectors and matrices by their entries: 0 at 0, where autodiff has NaN.

Numbers in brackets are equations of the Matrix Cookbook (Petersen and Pedersen, 15 November 2012).
"""

import math
from typing import Any

import jax
from jax import lax
from jax import numpy as jnp

from ...domains import Normal, Point
from ._algebra import scaled
from ._identity import identity

_AT_0 = {"x": 0.0}
_ZERO = {"0": Point(_AT_0, _AT_0, agrees=False, why="the least subgradient; NaN in JAX", smooth=False)}


def _magnitude(x: jax.Array) -> jax.Array:
    # x sign x has the slope sign x, 0 at 0; |x| has 1 there in JAX.
    return x * jnp.sign(x)


def _power_norm(x: jax.Array, p: float, axes: tuple[int, ...]) -> jax.Array:
    """(Σ |x|ᵖ)^(1/p) without overflow and with slope 0 at 0."""
    # Any scale is right, so that its own derivative is none.
    size = lax.stop_gradient(jnp.max(jnp.abs(x), axes, keepdims=True, initial=0))
    y = x / jnp.where(size == 0, 1, size)
    total = jnp.sum(y * y if p == 2 else _magnitude(y) ** p, axes, keepdims=True)
    zero = total == 0
    root = jnp.where(zero, 1, total)
    root = jnp.sqrt(root) if p == 2 else root ** (1 / p)
    return jnp.squeeze(size * jnp.where(zero, 0, root), axes)


def _unit(x: jax.Array, norm: jax.Array) -> jax.Array:
    norm = jnp.reshape(norm, norm.shape + (1,) * (x.ndim - norm.ndim))
    return x / jnp.where(norm == 0, 1, norm)


def _vector_norm(x: jax.Array, *, ord: float = 2.0) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    if not ord >= 1:
        raise ValueError(
            f"vector_norm: static option `ord` must be 1 or more (inf too) to be a norm, got {ord}."
        )
    if ord == 1:
        norm = jnp.sum(_magnitude(x), -1)
    elif math.isinf(ord):
        norm = jnp.max(_magnitude(x), -1, initial=0)
    else:
        norm = _power_norm(x, ord, (-1,))
    return norm, (x, norm)


def _vector_norm_pullback(
    ct: jax.Array, x: jax.Array, norm: jax.Array, *, ord: float = 2.0
) -> tuple[jax.Array]:
    if ord == 1:
        slope = jnp.sign(x)
    elif math.isinf(ord):
        top = jnp.sign(x) * (_magnitude(x) == norm[..., None])
        slope = top / jnp.maximum(jnp.sum(jnp.abs(top), -1, keepdims=True), 1)
    elif ord == 2:
        slope = _unit(x, norm)
    else:
        slope = jnp.sign(x) * _magnitude(_unit(x, norm)) ** (ord - 1)
    return (scaled(ct, slope),)


vector_norm = identity(
    "vector_norm",
    "The p-norm of a vector, as `jnp.linalg.vector_norm`; p is called ord.",
    "C = (Σ |x_i|ᵖ)^(1/p), Σ |x_i| for p = 1, max |x_i| for p = ∞",
    "Cᵖ⁻¹ dC = Σ |x_i|ᵖ⁻¹ sign(x_i) dx_i",
    "x̄ = C̄ sign(x) ⊙ (|x| / C)ᵖ⁻¹: x / C for p = 2, sign x for p = 1, sign(x_k) e_k for p = ∞",
    _vector_norm,
    _vector_norm_pullback,
    axes="x: n",
    points=_ZERO,
    settings=({"ord": 1.0}, {"ord": 3.0}, {"ord": math.inf}),
    reference=lambda x, ord=2.0: (
        jnp.linalg.norm(x, ord=ord, axis=-1) if x.shape[-1] else jnp.zeros(x.shape[:-1], x.dtype)
    ),
    source="Cookbook (129)-(131); ChainRules norm.jl",
    saves="x, C",
    note="At x = 0 the cotangent is 0, the least subgradient (NaN in JAX for p = 2). For p = 1 entries that "
    "are 0 have slope 0 (1 in JAX); for p = ∞ entries of equal magnitude share alike, as in JAX. "
    "Neither overflows nor underflows before the result does.",
)


def _frobenius(x: jax.Array) -> tuple[jax.Array, tuple[Any, ...]]:
    norm = _power_norm(x, 2, (-2, -1))
    return norm, (x, norm)


frobenius_norm = identity(
    "frobenius_norm",
    "The Frobenius norm of a matrix.",
    "C = ‖X‖_F = √(X : X)",
    "C dC = X : dX",
    "X̄ = C̄ X / C",
    _frobenius,
    lambda ct, x, norm: (scaled(ct, _unit(x, norm)),),
    axes="x: m n",
    domain={"x": Normal()},
    points=_ZERO,
    reference=lambda x: jnp.sqrt(jnp.sum(jnp.square(x), (-1, -2))),
    source="Cookbook (132)",
    saves="X, C",
    note="At X = 0 the cotangent is 0, the least subgradient.",
)
