"""The boxed identities of the sources, first and under their own names: numbers made of vectors and matrices.

Numbers in brackets are equations of the Matrix Cookbook (Petersen and Pedersen, 15 November 2012).
"""

from typing import Any

import jax
from jax import numpy as jnp

from .. import activations
from ._algebra import T, dot, inner, mv, outer
from ._identity import scalar

linear_form = scalar(
    "linear_form",
    "The linear form of a matrix.",
    "C = yᵀ A x",
    "dC = dyᵀ A x + yᵀ dA x + yᵀ A dx, and yᵀ dA x = y xᵀ : dA",
    "∂y = A x, ∂A = y xᵀ, ∂x = Aᵀ y",
    lambda y, a, x: (dot(s := mv(T(a), y), x), (y, a, x, s)),
    lambda y, a, x, s: (mv(a, x), outer(y, x), s),
    axes="y: m, a: m n, x: n",
    reference=lambda y, a, x: jnp.einsum("...m,...mn,...n->...", y, a, x),
    source="Cookbook (69)-(71)",
    saves="y, A, x, Aᵀ y",
)
bilinear_product = scalar(
    "bilinear_product",
    "The linear form of a product of two matrices.",
    "C = yᵀ A B x",
    "dC = dyᵀ A B x + yᵀ dA B x + yᵀ A dB x + yᵀ A B dx; what is left of a matrix comes back transposed on "
    "its left, what is right of it transposed on its right",
    "∂y = A B x, ∂A = y (B x)ᵀ, ∂B = (Aᵀ y) xᵀ, ∂x = Bᵀ Aᵀ y",
    lambda y, a, b, x: (dot(s := mv(T(a), y), q := mv(b, x)), (y, a, b, x, s, q)),
    lambda y, a, b, x, s, q: (mv(a, q), outer(y, q), outer(s, x), mv(T(b), s)),
    axes="y: m, a: m k, b: k n, x: n",
    reference=lambda y, a, b, x: jnp.einsum("...m,...mk,...kn,...n->...", y, a, b, x),
    source="Cookbook (70), twice",
    saves="y, A, B, x, Aᵀ y, B x",
)
quadratic_form = scalar(
    "quadratic_form",
    "The quadratic form of a square matrix, symmetric or not.",
    "C = xᵀ A x",
    "dC = dxᵀ A x + xᵀ dA x + xᵀ A dx: x occurs twice, so there are two terms",
    "∂x = (A + Aᵀ) x, ∂A = x xᵀ",
    lambda x, a: (dot(x, p := mv(a, x)), (x, a, p)),
    lambda x, a, p: (p + mv(T(a), x), outer(x, x)),
    axes="x: n, a: n n",
    reference=lambda x, a: jnp.einsum("...m,...mn,...n->...", x, a, x),
    source="Cookbook (72), (81), (97)",
    saves="x, A, A x",
)
gram_form = scalar(
    "gram_form",
    "Half the squared length of A x, a quadratic form in the Gram matrix of A.",
    "C = ½ xᵀ Aᵀ A x = ½ ‖A x‖²",
    "with p = A x, dC = pᵀ dp and dp = dA x + A dx: A occurs twice, and the ½ is used up",
    "∂A = (A x) xᵀ, ∂x = Aᵀ A x",
    lambda a, x: (dot(p := mv(a, x), p) / 2, (a, x, p)),
    lambda a, x, p: (outer(p, x), mv(T(a), p)),
    axes="a: m n, x: n",
    reference=lambda a, x: jnp.sum(jnp.square(jnp.einsum("...mn,...n->...m", a, x)), -1) / 2,
    source="Cookbook (77)",
    saves="A, x, A x",
)
gram_product_form = scalar(
    "gram_product_form",
    "Half the squared length of A B x.",
    "C = ½ xᵀ Bᵀ Aᵀ A B x = ½ ‖A B x‖²",
    "with q = B x and p = A q, dC = pᵀ dp, dp = dA q + A dq, dq = dB x + B dx",
    "∂A = (A B x)(B x)ᵀ, ∂B = (Aᵀ A) B (x xᵀ), ∂x = Bᵀ Aᵀ A B x",
    lambda a, b, x: (dot(p := mv(a, q := mv(b, x)), p) / 2, (a, b, x, q, p)),
    lambda a, b, x, q, p: (outer(p, q), outer(s := mv(T(a), p), x), mv(T(b), s)),
    axes="a: m k, b: k n, x: n",
    reference=lambda a, b, x: jnp.sum(jnp.square(jnp.einsum("...mk,...kn,...n->...m", a, b, x)), -1) / 2,
    source="Cookbook (77), (82)",
    saves="A, B, x, B x, A B x",
)
least_squares_cost = scalar(
    "least_squares_cost",
    "Half the mean squared residual of n examples, the rows of X.",
    "C = ‖X W - Y‖² / (2n)",
    "with R = X W - Y, dC = R : dR / n and dR = dX W + X dW - dY",
    "∂X = R Wᵀ / n, ∂W = Xᵀ R / n, ∂Y = -R / n",
    lambda x, w, y: (inner(r := x @ w - y, r) / (2 * max(y.shape[-2], 1)), (x, w, r)),
    lambda x, w, r: ((d := r / max(r.shape[-2], 1)) @ T(w), T(x) @ d, -d),
    axes="x: n d, w: d k, y: n k",
    reference=lambda x, w, y: (
        jnp.sum(jnp.square(jnp.einsum("...nd,...dk->...nk", x, w) - y), (-1, -2)) / (2 * max(y.shape[-2], 1))
    ),
    source="Cookbook (84), (119), (132)",
    saves="X, W, R",
)
linear_network_cost = scalar(
    "linear_network_cost",
    "The squared error of a chain of three linear layers: the δ recurrence without σ.",
    "C = ½ ‖W₃ W₂ W₁ x - y‖²",
    "with x₁ = W₁ x, x₂ = W₂ x₁, x₃ = W₃ x₂ and δ₃ = x₃ - y, δ₂ = W₃ᵀ δ₃, δ₁ = W₂ᵀ δ₂, dC = δ₃ᵀ dx₃ - δ₃ᵀ dy "
    "and δᵢᵀ dxᵢ = δᵢ xᵢ₋₁ᵀ : dWᵢ + δᵢ₋₁ᵀ dxᵢ₋₁",
    "∂x = W₁ᵀ δ₁, ∂W₁ = δ₁ xᵀ, ∂W₂ = δ₂ x₁ᵀ, ∂W₃ = δ₃ x₂ᵀ, ∂y = -δ₃",
    lambda x, w1, w2, w3, y: (
        dot(d := mv(w3, x2 := mv(w2, x1 := mv(w1, x))) - y, d) / 2,
        (x, w1, w2, w3, x1, x2, d),
    ),
    lambda x, w1, w2, w3, x1, x2, d3: (
        mv(T(w1), d1 := mv(T(w2), d2 := mv(T(w3), d3))),
        outer(d1, x),
        outer(d2, x1),
        outer(d3, x2),
        -d3,
    ),
    axes="x: n, w1: h n, w2: k h, w3: m k, y: m",
    reference=lambda x, w1, w2, w3, y: (
        jnp.sum(jnp.square(jnp.einsum("...mk,...kh,...hn,...n->...m", w3, w2, w1, x) - y), -1) / 2
    ),
    source="the boxes of the linear network",
    saves="x, W₁, W₂, W₃, x₁, x₂, x₃ - y",
)

