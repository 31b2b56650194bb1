"""Inputs for a rule, drawn from its signature and domain: many values over one shape."""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax import numpy as jnp
from jax.typing import DTypeLike

from .._rule import Rule
from .._signature import Argument, is_variadic
from ..domains import AwayFrom, Normal, Point, Positive, Values
from ._bounds import round_tree

__all__ = [
    "DTYPES",
    "Cases",
    "Sizes",
    "Variant",
    "axis_sizes",
    "cases",
    "cyclic",
    "draw",
    "point_kind",
    "shape_of",
    "variants",
]

Sizes = Mapping[str, int | tuple[int, ...]]

DTYPES = {"floating": np.float64, "integer": np.int32, "boolean": np.bool_}

_PRIMES = (5, 7, 3, 11, 13, 17, 19, 23)  # all different, so that a transpose changes the shape


@dataclass(frozen=True)
class Variant:
    """One way to call a rule: its static options and which optional arguments are present."""

    rule: Rule
    statics: Mapping[str, Any]
    present: tuple[Argument, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the arguments that have a cotangent."""
        return tuple(a.name for a in self.present if a.differentiable)

    def all_arguments(self, given: Any) -> tuple[Any, ...]:
        """The values of the present arguments, with None for the absent."""
        values = dict(zip((a.name for a in self.present), given, strict=True))
        return tuple(values.get(a.name) for a in self.rule.signature.arguments)

    def __str__(self) -> str:
        options = [f"{k}={v!r}" for k, v in self.statics.items()]
        absent = [a.name for a in self.rule.signature.arguments if a not in self.present]
        return ", ".join(options + [f"without {name}" for name in absent])


def variants(rule: Rule, every: bool) -> Iterator[Variant]:
    """Every setting with all arguments, and the defaults without optional ones (every subset of them, or
    none)."""
    arguments = rule.signature.arguments
    optional = [a for a in arguments if a.optional]
    for setting in rule.settings:
        yield Variant(rule, setting, arguments)
    for bits in range(2 ** len(optional) - 1) if every else range(min(len(optional), 1)):
        kept = {a.name for i, a in enumerate(optional) if bits >> i & 1}
        yield Variant(rule, {}, tuple(a for a in arguments if not a.optional or a.name in kept))


def axis_sizes(
    rule: Rule, star: tuple[int, ...] = (2, 3), named: tuple[int, ...] = _PRIMES, own: Sizes | None = None
) -> Sizes:
    """A length for every axis named in the signature, `star` for the variadic ones; but the rule's `own`
    sizes (the first, if not given) come first."""
    own = rule.sizes[0] if own is None else own
    sizes: dict[str, int | tuple[int, ...]] = {}
    lengths = itertools.cycle(named)
    for argument in rule.signature.arguments:
        for axis in argument.axes:
            if axis not in sizes:
                free = star if is_variadic(axis) else int(axis) if axis.isdigit() else next(lengths)
                sizes[axis] = own.get(axis.removeprefix("*"), free)
    return sizes


def shape_of(argument: Argument, sizes: Sizes) -> tuple[int, ...]:
    """The shape of one argument."""
    shape: tuple[int, ...] = ()
    for axis in argument.axes:
        size = sizes[axis]
        shape += size if isinstance(size, tuple) else (size,)
    return shape


def draw(variant: Variant, sizes: Sizes, rng: np.random.Generator, count: int) -> tuple[np.ndarray, ...]:
    """`count` sets of values for the present arguments, stacked along a leading axis, by `DTYPES`."""
    lengths = {axis: size if isinstance(size, int) else min(size, default=1) for axis, size in sizes.items()}
    values = []
    for argument in variant.present:
        x = variant.rule.domain[argument.name].sample(rng, (count, *shape_of(argument, sizes)), lengths)
        values.append(np.asarray(x, DTYPES[argument.kind]))
    return tuple(values)


@dataclass(frozen=True)
class Cases:
    """Stacked inputs: `args` and `cotangent` have one leading axis, over which `kinds` names each example.

    Attributes:
        args: values of the present arguments, as the dtype can hold them.
        cotangent: of the output, in its tree.
        kinds: what an example is for: random, zero, huge, sum, large, small, basis, or a point's label.
        smooth: number of leading examples that are drawn from the domain.
    """

    args: tuple[np.ndarray, ...]
    cotangent: Any
    kinds: tuple[str, ...]
    smooth: int

    def where(self, *kinds: str) -> np.ndarray:
        """Indices of the examples of these kinds."""
        return np.flatnonzero(np.isin(np.array(self.kinds), kinds))


def cases(variant: Variant, sizes: Sizes, dtype: DTypeLike, seed: int, examples: int, out: Any) -> Cases:
    """Random examples, then the special ones: zero, huge and added cotangents, extreme inputs, points, a
    basis.

    Args:
        variant: how the rule is called.
        sizes: of all axes.
        dtype: inputs are rounded to it.
        seed: of everything drawn.
        examples: number of random ones.
        out: tree of `ShapeDtypeStruct`s, the output of one example.
    """
    rng = np.random.default_rng(seed)
    half = jnp.finfo(dtype).bits < 32
    huge, extreme = (2.0**6, 2.0**4) if half else (2.0**20, 2.0**13)
    blocks: list[tuple[str, tuple[np.ndarray, ...], Any]] = []

    def random(count: int) -> Any:
        return jax.tree.map(lambda o: rng.standard_normal((count, *o.shape)), out)

    def add(kind: str, args: tuple[np.ndarray, ...], cotangent: Any) -> None:
        blocks.append((kind, args, round_tree(cotangent, dtype)))

    def drawn(count: int) -> tuple[np.ndarray, ...]:
        return round_tree(draw(variant, sizes, rng, count), dtype)

    add("random", drawn(examples), random(examples))
    add("zero", drawn(1), jax.tree.map(np.zeros_like, random(1)))
    add("huge", drawn(2), jax.tree.map(lambda c: huge * c, random(2)))
    pair = round_tree(random(2), dtype)
    trio = jax.tree.map(lambda c: np.concatenate([c, c.sum(0, keepdims=True)]), pair)
    add("sum", tuple(np.repeat(x, 3, axis=0) for x in drawn(1)), trio)
    for kind, factor in (("large", extreme), ("small", 1 / extreme)):
        scaled = [
            factor * x if isinstance(variant.rule.domain[a.name], AwayFrom | Normal | Positive) else x
            for a, x in zip(variant.present, drawn(2), strict=True)
        ]
        add(kind, round_tree(tuple(scaled), dtype), random(2))
    for label, point in variant.rule.points.items():
        args = round_tree(_at(variant, point, drawn(2)), dtype)
        add(point_kind(label), args, jax.tree.map(lambda c: np.stack([np.ones_like(c[0]), c[1]]), random(2)))
    if isinstance(out, jax.ShapeDtypeStruct) and out.size:
        basis = np.eye(out.size).reshape(out.size, *out.shape)
        add("basis", tuple(np.repeat(x[:1], out.size, axis=0) for x in blocks[0][1]), basis)
    return Cases(
        jax.tree.map(lambda *x: np.concatenate(x), *(args for _, args, _ in blocks)),
        jax.tree.map(lambda *x: np.concatenate(x), *(cotangent for _, _, cotangent in blocks)),
        tuple(kind for kind, _, cotangent in blocks for _ in range(len(jax.tree.leaves(cotangent)[0]))),
        examples,
    )


def point_kind(label: str) -> str:
    """The kind of the examples at a named point."""
    return f"point {label!r}"


def _at(variant: Variant, point: Point, args: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
    return tuple(
        cyclic(point.at[a.name], x.shape).astype(x.dtype) if a.name in point.at else x
        for a, x in zip(variant.present, args, strict=True)
    )


def cyclic(value: Values, shape: tuple[int, ...]) -> np.ndarray:
    """A number, a tuple repeated along the last axis, or what a function makes of the shape of one example;
    in a shape whose leading axis counts examples."""
    if callable(value):
        return np.broadcast_to(np.asarray(value(shape[1:]), np.float64), shape).copy()
    row = np.resize(np.asarray(value, np.float64), shape[-1] if len(shape) > 1 else 1)
    return np.broadcast_to(row, shape).copy()
