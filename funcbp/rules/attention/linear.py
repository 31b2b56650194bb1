"""Attention without a softmax: linear in the number of keys (Katharopoulos et al. 2020, arXiv:2006.16236)."""

import jax
from jax import lax
from jax import numpy as jnp
from jaxtyping import Array, Float

from ..._numerics import accumulator, matmul
from ..._rule import Rule
from ...domains import Normal, Point
from .._checks import check_cotangent
from ._scores import transposed

Query = Float[Array, "batch queries heads channels"]
Key = Float[Array, "batch keys heads channels"]
Value = Float[Array, "batch keys heads features"]
Out = Float[Array, "batch queries heads features"]
State = Float[Array, "batch heads channels features"]


def _by_head(x: jax.Array) -> jax.Array:
    """(batch, time, heads, channels) to (batch, heads, time, channels), and back."""
    return jnp.swapaxes(x, 1, 2)


def linear_attention_fwd(query: Query, key: Key, value: Value) -> tuple[Out, tuple[Query, Key, Value, State]]:
    """Attention with the weights Q Kᵀ themselves, for each head.

    Forward:     M = Kᵀ V      O = Q M
    Backward:    Q̄ = G Mᵀ      M̄ = Qᵀ G      K̄ = V M̄ᵀ      V̄ = K M̄      with G the cotangent of O

    Derivation. G : dO = G : (dQ M + Q dM), and M̄ : dM = M̄ : (dKᵀ V + Kᵀ dV). In this order of the products
    nothing has the size queries × keys.

    The feature map φ belongs to q and k before the call. For normalized weights append a column of ones to V:
    the last column of O is what to divide the others by.

    Saves q, k, v and M (channels × features a head). Products accumulate in float32 at least.
    """
    q, k, v = map(_by_head, (query, key, value))
    m = matmul(transposed(k), v)
    return _by_head(matmul(q, m)).astype(query.dtype), (query, key, value, m)


def linear_attention_bwd(residuals: tuple[Query, Key, Value, State], out_ct: Out) -> tuple[Query, Key, Value]:
    """Q̄ = G Mᵀ, M̄ = Qᵀ G, K̄ = V M̄ᵀ, V̄ = K M̄."""
    query, key, value, m = residuals
    check_cotangent("linear_attention", out_ct, (*query.shape[:3], value.shape[3]), query.dtype)
    q, k, v, g = map(_by_head, (query, key, value, out_ct))
    m_ct = matmul(transposed(q), g)
    cotangents = (matmul(g, transposed(m)), matmul(v, transposed(m_ct)), matmul(k, m_ct))
    q_ct, k_ct, v_ct = (_by_head(x).astype(query.dtype) for x in cotangents)
    return q_ct, k_ct, v_ct


linear_attention = Rule(
    linear_attention_fwd,
    linear_attention_bwd,
    reference=lambda query, key, value: jnp.einsum("btnc,bsnc,bsnf->btnf", query, key, value),
    domain={"query": Normal(), "key": Normal(), "value": Normal()},
    points={"no keys": Point({"key": 0.0}, {"query": 0.0, "value": 0.0})},
    sizes=({"batch": 2, "queries": 5, "keys": 7, "heads": 3, "channels": 4, "features": 2},),
    formula="O = Q (Kᵀ V); Q̄ = G Mᵀ, K̄ = V M̄ᵀ, V̄ = K M̄, M = Kᵀ V, M̄ = Qᵀ G",
    saves="q, k, v, Kᵀ V",
)


TimeQuery = Float[Array, "batch time heads channels"]
TimeValue = Float[Array, "batch time heads features"]


