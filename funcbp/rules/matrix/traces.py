"""Traces: sums over the entries of a product.

Numbers in brackets are equations of the Matrix Cookbook (Petersen and Pedersen, 15 November 2012). All
follow from P : (L dX R) = (Lᵀ P Rᵀ) : dX, once for each place where a matrix occurs.
"""

from typing import Any

import jax
from jax import numpy as jnp

from ...domains import Point
from ._algebra import T, diag, identity_like, inner, mv, outer, scaled, tr
from ._identity import identity, scalar

trace = identity(
    "trace",
    "The trace of a square matrix.",
    "C = tr X",
    "dC = I : dX",
    "X̄ = C̄ I",
    lambda x: (tr(x), (x[..., :0],)),
    lambda c, empty: (diag(jnp.broadcast_to(c[..., None], empty.shape[:-1])),),
    axes="x: n n",
    reference=lambda x: jnp.trace(x, axis1=-2, axis2=-1),
    source="Cookbook (99)",
    saves="nothing: an empty array has the shape",
)
trace_product = scalar(
    "trace_product",
    "The trace of a product, which never forms the product.",
    "C = tr A X = Aᵀ : X",
    "dC = tr dA X + tr A dX",
    "∂A = Xᵀ, ∂X = Aᵀ",
    lambda a, x: (inner(T(a), x), (a, x)),
    lambda a, x: (T(x), T(a)),
    axes="a: m n, x: n m",
    reference=lambda a, x: jnp.trace(a @ x, axis1=-2, axis2=-1),
    source="Cookbook (100), (103), (104)",
    saves="A, X",
)


def _turn(a: jax.Array, b: jax.Array) -> int:
    """By how many places tr A X B is to be turned for the product of its last two to be the smallest."""
    (m, n), k = a.shape[-2:], b.shape[-2]
    return min(range(3), key=(n * m, k * n, m * k).__getitem__)


def _turned(three: tuple[jax.Array, ...], places: int) -> tuple[jax.Array, ...]:
    return (*three[places:], *three[:places])


def _trace_sandwich(a: jax.Array, x: jax.Array, b: jax.Array) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    first, second, third = _turned((a, x, b), _turn(a, b))
    p = T(third) @ T(second)
    return inner(first, p), (a, x, b, p)


def _trace_sandwich_gradients(
    a: jax.Array, x: jax.Array, b: jax.Array, p: jax.Array
) -> tuple[jax.Array, ...]:
    places = _turn(a, b)
    first, second, third = _turned((a, x, b), places)
    return _turned((p, T(first) @ T(third), T(second) @ T(first)), -places % 3)


trace_sandwich = scalar(
    "trace_sandwich",
    "The trace of a matrix between two others.",
    "C = tr A X B",
    "dC = tr dA X B + tr A dX B + tr A X dB, and a trace may be turned: tr A dX B = tr B A dX",
    "∂A = (X B)ᵀ, ∂X = Aᵀ Bᵀ, ∂B = (A X)ᵀ",
    _trace_sandwich,
    _trace_sandwich_gradients,
    axes="a: m n, x: n k, b: k m",
    reference=lambda a, x, b: jnp.einsum("...mn,...nk,...km->...", a, x, b),
    source="Cookbook (101), (102)",
    saves="A, X, B, and of X B, B A and A X the smallest",
)
trace_quadratic = scalar(
    "trace_quadratic",
    "The sum of the quadratic forms of the columns of X.",
    "C = tr Xᵀ B X",
    "dC = tr dXᵀ B X + tr Xᵀ dB X + tr Xᵀ B dX",
    "∂X = (B + Bᵀ) X, ∂B = X Xᵀ",
    lambda x, b: (inner(x, p := b @ x), (x, b, p)),
    lambda x, b, p: (p + T(b) @ x, x @ T(x)),
    axes="x: n k, b: n n",
    reference=lambda x, b: jnp.einsum("...nk,...nm,...mk->...", x, b, x),
    source="Cookbook (108)-(113), (115)",
    saves="X, B, B X",
)
trace_bilinear_quadratic = scalar(
    "trace_bilinear_quadratic",
    "A quadratic form in vec X, of the matrix Cᵀ ⊗ B.",
    "C = tr Xᵀ B X A",
    "dC = tr dXᵀ B X A + tr Xᵀ dB X A + tr Xᵀ B dX A + tr Xᵀ B X dA",
    "∂X = B X A + Bᵀ X Aᵀ, ∂B = X Aᵀ Xᵀ, ∂A = Xᵀ Bᵀ X",
    lambda x, b, a: (inner(a, m := T(p := b @ x) @ x), (x, b, a, p, m)),
    lambda x, b, a, p, m: (p @ a + T(b) @ (q := x @ T(a)), q @ T(x), m),
    axes="x: n k, b: n n, a: k k",
    reference=lambda x, b, a: jnp.einsum("...nk,...nm,...mj,...jk->...", x, b, x, a),
    source="Cookbook (117)",
    saves="X, B, A, B X, Xᵀ Bᵀ X",
)


