"""What `chain` and `parallel` share: layers by position or by name, and the trees that go with them."""

from collections.abc import Sequence
from typing import Any

import jax
from jax.tree_util import DictKey, SequenceKey

from ._layer import Layer, PyTree, require_layer

__all__ = ["Members"]


class Members:
    """Layers by position, whose trees are tuples, or by name, whose trees are dicts."""

    def __init__(self, kind: str, layers: tuple[Layer, ...], named: dict[str, Layer]) -> None:
        if bool(layers) == bool(named):
            raise TypeError(f"{kind}: give layers either by position or by name, and at least one.")
        self.kind, self.named = kind, bool(named)
        self.names: tuple[Any, ...] = tuple(named) if named else tuple(range(len(layers)))
        self.layers = tuple(named.values()) if named else layers
        for name, layer in zip(self.names, self.layers, strict=True):
            require_layer(f"{kind}: layer `{name}`", layer)
        self.keys = [DictKey(n) if named else SequenceKey(n) for n in self.names]
        self.places = [f"`{n}` of a {kind} of {len(self.layers)}" for n in self.names]

    def build(self, values: Sequence[PyTree]) -> PyTree:
        """The tuple or dict of one value a layer."""
        return dict(zip(self.names, values, strict=True)) if self.named else tuple(values)

    def split(self, tree: PyTree, what: str) -> list[PyTree]:
        """The value of every layer; `ValueError` for a tree that is not of these layers."""
        if self.named:
            fits = isinstance(tree, dict) and tree.keys() == set(self.names)
        else:
            fits = isinstance(tree, tuple) and len(tree) == len(self.names)
        if not fits:
            raise ValueError(
                f"{self.kind}: {what} must be a {'dict' if self.named else 'tuple'} with one entry a layer, "
                f"for {list(self.names)}, got {jax.tree.structure(tree)}; use what `init` returned."
            )
        return [tree[n] for n in self.names]

    def build_state(self, states: Sequence[PyTree]) -> PyTree:
        """The states together; `()` if no layer has one."""
        return self.build(states) if jax.tree.leaves(states) else ()

    def split_state(self, state: PyTree) -> list[PyTree]:
        """The state of every layer; `()` is that of layers without."""
        no_state = isinstance(state, tuple) and not state
        return [()] * len(self.layers) if no_state else self.split(state, "state")

    def split_aux(self, aux: PyTree) -> list[PyTree]:
        """The `aux` of every layer; None is that of all."""
        return [None] * len(self.layers) if aux is None else self.split(aux, "aux")
