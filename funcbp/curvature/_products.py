"""Products of a vector with the generalized Gauss-Newton matrix and with the Hessian."""

from collections.abc import Callable
from typing import Any

import jax
from jax import numpy as jnp
from jax.tree_util import tree_map_with_path

from .._backprop import backprop
from .._frozen import Frozen, frozen_predicate
from .._loss import LossLike
from .._precision import Precision, upcast_tree
from .._reduction import value_cotangent
from .._signature import describe
from .._sweep import Reduction, batch_of, in_dtypes_of, setup
from .._visits import visitor
from ..layers import Context, Layer
from ..layers._layer import path_string

__all__ = ["ggn_vector_product", "hessian_vector_product"]

PyTree = Any


def ggn_vector_product(
    network: Layer,
    loss: LossLike,
    *,
    reduction: Reduction = "mean",
    frozen: Frozen = (),
    precision: Precision | None = None,
    train: bool = True,
) -> Callable[..., PyTree]:
    """G v for the generalized Gauss-Newton matrix G = Σ_n w_n J_nᵀ H_n J_n, in one pass forward and one back.

    Forward mode gives J v beside the outputs, forward mode of the loss's derivative H J v, and the network's
    `bwd` Jᵀ H J v. No root of H is needed: the loss may be any, and examples may be coupled.

    Args:
        network: a Layer.
        loss: as for `funcbp.backprop`, as are all others.
        reduction: see there.
        frozen: frozen parameters take no part: rows and columns of G are 0.
        precision: see there.
        train: see there.

    Returns:
        `(params, v, x, y, *, state=(), key=None, weights=None, mask=None, positions=None) -> G v`, with the
        tree, shapes and dtypes of the parameters, which `v` must have.

    >>> from funcbp import layers, rules
    >>> product = ggn_vector_product(layers.dense(1, bias=False), rules.l2_loss)
    >>> w, x = jnp.zeros((2, 1)), jnp.array([[1.0, 2.0], [3.0, 4.0]])
    >>> product({"w": w}, {"w": jnp.ones((2, 1))}, x, jnp.zeros((2, 1)))["w"].ravel()
    Array([12., 17.], dtype=float32)
    """
    options = setup(network, loss, reduction, frozen, precision, train)

    def product(
        params: PyTree,
        v: PyTree,
        x: PyTree,
        y: PyTree,
        *,
        state: PyTree = (),
        key: jax.Array | None = None,
        weights: jax.Array | None = None,
        mask: PyTree = None,
        positions: PyTree = None,
    ) -> PyTree:
        params, batch = batch_of(params, x, y, weights, mask, positions, frozen)
        v = _direction(params, v, frozen)
        policy = options.precision
        context = Context(key, train, batch.mask, batch.positions)

        def outputs(params: PyTree) -> tuple[PyTree, PyTree]:
            forward = network.fwd(params, state, policy.cast(batch.x), context)
            return forward.y, forward.residuals

        def slope(z: PyTree) -> PyTree:
            values, pullback = options.evaluate(z, upcast_tree(batch.y))
            total = jnp.sum(batch.weights) if reduction == "mean" else None
            return pullback(value_cotangent(values, batch.weights, total).astype(values.dtype))

        with policy.products():
            computed = policy.cast(params)
            z, z_t, residuals = jax.jvp(outputs, (computed,), (policy.cast(v),), has_aux=True)
            _, z_ct = jax.jvp(slope, (upcast_tree(z),), (upcast_tree(z_t),))
            z_ct = jax.tree.map(lambda ct, z: ct.astype(z.dtype), z_ct, z)
            visit = visitor(("grads",), frozen_predicate(frozen), None, batch.weights.shape[0], None)
            met = network.bwd(computed, residuals, z_ct, visit, None, ()).collected
            treedef = jax.tree.structure(params)
            found = treedef.unflatten([m.values["grads"] for m in treedef.flatten_up_to(met)])
        return in_dtypes_of(found, params)

    return product


def hessian_vector_product(network: Layer, loss: LossLike, **options: Any) -> Callable[..., PyTree]:
    """H v with the Hessian H = ∂²value/∂θ² of the reduced loss: forward mode through the whole sweep.

    The sweep is plain JAX, with no `custom_vjp` in it: its derivative in the direction v takes about twice
    its own work, and no other matrix.

    Args:
        network: a Layer.
        loss: as for `funcbp.backprop`.
        options: those of `funcbp.backprop`. Rows and columns of frozen parameters are 0.

    Returns:
        `(params, v, x, y, **arrays) -> H v`, with the tree, shapes and dtypes of the parameters, which `v`
        must have; `arrays` are those of the sweep.

    >>> from funcbp import layers, rules
    >>> product = hessian_vector_product(layers.activation("tanh"), rules.l2_loss)
    >>> product((), (), jnp.ones((1, 1)), jnp.zeros((1, 1)))
    ()
    """
    sweep = backprop(network, loss, **options)

    def product(params: PyTree, v: PyTree, x: PyTree, y: PyTree, **arrays: Any) -> PyTree:
        params = jax.tree.map(jnp.asarray, params)
        v = _direction(params, v, options.get("frozen", ()))
        return jax.jvp(lambda params: sweep(params, x, y, **arrays).grads, (params,), (v,))[1]

    return product


def _direction(params: PyTree, v: PyTree, frozen: Frozen) -> PyTree:
    """v as arrays of the parameters' dtypes, zero at frozen ones; checked."""
    is_frozen = frozen_predicate(frozen)
    v = jax.tree.map(jnp.asarray, v)
    if jax.tree.structure(v) != jax.tree.structure(params):
        raise ValueError(
            f"curvature: `v` must have the tree of `params`, {jax.tree.structure(params)}; it has "
            f"{jax.tree.structure(v)}."
        )

    def checked(path: Any, p: jax.Array, v: jax.Array) -> jax.Array:
        if p.shape != v.shape:
            raise ValueError(
                f"curvature: `v` is {describe(v)} at `{path_string(path)}`, which is {describe(p)}."
            )
        return jnp.zeros_like(p) if is_frozen(path_string(path)) else v.astype(p.dtype)

    return tree_map_with_path(checked, params, v)
