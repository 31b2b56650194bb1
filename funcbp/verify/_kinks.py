"""Kinks and ties: which gradients are right where there is more than one.

At a kink a function has no derivative but a Clarke subdifferential: the convex hull of the gradients around
the point. Each of its elements is a convention (relu′(0) may be 0, ½ or 1; a tie of a maximum may be split or
given to one side), and what lies outside of it is wrong (a tie counted twice, relu′(0) = -½). The hull is
known by samples: every tie in the program taken one way and another.

Clarke, "Optimization and Nonsmooth Analysis" (1983), chapter 2.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import jax
import numpy as np
from jax import numpy as jnp

from .._compat import enable_x64, quick_jit
from ._jitter import AMPLITUDE, KINDS, gradients_around

__all__ = ["Kink", "Samples", "around", "classify", "examine", "hull_distance", "in_hull"]

Kind = Literal["smooth", "inside", "outside", "undecided", "undefined", "nan"]

_FAR, _NEAR = 2.0**-30, 2.0**-36  # how far inputs are moved: a derivative that exists is the same at both
_STABLE = 1e-3
_NOISE = 1e-5  # so close to a removable singularity, sin(x) / x loses digits
_RELATIVE = 1e-9  # to which a point of the hull is found
_PAIRS = 4  # samples with whole arrays moved one way; and samples with the inputs moved
_CHECKED = 12  # samples that must lie in the hull of the others before it is trusted
_ROUNDS = 3


@dataclass(frozen=True)
class Samples:
    """Gradients around a point: leaves of NumPy arrays, float64 or complex128.

    Attributes:
        own: autodiff's own value at the point.
        left: with every tie decided as if its operand were a little smaller.
        right: with every tie decided as if it were a little larger.
        decided: with ties decided at random; a leading axis of samples.
        moved: at inputs moved by 2⁻³⁰ of themselves; a leading axis.
        closer: at inputs moved the same way by 2⁻³⁶; a leading axis.
        scale: the size of the cotangent, 1 at least.
    """

    own: tuple[np.ndarray, ...]
    left: tuple[np.ndarray, ...]
    right: tuple[np.ndarray, ...]
    decided: tuple[np.ndarray, ...]
    moved: tuple[np.ndarray, ...]
    closer: tuple[np.ndarray, ...]
    scale: float

    @cached_property
    def _defined(self) -> tuple[np.ndarray, np.ndarray]:
        own, decided = _flat(self.own), _rows(self.decided)
        far, near = _rows(self.moved), _rows(self.closer)
        sides = np.stack([_flat(self.left), _flat(self.right)])
        with np.errstate(all="ignore"):
            size = np.maximum(np.maximum(np.abs(far), np.abs(near)), self.scale)
            stable = (np.abs(far - near) <= _STABLE * size).all(axis=0)
            far = np.where(np.abs(far - own) <= _NOISE * size, own, far)
        doubtful = ~np.isfinite(np.vstack([own, sides, decided])).all(axis=0)
        undefined = doubtful & ~stable
        points = np.vstack([own, sides, decided, *([far] if doubtful.any() else [])])
        usable = (np.isfinite(points) | undefined).all(axis=1)
        return points[usable], undefined

    @property
    def points(self) -> np.ndarray:
        """Gradients whose hull is accepted: one a row, all leaves in one line, real parts before imaginary
        ones in each leaf."""
        return self._defined[0]

    @property
    def undefined(self) -> np.ndarray:
        """Where no derivative exists, not even one-sided: gradients around are not finite, or grow without
        bound."""
        return self._defined[1]

    def joined(self, other: "Samples") -> "Samples":
        """With the random decisions of more samples at the same point."""
        more = [np.concatenate(pair) for pair in zip(self.decided, other.decided, strict=True)]
        return Samples(self.own, self.left, self.right, tuple(more), self.moved, self.closer, self.scale)


@dataclass(frozen=True)
class Kink:
    """What a gradient is at a point that may be a kink.

    Attributes:
        kind: `"smooth"`: no kink here; `"inside"`: right, by a convention; `"outside"`: wrong at a tie or
            kink (or elsewhere, next to one); `"undecided"`: too many kinks for the samples; `"undefined"`: no
            derivative exists at some elements, and all others are right; `"nan"`: not finite where the true
            derivative is.
        convention: which element of the subdifferential, in words; empty unless inside.
        distance: from the hull, in units of the tolerance, of the worst element.
        message: all of it in a sentence.
        kinked: where the gradients around differ: for each leaf, boolean.
        undefined: where no derivative exists: for each leaf, boolean.
        wrong: where the gradient is worst: for each leaf, boolean; empty if it is right.
    """

    kind: Kind
    convention: str
    distance: float
    message: str
    kinked: tuple[np.ndarray, ...]
    undefined: tuple[np.ndarray, ...]
    wrong: tuple[np.ndarray, ...] = ()


def around(
    pull: Callable[..., Any],
    values: Sequence[Any],
    cotangent: Any,
    seed: int = 0,
    count: int = 16,
    amplitude: float = AMPLITUDE,
) -> Samples:
    """Gradients in the neighborhood of a point, in float64.

    Args:
        pull: `(values, cotangent) -> leaves`, the gradient by autodiff. Traceable; compiled once for the same
            function and shapes.
        values: arrays; floating ones in float64.
        cotangent: pytree of arrays, held fixed.
        seed: of the random decisions.
        count: how many of them, each also with all decisions the other way.
        amplitude: by how much of the sum of its terms an intermediate may be off and still count as a tie.
            The eps of the dtype in which the gradient under test is computed tells whose rounding may
            decide.
    """
    rows, draws, factors = _plan(count)
    leaves = [x for x in jax.tree.leaves(cotangent) if jnp.issubdtype(jnp.result_type(x), jnp.inexact)]
    scale = max([1.0, *(float(np.max(np.abs(x), initial=0.0)) for x in leaves)])
    with enable_x64(), jax.default_matmul_precision("highest"), np.errstate(all="ignore"):
        found = _compiled(pull)(seed, rows, draws, factors, amplitude, tuple(values), cotangent)
        found = [np.asarray(x) for x in jax.device_get(found)]
    *single, first, last = (tuple(x[i] for x in found) for i in range(3)), 3, 3 + 2 * (count + _PAIRS)
    own, left, right = single[0]
    half = last + _PAIRS
    decided, moved, closer = (
        tuple(x[a:b] for x in found) for a, b in ((first, last), (last, half), (half, half + _PAIRS))
    )
    return Samples(own, left, right, decided, moved, closer, scale)


@functools.lru_cache(maxsize=32)
def _compiled(pull: Callable[..., Any]) -> Callable[..., Any]:
    return quick_jit(gradients_around(pull))


def _plan(count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows for `gradients_around`: own, left, right, decided (both ways), moved, closer."""
    plan: list[tuple[dict[str, float], int, float]] = [({}, -1, 0.0)]
    plan += [({"arrays": 1.0, "strong": 1.0}, -1, side) for side in (-1.0, 1.0)]
    decisions: list[tuple[dict[str, float], int]] = [({"ramp": 1.0, "strong": 1.0}, 0)]
    decisions += [({"arrays": 1.0, "strong": 1.0}, i) for i in range(1, _PAIRS)]
    decisions += [({"elements": 1.0, "strong": 1.0}, _PAIRS + i) for i in range(count)]
    plan += [(row, draw, side) for row, draw in decisions for side in (1.0, -1.0)]
    for distance in (_FAR, _NEAR):
        plan += [({"arrays": 1.0, "strong": 1.0, "moved": distance}, -1, side) for side in (1.0, -1.0)]
        plan += [({"elements": 1.0, "strong": 1.0, "moved": distance}, 1, side) for side in (1.0, -1.0)]
    rows = np.array([[row.get(kind, 0.0) for kind in KINDS] for row, _, _ in plan])
    return rows, np.array([draw for _, draw, _ in plan]), np.array([side for _, _, side in plan])


