"""Kronecker factors of the generalized Gauss-Newton matrix, with the gradient, from one forward pass."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
from jax import lax
from jax import numpy as jnp
from jax.tree_util import DictKey, KeyPath, tree_flatten_with_path

from .._frozen import Frozen
from .._loss import LossLike
from .._numerics import contracted, matmul, upcast
from .._precision import Precision, upcast_tree
from .._reduction import value_cotangent
from .._sweep import Batch, Reduction, in_dtypes_of, setup
from ..factors import Factor, Outer, Patches
from ..layers import Layer
from ._columns import COLUMNS, Forwarded
from ._ggn import Curved, second_moment
from ._loss import RootLike

__all__ = ["Basis", "Curvature", "WithCurvature", "bias_of", "kronecker_curvature"]

PyTree = Any
Form = Literal["expand", "reduce"]


class Curvature(NamedTuple):
    """The curvature of one parameter; what it has none of is None.

    A bias that is in the rows of its weight has nothing, nor has a frozen parameter.

    Attributes:
        rows: A = 1/M Σ ā āᵀ of a weight, `(*stack, in, in)`, where ā is a, with a 1 behind it if the weight
            has a bias: `(*stack, in + 1, in + 1)`.
        columns: G = Σ_nc δ_nc δ_ncᵀ of a weight, `(*stack, out, out)`.
        moment: of a weight, if a basis was given, Σ_nc (Uᵀ g_nc V)² of the gradients in that basis; of any
            other parameter the diagonal, in its shape.
    """

    rows: jax.Array | None = None
    columns: jax.Array | None = None
    moment: jax.Array | None = None


class Basis(NamedTuple):
    """Eigenvectors of a weight's A and G, in columns."""

    rows: jax.Array
    columns: jax.Array


class WithCurvature(NamedTuple):
    """The result of `kronecker_curvature`.

    Attributes:
        value: the reduced loss.
        grads: its gradient, with the tree and dtypes of the parameters.
        state: the network's new state.
        curvature: a `Curvature` for every parameter.
    """

    value: jax.Array
    grads: PyTree
    state: PyTree
    curvature: PyTree


class _First(NamedTuple):
    """What the gradient's pass leaves: the gradient, and Ā of what is a weight."""

    gradient: jax.Array
    rows: jax.Array | None


def kronecker_curvature(
    network: Layer,
    loss: LossLike,
    *,
    samples: int | None = 1,
    form: Form = "expand",
    root: RootLike = None,
    reduction: Reduction = "mean",
    frozen: Frozen = (),
    precision: Precision | None = None,
    train: bool = True,
    at_once: int = 16,
) -> Callable[..., WithCurvature]:
    """Gradient and K-FAC's factors: A ⊗ G for the block of every weight of the Gauss-Newton matrix.

    For p = ā W̄, where W̄ is the weight of a dense layer or convolution with its bias as the last row, and ā
    the input, or patch, with a 1 behind it, the block is Σ_n Σ_c vec(ā_n δ_ncᵀ) vec(ā_n δ_ncᵀ)ᵀ, of which

        A = 1/M Σ ā āᵀ        G = Σ_nc δ_nc δ_ncᵀ        A ⊗ G ≈ Σ_nc (ā_n ā_nᵀ) ⊗ (δ_nc δ_ncᵀ)

    (Martens & Grosse 2015, arXiv:1503.05671; vec stacks rows, `jnp.ravel`). δ_nc is what a column of the root
    of the loss's Hessian becomes: sampled targets by default, the model's own and not the data's, so that it
    is the Fisher matrix and not the "empirical" one. It is exact for one example without positions, and for a
    deep linear network under squared error (Bernacchia et al. 2018).

    With positions, `form` is that of `Outer.kronecker`: "expand" takes every position as an example, exact
    for a deep linear network whose loss is a sum over positions; "reduce" means a and adds up δ over them,
    exact for one that averages over positions (Eschenhagen et al. 2023, arXiv:2311.00636).

    A bias is in its weight's block if both are `w` and `b` of the same layer. All that is no such weight or
    bias (gains, embeddings, shared weights) has the exact diagonal of its block of the (sampled) matrix.

    Args:
        network: a Layer. Layers that couple examples refuse.
        loss: as for `ggn_diagonal`, as are all others.
        samples: targets drawn for every example; None for the exact columns. Needs `key`.
        form: "expand" or "reduce".
        root: see `ggn_diagonal`.
        reduction: see there.
        frozen: frozen parameters take no part, and have a gradient of 0.
        precision: see there.
        train: see there.
        at_once: see there.

    Returns:
        `(params, x, y, *, bases=None, state=(), key=None, weights=None, mask=None, positions=None) ->
        WithCurvature`, a pure function. `bases` is a tree of `Basis` for weights, of None for others: with it
        the second moments in that basis are collected, too (EKFAC: George et al. 2018, arXiv:1806.03884).

    >>> from funcbp import layers, rules
    >>> sweep = kronecker_curvature(layers.dense(1), rules.l2_loss, samples=None)
    >>> params = {"w": jnp.zeros((1, 1)), "b": jnp.zeros(1)}
    >>> found = sweep(params, jnp.array([[2.0]]), jnp.array([[3.0]])).curvature
    >>> found["w"].rows.tolist(), found["w"].columns.tolist(), found["b"].rows
    ([[4.0, 2.0], [2.0, 1.0]], [[1.0]], None)
    """
    if form not in ("expand", "reduce"):
        raise ValueError(f"kronecker_curvature: `form` must be 'expand' or 'reduce', got {form!r}.")
    curved = Curved(setup(network, loss, reduction, frozen, precision, train), loss, samples, root, at_once)

    def first(factor: Factor, _: PyTree) -> _First:
        matrix = _matrix(factor, form)
        return _First(upcast(factor.gradient()), None if matrix is None else _rows(matrix))

    def second(factor: Factor, basis: Basis | None) -> tuple[jax.Array | None, jax.Array | None]:
        matrix = _matrix(factor, form)
        if matrix is None:
            return None, second_moment(factor)
        width = matrix.delta.shape[-1]
        delta = matrix.delta.reshape(-1, width)
        columns = lax.psum(matmul(delta.T, delta), COLUMNS)
        return columns, None if basis is None else second_moment(_rotated(factor, basis))

    def sweep(params: PyTree, x: PyTree, y: PyTree, *, bases: PyTree = None, **arrays: Any) -> WithCurvature:
        params, batch, arrays = curved.arguments(params, x, y, **arrays)
        with curved.options.precision.products():
            done, root = curved.at(params, batch, **arrays)
            value, z_ct = _loss(curved, done, batch)
            ones = done.back(z_ct, first)
            twos = root.summed(lambda s: done.back(s, second, aux=bases), at_once)
        grads = done.tree([None if one is None else one.gradient for one in ones], zero=True)
        found = _assembled(params, ones, twos)
        return WithCurvature(value, in_dtypes_of(grads, params), done.state, done.tree(found))

    return sweep


