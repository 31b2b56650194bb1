"""The arguments of `derive`: their names, shapes and dimensions."""

import string
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax import export

from ._scalars import Dimension, scalar_of_dimension

__all__ = ["Argument", "arguments_of", "example_sizes", "symbolic_specs"]

_LETTERS = ["m", "n", "k", "d", "h", "r", "s", "t"] + [
    c for c in string.ascii_lowercase if c not in "mnkdhrstlioep"
]


class Argument:
    """One argument: its name, its size now, and its dimensions by name.

    Attributes:
        name: of the parameter.
        array: the values, if they were given.
        shape: sizes; for a spec with symbolic sizes the examples chosen for them.
        dims: the dimensions by name; 1 stays 1.
        dtype: as given.
    """

    def __init__(self, name: str, value: Any, shape: tuple[int, ...]) -> None:
        self.name, self.shape, self.dims = name, shape, tuple(shape)
        self.dtype = np.dtype(value.dtype)
        self.array = None if isinstance(value, jax.ShapeDtypeStruct) else np.asarray(value)
        self.dims: tuple[Dimension, ...] = tuple(shape)

    @property
    def floating(self) -> bool:
        """Whether it can be differentiated."""
        return self.dtype.kind == "f" or "float" in self.dtype.name

    def spec(self, shape: Sequence[Any]) -> jax.ShapeDtypeStruct:
        """Its shape and dtype for tracing, in float64."""
        return jax.ShapeDtypeStruct(tuple(shape), np.float64 if self.floating else self.dtype)


def arguments_of(
    values: Sequence[Any],
    names: Sequence[str],
    dims: Mapping[str, str | Sequence[str]] | None = None,
    paths: Mapping[str, str] | None = None,
) -> list[Argument]:
    """Name the arguments and their dimensions.

    Sizes that are equal are one dimension, unless `dims` says otherwise. A size of 1 stays 1. `paths` is how
    errors name them.

    Raises:
        TypeError: for an argument that is no array of real numbers.
        ValueError: for names of dimensions that do not fit.
    """
    for name in names:
        if not name.isidentifier():
            raise TypeError(f"derive: the name {name!r} is not a Python identifier")
    out, given = [], {}
    for name, value in zip(names, values, strict=True):
        value = _array((paths or {}).get(name, name), value)
        out.append(Argument(name, value, tuple(_example(d, given) for d in value.shape)))
        out[-1].dims = tuple(d if isinstance(d, (int, np.integer)) else str(d) for d in value.shape)
    _name_dimensions(out, dims or {})
    return out


def _array(name: str, value: Any) -> Any:
    if isinstance(value, (int, float)):
        return np.asarray(float(value))
    if not hasattr(value, "shape") or not hasattr(value, "dtype"):
        raise TypeError(
            f"derive: argument `{name}` is a {type(value).__name__}; pass an array or a jax.ShapeDtypeStruct"
        )
    if np.issubdtype(value.dtype, np.complexfloating):
        raise TypeError(
            f"derive: argument `{name}` is complex ({value.dtype}); only functions of real arrays are "
            "derived: pass its real and its imaginary part as two arguments"
        )
    if 0 in value.shape:
        raise ValueError(f"derive: argument `{name}` has shape {value.shape}, with nothing in it")
    return value


def _example(size: Any, given: dict[str, int]) -> int:
    if isinstance(size, (int, np.integer)):
        return int(size)
    return given.setdefault(str(size), 3 + len(given))


def _name_dimensions(arguments: Sequence[Argument], dims: Mapping[str, str | Sequence[str]]) -> None:
    by_size: dict[int, str] = {}
    sizes: dict[str, int] = {}
    taken = {a.name for a in arguments} | {d for a in arguments for d in a.dims if isinstance(d, str)}
    for name in dims:
        if name not in {a.name for a in arguments}:
            raise ValueError(f"derive: dims names {name!r}, the arguments are {[a.name for a in arguments]}")
    for argument in arguments:
        if argument.name in dims:
            spelled = dims[argument.name]
            parts = spelled.replace(",", " ").split() if isinstance(spelled, str) else list(spelled)
            if len(parts) != len(argument.shape):
                raise ValueError(
                    f"derive: dims of `{argument.name}` are {parts}, its shape is {argument.shape}"
                )
            for part, size in zip(parts, argument.shape, strict=True):
                if not part.isdigit() and sizes.setdefault(part, size) != size:
                    raise ValueError(f"derive: dimension {part!r} has sizes {sizes[part]} and {size}")
            taken.update(parts)
            argument.dims = tuple(int(p) if p.isdigit() else p for p in parts)
    by_size = {size: name for name, size in reversed(sizes.items())}
    for argument in arguments:
        if argument.name not in dims:
            argument.dims = tuple(_name(d, by_size, taken) for d in argument.dims)


def _name(size: Dimension, by_size: dict[int, str], taken: set[str]) -> Dimension:
    if isinstance(size, str) or size == 1:
        return size
    if size not in by_size:
        by_size[size] = next(c for c in _LETTERS if c not in taken and c.upper() not in taken)
        taken.add(by_size[size])
    return by_size[size]


def example_sizes(arguments: Sequence[Argument]) -> dict[str, int]:
    """The size of every named dimension now."""
    return {
        d: s
        for a in arguments
        for d, s in zip(a.dims, a.shape, strict=True)
        if isinstance(d, str) and d.isidentifier()
    }


def symbolic_specs(arguments: Sequence[Argument]) -> list[jax.ShapeDtypeStruct]:
    """Specs whose sizes are the names of dimensions."""
    names = sorted({n for a in arguments for d in a.dims if isinstance(d, str) for n in _names_in(d)})
    symbols = dict(zip(names, export.symbolic_shape(",".join(names)), strict=True)) if names else {}

    def size(dimension: Dimension) -> Any:
        if isinstance(dimension, int):
            return dimension
        return eval(dimension.replace("^", "**"), {}, dict(symbols))

    return [a.spec([size(d) for d in a.dims]) for a in arguments]


def _names_in(dimension: str) -> list[str]:
    return [
        base
        for base, _ in scalar_of_dimension(dimension).powers
        if isinstance(base, str) and base.isidentifier()
    ]
