"""What closed forms are compared with: `jax.grad` and central differences, both in float64.

The bounds are stated here, once. Arrays made at import time must be numpy: JAX is in float64 only in a test.
"""

import itertools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

PyTree = Any
EPS = float(np.finfo(np.float64).eps)


def assert_close(actual: PyTree, expected: PyTree, *, terms: int = 512) -> None:
    """Same tree, same shapes, and |actual - expected| ≤ terms · ε · max|expected| in every entry of a leaf.

    An entry that sums t products of size s has a rounding error of about t ε s at most; `terms` is that t,
    times what two spellings of a chain of products may differ by. The default, 1.1e-13, is for the small
    networks of these tests. An expected leaf of zeros must be met exactly.
    """
    _compare(actual, expected, terms * EPS)


def assert_differs(actual: PyTree, expected: PyTree, *, by: float = 1e-3) -> None:
    """Same shapes, but some leaf is off by more than `by` of its size: for what is wrong as printed."""
    assert _deviation(actual, expected) > by


def assert_gradient(
    value: Callable[[PyTree], jax.Array], params: PyTree, expected: PyTree, *, terms: int = 512
) -> None:
    """`expected` is ∂value/∂params: by `jax.grad` to rounding, and by central differences.

    These err by h² f‴/6 + ε f/h with h = ε^⅓: allowed are 1e-8 of the leaf for the first, which is h² times a
    third derivative of a few hundred times the first, and 16 ε^⅔ f for the second.
    """
    points, steps = _shifted(params)
    both = jax.jit(lambda w, points: (jax.value_and_grad(value)(w), _values(value, w, points)))
    (at, by_grad), values = both(params, points)
    assert_close(by_grad, expected, terms=terms)
    rounding = 16 * EPS ** (2 / 3) * abs(float(at))
    _compare(_quotients(params, values, steps), expected, 1e-8, rounding)


def central_differences(value: Callable[[PyTree], jax.Array], params: PyTree) -> PyTree:
    """∂value/∂params from 2N values, in one vectorized call; `value` must be written with jnp.

    (f(w + h) - f(w - h)) / 2h errs by h² f‴/6 + ε f/h, which is least near h = ε^⅓ |w| and about 1e-10 there.
    """
    points, steps = _shifted(params)
    values = jax.jit(lambda points: _values(value, params, points))(points)
    return _quotients(params, values, steps)


def _shifted(params: PyTree) -> tuple[np.ndarray, np.ndarray]:
    """The 2N points as rows, all the upper ones first, and the N steps."""
    flat = np.concatenate([np.ravel(np.asarray(w, np.float64)) for w in jax.tree.leaves(params)])
    steps = EPS ** (1 / 3) * np.maximum(1.0, np.abs(flat))
    return np.concatenate([flat + np.diag(steps), flat - np.diag(steps)]), steps


def _values(value: Callable[[PyTree], jax.Array], params: PyTree, points: jax.Array) -> jax.Array:
    return jax.vmap(lambda point: value(_split(params, point)))(points)


def _quotients(params: PyTree, values: jax.Array, steps: np.ndarray) -> PyTree:
    above, below = np.split(np.asarray(values), 2)
    return _split(params, (above - below) / (2 * steps))


def _split(params: PyTree, flat: Any) -> PyTree:
    """`flat` in the tree and shapes of `params`."""
    leaves, treedef = jax.tree.flatten(params)
    ends = np.cumsum([0, *(np.size(w) for w in leaves)])
    parts = [flat[start:end] for start, end in itertools.pairwise(ends)]
    return treedef.unflatten([p.reshape(np.shape(w)) for p, w in zip(parts, leaves, strict=True)])


def odot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a ⊙ b, strictly: numpy would broadcast a column against a matrix, which the texts' ⊙ does not."""
    if a.shape != b.shape:
        raise ValueError(f"⊙ of shapes {a.shape} and {b.shape}")
    return a * b


def _deviation(actual: PyTree, expected: PyTree) -> float:
    """The largest deviation of any leaf, in units of the largest entry of that leaf."""
    worst = 0.0
    for a, e in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        a, e = np.asarray(a), np.asarray(e)
        assert a.shape == e.shape, f"{a.shape} and {e.shape}: not a wrong value but an ill-typed one"
        worst = max(worst, float(np.max(np.abs(a - e))) / float(np.max(np.abs(e))))
    return worst


def _compare(actual: PyTree, expected: PyTree, bound: float, floor: float = 0.0) -> None:
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    pairs = zip(jax.tree_util.tree_leaves_with_path(actual), jax.tree.leaves(expected), strict=True)
    for (path, a), e in pairs:
        a, e, where = np.asarray(a), np.asarray(e), jax.tree_util.keystr(path)
        assert a.shape == e.shape, f"{where}: shape {a.shape}, expected {e.shape}"
        assert a.dtype != np.float32, f"{where}: float32 in a float64 test"
        off, size = float(np.max(np.abs(a - e), initial=0.0)), float(np.max(np.abs(e), initial=0.0))
        allowed = bound * size + floor
        assert off <= allowed, f"{where}: off by {off:.1e}, allowed {allowed:.1e} of {size:.1e}\n{a}\n{e}"
