"""Attention over blocks of keys, which never holds all weights (Dao et al. 2022, arXiv:2205.14135)."""

from typing import Any, NamedTuple

import jax
from jax import lax
from jax import numpy as jnp
from jaxtyping import Array, Float

from ..._numerics import accumulator, matmul, upcast
from ..._rule import Rule
from .._checks import check_cotangent
from ._scores import (
    Scores,
    Window,
    as_heads,
    as_rows,
    check_broadcast,
    finite_or_zero,
    join_heads,
    nonzero,
    row_maximum,
    split_heads,
    sum_to,
    transposed,
)
from .dot_product import (
    ATTENTION_DOMAIN,
    ATTENTION_POINTS,
    ATTENTION_SETTINGS,
    ATTENTION_SIZES,
    Bias,
    Key,
    Mask,
    Out,
    Query,
    Seed,
    Value,
    reference_logits,
    reference_values,
)

Stat = Float[Array, "batch heads queries 1"]


class Saved(NamedTuple):
    """What the backward pass needs: the arguments, O, and the maximum and the sum of every row."""

    query: Query
    key: Key
    value: Value
    bias: Bias | None
    mask: Mask | None
    seed: Seed | None
    out: Out
    top: Stat
    total: Stat


class _Block(NamedTuple):
    """Some of the keys, and what goes with them; `columns` are their indices."""

    columns: jax.Array
    k: jax.Array
    v: jax.Array
    bias: jax.Array | None
    mask: jax.Array | None


