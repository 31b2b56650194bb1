"""Which parameters are left alone."""

from collections.abc import Callable, Collection
from typing import Any

import jax

from .layers._layer import path_string

__all__ = ["Frozen", "check_frozen", "frozen_predicate"]

Frozen = Collection[str] | Callable[[str], bool]


def frozen_predicate(frozen: Frozen) -> Callable[[str], bool]:
    """Whether the parameter at a dotted path is frozen: by its name, a prefix of it, or a predicate."""
    if not isinstance(frozen, Collection):
        if not callable(frozen):
            raise TypeError(f"backprop: `frozen` must be names or a predicate on them, got {frozen!r}.")
        return frozen
    names = _names(frozen)
    return lambda path: any(path == name or path.startswith(f"{name}.") for name in names)


def check_frozen(frozen: Frozen, params: Any) -> None:
    """Raise `ValueError` for a name that is no parameter."""
    if not isinstance(frozen, Collection):
        return
    paths = [path_string(path) for path, _ in jax.tree_util.tree_flatten_with_path(params)[0]]
    for name in _names(frozen):
        if not any(map(frozen_predicate((name,)), paths)):
            raise ValueError(
                f"backprop: `frozen` names {name!r}, which is no parameter; there are {', '.join(paths)}."
            )


def _names(frozen: Collection[str]) -> tuple[str, ...]:
    return (frozen,) if isinstance(frozen, str) else tuple(frozen)
