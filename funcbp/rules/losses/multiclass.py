"""Losses of scores against a class index: largest margin, perceptron, sparsemax.

A label outside [0, classes) gives NaN, value and gradient; a cotangent of 0 stays 0 there, too.
"""

import jax
import optax
from jax import numpy as jnp
from jaxtyping import Array, Float, Int

from ..._numerics import upcast
from ..._rule import Rule
from ...domains import Distinct, Integers, Normal, Point
from .._checks import check_cotangent
from .._simplex import above, threshold
from ._shared import class_index, one_hot

Scores = Float[Array, "*batch classes"]
Labels = Int[Array, "*batch"]
Losses = Float[Array, "*batch"]
RowStat = Float[Array, "*batch 1"]
X = Float[Array, "*shape"]
Y = Int[Array, "*shape"]


def multiclass_hinge_loss_fwd(scores: Scores, labels: Labels) -> tuple[Losses, tuple[Scores, Labels]]:
    """By how much the best wrong score, plus 1, exceeds the right one; 0 if it does not.

    As `optax.losses.multiclass_hinge_loss` (Crammer, Singer 2001), for labels k.

    Forward, with m = z - z_k + 1 - e_k:    ℓ = max m
    Backward:                               z̄ = (a - e_k) ℓ̄, a the indicator of m = max m, shared among equals

    Derivation. d max m = ⟨a, dm⟩, dm = dz - dz_k, Σ a = 1. Ties share, as in JAX: the mean of the one-sided
    slopes. The difference z - z_k comes first, so that large scores do not drown the margin of 1.

    Saves z and the labels.
    """
    return _largest("multiclass_hinge_loss", scores, labels, 1.0)


def multiclass_hinge_loss_bwd(residuals: tuple[Scores, Labels], loss_ct: Losses) -> tuple[Scores, None]:
    """z̄ = (a - e_k) ℓ̄."""
    return _largest_bwd("multiclass_hinge_loss", residuals, loss_ct, 1.0)


def multiclass_perceptron_loss_fwd(scores: Scores, labels: Labels) -> tuple[Losses, tuple[Scores, Labels]]:
    """By how much the best score exceeds the right one.

    As `optax.losses.multiclass_perceptron_loss` (Collins 2002), for labels k.

    Forward, with m = z - z_k:    ℓ = max m
    Backward:                     z̄ = (a - e_k) ℓ̄, a the indicator of m = max m, shared among equals

    Derivation. As of `multiclass_hinge_loss`, without its margin of 1.

    Saves z and the labels.
    """
    return _largest("multiclass_perceptron_loss", scores, labels, 0.0)


def multiclass_perceptron_loss_bwd(residuals: tuple[Scores, Labels], loss_ct: Losses) -> tuple[Scores, None]:
    """z̄ = (a - e_k) ℓ̄."""
    return _largest_bwd("multiclass_perceptron_loss", residuals, loss_ct, 0.0)


