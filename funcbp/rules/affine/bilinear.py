"""Layers that are linear in two arrays: a bilinear form for every output, a low-rank adapter."""

import jax
from jax import numpy as jnp
from jaxtyping import Array, Float

from ... import _numerics
from ..._numerics import contracted, upcast
from ..._rule import Rule
from ...domains import Normal
from ...factors import Factor, Outer
from .._checks import check_cotangent
from .products import dense

X = Float[Array, "*batch left"]
Y = Float[Array, "*batch right"]
W = Float[Array, "left right out"]
Bias = Float[Array, " out"]
P = Float[Array, "*batch out"]


def bilinear_fwd(x: X, y: Y, w: W, b: Bias | None = None) -> tuple[P, tuple[X, Y, W, Bias | None]]:
    """A bilinear form for every output, with or without a bias.

    Forward:     p_o = xᵀ W_o y + b_o = ⟨W_o, x yᵀ⟩ + b_o
    Backward, with δ = p̄ and M = Σ_o δ_o W_o:

        x̄ = M y      ȳ = Mᵀ x      W̄_o = Σ δ_o x yᵀ      b̄ = Σ δ, sums over all leading axes

    Derivation. p is linear in z = x yᵀ, as a dense layer in its input: z̄ = M, W̄ = Σ z ⊗ δ. With dz = dx yᵀ +
    x dyᵀ, M : dz = (M y) : dx + (Mᵀ x) : dy (Cookbook 70).

    Saves x, y, W and b. z and M are temporaries of left · right numbers an example: what autodiff saves from
    one pass to the other instead, x W, is right · out. Beside the three products of left · right · out that
    both have, there are two of left · right here, and three of right · out in autodiff. The dense layer's own
    rule is at work: products accumulate in float32 at least; z, M and the results are rounded, once each.
    """
    return dense.primal(_outer(x, y), _flat(w), b), (x, y, w, b)


def bilinear_bwd(residuals: tuple[X, Y, W, Bias | None], p_ct: P) -> tuple[X, Y, W, Bias | None]:
    """x̄ = M y, ȳ = Mᵀ x, W̄ = Σ x yᵀ ⊗ δ, b̄ = Σ δ."""
    x, y, w, b = residuals
    check_cotangent("bilinear", p_ct, (*x.shape[:-1], w.shape[-1]), x.dtype)
    z_ct, w_ct, b_ct = dense.bwd((_outer(x, y), _flat(w), b), p_ct)
    m = z_ct.reshape(*x.shape, y.shape[-1])
    x_ct, y_ct = contracted("...lr,...r->...l", m, y), contracted("...lr,...l->...r", m, x)
    return x_ct.astype(x.dtype), y_ct.astype(y.dtype), w_ct.reshape(w.shape), b_ct


def _outer(x: X, y: Y) -> jax.Array:
    """x yᵀ, as the vector that stacks its rows."""
    return (x[..., :, None] * y[..., None, :]).reshape(*x.shape[:-1], x.shape[-1] * y.shape[-1])


def _flat(w: W) -> jax.Array:
    return w.reshape(w.shape[0] * w.shape[1], w.shape[2])


def _bilinear_reference(x: X, y: Y, w: W, b: Bias | None = None) -> P:
    p = jnp.einsum("...l,lro,...r->...o", x, w, y)
    return p if b is None else p + b


bilinear = Rule(
    bilinear_fwd,
    bilinear_bwd,
    reference=_bilinear_reference,
    domain={"x": Normal(), "y": Normal(), "w": Normal(), "b": Normal()},
    formula="p_o = xᵀ W_o y + b_o; x̄ = M y, ȳ = Mᵀ x, M = Σ δ_o W_o, W̄_o = Σ δ_o x yᵀ",
    saves="x, y, W, b",
)


In = Float[Array, "*batch in"]
Dense = Float[Array, "in out"]
Down = Float[Array, "in rank"]
Up = Float[Array, "rank out"]
Inner = Float[Array, "*batch rank"]


def low_rank_adapter_fwd(
    x: In, w: Dense, a: Down, b: Up, *, scale: float = 1.0
) -> tuple[P, tuple[In, Dense, Down, Up, Inner]]:
    """A dense layer with a low-rank correction: x (W + s A B) (Hu et al. 2021, arXiv:2106.09685).

    Forward:     h = x A      p = x W + s h B
    Backward, with δ = p̄ and h̄ = s δ Bᵀ:

        x̄ = δ Wᵀ + h̄ Aᵀ      W̄ = Σ xᵀ δ      Ā = Σ xᵀ h̄      B̄ = Σ (s h)ᵀ δ, sums over all leading axes

    Derivation. Three dense layers: dp = dx W + x dW + s (dh B + h dB), dh = dx A + x dA. A B, as large as W,
    is never formed, nor is its gradient: with W frozen, xᵀ δ is not computed at all.

    Saves x, W, A, B and h, which is as narrow as the rank. Products accumulate in float32 at least; h, h̄ and
    the results are rounded, once each.
    """
    h = _numerics.matmul(x, a).astype(x.dtype)
    p = _numerics.matmul(x, w) + scale * _numerics.matmul(h, b)
    return p.astype(x.dtype), (x, w, a, b, h)


def low_rank_adapter_pullback(
    residuals: tuple[In, Dense, Down, Up, Inner], p_ct: P, *, scale: float = 1.0
) -> tuple[In, Factor, Factor, Factor]:
    """x̄ = δ Wᵀ + h̄ Aᵀ, and the factors of W, A and B."""
    x, w, a, b, h = residuals
    check_cotangent("low_rank_adapter", p_ct, (*x.shape[:-1], w.shape[-1]), x.dtype)
    h_ct = (scale * _numerics.matmul(p_ct, b.T)).astype(x.dtype)
    x_ct = _numerics.matmul(p_ct, w.T) + _numerics.matmul(h_ct, a.T)
    scaled = (scale * upcast(h)).astype(h.dtype)
    return x_ct.astype(x.dtype), Outer(x, p_ct), Outer(x, h_ct), Outer(scaled, p_ct)


low_rank_adapter = Rule(
    low_rank_adapter_fwd,
    low_rank_adapter_pullback,
    reference=lambda x, w, a, b, scale=1.0: x @ w + scale * ((x @ a) @ b),
    domain={"x": Normal(), "w": Normal(), "a": Normal(), "b": Normal()},
    settings=({"scale": 0.25},),
    formula="p = x W + s (x A) B; x̄ = δ Wᵀ + h̄ Aᵀ, h̄ = s δ Bᵀ, Ā = Σ xᵀ h̄, B̄ = Σ (s x A)ᵀ δ",
    saves="x, W, A, B, x A",
)
