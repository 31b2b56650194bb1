"""How far a correct result may be from the truth: an allowance for every element, never a constant
tolerance."""

from typing import Any

import jax
import numpy as np
from jax import numpy as jnp
from jax.typing import DTypeLike

__all__ = ["FACTOR", "HALF_FACTOR", "allowance", "eps_of", "round_tree", "ulp"]

FACTOR = 12.0
"""How many standard deviations of the simulated rounding error a correct result may be off.

The simulation rounds by up to one eps where hardware rounds by half of one: a factor 2 in hand. Its
standard deviation is estimated from 16 samples: too low by a factor 2 once in about 10⁴ elements. A
hand-written backward pass may spell the function in a few more operations than the reference, or sum in
another order: a factor 2 again. What is left, 6 standard deviations of actual rounding in the worst of
these cases and 24 in the usual one, is for the tail of the error, over the many elements of a run. In
float32 a relative error of 10⁻³ still stands out, unless two digits cancelled.
"""

HALF_FACTOR = 2.0
"""The same for 16-bit dtypes, whose contract is stricter: computed in float32, only what is stored is
rounded.

Two standard deviations of a computation that rounds *every* intermediate to 16 bits is more than one can be
off that rounds two or three.
"""

_ROUNDINGS = 4.0  # of the result itself: from the reference, the rule, a residual and a cast


def eps_of(dtype: DTypeLike) -> float:
    """The distance from 1 to the next larger number of a dtype.

    >>> eps_of("bfloat16")
    0.0078125
    """
    return float(jnp.finfo(dtype).eps)


def _underflow(dtype: DTypeLike) -> float:
    """The absolute error where a number falls below the normal range: half precision is computed in
    float32."""
    info = jnp.finfo(dtype)
    if info.bits < 32:
        return max(float(info.smallest_subnormal), float(jnp.finfo(jnp.float32).tiny))
    return float(info.tiny)


def allowance(value: Any, spread: Any, dtype: DTypeLike, scale: float | np.ndarray = 1.0) -> Any:
    """The largest error that counts as rounding, for every element.

        |error| ≤ FACTOR · eps · spread + 4 eps |value| + scale · smallest number

    (`HALF_FACTOR` in place of `FACTOR` for 16-bit dtypes.)

    Args:
        value: pytree of arrays, the truth.
        spread: the same tree and shapes: the expected rounding error per unit of eps, from `monte_carlo`.
        dtype: in which the result under test is computed.
        scale: the largest number that an underflowed intermediate may be multiplied by.

    Returns:
        The same tree and shapes, float64; infinite where the spread is not finite.
    """
    factor = FACTOR if jnp.finfo(dtype).bits >= 32 else HALF_FACTOR
    eps, small = eps_of(dtype), _underflow(dtype) * np.maximum(scale, 1.0)

    def one(v: Any, s: Any) -> np.ndarray:
        v, s = np.abs(np.asarray(v)).astype(np.float64), np.asarray(s, np.float64)
        aligned = np.reshape(small, np.shape(small) + (1,) * (v.ndim - np.ndim(small)))
        with np.errstate(all="ignore"):
            bound = factor * eps * s + _ROUNDINGS * eps * v + aligned
        return np.where(np.isnan(bound), np.inf, bound)

    return jax.tree.map(one, value, spread)


def round_tree(tree: Any, dtype: DTypeLike) -> Any:
    """Every floating leaf rounded to `dtype` and given back as float64: inputs that `dtype` can hold
    exactly."""

    def one(x: Any) -> np.ndarray:
        x = np.asarray(x)
        if not jnp.issubdtype(x.dtype, jnp.floating):
            return x
        with np.errstate(all="ignore"):
            return x.astype(jnp.dtype(dtype)).astype(np.float64)

    return jax.tree.map(one, tree)


def ulp(value: np.ndarray, dtype: DTypeLike) -> np.ndarray:
    """The distance between neighboring numbers of `dtype` at every element of `value`.

    >>> float(ulp(np.float64(3.0), "float32")) == 2 * eps_of("float32")
    True
    """
    info = jnp.finfo(dtype)
    _, exponent = np.frexp(np.asarray(value, np.float64))
    return np.maximum(np.ldexp(float(info.eps), exponent - 1), float(info.smallest_subnormal))
