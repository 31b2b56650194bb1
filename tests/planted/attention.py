"""Scaled dot-product attention and its parts."""

import jax
from jax import numpy as jnp

from ._case import Family, array, normal

family = Family("attention")
QKV = normal((5, 8), (6, 8), (6, 3))


def attend(q, k, v):
    return jax.nn.softmax(q @ k.T / jnp.sqrt(q.shape[-1]), axis=-1) @ v


def attend_fwd(q, k, v):
    p = jax.nn.softmax(q @ k.T / jnp.sqrt(q.shape[-1]), axis=-1)
    return p @ v, (q, k, v, p)


def scores_ct(p, dp):
    return p * (dp - jnp.sum(dp * p, -1, keepdims=True))


@family.vjp(attend, QKV, fwd=attend_fwd)
def attend_bwd(residuals, dy):
    q, k, v, p = residuals
    ds = scores_ct(p, dy @ v.T) / jnp.sqrt(q.shape[-1])
    return ds @ k, ds.T @ q, p.T @ dy


@family.vjp(attend, normal((5, 8), (6, 8), (6, 3), scale=10.0), fwd=attend_fwd)
def attend_at_large_inputs(residuals, dy):
    """Nearly one-hot attention."""
    q, k, v, p = residuals
    ds = scores_ct(p, dy @ v.T) / jnp.sqrt(q.shape[-1])
    return ds @ k, ds.T @ q, p.T @ dy


@family.vjp(attend, normal((5, 8), (6, 8), (6, 3), dtype=jnp.bfloat16), fwd=attend_fwd)
def attend_in_bfloat16(residuals, dy):
    """Everything in bfloat16, also the sums."""
    q, k, v, p = residuals
    ds = scores_ct(p, dy @ v.T) / jnp.sqrt(q.shape[-1]).astype(q.dtype)
    return ds @ k, ds.T @ q, p.T @ dy


@family.vjp(attend, QKV, "CONSTANT_FACTOR", fwd=attend_fwd)
def root_of_d_forgotten(residuals, dy):
    """1/√d is in the forward pass only."""
    q, k, v, p = residuals
    ds = scores_ct(p, dy @ v.T)
    return ds @ k, ds.T @ q, p.T @ dy


@family.vjp(attend, QKV, "CONSTANT_FACTOR", fwd=attend_fwd)
def divided_by_d(residuals, dy):
    """1/d where 1/√d belongs."""
    q, k, v, p = residuals
    ds = scores_ct(p, dy @ v.T) / q.shape[-1]
    return ds @ k, ds.T @ q, p.T @ dy


@family.vjp(attend, QKV, "TERM_MISSING", "STATISTICS", fwd=attend_fwd)
def softmax_normalizer_constant(residuals, dy):
    """Row sums of dP∘P are not subtracted."""
    q, k, v, p = residuals
    ds = p * (dy @ v.T) / jnp.sqrt(q.shape[-1])
    return ds @ k, ds.T @ q, p.T @ dy


@family.vjp(attend, normal((6, 8), (6, 8), (6, 3)), "TRANSPOSE_FORGOTTEN", fwd=attend_fwd)
def scores_not_transposed_for_keys(residuals, dy):
    """dS q instead of dSᵀ q; self-attention is square."""
    q, k, v, p = residuals
    ds = scores_ct(p, dy @ v.T) / jnp.sqrt(q.shape[-1])
    return ds @ k, ds @ q, p.T @ dy


@family.vjp(attend, normal((6, 8), (6, 8), (6, 3)), "TRANSPOSE_FORGOTTEN", fwd=attend_fwd)
def weights_not_transposed_for_values(residuals, dy):
    """P dy instead of Pᵀ dy."""
    q, k, v, p = residuals
    ds = scores_ct(p, dy @ v.T) / jnp.sqrt(q.shape[-1])
    return ds @ k, ds.T @ q, p @ dy


@family.vjp(attend, normal((6, 8), (6, 8), (6, 3)), "SWAPPED", fwd=attend_fwd)
def queries_and_keys_swapped(residuals, dy):
    """dk is returned for q and dq for k."""
    q, k, v, p = residuals
    ds = scores_ct(p, dy @ v.T) / jnp.sqrt(q.shape[-1])
    return ds.T @ q, ds @ k, p.T @ dy


