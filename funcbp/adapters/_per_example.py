"""`per_example`: what is made of the gradients of single examples, for a loss that anyone wrote."""

from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import jax
from jax import numpy as jnp

from .._frozen import Frozen, frozen_predicate
from .._numerics import upcast
from .._sweep import Reduction, added, total_norms
from .._visits import PER_EXAMPLE, laid_out, visitor
from ._sweep import Fallback, Parameters, Program

__all__ = ["InAxes", "PerExample", "check_reduction", "per_example", "program"]

PyTree = Any
InAxes = int | None | tuple[int | None, ...]
COLLECTIBLE = ("grads", *PER_EXAMPLE)


class PerExample(NamedTuple):
    """The result of `per_example`. What was not asked for is None.

    With g_n the gradient of example n's loss, which is not divided by the number of examples. Trees are those
    of the parameters, with None where there is no parameter, or a frozen one.

    Attributes:
        value: the reduced loss.
        per_example: the loss of each example, `(batch,)`.
        grads: ∂value/∂params, in the dtypes of `params`.
        norms: ‖g_n‖ over all parameters, `(batch,)`.
        squared_norms: ‖g_n‖² of every parameter, `(batch,)`; a stack that is scanned over is one parameter.
        gram: ⟨g_n, g_m⟩ over all parameters, `(batch, batch)`.
        second_moment: Σ g_n ⊙ g_n, in the shapes of the parameters.
        per_example_grads: g_n, `(batch, *parameter)`.
        kronecker: A and G of every weight, `factors.Kronecker`; None for what is no weight.
        factors: the Factor of every parameter, from which all else can be had.
        fallback: for which parameters gradients of examples were formed, and why; see `per_example`.
    """

    value: jax.Array
    per_example: jax.Array
    grads: PyTree = None
    norms: jax.Array | None = None
    squared_norms: PyTree = None
    gram: jax.Array | None = None
    second_moment: PyTree = None
    per_example_grads: PyTree = None
    kronecker: PyTree = None
    factors: PyTree = None
    fallback: tuple[Fallback, ...] = ()


def per_example(
    loss_fn: Callable[..., jax.Array],
    *,
    collect: Collection[str] = ("norms",),
    in_axes: InAxes = 0,
    reduction: Reduction = "mean",
    frozen: Frozen = (),
    strict: bool = False,
) -> Callable[..., PerExample]:
    """What `vmap(grad(loss_fn))` is computed for, without it: of any loss in JAX, whatever its model is.

    `loss_fn(params, *example)` is the loss of *one* example, without an axis for the batch, as it is written
    for `vmap(grad)`. So no two examples can meet, and nothing has to be known about the model: a plain
    function, an equinox module as `params`, the state of a flax module.

    The loss is traced and run equation by equation. Where a parameter meets data in a way that is known, what
    it meets is kept and a zero is added to the result; the gradient with respect to all zeros, in one sweep,
    are the δ's:

        dot_general (dense, einsum)    Σ a δᵀ, for every axis that both share one   `Outer`, `Stacked`
        conv_general_dilated           patches and δ                                `Patches`
        gather, dynamic_slice          δ by row, of an embedding                    `Rows`
        all else, such as a bias       the gradient of the example, added up        `Total`

    A parameter may be transposed, reshaped, sliced, cast or scaled by a number before. It is followed into
    jit, checkpoint (which is undone) and scan, where a stack of layers is `Stacked` and a parameter that is
    used at every step has the steps as positions. A parameter that is used several times has the sum of its
    factors, cross terms included. Custom derivatives stay what they are.

    "All else" is right whatever is done with a parameter, but has a gradient of the parameter for every
    example. Where that is larger than what the parameter meets in (weights that are normalized, concatenated,
    or go into a cond or a call with a derivative of its own), `fallback` says so.

    Args:
        loss_fn: `(params, *example) -> scalar`.
        collect: any of "grads", "norms", "squared_norms", "gram", "second_moment", "per_example_grads",
            "kronecker" and "factors"; see `PerExample`.
        in_axes: 0 for an argument whose arrays have the batch as their first axis, None for one that is the
            same for all examples; one for each argument after `params`, or one for all. Random keys of
            examples are such an argument: `jax.random.split(key, batch)`.
        reduction: of `value` and `grads`, "mean" or "sum".
        frozen: parameters to leave alone: names or prefixes of dotted paths, or a predicate on them.
        strict: refuse a parameter that would be in `fallback`.

    Returns:
        `(params, *examples) -> PerExample`, a pure function. Parameters are the arrays of floating numbers in
        `params`; other leaves (integers, functions, Python numbers) are constants.

    Raises:
        TypeError, ValueError: for options that do not fit, here; for arguments and losses, at the call.

    >>> def loss(params, x, y):
    ...     return (params["w"] @ x - y) ** 2 / 2
    >>> params, x, y = {"w": jnp.ones(2)}, jnp.array([[3.0, 4.0], [1.0, 0.0]]), jnp.array([6.0, 1.0])
    >>> per_example(loss, collect=("norms", "grads"))(params, x, y).norms
    Array([5., 0.], dtype=float32)
    """
    _check_options(collect, reduction)

    def sweep(params: PyTree, *examples: PyTree) -> PerExample:
        run = program("per_example", loss_fn, params, examples, in_axes, frozen, strict)
        losses, factors = run.factors(run.mapped)
        batch = losses.shape[0]
        visit = visitor(collect, frozen_predicate(()), None, batch, None)
        own = run.parameters
        met = [
            visit(own.paths[k], array, factor, None)
            for k, array, factor in zip(own.free, own.arrays, factors, strict=True)
        ]

        def tree(name: str) -> PyTree:
            return own.tree_of([laid_out(m, name, a) for m, a in zip(met, own.arrays, strict=True)])

        total = 1 if reduction == "sum" else batch
        squared_norms = tree("squared_norms") if {"norms", "squared_norms"} & set(collect) else None
        return PerExample(
            jnp.sum(upcast(losses)) / total,
            losses,
            own.gradients([m.values["grads"] / total for m in met]) if "grads" in collect else None,
            total_norms(squared_norms, batch) if "norms" in collect else None,
            squared_norms if "squared_norms" in collect else None,
            added(tree("gram"), (batch, batch)) if "gram" in collect else None,
            *(
                tree(name) if name in collect else None
                for name in ("second_moment", "per_example_grads", "kronecker", "factors")
            ),
            run.fallback,
        )

    return sweep