def _trace_repeated(a: jax.Array, x: jax.Array, b: jax.Array) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    p, q = (a @ x, b @ x) if a.shape[-2] < a.shape[-1] else (x @ a, x @ b)
    return inner(T(p), q), (a, x, b, p, q)


def _trace_repeated_pullback(
    c: jax.Array, a: jax.Array, x: jax.Array, b: jax.Array, p: jax.Array, q: jax.Array
) -> tuple[jax.Array, ...]:
    p, q = T(scaled(c, p)), T(scaled(c, q))
    if a.shape[-2] < a.shape[-1]:
        return q @ T(x), T(b) @ p + T(a) @ q, p @ T(x)
    return T(x) @ q, p @ T(b) + q @ T(a), T(x) @ p


trace_repeated = identity(
    "trace_repeated",
    "The trace of a product in which X occurs twice.",
    "C = tr A X B X",
    "dC = tr dA X B X + tr A dX B X + tr A X dB X + tr A X B dX",
    "Ā = C̄ (X B X)ᵀ, X̄ = C̄ (Aᵀ Xᵀ Bᵀ + Bᵀ Xᵀ Aᵀ), B̄ = C̄ (X A X)ᵀ",
    _trace_repeated,
    _trace_repeated_pullback,
    axes="a: m n, x: n m, b: m n",
    reference=lambda a, x, b: jnp.einsum("...mn,...nj,...jk,...km->...", a, x, b, x),
    source="Cookbook (106), (107), (114)",
    saves="A, X, B, and A X, B X or, where they are smaller, X A, X B",
    note="C̄ is multiplied into what is saved, the smallest of all.",
)
trace_sandwich_gram = scalar(
    "trace_sandwich_gram",
    "The trace of a product in which X occurs once as it is, and once transposed.",
    "C = tr A X B Xᵀ",
    "dC = tr dA X B Xᵀ + tr A dX B Xᵀ + tr A X dB Xᵀ + tr A X B dXᵀ",
    "∂A = X Bᵀ Xᵀ, ∂X = Aᵀ X Bᵀ + A X B, ∂B = Xᵀ Aᵀ X",
    lambda a, x, b: (inner(x, (p := a @ x) @ b), (a, x, b, p)),
    lambda a, x, b, p: ((q := x @ T(b)) @ T(x), p @ b + T(a) @ q, T(p) @ x),
    axes="a: n n, x: n k, b: k k",
    reference=lambda a, x, b: jnp.trace(a @ x @ b @ T(x), axis1=-2, axis2=-1),
    source="Cookbook (111), (118)",
    saves="A, X, B, A X",
)


def _right_first(a: jax.Array, b: jax.Array) -> bool:
    """Whether A (X B) takes fewer operations than (A X) B; backward twice as many in either case."""
    (m, n), (k, j) = a.shape[-2:], b.shape[-2:]
    return n * j * (k + m) <= m * k * (n + j)


