"""Linear maps between matrices: what is moved or dropped on the way there goes the same way back.

Numbers in brackets are equations of the Matrix Cookbook (Petersen and Pedersen, 15 November 2012).
"""

import math

import jax
import numpy as np
from jax import numpy as jnp

from ._algebra import T, diag, diagonal, sym, unvec, vec
from ._identity import identity

_SHAPE = "nothing: an empty array has the shape"

matrix_transpose = identity(
    "matrix_transpose",
    "The transpose, which is the commutation matrix times vec.",
    "Z = Xᵀ, vec Z = K vec X",
    "dZ = dXᵀ",
    "X̄ = Z̄ᵀ",
    lambda x: (T(x), ()),
    lambda z: (T(z),),
    axes="x: m n",
    reference=lambda x: jnp.einsum("...mn->...nm", x),
    source="Cookbook (44); Magnus and Neudecker, ch. 3",
    saves="nothing",
)
vectorize = identity(
    "vectorize",
    "vec: the columns of a matrix, one below the other.",
    "z = vec X",
    "dz = vec dX",
    "X̄ = the matrix of which z̄ is the vec",
    lambda x: (vec(x), (x[..., :0],)),
    lambda z, empty: (unvec(z, empty.shape[-2]),),
    axes="x: m n",
    reference=lambda x: (
        jnp.concatenate([x[..., j] for j in range(x.shape[-1])], -1)
        if x.shape[-1]
        else jnp.zeros((*x.shape[:-2], 0), x.dtype)
    ),
    source="Magnus and Neudecker, ch. 2",
    saves=_SHAPE,
    note="Columns, as in the literature; `jnp.ravel` stacks the rows.",
)


def _commuted(v: jax.Array, *, rows: int = 1) -> tuple[jax.Array, tuple[()]]:
    if rows < 1 or v.shape[-1] % rows:
        raise ValueError(
            f"commutation: static option `rows` must divide the length {v.shape[-1]} of `v`, got {rows}."
        )
    return vec(T(unvec(v, rows))), ()


