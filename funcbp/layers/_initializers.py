"""The weight initializer that fits what the layer reads."""

import functools

import jax
import numpy as np
from jax import numpy as jnp
from jax.nn.initializers import Initializer, variance_scaling

from .._rule import catalogue

__all__ = ["initializer"]


def initializer(after: str | None = None, **static: bool) -> Initializer:
    """Keeps the variance of pre-activations at one, for a layer that reads `after` (None: data).

    With p ~ N(0, 1) and q = σ(p), a weight of variance 1 / (fan_in E[q²]) makes the next p of variance one.
    E[σ(p)²] is computed by Gauss-Hermite quadrature from the rule: ½ for relu (the initializer of He et al.
    2015, arXiv:1502.01852), 1 for the identity (LeCun's), 0.394 for tanh.

    Raises:
        ValueError: for an activation that the catalogue does not have, or one that is not elementwise or not
            defined for all real numbers.

    >>> initializer("relu")(jax.random.key(0), (3, 4), jnp.float32).shape
    (3, 4)
    """
    second_moment = 1.0 if after is None else _second_moment(after, tuple(static.items()))
    return variance_scaling(1 / second_moment, "fan_in", "truncated_normal")


@functools.cache
def _second_moment(name: str, static: tuple[tuple[str, bool], ...]) -> float:
    rule = catalogue().get(name)
    if (
        rule is None
        or [a.axes for a in rule.signature.arguments] != [("*shape",)]
        or "axis" in rule.signature.statics
    ):
        raise ValueError(f"initializer: `after` must name an elementwise activation, got {name!r}.")
    nodes, weights = np.polynomial.hermite_e.hermegauss(100)
    with jax.ensure_compile_time_eval():
        q = np.asarray(rule.primal(jnp.asarray(nodes, jnp.float32), **dict(static)), np.float64)
    moment = float((weights * q * q).sum() / weights.sum())
    if not 0 < moment < np.inf:
        raise ValueError(f"initializer: `after` must name a function of all real numbers, {name} is not.")
    return moment
