"""Variance, standard deviation, and standardizing by them, along given axes."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import jax
import numpy as np
from jax import numpy as jnp
from jaxtyping import Array, Bool, Float

from ..._numerics import upcast
from ..._rule import Rule
from ...domains import Booleans, Normal, Point
from .._checks import check_cotangent
from ._standardized import inverse_root

X = Float[Array, "*shape"]
Where = Bool[Array, "*shape"]
Out = Float[Array, "*rest"]
Axis = int | tuple[int, ...] | None


def _axes(rule: str, x: X, axis: Axis) -> tuple[int, ...]:
    """The axes that `axis` names, counted from the front; None is all of them."""
    named = tuple(range(x.ndim)) if axis is None else (axis,) if isinstance(axis, int) else axis
    if any(not -x.ndim <= a < x.ndim for a in named):
        raise ValueError(f"{rule}: `axis` is {axis!r}, but x has shape {x.shape}.")
    return tuple(a % x.ndim for a in named)


def _deviation(x: X, axes: tuple[int, ...]) -> X:
    """x - μ. Corrected by the mean of what is left: once in μ, so that of equal numbers it is exactly 0, and
    once in the difference, where μ's last rounding error would be that of all."""
    z, count = upcast(x), max(_count(x, axes), 1)

    def mean(a: X) -> X:
        return jnp.sum(a, axis=axes, keepdims=True) / count

    rough = mean(z)
    left = z - (rough + mean(z - rough))
    return left - mean(left)


def _count(x: X, axes: tuple[int, ...]) -> int:
    return math.prod(x.shape[a] for a in axes)


def var_fwd(x: X, *, axis: Axis = None, ddof: int = 0, keepdims: bool = False) -> tuple[Out, X]:
    """Variance over an axis, several, or all, as `jnp.var`.

    Forward, with μ the mean of n numbers:    v = Σ (x - μ)² / (n - ddof)
    Backward:                                 x̄ = 2 (x - μ) v̄ / (n - ddof)

    Derivation. dv = 2 Σ (x - μ) (dx - dμ) / (n - ddof), and Σ (x - μ) = 0: the mean's own derivative cancels,
    for every ddof.

    Saves x.
    """
    axes = _axes("var", x, axis)
    total = jnp.sum(jnp.square(_deviation(x, axes)), axis=axes, keepdims=keepdims)
    return jnp.divide(total, _count(x, axes) - ddof).astype(x.dtype), x


def var_bwd(residuals: X, v_ct: Out, *, axis: Axis = None, ddof: int = 0, keepdims: bool = False) -> tuple[X]:
    """x̄ = 2 (x - μ) v̄ / (n - ddof)."""
    x = residuals
    axes = _axes("var", x, axis)
    check_cotangent("var", v_ct, _reduced(x, axes, keepdims), x.dtype)
    ct = upcast(v_ct).reshape(_reduced(x, axes, True))
    return ((2 * _deviation(x, axes) * jnp.divide(ct, _count(x, axes) - ddof)).astype(x.dtype),)


def _reduced(x: X, axes: tuple[int, ...], keepdims: bool) -> tuple[int, ...]:
    return tuple(1 if a in axes else n for a, n in enumerate(x.shape) if keepdims or a not in axes)


_MOMENT_SETTINGS = ({"axis": -1, "ddof": 1}, {"axis": (0, 1), "keepdims": True}, {"axis": 0})

var = Rule(
    var_fwd,
    var_bwd,
    reference=jnp.var,
    domain={"x": Normal()},
    points={"constant": Point({"x": 3.0}, {"x": 0.0})},
    settings=_MOMENT_SETTINGS,
    sizes=({}, {"shape": (3, 4, 2)}, {"shape": (2, 2)}),
    formula="v = Σ (x - μ)² / (n - ddof); x̄ = 2 (x - μ) v̄ / (n - ddof)",
    saves="x",
)


def std_fwd(x: X, *, axis: Axis = None, ddof: int = 0, keepdims: bool = False) -> tuple[Out, tuple[X, Out]]:
    """Standard deviation over an axis, several, or all, as `jnp.std`.

    Forward, with μ the mean of n numbers:    s = √(Σ (x - μ)² / (n - ddof))
    Backward:                                 x̄ = (x - μ) / s · s̄ / (n - ddof)

    Derivation. s² = v gives 2 s ds = dv = 2 Σ (x - μ) dx / (n - ddof).

    Where all numbers are equal s = 0 is a cone's tip: x̄ = 0, the mean of the slopes in all directions
    (autodiff: NaN, 0/0). The mean is corrected once by the mean of what it leaves, so that this is met
    exactly: 0.1 in every place has s = 0, not the rounding error of a mean.

    Saves x and s.
    """
    axes = _axes("std", x, axis)
    v = jnp.divide(
        jnp.sum(jnp.square(_deviation(x, axes)), axis=axes, keepdims=keepdims), _count(x, axes) - ddof
    )
    s = jnp.where(v == 0, 0, jnp.sqrt(jnp.where(v == 0, 1, v)))
    return s.astype(x.dtype), (x, s)


