"""A batch in equal parts, one after the other in a scan."""

from collections.abc import Callable
from typing import Any

import jax
from jax import lax
from jax import numpy as jnp

from ._signature import describe
from ._sweep import Batch

__all__ = ["accumulated", "check_microbatches"]

PyTree = Any


def accumulated(
    step: Callable[[Batch, PyTree, jax.Array | None], tuple[PyTree, PyTree, PyTree]],
    parts: int,
    batch: Batch,
    state: PyTree,
    key: jax.Array | None,
) -> tuple[PyTree, PyTree, PyTree]:
    """`step(part, state, key) -> (summed, joined, state)` over all parts.

    Args:
        step: what to do with a part; arrays of `joined` have the part's examples on their first axis.
        parts: how many.
        batch: all of it.
        state: of the network.
        key: each part gets one of its own.

    Returns:
        The sum of `summed`, `joined` for the whole batch, and the last state.
    """
    size = batch.weights.shape[0]
    _check_parts(batch, size, parts)

    def body(
        carry: tuple[PyTree, PyTree], each: tuple[Batch, jax.Array]
    ) -> tuple[tuple[PyTree, PyTree], PyTree]:
        total, state = carry
        part, index = each
        summed, joined, state = step(part, state, None if key is None else jax.random.fold_in(key, index))
        return (jax.tree.map(jnp.add, total, summed), state), joined

    parted = jax.tree.map(lambda a: jnp.reshape(a, (parts, size // parts, *jnp.shape(a)[1:])), batch)
    one = jax.tree.map(lambda a: a[0], parted)
    zeros = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), jax.eval_shape(step, one, state, key)[0])
    (summed, state), joined = lax.scan(body, (zeros, state), (parted, jnp.arange(parts)))
    return summed, jax.tree.map(lambda a: a.reshape(size, *a.shape[2:]), joined), state


def check_microbatches(microbatches: Any) -> None:
    """Raise for what is no number of parts."""
    if not isinstance(microbatches, int):
        raise TypeError(f"backprop: `microbatches` must be a whole number, got {microbatches!r}.")
    if microbatches < 1:
        raise ValueError(f"backprop: `microbatches` must be at least 1, got {microbatches}.")


def _check_parts(batch: Batch, size: int, parts: int) -> None:
    if size % parts:
        raise ValueError(f"backprop: a batch of {size} cannot be split into {parts} equal microbatches.")
    for what in ("mask", "positions"):
        for a in jax.tree.leaves(getattr(batch, what)):
            if jnp.shape(a)[:1] != (size,):
                raise ValueError(
                    f"backprop: with microbatches the first axis of `{what}` must be the batch of {size}, "
                    f"got {describe(a)}; broadcast it."
                )
