"""Sets of arrays with structure along an axis or two: rows that sum to one, symmetric matrices, ..."""

from dataclasses import dataclass

import numpy as np

from ._structures import SAME, Deviations, Shape, Structure, normal

__all__ = [
    "Definite",
    "Mirrored",
    "OneHot",
    "Orthogonal",
    "Sorted",
    "SumToOne",
    "Triangular",
    "UnitRows",
    "adjoint",
]


@dataclass(frozen=True)
class OneHot(Structure):
    """A single one along an axis, zeros elsewhere."""

    axis: int = -1

    def draw(self, rng: np.random.Generator, shape: Shape) -> np.ndarray:
        return self.project(rng.random(shape))

    def project(self, x: np.ndarray) -> np.ndarray:
        if not x.shape[self.axis]:
            return x
        at = np.expand_dims(x.argmax(self.axis), self.axis)
        hot = np.zeros(x.shape)
        np.put_along_axis(hot, at, 1.0, self.axis)
        return hot

    def beyond(self, rng: np.random.Generator, x: np.ndarray) -> Deviations:
        yield "soft labels", SumToOne(self.axis).draw(rng, x.shape)
        yield from super().beyond(rng, x)


@dataclass(frozen=True)
class SumToOne(Structure):
    """Non-negative numbers that sum to one along an axis."""

    axis: int = -1

    def draw(self, rng: np.random.Generator, shape: Shape) -> np.ndarray:
        return self.project(rng.exponential(size=shape))

    def project(self, x: np.ndarray) -> np.ndarray:
        weights = np.abs(x)
        total = weights.sum(self.axis, keepdims=True)
        count = max(x.shape[self.axis], 1)
        return np.where(total == 0, 1 / count, weights / np.where(total == 0, 1, total))

    def beyond(self, rng: np.random.Generator, x: np.ndarray) -> Deviations:
        yield "rows that do not sum to one", x * rng.uniform(1.5, 3, x.sum(self.axis, keepdims=True).shape)
        yield from super().beyond(rng, x)


@dataclass(frozen=True)
class UnitRows(Structure):
    """Vectors of length one along an axis."""

    axis: int = -1

    def draw(self, rng: np.random.Generator, shape: Shape) -> np.ndarray:
        return self.project(rng.standard_normal(shape))

    def project(self, x: np.ndarray) -> np.ndarray:
        length = np.linalg.norm(x, axis=self.axis, keepdims=True)
        even = 1 / np.sqrt(max(x.shape[self.axis], 1))
        return np.where(length == 0, even, x / np.where(length == 0, 1, length))


@dataclass(frozen=True)
class Sorted(Structure):
    """Rows of another structure in order."""

    entries: Structure
    descending: bool = False

    def draw(self, rng: np.random.Generator, shape: Shape) -> np.ndarray:
        return self.project(self.entries.draw(rng, shape))

    def project(self, x: np.ndarray) -> np.ndarray:
        ordered = np.sort(self.entries.project(x), axis=-1)
        return ordered[..., ::-1] if self.descending else ordered

    def beyond(self, rng: np.random.Generator, x: np.ndarray) -> Deviations:
        yield "rows out of order", rng.permuted(x, axis=-1)


@dataclass(frozen=True)
class Mirrored(Structure):
    """Square matrices with A[j, i] = `sign` A[i, j] (conjugated); with `hollow`, a diagonal of zeros."""

    entries: Structure
    sign: int = 1
    hollow: bool = False

    def draw(self, rng: np.random.Generator, shape: Shape) -> np.ndarray:
        return self.project(self.entries.draw(rng, shape))

    def project(self, x: np.ndarray) -> np.ndarray:
        x = self.entries.project(x)
        above = np.triu(x, 1)
        diagonal = np.zeros_like(x) if self.hollow or self.sign < 0 else np.real(x) * np.eye(x.shape[-1])
        return above + diagonal + self.sign * adjoint(above)

    def beyond(self, rng: np.random.Generator, x: np.ndarray) -> Deviations:
        yield "matrices that are not symmetric", self.entries.draw(rng, x.shape)


