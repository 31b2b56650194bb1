"""Reductions along an axis."""

import functools
import operator
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
from .._specs import Spec
from ._linear import linear

X = Float[Array, "*shape"]
Reduced = Float[Array, "*reduced"]


def _widened(ct: jax.Array, axis: int, keepdims: bool) -> jax.Array:
    return upcast(ct if keepdims else jnp.expand_dims(ct, axis))


def _sum(x: X, *, axis: int = -1, keepdims: bool = False) -> Reduced:
    """Sum along `axis`, as `jnp.sum`."""
    return jnp.sum(upcast(x), axis, keepdims=keepdims)


def _to_everyone(q_ct: Reduced, x: Spec, axis: int, keepdims: bool) -> jax.Array:
    return jnp.broadcast_to(_widened(q_ct, axis, keepdims), x.shape)


sum = linear(
    _sum,
    _to_everyone,
    y="q = Σ x_i",
    x_ct="x̄_i = q̄",
    because="⟨q̄, Σ dx_i⟩ = Σ ⟨q̄, dx_i⟩",
    reference=lambda x, axis=-1, keepdims=False: _by_product(x, axis, keepdims, 1.0),
    domain={"x": Normal()},
    settings=({"axis": 0}, {"keepdims": True}),
)


def _by_product(x: jax.Array, axis: int, keepdims: bool, weight: float) -> jax.Array:
    total = jnp.tensordot(x, jnp.full(x.shape[axis], weight, x.dtype), (axis, 0))
    return jnp.expand_dims(total, axis) if keepdims else total


def _mean(x: X, *, axis: int = -1, keepdims: bool = False) -> Reduced:
    """Mean along `axis`, as `jnp.mean`."""
    return jnp.mean(upcast(x), axis, keepdims=keepdims)


def _share_to_everyone(q_ct: Reduced, x: Spec, axis: int, keepdims: bool) -> jax.Array:
    return _to_everyone(q_ct, x, axis, keepdims) / x.shape[axis]


mean = linear(
    _mean,
    _share_to_everyone,
    y="q = 1/n Σ x_i",
    x_ct="x̄_i = q̄ / n",
    because="as of a sum, with the same 1/n",
    reference=lambda x, axis=-1, keepdims=False: _by_product(x, axis, keepdims, 1 / x.shape[axis]),
    domain={"x": Normal()},
    settings=({"axis": 0}, {"keepdims": True}),
)


def prod_fwd(x: X, *, axis: int = -1, keepdims: bool = False) -> tuple[Reduced, X]:
    """Product along `axis`, as `jnp.prod`.

    Forward:     q = Π x_i
    Backward:    x̄_i = q̄ (Π_(j<i) x_j) (Π_(j>i) x_j)

    Derivation. dq = Σ_i (Π_(j≠i) x_j) dx_i. The product without x_i is that of what is before and of what is
    after it: right at zeros, where q / x_i is not, and linear in time.

    Saves x, alive anyway. Meanwhile the backward pass holds the products before and after, two arrays like x:
    less to save and more to hold than multiplying one by one, whose partial products autodiff saves.
    """
    return jnp.prod(upcast(x), axis, keepdims=keepdims).astype(x.dtype), x


def prod_bwd(residuals: X, q_ct: Reduced, *, axis: int = -1, keepdims: bool = False) -> tuple[X]:
    """x̄_i = q̄ (Π_(j<i) x_j) (Π_(j>i) x_j)."""
    _check("prod", residuals, q_ct, axis, keepdims)
    x = jnp.moveaxis(upcast(residuals), axis, 0)
    one = jnp.ones_like(x[:1])
    before = lax.cumprod(jnp.concatenate([one, x[:-1]]), 0)
    after = lax.cumprod(jnp.concatenate([x[1:], one]), 0, reverse=True)
    others = jnp.moveaxis(before * after, 0, axis)
    return ((_widened(q_ct, axis, keepdims) * others).astype(residuals.dtype),)


def _check(name: str, x: jax.Array, q_ct: jax.Array, axis: int, keepdims: bool) -> None:
    shape = list(x.shape)
    shape[axis : axis % x.ndim + 1] = [1] if keepdims else []
    check_cotangent(name, q_ct, tuple(shape), x.dtype)


def _one_by_one(x: X, axis: int = -1, keepdims: bool = False) -> Reduced:
    product = functools.reduce(operator.mul, jnp.moveaxis(x, axis, 0), jnp.ones((), x.dtype))
    return jnp.expand_dims(product, axis) if keepdims else product


prod = Rule(
    prod_fwd,
    prod_bwd,
    reference=_one_by_one,
    domain={"x": Normal()},
    points={
        "a zero": Point({"x": (0.0, 2.0, 3.0)}, {"x": (6.0, 0.0, 0.0)}),
        "two zeros": Point({"x": (0.0, 0.0, 3.0)}, {"x": 0.0}),
    },
    settings=({"axis": 0}, {"keepdims": True}),
    formula="q = Π x_i; x̄_i = q̄ Π_(j≠i) x_j",
    saves="x",
)


def _extremum(name: str, reduce: Callable[..., jax.Array]) -> Rule:
    """The rule of a maximum or a minimum."""

    def fwd(x: X, *, axis: int = -1, keepdims: bool = False) -> tuple[Reduced, tuple[X, Reduced]]:
        q = reduce(x, axis=axis, keepdims=keepdims)
        return q, (x, q)

    def bwd(
        residuals: tuple[X, Reduced], q_ct: Reduced, *, axis: int = -1, keepdims: bool = False
    ) -> tuple[X]:
        x, q = residuals
        check_cotangent(name, q_ct, q.shape, q.dtype)
        attained = x == _widened(q, axis, keepdims).astype(x.dtype)
        share = _widened(q_ct, axis, keepdims) / jnp.sum(attained, axis, keepdims=True)
        return (jnp.where(attained, share, 0).astype(x.dtype),)

    fwd.__name__, bwd.__name__ = f"{name}_fwd", f"{name}_bwd"
    fwd.__doc__ = f"""The {name}imum along `axis`, as `jnp.{name}`.

    Forward:     q = {name} x_i
    Backward:    x̄_i = [x_i = q] q̄ / k      with k the number of elements that attain it

    Derivation. Where one element attains it, q moves with that one. At a tie each of k takes 1/k, as in
    jnp: that depends on no order of the elements. (The first one alone would be another subgradient; the mask
    without the 1/k, which is often seen, is none.)

    Saves x and q, both alive anyway.
    """
    return Rule(
        fwd,
        bwd,
        reference=lambda x, axis=-1, keepdims=False: reduce(x, axis, keepdims=keepdims),
        domain={"x": Distinct()},
        points={
            "all equal": Point({"x": 2.0}, {"x": lambda shape: 1 / shape[-1] * np.ones(shape)}, smooth=False),
        },
        settings=({"axis": 0}, {"keepdims": True}),
        formula=f"q = {name} x_i; x̄_i = [x_i = q] q̄ / k",
        saves="x, q",
    )


max = _extremum("max", jnp.max)
min = _extremum("min", jnp.min)
