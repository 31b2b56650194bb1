"""What rules of log-densities share: a function and its score side by side, all else is written once."""

import functools
import inspect
from collections.abc import Callable
from types import FunctionType
from typing import Any

import jax
from jax import numpy as jnp

from ..._numerics import upcast
from ..._rule import Rule
from .._checks import check_cotangent

__all__ = ["density", "ratio"]


def density(
    forward: FunctionType,
    score: Callable[..., tuple[jax.Array, ...]],
    *,
    value: str,
    scores: str,
    reference: Callable[..., Any],
    summed: bool = False,
    **definition: Any,
) -> Rule:
    """The rule of an elementwise function of several arrays of one shape, all of which it saves.

    Args:
        forward: `_<name>(*arrays) -> ℓ`, elementwise; its signature is the rule's, its docstring the
            beginning of the rule's.
        score: of the same arrays: ∂ℓ/∂a for every floating a, in order.
        value: the function as an equation.
        scores: its partial derivatives as equations.
        reference: another spelling (not summed).
        summed: whether the rule is the sum of ℓ over the last axis.
        definition: what else `Rule` takes.
    """
    name = forward.__name__.removeprefix("_")
    names = list(inspect.signature(forward).parameters)

    def fwd(*arrays: jax.Array) -> tuple[jax.Array, tuple[jax.Array, ...]]:
        dtype = next(a.dtype for a in arrays if _is_floating(a))
        out = forward(*map(_wide, arrays))
        return (out.sum(-1) if summed else out).astype(dtype), arrays

    def bwd(residuals: tuple[jax.Array, ...], out_ct: jax.Array) -> tuple[jax.Array | None, ...]:
        dtype = next(a.dtype for a in residuals if _is_floating(a))
        shape = residuals[0].shape
        check_cotangent(name, out_ct, shape[:-1] if summed else shape, dtype)
        ct = upcast(out_ct[..., None] if summed else out_ct)
        found = iter(score(*map(_wide, residuals)))
        return tuple((next(found) * ct).astype(dtype) if _is_floating(a) else None for a in residuals)

    def of_sum(*arrays: jax.Array) -> jax.Array:
        return reference(*arrays).sum(-1)

    named: Any = functools.wraps(forward)(fwd)
    named.__name__, bwd.__name__ = f"{name}_fwd", f"{name}_bwd"
    total, over = (", summed over the last axis", " Σ") if summed else ("", "")
    named.__doc__ = (
        f"{inspect.cleandoc(forward.__doc__ or '')}\n\nForward{total}:     ℓ ={over} {value}\n"
        f"Backward, each times ℓ̄:    {scores}\n\n"
        "Derivation. Elementwise: the cotangent of every argument is its partial derivative times ℓ̄.\n\n"
        f"Saves {', '.join(names)}, all alive anyway."
    )
    return Rule(
        named,
        bwd,
        reference=of_sum if summed else reference,
        formula=f"ℓ ={over} {value}; {scores}",
        saves=", ".join(names),
        **definition,
    )


def _is_floating(x: jax.Array) -> bool:
    return jnp.issubdtype(x.dtype, jnp.floating)


def _wide(x: jax.Array) -> jax.Array:
    return upcast(x) if _is_floating(x) else x


def ratio(a: jax.Array, b: jax.Array) -> jax.Array:
    """a / b, but 0 / 0 is 0: the derivative of a log b where there is nothing to take the logarithm of."""
    nothing = (a == 0) & (b == 0)
    return jnp.where(nothing, 0, a / jnp.where(nothing, 1, b))
