"""Where matrices live that no general domain describes."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ...domains import PositiveDefinite

__all__ = ["DominantDiagonal", "FullRank", "NearIdentity", "SeparateEigenvalues", "Stable", "eye"]


@dataclass(frozen=True)
class DominantDiagonal:
    """Square matrices of which both triangles are well conditioned: the diagonal between 1/2 and 3/2."""

    def sample(
        self, rng: np.random.Generator, shape: tuple[int, ...], sizes: Mapping[str, int]
    ) -> np.ndarray:
        """Normal values of standard deviation 1/(2√n) beside the diagonal."""
        del sizes
        n = shape[-1]
        rest = rng.standard_normal(shape) / (2 * math.sqrt(max(n, 1)))
        return np.where(np.eye(n, dtype=bool), rng.uniform(0.5, 1.5, shape), rest)


@dataclass(frozen=True)
class FullRank:
    """Matrices of which the first rows and columns are well conditioned, too: QR and LU exist, far from
    where they are not smooth."""

    def sample(
        self, rng: np.random.Generator, shape: tuple[int, ...], sizes: Mapping[str, int]
    ) -> np.ndarray:
        """A unit lower triangle times an upper one with a diagonal between 1 and 2, rows in random order."""
        del sizes
        m, n = shape[-2:]
        k = min(m, n)
        lower = np.tril(rng.uniform(-0.7, 0.7, (*shape[:-1], k)), -1) + np.eye(m, k)
        upper = np.triu(rng.standard_normal((*shape[:-2], k, n)) / 2, 1)
        upper = upper + np.eye(k, n) * rng.uniform(1.0, 2.0, (*shape[:-2], k, 1))
        return (lower @ upper)[..., rng.permutation(m), :]


@dataclass(frozen=True)
class SeparateEigenvalues:
    """Symmetric matrices whose eigenvalues are at least 2/3 from each other, and 1 from 0."""

    def sample(
        self, rng: np.random.Generator, shape: tuple[int, ...], sizes: Mapping[str, int]
    ) -> np.ndarray:
        """A positive definite matrix times its size."""
        return shape[-1] * PositiveDefinite().sample(rng, shape, sizes)


@dataclass(frozen=True)
class NearIdentity:
    """Symmetric matrices with eigenvalues between 0.95 and 1.05: as a metric they hardly move eigenvalues."""

    def sample(
        self, rng: np.random.Generator, shape: tuple[int, ...], sizes: Mapping[str, int]
    ) -> np.ndarray:
        """A tenth of a positive definite matrix, and nine of I."""
        return (9 * np.eye(shape[-1]) + PositiveDefinite().sample(rng, shape, sizes)) / 10


@dataclass(frozen=True)
class Stable:
    """Square matrices whose eigenvalues have a positive real part: A X + X B = C has one solution."""

    def sample(
        self, rng: np.random.Generator, shape: tuple[int, ...], sizes: Mapping[str, int]
    ) -> np.ndarray:
        """Normal values of standard deviation 1/(2√n), plus I."""
        del sizes
        n = shape[-1]
        return rng.standard_normal(shape) / (2 * math.sqrt(max(n, 1))) + np.eye(n)


def eye(shape: tuple[int, ...]) -> np.ndarray:
    """The identity matrix, or its first rows or columns, for a named point."""
    return np.eye(shape[-2], shape[-1])
