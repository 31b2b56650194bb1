"""The empirical neural tangent kernel, from factors."""

import functools
import operator
from collections.abc import Callable
from typing import Any, Literal

import jax
from jax import lax
from jax import numpy as jnp

from .._frozen import Frozen
from .._precision import Precision
from .._signature import describe
from .._sweep import batch_of
from ..factors import Factor
from ..layers import Context, Layer
from ..layers._layer import require_layer
from ._columns import Forwarded, forwarded

__all__ = ["ntk"]

PyTree = Any
Kind = Literal["full", "diagonal", "trace"]
# Factors of every parameter, and which of their arrays have an axis of columns.
Sided = tuple[list[Factor | None], list[PyTree]]


def ntk(
    network: Layer,
    *,
    kind: Kind = "full",
    frozen: Frozen = (),
    precision: Precision | None = None,
    train: bool = False,
    batch_size: int | None = None,
) -> Callable[..., jax.Array]:
    """The empirical neural tangent kernel (Jacot et al. 2018, arXiv:1806.07572): Θ = J(x₁) J(x₂)ᵀ.

    For outputs z_n with K entries

        full        Θ[n, m, c, d] = ⟨∂z_nc/∂θ, ∂z_md/∂θ⟩
        diagonal    Θ[n, m, c], where c = d: a kernel for every output
        trace       Θ[n, m], the sum of the diagonal over c

    Every row of the identity goes back as a cotangent of the outputs, all K of them together, and the factors
    that they leave behind are contracted in pairs: for a weight without positions (A₁ A₂ᵀ)[n, m] times ⟨δ_nc,
    δ_md⟩. No Jacobian is formed. The factors of x₁ are held, K times the δ's of one sweep, and of x₂ those of
    `batch_size` examples at a time.

    Args:
        network: a Layer whose output is one array. Layers that couple examples refuse.
        kind: which form.
        frozen: as for `funcbp.backprop`; these parameters take no part.
        precision: as for `funcbp.backprop`.
        train: whether it is that of the training pass.
        batch_size: how many examples of x₂ at a time; None for all. The last may be fewer.

    Returns:
        `(params, x1, x2=None, *, state=(), key=None, mask=None, positions=None, mask2=None, positions2=None)
        -> Θ`, a pure function: `(N₁, N₂, *outputs, *outputs)`, `(N₁, N₂, *outputs)` or `(N₁, N₂)`, in float32
        at least. Without x₂ it is x₁. `mask` and `positions` go with x₁, `mask2` and `positions2` with x₂.

    >>> from funcbp import layers
    >>> kernel = ntk(layers.dense(2, bias=False), kind="trace")
    >>> kernel({"w": jnp.ones((2, 2))}, jnp.array([[1.0, 2.0], [0.0, 1.0]])).tolist()
    [[10.0, 4.0], [4.0, 2.0]]
    """
    require_layer("ntk: `network`", network)
    if kind not in _PAIRED:
        raise ValueError(f"ntk: `kind` must be one of {', '.join(map(repr, _PAIRED))}, got {kind!r}.")
    if batch_size is not None and (not isinstance(batch_size, int) or batch_size < 1):
        raise ValueError(f"ntk: `batch_size` must be a whole number from 1 on or None, got {batch_size!r}.")
    precision = precision or Precision()

    def kernel(
        params: PyTree,
        x1: PyTree,
        x2: PyTree = None,
        *,
        state: PyTree = (),
        key: jax.Array | None = None,
        mask: PyTree = None,
        positions: PyTree = None,
        mask2: PyTree = None,
        positions2: PyTree = None,
    ) -> jax.Array:
        def side(x: PyTree, mask: PyTree, positions: PyTree) -> tuple[Sided, tuple[int, ...]]:
            checked, batch = batch_of(params, x, x, None, mask, positions, frozen)
            context = Context(key, train, mask, positions)
            done = forwarded(network, checked, batch.x, state, context, frozen=frozen, precision=precision)
            return done.factors(_identity(done)), done.z.shape[1:]

        def against(first: Sided, x: PyTree, mask: PyTree, positions: PyTree) -> jax.Array:
            return _contracted(kind, first, side(x, mask, positions)[0])

        with precision.products():
            first, outputs = side(x1, mask, positions)
            if x2 is not None:
                second = jax.tree.map(jnp.asarray, (x2, mask2, positions2))
                theta = _batched(functools.partial(against, first), second, batch_size)
            elif batch_size is not None:
                second = jax.tree.map(jnp.asarray, (x1, mask, positions))
                theta = _batched(functools.partial(against, first), second, batch_size)
            else:
                theta = _contracted(kind, first, first)
        return theta.reshape(*theta.shape[:2], *outputs * (theta.ndim - 2))

    return kernel


def _identity(done: Forwarded) -> jax.Array:
    """A cotangent for each entry of an output: `(entries, *outputs)`."""
    z = done.z
    if not isinstance(z, jax.Array):
        raise TypeError(f"ntk: the network's output must be one array, got {jax.tree.map(describe, z)}.")
    size = z[0].size
    rows = jnp.eye(size, dtype=z.dtype).reshape(size, 1, *z.shape[1:])
    return jnp.broadcast_to(rows, (size, *z.shape))


def _batched(function: Callable[..., jax.Array], arrays: PyTree, size: int | None) -> jax.Array:
    """function(*part) for parts of `size` examples, joined on the second axis."""
    count = jax.tree.leaves(arrays)[0].shape[0]
    if size is None or size >= count:
        return function(*arrays)
    whole, rest = divmod(count, size)
    blocks = jax.tree.map(lambda a: a[: whole * size].reshape(whole, size, *a.shape[1:]), arrays)
    parts = jnp.moveaxis(lax.map(lambda part: function(*part), blocks), 0, 1)
    joined = parts.reshape(parts.shape[0], whole * size, *parts.shape[3:])
    if not rest:
        return joined
    return jnp.concatenate([joined, function(*jax.tree.map(lambda a: a[whole * size :], arrays))], axis=1)


def _contracted(kind: str, first: Sided, second: Sided) -> jax.Array:
    """Σ over the parameters."""
    sides = zip(*first, *second, strict=True)
    terms = [_PAIRED[kind](a, b, i, j) for a, i, b, j in sides if a is not None and b is not None]
    if not terms:
        raise ValueError("ntk: there are no parameters to be differentiated by; all are frozen, or none.")
    return functools.reduce(operator.add, terms)


def _gram(a: Factor, b: Factor) -> jax.Array:
    return a.gram(b)


def _full(a: Factor, b: Factor, i: PyTree, j: PyTree) -> jax.Array:
    return jax.vmap(lambda a: jax.vmap(functools.partial(_gram, a), (j,), 2)(b), (i,), 2)(a)


def _diagonal(a: Factor, b: Factor, i: PyTree, j: PyTree) -> jax.Array:
    return jax.vmap(_gram, (i, j), 2)(a, b)


def _trace(a: Factor, b: Factor, i: PyTree, j: PyTree) -> jax.Array:
    return jnp.sum(_diagonal(a, b, i, j), -1)


_PAIRED: dict[str, Callable[[Factor, Factor, PyTree, PyTree], jax.Array]] = {
    "full": _full,
    "diagonal": _diagonal,
    "trace": _trace,
}
