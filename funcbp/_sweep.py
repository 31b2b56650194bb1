"""The sweep itself: forward, then the δ recurrence back, with whatever is to be collected on the way."""

import functools
import operator
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
from jax import numpy as jnp

from ._frozen import Frozen, check_frozen, frozen_predicate
from ._loss import LossLike, as_loss
from ._numerics import upcast
from ._precision import Precision, upcast_tree
from ._reduction import example_weights, value_cotangent
from ._signature import describe
from ._visits import PER_EXAMPLE, laid_out, visitor
from .layers import Context, Delta, Forward, Layer
from .layers._layer import Visit

__all__ = [
    "Batch",
    "Reduction",
    "Setup",
    "Sweep",
    "added",
    "batch_of",
    "in_dtypes_of",
    "setup",
    "total_norms",
]

PyTree = Any
Reduction = Literal["mean", "sum"]


class Sweep(NamedTuple):
    """The result of one forward and one backward pass. What was not asked for is None.

    With g_n the gradient of example n's own loss: weighted, but not divided by the number of examples. Where
    a parameter is a stack (of the blocks of a `repeat`), the axes of the stack follow that of the examples.
    Frozen parameters have None in the trees of what is made of g_n, and take no part in sums.

    Attributes:
        value: the reduced loss, a scalar, in float32 at least.
        grads: ∂value/∂params, with the tree and dtypes of `params`.
        state: the network's new state; `()` if it has none.
        x_ct: ∂value/∂x, the last δ; None for integer inputs.
        activations: every layer's output, in the tree of the network.
        cotangents: ∂value/∂output of every layer, in the same tree.
        deltas: the same at the pre-activations, δ = ∂value/∂p; None at layers whose output is none.
        per_example: the loss of each example, neither weighted nor divided by anything, `(batch,)`.
        collected: what `visit` returned, in the tree of the parameters.
        norms: ‖g_n‖ over all parameters, `(batch,)`.
        squared_norms: ‖g_n‖² of every parameter, `(batch, *stack)`, in the tree of the parameters.
        gram: ⟨g_n, g_m⟩ over all parameters, `(batch, batch)`.
        second_moment: Σ g_n ⊙ g_n, in the tree and shapes of the parameters.
        per_example_grads: g_n, `(batch, *parameter)`, in the tree of the parameters.
        kronecker: A and G of every weight, `factors.Kronecker`, of K-FAC's "expand" form; else None.
        factors: the Factor of every parameter, from which all else can be had.
    """

    value: jax.Array
    grads: PyTree
    state: PyTree
    x_ct: PyTree
    activations: PyTree = None
    cotangents: PyTree = None
    deltas: PyTree = None
    per_example: jax.Array | None = None
    collected: PyTree = None
    norms: jax.Array | None = None
    squared_norms: PyTree = None
    gram: jax.Array | None = None
    second_moment: PyTree = None
    per_example_grads: PyTree = None
    kronecker: PyTree = None
    factors: PyTree = None


class Batch(NamedTuple):
    """What has the batch as its first axis."""

    x: PyTree
    y: PyTree
    weights: jax.Array
    mask: PyTree
    positions: PyTree


@dataclass(frozen=True)
class Setup:
    """The options of a sweep, checked.

    Attributes:
        network: a Layer.
        evaluate: the loss.
        reduction: "mean" or "sum".
        frozen: names of frozen parameters, or a predicate.
        precision: what the network computes in.
        train: whether it is a training pass.
    """

    network: Layer
    evaluate: Callable[..., Any]
    reduction: Reduction
    frozen: Frozen
    precision: Precision
    train: bool

    def run(
        self,
        params: PyTree,
        batch: Batch,
        total: jax.Array | None,
        state: PyTree,
        key: jax.Array | None,
        aux: PyTree = None,
        *,
        collect: Collection[str],
        visit: Visit | None = None,
        independent: bool = False,
    ) -> Sweep:
        """One sweep; `collect` has "grads", too. Gradients and x_ct in float32 at least."""
        network, precision = self.network, self.precision
        examples = batch.weights.shape[0]
        computed = precision.cast(params)
        independent = independent or not set(PER_EXAMPLE).isdisjoint(collect)
        context = Context(key, self.train, batch.mask, batch.positions, independent)
        forward: Forward = network.fwd(computed, state, precision.cast(batch.x), context)
        values, loss_pullback = self.evaluate(upcast_tree(forward.y), upcast_tree(batch.y))
        scale = value_cotangent(values, batch.weights, total)
        _check_range(forward.y, self.reduction)
        # A target without weight may be anything: the value of a padded label that is none is NaN.
        value = jnp.sum(jnp.where(scale == 0, 0, scale * upcast(values)))
        y_ct = jax.tree.map(
            lambda ct, z: ct.astype(z.dtype), loss_pullback(scale.astype(values.dtype)), forward.y
        )
        visits = visitor(collect, frozen_predicate(self.frozen), visit, examples, total)
        backward = network.bwd(computed, forward.residuals, y_ct, visits, aux, ())
        parameters, treedef = jax.tree.flatten(params)
        met = treedef.flatten_up_to(backward.collected)

        def tree(name: str, wanted: bool) -> PyTree:
            pairs = zip(met, parameters, strict=True)
            return treedef.unflatten([laid_out(m, name, p) for m, p in pairs]) if wanted else None

        kept = {"factors", "compact factors"}
        squared_norms = tree("squared_norms", not {"norms", "squared_norms"}.isdisjoint(collect))
        return Sweep(
            value,
            tree("grads", "grads" in collect),
            forward.state,
            backward.x_ct,
            forward.activations if "activations" in collect else None,
            _cotangents(backward.cotangents) if "cotangents" in collect else None,
            _deltas(backward.cotangents) if "deltas" in collect else None,
            values.sum(tuple(range(1, values.ndim))) if "per_example" in collect else None,
            tree("visit", visit is not None),
            total_norms(squared_norms, examples) if "norms" in collect else None,
            squared_norms if "squared_norms" in collect else None,
            added(tree("gram", True), (examples, examples)) if "gram" in collect else None,
            *(tree(n, n in collect) for n in ("second_moment", "per_example_grads", "kronecker")),
            tree(
                "compact factors" if "compact factors" in collect else "factors", not kept.isdisjoint(collect)
            ),
        )


