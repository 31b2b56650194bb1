"""Scaled dot-product attention (Vaswani et al. 2017, arXiv:1706.03762)."""

from typing import Any

import jax
import numpy as np
from jax import numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ..._numerics import matmul
from ..._rule import Rule
from ...domains import Booleans, Integers, Normal, Point
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

Query = Float[Array, "batch queries heads channels"]
Key = Float[Array, "batch keys groups channels"]
Value = Float[Array, "batch keys groups features"]
Bias = Float[Array, "*bias"]
Mask = Bool[Array, "*mask"]
Seed = Int[Array, ""]
Out = Float[Array, "batch queries heads features"]
Weights = Float[Array, "batch heads queries keys"]
Residuals = tuple[Query, Key, Value, Bias | None, Seed | None, Weights, Weights | None]


def dot_product_attention_fwd(
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
) -> tuple[Out, Residuals]:
    """Attention with the arguments, layout and options of `jax.nn.dot_product_attention`, and two more.

    Forward, for each head with its Q, K, V (heads of a group share K and V), scale s:

        X = s Q Kᵀ      Z = X + B      P = softmax(Z) over the keys allowed      O = P V

    with `soft_cap` c, Z = c tanh(X / c) + B; with `dropout_rate` r, O = (P ⊙ M / (1 - r)) V.

    Backward, with G the cotangent of O:

        V̄ = Pᵀ G      P̄ = G Vᵀ      Z̄ = P ⊙ (P̄ - rowsum(P ⊙ P̄))      B̄ = Z̄
        X̄ = Z̄ (or Z̄ ⊙ (1 - tanh²))      Q̄ = s X̄ K      K̄ = s X̄ᵀ Q

    Sums run over the heads of a group in K̄ and V̄, and over the axes along which B is broadcast in B̄.

    Derivation. G : dO = G : (dP V + P dV) = (G Vᵀ) : dP + (Pᵀ G) : dV; row by row dP = (Diag(p) - p pᵀ) dz, a
    symmetric matrix; X̄ : dX = X̄ : s (dQ Kᵀ + Q dKᵀ). rowsum(P ⊙ P̄) is rowsum(G ⊙ O); here it is taken from
    P, which is not rounded to the output's dtype.

    A query sees a key if `mask` is True there, with `is_causal` if the key is not later, with
    `local_window_size` (a number, or left and right) if it is so near. A query that sees none gives 0, with
    gradient 0 (jax.nn gives it the mean of *all* values, hidden ones too, and a gradient to them). The bias
    comes after the cap: a bias of -∞ hides. Bias and mask have four axes, each that of the scores or of
    length 1; lengths are a mask, `(jnp.arange(keys) < lengths[:, None])[:, None, None]`. The weights that are
    dropped depend on `seed` alone, and are drawn again in the backward pass.

    Saves q, k, v, bias and P, in float32 at least, and tanh if capped. Nothing is recomputed but the dropout
    mask; `blocked_attention` saves no P.
    """
    scores = Scores.of(
        "dot_product_attention",
        query,
        key,
        seed,
        scale,
        is_causal,
        local_window_size,
        soft_cap,
        dropout_rate,
    )
    full = (*query.shape[:1], query.shape[2], query.shape[1], key.shape[1])
    check_broadcast("dot_product_attention", "bias", bias, full)
    check_broadcast("dot_product_attention", "mask", mask, full)
    groups, heads, columns = key.shape[2], query.shape[2], jnp.arange(key.shape[1])
    q, k, v = (split_heads(x, groups) for x in (query, key, value))
    z, cap = scores.logits(q, k, bias, scores.allowed(query.shape[1], columns, mask), heads)
    e = jnp.exp(z - finite_or_zero(row_maximum(z)))
    p = e / nonzero(jnp.sum(e, axis=-1, keepdims=True))
    out = join_heads(matmul(as_rows(scores.dropped(p, columns, seed), groups), v), heads)
    return out.astype(query.dtype), (query, key, value, bias, seed, p, cap)


def dot_product_attention_bwd(
    residuals: Residuals,
    out_ct: Out,
    *,
    scale: float | None = None,
    is_causal: bool = False,
    local_window_size: Window = None,
    soft_cap: float | None = None,
    dropout_rate: float = 0.0,
) -> tuple[Query, Key, Value, Bias | None, None, None]:
    """V̄ = Pᵀ G, Z̄ = P ⊙ (P̄ - rowsum(P ⊙ P̄)) with P̄ = G Vᵀ, Q̄ = s X̄ K, K̄ = s X̄ᵀ Q."""
    query, key, value, bias, seed, p, cap = residuals
    rule, dtype = "dot_product_attention", query.dtype
    check_cotangent(rule, out_ct, (*query.shape[:3], value.shape[3]), dtype)
    scores = Scores.of(rule, query, key, seed, scale, is_causal, local_window_size, soft_cap, dropout_rate)
    groups, heads, columns = key.shape[2], query.shape[2], jnp.arange(key.shape[1])
    q, k, v, g = (split_heads(x, groups) for x in (query, key, value, out_ct))
    v_ct = matmul(transposed(as_rows(scores.dropped(p, columns, seed), groups)), g)
    p_ct = scores.dropped(as_heads(matmul(g, transposed(v)), heads), columns, seed)
    z_ct = p * (p_ct - jnp.sum(p * p_ct, axis=-1, keepdims=True))
    q_ct, k_ct = scores.pulled_back(scores.uncapped(z_ct, cap), q, k)
    return (
        join_heads(q_ct, heads).astype(dtype),
        join_heads(k_ct, groups).astype(dtype),
        join_heads(v_ct, groups).astype(dtype),
        None if bias is None else sum_to(z_ct, bias.shape).astype(dtype),
        None,
        None,
    )


