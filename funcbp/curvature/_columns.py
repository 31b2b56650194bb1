"""One forward pass, and many cotangents of its output through the backward pass, in blocks."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
from jax import lax
from jax import numpy as jnp
from jax.tree_util import GetAttrKey, KeyPath

from .._frozen import Frozen, frozen_predicate
from .._precision import Precision, upcast_tree
from .._signature import describe
from .._visits import Met, check_examples, laid_out
from ..factors import Factor
from ..layers import Context, Layer
from ..layers._layer import path_string

__all__ = ["COLUMNS", "Forwarded", "Root", "check_columns", "forwarded"]

PyTree = Any
Contract = Callable[[Factor, PyTree], PyTree]
# The name of the axis over which columns are a vmap: a contraction adds them up with lax.psum over it.
COLUMNS = "columns"


@dataclass(frozen=True)
class Root:
    """S, as columns of which each is nonzero at one value of the loss for every example.

    Values of the loss at different positions do not share outputs, but their gradients meet in the
    parameters: to be exact, each position of an example is a column of its own.

    Attributes:
        columns: `(columns, *outputs)`, for every position.
        values: the shape of the loss.
    """

    columns: jax.Array
    values: tuple[int, ...]

    @property
    def positions(self) -> int:
        """Values of one example."""
        return math.prod(self.values[1:])

    @property
    def count(self) -> int:
        """How many columns there are in all."""
        return self.columns.shape[0] * self.positions

    def column(self, k: jax.Array) -> jax.Array:
        """The k-th, `outputs`; zero from `count` on."""
        column = jnp.where(k < self.count, jnp.take(self.columns, k // self.positions, 0, mode="clip"), 0)
        if self.positions == 1:
            return column
        there = jax.nn.one_hot(k % self.positions, self.positions, dtype=column.dtype)
        return column * there.reshape(1, *self.values[1:], *(1,) * (column.ndim - len(self.values)))

    def summed(self, back: Callable[[jax.Array], PyTree], at_once: int) -> PyTree:
        """Σ back(column), for a `back` that adds the columns of the vmap up itself."""
        blocks = -(-self.count // at_once)
        length = -(-self.count // blocks)

        def block(columns: jax.Array) -> PyTree:
            return jax.vmap(back, out_axes=None, axis_name=COLUMNS)(columns)

        if blocks == 1:
            whole = self.columns
            return block(whole if self.positions == 1 else jax.vmap(self.column)(jnp.arange(self.count)))

        def step(total: PyTree, start: jax.Array) -> tuple[PyTree, None]:
            part = block(jax.vmap(self.column)(start + jnp.arange(length)))
            return jax.tree.map(jnp.add, total, part), None

        example = jax.ShapeDtypeStruct((length, *self.columns.shape[1:]), self.columns.dtype)
        zeros = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), jax.eval_shape(block, example))
        return lax.scan(step, zeros, length * jnp.arange(blocks))[0]


@dataclass(frozen=True)
class Forwarded:
    """A network after its forward pass.

    Attributes:
        network: a Layer.
        params: as given.
        computed: in the dtype that the network computes in.
        residuals: of the forward pass.
        z: the outputs, in float32 at least.
        dtypes: of the outputs as they were.
        state: the new one.
        examples: the size of the batch.
        is_frozen: which parameters take no part.
    """

    network: Layer
    params: PyTree
    computed: PyTree
    residuals: PyTree
    z: PyTree
    dtypes: PyTree
    state: PyTree
    examples: int
    is_frozen: Callable[[str], bool]

    def back(self, z_ct: PyTree, contract: Contract, name: str = "", aux: PyTree = None) -> list[PyTree]:
        """What a contraction makes of every parameter's factor; None for frozen ones.

        Args:
            z_ct: the cotangent of the outputs.
            contract: `(factor, aux_leaf) -> arrays`.
            name: how stacks are laid out: see `laid_out`.
            aux: in the tree of the parameters.
        """

        def visit(path: KeyPath, parameter: jax.Array, factor: Factor, aux_leaf: PyTree) -> Met:
            where = path_string(path)
            if self.is_frozen(where):
                return Met({name: None}, parameter.ndim)
            check_examples(where, factor, self.examples)
            return Met({name: contract(factor, aux_leaf)}, parameter.ndim)

        z_ct = jax.tree.map(lambda ct, dtype: ct.astype(dtype), z_ct, self.dtypes)
        backward = self.network.bwd(self.computed, self.residuals, z_ct, visit, aux, ())
        parameters, treedef = jax.tree.flatten(self.params)
        met = treedef.flatten_up_to(backward.collected)
        return [laid_out(m, name, p) for m, p in zip(met, parameters, strict=True)]

    def tree(self, leaves: list[PyTree], zero: bool = False) -> PyTree:
        """In the tree of the parameters; with `zero` in place of None."""
        parameters, treedef = jax.tree.flatten(self.params)
        if zero:
            pairs = zip(leaves, upcast_tree(parameters), strict=True)
            leaves = [jnp.zeros_like(p) if leaf is None else leaf for leaf, p in pairs]
        return treedef.unflatten(leaves)

    def factors(self, columns: jax.Array) -> tuple[list[Factor | None], list[PyTree]]:
        """Every parameter's factor for every column, and the axes of the columns in them.

        Only δ's have that axis, the first; what met them is the same for all columns, and kept once.
        """

        def back(z_ct: jax.Array) -> list[PyTree]:
            return self.back(z_ct, lambda factor, _: factor, "factors")

        one = jax.eval_shape(back, columns[0])
        axes = jax.tree_util.tree_map_with_path(
            lambda path, _: 0 if GetAttrKey("delta") in path else None, one
        )
        return jax.vmap(back, out_axes=axes)(columns), axes


def forwarded(
    network: Layer,
    params: PyTree,
    x: PyTree,
    state: PyTree,
    context: Context,
    *,
    frozen: Frozen,
    precision: Precision,
) -> Forwarded:
    """The forward pass, for examples that are independent of one another."""
    computed = precision.cast(params)
    context = context._replace(independent=True)
    forward = network.fwd(computed, state, precision.cast(x), context)
    return Forwarded(
        network,
        params,
        computed,
        forward.residuals,
        upcast_tree(forward.y),
        jax.tree.map(lambda a: a.dtype, forward.y),
        forward.state,
        jax.tree.leaves(x)[0].shape[0],
        frozen_predicate(frozen),
    )


def check_columns(at_once: Any, samples: Any = None) -> None:
    """Raise for what are no numbers of columns."""
    for name, number in (("at_once", at_once), ("samples", 1 if samples is None else samples)):
        if not isinstance(number, int) or number < 1:
            raise ValueError(f"curvature: `{name}` must be a whole number from 1 on, got {describe(number)}.")
