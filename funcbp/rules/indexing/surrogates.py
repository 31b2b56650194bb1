"""Derivatives that are chosen, not derived: straight-through estimators, stopped and scaled gradients.

Forward:     q = h(x), elementwise
Backward:    x̄ = s′(x) ⊙ q̄

Derivation. There is none: h is flat, or its derivative unwanted, and that of a soft function s takes its
place (Bengio, Léonard, Courville 2013, arXiv:1308.3432). What can be held to account is that q is h and x̄ the
cotangent of s; forward mode through `primal` gives the same slope. Differences of h do not.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
from jax import lax
from jax import numpy as jnp
from jaxtyping import Array, Float

from ..._numerics import upcast
from ..._rule import Rule
from ...domains import AwayFrom, Domain, Normal, Point
from .._checks import check_cotangent

X = Float[Array, "*shape"]
Function = Callable[[jax.Array], jax.Array]


@jax.custom_jvp
def _in_place_of(value: jax.Array, along: jax.Array) -> jax.Array:
    """The value, with the derivative of another one."""
    del along
    return value


@_in_place_of.defjvp
def _derivative_of_along(primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    return primals[0], tangents[1]


def _surrogate(
    name: str,
    formula: str,
    hard: Function,
    soft: Function,
    slope: Function,
    points: Mapping[str, Point],
    source: str,
    domain: Domain = Normal(2.0),  # noqa: B008  (immutable)
) -> Rule:
    """The rule of one function: `hard` is its value, `slope` the derivative of `soft`."""

    def fwd(x: X) -> tuple[X, X]:
        wide = upcast(x)
        return _in_place_of(hard(wide), soft(wide)).astype(x.dtype), x

    def bwd(residuals: X, q_ct: X) -> tuple[X]:
        check_cotangent(name, q_ct, residuals.shape, residuals.dtype)
        slopes = slope(upcast(residuals))
        # What is stopped is stopped, an infinite cotangent too.
        return (jnp.where(slopes == 0, 0, slopes * upcast(q_ct)).astype(q_ct.dtype),)

    def reference(x: X) -> X:
        return soft(x) + lax.stop_gradient(hard(x) - soft(x))

    fwd.__name__, bwd.__name__ = f"{name}_fwd", f"{name}_bwd"
    fwd.__doc__ = (
        f"{source}\n\nForward and backward, elementwise: {formula}.\n\n"
        "Derivation. None: the slope is chosen (see the head of the module).\n\nSaves x, alive anyway."
    )
    return Rule(
        fwd,
        bwd,
        reference=reference,
        domain={"x": domain},
        points=points,
        formula=formula,
        saves="x",
        surrogate=True,
    )


def _at(x: float, ct: float, smooth: bool = True) -> Point:
    return Point({"x": x}, {"x": ct}, smooth=smooth)


def _hard_tanh(x: jax.Array) -> jax.Array:
    return jnp.where(x > 1, 1, jnp.where(x < -1, -1, x))


def _step_slope(x: jax.Array) -> jax.Array:
    e = jnp.exp(jnp.where(x > 0, -x, x))
    return e / (1 + e) ** 2


# fmt: off
stop_gradient = _surrogate(
    "stop_gradient", "q = x, x̄ = 0", lambda x: x, jnp.zeros_like, jnp.zeros_like,
    {"anywhere": _at(3.0, 0.0)}, "The identity that lets no gradient through, as `jax.lax.stop_gradient`.")
reverse_gradient = _surrogate(
    "reverse_gradient", "q = x, x̄ = -q̄", lambda x: x, jnp.negative, lambda x: -jnp.ones_like(x),
    {"anywhere": _at(3.0, -1.0)},
    "Gradient reversal for adversarial domains (Ganin et al. 2016, arXiv:1505.07818).")
straight_through_round = _surrogate(
    "straight_through_round", "q = round x, x̄ = q̄", jnp.round, lambda x: x, jnp.ones_like,
    {"half": _at(0.5, 1.0)},
    "Rounding (half to even, as `jnp.round`) with the slope of the identity: quantization.")
straight_through_sign = _surrogate(
    "straight_through_sign", "q = sign x, x̄ = [|x| ≤ 1] q̄", jnp.sign, _hard_tanh,
    lambda x: jnp.where((x > 1) | (x < -1), 0, 1),
    {"middle": _at(0.0, 1.0), "end": _at(1.0, 1.0, smooth=False), "saturated": _at(1e4, 0.0)},
    "The sign with the slope of hard tanh, 1 at its ends (Hubara et al. 2016, arXiv:1602.02830).",
    AwayFrom((-1.0, 1.0)))
straight_through_clip = _surrogate(
    "straight_through_clip", "q = min(max(x, 0), 1), x̄ = q̄", lambda x: jnp.clip(x, 0, 1),
    lambda x: x, jnp.ones_like,
    {"outside": _at(5.0, 1.0), "at an end": _at(1.0, 1.0)},
    "Clipping to [0, 1] with the slope of the identity: what left the interval can come back.")
straight_through_step = _surrogate(
    "straight_through_step", "q = [x > 0], x̄ = σ(x)(1 - σ(x)) q̄",
    lambda x: jnp.where(x > 0, 1, 0).astype(x.dtype), jax.nn.sigmoid, _step_slope,
    {"threshold": _at(0.0, 0.25), "saturated": _at(1e4, 0.0)},
    "The unit step with the slope of the logistic function: spiking neurons, hard gates.")
# fmt: on
