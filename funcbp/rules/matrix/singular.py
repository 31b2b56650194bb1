"""Singular values and vectors, the norms that are made of them, and the polar factor."""

import jax
import numpy as np
from jax import lax
from jax import numpy as jnp

from ...domains import Point, WellConditioned
from ._algebra import T, derived, diag, in_float32, inner, scaled
from ._bases import svd_reference
from ._domains import eye
from ._identity import identity, scalar
from ._signs import signs_of

_SIZES = ({"m": 3, "n": 2}, {"m": 2, "n": 4}, {"m": 2, "n": 2})


def _svd(x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    u, s, vt = jnp.linalg.svd(x, full_matrices=False)
    return u, s, vt


singular_values = identity(
    "singular_values",
    "The singular values of a matrix, descending, as `jnp.linalg.svdvals`.",
    "σ, with X = U Diag(σ) Vᵀ",
    "dσ_i = u_iᵀ dX v_i",
    "X̄ = U Diag(σ̄) Vᵀ",
    lambda x: ((found := _svd(x))[1], (found[0], found[2])),
    lambda ct, u, vt: ((u * ct[..., None, :]) @ vt,),
    axes="x: m n",
    domain={"x": WellConditioned()},
    points={
        "X = I": Point(
            {"x": eye},
            {"x": eye},
            agrees=False,
            why="as by any other singular vectors, for their sum",
            smooth=False,
        )
    },
    sizes=_SIZES,
    reference=in_float32(lambda x: svd_reference(x)[1]),
    source="Giles 2008, 3.2; PyTorch svd_backward; ChainRules factorization.jl",
    saves="U, V",
    note="Where singular values are equal this is right for functions that treat them alike (their sum), and "
    "a subgradient of the convex ones (the largest). At σ = 0 it is one of the subgradients of σ ≥ 0.",
)


def _canonical_svd(x: jax.Array) -> tuple[tuple[jax.Array, ...], tuple[jax.Array, ...]]:
    u, s, vt = _svd(x)
    signs = signs_of(u)
    out = u * signs[..., None, :], s, vt * signs[..., :, None]
    return out, out


def _svd_pullback(cts: tuple[jax.Array, ...], u: jax.Array, s: jax.Array, vt: jax.Array) -> tuple[jax.Array]:
    """For cotangents of the first k of the triplets; those of the others are 0, and do not meet."""
    u_ct, s_ct, vt_ct = cts
    v_ct = T(vt_ct)
    k, rest = s_ct.shape[-1], s.shape[-1] - s_ct.shape[-1]
    leading = np.arange(s.shape[-1]) < k
    met = ~np.eye(s.shape[-1], dtype=bool) & (leading[:, None] | leading)
    a, b = s[..., :, None], s[..., None, :]
    f = jnp.where(met, 1 / jnp.where(met, (b - a) * (b + a), 1), 0)
    p, q = (_wider(x, rest) for x in (T(u) @ u_ct, vt @ v_ct))
    core = f * (p - T(p)) * b + a * f * (q - T(q)) + diag(_wider(s_ct, rest))
    # What of Ū and V̄ is outside of the spaces that U and V span: nothing for a square matrix.
    rest_u = (u_ct - u @ p[..., :k]) / s[..., None, :k]
    rest_v = T((v_ct - T(vt) @ q[..., :k]) / s[..., None, :k])
    return (u @ core @ vt + rest_u @ vt[..., :k, :] + u[..., :k] @ rest_v,)


def _wider(x: jax.Array, count: int) -> jax.Array:
    """With so many columns of zeros more."""
    return jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, count)])