commutation = identity(
    "commutation",
    "The commutation matrix times a vector: vec X becomes vec Xᵀ.",
    "z = K v, with v = vec X and z = vec Xᵀ for X of `rows` rows",
    "dz = K dv, and K is a permutation: K⁻¹ = Kᵀ, the one of Xᵀ",
    "v̄ = Kᵀ z̄",
    _commuted,
    lambda z, *, rows=1: (vec(T(unvec(z, z.shape[-1] // rows))),),
    axes="v: n",
    reference=lambda v, rows=1: jnp.concatenate([v[..., i::rows] for i in range(rows)], -1),
    settings=({"rows": 2}, {"rows": 3}),
    sizes=({"n": 6},),
    source="Magnus and Neudecker, ch. 3",
    saves="nothing",
    note="K is never formed.",
)
diagonal_part = identity(
    "diagonal_part",
    "The diagonal of a square matrix as a vector.",
    "d = diag X",
    "dd = diag dX",
    "X̄ = Diag(d̄)",
    lambda x: (diagonal(x), ()),
    lambda d: (diag(d),),
    axes="x: n n",
    reference=lambda x: jnp.einsum("...nn->...n", x),
    source="Cookbook (142)",
    saves="nothing",
)
diagonal_matrix = identity(
    "diagonal_matrix",
    "The diagonal matrix of a vector.",
    "Z = Diag(d)",
    "dZ = Diag(dd)",
    "d̄ = diag Z̄",
    lambda d: (diag(d), ()),
    lambda z: (diagonal(z),),
    axes="d: n",
    reference=lambda d: jnp.einsum("...n,nm->...nm", d, jnp.eye(d.shape[-1], dtype=d.dtype)),
    source="Cookbook (142)",
    saves="nothing",
)
tril = identity(
    "tril",
    "The lower triangle, from diagonal k down: a projection.",
    "Z = tril X",
    "dZ = tril dX",
    "X̄ = tril Z̄",
    lambda x, *, k=0: (jnp.tril(x, k), ()),
    lambda z, *, k=0: (jnp.tril(z, k),),
    axes="x: m n",
    reference=lambda x, k=0: jnp.where(
        jnp.arange(x.shape[-2])[:, None] - jnp.arange(x.shape[-1]) >= -k, x, jnp.zeros((), x.dtype)
    ),
    settings=({"k": -1}, {"k": 1}),
    source="Giles 2008, 2.3",
    saves="nothing",
)
triu = identity(
    "triu",
    "The upper triangle, from diagonal k up: a projection.",
    "Z = triu X",
    "dZ = triu dX",
    "X̄ = triu Z̄",
    lambda x, *, k=0: (jnp.triu(x, k), ()),
    lambda z, *, k=0: (jnp.triu(z, k),),
    axes="x: m n",
    reference=lambda x, k=0: jnp.where(
        jnp.arange(x.shape[-2])[:, None] - jnp.arange(x.shape[-1]) <= -k, x, jnp.zeros((), x.dtype)
    ),
    settings=({"k": -1}, {"k": 1}),
    source="Giles 2008, 2.3",
    saves="nothing",
)
symmetric_part = identity(
    "symmetric_part",
    "The symmetric matrix nearest to X: a projection.",
    "Z = ½ (X + Xᵀ)",
    "dZ = ½ (dX + dXᵀ), and P : ½ (dX + dXᵀ) = ½ (P + Pᵀ) : dX",
    "X̄ = ½ (Z̄ + Z̄ᵀ)",
    lambda x: (sym(x), ()),
    lambda z: (sym(z),),
    axes="x: n n",
    reference=lambda x: (x + jnp.einsum("...ij->...ji", x)) / 2,
    source="Cookbook (138)",
    saves="nothing",
)


def _order(length: int) -> int:
    n = (math.isqrt(8 * length + 1) - 1) // 2
    if n * (n + 1) // 2 != length:
        raise ValueError(
            f"symmetric_from_triangle: `v` has length {length}, which is no n (n + 1) / 2: give the lower "
            "triangle of an n×n matrix, row by row."
        )
    return n


def _symmetric(v: jax.Array) -> tuple[jax.Array, tuple[()]]:
    n = _order(v.shape[-1])
    i, j = np.tril_indices(n)
    position = np.zeros((n, n), int)
    position[i, j] = position[j, i] = np.arange(len(i))
    return v[..., position], ()


def _triangle_of_twice(z: jax.Array) -> tuple[jax.Array]:
    i, j = np.tril_indices(z.shape[-1])
    return ((z + T(z) - diag(diagonal(z)))[..., i, j],)


def _symmetric_reference(v: jax.Array) -> jax.Array:
    n = _order(v.shape[-1])
    i, j = np.tril_indices(n)
    lower = jnp.zeros((*v.shape[:-1], n, n), v.dtype).at[..., i, j].set(v)
    return lower + jnp.swapaxes(jnp.tril(lower, -1), -1, -2)


symmetric_from_triangle = identity(
    "symmetric_from_triangle",
    "The symmetric matrix of its lower triangle: the duplication matrix times vech.",
    "Z_ij = Z_ji = v_(i,j), i ≥ j, v row by row",
    "dZ = dV + dVᵀ - Diag(diag dV): an entry off the diagonal stands in two places",
    "v̄ = the triangle of Z̄ + Z̄ᵀ - Diag(diag Z̄)",
    _symmetric,
    _triangle_of_twice,
    axes="v: t",
    reference=_symmetric_reference,
    sizes=({"t": 6},),
    source="Cookbook (138)-(141); Magnus and Neudecker, ch. 3 (D_n)",
    saves="nothing",
    note="This is the gradient by the n (n + 1) / 2 free entries; the gradient in the space of symmetric "
    "matrices, ½ (G + Gᵀ), is that of `symmetric_part`.",
)


def _rows(length: int) -> int:
    if length % 2 == 0:
        raise ValueError(
            f"toeplitz_matrix: `t` has length {length}; give the 2 n - 1 diagonals of an n×n matrix, from "
            "the upper right corner to the lower left."
        )
    return (length + 1) // 2


def _toeplitz(t: jax.Array) -> tuple[jax.Array, tuple[()]]:
    n = _rows(t.shape[-1])
    return jnp.stack([t[..., i : i + n] for i in range(n)], -2)[..., ::-1], ()


def _diagonal_sums(z: jax.Array) -> tuple[jax.Array]:
    # A row backwards is a piece of t: back to where it was. (A sum over diagonals by indices is slower.)
    n, batch = z.shape[-1], [(0, 0)] * (z.ndim - 2)
    pieces = z[..., ::-1]
    placed = (jnp.pad(pieces[..., i, :], [*batch, (i, n - 1 - i)]) for i in range(n))
    return (sum(placed, start=jnp.zeros((), z.dtype)),)


def _toeplitz_reference(t: jax.Array) -> jax.Array:
    n = _rows(t.shape[-1])
    return jnp.stack([t[..., n - 1 - j : 2 * n - 1 - j] for j in range(n)], -1)


toeplitz_matrix = identity(
    "toeplitz_matrix",
    "The matrix with constant diagonals.",
    "Z_ij = t_(i - j + n - 1)",
    "dZ_ij = dt_(i - j + n - 1): an entry stands on a whole diagonal",
    "t̄ = the sums of Z̄ along its diagonals",
    _toeplitz,
    _diagonal_sums,
    axes="t: d",
    reference=_toeplitz_reference,
    sizes=({"d": 7},),
    source="Cookbook (143), (144)",
    saves="nothing",
)