def _largest(
    rule: str, scores: jax.Array, labels: jax.Array, margin: float
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    _check_classes(rule, scores)
    m, inside, _ = _margins(scores, labels, margin)
    return jnp.where(inside, jnp.max(m, axis=-1), jnp.nan).astype(scores.dtype), (scores, labels)


def _largest_bwd(
    rule: str, residuals: tuple[jax.Array, jax.Array], loss_ct: jax.Array, margin: float
) -> tuple[jax.Array, None]:
    scores, labels = residuals
    check_cotangent(rule, loss_ct, labels.shape, scores.dtype)
    m, inside, e_k = _margins(scores, labels, margin)
    active = m == jnp.max(m, axis=-1, keepdims=True)
    share = active / jnp.sum(active, axis=-1, keepdims=True, dtype=m.dtype)
    return ((share - e_k) * _known(loss_ct, inside)).astype(scores.dtype), None


def _margins(scores: jax.Array, labels: jax.Array, margin: float) -> tuple[jax.Array, jax.Array, jax.Array]:
    """z - z_k + margin (1 - e_k); which labels are a class; e_k."""
    z = upcast(scores)
    index, inside = class_index(labels, z.shape[-1])
    e_k = one_hot(index, z.shape)
    z_k = jnp.take_along_axis(z, index[..., None], axis=-1, mode="clip")
    return z - z_k + jnp.where(e_k, 0, margin), inside, e_k


def _known(loss_ct: jax.Array, inside: jax.Array) -> jax.Array:
    """The cotangent of every row, NaN where the label is no class and it matters."""
    return jnp.where(inside | (loss_ct == 0), upcast(loss_ct), jnp.nan)[..., None]


def _check_classes(rule: str, scores: jax.Array) -> None:
    if not scores.shape[-1]:
        raise ValueError(f"{rule}: argument `scores` has shape {scores.shape}; it needs at least one class.")


multiclass_hinge_loss = Rule(
    multiclass_hinge_loss_fwd,
    multiclass_hinge_loss_bwd,
    reference=optax.losses.multiclass_hinge_loss,
    domain={"scores": Distinct(), "labels": Integers(0, "classes")},
    points={"right by far": Point({"scores": (1e4, 0.0, 0.0, 0.0, 0.0), "labels": 0.0}, {"scores": 0.0})},
    formula="ℓ = max (z - z_k + 1 - e_k); ∂ℓ/∂z = [the largest] - e_k",
    saves="z, k",
)

multiclass_perceptron_loss = Rule(
    multiclass_perceptron_loss_fwd,
    multiclass_perceptron_loss_bwd,
    reference=optax.losses.multiclass_perceptron_loss,
    domain={"scores": Distinct(), "labels": Integers(0, "classes")},
    points={
        "right": Point({"scores": (1.0, 0.0, 0.0, 0.0, 0.0), "labels": 0.0}, {"scores": 0.0}),
        "all equal": Point(
            {"scores": 2.0, "labels": 0.0}, {"scores": (-0.8, 0.2, 0.2, 0.2, 0.2)}, smooth=False
        ),
    },
    sizes=({"classes": 5},),
    formula="ℓ = max z - z_k; ∂ℓ/∂z = [the largest] - e_k",
    saves="z, k",
)


def multiclass_sparsemax_loss_fwd(
    scores: Scores, labels: Labels
) -> tuple[Losses, tuple[Scores, Labels, RowStat]]:
    """Sparsemax loss of scores z against a class index k, over the last axis.

    As `optax.losses.multiclass_sparsemax_loss` (Martins, Astudillo 2016, arXiv:1602.02068), with any number
    of leading axes: the Fenchel-Young loss of the squared norm, as the cross-entropy is that of the entropy.

    Forward, with p = sparsemax(z) = max(z - τ, 0), τ such that Σ p = 1, s = z - z_k:

        ℓ = ⟨p, s⟩ + ½ (1 - ⟨p, p⟩)

    Backward:    z̄ = (p - e_k) ℓ̄

    Derivation. p maximizes ⟨p, z⟩ - ½ ⟨p, p⟩ over the simplex, so that maximum has the derivative p (Danskin:
    what p itself changes does not count), and dℓ = ⟨p, dz⟩ - dz_k. τ without sorting (Michelot 1986).

    Saves z, the labels and τ (one number a row); p is recomputed.
    """
    _check_classes("multiclass_sparsemax_loss", scores)
    z = upcast(scores)
    index, inside = class_index(labels, z.shape[-1])
    tau = threshold(z)
    p = above(z, tau)
    s = z - jnp.take_along_axis(z, index[..., None], axis=-1, mode="clip")
    loss = jnp.sum(p * s, axis=-1) + (1 - jnp.sum(p * p, axis=-1)) / 2
    return jnp.where(inside, loss, jnp.nan).astype(scores.dtype), (scores, labels, tau)


def multiclass_sparsemax_loss_bwd(
    residuals: tuple[Scores, Labels, RowStat], loss_ct: Losses
) -> tuple[Scores, None]:
    """z̄ = (p - e_k) ℓ̄."""
    scores, labels, tau = residuals
    check_cotangent("multiclass_sparsemax_loss", loss_ct, labels.shape, scores.dtype)
    index, inside = class_index(labels, scores.shape[-1])
    p = above(upcast(scores), tau)
    return ((p - one_hot(index, p.shape)) * _known(loss_ct, inside)).astype(scores.dtype), None


def _multiclass_sparsemax_reference(scores: Scores, labels: Labels) -> Losses:
    # Not optax's, whose custom derivative refuses float32 where 64-bit types are on. Without sorting: class j
    # has p > 0 if all the others exceed it by less than 1 together.
    s = scores - jnp.take_along_axis(scores, labels[..., None], axis=-1)
    support = jnp.sum(jax.nn.relu(s[..., None, :] - s[..., :, None]), axis=-1) < 1
    tau = (jnp.sum(s, axis=-1, where=support) - 1) / jnp.sum(support, axis=-1)
    return (1 + jnp.sum(s**2 - tau[..., None] ** 2, axis=-1, where=support)) / 2


multiclass_sparsemax_loss = Rule(
    multiclass_sparsemax_loss_fwd,
    multiclass_sparsemax_loss_bwd,
    reference=_multiclass_sparsemax_reference,
    domain={"scores": Normal(), "labels": Integers(0, "classes")},
    points={
        "equal scores": Point({"scores": 2.0}),
        "right by far": Point({"scores": (1e4, 0.0, 0.0, 0.0, 0.0), "labels": 0.0}, {"scores": 0.0}),
    },
    sizes=({"classes": 5},),
    formula="ℓ = ⟨p, z - z_k⟩ + ½ (1 - ⟨p, p⟩), p = sparsemax(z); ∂ℓ/∂z = p - e_k",
    saves="z, k, τ",
)


def sparsemax_loss_fwd(logits: X, labels: Y) -> tuple[X, tuple[X, Y]]:
    """Sparsemax loss of binary logits z against labels y in {0, 1}, elementwise.

    As `optax.losses.sparsemax_loss` (Blondel, Martins, Niculae 2020, arXiv:1901.02324, section 4.4).

    Forward, with u = z for y = 0, -z for y = 1:    ℓ = 0 for u ≤ -1, u for u ≥ 1, ¼ (u + 1)² between
    Backward:                                       z̄ = ±min(max(½ (u + 1), 0), 1) ℓ̄, the sign that of u/z

    Derivation. dℓ/du is 0, 1 and ½ (u + 1), continuous at ±1; du = ±dz.

    Saves z and y.
    """
    u = _against(logits, labels)
    c = _hard(u)
    # ℓ = c u + c (1 - c): on each branch the one stated above.
    return (c * (u + (1 - c))).astype(logits.dtype), (logits, labels)


def sparsemax_loss_bwd(residuals: tuple[X, Y], loss_ct: X) -> tuple[X, None]:
    """z̄ = ±min(max(½ (u + 1), 0), 1) ℓ̄."""
    logits, labels = residuals
    check_cotangent("sparsemax_loss", loss_ct, logits.shape, logits.dtype)
    slope = _hard(_against(logits, labels)) * upcast(loss_ct)
    return jnp.where(labels != 0, -slope, slope).astype(logits.dtype), None


def _against(logits: jax.Array, labels: jax.Array) -> jax.Array:
    return jnp.where(labels != 0, -upcast(logits), upcast(logits))


def _hard(u: jax.Array) -> jax.Array:
    # Not `clip`, whose derivative at its ends is ½ in JAX.
    return jnp.where(u <= -1, 0, jnp.where(u >= 1, 1, (u + 1) / 2))


sparsemax_loss = Rule(
    sparsemax_loss_fwd,
    sparsemax_loss_bwd,
    reference=optax.losses.sparsemax_loss,
    domain={"logits": Normal(2.0), "labels": Integers(0, 2)},
    points={
        "undecided": Point({"logits": 0.0, "labels": 0.0}, {"logits": 0.5}),
        "right by 1": Point({"logits": 1.0, "labels": 1.0}, {"logits": 0.0}, smooth=False),
        "wrong by 1": Point({"logits": 1.0, "labels": 0.0}, {"logits": 1.0}, smooth=False),
        "far out": Point({"logits": (1e4, -1e4), "labels": 1.0}, {"logits": (0.0, -1.0)}),
    },
    formula="ℓ = ¼ (u + 1)² between -1 and 1, max(u, 0) beyond, u = ±z; ∂ℓ/∂u = min(max(½ (u + 1), 0), 1)",
    saves="z, y",
)
