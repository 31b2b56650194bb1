"""The reverse scan over stacked blocks, and how it lets `visit` replace a block's arrays where they are."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
from jax import lax
from jax import numpy as jnp

from ._layer import PyTree

__all__ = ["InPlace", "reverse_scan"]


@dataclass(frozen=True)
class InPlace:
    """Arrays that are given to `visit` (as its `aux_leaf`) to be replaced by what it hands back.

    A visit that is given one hands back one, with arrays of the same shapes and dtypes. Where blocks are
    stacked, each block's part is then written over the old one as soon as the block has been gone back
    through, in the stack's own buffer. What is handed back in any other way is collected beside the old.

    Attributes:
        arrays: for example a parameter and its momentum.
    """

    arrays: tuple[jax.Array, ...]


jax.tree_util.register_dataclass(InPlace, data_fields=["arrays"], meta_fields=[])


def reverse_scan(
    step: Callable[[PyTree, PyTree, PyTree, PyTree], tuple[PyTree, PyTree]],
    ct: PyTree,
    params: PyTree,
    residuals: PyTree,
    aux: PyTree,
    times: int,
) -> tuple[PyTree, PyTree]:
    """`step(ct, p, r, a) -> (ct, collected)` from the last block to the first.

    The stacks of an `InPlace` of `aux` are carried by the scan, and written one block late: what replaces a
    block's part is carried, too, and goes into the stack before the next block is read from there. So every
    read needs the write before it, and the next write needs nothing that has been read from the stack: XLA
    has no reason to copy it. Written at once, reads of the block might come after the write for all that XLA
    knows, and it copies the whole stack for every block. A parameter that is to be replaced is read from the
    carried stack by the block itself, too.

    Args:
        step: one block's backward pass.
        ct: of the last block's output.
        params: stacked.
        residuals: stacked.
        aux: None, or in the tree of `params`, stacked.
        times: the number of blocks.

    Returns:
        The first block's x_ct, and what was collected, stacked; an `InPlace` is the new stacks.
    """
    aux_leaves, aux_tree = jax.tree.flatten(aux, is_leaf=_is_in_place)
    held = [leaf for leaf in aux_leaves if _is_in_place(leaf)]
    if not held:

        def plain(ct: PyTree, each: tuple[PyTree, PyTree, PyTree]) -> tuple[PyTree, PyTree]:
            return step(ct, *each)

        return lax.scan(plain, ct, (params, residuals, aux), reverse=True, length=times)

    stacks, held_tree = jax.tree.flatten(held)
    place = {id(stack): i for i, stack in enumerate(stacks)}
    leaves, tree = jax.tree.flatten(params)
    layouts: list[Any] = []

    def body(carry: tuple[PyTree, list[jax.Array], list[jax.Array]], each: Any) -> tuple[Any, list[Any]]:
        ct, stacks, waiting = carry
        index, other_leaves, residuals, other_aux = each
        stacks = _written(stacks, waiting, jnp.minimum(index + 1, times - 1))
        now = _read(stacks, index)
        own = [now[place[id(a)]] if id(a) in place else b for a, b in zip(leaves, other_leaves, strict=True)]
        in_place = iter(jax.tree.unflatten(held_tree, now))
        given = [next(in_place) if _is_in_place(a) else b for a, b in zip(aux_leaves, other_aux, strict=True)]
        ct, collected = step(ct, tree.unflatten(own), residuals, aux_tree.unflatten(given))
        found, layout = jax.tree.flatten(collected, is_leaf=_is_in_place)
        new = [leaf for leaf in found if _is_in_place(leaf)]
        _check(held, new)
        layouts.append((layout, [_is_in_place(leaf) for leaf in found]))
        rest = [None if _is_in_place(leaf) else leaf for leaf in found]
        return (ct, stacks, jax.tree.leaves(new)), rest

    others = [None if id(a) in place else a for a in leaves]
    each = (jnp.arange(times), others, residuals, [None if _is_in_place(a) else a for a in aux_leaves])
    # Before the first block is gone back through, the last of the stack waits to be written where it is.
    start = (ct, stacks, _read(stacks, times - 1))
    (ct, stacks, waiting), collected = lax.scan(body, start, each, reverse=True)
    stacks = _written(stacks, waiting, 0)
    layout, which = layouts[-1]
    in_place = iter(jax.tree.unflatten(held_tree, stacks))
    return ct, layout.unflatten(
        [next(in_place) if replaced else a for replaced, a in zip(which, collected, strict=True)]
    )


def _read(stacks: list[jax.Array], index: Any) -> list[jax.Array]:
    return [lax.dynamic_index_in_dim(stack, index, keepdims=False) for stack in stacks]


def _written(stacks: list[jax.Array], parts: list[jax.Array], index: Any) -> list[jax.Array]:
    pairs = zip(stacks, parts, strict=True)
    return [lax.dynamic_update_index_in_dim(stack, part, index, 0) for stack, part in pairs]


def _is_in_place(leaf: Any) -> bool:
    return isinstance(leaf, InPlace)


def _check(held: list[InPlace], new: list[InPlace]) -> None:
    kinds = [
        [[(a.shape[k:], a.dtype) for a in one.arrays] for one in all_] for all_, k in ((held, 1), (new, 0))
    ]
    if kinds[0] != kinds[1]:
        raise ValueError(
            "visit: what replaces arrays in place must have their shapes and dtypes, and each parameter that "
            f"is given an InPlace must hand one back; got {kinds[1]} for {kinds[0]}."
        )
