"""Cross-entropies of a softmax, from logits."""

import jax
import optax
from jax import numpy as jnp
from jaxtyping import Array, Bool, Float

from ..._numerics import upcast
from ..._rule import Rule
from ...domains import Booleans, Normal, Point, Simplex
from .._checks import check_cotangent
from ._shared import check_axis, classes, excluded, log_partition, masked_reference, spread, without_axis

X = Float[Array, "*shape"]
Where = Bool[Array, "*shape"]
Residuals = tuple[X, X, Where | None, X, X]


def softmax_cross_entropy_fwd(
    logits: X,
    labels: X,
    where: Where | None = None,
    *,
    axis: int = -1,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
) -> tuple[X, Residuals]:
    """Cross-entropy of softmax(z) against a distribution y along `axis`.

    As `optax.losses.softmax_cross_entropy`, with two options more: α = `label_smoothing` puts a share α of
    the labels evenly on all classes (Szegedy et al. 2016, arXiv:1512.00567), ζ = `z_loss` adds ζ (log Z)²,
    which keeps the log-partition near 0 (Chowdhery et al. 2022, arXiv:2204.02311).

    Forward, with M = max z, s = z - M, S = Σ eˢ, log Z = M + log S, ỹ = (1 - α) y + α / classes:

        ℓ = Σ ỹ ⊙ (log S - s) + ζ (log Z)²

    Backward:

        z̄ = (softmax(z) (Σỹ + 2 ζ log Z) - ỹ) ℓ̄      ȳ = (1 - α) (log S - s) ℓ̄      softmax(z) = eˢ / S

    Derivation. d log Z = ⟨softmax(z), dz⟩, so dℓ = (Σỹ + 2 ζ log Z) ⟨softmax(z), dz⟩ - ⟨ỹ, dz⟩ + ⟨log S - s,
    dỹ⟩. For labels that sum to one z̄ is softmax(z) - y.

    A class with y = 0 and z = -∞ counts for nothing: its term is 0, and so are its derivatives. So does what
    `where` leaves out; where it leaves out all of a row, value and gradient are 0.

    Saves z, y and M, S (one number a row each); the softmax is recomputed.
    """
    check_axis("softmax_cross_entropy", axis, logits)
    z, y = upcast(logits), _smoothed(upcast(labels), where, axis, label_smoothing)
    s, top, total = log_partition(z, axis, where)
    loss = jnp.sum(y * _surprise(s, y, total), axis=axis, keepdims=True)
    if z_loss:
        loss = loss + z_loss * jnp.square(top + jnp.log(total))
    return jnp.squeeze(loss, axis).astype(logits.dtype), (logits, labels, where, top, total)


def softmax_cross_entropy_bwd(
    residuals: Residuals,
    loss_ct: X,
    *,
    axis: int = -1,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
) -> tuple[X, X, None]:
    """z̄ = (softmax(z) (Σỹ + 2 ζ log Z) - ỹ) ℓ̄, ȳ = (1 - α) (log S - s) ℓ̄."""
    logits, labels, where, top, total = residuals
    check_cotangent("softmax_cross_entropy", loss_ct, without_axis(logits.shape, axis), logits.dtype)
    y = _smoothed(upcast(labels), where, axis, label_smoothing)
    ct = spread(upcast(loss_ct), axis, where)
    s = excluded(upcast(logits), where, -jnp.inf) - top
    mass = jnp.sum(y, axis=axis, keepdims=True)
    if z_loss:
        mass = mass + 2 * z_loss * (top + jnp.log(total))
    z_ct = (jnp.exp(s) / total * mass - y) * ct
    y_ct = (1 - label_smoothing) * _surprise(s, y, total) * ct
    return z_ct.astype(logits.dtype), y_ct.astype(labels.dtype), None


def _smoothed(y: jax.Array, where: jax.Array | None, axis: int, alpha: float) -> jax.Array:
    if alpha:
        y = (1 - alpha) * y + alpha / classes(y.shape, where, axis)
    return excluded(y, where)


