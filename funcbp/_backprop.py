"""`backprop`: loss and network to value, gradients, δ's and whatever else is to be had in the same sweep."""

import functools
from collections.abc import Callable, Collection
from typing import Any

import jax
from jax import numpy as jnp

from ._frozen import Frozen
from ._loss import LossLike
from ._microbatches import accumulated, check_microbatches
from ._precision import Precision, upcast_tree
from ._sweep import Batch, Reduction, Setup, Sweep, batch_of, in_dtypes_of, setup
from ._visits import PER_EXAMPLE
from .layers import Context, Layer
from .layers._layer import Visit

__all__ = ["Precision", "Sweep", "backprop", "predict", "value_and_grad"]

PyTree = Any
COLLECTIBLE = ("activations", "cotangents", "deltas", "per_example", *PER_EXAMPLE)
# What can be had of a batch in parts: sums, and arrays that the parts' are joined to.
_SUMMED = ("value", "grads", "second_moment")
_JOINED = ("x_ct", "per_example", "norms", "squared_norms")


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
        collect: any of the names of `Sweep`'s optional fields: "activations", "cotangents", "deltas",
            "per_example"; and of what is made of the gradient g_n of each example's own loss, in this same
            sweep, without the gradients of examples being formed: "norms", "squared_norms", "gram",
            "second_moment", "per_example_grads" (which is to form them), "kronecker", "factors".
        reduction: "mean" divides by the sum of the weights, by default the number of examples; "sum" does
            not. A loss that has more axes than the weights is summed over them: mean over examples, sum over
            outputs.
        frozen: parameters to leave alone: names or prefixes of dotted paths ("0", "embed.table"), or a
            predicate on them. Their gradients are zero and their products are not computed.
        precision: see `Precision`.
        microbatches: split the batch into so many equal parts, one after the other in a scan, in the memory
            of one part. Value and gradients are those of the full batch, so that layers that couple its
            examples (batch normalization in training) refuse; the state passes through; each part has a
            random key of its own. Norms are joined, second moments added; what is as large as the gradients
            of all examples, or pairs them, is refused.
        train: False for the gradient of the evaluation pass (no dropout, running statistics).
        visit: `visit(path, parameter, factor, aux_leaf)` is called for every parameter beside the gradient's
            contraction; the parameter is in the compute dtype.

    The own loss of an example is w_n ℓ_n, or Σ_t w_nt ℓ_nt for weights of positions; it is not divided by the
    sum of the weights, whatever the reduction. So Σ g_n is the gradient for `reduction="sum"`, and an example
    that fills up a batch, with weight 0, has g_n = 0. Where layers couple examples (batch normalization in
    training) there is no g_n, and they refuse.

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
    >>> backprop(network, rules.l2_loss, collect=("norms",))(params, x, y).norms.shape
    (4,)
    """
    _check_options(collect, microbatches, visit)
    options = setup(network, loss, reduction, frozen, precision, train)

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
        params, batch = batch_of(params, x, y, weights, mask, positions, frozen)
        total = jnp.sum(batch.weights) if reduction == "mean" else None
        names = ("grads", *collect)
        with options.precision.products():
            if microbatches == 1:
                result = options.run(params, batch, total, state, key, aux, collect=names, visit=visit)
            else:
                result = _in_parts(options, microbatches, params, batch, total, state, key, names)
        return result._replace(
            grads=in_dtypes_of(result.grads, params), x_ct=in_dtypes_of(result.x_ct, batch.x)
        )

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


def _in_parts(
    options: Setup,
    parts: int,
    params: PyTree,
    batch: Batch,
    total: jax.Array | None,
    state: PyTree,
    key: jax.Array | None,
    names: Collection[str],
) -> Sweep:
    def step(part: Batch, state: PyTree, key: jax.Array | None) -> tuple[PyTree, PyTree, PyTree]:
        result = options.run(params, part, total, state, key, collect=names, independent=True)
        summed, joined = ({name: getattr(result, name) for name in kind} for kind in (_SUMMED, _JOINED))
        return summed, joined, result.state

    summed, joined, state = accumulated(step, parts, batch, state, key)
    return Sweep(state=state, **summed, **joined)


def _check_options(collect: Any, microbatches: Any, visit: Any) -> None:
    if isinstance(collect, str) or (unknown := [c for c in collect if c not in COLLECTIBLE]):
        wrong = collect if isinstance(collect, str) else unknown[0]
        raise ValueError(f"backprop: `collect` must be a tuple of names out of {COLLECTIBLE}, got {wrong!r}.")
    check_microbatches(microbatches)
    possible = [name for name in (*_SUMMED, *_JOINED) if name in COLLECTIBLE]
    if microbatches > 1 and (visit is not None or set(collect) - set(possible)):
        raise ValueError(
            f"backprop: with microbatches only {', '.join(map(repr, possible))} can be collected: keeping "
            "more for every part would take the memory that microbatches are there to save."
        )
