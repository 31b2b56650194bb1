"""Cross-entropies, from logits."""

import jax
import optax
from jax import numpy as jnp
from jaxtyping import Array, Float, Int

from ..._numerics import upcast
from ..._rule import Rule
from ...domains import Integers, Normal, Point, Simplex, Uniform
from .._checks import check_cotangent

Logits = Float[Array, "*batch classes"]
Labels = Int[Array, "*batch"]
Losses = Float[Array, "*batch"]
RowStat = Float[Array, "*batch 1"]
X = Float[Array, "*shape"]


def _normalizer(z: jax.Array) -> tuple[jax.Array, jax.Array]:
    """M = max z and S = Σ e^(z - M), apart: in M + log S the digits of S would drown."""
    top = jnp.max(z, axis=-1, keepdims=True, initial=-jnp.inf)
    # A row of nothing but -∞ has no finite maximum; its S is 0.
    top = jnp.where(jnp.isfinite(top), top, 0)
    return top, jnp.sum(jnp.exp(z - top), axis=-1, keepdims=True)


def softmax_cross_entropy_fwd(
    logits: Logits, labels: Logits
) -> tuple[Losses, tuple[Logits, Logits, RowStat, RowStat]]:
    """Cross-entropy of softmax(z) against a distribution y, over the last axis.

    As `optax.losses.softmax_cross_entropy`.

    Forward, with M = max z, s = z - M, S = Σ eˢ:

        ℓ = Σ y ⊙ (log S - s)      (a term with y = 0 is 0, also at z = -∞)

    Backward:

        z̄ = (softmax(z) Σy - y) ℓ̄      ȳ = (log S - s) ℓ̄      softmax(z) = eˢ / S

    Derivation. d(M + log S) = ⟨softmax(z), dz⟩, so dℓ = Σy ⟨softmax(z), dz⟩ - ⟨y, dz⟩ + ⟨log S - s, dy⟩. For
    labels that sum to one z̄ is softmax(z) - y.

    Saves z, y and M, S (one number a row each); the softmax is recomputed.
    """
    z, y = upcast(logits), upcast(labels)
    top, total = _normalizer(z)
    # Σ y ⊙ (log S - s) in two sums: the first array is done with before eˢ is made.
    weighted = jnp.sum(jnp.where(y == 0, 0, y * (z - top)), axis=-1)
    loss = jnp.sum(y, axis=-1) * jnp.log(total[..., 0]) - weighted
    return loss.astype(logits.dtype), (logits, labels, top, total)


def softmax_cross_entropy_bwd(
    residuals: tuple[Logits, Logits, RowStat, RowStat], loss_ct: Losses
) -> tuple[Logits, Logits]:
    """z̄ = (softmax(z) Σy - y) ℓ̄, ȳ = (log S - s) ℓ̄."""
    logits, labels, top, total = residuals
    check_cotangent("softmax_cross_entropy", loss_ct, logits.shape[:-1], logits.dtype)
    y, ct = upcast(labels), upcast(loss_ct)[..., None]
    s = upcast(logits) - top
    z_ct = (jnp.exp(s) / total * jnp.sum(y, axis=-1, keepdims=True) - y) * ct
    return z_ct.astype(logits.dtype), ((jnp.log(total) - s) * ct).astype(labels.dtype)


softmax_cross_entropy = Rule(
    softmax_cross_entropy_fwd,
    softmax_cross_entropy_bwd,
    reference=optax.losses.softmax_cross_entropy,
    domain={"logits": Normal(3.0), "labels": Simplex()},
    points={
        "equal logits": Point({"logits": 2.0}),
        "saturated": Point({"logits": (1e4, 0.0)}),
        "labels that do not sum to one": Point({"labels": (0.5, 2.0)}),
        "impossible class": Point(
            {"logits": (0.0, -float("inf")), "labels": (1.0, 0.0)},
            {"logits": 0.0},
            agrees=False,
            why="0 log 0 is 0 here; optax gives NaN",
        ),
    },
    formula="ℓ = Σ y ⊙ (log Σeᶻ - z); ∂ℓ/∂z = softmax(z) Σy - y",
    saves="z, y, max z, Σ e^(z - max z)",
)


def softmax_cross_entropy_with_integer_labels_fwd(
    logits: Logits, labels: Labels
) -> tuple[Losses, tuple[Logits, Labels, RowStat, RowStat]]:
    """Cross-entropy of softmax(z) against a class index k.

    As `optax.losses.softmax_cross_entropy_with_integer_labels`.

    Forward, with M = max z, s = z - M, S = Σ eˢ:    ℓ = log S - s_k
    Backward:                                        z̄ = (eˢ / S - e_k) ℓ̄

    Derivation. d(M + log S) = ⟨softmax(z), dz⟩, so dℓ = ⟨softmax(z), dz⟩ - dz_k.

    A label outside [0, classes) gives NaN, value and gradient (optax counts a negative one from the end); a
    cotangent of 0 stays 0 there, too: padding that is masked out of the loss is no error.

    Saves z, the labels and M, S (one number a row each); the softmax is recomputed.
    """
    z = upcast(logits)
    top, total = _normalizer(z)
    index, inside = _class_index(labels, logits.shape[-1])
    s_k = jnp.take_along_axis(z, index[..., None], axis=-1, mode="clip") - top
    loss = jnp.where(inside, (jnp.log(total) - s_k)[..., 0], jnp.nan)
    return loss.astype(logits.dtype), (logits, labels, top, total)


