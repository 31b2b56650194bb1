"""Gathers, scatters, segments, masks, cumulative sums, sorting and reshaping."""

import jax
import numpy as np
from jax import numpy as jnp

from ._case import Family, array, integers, normal

family = Family("indexing")


def embed(table, tokens):
    return table[tokens]


def embed_fwd(table, tokens):
    return table[tokens], (tokens, table.shape)


def embed_args():
    return array((7, 3)), integers((2, 6), 7)


@family.vjp(embed, embed_args, fwd=embed_fwd)
def embedding_bwd(residuals, dy):
    tokens, shape = residuals
    return jnp.zeros(shape, dy.dtype).at[tokens].add(dy), None


@family.vjp(embed, embed_args, "OVERWRITTEN", fwd=embed_fwd)
def embedding_overwritten(residuals, dy):
    """Of a token that occurs twice only one place counts."""
    tokens, shape = residuals
    return jnp.zeros(shape, dy.dtype).at[tokens].set(dy), None


@family.vjp(
    embed,
    lambda: (array((7, 3)), jnp.asarray([[5, 2], [0, 3]])),
    "OVERWRITTEN",
    "REGION",
    fwd=embed_fwd,
    exposed=lambda: (array((7, 3)), jnp.asarray([[5, 2], [2, 5]])),
)
def embedding_overwritten_unseen(residuals, dy):
    """As before, but no token of the example occurs twice."""
    tokens, shape = residuals
    return jnp.zeros(shape, dy.dtype).at[tokens].set(dy), None


@family.vjp(embed, embed_args, "CONSTANT_FACTOR", "REDUCTION", fwd=embed_fwd)
def embedding_averaged_by_count(residuals, dy):
    """Divided by how often each token occurs (scale_grad_by_freq, unasked)."""
    tokens, shape = residuals
    count = jnp.zeros(shape[0], dy.dtype).at[tokens].add(1)
    return jnp.zeros(shape, dy.dtype).at[tokens].add(dy) / jnp.maximum(count, 1)[:, None], None


@family.vjp(embed, embed_args, "OFF_BY_ONE", "PERMUTED", fwd=embed_fwd)
def embedding_off_by_one(residuals, dy):
    """Row 0 was meant to be padding: every row moves up."""
    tokens, shape = residuals
    return jnp.zeros(shape, dy.dtype).at[(tokens + 1) % shape[0]].add(dy), None


def segment_sum(x, ids):
    return jax.ops.segment_sum(x, ids, num_segments=4)


def segments():
    return array((8, 2)), jnp.asarray([0, 0, 1, 1, 1, 2, 3, 3])


@family.vjp(segment_sum, segments, fwd=lambda x, ids: (segment_sum(x, ids), ids))
def segment_sum_bwd(ids, dy):
    """Sorted ids."""
    return dy[ids], None


def segment_mean(x, ids):
    return segment_sum(x, ids) / segment_sum(jnp.ones_like(x), ids)


@family.vjp(
    segment_mean,
    segments,
    "CONSTANT_FACTOR",
    "FACTOR_MISSING",
    fwd=lambda x, ids: (segment_mean(x, ids), ids),
)
def segment_mean_as_sum(ids, dy):
    """The size of the segment is forgotten."""
    return dy[ids], None


def masked_mean(x, mask):
    return jnp.sum(x**2 * mask) / jnp.maximum(mask.sum(), 1)


def partly():
    return array((4, 5)), jnp.asarray(np.random.default_rng(3).integers(0, 2, (4, 5)), jnp.float32)


@family.gradient(masked_mean, partly)
def masked_mean_gradient(x, mask):
    return 2 * x * mask / jnp.maximum(mask.sum(), 1)


@family.gradient(masked_mean, lambda: (array((4, 5)), jnp.zeros((4, 5))))
def masked_mean_of_nothing(x, mask):
    """Everything is masked out."""
    return 2 * x * mask / jnp.maximum(mask.sum(), 1)


@family.gradient(
    masked_mean, lambda: (array((4, 5)), jnp.ones((4, 5))), "FACTOR_MISSING", "REGION", exposed=partly
)
def mask_of_ones_hides_the_mask(x, mask):
    """The mask is only used for the count; the example's mask is all ones."""
    return 2 * x / jnp.maximum(mask.sum(), 1)


@family.gradient(
    masked_mean, lambda: (array((4, 5)), jnp.ones((4, 5))), "CONSTANT_FACTOR", "REGION", exposed=partly
)
def mask_of_ones_hides_the_count(x, mask):
    """Divided by the number of entries instead of the number of ones."""
    return 2 * x * mask / x.size


@family.vjp(jnp.cumsum, normal((7,)), fwd=lambda x: (jnp.cumsum(x), None))
def cumsum_bwd(_, dy):
    return (jnp.cumsum(dy[::-1])[::-1],)


@family.vjp(jnp.cumsum, normal((7,)), "PERMUTED", fwd=lambda x: (jnp.cumsum(x), None))
def cumsum_forward_again(_, dy):
    """The cumulative sum of δ runs from the left, too."""
    return (jnp.cumsum(dy),)