def _surprise(s: jax.Array, y: jax.Array, total: jax.Array) -> jax.Array:
    """-log softmax(z), but 0 for an impossible class that is not asked for."""
    return jnp.where((y == 0) & (s == -jnp.inf), 0, jnp.log(total) - s)


@masked_reference
def _softmax_cross_entropy_reference(
    logits: X,
    labels: X,
    axis: int,
    where: Where | None = None,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
) -> X:
    if label_smoothing:
        labels = optax.losses.smooth_labels(labels, label_smoothing, axis=axis, where=where)
    if where is not None:
        # Otherwise optax has 0 · -∞ in the derivative.
        logits, labels = jnp.where(where, logits, -1e9), jnp.where(where, labels, 0)
    log_z = jax.nn.logsumexp(logits, axis=axis)
    return optax.losses.softmax_cross_entropy(logits, labels, axis) + z_loss * log_z**2


_IMPOSSIBLE = {"logits": (0.0, -float("inf")), "labels": (1.0, 0.0), "where": 1.0}

softmax_cross_entropy = Rule(
    softmax_cross_entropy_fwd,
    softmax_cross_entropy_bwd,
    reference=_softmax_cross_entropy_reference,
    domain={"logits": Normal(3.0), "labels": Simplex(), "where": Booleans()},
    points={
        "equal logits": Point({"logits": 2.0}),
        "saturated": Point({"logits": (1e4, 0.0)}),
        "labels that do not sum to one": Point({"labels": (0.5, 2.0)}),
        "all masked out": Point({"where": 0.0}),
        "impossible class": Point(
            _IMPOSSIBLE, {"logits": 0.0}, agrees=False, why="0 log 0 is 0 here; optax gives NaN"
        ),
    },
    settings=({"axis": 0}, {"label_smoothing": 0.1}, {"z_loss": 0.01}),
    formula="ℓ = Σ y ⊙ (log Σeᶻ - z); ∂ℓ/∂z = softmax(z) Σy - y",
    saves="z, y, max z, Σ e^(z - max z)",
)


def safe_softmax_cross_entropy_fwd(logits: X, labels: X) -> tuple[X, Residuals]:
    """Cross-entropy of softmax(z) against a distribution y over the last axis, with 0 log 0 = 0.

    As `optax.losses.safe_softmax_cross_entropy`. `softmax_cross_entropy` is as safe here: this is that rule,
    under the name by which optax tells the two apart.

    Forward:     ℓ = Σ y ⊙ (log S - s)
    Backward:    z̄ = (softmax(z) Σy - y) ℓ̄      ȳ = (log S - s) ℓ̄

    Derivation. As of `softmax_cross_entropy`, with s = z - max z and S = Σ eˢ.

    Saves z, y and max z, S (one number a row each).
    """
    return softmax_cross_entropy_fwd(logits, labels)


def safe_softmax_cross_entropy_bwd(residuals: Residuals, loss_ct: X) -> tuple[X, X]:
    """z̄ = (softmax(z) Σy - y) ℓ̄, ȳ = (log S - s) ℓ̄."""
    logits = residuals[0]
    check_cotangent("safe_softmax_cross_entropy", loss_ct, logits.shape[:-1], logits.dtype)
    return softmax_cross_entropy_bwd(residuals, loss_ct)[:2]


safe_softmax_cross_entropy = Rule(
    safe_softmax_cross_entropy_fwd,
    safe_softmax_cross_entropy_bwd,
    reference=optax.losses.safe_softmax_cross_entropy,
    domain={"logits": Normal(3.0), "labels": Simplex()},
    points={
        "saturated": Point({"logits": (1e4, 0.0)}),
        "impossible class": Point(
            {"logits": (0.0, -float("inf")), "labels": (1.0, 0.0)},
            {"logits": 0.0},
            agrees=False,
            why="the label's cotangent is 0; optax gives ∞",
        ),
    },
    formula="ℓ = Σ y ⊙ (log Σeᶻ - z), 0 log 0 = 0; ∂ℓ/∂z = softmax(z) Σy - y",
    saves="z, y, max z, Σ e^(z - max z)",
)