def softmax_cross_entropy_with_integer_labels_bwd(
    residuals: tuple[Logits, Labels, RowStat, RowStat], loss_ct: Losses
) -> tuple[Logits, None]:
    """z̄ = (eˢ / S - e_k) ℓ̄; labels have no cotangent."""
    logits, labels, top, total = residuals
    check_cotangent("softmax_cross_entropy_with_integer_labels", loss_ct, labels.shape, logits.dtype)
    index, inside = _class_index(labels, logits.shape[-1])
    ct = jnp.where(inside | (loss_ct == 0), upcast(loss_ct), jnp.nan)[..., None]
    softmax = jnp.exp(upcast(logits) - top) / total
    # e_k by comparison, not by a scatter: it fuses with what surrounds it.
    e_k = index[..., None] == jnp.arange(logits.shape[-1])
    return ((softmax - e_k) * ct).astype(logits.dtype), None


def _class_index(labels: jax.Array, classes: int) -> tuple[jax.Array, jax.Array]:
    """The labels in an integer type that holds every class, and which of them are one."""
    labels = labels.astype(jnp.promote_types(labels.dtype, jnp.int32))
    return labels, (labels >= 0) & (labels < classes)


softmax_cross_entropy_with_integer_labels = Rule(
    softmax_cross_entropy_with_integer_labels_fwd,
    softmax_cross_entropy_with_integer_labels_bwd,
    reference=optax.losses.softmax_cross_entropy_with_integer_labels,
    domain={"logits": Normal(3.0), "labels": Integers(0, "classes")},
    points={
        "equal logits": Point({"logits": 2.0}),
        "saturated": Point({"logits": (1e4, 0.0)}),
        "impossible class": Point({"logits": (0.0, -float("inf")), "labels": 0.0}),
    },
    formula="ℓ = log Σeᶻ - z_k; ∂ℓ/∂z = softmax(z) - e_k",
    saves="z, k, max z, Σ e^(z - max z)",
)


def sigmoid_binary_cross_entropy_fwd(logits: X, labels: X) -> tuple[X, tuple[X, X]]:
    """Cross-entropy of sigmoid(z) against probabilities y, elementwise.

    As `optax.losses.sigmoid_binary_cross_entropy`.

    Forward:     ℓ = -y log σ(z) - (1 - y) log σ(-z) = log(1 + eᶻ) - y z
    Backward:    z̄ = (σ(z) - y) ℓ̄      ȳ = -z ℓ̄

    Derivation. d log(1 + eᶻ) = σ(z) dz, so dℓ = (σ(z) - y) dz - z dy.

    Saves z and y.
    """
    z, y = upcast(logits), upcast(labels)
    # max(z, 0) - y z as one product that is exact where y is 0 or 1. For derivatives of derivatives all stays
    # on one branch at 0, where JAX's abs has the slope 1.
    hinge = jnp.where(z > 0, (1 - y) * z, -y * z)
    return (hinge + jnp.log1p(jnp.exp(jnp.where(z > 0, -z, z)))).astype(logits.dtype), (logits, labels)


def sigmoid_binary_cross_entropy_bwd(residuals: tuple[X, X], loss_ct: X) -> tuple[X, X]:
    """z̄ = (σ(z) - y) ℓ̄, ȳ = -z ℓ̄."""
    logits, labels = residuals
    check_cotangent("sigmoid_binary_cross_entropy", loss_ct, logits.shape, logits.dtype)
    z, y, ct = upcast(logits), upcast(labels), upcast(loss_ct)
    e = jnp.exp(jnp.where(z > 0, -z, z))
    # σ(z) - y written around the nearer end, so that a saturated right answer keeps its digits.
    error = jnp.where(z > 0, (1 - y) - e / (1 + e), e / (1 + e) - y)
    return (error * ct).astype(logits.dtype), (-z * ct).astype(labels.dtype)


sigmoid_binary_cross_entropy = Rule(
    sigmoid_binary_cross_entropy_fwd,
    sigmoid_binary_cross_entropy_bwd,
    reference=optax.losses.sigmoid_binary_cross_entropy,
    domain={"logits": Normal(3.0), "labels": Uniform()},
    points={
        "undecided": Point({"logits": 0.0}),
        "saturated": Point({"logits": (1e4, -1e4), "labels": (1.0, 0.0)}, {"logits": 0.0}),
        "saturated and wrong": Point({"logits": (1e4, -1e4), "labels": (0.0, 1.0)}, {"logits": (1.0, -1.0)}),
    },
    formula="ℓ = log(1 + eᶻ) - y z; ∂ℓ/∂z = σ(z) - y",
    saves="z, y",
)
