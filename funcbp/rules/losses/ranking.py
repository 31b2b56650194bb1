"""Ranking by a softmax over the items of a list; smoothing of labels."""

import functools

import optax
from jax import numpy as jnp
from jaxtyping import Array, Bool, Float

from ..._numerics import upcast
from ..._rule import Rule
from ...domains import Booleans, Normal, Point, Positive, Simplex
from .._checks import check_cotangent
from ._shared import check_axis, classes, one_hot, without_axis
from .cross_entropy import softmax_cross_entropy_bwd, softmax_cross_entropy_fwd

Items = Float[Array, "*batch items"]
Where = Bool[Array, "*batch items"]
Losses = Float[Array, "*batch"]
RowStat = Float[Array, "*batch 1"]
RankingResiduals = tuple[Items, Items, Items | None, Where | None, RowStat, RowStat]
X = Float[Array, "*shape"]


def ranking_softmax_loss_fwd(
    logits: Items, labels: Items, where: Where | None = None, weights: Items | None = None
) -> tuple[Losses, RankingResiduals]:
    """Cross-entropy of the softmax over the items of a list against their relevance y, weighted by w.

    As `optax.losses.ranking_softmax_loss` with `reduce_fn=None`: one value a list, reduced elsewhere.

    Forward, with s = z - max z, S = Σ eˢ over the items that `where` includes:    ℓ = Σ w ⊙ y ⊙ (log S - s)
    Backward:

        z̄ = (softmax(z) Σ w ⊙ y - w ⊙ y) ℓ̄      ȳ = w ⊙ (log S - s) ℓ̄      w̄ = y ⊙ (log S - s) ℓ̄

    Derivation. `softmax_cross_entropy` against w ⊙ y, which need not sum to one; d(w ⊙ y) = w ⊙ dy + y ⊙ dw.

    What `where` leaves out counts for nothing; where it leaves out all of a list, value and gradient are 0.

    Saves z, y, w and max z, S (one number a list each).
    """
    y = upcast(labels) if weights is None else upcast(labels) * upcast(weights)
    loss, (_, _, _, top, total) = softmax_cross_entropy_fwd(upcast(logits), y, where)
    return loss.astype(logits.dtype), (logits, labels, weights, where, top, total)


def ranking_softmax_loss_bwd(
    residuals: RankingResiduals, loss_ct: Losses
) -> tuple[Items, Items, None, Items | None]:
    """z̄ = (softmax(z) Σ w ⊙ y - w ⊙ y) ℓ̄, ȳ = w ⊙ (log S - s) ℓ̄, w̄ = y ⊙ (log S - s) ℓ̄."""
    logits, labels, weights, where, top, total = residuals
    check_cotangent("ranking_softmax_loss", loss_ct, logits.shape[:-1], logits.dtype)
    y, w = upcast(labels), 1 if weights is None else upcast(weights)
    wide = (upcast(logits), y * w, where, top, total)
    z_ct, target_ct, _ = softmax_cross_entropy_bwd(wide, upcast(loss_ct))
    w_ct = None if weights is None else (y * target_ct).astype(weights.dtype)
    return z_ct.astype(logits.dtype), (w * target_ct).astype(labels.dtype), None, w_ct


def _ranking_reference(
    logits: Items, labels: Items, where: Where | None = None, weights: Items | None = None
) -> Losses:
    # optax masks its logits with -∞, and has 0 · -∞ for their labels.
    loss = functools.partial(optax.losses.ranking_softmax_loss, weights=weights, reduce_fn=None)
    if where is None:
        return loss(logits, labels)
    some = jnp.any(where, axis=-1, keepdims=True)
    kept = jnp.where(where, logits, jnp.where(some, -1e9, 0))
    losses = loss(kept, jnp.where(where, labels, 0))
    return jnp.where(some[..., 0], losses, 0)


ranking_softmax_loss = Rule(
    ranking_softmax_loss_fwd,
    ranking_softmax_loss_bwd,
    reference=_ranking_reference,
    domain={"logits": Normal(3.0), "labels": Positive(), "where": Booleans(), "weights": Positive()},
    points={
        "equal logits": Point({"logits": 2.0}),
        "nothing relevant": Point({"labels": 0.0}, {"logits": 0.0}),
        "all masked out": Point({"where": 0.0}),
    },
    formula="ℓ = Σ w ⊙ y ⊙ (log Σeᶻ - z); ∂ℓ/∂z = softmax(z) Σ w ⊙ y - w ⊙ y",
    saves="z, y, w, max z, Σ e^(z - max z)",
)


def smooth_labels_fwd(
    labels: X, where: Bool[Array, "*shape"] | None = None, *, alpha: float = 0.1, axis: int = -1
) -> tuple[X, X]:
    """Labels, of which a share α goes evenly to all classes along `axis`.

    As `optax.losses.smooth_labels`. The cross-entropies have it as their option `label_smoothing`, which
    makes no array of smoothed labels.

    Forward:     ỹ = (1 - α) y + α / classes      (of the classes that `where` includes, at least 1)
    Backward:    ȳ = (1 - α) times the cotangent of ỹ

    Derivation. dỹ = (1 - α) dy.

    Saves ỹ, for its shape only.
    """
    check_axis("smooth_labels", axis, labels)
    share = alpha / classes(labels.shape, where, axis)
    smoothed = ((1 - alpha) * upcast(labels) + share).astype(labels.dtype)
    return smoothed, smoothed


def smooth_labels_bwd(residuals: X, out_ct: X, *, alpha: float = 0.1, axis: int = -1) -> tuple[X, None]:
    """ȳ = (1 - α) times the cotangent of ỹ."""
    del axis  # the derivative is the same for all
    check_cotangent("smooth_labels", out_ct, residuals.shape, residuals.dtype)
    return ((1 - alpha) * upcast(out_ct)).astype(out_ct.dtype), None


def _smooth_labels_reference(
    labels: X, where: Bool[Array, "*shape"] | None = None, *, alpha: float = 0.1, axis: int = -1
) -> X:
    if where is not None:
        where = where | ~jnp.any(where, axis=axis, keepdims=True) & one_hot(
            jnp.zeros(without_axis(labels.shape, axis), jnp.int32), labels.shape, axis
        )
    return optax.losses.smooth_labels(labels, alpha, axis=axis, where=where)


smooth_labels = Rule(
    smooth_labels_fwd,
    smooth_labels_bwd,
    reference=_smooth_labels_reference,
    domain={"labels": Simplex(), "where": Booleans()},
    settings=({"axis": 0}, {"alpha": 0.5}),
    formula="ỹ = (1 - α) y + α / classes; ∂ỹ/∂y = 1 - α",
    saves="the shape",
)
