"""What is collected where a parameter meets its δ, inside the sweep, and how it is laid out afterwards."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import jax
from jax import numpy as jnp
from jax.tree_util import KeyPath

from ._numerics import upcast
from ._signature import describe
from .factors import Factor, Stacked
from .factors.total import compact
from .layers._layer import Visit, path_string

__all__ = ["PER_EXAMPLE", "Met", "check_examples", "gradient_of", "laid_out", "visitor"]

PyTree = Any

# Contractions of the gradients of single examples, by the name that `collect` gives them.
_CONTRACTIONS: dict[str, Callable[[Factor], Any]] = {
    "squared_norms": lambda factor: factor.squared_norms(),
    "second_moment": lambda factor: factor.second_moment(),
    "per_example_grads": lambda factor: factor.per_example(),
    "gram": lambda factor: factor.gram(),
    "kronecker": lambda factor: factor.kronecker(),
    "factors": lambda factor: factor,
    "compact factors": lambda factor: factor,
}
PER_EXAMPLE = (*(name for name in _CONTRACTIONS if name != "compact factors"), "norms")


@dataclass(frozen=True)
class Met:
    """What was collected at one parameter, by name; a scan over blocks stacks it.

    Attributes:
        values: by name.
        ndim: number of axes that the parameter had there; more axes afterwards are those of stacks.
    """

    values: dict[str, Any]
    ndim: int


jax.tree_util.register_dataclass(Met, data_fields=["values"], meta_fields=["ndim"])


def visitor(
    names: Collection[str],
    is_frozen: Callable[[str], bool],
    visit: Visit | None,
    examples: int,
    total: jax.Array | None,
) -> Visit:
    """The visit that collects `names`: "grads", and any of `PER_EXAMPLE`.

    Args:
        names: what to collect; "compact factors" for what is smaller, the factors or the gradients.
        is_frozen: whether the parameter at a dotted path takes no part: its gradient is 0, all else None.
        visit: the user's own.
        examples: size of the batch.
        total: what the δ's of the sweep have been divided by, if by anything; those of each example's own
            loss are not.
    """
    names = {"squared_norms" if name == "norms" else name for name in names}
    wanted = {name: contract for name, contract in _CONTRACTIONS.items() if name in names}

    def collect(path: KeyPath, parameter: jax.Array, factor: Factor, aux_leaf: PyTree) -> Met:
        where = path_string(path)
        if not isinstance(factor, Factor):
            raise TypeError(
                f"backprop: the pullback must give a Factor for `{where or 'params'}`, got "
                f"{type(factor).__name__}; see funcbp.factors."
            )
        frozen = is_frozen(where)
        values = {"visit": None if visit is None else visit(path, parameter, factor, aux_leaf)}
        if "grads" in names:
            zero = jnp.zeros(parameter.shape, upcast(parameter).dtype)
            values["grads"] = zero if frozen else gradient_of(where, parameter, factor)
        if wanted and not frozen:
            check_examples(where, factor, examples)
            own = factor if total is None else factor.scaled(total)
            own = compact(own) if "compact factors" in names else own
            values |= {name: contract(own) for name, contract in wanted.items()}
        return Met(values | dict.fromkeys(wanted.keys() - values.keys()), parameter.ndim)

    return collect


def laid_out(met: Met, name: str, parameter: jax.Array) -> PyTree:
    """What was collected under a name; per-example arrays with the example first, then axes of stacks."""
    value, depth = met.values[name], parameter.ndim - met.ndim
    if value is None:
        return None
    if name in ("squared_norms", "per_example_grads"):
        return jnp.moveaxis(value, depth, 0)
    if name == "gram":
        return jnp.sum(value, tuple(range(depth)))
    if name in ("factors", "compact factors"):
        for _ in range(depth):
            value = Stacked(value)
    return value


def gradient_of(where: str, parameter: jax.Array, factor: Factor) -> jax.Array:
    gradient = factor.gradient()
    if gradient.shape != parameter.shape:
        raise ValueError(
            f"backprop: the gradient of `{where}` is {describe(gradient)}, the parameter "
            f"{describe(parameter)}; its layer's factor does not fit (an axis count, a size)."
        )
    return upcast(gradient)


def check_examples(where: str, factor: Factor, examples: int) -> None:
    """Raise for a factor whose first axis is not that of the batch's examples."""
    if (own := factor.examples()) != examples:
        raise ValueError(
            f"backprop: the factor of `{where}` has {own} on its first axis, the batch {examples} examples; "
            "for what is per example a layer must keep the batch as the first axis of its factors."
        )
