"""Self-attention as a layer: projections, rotation, the rule, and the projection back."""

from typing import Any

import jax
from jax import numpy as jnp
from jax.nn import initializers
from jax.nn.initializers import Initializer

from .. import rules
from .._signature import describe
from ._checks import check_params, require_floating, require_positive
from ._initializers import initializer
from ._layer import Context, Layer, PyTree, leaf

__all__ = ["four_axes", "multi_head_attention", "places"]


def multi_head_attention(
    heads: int,
    *,
    key_value_heads: int | None = None,
    head_features: int | None = None,
    features: int | None = None,
    causal: bool = False,
    local_window_size: int | tuple[int, int] | None = None,
    rotary_base: float | None = None,
    soft_cap: float | None = None,
    dropout_rate: float = 0.0,
    block: int | None = None,
    bias: bool = True,
    kernel_init: Initializer | None = None,
    bias_init: Initializer = initializers.zeros,
) -> Layer:
    """Self-attention over `(batch, time, in)`; `params = {"query", "key", "value", "output"}` of w (and b).

    A mask of the context, boolean `(batch, time)`, says which positions are there to be seen; one with four
    axes goes to the rule as it is. Where there is nothing to be seen, attention gives 0. Positions of the
    context, `(batch, time)`, turn queries and keys; without them the positions are 0, 1, ….

    Args:
        heads: number of queries at a position.
        key_value_heads: number of keys and values there; each serves heads / key_value_heads queries.
        head_features: width of a query; by default the width of the input / heads.
        features: width of the output; by default that of the input.
        causal: whether a position sees only itself and those before it.
        local_window_size: how far it sees, as in `rules.dot_product_attention`.
        rotary_base: base of the angles of a rotary embedding; None for none.
        soft_cap: of the logits; None for none.
        dropout_rate: of the weights, in training.
        block: None for `rules.dot_product_attention`; a number of keys for `rules.blocked_attention`.
        bias: False leaves the four b out.
        kernel_init: initializer of the four w.
        bias_init: initializer of the b.

    Raises:
        ValueError: for sizes that do not divide each other, a mask of another shape, a training pass with
            dropout without `key=`.
    """
    require_positive("multi_head_attention", "heads", heads)
    groups = heads if key_value_heads is None else key_value_heads
    require_positive("multi_head_attention", "key_value_heads", groups)
    if heads % groups:
        raise ValueError(
            f"multi_head_attention: `heads` must be a multiple of `key_value_heads`, got {heads} and "
            f"{groups}."
        )
    kernel_init = kernel_init or initializer()
    part_sizes: dict[str, tuple[int | None, ...]] = {"w": (None, None)} | ({"b": (None,)} if bias else {})
    rule = rules.dot_product_attention if block is None else rules.blocked_attention
    options: dict[str, Any] = {
        "is_causal": causal,
        "local_window_size": local_window_size,
        "soft_cap": soft_cap,
    } | ({} if block is None else {"block": block})

    def init(key: jax.Array, x_spec: Any) -> tuple[PyTree, PyTree]:
        require_floating("multi_head_attention", x_spec)
        width = x_spec.shape[-1]
        if head_features is None and width % heads:
            raise ValueError(
                f"multi_head_attention: the input is {width} wide, no multiple of {heads} heads; "
                "give head_features=."
            )
        each = width // heads if head_features is None else head_features
        sizes = {
            "query": (width, heads * each),
            "key": (width, groups * each),
            "value": (width, groups * each),
            "output": (heads * each, width if features is None else features),
        }
        params = {}
        for name, k in zip(sizes, jax.random.split(key, 4), strict=True):
            w_key, b_key = jax.random.split(k)
            params[name] = {"w": kernel_init(w_key, sizes[name], x_spec.dtype)}
            if bias:
                params[name]["b"] = bias_init(b_key, sizes[name][1:], x_spec.dtype)
        return params, ()

    def fwd(
        params: PyTree, state: PyTree, x: jax.Array, context: Context
    ) -> tuple[jax.Array, PyTree, PyTree]:
        _check(params)
        if x.ndim != 3:
            raise ValueError(f"multi_head_attention: the input must be (batch, time, in), got {describe(x)}.")
        q = _projected(params["query"], x, heads)
        k, v = (_projected(params[name], x, groups) for name in ("key", "value"))
        if rotary_base is not None:
            q, k = (_turn.fwd(p, places(context.positions, x), base=rotary_base)[0] for p in (q, k))
        seed = _seed(context) if dropout_rate and context.train else None
        rate = 0.0 if seed is None else dropout_rate
        mask = four_axes(context.mask, x)
        out, saved = rule.fwd(q, k, v, mask=mask, seed=seed, dropout_rate=rate, **options)
        y, _ = rules.dense.fwd(_joined(out), params["output"]["w"], params["output"].get("b"))
        if block is not None:
            saved = saved._replace(mask=None)
        return y, state, (x, seed, context.mask, context.positions, out, saved)

    def pullback(params: PyTree, residuals: PyTree, y_ct: jax.Array) -> tuple[PyTree, jax.Array]:
        x, seed, mask, positions, out, saved = residuals
        factors = {}
        out_ct, factors["output"] = _pulled(params["output"], _joined(out), y_ct)
        if block is not None:
            saved = saved._replace(mask=four_axes(mask, x))
        rate = 0.0 if seed is None else dropout_rate
        q_ct, k_ct, v_ct, *_ = rule.bwd(saved, out_ct.reshape(out.shape), dropout_rate=rate, **options)
        if rotary_base is not None:
            turned = places(positions, x)
            q_ct, k_ct = (_turn.bwd((turned, p[..., :0]), p, base=rotary_base)[0] for p in (q_ct, k_ct))
        terms = []
        for name, ct in (("query", q_ct), ("key", k_ct), ("value", v_ct)):
            term, factors[name] = _pulled(params[name], x, _joined(ct))
            terms.append(term)
        return factors, terms[0] + terms[1] + terms[2]

    def _check(params: PyTree) -> None:
        if not isinstance(params, dict) or params.keys() != {"query", "key", "value", "output"}:
            raise ValueError(
                "multi_head_attention: params must be a dict of query, key, value and output, got "
                f"{jax.tree.structure(params)}; use what `init` returned."
            )
        for name, part in params.items():
            check_params(f"multi_head_attention, {name}", part, part_sizes)

    return leaf(
        init, fwd, pullback, rule=rule, heads=heads, groups=groups, rotary_base=rotary_base, static=options
    )