def _svd_reference(x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    u, s, vt = svd_reference(x)
    largest = jnp.take_along_axis(u, jnp.argmax(jnp.abs(u), -2, keepdims=True), -2)
    signs = lax.stop_gradient(jnp.copysign(1, largest))
    return u * signs, s, vt * jnp.swapaxes(signs, -1, -2)


svd = identity(
    "svd",
    "The thin singular value decomposition.",
    "U, σ, Vᵀ, with X = U Diag(σ) Vᵀ, Uᵀ U = Vᵀ V = I, σ descending",
    "with P = Uᵀ dX V and F_ij = 1 / (σ_j² - σ_i²), dσ = diag P, Uᵀ dU = F ⊙ (P Σ + Σ Pᵀ), Vᵀ dV = F ⊙ "
    "(Σ P + Pᵀ Σ), and outside of U and V, (I - U Uᵀ) dU = (I - U Uᵀ) dX V Σ⁻¹, and so for V",
    "X̄ = U [F ⊙ (Uᵀ Ū - Ūᵀ U) Σ + Σ F ⊙ (Vᵀ V̄ - V̄ᵀ V) + Diag(σ̄)] Vᵀ + (I - U Uᵀ) Ū Σ⁻¹ Vᵀ + U Σ⁻¹ V̄ᵀ (I "
    "- V Vᵀ)",
    _canonical_svd,
    _svd_pullback,
    axes="x: m n",
    outputs=("u", "s", "vh"),
    domain={"x": WellConditioned()},
    points={
        "singular values equal": Point(
            {"x": eye},
            agrees=False,
            why="singular vectors are not continuous there: infinity or NaN, as in JAX",
        )
    },
    sizes=_SIZES,
    reference=in_float32(_svd_reference),
    source="Giles 2008, 3.2; Townsend 2016; PyTorch svd_backward",
    saves="U, σ, V",
    note="The signs of a pair of singular vectors are free: u's entry of largest magnitude is positive, else "
    "the factors are those of `jnp.linalg.svd`. Where singular values are equal or 0, use "
    "`singular_values`, `nuclear_norm` or `polar_factor`, which have a derivative there.",
)


def _truncated(x: jax.Array, *, k: int = 1) -> tuple[tuple[jax.Array, ...], tuple[jax.Array, ...]]:
    smaller = min(x.shape[-2:])
    if not 1 <= k <= smaller:
        raise ValueError(
            f"truncated_svd: static option `k` must be from 1 to {smaller}, the smaller side of `x` of shape "
            f"{x.shape}, got {k}."
        )
    (u, s, vt), saved = _canonical_svd(x)
    return (u[..., :k], s[..., :k], vt[..., :k, :]), saved


def _truncated_pullback(
    cts: tuple[jax.Array, ...], u: jax.Array, s: jax.Array, vt: jax.Array, *, k: int = 1
) -> tuple[jax.Array]:
    del k  # the number of cotangents
    return _svd_pullback(cts, u, s, vt)


def _truncated_reference(x: jax.Array, k: int = 1) -> tuple[jax.Array, jax.Array, jax.Array]:
    u, s, vt = _svd_reference(x)
    return u[..., :k], s[..., :k], vt[..., :k, :]


truncated_svd = identity(
    "truncated_svd",
    "The k leading singular triplets: what the best approximation of rank k is made of.",
    "U, σ, Vᵀ: the first k columns, numbers and rows of `svd`",
    "as of `svd`; F only where i or j is one of the first k, as two of the others never meet",
    "that of `svd`, with 0 for the cotangents of the triplets left out",
    _truncated,
    _truncated_pullback,
    axes="x: m n",
    outputs=("u", "s", "vh"),
    domain={"x": WellConditioned()},
    points={
        "singular values equal": Point(
            {"x": eye},
            agrees=False,
            why="singular vectors are not continuous there: infinity or NaN, as in JAX",
        )
    },
    settings=({"k": 2},),
    sizes=_SIZES,
    reference=in_float32(_truncated_reference),
    source="Giles 2008, 3.2; Townsend 2016; Eckart and Young 1936",
    saves="U, σ, V, those left out, too",
    note="Differentiable where σ_1 > … > σ_k > σ_(k+1) and σ_k > 0; at a tie among these infinity or NaN. "
    "What is left out may be equal, or 0. Signs as in `svd`.",
)


def _outside(shape: tuple[int, ...]) -> np.ndarray:
    """Zeros in the leading square block, ones outside."""
    return np.ones(shape[-2:]) - np.outer(*(np.arange(n) < min(shape[-2:]) for n in shape[-2:]))


def _polar_tangent(dx: jax.Array, u: jax.Array, s: jax.Array, vt: jax.Array) -> jax.Array:
    """The derivative of U Vᵀ: its own adjoint."""
    v = T(vt)
    left, right = T(u) @ dx, dx @ v  # Uᵀ dX, dX V
    p = left @ v
    off = ~jnp.eye(s.shape[-1], dtype=bool)
    total = s[..., :, None] + s[..., None, :]
    k = jnp.where(off, (p - T(p)) / jnp.where(off, total, 1), 0)
    rest_u = (right - u @ p) / s[..., None, :]
    rest_v = (left - p @ vt) / s[..., :, None]
    return (u @ k + rest_u) @ vt + u @ rest_v


def _polar_factor(x: jax.Array) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    u, s, vt = _svd(x)
    return derived(u @ vt, x, lambda dx, x: _polar_tangent(dx, *_svd(x))), (u, s, vt)


polar_factor = identity(
    "polar_factor",
    "The matrix with orthonormal columns (or rows) nearest to X: U of `jax.scipy.linalg.polar`.",
    "Q = U Vᵀ, with X = U Diag(σ) Vᵀ = Q H",
    "with P = Uᵀ dX V, dQ = U [(P - Pᵀ)_ij / (σ_i + σ_j)] Vᵀ + (I - U Uᵀ) dX V Σ⁻¹ Vᵀ + U Σ⁻¹ Uᵀ dX (I - V "
    "Vᵀ)",
    "X̄ = the same with Q̄ for dX: the map is its own adjoint",
    _polar_factor,
    lambda ct, u, s, vt: (_polar_tangent(ct, u, s, vt),),
    axes="x: m n",
    domain={"x": WellConditioned()},
    points={
        "X = I": Point(
            {"x": eye}, {"x": _outside}, agrees=False, why="finite and right; by way of singular vectors NaN"
        )
    },
    sizes=_SIZES,
    reference=in_float32(lambda x: (found := svd_reference(x))[0] @ found[2]),
    source="PyTorch linalg_polar_backward; Higham, Functions of Matrices, ch. 8",
    saves="U, σ, V",
    note="Differences of singular values do not occur: equal ones do no harm. Two that are 0 do: NaN; a tall "
    "or wide matrix must have full rank.",
)


def _without_zeros(x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """U, σ, Vᵀ with zeros for vectors, and ones for values, where σ counts as 0."""
    u, s, vt = _svd(x)
    largest = jnp.max(s, -1, keepdims=True, initial=0)
    keep = s > max(x.shape[-2:]) * jnp.finfo(x.dtype).eps * largest
    return u * keep[..., None, :], jnp.where(keep, s, 1), vt * keep[..., :, None]


def _direction(x: jax.Array) -> jax.Array:
    u, _, vt = _without_zeros(x)
    return derived(u @ vt, x, lambda dx, x: _polar_tangent(dx, *_without_zeros(x)))


def _nuclear(x: jax.Array) -> tuple[jax.Array, tuple[jax.Array]]:
    value = derived(jnp.sum(_svd(x)[1], -1), x, lambda dx, x: inner(_direction(x), dx))
    return value, (_direction(x),)


nuclear_norm = scalar(
    "nuclear_norm",
    "The sum of the singular values.",
    "C = ‖X‖_* = Σ σ",
    "dC = Σ u_iᵀ dX v_i = U Vᵀ : dX",
    "∂X = U Vᵀ, of the σ that are not 0",
    _nuclear,
    lambda q: (q,),
    axes="x: m n",
    domain={"x": WellConditioned()},
    points={
        "X = I": Point({"x": eye}, {"x": eye}, agrees=False, why="the second derivative is NaN in JAX"),
        "X = 0": Point(
            {"x": 0.0},
            {"x": 0.0},
            agrees=False,
            why="the least subgradient; JAX has U Vᵀ of any U, V",
            smooth=False,
        ),
        "rank 1": Point(
            {"x": 1.0},
            {"x": lambda shape: np.full(shape, 1 / np.sqrt(np.prod(shape[-2:])))},
            agrees=False,
            why="the least subgradient; JAX adds an arbitrary part in the null spaces",
            smooth=False,
        ),
    },
    sizes=_SIZES,
    reference=in_float32(lambda x: jnp.sum(svd_reference(x)[1], -1)),
    source="Watson 1992 (the subdifferential)",
    saves="U Vᵀ",
    note="σ counts as 0 up to max(m, n) eps σ₁, as in `jnp.linalg.matrix_rank`; there ∂X is the subgradient "
    "of least norm. Equal singular values do no harm, in the second derivative neither.",
)


def _operator(x: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    u, s, vt = _svd(x)
    largest = s[..., :1]
    # The select also stops a derivative at X = 0.
    value = jnp.sum(jnp.where(largest > 0, largest, 0), -1)
    return value, (jnp.where(largest[..., None] > 0, u[..., :1], 0), vt[..., :1, :])


operator_norm = identity(
    "operator_norm",
    "The largest singular value: the matrix norm of ord = 2.",
    "C = ‖X‖₂ = σ₁",
    "dC = u₁ᵀ dX v₁",
    "X̄ = C̄ u₁ v₁ᵀ",
    _operator,
    lambda ct, u, vt: (scaled(ct, u * vt),),
    axes="x: m n",
    domain={"x": WellConditioned()},
    points={
        "X = 0": Point({"x": 0.0}, {"x": 0.0}, agrees=False, why="0, as for the other norms", smooth=False),
        "σ₁ = σ₂": Point(
            {"x": eye},
            agrees=False,
            why="u₁ v₁ᵀ, a subgradient; JAX has the mean over all of them",
            smooth=False,
        ),
    },
    sizes=_SIZES,
    reference=in_float32(lambda x: jnp.max(svd_reference(x)[1], -1)),
    source="Giles 2008, 3.2; Cookbook (67)",
    saves="u₁, v₁",
)
