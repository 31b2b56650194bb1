"""What every factor can do."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, TypeVar, dataclass_transform

import jax
from jax.typing import DTypeLike

__all__ = ["Factor", "contract", "factor"]

C = TypeVar("C", bound=type)


class Factor:
    """The gradient of one parameter as the pair that it is a contraction of."""

    def gradient(self) -> jax.Array:
        """The sum over all examples and positions: the gradient, in float32 at least."""
        raise NotImplementedError


@dataclass_transform(frozen_default=True)
def factor(*static: str) -> Callable[[C], C]:
    """Register a frozen dataclass as a pytree; fields named in `static` are sizes, fixed at trace time."""

    def register(cls: C) -> C:
        cls = dataclass(frozen=True)(cls)
        data = [f.name for f in fields(cls) if f.name not in static]
        return jax.tree_util.register_dataclass(cls, data_fields=data, meta_fields=list(static))

    return register


def contract(cotangent: Any, dtype: DTypeLike) -> Any:
    """A factor's gradient in `dtype`; anything else (an array, None) as it is.

    >>> from jax import numpy as jnp
    >>> contract(Factor, jnp.float32) is Factor, contract(None, jnp.float32) is None
    (True, True)
    """
    return cotangent.gradient().astype(dtype) if isinstance(cotangent, Factor) else cotangent
