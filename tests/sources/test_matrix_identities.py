"""The aside of section III, in columns: yᵀAx, yᵀABx, ½xᵀAᵀAx, ½xᵀBᵀAᵀABx, differentiated by matrices."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest
from jax import numpy as jnp

from .oracles import assert_close, assert_differs, assert_gradient

RNG = np.random.default_rng(6)
K, M, N = 2, 3, 4
# y A z and y A B x: z takes the place of x where there is one matrix only.
A, B = RNG.normal(size=(K, M)), RNG.normal(size=(M, N))
x, z, y = RNG.normal(size=(N, 1)), RNG.normal(size=(M, 1)), RNG.normal(size=(K, 1))
D = A.T @ A
einsum = np.einsum


def scalar(product: np.ndarray) -> float:
    """The number that a (1, 1) product is."""
    assert product.shape == (1, 1)
    return product[0, 0]


def linear(A: Any) -> Any:
    return scalar(y.T @ A @ z)


def bilinear(A: Any, B: Any) -> Any:
    return scalar(y.T @ A @ B @ x)


def quadratic(A: Any) -> Any:
    return scalar(z.T @ A.T @ A @ z) / 2


def sandwich(A: Any, B: Any) -> Any:
    return scalar(x.T @ B.T @ A.T @ A @ B @ x) / 2


@pytest.mark.formula("S2-208")
@pytest.mark.parametrize(
    ("cost", "at", "gradient"),
    [
        pytest.param(linear, {"A": A}, {"A": y @ z.T}, marks=pytest.mark.formula("S2-170"), id="y'Az"),
        pytest.param(
            bilinear,
            {"A": A, "B": B},
            {"A": y @ x.T @ B.T, "B": A.T @ y @ x.T},
            marks=pytest.mark.formula("S2-173", "S2-176", "S2-177"),
            id="y'ABx",
        ),
        pytest.param(
            quadratic,
            {"A": A},
            {"A": A @ (z @ z.T)},
            marks=pytest.mark.formula("S2-181", "S2-188"),
            id="z'A'Az/2",
        ),
        pytest.param(
            sandwich,
            {"A": A, "B": B},
            {"A": A @ B @ (x @ x.T) @ B.T, "B": (A.T @ A) @ B @ (x @ x.T)},
            marks=pytest.mark.formula("S2-190", "S2-196", "S2-206", "S2-207"),
            id="x'B'A'ABx/2",
        ),
    ],
)
def test_the_four_boxes(cost: Callable[..., Any], at: dict[str, Any], gradient: dict[str, Any]) -> None:
    """yᵀAx: yxᵀ. yᵀABx: yxᵀBᵀ, Aᵀyxᵀ. ½xᵀAᵀAx: A(xxᵀ). ½xᵀBᵀAᵀABx: AB(xxᵀ)Bᵀ, (AᵀA)B(xxᵀ)."""
    assert_gradient(lambda matrices: cost(**matrices), at, gradient)


@pytest.mark.formula("S2-149", "S2-150", "S2-151", "S2-152", "S2-178", "S2-193")
def test_dimensions() -> None:
    """C[A], at fixed x and y, is (1,m)(m,n)(n,1), a number; xᵀx (1,1), xxᵀ (n,n), AAᵀ (l,l), AᵀA (m,m)."""
    assert (y.T @ A @ z).shape == (z.T @ A.T @ A @ z).shape == (1, 1)
    shapes = [product.shape for product in (x.T @ x, x @ x.T, A @ A.T, A.T @ A, B)]
    assert shapes == [(1, 1), (N, N), (K, K), (M, M), (M, N)]
    with pytest.raises(ValueError, match="matmul"):
        y @ A
    assert_close(jnp.stack([linear(c * A) for c in (1.0, 2.0)]), linear(A) * np.array([1.0, 2.0]))


@pytest.mark.formula("S2-154", "S2-155", "S2-166")
def test_the_matrix_of_derivatives() -> None:
    """(δC/δA)_ij = ∂C/∂a_ij, of the shape of A; three entries are printed as ∂C/a_in."""
    gradient = jax.jit(jax.grad(linear))(jnp.asarray(A))
    assert gradient.shape == A.shape
    units = np.eye(A.size).reshape(-1, *A.shape)
    by_element = jax.jit(jax.vmap(jax.grad(lambda a, unit: linear(A + a * unit))))(np.zeros(A.size), units)
    assert_close(by_element.reshape(A.shape), gradient)
    assert_differs(linear(A) / A[:, -1], gradient[:, -1])


@pytest.mark.formula("S2-157", "S2-179", "S2-182", "S2-192")
def test_degrees() -> None:
    """Linear in A: no A in the derivative. Quadratic in A and x: it is linear in A and quadratic in x."""
    derivative = jax.jit(jax.grad(linear))
    assert_close(derivative(jnp.asarray(A)), derivative(jnp.asarray(2 * A)))
    right, k = (lambda A, z: A @ (z @ z.T)), 3.0
    assert_close(right(k * A, z), k * right(A, z))
    assert_close(right(A, k * z), k**2 * right(A, z))
    too_high = A @ (z @ z.T) @ (z @ z.T)
    assert too_high.shape == A.shape
    assert_differs(A @ (k * z @ (k * z).T) @ (k * z @ (k * z).T), k**2 * too_high)
    of_b = lambda A, B, x: A.T @ A @ B @ (x @ x.T)  # noqa: E731 (a formula, to be scaled in each letter)
    for scaled, degree in (((k * A, B, x), 2), ((A, k * B, x), 1), ((A, B, k * x), 2)):
        assert_close(of_b(*scaled), k**degree * of_b(A, B, x))


@pytest.mark.formula("S2-159", "S2-160", "S2-161")
def test_dimensions_alone_do_not_find_the_derivative(rng: np.random.Generator) -> None:
    """(yxᵀ)_ij = y_ix_j, but c yxᵀ, (yᵀy)yxᵀ, 1xᵀ and y1ᵀ have its shape too; the 1×1 case says c = 1."""
    gradient = np.array([[y[i, 0] * z[j, 0] for j in range(M)] for i in range(K)])
    assert_close(y @ z.T, gradient)
    others = (2 * y @ z.T, scalar(y.T @ y) * y @ z.T, np.ones((K, 1)) @ z.T, y @ np.ones((1, M)))
    for other in others:
        assert_differs(other, gradient)
    # Rotating y rotates yxᵀ; the candidates with a vector of ones do not turn along.
    turn = np.linalg.qr(rng.normal(size=(K, K)))[0]
    assert_close((turn @ y) @ z.T, turn @ gradient)
    assert_differs(np.ones((K, 1)) @ z.T, turn @ np.ones((K, 1)) @ z.T)
    assert_gradient(lambda a: 3.0 * a * 5.0, np.array(0.7), np.array(15.0))


@pytest.mark.formula("S2-162", "S2-163", "S2-164", "S2-165")
def test_index_notation() -> None:
    """yᵀAx = Σ_i(y_ia_i1x_1 + … + y_ia_inx_n) = Σ_iΣ_j y_ia_ijx_j = y_ia_ijx_j, by any letters."""
    rows = sum(
        y[i, 0] * A[i, 0] * z[0, 0] + y[i, 0] * A[i, 1] * z[1, 0] + y[i, 0] * A[i, 2] * z[2, 0]
        for i in range(K)
    )
    double = sum(y[i, 0] * A[i, j] * z[j, 0] for i in range(K) for j in range(M))
    for spelled in (
        rows,
        double,
        einsum("i,ij,j", y[:, 0], A, z[:, 0]),
        einsum("b,bn,n", y[:, 0], A, z[:, 0]),
    ):
        assert_close(np.array(spelled), np.array(linear(A)))


@pytest.mark.formula("S2-167", "S2-168", "S2-169", "S2-211")
def test_kronecker_delta() -> None:
    """∂a_ij/∂a_kl = δ_ikδ_jl, so ∂C/∂a_kl = y_ix_jδ_ikδ_jl = y_kx_l. "δA/δA = 1" has these four indices."""
    delta = einsum("ik,jl->ijkl", np.eye(K), np.eye(M))
    assert_close(jax.jacobian(lambda a: a)(jnp.asarray(A)), delta)
    assert_close(einsum("i,j,ijkl->kl", y[:, 0], z[:, 0], delta), y @ z.T)


@pytest.mark.formula("S2-172", "S2-173", "S2-174", "S2-175", "S2-176")
def test_renaming_what_is_constant() -> None:
    """x′ = Bx: yᵀABx = yᵀAx′, δC/δA = yx′ᵀ = yxᵀBᵀ. y′ = Aᵀy: (Aᵀy)ᵀBx, δC/δB = y′xᵀ = Aᵀyxᵀ."""
    x_, y_ = B @ x, A.T @ y
    assert_close(bilinear(A, B), scalar(y.T @ A @ x_))
    assert_close(y @ x_.T, y @ x.T @ B.T)
    assert_close(bilinear(A, B), scalar(y_.T @ B @ x))
    assert_close(y_.T, y.T @ A)
    assert_close(y_ @ x.T, A.T @ y @ x.T)


@pytest.mark.formula("S2-180", "S2-181")
def test_the_two_guesses() -> None:
    """A(xᵀx) and A(xxᵀ) both fit by dimension; only the second is the derivative of ½xᵀAᵀAx."""
    gradient = jax.jit(jax.grad(quadratic))(jnp.asarray(A))
    assert_close(gradient, A @ (z @ z.T))
    assert_differs(A * scalar(z.T @ z), gradient)


@pytest.mark.formula("S2-183", "S2-184", "S2-185", "S2-186", "S2-187")
def test_quadratic_cost_in_indices() -> None:
    """½x_ia_jia_jkx_k: ½[x_da_ckx_k + x_ia_cix_d], two equal terms by the product rule, no "chain rule"."""
    v = z[:, 0]
    assert_close(einsum("i,ji,jk,k", v, A, A, v) / 2, np.array(quadratic(A)))
    delta = einsum("jc,id->jicd", np.eye(K), np.eye(M))
    left = einsum("i,jicd,jk,k->cd", v, delta, A, v)
    right = einsum("i,ji,jkcd,k->cd", v, A, delta, v)
    assert_close(left, einsum("d,ck,k->cd", v, A, v))
    assert_close(right, einsum("i,ci,d->cd", v, A, v))
    assert_close(left, right)
    assert_close((left + right) / 2, A @ z @ z.T)
    assert_differs(left / 2, A @ z @ z.T)


@pytest.mark.formula("S2-189", "S2-191", "S2-197", "S2-198")
def test_the_sandwich_with_d() -> None:
    """½xᵀBᵀAᵀABx = ½xᵀBᵀDBx = ½x_ib_jid_jkb_klx_l with D = AᵀA, which is symmetric."""
    v = x[:, 0]
    assert_close(scalar(x.T @ B.T @ D @ B @ x) / 2, sandwich(A, B))
    assert_close(D.T, D)
    assert_close(einsum("i,ji,jk,kl,l", v, B, D, B, v) / 2, np.array(sandwich(A, B)))


@pytest.mark.formula("S2-194", "S2-195")
def test_guesses_for_the_sandwich() -> None:
    """(AᵀA)Bxxᵀ or (AᵀA)Bxᵀx; tr(AᵀA)Bxxᵀ fits too. D = I, with B(xxᵀ), leaves xxᵀ; the text says xᵀx."""
    gradient = jax.jit(jax.grad(sandwich, 1))(jnp.asarray(A), jnp.asarray(B))
    inner, outer = scalar(x.T @ x), x @ x.T
    assert_close(gradient, D @ B @ outer)
    assert_differs(D @ B * inner, gradient)
    assert_differs(np.trace(D) * B @ outer, gradient)
    special = jax.jit(jax.grad(lambda B: scalar(x.T @ B.T @ B @ x) / 2))(B)
    assert_close(special, np.eye(M) @ B @ outer)
    assert_differs(np.eye(M) @ B * inner, special)


@pytest.mark.formula("S2-199", "S2-200", "S2-203", "S2-204", "S2-205", "S2-206")
def test_the_sandwich_in_indices(rng: np.random.Generator) -> None:
    """½[x_iδ_jcδ_idd_jkb_klx_l + x_ib_jid_jkδ_kcδ_ldx_l] = ½x_d[d_ckb_klx_l + d_jcb_jix_i] = x_d(DBx)_c."""
    v, delta = x[:, 0], einsum("jc,id->jicd", np.eye(M), np.eye(N))

    def terms(D: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        left = einsum("i,jicd,jk,kl,l->cd", v, delta, D, B, v)
        right = einsum("i,ji,jk,klcd,l->cd", v, B, D, delta, v)
        assert_close(left, einsum("d,ck,kl,l->cd", v, D, B, v))
        assert_close(right, einsum("i,ji,jc,d->cd", v, B, D, v))
        return left, right

    left, right = terms(D)
    assert_close(left, right)
    assert_close((left + right) / 2, D @ B @ x @ x.T)
    skew = rng.normal(size=(M, M))
    left, right = terms(skew)
    assert_differs(left, right)
    assert_close((left + right) / 2, (skew + skew.T) @ B @ x @ x.T / 2)


@pytest.mark.formula("S2-201", "S2-202")
def test_sifting() -> None:
    """δ_abx_b = Σ_b δ_abx_b = x_a over b = 1…n, printed 0…n, one too many; δ_abδ_cdx_by_d = x_ay_c."""
    v, w, delta = x[:, 0], x[::-1, 0], np.eye(N)
    assert_close(einsum("ab,b->a", delta, v), v)
    assert_close(einsum("ab,cd,b,d->ac", delta, delta, v, w), einsum("a,c->ac", v, w))
    with pytest.raises(IndexError):
        sum(delta[0, b] * v[b] for b in range(N + 1))


@pytest.mark.formula("S2-209", "S2-210", "S2-211", "S2-213", "S2-214")
def test_constants_pass_through_transposed(rng: np.random.Generator) -> None:
    """d(axb)/dx = ab; δ tr(LXR)/δX = LᵀRᵀ, so yᵀABx gives (yᵀ)ᵀ(Bx)ᵀ and (yᵀA)ᵀxᵀ.

    The rule as printed needs a number (or a trace), one occurrence, and the matrix itself: where it stands
    transposed, δ tr(LXᵀR)/δX = RL, and yᵀAᵀx gives xyᵀ, not yxᵀ.
    """
    assert_gradient(lambda t: 1.7 * t * 0.4, np.array(0.3), np.array(1.7 * 0.4))
    L, R, X = rng.normal(size=(4, 2)), rng.normal(size=(3, 4)), rng.normal(size=(2, 3))
    assert_gradient(lambda X: jnp.trace(L @ X @ R), X, L.T @ R.T)
    S, T = rng.normal(size=(4, 3)), rng.normal(size=(2, 4))
    assert_gradient(lambda X: jnp.trace(S @ X.T @ T), X, T @ S)
    gradients = jax.jit(jax.grad(bilinear, (0, 1)))(jnp.asarray(A), jnp.asarray(B))
    assert_close(gradients, (y @ (B @ x).T, (y.T @ A).T @ x.T))
    u, v = rng.normal(size=(2, 3, 1))
    square = jnp.asarray(rng.normal(size=(3, 3)))
    transposed = jax.jit(jax.grad(lambda A: scalar(u.T @ A.T @ v)))(square)
    assert_close(transposed, v @ u.T)
    assert_differs(u @ v.T, transposed)


@pytest.mark.formula("C-25")
def test_a_matrix_that_occurs_twice(rng: np.random.Generator) -> None:
    """The sum over its occurrences: yᵀAAx gives yxᵀAᵀ + Aᵀyxᵀ, ½xᵀAᵀAx gives ½(Axxᵀ + Axxᵀ)."""
    square, u, v = rng.normal(size=(3, 3)), *rng.normal(size=(2, 3, 1))
    expected = u @ v.T @ square.T + square.T @ u @ v.T
    assert_gradient(lambda A: scalar(u.T @ A @ A @ v), square, expected)
    assert_differs(u @ v.T @ square.T, expected)


@pytest.mark.formula("C-26")
def test_dimensions_with_one_numeric_gradient_do_find_it() -> None:
    """½xᵀBᵀAᵀABx: of the four monomials of the right shape and degrees a fit keeps 1·AᵀABxxᵀ."""
    gradient = np.asarray(jax.jit(jax.grad(sandwich, 1))(jnp.asarray(A), jnp.asarray(B)))
    inner, outer, trace = scalar(x.T @ x), x @ x.T, np.trace(D)
    candidates = [D @ B @ outer, D @ B * inner, trace * B @ outer, trace * B * inner]
    columns = np.stack([c.ravel() for c in candidates], axis=1)
    found, *_ = np.linalg.lstsq(columns, gradient.ravel())
    assert_close(found, np.array([1.0, 0, 0, 0]), terms=4096)