def setup(
    network: Layer,
    loss: LossLike,
    reduction: Reduction,
    frozen: Frozen,
    precision: Precision | None,
    train: bool,
) -> Setup:
    """Check the options that all sweeps have."""
    if not isinstance(network, Layer):
        raise TypeError(f"backprop: `network` must be a Layer, got {type(network).__name__}.")
    if reduction not in ("mean", "sum"):
        raise ValueError(f"backprop: `reduction` must be 'mean' or 'sum', got {reduction!r}.")
    evaluate = as_loss(loss)
    precision = Precision() if precision is None else precision
    if not isinstance(precision, Precision):
        raise TypeError(f"backprop: `precision` must be a funcbp.Precision, got {precision!r}.")
    frozen_predicate(frozen)
    return Setup(network, evaluate, reduction, frozen, precision, train)


def batch_of(
    params: PyTree, x: PyTree, y: PyTree, weights: Any, mask: PyTree, positions: PyTree, frozen: Frozen
) -> tuple[PyTree, Batch]:
    """Params and batch as JAX arrays, checked."""
    params, x, y = jax.tree.map(jnp.asarray, (params, x, y))
    _check_call(params, x, y, frozen)
    return params, Batch(x, y, example_weights(weights, jax.tree.leaves(x)[0].shape[0]), mask, positions)


def in_dtypes_of(cotangents: PyTree, like: PyTree) -> PyTree:
    """Cotangents in the dtypes of what they are cotangents of; None, for what has no derivative, stays."""
    return jax.tree.map(
        lambda ct, a: None if ct is None else ct.astype(a.dtype),
        cotangents,
        like,
        is_leaf=lambda n: n is None,
    )


def total_norms(squared_norms: PyTree, examples: int) -> jax.Array:
    each = jax.tree.map(lambda a: jnp.sum(a, tuple(range(1, a.ndim))), squared_norms)
    return jnp.sqrt(added(each, (examples,)))


def added(tree: PyTree, shape: tuple[int, ...]) -> jax.Array:
    leaves = jax.tree.leaves(tree)
    return functools.reduce(operator.add, leaves) if leaves else jnp.zeros(shape, jnp.float32)


def _cotangents(tree: PyTree) -> PyTree:
    return jax.tree.map(
        lambda n: n.value if isinstance(n, Delta) else n, tree, is_leaf=lambda n: isinstance(n, Delta)
    )


def _deltas(tree: PyTree) -> PyTree:
    return jax.tree.map(
        lambda n: n.value if isinstance(n, Delta) else None, tree, is_leaf=lambda n: isinstance(n, Delta)
    )


def _check_range(outputs: PyTree, reduction: Reduction) -> None:
    if reduction == "mean" and any(z.dtype == jnp.float16 for z in jax.tree.leaves(outputs)):
        raise ValueError(
            "backprop: the outputs are float16, which cannot hold ∂value/∂outputs of a mean over many "
            "examples (below 6e-8 is zero); use bfloat16, or reduction='sum' and divide the gradients."
        )


def _check_call(params: PyTree, x: PyTree, y: PyTree, frozen: Frozen) -> None:
    for what, tree in (("x", x), ("y", y)):
        if any(a.ndim == 0 for a in jax.tree.leaves(tree)) or not jax.tree.leaves(tree):
            raise ValueError(
                f"backprop: `{what}` must be an array, or a tree of them, whose first axis is the batch; got "
                f"{jax.tree.map(describe, tree)}. A list of numbers is a tree of them: jnp.asarray({what})."
            )
    sizes = {a.shape[0] for a in jax.tree.leaves((x, y))}
    if len(sizes) > 1:
        shapes = [describe(a) for a in jax.tree.leaves((x, y))]
        raise ValueError(
            f"backprop: `x` and `y` must have the same first axis, the batch; got {', '.join(shapes)}."
        )
    check_frozen(frozen, params)
