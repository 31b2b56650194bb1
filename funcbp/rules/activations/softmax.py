"""Softmax, its logarithm and its normalizer: what depends on all entries along an axis.

All of them are made of M = max p and S = Σ e^(p - M), kept apart: in M + log S the digits of S would drown. A
row of nothing but -∞ stands for nothing at all: its softmax is 0, and no gradient reaches it.
"""

from typing import Any

import jax
from jax import lax
from jax import numpy as jnp
from jaxtyping import Array, Float

from ..._numerics import upcast
from ..._rule import Rule
from ...domains import Normal, Point
from .._checks import check_cotangent

X = Float[Array, "*shape"]
Reduced = Float[Array, "*reduced"]
Axis = int | tuple[int, ...] | None
Saved = tuple[X, jax.Array, jax.Array]

_NOTHING = -float("inf")
_MASKED = (0.0, _NOTHING)


def _exponentials(p: X, axis: Axis) -> tuple[jax.Array, jax.Array, jax.Array]:
    """e^(p - M), M and S, the reduced axes kept."""
    x = upcast(p)
    # An empty axis has no maximum; its softmax is empty too. No result depends on M, nor does a derivative.
    top = lax.stop_gradient(jnp.max(x, axis=axis, keepdims=True, initial=-jnp.inf))
    e = jnp.exp(_below(x, top))
    return e, top, jnp.sum(e, axis=axis, keepdims=True)


def _below(p: X, top: jax.Array) -> jax.Array:
    """p - M, which is -∞ where M is."""
    return upcast(p) - jnp.where(top == -jnp.inf, 0, top)


def _or_one(total: jax.Array) -> jax.Array:
    """S, or 1 where there is nothing: 0 / 1 and log 1 are the limits that are wanted."""
    return jnp.where(total == 0, 1, total)


def _softmax(p: X, top: jax.Array, total: jax.Array) -> jax.Array:
    return jnp.exp(_below(p, top)) / _or_one(total)


def _reduced(rule: str, shape: tuple[int, ...], axis: Axis, keepdims: bool) -> tuple[int, ...]:
    """What is left of a shape after a reduction over `axis`."""
    axes = range(len(shape)) if axis is None else (axis,) if isinstance(axis, int) else axis
    if any(not -len(shape) <= one < len(shape) for one in axes):
        raise ValueError(f"{rule}: `axis` is {axis}, but `p` has shape {shape}; count from 0 or from -1.")
    gone = {one % len(shape) for one in axes}
    return tuple(1 if i in gone else n for i, n in enumerate(shape) if keepdims or i not in gone)


def softmax_fwd(p: X, *, axis: int = -1, temperature: float = 1.0) -> tuple[X, X]:
    """Softmax along `axis`, of p over the temperature t.

    Forward:     q = e^((p - max p) / t) / Σ e^((p - max p) / t)
    Backward:    p̄ = q ⊙ (q̄ - ⟨q, q̄⟩) / t

    Derivation. d log q = (dp - ⟨q, dp⟩) / t, so dq = q ⊙ (dp - ⟨q, dp⟩) / t = (Diag(q) - q qᵀ) dp / t; that
    matrix is symmetric, and the pullback is the same map applied to q̄. It takes the place of ⊙ σ′ of an
    elementwise activation.

    If all entries are -∞ (nothing left by a mask) q = 0 and p̄ = 0; jax.nn.softmax gives NaN. The option is a
    constant: for a temperature that is learned, softmax(p / t).

    Saves q.

    Raises:
        ValueError: for a temperature that is not above 0.
    """
    if not temperature > 0:
        raise ValueError(
            f"softmax: `temperature` must be above 0, got {temperature!r}; towards 0 softmax is argmax."
        )
    e, _, total = _exponentials(_over(p, temperature), axis)
    q = (e / _or_one(total)).astype(p.dtype)
    return q, q


def softmax_bwd(residuals: X, q_ct: X, *, axis: int = -1, temperature: float = 1.0) -> tuple[X]:
    """p̄ = q ⊙ (q̄ - ⟨q, q̄⟩) / t."""
    check_cotangent("softmax", q_ct, residuals.shape, residuals.dtype)
    q, ct = upcast(residuals), upcast(q_ct)
    p_ct = q * (ct - jnp.sum(q * ct, axis=axis, keepdims=True))
    return (_over(p_ct, temperature).astype(q_ct.dtype),)


def _over(x: jax.Array, temperature: float) -> jax.Array:
    return x if temperature == 1 else upcast(x) / temperature