_NAMES = ("identity", "relu", "sigmoid", "sin", "softplus", "tanh")
_SIGMAS = {name: getattr(activations, name) for name in _NAMES}


def _sigma(rule: str, option: str, name: str) -> Any:
    if name not in _SIGMAS:
        raise ValueError(f"{rule}: static option `{option}` must be one of {sorted(_SIGMAS)}, got {name!r}.")
    return _SIGMAS[name]


def _nested(y: jax.Array, a: jax.Array, x: jax.Array, *, sigma: str = "tanh") -> tuple[Any, tuple[Any, ...]]:
    q, saved = _sigma("nested_form", "sigma", sigma).fwd(mv(a, x))
    return dot(y, q), (y, a, x, q, saved)


def _nested_gradients(
    y: jax.Array, a: jax.Array, x: jax.Array, q: jax.Array, saved: Any, *, sigma: str = "tanh"
) -> tuple[jax.Array, ...]:
    (delta,) = _SIGMAS[sigma].bwd(saved, y)
    return q, outer(delta, x), mv(T(a), delta)


nested_form = scalar(
    "nested_form",
    "The linear form of a nonlinear layer; σ by the name of its rule.",
    "C = yᵀ σ(A x)",
    "dC = dyᵀ σ(A x) + yᵀ (σ′(A x) ⊙ (dA x + A dx)), and with δ = y ⊙ σ′(A x) the second term is "
    "δ xᵀ : dA + δᵀ A dx",
    "∂y = σ(A x), ∂A = [y ⊙ σ′(A x)] xᵀ, ∂x = Aᵀ [y ⊙ σ′(A x)]",
    _nested,
    _nested_gradients,
    axes="y: m, a: m n, x: n",
    reference=lambda y, a, x, sigma="tanh": jnp.einsum(
        "...m,...m->...", y, _SIGMAS[sigma].reference(jnp.einsum("...mn,...n->...m", a, x))
    ),
    settings=({"sigma": "softplus"},),
    source="the box of yᵀ σ(A x); Cookbook (128) for matrices",
    saves="y, A, x, σ(A x), and A x where σ′ needs it",
)


