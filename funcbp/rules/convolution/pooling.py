"""Maximum and average over windows that slide, or over everything."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax import lax
from jax import numpy as jnp
from jaxtyping import Array, Float

from ..._numerics import upcast
from ..._rule import Rule
from ...domains import Distinct, Normal, Point
from .._checks import check_cotangent
from ._options import Like, Numbers, Padding, lax_padding
from ._windows import Windows, first_maximum, spread_to_maximum, windows_of

X = Float[Array, "batch *inputs channels"]
Y = Float[Array, "batch *outputs channels"]
Pixel = Float[Array, "batch channels"]


def max_pool_fwd(
    x: X, *, window: Numbers = None, strides: Numbers = None, padding: Padding = None
) -> tuple[Y, X]:
    """Maximum over windows (by default of 2); strides are by default the window. Padding is -∞.

    Forward:     y_t = max_j x_{s t + j - l}
    Backward:    x̄_i = Σ ȳ_t over the windows t in which i is the first maximum

    Derivation. Off ties y_t is one of the x's and dy_t = dx_i for that i; the transpose sends every ȳ_t back
    to it, and what overlapping windows send adds up.

    At a tie the first in the order of rows gets everything, as in JAX's reduce_window; to send ȳ to every
    place that equals the maximum would count it more than once. A box is a maximum over maxima: along the
    last axis first, and back in the other order, which keeps that rule and reads k + l places for k × l.

    Saves x; where the maxima are is found again. Raises ValueError for options that do not fit x, or for
    windows of padding alone.
    """
    y = x
    for windows in reversed(windows_of("max_pool", x, window, strides, padding)):
        y, _ = first_maximum(y, windows)
    return y, x


def max_pool_bwd(
    residuals: X, y_ct: Y, *, window: Numbers = None, strides: Numbers = None, padding: Padding = None
) -> tuple[X]:
    """x̄_i = Σ ȳ_t over the windows t in which i is the first maximum."""
    along = windows_of("max_pool", residuals, window, strides, padding)
    check_cotangent("max_pool", y_ct, _pooled_shape(residuals, along), residuals.dtype)
    y, places = residuals, []
    for windows in reversed(along):
        y, which = first_maximum(y, windows)
        places.append((which, windows))
    ct = upcast(y_ct)
    for which, windows in reversed(places):
        ct = spread_to_maximum(ct, which, windows)
    return (ct.astype(residuals.dtype),)


def _pooled_shape(x: X | Like, along: Sequence[Windows]) -> tuple[int, ...]:
    return (x.shape[0], *(windows.outputs for windows in along), x.shape[-1])


def _reduced(
    x: X, initial: float, operation: Callable[..., Any], window: Numbers, strides: Numbers, padding: Padding
) -> Y:
    """XLA's own windows."""
    rank = x.ndim - 2

    def full(value: Any, default: Any) -> tuple[Any, ...]:
        return value if isinstance(value, tuple) else (default if value is None else value,) * rank

    taps = full(window, 2)
    steps = (1, *(full(strides, 1) if strides is not None else taps), 1)
    pads = lax_padding(padding, rank)
    pads = pads if isinstance(pads, str) else [(0, 0), *pads, (0, 0)]
    return lax.reduce_window(x, np.asarray(initial, x.dtype), operation, (1, *taps, 1), steps, pads)


def _max_pool_reference(
    x: X, *, window: Numbers = None, strides: Numbers = None, padding: Padding = None
) -> Y:
    return _reduced(x, -np.inf, lax.max, window, strides, padding)


_SETTINGS = (
    {"window": 3, "strides": 1, "padding": "SAME"},
    {"window": 3, "strides": 2, "padding": 1},
    {"window": 2, "strides": 3},
)
_SIZES = (
    {"batch": 2, "inputs": (4, 5), "channels": 2},
    {"batch": 1, "inputs": (7,), "channels": 2},
    {"batch": 1, "inputs": (3, 4, 3), "channels": 1},
)

