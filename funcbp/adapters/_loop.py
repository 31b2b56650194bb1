"""Loops: a scan whose body is a program with parameters of its own."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax import lax

from .. import _compat
from ..factors import Factor, Stacked
from ._factors import of_parameter, over_steps
from ._frame import Frame, Operand, Use, Value
from ._views import View

__all__ = ["Loop"]

PyTree = Any
Run = Callable[[_compat.ClosedJaxpr, Sequence[Operand], Frame], list[Operand]]


class Loop:
    """A scan of which parameters are constants, or which runs over stacked ones.

    The parameters of its body are the constant ones and the slices of the stacked ones, numbered as the
    operands. A carry that is a parameter and stays what it is counts as a constant, and a stacked result that
    is the slice of a parameter is that parameter. All else is data.
    """

    def __init__(
        self, run: Run, equation: _compat.JaxprEqn, operands: Sequence[Operand], frame: Frame
    ) -> None:
        self.interpret, self.equation, self.frame = run, equation, frame
        self.body: _compat.ClosedJaxpr = equation.params["jaxpr"]
        self.length: int = equation.params["length"]
        self.constants, self.carried = _compat.scan_counts(equation)
        self.first_scanned = self.constants + self.carried
        self.operands = [o if isinstance(o, View) and o.isometric else frame.plain(o) for o in operands]
        carries = range(self.constants, self.first_scanned)
        self.moving = [k for k in carries if isinstance(self.operands[k], Value)]
        self.seen, self.results = self._look()

    def outputs(self) -> list[Operand]:
        """The results of the scan."""
        frame, start = self.frame, len(self.frame.uses)
        taps = [frame.note(self._of_all_steps(use)) for use in self.seen.uses]
        whole = {k: frame.plain(self.operands[k]).array for k in self.seen.whole}
        arrays = [
            o.array if self._is_parameter(k) else frame.plain(o).array for k, o in enumerate(self.operands)
        ]
        scanned = {k: a for k, a in whole.items() if k >= self.first_scanned}

        def body(carry: list[Any], slices: tuple[Any, ...]) -> tuple[list[Any], tuple[Any, ...]]:
            now, (now[self.first_scanned :], whole_slices, taps) = list(arrays), slices
            for k, array in zip(self.moving, carry, strict=True):
                now[k] = array
            inner = Frame(now, taps, whole | whole_slices)
            made = self._made(self.interpret(self.body, self._inside(now), inner), inner)
            return made[: len(self.moving)], (made[len(self.moving) :], inner.records)

        carry, (stacked, records) = lax.scan(
            body,
            [arrays[k] for k in self.moving],
            (arrays[self.first_scanned :], scanned, taps),
            length=self.length,
            reverse=self.equation.params["reverse"],
            unroll=self.equation.params["unroll"],
        )
        frame.records[start : start + len(records)] = records
        self._report(sum(np.size(a) for a in carry))
        made = iter([*carry, *stacked])
        return [
            Value(next(made)) if self._is_made(n) else self.operands[_view(out).base]
            for n, out in enumerate(self.results)
        ]

    def _look(self) -> tuple[Frame, list[Operand]]:
        """What the body notes, and its results, once all carries that it changes are known."""
        specs = [jax.ShapeDtypeStruct(aval.shape, aval.dtype) for aval in self.body.in_avals]
        while True:
            frame = Frame(())
            # Another function every time: JAX does not trace one twice.
            jax.eval_shape(functools.partial(self._once, frame), specs)
            carries = range(self.constants, self.first_scanned)
            changed = [k for k in carries if not _is(self.results[k - self.constants], k)]
            if changed == self.moving:
                return frame, self.results
            self.moving = changed

    def _once(self, frame: Frame, arrays: list[jax.Array]) -> None:
        frame.bases = arrays
        self.results = self.interpret(self.body, self._inside(arrays), frame)
        self._made(self.results, frame)

    def _inside(self, arrays: Sequence[Any]) -> list[Operand]:
        """The operands of the body."""
        return [View(array, k) if self._is_parameter(k) else Value(array) for k, array in enumerate(arrays)]

    def _is_parameter(self, k: int) -> bool:
        return isinstance(self.operands[k], View) and k not in self.moving

    def _is_made(self, n: int) -> bool:
        """Whether a result of the body is something new."""
        if n < self.carried:
            return self.constants + n in self.moving
        out = self.results[n]
        return not (isinstance(out, View) and out.base >= self.first_scanned and not out.moves)

    def _made(self, results: Sequence[Operand], frame: Frame) -> list[Any]:
        made = [frame.plain(out) for n, out in enumerate(results) if self._is_made(n)]
        for value in made:
            # What was only a function of parameters is data from here on.
            frame.met(value.owners, "scan", 0)
        return [value.array for value in made]

    def _of_all_steps(self, use: Use) -> Use:
        """A use inside of the body, as one of the whole loop's."""
        view = _view(self.operands[use.base])
        shape = self.frame.bases[view.base].shape
        stacked = use.base >= self.first_scanned

        def factor(record: PyTree, delta: jax.Array) -> Factor:
            steps = jax.vmap(use.factor, in_axes=1)(record, delta)
            return of_parameter(Stacked(steps) if stacked else over_steps(steps), shape, view.moves)

        return Use(view.base, jax.ShapeDtypeStruct((self.length, *use.spec.shape), use.spec.dtype), factor)

    def _report(self, size: int) -> None:
        for k, reason in self.seen.unknown.items():
            self.frame.unknown.setdefault(_view(self.operands[k]).base, reason)
        for operand in self.operands:
            if isinstance(operand, Value):
                self.frame.met(operand.owners, "scan", size)


def _is(operand: Operand, base: int) -> bool:
    return isinstance(operand, View) and operand.base == base and not operand.moves


def _view(operand: Operand) -> View:
    if not isinstance(operand, View):
        raise TypeError(f"a view is expected, not {operand!r}")
    return operand
