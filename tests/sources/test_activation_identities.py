"""The aside of section IV: yᵀσ(Ax), yᵀσ₂(Aσ₁(Bx)), and the quadratic costs that it does not get to."""

import itertools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest
from jax import numpy as jnp

from .networks import SIGMA, computed, nonlinear_chain, sigma, slope, with_sigmas
from .oracles import assert_close, assert_differs, assert_gradient, odot

RNG = np.random.default_rng(7)
K, M, N = 2, 3, 4
A, B = RNG.normal(size=(K, M)), RNG.normal(size=(M, N))
x, z, y = RNG.normal(size=(N, 1)), RNG.normal(size=(M, 1)), RNG.normal(size=(K, 1))
S1, S2 = "sin", "tanh"
P1 = B @ x
Q1 = np.sin(P1)
P2 = A @ Q1
Q2 = np.tanh(P2)
SLOPE1, SLOPE2 = np.cos(P1), 1 - np.tanh(P2) ** 2
# δC/δB of yᵀσ₂(Aσ₁(Bx)), the box at the end of the text.
NESTED_B = odot(A.T @ odot(y, SLOPE2), SLOPE1) @ x.T


def scalar(product: Any) -> Any:
    """The number that a (1, 1) product is."""
    assert product.shape == (1, 1)
    return product[0, 0]


def nested(A: Any, B: Any, x: Any = x) -> Any:
    return scalar(y.T @ sigma(S2, A @ sigma(S1, B @ x)))


def out(A: Any, B: Any) -> Any:
    return sigma(S2, A @ sigma(S1, B @ x))


@pytest.mark.parametrize("name", SIGMA)
@pytest.mark.formula("S2-245", "S2-247", "S2-253", "S2-256", "S2-257", "S2-279", "S2-280", "C-01")
def test_one_matrix(name: str) -> None:
    """yᵀσ(Ax): [y⊙σ′(Ax)]xᵀ. ½σ(xᵀAᵀ)σ(Ax): [σ(Ax)⊙σ′(Ax)]xᵀ."""
    p = A @ z
    by_row = np.array([slope(name, sum(A[k, j] * z[j, 0] for j in range(M))) for k in range(K)])
    assert_close(slope(name, p)[:, 0], by_row)
    assert_gradient(lambda A: scalar(y.T @ sigma(name, A @ z)), A, odot(y, slope(name, p)) @ z.T)
    q = np.asarray(sigma(name, p))
    both = lambda A: scalar(sigma(name, z.T @ A.T) @ sigma(name, A @ z)) / 2  # noqa: E731 (a formula)
    assert_gradient(both, A, odot(q, slope(name, p)) @ z.T)


@pytest.mark.formula("S2-282")
def test_the_two_derivatives_are_equal() -> None:
    """σ(xᵀAᵀ) differentiated in ½σ(xᵀAᵀ)σ(Ax), and σ(Ax): the same, which takes the ½ away."""
    product = lambda A, C: scalar(sigma(S2, z.T @ A.T) @ sigma(S2, C @ z))  # noqa: E731 (a formula)
    left, right = jax.jit(jax.grad(product, (0, 1)))(A, A)
    assert_close(left, right)
    assert_close((left + right) / 2, odot(np.tanh(A @ z), slope(S2, A @ z)) @ z.T)


@pytest.mark.formula("S2-246")
def test_linear_in_y_but_not_in_x() -> None:
    """[y⊙σ′(Ax)]xᵀ doubles with y; not with x, as the text has it, for x is in σ′ too, unless σ = id."""

    def gradient(name: str, y: np.ndarray, z: np.ndarray) -> jax.Array:
        return jax.jit(jax.grad(lambda A, y, z: scalar(y.T @ sigma(name, A @ z))))(A, y, z)

    for name, in_x in (("tanh", assert_differs), ("identity", assert_close)):
        once = gradient(name, y, z)
        assert_close(gradient(name, 2 * y, z), 2 * once)
        in_x(gradient(name, y, 2 * z), 2 * once)