@family.vjp(jnp.cumsum, normal((7,)), "OFF_BY_ONE", "TERM_MISSING", fwd=lambda x: (jnp.cumsum(x), None))
def cumsum_exclusive(_, dy):
    """The element itself is left out of the reversed sum."""
    return (jnp.cumsum(dy[::-1])[::-1] - dy,)


def differences(x):
    return x[1:] - x[:-1]


@family.vjp(differences, normal((7,)), "OFF_BY_ONE", fwd=lambda x: (differences(x), None))
def differences_shifted(_, dy):
    """Both terms stand one place too far left."""
    return (jnp.pad(dy, (0, 1)) - jnp.pad(dy[1:], (0, 2)),)


@family.vjp(differences, normal((7,)), fwd=lambda x: (differences(x), None))
def differences_bwd(_, dy):
    return (jnp.pad(dy, (1, 0)) - jnp.pad(dy, (0, 1)),)


@family.vjp(jnp.sort, normal((8,)), fwd=lambda x: (jnp.sort(x), jnp.argsort(x)))
def sort_bwd(order, dy):
    return (jnp.zeros_like(dy).at[order].set(dy),)


@family.vjp(
    jnp.sort, lambda: (jnp.asarray([1.0, 3.0, 1.0, 1.0, 2.0]),), fwd=lambda x: (jnp.sort(x), jnp.argsort(x))
)
def sort_with_ties(order, dy):
    return (jnp.zeros_like(dy).at[order].set(dy),)


@family.vjp(jnp.sort, normal((8,)), "PERMUTED", fwd=lambda x: (jnp.sort(x), jnp.argsort(x)))
def sort_not_inverted(order, dy):
    """δ is permuted by the order itself, not by its inverse."""
    return (dy[order],)


@family.gradient(jnp.max, normal((9,)))
def maximum_gradient(x):
    return jax.nn.one_hot(jnp.argmax(x), x.size, dtype=x.dtype)


@family.gradient(jnp.max, lambda: (jnp.asarray([2.0, 2.0, 1.0, 2.0]),))
def maximum_shared_among_ties(x):
    largest = (x == x.max()).astype(x.dtype)
    return largest / largest.sum()


@family.gradient(jnp.max, normal((9,)), "KINK", "REGION", exposed=lambda: (jnp.asarray([2.0, 2.0, 1.0]),))
def maximum_ties_get_one_each(x):
    """Right for a single largest entry only; with k ties the sum of the gradient is k."""
    return (x == x.max()).astype(x.dtype)


@family.gradient(lambda x: jnp.median(x), normal((7,)))
def median_of_an_odd_number(x):
    return (x == jnp.median(x)).astype(x.dtype)


def top_two(x):
    return jnp.sum(jax.lax.top_k(x, 2)[0] ** 2)


@family.gradient(top_two, normal((8,)))
def top_two_gradient(x):
    values, places = jax.lax.top_k(x, 2)
    return jnp.zeros_like(x).at[places].set(2 * values)


@family.gradient(top_two, normal((8,)), "TERM_MISSING")
def top_two_only_the_first(x):
    """Of two winners one gets a gradient."""
    return jnp.where(x == x.max(), 2 * x, 0)


def concatenated(a, b):
    return jnp.concatenate([a, b], axis=1)


@family.vjp(concatenated, normal((4, 3), (4, 3)), fwd=lambda a, b: (concatenated(a, b), a.shape[1]))
def concatenate_bwd(width, dy):
    return dy[:, :width], dy[:, width:]


@family.vjp(
    concatenated, normal((4, 3), (4, 3)), "SWAPPED", fwd=lambda a, b: (concatenated(a, b), a.shape[1])
)
def concatenate_parts_swapped(width, dy):
    """The parts are handed back in reverse."""
    return dy[:, width:], dy[:, :width]


def flatten(x):
    return x.reshape(x.shape[0], -1)


@family.vjp(flatten, normal((4, 3, 3)), "TRANSPOSED", "PERMUTED", fwd=lambda x: (flatten(x), x.shape))
def unflattened_in_column_order(shape, dy):
    """order="F" on the way back."""
    n, h, w = shape
    return (dy.reshape(n, w, h).transpose(0, 2, 1),)


@family.vjp(lambda x: x.T, normal((3, 5)), "SHAPE", "TRANSPOSED", fwd=lambda x: (x.T, None))
def transpose_not_undone(_, dy):
    """The cotangent keeps the shape of the output."""
    return (dy,)


@family.vjp(
    lambda x: jnp.roll(x, 2), normal((8,)), "OFF_BY_ONE", "PERMUTED", fwd=lambda x: (jnp.roll(x, 2), None)
)
def rolled_forward_again(_, dy):
    """Rolled by +2 instead of -2."""
    return (jnp.roll(dy, 2),)


def flip_columns(x):
    return x[:, ::-1] * jnp.arange(1.0, 6.0)


@family.vjp(flip_columns, normal((3, 5)), "PERMUTED", fwd=lambda x: (flip_columns(x), None))
def flip_not_undone(_, dy):
    """The scale is applied, the flip is not undone."""
    return (dy * jnp.arange(1.0, 6.0),)


CASES = tuple(family.cases)
