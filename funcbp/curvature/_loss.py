"""Square roots of a loss's Hessian with respect to the outputs: S with S Sᵀ = ∂²ℓ/∂z², exact and sampled.

| loss | H | columns of S | sampled column |
| --- | --- | --- | --- |
| `l2_loss` | 1 | 1 | ẑ - z, ẑ ~ N(z, 1) |
| `squared_error` | 2 | √2 | 2 (ẑ - z), ẑ ~ N(z, ½) |
| `sigmoid_binary_cross_entropy` | p (1 - p) | √(p (1 - p)) | p - ŷ, ŷ ~ Bernoulli(p) |
| softmax cross-entropies | diag(p) - p pᵀ | √p_c (e_c - p) | p - e_ŷ, ŷ ~ p |

The sampled column is the derivative for a target drawn from what the outputs say, so that E s sᵀ = H, the
Fisher matrix of the outputs. A softmax cross-entropy with labels that sum to m has m times this H.

For any other loss H comes from forward mode of the hand-derived derivative, S from H's eigenvectors.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jax import numpy as jnp
from jax.core import Tracer

from .. import rules
from .._loss import LossLike, as_loss
from .._numerics import upcast
from .._rule import Rule
from .._signature import describe

__all__ = ["RootLike", "draws", "hessian_root", "hessian_sample", "roots"]

PyTree = Any
# (outputs, targets) -> (columns, *outputs)
Root = Callable[[jax.Array, PyTree], jax.Array]
RootLike = Root | None
# (key, outputs, targets) -> outputs
Draw = Callable[[jax.Array, jax.Array, PyTree], jax.Array]


class _Closed(NamedTuple):
    """What is known of a loss in closed form."""

    root: Root
    draw: Draw


def hessian_root(loss: LossLike) -> Root:
    """`(outputs, targets) -> S`, of shape `(columns, *outputs)`: Σ_c S_c S_cᵀ = ∂²ℓ/∂z² for every ℓ.

    Outputs are `(*values, *inner)`, where `values` is the shape of what the loss returns: values depend on
    their own outputs only. The Hessian of each is over `inner`, and for a loss of every output a number.

    Args:
        loss: as for `funcbp.backprop`.

    Raises:
        ValueError: for a Hessian that is not positive semi-definite, which has no root; for a loss along
            another axis than the last ones. Inside `jax.jit`, where values are not known, the columns of such
            a Hessian are NaN.

    >>> root = hessian_root(rules.softmax_cross_entropy_with_integer_labels)
    >>> s = root(jnp.array([[0.0, 0.0]]), jnp.array([1]))
    >>> jnp.einsum("cni,cnj->nij", s, s).round(6).tolist()
    [[[0.25, -0.25], [-0.25, 0.25]]]
    """
    closed, evaluate = _closed(loss), as_loss(loss)
    return functools.partial(_by_forward_mode, evaluate) if closed is None else closed.root


def hessian_sample(loss: LossLike) -> Draw:
    """`(key, outputs, targets) -> s`, of the outputs' shape, random, with E s sᵀ = ∂²ℓ/∂z².

    It is the loss's derivative for targets drawn from the model where the loss is a known likelihood, else
    the columns of `hessian_root` with random signs. Values of the loss are independent: one column is for all
    positions of an example.

    >>> draw = hessian_sample(rules.softmax_cross_entropy_with_integer_labels)
    >>> draw(jax.random.key(0), jnp.array([[0.0, 0.0]]), jnp.array([1])).tolist() in (
    ...     [[-0.5, 0.5]],
    ...     [[0.5, -0.5]],
    ... )
    True
    """
    closed = _closed(loss)
    return functools.partial(_with_signs, loss, hessian_root(loss)) if closed is None else closed.draw


def roots(loss: LossLike, own: RootLike) -> Root:
    """The user's own root, or the loss's; checked at the call."""
    root = hessian_root(loss) if own is None else own

    def checked(z: jax.Array, y: PyTree) -> jax.Array:
        _check_outputs(z)
        columns = root(z, y)
        if jnp.ndim(columns) != z.ndim + 1 or jnp.shape(columns)[1:] != z.shape:
            raise ValueError(
                f"curvature: `root` gives {describe(columns)}; with outputs {describe(z)} it must give "
                f"(columns, {', '.join(map(str, z.shape))})."
            )
        return upcast(columns)

    return checked


def draws(loss: LossLike, own: RootLike) -> Draw:
    """A sampled column, of the user's own root or of the loss."""
    draw = hessian_sample(loss) if own is None else functools.partial(_with_signs, loss, own)

    def checked(key: jax.Array, z: jax.Array, y: PyTree) -> jax.Array:
        _check_outputs(z)
        return upcast(draw(key, z, y))

    return checked


def _closed(loss: LossLike) -> _Closed | None:
    # Options change the Hessian; without any it is the rule's own.
    rule = loss.func if isinstance(loss, functools.partial) and not loss.keywords else loss
    return _TABLE.get(rule) if isinstance(rule, Rule) else None


def _quadratic(h: float) -> _Closed:
    def draw(key: jax.Array, z: jax.Array, y: PyTree) -> jax.Array:
        del y
        return math.sqrt(h) * jax.random.normal(key, z.shape, z.dtype)

    def root(z: jax.Array, y: PyTree) -> jax.Array:
        del y
        return jnp.full((1, *z.shape), math.sqrt(h), z.dtype)

    return _Closed(root, draw)


