"""Structure read off the derivation of any function; vec orders and layouts; what is not derived."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest
from jax import numpy as jnp

from funcbp import jacobian, rules
from funcbp.jacobians import Commutation, Kronecker, MatrixFree


def normal(*shape: int, seed: int = 0) -> jax.Array:
    return jnp.asarray(np.random.default_rng([seed, *shape]).standard_normal(shape))


def assert_jacobian(function: Callable[..., jax.Array], args: tuple[Any, ...], argnum: int) -> Any:
    """The operator is `jax.jacrev`'s, in all its directions."""

    @jax.jit
    def both(args: Any, v: jax.Array, u: jax.Array) -> Any:
        operator = jacobian(function, *args, argnum=argnum)
        dense = operator.as_tensor()
        return (
            operator,
            dense,
            jax.jacrev(function, argnum)(*args),
            operator @ v,
            u @ operator,
            operator.T @ u,
        )

    out = jax.eval_shape(function, *args)
    v, u = normal(*args[argnum].shape, seed=1), normal(*out.shape, seed=2)
    operator, dense, expected, pushed, pulled, transposed = both(args, v, u)
    assert dense.shape == expected.shape
    for actual, truth in (
        (dense, expected),
        (pushed, jnp.tensordot(expected, v, v.ndim)),
        (pulled, jnp.tensordot(u, expected, u.ndim)),
        (transposed, pulled),
    ):
        np.testing.assert_allclose(actual, truth, rtol=1e-12, atol=1e-12)
    return operator


CASES = {
    "by the weights": (lambda X, W: X @ W, ((4, 3), (3, 2)), 1, "I₂ ⊗ X", "X ⊗ I₂"),
    "by the input": (lambda X, W: X @ W, ((4, 3), (3, 2)), 0, "Wᵀ ⊗ I₄", "I₄ ⊗ Wᵀ"),
    "from both sides": (lambda A, X, B: A @ X @ B, ((4, 3), (3, 2), (2, 5)), 1, "Bᵀ ⊗ A", "A ⊗ Bᵀ"),
    "transposed": (lambda X: X.T, ((4, 3),), 0, "K₄,₃", "K₃,₄"),
    "transposed, from both sides": (
        lambda A, X, B: A @ X.T @ B,
        ((4, 2), (3, 2), (3, 5)),
        1,
        "(Bᵀ ⊗ A) K₃,₂",
        "(A ⊗ Bᵀ) K₂,₃",
    ),
    "Gram": (lambda X: X.T @ X, ((4, 3),), 0, "(Xᵀ ⊗ I₃) K₄,₃ + I₃ ⊗ Xᵀ", None),
    "inverse": (lambda X: jnp.linalg.inv(X), ((3, 3),), 0, "−(X⁻ᵀ ⊗ X⁻¹)", "−(X⁻¹ ⊗ X⁻ᵀ)"),
    "a layer": (lambda X, W: jnp.tanh(X @ W), ((4, 3), (3, 2)), 1, "Diag(tanh′(X W)) (I₂ ⊗ X)", None),
    "two layers": (
        lambda X, V, W: jnp.tanh(X @ V) @ W / 3,
        ((4, 3), (3, 2), (2, 5)),
        1,
        "1/3 (Wᵀ ⊗ I₄) Diag(tanh′(X V)) (I₂ ⊗ X)",
        None,
    ),
    "skip connection": (
        lambda X, W: X + jnp.tanh(X @ W),
        ((4, 3), (3, 3)),
        0,
        "I₁₂ + Diag(tanh′(X W)) (Wᵀ ⊗ I₄)",
        None,
    ),
    "softmax": (
        lambda Z: jax.nn.softmax(Z),
        ((4, 3),),
        0,
        "⊕₄[Diag(softmax(Z)) − softmax(Z) softmax(Z)ᵀ]",
        None,
    ),
    "bias": (lambda X, b: X + b, ((4, 3), (3,)), 1, "I₃ ⊗ 𝟏", "𝟏 ⊗ I₃"),
    "sum of columns": (lambda X: jnp.sum(X, axis=1), ((4, 3),), 0, "𝟏ᵀ ⊗ I₄", "I₄ ⊗ 𝟏ᵀ"),
    "vector by matrix": (lambda W, x: W @ x, ((4, 3), (3,)), 0, "xᵀ ⊗ I₄", "I₄ ⊗ xᵀ"),
    "outer product": (lambda x, y: jnp.outer(x, y), ((4,), (3,)), 0, "y ⊗ I₄", "I₄ ⊗ y"),
    "row of products": (lambda x, X: x @ X, ((4,), (4, 3)), 0, "Xᵀ", "Xᵀ"),
    "elementwise": (lambda X, S: S * X, ((4, 3), (4, 3)), 0, "Diag(S)", "Diag(S)"),
    "one row": (lambda x, W: x @ W, ((1, 3), (3, 2)), 0, None, None),
    "one column, new axis": (lambda x: x[:, None] * jnp.ones((1, 2)), ((3,),), 0, None, None),
    "a cube": (lambda X: X @ X @ X, ((3, 3),), 0, None, None),
    "a trace": (lambda X, A: jnp.trace(X @ A @ X), ((3, 3), (3, 3)), 0, None, None),
    "the diagonal": (lambda X: jnp.diag(X) * 2, ((3, 3),), 0, None, None),
    "rows scaled by their sums": (lambda X: X / X.sum(1, keepdims=True), ((4, 3),), 0, None, None),
    "standardized": (
        lambda X: (X - X.mean(1, keepdims=True)) / X.std(1, keepdims=True),
        ((4, 3),),
        0,
        None,
        None,
    ),
    "a part, reshaped": (lambda X: X[1:, ::2].reshape(-1), ((3, 4),), 0, None, None),
    "a product of sums": (lambda X, A: (X @ A).sum() * X[0], ((3, 2), (2, 4)), 0, None, None),
}


