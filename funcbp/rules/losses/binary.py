"""Losses of binary logits, elementwise: cross-entropy and focal loss of a sigmoid."""

import jax
import optax
from jax import numpy as jnp
from jaxtyping import Array, Float

from ..._numerics import upcast
from ..._rule import Rule
from ...domains import Normal, Point, Uniform
from .._checks import check_cotangent

X = Float[Array, "*shape"]


def _decaying(z: jax.Array) -> jax.Array:
    """e^(-|z|), on one branch at 0, where JAX's abs has the slope 1: for derivatives of derivatives."""
    return jnp.exp(jnp.where(z > 0, -z, z))


def _entropy(z: jax.Array, y: jax.Array) -> jax.Array:
    """log(1 + eᶻ) - y z."""
    # max(z, 0) - y z as one product that is exact where y is 0 or 1.
    weight = jnp.where(z > 0, 1 - y, -y)
    # A certain and right answer: 0 · ∞ is 0.
    finite = jnp.where((weight == 0) & jnp.isinf(z), 0, z)
    return weight * finite + jnp.log1p(_decaying(z))


def _error(z: jax.Array, y: jax.Array) -> jax.Array:
    """σ(z) - y, written around the nearer end, so that a saturated right answer keeps its digits."""
    e = _decaying(z)
    return jnp.where(z > 0, (1 - y) - e / (1 + e), e / (1 + e) - y)


def sigmoid_binary_cross_entropy_fwd(logits: X, labels: X) -> tuple[X, tuple[X, X]]:
    """Cross-entropy of sigmoid(z) against probabilities y, elementwise.

    As `optax.losses.sigmoid_binary_cross_entropy`.

    Forward:     ℓ = -y log σ(z) - (1 - y) log σ(-z) = log(1 + eᶻ) - y z
    Backward:    z̄ = (σ(z) - y) ℓ̄      ȳ = -z ℓ̄

    Derivation. d log(1 + eᶻ) = σ(z) dz, so dℓ = (σ(z) - y) dz - z dy. A certain and right answer, z = ±∞, has
    the loss 0 and z̄ = 0.

    Saves z and y.
    """
    return _entropy(upcast(logits), upcast(labels)).astype(logits.dtype), (logits, labels)


def sigmoid_binary_cross_entropy_bwd(residuals: tuple[X, X], loss_ct: X) -> tuple[X, X]:
    """z̄ = (σ(z) - y) ℓ̄, ȳ = -z ℓ̄."""
    logits, labels = residuals
    check_cotangent("sigmoid_binary_cross_entropy", loss_ct, logits.shape, logits.dtype)
    z, y, ct = upcast(logits), upcast(labels), upcast(loss_ct)
    return (_error(z, y) * ct).astype(logits.dtype), (-z * ct).astype(labels.dtype)


_INF = float("inf")

sigmoid_binary_cross_entropy = Rule(
    sigmoid_binary_cross_entropy_fwd,
    sigmoid_binary_cross_entropy_bwd,
    reference=optax.losses.sigmoid_binary_cross_entropy,
    domain={"logits": Normal(3.0), "labels": Uniform()},
    points={
        "undecided": Point({"logits": 0.0}),
        "saturated": Point({"logits": (1e4, -1e4), "labels": (1.0, 0.0)}, {"logits": 0.0}),
        "saturated and wrong": Point({"logits": (1e4, -1e4), "labels": (0.0, 1.0)}, {"logits": (1.0, -1.0)}),
        "certain and right": Point(
            {"logits": (_INF, -_INF), "labels": (1.0, 0.0)},
            {"logits": 0.0},
            agrees=False,
            why="0 · ∞ is 0 here; optax gives NaN",
        ),
    },
    formula="ℓ = log(1 + eᶻ) - y z; ∂ℓ/∂z = σ(z) - y",
    saves="z, y",
)


def sigmoid_focal_loss_fwd(
    logits: X, labels: X, *, alpha: float | None = None, gamma: float = 2.0
) -> tuple[X, tuple[X, X]]:
    """Binary cross-entropy, weighted by the γ-th power of the probability of being wrong, elementwise.

    As `optax.losses.sigmoid_focal_loss` (Lin et al. 2017, arXiv:1708.02002), labels in [0, 1]; `alpha` weighs
    the positive examples, 1 - `alpha` the negative ones; None weighs all by 1.

    Forward, with σ = σ(z), h = log(1 + eᶻ) - y z, w = α y + (1 - α) (1 - y) or 1:

        u = y (1 - σ) + (1 - y) σ      ℓ = w u^γ h

    Backward:

        z̄ = w u^γ (σ - y + γ h (1 - 2y) σ (1 - σ) / u) ℓ̄
        ȳ = (w (γ h (1 - 2σ) / u - z) + (2α - 1) h) u^γ ℓ̄      (without (2α - 1) h if `alpha` is None)

    Derivation. dh = (σ - y) dz - z dy, du = (1 - 2y) σ (1 - σ) dz + (1 - 2σ) dy. The quotients by u stay
    finite where the power u^(γ-1) of autodiff overflows (γ < 1): σ (1 - σ) / u = e / ((1 + e) t), u = t /
    (1 + e), with e = e^(-|z|), t = y e + 1 - y for z > 0, y + (1 - y) e else. At u = 0 all is 0 (γ > 0).

    Saves z and y.
    """
    _check_gamma(gamma)
    z, y = upcast(logits), upcast(labels)
    return (_focus(z, y, gamma)[0] * _weight(y, alpha) * _entropy(z, y)).astype(logits.dtype), (
        logits,
        labels,
    )