@dataclass(frozen=True)
class Definite(Structure):
    """Symmetric (Hermitian) positive definite matrices, well conditioned, with eigenvalues around `scale`."""

    scale: float = 1.0
    is_complex: bool = False

    def draw(self, rng: np.random.Generator, shape: Shape) -> np.ndarray:
        n = max(shape[-1], 1)
        root = normal(rng, shape, self.is_complex)
        return self.scale * (root @ adjoint(root) / n + 0.3 * np.eye(shape[-1]))

    def project(self, x: np.ndarray) -> np.ndarray:
        above = np.triu(x, 1)
        x = above + np.real(x) * np.eye(x.shape[-1]) + adjoint(above)
        if not x.size or not np.isfinite(x).all():
            return x
        values, vectors = np.linalg.eigh(x)
        floor = 1e-3 * np.abs(values).max(-1, keepdims=True)
        if np.all(values > 1e-6 * floor):
            return x
        values = np.maximum(np.abs(values), np.where(floor == 0, self.scale, floor))
        x = (vectors * values[..., None, :]) @ adjoint(vectors)
        return (x + adjoint(x)) / 2

    def beyond(self, rng: np.random.Generator, x: np.ndarray) -> Deviations:
        noise = self.scale * normal(rng, x.shape, self.is_complex)
        yield "matrices that are not symmetric", x + 0.3 * (noise - adjoint(noise)) / max(x.shape[-1], 1)
        yield "matrices that are not definite", (noise + adjoint(noise)) / 2


@dataclass(frozen=True)
class Triangular(Structure):
    """Triangular matrices; the diagonal drawn away from zero, and positive if it was."""

    entries: Structure
    lower: bool = True
    positive: bool = False

    def draw(self, rng: np.random.Generator, shape: Shape) -> np.ndarray:
        x = self.entries.draw(rng, shape)
        on = np.eye(shape[-1], dtype=bool)
        return self.project(np.where(on, x + np.where(x < 0, -1, 1) * np.mean(np.abs(x) if x.size else 0), x))

    def project(self, x: np.ndarray) -> np.ndarray:
        x = np.tril(x) if self.lower else np.triu(x)
        on = np.eye(x.shape[-1], dtype=bool)
        return np.where(on, np.where(x == 0, 1.0, np.abs(x)), x) if self.positive else x

    def beyond(self, rng: np.random.Generator, x: np.ndarray) -> Deviations:
        other = self.entries.draw(rng, x.shape)
        yield "full matrices", x + (np.triu(other, 1) if self.lower else np.tril(other, -1))


@dataclass(frozen=True)
class Diagonal(Structure):
    """Diagonal matrices."""

    entries: Structure

    def draw(self, rng: np.random.Generator, shape: Shape) -> np.ndarray:
        return self.project(self.entries.draw(rng, shape))

    def project(self, x: np.ndarray) -> np.ndarray:
        return np.where(np.eye(x.shape[-1], dtype=bool), x, np.zeros_like(x))

    def beyond(self, rng: np.random.Generator, x: np.ndarray) -> Deviations:
        yield "full matrices", x + self.entries.draw(rng, x.shape)


@dataclass(frozen=True)
class Orthogonal(Structure):
    """Orthogonal (unitary) matrices; rotations where `proper`."""

    proper: bool = False
    is_complex: bool = False

    def draw(self, rng: np.random.Generator, shape: Shape) -> np.ndarray:
        q, r = np.linalg.qr(normal(rng, shape, self.is_complex))
        phases = np.diagonal(r, axis1=-2, axis2=-1)
        q = q * (phases / np.abs(phases))[..., None, :]
        if self.proper and shape[-1]:
            q[..., :, 0] /= np.linalg.det(q)[..., None]
        return q

    def project(self, x: np.ndarray) -> np.ndarray:
        gram = x @ adjoint(x)
        if np.allclose(gram, np.eye(x.shape[-1]), atol=SAME):
            return x
        return self.draw(np.random.default_rng(0), x.shape)


def adjoint(x: np.ndarray) -> np.ndarray:
    """The conjugated transpose of the last two axes."""
    return np.conj(np.swapaxes(x, -1, -2))
