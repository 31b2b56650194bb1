"""Inverses and linear systems: one factorization, forward and backward.

Numbers in brackets are equations of the Matrix Cookbook (Petersen and Pedersen, 15 November 2012). Where a
matrix is singular the function itself is infinite or NaN, and so are its cotangents.
"""

from typing import Any

import jax
from jax import numpy as jnp
from jax.scipy import linalg as jsl

from ...domains import Point, WellConditioned
from ._algebra import T, dot, in_float32, inner, outer
from ._domains import DominantDiagonal, Stable
from ._identity import identity, scalar

_SINGULAR = {"singular": Point({"x": 0.0}, agrees=False, why="there is no inverse: infinity and NaN")}

inv = identity(
    "inv",
    "The inverse of a square matrix.",
    "Z = X⁻¹",
    "from X Z = I, dX Z + X dZ = 0, so dZ = -Z dX Z",
    "X̄ = -Zᵀ Z̄ Zᵀ",
    lambda x: (z := jnp.linalg.inv(x), (z,)),
    lambda ct, z: (-(T(z) @ ct @ T(z)),),
    axes="x: n n",
    domain={"x": WellConditioned()},
    points=_SINGULAR,
    sizes=({"n": 4},),
    reference=in_float32(
        lambda x: jnp.linalg.solve(x, jnp.broadcast_to(jnp.eye(x.shape[-1], dtype=x.dtype), x.shape))
    ),
    source="Cookbook (40), (59), (60); Giles 2008, 2.2.3; ChainRules dense.jl",
    saves="Z",
)
inverse_form = scalar(
    "inverse_form",
    "The linear form of an inverse, which is never formed.",
    "C = aᵀ X⁻¹ b",
    "with u = X⁻ᵀ a and w = X⁻¹ b, dC = daᵀ w - uᵀ dX w + uᵀ db",
    "∂a = w, ∂X = -u wᵀ, ∂b = u",
    lambda a, x, b: (
        dot(a, w := jsl.lu_solve(f := jsl.lu_factor(x), b[..., None])[..., 0]),
        (jsl.lu_solve(f, a[..., None], trans=1)[..., 0], w),
    ),
    lambda u, w: (w, -outer(u, w), u),
    axes="a: n, x: n n, b: n",
    domain={"x": WellConditioned()},
    points=_SINGULAR,
    sizes=({"n": 4},),
    reference=in_float32(lambda a, x, b: jnp.einsum("...i,...ij,...j->...", a, jnp.linalg.inv(x), b)),
    source="Cookbook (61)",
    saves="X⁻ᵀ a, X⁻¹ b",
)
trace_inverse = scalar(
    "trace_inverse",
    "The trace of an inverse between two matrices; the inverse is never formed.",
    "C = tr A X⁻¹ B",
    "with U = X⁻ᵀ Aᵀ and W = X⁻¹ B, dC = tr dA W - tr Uᵀ dX W + tr Uᵀ dB",
    "∂A = Wᵀ, ∂X = -U Wᵀ, ∂B = U",
    lambda a, x, b: (
        inner(T(a), w := jsl.lu_solve(f := jsl.lu_factor(x), b)),
        (jsl.lu_solve(f, T(a), trans=1), w),
    ),
    lambda u, w: (T(w), -(u @ T(w)), u),
    axes="a: m n, x: n n, b: n m",
    domain={"x": WellConditioned()},
    points=_SINGULAR,
    sizes=({"n": 4, "m": 3},),
    reference=in_float32(lambda a, x, b: jnp.trace(a @ jnp.linalg.inv(x) @ b, axis1=-2, axis2=-1)),
    source="Cookbook (63), (64), (124)",
    saves="X⁻ᵀ Aᵀ, X⁻¹ B",
)


def _quadratic_inverse(x: jax.Array, c: jax.Array, a: jax.Array) -> tuple[jax.Array, tuple[Any, ...]]:
    y = c @ x
    m = jnp.linalg.inv(T(x) @ y)
    return inner(T(m), a), (x, c, a, y, m)


