"""Values that only losses take."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ...domains import Booleans

__all__ = ["RightPadded"]


@dataclass(frozen=True)
class RightPadded(Booleans):
    """Which places at the end of a row (the last axis) are padding; at least `least` at its start are not."""

    least: int = 0

    def sample(
        self, rng: np.random.Generator, shape: tuple[int, ...], sizes: Mapping[str, int]
    ) -> np.ndarray:
        """Lengths that are equally likely."""
        del sizes
        length = shape[-1]
        kept = rng.integers(min(self.least, length), length + 1, shape[:-1])
        return np.arange(length) >= kept[..., None]
