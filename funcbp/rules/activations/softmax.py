"""Softmax: the activation whose Jacobian is not diagonal."""

import jax
from jax import numpy as jnp
from jaxtyping import Array, Float

from ..._numerics import upcast
from ..._rule import Rule
from ...domains import Normal, Point
from .._checks import check_cotangent

X = Float[Array, "*shape"]


def softmax_fwd(p: X, *, axis: int = -1) -> tuple[X, X]:
    """Softmax along `axis`.

    Forward:     q = e^(p - max p) / Σ e^(p - max p)
    Backward:    p̄ = q ⊙ (q̄ - ⟨q, q̄⟩)

    Derivation. d log q = dp - ⟨q, dp⟩, so dq = q ⊙ (dp - ⟨q, dp⟩) = (Diag(q) - q qᵀ) dp; that matrix is
    symmetric, and the pullback is the same map applied to q̄. It takes the place of ⊙ σ′ of an elementwise
    activation.

    Saves q.
    """
    x = upcast(p)
    # An empty axis has no maximum; its softmax is empty too.
    top = jnp.max(x, axis=axis, keepdims=True, initial=-jnp.inf)
    e = jnp.exp(x - jnp.where(jnp.isfinite(top), top, 0))
    q = (e / jnp.sum(e, axis=axis, keepdims=True)).astype(p.dtype)
    return q, q


def softmax_bwd(residuals: X, q_ct: X, *, axis: int = -1) -> tuple[X]:
    """p̄ = q ⊙ (q̄ - ⟨q, q̄⟩)."""
    check_cotangent("softmax", q_ct, residuals.shape, residuals.dtype)
    q, ct = upcast(residuals), upcast(q_ct)
    return ((q * (ct - jnp.sum(q * ct, axis=axis, keepdims=True))).astype(q_ct.dtype),)


softmax = Rule(
    softmax_fwd,
    softmax_bwd,
    reference=jax.nn.softmax,
    domain={"p": Normal(2.0)},
    points={
        "equal entries": Point({"p": 3.0}, {"p": 0.0}),
        "saturated": Point({"p": (1e4, 0.0)}, {"p": 0.0}),
        "masked entry": Point({"p": (0.0, -float("inf"))}, {"p": 0.0}),
    },
    settings=({"axis": 0},),
    formula="q = eᵖ / Σ eᵖ, p̄ = q ⊙ (q̄ - ⟨q, q̄⟩)",
    saves="q",
)
