"""What the plain and the blocked form of attention share: heads as rows of a matrix, scores, masks, dropout.

Inside, arrays are (batch, groups, rows, channels): the heads that share a key are rows of one matrix, so that
a grouped query needs no copies of keys, and the sum over a group in the keys' cotangent is part of the
product.
"""

import math
from typing import NamedTuple

import jax
from jax import lax
from jax import numpy as jnp

from ..._numerics import matmul, upcast

__all__ = ["Scores", "as_heads", "as_rows", "check_broadcast", "split_heads", "sum_to", "transposed"]

Window = int | tuple[int, int] | None


def split_heads(x: jax.Array, groups: int) -> jax.Array:
    """(batch, time, heads, channels) to (batch, groups, heads / groups · time, channels)."""
    batch, time, heads, channels = x.shape
    x = x.reshape(batch, time, groups, heads // groups, channels).transpose(0, 2, 3, 1, 4)
    return x.reshape(batch, groups, heads // groups * time, channels)


def join_heads(x: jax.Array, heads: int) -> jax.Array:
    """The inverse of `split_heads`."""
    batch, groups, rows, channels = x.shape
    each = heads // groups
    x = x.reshape(batch, groups, each, rows // each, channels).transpose(0, 3, 1, 2, 4)
    return x.reshape(batch, rows // each, heads, channels)


def as_rows(x: jax.Array, groups: int) -> jax.Array:
    """(batch, heads, queries, …) to (batch, groups, rows, …)."""
    batch, heads, queries, *rest = x.shape
    return x.reshape(batch, groups, heads // groups * queries, *rest)


def as_heads(x: jax.Array, heads: int) -> jax.Array:
    """The inverse of `as_rows`."""
    batch, groups, rows, *rest = x.shape
    return x.reshape(batch, heads, rows * groups // heads, *rest)


def transposed(x: jax.Array) -> jax.Array:
    """The last two axes swapped."""
    return jnp.swapaxes(x, -1, -2)


def sum_to(x: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """The sum over the axes that were broadcast from length one."""
    axes = tuple(i for i, (n, m) in enumerate(zip(x.shape, shape, strict=True)) if m == 1 != n)
    return jnp.sum(x, axis=axes, keepdims=True)


def check_broadcast(rule: str, name: str, x: jax.Array | None, full: tuple[int, ...]) -> None:
    """Raise unless every axis of `x` is that of the scores, or of length one."""
    if x is None:
        return
    if x.ndim != len(full) or any(n not in (1, m) for n, m in zip(x.shape, full, strict=True)):
        raise ValueError(
            f"{rule}: `{name}` has shape {x.shape}, the scores (batch, heads, queries, keys) have {full}; "
            "each of its four axes must be that or 1."
        )


class Scores(NamedTuple):
    """The static options of attention, checked, and what they mean.

    Attributes:
        scale: of the products.
        is_causal: whether a query sees only keys up to its own place.
        window: how many keys a query sees to the left and to the right of its own place; None for all.
        soft_cap: c of c tanh(· / c); None for no cap.
        dropout_rate: the share of weights that is dropped.
    """

    scale: float
    is_causal: bool
    window: tuple[int, int] | None
    soft_cap: float | None
    dropout_rate: float

    @classmethod
    def of(
        cls,
        rule: str,
        query: jax.Array,
        key: jax.Array,
        seed: jax.Array | None,
        scale: float | None,
        is_causal: bool,
        local_window_size: Window,
        soft_cap: float | None,
        dropout_rate: float,
    ) -> "Scores":
        """Options that fit the arrays, or a ValueError that names what does not."""
        heads, groups = query.shape[2], key.shape[2]
        if groups == 0 or heads % groups:
            raise ValueError(
                f"{rule}: `query` has {heads} heads, `key` {groups}; the former must be a multiple of the "
                "latter."
            )
        if soft_cap is not None and not soft_cap > 0:
            raise ValueError(f"{rule}: `soft_cap` must be positive, or None for no cap, got {soft_cap!r}.")
        if not 0 <= dropout_rate < 1:
            raise ValueError(f"{rule}: `dropout_rate` must be in [0, 1), got {dropout_rate!r}.")
        if dropout_rate and seed is None:
            raise ValueError(
                f"{rule}: `dropout_rate` is {dropout_rate!r}, but there is no `seed`; pass an integer, a new "
                "one at every step."
            )
        scale = 1 / math.sqrt(max(query.shape[3], 1)) if scale is None else scale
        window = _window(rule, local_window_size)
        return cls(scale, is_causal, window, soft_cap, dropout_rate)

    def logits(
        self, q: jax.Array, k: jax.Array, bias: jax.Array | None, allowed: jax.Array | None, heads: int
    ) -> tuple[jax.Array, jax.Array | None]:
        """Logits (batch, heads, queries, keys), -∞ where not allowed; and the tanh of the soft cap."""
        z, cap = self.scale * as_heads(matmul(q, transposed(k)), heads), None
        if self.soft_cap is not None:
            cap = jnp.tanh(z / self.soft_cap)
            z = self.soft_cap * cap
        if bias is not None:
            z = z + upcast(bias)
        return z if allowed is None else jnp.where(allowed, z, -jnp.inf), cap

    def allowed(self, queries: int, columns: jax.Array, mask: jax.Array | None) -> jax.Array | None:
        """Which query sees which of the keys at `columns`, to be broadcast to the logits; None for all."""
        rows, seen = jnp.arange(queries)[:, None], mask
        if self.is_causal:
            seen = _both(seen, columns <= rows)
        if self.window is not None:
            left, right = self.window
            seen = _both(seen, (rows - left <= columns) & (columns <= rows + right))
        return seen

    def dropped(self, weights: jax.Array, columns: jax.Array, seed: jax.Array | None) -> jax.Array:
        """Weights, or their cotangents, with those of the dropped ones 0 and the rest scaled up."""
        if not self.dropout_rate or seed is None:
            return weights
        key, keep = jax.random.key(seed), 1 - self.dropout_rate

        def column(index: jax.Array) -> jax.Array:
            return jax.random.bits(jax.random.fold_in(key, index), weights.shape[:-1], jnp.uint32)

        # Bits, column by column: the same whatever the blocks and however many bits a float has.
        kept = jax.vmap(column, out_axes=-1)(columns) < jnp.uint32(keep * 2.0**32)
        return jnp.where(kept, weights / keep, 0)

    def uncapped(self, z_ct: jax.Array, cap: jax.Array | None) -> jax.Array:
        """The cotangent of the scaled products from that of the logits."""
        return z_ct if cap is None else z_ct * (1 - cap) * (1 + cap)

    def pulled_back(self, z_ct: jax.Array, q: jax.Array, k: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The cotangents of q and k from that of the scaled products."""
        s_ct = as_rows(z_ct, k.shape[1])
        return self.scale * matmul(s_ct, k), self.scale * matmul(transposed(s_ct), q)


def finite_or_zero(top: jax.Array) -> jax.Array:
    """The maximum of a row, 0 for one in which nothing is allowed."""
    return jnp.where(jnp.isfinite(top), top, 0)


def row_maximum(z: jax.Array) -> jax.Array:
    """The maximum over the last axis; weights do not depend on it, so that its derivative is left out."""
    return jnp.max(lax.stop_gradient(z), axis=-1, keepdims=True, initial=-jnp.inf)


def nonzero(total: jax.Array) -> jax.Array:
    """What to divide by: 1 for a row in which nothing is allowed, whose weights are all 0."""
    return jnp.where(total == 0, 1, total)


def _both(seen: jax.Array | None, also: jax.Array) -> jax.Array:
    return also if seen is None else seen & also


def _window(rule: str, size: Window) -> tuple[int, int] | None:
    if size is None:
        return None
    pair = size if isinstance(size, tuple) else (size, size)
    if len(pair) != 2 or not all(isinstance(n, int) and n >= 0 for n in pair):
        raise ValueError(
            f"{rule}: `local_window_size` must be None, a number of keys, or a pair (left, right) of them, "
            f"got {size!r}."
        )
    return pair