def _quadratic_inverse_gradients(
    x: jax.Array, c: jax.Array, a: jax.Array, y: jax.Array, m: jax.Array
) -> tuple[jax.Array, ...]:
    w = m @ a @ m
    xw = x @ T(w)
    return -(y @ w + T(c) @ xw), -(xw @ T(x)), T(m)


trace_quadratic_inverse = scalar(
    "trace_quadratic_inverse",
    "The trace of a matrix times the inverse of a congruence.",
    "C = tr (Xᵀ C X)⁻¹ A",
    "with M = (Xᵀ C X)⁻¹ and W = M A M, dC = -tr W d(Xᵀ C X) + tr M dA",
    "∂X = -(C X W + Cᵀ X Wᵀ), ∂C = -X Wᵀ Xᵀ, ∂A = Mᵀ",
    _quadratic_inverse,
    _quadratic_inverse_gradients,
    axes="x: n k, c: n n, a: k k",
    domain={"x": WellConditioned(), "c": Stable()},
    sizes=({"n": 4, "k": 3},),
    reference=in_float32(lambda x, c, a: jnp.trace(jnp.linalg.solve(T(x) @ c @ x, a), axis1=-2, axis2=-1)),
    source="Cookbook (125)-(127)",
    saves="X, C, A, C X, M",
)
solve = identity(
    "solve",
    "The solution of linear systems, one for each column of B.",
    "X = A⁻¹ B",
    "from A X = B, A dX = dB - dA X",
    "B̄ = A⁻ᵀ X̄, Ā = -B̄ Xᵀ",
    lambda a, b: (x := jsl.lu_solve(f := jsl.lu_factor(a), b), (f, x)),
    lambda ct, f, x: (-((b := jsl.lu_solve(f, ct, trans=1)) @ T(x)), b),
    axes="a: n n, b: n k",
    domain={"a": WellConditioned()},
    points={"singular": Point({"a": 0.0}, agrees=False, why="there is no solution: infinity and NaN")},
    sizes=({"n": 4, "k": 3},),
    reference=in_float32(jnp.linalg.solve),
    source="Giles 2008, 2.3.1; ChainRules dense.jl",
    saves="the LU factors of A, and X; the same factors solve for B̄",
)


def _triangle(a: jax.Array, lower: bool, unit_diagonal: bool) -> jax.Array:
    strictly = int(unit_diagonal)
    return jnp.tril(a, -strictly) if lower else jnp.triu(a, strictly)


def _solve_triangular(
    a: jax.Array, b: jax.Array, *, trans: int = 0, lower: bool = False, unit_diagonal: bool = False
) -> tuple[jax.Array, tuple[Any, ...]]:
    if trans not in (0, 1):
        raise ValueError(f"solve_triangular: static option `trans` must be 0 (A) or 1 (Aᵀ), got {trans}.")
    x = jsl.solve_triangular(a, b, trans=trans, lower=lower, unit_diagonal=unit_diagonal)
    return x, (a, x)


def _solve_triangular_pullback(
    ct: jax.Array,
    a: jax.Array,
    x: jax.Array,
    *,
    trans: int = 0,
    lower: bool = False,
    unit_diagonal: bool = False,
) -> tuple[jax.Array, jax.Array]:
    b = jsl.solve_triangular(a, ct, trans=1 - trans, lower=lower, unit_diagonal=unit_diagonal)
    return -_triangle(x @ T(b) if trans else b @ T(x), lower, unit_diagonal), b


def _solve_triangular_reference(
    a: jax.Array, b: jax.Array, trans: int = 0, lower: bool = False, unit_diagonal: bool = False
) -> jax.Array:
    t = _triangle(a, lower, unit_diagonal)
    t = t + jnp.eye(a.shape[-1], dtype=a.dtype) if unit_diagonal else t
    return jnp.linalg.solve(jnp.swapaxes(t, -1, -2) if trans else t, b)