max_pool = Rule(
    max_pool_fwd,
    max_pool_bwd,
    reference=_max_pool_reference,
    domain={"x": Distinct()},
    points={
        "ties": Point({"x": 1.0}, smooth=False),
    },
    settings=_SETTINGS,
    sizes=_SIZES,
    formula="y_t = max_j x_{s t + j - l}; x̄_i = Σ ȳ_t over the windows whose first maximum is i",
    saves="x",
)


def avg_pool_fwd(
    x: X,
    *,
    window: Numbers = None,
    strides: Numbers = None,
    padding: Padding = None,
    count_include_pad: bool = True,
) -> tuple[Y, Like]:
    """Average over windows (by default of 2); strides are by default the window. Padding is 0.

    Forward:     y_t = 1/n_t Σ_j x_{s t + j - l}
    Backward:    x̄_i = Σ ȳ_t/n_t over the windows t that i is in

    Derivation. y is linear in x; the entry (t, i) of its matrix is 1/n_t where i is in window t.

    n_t is the size of the window, padding counted; without `count_include_pad` only what is in x. Sums run
    along one axis after the other.

    Saves the shape of x. Raises ValueError for options that do not fit x, or for windows of padding alone.
    """
    along = windows_of("avg_pool", x, window, strides, padding)
    y = upcast(x)
    for windows in along:
        y = functools.reduce(jnp.add, windows.read(y, 0))
    return (y / _counts(along, count_include_pad)).astype(x.dtype), Like.of(x)


def avg_pool_bwd(
    residuals: Like,
    y_ct: Y,
    *,
    window: Numbers = None,
    strides: Numbers = None,
    padding: Padding = None,
    count_include_pad: bool = True,
) -> tuple[X]:
    """x̄_i = Σ ȳ_t/n_t over the windows t that i is in."""
    along = windows_of("avg_pool", residuals, window, strides, padding)
    check_cotangent("avg_pool", y_ct, _pooled_shape(residuals, along), residuals.dtype)
    ct = upcast(y_ct) / _counts(along, count_include_pad)
    for windows in reversed(along):
        ct = functools.reduce(jnp.add, (windows.spread(tap, ct) for tap in range(windows.taps)))
    return (ct.astype(residuals.dtype),)


def _counts(along: Sequence[Windows], count_include_pad: bool) -> np.ndarray | int:
    """n_t, with an axis for the channels."""
    if count_include_pad:
        return math.prod(windows.taps for windows in along)
    shape = [windows.outputs for windows in along]
    counts = math.prod(np.ix_(*(windows.inside() for windows in along)), start=np.ones(shape, int))
    return counts[..., None]


def _avg_pool_reference(
    x: X,
    *,
    window: Numbers = None,
    strides: Numbers = None,
    padding: Padding = None,
    count_include_pad: bool = True,
) -> Y:
    total = _reduced(x, 0, lax.add, window, strides, padding)
    rank = x.ndim - 2
    if count_include_pad:
        return total / math.prod(window if isinstance(window, tuple) else (window or 2,) * rank)
    return total / _reduced(jnp.ones_like(x), 0, lax.add, window, strides, padding)


avg_pool = Rule(
    avg_pool_fwd,
    avg_pool_bwd,
    reference=_avg_pool_reference,
    domain={"x": Normal()},
    points={"constant": Point({"x": 3.0})},
    settings=(*_SETTINGS, {"window": 3, "strides": 2, "padding": 1, "count_include_pad": False}),
    sizes=_SIZES,
    formula="y_t = 1/n Σ_j x_{s t + j - l}; x̄_i = Σ ȳ_t/n over the windows that i is in",
    saves="the shape of x",
)


