"""Squared errors, elementwise, with and without the ½."""

from jax import numpy as jnp
from jaxtyping import Array, Float

from ..._numerics import upcast
from ..._rule import Rule
from ...domains import Normal, Point
from .._checks import check_cotangent

X = Float[Array, "*shape"]


def squared_error_fwd(predictions: X, targets: X) -> tuple[X, X]:
    """Squared error of every element, as `optax.losses.squared_error`.

    Forward, with r = ŷ - y:     ℓ = r²
    Backward:                    ŷ-cotangent = 2 r ℓ̄      y-cotangent = -2 r ℓ̄

    Derivation. dℓ = 2 r (dŷ - dy). The ½ and the 1/n of the literature are elsewhere: ½ in `l2_loss`, 1/n in
    the reduction.

    Saves r.
    """
    r = upcast(predictions) - upcast(targets)
    return (r * r).astype(predictions.dtype), r.astype(predictions.dtype)


def squared_error_bwd(residuals: X, loss_ct: X) -> tuple[X, X]:
    """2 r ℓ̄ and its negative."""
    check_cotangent("squared_error", loss_ct, residuals.shape, residuals.dtype)
    ct = (2 * upcast(residuals) * upcast(loss_ct)).astype(loss_ct.dtype)
    return ct, -ct


squared_error = Rule(
    squared_error_fwd,
    squared_error_bwd,
    reference=lambda predictions, targets: jnp.square(predictions - targets),
    domain={"predictions": Normal(2.0), "targets": Normal(2.0)},
    points={
        "prediction is the target": Point(
            {"predictions": 3.0, "targets": 3.0}, {"predictions": 0.0, "targets": 0.0}
        )
    },
    formula="ℓ = r², r = ŷ - y; ∂ℓ/∂ŷ = 2 r",
    saves="r",
)


def l2_loss_fwd(predictions: X, targets: X) -> tuple[X, X]:
    """Half the squared error of every element, as `optax.losses.l2_loss`.

    Forward, with r = ŷ - y:     ℓ = ½ r²
    Backward:                    ŷ-cotangent = r ℓ̄      y-cotangent = -r ℓ̄

    Derivation. dℓ = r (dŷ - dy).

    Saves r.
    """
    r = upcast(predictions) - upcast(targets)
    return (r * r / 2).astype(predictions.dtype), r.astype(predictions.dtype)


def l2_loss_bwd(residuals: X, loss_ct: X) -> tuple[X, X]:
    """r ℓ̄ and its negative."""
    check_cotangent("l2_loss", loss_ct, residuals.shape, residuals.dtype)
    ct = (upcast(residuals) * upcast(loss_ct)).astype(loss_ct.dtype)
    return ct, -ct


l2_loss = Rule(
    l2_loss_fwd,
    l2_loss_bwd,
    reference=lambda predictions, targets: 0.5 * (predictions - targets) ** 2,
    domain={"predictions": Normal(2.0), "targets": Normal(2.0)},
    points={
        "prediction is the target": Point(
            {"predictions": 3.0, "targets": 3.0}, {"predictions": 0.0, "targets": 0.0}
        )
    },
    formula="ℓ = ½ r², r = ŷ - y; ∂ℓ/∂ŷ = r",
    saves="r",
)
