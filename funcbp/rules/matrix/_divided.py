"""Functions of a symmetric matrix by divided differences: right where eigenvalues are equal.

With S = V Diag(λ) Vᵀ, f(S) = V Diag(f(λ)) Vᵀ, and (Daleckii and Krein; Higham, Functions of Matrices, theorem
3.11) df(S) = V (f[λ_i, λ_j] ⊙ Vᵀ dS V) Vᵀ with the divided differences f[a, b] = (f(a) - f(b)) / (a - b),
which tend to f′(a) where b does to a. Nothing is singular there. The derivative that goes through the
eigenvectors has the factor 1 / (a - b): NaN at a = b; and to set that factor to 0, as is often done, drops
f′(a) off the diagonal, silently.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
from jax import numpy as jnp

from ._algebra import T, derived, diag, sym

__all__ = ["Spectral"]

Number = Callable[..., jax.Array]


@dataclass(frozen=True)
class Spectral:
    """A function of one number, as functions of symmetric matrices need it.

    Attributes:
        value: f(a).
        difference: f[a, b], without cancellation, and f′(a) at a = b.
        second: f″(a).
    """

    value: Number
    difference: Number
    second: Number

    def apply(self, s: jax.Array, w: jax.Array, v: jax.Array) -> jax.Array:
        """f(S) with eigenvalues and eigenvectors of S; its derivative is right at every S."""

        def tangent(ds: jax.Array, s: jax.Array) -> jax.Array:
            return self._moved(ds, *jnp.linalg.eigh(s))

        return derived(_conjugated(v, diag(self.value(w))), s, tangent)

    def derivative(self, e: jax.Array, s: jax.Array, w: jax.Array, v: jax.Array) -> jax.Array:
        """df(S) for dS the symmetric part of E: its own adjoint; its derivative is right at every S."""

        def tangent(moved: Any, at: Any) -> jax.Array:
            (de, ds), (e, s) = moved, at
            w, v = jnp.linalg.eigh(s)
            return self._moved(de, w, v) + self._twice(e, ds, w, v)

        return derived(self._moved(e, w, v), (e, s), tangent)

    def _moved(self, e: jax.Array, w: jax.Array, v: jax.Array) -> jax.Array:
        return _conjugated(v, self.difference(w[..., :, None], w[..., None, :]) * _rotated(v, e))

    def _twice(self, e: jax.Array, ds: jax.Array, w: jax.Array, v: jax.Array) -> jax.Array:
        """The second derivative: with E, H for dS, in the basis of eigenvectors, the entry i, j is
        Σ_k f[λ_i, λ_k, λ_j] (E_ik H_kj + H_ik E_kj)."""
        e, h = _rotated(v, e), _rotated(v, ds)
        products = e[..., :, :, None] * h[..., None, :, :] + h[..., :, :, None] * e[..., None, :, :]
        return _conjugated(v, jnp.sum(self._second_table(w) * products, -2))

    def _second_table(self, w: jax.Array) -> jax.Array:
        a, b, c = jnp.broadcast_arrays(w[..., :, None, None], w[..., None, :, None], w[..., None, None, :])
        low, middle, high = jnp.moveaxis(jnp.sort(jnp.stack([a, b, c], -1), -1), -1, 0)
        # Symmetric in its arguments: the two that are furthest apart go into the divisor.
        gap = high - low
        near = gap <= jnp.finfo(w.dtype).eps ** 0.25 * (jnp.abs(low) + jnp.abs(high))
        quotient = (self.difference(high, middle) - self.difference(middle, low)) / jnp.where(near, 1, gap)
        return jnp.where(near, self.second((low + middle + high) / 3) / 2, quotient)


def _conjugated(v: jax.Array, a: jax.Array) -> jax.Array:
    return v @ a @ T(v)


def _rotated(v: jax.Array, a: jax.Array) -> jax.Array:
    return T(v) @ sym(a) @ v
