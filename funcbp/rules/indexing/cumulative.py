"""Cumulative operations: a recurrence forward, the δ recurrence backward.

Forward, along an axis:      q_j = f(q_(j-1), x_j)
Backward:                    δ_j = q̄_j + a_(j+1) δ_(j+1)      x̄_j = c_j δ_j      a = ∂f/∂q, c = ∂f/∂x

Derivation. q_j reaches the loss directly and through q_(j+1): δ_j = q̄_j + (∂q_(j+1)/∂q_j) δ_(j+1); x_j
reaches it through q_j only. Linear in time; every rule but the sum, which needs no a, states its a and c.
"""

import functools
from collections.abc import Callable

import jax
import numpy as np
from jax import lax
from jax import numpy as jnp
from jaxtyping import Array, Float

from ..._numerics import upcast
from ..._rule import Rule
from ...domains import Distinct, Normal, Point
from .._checks import check_cotangent
from ._linear import linear

X = Float[Array, "*shape"]


def _cumsum(x: X, *, axis: int = -1, reverse: bool = False) -> X:
    """Cumulative sum along `axis` (from the end with `reverse`), as `jax.lax.cumsum`."""
    return lax.cumsum(upcast(x), axis % x.ndim, reverse)


cumsum = linear(
    _cumsum,
    lambda q_ct, axis, reverse: lax.cumsum(upcast(q_ct), axis % q_ct.ndim, not reverse),
    y="q_j = Σ_(i≤j) x_i",
    x_ct="x̄_i = Σ_(j≥i) q̄_j",
    because="the transpose of a triangle of ones sums from the other end",
    reference=lambda x, axis=-1, reverse=False: _by_triangle(x, axis, reverse),
    domain={"x": Normal()},
    settings=({"axis": 0}, {"reverse": True}),
)


def _by_triangle(x: jax.Array, axis: int, reverse: bool) -> jax.Array:
    ones = jnp.tri(x.shape[axis], dtype=x.dtype)
    return jnp.moveaxis(jnp.tensordot(ones.T if reverse else ones, x, (1, axis)), 0, axis)


Step = Callable[[jax.Array, jax.Array, jax.Array], tuple[jax.Array, jax.Array]]


def _cumulative(
    name: str,
    formula: str,
    scan: Callable[[jax.Array], jax.Array],
    first: float,
    step: Step,
    reference: Callable[..., jax.Array],
    points: dict[str, Point],
    note: str = "",
    distinct: bool = False,
) -> Rule:
    """The rule of one recurrence.

    Args:
        name: of the rule.
        formula: f, a and c in a line.
        scan: all q from all x, along the first axis.
        first: q before the first step.
        step: `(q_(j-1), x_j, q_j)` to `(a_j, c_j)`.
        reference: `(x, axis, reverse)`, another spelling.
        points: named points.
        note: on conventions.
        distinct: whether ties are a kink.
    """

    def fwd(x: X, *, axis: int = -1, reverse: bool = False) -> tuple[X, tuple[X, X]]:
        q = _led(scan(_led(upcast(x), axis, reverse)), axis, reverse, back=True).astype(x.dtype)
        return q, (x, q)

    def bwd(residuals: tuple[X, X], q_ct: X, *, axis: int = -1, reverse: bool = False) -> tuple[X]:
        saved, q = residuals
        check_cotangent(name, q_ct, q.shape, q.dtype)
        x, q, ct = (_led(upcast(z), axis, reverse) for z in (saved, q, q_ct))
        before = jnp.concatenate([jnp.full_like(q[:1], first), q[:-1]])
        a, c = step(before, x, q)
        x_ct = c * _deltas(a, ct)
        return (_led(x_ct, axis, reverse, back=True).astype(saved.dtype),)

    fwd.__name__, bwd.__name__ = f"{name}_fwd", f"{name}_bwd"
    fwd.__doc__ = (
        f"As `jax.lax.{name}`: along `axis`, from the end with `reverse`.\n\n"
        f"Forward and step: {formula}.\n\nBackward: δ_j = q̄_j + a_(j+1) δ_(j+1), x̄_j = c_j δ_j.\n\n"
        "Derivation. As for every recurrence (at the head of the module): a = ∂q_j/∂q_(j-1), c = ∂q_j/∂x_j.\n"
        f"\n{note}\n\nSaves x and q, both alive anyway."
    )
    return Rule(
        fwd,
        bwd,
        reference=reference,
        domain={"x": Distinct() if distinct else Normal()},
        points=points,
        settings=({"axis": 0}, {"reverse": True}),
        formula=formula,
        saves="x, q",
    )


def _led(x: jax.Array, axis: int, reverse: bool, back: bool = False) -> jax.Array:
    """`axis` first, and in the direction of the recurrence; or `back` from there."""
    if back:
        return jnp.moveaxis(x[::-1] if reverse else x, 0, axis)
    x = jnp.moveaxis(x, axis, 0)
    return x[::-1] if reverse else x


