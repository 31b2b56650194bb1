"""A question put to the verifier: is this the backward pass of that function, at arguments like these?

Whatever the user hands over (a gradient, a VJP, a Jacobian) becomes one form: a reference, and a candidate
that gives cotangents, both as functions of the flat list of array leaves of the arguments.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
from jax import numpy as jnp
from jax.typing import DTypeLike

from .._compat import enable_x64
from ._lift import as_traced

__all__ = [
    "Compared",
    "Kind",
    "Leaf",
    "Probe",
    "Problem",
    "StructureError",
    "Typing",
    "argument_names",
    "is_key",
    "leaf_kind",
    "like_output",
    "x64_is_on",
]

Kind = Literal["gradient", "vjp", "jacobian"]
LeafKind = Literal["floating", "complex", "integer", "boolean", "key"]

_KINDS: Mapping[LeafKind, Any] = {
    "floating": jnp.floating,
    "complex": jnp.complexfloating,
    "integer": jnp.integer,
    "boolean": jnp.bool_,
}


# What JAX makes of 64-bit types where they are off.
_NARROW = {
    "float64": "float32",
    "complex128": "complex64",
    "int64": "int32",
    "uint64": "uint32",
}


class StructureError(TypeError):
    """What a candidate returned does not have the tree that it must have."""


class _Slot(int):
    """The index of a leaf, told apart from an integer among the user's arguments."""


class Typing(NamedTuple):
    """In which dtypes a function is evaluated.

    Attributes:
        dtype: of every floating leaf (complex ones get the complex type of that width); None: as in the
            example.
        x64: whether 64-bit types are on.
    """

    dtype: str | None
    x64: bool

    def __str__(self) -> str:
        return self.dtype or "the example's dtypes"


@dataclass(frozen=True)
class Leaf:
    """One array among the arguments.

    Attributes:
        name: argument and path, as a person writes it: `"params['W']"`.
        value: the example's value (NumPy; a JAX array for typed keys).
        kind: what values it can take.
        wrt: whether a cotangent of it is looked at.
        argument: position of the argument that it belongs to.
    """

    name: str
    value: Any
    kind: LeafKind
    wrt: bool
    argument: int

    @property
    def differentiable(self) -> bool:
        """Whether it can have a cotangent at all."""
        return self.kind in ("floating", "complex")


@dataclass(frozen=True)
class Probe:
    """One set of inputs to look at.

    Attributes:
        label: what it is for, in words: `"the example"`, `"x at a tie"`.
        values: for all leaves of the arguments, floating ones in float64 (complex128), NumPy.
        cotangent: of the output, in its tree, float64 (complex128).
        ordinary: whether magnitudes are those of the example: there a gradient has to be accurate, too.
        inside: whether the values are what the example makes one expect; outside of that a difference is
            only worth a note.
    """

    label: str
    values: tuple[Any, ...]
    cotangent: Any
    ordinary: bool = True
    inside: bool = True


@dataclass(frozen=True)
class Compared:
    """What came out at a probe: one entry for each leaf in `Problem.wrt`, float64 (complex128), NumPy.

    Attributes:
        probe: the inputs.
        truth: the true cotangents.
        bound: the largest error of every element that counts as rounding.
        mine: the candidate's cotangents.
    """

    probe: Probe
    truth: tuple[np.ndarray, ...]
    bound: tuple[np.ndarray, ...]
    mine: tuple[np.ndarray, ...]


