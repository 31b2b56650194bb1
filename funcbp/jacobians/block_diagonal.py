"""Block diagonal: examples that do not see each other."""

import math
from collections.abc import Callable
from typing import Any

import jax
from jax import numpy as jnp

from ._names import subscript
from ._operator import Operator, Shape, Vec, size, structure

__all__ = ["BlockDiagonal", "blocks"]


@structure("block")
class BlockDiagonal(Operator):
    """dy_n = J_n dx_n for every example n.

    Attributes:
        block: J_n, an operator whose arrays have one leading axis, n.
        batch: the leading axes of input and output, which n counts.
    """

    block: Operator
    batch: Shape

    @property
    def in_shape(self) -> Shape:
        """Shape of the input."""
        return (*self.batch, *self.block.in_shape)

    @property
    def out_shape(self) -> Shape:
        """Shape of the output."""
        return (*self.batch, *self.block.out_shape)

    @property
    def T(self) -> Operator:
        """The transposed blocks."""
        return BlockDiagonal(jax.vmap(lambda block: block.T)(self.block), self.batch)

    def push(self, x_t: jax.Array) -> jax.Array:
        """Each block on its example."""
        examples = x_t.reshape(size(self.batch), *self.block.in_shape)
        return jax.vmap(lambda block, v: block.push(v))(self.block, examples).reshape(self.out_shape)

    def pull(self, y_ct: jax.Array) -> jax.Array:
        """Each block on its example."""
        examples = y_ct.reshape(size(self.batch), *self.block.out_shape)
        return jax.vmap(lambda block, v: block.pull(v))(self.block, examples).reshape(self.in_shape)

    def show(self, vec: Vec = "columns") -> str:
        """⊕ over the examples."""
        return f"⊕{subscript(size(self.batch))}[{self.block.show(vec)}]"

    def after(self, first: Operator) -> Operator | None:
        """Block after block."""
        if not isinstance(first, BlockDiagonal) or first.batch != self.batch:
            return None
        return BlockDiagonal(jax.vmap(lambda a, b: a @ b)(self.block, first.block), self.batch)

    def plus(self, other: Operator) -> Operator | None:
        """Block plus block."""
        if not isinstance(other, BlockDiagonal) or other.batch != self.batch:
            return None
        return BlockDiagonal(jax.vmap(lambda a, b: a + b)(self.block, other.block), self.batch)

    def as_tensor(self) -> jax.Array:
        """The blocks on the diagonal of zeros."""
        count = size(self.batch)
        dense = jax.vmap(
            lambda block: block.as_tensor().reshape(size(block.out_shape), size(block.in_shape))
        )(self.block)
        placed = jnp.einsum("noi,nm->nomi", dense, jnp.eye(count, dtype=dense.dtype))
        return placed.reshape(*self.out_shape, *self.in_shape)

    def diagonal(self) -> jax.Array:
        """Those of the blocks."""
        return jax.vmap(lambda block: block.diagonal())(self.block).reshape(self.in_shape)

    def trace(self) -> jax.Array:
        """The sum of those of the blocks."""
        return jnp.sum(jax.vmap(lambda block: block.trace())(self.block))

    def logdet(self) -> jax.Array:
        """The sum of those of the blocks."""
        return jnp.sum(jax.vmap(lambda block: block.logdet())(self.block))

    def singular_values(self) -> jax.Array:
        """Those of all blocks; a block whose structure does not give them is made dense by itself."""
        found = jax.vmap(_singular_values)(self.block)
        return jnp.sort(found.ravel(), descending=True)


def blocks(batch: Shape, make: Callable[..., Operator], *arrays: Any) -> Operator:
    """`make(*arrays of one example)` for every example; the operator itself where there is but one.

    Args:
        batch: the leading axes of the arrays.
        make: from the arrays of an example to its operator.
        arrays: each with the leading axes `batch`.
    """
    if not batch:
        return make(*arrays)
    flat = [array.reshape(math.prod(batch), *array.shape[len(batch) :]) for array in arrays]
    return BlockDiagonal(jax.vmap(make)(*flat), batch)


def _singular_values(block: Operator) -> jax.Array:
    try:
        return block.singular_values()
    except ValueError:
        dense = block.as_tensor().reshape(size(block.out_shape), size(block.in_shape))
        return jnp.linalg.svdvals(dense)
