"""A recurrence in the lines of a derivation."""

from ._differentiate import differential
from ._index import IndexWriter
from ._lines import Line, Notation, differential_of, differential_reason, differentiated_lines
from ._loop_gradients import is_later, last_of, recurrence_of
from ._loops import Loop
from ._names import Delta
from ._nodes import VARIABLE, Node, topological
from ._notation import name_of
from ._predicates import constant_value
from ._scan import ROWS
from ._timed import base_of, place, timed

__all__ = ["loop_backward", "loop_elements", "loop_forward", "step_of_rows"]


def loop_forward(loop: Loop, notation: Notation) -> list[Line]:
    """What is stacked, one step, what it begins with."""
    lines = [
        Line(name_of(name, notation.mode), _listed(loop, row, notation)) for name, row in loop.stacks.items()
    ]
    aliases = {x.value: x for x in loop.aliases}
    plain = Notation(notation.mode, {})
    own = _with_aliases(loop, notation)
    steps = []
    for let in loop.lets:
        steps.append(Line(*own.equation(let.name, let.value)))
        steps += [
            Line(*plain.equation(x.name, value))
            for value, x in aliases.items()
            if value.args[0].data == let.name
        ]
    steps.reverse()
    steps[0] = Line(steps[0].left, steps[0].right, _range(loop, notation))
    lines += steps
    for state in loop.states:
        left = name_of(timed(state.base, place(loop.first, -loop.direction)), notation.mode)
        number = constant_value(state.initial)
        right = "0" if number is not None and not number.number else notation.equation("", state.initial)[1]
        if right != left:
            lines.append(Line(left, right))
    for row, whole in loop.scanned.items():
        entry = f"{name_of(whole.data, notation.mode)}[{loop.letter}{', :' * (whole.rank - 1)}]"
        lines.append(Line(name_of(row.data, notation.mode), entry))
    return lines


def _listed(loop: Loop, row: Node, notation: Notation) -> str:
    """(h₁, …, hₘ)ᵀ."""
    base = base_of(row.data)
    first, last = (name_of(timed(base, place(s, 0)), notation.mode) for s in (1, loop.steps))
    if notation.mode == "text":
        return f"({first}, …, {last})" + ("ᵀ" if row.rank == 1 else "")
    return rf"\left({first}, \ldots, {last}\right)" + (r"^{\top}" if row.rank == 1 else "")


def _range(loop: Loop, notation: Notation) -> str:
    ends = [str(s) for s in (1, loop.steps)]
    first, last = ends[::-1] if loop.reverse else ends
    return (
        f"{loop.letter} = {first}, …, {last}"
        if notation.mode == "text"
        else f"step {loop.letter}, from {first} to {last}"
    )


def _with_aliases(loop: Loop, notation: Notation) -> Notation:
    return Notation(notation.mode, {**notation.aliases, **{x.value: x.symbol for x in loop.aliases}})


def loop_backward(loop: Loop, notation: Notation) -> list[Line]:
    """The differential of one step, the recurrence of the δ's, and where it begins."""
    if loop.backward is None:
        return []
    notation = _with_aliases(loop, notation)
    deltas = {d.of: d for d in loop.backward.deltas}
    values = {n.data: n for x in loop.lets for n in topological([x.value]) if n.data in loop.live}
    symbols = {**{n: v for n, v in values.items()}, **{x.name: x.symbol for x in loop.lets}}
    lines: list[Line] = []
    for let in reversed(loop.lets):
        if let.name not in loop.backward.cotangents:
            continue
        lines.append(Line("", ""))
        if let.name not in deltas:
            tangents = {
                n: differential_of(n, s) for n, s in symbols.items() if n in let.value.variables & loop.live
            }
            moved = differential(let.value, tangents)
            why = differential_reason(let.value, frozenset(tangents))
            lines.append(Line(*notation.equation("d:" + let.name, moved), why))
            continue
        lines += _delta_lines(loop, deltas[let.name], notation)
        cotangent = loop.backward.cotangents[let.name]
        lines += differentiated_lines(loop.live, notation, symbols, let.name, let.value, cotangent)
    return lines


def _delta_lines(loop: Loop, delta: Delta, notation: Notation) -> list[Line]:
    left, right = notation.equation(delta.name, recurrence_of(loop, delta))
    if not any(is_later(n) for n in topological([delta.value])):
        return [
            Line(
                left,
                right,
                f"what stands before d{name_of(delta.of, 'text')}" if notation.mode == "text" else "",
            )
        ]
    base = base_of(delta.name)
    following = f"step {loop.letter}{loop.direction:+d}".replace("+", " + ").replace("-", " - ")
    end = timed(base, place(*loop.last))
    return [
        Line(left, right, f"what {following} brings"),
        Line(*notation.equation(end, last_of(loop, delta)), "the last step"),
    ]


def step_of_rows(name: str, gradient: Node) -> tuple[str, Node]:
    """A gradient of which a step gives a row, by rows."""
    if gradient.op is not ROWS:
        return name, gradient
    return gradient.data[2], gradient.args[0]


def loop_elements(loop: Loop, mode: str) -> tuple[list[Line], list[Line]]:
    """One step and its δ's by their elements."""

    def line(name: str, value: Node, reason: str = "") -> Line:
        writer = IndexWriter(mode)
        letters = writer.letters(value.rank)
        return Line(writer.subscripted(name_of(name, mode), letters), writer.element(value, letters), reason)

    forward = [line(x.name, x.value) for x in reversed(loop.lets)]
    forward += [
        line(timed(s.base, place(loop.first, -loop.direction)), s.initial)
        for s in loop.states
        if s.initial.op is not VARIABLE
    ]
    backward = []
    for delta in loop.backward.deltas if loop.backward else ():
        recurs = any(is_later(n) for n in topological([delta.value]))
        reason = "the chain rule; what the next step brings" if recurs else "the chain rule"
        backward.append(line(delta.name, recurrence_of(loop, delta), reason))
        if recurs:
            end = timed(base_of(delta.name), place(*loop.last))
            backward.append(line(end, last_of(loop, delta), "the last step"))
    return forward, backward