@dataclass(frozen=True)
class Problem:
    """A reference, a candidate, and an example of their arguments.

    Attributes:
        kind: what the user handed over; a `"gradient"` has no cotangent but 1.
        subject: its name, for reports.
        function: the reference, of the arguments as the user writes them, without auxiliary output.
        backward: `(arguments, cotangent) -> (value or None, cotangents)`: the candidate. The cotangents are
            one tree for each entry of `argnums`, as the user returned them.
        args: the example's arguments, dynamic leaves and all.
        argnums: positions of the arguments whose cotangents are looked at.
        interleaved: `(arguments, others, cotangent)`: as `backward`, but with a forward pass of other
            arguments between the two passes; None unless they are separate functions.
        drawn: the typing whose random numbers hold in float64, too; None if nothing is drawn.
        layout: in which a Jacobian is written.
        others: the candidate, if it were written in another one, by layout.
    """

    kind: Kind
    subject: str
    function: Callable[..., Any]
    backward: Callable[[tuple[Any, ...], Any], tuple[Any, tuple[Any, ...]]]
    args: tuple[Any, ...]
    argnums: tuple[int, ...]
    interleaved: Callable[[tuple[Any, ...], tuple[Any, ...], Any], tuple[Any, tuple[Any, ...]]] | None = None
    drawn: Typing | None = None
    layout: str = ""
    others: Mapping[str, Callable[[tuple[Any, ...], Any], tuple[Any, tuple[Any, ...]]]] = field(
        default_factory=dict
    )

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The reference's names for its arguments."""
        return argument_names(self.function, len(self.args))

    @cached_property
    def _flat(self) -> tuple[list[tuple[Any, Any]], Any]:
        return jax.tree_util.tree_flatten_with_path(self.args)

    @cached_property
    def leaves(self) -> tuple[Leaf, ...]:
        """The array leaves of the arguments, in the order of `jax.tree.flatten`."""
        found = []
        for path, value in self._flat[0]:
            kind = leaf_kind(value)
            if kind is not None:
                at = path[0].idx
                name = self.names[at] + jax.tree_util.keystr(path[1:])
                array = value if kind == "key" else np.asarray(value)
                wrt = at in self.argnums and kind in ("floating", "complex")
                found.append(Leaf(name, array, kind, wrt, at))
        return tuple(found)

    @property
    def wrt(self) -> tuple[int, ...]:
        """Indices among `leaves` of those whose cotangents are looked at."""
        return tuple(i for i, leaf in enumerate(self.leaves) if leaf.wrt)

    @property
    def example(self) -> tuple[Any, ...]:
        """The values of `leaves` in the example."""
        return tuple(leaf.value for leaf in self.leaves)

    def pack(self, values: Sequence[Any]) -> tuple[Any, ...]:
        """The arguments as the user writes them, from values for `leaves`; the rest is as in the example."""
        entries, tree = self._flat
        given = iter(values)
        return tree.unflatten([next(given) if leaf_kind(x) else x for _, x in entries])

    def typed(self, values: Sequence[Any], typing: Typing) -> tuple[Any, ...]:
        """Values for `leaves` in the dtypes of a typing, as JAX arrays; call it where `typing.x64` is set."""
        return tuple(x if is_key(x) else jnp.asarray(x) for x in self.cast(values, typing))

    def cast(self, values: Sequence[Any], typing: Typing) -> tuple[Any, ...]:
        """Values for `leaves` in the dtypes of a typing, as NumPy arrays (keys as they are)."""
        return tuple(
            value if leaf.kind == "key" else np.asarray(value).astype(_dtype(leaf, typing))
            for leaf, value in zip(self.leaves, values, strict=True)
        )

    def reference(self, *values: Any) -> Any:
        """The reference as a function of values for `leaves`. Traceable."""

        def plain(*values: Any) -> Any:
            return self.function(*self.pack(values))

        if self.drawn is None or not x64_is_on():
            return plain(*values)
        return as_traced(plain, self._specs(values, self.drawn), values, x64=self.drawn.x64)

    def _specs(self, values: Sequence[Any], typing: Typing) -> tuple[jax.ShapeDtypeStruct, ...]:
        return tuple(
            jax.ShapeDtypeStruct(np.shape(x), x.dtype if leaf.kind == "key" else _dtype(leaf, typing))
            for leaf, x in zip(self.leaves, values, strict=True)
        )

    def pull(self, values: Sequence[Any], cotangent: Any) -> tuple[Any, tuple[Any, ...]]:
        """The reference's output and the cotangents of the leaves at `wrt`, by `jax.vjp`. Traceable."""
        moving = self.wrt

        def function(*chosen: Any) -> Any:
            whole = list(values)
            for i, x in zip(moving, chosen, strict=True):
                whole[i] = x
            return self.reference(*whole)

        out, pullback = jax.vjp(function, *(jnp.asarray(values[i]) for i in moving))
        return out, pullback(like_output(cotangent, out))

    def candidate(self, values: Sequence[Any], cotangent: Any) -> tuple[Any, tuple[Any, ...]]:
        """The candidate's value (None if it gives none) and one cotangent for each leaf at `wrt`.

        None from the candidate counts as a zero, as for `jax.custom_vjp`.

        Raises:
            StructureError: if the cotangents do not have the tree of the arguments.
        """

        def plain(values: Sequence[Any], cotangent: Any) -> tuple[Any, tuple[Any, ...]]:
            value, trees = self.backward(self.pack(values), cotangent)
            return value, self.align(trees, values)

        if self.drawn is None or not x64_is_on():
            return plain(values, cotangent)
        specs = self._specs(values, self.drawn)
        with enable_x64(self.drawn.x64):
            out = jax.eval_shape(lambda *v: self.function(*self.pack(v)), *specs)
        return as_traced(plain, (specs, out), (tuple(values), cotangent), x64=self.drawn.x64)

    def align(self, trees: tuple[Any, ...], values: Sequence[Any]) -> tuple[Any, ...]:
        """One cotangent for each leaf at `wrt`, out of the trees that the candidate returned."""
        arguments = self.pack([_Slot(i) for i in range(len(self.leaves))])
        found: dict[int, Any] = {}
        for at, given in zip(self.argnums, trees, strict=True):
            expected, tree = jax.tree.flatten(arguments[at])
            got = _flatten_up_to(tree, given, self.names[at])
            for index, ct in zip(expected, got, strict=True):
                if isinstance(index, _Slot) and index in self.wrt:
                    found[index] = jnp.zeros_like(values[index]) if _is_zero(ct) else ct
        return tuple(found[i] for i in self.wrt)

    def with_candidate(self, backward: Callable[..., Any]) -> "Problem":
        """The same question about another candidate."""
        return replace(self, backward=backward)