@pytest.mark.formula("S2-248", "S2-250", "S2-251")
def test_candidates_by_dimension() -> None:
    """yxᵀ, A and σ′(Ax)xᵀ have the shape of A, and Ax, σ(Ax), σ′(Ax) that of y; none is the derivative."""
    p = A @ z
    assert p.shape == np.tanh(p).shape == slope(S2, p).shape == y.shape
    gradient = odot(y, slope(S2, p)) @ z.T
    for candidate in (y @ z.T, A, slope(S2, p) @ z.T):
        assert candidate.shape == A.shape
        assert_differs(candidate, gradient)


@pytest.mark.formula("S2-252", "S2-253", "S2-254", "S2-256")
def test_one_matrix_by_elements() -> None:
    """C = Σ_k y_kσ(a_k1x_1 + … + a_knx_n), ∂C/∂a_kl = y_k[σ′(Ax)]_kx_l: an elementwise product is forced."""
    p = A @ z
    total = sum(y[k, 0] * np.tanh(sum(A[k, j] * z[j, 0] for j in range(M))) for k in range(K))
    assert_close(np.array(total), np.array(scalar(y.T @ np.tanh(p))))
    elements = np.array([[y[k, 0] * slope(S2, p)[k, 0] * z[j, 0] for j in range(M)] for k in range(K)])
    assert_close(elements, odot(y, slope(S2, p)) @ z.T)
    assert_close(elements, np.einsum("k,k,l->kl", y[:, 0], slope(S2, p)[:, 0], z[:, 0]))


@pytest.mark.formula("S2-255")
def test_the_elementwise_product() -> None:
    """x⊙y = (x₁y₁, …, x_ny_n)ᵀ, of two vectors of the same dimension only."""
    assert_close(odot(y, SLOPE2), np.array([[y[0, 0] * SLOPE2[0, 0]], [y[1, 0] * SLOPE2[1, 0]]]))
    with pytest.raises(ValueError, match="⊙"):
        odot(y, z)


@pytest.mark.formula("S2-249", "S2-258", "S2-259")
def test_without_activation() -> None:
    """σ = id: σ′(Ax) = 1, y⊙1 = y, and [y⊙σ′(Ax)]xᵀ is yxᵀ."""
    ones = slope("identity", A @ z)
    assert_close(ones, np.ones((K, 1)))
    assert_close(odot(y, ones), y)
    assert_gradient(lambda A: scalar(y.T @ sigma("identity", A @ z)), A, y @ z.T)


@pytest.mark.formula("S2-260", "S2-261", "S2-263", "S2-273", "S2-275")
def test_two_matrices() -> None:
    """yᵀσ₂(Aσ₁(Bx)): δC/δA = [y⊙σ₂′]σ₁(Bx)ᵀ, δC/δB = {Aᵀ[y⊙σ₂′]⊙σ₁′(Bx)}xᵀ, printed with brackets amiss."""
    assert (A.T @ odot(y, SLOPE2)).shape == SLOPE1.shape == (M, 1)
    assert NESTED_B.shape == B.shape
    assert_gradient(lambda w: nested(**w), {"A": A, "B": B}, {"A": odot(y, SLOPE2) @ Q1.T, "B": NESTED_B})


@pytest.mark.formula("S2-262", "S2-266", "S2-272")
def test_every_partial_product_is_a_cotangent_of_the_sweep() -> None:
    """y, y⊙σ₂′, Aᵀ[·], ·⊙σ₁′, ·xᵀ: ∂C/∂ of q₂, p₂, q₁, p₁ and B, in the library's sweep of that network."""
    network = nonlinear_chain(("identity", S1, S2), (N, M, K))
    cost = (lambda z, y: jnp.sum(z * y, axis=-1), lambda z, y: y)
    found = computed(network, with_sigmas({"w01": {"w": B.T}, "w12": {"w": A.T}}), x.T, y.T, cost)
    products = [y, odot(y, SLOPE2)]
    products.append(A.T @ products[-1])
    products.append(odot(products[-1], SLOPE1))
    assert_close([found.cotangents[name].T for name in ("sigma2", "w12", "sigma1", "w01")], products)
    assert_close(found.grads["w01"]["w"].T, products[-1] @ x.T)
    assert_close(found.grads["w12"]["w"].T, products[1] @ Q1.T)
    for name, (size, part) in {"p2": (P2, 1), "q1": (Q1, 2), "p1": (P1, 3)}.items():
        cost_of = {
            "p2": lambda p: scalar(y.T @ sigma(S2, p)),
            "q1": lambda q: scalar(y.T @ sigma(S2, A @ q)),
            "p1": lambda p: scalar(y.T @ sigma(S2, A @ sigma(S1, p))),
        }[name]
        assert_close(jax.jit(jax.grad(cost_of))(size), products[part])


