"""Elementwise losses: of a residual r = ŷ - y, and of a margin m = ŷ y; one line a loss.

Residuals.
Forward, elementwise:     r = ŷ - y      ℓ = f(r)
Backward, elementwise:    f′(r) ℓ̄ for ŷ, its negative for y
Derivation. dℓ = f′(r) (dŷ - dy). Without targets r = ŷ. Saves r.

Margins.
Forward, elementwise:     m = ŷ y        ℓ = f(m)
Backward, elementwise:    f′(m) y ℓ̄ for ŷ, f′(m) ŷ ℓ̄ for y
Derivation. dℓ = f′(m) (y dŷ + ŷ dy). Saves ŷ and y.

At a kink f′ is 0 where that is a subgradient: at the minimum of |r| and of the quantile loss, and, for the
margin losses, for an example that has just reached its margin, as in the perceptron's own rule, which updates
on mistakes only. Half precision is computed in float32 and rounded once at the end.
"""

import math
from collections.abc import Callable, Hashable, Mapping
from typing import Any

import jax
import optax
from jax import numpy as jnp
from jaxtyping import Array, Float

from ..._numerics import upcast
from ..._rule import Rule
from ...domains import AwayFrom, Normal, Point, Signs
from .._checks import check_cotangent
from ._shared import with_options

X = Float[Array, "*shape"]
Function = Callable[..., jax.Array]


def _of_residual(
    name: str,
    formula: str,
    f: Function,
    slope: Function,
    reference: Function,
    points: Mapping[str, Point] | None = None,
    options: Mapping[str, Hashable] | None = None,
    settings: tuple[Mapping[str, Hashable], ...] = (),
    valid: Callable[..., None] | None = None,
    note: str = "",
) -> Rule:
    """The rule of one loss f(r); `f` and `slope` take r and the options, which `valid` checks."""
    defaults = dict(options or {})

    def fwd(predictions: X, targets: X | None = None, **static: Any) -> tuple[X, tuple[X, Any]]:
        if valid is not None:
            valid(**static)
        r = upcast(predictions) if targets is None else upcast(predictions) - upcast(targets)
        given = None if targets is None else ()
        return f(r, **static).astype(predictions.dtype), (r.astype(predictions.dtype), given)

    def bwd(residuals: tuple[X, Any], loss_ct: X, **static: Any) -> tuple[X, X | None]:
        r, given = residuals
        check_cotangent(name, loss_ct, r.shape, r.dtype)
        ct = (slope(upcast(r), **defaults | static) * upcast(loss_ct)).astype(r.dtype)
        return ct, None if given is None else -ct

    def of_difference(predictions: X, targets: X | None = None, **static: Any) -> X:
        return reference(predictions if targets is None else predictions - targets, **static)

    formula = f"{formula}, r = ŷ - y"
    saved = " ".join(filter(None, (note, "Saves r.")))
    fwd.__doc__ = _documentation(
        formula, "dℓ = ℓ′(r) (dŷ - dy)", "ŷ-cotangent = ℓ′ ℓ̄, y-cotangent = -ℓ′ ℓ̄", saved
    )
    domain = {"predictions": Normal(2.0), "targets": Normal(2.0)}
    return Rule(
        *_named(name, fwd, bwd, defaults),
        reference=of_difference,
        domain=domain,
        points=points,
        settings=settings,
        formula=formula,
        saves="r",
    )


def _of_margin(
    name: str,
    formula: str,
    f: Function,
    slope: Function,
    reference: Function,
    kink: float,
    points: Mapping[str, Point],
) -> Rule:
    """The rule of one loss f(m), with a kink at m = `kink`."""

    def fwd(predictor_outputs: X, targets: X) -> tuple[X, tuple[X, X]]:
        m = upcast(predictor_outputs) * upcast(targets)
        return f(m).astype(predictor_outputs.dtype), (predictor_outputs, targets)

    def bwd(residuals: tuple[X, X], loss_ct: X) -> tuple[X, X]:
        z, y = residuals
        check_cotangent(name, loss_ct, z.shape, z.dtype)
        m_ct = slope(upcast(z) * upcast(y)) * upcast(loss_ct)
        return (m_ct * upcast(y)).astype(z.dtype), (m_ct * upcast(z)).astype(y.dtype)

    formula = f"{formula}, m = ŷ y"
    derivation = "dℓ = ℓ′(m) (y dŷ + ŷ dy)"
    saved = "The labels y are -1 or 1. Saves ŷ and y."
    fwd.__doc__ = _documentation(formula, derivation, "ŷ-cotangent = y ℓ′ ℓ̄, y-cotangent = ŷ ℓ′ ℓ̄", saved)
    return Rule(
        *_named(name, fwd, bwd, {}),
        reference=reference,
        domain={"predictor_outputs": AwayFrom((-kink, kink), scale=2.0), "targets": Signs()},
        points=points,
        formula=formula,
        saves="ŷ, y",
    )


def _documentation(formula: str, derivation: str, cotangents: str, rest: str) -> str:
    return (
        f"{formula.split(', ℓ′')[0].split('; ℓ′')[0]}, elementwise.\n\n"
        f"Forward:     {formula}\nBackward:    {cotangents}\n\nDerivation. {derivation}.\n\n{rest}"
    )


def _named(name: str, fwd: Any, bwd: Any, options: Mapping[str, Hashable]) -> tuple[Any, Any]:
    fwd.__name__, bwd.__name__ = f"{name}_fwd", f"{name}_bwd"
    return with_options(fwd, options), with_options(bwd, options)