@pytest.mark.parametrize("case", CASES)
def test_structure_of_a_function(case: str, x64: None):
    function, shapes, argnum, by_columns, by_rows = CASES[case]
    operator = assert_jacobian(function, tuple(normal(*shape) for shape in shapes), argnum)
    assert not isinstance(operator, MatrixFree)
    if by_columns is not None:
        assert str(operator) == by_columns
    if by_rows is not None:
        assert operator.show(vec="rows") == by_rows


@pytest.mark.parametrize(
    ("function", "shapes", "name"),
    [
        (lambda x: jnp.sort(x), ((4,),), "∂f/∂x"),
        (lambda X, Y: jnp.einsum("bij,bjk->bik", X, Y), ((2, 3, 4), (2, 4, 2)), "∂f/∂X"),
        (lambda x: jnp.float64(2) * jnp.ones(3), ((4,),), "∂f/∂x"),
        (lambda x: jax.lax.fori_loop(0, 3, lambda _, c: c * x, x), ((4,),), "∂f/∂x"),
    ],
)
def test_what_is_not_derived_is_matrix_free(function: Any, shapes: Any, name: str, x64: None):
    operator = assert_jacobian(function, tuple(normal(*shape) for shape in shapes), 0)
    assert isinstance(operator, MatrixFree)
    assert str(operator) == f"[{name}, matrix-free]"


def test_a_function_that_cannot_be_traced_in_float64_is_matrix_free():
    def last(x: jax.Array) -> jax.Array:
        return jax.lax.scan(lambda c, row: (c + row.sum(), None), jnp.float32(0), x)[0]

    operator = jacobian(last, jnp.ones((2, 3)))
    assert isinstance(operator, MatrixFree)
    np.testing.assert_array_equal(operator.as_tensor(), np.ones((2, 3)))


def test_a_mistake_in_the_derivation_is_not_hidden(monkeypatch: pytest.MonkeyPatch):
    def broken(*_: Any) -> None:
        raise AttributeError("a defect of funcbp")

    monkeypatch.setattr("funcbp.jacobians._function._derived", broken)
    with pytest.raises(AttributeError, match="a defect"):
        jacobian(jnp.tanh, jnp.ones(3))


def test_the_wrong_vec_order_is_another_matrix(x64: None):
    """∂vec(XW)/∂vec(W) is I ⊗ X by columns and X ⊗ I by rows; swapped they are wrong, as sizes differ."""
    X, W = normal(4, 3), normal(3, 2)
    tensor = jax.jacrev(lambda W: X @ W)(W)
    by_rows, by_columns = tensor.reshape(8, 6), tensor.transpose(1, 0, 3, 2).reshape(8, 6)
    operator = jacobian(lambda X, W: X @ W, X, W, argnum=1)
    np.testing.assert_allclose(operator.as_matrix(vec="rows"), by_rows)
    np.testing.assert_allclose(operator.as_matrix(vec="columns"), by_columns)
    np.testing.assert_allclose(by_columns, np.kron(np.eye(2), X))
    np.testing.assert_allclose(by_rows, np.kron(X, np.eye(2)))
    assert np.abs(operator.as_matrix(vec="rows") - by_columns).max() > 0.1
    assert np.abs(operator.as_matrix(vec="columns") - by_rows).max() > 0.1


@pytest.mark.parametrize("argnum", [0, 1])
def test_both_arguments_of_a_product_in_both_orders(argnum: int, x64: None):
    X, W = normal(4, 3), normal(3, 2)
    operator = jacobian(lambda X, W: X @ W, X, W, argnum=argnum)
    expected = {
        (0, "columns"): np.kron(W.T, np.eye(4)),
        (0, "rows"): np.kron(np.eye(4), W.T),
        (1, "columns"): np.kron(np.eye(2), X),
        (1, "rows"): np.kron(X, np.eye(2)),
    }
    dy = normal(*operator.out_shape, seed=3)
    for vec, stack in (("columns", lambda a: a.T.ravel()), ("rows", jnp.ravel)):
        matrix = operator.as_matrix(vec=vec)
        np.testing.assert_array_equal(matrix, expected[argnum, vec])
        np.testing.assert_array_equal(operator.as_matrix("denominator", vec), matrix.T)
        dx = normal(*operator.in_shape)
        np.testing.assert_allclose(matrix @ stack(dx), stack(operator @ dx), atol=1e-14)
        np.testing.assert_allclose(stack(dy) @ matrix, stack(dy @ operator), atol=1e-14)