def x64_is_on() -> bool:
    """Whether 64-bit types are on, here and now."""
    return jax.dtypes.canonicalize_dtype(np.float64) == np.float64


def leaf_kind(value: Any) -> LeafKind | None:
    """What kind of array a leaf of the arguments is; None for what is no array but a static value.

    >>> leaf_kind(1.5), leaf_kind(3), leaf_kind("mean")
    ('floating', None, None)
    """
    if isinstance(value, float | complex) and not isinstance(value, np.generic):
        return "floating" if isinstance(value, float) else "complex"
    if not hasattr(value, "dtype"):
        return None
    if is_key(value):
        return "key"
    return next((kind for kind, dtype in _KINDS.items() if jnp.issubdtype(value.dtype, dtype)), None)


def is_key(value: Any) -> bool:
    """Whether an array is a random key, typed or raw."""
    if jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        return True
    return value.dtype == np.uint32 and np.shape(value)[-1:] == (2,)


def like_output(cotangent: Any, out: Any) -> Any:
    """A cotangent in the tree and dtypes of the output it belongs to."""
    if jax.tree.structure(cotangent) != jax.tree.structure(out):
        raise StructureError(
            f"The output must have the tree {jax.tree.structure(cotangent)} of the reference's, not "
            f"{jax.tree.structure(out)}."
        )

    def one(c: Any, o: Any) -> Any:
        dtype = jnp.result_type(o)
        if jnp.issubdtype(dtype, jnp.inexact):
            return jnp.asarray(c, dtype)
        return np.zeros(np.shape(o), jax.dtypes.float0)

    return jax.tree.map(one, cotangent, out)


def argument_names(function: Callable[..., Any], count: int) -> tuple[str, ...]:
    """Names of the first positional arguments of a function, as far as it tells.

    >>> argument_names(lambda x, *rest: x, 3)
    ('x', 'rest[0]', 'rest[1]')
    """
    names: list[str] = []
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        parameters = []
    for parameter in parameters:
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            names.append(parameter.name)
        elif parameter.kind is parameter.VAR_POSITIONAL:
            names += [f"{parameter.name}[{i}]" for i in range(count - len(names))]
    return tuple((names + [f"args[{i}]" for i in range(len(names), count)])[:count])


def _dtype(leaf: Leaf, typing: Typing) -> np.dtype:
    dtype: DTypeLike = leaf.value.dtype
    if typing.dtype is not None and leaf.kind == "floating":
        dtype = typing.dtype
    if typing.dtype is not None and leaf.kind == "complex":
        dtype = "complex128" if typing.dtype == "float64" else "complex64"
    if typing.x64:
        return np.dtype(dtype)
    return np.dtype(_NARROW.get(np.dtype(dtype).name, dtype))


def _is_zero(ct: Any) -> bool:
    return ct is None or getattr(ct, "dtype", None) == jax.dtypes.float0


def _flatten_up_to(tree: Any, given: Any, name: str) -> list[Any]:
    if given is None:
        return [None] * tree.num_leaves
    try:
        found = tree.flatten_up_to(given)
    except (TypeError, ValueError) as error:
        filled = jax.tree.structure(given, is_leaf=lambda x: x is None)
        raise StructureError(f"Return the cotangent of {name} with its tree {tree}, not {filled}.") from error
    for ct in found:
        if ct is not None and not hasattr(ct, "dtype") and not np.isscalar(ct):
            raise StructureError(f"Return an array as cotangent of {name}, not a {type(ct).__name__}.")
    return found
