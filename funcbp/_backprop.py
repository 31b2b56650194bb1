"""`backprop`: loss and network to value, gradients, δ's and whatever else is to be had in the same sweep."""

import functools
from collections.abc import Callable, Collection
from typing import Any, Literal, NamedTuple

import jax
from jax import lax
from jax import numpy as jnp
from jax.tree_util import KeyPath

from ._frozen import Frozen, check_frozen, frozen_predicate
from ._loss import LossLike, as_loss
from ._numerics import upcast
from ._precision import Precision, upcast_tree
from ._reduction import example_weights, value_cotangent
from ._signature import describe
from .factors import Factor
from .layers import Context, Delta, Forward, Layer
from .layers._layer import Visit, path_string

__all__ = ["Precision", "Sweep", "backprop", "predict", "value_and_grad"]

PyTree = Any
Reduction = Literal["mean", "sum"]
COLLECTIBLE = ("activations", "cotangents", "deltas", "per_example")


class Sweep(NamedTuple):
    """The result of one forward and one backward pass. What was not asked for is None.

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


class _Batch(NamedTuple):
    """What has the batch as its first axis."""

    x: PyTree
    y: PyTree
    weights: jax.Array
    mask: PyTree
    positions: PyTree


def backprop(
    network: Layer,
    loss: LossLike,
    *,
    collect: Collection[str] = (),
    reduction: Reduction = "mean",
    frozen: Frozen = (),
    precision: Precision | None = None,
    microbatches: int = 1,
    train: bool = True,
    visit: Visit | None = None,
) -> Callable[..., Sweep]:
    """One sweep: forward, then the δ recurrence back, contracting every factor as soon as its δ is there.

    Args:
        network: a Layer.
        loss: a Rule of (outputs, targets); or a pair (value per example, its derivative with respect to the
            outputs).
        collect: any of "activations", "cotangents", "deltas", "per_example".
        reduction: "mean" divides by the sum of the weights, by default the number of examples; "sum" does
            not. A loss that has more axes than the weights is summed over them: mean over examples, sum over
            outputs.
        frozen: parameters to leave alone: names or prefixes of dotted paths ("0", "embed.table"), or a
            predicate on them. Their gradients are zero and their products are not computed.
        precision: see `Precision`.
        microbatches: split the batch into so many equal parts, one after the other in a scan, in the memory
            of one part. Value and gradients are those of the full batch, so that layers that couple its
            examples (batch normalization in training) refuse; the state passes through; each part has a
            random key of its own.
        train: False for the gradient of the evaluation pass (no dropout, running statistics).
        visit: `visit(path, parameter, factor, aux_leaf)` is called for every parameter beside the gradient's
            contraction; the parameter is in the compute dtype.

    Returns:
        `sweep(params, x, y, *, state=(), key=None, weights=None, mask=None, positions=None, aux=None) ->
        Sweep`, a pure function. `weights` has the shape of the loss's leading axes, `(batch,)` or `(batch,
        time)`: examples, or positions. A target of weight zero may be anything, such as a label that is none;
        if all weights are zero, so are value and gradients. `mask` and `positions` go to the layers that use
        them (they do not mask the loss: that is `weights`) and have the batch as their first axis; `aux`, in
        the tree of the parameters, goes to `visit`.

    Raises:
        TypeError, ValueError: for options that do not fit, here; for shapes, dtypes and trees, at the call,
        naming the layer.

    >>> from funcbp import layers, rules
    >>> network = layers.chain(layers.dense(3), layers.activation("tanh"), layers.dense(1))
    >>> x, y = jnp.ones((4, 2)), jnp.zeros((4, 1))
    >>> params, _ = network.init(jax.random.key(0), x)
    >>> sweep = backprop(network, rules.l2_loss, collect=("deltas",))(params, x, y)
    >>> [None if d is None else d.shape for d in sweep.deltas]
    [(4, 3), None, (4, 1)]
    """
    _check_options(network, collect, reduction, microbatches, visit)
    evaluate = as_loss(loss)
    precision = Precision() if precision is None else precision
    if not isinstance(precision, Precision):
        raise TypeError(f"backprop: `precision` must be a funcbp.Precision, got {precision!r}.")
    is_frozen = frozen_predicate(frozen)

    def contraction(
        path: KeyPath, parameter: jax.Array, factor: Factor, aux_leaf: PyTree
    ) -> tuple[jax.Array, PyTree]:
        if not isinstance(factor, Factor):
            raise TypeError(
                f"backprop: the pullback must give a Factor for `{path_string(path) or 'params'}`, got "
                f"{type(factor).__name__}; see funcbp.factors."
            )
        seen = None if visit is None else visit(path, parameter, factor, aux_leaf)
        if is_frozen(path_string(path)):
            return jnp.zeros(parameter.shape, upcast(parameter).dtype), seen
        gradient = factor.gradient()
        if gradient.shape != parameter.shape:
            raise ValueError(
                f"backprop: the gradient of `{path_string(path)}` is {describe(gradient)}, the parameter "
                f"{describe(parameter)}; its layer's factor does not fit (an axis count, a size)."
            )
        return upcast(gradient), seen

    def one_sweep(
        params: PyTree,
        batch: _Batch,
        total: jax.Array | None,
        state: PyTree,
        key: jax.Array | None,
        aux: PyTree,
    ) -> Sweep:
        computed = precision.cast(params)
        context = Context(key, train, batch.mask, batch.positions, independent=microbatches > 1)
        forward: Forward = network.fwd(computed, state, precision.cast(batch.x), context)
        values, loss_pullback = evaluate(upcast_tree(forward.y), upcast_tree(batch.y))
        scale = value_cotangent(values, batch.weights, total)
        _check_range(forward.y, reduction)
        # A target without weight may be anything: the value of a padded label that is none is NaN.
        value = jnp.sum(jnp.where(scale == 0, 0, scale * upcast(values)))
        y_ct = jax.tree.map(
            lambda ct, z: ct.astype(z.dtype), loss_pullback(scale.astype(values.dtype)), forward.y
        )
        backward = network.bwd(computed, forward.residuals, y_ct, contraction, aux, ())
        treedef = jax.tree.structure(params)
        pairs = treedef.flatten_up_to(backward.collected)
        return Sweep(
            value,
            treedef.unflatten([gradient for gradient, _ in pairs]),
            forward.state,
            backward.x_ct,
            forward.activations if "activations" in collect else None,
            _cotangents(backward.cotangents) if "cotangents" in collect else None,
            _deltas(backward.cotangents) if "deltas" in collect else None,
            values.sum(tuple(range(1, values.ndim))) if "per_example" in collect else None,
            None if visit is None else treedef.unflatten([seen for _, seen in pairs]),
        )

    def sweep(
        params: PyTree,
        x: PyTree,
        y: PyTree,
        *,
        state: PyTree = (),
        key: jax.Array | None = None,
        weights: jax.Array | None = None,
        mask: PyTree = None,
        positions: PyTree = None,
        aux: PyTree = None,
    ) -> Sweep:
        params, x, y = jax.tree.map(jnp.asarray, (params, x, y))
        _check_call(params, x, y, frozen)
        weights = example_weights(weights, jax.tree.leaves(x)[0].shape[0])
        total = jnp.sum(weights) if reduction == "mean" else None
        batch = _Batch(x, y, weights, mask, positions)
        with precision.products():
            if microbatches == 1:
                result = one_sweep(params, batch, total, state, key, aux)
            else:
                result = _accumulated(one_sweep, microbatches, params, batch, total, state, key)
        return result._replace(grads=_as(result.grads, params), x_ct=_as(result.x_ct, x))

    return sweep


def value_and_grad(network: Layer, loss: LossLike, **options: Any) -> Callable[..., tuple[jax.Array, PyTree]]:
    """The plain case of `backprop`: `(params, x, y, **arrays) -> (value, grads)`. Same options, same sweep.

    >>> from funcbp import layers, rules
    >>> network = layers.dense(1)
    >>> x, y = jnp.array([[1.0, 2.0]]), jnp.array([[1.0]])
    >>> params = {"w": jnp.array([[1.0], [1.0]]), "b": jnp.array([0.0])}
    >>> value, grads = value_and_grad(network, rules.l2_loss)(params, x, y)
    >>> float(value), grads["w"].tolist()
    (2.0, [[2.0], [4.0]])
    """
    sweep = backprop(network, loss, **options)

    @functools.wraps(sweep)
    def values_and_grads(*args: Any, **kwargs: Any) -> tuple[jax.Array, PyTree]:
        result = sweep(*args, **kwargs)
        return result.value, result.grads

    return values_and_grads


def predict(network: Layer, *, precision: Precision | None = None) -> Callable[..., PyTree]:
    """The evaluation pass: `(params, x, *, state=(), mask=None, positions=None) -> outputs`.

    Outputs are in float32 at least.

    >>> from funcbp import layers
    >>> predict(layers.activation("relu"))((), jnp.array([-1.0, 2.0]))
    Array([0., 2.], dtype=float32)
    """
    precision = precision or Precision()

    def outputs(
        params: PyTree, x: PyTree, *, state: PyTree = (), mask: PyTree = None, positions: PyTree = None
    ) -> PyTree:
        with precision.products():
            params, x = jax.tree.map(jnp.asarray, (params, x))
            y = network.fwd(
                precision.cast(params), state, precision.cast(x), Context(None, False, mask, positions)
            ).y
        return upcast_tree(y)

    return outputs


def _as(cotangents: PyTree, like: PyTree) -> PyTree:
    """Cotangents in the dtypes of what they are cotangents of; None, for what has no derivative, stays."""
    return jax.tree.map(
        lambda ct, a: None if ct is None else ct.astype(a.dtype),
        cotangents,
        like,
        is_leaf=lambda n: n is None,
    )


def _accumulated(
    one_sweep: Callable[..., Sweep],
    parts: int,
    params: PyTree,
    batch: _Batch,
    total: jax.Array | None,
    state: PyTree,
    key: jax.Array | None,
) -> Sweep:
    size = batch.weights.shape[0]
    if size % parts:
        raise ValueError(f"backprop: a batch of {size} cannot be split into {parts} equal microbatches.")
    for what in ("mask", "positions"):
        for a in jax.tree.leaves(getattr(batch, what)):
            if jnp.shape(a)[:1] != (size,):
                raise ValueError(
                    f"backprop: with microbatches the first axis of `{what}` must be the batch of {size}, "
                    f"got {describe(a)}; broadcast it."
                )

    def step(
        carry: tuple[jax.Array, PyTree, PyTree], each: tuple[_Batch, jax.Array]
    ) -> tuple[tuple[jax.Array, PyTree, PyTree], PyTree]:
        value, grads, state = carry
        part, index = each
        part_key = None if key is None else jax.random.fold_in(key, index)
        result = one_sweep(params, part, total, state, part_key, None)
        grads = jax.tree.map(jnp.add, grads, result.grads)
        return (value + result.value, grads, result.state), (result.x_ct, result.per_example)

    parted = jax.tree.map(lambda a: jnp.reshape(a, (parts, size // parts, *jnp.shape(a)[1:])), batch)
    zeros = jax.tree.map(lambda p: jnp.zeros(p.shape, upcast(p).dtype), params)
    one = jax.tree.map(lambda a: a[0], parted)
    value = jax.eval_shape(lambda part: one_sweep(params, part, total, state, key, None).value, one)
    carry = (jnp.zeros((), value.dtype), zeros, state)
    (value, grads, state), (x_ct, per_example) = lax.scan(step, carry, (parted, jnp.arange(parts)))
    x_ct, per_example = jax.tree.map(lambda a: a.reshape(size, *a.shape[2:]), (x_ct, per_example))
    return Sweep(value, grads, state, x_ct, per_example=per_example)


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


def _check_options(network: Layer, collect: Any, reduction: str, microbatches: int, visit: Any) -> None:
    if not isinstance(network, Layer):
        raise TypeError(f"backprop: `network` must be a Layer, got {type(network).__name__}.")
    if isinstance(collect, str) or (unknown := [c for c in collect if c not in COLLECTIBLE]):
        wrong = collect if isinstance(collect, str) else unknown[0]
        raise ValueError(f"backprop: `collect` must be a tuple of names out of {COLLECTIBLE}, got {wrong!r}.")
    if reduction not in ("mean", "sum"):
        raise ValueError(f"backprop: `reduction` must be 'mean' or 'sum', got {reduction!r}.")
    if not isinstance(microbatches, int):
        raise TypeError(f"backprop: `microbatches` must be a whole number, got {microbatches!r}.")
    if microbatches < 1:
        raise ValueError(f"backprop: `microbatches` must be at least 1, got {microbatches}.")
    if microbatches > 1 and (visit is not None or set(collect) - {"per_example"}):
        raise ValueError(
            "backprop: with microbatches only 'per_example' can be collected: keeping more for every part "
            "would take the memory that microbatches are there to save."
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