@pytest.mark.formula("S2-264", "S2-265", "S2-274")
def test_order_and_brackets() -> None:
    """[y⊙σ₂′]Aᵀ is (k,1)(m,k): right for k = m = 1 only; ⊙σ₁′xᵀ without braces pairs (m,1) with (m,n)."""
    with pytest.raises(ValueError, match="matmul"):
        odot(y, SLOPE2) @ A.T
    with pytest.raises(ValueError, match="⊙"):
        odot(A.T @ odot(y, SLOPE2), SLOPE1 @ x.T)
    a, b, u, t = 0.7, -1.1, 0.4, 1.3
    as_printed = t * slope(S2, np.array(a * np.sin(b * u))) * a * slope(S1, np.array(b * u)) * u
    assert_gradient(lambda b: t * sigma(S2, a * sigma(S1, b * u)), np.array(b), np.array(as_printed))


@pytest.mark.formula("S2-267", "S2-268", "S2-270", "S2-271")
def test_left_constants_go_left_and_right_constants_right() -> None:
    """yᵀBᵀAx: (yᵀBᵀ)ᵀxᵀ = Byxᵀ, twice printed as yBxᵀ, which is undefined; nor can xᵀ go to the left."""
    C, v = B[:, :K], z
    square = RNG.normal(size=(M, M))
    assert_gradient(lambda X: scalar(y.T @ C.T @ X @ v), square, C @ y @ v.T)
    assert_close((y.T @ C.T).T @ v.T, C @ y @ v.T)
    with pytest.raises(ValueError, match="matmul"):
        y @ C @ v.T
    with pytest.raises(ValueError, match="matmul"):
        v.T @ y


@pytest.mark.formula("S2-276", "S2-277")
def test_identity_activation_and_identity_matrix() -> None:
    """σ₁ = id: Aᵀ[y⊙σ₂′(ABx)]xᵀ, and with A = I [y⊙σ₂′(Bx)]xᵀ; with A = I alone σ₁ and σ₁′ stay."""
    expected = A.T @ odot(y, slope(S2, A @ B @ x)) @ x.T
    assert_gradient(lambda B: scalar(y.T @ sigma(S2, A @ B @ x)), B, expected)
    u, eye = z, np.eye(M)
    assert_gradient(lambda B: scalar(u.T @ sigma(S2, eye @ B @ x)), B, odot(u, slope(S2, B @ x)) @ x.T)
    with_sigma1 = odot(odot(u, slope(S2, np.sin(B @ x))), SLOPE1) @ x.T
    assert_gradient(lambda B: scalar(u.T @ sigma(S2, eye @ sigma(S1, B @ x))), B, with_sigma1)
    assert_differs(odot(u, slope(S2, B @ x)) @ x.T, with_sigma1)


@pytest.mark.formula("S2-278", "C-03")
def test_the_explicit_calculation_that_is_missing() -> None:
    """∂C/∂a_cd = y_cσ₂′(p₂)_cq₁_d, ∂C/∂b_cd = y_kσ₂′(p₂)_ka_kcσ₁′(p₁)_cx_d."""
    t, s2, s1 = y[:, 0], SLOPE2[:, 0], SLOPE1[:, 0]
    assert_close(np.einsum("c,c,d->cd", t, s2, Q1[:, 0]), odot(y, SLOPE2) @ Q1.T)
    assert_close(np.einsum("k,k,kc,c,d->cd", t, s2, A, s1, x[:, 0]), NESTED_B)


