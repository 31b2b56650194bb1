"""The derivation as lines: what equals what, and by which rule."""

from collections.abc import Mapping

from ._differentiate import rebuild, tidy
from ._lines import Line, Notation, delta_line, differentiated_lines
from ._loop_steps import loop_backward, loop_forward, step_of_rows
from ._nodes import VARIABLE, Node, keeping_products, variable
from ._notation import name_of
from ._program import Program

__all__ = ["expanded_gradient", "expansions", "steps"]


_READABLE = 72  # characters of an expanded formula
_LEAVES = 24  # arguments mentioned in it


def steps(program: Program, notation: Notation, symbols: Mapping[str, Node]) -> list[Line]:
    """The derivation in differentials, from the function to the gradients."""
    lines = _forward(program, notation)
    symbols = {**symbols, **{x.name: x.symbol for x in program.lets}}
    values = {x.name: x.value for x in program.lets}
    deltas = {d.of: d for d in program.deltas}
    lines.append(Line("", ""))
    lines += differentiated_lines(program.live, notation, symbols, program.output, program.value, None)
    shown = set()
    for let in reversed(program.lets):
        loop = program.loops.get(let.name)
        if loop is not None and loop.scan not in shown:
            shown.add(loop.scan)
            lines += [delta_line(deltas[n], notation) for n in loop.stacks if n in deltas]
            lines += loop_backward(loop, notation)
        if let.name not in program.cotangents:
            continue
        if let.name in deltas:
            lines.append(delta_line(deltas[let.name], notation))
        cotangent = program.cotangents[let.name]
        lines.append(Line("", ""))
        lines += differentiated_lines(program.live, notation, symbols, let.name, values[let.name], cotangent)
    lines.append(Line("", ""))
    return [*lines, *_results(program, notation)]


def _forward(program: Program, notation: Notation) -> list[Line]:
    lines = []
    aliases = {x.value: x for x in program.aliases}
    plain = Notation(notation.mode, {})
    shown = set()
    for name, value in program.statements:
        loop = program.loops.get(name)
        if loop is not None:
            lines += [] if loop.scan in shown else loop_forward(loop, notation)[::-1]
            shown.add(loop.scan)
            continue
        lines.append(Line(*notation.equation(name, value)))
        for alias_value, alias in aliases.items():
            if alias_value.args[0].data == name:
                lines.append(Line(*plain.equation(alias.name, alias_value)))
    return [*lines[len(lines) - 1 :], *reversed(lines[:-1])]


def _results(program: Program, notation: Notation) -> list[Line]:
    lines = []
    for name, gradient in program.gradients.items():
        below, gradient = step_of_rows(name, gradient)
        left, right = notation.equation(f"grad:{name}", gradient)
        symbol = _fraction(program.output, below, notation.mode)
        left = left.replace(name_of(f"grad:{name}", notation.mode), symbol)
        shown = right
        if not program.loops and leaves_when_expanded(program, program.gradients[name]) <= _LEAVES:
            shown = min((notation.equation("", g)[1] for g in expansions(program, name)), key=len)
        more = f" = {shown}" if shown != right and len(shown) < _READABLE else ""
        lines.append(Line(left, right + more, boxed=True))
    return lines


def leaves_when_expanded(program: Program, node: Node) -> int:
    """How many arguments are mentioned when every δ and intermediate is put in."""
    values = {x.name: x.value for x in program.lets} | {d.name: d.value for d in program.deltas}
    counts: dict[Node, int] = {}

    def count(current: Node) -> int:
        if current not in counts:
            inside = values.get(current.data) if current.op is VARIABLE else None
            parts = (inside,) if inside is not None else current.args
            counts[current] = sum(map(count, parts)) or 1
        return counts[current]

    return count(node)


def expansions(program: Program, name: str) -> list[Node]:
    """A gradient with every δ and intermediate put in: as one product, and with the parts in parentheses."""
    with keeping_products():
        kept = expanded_gradient(program, name)
    return [expanded_gradient(program, name), kept]


def _fraction(above: str, below: str, mode: str) -> str:
    a, b = name_of(above, mode), name_of(below, mode)
    return f"∂{a}/∂{b}" if mode == "text" else rf"\frac{{\partial {a}}}{{\partial {b}}}"


def expanded_gradient(program: Program, name: str) -> Node:
    """A gradient with every δ and intermediate put in."""
    replacements: dict[Node, Node] = {}
    for let in program.lets:
        if let.name not in program.loops:
            replacements[let.symbol] = rebuild(let.value, replacements)
    for delta in program.deltas:
        replacements[variable(delta.name, delta.value.shape)] = rebuild(delta.value, replacements)
    return tidy(rebuild(program.gradients[name], replacements))
