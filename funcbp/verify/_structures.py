"""Sets of arrays that an example may come from: how to draw another member, and how to get back into the set.

Every structure draws any shape, so that an example's structure carries over to other sizes. Axes count from
the end.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax import numpy as jnp

__all__ = [
    "SAME",
    "Coins",
    "Deviations",
    "Keys",
    "Magnitudes",
    "Near",
    "Observed",
    "Permutations",
    "Reals",
    "Shape",
    "Structure",
    "UnitInterval",
    "normal",
    "some",
]

Shape = tuple[int, ...]
Deviations = Iterator[tuple[str, np.ndarray]]

SAME = 1e-6  # relative: rows of a float32 example sum to one no better


class Structure(ABC):
    """A set of arrays; usable as a `funcbp.domains.Domain`."""

    @abstractmethod
    def draw(self, rng: np.random.Generator, shape: Shape) -> np.ndarray:
        """A random member."""

    @abstractmethod
    def project(self, x: np.ndarray) -> np.ndarray:
        """A member near `x`: `x` itself if it is one."""

    def sample(
        self, rng: np.random.Generator, shape: Shape, sizes: Mapping[str, int] | None = None
    ) -> np.ndarray:
        """A random member of a shape; named axes do not matter."""
        del sizes
        return self.draw(rng, shape)

    def contains(self, x: np.ndarray) -> bool:
        """Whether `x` is a member, up to rounding."""
        near = self.project(x)
        if not np.issubdtype(x.dtype, np.inexact):
            return bool(np.array_equal(near, x))
        with np.errstate(invalid="ignore"):
            return bool(np.all((near == x) | (np.abs(near - x) <= SAME * np.abs(x))))

    def beyond(self, rng: np.random.Generator, x: np.ndarray) -> Deviations:
        """Arrays like `x` that are not members, with what is different about them."""
        if not np.issubdtype(x.dtype, np.inexact):
            return  # whole numbers not seen may be indices out of range
        finite = x[np.isfinite(x)]
        size = float(np.sqrt(np.mean(np.square(np.abs(finite))))) if finite.size else 1.0
        yield "any real values", (size or 1.0) * rng.standard_normal(x.shape)


@dataclass(frozen=True)
class Reals(Structure):
    """All real (or complex) numbers; drawn from a normal distribution."""

    mean: complex = 0.0
    scale: float = 1.0
    is_complex: bool = False

    def draw(self, rng: np.random.Generator, shape: Shape) -> np.ndarray:
        noise = normal(rng, shape, self.is_complex)
        return (self.mean if self.is_complex else np.real(self.mean)) + self.scale * noise

    def project(self, x: np.ndarray) -> np.ndarray:
        return x


@dataclass(frozen=True)
class Magnitudes(Structure):
    """Positive numbers, log-normal; with `zeros`, the fraction that is exactly zero instead."""

    median: float = 1.0
    spread: float = 1.0
    zeros: float = 0.0

    def draw(self, rng: np.random.Generator, shape: Shape) -> np.ndarray:
        x = self.median * np.exp(self.spread * rng.standard_normal(shape))
        return np.where(rng.random(shape) < self.zeros, 0.0, x)

    def project(self, x: np.ndarray) -> np.ndarray:
        return np.abs(x) if self.zeros else np.where(x == 0, self.median, np.abs(x))

    def beyond(self, rng: np.random.Generator, x: np.ndarray) -> Deviations:
        yield "numbers of both signs", np.where(rng.random(x.shape) < 0.5, -x, x)
        if not self.zeros:
            yield "exact zeros", np.where(some(rng, x.shape), 0.0, x)


@dataclass(frozen=True)
class Near(Structure):
    """Positive numbers within a factor of three of one; below one if that one is."""

    value: float

    def draw(self, rng: np.random.Generator, shape: Shape) -> np.ndarray:
        shift = rng.uniform(-np.log(3), np.log(3), shape)
        if self.value < 1:
            odds = self.value / (1 - self.value) * np.exp(shift)
            return odds / (1 + odds)
        return self.value * np.exp(shift)

    def project(self, x: np.ndarray) -> np.ndarray:
        high = min(3 * self.value, (1 + self.value) / 2) if self.value < 1 else 3 * self.value
        return np.clip(np.abs(x), self.value / 3, high)

    def beyond(self, rng: np.random.Generator, x: np.ndarray) -> Deviations:
        del rng
        yield "a negative number", -x


@dataclass(frozen=True)
class UnitInterval(Structure):
    """Numbers between zero and one, both excluded by a margin; drawn with normal log-odds."""

    center: float = 0.0
    spread: float = 1.5
    margin: float = 2.0**-22

    def draw(self, rng: np.random.Generator, shape: Shape) -> np.ndarray:
        odds = np.exp(self.center + self.spread * rng.standard_normal(shape))
        return self.project(odds / (1 + odds))

    def project(self, x: np.ndarray) -> np.ndarray:
        return np.clip(np.abs(x), self.margin, 1 - self.margin)


@dataclass(frozen=True)
class Observed(Structure):
    """The values seen, drawn as often as seen; in every row at least one `present`, where that is given."""

    values: tuple[Any, ...]
    present: Any = None

    def draw(self, rng: np.random.Generator, shape: Shape) -> np.ndarray:
        x = rng.choice(np.asarray(self.values), shape)
        return x if self.present is None else _present(rng, x, self.present)

    def project(self, x: np.ndarray) -> np.ndarray:
        known = np.unique(np.asarray(self.values))
        with np.errstate(invalid="ignore"):
            nearest = np.abs(np.asarray(x)[..., None] - known).argmin(-1)
        return known[nearest] if self.present is None else _present(None, known[nearest], self.present)


@dataclass(frozen=True)
class Coins(Structure):
    """True and False; in every row at least one True, where `present`."""

    present: bool = False

    def draw(self, rng: np.random.Generator, shape: Shape) -> np.ndarray:
        x = rng.random(shape) < 0.5
        return _present(rng, x, True) if self.present else x

    def project(self, x: np.ndarray) -> np.ndarray:
        x = np.array(x, bool)
        return _present(None, x, True) if self.present else x


@dataclass(frozen=True)
class Permutations(Structure):
    """Rows that hold each of 0 .. n-1 once."""

    def draw(self, rng: np.random.Generator, shape: Shape) -> np.ndarray:
        return rng.random(shape).argsort(-1)

    def project(self, x: np.ndarray) -> np.ndarray:
        return x.argsort(-1, kind="stable").argsort(-1, kind="stable").astype(x.dtype)

    def beyond(self, rng: np.random.Generator, x: np.ndarray) -> Deviations:
        for _ in range(2):
            yield "repeated numbers", rng.choice(x.ravel(), x.shape)
        yield "one number only", np.full_like(x, x.flat[-1])


@dataclass(frozen=True)
class Keys(Structure):
    """Random keys of the kind of one."""

    key: Any

    def draw(self, rng: np.random.Generator, shape: Shape) -> Any:
        if not jax.dtypes.issubdtype(self.key.dtype, jax.dtypes.prng_key):
            return rng.integers(0, 2**32, shape, np.uint32)
        width = jax.random.key_data(self.key).shape[-1]
        data = rng.integers(0, 2**32, (*shape, width), np.uint32)
        return jax.random.wrap_key_data(jnp.asarray(data), impl=jax.random.key_impl(self.key))

    def project(self, x: Any) -> Any:
        return x

    def contains(self, x: Any) -> bool:
        return x.dtype == self.key.dtype


def normal(rng: np.random.Generator, shape: Shape, is_complex: bool) -> np.ndarray:
    """Standard normal numbers."""
    noise = rng.standard_normal(shape)
    return (noise + 1j * rng.standard_normal(shape)) / np.sqrt(2) if is_complex else noise


def some(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    """True in about a third of the places, and in at least one."""
    chosen = rng.random(shape) < 1 / 3
    if chosen.size:
        chosen.flat[rng.integers(chosen.size)] = True
    return chosen


def _present(rng: np.random.Generator | None, x: np.ndarray, value: Any) -> np.ndarray:
    """`x` with a value put somewhere into each row that lacks it; first without `rng`."""
    if x.ndim == 0 or x.shape[-1] < 2:
        return x
    rows = x.reshape(-1, x.shape[-1])
    lacking = np.flatnonzero(~(rows == value).any(-1))
    rows[lacking, rng.integers(0, x.shape[-1], lacking.size) if rng else 0] = value
    return rows.reshape(x.shape)