def test_numerator_and_denominator_layout_of_a_regression(x64: None):
    """∂(Xw)/∂w is X with a row for each output, Xᵀ with a column; the gradient is Xᵀ times ∂C/∂ŷ in both."""
    X, w, y = normal(4, 3), normal(3), normal(4)
    operator = jacobian(lambda w, X: X @ w, w, X)
    assert str(operator) == "X"
    np.testing.assert_array_equal(operator.as_matrix(), X)
    np.testing.assert_array_equal(operator.as_matrix("denominator"), X.T)
    gradient = jax.grad(lambda w: jnp.sum((X @ w - y) ** 2) / 8)(w)
    np.testing.assert_allclose((X @ w - y) / 4 @ operator, gradient)


def test_vec_must_be_said_where_it_matters():
    operator = jacobian(lambda X: 2 * X, jnp.ones((2, 3)))
    with pytest.raises(ValueError, match=r"array of shape \(2, 3\) can be stacked in two ways.*vec='rows'"):
        operator.as_matrix()
    with pytest.raises(ValueError, match="layout must be 'numerator' or 'denominator', got 'mixed'"):
        operator.as_matrix("mixed", "rows")
    with pytest.raises(ValueError, match="vec must be 'rows'"):
        operator.as_matrix(vec="C")
    with pytest.raises(ValueError, match=r"shape of the input, \(2, 3\), got \(3, 2\)"):
        operator @ jnp.ones((3, 2))
    with pytest.raises(ValueError, match=r"shape of the output, \(2, 3\), got \(6,\)"):
        np.ones(6) @ operator


def test_names_are_those_given():
    operator = jacobian(lambda a, b: a @ b, jnp.ones((4, 3)), jnp.ones((3, 2)), argnum=1, names=("Q", "V"))
    assert str(operator) == "I₂ ⊗ Q"
    assert repr(operator) == "<Kronecker (3, 2) → (4, 2): I₂ ⊗ Q, vec by columns>"
    assert str(jacobian(rules.dense, jnp.ones((4, 3)), jnp.ones((3, 2)), argnum=1, names="QV")) == "I₂ ⊗ Q"
    with pytest.raises(ValueError, match=r"2 arguments need as many names, got \['Q'\]"):
        jacobian(lambda a, b: a @ b, jnp.ones((4, 3)), jnp.ones((3, 2)), names=("Q",))


def test_a_tree_of_arguments_gives_a_tree_of_operators(x64: None):
    params = {"W": normal(3, 2), "b": normal(2)}
    x = normal(4, 3)

    def model(params: Any, x: jax.Array) -> jax.Array:
        return jnp.tanh(x @ params["W"] + params["b"])

    operators = jacobian(model, params, x)
    expected = jax.jacrev(model)(params, x)
    assert str(operators["W"]).endswith("(I₂ ⊗ x)")
    for name, operator in operators.items():
        np.testing.assert_allclose(operator.as_tensor(), expected[name], atol=1e-14)


def test_only_one_real_array_has_a_jacobian():
    with pytest.raises(TypeError, match="must return one array of real numbers"):
        jacobian(lambda x: (x, x), jnp.ones(2))
    with pytest.raises(TypeError, match="`n` has dtype int32"):
        jacobian(lambda n: n * 2.0, jnp.array(3))
    with pytest.raises(TypeError, match="a function has no option `axis`"):
        jacobian(lambda x: x, jnp.ones(2), axis=0)


def test_a_function_that_fails_says_its_own_error():
    with pytest.raises(TypeError, match=r"dot_general|matmul"):
        jacobian(lambda x: x @ jnp.ones((3, 3)), jnp.ones(2))


def test_half_and_single_precision_keep_their_dtype():
    for dtype in (jnp.float32, jnp.bfloat16):
        operator = jacobian(lambda X, W: jnp.tanh(X @ W), jnp.ones((4, 3), dtype), jnp.ones((3, 2), dtype))
        assert operator.dtype == dtype
        assert (operator @ jnp.ones((4, 3), dtype)).dtype == dtype


def test_shared_parts_are_not_written_twice(x64: None):
    """Eight skip connections: the operator grows with the depth, not with the number of paths."""

    def deep(x: jax.Array, w: jax.Array) -> jax.Array:
        for _ in range(8):
            x = x + jnp.tanh(x @ w)
        return x

    operator = assert_jacobian(deep, (normal(2, 3), normal(3, 3) / 4), 0)
    assert len(jax.tree.leaves(operator)) < 25


def test_operators_are_values_of_jit(x64: None):
    X, W = normal(4, 3), normal(3, 2)
    operator = jax.jit(lambda X, W: jacobian(lambda X, W: X @ W, X, W, argnum=1))(X, W)
    assert isinstance(operator, Kronecker)
    assert str(operator) == "I₂ ⊗ X"
    np.testing.assert_allclose(jax.jit(lambda J, v: J @ v)(operator, W), X @ W)
    assert isinstance(jax.jit(lambda J: J.T)(Commutation((2, 3))), Commutation)