def _blocks(
    key: jax.Array, value: jax.Array, bias: jax.Array | None, mask: jax.Array | None, size: int
) -> _Block:
    """Every block, stacked on a new first axis; the last one is filled up with keys that are hidden."""
    k, v = (split_heads(x, key.shape[2]) for x in (key, value))
    size = max(min(size, key.shape[1]), 1)
    count = -(-key.shape[1] // size)
    columns = jnp.arange(count * size).reshape(count, size)

    def every(x: jax.Array | None) -> jax.Array | None:
        if x is not None and x.shape[3] == 1:  # broadcast, in every block
            return jnp.broadcast_to(x, (count, *x.shape))
        return None if x is None else _cut(x, 3, count, size)

    return _Block(columns, _cut(k, 2, count, size), _cut(v, 2, count, size), every(bias), every(mask))


def _cut(x: jax.Array, axis: int, count: int, size: int) -> jax.Array:
    """An axis in parts, which are a new first axis."""
    x = jnp.pad(x, [(0, count * size - n if i == axis else 0) for i, n in enumerate(x.shape)])
    return jnp.moveaxis(x.reshape(*x.shape[:axis], count, size, *x.shape[axis + 1 :]), axis, 0)


def _seen(scores: Scores, part: _Block, queries: int, keys: int) -> jax.Array:
    """Which query sees which key of a block."""
    inside = part.columns < keys
    seen = scores.allowed(queries, part.columns, part.mask)
    return inside if seen is None else inside & seen


def _joined(x: jax.Array, axis: int, length: int) -> jax.Array:
    """The inverse of `_cut`, without what was filled up."""
    count, size = x.shape[0], x.shape[axis + 1]
    x = jnp.moveaxis(x, 0, axis)
    x = x.reshape(*x.shape[:axis], count * size, *x.shape[axis + 2 :])
    return lax.slice_in_dim(x, 0, length, axis=axis)


def blocked_attention_fwd(
    query: Query,
    key: Key,
    value: Value,
    bias: Bias | None = None,
    mask: Mask | None = None,
    seed: Seed | None = None,
    *,
    scale: float | None = None,
    is_causal: bool = False,
    local_window_size: Window = None,
    soft_cap: float | None = None,
    dropout_rate: float = 0.0,
    block: int = 128,
) -> tuple[Out, Saved]:
    """`dot_product_attention`, one block of keys after the other: no array of queries × keys exists.

    Forward, a scan over blocks j of `block` keys with running maximum m, sum l and output o:

        m′ = max(m, max Z_j)      E = e^(Z_j - m′)      f = e^(m - m′)
        l ← f l + ΣE      o ← f o + E V_j      and at the end O = o / l

    Backward, with G the cotangent of O and D = rowsum(G ⊙ O), for each block again

        P_j = e^(Z_j - m) / l      V̄_j = P_jᵀ G      Z̄_j = P_j ⊙ (G V_jᵀ - D)
        Q̄ = Σ s X̄_j K_j      K̄_j = s X̄_jᵀ Q

    Derivation. As for `dot_product_attention`; its rowsum(P ⊙ P̄) is the only quantity that needs a whole row,
    and rowsum(P ⊙ G Vᵀ) = rowsum(G ⊙ P V) = D. Dropout does not change that: it multiplies P in O and P̄ in
    the same places, which depend on the seed alone, not on the blocks.

    Semantics, options and conventions are those of `dot_product_attention`.

    Saves q, k, v, bias, mask, O, and m, l: two numbers a row (apart, since in log-sum-exp = m + log l the
    digits of l drown). Recomputed are the scores: seven products where autodiff of the plain form has six,
    which buys memory linear in the number of keys. In half precision D is taken from the rounded O.
    """
    scores = _scores(query, key, seed, block, scale, is_causal, local_window_size, soft_cap, dropout_rate)
    batch, queries, heads, _ = query.shape
    full, groups = (batch, heads, queries, key.shape[1]), key.shape[2]
    check_broadcast("blocked_attention", "bias", bias, full)
    check_broadcast("blocked_attention", "mask", mask, full)
    q = split_heads(query, groups)

    def step(carry: tuple[jax.Array, ...], part: _Block) -> tuple[tuple[jax.Array, ...], None]:
        top, total, out = carry
        seen = _seen(scores, part, queries, key.shape[1])
        z, _ = scores.logits(q, part.k, part.bias, seen, heads)
        higher = jnp.maximum(top, row_maximum(z))
        e, fade = (jnp.exp(x - finite_or_zero(higher)) for x in (z, top))
        weighted = matmul(as_rows(scores.dropped(e, part.columns, seed), groups), part.v)
        total = fade * total + jnp.sum(e, axis=-1, keepdims=True)
        return (higher, total, fade * out + as_heads(weighted, heads)), None

    dtype = accumulator(query)
    row = jnp.zeros((*full[:3], 1), dtype)
    start = (row - jnp.inf, row, jnp.zeros((*full[:3], value.shape[3]), dtype))
    (top, total, out), _ = lax.scan(step, start, _blocks(key, value, bias, mask, block))
    out = jnp.swapaxes(out / nonzero(total), 1, 2).astype(query.dtype)
    return out, Saved(query, key, value, bias, mask, seed, out, finite_or_zero(top), nonzero(total))


def blocked_attention_bwd(
    residuals: Saved,
    out_ct: Out,
    *,
    scale: float | None = None,
    is_causal: bool = False,
    local_window_size: Window = None,
    soft_cap: float | None = None,
    dropout_rate: float = 0.0,
    block: int = 128,
) -> tuple[Query, Key, Value, Bias | None, None, None]:
    """For each block P = e^(Z - m) / l, V̄ = Pᵀ G, Z̄ = P ⊙ (G Vᵀ - rowsum(G ⊙ O)), Q̄ += s X̄ K, K̄ = s X̄ᵀ Q."""
    query, key, value, bias, mask, seed, out, top, total = residuals
    dtype = query.dtype
    check_cotangent("blocked_attention", out_ct, out.shape, dtype)
    scores = _scores(query, key, seed, block, scale, is_causal, local_window_size, soft_cap, dropout_rate)
    queries, heads, keys, groups = *query.shape[1:3], *key.shape[1:3]
    q, g = (split_heads(x, groups) for x in (query, out_ct))
    row_ct = jnp.swapaxes(jnp.sum(upcast(out_ct) * upcast(out), axis=-1, keepdims=True), 1, 2)

    def step(q_ct: jax.Array, part: _Block) -> tuple[jax.Array, Any]:
        z, cap = scores.logits(q, part.k, part.bias, _seen(scores, part, queries, keys), heads)
        p = jnp.exp(z - top) / total
        v_ct = matmul(transposed(as_rows(scores.dropped(p, part.columns, seed), groups)), g)
        p_ct = scores.dropped(as_heads(matmul(g, transposed(part.v)), heads), part.columns, seed)
        z_ct = p * (p_ct - row_ct)
        b_ct = None if bias is None else sum_to(z_ct, bias.shape)
        q_part, k_ct = scores.pulled_back(scores.uncapped(z_ct, cap), q, part.k)
        return q_ct + q_part, (k_ct, v_ct, b_ct)

    start = jnp.zeros(q.shape, accumulator(query))
    q_ct, (k_ct, v_ct, b_ct) = lax.scan(step, start, _blocks(key, value, bias, mask, block))
    if bias is not None:
        b_ct = jnp.sum(b_ct, axis=0) if bias.shape[3] == 1 else _joined(b_ct, 3, keys)
        b_ct = b_ct.astype(dtype)
    k_ct, v_ct = (join_heads(_joined(x, 2, keys), groups).astype(dtype) for x in (k_ct, v_ct))
    return join_heads(q_ct, heads).astype(dtype), k_ct, v_ct, b_ct, None, None


def _scores(
    query: jax.Array,
    key: jax.Array,
    seed: jax.Array | None,
    block: int,
    scale: float | None,
    is_causal: bool,
    local_window_size: Window,
    soft_cap: float | None,
    dropout_rate: float,
) -> Scores:
    if block < 1:
        raise ValueError(f"blocked_attention: `block` must be at least 1, got {block}.")
    options = (scale, is_causal, local_window_size, soft_cap, dropout_rate)
    return Scores.of("blocked_attention", query, key, seed, *options)


def _reference(
    query: Query,
    key: Key,
    value: Value,
    bias: Bias | None = None,
    mask: Mask | None = None,
    seed: Seed | None = None,
    *,
    dropout_rate: float = 0.0,
    block: int = 128,
    **options: Any,
) -> Out:
    """Numerator and denominator apart, as blocks have to keep them."""
    del block
    z, seen = reference_logits(query, key, bias, mask, **options)
    e = jnp.where(seen, jnp.exp(z - lax.stop_gradient(z.max(-1, keepdims=True))), 0)
    total = jnp.where(seen.any(-1), e.sum(-1), 1).swapaxes(1, 2)[..., None]
    return reference_values(e, value, seed, dropout_rate) / total


blocked_attention = Rule(
    blocked_attention_fwd,
    blocked_attention_bwd,
    reference=_reference,
    domain=ATTENTION_DOMAIN,
    points=ATTENTION_POINTS,
    settings=tuple({"block": 2, **setting} for setting in ATTENTION_SETTINGS),
    sizes=ATTENTION_SIZES,
    formula="as dot_product_attention; P_j = e^(Z_j - m) / l, Z̄_j = P_j ⊙ (G V_jᵀ - rowsum(G ⊙ O))",
    saves="q, k, v, B, mask, O, m, l",
)
