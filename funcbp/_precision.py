"""What a network computes in."""

import contextlib
from dataclasses import dataclass
from typing import Any

import jax
from jax import numpy as jnp
from jax.typing import DTypeLike

from ._numerics import upcast

__all__ = ["Precision", "upcast_tree"]

PyTree = Any


@dataclass(frozen=True)
class Precision:
    """What a network computes in; parameters and their gradients keep the parameters' own dtype.

    Attributes:
        compute: dtype of parameters and floating inputs inside the network (`"bfloat16"`); None: as they
            come. Losses, statistics and every accumulation are in float32 at least, so float32 parameters get
            float32 gradients.
        matmul: `jax.default_matmul_precision` for the products (`"highest"` for reference quality); None:
            JAX's default.
    """

    compute: DTypeLike | None = None
    matmul: str | None = None

    def __post_init__(self) -> None:
        try:
            floating = self.compute is None or jnp.issubdtype(jnp.dtype(self.compute), jnp.floating)
        except TypeError:
            floating = False
        if not floating:
            raise ValueError(f"Precision: `compute` must be a floating dtype, got {self.compute!r}.")
        if self.compute is not None and jnp.dtype(self.compute) == jnp.float16:
            raise ValueError(
                "Precision: float16 cannot hold the δ's of a mean over many examples (what is below 6e-8 is "
                "zero); use bfloat16."
            )
        try:
            with self.products():
                pass
        except ValueError as error:
            raise ValueError(f"Precision: `matmul` is {self.matmul!r}; {error}") from None

    def cast(self, tree: PyTree) -> PyTree:
        """Floating leaves in the compute dtype; others as they are."""
        if self.compute is None:
            return tree
        return _floating(lambda a: a.astype(self.compute), tree)

    def products(self) -> contextlib.AbstractContextManager[Any]:
        """A context in which products have the precision asked for."""
        return contextlib.nullcontext() if self.matmul is None else jax.default_matmul_precision(self.matmul)


def upcast_tree(tree: PyTree) -> PyTree:
    """Floating leaves in float32 at least; others as they are."""
    return _floating(upcast, tree)


def _floating(change: Any, tree: PyTree) -> PyTree:
    return jax.tree.map(lambda a: change(a) if jnp.issubdtype(a.dtype, jnp.floating) else a, tree)
