"""What a backward function has to know of an array that it does not need."""

from dataclasses import dataclass
from typing import Any

import jax

__all__ = ["Spec"]


@jax.tree_util.register_static
@dataclass(frozen=True)
class Spec:
    """Shape and dtype of an array that is not kept: a residual without a byte."""

    shape: tuple[int, ...]
    dtype: Any

    @classmethod
    def of(cls, x: jax.Array) -> "Spec":
        """The shape and dtype of `x`."""
        return cls(x.shape, x.dtype)