def reference_logits(
    query: Query,
    key: Key,
    bias: Bias | None = None,
    mask: Mask | None = None,
    *,
    scale: float | None = None,
    is_causal: bool = False,
    local_window_size: Window = None,
    soft_cap: float | None = None,
) -> tuple[Weights, Bool[Array, "batch heads queries keys"]]:
    """Logits, and which of them count. A row in which none does has zeros, for its softmax to be finite."""
    k = jnp.repeat(key, query.shape[2] // key.shape[2], axis=2)
    z = jnp.einsum("btnh,bsnh->bnts", query, k) * (query.shape[3] ** -0.5 if scale is None else scale)
    z = z if soft_cap is None else soft_cap * jnp.tanh(z / soft_cap)
    z = z if bias is None else z + bias
    distance = jnp.arange(query.shape[1])[:, None] - jnp.arange(key.shape[1])
    seen = jnp.ones(z.shape, bool) if mask is None else jnp.broadcast_to(mask, z.shape)
    seen = seen if bias is None else seen & (bias > -jnp.inf)
    seen = seen & (distance >= 0) if is_causal else seen
    if local_window_size is not None:
        left, right = jnp.broadcast_to(jnp.array(local_window_size), 2)
        seen = seen & (distance <= left) & (-distance <= right)
    return jnp.where(seen, z, jnp.where(seen.any(-1, keepdims=True), -jnp.inf, 0)), seen


def reference_values(weights: Weights, value: Value, seed: Seed | None, dropout_rate: float) -> Out:
    """Σ of the values by weight, with some weights dropped."""
    if dropout_rate and seed is not None:
        keys = [jax.random.fold_in(jax.random.key(seed), s) for s in range(value.shape[1])]
        bits = jnp.stack([jax.random.bits(k, weights.shape[:-1], "uint32") for k in keys], -1)
        weights = jnp.where(bits / 2.0**32 < 1 - dropout_rate, weights / (1 - dropout_rate), 0)
    v = jnp.repeat(value, weights.shape[1] // value.shape[2], axis=2)
    return jnp.einsum("bnts,bsnh->btnh", weights, v)


def _reference(
    query: Query,
    key: Key,
    value: Value,
    bias: Bias | None = None,
    mask: Mask | None = None,
    seed: Seed | None = None,
    *,
    dropout_rate: float = 0.0,
    **options: Any,
) -> Out:
    # Not jax.nn's, which computes its softmax in float32 whatever it is given.
    z, seen = reference_logits(query, key, bias, mask, **options)
    return reference_values(jnp.where(seen, jax.nn.softmax(z), 0), value, seed, dropout_rate)


def _one_large_key(shape: tuple[int, ...]) -> np.ndarray:
    keys = np.zeros(shape)
    keys[:1] = 100
    return keys


ATTENTION_DOMAIN = {
    "query": Normal(),
    "key": Normal(),
    "value": Normal(),
    "bias": Normal(),
    "mask": Booleans(),
    "seed": Integers(0, 1000),
}
ATTENTION_POINTS = {
    # `expected` would also be asked for where there is no mask.
    "nothing to see": Point({"mask": 0.0}),
    "one key to see": Point({"mask": (1.0, 0.0, 0.0, 0.0, 0.0)}),
    "hidden by the bias": Point({"bias": (0.0, -float("inf"), 1.0, 0.0, 0.0), "mask": 1.0}),
    "saturated": Point({"query": 10.0, "key": _one_large_key, "mask": 1.0}),
}
ATTENTION_SETTINGS = (
    {"is_causal": True, "scale": 0.5, "soft_cap": 1.5},
    {"local_window_size": (1, 0), "dropout_rate": 0.3},
)
ATTENTION_SIZES = (
    {"batch": 2, "queries": 3, "keys": 5, "heads": 4, "groups": 2, "channels": 3, "features": 2}
    | {"bias": (1, 4, 3, 5), "mask": (2, 1, 3, 5)},
)

dot_product_attention = Rule(
    dot_product_attention_fwd,
    dot_product_attention_bwd,
    reference=_reference,
    domain=ATTENTION_DOMAIN,
    points=ATTENTION_POINTS,
    settings=ATTENTION_SETTINGS,
    sizes=ATTENTION_SIZES,
    formula="P = softmax(s Q Kᵀ), O = P V; V̄ = Pᵀ G, Z̄ = P ⊙ (G Vᵀ - rowsum(G ⊙ O)), Q̄ = s Z̄ K, K̄ = s Z̄ᵀ Q",
    saves="q, k, v, B, P",
)