def _bernoulli_root(z: jax.Array, y: PyTree) -> jax.Array:
    del y
    # √(p (1 - p)) without the difference 1 - p, which loses its digits where p is near 1.
    return jnp.exp((jax.nn.log_sigmoid(z) + jax.nn.log_sigmoid(-z)) / 2)[None]


def _bernoulli_draw(key: jax.Array, z: jax.Array, y: PyTree) -> jax.Array:
    del y
    p = jax.nn.sigmoid(z)
    return jnp.where(jax.random.bernoulli(key, p), -jax.nn.sigmoid(-z), p)


def _categorical(mass: Callable[[jax.Array, PyTree], jax.Array | float]) -> _Closed:
    """With the labels' sum of every row, which broadcasts to the outputs."""

    def root(z: jax.Array, y: PyTree) -> jax.Array:
        p = jax.nn.softmax(z)
        columns = jnp.sqrt(p)[..., None] * (jnp.eye(z.shape[-1], dtype=z.dtype) - p[..., None, :])
        return jnp.moveaxis(columns, -2, 0) * jnp.sqrt(mass(z, y))

    def draw(key: jax.Array, z: jax.Array, y: PyTree) -> jax.Array:
        drawn = jax.nn.one_hot(jax.random.categorical(key, z), z.shape[-1], dtype=z.dtype)
        return (jax.nn.softmax(z) - drawn) * jnp.sqrt(mass(z, y))

    return _Closed(root, draw)


def _no_mass(z: jax.Array, y: PyTree) -> float:
    del z, y
    return 1.0


def _label_mass(z: jax.Array, y: PyTree) -> jax.Array:
    return jnp.sum(y, axis=-1, keepdims=True).astype(z.dtype)


_TABLE: dict[Rule, _Closed] = {
    rules.l2_loss: _quadratic(1.0),
    rules.squared_error: _quadratic(2.0),
    rules.sigmoid_binary_cross_entropy: _Closed(_bernoulli_root, _bernoulli_draw),
    rules.softmax_cross_entropy: _categorical(_label_mass),
    rules.safe_softmax_cross_entropy: _categorical(_label_mass),
    rules.softmax_cross_entropy_with_integer_labels: _categorical(_no_mass),
}


def _by_forward_mode(evaluate: Any, z: jax.Array, y: PyTree) -> jax.Array:
    values = jax.eval_shape(lambda z: evaluate(z, y)[0], z)
    if values.shape != z.shape[: values.ndim]:
        raise ValueError(
            f"curvature: the loss has shape {values.shape}, its outputs {z.shape}; the loss's axes must "
            "be the first ones of the outputs."
        )
    inner = z.shape[values.ndim :]
    size = math.prod(inner)

    def slope(z: jax.Array) -> jax.Array:
        return evaluate(z, y)[1](jnp.ones(values.shape, values.dtype))

    def column(tangent: jax.Array) -> jax.Array:
        return jax.jvp(slope, (z,), (jnp.broadcast_to(tangent, z.shape),))[1]

    basis = jnp.eye(size, dtype=z.dtype).reshape(size, *inner)
    hessian = jnp.moveaxis(jax.vmap(column)(basis).reshape(size, -1, size), 0, -1)
    # (values, inner, columns)
    root = _psd_root(upcast(hessian))
    return jnp.moveaxis(root, -1, 0).reshape(size, *z.shape)


def _psd_root(hessian: jax.Array) -> jax.Array:
    """V √Λ of symmetric matrices V Λ Vᵀ."""
    size = hessian.shape[-1]
    if size == 1:
        values, vectors = hessian[..., 0], jnp.ones_like(hessian)
    else:
        values, vectors = jnp.linalg.eigh((hessian + hessian.mT) / 2)
    rounding = 64 * size * jnp.finfo(hessian.dtype).eps * jnp.max(jnp.abs(values), -1, keepdims=True)
    negative = values < -rounding
    if not isinstance(negative, Tracer) and negative.any():
        raise ValueError(
            f"curvature: the loss's Hessian has the negative eigenvalue {values.min():.3g}, so that it has "
            "no square root: the loss is not convex in the outputs there. Give `root=` a square root of a "
            "positive semi-definite matrix in its place; ggn_vector_product takes the Hessian as it is."
        )
    return vectors * jnp.where(negative, jnp.nan, jnp.sqrt(jnp.maximum(values, 0)))[..., None, :]


def _with_signs(loss: LossLike, root: Root, key: jax.Array, z: jax.Array, y: PyTree) -> jax.Array:
    """Σ_c ε_c S_c, with signs of their own for every value of the loss."""
    columns = root(z, y)
    values = jax.eval_shape(lambda z: as_loss(loss)(z, y)[0], z)
    signs = jax.random.rademacher(key, (columns.shape[0], *values.shape), z.dtype)
    return jnp.sum(columns * signs.reshape(*signs.shape, *(1,) * (z.ndim - values.ndim)), 0)


def _check_outputs(z: Any) -> None:
    if not isinstance(z, jax.Array):
        raise TypeError(
            "curvature: the network's output must be one array to have a Hessian's square root; got "
            f"{jax.tree.map(describe, z)}. ggn_vector_product and hessian_vector_product take any tree."
        )
