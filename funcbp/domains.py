"""Where a rule's arguments live, as plain data: what to draw them from, and where care is needed.

A domain says which *values* an argument takes; its shape is said once, in the rule's jaxtyping signature.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

__all__ = [
    "AwayFrom",
    "Booleans",
    "Distinct",
    "Domain",
    "Integers",
    "Normal",
    "Point",
    "Positive",
    "PositiveDefinite",
    "Signs",
    "Simplex",
    "Symmetric",
    "Triangular",
    "Uniform",
    "Values",
    "WellConditioned",
]


class Domain(Protocol):
    """A set of values, with a way to draw an array of them."""

    def sample(
        self, rng: np.random.Generator, shape: tuple[int, ...], sizes: Mapping[str, int]
    ) -> np.ndarray:
        """An array of `shape`; `sizes` gives the length of every named axis of the signature."""
        ...


@dataclass(frozen=True)
class Normal:
    """The real line, drawn from a normal distribution."""

    scale: float = 1.0

    def sample(
        self, rng: np.random.Generator, shape: tuple[int, ...], sizes: Mapping[str, int]
    ) -> np.ndarray:
        """Normal values with standard deviation `scale`."""
        del sizes
        return self.scale * rng.standard_normal(shape)


@dataclass(frozen=True)
class Uniform:
    """The interval [low, high)."""

    low: float = 0.0
    high: float = 1.0

    def sample(
        self, rng: np.random.Generator, shape: tuple[int, ...], sizes: Mapping[str, int]
    ) -> np.ndarray:
        """Uniform values in [low, high)."""
        del sizes
        return rng.uniform(self.low, self.high, shape)


@dataclass(frozen=True)
class Positive:
    """The numbers above zero, drawn over a few orders of magnitude around `scale`."""

    scale: float = 1.0

    def sample(
        self, rng: np.random.Generator, shape: tuple[int, ...], sizes: Mapping[str, int]
    ) -> np.ndarray:
        """Log-normal values with median `scale`."""
        del sizes
        return self.scale * np.exp(rng.standard_normal(shape))


@dataclass(frozen=True)
class Simplex:
    """Non-negative numbers that sum to one along the last axis."""

    def sample(
        self, rng: np.random.Generator, shape: tuple[int, ...], sizes: Mapping[str, int]
    ) -> np.ndarray:
        """Rows from the flat Dirichlet distribution."""
        del sizes
        weights = rng.exponential(size=shape)
        total = weights.sum(-1, keepdims=True) if weights.ndim else weights
        return weights / np.where(total == 0, 1, total)


@dataclass(frozen=True)
class Integers:
    """Whole numbers in [low, high); not differentiable.

    `high` may name an axis, whose length n is meant (of a variadic one the shortest); a negative `low` then
    counts from the end, and is -n at least.
    """

    low: int = 0
    high: int | str = 2

    def sample(
        self, rng: np.random.Generator, shape: tuple[int, ...], sizes: Mapping[str, int]
    ) -> np.ndarray:
        """Uniform integers in [low, high)."""
        if not isinstance(self.high, str):
            return rng.integers(self.low, max(self.high, self.low + 1), shape)
        high = sizes[self.high]
        low = max(self.low, -high)
        return rng.integers(low, max(high, low + 1), shape)


@dataclass(frozen=True)
class Booleans:
    """True and False, each half of the time: a mask. Not differentiable."""

    def sample(
        self, rng: np.random.Generator, shape: tuple[int, ...], sizes: Mapping[str, int]
    ) -> np.ndarray:
        """Fair coins."""
        del sizes
        return rng.random(shape) < 0.5


@dataclass(frozen=True)
class AwayFrom:
    """The real line without a margin around `points`, where the function is not smooth."""

    points: tuple[float, ...]
    margin: float = 0.05
    scale: float = 1.0

    def sample(
        self, rng: np.random.Generator, shape: tuple[int, ...], sizes: Mapping[str, int]
    ) -> np.ndarray:
        """Normal values, those within the margin of a point moved to its edge."""
        del sizes
        x = self.scale * rng.standard_normal(shape)
        for point in self.points:
            x = np.where(np.abs(x - point) < self.margin, point + np.copysign(self.margin, x - point), x)
        return x


@dataclass(frozen=True)
class Distinct:
    """Numbers of which no two are near each other: where an order is taken (maximum, sort, top k)."""

    scale: float = 1.0

    def sample(
        self, rng: np.random.Generator, shape: tuple[int, ...], sizes: Mapping[str, int]
    ) -> np.ndarray:
        """All of an example's numbers in random order, evenly spaced but for a third of the gap."""
        del sizes
        count, size = (shape[0], math.prod(shape[1:])) if shape else (1, 1)
        order = rng.permuted(np.tile(np.arange(size), (count, 1)), axis=1)
        spread = (order + rng.uniform(-1 / 3, 1 / 3, (count, size)) - (size - 1) / 2) / max(size, 1)
        return self.scale * 4 * spread.reshape(shape)


