"""Cross-entropy of a softmax against class indices, from logits."""

import jax
import optax
from jax import numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ..._numerics import upcast
from ..._rule import Rule
from ...domains import Booleans, Integers, Normal, Point
from .._checks import check_cotangent
from ._shared import (
    check_axis,
    class_index,
    classes,
    excluded,
    log_partition,
    masked_reference,
    one_hot,
    without_axis,
)

X = Float[Array, "*shape"]
Where = Bool[Array, "*shape"]
Labels = Int[Array, "*batch"]
Losses = Float[Array, "*batch"]
Residuals = tuple[X, Labels, Where | None, X, X]


def softmax_cross_entropy_with_integer_labels_fwd(
    logits: X,
    labels: Labels,
    where: Where | None = None,
    *,
    axis: int = -1,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
) -> tuple[Losses, Residuals]:
    """Cross-entropy of softmax(z) along `axis` against a class index k.

    As `optax.losses.softmax_cross_entropy_with_integer_labels`; α = `label_smoothing` and ζ = `z_loss` as in
    `softmax_cross_entropy`. `labels` has the shape of `logits` without `axis`.

    Forward, with M = max z, s = z - M, S = Σ eˢ, log Z = M + log S:

        ℓ = log S - (1 - α) s_k - α ⟨s⟩ + ζ (log Z)²      (⟨s⟩ the mean over the classes)

    Backward:

        z̄ = (eˢ / S (1 + 2 ζ log Z) - (1 - α) e_k - α / classes) ℓ̄

    Derivation. d log Z = ⟨softmax(z), dz⟩, so without options dℓ = ⟨softmax(z), dz⟩ - dz_k.

    A label outside [0, classes) gives NaN, value and gradient (optax counts a negative one from the end); a
    cotangent of 0 stays 0 there, too: padding that is masked out of the loss is no error. What `where` leaves
    out is left out of S and ⟨s⟩, but the label's own logit stays, as in optax; where `where` leaves out all
    of a row, value and gradient are 0.

    Saves z, the labels and M, S (one number a row each); the softmax is recomputed.
    """
    _check_labels(logits, labels, axis)
    z = upcast(logits)
    s, top, total = log_partition(z, axis, where)
    index, inside = class_index(labels, logits.shape[axis])
    s_k = jnp.take_along_axis(z, jnp.expand_dims(index, axis), axis=axis, mode="clip") - top
    loss = jnp.log(total) - (1 - label_smoothing) * s_k
    if label_smoothing:
        mean = jnp.sum(excluded(s, where), axis=axis, keepdims=True) / classes(s.shape, where, axis)
        loss = loss - label_smoothing * mean
    if z_loss:
        loss = loss + z_loss * jnp.square(top + jnp.log(total))
    loss = jnp.where(inside, jnp.squeeze(loss, axis), jnp.nan)
    if where is not None:
        loss = jnp.where(jnp.any(where, axis=axis), loss, 0)
    return loss.astype(logits.dtype), (logits, labels, where, top, total)


def softmax_cross_entropy_with_integer_labels_bwd(
    residuals: Residuals,
    loss_ct: Losses,
    *,
    axis: int = -1,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
) -> tuple[X, None, None]:
    """z̄ = (eˢ / S (1 + 2 ζ log Z) - (1 - α) e_k - α / classes) ℓ̄; labels have no cotangent."""
    logits, labels, where, top, total = residuals
    check_cotangent("softmax_cross_entropy_with_integer_labels", loss_ct, labels.shape, logits.dtype)
    index, inside = class_index(labels, logits.shape[axis])
    ct = jnp.where(inside | (loss_ct == 0), upcast(loss_ct), jnp.nan)
    if where is not None:
        ct = jnp.where(jnp.any(where, axis=axis), ct, 0)
    share = jnp.exp(excluded(upcast(logits), where, -jnp.inf) - top) / total
    if z_loss:
        share = share * (1 + 2 * z_loss * (top + jnp.log(total)))
    target = (1 - label_smoothing) * one_hot(index, logits.shape, axis)
    if label_smoothing:
        target = target + excluded(jnp.asarray(label_smoothing), where) / classes(logits.shape, where, axis)
    return ((share - target) * jnp.expand_dims(ct, axis)).astype(logits.dtype), None, None


def _check_labels(logits: jax.Array, labels: jax.Array, axis: int) -> None:
    rule = "softmax_cross_entropy_with_integer_labels"
    check_axis(rule, axis, logits)
    expected = without_axis(logits.shape, axis)
    if labels.shape != expected:
        advice = " For one-hot labels use softmax_cross_entropy." if labels.shape == logits.shape else ""
        raise ValueError(
            f"{rule}: argument `labels` has shape {labels.shape}, expected {expected}, the shape "
            f"{logits.shape} of `logits` without axis {axis}.{advice}"
        )


@masked_reference
def _integer_labels_reference(
    logits: X,
    labels: Labels,
    axis: int,
    where: Where | None = None,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
) -> Losses:
    one = optax.losses.softmax_cross_entropy_with_integer_labels
    log_z = jax.nn.logsumexp(logits, axis=axis, where=where)
    smoothed = log_z - jnp.mean(logits, axis=axis, where=where)
    entropy = (1 - label_smoothing) * one(logits, labels, axis, where) + label_smoothing * smoothed
    return entropy + z_loss * log_z**2


softmax_cross_entropy_with_integer_labels = Rule(
    softmax_cross_entropy_with_integer_labels_fwd,
    softmax_cross_entropy_with_integer_labels_bwd,
    reference=_integer_labels_reference,
    domain={"logits": Normal(3.0), "labels": Integers(0, 3), "where": Booleans()},
    points={
        "equal logits": Point({"logits": 2.0}),
        "saturated": Point({"logits": (1e4, 0.0)}),
        "all masked out": Point({"where": 0.0}),
        "impossible class": Point({"logits": (0.0, -float("inf")), "labels": 0.0, "where": 1.0}),
    },
    settings=({"axis": 0}, {"label_smoothing": 0.1}, {"z_loss": 0.01}),
    # Square, so that the labels fit along every axis.
    sizes=tuple({"shape": (3,) * (n + 1), "batch": (3,) * n} for n in range(1, 3)),
    formula="ℓ = log Σeᶻ - z_k; ∂ℓ/∂z = softmax(z) - e_k",
    saves="z, k, max z, Σ e^(z - max z)",
)
