"""Random compositions of structures against dense matrices; identities of matrix calculus; lineax."""

import builtins
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax import numpy as jnp

from funcbp.jacobians import (
    Commutation,
    Diagonal,
    DiagonalPlusLowRank,
    Identity,
    KhatriRao,
    Kronecker,
    Operator,
    Repeated,
    Selection,
    commutation,
    duplication,
    elimination,
    tensor_product,
)
from funcbp.jacobians._names import Name
from funcbp.jacobians.block_diagonal import blocks

SHAPE = (3, 3)


def structure(kind: str, seed: int) -> Operator:
    rng = np.random.default_rng(seed)

    def normal(*shape: int) -> jax.Array:
        return jnp.asarray(rng.standard_normal(shape))

    n = SHAPE[:1]
    made: dict[str, Any] = {
        "identity": lambda: Identity(SHAPE),
        "diagonal": lambda: Diagonal(normal(*SHAPE), SHAPE),
        "left": lambda: Kronecker(normal(3, 3), None, n, n, n, n),
        "right": lambda: Kronecker(None, normal(3, 3), n, n, n, n),
        "both": lambda: Kronecker(normal(3, 3), normal(3, 3), n, n, n, n),
        "commutation": lambda: Commutation(SHAPE),
        "selection": lambda: Selection(jnp.asarray(rng.integers(0, 10, 9)), SHAPE, SHAPE),
        "blocks": lambda: blocks(
            n, lambda d, u, v: DiagonalPlusLowRank(d, u, v, 3), normal(3, 3), normal(3, 3, 2), normal(3, 3, 2)
        ),
        "tensor": lambda: tensor_product(
            Kronecker(normal(3, 3), None, n, (), n, ()), Diagonal(normal(3), n), Identity(())
        ),
        "repeated": lambda: Repeated(Kronecker(normal(2, 3, 3), None, n, n, n, n), 2),
    }
    return made[kind]()


REGULAR = ("diagonal", "left", "right", "both", "commutation", "blocks", "tensor", "repeated")
KINDS = ("identity", "selection", *REGULAR)
TREES = st.recursive(
    st.tuples(st.sampled_from(KINDS), st.integers(0, 99)),
    lambda inner: st.tuples(st.sampled_from(["@", "+", "-", "T", "2"]), inner, inner),
    max_leaves=5,
)


def evaluated(tree: Any) -> tuple[Operator, np.ndarray]:
    if len(tree) == 2:
        operator = structure(*tree)
        dense = np.stack([np.ravel(operator.push(e.reshape(SHAPE))) for e in jnp.eye(9)], -1)
        return operator, dense
    sign, (a, dense_a), (b, dense_b) = tree[0], evaluated(tree[1]), evaluated(tree[2])
    if sign == "T":
        return a.T, dense_a.T
    if sign == "2":
        return 2 * a, 2 * dense_a
    if sign == "@":
        return a @ b, dense_a @ dense_b
    return (a + b, dense_a + dense_b) if sign == "+" else (a - b, dense_a - dense_b)


@given(tree=TREES)
def test_random_compositions_are_their_dense_matrices(tree: Any):
    with jax.enable_x64(True):
        operator, dense = evaluated(tree)
        v = jnp.asarray(np.random.default_rng(5).standard_normal(SHAPE))
        scale = max(1, np.abs(dense).max())
        close = {"rtol": 0, "atol": 1e-12 * scale}
        np.testing.assert_allclose(operator.as_matrix(vec="rows"), dense, **close)
        np.testing.assert_allclose(jnp.ravel(operator @ v), dense @ v.ravel(), **close)
        np.testing.assert_allclose(jnp.ravel(v @ operator), v.ravel() @ dense, **close)
        np.testing.assert_allclose(operator.T.as_matrix(vec="rows"), dense.T, **close)
        for quantity, truth in (
            (operator.trace, np.trace(dense)),
            (operator.singular_values, np.linalg.svd(dense, compute_uv=False)),
        ):
            try:
                found = quantity()
            except ValueError:  # the structure does not give it, which is said
                continue
            np.testing.assert_allclose(found, truth, rtol=0, atol=1e-7 * scale)