def poly_loss_cross_entropy_fwd(
    logits: X, labels: X, where: Where | None = None, *, epsilon: float = 2.0, axis: int = -1
) -> tuple[X, Residuals]:
    """Cross-entropy along `axis`, the first term of its expansion in 1 - p weighted by 1 + ε.

    As `optax.losses.poly_loss_cross_entropy` (Leng et al. 2022, arXiv:2204.12511).

    Forward, with p = softmax(z) = eˢ / S, s = z - max z:    ℓ = Σ y ⊙ (log S - s) + ε Σ y ⊙ (1 - p)
    Backward:

        z̄ = (p (Σy + ε ⟨y, p⟩) - y - ε y ⊙ p) ℓ̄      ȳ = (log S - s + ε (1 - p)) ℓ̄

    Derivation. The first term is `softmax_cross_entropy`; d⟨y, p⟩ = ⟨y ⊙ p - p ⟨y, p⟩, dz⟩ + ⟨p, dy⟩.

    What `where` leaves out counts for nothing; where it leaves out all of a row, value and gradient are 0.

    Saves z, y and max z, S (one number a row each).
    """
    check_axis("poly_loss_cross_entropy", axis, logits)
    loss, (_, _, _, top, total) = softmax_cross_entropy_fwd(upcast(logits), upcast(labels), where, axis=axis)
    p = jnp.exp(excluded(upcast(logits), where, -jnp.inf) - top) / total
    loss = loss + epsilon * jnp.sum(excluded(upcast(labels), where) * (1 - p), axis=axis)
    return loss.astype(logits.dtype), (logits, labels, where, top, total)


def poly_loss_cross_entropy_bwd(
    residuals: Residuals, loss_ct: X, *, epsilon: float = 2.0, axis: int = -1
) -> tuple[X, X, None]:
    """z̄ = (p (Σy + ε ⟨y, p⟩) - y - ε y ⊙ p) ℓ̄, ȳ = (log S - s + ε (1 - p)) ℓ̄."""
    logits, labels, where, top, total = residuals
    check_cotangent("poly_loss_cross_entropy", loss_ct, without_axis(logits.shape, axis), logits.dtype)
    y, ct = excluded(upcast(labels), where), spread(upcast(loss_ct), axis, where)
    s = excluded(upcast(logits), where, -jnp.inf) - top
    p = jnp.exp(s) / total
    mass = jnp.sum(y * (1 + epsilon * p), axis=axis, keepdims=True)
    z_ct = (p * mass - y * (1 + epsilon * p)) * ct
    y_ct = (_surprise(s, y, total) + epsilon * (1 - p)) * ct
    return z_ct.astype(logits.dtype), y_ct.astype(labels.dtype), None


@masked_reference
def _poly_reference(logits: X, labels: X, axis: int, where: Where | None = None, epsilon: float = 2.0) -> X:
    entropy = _softmax_cross_entropy_reference(logits, labels, where, axis=axis)
    p = jax.nn.softmax(logits, axis=axis, where=where)
    return entropy + epsilon * jnp.sum(labels * (1 - p), axis=axis, where=where)


poly_loss_cross_entropy = Rule(
    poly_loss_cross_entropy_fwd,
    poly_loss_cross_entropy_bwd,
    reference=_poly_reference,
    domain={"logits": Normal(3.0), "labels": Simplex(), "where": Booleans()},
    points={
        "equal logits": Point({"logits": 2.0}),
        "saturated": Point({"logits": (1e4, 0.0)}),
        "all masked out": Point({"where": 0.0}),
        "impossible class": Point(
            _IMPOSSIBLE, {"logits": 0.0}, agrees=False, why="0 log 0 is 0 here; optax gives NaN"
        ),
    },
    settings=({"axis": 0}, {"epsilon": -1.0}),
    formula="ℓ = Σ y ⊙ (log Σeᶻ - z) + ε Σ y ⊙ (1 - p); ∂ℓ/∂z = p (Σy + ε⟨y, p⟩) - y - ε y ⊙ p",
    saves="z, y, max z, Σ e^(z - max z)",
)