def hull_distance(mine: np.ndarray, points: np.ndarray, tolerance: np.ndarray) -> np.ndarray:
    """How far each element is from the nearest point of a convex hull, in units of its tolerance.

    The nearest point is that of nonnegative least squares over the elements in which the points differ, each
    measured by how much they do.

    Args:
        mine: shape (n,).
        points: shape (k, n), k ≥ 1.
        tolerance: shape (n,), for each element.

    Returns:
        Shape (n,).
    """
    points = np.unique(points, axis=0)
    spread = points.max(axis=0) - points.min(axis=0)
    allowed = np.maximum(tolerance, np.finfo(np.float64).tiny) + _RELATIVE * spread
    moving = spread > allowed
    nearest = points.mean(axis=0)
    if moving.any():
        columns = (points[:, moving] / spread[moving]).T
        ones = np.sqrt(columns.shape[0]) * 8.0
        matrix = np.vstack([columns, np.full((1, len(points)), ones)])
        target = np.append(mine[moving] / spread[moving], ones)
        from scipy.optimize import nnls  # slow to import, and rarely needed

        weights, _ = nnls(matrix, target, maxiter=30 * len(points))
        nearest = weights / max(weights.sum(), 0.5) @ points
    with np.errstate(over="ignore"):
        return np.abs(mine - nearest) / allowed


