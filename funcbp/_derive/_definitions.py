"""What the symbols of a derivation stand for: σ′, and what JAX does at kinks."""

from ._differentiate import rebuild
from ._functions import Function, _Prime
from ._nodes import intern, topological, variable
from ._notation import Writer
from ._program import Program

__all__ = ["definitions"]

_KINKS = {
    "relu": "relu′(0) = 0",
    "relu6": "relu6′(0) = relu6′(6) = 0",
    "abs": "abs′(0) = 1, as in JAX",
    "elu": "elu′(0) = 1",
    "leaky_relu": "leaky_relu′(0) = 1",
    "max": "max(x, y): where x = y, half of the derivative goes to each",
    "min": "min(x, y): where x = y, half of the derivative goes to each",
}


def definitions(program: Program, mode: str) -> list[str]:
    """One line for every symbol that the derivation uses."""
    values = (
        [v for _, v in program.statements]
        + [d.value for d in program.deltas]
        + list(program.gradients.values())
    )
    for loop in program.loops.values():
        values += [x.value for x in loop.lets]
        values += [d.value for d in loop.backward.deltas] if loop.backward else []
    found: dict[str, str] = {}
    for node in topological(values):
        if isinstance(node.op, _Prime):
            found.setdefault(node.op.name, _prime(node.op.function, Writer(mode)))
            if node.op.function.name in _KINKS:
                found.setdefault(node.op.name + "0", _KINKS[node.op.function.name])
        elif node.op.name in ("max", "min") and node.variables:
            if node.op.elementwise:
                found.setdefault(node.op.name, _KINKS[node.op.name])
            else:
                found.setdefault("ties", f"{node.op.name} over an axis: ties share the derivative equally")
    return list(found.values())


def _prime(function: Function, writer: Writer) -> str:
    """σ′(p) = q (1 - q), q = σ(p)."""
    p, q = variable("p", ()), variable("q", ())
    value = intern(function, (p,), None, ())
    slope = rebuild(function.derivative(p, value), {value: q})
    shown = f"{function.text}′(p) = {writer.write(slope)}"
    return f"{shown}, q = {function.text}(p)" if "q" in slope.variables else shown