solve_triangular = identity(
    "solve_triangular",
    "The solution of triangular systems, as `jax.scipy.linalg.solve_triangular`.",
    "X = A⁻¹ B, or A⁻ᵀ B with trans = 1",
    "as for `solve`; the other triangle of A (and its diagonal, if that is taken as ones) is not read",
    "B̄ = A⁻ᵀ X̄, Ā = -triangle(B̄ Xᵀ); with trans = 1, B̄ = A⁻¹ X̄, Ā = -triangle(X B̄ᵀ)",
    _solve_triangular,
    _solve_triangular_pullback,
    axes="a: n n, b: n k",
    domain={"a": DominantDiagonal()},
    settings=({"lower": True}, {"trans": 1}, {"lower": True, "trans": 1, "unit_diagonal": True}),
    sizes=({"n": 4, "k": 3},),
    reference=in_float32(_solve_triangular_reference),
    source="Giles 2008, 2.3.1; PyTorch linalg_solve_triangular",
    saves="A, X",
)


def _cho_solve_pullback(
    ct: jax.Array, c: jax.Array, x: jax.Array, *, lower: bool = False
) -> tuple[jax.Array, jax.Array]:
    b = jsl.cho_solve((c, lower), ct)
    if lower:
        t = jnp.tril(c)
        return -jnp.tril(b @ (T(x) @ t) + x @ (T(b) @ t)), b
    t = jnp.triu(c)
    return -jnp.triu((t @ b) @ T(x) + (t @ x) @ T(b)), b


def _cho_solve_reference(c: jax.Array, b: jax.Array, lower: bool = False) -> jax.Array:
    t = jnp.tril(c) if lower else jnp.triu(c)
    return jnp.linalg.solve(t @ T(t) if lower else T(t) @ t, b)


cho_solve = identity(
    "cho_solve",
    "The solution of systems given by a Cholesky factor, as `jax.scipy.linalg.cho_solve`.",
    "X = S⁻¹ B, with S = Uᵀ U from the upper triangle U, or S = L Lᵀ with lower = True",
    "from S X = B, S dX = dB - dS X, and dS = dL Lᵀ + L dLᵀ",
    "B̄ = S⁻¹ X̄, L̄ = -tril((B̄ Xᵀ + X B̄ᵀ) L), Ū = -triu(U (B̄ Xᵀ + X B̄ᵀ))",
    lambda c, b, *, lower=False: (x := jsl.cho_solve((c, lower), b), (c, x)),
    _cho_solve_pullback,
    axes="c: n n, b: n k",
    domain={"c": DominantDiagonal()},
    settings=({"lower": True},),
    sizes=({"n": 4, "k": 3},),
    reference=in_float32(_cho_solve_reference),
    source="Murray 2016, arXiv:1602.07527; PyTorch cholesky_solve",
    saves="the factor, and X",
)


def _kronecker_sum(a: jax.Array, b: jax.Array) -> jax.Array:
    # Rows of X below one another: A X is (A ⊗ I) x, X B is (I ⊗ Bᵀ) x.
    m, n = a.shape[-1], b.shape[-1]
    left = a[..., :, None, :, None] * jnp.eye(n, dtype=a.dtype)[:, None, :]
    right = jnp.eye(m, dtype=a.dtype)[:, None, :, None] * T(b)[..., None, :, None, :]
    return (left + right).reshape(*a.shape[:-2], m * n, m * n)


def _sylvester(a: jax.Array, b: jax.Array, c: jax.Array) -> tuple[jax.Array, tuple[Any, ...]]:
    factors = jsl.lu_factor(_kronecker_sum(a, b))
    x = jsl.lu_solve(factors, c.reshape(*c.shape[:-2], -1, 1)).reshape(c.shape)
    return x, (factors, x)


def _sylvester_pullback(ct: jax.Array, factors: Any, x: jax.Array) -> tuple[jax.Array, ...]:
    c = jsl.lu_solve(factors, ct.reshape(*ct.shape[:-2], -1, 1), trans=1).reshape(ct.shape)
    return -(c @ T(x)), -(T(x) @ c), c


