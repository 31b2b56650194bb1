"""Where to look: the example, fresh values like it, and special values where gradients are often wrong.

All probes have the example's shapes, so that they are evaluated together under one compilation. What an
assumption of `infer` rules out is projected back to what it allows; a few probes lie outside on purpose, and
say so.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import numpy as np
from jax import numpy as jnp

from ._breakpoints import special_labels, thresholds
from ._cotangents import draw_cotangent, one_hot_cotangent, widened
from ._deviations import (
    DENORMALS,
    LADDER,
    SATURATION,
    TIES,
    ZEROS,
    Change,
    beside,
    diagonally,
    exactly,
)
from ._inference import Assumption
from ._problem import Probe, Problem
from ._structured_rows import OneHot, SumToOne
from ._structures import Observed, Reals

__all__ = ["probes"]

_ELEMENTS = 2**24  # in all probes together: large arguments get fewer
_FEWEST = 16
_LARGE = 10.0  # what is larger is no ordinary threshold
_HALF_WIDTH = 8.0  # of the uniform values that reach beyond the example's range


def probes(
    problem: Problem, assumptions: Sequence[Assumption], out_spec: Any, seed: int = 0, samples: int = 8
) -> list[Probe]:
    """The points to evaluate at, the most important first.

    Args:
        problem: the question, with its example.
        assumptions: what its leaves may be, from `infer`.
        out_spec: tree of the reference's output in float64, from `jax.eval_shape`.
        seed: of everything random.
        samples: number of fresh random points.
    """
    search = _Search(problem, tuple(assumptions), out_spec, np.random.default_rng(seed))
    for stage in _stages(search, samples):
        if not search.full:
            stage()
    if problem.kind == "vjp":
        search.cotangents()
    return search.found


def _stages(search: "_Search", samples: int) -> list[Callable[[], None]]:
    spread = (ZEROS[1], TIES[0], TIES[1], ZEROS[2], TIES[2])
    return [
        lambda: search.add("the example", search.example),
        lambda: search.fresh(samples),
        lambda: search.everywhere(LADDER),
        lambda: search.outside(per_leaf=1, at_most=6),
        lambda: search.each(ZEROS, 6),
        lambda: search.each(TIES, 6),
        lambda: search.everywhere(spread),
        lambda: search.equal_leaves(3),
        lambda: search.at_thresholds(6),
        lambda: search.asked_for(3),
        lambda: search.choices(10),
        lambda: search.everywhere(SATURATION),
        lambda: search.each(SATURATION, 6),
        lambda: search.each(LADDER, 8),
        lambda: search.everywhere((DENORMALS,)),
        lambda: search.outside(per_leaf=3, at_most=8),
    ]


class _Search:
    """Collects probes; knows which values each leaf may have."""

    def __init__(
        self, problem: Problem, assumptions: tuple[Assumption, ...], out_spec: Any, rng: np.random.Generator
    ) -> None:
        self.problem, self.assumptions, self.out_spec, self.rng = problem, assumptions, out_spec, rng
        self.found: list[Probe] = []
        self.example = tuple(widened(leaf.value, leaf) for leaf in problem.leaves)
        moving = [i for i, leaf in enumerate(problem.leaves) if leaf.differentiable]
        self.moving = sorted(moving, key=lambda i: not problem.leaves[i].wrt)
        self._known: set[bytes] = set()
        self._turn = 0
        size = sum(np.size(value) for value in self.example)
        self._most = max(_FEWEST, _ELEMENTS // max(size, 1))

    def add(self, label: str, values: Iterable[Any], ordinary: bool = True, inside: bool = True) -> None:
        """Adds a probe, unless the same values are in the list."""
        values = tuple(values)
        mark = b"".join(_bytes(value) for value in values)
        if mark not in self._known and not self.full:
            self._known.add(mark)
            cotangent = draw_cotangent(self.problem.kind, self.out_spec, self.rng)
            self.found.append(Probe(label, values, cotangent, ordinary, inside))

    @property
    def full(self) -> bool:
        """Whether the arguments are so large that this is enough."""
        return len(self.found) >= self._most

    def draw(self) -> list[Any]:
        """Fresh values of all leaves, inside of what is assumed."""
        return [
            widened(assumption.domain.sample(self.rng, np.shape(leaf.value), {}), leaf)
            for assumption, leaf in zip(self.assumptions, self.problem.leaves, strict=True)
        ]

    def base(self) -> list[Any]:
        """Values to change something about: now the example's, now fresh ones."""
        self._turn += 1
        return list(self.example) if self._turn % 2 else self.draw()

    def fresh(self, samples: int) -> None:
        """Random values: of the example's scale, of scale one, and far reaching ones in turn."""
        draws: tuple[Callable[[tuple[int, ...]], np.ndarray], ...] = (
            self.rng.standard_normal,
            lambda shape: self.rng.uniform(-_HALF_WIDTH, _HALF_WIDTH, shape),
        )
        for k in range(samples):
            values = self.draw()
            if k % 2:
                for i in self._free():
                    values[i] = draws[k // 2 % 2](values[i].shape)
            wide = k % 4 == 3
            self.add(f"values within ±{_HALF_WIDTH:g}" if wide else "fresh values", values, not wide)

    def _free(self) -> list[int]:
        return [i for i in self.moving if isinstance(self.assumptions[i].domain, Reals)]

    def _changed(self, values: list[Any], i: int, change: Change) -> bool:
        """Changes one leaf in place, as far as the assumption allows; whether anything is left of it."""
        structure = self.assumptions[i].domain
        with np.errstate(all="ignore"):
            wanted = change.make(self.rng, values[i])
            new = widened(structure.project(wanted), self.problem.leaves[i])
        if not np.isfinite(new).all() and np.isfinite(values[i]).all():
            return False
        same = new.shape != values[i].shape or bool(np.array_equal(new, values[i]))
        if not same:
            values[i] = new
        return not same

    def everywhere(self, changes: Iterable[Change]) -> None:
        """A change of all numbers that cotangents are looked at of, and then of all numbers."""
        for change in changes:
            values = self.base()
            places = [i for i in self.moving if self.problem.leaves[i].wrt or self.rng.random() < 0.5]
            changed = [i for i in places if self._changed(values, i, change)]
            if changed:
                self.add(f"everything {change.what}", values, change.ordinary)

    def each(self, changes: tuple[Change, ...], at_most: int) -> None:
        """A change of one leaf at a time."""
        for change, i in diagonally(changes, self.moving, at_most):
            values = self.base()
            if self._changed(values, i, change):
                self.add(f"{self.problem.leaves[i].name} {change.what}", values, change.ordinary)

    def equal_leaves(self, at_most: int) -> None:
        """Two arguments that are elementwise equal."""
        shapes = [np.shape(value) for value in self.example]
        pairs = [(i, j) for i in self.moving for j in self.moving if i < j and shapes[i] == shapes[j] != ()]
        for i, j in pairs[:at_most]:
            values = self.draw()
            values[j] = widened(values[i], self.problem.leaves[j])
            if self.assumptions[j].domain.contains(values[j]):
                names = self.problem.leaves[i].name, self.problem.leaves[j].name
                self.add(f"{names[0]} equal to {names[1]}", values)

    def at_thresholds(self, at_most: int) -> None:
        """Elements on both sides of, and exactly at, what the two functions compare with."""
        found = [t for t in thresholds(self.problem) if t != 0]
        scalars = [
            abs(float(np.real(v))) for v in self.example if isinstance(v, np.ndarray) and v.shape == ()
        ]
        for threshold in list(dict.fromkeys([*found, *filter(None, scalars), 1.0]))[:at_most]:
            for change in (beside(threshold), exactly(threshold)):
                values = self.base()
                if any([self._changed(values, i, change) for i in self.moving if values[i].ndim]):
                    self.add(f"everything {change.what}", values, threshold <= _LARGE)
        if self.moving and not any(values.ndim for values in (self.example[i] for i in self.moving)):
            self._scalars_at(found[:at_most])

    def _scalars_at(self, found: list[float]) -> None:
        for threshold in found:
            for at in (threshold, threshold * (1 + 1e-3), threshold * (1 - 1e-3), -threshold * (1 + 1e-3)):
                for i in self.moving[:2]:
                    values = self.base()
                    if self._changed(values, i, Change("", lambda _, x, at=at: np.full_like(x, at))):
                        name = self.problem.leaves[i].name
                        self.add(f"{name} next to {threshold:.6g}", values, threshold <= _LARGE)

    def asked_for(self, at_most: int) -> None:
        """Integers that the reference asks for by name: a padding index, an ignored label."""
        integers = [i for i, leaf in enumerate(self.problem.leaves) if leaf.kind == "integer"]
        wanted = special_labels(self.problem) if integers else []
        for number in wanted[:at_most]:
            for i in integers:
                values = self.base()
                x = np.array(values[i])
                if x.size and np.can_cast(np.min_scalar_type(number), x.dtype):
                    x.ravel()[:: 2 if x.size > 1 else 1] = number
                    values[i] = x
                    self.add(f"{self.problem.leaves[i].name} partly {number}", values)

    def choices(self, at_most: int) -> None:
        """Masks, labels, indices and probabilities at their ends."""
        special = [
            (i, what, value)
            for i, (leaf, assumption) in enumerate(zip(self.problem.leaves, self.assumptions, strict=True))
            if leaf.kind != "key" and np.size(leaf.value)
            for what, value in _special_choices(self.example[i], assumption, self.rng)
        ]
        for i, what, value in special[:at_most]:
            values = self.base()
            values[i] = widened(value, self.problem.leaves[i])
            inside = self.assumptions[i].domain.contains(values[i]) or not self.assumptions[i].narrow
            label = f"{self.problem.leaves[i].name} {what}"
            self.add(label if inside else f"outside: {label}", values, inside=inside)

    def outside(self, per_leaf: int, at_most: int) -> None:
        """Values that the dtype allows, but the example speaks against."""
        count = 0
        for i, (leaf, assumption) in enumerate(zip(self.problem.leaves, self.assumptions, strict=True)):
            if not assumption.narrow or not np.size(leaf.value):
                continue
            beyond = assumption.domain.beyond(self.rng, np.asarray(self.draw()[i]))
            for (what, value), _ in zip(beyond, range(per_leaf), strict=False):
                values = self.draw()
                values[i] = widened(value, leaf)
                if count < at_most and not assumption.domain.contains(values[i]):
                    self.add(f"outside: {leaf.name} holds {what}", values, inside=False)
                    count += 1

    def cotangents(self) -> None:
        """The same values with special cotangents: a pullback is linear in them."""
        first = self.found[0]
        one, other = (draw_cotangent(self.problem.kind, self.out_spec, self.rng) for _ in range(2))
        values = self.draw()
        special: tuple[tuple[str, Any], ...] = (
            ("zero", jax.tree.map(np.zeros_like, one)),
            ("a", one),
            ("b", other),
            ("a + b", jax.tree.map(np.add, one, other)),
            ("all ones", jax.tree.map(np.ones_like, one)),
            ("one-hot", one_hot_cotangent(one, self.rng)),
            ("a times 1e6", jax.tree.map(lambda c: 1e6 * c, one)),
        )
        for place, at in (("the example", first.values), ("fresh values", tuple(values))):
            for what, cotangent in special:
                ordinary = what != "a times 1e6"
                self.found.append(Probe(f"{place}, cotangent {what}", at, cotangent, ordinary))


def _special_choices(
    x: np.ndarray, assumption: Assumption, rng: np.random.Generator
) -> list[tuple[str, np.ndarray]]:
    structure = assumption.domain
    if isinstance(structure, SumToOne):
        flat = np.full_like(x, 1 / x.shape[structure.axis])
        return [
            ("one-hot", OneHot(structure.axis).project(rng.random(x.shape))),
            ("uniform", flat),
            ("with a zero", structure.project(np.where(rng.random(x.shape) < 0.4, 0.0, x))),
        ]
    if x.dtype == bool:
        return _masks(x, True, rng)
    if isinstance(structure, Observed) and structure.present is not None:
        return _masks(x, structure.present, rng)
    if np.issubdtype(x.dtype, np.integer):
        ends = [("all at the lowest", x.min()), ("all at the highest", x.max())]
        return [
            (what, np.full_like(x, end))
            for what, end in ends
            if structure.contains(np.full_like(x, end)) and x.ndim
        ]
    return []


def _masks(x: np.ndarray, present: Any, rng: np.random.Generator) -> list[tuple[str, np.ndarray]]:
    absent = np.min(x) if x.dtype != bool and (x != present).any() else np.zeros((), x.dtype)
    none = np.full_like(x, absent)
    found = [("all kept", np.full_like(x, present)), ("all masked", none)]
    if x.ndim and x.shape[-1] > 1:
        one = none.copy()
        np.put_along_axis(one, rng.integers(0, x.shape[-1], (*x.shape[:-1], 1)), present, -1)
        found.append(("with one kept in each row", one))
    if x.ndim > 1 and x.shape[0] > 1:
        row = x.copy()
        row[rng.integers(x.shape[0])] = absent
        found.append(("with a row masked", row))
    return found


def _bytes(value: Any) -> bytes:
    if jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        value = jax.random.key_data(value)
    return np.asarray(value).tobytes()