@family.vjp(attend, QKV, "WRONG_POINT", "VALUE", fwd=attend_fwd)
def values_meet_scores(residuals, dy):
    """The scores, not the probabilities, meet δ in the gradient of v."""
    q, k, v, p = residuals
    scale = jnp.sqrt(q.shape[-1])
    ds = scores_ct(p, dy @ v.T) / scale
    return ds @ k, ds.T @ q, (q @ k.T / scale).T @ dy


def masked(q, k, v, mask):
    s = jnp.where(mask, q @ k.T / jnp.sqrt(q.shape[-1]), -1e9)
    return jax.nn.softmax(s, axis=-1) @ v


def masked_fwd(q, k, v, mask):
    p = jax.nn.softmax(jnp.where(mask, q @ k.T / jnp.sqrt(q.shape[-1]), -1e9), axis=-1)
    return p @ v, (q, k, v, p)


def with_mask():
    return *QKV(), jnp.tri(5, 6, dtype=bool)


def with_full_mask():
    return *QKV(), jnp.ones((5, 6), bool)


@family.vjp(masked, with_mask, fwd=masked_fwd)
def boolean_mask(residuals, dy):
    q, k, v, p = residuals
    ds = scores_ct(p, dy @ v.T) / jnp.sqrt(q.shape[-1])
    return ds @ k, ds.T @ q, p.T @ dy, None


@family.vjp(
    masked,
    with_full_mask,
    "REGION",
    "TERM_MISSING",
    "FACTOR_MISSING",
    fwd=lambda q, k, v, mask: (masked(q, k, v, mask), (q, k, v)),
    exposed=with_mask,
)
def mask_ignored_in_recomputation(residuals, dy):
    """The backward pass recomputes the probabilities without the mask; the test's mask is all ones."""
    q, k, v = residuals
    p = jax.nn.softmax(q @ k.T / jnp.sqrt(q.shape[-1]), axis=-1)
    ds = scores_ct(p, dy @ v.T) / jnp.sqrt(q.shape[-1])
    return ds @ k, ds.T @ q, p.T @ dy, None


def heads(x, w):
    b, t, d = x.shape
    return (x @ w).reshape(b, t, 2, d // 2).transpose(0, 2, 1, 3)


@family.vjp(heads, normal((2, 2, 4), (4, 4)), fwd=lambda x, w: (heads(x, w), (x, w)))
def split_heads_bwd(residuals, dy):
    x, w = residuals
    d = dy.transpose(0, 2, 1, 3).reshape(x.shape)
    return d @ w.T, jnp.einsum("bti,btj->ij", x, d)


@family.vjp(
    heads, normal((2, 2, 4), (4, 4)), "PERMUTED", "TRANSPOSED", fwd=lambda x, w: (heads(x, w), (x, w))
)
def heads_not_transposed_back(residuals, dy):
    """(head, time) is flattened without swapping the axes back; both have length 2."""
    x, w = residuals
    d = dy.reshape(x.shape)
    return d @ w.T, jnp.einsum("bti,btj->ij", x, d)


def rotate(x, angle):
    a, b = jnp.split(x, 2, axis=-1)
    return jnp.concatenate(
        [a * jnp.cos(angle) - b * jnp.sin(angle), a * jnp.sin(angle) + b * jnp.cos(angle)], -1
    )


def rotate_args():
    return array((5, 8)), jnp.outer(jnp.arange(5.0), 10.0 ** -jnp.arange(4.0))


@family.vjp(rotate, rotate_args, argnums=0, fwd=lambda x, angle: (rotate(x, angle), angle))
def rotary_bwd(angle, dy):
    """The inverse rotation; the angles are given."""
    return rotate(dy, -angle), None


@family.vjp(
    rotate,
    rotate_args,
    "SIGN",
    "TRANSPOSE_FORGOTTEN",
    "WRONG_POINT",
    argnums=0,
    fwd=lambda x, angle: (rotate(x, angle), angle),
)
def rotary_not_inverted(angle, dy):
    """Rotated forward once more instead of backward."""
    return rotate(dy, angle), None


def relative_bias(scores, table):
    n = scores.shape[0]
    distance = jnp.arange(n)[:, None] - jnp.arange(n) + n - 1
    return scores + table[distance]


@family.vjp(relative_bias, normal((4, 4), (7,)), "OVERWRITTEN", fwd=lambda s, t: (relative_bias(s, t), t))
def relative_bias_overwritten(table, dy):
    """.set where .add belongs: each distance occurs many times."""
    n = dy.shape[0]
    distance = jnp.arange(n)[:, None] - jnp.arange(n) + n - 1
    return dy, jnp.zeros_like(table).at[distance].set(dy)


CASES = tuple(family.cases)