@pytest.mark.parametrize("kind", REGULAR)
def test_logdet(kind: str, x64: None):
    operator = 3 * structure(kind, 1)
    expected = np.linalg.slogdet(operator.as_matrix(vec="rows"))[1]
    np.testing.assert_allclose(operator.logdet(), expected, rtol=1e-10)


def test_products_of_structures_are_one_structure(x64: None):
    a, b, k = structure("both", 1), structure("both", 2), commutation(3, 3)
    assert isinstance(a @ b, Kronecker)
    assert isinstance(structure("diagonal", 1) @ structure("diagonal", 2), Diagonal)
    assert isinstance(k @ k, Identity)
    assert isinstance(k @ a @ k, Kronecker)
    assert isinstance(Identity(SHAPE) @ a, Kronecker)


def test_tensor_products(x64: None):
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 3)), rng.standard_normal((4, 5))
    one = [
        Kronecker(jnp.asarray(m), None, m.shape[1:], (), m.shape[:1], (), Name.of(name))
        for m, name in ((a, "A"), (b, "B"))
    ]
    made = tensor_product(Identity((2,)), Identity((1,)), one[0], one[1])
    assert str(made) == "B ⊗ A ⊗ I₂"
    assert made.show("rows") == "I₂ ⊗ A ⊗ B"
    dense = np.kron(np.eye(2), np.kron(a, b))
    np.testing.assert_allclose(made.as_matrix(vec="rows"), dense)
    np.testing.assert_allclose(made.as_matrix(vec="columns"), np.kron(b, np.kron(a, np.eye(2))))
    assert str(made @ made.T) == "B Bᵀ ⊗ A Aᵀ ⊗ I₂"
    np.testing.assert_allclose((made @ made.T).diagonal().ravel(), np.diag(dense @ dense.T))
    assert str(tensor_product()) == "I₁"


def test_identities_of_magnus_and_neudecker(x64: None):
    n = 3
    d, el, k = (op.as_matrix(vec="columns") for op in (duplication(n), elimination(n), commutation(n, n)))
    np.testing.assert_array_equal(el @ d, np.eye(6))
    np.testing.assert_array_equal(k @ d, d)
    np.testing.assert_allclose(d @ np.linalg.pinv(d), (np.eye(9) + k) / 2, atol=1e-14)
    rng = np.random.default_rng(0)
    A, B = rng.standard_normal((3, 2)), rng.standard_normal((4, 2))
    made = KhatriRao(jnp.asarray(A), jnp.asarray(B), (3, 4, 2))
    matrix = np.stack([np.kron(A[:, i], B[:, i]) for i in range(2)], -1)
    np.testing.assert_allclose(made.as_matrix(vec="columns"), matrix)
    np.testing.assert_allclose(made.singular_values(), np.linalg.svd(matrix, compute_uv=False))


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="J @ K: the input of J has shape"):
        Identity((2,)) @ Identity((3,))
    with pytest.raises(ValueError, match=r"J \+ K: J takes"):
        Identity((2,)) + Identity((3,))
    with pytest.raises(TypeError, match="multiplied by a scalar"):
        Identity((2,)) * jnp.ones(2)


def test_lineax_solves_with_it(x64: None):
    import lineax

    for kind in ("both", "diagonal", "identity", "blocks"):
        operator = structure(kind, 1)
        b = jnp.arange(9.0).reshape(SHAPE)
        solution = lineax.linear_solve(operator.to_lineax(), b).value
        np.testing.assert_allclose(operator @ solution, b, atol=1e-9)


def test_without_lineax_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    real = builtins.__import__

    def missing(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "lineax":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(ImportError, match=r"pip install 'funcbp\[lineax\]'"):
        Identity((2,)).to_lineax()
