"""What identifies a contraction, whatever the order of its factors and the names of its summed indices."""

import hashlib
from collections.abc import Sequence

from ._nodes import Node
from ._scalars import Scalar

__all__ = ["contraction_key"]


def contraction_key(
    coefficient: Scalar, nodes: Sequence[Node], indices: Sequence[tuple[int, ...]], out: Sequence[int]
) -> tuple[object, ...]:
    """The same for contractions that differ in the order of factors and the names of summed indices."""
    colors: dict[int, object] = {k: k if k < len(out) else -1 for ks in indices for k in ks}
    for _ in range(3 if len(nodes) > 1 else 1):
        seen: dict[int, list[object]] = {k: [] for k in colors}
        for node, ks in zip(nodes, indices, strict=True):
            around = tuple(str(colors[k]) for k in ks)
            for axis, k in enumerate(ks):
                seen[k].append((node.digest, axis, around))
        colors = {k: k if k < len(out) else _color(sorted(map(repr, seen[k]))) for k in colors}
    order = sorted(range(len(nodes)), key=lambda f: (nodes[f].digest, [str(colors[k]) for k in indices[f]]))
    names: dict[int, int] = {k: k for k in out}
    for f in order:
        for k in indices[f]:
            names.setdefault(k, len(names))
    return (coefficient, tuple((nodes[f], tuple(names[k] for k in indices[f])) for f in order))


def _color(parts: Sequence[str]) -> str:
    """A short name for a color, the same in every process."""
    return hashlib.blake2b("|".join(parts).encode(), digest_size=8).hexdigest()
