"""A rule's jaxtyping signature, read at run time.

It states the shapes once; the checks of arguments and their error messages come from it.
"""

import inspect
import numbers
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jaxtyping
import numpy as np
from jax import numpy as jnp

__all__ = ["Argument", "Signature", "describe", "is_variadic"]

Kind = Literal["floating", "integer", "boolean"]

_ANNOTATIONS: Mapping[str, Kind] = {
    "Float": "floating",
    "Int": "integer",
    "UInt": "integer",
    "Integer": "integer",
    "Bool": "boolean",
}
_KINDS: Mapping[tuple[str, ...], Kind] = {
    getattr(jaxtyping, name)[jax.Array, "..."].dtypes: kind for name, kind in _ANNOTATIONS.items()
}
_DTYPES = {
    "floating": (jnp.floating, "be floating", "float32"),
    "integer": (jnp.integer, "hold integers", "int32"),
    "boolean": (jnp.bool_, "hold booleans", "bool"),
}
_STATICS = ((bool, (bool, np.bool_)), (int, numbers.Integral), (float, numbers.Real), (str, str))


@dataclass(frozen=True)
class Argument:
    """One array argument: its axes in words, what it holds, whether it may be None."""

    name: str
    axes: tuple[str, ...]
    kind: Kind
    optional: bool

    @property
    def floating(self) -> bool:
        """Whether it holds floating numbers."""
        return self.kind == "floating"

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
    dtype = x.dtype if hasattr(x, "dtype") else jnp.result_type(x)
    return f"{dtype.name}[{', '.join(map(str, np.shape(x)))}]"


def is_variadic(axis: str) -> bool:
    """Whether an axis of a signature stands for any number of axes.

    >>> is_variadic("*batch"), is_variadic("..."), is_variadic("batch")
    (True, True, False)
    """
    return axis == "..." or axis.startswith("*")


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
        return self._arrays(values), self._checked(statics)

    def _checked(self, statics: dict[str, Any]) -> dict[str, Any]:
        for name, value in statics.items():
            try:
                hash(value)
            except TypeError:
                raise TypeError(
                    f"{self.rule}: static option `{name}` must be hashable (it is fixed at trace time), "
                    f"got {type(value).__name__}."
                ) from None
            self._check_static(name, value, self.statics[name])
        return statics

    def _check_static(self, name: str, value: Any, default: Any) -> None:
        for own, accepted in _STATICS:
            if isinstance(default, own):
                # A bool counts as an int in Python, and would be taken for 0 or 1.
                if not isinstance(value, accepted) or (isinstance(value, bool) and own is not bool):
                    raise TypeError(
                        f"{self.rule}: static option `{name}` must be of type {own.__name__} (its default is "
                        f"{default!r}), got {value!r}."
                    )
                return

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
        dtype, must, example = _DTYPES[argument.kind]
        if not jnp.issubdtype(x.dtype, dtype):
            raise TypeError(
                f"{self.rule}: argument `{argument.name}` must {must}, got {describe(x)}; "
                f"convert it: {argument.name}.astype(jnp.{example})."
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
                try:
                    self._match(argument, x.shape, sizes)
                except ValueError as error:
                    raise ValueError(f"{error}{self._advice(argument, x.shape, arrays)}") from None

    def _advice(
        self, argument: Argument, shape: tuple[int, ...], arrays: Mapping[str, jax.Array | None]
    ) -> str:
        one_hot = self.rule.removesuffix("_with_integer_labels")
        first = arrays[self.arguments[0].name]
        if one_hot == self.rule or argument.kind != "integer" or first is None or shape != first.shape:
            return ""
        return f" For one-hot labels use {one_hot}."

    def _match(self, argument: Argument, shape: tuple[int, ...], sizes: dict[str, tuple[Any, str]]) -> None:
        star = next((i for i, axis in enumerate(argument.axes) if is_variadic(axis)), None)
        fixed = len(argument.axes) - (star is not None)
        bound: list[tuple[str, Any]]
        expected = f"({', '.join(argument.axes)})"
        wrong = f"{self.rule}: argument `{argument.name}` has shape {shape}, expected {expected}"
        if len(shape) < fixed or (star is None and len(shape) != fixed):
            raise ValueError(f"{wrong}.")
        if star is None:
            bound = list(zip(argument.axes, shape, strict=True))
        else:
            tail = len(argument.axes) - star - 1
            middle = shape[star : len(shape) - tail]
            bound = list(zip(argument.axes[:star], shape[:star], strict=True))
            bound.append((argument.axes[star], middle))
            bound += list(zip(argument.axes[star + 1 :], shape[len(shape) - tail :], strict=True))
        for axis, size in bound:
            if axis in ("_", "..."):
                continue
            if axis.isdigit():
                if int(axis) != size:
                    raise ValueError(f"{wrong}, got {size} for {axis}.")
                continue
            known, owner = sizes.setdefault(axis, (size, f"`{argument.name}` of shape {shape}"))
            if known != size:
                raise ValueError(
                    f"{wrong} with {axis.lstrip('*')} = {known} (from {owner}), got {size}; nothing is "
                    "broadcast."
                )


def _argument(rule: str, name: str, hint: Any) -> Argument:
    union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    members = typing.get_args(hint) if union else (hint,)
    annotations = [m for m in members if hasattr(m, "dim_str")]
    if len(annotations) != 1:
        raise TypeError(f"rule `{rule}`: argument `{name}` needs one jaxtyping annotation, got {hint!r}.")
    annotation = annotations[0]
    written = f"{annotation.__name__.split('[')[0]}[Array, {annotation.dim_str!r}]"
    said = f"rule `{rule}`: argument `{name}` is annotated {written}"
    kind = _KINDS.get(annotation.dtypes) if isinstance(annotation.dtypes, tuple) else None
    if kind is None:
        raise TypeError(f"{said}; a rule is for every dtype of a kind: {', '.join(_ANNOTATIONS)}.")
    axes = tuple(annotation.dim_str.split())
    for axis in axes:
        word = axis.removeprefix("*")
        named = word.isidentifier() and not word.startswith("_")
        if not (named or axis in ("_", "...") or (axis.isascii() and axis.isdigit())):
            raise TypeError(
                f"{said}, of which {axis!r} is not understood; an axis is a name, a size, _, or, once, "
                "*name or ... for any number of axes."
            )
    if sum(map(is_variadic, axes)) > 1:
        raise TypeError(f"{said}; only one axis can stand for any number of axes.")
    return Argument(name, axes, kind, optional=type(None) in members)