def _squared_affine(
    a: jax.Array, x: jax.Array, b: jax.Array, d: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    p = x @ b if _right_first(a, b) else a @ x
    r = (a @ p if _right_first(a, b) else p @ b) + d
    return inner(r, r), (a, x, b, p, r)


def _squared_affine_pullback(
    c: jax.Array, a: jax.Array, x: jax.Array, b: jax.Array, p: jax.Array, r: jax.Array
) -> tuple[jax.Array, ...]:
    delta = scaled(2 * c, r)
    if _right_first(a, b):
        q = T(a) @ delta
        return delta @ T(p), q @ T(b), T(x) @ q, delta
    q = delta @ T(b)
    return q @ T(x), T(a) @ q, T(p) @ delta, delta


squared_affine_residual = identity(
    "squared_affine_residual",
    "The squared Frobenius norm of an affine function of X.",
    "C = ‖A X B + D‖²",
    "with R = A X B + D, dC = 2 R : dR and dR = dA X B + A dX B + A X dB + dD",
    "with δ = 2 C̄ R, Ā = δ (X B)ᵀ, X̄ = Aᵀ δ Bᵀ, B̄ = (A X)ᵀ δ, D̄ = δ",
    _squared_affine,
    _squared_affine_pullback,
    axes="a: m n, x: n k, b: k j, d: m j",
    reference=lambda a, x, b, d: jnp.sum(jnp.square(a @ x @ b + d), (-1, -2)),
    source="Cookbook (119), (132)",
    saves="A, X, B, X B (or A X, where that takes fewer operations), R",
)
low_rank_residual = scalar(
    "low_rank_residual",
    "The squared distance of a matrix to one of low rank.",
    "C = ‖X - U Vᵀ‖²",
    "with R = X - U Vᵀ, dC = 2 R : dR and dR = dX - dU Vᵀ - U dVᵀ",
    "∂X = 2 R, ∂U = -2 R V, ∂V = -2 Rᵀ U",
    lambda x, u, v: (inner(r := x - u @ T(v), r), (u, v, r)),
    lambda u, v, r: (r2 := 2 * r, -(r2 @ v), -(T(r2) @ u)),
    axes="x: m n, u: m k, v: n k",
    reference=lambda x, u, v: jnp.sum(jnp.square(x - jnp.einsum("...mk,...nk->...mn", u, v)), (-1, -2)),
    source="Cookbook (119)",
    saves="U, V, R",
)


def _exponent(rule: str, power: int) -> int:
    if power < 0:
        raise ValueError(f"{rule}: static option `power` must not be negative, got {power}; invert X first.")
    return power


def _trace_power(x: jax.Array, *, power: int = 3) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    n = _exponent("trace_power", power)
    if n == 0:
        return jnp.sum(jnp.ones_like(x[..., 0]), -1), (jnp.zeros_like(x),)
    below = jnp.linalg.matrix_power(x, n - 1)
    return inner(T(below), x), (below,)


trace_power = scalar(
    "trace_power",
    "The trace of a power of a square matrix.",
    "C = tr Xᵏ",
    "dC = Σ tr Xⁱ dX Xᵏ⁻¹⁻ⁱ = k tr Xᵏ⁻¹ dX: under the trace the k terms are one",
    "∂X = k (Xᵏ⁻¹)ᵀ",
    _trace_power,
    lambda below, *, power=3: (power * T(below),),
    axes="x: n n",
    reference=lambda x, power=3: jnp.trace(jnp.linalg.matrix_power(x, power), axis1=-2, axis2=-1),
    settings=({"power": 1}, {"power": 4}, {"power": 0}),
    sizes=({"n": 3},),
    source="Cookbook (106), (121)",
    saves="Xᵏ⁻¹",
)


def _power_form(
    a: jax.Array, x: jax.Array, b: jax.Array, *, power: int = 3
) -> tuple[jax.Array, tuple[Any, ...]]:
    right = [b]  # b, X b, X² b, ...
    for _ in range(_exponent("power_form", power)):
        right.append(mv(x, right[-1]))
    return jnp.sum(a * right[-1], -1), (a, x, right)


def _power_form_gradients(
    a: jax.Array, x: jax.Array, right: list[jax.Array], *, power: int = 3
) -> tuple[jax.Array, ...]:
    total, left = jnp.zeros_like(x), a
    for term in reversed(right[:power]):
        total, left = total + outer(left, term), mv(T(x), left)
    return right[-1], total, left


power_form = scalar(
    "power_form",
    "The linear form of a power of a square matrix, by products with vectors only.",
    "C = aᵀ Xᵏ b",
    "dC = daᵀ Xᵏ b + Σ aᵀ Xⁱ dX Xᵏ⁻¹⁻ⁱ b + aᵀ Xᵏ db, i from 0 to k - 1",
    "∂a = Xᵏ b, ∂X = Σ ((Xⁱ)ᵀ a) (Xᵏ⁻¹⁻ⁱ b)ᵀ, ∂b = (Xᵏ)ᵀ a",
    _power_form,
    _power_form_gradients,
    axes="a: n, x: n n, b: n",
    reference=lambda a, x, b, power=3: jnp.einsum(
        "...i,...ij,...j->...", a, jnp.linalg.matrix_power(x, power), b
    ),
    settings=({"power": 1}, {"power": 4}, {"power": 0}),
    sizes=({"n": 3},),
    source="Cookbook (90), (91)",
    saves="a, X, and Xⁱ b for i up to k",
)


def _trace_product_power(a: jax.Array, x: jax.Array, *, power: int = 3) -> tuple[jax.Array, tuple[Any, ...]]:
    n = _exponent("trace_product_power", power)
    powers = [x]
    while len(powers) < n:
        powers.append(powers[-1] @ x)
    return inner(T(a), powers[-1]) if n else tr(a), (a, x, powers)


def _trace_product_power_gradients(
    a: jax.Array, x: jax.Array, powers: list[jax.Array], *, power: int = 3
) -> tuple[jax.Array, ...]:
    # Σ Xⁱ A Xᵏ⁻¹⁻ⁱ by Horner's scheme: S ← X S + A Xʲ.
    total = a
    for below in powers[: power - 1]:
        total = x @ total + a @ below
    return (T(powers[-1]), T(total)) if power else (identity_like(a), jnp.zeros_like(x))


trace_product_power = scalar(
    "trace_product_power",
    "The trace of a matrix times a power of another.",
    "C = tr A Xᵏ",
    "dC = tr dA Xᵏ + Σ tr A Xⁱ dX Xᵏ⁻¹⁻ⁱ, i from 0 to k - 1",
    "∂A = (Xᵏ)ᵀ, ∂X = Σ (Xⁱ A Xᵏ⁻¹⁻ⁱ)ᵀ",
    _trace_product_power,
    _trace_product_power_gradients,
    axes="a: n n, x: n n",
    reference=lambda a, x, power=3: jnp.trace(a @ jnp.linalg.matrix_power(x, power), axis1=-2, axis2=-1),
    settings=({"power": 1}, {"power": 4}, {"power": 0}),
    sizes=({"n": 3},),
    points={"X = 0": Point({"x": 0.0})},
    source="Cookbook (107), (122)",
    saves="A, X and its powers",
)
