"""Sparsemax: softmax's counterpart that gives exact zeros (Martins & Astudillo 2016, arXiv:1602.02068)."""

import jax
from jax import lax
from jax import numpy as jnp
from jaxtyping import Array, Float

from ..._numerics import upcast
from ..._rule import Rule
from ...domains import Normal, Point
from .._checks import check_cotangent

X = Float[Array, "*shape"]


def sparsemax_fwd(p: X, *, axis: int = -1) -> tuple[X, X]:
    """The Euclidean projection of p onto the simplex, along `axis`.

    Forward, with z the entries in decreasing order:

        τ = max_k (z₁ + … + z_k - 1) / k      q = max(p - τ, 0)

    Backward, with S = {i: q_i > 0} and ⟨q̄⟩ the mean of q̄ over S:

        p̄ = [q > 0] ⊙ (q̄ - ⟨q̄⟩)

    Derivation. q sums to one if |S| τ = Σ_S p - 1; (z₁ + … + z_k - 1) / k grows with k as long as the next
    z is above it, so that its maximum is this τ. Hence dτ is the mean of dp over S, and dq_S = (I - 11ᵀ/|S|)
    dp_S: a projection, symmetric. All other entries of q stay 0.

    Where p_i = τ the set changes: such an entry counts as outside, as in the paper (there, too, S is what
    lies strictly above).

    Saves q, from which S is read.
    """
    x = jnp.moveaxis(upcast(p), axis, -1)
    z = lax.stop_gradient(-jnp.sort(-x, axis=-1))
    k = jnp.arange(1, z.shape[-1] + 1)
    threshold = jnp.max((jnp.cumsum(z, axis=-1) - 1) / k, axis=-1, keepdims=True, initial=-jnp.inf)
    # Once more from its entries alone: a short sum instead of a running one, and the derivative is right.
    inside = x > threshold
    count = jnp.maximum(jnp.sum(inside, axis=-1, keepdims=True), 1)
    tau = (jnp.sum(jnp.where(inside, x, 0), axis=-1, keepdims=True) - 1) / count
    q = jnp.moveaxis(jnp.where(x > tau, x - tau, 0), -1, axis).astype(p.dtype)
    return q, q


def sparsemax_bwd(residuals: X, q_ct: X, *, axis: int = -1) -> tuple[X]:
    """p̄ = [q > 0] ⊙ (q̄ - ⟨q̄⟩)."""
    check_cotangent("sparsemax", q_ct, residuals.shape, residuals.dtype)
    inside = residuals > 0
    ct = jnp.where(inside, upcast(q_ct), 0)
    count = jnp.maximum(jnp.sum(inside, axis=axis, keepdims=True), 1)
    mean = jnp.sum(ct, axis=axis, keepdims=True) / count
    return (jnp.where(inside, ct - mean, 0).astype(q_ct.dtype),)


def _sparsemax_reference(p: X, axis: int = -1) -> X:
    z = jnp.flip(jnp.sort(p, axis=axis), axis)
    shape = [1] * p.ndim
    shape[axis] = -1
    k = jnp.arange(1, p.shape[axis] + 1).reshape(shape)
    support = 1 + k * z > jnp.cumsum(z, axis=axis)
    size = jnp.sum(support, axis=axis, keepdims=True)
    tau = (jnp.sum(jnp.where(support, z, 0), axis=axis, keepdims=True) - 1) / size
    return jax.nn.relu(p - tau)


sparsemax = Rule(
    sparsemax_fwd,
    sparsemax_bwd,
    reference=_sparsemax_reference,
    domain={"p": Normal()},
    points={
        "equal entries": Point({"p": 3.0}, {"p": 0.0}),
        "one entry": Point({"p": (1e4, 0.0, 0.0)}, {"p": 0.0}),
        "change of support": Point({"p": (1.0, 0.0, -1.0)}, {"p": 0.0}, smooth=False),
        "masked entry": Point({"p": (0.0, -float("inf"), 0.5)}, {"p": 0.0}),
    },
    settings=({"axis": 0},),
    formula="q = max(p - τ, 0), Σ q = 1; p̄ = [q > 0] ⊙ (q̄ - mean of q̄ over q > 0)",
    saves="q",
)
