"""What layers check of their options, parameters and inputs."""

from typing import Any

import jax
from jax import numpy as jnp

from ._layer import PyTree

__all__ = ["check_params", "require_floating", "require_positive"]


def check_params(layer: str, params: PyTree, expected: dict[str, tuple[int | None, ...]]) -> None:
    """Raise ValueError unless params have these names and sizes; None is a size that the input decides."""
    if not isinstance(params, dict) or params.keys() != expected.keys():
        raise ValueError(
            f"{layer}: params must be a dict of {list(expected)}, got {jax.tree.structure(params)}; "
            "use what `init` returned."
        )
    for name, shape in expected.items():
        given = jnp.shape(params[name])
        if len(given) != len(shape) or any(s not in (None, g) for s, g in zip(shape, given, strict=True)):
            sizes = ", ".join("any" if s is None else str(s) for s in shape)
            raise ValueError(
                f"{layer}: parameter `{name}` has shape {given}, this layer's is ({sizes}); "
                "use what `init` returned."
            )


def require_floating(layer: str, x_spec: Any) -> None:
    """Raise TypeError unless the input is one floating array with an axis."""
    if not hasattr(x_spec, "shape") or not x_spec.shape or not jnp.issubdtype(x_spec.dtype, jnp.floating):
        raise TypeError(
            f"{layer}: the input must be one floating array with at least one axis, got {x_spec}; "
            "for integer ids put layers.embedding first."
        )


def require_positive(layer: str, option: str, value: int) -> None:
    """Raise TypeError or ValueError unless an option is a whole number above 0."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{layer}: `{option}` must be a whole number, got {value!r}.")
    if value < 1:
        raise ValueError(f"{layer}: `{option}` must be at least 1, got {value}.")
