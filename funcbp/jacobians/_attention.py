"""The structure of attention, O = P V with P = softmax(s Q Kᵀ): by each of query, key and value."""

import jax
from jax import numpy as jnp

from ._calls import Call
from ._names import Name
from ._operator import Operator
from ._rows import softmax_rows
from .block_diagonal import blocks
from .diagonal import Diagonal
from .identity import Identity
from .kronecker import Kronecker, from_left, from_right
from .product import compose
from .selection import Commutation
from .tensor_product import tensor_product

__all__ = ["attention"]

_HEADS_FIRST = (0, 2, 1, 3)


def attention(call: Call) -> Operator | None:
    """A block for every head of every example, with s the scale and p a row of P:

    by V: P, from the left          by Q: V ⊕[Diag(p) - p pᵀ] s K        by K: the same after (s Q dKᵀ)

    where every factor is a product from the left or from the right. Heads that share K and V: first each is
    repeated. None for what is left to the rule: the bias, and weights that are dropped.
    """
    query, key, value, _, seed, p, cap = call.done[1]
    if call.argument not in ("query", "key", "value") or (seed is not None and call.static["dropout_rate"]):
        return None
    names = dict(zip(("query", "key", "value"), call.names, strict=False))
    scale = call.static["scale"]
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    heads = query.shape[2]
    q, k, v = (
        jnp.repeat(x, heads // x.shape[2], axis=2).transpose(_HEADS_FIRST) for x in (query, key, value)
    )
    slope = jnp.ones_like(p) if cap is None else 1 - jnp.square(cap)

    def block(q: jax.Array, k: jax.Array, v: jax.Array, p: jax.Array, slope: jax.Array) -> Operator:
        if call.argument == "value":
            return from_left(p, v.shape[1:], name="P")
        out = compose(from_right(v, p.shape[:1], name=names["value"]), softmax_rows(p, "p"))
        if cap is not None:
            out = compose(out, Diagonal(slope, p.shape, "1 − tanh²"))
        if call.argument == "query":
            return compose(out, from_right(scale * k.T, p.shape[:1], name=f"s {names['key']}ᵀ"))
        from_key = from_left(scale * q, k.shape[:1], name=f"s {names['query']}")
        return compose(out, compose(from_key, Commutation(k.shape)))

    operator = blocks(p.shape[:2], block, q, k, v, p, slope)
    batch, length, groups, width = call.x.shape
    before: Operator = Commutation((batch, length, heads, width), _HEADS_FIRST)
    if groups != heads:
        which = jnp.repeat(jnp.eye(groups, dtype=call.x.dtype), heads // groups, axis=0)
        every = Kronecker(which, None, (groups,), (), (heads,), (), Name.of("R"))
        before = compose(before, tensor_product(Identity((batch, length)), every, Identity((width,))))
    after = Commutation((batch, heads, *call.out.shape[1::2]), _HEADS_FIRST)
    return compose(after, compose(operator, before))
