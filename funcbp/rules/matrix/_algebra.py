"""The letters of the tables.

A matrix is the last two axes of an array, a vector the last one; all axes before them are a batch.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
from jax import numpy as jnp

from ..._numerics import upcast

__all__ = [
    "T",
    "derived",
    "diag",
    "diagonal",
    "dot",
    "identity_like",
    "in_float32",
    "inner",
    "mv",
    "outer",
    "scaled",
    "sym",
    "tr",
    "unvec",
    "vec",
]


def T(a: jax.Array) -> jax.Array:
    """Aᵀ."""
    return jnp.swapaxes(a, -1, -2)


def mv(a: jax.Array, x: jax.Array) -> jax.Array:
    """A x."""
    return (a @ x[..., None])[..., 0]


def dot(x: jax.Array, y: jax.Array) -> jax.Array:
    """xᵀ y."""
    return jnp.sum(x * y, -1)


def inner(a: jax.Array, b: jax.Array) -> jax.Array:
    """A : B = tr AᵀB."""
    return jnp.sum(a * b, (-1, -2))


def outer(x: jax.Array, y: jax.Array) -> jax.Array:
    """x yᵀ."""
    return x[..., :, None] * y[..., None, :]


def scaled(c: jax.Array, x: jax.Array) -> jax.Array:
    """c X, with one number c for each vector or matrix X."""
    return jnp.reshape(c, c.shape + (1,) * (x.ndim - c.ndim)) * x


def diagonal(a: jax.Array) -> jax.Array:
    """The diagonal of A as a vector."""
    return jnp.diagonal(a, axis1=-2, axis2=-1)


def diag(d: jax.Array) -> jax.Array:
    """Diag(d)."""
    return d[..., None] * jnp.eye(d.shape[-1], dtype=d.dtype)


def tr(a: jax.Array) -> jax.Array:
    """The trace of A."""
    return jnp.sum(diagonal(a), -1)


def sym(a: jax.Array) -> jax.Array:
    """The symmetric part ½(A + Aᵀ)."""
    return (a + T(a)) / 2


def identity_like(a: jax.Array) -> jax.Array:
    """I, as many as there are matrices in A."""
    return jnp.broadcast_to(jnp.eye(a.shape[-1], dtype=a.dtype), a.shape)


def vec(x: jax.Array) -> jax.Array:
    """vec X, which stacks the columns (Magnus and Neudecker), not the rows."""
    return T(x).reshape(*x.shape[:-2], x.shape[-1] * x.shape[-2])


def unvec(v: jax.Array, rows: int) -> jax.Array:
    """The matrix of so many rows whose vec is v."""
    return T(v.reshape(*v.shape[:-1], v.shape[-1] // max(rows, 1), rows))


def derived(value: Any, x: Any, tangent: Callable[..., Any]) -> Any:
    """`value` as a function of x, of which `tangent(dx, x)` is the whole derivative.

    The value comes from a factorization of x. Its own derivative may not exist where that of the function
    does (eigenvectors, where eigenvalues are equal), and is not asked for.
    """

    @jax.custom_jvp
    def constant(x: Any, value: Any) -> Any:
        del x
        return value

    def jvp(primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> tuple[Any, Any]:
        return constant(*primals), tangent(tangents[0], primals[0])

    constant.defjvp(jvp)
    return constant(x, value)


def in_float32(reference: Callable[..., Any]) -> Callable[..., Any]:
    """The same in float32 at least, rounded once: LAPACK has no 16-bit numbers."""

    @functools.wraps(reference)
    def rounded(*args: jax.Array, **options: Any) -> Any:
        out = reference(*map(upcast, args), **options)
        return jax.tree.map(lambda o: o.astype(args[0].dtype), out)

    return rounded
