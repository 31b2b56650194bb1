"""Dice losses: overlap of predicted and true regions, weighing false positives and false negatives."""

import jax
import optax
from jax import numpy as jnp
from jaxtyping import Array, Float

from ..._numerics import upcast
from ..._rule import Rule
from ...domains import Normal, Point, Positive, Simplex, Uniform
from .._checks import check_cotangent
from ._shared import log_partition

Pixels = Float[Array, "batch *space classes"]
Weights = Float[Array, " classes"]
PerClass = Float[Array, "batch classes"]
Mask = Float[Array, "batch *space"]
Losses = Float[Array, " batch"]
Scalar = Float[Array, ""]


def dice_loss_fwd(
    predictions: Pixels,
    targets: Pixels,
    class_weights: Weights | None = None,
    *,
    smooth: float = 1.0,
    alpha: float = 0.5,
    beta: float = 0.5,
    apply_softmax: bool = True,
    reduction: str = "mean",
    ignore_background: bool = False,
) -> tuple[Float[Array, "..."], tuple[Pixels, Pixels, Weights | None, PerClass, PerClass]]:
    """Soft dice loss of every class and example, summed over space; reduced over the classes.

    As `optax.losses.dice_loss` (Milletari et al. 2016, arXiv:1606.04797; with α ≠ β the Tversky loss). The
    axes between the first and the last are space. `reduction` ("mean", "sum", "none") is over the classes;
    `ignore_background` leaves out the first. A single class takes a sigmoid in place of the softmax;
    `apply_softmax=False` takes predictions as probabilities (optax then insists that they sum to one).

    Forward, with p = softmax(z), t the targets, sums over space, s = `smooth`:

        I = Σ p ⊙ t      E = α Σ p ⊙ (1 - t) + β Σ t ⊙ (1 - p)      ℓ_c = w_c E / (I + E + s)

    which is w_c (1 - (I + s) / (I + E + s)) without cancellation. Backward, with D = I + E + s, ℓ = E / D:

        p̄ = ((1 - ℓ) (α (1 - t) - β t) - ℓ t) w ℓ̄_c / D      z̄ = p ⊙ (p̄ - ⟨p, p̄⟩)
        t̄ = ((1 - ℓ) (β (1 - p) - α p) - ℓ p) w ℓ̄_c / D      w̄ = Σ ℓ ℓ̄_c over the batch

    Derivation. dℓ = (dE - ℓ dD) / D = ((1 - ℓ) dE - ℓ dI) / D.

    A class that is nowhere, with s = 0 (D = 0), has the loss 0 and no gradient; optax divides 0 by 0.

    Saves z, t, w, and ℓ and 1 / D (one number a class and example each); p is recomputed.
    """
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(
            f"dice_loss: static option `reduction` must be 'mean', 'sum' or 'none', got {reduction!r}."
        )
    p = _probabilities(predictions, apply_softmax)
    loss, inverse = _dice(p, upcast(targets), smooth, alpha, beta)
    weighted = loss if class_weights is None else loss * upcast(class_weights)
    chosen = weighted[:, _foreground(weighted, ignore_background) :]
    if reduction != "none":
        chosen = jnp.sum(chosen, axis=-1) / (max(chosen.shape[-1], 1) if reduction == "mean" else 1)
    return chosen.astype(predictions.dtype), (predictions, targets, class_weights, loss, inverse)


def dice_loss_bwd(
    residuals: tuple[Pixels, Pixels, Weights | None, PerClass, PerClass],
    loss_ct: Float[Array, "..."],
    *,
    smooth: float = 1.0,
    alpha: float = 0.5,
    beta: float = 0.5,
    apply_softmax: bool = True,
    reduction: str = "mean",
    ignore_background: bool = False,
) -> tuple[Pixels, Pixels, Weights | None]:
    """p̄ = ((1 - ℓ) (α (1 - t) - β t) - ℓ t) w ℓ̄_c / D and the softmax's pullback, t̄ likewise, w̄ = Σ ℓ ℓ̄_c."""
    del smooth  # already inside D
    predictions, targets, class_weights, loss, inverse = residuals
    first = _foreground(loss, ignore_background)
    kept = (loss.shape[0], loss.shape[1] - first)
    check_cotangent("dice_loss", loss_ct, kept if reduction == "none" else kept[:1], predictions.dtype)
    ct = upcast(loss_ct)
    if reduction != "none":
        ct = jnp.broadcast_to(ct[:, None] / (max(kept[1], 1) if reduction == "mean" else 1), kept)
    ct = jnp.pad(ct, ((0, 0), (first, 0)))
    w_ct = None if class_weights is None else jnp.sum(loss * ct, axis=0).astype(class_weights.dtype)
    if class_weights is not None:
        ct = ct * upcast(class_weights)
    z_ct, t_ct = _dice_bwd(predictions, upcast(targets), loss, inverse * ct, alpha, beta, apply_softmax)
    return z_ct.astype(predictions.dtype), t_ct.astype(targets.dtype), w_ct


