"""Norms of the gradients of examples over training: which ones stay large."""

from typing import NamedTuple

import jax
from jax import lax
from jax import numpy as jnp

__all__ = ["NormTracker", "largest_norms", "norm_tracker", "track_norms"]


class NormTracker(NamedTuple):
    """For every example of a data set, what it took part in: two numbers each.

    Attributes:
        total: Σ ‖g_n‖ over the steps that had it, float32, `(examples,)`.
        count: how many they were, float32.
    """

    total: jax.Array
    count: jax.Array

    @property
    def mean(self) -> jax.Array:
        """The mean norm of every example, `(examples,)`; 0 for one that was in no step yet."""
        return self.total / jnp.maximum(self.count, 1)


def norm_tracker(examples: int) -> NormTracker:
    """A tracker that has seen nothing."""
    return NormTracker(jnp.zeros(examples, jnp.float32), jnp.zeros(examples, jnp.float32))


def track_norms(
    tracker: NormTracker, indices: jax.Array, norms: jax.Array, weights: jax.Array | None = None
) -> NormTracker:
    """The tracker after one more step.

    Args:
        tracker: so far.
        indices: which examples were in the batch, `(batch,)`.
        norms: ‖g_n‖, `(batch,)`, as `backprop(..., collect=("norms",))` or a private step's metrics have
            them. One that is not finite counts as the largest finite number.
        weights: rows of weight 0 fill the batch up and are not counted.

    >>> tracker = track_norms(norm_tracker(3), jnp.array([2, 0]), jnp.array([5.0, 1.0]))
    >>> tracker.mean
    Array([1., 0., 5.], dtype=float32)
    """
    counted = jnp.ones(norms.shape, bool) if weights is None else weights != 0
    largest = jnp.finfo(tracker.total.dtype).max
    finite = jnp.where(jnp.isfinite(norms), norms, largest).astype(tracker.total.dtype)
    total = tracker.total.at[indices].add(jnp.where(counted, finite, 0))
    count = tracker.count.at[indices].add(counted.astype(tracker.count.dtype))
    return NormTracker(jnp.minimum(total, largest), count)


def largest_norms(tracker: NormTracker, k: int) -> tuple[jax.Array, jax.Array]:
    """The k examples with the largest mean norm, largest first: their norms and indices.

    Where labels are wrong the network keeps being pulled: such examples are found among these.

    >>> tracker = track_norms(norm_tracker(3), jnp.array([2, 0]), jnp.array([5.0, 1.0]))
    >>> largest_norms(tracker, 1)[1].tolist()
    [2]
    """
    return lax.top_k(tracker.mean, k)