def _twice_nested(
    y: jax.Array,
    a: jax.Array,
    b: jax.Array,
    x: jax.Array,
    *,
    outer_sigma: str = "tanh",
    inner_sigma: str = "tanh",
) -> tuple[Any, tuple[Any, ...]]:
    q1, saved1 = _sigma("twice_nested_form", "inner_sigma", inner_sigma).fwd(mv(b, x))
    q2, saved2 = _sigma("twice_nested_form", "outer_sigma", outer_sigma).fwd(mv(a, q1))
    return dot(y, q2), (y, a, b, x, q1, saved1, q2, saved2)


def _twice_nested_gradients(
    y: jax.Array,
    a: jax.Array,
    b: jax.Array,
    x: jax.Array,
    q1: jax.Array,
    saved1: Any,
    q2: jax.Array,
    saved2: Any,
    *,
    outer_sigma: str = "tanh",
    inner_sigma: str = "tanh",
) -> tuple[jax.Array, ...]:
    (delta2,) = _SIGMAS[outer_sigma].bwd(saved2, y)
    (delta1,) = _SIGMAS[inner_sigma].bwd(saved1, mv(T(a), delta2))
    return q2, outer(delta2, q1), outer(delta1, x), mv(T(b), delta1)


twice_nested_form = scalar(
    "twice_nested_form",
    "The linear form of two nonlinear layers; each σ by the name of its rule.",
    "C = yᵀ σ₂(A σ₁(B x))",
    "with q = σ₁(B x) and δ₂ = y ⊙ σ₂′(A q), dC = dyᵀ σ₂(A q) + δ₂ qᵀ : dA + (Aᵀ δ₂)ᵀ dq, and dq = σ₁′(B x) "
    "⊙ (dB x + B dx); σ′ meets δ before the next matrix does",
    "∂y = σ₂(A q), ∂A = δ₂ qᵀ, ∂B = δ₁ xᵀ, ∂x = Bᵀ δ₁, with δ₂ = y ⊙ σ₂′(A q), δ₁ = (Aᵀ δ₂) ⊙ σ₁′(B x)",
    _twice_nested,
    _twice_nested_gradients,
    axes="y: m, a: m k, b: k n, x: n",
    reference=lambda y, a, b, x, outer_sigma="tanh", inner_sigma="tanh": jnp.sum(
        y
        * _SIGMAS[outer_sigma].reference(
            jnp.einsum(
                "...mk,...k->...m", a, _SIGMAS[inner_sigma].reference(jnp.einsum("...kn,...n->...k", b, x))
            )
        ),
        -1,
    ),
    settings=({"outer_sigma": "sigmoid", "inner_sigma": "sin"},),
    source="the boxes of yᵀ σ₂(A σ₁(B x))",
    saves="y, A, B, x, σ₁(B x), σ₂(A q), and p where a σ′ needs it",
)