def program(
    who: str,
    loss_fn: Callable[..., jax.Array],
    params: PyTree,
    examples: tuple[PyTree, ...],
    in_axes: InAxes,
    frozen: Frozen,
    strict: bool,
) -> Program:
    """The program of a loss, with all that is given checked."""
    axes = _axes_of(who, in_axes, examples)
    found = Program(who, loss_fn, Parameters(who, params, frozen), examples, axes)
    if strict and found.fallback:
        first = found.fallback[0]
        names = ", ".join(f"`{f.parameter}`" for f in found.fallback)
        raise ValueError(
            f"{who}: the gradients of all examples would have to be formed for {names}: of "
            f"`{first.parameter}`, {first.reason}. Let a weight meet the data in a product, a convolution or "
            "a look-up, or leave out `strict`."
        )
    return found


def _axes_of(who: str, in_axes: InAxes, examples: tuple[PyTree, ...]) -> tuple[int | None, ...]:
    """`in_axes` for every argument, checked against them."""
    axes = in_axes if isinstance(in_axes, tuple) else (in_axes,) * len(examples)
    if len(axes) != len(examples) or any(axis not in (0, None) for axis in axes):
        raise ValueError(
            f"{who}: `in_axes` must be 0 or None, or one of them for each of the {len(examples)} arguments "
            f"after `params`; got {in_axes!r}."
        )
    arrays = [a for e, axis in zip(examples, axes, strict=True) if axis == 0 for a in jax.tree.leaves(e)]
    sizes = {jnp.shape(a)[:1] for a in arrays}
    if len(sizes) != 1 or sizes == {()}:
        raise ValueError(
            f"{who}: the arrays of the examples must have the same first axis, the batch; got shapes "
            f"{[jnp.shape(a) for a in arrays]}. For an argument without that axis say None in `in_axes`."
        )
    return axes


def _check_options(collect: Any, reduction: Any) -> None:
    if isinstance(collect, str) or (unknown := [c for c in collect if c not in COLLECTIBLE]):
        wrong = collect if isinstance(collect, str) else unknown[0]
        raise ValueError(
            f"per_example: `collect` must be a tuple of names out of {COLLECTIBLE}, got {wrong!r}."
        )
    check_reduction("per_example", reduction)


def check_reduction(who: str, reduction: Any) -> None:
    """Raise `ValueError` for what is none."""
    if reduction not in ("mean", "sum"):
        raise ValueError(f"{who}: `reduction` must be 'mean' or 'sum', got {reduction!r}.")
