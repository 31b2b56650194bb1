"""Windows along one axis, read tap by tap; and the transpose of that reading.

A box over several axes is a window over windows: sums and maxima over it are taken one axis after the other,
which costs k + l reads a window of k × l, not k l.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import jax
import numpy as np
from jax import lax
from jax import numpy as jnp
from jaxtyping import Array, Float

from ._options import Like, Numbers, Padding, output_length, padding_of, per_axis

__all__ = ["Windows", "first_maximum", "spread_to_maximum", "windows_of"]


@dataclass(frozen=True)
class Windows:
    """Windows of `taps` entries, a step of `stride` apart: tap j of window t is entry s t + j - l.

    Attributes:
        axis: the axis that they slide along.
        length: of that axis.
        taps: entries in a window.
        stride: s.
        low: l, places in front of the first entry.
        outputs: number of windows.
    """

    axis: int
    length: int
    taps: int
    stride: int
    low: int
    outputs: int

    def read(self, x: Float[Array, "*shape"], fill: float) -> Iterator[Float[Array, "*windows"]]:
        """x_{s t + j - l} for all windows t, tap after tap; `fill` outside."""
        for tap in range(self.taps):
            first, last = self._reach(tap)
            padded = _padded(x, fill, self.axis, -first, last + 1 - self.length)
            yield lax.slice_in_dim(padded, 0, None, self.stride, self.axis)

    def spread(self, tap: int, ct: Float[Array, "*windows"]) -> Float[Array, "*shape"]:
        """What goes back to x from one tap of all windows: to entry s t + j - l."""
        first, last = self._reach(tap)
        return _padded(ct, 0, self.axis, first, self.length - 1 - last, self.stride - 1)

    def inside(self) -> np.ndarray:
        """How many entries of each window there are in x."""
        first = self.stride * np.arange(self.outputs) - self.low
        return np.minimum(first + self.taps, self.length) - np.maximum(first, 0)

    def _reach(self, tap: int) -> tuple[int, int]:
        """The entries that are this tap of the first window, and of the last."""
        first = tap - self.low
        return first, first + self.stride * (self.outputs - 1)


def windows_of(
    rule: str,
    x: Float[Array, "batch *inputs channels"] | Like,
    window: Numbers,
    strides: Numbers,
    padding: Padding,
) -> list[Windows]:
    """The windows along each spatial axis of x; by default they touch: strides are the window.

    Raises:
        ValueError: for options that do not fit x, or windows with nothing but padding.
    """
    inputs = x.shape[1:-1]
    taps = per_axis(rule, "window", window, len(inputs), default=2)
    steps = taps if strides is None else per_axis(rule, "strides", strides, len(inputs))
    pads = padding_of(rule, padding, inputs, taps, steps)
    found = []
    for axis, (n, k, s, pad) in enumerate(zip(inputs, taps, steps, pads, strict=True), 1):
        windows = Windows(axis, n, k, s, pad[0], output_length(rule, n, pad, k, s))
        if (windows.inside() < 1).any():
            raise ValueError(
                f"{rule}: with padding {pad} a window of {k} over an axis of {n} sees nothing but padding; "
                "pad less than the window."
            )
        found.append(windows)
    return found


def first_maximum(
    x: Float[Array, "*shape"], windows: Windows
) -> tuple[Float[Array, "*windows"], Float[Array, "*windows"]]:
    """The maximum of every window, and which tap it is: the first of equal ones; a NaN before all others."""
    taps = windows.read(x, -jnp.inf)
    best = next(taps)
    which = jnp.zeros(best.shape, jnp.int8 if windows.taps < 128 else jnp.int32)
    for tap, value in enumerate(taps, 1):
        better = (value > best) | (jnp.isnan(value) & ~jnp.isnan(best))
        best, which = jnp.where(better, value, best), jnp.where(better, tap, which)
    return best, which


def spread_to_maximum(ct: Float[Array, "*windows"], which: jax.Array, windows: Windows) -> jax.Array:
    """The transpose of picking the maximum: every window's cotangent goes to its tap."""
    return sum(
        (windows.spread(tap, jnp.where(which == tap, ct, 0)) for tap in range(windows.taps)),
        start=jnp.zeros((), ct.dtype),
    )


def _padded(x: jax.Array, fill: float, axis: int, before: int, behind: int, between: int = 0) -> jax.Array:
    """x with so many places added (or, negative, taken away) along an axis."""
    config = [(0, 0, 0)] * x.ndim
    config[axis] = (before, behind, between)
    return lax.pad(x, jnp.asarray(fill, x.dtype), config)
