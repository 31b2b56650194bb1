"""Tangent kernels and the diagonal of the Gauss-Newton matrix of an MLP without funcbp, each way there is.

`forward(params, zeros, x)` of `exploit_rivals`: zeros are added to every pre-activation, so that the
derivative with respect to them is every δ. What comes after is the expert's own work for dense layers.
"""

from collections.abc import Callable
from typing import Any

import jax
from jax import lax
from jax import numpy as jnp

from scripts.exploit_rivals import Plain

PyTree = Any
Function = Callable[..., PyTree]


def _output_deltas(plain: Plain, params: PyTree, x: jax.Array, columns: Function) -> Any:
    """The δ's of every layer for every column sent back from the outputs, and the activations.

    `columns` is a function of the outputs; δ's are `(columns, batch, width)`.
    """

    def outputs(zeros: PyTree) -> Any:
        return plain.forward(params, zeros, x)

    z, back, activations = jax.vjp(outputs, plain.zeros(params, x), has_aux=True)
    return jax.vmap(lambda s: back(s)[0])(columns(z)), activations


def identity(z: jax.Array) -> jax.Array:
    """Rows of the identity: `(classes, batch, classes)`."""
    return jnp.broadcast_to(jnp.eye(z.shape[1])[:, None], (z.shape[1], *z.shape))


def softmax_root(z: jax.Array) -> jax.Array:
    """Columns √p_c (e_c - p) of a root of diag(p) - p pᵀ: `(classes, batch, classes)`."""
    p = jax.nn.softmax(z)
    return jnp.moveaxis(jnp.sqrt(p)[:, :, None] * (jnp.eye(z.shape[1]) - p[:, None, :]), 1, 0)


def kernels(plain: Plain) -> dict[str, Function]:
    """Θ[n, m, c, d] of params and x."""

    def expert(params: PyTree, x: jax.Array) -> jax.Array:
        deltas, activations = _output_deltas(plain, params, x, identity)
        # One more for the bias.
        pairs = zip(activations, deltas, strict=True)
        each = ((a @ a.T + 1)[:, :, None, None] * jnp.einsum("cni,dmi->nmcd", d, d) for a, d in pairs)
        return sum(each, jnp.zeros(()))

    def outputs(params: PyTree, x: jax.Array) -> jax.Array:
        return plain.forward(params, None, x)[0]

    def contraction(params: PyTree, x: jax.Array) -> jax.Array:
        def one(params: PyTree, x: jax.Array) -> jax.Array:
            return outputs(params, x[None])[0]

        jacobian = jax.vmap(jax.jacrev(one), (None, 0))(params, x)
        flat = [a.reshape(*a.shape[:2], -1) for a in jax.tree.leaves(jacobian)]
        return sum((jnp.einsum("ncp,mdp->nmcd", a, a) for a in flat), jnp.zeros(()))

    def products(params: PyTree, x: jax.Array) -> jax.Array:
        """A row of Θ at a time: J (Jᵀ e), forward mode of a VJP."""

        def row(index: jax.Array) -> jax.Array:
            z, back = jax.vjp(lambda params: outputs(params, x), params)
            seed = jax.nn.one_hot(index, z.size, dtype=z.dtype).reshape(z.shape)
            return jax.jvp(lambda params: outputs(params, x), (params,), back(seed))[1]

        count, classes = jax.eval_shape(outputs, params, x).shape
        theta = lax.map(row, jnp.arange(count * classes))
        return theta.reshape(count, classes, count, classes).transpose(0, 2, 1, 3)

    return {
        "expert's ten lines": expert,
        "NTK-vector products": products,
        "Jacobian contraction": contraction,
    }


def diagonals(plain: Plain) -> dict[str, Function]:
    """The diagonal of Σ J_nᵀ H_n J_n for softmax cross-entropy, of params and x."""

    def expert(params: PyTree, x: jax.Array) -> PyTree:
        deltas, activations = _output_deltas(plain, params, x, softmax_root)
        squares = [jnp.sum(d * d, 0) for d in deltas]
        return [{"b": jnp.sum(s, 0), "w": (a * a).T @ s} for a, s in zip(activations, squares, strict=True)]

    def mapped(params: PyTree, x: jax.Array) -> PyTree:
        """One VJP for every example and column, squared and added up: in the memory of one gradient."""

        def example(total: PyTree, x: jax.Array) -> tuple[PyTree, None]:
            z, back = jax.vjp(lambda p: plain.forward(p, None, x[None])[0], params)

            def column(total: PyTree, s: jax.Array) -> tuple[PyTree, None]:
                return jax.tree.map(lambda t, g: t + g * g, total, back(s)[0]), None

            return lax.scan(column, total, softmax_root(z))[0], None

        return lax.scan(example, jax.tree.map(jnp.zeros_like, params), x)[0]

    def jacobians(params: PyTree, x: jax.Array) -> PyTree:
        def one(params: PyTree, x: jax.Array) -> jax.Array:
            return plain.forward(params, None, x[None])[0][0]

        jacobian = jax.vmap(jax.jacrev(one), (None, 0))(params, x)
        p = jax.nn.softmax(plain.forward(params, None, x)[0])
        h = jax.vmap(jnp.diag)(p) - p[:, :, None] * p[:, None, :]

        def diagonal(j: jax.Array) -> jax.Array:
            flat = j.reshape(*j.shape[:2], -1)
            return jnp.einsum("nip,nij,njp->p", flat, h, flat).reshape(j.shape[2:])

        return jax.tree.map(diagonal, jacobian)

    return {"expert's ten lines": expert, "scan of VJPs": mapped, "jacrev, contracted": jacobians}
