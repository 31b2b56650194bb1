"""`clipped_grad` of a loss that anyone wrote."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
from jax import numpy as jnp

from .._clipping import ClippingRule, Coefficients, Per, check_clipping, weighted_sums
from .._frozen import Frozen
from .._numerics import upcast
from .._sweep import Reduction
from ..factors.total import compact
from ._per_example import InAxes, check_reduction, program
from ._sweep import Fallback

__all__ = ["Clipped", "clipped_grad"]

PyTree = Any


class Clipped(NamedTuple):
    """The result of `clipped_grad`.

    Attributes:
        value: the reduced loss, which is not clipped.
        grads: Σ c_n g_n, over the number of examples for a mean, with the tree and dtypes of `params`; None
            where there is no parameter.
        norms: ‖g_n‖, `(batch,)`; for several groups of parameters a dict of them by the group's name.
        coefficients: c_n, likewise.
        per_example: the loss of each example, `(batch,)`.
        fallback: as in `PerExample`.
    """

    value: jax.Array
    grads: PyTree
    norms: Any
    coefficients: Any
    per_example: jax.Array
    fallback: tuple[Fallback, ...] = ()


def clipped_grad(
    loss_fn: Callable[..., jax.Array],
    *,
    max_norm: float | Mapping[str, float] | None = None,
    coefficients: Coefficients | None = None,
    per: Per = "network",
    in_axes: InAxes = 0,
    reduction: Reduction = "sum",
    frozen: Frozen = (),
    strict: bool = False,
) -> Callable[..., Clipped]:
    """Σ_n c_n g_n of a loss of one example, with coefficients c_n that depend on ‖g_n‖, in one sweep.

    As `funcbp.clipped_grad`, for a loss as `per_example` takes it.

    Args:
        loss_fn: `(params, *example) -> scalar`.
        max_norm: C in c_n = min(1, C / ‖g_n‖), or a mapping from prefixes of dotted paths to C's.
        coefficients: ‖g‖ → c, elementwise, in place of `max_norm`.
        per: clip by the norm over "network", or over every "layer" or "parameter", each of L by C / √L. A
            stack that is scanned over is one parameter.
        in_axes: as for `per_example`.
        reduction: "sum", or "mean" to divide value and sum by the number of examples.
        frozen: as for `per_example`; frozen parameters take no part in norms, and have gradient 0.
        strict: as for `per_example`.

    Returns:
        `(params, *examples) -> Clipped`, a pure function.

    Raises:
        TypeError, ValueError: for options that do not fit each other, the parameters or the arguments.

    >>> def loss(w, x):
    ...     return (w @ x) ** 2 / 2
    >>> result = clipped_grad(loss, max_norm=2.0)(jnp.ones(1), jnp.array([[1.0], [3.0]]))
    >>> result.norms.tolist(), result.grads.tolist()
    ([1.0, 9.0], [3.0])
    """
    rule = ClippingRule(max_norm, coefficients, per)
    check_clipping(rule)
    check_reduction("clipped_grad", reduction)

    def clipped(params: PyTree, *examples: PyTree) -> Clipped:
        run = program("clipped_grad", loss_fn, params, examples, in_axes, frozen, strict)
        losses, factors = run.factors(run.mapped)
        own, batch = run.parameters, losses.shape[0]
        factors = [compact(factor) for factor in factors]
        squares = [factor.squared_norms() for factor in factors]
        groups = [rule.group(own.names[k]) for k in own.free]
        norms, scales, sums = weighted_sums(rule, groups, squares, factors, batch)
        total = batch if reduction == "mean" else 1
        grads = jax.tree.map(lambda g: g / total, sums)
        value = jnp.sum(upcast(losses)) / total
        return Clipped(value, own.gradients(grads), norms, scales, losses, run.fallback)

    return clipped