def in_hull(mine: np.ndarray, points: np.ndarray, tolerance: np.ndarray) -> bool:
    """Whether a gradient is a convex combination of others, to within a tolerance for every element.

    Args:
        mine: shape (n,).
        points: shape (k, n).
        tolerance: shape (n,).

    >>> import numpy as np
    >>> tie = np.array([[1.0, 0.0], [0.0, 1.0]])
    >>> split, doubled = np.array([0.5, 0.5]), np.array([1.0, 1.0])
    >>> in_hull(split, tie, np.full(2, 1e-6)), in_hull(doubled, tie, np.full(2, 1e-6))
    (True, False)
    """
    return bool((hull_distance(mine, points, tolerance) <= 1).all())


def examine(
    pull: Callable[..., Any],
    values: Sequence[Any],
    cotangent: Any,
    mine: Sequence[Any],
    tolerance: Sequence[Any],
    seed: int = 0,
    amplitude: float = AMPLITUDE,
) -> Kink:
    """`classify` with as many samples as it takes, up to a limit; arguments as there and for `around`."""
    samples = around(pull, values, cotangent, seed, amplitude=amplitude)
    found = classify(mine, samples, tolerance)
    for again in range(1, _ROUNDS):
        if found.kind != "undecided":
            break
        samples = samples.joined(around(pull, values, cotangent, seed + again, amplitude=amplitude))
        found = classify(mine, samples, tolerance)
    return found


def classify(mine: Sequence[Any], samples: Samples, tolerance: Sequence[Any]) -> Kink:
    """Whether a gradient is right at a point, by the gradients around it.

    Args:
        mine: the gradient: one array for each leaf.
        samples: from `around`.
        tolerance: the error that counts as rounding: one array for each leaf, broadcast to it.
    """
    limits = [np.broadcast_to(np.abs(t), np.shape(x)) for t, x in zip(tolerance, samples.own, strict=True)]
    limits = [t + 1j * t if np.iscomplexobj(x) else t for t, x in zip(limits, samples.own, strict=True)]
    typed = [np.asarray(x).astype(own.dtype) for x, own in zip(mine, samples.own, strict=True)]
    return _Question(_flat(typed), _flat(limits), samples).answer()