sylvester = identity(
    "sylvester",
    "The solution of Sylvester's equation.",
    "A X + X B = C",
    "A dX + dX B = dC - dA X - X dB, the same equation; its adjoint has Aᵀ and Bᵀ",
    "C̄ from Aᵀ C̄ + C̄ Bᵀ = X̄, Ā = -C̄ Xᵀ, B̄ = -Xᵀ C̄",
    _sylvester,
    _sylvester_pullback,
    axes="a: m m, b: n n, c: m n",
    domain={"a": Stable(), "b": Stable()},
    sizes=({"m": 3, "n": 2},),
    reference=in_float32(
        lambda a, b, c: jnp.linalg.solve(
            jnp.vectorize(jnp.kron, signature="(a,b),(c,d)->(e,f)")(a, jnp.eye(b.shape[-1], dtype=a.dtype))
            + jnp.vectorize(jnp.kron, signature="(a,b),(c,d)->(e,f)")(
                jnp.eye(a.shape[-1], dtype=a.dtype), T(b)
            ),
            c.reshape(*c.shape[:-2], -1, 1),
        ).reshape(c.shape)
    ),
    source="ChainRules dense.jl (sylvester); Kao and Hennequin 2020",
    saves="the LU factors of A ⊗ I + I ⊗ Bᵀ, and X",
    note="Solved as one system in vec X: for small matrices, as (m n)³ operations are spent. There is one "
    "solution unless an eigenvalue of A is minus one of B.",
)


def _lyapunov(a: jax.Array, q: jax.Array) -> tuple[jax.Array, tuple[Any, ...]]:
    return _sylvester(a, T(a), q)


def _lyapunov_pullback(ct: jax.Array, factors: Any, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    a, b, q = _sylvester_pullback(ct, factors, x)
    return a + T(b), q


lyapunov = identity(
    "lyapunov",
    "The solution of Lyapunov's equation.",
    "A X + X Aᵀ = Q",
    "A dX + dX Aᵀ = dQ - dA X - X dAᵀ",
    "Q̄ from Aᵀ Q̄ + Q̄ A = X̄, Ā = -(Q̄ Xᵀ + Q̄ᵀ X)",
    _lyapunov,
    _lyapunov_pullback,
    axes="a: n n, q: n n",
    domain={"a": Stable()},
    sizes=({"n": 3},),
    reference=in_float32(
        lambda a, q: jnp.linalg.solve(
            jnp.einsum("...ij,kl->...ikjl", a, i := jnp.eye(a.shape[-1], dtype=a.dtype)).reshape(
                *a.shape[:-2], q.shape[-1] ** 2, q.shape[-1] ** 2
            )
            + jnp.einsum("...ij,kl->...kilj", a, i).reshape(
                *a.shape[:-2], q.shape[-1] ** 2, q.shape[-1] ** 2
            ),
            q.reshape(*q.shape[:-2], -1, 1),
        ).reshape(q.shape)
    ),
    source="ChainRules dense.jl (sylvester, lyap)",
    saves="the LU factors of A ⊗ I + I ⊗ A, and X",
    note="Q need not be symmetric. Solved as `sylvester` is.",
)
cayley = identity(
    "cayley",
    "The Cayley transform: orthogonal for a skew-symmetric A.",
    "Z = (I - A)⁻¹ (I + A)",
    "from (I - A) Z = I + A, (I - A) dZ = dA + dA Z = dA (I + Z)",
    "Ā = (I - A)⁻ᵀ Z̄ (I + Z)ᵀ",
    lambda a: (
        z := jsl.lu_solve(f := jsl.lu_factor((i := jnp.eye(a.shape[-1], dtype=a.dtype)) - a), i + a),
        (f, z),
    ),
    lambda ct, f, z: (jsl.lu_solve(f, ct + ct @ T(z), trans=1),),
    axes="a: n n",
    domain={"a": WellConditioned()},
    points={"A = 0": Point({"a": 0.0}, {"a": 2.0})},
    sizes=({"n": 3},),
    reference=in_float32(lambda a: jnp.linalg.inv((i := jnp.eye(a.shape[-1], dtype=a.dtype)) - a) @ (i + a)),
    source="from `solve`; Higham, Functions of Matrices, 2008",
    saves="the LU factors of I - A, and Z",
    note="There is none where A has the eigenvalue 1.",
)
