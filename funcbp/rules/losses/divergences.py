"""Divergences of a distribution y from a prediction q = log ŷ, summed over an axis: one line each.

Forward:     ℓ = Σ f(q, y)
Backward:    q̄ = ∂f/∂q ⊙ ℓ̄      ȳ = ∂f/∂y ⊙ ℓ̄      (ℓ̄ the same for all terms of a sum)
Derivation. dℓ = Σ ∂f/∂q dq + ∂f/∂y dy, term by term.

A target of 0 takes the term y (log y - q) out, value and derivatives, also at q = -∞: 0 log 0 = 0. (The slope
at 0 is -∞ on one side; but what led to a probability of 0, a softmax say, multiplies it by 0.) What `where`
leaves out counts for nothing. Saves both arguments.

`optax.losses.convex_kl_divergence` is the older name, there deprecated, of `generalized_kl_divergence`.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import optax
from jax import numpy as jnp
from jaxtyping import Array, Bool, Float

from ..._numerics import upcast
from ..._rule import Rule
from ...domains import Booleans, Domain, Normal, Point, Simplex
from .._checks import check_cotangent
from ._shared import check_axis, excluded, spread, without_axis

X = Float[Array, "*shape"]
Where = Bool[Array, "*shape"]
Residuals = tuple[X, X, Where | None]
Function = Callable[..., jax.Array]


def _summed(
    name: str,
    formula: str,
    term: Function,
    slopes: Callable[[jax.Array, jax.Array], tuple[jax.Array, jax.Array]],
    reference: Function,
    targets: Domain,
    points: Mapping[str, Point],
    second: str = "targets",
) -> Rule:
    """The rule of Σ f(q, y); `term` is f, `slopes` its two derivatives, `second` the name of y."""

    def included(q: Any, y: Any, where: Any) -> tuple[jax.Array, jax.Array]:
        # What is left out may be anything, and must not overflow.
        return excluded(upcast(q), where), excluded(upcast(y), where)

    def value(q: Any, y: Any, where: Any, axis: int) -> Any:
        check_axis(name, axis, q)
        loss = jnp.sum(term(*included(q, y, where)), axis=axis, where=where)
        return loss.astype(q.dtype), (q, y, where)

    def fwd(
        log_predictions: X, targets: X, where: Where | None = None, *, axis: int = -1
    ) -> tuple[X, Residuals]:
        return value(log_predictions, targets, where, axis)

    def fwd_of_logs(
        log_predictions: X, log_targets: X, where: Where | None = None, *, axis: int = -1
    ) -> tuple[X, Residuals]:
        return value(log_predictions, log_targets, where, axis)

    def bwd(residuals: Residuals, loss_ct: X, *, axis: int = -1) -> tuple[X, X, None]:
        q, y, where = residuals
        check_cotangent(name, loss_ct, without_axis(q.shape, axis), q.dtype)
        ct = spread(upcast(loss_ct), axis, where)
        by_q, by_y = slopes(*included(q, y, where))
        return (by_q * ct).astype(q.dtype), (by_y * ct).astype(y.dtype), None

    forward: Any = fwd_of_logs if second == "log_targets" else fwd
    forward.__name__, bwd.__name__ = f"{name}_fwd", f"{name}_bwd"
    forward.__doc__ = f"""Divergence over `axis`, as `optax.losses.{name}`.

    Forward and Backward:    {formula}; each term's derivatives times ℓ̄

    Derivation. Term by term, at the head of the table, with what is taken at a target of 0.

    Saves both arguments.
    """

    def of_included(log_predictions: X, y: X, where: Where | None = None, *, axis: int = -1) -> X:
        # optax multiplies what is left out by 0, be it ∞ or not.
        return reference(excluded(log_predictions, where), excluded(y, where, 1.0), axis, where)

    return Rule(
        forward,
        bwd,
        reference=of_included,
        domain={"log_predictions": Normal(2.0), second: targets, "where": Booleans()},
        points={**points, "all masked out": Point({"where": 0.0})},
        settings=({"axis": 0},),
        formula=formula,
        saves="q, y" if second == "targets" else "q, t",
    )


def _log_ratio(q: jax.Array, y: jax.Array) -> jax.Array:
    """log y - q, but 0 where y is 0."""
    return jnp.where(y == 0, 0, jnp.log(jnp.where(y == 0, 1, y)) - jnp.where(y == 0, 0, q))


def _log_term(q: jax.Array, t: jax.Array) -> jax.Array:
    """t - q, but 0 where e^t is 0."""
    gone = t == -jnp.inf
    return jnp.where(gone, 0, t) - jnp.where(gone, 0, q)


def _kl_slopes(q: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
    return -y, jnp.where(y == 0, 0, _log_ratio(q, y) + 1)


def _kl_of_logs_slopes(q: jax.Array, t: jax.Array) -> tuple[jax.Array, jax.Array]:
    y = jnp.exp(t)
    return -y, y * (_log_term(q, t) + 1)


def _generalized_slopes(q: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
    return jnp.exp(q) - y, jnp.where(y == 0, -1, _log_ratio(q, y))


_GONE = "a target of 0 has no part in the loss; optax gives NaN"
_NEVER = Point(
    {"log_predictions": -float("inf"), "targets": 0.0}, {"log_predictions": 0.0}, False, _GONE, False
)

# fmt: off
kl_divergence = _summed(
    "kl_divergence", "ℓ = Σ y (log y - q); ∂ℓ/∂q = -y, ∂ℓ/∂y = log y + 1 - q",
    lambda q, y: y * _log_ratio(q, y), _kl_slopes, optax.losses.kl_divergence, Simplex(),
    {"impossible and never seen": _NEVER, "target of 0": Point(
        {"targets": 0.0}, {"log_predictions": 0.0, "targets": 0.0}, False, _GONE, False)})
kl_divergence_with_log_targets = _summed(
    "kl_divergence_with_log_targets", "ℓ = Σ eᵗ (t - q); ∂ℓ/∂q = -eᵗ, ∂ℓ/∂t = eᵗ (t - q + 1)",
    lambda q, t: jnp.exp(t) * _log_term(q, t), _kl_of_logs_slopes,
    optax.losses.kl_divergence_with_log_targets, Normal(), {"target of -∞": Point(
        {"log_targets": -float("inf")}, {"log_predictions": 0.0, "log_targets": 0.0}, False, _GONE, False)},
    "log_targets")
generalized_kl_divergence = _summed(
    "generalized_kl_divergence", "ℓ = Σ y (log y - q) + e^q - y; ∂ℓ/∂q = e^q - y, ∂ℓ/∂y = log y - q",
    lambda q, y: y * _log_ratio(q, y) + (jnp.exp(q) - y), _generalized_slopes,
    optax.losses.generalized_kl_divergence, Simplex(),
    {"impossible and never seen": _NEVER, "target of 0": Point(
        {"log_predictions": 0.0, "targets": 0.0, "where": 1.0}, {"log_predictions": 1.0, "targets": -1.0},
        False, _GONE, False)})
# fmt: on
