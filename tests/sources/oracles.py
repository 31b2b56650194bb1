"""What closed forms are compared with: `jax.grad` and central differences, both in float64.

The bounds are stated here, once. Arrays made at import time must be numpy: JAX is in float64 only in a test.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from tests.at_once import grad

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
    params = jax.tree.map(lambda w: np.asarray(w, np.float64), params)
    assert_close(grad(value)(params), expected, terms=terms)
    rounding = 16 * EPS ** (2 / 3) * abs(float(value(params)))
    _compare(central_differences(value, params), expected, 1e-8, rounding)


def central_differences(value: Callable[[PyTree], Any], params: PyTree) -> PyTree:
    """∂value/∂params from 2N values; nothing is compiled if `value` is numpy for numpy arrays.

    (f(w + h) - f(w - h)) / 2h errs by h² f‴/6 + ε f/h, which is least near h = ε^⅓ |w| and about 1e-10 there.
    """
    leaves, treedef = jax.tree.flatten(jax.tree.map(lambda w: np.asarray(w, np.float64), params))

    def shifted(leaf: int, entry: tuple[int, ...], step: float) -> float:
        moved = leaves[leaf].copy()
        moved[entry] += step
        return float(value(treedef.unflatten([*leaves[:leaf], moved, *leaves[leaf + 1 :]])))

    quotients = [np.zeros_like(w) for w in leaves]
    for i, w in enumerate(leaves):
        for at in np.ndindex(w.shape):
            step = EPS ** (1 / 3) * max(1.0, abs(w[at]))
            quotients[i][at] = (shifted(i, at, step) - shifted(i, at, -step)) / (2 * step)
    return treedef.unflatten(quotients)


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