def binary_dice_loss_fwd(
    predictions: Mask, targets: Mask, *, smooth: float = 1.0, apply_sigmoid: bool = True
) -> tuple[Losses, tuple[Mask, Mask, PerClass, PerClass]]:
    """Soft dice loss of a binary mask, one value an example; all axes but the first are space.

    As `optax.losses.binary_dice_loss`.

    Forward:     ℓ = E / D, E = ½ Σ p ⊙ (1 - t) + ½ Σ t ⊙ (1 - p), D = Σ p ⊙ t + E + s, p = σ(z)
    Backward:    z̄ = p ⊙ (1 - p) ⊙ ((1 - ℓ) (½ - t) - ℓ t) ℓ̄ / D      t̄ = ((1 - ℓ) (½ - p) - ℓ p) ℓ̄ / D

    Derivation. As of `dice_loss`, with one class, α = β = ½ and its conventions.

    Saves z, t, and ℓ and 1 / D (one number an example each).
    """
    p = _probabilities(predictions[..., None], apply_sigmoid)
    loss, inverse = _dice(p, upcast(targets)[..., None], smooth, 0.5, 0.5)
    return loss[:, 0].astype(predictions.dtype), (predictions, targets, loss, inverse)


def binary_dice_loss_bwd(
    residuals: tuple[Mask, Mask, PerClass, PerClass],
    loss_ct: Losses,
    *,
    smooth: float = 1.0,
    apply_sigmoid: bool = True,
) -> tuple[Mask, Mask]:
    """z̄ = p ⊙ (1 - p) ⊙ ((1 - ℓ) (½ - t) - ℓ t) ℓ̄ / D, t̄ = ((1 - ℓ) (½ - p) - ℓ p) ℓ̄ / D."""
    del smooth  # already inside D
    predictions, targets, loss, inverse = residuals
    check_cotangent("binary_dice_loss", loss_ct, predictions.shape[:1], predictions.dtype)
    scale = inverse * upcast(loss_ct)[:, None]
    z, t = predictions[..., None], upcast(targets)[..., None]
    z_ct, t_ct = _dice_bwd(z, t, loss, scale, 0.5, 0.5, apply_sigmoid)
    return z_ct[..., 0].astype(predictions.dtype), t_ct[..., 0].astype(targets.dtype)


def multiclass_generalized_dice_loss_fwd(
    predictions: Pixels,
    targets: Pixels,
    *,
    smooth: float = 1.0,
    apply_softmax: bool = True,
    ignore_background: bool = False,
) -> tuple[Scalar, tuple[Pixels, Pixels, PerClass, PerClass]]:
    """Soft dice losses, the classes weighted by their inverse squared frequency: one value for the batch.

    As `optax.losses.multiclass_generalized_dice_loss` (Sudre et al. 2017, arXiv:1707.03237): the mean over
    batch and classes, whose weights couple the examples.

    Forward, with f = Σ t over batch and space, v = 1 / (f² + 10⁻⁷), w = classes v / Σ v:

        ℓ = mean of w_c ℓ_c      ℓ_c of `dice_loss` with α = β = ½

    Backward, with c̄ = ℓ̄ / number of terms of the mean, w̄ = Σ ℓ_c c̄ over the batch:

        z̄ and t̄ as in `dice_loss`, with w c̄; to t̄ is added f̄ = -2 f v² (classes w̄ - ⟨w, w̄⟩) / Σ v

    Derivation. dw = (classes dv - w Σ dv) / Σ v, dv = -2 f v² df, df = Σ dt.

    Saves z, t, and ℓ_c and 1 / D (one number a class and example each); p and w are recomputed.
    """
    p, t = _probabilities(predictions, apply_softmax), upcast(targets)
    loss, inverse = _dice(p, t, smooth, 0.5, 0.5)
    weighted = (loss * _rarity(t)[0])[:, _foreground(loss, ignore_background) :]
    value = jnp.sum(weighted) / max(weighted.size, 1)
    return value.astype(predictions.dtype), (predictions, targets, loss, inverse)


def multiclass_generalized_dice_loss_bwd(
    residuals: tuple[Pixels, Pixels, PerClass, PerClass],
    loss_ct: Scalar,
    *,
    smooth: float = 1.0,
    apply_softmax: bool = True,
    ignore_background: bool = False,
) -> tuple[Pixels, Pixels]:
    """z̄ and t̄ as in `dice_loss`, with w c̄; to t̄ is added f̄ = -2 f v² (classes w̄ - ⟨w, w̄⟩) / Σ v."""
    del smooth  # already inside D
    predictions, targets, loss, inverse = residuals
    check_cotangent("multiclass_generalized_dice_loss", loss_ct, (), predictions.dtype)
    t, count = upcast(targets), loss.shape[-1]
    w, v, f = _rarity(t)
    first = _foreground(loss, ignore_background)
    term_ct = upcast(loss_ct) / max(loss.shape[0] * (count - first), 1)
    ct = jnp.where(jnp.arange(count) >= first, term_ct, 0)
    w_ct = jnp.sum(loss, axis=0) * ct
    f_ct = -2 * f * v * v * (count * w_ct - jnp.sum(w * w_ct)) / jnp.sum(v)
    z_ct, t_ct = _dice_bwd(predictions, t, loss, inverse * (w * ct), 0.5, 0.5, apply_softmax)
    return z_ct.astype(predictions.dtype), (t_ct + f_ct).astype(targets.dtype)


