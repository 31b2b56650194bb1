"""Residuals that are not just arrays: of equal blocks in a scan, and the context of a forward pass."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax

from ._layer import Context, PyTree

__all__ = ["Saved", "SavedContext", "once"]


@dataclass(frozen=True)
class Saved:
    """Arrays of the blocks, each of them once, and how to lay them out.

    Attributes:
        stacked: arrays of the blocks' own.
        shared: arrays that every block sees (mask, positions): not stacked.
        layout: the tree, and for each of its leaves whether it is stacked, and where.
    """

    stacked: tuple[jax.Array, ...]
    shared: tuple[jax.Array, ...]
    layout: tuple[Any, tuple[tuple[bool, int], ...]]

    @property
    def own(self) -> "Saved":
        """Without what is shared: what a scan stacks."""
        return replace(self, shared=())

    def beside(self, shared: Sequence[jax.Array]) -> "Saved":
        """With what is shared again."""
        return replace(self, shared=tuple(shared))

    def tree(self, stacked: Sequence[jax.Array]) -> PyTree:
        """The tree, with `stacked` (of all blocks, or one block's part) for the blocks' own arrays."""
        treedef, places = self.layout
        return treedef.unflatten([(stacked if own else self.shared)[i] for own, i in places])


jax.tree_util.register_dataclass(Saved, data_fields=["stacked", "shared"], meta_fields=["layout"])


def once(tree: PyTree, shared: Sequence[jax.Array]) -> Saved:
    """Each array of a tree once.

    An activation's output is a residual of it and of the layer that reads it: a scan would stack it twice.

    Raises:
        TypeError: for a leaf that is no array.
    """
    leaves, treedef = jax.tree.flatten(tree)
    seen = {id(a): (False, i) for i, a in enumerate(shared)}
    stacked: list[jax.Array] = []
    for a in leaves:
        if not isinstance(a, jax.Array):
            raise TypeError(
                f"residuals must be arrays, got {type(a).__name__}; static values go into the layer."
            )
        if id(a) not in seen:
            seen[id(a)] = (True, len(stacked))
            stacked.append(a)
    return Saved(tuple(stacked), tuple(shared), (treedef, tuple(seen[id(a)] for a in leaves)))


@dataclass(frozen=True)
class SavedContext:
    """A context as a residual, for a forward pass that is run again: its arrays, and what is static.

    Attributes:
        arrays: key, mask and positions.
        static: train and independent.
    """

    arrays: tuple[PyTree, PyTree, PyTree]
    static: tuple[bool, bool]

    @classmethod
    def of(cls, context: Context) -> "SavedContext":
        """What `context` gives back."""
        arrays = (context.key, context.mask, context.positions)
        return cls(arrays, (context.train, context.independent))

    @property
    def context(self) -> Context:
        """The context that was saved."""
        (key, mask, positions), (train, independent) = self.arrays, self.static
        return Context(key, train, mask, positions, independent)


jax.tree_util.register_dataclass(SavedContext, data_fields=["arrays"], meta_fields=["static"])