def global_max_pool_fwd(x: X) -> tuple[Pixel, X]:
    """Maximum over all positions, for every channel of every example.

    Forward:     y = max_i x_i
    Backward:    x̄_i = ȳ where i is the first maximum, in the order of rows, and 0 elsewhere

    Derivation. Off ties dy = dx_i for the one i where the maximum is. At ties the first gets everything, as
    in `max_pool` (jnp.max gives all of them the same share).

    Saves x; where the maximum is is found again. Raises ValueError if there are no positions.
    """
    _require_positions("global_max_pool", x)
    flat = _flat(x)
    return jnp.take_along_axis(flat, jnp.argmax(flat, axis=1, keepdims=True), axis=1)[:, 0], x


def global_max_pool_bwd(residuals: X, y_ct: Pixel) -> tuple[X]:
    """x̄_i = ȳ where i is the first maximum, and 0 elsewhere."""
    x = residuals
    check_cotangent("global_max_pool", y_ct, (x.shape[0], x.shape[-1]), x.dtype)
    flat = _flat(x)
    first = jnp.argmax(flat, axis=1, keepdims=True) == jnp.arange(flat.shape[1])[:, None]
    return (jnp.where(first, y_ct[:, None], 0).reshape(x.shape),)


def _flat(x: X) -> jax.Array:
    return x.reshape(x.shape[0], math.prod(x.shape[1:-1]), x.shape[-1])


def _require_positions(rule: str, x: X) -> None:
    if math.prod(x.shape[1:-1]) == 0:
        raise ValueError(f"{rule}: there are no positions in x, whose shape is {x.shape}.")


def _first_position(shape: tuple[int, ...]) -> np.ndarray:
    first = np.zeros(shape).reshape(shape[0], -1, shape[-1])
    first[:, 0] = 1
    return first.reshape(shape)


global_max_pool = Rule(
    global_max_pool_fwd,
    global_max_pool_bwd,
    reference=lambda x: jnp.max(x, axis=tuple(range(1, x.ndim - 1))),
    domain={"x": Distinct()},
    points={
        "ties": Point(
            {"x": 1.0},
            {"x": _first_position},
            agrees=False,
            why="the first maximum gets everything, as in max_pool; jnp.max gives each the same share",
            smooth=False,
        )
    },
    sizes=({"batch": 2, "inputs": (2, 3), "channels": 3}, {"batch": 2, "inputs": (), "channels": 3}),
    formula="y = max_i x_i; x̄_i = ȳ at the first maximum, 0 elsewhere",
    saves="x",
)


def global_avg_pool_fwd(x: X) -> tuple[Pixel, Like]:
    """Average over all n positions, for every channel of every example.

    Forward:     y = Σ_i x_i / n
    Backward:    x̄_i = ȳ/n

    Derivation. y is linear in x, with the same weight for all positions.

    Saves the shape of x. Raises ValueError if there are no positions.
    """
    _require_positions("global_avg_pool", x)
    return jnp.mean(upcast(x), axis=tuple(range(1, x.ndim - 1))).astype(x.dtype), Like.of(x)


def global_avg_pool_bwd(residuals: Like, y_ct: Pixel) -> tuple[X]:
    """x̄_i = ȳ/n."""
    x = residuals
    check_cotangent("global_avg_pool", y_ct, (x.shape[0], x.shape[-1]), x.dtype)
    share = (upcast(y_ct) / math.prod(x.shape[1:-1])).astype(x.dtype)
    return (jnp.broadcast_to(share.reshape(x.shape[0], *[1] * (x.ndim - 2), x.shape[-1]), x.shape),)


global_avg_pool = Rule(
    global_avg_pool_fwd,
    global_avg_pool_bwd,
    reference=lambda x: jnp.einsum("b...c->bc", x) / math.prod(x.shape[1:-1]),
    domain={"x": Normal()},
    sizes=({"batch": 2, "inputs": (2, 3), "channels": 3}, {"batch": 2, "inputs": (), "channels": 3}),
    formula="y = Σ x_i / n; x̄_i = ȳ/n",
    saves="the shape of x",
)