@dataclass(frozen=True)
class Signs:
    """-1 and 1, each half of the time: the labels of a margin loss."""

    def sample(
        self, rng: np.random.Generator, shape: tuple[int, ...], sizes: Mapping[str, int]
    ) -> np.ndarray:
        """Fair signs."""
        del sizes
        return rng.choice([-1.0, 1.0], shape)


@dataclass(frozen=True)
class WellConditioned:
    """Matrices (over the last two axes) whose singular values are distinct and between 1/2 and 3/2."""

    def sample(
        self, rng: np.random.Generator, shape: tuple[int, ...], sizes: Mapping[str, int]
    ) -> np.ndarray:
        """U Diag(σ) Vᵀ with random orthonormal U and V."""
        del sizes
        return _with_singular_values(rng, shape, symmetric=False)


@dataclass(frozen=True)
class PositiveDefinite:
    """Symmetric matrices (over the last two axes), eigenvalues distinct and between 1/2 and 3/2."""

    def sample(
        self, rng: np.random.Generator, shape: tuple[int, ...], sizes: Mapping[str, int]
    ) -> np.ndarray:
        """V Diag(λ) Vᵀ with a random orthogonal V."""
        del sizes
        x = _with_singular_values(rng, shape, symmetric=True)
        return (x + np.swapaxes(x, -1, -2)) / 2


@dataclass(frozen=True)
class Symmetric:
    """Symmetric matrices (over the last two axes) of either sign, eigenvalues well apart."""

    def sample(
        self, rng: np.random.Generator, shape: tuple[int, ...], sizes: Mapping[str, int]
    ) -> np.ndarray:
        """A positive definite one, shifted so that half of its eigenvalues are negative."""
        x = PositiveDefinite().sample(rng, shape, sizes)
        return 2 * (x - np.eye(shape[-1]))


@dataclass(frozen=True)
class Triangular:
    """Lower triangular matrices (over the last two axes), the diagonal between 1/2 and 3/2."""

    lower: bool = True

    def sample(
        self, rng: np.random.Generator, shape: tuple[int, ...], sizes: Mapping[str, int]
    ) -> np.ndarray:
        """Normal values of standard deviation 1/√n beside the diagonal."""
        del sizes
        n = shape[-1]
        x = np.tril(rng.standard_normal(shape) / math.sqrt(max(n, 1)), -1)
        x = x + np.eye(n) * rng.uniform(0.5, 1.5, shape)
        return x if self.lower else np.swapaxes(x, -1, -2)


def _with_singular_values(rng: np.random.Generator, shape: tuple[int, ...], symmetric: bool) -> np.ndarray:
    rows, columns = shape[-2:]
    small = min(rows, columns)
    if small == 0:
        return np.zeros(shape)
    u, _, vt = np.linalg.svd(rng.standard_normal(shape), full_matrices=False)
    # Evenly spaced, a third of the gap at random.
    values = (np.arange(small) + 0.5 + rng.uniform(-1 / 6, 1 / 6, (*shape[:-2], small))) / small + 0.5
    values = values[..., ::-1]
    return (u * values[..., None, :]) @ (np.swapaxes(u, -1, -2) if symmetric else vt)


Values = float | tuple[float, ...] | Callable[[tuple[int, ...]], np.ndarray]


@dataclass(frozen=True)
class Point:
    """A named special point of a rule: a kink, an edge, a saturation.

    `at` gives values for some arguments (a number, a tuple repeated cyclically along the last axis, or a
    function from a shape to an array of it: `lambda shape: np.eye(shape[-1])`); the others are drawn from
    their domain. `expected`, where given, is the convention: the cotangent of each
    named argument for a cotangent of ones, elementwise. `agrees` is False where the reference's derivative is
    known to be NaN or to follow another convention there; `why` says so in words. `smooth` is False at a
    kink: there is no second derivative, and that of `primal` must be the convention, too.
    """

    at: Mapping[str, Values]
    expected: Mapping[str, Values] = field(default_factory=dict)
    agrees: bool = True
    why: str = ""
    smooth: bool = True
