"""Cosine of the angle between two vectors."""

import jax
import optax
from jax import lax
from jax import numpy as jnp
from jaxtyping import Array, Bool, Float

from ..._numerics import upcast
from ..._rule import Rule
from ...domains import Normal, Point
from .._checks import check_cotangent
from ._domains import Kept
from ._shared import check_axis, excluded, masked_reference, spread, without_axis

X = Float[Array, "*shape"]
Where = Bool[Array, "*shape"]
Residuals = tuple[X, X, Where | None]


def unit(x: jax.Array, axis: int, epsilon: float = 0.0) -> tuple[jax.Array, jax.Array, jax.Array]:
    """x̂ = x / max(‖x‖, √ε) along `axis`, that divisor's inverse, where it is ‖x‖; 0 for zeros at ε = 0."""
    squared = jnp.sum(x * x, axis=axis, keepdims=True)
    free = squared > epsilon
    squared = jnp.where(free, squared, epsilon or 1)
    inverse = jnp.where(free | bool(epsilon), lax.rsqrt(squared), 0)
    return x * inverse, inverse, free


def unit_bwd(x: jax.Array, x_hat_ct: jax.Array, axis: int, epsilon: float = 0.0) -> jax.Array:
    """x̄ = (g - x̂ ⟨x̂, g⟩) / ‖x‖ for g the cotangent of x̂; g / √ε where ‖x‖² ≤ ε; 0 for zeros at ε = 0."""
    x_hat, inverse, free = unit(x, axis, epsilon)
    along = x_hat * jnp.sum(x_hat * x_hat_ct, axis=axis, keepdims=True)
    return (x_hat_ct - jnp.where(free, along, 0)) * inverse


def cosine_similarity_fwd(
    predictions: X, targets: X, where: Where | None = None, *, epsilon: float = 0.0, axis: int = -1
) -> tuple[X, Residuals]:
    """Cosine of the angle between a and b along `axis`.

    As `optax.losses.cosine_similarity`: `epsilon` is the smallest squared norm to divide by.

    Forward, with n(a) = max(‖a‖, √ε), â = a / n(a), b̂ = b / n(b):    c = ⟨â, b̂⟩
    Backward:    ā = (b̂ - c â) / n(a) c̄      b̄ = (â - c b̂) / n(b) c̄

    Derivation. d‖a‖ = ⟨â, da⟩, so dâ = (I - â âᵀ) da / ‖a‖, and dc = ⟨b̂, dâ⟩ + ⟨â, db̂⟩. Where ‖a‖² ≤ ε the
    norm is a constant and the term with c is not there.

    A vector of zeros has no direction: at ε = 0 its cosine and all derivatives are 0 (autodiff has NaN). What
    `where` leaves out counts as 0.

    Saves a and b; norms are recomputed.
    """
    return _cosine("cosine_similarity", predictions, targets, where, epsilon, axis)


def cosine_similarity_bwd(
    residuals: Residuals, out_ct: X, *, epsilon: float = 0.0, axis: int = -1
) -> tuple[X, X, None]:
    """ā = (b̂ - c â) / n(a) c̄, b̄ = (â - c b̂) / n(b) c̄."""
    return _cosine_bwd("cosine_similarity", residuals, out_ct, epsilon, axis)


def cosine_distance_fwd(
    predictions: X, targets: X, where: Where | None = None, *, epsilon: float = 0.0, axis: int = -1
) -> tuple[X, Residuals]:
    """One minus the cosine of the angle between a and b along `axis`, as `optax.losses.cosine_distance`.

    Forward:     ℓ = 1 - c      c = ⟨â, b̂⟩
    Backward:    ā = (c â - b̂) / n(a) ℓ̄      b̄ = (c b̂ - â) / n(b) ℓ̄

    Derivation. As of `cosine_similarity`, with its conventions: dℓ = -dc. Where `where` leaves out all of a
    row the distance is 0.

    Saves a and b; norms are recomputed.
    """
    similarity, _ = _cosine("cosine_distance", upcast(predictions), upcast(targets), where, epsilon, axis)
    distance = 1 - similarity
    if where is not None:
        distance = jnp.where(jnp.any(where, axis=axis), distance, 0)
    return distance.astype(predictions.dtype), (predictions, targets, where)