@dataclass(frozen=True)
class _Question:
    """A gradient and the gradients around, all leaves in one line."""

    mine: np.ndarray
    tolerance: np.ndarray
    samples: Samples

    @cached_property
    def kinked(self) -> np.ndarray:
        points = self.samples.points
        if not len(points):
            return np.zeros(self.mine.shape, bool)
        with np.errstate(invalid="ignore"):
            spread = np.where(self.samples.undefined, 0.0, np.ptp(points, axis=0))
        return spread > self.tolerance + _RELATIVE * np.abs(points).max(axis=0)

    def answer(self) -> Kink:
        undefined, points = self.samples.undefined, self.samples.points
        if undefined.all() or not len(points):
            return self._kink("undefined", message="No derivative exists here.")
        absent = ~np.isfinite(self.mine)
        wrong = absent & ~undefined & ~self.kinked
        if wrong.any():
            return self._kink("nan", message="Not finite where the true derivative is finite.", wrong=wrong)
        known = ~undefined & ~absent
        distance = np.zeros(self.mine.shape)
        with np.errstate(invalid="ignore"):
            distance[known] = hull_distance(self.mine[known], points[:, known], self.tolerance[known])
        farthest = float(distance.max(initial=0.0))
        if not self.kinked.any() and not undefined.any():
            return self._kink("smooth", farthest, "No kink here: the gradients around agree.")
        if farthest > 1:
            return self._outside(known, distance, farthest)
        if undefined.any() or absent.any():
            what = "Not finite" if absent.any() else "Finite"
            return self._kink("undefined", farthest, f"{what} where no derivative exists.")
        convention = self._convention()
        message = f"At a kink, where every value between the gradients around is right: this is {convention}."
        return self._kink("inside", farthest, message, convention)

    def _outside(self, known: np.ndarray, distance: np.ndarray, farthest: float) -> Kink:
        points, mine = self.samples.points[:, known], self.mine[known]
        margin = self.tolerance[known] + _RELATIVE * np.abs(points).max(axis=0)
        between = (mine >= points.min(axis=0) - margin) & (mine <= points.max(axis=0) + margin)
        fixed = ~self.kinked[known]
        plausible = (between | fixed & (distance[known] <= 1)).all() and _in_plane(mine, points, margin)
        if plausible and not _covered(points, margin):
            message = "More kinks meet here than samples can tell apart; every element is within their range."
            return self._kink("undecided", farthest, message)
        message = "Not a convex combination of the gradients around: no convention at a kink explains it."
        return self._kink("outside", farthest, message, wrong=distance > 1)

    def _convention(self) -> str:
        sides = _flat(self.samples.left), _flat(self.samples.right)
        named = {
            "autodiff's own value": _flat(self.samples.own),
            "the gradient on the left": sides[0],
            "the gradient on the right": sides[1],
            "halfway between left and right": (sides[0] + sides[1]) / 2,
        }
        for name, value in named.items():
            with np.errstate(invalid="ignore"):
                near = np.abs(self.mine - value) <= self.tolerance + _RELATIVE * np.abs(value)
            if near[self.kinked].all():
                return name
        return "a value in between"

    def _kink(
        self,
        kind: Kind,
        distance: float = 0.0,
        message: str = "",
        convention: str = "",
        wrong: np.ndarray | None = None,
    ) -> Kink:
        like = self.samples.own
        masks = _leaves(self.kinked, like), _leaves(self.samples.undefined, like)
        return Kink(
            kind, convention, distance, message, *masks, () if wrong is None else _leaves(wrong, like)
        )


def _in_plane(mine: np.ndarray, points: np.ndarray, tolerance: np.ndarray) -> bool:
    """Whether a gradient may lie in the plane that the hull spans: fewer samples tell that than the hull.

    Each tie of a maximum has a sum that every convention keeps, however many ties there are.
    """
    spread = np.ptp(points, axis=0)
    moving = spread > tolerance
    center = points[:, moving].mean(axis=0)
    _, sizes, directions = np.linalg.svd((points[:, moving] - center) / spread[moving], full_matrices=False)
    plane = directions[sizes > _RELATIVE * sizes.max(initial=0.0)]
    # Opposite samples come in pairs: half of them are independent, and half of those may be needed.
    if 4 * len(plane) > len(np.unique(points, axis=0)):
        return True
    offset = (mine[moving] - center) / spread[moving]
    left = offset - plane.T @ (plane @ offset)
    return bool((np.abs(left) <= len(plane) * (tolerance[moving] / spread[moving] + _RELATIVE)).all())


def _covered(points: np.ndarray, tolerance: np.ndarray) -> bool:
    """Whether samples lie in the hull of the others: then there are enough of them."""
    first, second = points[::2], points[1::2][-_CHECKED:]
    return all(in_hull(x, first, tolerance) for x in second)


def _flat(leaves: Sequence[np.ndarray]) -> np.ndarray:
    return _rows([np.asarray(x)[None] for x in leaves])[0]


def _rows(leaves: Sequence[np.ndarray]) -> np.ndarray:
    parts = []
    for leaf in leaves:
        flat = np.asarray(leaf).reshape(len(leaf), -1)
        parts += [flat.real, flat.imag] if np.iscomplexobj(flat) else [flat]
    return np.concatenate(parts, axis=1, dtype=np.float64)


def _leaves(mask: np.ndarray, like: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
    found, start = [], 0
    for leaf in like:
        parts = 1 + np.iscomplexobj(leaf)
        part = mask[start : start + parts * leaf.size].reshape(parts, *leaf.shape)
        found.append(part.any(axis=0))
        start += parts * leaf.size
    return tuple(found)
