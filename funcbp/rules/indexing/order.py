"""Order statistics: elements read at places that the order decides.

Forward:     q_k = Σ_m w_m x_(i_km)      i from the order of x
Backward:    x̄_i = Σ_(k, m: i_km = i) w_m q̄_k

Derivation. Between ties the places i do not move, so q is a linear map of x: a read, whose transpose adds up
where was read. At a tie the order is that of a stable sort: of equal elements the first comes first. (For a
function symmetric in x, such as a sum over all of q, the choice makes no difference.)
"""

import math

import numpy as np
from jax import lax
from jax import numpy as jnp
from jaxtyping import Array, Float, Int

from ..._numerics import upcast
from ..._rule import Rule
from ...domains import Distinct, Point
from .._checks import check_cotangent
from .._specs import Spec
from ._linear import add_along_axis

X = Float[Array, "*shape"]
Read = Float[Array, "*read"]
Places = Int[Array, "*read"]
Residuals = tuple[Spec, Places]


def sort_fwd(x: X, *, axis: int = -1, descending: bool = False) -> tuple[X, Residuals]:
    """Sorted along `axis`, as `jnp.sort`.

    Forward:     q_k = x_(i_k)      i = argsort x
    Backward:    x̄_(i_k) = q̄_k

    Derivation. Between ties a permutation of x: linear, and its transpose is its inverse. Equal elements keep
    their order; a descending result is the ascending one read from the end, as in jnp, so that there they
    come in reverse.

    Saves i; x is not kept.
    """
    places = jnp.argsort(x, axis)
    places = jnp.flip(places, axis) if descending else places
    return jnp.take_along_axis(x, places, axis), (Spec.of(x), places)


def sort_bwd(residuals: Residuals, q_ct: X, *, axis: int = -1, descending: bool = False) -> tuple[X]:
    """x̄_(i_k) = q̄_k."""
    del descending  # already in the places
    x, places = residuals
    check_cotangent("sort", q_ct, x.shape, x.dtype)
    return (add_along_axis(x, places, q_ct, axis).astype(x.dtype),)


def _sort_reference(x: X, axis: int = -1, descending: bool = False) -> X:
    return jnp.sort(x, axis, descending=descending)


_FIRST_FIRST = "equal elements keep their order"

sort = Rule(
    sort_fwd,
    sort_bwd,
    reference=_sort_reference,
    domain={"x": Distinct()},
    points={"all equal": Point({"x": 2.0}, {"x": 1.0}, why=_FIRST_FIRST, smooth=False)},
    settings=({"axis": 0}, {"descending": True}),
    formula="q_k = x_(i_k), i = argsort x; x̄_(i_k) = q̄_k",
    saves="i",
)


def top_k_values_fwd(x: X, *, k: int = 1) -> tuple[Read, Residuals]:
    """The k largest along the last axis in descending order: the values of `jax.lax.top_k`.

    Forward:     q_m = x_(i_m)      i the places of the k largest
    Backward:    x̄_(i_m) = q̄_m, 0 elsewhere

    Derivation. Between ties the places do not move: a read, whose transpose puts back. Of equal elements the
    first counts as the larger one.

    Saves i; x is not kept. Raises ValueError for a k that is negative or larger than the axis.
    """
    if not 0 <= k <= x.shape[-1]:
        raise ValueError(
            f"top_k_values: k = {k} is outside the {x.shape[-1]} elements of the last axis; choose a k from "
            f"0 to {x.shape[-1]}."
        )
    places = lax.top_k(x, k)[1]
    return jnp.take_along_axis(x, places, -1), (Spec.of(x), places)


def top_k_values_bwd(residuals: Residuals, q_ct: Read, *, k: int = 1) -> tuple[X]:
    """x̄_(i_m) = q̄_m."""
    del k
    x, places = residuals
    check_cotangent("top_k_values", q_ct, places.shape, x.dtype)
    return (add_along_axis(x, places, q_ct, -1).astype(x.dtype),)


def _largest(x: X, k: int = 1) -> Read:
    return lax.top_k(x, k)[0]


top_k_values = Rule(
    top_k_values_fwd,
    top_k_values_bwd,
    reference=_largest,
    domain={"x": Distinct()},
    points={
        "all equal": Point(
            {"x": 2.0},
            {"x": lambda shape: 1.0 * (np.arange(shape[-1]) == 0)},
            why="of equal elements the first is taken",
            smooth=False,
        )
    },
    settings=({"k": 2},),
    formula="q_m = x_(i_m), the k largest; x̄_(i_m) = q̄_m",
    saves="i",
)


def quantile_fwd(x: X, *, q: float = 0.5, axis: int = -1) -> tuple[Read, Residuals]:
    """A quantile along `axis`, interpolated linearly, as `jnp.quantile`; the median by default.

    Forward, for n elements with t = q (n - 1), lower = ⌊t⌋, upper = ⌈t⌉, w = t - ⌊t⌋, i = argsort x:

        y = (1 - w) x_(i_lower) + w x_(i_upper)

    Backward:    x̄_(i_lower) = (1 - w) ȳ      x̄_(i_upper) = w ȳ      0 elsewhere

    Derivation. Between ties the two places do not move: a linear map of x. Equal elements keep their order,
    as in a stable sort.

    Saves the two places of every row; x is not kept. Raises ValueError for a q outside [0, 1].
    """
    if not 0 <= q <= 1:
        raise ValueError(f"quantile: q = {q} is no fraction; choose one from 0 to 1.")
    lower, upper, weight = _between(x.shape[axis], q)
    places = jnp.argsort(x, axis)
    places = jnp.stack([lax.index_in_dim(places, i, axis, keepdims=False) for i in (lower, upper)], axis)
    low, high = jnp.moveaxis(upcast(jnp.take_along_axis(x, places, axis)), axis, 0)
    return ((1 - weight) * low + weight * high).astype(x.dtype), (Spec.of(x), places)


def _between(n: int, q: float) -> tuple[int, int, float]:
    at = q * (n - 1)
    return math.floor(at), math.ceil(at), at - math.floor(at)


def quantile_bwd(residuals: Residuals, y_ct: Read, *, q: float = 0.5, axis: int = -1) -> tuple[X]:
    """x̄ = (1 - w) ȳ and w ȳ at the two places."""
    x, places = residuals
    shape = list(x.shape)
    del shape[axis]
    check_cotangent("quantile", y_ct, tuple(shape), x.dtype)
    ct, weight = upcast(y_ct), _between(x.shape[axis], q)[2]
    both = jnp.stack([(1 - weight) * ct, weight * ct], axis)
    return (add_along_axis(x, places, both, axis).astype(x.dtype),)


def _quantile_reference(x: X, q: float = 0.5, axis: int = -1) -> Read:
    return jnp.quantile(x, q, axis=axis)


quantile = Rule(
    quantile_fwd,
    quantile_bwd,
    reference=_quantile_reference,
    domain={"x": Distinct()},
    points={
        "all equal": Point(
            {"x": 2.0},
            {"x": lambda shape: 1.0 * (np.arange(shape[-1]) == shape[-1] // 2)},
            why=_FIRST_FIRST,
            smooth=False,
        )
    },
    settings=({"q": 0.3}, {"q": 1.0, "axis": 0}),
    sizes=({"shape": (2, 3)},),
    formula="y = (1 - w) x_(i_lower) + w x_(i_upper); x̄ = (1 - w) ȳ, w ȳ there",
    saves="the two places",
)
