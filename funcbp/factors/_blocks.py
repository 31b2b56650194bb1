"""Blocks of examples: how many gradients may be held at once, and sums over blocks."""

from collections.abc import Callable
from typing import Any

import jax
from jax import lax
from jax import numpy as jnp

__all__ = ["block_length", "fold", "mapped"]

PyTree = Any


def block_length(arrays: PyTree, each: int) -> int:
    """How many results of `each` numbers take no more room than the arrays they are made from; at least one.

    >>> block_length(jnp.ones((8, 100)), 200), block_length(jnp.ones((8, 100)), 10_000)
    (4, 1)
    """
    return max(1, sum(a.size for a in jax.tree.leaves(arrays)) // max(1, each))


def mapped(function: Callable[[Any], jax.Array], tree: PyTree, block: int) -> jax.Array:
    """function(one) for every example, `block` of them at a time.

    >>> mapped(jnp.sum, jnp.ones((5, 3)), 2)
    Array([3., 3., 3., 3., 3.], dtype=float32)
    """
    if block >= jax.tree.leaves(tree)[0].shape[0]:
        return jax.vmap(function)(tree)
    return lax.map(function, tree, batch_size=block)


def fold(function: Callable[[Any], jax.Array], tree: PyTree, block: int) -> jax.Array:
    """Σ function(part) over parts of `block` examples; the last may be smaller.

    >>> fold(lambda x: x.sum(0), jnp.ones((5, 3)), 2)
    Array([5., 5., 5.], dtype=float32)
    """
    count = jax.tree.leaves(tree)[0].shape[0]
    whole, rest = divmod(count, block)
    if not whole or (whole == 1 and not rest):
        return function(tree)
    blocks = jax.tree.map(lambda a: a[: whole * block].reshape(whole, block, *a.shape[1:]), tree)
    first = jax.tree.map(lambda a: a[:block], tree)
    total = jnp.zeros_like(jax.eval_shape(function, first))
    total, _ = lax.scan(lambda carry, part: (carry + function(part), None), total, blocks)
    return total + function(jax.tree.map(lambda a: a[whole * block :], tree)) if rest else total
