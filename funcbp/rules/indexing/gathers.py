"""Reading by index, whose transpose is adding up by index, and the other way round."""

import jax
import numpy as np
from jax import numpy as jnp
from jaxtyping import Array, Float, Int

from ..._numerics import upcast
from ..._rule import Rule
from ...domains import Integers, Normal, Point
from ...factors import Factor, Rows
from .._checks import check_cotangent
from .._specs import Spec
from ._linear import add_along_axis, add_at, linear

X = Float[Array, "*shape"]


def _take(x: X, indices: Int[Array, " picked"], *, axis: int = -1) -> X:
    """Elements by index along `axis`, as `jnp.take`.

    A negative index counts from the end. One out of range reads NaN, so that it cannot pass unseen; its
    cotangent is dropped.
    """
    return jnp.take(x, indices, axis)


def _put(y_ct: jax.Array, x: Spec, indices: jax.Array, axis: int) -> jax.Array:
    index: list[slice | jax.Array] = [slice(None)] * len(x.shape)
    index[axis] = indices
    return add_at(x, tuple(index), y_ct)


take = linear(
    _take,
    _put,
    y="y_k = x_(i_k)",
    x_ct="x̄_i = Σ_(k: i_k = i) ȳ_k",
    because="an element read twice gets both cotangents",
    reference=lambda x, indices, axis=-1: jnp.moveaxis(jnp.moveaxis(x, axis, 0)[indices], 0, axis),
    domain={"x": Normal(), "indices": Integers(-2, "*shape")},
    points={
        "always the last": Point(
            {"indices": -1.0}, {"x": lambda shape: 5.0 * (np.arange(shape[-1]) == shape[-1] - 1)}
        )
    },
    settings=({"axis": 0},),
    sizes=({"picked": 5},),
    saves="i",
)


def _take_along_axis(
    x: Float[Array, "*batch n"], indices: Int[Array, "*batch picked"]
) -> Float[Array, "*batch picked"]:
    """In every row the elements by its own indices, as `jnp.take_along_axis` over the last axis.

    Negative indices and those out of range as in `take`.
    """
    return jnp.take_along_axis(x, indices, -1)


take_along_axis = linear(
    _take_along_axis,
    lambda y_ct, x, indices: add_along_axis(x, indices, y_ct, -1),
    y="y_bk = x_(b, i_bk)",
    x_ct="x̄_bi = Σ_(k: i_bk = i) ȳ_bk",
    because="an element read twice gets both cotangents",
    reference=lambda x, indices: jnp.einsum("...kn,...n->...k", _one_hot(indices, x), x),
    domain={"x": Normal(), "indices": Integers(0, "n")},
    saves="i",
)


def _one_hot(indices: jax.Array, x: jax.Array, axis: int = -1) -> jax.Array:
    return jax.nn.one_hot(indices, x.shape[axis], dtype=x.dtype)


def _scatter_add(
    x: Float[Array, "rows *features"],
    indices: Int[Array, " added"],
    updates: Float[Array, "added *features"],
) -> Float[Array, "rows *features"]:
    """x with `updates` added to its rows by index, as `x.at[indices].add(updates)`.

    Duplicate indices add up. A negative index counts from the end; one out of range adds nothing.
    """
    return upcast(x).at[indices].add(upcast(updates), mode="drop")


scatter_add = linear(
    _scatter_add,
    lambda y_ct, indices: (
        y_ct,
        jnp.take(y_ct, indices, axis=0, mode="fill", fill_value=0),
    ),
    y="y_i = x_i + Σ_(k: i_k = i) u_k",
    x_ct="x̄ = ȳ, ū_k = ȳ_(i_k)",
    because="every update reads the cotangent of the row it was added to",
    reference=lambda x, indices, updates: x + jnp.einsum("kr,k...->r...", _one_hot(indices, x, 0), updates),
    domain={"x": Normal(), "indices": Integers(0, "rows"), "updates": Normal()},
    points={
        "out of range": Point({"indices": 100.0}, {"x": 1.0, "updates": 0.0}),
        "all the same": Point({"indices": 0.0}, {"x": 1.0, "updates": 1.0}),
    },
    saves="i",
)

Table = Float[Array, "size features"]
Ids = Int[Array, "*batch"]
Read = Float[Array, "*batch features"]


def embedding_fwd(table: Table, ids: Ids) -> tuple[Read, tuple[Spec, Ids]]:
    """Rows of a table by integer id.

    Forward:     y = E[ids]
    Backward:    Ē_i = Σ δ over all places where id i was read, with δ = ȳ

    Derivation. dy = dE[ids], so ȳ : dy = Σ_b ⟨δ_b, dE_(ids_b)⟩: a row that is read twice gets both δ's. (With
    the one-hot rows as a matrix P, y = P E and Ē = Pᵀ δ: a dense layer whose input is one-hot.)

    An id outside [0, size), also a negative one, reads NaN, so that it cannot pass unseen; its δ is dropped.

    Saves the ids; the table's gradient is kept as the pair (ids, δ).
    """
    size = table.shape[0]
    read = jnp.take(table, jnp.where(ids < 0, size, ids), axis=0, mode="fill", fill_value=jnp.nan)
    return read, (Spec.of(table), ids)


def embedding_pullback(residuals: tuple[Spec, Ids], y_ct: Read) -> tuple[Factor, None]:
    """The factor of E; ids have no cotangent."""
    table, ids = residuals
    check_cotangent("embedding", y_ct, (*ids.shape, table.shape[1]), table.dtype)
    return Rows(ids, y_ct, table.shape[0]), None


def _embedding_reference(table: Table, ids: Ids) -> Read:
    inside = (ids >= 0) & (ids < table.shape[0])
    return jnp.where(inside[..., None], _one_hot(ids, table, 0) @ table, jnp.nan)


embedding = Rule(
    embedding_fwd,
    embedding_pullback,
    reference=_embedding_reference,
    domain={"table": Normal(), "ids": Integers(0, "size")},
    points={
        "one id everywhere": Point({"ids": 0.0}),
        "id outside": Point({"ids": (-1.0, 1.0, 100.0)}),
    },
    formula="y = E[ids]; Ē_i = Σ δ where id i was read",
    saves="ids",
)
