"""References of LAPACK's functions, in another basis.

LAPACK's error is as large as the matrix is, in small entries too. A reference that goes through another basis
rounds like that, and a verifier that measures rounding then allows what is right.
"""

import jax
from jax import numpy as jnp
from jax.scipy import linalg as jsl

from ._algebra import T

__all__ = [
    "eigh_reference",
    "in_another_basis",
    "lstsq_reference",
    "pinv_reference",
    "reflection",
    "svd_reference",
]


def reflection(n: int, dtype: jnp.dtype) -> jax.Array:
    """I - 2 1 1ᵀ / n: symmetric, and its own inverse."""
    return jnp.eye(n, dtype=dtype) - 2 / max(n, 1) * jnp.ones((n, n), dtype)


def in_another_basis(x: jax.Array) -> jax.Array:
    """P X Q with reflections P, Q."""
    return reflection(x.shape[-2], x.dtype) @ x @ reflection(x.shape[-1], x.dtype)


def eigh_reference(s: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Eigenvalues and eigenvectors."""
    w, v = jnp.linalg.eigh(in_another_basis(s))
    return w, reflection(s.shape[-1], s.dtype) @ v


def svd_reference(x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The thin singular value decomposition."""
    u, s, vt = jnp.linalg.svd(in_another_basis(x), full_matrices=False)
    return reflection(x.shape[-2], x.dtype) @ u, s, vt @ reflection(x.shape[-1], x.dtype)


def pinv_reference(x: jax.Array) -> jax.Array:
    """X⁺ of full rank by a QR factorization."""
    if x.shape[-2] < x.shape[-1]:
        return T(pinv_reference(T(x)))
    q, r = jnp.linalg.qr(in_another_basis(x))
    return in_another_basis(jsl.solve_triangular(r, T(q)))


def lstsq_reference(x: jax.Array, y: jax.Array) -> jax.Array:
    """X⁺ Y of full column rank."""
    return pinv_reference(x) @ y