def bias_of(path: KeyPath) -> KeyPath | None:
    """Where the bias of the weight at a path would be; None for what is not called a weight."""
    return (*path[:-1], DictKey("b")) if path and path[-1] == DictKey("w") else None


def _loss(curved: Curved, done: Forwarded, batch: Batch) -> tuple[jax.Array, PyTree]:
    """The value and ∂value/∂z."""
    values, pullback = curved.options.evaluate(done.z, upcast_tree(batch.y))
    total = jnp.sum(batch.weights) if curved.options.reduction == "mean" else None
    scale = value_cotangent(values, batch.weights, total)
    value = jnp.sum(jnp.where(scale == 0, 0, scale * upcast(values)))
    return value, pullback(scale.astype(values.dtype))


def _assembled(params: PyTree, ones: list[_First | None], twos: list[Any]) -> list[Curvature]:
    """Biases into the blocks of their weights; Ā without its last row and column for weights without one."""
    leaves = tree_flatten_with_path(params)[0]
    at = {path: i for i, (path, _) in enumerate(leaves)}
    found = [Curvature() if two is None else Curvature(None, *two) for two in twos]
    for i, (path, weight) in enumerate(leaves):
        one = ones[i]
        if one is None or one.rows is None:
            continue
        rows, bias = one.rows, at.get(bias_of(path))
        stack = rows.shape[:-2]
        if bias is None or ones[bias] is None or leaves[bias][1].shape != (*stack, weight.shape[-1]):
            rows, moment = rows[..., :-1, :-1], found[i].moment
        else:
            found[bias], moment = Curvature(), found[i].moment
        found[i] = Curvature(rows, found[i].columns, moment)
    return found


def _matrix(factor: Factor, form: Form) -> Outer | None:
    """A weight as `(examples, positions, width)`, one position for "reduce"; None for what is none."""
    if isinstance(factor, Patches) and factor.geometry.groups == 1:
        factor = factor.unfolded()
    if not isinstance(factor, Outer):
        return None
    a, delta = (upcast(x).reshape(x.shape[0], -1, x.shape[-1]) for x in (factor.a, factor.delta))
    if form == "reduce":
        a, delta = a.mean(1, keepdims=True), delta.sum(1, keepdims=True)
    return Outer(a, delta)


def _rows(matrix: Outer) -> jax.Array:
    """1/M Σ ā āᵀ with a 1 behind every a."""
    a = _with_one(matrix.a.reshape(-1, matrix.a.shape[-1]))
    return matmul(a.T, a) / max(1, a.shape[0])


def _with_one(a: jax.Array) -> jax.Array:
    return jnp.concatenate([a, jnp.ones((*a.shape[:-1], 1), a.dtype)], -1)


def _rotated(factor: Factor, basis: Basis) -> Outer:
    """The factor of Uᵀ g V, the gradients of examples in a basis."""
    outer = factor.unfolded() if isinstance(factor, Patches) else factor
    assert isinstance(outer, Outer)
    a = upcast(outer.a)
    a = a if basis.rows.shape[0] == a.shape[-1] else _with_one(a)
    return Outer(
        contracted("...i,ij->...j", a, basis.rows),
        contracted("...i,ij->...j", upcast(outer.delta), basis.columns),
    )
