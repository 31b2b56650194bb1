"""Ways to change an array into a special one: zeros, ties, huge and tiny elements, thresholds."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from ._structures import some

__all__ = [
    "DENORMALS",
    "LADDER",
    "SATURATION",
    "TIES",
    "ZEROS",
    "Change",
    "beside",
    "diagonally",
    "exactly",
]


class Change(NamedTuple):
    """A special array made of an ordinary one.

    Attributes:
        what: in words, to follow the leaf's name: `"x with a zero"`.
        make: `(rng, x) -> array` of the same shape; `x` itself where it does not apply.
        ordinary: whether its magnitudes are those of `x`.
    """

    what: str
    make: Callable[[np.random.Generator, np.ndarray], np.ndarray]
    ordinary: bool = True


def _times(factor: float) -> Change:
    return Change(f"times {factor:g}", lambda _, x: np.where(np.isfinite(x), x * factor, x), ordinary=False)


def _saturated(size: float) -> Change:
    def make(rng: np.random.Generator, x: np.ndarray) -> np.ndarray:
        signs = np.where(rng.random(x.shape) < 0.5, -1.0, 1.0)
        return np.where(some(rng, x.shape), size * signs, x)

    return Change(f"with elements of ±{size:g}", make, ordinary=False)


def _one_zero(rng: np.random.Generator, x: np.ndarray) -> np.ndarray:
    return _replaced(x, int(rng.integers(x.size)), 0.0) if x.size else x


def _zero_row(rng: np.random.Generator, x: np.ndarray) -> np.ndarray:
    return _row(x, int(rng.integers(x.shape[0])), 0.0) if x.ndim > 1 and x.shape[0] else x


def _tied(smallest: bool) -> Callable[[np.random.Generator, np.ndarray], np.ndarray]:
    def make(rng: np.random.Generator, x: np.ndarray) -> np.ndarray:
        if x.ndim == 0 or x.shape[-1] < 2 or not x.size:
            return x
        extreme = (x.real.argmin if smallest else x.real.argmax)(-1)[..., None]
        other = (extreme + rng.integers(1, x.shape[-1])) % x.shape[-1]
        tied = x.copy()
        np.put_along_axis(tied, other, np.take_along_axis(x, extreme, -1), -1)
        return tied

    return make


def _equal_rows(rng: np.random.Generator, x: np.ndarray) -> np.ndarray:
    if x.ndim < 2 or x.shape[0] < 2:
        return x
    one, other = rng.permutation(x.shape[0])[:2]
    return _row(x, one, x[other])


def _all_equal(rng: np.random.Generator, x: np.ndarray) -> np.ndarray:
    return np.full_like(x, x.flat[rng.integers(x.size)]) if x.size > 1 else x


def _denormal(rng: np.random.Generator, x: np.ndarray) -> np.ndarray:
    # Below float32's smallest normal number, above its smallest at all.
    signs = np.where(rng.random(x.shape) < 0.5, -1.0, 1.0)
    return np.where(some(rng, x.shape), 2.0**-130 * signs, x)


LADDER = tuple(_times(factor) for factor in (1e-4, 1e4, 1e-2, 10.0, 1e2))
SATURATION = tuple(_saturated(size) for size in (20.0, 100.0, 1000.0, 40.0))
ZEROS = (
    Change("with a zero", _one_zero),
    Change("all zeros", lambda _, x: np.zeros_like(x)),
    Change("with a row of zeros", _zero_row),
)
TIES = (
    Change("with a tie at the largest of each row", _tied(smallest=False)),
    Change("all equal", _all_equal),
    Change("with two equal rows", _equal_rows),
    Change("with a tie at the smallest of each row", _tied(smallest=True)),
)
DENORMALS = Change("with subnormal elements", _denormal, ordinary=False)


def exactly(threshold: float) -> Change:
    """Some elements equal to plus or minus a threshold."""
    return Change(f"with elements of ±{threshold:.6g}", lambda rng, x: _with(rng, x, (threshold, -threshold)))


def beside(threshold: float) -> Change:
    """Some elements just below and just above plus or minus a threshold."""
    near = (threshold * (1 - 1e-3), threshold * (1 + 1e-3))
    return Change(
        f"with elements next to ±{threshold:.6g}",
        lambda rng, x: _with(rng, x, (near[0], near[1], -near[0], -near[1])),
    )


def diagonally(changes: tuple[Change, ...], places: list[Any], at_most: int) -> Iterator[tuple[Change, Any]]:
    """Pairs of a change and a place, such that few of them already have most changes and most places."""
    pairs = (
        (changes[(round_ + i) % len(changes)], place)
        for round_ in range(len(changes))
        for i, place in enumerate(places)
    )
    for _, pair in zip(range(at_most), pairs, strict=False):
        yield pair


def _with(rng: np.random.Generator, x: np.ndarray, values: tuple[float, ...]) -> np.ndarray:
    """`x` with some elements replaced by each of `values` in turn."""
    places = rng.permutation(x.size)[: max(len(values), x.size // 3)]
    changed = x.copy()
    for i, place in enumerate(places):
        changed.flat[place] = values[i % len(values)]
    return changed


def _replaced(x: np.ndarray, at: int, value: float) -> np.ndarray:
    changed = x.copy()
    changed.flat[at] = value
    return changed


def _row(x: np.ndarray, at: int, value: Any) -> np.ndarray:
    changed = x.copy()
    changed[at] = value
    return changed
