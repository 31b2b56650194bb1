"""Arguments that are trees of arrays: what their leaves are called, and the way there and back."""

import inspect
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax

__all__ = ["Trees", "trees_of"]


@dataclass(frozen=True)
class Trees:
    """The arguments as the user writes them, and their leaves.

    Attributes:
        arguments: names of the arguments.
        structures: of the arguments that are trees, by name.
        leaves: by name of an argument, the names of its leaves; its own for an array.
        paths: by name of a leaf, how it is written, as `params['w']`; of an array its name.
    """

    arguments: tuple[str, ...]
    structures: Mapping[str, Any]
    leaves: Mapping[str, tuple[str, ...]]
    paths: Mapping[str, str]

    @property
    def names(self) -> list[str]:
        """The names of all leaves, in the order of the arguments."""
        return [name for argument in self.arguments for name in self.leaves[argument]]

    def packed(self, values: Sequence[Any]) -> list[Any]:
        """The arguments from the values of all leaves."""
        given = iter(values)
        return [
            jax.tree.unflatten(self.structures[a], [next(given) for _ in self.leaves[a]])
            if a in self.structures
            else next(given)
            for a in self.arguments
        ]

    def flat(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function of the leaves."""
        if not self.structures:
            return function
        return lambda *values: function(*self.packed(values))

    def chosen(self, wanted: Sequence[str]) -> list[str]:
        """The leaves meant by names of arguments, names of leaves, or paths; others as they are."""
        by_path = {path: name for name, path in self.paths.items()}
        found: list[str] = []
        for name in wanted:
            found += self.leaves.get(name, (by_path.get(name, name),))
        return list(dict.fromkeys(found))

    def by_leaf(self, gradients: Mapping[str, Any]) -> dict[str, Any]:
        """Gradients by name of a leaf, from what the generated function returns."""
        found: dict[str, Any] = {}
        for argument, names in self.leaves.items():
            if argument in gradients:
                found |= dict(zip(names, jax.tree.leaves(gradients[argument]), strict=True))
            found |= {n: gradients[self.paths[n]] for n in names if self.paths[n] in gradients}
        return found


def trees_of(
    function: Callable[..., Any], values: Sequence[Any], names: Sequence[str] | None
) -> tuple[Trees, list[Any]]:
    """The names of the arguments and of their leaves, and the values of these.

    A leaf is called by the last key of its path where no other leaf is, with the indices on its way where
    that tells them apart: w of params['w'], w0 of params[0]['w']; else by its whole path.

    Raises:
        TypeError: for too few names.
    """
    names = list(names) if names is not None else _parameter_names(function, len(values))
    if len(names) != len(values) or len(set(names)) != len(names):
        raise TypeError(f"derive: {len(values)} arguments need as many different names, got {names}")
    structures, leaves, flat = {}, [], []
    for name, value in zip(names, values, strict=True):
        entries, structure = jax.tree_util.tree_flatten_with_path(value)
        if not jax.tree_util.treedef_is_leaf(structure):
            structures[name] = structure
        leaves += [(name, path) for path, _ in entries]
        flat += [leaf for _, leaf in entries]
    short = [_short(name, path) for name, path in leaves]
    counts = Counter(short)
    called: dict[str, list[str]] = {name: [] for name in names}
    paths: dict[str, str] = {}
    for (argument, path), candidate in zip(leaves, short, strict=True):
        name = argument if not path else candidate
        if path and (counts[candidate] > 1 or candidate in names or not candidate.isidentifier()):
            name = _long(argument, path)
        while name in paths:
            name += "_"
        called[argument].append(name)
        paths[name] = argument + jax.tree_util.keystr(path)
    return Trees(tuple(names), structures, {a: tuple(n) for a, n in called.items()}, paths), flat


def _keys(path: Sequence[Any]) -> list[Any]:
    """The keys of a path: of dictionaries, attributes, positions."""
    return [
        next((v for a in ("key", "name", "idx") if (v := getattr(k, a, None)) is not None), k) for k in path
    ]


def _short(argument: str, path: Sequence[Any]) -> str:
    keys = _keys(path)
    words = [str(k) for k in keys if isinstance(k, str)]
    return (words or [argument])[-1] + "_".join(str(k) for k in keys if isinstance(k, int))


def _long(argument: str, path: Sequence[Any]) -> str:
    text = "_".join([argument, *map(str, _keys(path))])
    return "".join(c if c.isalnum() or c == "_" else "_" for c in text)


def _parameter_names(function: Callable[..., Any], count: int) -> list[str]:
    parameters = list(inspect.signature(function).parameters.values())
    names = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if any(p.kind == p.VAR_POSITIONAL for p in parameters):
        names += [f"x{k}" for k in range(count - len(names))]
    return names[:count]