softmax = Rule(
    softmax_fwd,
    softmax_bwd,
    reference=lambda p, axis=-1, temperature=1.0: jax.nn.softmax(p / temperature, axis),
    domain={"p": Normal(2.0)},
    points={
        "equal entries": Point({"p": 3.0}, {"p": 0.0}),
        "saturated": Point({"p": (1e4, 0.0)}, {"p": 0.0}),
        "masked entry": Point({"p": _MASKED}, {"p": 0.0}),
        "all entries masked": Point(
            {"p": _NOTHING}, {"p": 0.0}, agrees=False, why="0 here; jax.nn.softmax gives NaN", smooth=False
        ),
    },
    settings=({"axis": 0}, {"temperature": 0.5}, {"temperature": 4.0}),
    formula="q = e^(p/t) / Σ e^(p/t), p̄ = q ⊙ (q̄ - ⟨q, q̄⟩) / t",
    saves="q",
)


def log_softmax_fwd(p: X, *, axis: int = -1) -> tuple[X, Saved]:
    """Logarithm of softmax along `axis`.

    Forward, with M = max p, S = Σ e^(p - M):    q = (p - M) - log S
    Backward, with s = e^(p - M) / S:            p̄ = q̄ - s Σ q̄

    Derivation. d log S = ⟨s, dp⟩ - dM, so dq = dp - 1 ⟨s, dp⟩, and the transpose of I - 1 sᵀ is I - s 1ᵀ.

    If all entries are -∞, q = -∞ and s = 0, so that p̄ = q̄; jax.nn.log_softmax gives NaN.

    Saves p and M, S (one number a row each): s read off q, which is rounded, would lose digits.
    """
    _, top, total = _exponentials(p, axis)
    q = _below(p, top) - jnp.log(_or_one(total))
    return q.astype(p.dtype), (p, top, total)


def log_softmax_bwd(residuals: Saved, q_ct: X, *, axis: int = -1) -> tuple[X]:
    """p̄ = q̄ - s Σ q̄."""
    p = residuals[0]
    check_cotangent("log_softmax", q_ct, p.shape, p.dtype)
    ct = upcast(q_ct)
    return ((ct - _softmax(*residuals) * jnp.sum(ct, axis=axis, keepdims=True)).astype(p.dtype),)


log_softmax = Rule(
    log_softmax_fwd,
    log_softmax_bwd,
    reference=jax.nn.log_softmax,
    domain={"p": Normal(2.0)},
    points={
        "equal entries": Point({"p": 3.0}, {"p": 0.0}),
        "saturated": Point({"p": (1e4, 0.0)}),
        "masked entry": Point({"p": _MASKED}),
        "all entries masked": Point(
            {"p": _NOTHING}, {"p": 1.0}, agrees=False, why="jax.nn.log_softmax gives NaN", smooth=False
        ),
    },
    settings=({"axis": 0},),
    formula="q = p - log Σ eᵖ, p̄ = q̄ - softmax(p) Σ q̄",
    saves="p, max p, Σ e^(p - max p)",
)


def logsumexp_fwd(p: X, *, axis: Axis = None, keepdims: bool = False) -> tuple[Reduced, Saved]:
    """log Σ eᵖ over `axis`, by default over all axes.

    Forward, with M = max p, S = Σ e^(p - M):    q = M + log S
    Backward, with s = e^(p - M) / S:            p̄ = s q̄

    Derivation. dq = Σ e^(p - M) dp / S = ⟨s, dp⟩; the terms of dM cancel.

    If all entries are -∞, or there are none, q = -∞ and p̄ = 0; jax.nn.logsumexp gives NaN for p̄.

    Saves p and M, S (one number each); the softmax is recomputed.
    """
    return _logsumexp("logsumexp", p, axis, keepdims, mean=False)


def logsumexp_bwd(residuals: Saved, q_ct: Reduced, *, axis: Axis = None, keepdims: bool = False) -> tuple[X]:
    """p̄ = s q̄."""
    return _logsumexp_bwd("logsumexp", residuals, q_ct, axis, keepdims)


def logmeanexp_fwd(p: X, *, axis: Axis = None, keepdims: bool = False) -> tuple[Reduced, Saved]:
    """Logarithm of the mean of eᵖ over `axis`, by default over all axes.

    Forward, with M = max p, S = Σ e^(p - M), n terms:    q = M + log(S / n)
    Backward, with s = e^(p - M) / S:                     p̄ = s q̄

    Derivation. That of logsumexp: log n is a constant.

    If all entries are -∞, q = -∞ and p̄ = 0; jax.nn.logmeanexp gives NaN for p̄.

    Saves p and M, S (one number each); the softmax is recomputed.
    """
    return _logsumexp("logmeanexp", p, axis, keepdims, mean=True)


def logmeanexp_bwd(residuals: Saved, q_ct: Reduced, *, axis: Axis = None, keepdims: bool = False) -> tuple[X]:
    """p̄ = s q̄."""
    return _logsumexp_bwd("logmeanexp", residuals, q_ct, axis, keepdims)


def _logsumexp(rule: str, p: X, axis: Axis, keepdims: bool, mean: bool) -> tuple[Reduced, Saved]:
    shape = _reduced(rule, p.shape, axis, keepdims)
    _, top, total = _exponentials(p, axis)
    count = p.size // top.size if mean and top.size else 1
    q = top + jnp.log(_or_one(total) / count)
    return q.reshape(shape).astype(p.dtype), (p, top, total)