def sigmoid_focal_loss_bwd(
    residuals: tuple[X, X], loss_ct: X, *, alpha: float | None = None, gamma: float = 2.0
) -> tuple[X, X]:
    """z̄ = w u^γ (σ - y + γ h (1 - 2y) σ (1 - σ) / u) ℓ̄, ȳ = (w (γ h (1 - 2σ) / u - z) + (2α - 1) h) u^γ ℓ̄."""
    logits, labels = residuals
    check_cotangent("sigmoid_focal_loss", loss_ct, logits.shape, logits.dtype)
    z, y = upcast(logits), upcast(labels)
    power, u, steepness = _focus(z, y, gamma)
    h, w = _entropy(z, y), _weight(y, alpha)
    e = _decaying(z)
    balance = jnp.where(z > 0, e - 1, 1 - e) / (1 + e)  # 1 - 2σ
    z_ct = w * (_error(z, y) + gamma * h * (1 - 2 * y) * steepness)
    y_ct = w * (gamma * h * balance / jnp.where(u == 0, 1, u) - z)
    if alpha is not None:
        y_ct = y_ct + (2 * alpha - 1) * h
    ct = power * upcast(loss_ct)
    return (z_ct * ct).astype(logits.dtype), (y_ct * ct).astype(labels.dtype)


def _focus(z: jax.Array, y: jax.Array, gamma: float) -> tuple[jax.Array, jax.Array, jax.Array]:
    """u^γ, u and σ (1 - σ) / u; of the last, which is at most 1, any finite number will do at u = 0."""
    e = _decaying(z)
    t = jnp.where(z > 0, y * e + (1 - y), y + (1 - y) * e)
    u = t / (1 + e)
    steepness = e / ((1 + e) * jnp.where(t == 0, 1, t))
    power = jnp.where(u == 0, float(gamma == 0), jnp.where(u == 0, 1, u) ** gamma)
    return power, u, steepness


def _weight(y: jax.Array, alpha: float | None) -> jax.Array | float:
    return 1.0 if alpha is None else alpha * y + (1 - alpha) * (1 - y)


def _check_gamma(gamma: float) -> None:
    if gamma < 0:
        raise ValueError(
            f"sigmoid_focal_loss: static option `gamma` must not be negative, got {gamma}; 0 is the plain "
            "cross-entropy."
        )


def _focal_reference(logits: X, labels: X, *, alpha: float | None = None, gamma: float = 2.0) -> X:
    # Not optax's: its logsumexp drops the derivative with respect to a label that is 0 or 1.
    wrong = labels * jax.nn.sigmoid(-logits) + (1 - labels) * jax.nn.sigmoid(logits)
    loss = wrong**gamma * optax.losses.sigmoid_binary_cross_entropy(logits, labels)
    return loss if alpha is None else (alpha * labels + (1 - alpha) * (1 - labels)) * loss


sigmoid_focal_loss = Rule(
    sigmoid_focal_loss_fwd,
    sigmoid_focal_loss_bwd,
    reference=_focal_reference,
    domain={"logits": Normal(3.0), "labels": Uniform()},
    points={
        "undecided": Point({"logits": 0.0}),
        "hard labels": Point({"labels": (0.0, 1.0)}),
        "saturated": Point(
            {"logits": (1e4, -1e4), "labels": (1.0, 0.0)},
            {"logits": 0.0},
            agrees=False,
            why="the weight and its slope are 0; autodiff has 0 · ∞ for γ < 1",
        ),
        "saturated and wrong": Point({"logits": (1e4, -1e4), "labels": (0.0, 1.0)}, {"logits": (1.0, -1.0)}),
    },
    settings=({"alpha": 0.25}, {"gamma": 0.5}, {"gamma": 0.0}),
    formula="ℓ = w u^γ h, h = log(1 + eᶻ) - y z; ∂ℓ/∂z = w u^γ (σ - y + γ h (1 - 2y) σ (1 - σ) / u)",
    saves="z, y",
)
