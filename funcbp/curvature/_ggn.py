"""Diagonal and trace of the generalized Gauss-Newton matrix, exact or sampled."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import optax
from jax import lax
from jax import numpy as jnp

from .._frozen import Frozen
from .._loss import LossLike
from .._numerics import matmul, upcast
from .._precision import Precision
from .._reduction import value_cotangent
from .._sweep import Batch, Reduction, Setup, batch_of, setup
from ..factors import Factor, Outer
from ..layers import Context, Layer
from ._columns import COLUMNS, Forwarded, Root, check_columns, forwarded
from ._loss import RootLike, draws, roots

__all__ = ["Curved", "ggn_diagonal", "ggn_trace", "hessian_diagonal_source", "second_moment"]

PyTree = Any
# So that sampled targets share no random numbers with the layers.
_TARGETS = 0x7A26


def ggn_diagonal(
    network: Layer,
    loss: LossLike,
    *,
    samples: int | None = None,
    root: RootLike = None,
    reduction: Reduction = "mean",
    frozen: Frozen = (),
    precision: Precision | None = None,
    train: bool = True,
    at_once: int = 16,
) -> Callable[..., PyTree]:
    """diag Σ_n w_n J_nᵀ H_n J_n, the diagonal of the generalized Gauss-Newton matrix, in the tree of params.

    J_n = ∂z_n/∂θ are the outputs' derivatives, H_n = S_n S_nᵀ the loss's Hessian with respect to them. One
    forward pass; the columns of S go back together, and every factor is contracted to Σ_nc (J_nᵀ s_nc)² as
    soon as its δ is there. For a weight without positions that is

        (A²)ᵀ Σ_c Δ_c²

    one product for all columns. For the outputs' own parameters of a likelihood it is the diagonal of the
    Fisher matrix, and with `samples` its unbiased estimate from so many targets drawn from the model.

    A loss with values at T positions of an example and C columns each takes T C columns to be exact; sampled
    it takes `samples`.

    Args:
        network: a Layer. Layers that couple examples refuse.
        loss: as for `funcbp.backprop`; see `hessian_root` for those that have a root.
        samples: None for the exact diagonal; else how many targets are drawn for every example. Needs `key`.
        root: `(outputs, targets) -> (columns, *outputs)` in place of the loss's own S.
        reduction: "mean" divides by the sum of the weights, "sum" does not.
        frozen: as for `funcbp.backprop`; the diagonal is 0 there.
        precision: as for `funcbp.backprop`.
        train: as for `funcbp.backprop`.
        at_once: how many columns go back together: the δ's of so many are held at a time.

    Returns:
        `(params, x, y, *, state=(), key=None, weights=None, mask=None, positions=None) -> diagonal`, a pure
        function; float32 at least. Weights must not be negative.

    Raises:
        TypeError, ValueError: as `funcbp.backprop` and `hessian_root`.

    >>> from funcbp import layers, rules
    >>> diagonal = ggn_diagonal(layers.dense(1, bias=False), rules.l2_loss, reduction="sum")
    >>> x = jnp.array([[1.0, 2.0], [3.0, 4.0]])
    >>> diagonal({"w": jnp.zeros((2, 1))}, x, jnp.zeros((2, 1)))["w"].ravel()
    Array([10., 20.], dtype=float32)
    """
    curved = Curved(setup(network, loss, reduction, frozen, precision, train), loss, samples, root, at_once)

    def diagonal(params: PyTree, x: PyTree, y: PyTree, **arrays: Any) -> PyTree:
        params, batch, arrays = curved.arguments(params, x, y, **arrays)
        with curved.options.precision.products():
            done, columns = curved.at(params, batch, **arrays)
            leaves = columns.summed(lambda s: done.back(s, second_moment), at_once)
        return done.tree(leaves, zero=True)

    return diagonal


def ggn_trace(
    network: Layer,
    loss: LossLike,
    *,
    samples: int | None = None,
    root: RootLike = None,
    reduction: Reduction = "mean",
    frozen: Frozen = (),
    precision: Precision | None = None,
    train: bool = True,
    at_once: int = 16,
) -> Callable[..., jax.Array]:
    """The trace of the generalized Gauss-Newton matrix, tr Σ_n w_n J_nᵀ H_n J_n = Σ_nc ‖J_nᵀ s_nc‖².

    From squared norms, without any J_nᵀ s_nc that need not be formed: the sum of `ggn_diagonal`, for less.

    Args:
        network: as for `ggn_diagonal`, as are all others.
        loss: see there.
        samples: see there.
        root: see there.
        reduction: see there.
        frozen: frozen parameters take no part.
        precision: see there.
        train: see there.
        at_once: see there.

    Returns:
        `(params, x, y, *, state=(), key=None, weights=None, mask=None, positions=None) -> trace`, a scalar.

    >>> from funcbp import layers, rules
    >>> trace = ggn_trace(layers.dense(1), rules.l2_loss, reduction="sum")
    >>> x = jnp.array([[1.0, 2.0], [3.0, 4.0]])
    >>> float(trace({"w": jnp.zeros((2, 1)), "b": jnp.zeros(1)}, x, jnp.zeros((2, 1))))
    32.0
    """
    curved = Curved(setup(network, loss, reduction, frozen, precision, train), loss, samples, root, at_once)

    def contract(factor: Factor, _: PyTree) -> jax.Array:
        return lax.psum(jnp.sum(factor.squared_norms()), COLUMNS)

    def trace(params: PyTree, x: PyTree, y: PyTree, **arrays: Any) -> jax.Array:
        params, batch, arrays = curved.arguments(params, x, y, **arrays)
        with curved.options.precision.products():
            done, columns = curved.at(params, batch, **arrays)
            # A scan over blocks has the trace of each.
            leaves = columns.summed(lambda s: done.back(s, contract), at_once)
        return sum((jnp.sum(leaf) for leaf in jax.tree.leaves(leaves)), jnp.zeros(()))

    return trace


class SourceState(NamedTuple):
    """State of `hessian_diagonal_source`."""

    key: jax.Array


def hessian_diagonal_source(
    network: Layer, loss: LossLike, *, seed: int = 0, samples: int | None = 1, **options: Any
) -> optax.GradientTransformationExtraArgs:
    """`ggn_diagonal` as the source of curvature of an optax optimizer: for `optax.contrib.sophia`.

    `update(updates, state, params, *, batch, arrays={}, **others)` gives the diagonal for `batch = (x, y)`;
    `arrays` are the keyword arguments of `ggn_diagonal`'s function, without the key, which the state has.
    With one sample it is Sophia's Gauss-Newton-Bartlett estimator with the examples' own gradients in place
    of the batch's: unbiased, too, but with much less variance (Liu et al. 2023, arXiv:2305.14342).

    Args:
        network: as for `ggn_diagonal`.
        loss: as for `ggn_diagonal`.
        seed: of the sampled targets and the layers' random numbers.
        samples: as for `ggn_diagonal`.
        options: those of `ggn_diagonal`.

    >>> import optax.contrib
    >>> from funcbp import layers, rules
    >>> network, x, y = layers.dense(1, bias=False), jnp.ones((4, 2)), jnp.ones((4, 1))
    >>> source = hessian_diagonal_source(network, rules.l2_loss, samples=None)
    >>> optimizer = optax.contrib.sophia(0.1, hessian_diagonal_fn=source)
    >>> params = {"w": jnp.zeros((2, 1))}
    >>> updates, _ = optimizer.update({"w": -jnp.ones((2, 1))}, optimizer.init(params), params, batch=(x, y))
    >>> updates["w"].ravel()
    Array([0.1, 0.1], dtype=float32)
    """
    diagonal = ggn_diagonal(network, loss, samples=samples, **options)

    def init(params: PyTree) -> SourceState:
        del params
        return SourceState(jax.random.key(seed))

    def update(
        updates: PyTree,
        state: Any,
        params: PyTree = None,
        *,
        batch: tuple[PyTree, PyTree] | None = None,
        arrays: dict[str, Any] | None = None,
        **others: Any,
    ) -> tuple[PyTree, SourceState]:
        del others
        if params is None or batch is None:
            raise ValueError(
                "hessian_diagonal_source: `update` needs `params`, and `batch=(x, y)` as an extra argument."
            )
        key, now = jax.random.split(state.key)
        found = diagonal(params, *batch, key=now, **(arrays or {}))
        # Optimizers keep their averages in the dtype of the updates.
        return jax.tree.map(lambda d, u: d.astype(u.dtype), found, updates), SourceState(key)

    return optax.GradientTransformationExtraArgs(init, update)


@dataclass(frozen=True)
class Curved:
    """A network and a loss whose Hessian's root goes back, with the options of that.

    Attributes:
        options: of the sweep.
        loss: as the user gave it.
        samples: how many targets are drawn; None for the exact root.
        root: the user's own.
        at_once: how many columns go back together.
    """

    options: Setup
    loss: LossLike
    samples: int | None
    root: RootLike
    at_once: int

    def __post_init__(self) -> None:
        check_columns(self.at_once, self.samples)

    def arguments(
        self,
        params: PyTree,
        x: PyTree,
        y: PyTree,
        *,
        state: PyTree = (),
        key: jax.Array | None = None,
        weights: jax.Array | None = None,
        mask: PyTree = None,
        positions: PyTree = None,
    ) -> tuple[PyTree, Batch, dict[str, Any]]:
        """Params and batch, checked, and the rest."""
        params, batch = batch_of(params, x, y, weights, mask, positions, self.options.frozen)
        return params, batch, {"state": state, "key": key}

    def at(
        self, params: PyTree, batch: Batch, *, state: PyTree, key: jax.Array | None
    ) -> tuple[Forwarded, Root]:
        """The forward pass, and what goes back from its outputs."""
        options = self.options
        context = Context(key, options.train, batch.mask, batch.positions)
        done = forwarded(
            options.network,
            params,
            batch.x,
            state,
            context,
            frozen=options.frozen,
            precision=options.precision,
        )
        return done, self.columns(done, batch, key)

    def columns(self, done: Forwarded, batch: Batch, key: jax.Array | None) -> Root:
        """√(w_n / Σ w) S_n, or so many sampled columns."""
        values = jax.eval_shape(lambda z: self.options.evaluate(z, batch.y)[0], done.z)
        total = jnp.sum(batch.weights) if self.options.reduction == "mean" else None
        scale = jnp.sqrt(value_cotangent(values, batch.weights, total))
        if self.samples is None:
            columns, shape = roots(self.loss, self.root)(done.z, batch.y), values.shape
        elif key is None:
            raise ValueError(
                f"curvature: with samples={self.samples} targets are drawn; give `key=jax.random.key(...)`."
            )
        else:
            keys = jax.random.split(jax.random.fold_in(key, _TARGETS), self.samples)
            draw = draws(self.loss, self.root)
            columns = jax.vmap(lambda key: draw(key, done.z, batch.y))(keys) / math.sqrt(self.samples)
            shape = values.shape[:1]
        scale = scale.reshape(*scale.shape, *(1,) * (done.z.ndim - scale.ndim)).astype(columns.dtype)
        # What has no weight may be anything, and its root none.
        return Root(jnp.where(scale == 0, 0, scale * columns), shape)


def second_moment(factor: Factor, _: PyTree = None) -> jax.Array:
    """Σ_nc g_nc ⊙ g_nc, over examples and the vmapped columns."""
    if isinstance(factor, Outer) and factor.a.ndim == 2:
        squares = lax.psum(jnp.square(upcast(factor.delta)), COLUMNS)
        return matmul(jnp.square(upcast(factor.a)).T, squares)
    return lax.psum(factor.second_moment(), COLUMNS)
