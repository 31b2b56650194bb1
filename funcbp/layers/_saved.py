"""Residuals of equal blocks in a scan: every array once, and what all blocks see not stacked."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax

from ._layer import PyTree

__all__ = ["Saved", "once"]


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
