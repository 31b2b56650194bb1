"""Products of matrices and vectors, and quadratic forms in affine functions.

Numbers in brackets are equations of the Matrix Cookbook (Petersen and Pedersen, 15 November 2012).
"""

from typing import Any

import jax
from jax import numpy as jnp

from ...domains import Point
from ._algebra import T, dot, inner, mv, outer, unvec, vec
from ._identity import identity, scalar

outer_product = identity(
    "outer_product",
    "The matrix of all products of two vectors' entries.",
    "Z = x yᵀ",
    "dZ = dx yᵀ + x dyᵀ",
    "x̄ = Z̄ y, ȳ = Z̄ᵀ x",
    lambda x, y: (outer(x, y), (x, y)),
    lambda z, x, y: (mv(z, y), mv(T(z), x)),
    axes="x: m, y: n",
    reference=lambda x, y: jnp.einsum("...m,...n->...mn", x, y),
    source="Cookbook (38); Magnus and Neudecker",
    saves="x, y",
)
gram = identity(
    "gram",
    "The Gram matrix of the columns of X.",
    "Z = Xᵀ X",
    "dZ = dXᵀ X + Xᵀ dX",
    "X̄ = X (Z̄ + Z̄ᵀ)",
    lambda x: (T(x) @ x, (x,)),
    lambda z, x: (x @ (z + T(z)),),
    axes="x: m n",
    reference=lambda x: jnp.einsum("...mi,...mj->...ij", x, x),
    source="Cookbook (79), (115)",
    saves="X",
)


def _left_first(a: jax.Array, b: jax.Array) -> bool:
    """Whether (A X) B has fewer products than A (X B)."""
    (m, n), (k, j) = a.shape[-2:], b.shape[-2:]
    return m * k * (n + j) < n * j * (m + k)


def _sandwich(a: jax.Array, x: jax.Array, b: jax.Array) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    if _left_first(a, b):
        return (p := a @ x) @ b, (a, x, b, p)
    return a @ (p := x @ b), (a, x, b, p)


def _sandwich_pullback(
    z: jax.Array, a: jax.Array, x: jax.Array, b: jax.Array, p: jax.Array
) -> tuple[jax.Array, ...]:
    if _left_first(a, b):
        q = z @ T(b)
        return q @ T(x), T(a) @ q, T(p) @ z
    q = T(a) @ z
    return z @ T(p), q @ T(b), T(x) @ q


sandwich = identity(
    "sandwich",
    "A matrix between two others: (Bᵀ ⊗ A) vec X as a matrix.",
    "Z = A X B",
    "dZ = dA X B + A dX B + A X dB",
    "Ā = Z̄ (X B)ᵀ, X̄ = Aᵀ Z̄ Bᵀ, B̄ = (A X)ᵀ Z̄",
    _sandwich,
    _sandwich_pullback,
    axes="a: m n, x: n k, b: k j",
    sizes=({}, {"m": 4, "n": 2, "k": 3, "j": 2}),
    reference=lambda a, x, b: jnp.einsum("...mn,...nk,...kj->...mj", a, x, b),
    source="Cookbook (37), (74), (75); Giles 2008, 2.2",
    saves="A, X, B, and X B or A X",
    note="In the order with fewer products, forward and backward: (A X) B or A (X B).",
)
hadamard = identity(
    "hadamard",
    "The elementwise product.",
    "Z = A ⊙ B",
    "dZ = dA ⊙ B + A ⊙ dB",
    "Ā = Z̄ ⊙ B, B̄ = A ⊙ Z̄",
    lambda a, b: (a * b, (a, b)),
    lambda z, a, b: (z * b, a * z),
    axes="a: m n, b: m n",
    reference=lambda a, b: jnp.einsum("...mn,...mn->...mn", a, b),
    source="Cookbook (38)",
    saves="A, B",
)


def _kronecker(a: jax.Array, b: jax.Array) -> tuple[jax.Array, tuple[Any, ...]]:
    (m, n), (p, q) = a.shape[-2:], b.shape[-2:]
    blocks = a[..., :, None, :, None] * b[..., None, :, None, :]
    return blocks.reshape(*a.shape[:-2], m * p, n * q), (a, b)


def _kronecker_pullback(z: jax.Array, a: jax.Array, b: jax.Array) -> tuple[jax.Array, jax.Array]:
    (m, n), (p, q) = a.shape[-2:], b.shape[-2:]
    blocks = jnp.swapaxes(z.reshape(*a.shape[:-2], m, p, n, q), -3, -2)  # m, n, p, q
    return inner(blocks, b[..., None, None, :, :]), jnp.sum(blocks * a[..., None, None], (-4, -3))


