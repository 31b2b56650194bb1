"""How windows slide, from the options that users give: a number for every spatial axis, or one each."""

from collections.abc import Sequence
from dataclasses import dataclass

import jax
from jax import numpy as jnp

__all__ = ["Like", "Numbers", "Padding", "extent", "lax_padding", "output_length", "padding_of", "per_axis"]

Numbers = int | tuple[int, ...] | None
Padding = str | int | tuple[tuple[int, int], ...] | None


@jax.tree_util.register_static
@dataclass(frozen=True)
class Like:
    """The shape and dtype of an array: all that a linear rule saves of it. A pytree without leaves."""

    shape: tuple[int, ...]
    dtype: jnp.dtype

    @classmethod
    def of(cls, x: jax.Array) -> "Like":
        """Those of x."""
        return cls(x.shape, x.dtype)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)


def per_axis(rule: str, option: str, value: Numbers, rank: int, default: int = 1) -> tuple[int, ...]:
    """One whole number above zero for each of `rank` spatial axes.

    Raises:
        ValueError: for a number below one, or another number of them.
    """
    numbers = (default if value is None else value,) * rank if not isinstance(value, tuple) else value
    if len(numbers) != rank:
        raise ValueError(
            f"{rule}: `{option}` has {len(numbers)} entries, {value!r}, for {rank} spatial axes; give one "
            "number for all, or one each."
        )
    if any(not isinstance(n, int) or isinstance(n, bool) or n < 1 for n in numbers):
        raise ValueError(f"{rule}: `{option}` must be whole numbers above zero, got {value!r}.")
    return numbers


def extent(taps: int, dilation: int) -> int:
    """Number of places from the first tap to the last, both counted."""
    return dilation * (taps - 1) + 1 if taps else 0


def padding_of(
    rule: str, padding: Padding, lengths: Sequence[int], extents: Sequence[int], strides: Sequence[int]
) -> tuple[tuple[int, int], ...]:
    """Places added in front of and behind each spatial axis.

    None or "VALID" adds none, "SAME" as many as make the output ⌈n/s⌉ long (the odd one behind), "CAUSAL" all
    of them in front, a number so many on both sides; pairs are (front, behind) of each axis.

    Raises:
        ValueError: for anything else.
    """
    rank = len(lengths)
    if padding is None or padding == "VALID":
        return ((0, 0),) * rank
    if padding == "CAUSAL":
        return tuple((k - 1, 0) for k in extents)
    if padding == "SAME":
        total = [
            max((-(-n // s) - 1) * s + k - n, 0) for n, k, s in zip(lengths, extents, strides, strict=True)
        ]
        return tuple((t // 2, t - t // 2) for t in total)
    if isinstance(padding, int) and not isinstance(padding, bool):
        return ((padding, padding),) * rank
    pairs = padding if isinstance(padding, tuple) else ()
    if len(pairs) != rank or any(not isinstance(p, tuple) or len(p) != 2 for p in pairs):
        raise ValueError(
            f"{rule}: `padding` must be None, 'VALID', 'SAME', 'CAUSAL', a number, or a pair (front, behind) "
            f"for each of {rank} spatial axes, got {padding!r}."
        )
    return pairs


def lax_padding(padding: Padding, rank: int) -> str | list[tuple[int, int]]:
    """The same as XLA's functions take it, "CAUSAL" excepted: for references."""
    if padding is None:
        return "VALID"
    if isinstance(padding, int):
        return [(padding, padding)] * rank
    return padding if isinstance(padding, str) else list(padding)


def output_length(rule: str, length: int, pads: tuple[int, int], extent: int, stride: int) -> int:
    """How often a window fits.

    Raises:
        ValueError: if it never does.
    """
    room = length + sum(pads) - extent
    if room < 0 or extent < 1:
        raise ValueError(
            f"{rule}: a window over {extent} places does not fit into an axis of {length} with padding "
            f"{pads}; pad more, or take a smaller window."
        )
    return room // stride + 1