@pytest.mark.formula("S2-279", "S2-281", "S2-283")
def test_the_last_lines_of_the_text() -> None:
    """½[δσ(xᵀAᵀ)/δA σ(Ax) + σ(xᵀAᵀ) δσ(Ax)/δA]; printed σ(xA), which is (n,1)(m,n), undefined."""
    assert_close(np.tanh(z.T @ A.T), np.tanh(A @ z).T)
    with pytest.raises(ValueError, match="matmul"):
        z @ A
    p = A @ z
    ended = jax.jit(jax.grad(lambda C: scalar(np.tanh(z.T @ A.T) @ sigma(S2, C @ z))))(A)
    assert_close(ended, odot(np.tanh(p), slope(S2, p)) @ z.T)


@pytest.mark.formula("C-02")
def test_quadratic_cost_in_indices() -> None:
    """C = ½σ(a_kix_i)σ(a_kjx_j): ∂C/∂a_cd = σ(p_k)σ′(p_k)δ_kcx_d = σ(p_c)σ′(p_c)x_d."""
    p = (A @ z)[:, 0]
    with_delta = np.einsum("k,k,kc,d->cd", np.tanh(p), slope(S2, p), np.eye(K), z[:, 0])
    assert_gradient(lambda A: jnp.sum(jnp.tanh(A @ z) ** 2) / 2, A, with_delta)
    assert_close(with_delta, np.einsum("c,c,d->cd", np.tanh(p), slope(S2, p), z[:, 0]))


@pytest.mark.parametrize(
    ("cost", "start"),
    [
        pytest.param(lambda q: scalar(q.T @ q) / 2, Q2, marks=pytest.mark.formula("C-04"), id="quadratic"),
        pytest.param(
            lambda q: scalar(q.T @ q / 2 - y.T @ q),
            Q2 - y,
            marks=pytest.mark.formula("C-05"),
            id="minus linear",
        ),
    ],
)
def test_nested_quadratic_cost(cost: Callable[[Any], Any], start: np.ndarray) -> None:
    """With q₂, or q₂ - y, in the place of y: δC/δA = [·⊙σ₂′]q₁ᵀ, δC/δB = {Aᵀ[·⊙σ₂′]⊙σ₁′}xᵀ."""
    d2 = odot(start, SLOPE2)
    expected = {"A": d2 @ Q1.T, "B": odot(A.T @ d2, SLOPE1) @ x.T}
    assert_gradient(lambda w: cost(out(**w)), {"A": A, "B": B}, expected)


@pytest.mark.formula("C-24")
@pytest.mark.parametrize("seed", range(3))
def test_the_rules_read_from_left_to_right(seed: int) -> None:
    """yᵀM₁σ₁(M₂σ₂(…x)): start with y, Mᵀ on the left for a constant, ⊙σ′ for a σ, ·(right)ᵀ at the target."""
    rng = np.random.default_rng(seed)
    depth = 3
    widths = rng.integers(1, 4, depth + 1)
    matrices = [rng.normal(size=(m, n)) for m, n in itertools.pairwise(widths)]
    names = [str(name) for name in rng.choice(list(SIGMA), depth)]
    start, end = rng.normal(size=(widths[0], 1)), rng.normal(size=(widths[-1], 1))

    def program(matrices: list[Any]) -> Any:
        right = end
        for name, matrix in zip(names[::-1], matrices[::-1], strict=True):
            right = matrix @ sigma(name, right)
        return scalar(start.T @ right)

    rights, right = [], end
    for name, matrix in zip(names[::-1], matrices[::-1], strict=True):
        rights.append((right, np.asarray(sigma(name, right))))
        right = matrix @ rights[-1][1]
    gathered, gradients = start, []
    for matrix, name, (inner, q) in zip(matrices, names, rights[::-1], strict=True):
        gradients.append(gathered @ q.T)
        gathered = odot(matrix.T @ gathered, slope(name, inner))
    assert_gradient(program, matrices, gradients)