kronecker = identity(
    "kronecker",
    "The Kronecker product: block i, j is a number times a matrix.",
    "Z = A ⊗ B, the block Z_ij = A_ij B",
    "dZ_ij = dA_ij B + A_ij dB",
    "Ā_ij = Z̄_ij : B, B̄ = Σ A_ij Z̄_ij",
    _kronecker,
    _kronecker_pullback,
    axes="a: m n, b: p q",
    reference=lambda a, b: (
        jnp.vectorize(jnp.kron, signature="(m,n),(p,q)->(r,s)")(a, b)
        if a.size and b.size
        else jnp.zeros((*a.shape[:-2], a.shape[-2] * b.shape[-2], a.shape[-1] * b.shape[-1]), a.dtype)
    ),
    sizes=({"m": 2, "n": 3, "p": 4, "q": 2},),
    source="Cookbook (39), (105), (120); Magnus and Neudecker, ch. 2",
    saves="A, B",
)
khatri_rao = identity(
    "khatri_rao",
    "The Khatri-Rao product: Kronecker products of corresponding columns.",
    "z_k = a_k ⊗ b_k for every column k",
    "dz_k = da_k ⊗ b_k + a_k ⊗ db_k",
    "with z̄_k cut into the rows of a matrix Z̄_k, ā_k = Z̄_k b_k, b̄_k = Z̄_kᵀ a_k",
    lambda a, b: (
        (a[..., :, None, :] * b[..., None, :, :]).reshape(
            *a.shape[:-2], a.shape[-2] * b.shape[-2], a.shape[-1]
        ),
        (a, b),
    ),
    lambda z, a, b: (
        jnp.sum((c := z.reshape(*a.shape[:-1], *b.shape[-2:])) * b[..., None, :, :], -2),
        jnp.sum(c * a[..., :, None, :], -3),
    ),
    axes="a: m k, b: n k",
    reference=lambda a, b: jnp.concatenate([a[..., i, None, :] * b for i in range(a.shape[-2])], -2),
    sizes=({"m": 3, "n": 4, "k": 2},),
    source="Khatri and Rao 1968; Magnus and Neudecker, ch. 3",
    saves="A, B",
)
kronecker_vector_product = identity(
    "kronecker_vector_product",
    "A Kronecker product times a vector, without forming the product.",
    "z = (A ⊗ B) x = vec(B X Aᵀ), x = vec X",
    "dz = vec(dB X Aᵀ + B dX Aᵀ + B X dAᵀ)",
    "with Z̄ and X of z̄ = vec Z̄ and x = vec X, Ā = Z̄ᵀ B X, B̄ = Z̄ A Xᵀ, x̄ = vec(Bᵀ Z̄ A)",
    lambda a, b, x: (vec((p := b @ x) @ T(a)), (a, b, x, p)),
    lambda z, a, b, x, p: (
        T(w := unvec(z, b.shape[-2])) @ p,
        (v := w @ a) @ T(x),
        T(b) @ v,
    ),
    axes="a: m n, b: p q, x: q n",
    reference=lambda a, b, x: jnp.einsum("...mn,...pq,...qn->...mp", a, b, x).reshape(
        *a.shape[:-2], a.shape[-2] * b.shape[-2]
    ),
    source="Cookbook (520); Magnus and Neudecker, ch. 2",
    saves="A, B, X, B X",
    note="x is given as the matrix X; vec stacks columns.",
)
diagonal_product = identity(
    "diagonal_product",
    "The rows of X, each times a number.",
    "Z = Diag(d) X",
    "dZ = Diag(dd) X + Diag(d) dX",
    "d̄ = (Z̄ ⊙ X) 1, X̄ = Diag(d) Z̄",
    lambda d, x: (d[..., None] * x, (d, x)),
    lambda z, d, x: (dot(z, x), d[..., None] * z),
    axes="d: m, x: m n",
    reference=lambda d, x: jnp.einsum("...m,...mn->...mn", d, x),
    source="Cookbook (142)",
    saves="d, X",
)
squared_distances = identity(
    "squared_distances",
    "The squared distances between all rows of X and all rows of Y.",
    "D_ij = ‖x_i - y_j‖²",
    "dD_ij = 2 (x_i - y_j)ᵀ (dx_i - dy_j)",
    "x̄_i = 2 Σ D̄_ij (x_i - y_j) over j, ȳ_j = -2 Σ D̄_ij (x_i - y_j) over i",
    lambda x, y: (jnp.sum(jnp.square(x[..., :, None, :] - y[..., None, :, :]), -1), (x, y)),
    lambda d, x, y: (
        2 * jnp.sum(d[..., None] * (r := x[..., :, None, :] - y[..., None, :, :]), -2),
        -2 * jnp.sum(d[..., None] * r, -3),
    ),
    axes="x: m k, y: n k",
    reference=lambda x, y: (
        jnp.sum(
            jnp.stack([jnp.square(x[..., i, None] - y[..., None, :, i]) for i in range(x.shape[-1])], -1), -1
        )
        if x.shape[-1]
        else jnp.zeros((*x.shape[:-1], y.shape[-2]), x.dtype)
    ),
    points={"equal rows": Point({"x": 0.5, "y": 0.5}, {"x": 0.0, "y": 0.0})},
    source="Cookbook (131)",
    saves="X, Y",
    note="The differences are formed (in a fused loop), not ‖x‖² + ‖y‖² - 2 xᵀ y, whose digits "
    "cancel where points are near each other.",
)
affine_quadratic_form = scalar(
    "affine_quadratic_form",
    "The quadratic form of an affine function of a matrix.",
    "C = (X b + c)ᵀ D (X b + c)",
    "with r = X b + c, dC = drᵀ D r + rᵀ dD r + rᵀ D dr and dr = dX b + X db + dc",
    "with s = (D + Dᵀ) r, ∂X = s bᵀ, ∂b = Xᵀ s, ∂c = s, ∂D = r rᵀ",
    lambda x, b, c, d: (dot(r := mv(x, b) + c, p := mv(d, r)), (x, b, d, r, p)),
    lambda x, b, d, r, p: (outer(s := p + mv(T(d), r), b), mv(T(x), s), s, outer(r, r)),
    axes="x: m n, b: n, c: m, d: m m",
    reference=lambda x, b, c, d: jnp.einsum(
        "...i,...ij,...j->...", r := jnp.einsum("...ij,...j->...i", x, b) + c, d, r
    ),
    source="Cookbook (83)",
    saves="X, b, D, r, D r",
)
affine_bilinear_form = scalar(
    "affine_bilinear_form",
    "The bilinear form of two affine functions of one vector.",
    "C = (B x + b)ᵀ A (D x + d)",
    "with p = B x + b and q = D x + d, dC = dpᵀ A q + pᵀ dA q + pᵀ A dq",
    "with s = A q and t = Aᵀ p, ∂x = Bᵀ s + Dᵀ t, ∂B = s xᵀ, ∂b = s, ∂A = p qᵀ, ∂D = t xᵀ, ∂d = t",
    lambda x, b, b0, a, d, d0: (
        dot(p := mv(b, x) + b0, s := mv(a, q := mv(d, x) + d0)),
        (x, b, a, d, p, q, s),
    ),
    lambda x, b, a, d, p, q, s: (
        mv(T(b), s) + mv(T(d), t := mv(T(a), p)),
        outer(s, x),
        s,
        outer(p, q),
        outer(t, x),
        t,
    ),
    axes="x: n, b: m n, b0: m, a: m k, d: k n, d0: k",
    reference=lambda x, b, b0, a, d, d0: jnp.einsum(
        "...i,...ij,...j->...", (b @ x[..., None])[..., 0] + b0, a, (d @ x[..., None])[..., 0] + d0
    ),
    source="Cookbook (78)",
    saves="x, B, A, D, p, q, A q",
)
sandwich_form = scalar(
    "sandwich_form",
    "A bilinear form in two images under one matrix.",
    "C = bᵀ Xᵀ D X c",
    "with u = X b and v = X c, dC = duᵀ D v + uᵀ dD v + uᵀ D dv, du = dX b + X db, dv = dX c + X dc",
    "∂b = Xᵀ D v, ∂X = Dᵀ u cᵀ + D v bᵀ, ∂D = u vᵀ, ∂c = Xᵀ Dᵀ u",
    lambda b, x, d, c: (
        dot(u := mv(x, b), p := mv(d, v := mv(x, c))),
        (b, x, d, c, u, v, p),
    ),
    lambda b, x, d, c, u, v, p: (
        mv(T(x), p),
        outer(q := mv(T(d), u), c) + outer(p, b),
        outer(u, v),
        mv(T(x), q),
    ),
    axes="b: n, x: m n, d: m m, c: n",
    reference=lambda b, x, d, c: jnp.einsum("...i,...mi,...mn,...nj,...j->...", b, x, d, x, c),
    source="Cookbook (77), (82)",
    saves="b, X, D, c, X b, X c, D X c",
)
weighted_residual = scalar(
    "weighted_residual",
    "The quadratic form of a residual: weighted least squares.",
    "C = (x - A s)ᵀ W (x - A s)",
    "with r = x - A s, dC = drᵀ W r + rᵀ dW r + rᵀ W dr and dr = dx - dA s - A ds",
    "with g = (W + Wᵀ) r, ∂x = g, ∂A = -g sᵀ, ∂s = -Aᵀ g, ∂W = r rᵀ",
    lambda x, a, s, w: (dot(r := x - mv(a, s), p := mv(w, r)), (a, s, w, r, p)),
    lambda a, s, w, r, p: (g := p + mv(T(w), r), -outer(g, s), -mv(T(a), g), outer(r, r)),
    axes="x: m, a: m n, s: n, w: m m",
    reference=lambda x, a, s, w: jnp.einsum(
        "...i,...ij,...j->...", r := x - jnp.einsum("...ij,...j->...i", a, s), w, r
    ),
    source="Cookbook (84)-(88)",
    saves="A, s, W, r, W r",
)
