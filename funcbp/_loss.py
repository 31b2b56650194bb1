"""What a loss may be: a Rule of (outputs, targets), or a pair (value per example, its derivative)."""

import functools
from collections.abc import Callable
from typing import Any

import jax
from jax import numpy as jnp

from ._rule import Rule
from ._signature import describe

__all__ = ["Loss", "LossLike", "as_loss"]

PyTree = Any
Pair = tuple[Callable[[Any, Any], jax.Array], Callable[[Any, Any], Any]]
LossLike = Rule | functools.partial | Pair

# (outputs, targets) -> (values, pullback); the pullback maps the values' cotangent to that of the outputs.
Loss = Callable[[PyTree, PyTree], tuple[jax.Array, Callable[[jax.Array], PyTree]]]


def as_loss(loss: LossLike) -> Loss:
    """The one form that the sweep uses, from whatever the user gave.

    Raises:
        TypeError: for anything that does not come with a hand-derived derivative.
    """
    rule, static = (loss.func, loss.keywords) if isinstance(loss, functools.partial) else (loss, {})
    if isinstance(loss, functools.partial) and loss.args:
        raise TypeError(
            f"loss: a partial of a Rule may fix static options by name, not arrays; got {loss!r}."
        )
    if isinstance(rule, Rule):
        return functools.partial(_from_rule, rule, static)
    if isinstance(loss, tuple) and len(loss) == 2 and all(map(callable, loss)):
        return functools.partial(_from_pair, loss)
    raise TypeError(
        "loss: must be a Rule of (outputs, targets), such as funcbp.rules.softmax_cross_entropy, or a pair "
        "(value(outputs, targets) -> one value per example, derivative(outputs, targets) -> its derivative); "
        f"got {loss!r}. "
        "For a plain JAX function f(output, target) of one example give (jax.vmap(f), jax.vmap(jax.grad(f)))."
    )


def _from_rule(
    rule: Rule, static: dict[str, Any], z: PyTree, y: PyTree
) -> tuple[jax.Array, Callable[..., PyTree]]:
    values, residuals = rule.fwd(z, y, **static)
    return values, lambda ct: rule.bwd(residuals, ct, **static)[0]


def _from_pair(pair: Pair, z: PyTree, y: PyTree) -> tuple[jax.Array, Callable[..., PyTree]]:
    value, derivative = pair
    values = value(z, y)
    slopes = derivative(z, y)
    if jax.tree.structure(slopes) != jax.tree.structure(z):
        raise ValueError(
            f"loss: the derivative has the tree {jax.tree.structure(slopes)}, "
            f"the outputs {jax.tree.structure(z)}."
        )
    for a, b in zip(jax.tree.leaves(slopes), jax.tree.leaves(z), strict=True):
        if jnp.shape(a) != jnp.shape(b):
            raise ValueError(
                f"loss: the derivative is {describe(a)}, the outputs {describe(b)}; shapes must be equal."
            )

    def pullback(ct: jax.Array) -> PyTree:
        return jax.tree.map(lambda s: s * ct.reshape(*ct.shape, *(1,) * (jnp.ndim(s) - ct.ndim)), slopes)

    return values, pullback
