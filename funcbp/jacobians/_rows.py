"""Operators of arrays whose rows are apart: softmax, normalizations, and what reduces a row to a number."""

import jax
from jax import numpy as jnp

from ._names import Name
from ._operator import Operator, Shape, size
from .block_diagonal import blocks
from .kronecker import Kronecker
from .low_rank import DiagonalPlusLowRank

__all__ = ["functionals", "log_softmax_rows", "normalized_rows", "ones", "softmax_rows"]


def softmax_rows(q: jax.Array, name: str = "q", factor: float = 1.0) -> Operator:
    """c (Diag(q) - q qᵀ) for every row q."""

    def row(q: jax.Array) -> Operator:
        scaled = factor * q
        text = f"Diag({name}) − {name} {name}ᵀ"
        text = text if factor == 1 else f"{factor:g} ({text})"
        return DiagonalPlusLowRank(scaled, -scaled[:, None], q[:, None], q.shape[0], text, text)

    return blocks(q.shape[:-1], row, q)


def log_softmax_rows(q: jax.Array, name: str = "q") -> Operator:
    """I - 1 qᵀ for every row, with q its softmax."""

    def row(q: jax.Array) -> Operator:
        one = jnp.ones_like(q)
        n = q.shape[0]
        return DiagonalPlusLowRank(one, -one[:, None], q[:, None], n, f"I − 𝟏 {name}ᵀ", f"I − {name} 𝟏ᵀ")

    return blocks(q.shape[:-1], row, q)


def normalized_rows(
    x_hat: jax.Array, r: jax.Array, gain: jax.Array | None, gain_name: str, count: int, *, centered: bool
) -> Operator:
    """r Diag(γ) (I - 11ᵀ/n - x̂x̂ᵀ/n) for every row x̂; without 11ᵀ where x is not centered.

    Args:
        x_hat: the normalized rows.
        r: what each was multiplied by, with its last axis of size 1.
        gain: γ.
        gain_name: of γ.
        count: n of x̂x̂ᵀ/n.
        centered: whether the mean was subtracted.
    """
    entries = r * (jnp.ones_like(x_hat) if gain is None else gain)
    text = f"I − {'𝟏𝟏ᵀ/n − ' if centered else ''}x̂x̂ᵀ" + ("" if count == 1 else "/n")
    name = turned = f"r ({text})"
    if gain is not None:
        name, turned = f"r Diag({gain_name}) ({text})", f"r ({text}) Diag({gain_name})"

    def row(entries: jax.Array, x_hat: jax.Array) -> Operator:
        n = x_hat.shape[0]
        v = jnp.stack([jnp.ones_like(x_hat), x_hat], -1) if centered else x_hat[:, None]
        u = -entries[:, None] * v / jnp.asarray([n, count] if centered else [count], v.dtype)
        return DiagonalPlusLowRank(entries, u, v, n, name, turned)

    return blocks(x_hat.shape[:-1], row, entries, x_hat)


def functionals(gradient: jax.Array, batch: Shape, name: str) -> Operator:
    """dy_n = ⟨g_n, dx_n⟩ for every example n.

    Args:
        gradient: g, the gradient of every example's number.
        batch: the axes that count the examples.
        name: of g_n.
    """
    inner = gradient.shape[len(batch) :]

    def one(g: jax.Array) -> Operator:
        return Kronecker(g.reshape(1, -1), None, inner, (), (), (), Name.of(name).T)

    return blocks(batch, one, gradient)


def ones(rows: Shape, columns: Shape, dtype: jnp.dtype) -> Operator:
    """dY = 1 dbᵀ: a bias, to every row."""
    return Kronecker(jnp.ones((size(rows), 1), dtype), None, (), columns, rows, columns, Name.of("𝟏"))
