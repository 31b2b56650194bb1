"""Values that only losses take."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ...domains import Booleans

__all__ = ["Kept", "RightPadded"]


@dataclass(frozen=True)
class RightPadded(Booleans):
    """What of a row (the last axis) is padding: the end of it, but none of its first `least` places."""

    least: int = 0

    def sample(
        self, rng: np.random.Generator, shape: tuple[int, ...], sizes: Mapping[str, int]
    ) -> np.ndarray:
        """All lengths alike."""
        del sizes
        length = shape[-1]
        kept = rng.integers(min(self.least, length), length + 1, shape[:-1])
        return np.arange(length) >= kept[..., None]


@dataclass(frozen=True)
class Kept(Booleans):
    """What of a row (the last axis) is kept: `least` places at its start, of the others each or not."""

    least: int = 0

    def sample(
        self, rng: np.random.Generator, shape: tuple[int, ...], sizes: Mapping[str, int]
    ) -> np.ndarray:
        """Fair coins after the start."""
        coins = super().sample(rng, shape, sizes)
        return coins | (np.arange(shape[-1]) < self.least)
