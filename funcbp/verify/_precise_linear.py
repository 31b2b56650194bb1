"""Factorizations and triangular systems of mpmath numbers, matrix by matrix."""

from collections.abc import Callable
from typing import Any

import jax
import mpmath
import numpy as np
from mpmath import mpf

from .. import _compat
from ._precise_numbers import to_numbers, to_numpy, wrapped
from ._precise_sums import NotPrecise, product

__all__ = ["LINEAR"]


def _batched(x: np.ndarray) -> tuple[tuple[int, ...], np.ndarray]:
    return x.shape[:-2], x.reshape(-1, *x.shape[-2:])


def _adjoint(x: np.ndarray) -> np.ndarray:
    return np.conj(np.swapaxes(x, -1, -2))


def _cholesky(equation: Any, x: np.ndarray) -> np.ndarray:
    if equation.params.get("symmetrize_input", False):
        x = (x + _adjoint(x)) / 2
    batch, matrices = _batched(x)
    return np.stack([_cholesky_of(a) for a in matrices]).reshape(*batch, *x.shape[-2:])


def _cholesky_of(a: np.ndarray) -> np.ndarray:
    n = len(a)
    out = wrapped(mpf(0), a.shape)
    for j in range(n):
        rest = a[j, j] - mpmath.fdot((v, mpmath.conj(v)) for v in out[j, :j])
        if not mpmath.re(rest) > 0:
            return wrapped(mpf("nan"), a.shape)
        out[j, j] = mpmath.sqrt(rest)
        for i in range(j + 1, n):
            known = mpmath.fdot((u, mpmath.conj(v)) for u, v in zip(out[i, :j], out[j, :j], strict=True))
            out[i, j] = (a[i, j] - known) / out[j, j]
    return out


def _triangular_solve(equation: Any, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    p = equation.params
    lower = p["lower"]
    if p["conjugate_a"]:
        a = np.conj(a)
    if p["transpose_a"]:
        a, lower = np.swapaxes(a, -1, -2), not lower
    if not p["left_side"]:  # x a = b is aᵀ xᵀ = bᵀ
        a, b, lower = np.swapaxes(a, -1, -2), np.swapaxes(b, -1, -2), not lower
    batch, matrices = _batched(a)
    solved = [
        _substituted(m, r, lower, p["unit_diagonal"]) for m, r in zip(matrices, _batched(b)[1], strict=True)
    ]
    out = np.stack(solved).reshape(*batch, *b.shape[-2:])
    return out if p["left_side"] else np.swapaxes(out, -1, -2)


def _substituted(a: np.ndarray, b: np.ndarray, lower: bool, unit: bool) -> np.ndarray:
    out = np.empty(b.shape, object)
    order = range(len(a)) if lower else range(len(a) - 1, -1, -1)
    for i in order:
        done = slice(0, i) if lower else slice(i + 1, None)
        for j in range(b.shape[1]):
            rest = b[i, j] - mpmath.fdot(zip(a[i, done], out[done, j], strict=True))
            out[i, j] = rest if unit else rest / a[i, i] if a[i, i] != 0 else mpf("nan")
    return out


def _lu(equation: Any, x: np.ndarray) -> list[np.ndarray]:
    del equation
    batch, matrices = _batched(x)
    factored = [_lu_of(a.copy()) for a in matrices]
    lu, pivots, permutation = (np.stack(parts) for parts in zip(*factored, strict=True))
    return [lu.reshape(x.shape), pivots.reshape(*batch, -1), permutation.reshape(*batch, -1)]


def _lu_of(a: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rows, columns = a.shape
    pivots, permutation = np.arange(min(a.shape), dtype=np.int32), np.arange(rows, dtype=np.int32)
    for k in range(min(a.shape)):
        best = k + int(np.argmax([abs(v) for v in a[k:, k]]))
        pivots[k] = best
        a[[k, best]], permutation[[k, best]] = a[[best, k]], permutation[[best, k]]
        if a[k, k] == 0:
            continue
        a[k + 1 :, k] = a[k + 1 :, k] / a[k, k]
        a[k + 1 :, k + 1 :] -= np.outer(a[k + 1 :, k], a[k, k + 1 : columns])
    return a, pivots, permutation


def _eigh(equation: Any, x: np.ndarray) -> list[np.ndarray]:
    p = equation.params
    if p.get("subset_by_index") not in (None, (0, x.shape[-1])):
        raise NotPrecise("a subset of eigenvalues")
    # Eigenvectors are known up to a factor of size 1: it is that of the solution in float64.
    nearby = _compat.bind(equation, [jax.numpy.asarray(to_numpy(x))])
    vectors_first = nearby[0].ndim == x.ndim and nearby[0].shape == x.shape
    guess = np.asarray(nearby[0 if vectors_first else 1])
    batch, matrices = _batched(x)
    lower = np.tril(np.ones(x.shape[-2:], bool)) == p.get("lower", True)
    solved = [
        _eigh_of(np.where(lower | np.eye(len(a), dtype=bool), a, _adjoint(a)), g)
        for a, g in zip(matrices, _batched(guess)[1], strict=True)
    ]
    vectors = np.stack([v for v, _ in solved]).reshape(x.shape)
    values = np.stack([w for _, w in solved]).reshape(*batch, -1)
    return [vectors, values] if vectors_first else [values, vectors]


def _eigh_of(a: np.ndarray, guess: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    matrix = mpmath.matrix(a.tolist())
    hermitian = np.iscomplexobj(guess)
    values, vectors = mpmath.eighe(matrix) if hermitian else mpmath.eigsy(matrix)
    columns = np.array(vectors.tolist(), object).reshape(a.shape)
    overlap = np.diagonal(product(_adjoint(columns).copy(), to_numbers(guess).T.copy()))
    columns = columns * np.array([mpmath.sign(v) for v in overlap], object)
    return columns, np.array(list(values), object)


LINEAR: dict[str, Callable[..., Any]] = {
    "cholesky": _cholesky,
    "eigh": _eigh,
    "lu": _lu,
    "triangular_solve": _triangular_solve,
}
"""What `(equation, *arrays)` gives, by the name of the primitive."""
