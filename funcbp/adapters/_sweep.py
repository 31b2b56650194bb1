"""One sweep over a function of one example: its losses, and the factor of every parameter."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
from jax import numpy as jnp

from .._frozen import Frozen, check_frozen, frozen_predicate
from .._signature import describe
from ..factors import Factor, Total
from ..layers._layer import path_string
from ._factors import summed
from ._frame import Frame, Value
from ._run import run
from ._views import View

__all__ = ["Fallback", "Parameters", "Program"]

PyTree = Any


@jax.tree_util.register_static
@dataclass(frozen=True)
class Fallback:
    """A parameter of which the gradients of all examples were formed, for want of anything better.

    Attributes:
        parameter: its dotted path.
        reason: what was done with it.
    """

    parameter: str
    reason: str


class Parameters:
    """A tree in which the arrays of real numbers that are not frozen are parameters; all else is constant."""

    def __init__(self, who: str, tree: PyTree, frozen: Frozen) -> None:
        check_frozen(frozen, tree)
        paths, self.treedef = jax.tree_util.tree_flatten_with_path(tree)
        self.paths = [path for path, _ in paths]
        self.names = [path_string(path) for path in self.paths]
        self.leaves = [leaf for _, leaf in paths]
        is_frozen = frozen_predicate(frozen)
        for name, leaf in zip(self.names, self.leaves, strict=True):
            if _is_array(leaf) and jnp.issubdtype(leaf.dtype, jnp.complexfloating):
                raise TypeError(f"{who}: the parameter `{name}` is {describe(leaf)}, not real.")
        self.inexact = [_is_array(leaf) and jnp.issubdtype(leaf.dtype, jnp.inexact) for leaf in self.leaves]
        self.free = [k for k, name in enumerate(self.names) if self.inexact[k] and not is_frozen(name)]
        self.arrays = [jnp.asarray(self.leaves[k]) for k in self.free]

    def tree(self, arrays: Sequence[Any]) -> PyTree:
        """The tree, with other arrays as its parameters."""
        leaves = list(self.leaves)
        for k, array in zip(self.free, arrays, strict=True):
            leaves[k] = array
        return self.treedef.unflatten(leaves)

    def tree_of(self, values: Sequence[Any]) -> PyTree:
        """The tree, with a value for every parameter and None for all else."""
        found = dict(zip(self.free, values, strict=True))
        return self.treedef.unflatten([found.get(k) for k in range(len(self.leaves))])

    def gradients(self, values: Sequence[jax.Array]) -> PyTree:
        """As `tree_of`, in the dtypes of the parameters, with 0 for what is frozen."""
        found = {k: v.astype(a.dtype) for k, v, a in zip(self.free, values, self.arrays, strict=True)}
        return self.treedef.unflatten(
            [
                found[k] if k in found else jnp.zeros_like(leaf) if self.inexact[k] else None
                for k, leaf in enumerate(self.leaves)
            ]
        )


class Program:
    """A loss of one example as a program, and what there is to be noted in it.

    Args:
        who: who asks, for errors.
        loss_fn: `(params, *example) -> scalar`.
        parameters: the parameters.
        examples: arguments of all examples.
        in_axes: for each of them 0, or None for one that all examples share.

    Attributes:
        fallback: the parameters of which gradients of examples are formed.
    """

    def __init__(
        self,
        who: str,
        loss_fn: Callable[..., jax.Array],
        parameters: Parameters,
        examples: tuple[PyTree, ...],
        in_axes: tuple[int | None, ...],
    ) -> None:
        self.parameters = parameters
        own = [k for k, axis in enumerate(in_axes) if axis == 0]
        self.mapped = tuple(jax.tree.map(jnp.asarray, examples[k]) for k in own)

        def function(arrays: list[jax.Array], mapped: tuple[PyTree, ...]) -> jax.Array:
            arguments = list(examples)
            for k, argument in zip(own, mapped, strict=True):
                arguments[k] = argument
            return loss_fn(parameters.tree(arrays), *arguments)

        one = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape[1:], a.dtype), self.mapped)
        self.closed, out = jax.make_jaxpr(function, return_shape=True)(parameters.arrays, one)
        _check_loss(who, out)
        self.seen = Frame(parameters.arrays)
        jax.eval_shape(lambda arrays, mapped: self._run(self.seen, arrays, mapped), parameters.arrays, one)
        names = [parameters.names[k] for k in parameters.free]
        self.fallback = tuple(Fallback(names[base], why) for base, why in sorted(self.seen.unknown.items()))

    def factors(self, mapped: tuple[PyTree, ...]) -> tuple[jax.Array, list[Factor]]:
        """The loss of every example, and the factor of every parameter."""
        arrays = self.parameters.arrays

        def value(taps: list[jax.Array], zeros: dict[int, jax.Array], one: PyTree) -> tuple[Any, Any]:
            tapped = {base: arrays[base] + zero for base, zero in zeros.items()}
            frame = Frame(arrays, taps, tapped)
            loss = self._run(frame, arrays, one)
            return loss, frame.records

        def sweep(one: PyTree) -> tuple[Any, ...]:
            taps = [jnp.zeros(use.spec.shape, use.spec.dtype) for use in self.seen.uses]
            zeros = {base: jnp.zeros_like(arrays[base]) for base in self.seen.whole}
            loss, pullback, records = jax.vjp(functools.partial(value, one=one), taps, zeros, has_aux=True)
            return loss, records, *pullback(jnp.ones_like(loss))

        losses, records, deltas, gradients = jax.vmap(sweep)(mapped)
        met: list[list[Factor]] = [[] for _ in arrays]
        for use, record, delta in zip(self.seen.uses, records, deltas, strict=True):
            met[use.base].append(use.factor(record, delta))
        for base, gradient in gradients.items():
            met[base].append(Total(gradient, arrays[base].ndim))
        count = losses.shape[0]
        return losses, [
            summed(terms, a.shape) if terms else Total(jnp.zeros((count, *a.shape), a.dtype), a.ndim)
            for terms, a in zip(met, arrays, strict=True)
        ]

    def _run(self, frame: Frame, arrays: list[jax.Array], mapped: PyTree) -> jax.Array:
        frame.bases = arrays
        views = [View(array, base) for base, array in enumerate(arrays)]
        data = [Value(a) for a in jax.tree.leaves(mapped)]
        (loss,) = run(self.closed, [*views, *data], frame)
        return frame.plain(loss).array


def _is_array(leaf: Any) -> bool:
    return hasattr(leaf, "dtype") and hasattr(leaf, "shape")


def _check_loss(who: str, out: Any) -> None:
    if not _is_array(out) or out.shape != () or not jnp.issubdtype(out.dtype, jnp.floating):
        got = jax.tree.map(describe, out)
        raise ValueError(
            f"{who}: `loss_fn(params, *example)` must return the loss of one example, a real scalar; got "
            f"{got}. It is given one example, without an axis for the batch."
        )