def cosine_distance_bwd(
    residuals: Residuals, loss_ct: X, *, epsilon: float = 0.0, axis: int = -1
) -> tuple[X, X, None]:
    """ā = (c â - b̂) / n(a) ℓ̄, b̄ = (c b̂ - â) / n(b) ℓ̄."""
    a_ct, b_ct, _ = _cosine_bwd("cosine_distance", residuals, loss_ct, epsilon, axis)
    return -a_ct, -b_ct, None


def _cosine(
    rule: str, a: jax.Array, b: jax.Array, where: jax.Array | None, epsilon: float, axis: int
) -> tuple[jax.Array, Residuals]:
    check_axis(rule, axis, a)
    if epsilon < 0:
        raise ValueError(f"{rule}: static option `epsilon` must not be negative, got {epsilon}.")
    units = (unit(excluded(upcast(x), where), axis, epsilon)[0] for x in (a, b))
    return jnp.sum(next(units) * next(units), axis=axis).astype(a.dtype), (a, b, where)


def _cosine_bwd(
    rule: str, residuals: Residuals, out_ct: jax.Array, epsilon: float, axis: int
) -> tuple[jax.Array, jax.Array, None]:
    a, b, where = residuals
    check_cotangent(rule, out_ct, without_axis(a.shape, axis), a.dtype)
    ct = spread(upcast(out_ct), axis, where)
    x, y = (excluded(upcast(v), where) for v in (a, b))
    a_ct = unit_bwd(x, unit(y, axis, epsilon)[0] * ct, axis, epsilon)
    b_ct = unit_bwd(y, unit(x, axis, epsilon)[0] * ct, axis, epsilon)
    return a_ct.astype(a.dtype), b_ct.astype(b.dtype), None


@masked_reference
def _similarity_reference(a: X, b: X, axis: int, where: Where | None = None, epsilon: float = 0.0) -> X:
    return optax.losses.cosine_similarity(a, b, epsilon=epsilon, axis=axis, where=where)


@masked_reference
def _distance_reference(a: X, b: X, axis: int, where: Where | None = None, epsilon: float = 0.0) -> X:
    return optax.losses.cosine_distance(a, b, epsilon=epsilon, axis=axis, where=where)


# Two vectors of one element are parallel: all that is left of their derivatives is rounding.
_DOMAIN = {"predictions": Normal(), "targets": Normal(), "where": Kept(2)}
_ZERO = Point(
    {"predictions": 0.0},
    {"predictions": 0.0, "targets": 0.0},
    agrees=False,
    why="a vector of zeros has no direction; optax gives NaN",
    smooth=False,
)

cosine_similarity = Rule(
    cosine_similarity_fwd,
    cosine_similarity_bwd,
    reference=_similarity_reference,
    domain=_DOMAIN,
    points={"vector of zeros": _ZERO, "all masked out": Point({"where": 0.0}, smooth=False)},
    settings=({"axis": 0}, {"epsilon": 1.0}),
    formula="c = ⟨â, b̂⟩; ∂c/∂a = (b̂ - c â) / ‖a‖",
    saves="a, b",
)

cosine_distance = Rule(
    cosine_distance_fwd,
    cosine_distance_bwd,
    reference=_distance_reference,
    domain=_DOMAIN,
    points={"vector of zeros": _ZERO, "all masked out": Point({"where": 0.0}, smooth=False)},
    settings=({"axis": 0}, {"epsilon": 1.0}),
    formula="ℓ = 1 - ⟨â, b̂⟩; ∂ℓ/∂a = (c â - b̂) / ‖a‖",
    saves="a, b",
)