def _clipped(r: jax.Array, delta: float) -> jax.Array:
    # Not `clip`, whose derivative at its ends is ½ in JAX.
    return jnp.where(r > delta, delta, jnp.where(r < -delta, -delta, r))


def _huber(r: jax.Array, delta: float) -> jax.Array:
    c = _clipped(r, delta)
    return c * (r - c / 2)


def _log_cosh(r: jax.Array) -> jax.Array:
    # log(1 + (cosh r - 1)) keeps the digits near 0, |r| + log(1 + e^(-2|r|)) - log 2 far out; from
    # m = e^(-|r|) - 1 both with one logarithm. (|r| by `where`: on either branch r″ is right at 0.)
    size = jnp.where(r < 0, -r, r)
    near = size < 1
    m = jnp.expm1(-size)
    e = 1 + m
    inside = jnp.where(near, m * m / (2 * jnp.where(near, e, 1)), e * e)
    return jnp.where(near, 0, size - math.log(2)) + jnp.log1p(inside)


def _quantile_slope(r: jax.Array, quantile: float) -> jax.Array:
    return jnp.where(r > 0, 1 - quantile, jnp.where(r < 0, -quantile, 0))


def _positive_delta(delta: float) -> None:
    if not delta > 0:
        raise ValueError(
            f"huber_loss: static option `delta` must be positive (where the loss turns linear), got {delta}."
        )


def _valid_quantile(quantile: float) -> None:
    if not 0 <= quantile <= 1:
        raise ValueError(
            f"quantile_loss: static option `quantile` must be between 0 and 1, got {quantile}; "
            "0.5 is the median."
        )


def _at(r: float, ct: float, why: str = "", smooth: bool = True) -> Point:
    """A residual, with the cotangent of the predictions."""
    expected = {"predictions": ct, "targets": -ct}
    return Point({"predictions": r, "targets": 0.0}, expected, why=why, smooth=smooth)


def _at_margin(z: float, ct: float, why: str = "") -> Point:
    """A point of a margin loss, for an example of the class 1."""
    at, expected = {"predictor_outputs": z, "targets": 1.0}, {"predictor_outputs": ct, "targets": z * ct}
    return Point(at, expected, agrees=not why, why=why, smooth=not why)


_RIGHT = {"prediction is the target": _at(0.0, 0.0)}
_KINK = {"prediction is the target": _at(0.0, 0.0, "a subgradient; jnp.abs has 1", smooth=False)}
_HALF = "0 as for jax.nn.relu; jnp.maximum has -½"

# fmt: off
squared_error = _of_residual(
    "squared_error", "ℓ = r², ℓ′ = 2 r", lambda r: r * r, lambda r: 2 * r, jnp.square, _RIGHT,
    note="The ½ and the 1/n of the literature are elsewhere: ½ in `l2_loss`, 1/n in the reduction.")
l2_loss = _of_residual(
    "l2_loss", "ℓ = ½ r², ℓ′ = r", lambda r: r * r / 2, lambda r: r, lambda r: 0.5 * r**2, _RIGHT)
absolute_error = _of_residual(
    "absolute_error", "ℓ = |r|, ℓ′ = sign r", lambda r: r * jnp.sign(r), jnp.sign,
    lambda r: jnp.maximum(r, 0) - jnp.minimum(r, 0), _KINK)
quantile_loss = _of_residual(
    "quantile_loss", "ℓ = (1 - τ) r for r > 0, -τ r for r < 0; ℓ′ = 1 - τ or -τ",
    lambda r, quantile: r * _quantile_slope(r, quantile), _quantile_slope,
    lambda r, quantile=0.5: (1 - quantile) * jax.nn.relu(r) + quantile * jax.nn.relu(-r), _KINK,
    {"quantile": 0.5}, ({"quantile": 0.9},), _valid_quantile,
    "τ = `quantile`: the minimum over many targets is their τ-quantile (pinball loss; Koenker 1978).")
huber_loss = _of_residual(
    "huber_loss", "ℓ = c (r - ½ c), c = min(max(r, -δ), δ); ℓ′ = c", _huber, _clipped,
    lambda r, delta=1.0: optax.losses.huber_loss(r, delta=delta),
    {**_RIGHT, "where it turns linear": _at(1.0, 1.0, smooth=False), "far out": _at(-1e4, -1.0)},
    {"delta": 1.0}, ({"delta": 0.5},), _positive_delta,
    "½ r² within δ = `delta`, δ |r| - ½ δ² beyond (Huber 1964); once differentiable at ±δ.")
log_cosh = _of_residual(
    "log_cosh", "ℓ = log cosh r, ℓ′ = tanh r", _log_cosh, jnp.tanh, optax.losses.log_cosh,
    {**_RIGHT, "far out": _at(1e4, 1.0)})

hinge_loss = _of_margin(
    "hinge_loss", "ℓ = max(0, 1 - m), ℓ′ = -[m < 1]", lambda m: jnp.where(m >= 1, 0, 1 - m),
    lambda m: jnp.where(m >= 1, 0, -1), optax.losses.hinge_loss, 1.0,
    {"at the margin": _at_margin(1.0, 0.0, _HALF), "wrong": _at_margin(-3.0, -1.0)})
perceptron_loss = _of_margin(
    "perceptron_loss", "ℓ = max(0, -m), ℓ′ = -[m < 0]", lambda m: jnp.where(m >= 0, 0, -m),
    lambda m: jnp.where(m >= 0, 0, -1), optax.losses.perceptron_loss, 0.0,
    {"undecided": _at_margin(0.0, 0.0, _HALF), "wrong": _at_margin(-3.0, -1.0)})
# fmt: on
