"""A rule's jaxtyping signature, read at run time.

It states the shapes once; the checks of arguments and their error messages come from it.
"""

import inspect
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax import numpy as jnp

__all__ = ["Argument", "Signature", "describe"]


@dataclass(frozen=True)
class Argument:
    """One array argument: its axes in words, whether it is floating, whether it may be None."""

    name: str
    axes: tuple[str, ...]
    floating: bool
    optional: bool

    @property
    def differentiable(self) -> bool:
        """Whether a cotangent exists for it."""
        return self.floating


def describe(x: Any) -> str:
    """A short description of an array: dtype and shape.

    >>> describe(jnp.ones((2, 3), jnp.bfloat16))
    'bfloat16[2, 3]'
    """
    if x is None:
        return "None"
    return f"{jnp.result_type(x).name}[{', '.join(map(str, np.shape(x)))}]"


@dataclass(frozen=True)
class Signature:
    """The arguments and static options of a rule."""

    rule: str
    arguments: tuple[Argument, ...]
    statics: Mapping[str, Any]

    @classmethod
    def of(cls, rule: str, fwd: Callable[..., Any]) -> "Signature":
        """Read from the annotations of `fwd`: positional parameters are arrays, keyword-only ones static."""
        hints = typing.get_type_hints(fwd)
        arguments, statics = [], {}
        for name, parameter in inspect.signature(fwd).parameters.items():
            if parameter.kind is inspect.Parameter.KEYWORD_ONLY:
                if parameter.default is inspect.Parameter.empty:
                    raise TypeError(f"rule `{rule}`: static option `{name}` needs a default.")
                statics[name] = parameter.default
            else:
                arguments.append(_argument(rule, name, hints.get(name)))
        return cls(rule, tuple(arguments), types.MappingProxyType(statics))

    def bind(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Arrays in order and statics with their defaults.

        Raises:
            TypeError, ValueError: for what does not fit the signature.
        """
        named = {k: v for k, v in kwargs.items() if k not in self.statics}
        statics = dict(self.statics) | {k: v for k, v in kwargs.items() if k in self.statics}
        names = [a.name for a in self.arguments]
        unknown = [k for k in named if k not in names]
        if unknown:
            raise TypeError(
                f"{self.rule}: unknown option `{unknown[0]}`; arguments are {names}, "
                f"static options are {list(self.statics)}."
            )
        if len(args) > len(names):
            raise TypeError(f"{self.rule}: takes {len(names)} arrays {names}, got {len(args)}.")
        values = dict(zip(names, args, strict=False))
        twice = values.keys() & named.keys()
        if twice:
            raise TypeError(f"{self.rule}: argument `{min(twice)}` was given twice.")
        values |= named
        for argument in self.arguments:
            if values.get(argument.name) is None:
                if not argument.optional:
                    raise TypeError(
                        f"{self.rule}: argument `{argument.name}` is missing; arguments are {names}."
                    )
                values[argument.name] = None
        return self._arrays(values), self._hashable(statics)

    def _hashable(self, statics: dict[str, Any]) -> dict[str, Any]:
        for name, value in statics.items():
            try:
                hash(value)
            except TypeError:
                raise TypeError(
                    f"{self.rule}: static option `{name}` must be hashable (it is fixed at trace time), "
                    f"got {type(value).__name__}."
                ) from None
        return statics

    def _arrays(self, values: Mapping[str, Any]) -> tuple[jax.Array | None, ...]:
        arrays = {a.name: self._array(a, values[a.name]) for a in self.arguments}
        self._check_dtypes(arrays, values)
        self._check_shapes(arrays)
        return tuple(arrays[a.name] for a in self.arguments)

    def _array(self, argument: Argument, value: Any) -> jax.Array | None:
        if value is None:
            return None
        try:
            x = jnp.asarray(value)
        except (TypeError, ValueError) as error:
            raise TypeError(
                f"{self.rule}: argument `{argument.name}` must be an array, got {type(value).__name__}."
            ) from error
        if argument.floating and not jnp.issubdtype(x.dtype, jnp.floating):
            raise TypeError(
                f"{self.rule}: argument `{argument.name}` must be floating, got {describe(x)}; "
                f"convert it: {argument.name}.astype(jnp.float32)."
            )
        if not argument.floating and not jnp.issubdtype(x.dtype, jnp.integer):
            raise TypeError(
                f"{self.rule}: argument `{argument.name}` must hold integers, got {describe(x)}; "
                f"convert it: {argument.name}.astype(jnp.int32)."
            )
        return x

    def _check_dtypes(self, arrays: dict[str, jax.Array | None], values: Mapping[str, Any]) -> None:
        strong = {
            a.name: x
            for a in self.arguments
            if a.floating and (x := arrays[a.name]) is not None and not isinstance(values[a.name], float)
        }
        for (first, x), (second, y) in zip(strong.items(), list(strong.items())[1:], strict=False):
            if x.dtype != y.dtype:
                raise TypeError(
                    f"{self.rule}: `{first}` is {describe(x)} but `{second}` is {describe(y)}; floating "
                    f"arguments share one dtype: cast one, for example {second}.astype({x.dtype.name!r})."
                )
        dtype = next(iter(strong.values())).dtype if strong else None
        for a in self.arguments:
            if (
                a.floating
                and a.name not in strong
                and (x := arrays[a.name]) is not None
                and dtype is not None
            ):
                arrays[a.name] = x.astype(dtype)

    def _check_shapes(self, arrays: Mapping[str, jax.Array | None]) -> None:
        sizes: dict[str, tuple[Any, str]] = {}
        for argument in self.arguments:
            x = arrays[argument.name]
            if x is not None:
                self._match(argument, x.shape, sizes)

    def _match(self, argument: Argument, shape: tuple[int, ...], sizes: dict[str, tuple[Any, str]]) -> None:
        star = next((i for i, axis in enumerate(argument.axes) if axis.startswith("*")), None)
        fixed = len(argument.axes) - (star is not None)
        bound: list[tuple[str, Any]]
        expected = f"({', '.join(argument.axes)})"
        if len(shape) < fixed or (star is None and len(shape) != fixed):
            raise ValueError(
                f"{self.rule}: argument `{argument.name}` has shape {shape}, expected {expected}."
            )
        if star is None:
            bound = list(zip(argument.axes, shape, strict=True))
        else:
            tail = len(argument.axes) - star - 1
            middle = shape[star : len(shape) - tail]
            bound = list(zip(argument.axes[:star], shape[:star], strict=True))
            bound.append((argument.axes[star], middle))
            bound += list(zip(argument.axes[star + 1 :], shape[len(shape) - tail :], strict=True))
        for axis, size in bound:
            known, owner = sizes.setdefault(axis, (size, f"`{argument.name}` of shape {shape}"))
            if known != size:
                raise ValueError(
                    f"{self.rule}: argument `{argument.name}` has shape {shape}, expected {expected} "
                    f"with {axis.lstrip('*')} = {known} (from {owner}), got {size}; nothing is broadcast."
                )


def _argument(rule: str, name: str, hint: Any) -> Argument:
    union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    members = typing.get_args(hint) if union else (hint,)
    annotations = [m for m in members if hasattr(m, "dim_str")]
    if len(annotations) != 1:
        raise TypeError(f"rule `{rule}`: argument `{name}` needs one jaxtyping annotation, got {hint!r}.")
    annotation = annotations[0]
    floating = any("float" in str(dtype) for dtype in annotation.dtypes)
    return Argument(name, tuple(annotation.dim_str.split()), floating, optional=type(None) in members)