_turn = rules.rotary_embedding


def _projected(params: PyTree, x: jax.Array, heads: int) -> jax.Array:
    p, _ = rules.dense.fwd(x, params["w"], params.get("b"))
    return p.reshape(*p.shape[:-1], heads, p.shape[-1] // heads)


def _pulled(params: PyTree, x: jax.Array, p_ct: jax.Array) -> tuple[jax.Array, PyTree]:
    """x̄ of a projection, and the factors of its parameters."""
    x_ct, w, b = rules.dense.pullback((x, params["w"], params.get("b")), p_ct)
    return x_ct, {"w": w} if b is None else {"w": w, "b": b}


def _joined(x: jax.Array) -> jax.Array:
    return x.reshape(*x.shape[:-2], x.shape[-2] * x.shape[-1])


def places(positions: jax.Array | None, x: jax.Array) -> jax.Array:
    """The positions given, or 0, 1, …, for all but the last axis of x."""
    return jnp.broadcast_to(jnp.arange(x.shape[-2]) if positions is None else positions, x.shape[:-1])


def four_axes(mask: jax.Array | None, x: jax.Array) -> jax.Array | None:
    """The mask as the rule takes it: one of (batch, time) hides keys."""
    if mask is None or mask.ndim == 4:
        return mask
    if mask.shape != x.shape[:2]:
        raise ValueError(
            f"multi_head_attention: the mask is {describe(mask)}; it must be (batch, time) = {x.shape[:2]}, "
            "or have the four axes (batch, heads, queries, keys)."
        )
    return mask[:, None, None, :]


def _seed(context: Context) -> jax.Array:
    if context.key is None:
        raise ValueError("multi_head_attention: a training pass with dropout needs a random key; pass key=.")
    return jax.random.randint(context.key, (), 0, jnp.iinfo(jnp.int32).max, jnp.int32)
