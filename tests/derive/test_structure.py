"""What the code makes of triangles, diagonals, inverses and scalars: what a careful person would write."""

import inspect

import jax
import numpy as np
import pytest
from jax import numpy as jnp

import funcbp

from .numerics import evaluated

RANDOM = np.random.default_rng(5)
S = np.eye(4) + np.ones((4, 4)) / 3
A, B = RANDOM.normal(size=(4, 4)) + 3 * np.eye(4), RANDOM.normal(size=(4, 3))
X = RANDOM.normal(size=(3, 5))
x, y = RANDOM.normal(size=4), RANDOM.normal(size=4)


def _gaussian(S, x):
    L = jnp.linalg.cholesky(S)
    z = jax.scipy.linalg.solve_triangular(L, x, lower=True)
    return 0.5 * z @ z + jnp.sum(jnp.log(jnp.diagonal(L)))


FUNCTIONS = {
    # function, arguments, what its code has, what it has not
    "a density by way of Cholesky": (_gaussian, (S, x), "solve_triangular", "lu_"),
    "a factor that is solved with": (
        lambda S, x: jnp.linalg.cholesky(S) @ x @ x,
        (S, x),
        "solve_triangular",
        "lu_",
    ),
    "the lower triangle": (
        lambda A, B: jnp.sum(jax.scipy.linalg.solve_triangular(A, B, lower=True) ** 2),
        (A, B),
        "solve_triangular(U, B, lower=True)",
        "jnp.where",
    ),
    "the lower triangle, transposed": (
        lambda A, x: jnp.sum(jax.scipy.linalg.solve_triangular(A, x, lower=True, trans=1) ** 3),
        (A, x),
        "solve_triangular",
        "solve(A",
    ),
    "the upper triangle": (
        lambda A, x, y: y @ jax.scipy.linalg.solve_triangular(A, x),
        (A, x, y),
        "solve_triangular(U, x)",
        "lu_",
    ),
    "the inverse of a triangle": (
        lambda A: jnp.sum(jnp.linalg.inv(jnp.tril(A)) ** 2),
        (A,),
        "solve_triangular(U, jnp.eye(m), lower=True)",
        "linalg.inv",
    ),
    "the determinant of a triangle": (
        lambda A: jnp.linalg.slogdet(jnp.triu(A))[1],
        (A,),
        "jnp.diagonal(U)",
        "slogdet",
    ),
    "an inverse between vectors": (
        lambda A, x, y: x @ jnp.linalg.inv(A) @ (x * y),
        (A, x, y),
        "lu_solve(lu, x",
        "jnp.eye",
    ),
    "an inverse of a product, twice": (
        lambda A, B, x: jnp.sum((B.T @ jnp.linalg.inv(A) @ x) ** 2),
        (A, B, x),
        "lu_solve",
        "jnp.eye",
    ),
    "running sums": (lambda x, y: jnp.cumsum(jnp.sin(x)) @ y, (x, y), "jnp.cumsum", "jnp.where"),
    "running sums from the end": (
        lambda x, y: jax.lax.cumsum(x * y, reverse=True) @ (x * x),
        (x, y),
        "reverse=True",
        "jnp.where",
    ),
    "running sums of columns": (
        lambda X: jnp.sum(jnp.cumsum(X, 0) ** 2),
        (X,),
        "cumsum(X, axis=0)",
        "jnp.where",
    ),
    "running sums of rows": (
        lambda X: jnp.sum(jnp.cumsum(X, 1) ** 2),
        (X,),
        "cumsum(X, axis=1)",
        "jnp.where",
    ),
    "what is strictly below": (
        lambda A, x: jnp.sum((jnp.tril(A, -1) @ x) ** 2),
        (A, x),
        "jnp.tril(A, -1)",
        "jnp.where",
    ),
    "what is above": (lambda A, x: x @ jnp.triu(A) @ jnp.cos(x), (A, x), "jnp.triu(", "jnp.where"),
    "a triangle that is no square": (lambda X: jnp.sum(jnp.tril(X) ** 3), (X,), "jnp.tril(X)", "jnp.where"),
    "a diagonal": (lambda A, x: jnp.diagonal(A) ** 2 @ x, (A, x), "jnp.fill_diagonal(", "jnp.eye"),
    "a diagonal and more": (lambda A, x: jnp.trace(A * x) + x @ A @ x, (A, x), "jnp.diag(", "jnp.eye"),
    "exponentials, once": (lambda a: jax.nn.logsumexp(a), (x,), "grad_a = e / s", "softmax"),
    "exponentials of rows, once": (
        lambda X, w: w @ jax.nn.logsumexp(X, axis=1) ** 2,
        (X, X[:, 0]),
        "jnp.squeeze(M + jnp.log(S), axis=1)",
        "softmax",
    ),
    "a mean over many rows": (
        lambda B, x: jnp.sum((x @ B) ** 2) / 7,
        (B, x),
        "jnp.outer(x, 2 * r / 7)",
        "@ r",
    ),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_code_is_what_a_person_writes_and_right(name, x64):
    function, arguments, has, lacks = FUNCTIONS[name]
    names = list(inspect.signature(function).parameters)
    d = funcbp.derive(function, *map(jnp.asarray, arguments), names=names)
    assert has in d.source()
    assert lacks not in d.source()
    _, gradients = evaluated(jax.value_and_grad(function, tuple(range(len(arguments)))), *arguments)
    _, found = d.quick(*arguments)
    for n, expected in zip(names, gradients, strict=True):
        np.testing.assert_allclose(found[n], expected, rtol=1e-10, atol=1e-10)


def test_exponentials_of_large_and_infinite_logits():
    z = jnp.asarray(RANDOM.standard_normal(64) + 1e4, jnp.float32)
    compiled = funcbp.derive(jax.nn.logsumexp, z).value_and_grad
    (found,) = compiled(z)[1].values()
    exact = np.exp(np.asarray(z, np.float64) - 1e4)
    np.testing.assert_allclose(found, exact / exact.sum(), rtol=1e-6)
    for special in ([1.0, -jnp.inf], [jnp.inf, 1.0], [-jnp.inf, -jnp.inf]):
        z = z.at[:].set(-jnp.inf).at[:2].set(jnp.array(special))
        value, gradients = compiled(z)
        expected = jax.value_and_grad(jax.nn.logsumexp)(z)
        np.testing.assert_array_equal(value, expected[0])
        np.testing.assert_array_equal(next(iter(gradients.values())), expected[1])
