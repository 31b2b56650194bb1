"""The derivation in index notation: Kronecker's deltas are put in, and sift."""

from collections.abc import Callable, Mapping, Sequence

from ._algebra import add, hadamard, total
from ._differentiate import differential, one, pull, rebuild
from ._index import IndexWriter
from ._lines import Line, Notation
from ._loop_steps import loop_elements, step_of_rows
from ._nodes import Node, variable
from ._notation import ATOM, DIFFERENTIAL, PRODUCT, name_of
from ._program import Program

__all__ = ["index_steps"]


def index_steps(program: Program, notation: Notation, symbols: Mapping[str, Node]) -> list[Line]:
    """The derivation by elements, from the function to the gradients."""
    symbols = {**symbols, **{x.name: x.symbol for x in program.lets}}
    values = {x.name: x.value for x in program.lets}
    mode = notation.mode
    lines = [_equation(program.output, program.value, mode)]
    elements = {loop.scan: loop_elements(loop, mode) for loop in program.loops.values()}
    shown = set()
    for let in reversed(program.lets):
        loop = program.loops.get(let.name)
        if loop is None:
            lines.append(_equation(let.name, let.value, mode))
        elif loop.scan not in shown:
            lines += elements[loop.scan][0]
            shown.add(loop.scan)
    inside = frozenset[str]().union(*(n.variables for n in elements))
    deltas = {d.of: d for d in program.deltas}
    for name in (*(x.name for x in reversed(program.lets)), *program.wrt):
        users = [(program.output, program.value, one())] + [
            (x.name, x.value, program.cotangents[x.name])
            for x in reversed(program.lets)
            if x.name in program.cotangents
        ]
        own = [u for u in users if name in u[1].variables]
        loop = program.loops.get(name)
        if loop is not None and loop.scan in shown:
            shown.discard(loop.scan)
            direct = [deltas[n] for n in loop.stacks if n in deltas]
            lines += [Line("", ""), *(_equation(d.name, d.value, mode) for d in direct)]
            lines += elements[loop.scan][1]
        if not own or name in inside or (name in values and name not in program.cotangents):
            continue
        lines.append(Line("", ""))
        lines += _calculation(program, name, symbols[name], own, mode)
        if name in deltas:
            letters = IndexWriter(mode).letters(symbols[name].rank)
            writer = IndexWriter(mode)
            left = writer.subscripted(name_of(deltas[name].name, mode), letters)
            lines.append(Line(left, writer.element(deltas[name].value, letters), "its name"))
    lines.append(Line("", ""))
    for name, gradient in program.gradients.items():
        below, gradient = step_of_rows(name, gradient)
        writer = IndexWriter(mode)
        letters = writer.letters(gradient.rank)
        left = _derivative(program.output, writer.subscripted(name_of(below, mode), letters), mode)
        lines.append(Line(left, writer.element(gradient, letters), boxed=True))
    return lines


def _equation(name: str, value: Node, mode: str) -> Line:
    writer = IndexWriter(mode)
    letters = writer.letters(value.rank)
    return Line(writer.subscripted(name_of(name, mode), letters), writer.element(value, letters))


def _derivative(above: str, below: str, mode: str) -> str:
    return f"∂{above}/∂{below}" if mode == "text" else rf"\frac{{\partial {above}}}{{\partial {below}}}"


def _calculation(
    program: Program, name: str, symbol: Node, users: Sequence[tuple[str, Node, Node]], mode: str
) -> list[Line]:
    """∂C/∂A_kl: the derivative goes inside, A_ij gives δ_ik δ_jl, the sums sift."""
    own = IndexWriter(mode).letters(symbol.rank)
    shown = name_of(name, mode)
    below = IndexWriter(mode).subscripted(shown, own)
    left = _derivative(program.output, below, mode)
    move = variable(DIFFERENTIAL + name, symbol.shape)
    inside, sifted = [], []
    for _, value, cotangent in users:
        moved = differential(value, {name: move})
        moved = hadamard(cotangent, moved) if value.rank else moved
        moved = total(moved, range(moved.rank)) if value.rank else moved
        inside.append(moved)
        sifted += pull(value, cotangent, frozenset({name}))[name]

    def derivative(indices: Sequence[str]) -> tuple[str, int]:
        element = IndexWriter(mode).subscripted(shown, indices)
        return _derivative(element, below, mode), PRODUCT

    def kronecker(indices: Sequence[str]) -> tuple[str, int]:
        pairs = zip(indices, own, strict=True)
        return " ".join(
            f"δ_{a}{b}" if mode == "text" else rf"\delta_{{{a}{b}}}" for a, b in pairs
        ) or "1", ATOM

    def write(special: Callable[[Sequence[str]], tuple[str, int]]) -> str:
        texts = []
        for node in inside:
            writer = IndexWriter(mode, {DIFFERENTIAL + name: special}, "".join(own))
            texts.append(writer.element(node, ()))
        return " + ".join(texts).replace("+ −", "− ").replace("+ -", "- ")

    deltas = write(kronecker)
    writer = IndexWriter(mode)
    result = writer.element(rebuild(add(*sifted), {}), own)
    lines = [Line(left, write(derivative), "the derivative goes inside of the sums")]
    if symbol.rank:
        lines.append(Line("", deltas, "an element depends on itself alone: Kronecker's δ"))
    if result != deltas:
        lines.append(Line("", result, "δ sifts: its index replaces the summed one" if symbol.rank else ""))
    return lines