def _logsumexp_bwd(rule: str, residuals: Saved, q_ct: Reduced, axis: Axis, keepdims: bool) -> tuple[X]:
    p, top, _ = residuals
    check_cotangent(rule, q_ct, _reduced(rule, p.shape, axis, keepdims), p.dtype)
    return ((_softmax(*residuals) * upcast(q_ct).reshape(top.shape)).astype(p.dtype),)


def _logsumexp_rule(fwd: Any, bwd: Any, reference: Any, formula: str) -> Rule:
    nan = "0 here; NaN in jax.nn"
    return Rule(
        fwd,
        bwd,
        reference=reference,
        domain={"p": Normal(2.0)},
        points={
            "equal entries": Point({"p": 3.0}),
            "saturated": Point({"p": (1e4, 0.0, 0.0)}),
            "masked entry": Point({"p": _MASKED}),
            "all entries masked": Point({"p": _NOTHING}, {"p": 0.0}, agrees=False, why=nan, smooth=False),
        },
        settings=({"axis": -1}, {"axis": 0, "keepdims": True}, {"axis": (-1, 0)}),
        formula=formula,
        saves="p, max p, Σ e^(p - max p)",
    )


logsumexp = _logsumexp_rule(logsumexp_fwd, logsumexp_bwd, jax.nn.logsumexp, "q = log Σ eᵖ, p̄ = softmax(p) q̄")
logmeanexp = _logsumexp_rule(
    logmeanexp_fwd, logmeanexp_bwd, jax.nn.logmeanexp, "q = log(Σ eᵖ / n), p̄ = softmax(p) q̄"
)


def softmax_entropy_fwd(p: X, *, axis: int = -1) -> tuple[Reduced, Saved]:
    """Entropy of softmax(p) along `axis`, from the logits.

    Forward, with M = max p, S = Σ e^(p - M), s = e^(p - M) / S, u = p - M:

        h = log S - ⟨s, u⟩      (a term with s = 0 is 0, also at p = -∞)

    Backward:

        p̄ = -s ⊙ (u - ⟨s, u⟩) h̄

    Derivation. h = -⟨s, log s⟩ and Σ ds = 0, so dh = -⟨log s, ds⟩: p̄ is the pullback of softmax, applied to
    -log s = log S - u, of which it drops the constant log S.

    Saves p and M, S (one number a row each); s is recomputed. Saturated rows have h = 0 and p̄ = 0, and
    masked entries add nothing, where 0 · ∞ would be NaN.
    """
    shape = _reduced("softmax_entropy", p.shape, axis, keepdims=False)
    _, top, total = _exponentials(p, axis)
    h = jnp.log(_or_one(total)) - _expectation(p, top, total, axis)[2]
    return h.reshape(shape).astype(p.dtype), (p, top, total)


def softmax_entropy_bwd(residuals: Saved, h_ct: Reduced, *, axis: int = -1) -> tuple[X]:
    """p̄ = -s ⊙ (u - ⟨s, u⟩) h̄."""
    p, top, _ = residuals
    check_cotangent("softmax_entropy", h_ct, _reduced("softmax_entropy", p.shape, axis, False), p.dtype)
    s, u, mean = _expectation(*residuals, axis)
    return ((s * (mean - u) * upcast(h_ct).reshape(top.shape)).astype(p.dtype),)


def _expectation(p: X, top: jax.Array, total: jax.Array, axis: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """s, u (0 where it is -∞) and ⟨s, u⟩."""
    u = jnp.where(p == -jnp.inf, 0, _below(p, top))
    s = _softmax(p, top, total)
    return s, u, jnp.sum(s * u, axis=axis, keepdims=True)


softmax_entropy = Rule(
    softmax_entropy_fwd,
    softmax_entropy_bwd,
    reference=lambda p, axis=-1: -jnp.sum(jax.nn.softmax(p, axis) * jax.nn.log_softmax(p, axis), axis),
    domain={"p": Normal(2.0)},
    points={
        "equal entries": Point({"p": 3.0}, {"p": 0.0}),
        "saturated": Point({"p": (1e4, 0.0, 0.0)}, {"p": 0.0}),
        "masked entry": Point({"p": (0.0, _NOTHING, 0.0)}, {"p": 0.0}, agrees=False, why="0 · ∞ is 0 here"),
        "all entries masked": Point(
            {"p": _NOTHING}, {"p": 0.0}, agrees=False, why="0 · ∞ is 0 here", smooth=False
        ),
    },
    settings=({"axis": 0},),
    formula="h = -⟨s, log s⟩, s = softmax(p); p̄ = -s ⊙ (log s + h) h̄",
    saves="p, max p, Σ e^(p - max p)",
)
