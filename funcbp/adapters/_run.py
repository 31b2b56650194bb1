"""The interpreter: a program equation by equation, with its parameters as views and a tap at every use."""

from collections.abc import Sequence
from typing import Any

from .. import _compat
from ._frame import Frame, Operand, Value
from ._loop import Loop
from ._meetings import MEETINGS
from ._moves import MOVES
from ._views import View

__all__ = ["run"]

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
    outputs: Sequence[Operand] | None = None
    if inner is not None and name not in _OWN_DERIVATIVE:
        outputs = run(inner, operands, frame)
    elif name == "scan":
        outputs = Loop(run, equation, operands, frame).outputs()
    elif name in MOVES:
        outputs = MOVES[name](equation.params, operands)
    elif name in MEETINGS:
        outputs = MEETINGS[name](equation, operands, frame)
    return frame.apply(equation, operands) if outputs is None else list(outputs)
