"""Selections by a mask. What is not selected has the cotangent 0, not 0 times what was there.

A product with the mask, forward or backward, lets NaN and infinity of the unselected branch through (0 · NaN
is NaN); a selection does not. What it cannot help is a derivative *below* it that is infinite: in `where(x >
0, √x, 0)` the cotangent of √x at 0 is 0, and 0 · ∞ is NaN in the rule of the root. There the root must not
see the 0: `where(x > 0, √where(x > 0, x, 1), 0)`.
"""

from jax import numpy as jnp
from jaxtyping import Array, Bool, Float

from ..._numerics import upcast
from ..._rule import Rule
from ...domains import AwayFrom, Booleans, Normal, Point
from .._checks import check_cotangent
from ._linear import linear

X = Float[Array, "*shape"]
Mask = Bool[Array, "*shape"]

_NAN = float("nan")


def _where(condition: Mask, x: X, y: X) -> X:
    """x where the condition holds, else y, as `jnp.where`."""
    return jnp.where(condition, x, y)


where = linear(
    _where,
    lambda q_ct, condition: (jnp.where(condition, q_ct, 0), jnp.where(condition, 0, q_ct)),
    y="q = m ? x : y",
    x_ct="x̄ = m ? q̄ : 0, ȳ = m ? 0 : q̄",
    because="every element of q is one of x or of y",
    reference=jnp.where,
    domain={"condition": Booleans(), "x": Normal(), "y": Normal()},
    points={
        "NaN in the unselected branch": Point(
            {"condition": (1.0, 0.0), "x": (1.0, _NAN), "y": (_NAN, 1.0)}, {"x": (1.0, 0.0), "y": (0.0, 1.0)}
        ),
    },
    saves="m",
)


def _masked_fill(x: X, mask: Mask, *, value: float = 0.0) -> X:
    """x with `value` where the mask holds: -∞ for the scores of an attention, 0 for padding."""
    return jnp.where(mask, jnp.asarray(value, x.dtype), x)


masked_fill = linear(
    _masked_fill,
    lambda q_ct, mask: jnp.where(mask, 0, q_ct),
    y="q = m ? v : x",
    x_ct="x̄ = m ? 0 : q̄",
    because="what was overwritten has no influence left",
    reference=lambda x, mask, value=0.0: jnp.select([mask], [jnp.full_like(x, value)], x),
    domain={"x": Normal(), "mask": Booleans()},
    points={"NaN under the mask": Point({"mask": (0.0, 1.0), "x": (1.0, _NAN)}, {"x": (1.0, 0.0)})},
    settings=({"value": -float("inf")},),
    saves="m",
)


def _dropout(x: X, keep: Mask, *, rate: float = 0.5) -> X:
    """x where `keep` holds, scaled by 1 / (1 - rate), else 0.

    The mask is an argument, so that the function is pure: draw it with probability 1 - rate. Raises
    ValueError for a rate outside [0, 1).
    """
    if not 0 <= rate < 1:
        raise ValueError(f"dropout: rate = {rate} is outside [0, 1); choose the fraction to drop.")
    return jnp.where(keep, upcast(x) / (1 - rate), 0)


dropout = linear(
    _dropout,
    lambda q_ct, keep, rate: jnp.where(keep, upcast(q_ct) / (1 - rate), 0),
    y="q = m ⊙ x / (1 - r)",
    x_ct="x̄ = m ⊙ q̄ / (1 - r)",
    because="a diagonal matrix",
    reference=lambda x, keep, rate=0.5: jnp.where(keep, x, 0) * (1 / (1 - rate)),
    domain={"x": Normal(), "keep": Booleans()},
    points={
        "NaN in what is dropped": Point({"keep": (1.0, 0.0), "x": (1.0, _NAN)}, {"x": (2.0, 0.0)}),
        "all dropped": Point({"keep": 0.0}, {"x": 0.0}),
    },
    settings=({"rate": 0.0}, {"rate": 0.1}),
    saves="m, one byte an element",
)


def clip_fwd(x: X, *, min: float = 0.0, max: float = 1.0) -> tuple[X, X]:
    """x within [min, max], as `jnp.clip` with two numbers.

    Forward:     q = min(max(x, lo), hi)
    Backward:    x̄ = q̄ inside, ½ q̄ at either end, 0 outside

    Derivation. dq = dx inside, 0 outside. At an end the convention is jnp's, the mean of the one-sided
    slopes; torch.clamp has 1 there.

    Saves x. Raises ValueError where min is not below max.
    """
    if not min < max:
        raise ValueError(f"clip: min = {min} must be below max = {max}.")
    return jnp.clip(x, min, max), x


def clip_bwd(residuals: X, q_ct: X, *, min: float = 0.0, max: float = 1.0) -> tuple[X]:
    """x̄ = q̄ inside, ½ q̄ at either end, 0 outside."""
    check_cotangent("clip", q_ct, residuals.shape, residuals.dtype)
    lo, hi = (jnp.asarray(end, residuals.dtype) for end in (min, max))
    at_end = (residuals == lo) | (residuals == hi)
    inside = (residuals > lo) & (residuals < hi)
    return (jnp.where(inside, q_ct, jnp.where(at_end, q_ct / 2, 0)).astype(q_ct.dtype),)


clip = Rule(
    clip_fwd,
    clip_bwd,
    reference=lambda x, min=0.0, max=1.0: jnp.minimum(jnp.maximum(x, min), max),
    domain={"x": AwayFrom((0.0, 1.0, -0.5, 2.0))},
    points={
        "at the ends": Point({"x": (0.0, 1.0)}, {"x": 0.5}, why="as jnp.clip; torch has 1", smooth=False),
        "outside": Point({"x": (-1e4, 1e4)}, {"x": 0.0}),
    },
    settings=({"min": -0.5, "max": 2.0},),
    formula="q = min(max(x, lo), hi); x̄ = [lo < x < hi] q̄, ½ q̄ at the ends",
    saves="x",
)