# Compiled as a whole, also where the caller is not: a scan of this kind is some ten operations a level.
@functools.partial(jax.jit, inline=True)
def _deltas(a: jax.Array, ct: jax.Array) -> jax.Array:
    """δ_j = q̄_j + a_(j+1) δ_(j+1), as an associative scan of affine maps from the end."""

    def after(later: tuple[jax.Array, ...], earlier: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        return earlier[0] * later[0], earlier[1] + earlier[0] * later[1]

    following = jnp.concatenate([a[1:], jnp.zeros_like(a[:1])])
    return lax.associative_scan(after, (following, ct), reverse=True)[1]


def _product_step(before: jax.Array, x: jax.Array, q: jax.Array) -> tuple[jax.Array, jax.Array]:
    del q
    return x, before


@functools.partial(jax.jit, inline=True)
def _running_maximum(x: jax.Array) -> jax.Array:
    # By selection, not lax.cummax: its derivative at ties is ½ for every comparison of a tree.
    return lax.associative_scan(lambda q, x: jnp.where((x <= q) | jnp.isnan(q), q, x), x)


def _maximum_step(before: jax.Array, x: jax.Array, q: jax.Array) -> tuple[jax.Array, jax.Array]:
    del q
    kept = x <= before
    # The first element is a maximum even at -∞.
    kept = kept.at[:1].set(False)
    return jnp.where(kept, 1.0, 0.0).astype(x.dtype), jnp.where(kept, 0.0, 1.0).astype(x.dtype)


def _weight(part: jax.Array, whole: jax.Array) -> jax.Array:
    """e^(part - whole), 0 where the whole is e^(-∞)."""
    return jnp.exp(jnp.where(whole == -jnp.inf, -jnp.inf, part - whole))


def _logsumexp_step(before: jax.Array, x: jax.Array, q: jax.Array) -> tuple[jax.Array, jax.Array]:
    return _weight(before, q), _weight(x, q)


def _by_prefixes(reduce: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """The reference: a reduction of every prefix."""

    def prefixes(x: jax.Array, axis: int = -1, reverse: bool = False) -> jax.Array:
        rows = jnp.moveaxis(x, axis, 0)
        ends = [rows[j:] if reverse else rows[: j + 1] for j in range(len(rows))]
        return jnp.moveaxis(jnp.stack([reduce(r, axis=0) for r in ends]), 0, axis)

    return prefixes


_TIE = (
    "Of equal elements the first takes all of δ: it is the one that is read. (JAX's cummax halves δ at every "
    "comparison of its scan, so that the shares depend on the length.)"
)
_TIED = "the first of equal elements takes all; autodiff shares"
_MINUS_INFINITY = -float("inf")

cumprod = _cumulative(
    "cumprod",
    "q_j = q_(j-1) x_j, a_j = x_j, c_j = q_(j-1)",
    lambda x: lax.cumprod(x, 0),
    1.0,
    _product_step,
    _by_prefixes(jnp.prod),
    {
        "a zero": Point({"x": (2.0, 0.0, 3.0)}, {"x": (1.0, 8.0, 0.0)}),
        "two zeros": Point({"x": (2.0, 0.0, 0.0)}, {"x": (1.0, 2.0, 0.0)}),
    },
    "Nothing is divided by x, as the popular x̄ = reverse-cumsum(q ⊙ q̄) / x does: right at zeros, in linear "
    "time.",
)
cummax = _cumulative(
    "cummax",
    "q_j = max(q_(j-1), x_j), a_j = [x_j ≤ q_(j-1)], c_j = 1 - a_j",
    _running_maximum,
    _MINUS_INFINITY,
    _maximum_step,
    _by_prefixes(jnp.max),
    {
        "all equal": Point(
            {"x": 2.0},
            {"x": lambda shape: np.where(np.arange(shape[-1]) == 0, shape[-1], 0.0)},
            agrees=False,
            why=_TIED,
            smooth=False,
        )
    },
    _TIE,
    distinct=True,
)
cummin = _cumulative(
    "cummin",
    "q_j = min(q_(j-1), x_j), a_j = [x_j ≥ q_(j-1)], c_j = 1 - a_j",
    lambda x: -_running_maximum(-x),
    -_MINUS_INFINITY,
    lambda before, x, q: _maximum_step(-before, -x, -q),
    _by_prefixes(jnp.min),
    {
        "all equal": Point(
            {"x": 2.0},
            {"x": lambda shape: np.where(np.arange(shape[-1]) == 0, shape[-1], 0.0)},
            agrees=False,
            why=_TIED,
            smooth=False,
        )
    },
    _TIE.replace("cummax", "cummin"),
    distinct=True,
)
cumlogsumexp = _cumulative(
    "cumlogsumexp",
    "q_j = log(e^(q_(j-1)) + e^(x_j)), a_j = e^(q_(j-1) - q_j), c_j = e^(x_j - q_j)",
    lambda x: lax.cumlogsumexp(x, 0),
    _MINUS_INFINITY,
    _logsumexp_step,
    _by_prefixes(jax.nn.logsumexp),
    {
        "far apart": Point({"x": (1e4, -1e4, 0.0)}),
        "nothing yet": Point({"x": (_MINUS_INFINITY, 0.0, 0.0)}, agrees=False, why="autodiff gives NaN"),
        "nothing at all": Point(
            {"x": _MINUS_INFINITY}, {"x": 0.0}, agrees=False, why="autodiff gives NaN; here weights are 0"
        ),
    },
    "Every factor is at most 1: nothing overflows. Where all so far is -∞ the weights are 0.",
)
