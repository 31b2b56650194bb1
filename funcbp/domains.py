"""Where a rule's arguments live, as plain data: what to draw them from, and where care is needed.

A domain says which *values* an argument takes; its shape is said once, in the rule's jaxtyping signature.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

__all__ = [
    "AwayFrom",
    "Booleans",
    "Domain",
    "Integers",
    "Normal",
    "Point",
    "Positive",
    "Simplex",
    "Uniform",
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
    """Whole numbers in [low, high); `high` may name an axis, whose length is meant. Not differentiable."""

    low: int = 0
    high: int | str = 2

    def sample(
        self, rng: np.random.Generator, shape: tuple[int, ...], sizes: Mapping[str, int]
    ) -> np.ndarray:
        """Uniform integers in [low, high)."""
        high = sizes[self.high] if isinstance(self.high, str) else self.high
        return rng.integers(self.low, max(high, self.low + 1), shape)


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
class Point:
    """A named special point of a rule: a kink, an edge, a saturation.

    `at` gives values for some arguments (a number, or a tuple repeated cyclically along the last axis); the
    others are drawn from their domain. `expected`, where given, is the convention: the cotangent of each
    named argument for a cotangent of ones, elementwise. `agrees` is False where the reference's derivative is
    known to be NaN or to follow another convention there; `why` says so in words. `smooth` is False at a
    kink: there is no second derivative, and that of `primal` must be the convention, too.
    """

    at: Mapping[str, float | tuple[float, ...]]
    expected: Mapping[str, float | tuple[float, ...]] = field(default_factory=dict)
    agrees: bool = True
    why: str = ""
    smooth: bool = True