def causal_linear_attention_fwd(
    query: TimeQuery, key: TimeQuery, value: TimeValue, *, block: int = 64
) -> tuple[TimeValue, tuple[TimeQuery, TimeQuery, TimeValue]]:
    """Attention with the weights Q Kᵀ of each position and those before it.

    Forward, for each head, o = L(q, k, v):

        o_t = Σ_{s ≤ t} (q_t · k_s) v_s = q_tᵀ M_t      with M_t = Σ_{s ≤ t} k_s v_sᵀ

    Backward, with g the cotangent of o and L* the same sum over s ≥ t:

        q̄ = L(g, v, k)      k̄ = L*(v, g, q)      v̄ = L*(k, q, g)

    Derivation. Σ_t g_t · do_t = Σ_{s ≤ t} (g_t · v_s) (dq_t · k_s + q_t · dk_s) + (q_t · k_s) (g_t · dv_s).
    Collected for one t it is L with the roles changed; for one s the sum runs over the t from s on. One
    operator is all there is.

    L is computed in blocks of `block` positions: inside of a block as a masked product, from the blocks
    before it by M, the state of a scan.

    Saves q, k and v alone: the state (channels × features) of every position, which autodiff of the
    recurrence keeps, never exists. Linear in time. For a single block this takes eight products, where
    autodiff takes six: the price of one operator.
    """
    if block < 1:
        raise ValueError(f"causal_linear_attention: `block` must be at least 1, got {block}.")
    out = _by_head(_running(*map(_by_head, (query, key, value)), block, reverse=False))
    return out.astype(query.dtype), (query, key, value)


def causal_linear_attention_bwd(
    residuals: tuple[TimeQuery, TimeQuery, TimeValue], out_ct: TimeValue, *, block: int = 64
) -> tuple[TimeQuery, TimeQuery, TimeValue]:
    """q̄ = L(g, v, k), k̄ = L*(v, g, q), v̄ = L*(k, q, g)."""
    query, _, value = residuals
    check_cotangent("causal_linear_attention", out_ct, value.shape, query.dtype)
    q, k, v, g = map(_by_head, (*residuals, out_ct))
    cotangents = (
        _running(g, v, k, block, reverse=False),
        _running(v, g, q, block, reverse=True),
        _running(k, q, g, block, reverse=True),
    )
    q_ct, k_ct, v_ct = (_by_head(x).astype(query.dtype) for x in cotangents)
    return q_ct, k_ct, v_ct


def _running(q: jax.Array, k: jax.Array, v: jax.Array, block: int, reverse: bool) -> jax.Array:
    """L(q, k, v), or with `reverse` L*: the sum over s ≥ t. Time is the last axis but one."""
    time = q.shape[-2]
    size = max(min(block, time), 1)
    count = -(-time // size)
    seen = jnp.tri(size, dtype=bool)
    seen = seen.T if reverse else seen

    def inside(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
        return matmul(jnp.where(seen, matmul(q, transposed(k)), 0), v)

    if count == 1:
        return inside(q, k, v)

    def cut(x: jax.Array) -> jax.Array:
        x = jnp.pad(x, [(0, 0)] * (x.ndim - 2) + [(0, count * size - time), (0, 0)])
        return jnp.moveaxis(x.reshape(*x.shape[:-2], count, size, x.shape[-1]), -3, 0)

    def step(m: jax.Array, part: tuple[jax.Array, ...]) -> tuple[jax.Array, jax.Array]:
        q, k, v = part
        return m + matmul(transposed(k), v), inside(q, k, v) + matmul(q, m)

    m = jnp.zeros((*q.shape[:-2], k.shape[-1], v.shape[-1]), accumulator(q))
    _, out = lax.scan(step, m, (cut(q), cut(k), cut(v)), reverse=reverse)
    out = jnp.moveaxis(out, 0, -3)
    return out.reshape(*out.shape[:-3], count * size, out.shape[-1])[..., :time, :]


def _causal_reference(query: TimeQuery, key: TimeQuery, value: TimeValue, *, block: int = 64) -> TimeValue:
    del block
    weights = jnp.tril(jnp.einsum("btnc,bsnc->bnts", query, key))
    return jnp.einsum("bnts,bsnf->btnf", weights, value)


causal_linear_attention = Rule(
    causal_linear_attention_fwd,
    causal_linear_attention_bwd,
    reference=_causal_reference,
    domain={"query": Normal(), "key": Normal(), "value": Normal()},
    points={"no keys": Point({"key": 0.0}, {"query": 0.0, "value": 0.0})},
    settings=({"block": 2},),
    sizes=({"batch": 2, "time": 5, "heads": 3, "channels": 4, "features": 2},),
    formula="o = L(q, k, v), o_t = Σ_{s≤t} (q_t·k_s) v_s; q̄ = L(g, v, k), k̄ = L*(v, g, q), v̄ = L*(k, q, g)",
    saves="q, k, v",
)
