"""Recurrences: what `lax.scan` computes, and its sums and stacks over the steps."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .. import _compat
from ._nodes import Node, Operation, intern, variable
from ._scalars import Dimension
from ._timed import at_place
from ._trace import Equation, dimension, live
from ._trace_rules import rule

__all__ = ["OVER_STEPS", "RESULT", "ROWS", "SCAN", "Recurrence", "over_steps", "rows"]


@dataclass(frozen=True)
class Recurrence:
    """The body of a scan.

    Attributes:
        constants: placeholders of what is the same in every step.
        carried: placeholders of the states before a step.
        scanned: placeholders of one row of what is scanned over.
        outs: the states after a step, then what is stacked.
        length: the number of steps.
        reverse: whether it begins at the last row.
    """

    constants: tuple[Node, ...]
    carried: tuple[Node, ...]
    scanned: tuple[Node, ...]
    outs: tuple[Node, ...]
    length: Dimension
    reverse: bool

    def __repr__(self) -> str:
        digests = "".join(out.digest.hex() for out in self.outs)
        return f"{digests}|{self.length}|{self.reverse}|{len(self.constants)}|{len(self.carried)}"


class _Scan(Operation):
    """A recurrence with what it is applied to."""

    name = "scan"


class _Result(Operation):
    """A state after the last step, or a stack of what every step gives."""

    name = "result of a scan"


class _OverSteps(Operation):
    """The sum over the steps of an expression in their variables."""

    name = "sum over steps"

    def show(self, node, writer, /):
        letter = node.data[0]
        sign = writer.pick({"t": "Σₜ", "s": "Σₛ", "r": "Σᵣ"}[letter], rf"\sum_{{{letter}}}")
        return f"{sign} {writer.write(node.args[0], 4)}", 3


class _Rows(Operation):
    """The array whose rows an expression gives, one in every step."""

    name = "rows"

    def show(self, node, writer, /):
        letter = node.data[0]
        if writer.by_element:
            inner = at_place(node.args[0], letter, writer.indices[0])
            return writer.element(inner, writer.indices[1:], 4), 4
        inside = writer.write(node.args[0])
        return writer.pick(f"[{inside}]_{letter}", rf"\left[{inside}\right]_{{{letter}}}"), 6


SCAN, RESULT, OVER_STEPS, ROWS = _Scan(), _Result(), _OverSteps(), _Rows()


def over_steps(node: Node, letter: str, length: Dimension) -> Node:
    """Σₜ of an expression."""
    return intern(OVER_STEPS, (node,), (letter, length), node.shape)


def rows(node: Node, letter: str, length: Dimension, of: str) -> Node:
    """The array with this row for every step, a derivative by what is called `of` in a step."""
    return intern(ROWS, (node,), (letter, length, of), (length, *node.shape))


@rule("scan")
def _scan(eqn: Equation) -> list[Node]:
    constants, carried = _compat.scan_counts(eqn.jax)
    body = eqn.params["jaxpr"]
    length = dimension(eqn.params["length"])
    if length == 1:
        return eqn.trace.inside(eqn.jax, body, eqn.args)
    if any(caller.primitive.name == "scan" for caller in eqn.trace.callers):
        raise eqn.refuse("a scan inside of a scan")
    if not isinstance(length, str) and length < 1:
        raise eqn.refuse(f"{length} steps")
    if any(np.dtype(a.dtype).kind == "c" for a in body.in_avals):
        raise eqn.refuse("complex numbers")
    inputs = [
        variable(f"in:{k}", [dimension(a.shape[axis]) for axis in live(a.shape)])
        for k, a in enumerate(body.in_avals)
    ]
    outs = eqn.trace.inside(eqn.jax, body, inputs)
    split = (inputs[:constants], inputs[constants : constants + carried], inputs[constants + carried :])
    data = Recurrence(*map(tuple, split), tuple(outs), length, bool(eqn.params["reverse"]))
    return _results(intern(SCAN, eqn.args, data, ()), carried, outs)


def _results(scan: Node, carried: int, outs: Sequence[Node]) -> list[Node]:
    length = scan.data.length
    shapes = [out.shape if k < carried else (length, *out.shape) for k, out in enumerate(outs)]
    return [intern(RESULT, (scan,), k, shape) for k, shape in enumerate(shapes)]
