"""Half precision, stated once.

Elementwise work is in float32, products are accumulated in float32, and there is one rounding at the end.
"""

import functools

import jax
from jax import lax
from jax import numpy as jnp

__all__ = ["accumulator", "contracted", "matmul", "upcast"]


def accumulator(*arrays: jax.Array) -> jnp.dtype:
    """The dtype in which to accumulate: the arrays' common dtype, but float32 at least.

    >>> accumulator(jnp.ones(2, jnp.bfloat16)), accumulator(jnp.ones(2, jnp.float32))
    (dtype('float32'), dtype('float32'))
    """
    return jnp.promote_types(jnp.result_type(*arrays), jnp.float32)


def upcast(x: jax.Array) -> jax.Array:
    """`x` in float32 at least; float32 and float64 pass through."""
    return x.astype(accumulator(x))


def matmul(a: jax.Array, b: jax.Array) -> jax.Array:
    """`a @ b`, operands left as they are, accumulated and returned in float32 at least."""
    dtype = accumulator(a, b)
    if dtype == a.dtype == b.dtype:
        return jnp.matmul(a, b)
    # On the CPU XLA has no batched product of 16-bit numbers with a float32 result; vmap may batch this one.
    return lax.platform_dependent(
        a,
        b,
        cpu=lambda a, b: jnp.matmul(a.astype(dtype), b.astype(dtype)),
        default=lambda a, b: jnp.matmul(a, b, preferred_element_type=dtype),
    )


def contracted(subscripts: str, a: jax.Array, b: jax.Array) -> jax.Array:
    """`jnp.einsum` of two arrays, left as they are, accumulated and returned in float32 at least."""
    dtype = accumulator(a, b)
    product = functools.partial(jnp.einsum, subscripts, preferred_element_type=dtype)
    if dtype == a.dtype == b.dtype:
        return product(a, b)
    # On the CPU XLA has no batched product of 16-bit numbers with a float32 result.
    return lax.platform_dependent(
        a, b, cpu=lambda a, b: product(a.astype(dtype), b.astype(dtype)), default=product
    )