def _rarity(t: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """w, v and f: the weights of the classes, not normalized, and how often each is."""
    f = jnp.sum(t, axis=tuple(range(t.ndim - 1)))
    v = 1 / (f * f + 1e-7)
    return v / jnp.sum(v) * len(v), v, f


def _foreground(loss: jax.Array, ignore_background: bool) -> int:
    """The first class that counts."""
    return int(ignore_background and loss.shape[-1] > 1)


def _probabilities(z: jax.Array, from_logits: bool) -> jax.Array:
    if not from_logits:
        return upcast(z)
    if z.shape[-1] == 1:
        return jax.nn.sigmoid(upcast(z))
    s, _, total = log_partition(upcast(z))
    return jnp.exp(s) / total


def _dice(
    p: jax.Array, t: jax.Array, smooth: float, alpha: float, beta: float
) -> tuple[jax.Array, jax.Array]:
    """E / D and 1 / D for every class and example, both 0 at D = 0."""
    space = tuple(range(1, p.ndim - 1))
    errors = jnp.sum(alpha * p * (1 - t) + beta * t * (1 - p), axis=space)
    d = jnp.sum(p * t, axis=space) + errors + smooth
    inverse = jnp.where(d == 0, 0, 1 / jnp.where(d == 0, 1, d))
    return errors * inverse, inverse


def _dice_bwd(
    z: jax.Array,
    t: jax.Array,
    loss: jax.Array,
    scale: jax.Array,
    alpha: float,
    beta: float,
    from_logits: bool,
) -> tuple[jax.Array, jax.Array]:
    """z̄ and t̄ for `scale`, the cotangent of every class and example divided by D."""
    p = _probabilities(z, from_logits)
    over_space = (slice(None), *(None,) * (p.ndim - 2))
    loss, scale = loss[over_space], scale[over_space]
    t_ct = ((1 - loss) * (beta * (1 - p) - alpha * p) - loss * p) * scale
    p_ct = ((1 - loss) * (alpha * (1 - t) - beta * t) - loss * t) * scale
    if not from_logits:
        return p_ct, t_ct
    if z.shape[-1] == 1:
        return p * (1 - p) * p_ct, t_ct
    return p * (p_ct - jnp.sum(p * p_ct, axis=-1, keepdims=True)), t_ct


_SETTINGS = ({"smooth": 0.1}, {"ignore_background": True})

dice_loss = Rule(
    dice_loss_fwd,
    dice_loss_bwd,
    reference=lambda z, t, class_weights=None, **options: optax.losses.dice_loss(
        z, t, class_weights=class_weights, **options
    ),
    domain={"predictions": Normal(2.0), "targets": Simplex(), "class_weights": Positive()},
    points={"saturated": Point({"predictions": (1e4, 0.0)}), "nowhere": Point({"targets": 0.0})},
    settings=(
        *_SETTINGS,
        {"alpha": 0.3, "beta": 0.7},
        {"reduction": "sum"},
        {"reduction": "none", "ignore_background": True},
    ),
    sizes=({"space": (2,), "classes": 3}, {"space": (2, 2), "classes": 1}, {"space": (), "classes": 2}),
    formula="ℓ = E / D; ∂ℓ/∂p = ((1 - ℓ) (α (1 - t) - β t) - ℓ t) / D",
    saves="z, t, w, ℓ, 1 / D",
)

binary_dice_loss = Rule(
    binary_dice_loss_fwd,
    binary_dice_loss_bwd,
    reference=lambda predictions, targets, **options: optax.losses.binary_dice_loss(
        predictions[..., None], targets[..., None], **options
    ),
    domain={"predictions": Normal(2.0), "targets": Uniform()},
    points={"saturated": Point({"predictions": (1e4, -1e4)})},
    settings=({"smooth": 0.1},),
    sizes=({"space": (3,)}, {"space": (2, 2)}, {"space": ()}),
    formula="ℓ = E / D; ∂ℓ/∂p = ((1 - ℓ) (½ - t) - ℓ t) / D",
    saves="z, t, ℓ, 1 / D",
)

multiclass_generalized_dice_loss = Rule(
    multiclass_generalized_dice_loss_fwd,
    multiclass_generalized_dice_loss_bwd,
    reference=optax.losses.multiclass_generalized_dice_loss,
    domain={"predictions": Normal(2.0), "targets": Simplex()},
    points={"saturated": Point({"predictions": (1e4, 0.0)})},
    settings=_SETTINGS,
    sizes=({"space": (2,), "classes": 3}, {"space": (), "classes": 2}),
    formula="ℓ = mean of w_c ℓ_c, w ∝ 1 / f²; ∂ℓ_c/∂p as in dice_loss",
    saves="z, t, ℓ, 1 / D",
)
