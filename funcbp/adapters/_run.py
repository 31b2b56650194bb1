"""The interpreter: a program equation by equation, with its parameters as views and a tap at every use."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax import lax

from .. import _compat
from ..factors import Factor, Stacked
from ._factors import of_parameter, over_steps
from ._frame import Frame, Operand, Use, Value, spec_of
from ._meetings import MEETINGS
from ._moves import MOVES
from ._views import View

__all__ = ["run"]

PyTree = Any
# What a call with derivatives of its own does with a parameter is its own affair.
_OWN_DERIVATIVE = ("custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr")


def run(closed: _compat.ClosedJaxpr, operands: Sequence[Operand], frame: Frame) -> list[Operand]:
    """The results of a program.

    Args:
        closed: the program, of one example.
        operands: its arguments.
        frame: where uses of parameters are noted.
    """
    constants = [Value(c, data=False) for c in closed.consts]
    known: dict[Any, Operand] = dict(zip(closed.jaxpr.constvars, constants, strict=True))
    known |= dict(zip(closed.jaxpr.invars, operands, strict=True))

    def read(atom: Any) -> Operand:
        return Value(atom.val, data=False) if isinstance(atom, _compat.Literal) else known[atom]

    for equation in closed.jaxpr.eqns:
        with _compat.from_line_of(equation):
            outputs = _equation(equation, [read(atom) for atom in equation.invars], frame)
        known.update(zip(equation.outvars, outputs, strict=True))
    return [read(atom) for atom in closed.jaxpr.outvars]


def _equation(equation: _compat.JaxprEqn, operands: list[Operand], frame: Frame) -> list[Operand]:
    if not any(isinstance(operand, View) for operand in operands):
        return frame.apply(equation, operands)
    name = equation.primitive.name
    inner = _compat.called(equation)
    outputs = None
    if inner is not None and name not in _OWN_DERIVATIVE:
        outputs = run(inner, operands, frame)
    elif name == "scan":
        outputs = _Loop(equation, operands, frame).run()
    elif name in MOVES:
        outputs = MOVES[name](equation.params, operands)
    elif name in MEETINGS:
        outputs = MEETINGS[name](equation, operands, frame)
    return frame.apply(equation, operands) if outputs is None else outputs


class _Loop:
    """A scan of which parameters are constants, or which runs over stacked ones.

    Its body is a program with parameters of its own: the constant ones, and the slices of the stacked ones.
    A carry that is a parameter and stays what it is counts as a constant. All else is data.
    """

    def __init__(self, equation: _compat.JaxprEqn, operands: list[Operand], frame: Frame) -> None:
        self.equation, self.operands, self.frame = equation, operands, frame
        self.body: _compat.ClosedJaxpr = equation.params["jaxpr"]
        self.constants, self.carried = _compat.scan_counts(equation)
        self.first_scanned = self.constants + self.carried
        self.still = set(range(self.constants))
        self.still |= {k for k in range(self.constants, self.first_scanned) if isinstance(operands[k], View)}

    def run(self) -> list[Operand]:
        seen, outputs = self._look()
        while moving := self._moving(outputs):
            self.still -= moving
            seen, outputs = self._look()
        return self._loop(seen, outputs)

    def _moving(self, outputs: list[Operand]) -> set[int]:
        """Carries that were taken for constants and are changed."""
        carries = [k for k in self.still if k >= self.constants]
        return {k for k in carries if not _is(outputs[k - self.constants], k)}

    def _look(self) -> tuple[Frame, list[Operand]]:
        """What the body notes, and which of its results are its parameters again."""
        found: list[Any] = []

        def once(operands: list[Any]) -> None:
            frame = Frame(operands)
            found.extend((frame, run(self.body, self._inside(operands), frame)))

        jax.eval_shape(once, [_first(o, k < self.first_scanned) for k, o in enumerate(self.operands)])
        return found[0], found[1]

    def _inside(self, arrays: Sequence[Any]) -> list[Operand]:
        """The operands of the body."""

        def inside(k: int, outside: Operand) -> Operand:
            if isinstance(outside, View) and (k in self.still or k >= self.first_scanned):
                return View(arrays[k], k)
            return Value(
                arrays[k], data=not isinstance(outside, Value) or outside.data or bool(outside.owners)
            )

        return [inside(k, outside) for k, outside in enumerate(self.operands)]

    def _loop(self, seen: Frame, outputs: list[Operand]) -> list[Operand]:
        frame, length = self.frame, self.equation.params["length"]
        moving = [k for k in range(self.constants, self.first_scanned) if k not in self.still]
        stacked = outputs[self.carried :]
        # A stacked result that is the slice of a parameter is the parameter.
        made = [k for k, out in enumerate(stacked) if not self._passed(out)]
        start = len(frame.uses)
        taps = [frame.note(self._use(use, length)) for use in seen.uses]
        whole = {k: frame.plain(self.operands[k]).array for k in seen.whole}
        arrays = [
            o.array if isinstance(o, View) and (k in self.still or k >= self.first_scanned)
            else frame.plain(o).array
            for k, o in enumerate(self.operands)
        ]  # fmt: skip

        def body(carry: list[Any], slices: tuple[Any, ...]) -> tuple[list[Any], tuple[Any, ...]]:
            scanned, scanned_whole, taps = slices
            now = list(arrays)
            now[self.first_scanned :] = scanned
            for k, array in zip(moving, carry, strict=True):
                now[k] = array
            tapped = {k: a for k, a in whole.items() if k < self.first_scanned} | scanned_whole
            inner = Frame(now, taps, tapped)
            results = [
                inner.plain(o).array
                for o in self._wanted(run(self.body, self._inside(now), inner), moving, made)
            ]
            return results[: len(moving)], (results[len(moving) :], inner.records)

        over = (
            arrays[self.first_scanned :],
            {k: a for k, a in whole.items() if k >= self.first_scanned},
            taps,
        )
        parameters = self.equation.params
        carry, (ys, records) = lax.scan(
            body,
            [arrays[k] for k in moving],
            over,
            length=length,
            reverse=parameters["reverse"],
            unroll=parameters["unroll"],
        )
        frame.records[start : start + len(records)] = records
        self._report(seen, carry)
        results: list[Operand] = [
            Value(carry[moving.index(k)]) if k in moving else self.operands[k]
            for k in range(self.constants, self.first_scanned)
        ]
        return results + [
            Value(ys[made.index(k)]) if k in made else self.operands[_view(out).base]
            for k, out in enumerate(stacked)
        ]

    def _passed(self, out: Operand) -> bool:
        return isinstance(out, View) and out.base >= self.first_scanned and not out.moves

    def _wanted(self, results: list[Operand], moving: list[int], made: list[int]) -> list[Operand]:
        return [results[k - self.constants] for k in moving] + [results[self.carried + k] for k in made]

    def _use(self, use: Use, length: int) -> Use:
        """A use inside of the body, as one of the whole loop's."""
        view = _view(self.operands[use.base])
        shape = self.frame.bases[view.base].shape
        scanned = use.base >= self.first_scanned

        def factor(record: PyTree, delta: jax.Array) -> Factor:
            steps = jax.vmap(use.factor, in_axes=1)(record, delta)
            return of_parameter(Stacked(steps) if scanned else over_steps(steps), shape, view.moves)

        return Use(view.base, jax.ShapeDtypeStruct((length, *use.spec.shape), use.spec.dtype), factor)

    def _report(self, seen: Frame, carry: list[Any]) -> None:
        for k, reason in seen.unknown.items():
            self.frame.unknown.setdefault(_view(self.operands[k]).base, reason)
        size = sum(np.size(c) for c in carry)
        for operand in self.operands:
            if isinstance(operand, Value):
                self.frame.met(operand.owners, "scan", size)


def _is(operand: Operand, base: int) -> bool:
    return isinstance(operand, View) and operand.base == base and not operand.moves


def _view(operand: Operand) -> View:
    assert isinstance(operand, View)
    return operand


def _first(operand: Operand, whole: bool) -> jax.ShapeDtypeStruct:
    """What the body sees of an operand."""
    spec = (
        spec_of(operand.array)
        if hasattr(operand.array, "dtype")
        else jax.ShapeDtypeStruct((), np.result_type(operand.array))
    )
    return spec if whole else jax.ShapeDtypeStruct(spec.shape[1:], spec.dtype)