def std_bwd(
    residuals: tuple[X, Out], s_ct: Out, *, axis: Axis = None, ddof: int = 0, keepdims: bool = False
) -> tuple[X]:
    """x̄ = (x - μ) / s · s̄ / (n - ddof), 0 where s = 0."""
    x, s = residuals
    axes = _axes("std", x, axis)
    check_cotangent("std", s_ct, _reduced(x, axes, keepdims), x.dtype)
    slope = jnp.where(s == 0, 0, upcast(s_ct) / jnp.where(s == 0, 1, s)).reshape(_reduced(x, axes, True))
    return ((_deviation(x, axes) * jnp.divide(slope, _count(x, axes) - ddof)).astype(x.dtype),)


std = Rule(
    std_fwd,
    std_bwd,
    reference=jnp.std,
    domain={"x": Normal()},
    points={
        "constant": Point(
            {"x": 0.1}, {"x": 0.0}, agrees=False, why="a cone's tip: 0 here, NaN in JAX", smooth=False
        )
    },
    settings=_MOMENT_SETTINGS,
    sizes=({}, {"shape": (3, 4, 2)}, {"shape": (2, 2)}),
    formula="s = √v, v = Σ (x - μ)² / (n - ddof); x̄ = (x - μ) s̄ / (s (n - ddof))",
    saves="x, s",
)


@dataclass(frozen=True)
class _Selections(Booleans):
    """Masks with something selected along every axis."""

    def sample(
        self, rng: np.random.Generator, shape: tuple[int, ...], sizes: Mapping[str, int]
    ) -> np.ndarray:
        """Fair coins, but True on every diagonal."""
        own = shape[1:]
        diagonal = np.indices(own).sum(0) % max(min(own, default=1), 1) == 0
        return super().sample(rng, shape, sizes) | diagonal


def standardize_fwd(
    x: X, where: Where | None = None, *, axis: int | tuple[int, ...] = (-1,), epsilon: float = 1e-5
) -> tuple[X, tuple[X, Where | None, X, X]]:
    """Zero mean and unit variance along an axis or several, as `jax.nn.standardize`.

    Forward, with μ, σ² the mean and biased variance of the n numbers selected by `where` (default: all):

        r = (σ² + ε)^(-1/2)      y = r (x - μ)      (everywhere, also where not selected)

    Backward, with w = 1 where selected and 0 where not, sums over all numbers along the axes:

        x̄ = r (ȳ - w/n (Σ ȳ + y Σ(ȳ ⊙ y)))

    Derivation. dμ = Σ w ⊙ dx / n and dr = -r² Σ w ⊙ y ⊙ dx / n, so dy = r (dx - dμ) - r y Σ w ⊙ y ⊙ dx / n.
    Transposed: every number's ȳ reaches the statistics, and through them only the selected x.

    Constant numbers have y = 0 and r = ε^(-1/2); with ε = 0 also x̄ = 0. If nothing is selected μ = σ² = 0
    (autodiff: NaN in both).

    Saves x, the mask, and μ, r (one number each for what is standardized together).
    """
    axes = _axes("standardize", x, axis)
    z, weight = upcast(x), _weight(x, where, axes)
    mean = jnp.sum(weight * z, axis=axes, keepdims=True)
    variance = jnp.sum(weight * jnp.square(z - mean), axis=axes, keepdims=True)
    r = inverse_root(variance + epsilon)
    return (r * (z - mean)).astype(x.dtype), (x, where, mean, r)


def standardize_bwd(
    residuals: tuple[X, Where | None, X, X],
    y_ct: X,
    *,
    axis: int | tuple[int, ...] = (-1,),
    epsilon: float = 1e-5,
) -> tuple[X, None]:
    """x̄ = r (ȳ - w/n (Σ ȳ + y Σ(ȳ ⊙ y)))."""
    del epsilon  # already inside r
    x, where, mean, r = residuals
    check_cotangent("standardize", y_ct, x.shape, x.dtype)
    axes = _axes("standardize", x, axis)
    y, ct = r * (upcast(x) - mean), upcast(y_ct)
    reach = jnp.sum(ct, axis=axes, keepdims=True) + y * jnp.sum(ct * y, axis=axes, keepdims=True)
    return (r * (ct - _weight(x, where, axes) * reach)).astype(x.dtype), None


def _weight(x: X, where: Where | None, axes: tuple[int, ...]) -> jax.Array | float:
    """w/n."""
    if where is None:
        return 1 / max(_count(x, axes), 1)
    selected = where.astype(upcast(x).dtype)
    count = jnp.sum(selected, axis=axes, keepdims=True)
    return selected / jnp.where(count == 0, 1, count)


def _standardize_reference(
    x: X, where: Where | None = None, *, axis: int | tuple[int, ...] = (-1,), epsilon: float = 1e-5
) -> X:
    # Its own variance is ⟨x²⟩ - ⟨x⟩², which cancels.
    variance = jnp.var(x, axis=axis, keepdims=True, where=where)
    return jax.nn.standardize(x, axis=axis, epsilon=epsilon, variance=variance, where=where)


standardize = Rule(
    standardize_fwd,
    standardize_bwd,
    reference=_standardize_reference,
    domain={"x": Normal(), "where": _Selections()},
    points={
        "constant": Point({"x": 3.0}),
        "nothing selected": Point(
            {"where": 0.0}, agrees=False, why="the mean of nothing: 0 here, NaN in JAX"
        ),
    },
    settings=({"axis": 0}, {"axis": (0, 1), "epsilon": 1e-2}),
    formula="y = r (x - μ), r = (σ² + ε)^(-1/2); x̄ = r (ȳ - ⟨ȳ⟩ - y ⟨ȳ ⊙ y⟩)",
    saves="x, where, μ, r",
)
