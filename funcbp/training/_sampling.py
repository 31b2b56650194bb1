"""Poisson sampling in batches of one shape."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import jax
from jax import numpy as jnp

__all__ = ["PoissonBatch", "poisson_batch", "poisson_batches", "poisson_capacity"]


class PoissonBatch(NamedTuple):
    """A random subset of the examples, filled up to one shape.

    Attributes:
        indices: of the drawn examples in ascending order, then zeros: int32, `(capacity,)`.
        weights: 1 for those drawn, 0 for what fills up: float32, `(capacity,)`.
        size: how many were drawn, int32; where it is above the capacity the last ones are missing, and the
            batch must not be used.
    """

    indices: jax.Array
    weights: jax.Array
    size: jax.Array


def poisson_batch(key: jax.Array, examples: int, rate: float, capacity: int) -> PoissonBatch:
    """Every example with probability `rate`, independently of all others: the sampling of DP-SGD's analysis.

    Shuffled epochs are *not* that, and their privacy is not what `epsilon` says. A pure function of one shape
    for all draws, so that a jitted step compiles once:

        batch = poisson_batch(jax.random.fold_in(key, i), len(x), rate, poisson_capacity(len(x), rate))
        params, state, opt_state, metrics = private.step(
            params, state, opt_state, x[batch.indices], y[batch.indices], weights=batch.weights
        )

    The probability is `rate` rounded down to a multiple of 2⁻³² (a comparison of float32 numbers would round
    to 2⁻²³: by 6 % for a rate of 1e-6).

    Args:
        key: random key, of this draw alone.
        examples: N.
        rate: q, above 0, at most 1; static.
        capacity: rows of the batch. A jitted function cannot raise: check `size <= capacity`, once at the end
            for the sum over a loop if need be; `poisson_batches` does. `poisson_capacity` makes it a matter
            of 1e-9.

    Raises:
        ValueError: for numbers out of their ranges.

    >>> batch = poisson_batch(jax.random.key(0), examples=10, rate=0.3, capacity=8)
    >>> batch.indices.shape, int(batch.size) == int(batch.weights.sum())
    ((8,), True)
    """
    _check(examples, rate)
    if not (isinstance(capacity, int) and capacity >= 1):
        raise ValueError(f"poisson_batch: `capacity` must be a whole number, at least 1, got {capacity!r}.")
    threshold = math.floor(rate * 2**32)
    if threshold == 2**32:
        drawn = jnp.ones(examples, bool)
    else:
        drawn = jax.random.bits(key, (examples,), jnp.uint32) < jnp.uint32(threshold)
    size = jnp.sum(drawn, dtype=jnp.int32)
    indices = jnp.nonzero(drawn, size=capacity, fill_value=0)[0].astype(jnp.int32)
    return PoissonBatch(indices, (jnp.arange(capacity) < size).astype(jnp.float32), size)


def poisson_batches(
    key: jax.Array, examples: int, rate: float, capacity: int | None = None, *, start: int = 0
) -> Iterator[PoissonBatch]:
    """Batches without end; batch i depends on the key and i alone, so that a resumed run draws the same ones.

    Args:
        key: random key, which nothing else may use, the noise's least of all.
        examples: N.
        rate: q.
        capacity: rows of every batch; by default `poisson_capacity(examples, rate)`.
        start: i of the first batch.

    Raises:
        ValueError: for numbers out of their ranges.
        RuntimeError: when more examples were drawn than there are rows. Leaving some out would make the
            sampling another one; so would drawing again. With the default capacity that is less likely than
            1e-9 in a step, to be counted in δ.

    >>> batches = poisson_batches(jax.random.key(0), examples=10, rate=0.3)
    >>> next(batches).indices.shape == next(batches).indices.shape
    True
    """
    _check(examples, rate)
    rows = poisson_capacity(examples, rate) if capacity is None else capacity

    def draw(key: jax.Array, i: jax.Array | int) -> PoissonBatch:
        return poisson_batch(jax.random.fold_in(key, i), examples, rate, rows)

    draw_jitted = jax.jit(draw)

    def batches() -> Iterator[PoissonBatch]:
        i = start
        while True:
            batch = draw_jitted(key, i)
            if int(batch.size) > rows:
                raise RuntimeError(
                    f"poisson_batches: batch {i} has drawn {int(batch.size)} examples, but `capacity` is "
                    f"{rows}; poisson_capacity({examples}, {rate}) is {poisson_capacity(examples, rate)}."
                )
            yield batch
            i += 1

    return batches()


def poisson_capacity(examples: int, rate: float, *, overflow: float = 1e-9, multiple_of: int = 1) -> int:
    """The fewest rows that a draw exceeds with a probability below `overflow`, by the binomial's tail.

    Args:
        examples: N.
        rate: q.
        overflow: probability for one draw.
        multiple_of: round up to a multiple, as microbatches need it.

    Raises:
        ValueError: for numbers out of their ranges.

    >>> poisson_capacity(60_000, 256 / 60_000), poisson_capacity(10, 1.0), poisson_capacity(10, 0.3)
    (357, 10, 10)
    """
    # JAX depends on it; slow to import.
    from scipy.stats import binom

    _check(examples, rate)
    if not 0 < overflow < 1 or multiple_of < 1:
        raise ValueError(
            "poisson_capacity: `overflow` must be a probability, `multiple_of` at least 1; got "
            f"{overflow}, {multiple_of}."
        )
    rows = max(1, int(binom.isf(overflow, examples, rate)))
    return -(-rows // multiple_of) * multiple_of


def _check(examples: int, rate: float) -> None:
    if not (isinstance(examples, int) and examples >= 1):
        raise ValueError(f"poisson sampling: `examples` must be at least 1, got {examples!r}.")
    if not 0 < rate <= 1:
        raise ValueError(
            f"poisson sampling: `rate` is a probability above 0, got {rate}; for an expected batch size of B "
            "it is B over the number of examples."
        )
