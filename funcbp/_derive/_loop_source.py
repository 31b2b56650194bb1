"""A recurrence as code: `jax.lax.scan` forward, which keeps what the backward pass reads, and backward."""

from collections.abc import Sequence

from ._algebra import add, zero
from ._emit import shape_text
from ._loop_code import LoopCode
from ._loop_gradients import later
from ._loops import Loop, State
from ._nodes import VARIABLE, Node, topological, variable
from ._predicates import constant_value
from ._scalars import scalar_of_dimension
from ._source import StatementWriter, wrapped
from ._timed import base_of

__all__ = ["backward_lines", "forward_lines"]

_LONG = 70  # characters of a line that returns


class _Names:
    """What the variables of a step are called in code."""

    def __init__(self, loop: Loop, taken: set[str]) -> None:
        self.loop, self.taken = loop, taken
        self.given: dict[Node, str] = {}

    def of(self, node: Node, name: str = "") -> str:
        """`h_t`, or another name that is asked for, with underscores until it is free."""
        if node not in self.given:
            when = "before" if node.data.endswith(self.loop.before) else self.loop.letter
            name = name or f"{base_of(node.data)}_{when}"
            while name in self.taken or name in self.given.values():
                name += "_"
            self.given[node] = name
        return self.given[node]


def forward_lines(loop: Loop, writer: StatementWriter) -> list[str]:
    """The recurrence; what is stacked is what is read later."""
    code = _code_of(loop)
    names = _Names(loop, writer.taken)
    befores = [names.of(s.before) for s in loop.states]
    rows = [names.of(row) for row in loop.scanned]
    statements = [(names.of(x.symbol), x.value) for x in code.lets]
    body = _step_writer(loop, statements, names, writer).lines()
    states, kept = ([names.of(n) for n in nodes] for nodes in ([s.now for s in loop.states], code.stacks))
    step = _free("step", writer)
    returned = f"{_tuple(states) or 'None'}, {_tuple(kept) or 'None'}"
    lines = _function(step, befores, rows, body, returned)
    initial, begun = _initial(loop, code, writer)
    lines = [*begun, *lines]
    last = {state.base: _free(f"{state.base}_last", writer) for state in loop.finals.values()}
    for name, state in loop.finals.items():
        writer.emitter.names[variable(name, state.now.shape)] = last[state.base]
    for array in code.stacks.values():
        writer.emitter.names[array] = array.data
    finals = _tuple([last.get(s.base, "_") for s in loop.states]) or "_"
    stacks = _tuple([a.data for a in code.stacks.values()]) or "_"
    arrays = [writer.emitter.names.get(w, w.data) for w in loop.scanned.values()]
    lines.append(f"{finals}, {stacks} = {_scan(step, initial, arrays, loop, loop.reverse)}")
    for state, start in zip(loop.states, initial, strict=True):
        if state.base in code.befores:
            lines.append(_before(state, start, loop, writer))
    return lines


def _initial(loop: Loop, code: LoopCode, writer: StatementWriter) -> tuple[list[str], list[str]]:
    """What the states are before the first step; named by a line where it is needed again."""
    texts, lines = [], []
    for state in loop.states:
        texts.append(_start(state, state.initial, loop, writer))
        if state.base in code.befores and not texts[-1].isidentifier():
            name = _free(f"{state.base}0", writer)
            lines.append(f"{name} = {texts[-1]}")
            texts[-1] = name
    return texts, lines


def _code_of(loop: Loop) -> LoopCode:
    if loop.code is None:
        loop.code = LoopCode(list(loop.lets))
        for name, row in loop.stacks.items():
            loop.code.stacks[row] = variable(name, (loop.steps, *row.shape))
    return loop.code


def _step_writer(
    loop: Loop, statements: Sequence[tuple[str, Node]], names: _Names, writer: StatementWriter
) -> StatementWriter:
    given = {**writer.emitter.names, **names.given}
    layers = {x.name for x in loop.lets}
    taken = writer.taken | set(names.given.values())
    return StatementWriter(statements, layers, writer.emitter.sizes, {}, taken, given)


def _function(
    name: str, before: Sequence[str], now: Sequence[str], body: Sequence[str], result: str
) -> list[str]:
    first = before[0] if len(before) == 1 else "before" if before else "_"
    second = now[0] if len(now) == 1 else "now" if now else "_" if before else "_row"
    lines = [] if len(before) < 2 else [f"{', '.join(before)} = before"]
    lines += [] if len(now) < 2 else [f"{', '.join(now)} = now"]
    lines += [line for entry in (*body, f"return {result}") for line in wrapped(entry).split("\n")]
    return ["", f"def {name}({first}, {second}):", *("    " + line for line in lines), ""]


def _scan(step: str, initial: Sequence[str], arrays: Sequence[str], loop: Loop, reverse: bool) -> str:
    start, over = (_tuple(texts) or "None" for texts in (initial, arrays))
    more = ", reverse=True" if reverse else ""
    if not arrays:
        more = f"{more}, length={scalar_of_dimension(loop.steps).spelled()}"
    return f"jax.lax.scan({step}, {start}, {over}{more})"


def _tuple(parts: Sequence[str]) -> str:
    """Nothing, one, or several in parentheses."""
    return ", ".join(parts) if len(parts) < 2 else f"({', '.join(parts)})"


def _start(state: State, value: Node, loop: Loop, writer: StatementWriter) -> str:
    """The value before the first step; of a constant one with the dtype of the operands."""
    number = constant_value(value)
    if number is None:
        return writer.emitter.typed(writer.structure.lowered(value), _like(loop))
    if not number.number:
        return _zeros(state.now, loop)
    return f"jnp.full({shape_text(state.now)}, {number.spelled()}, {_like(loop)}.dtype)"


def _zeros(node: Node, loop: Loop) -> str:
    return f"jnp.zeros({shape_text(node)}, {_like(loop)}.dtype)"


def _like(loop: Loop) -> str:
    """An argument with the dtype of the states."""
    return max((n for n in topological(loop.scan.args) if n.op is VARIABLE), key=lambda n: n.rank).data


def _before(state: State, initial: str, loop: Loop, writer: StatementWriter) -> str:
    array = loop.code.befores[state.base]
    writer.emitter.names[array] = array.data
    stack = loop.code.stacks[state.now].data
    first = f"{initial}[None]"
    parts = f"{stack}[1:], {first}" if loop.reverse else f"{first}, {stack}[:-1]"
    return f"{array.data} = jnp.concatenate([{parts}])"


def _free(name: str, writer: StatementWriter) -> str:
    number, found = 1, name
    while found in writer.taken:
        number += 1
        found = f"{name}{number}"
    writer.taken.add(found)
    return found


def backward_lines(loop: Loop, value: Node, writer: StatementWriter) -> list[str]:
    """The recurrence of the δ's, from the last step to the first."""
    code: LoopCode = loop.code
    names = _Names(loop, writer.taken)
    finals = dict(
        zip([s.base for s in loop.states if s.base in loop.backward.finals], value.args, strict=True)
    )
    states = [s for s in loop.states if s.base in code.carried or s.base in finals]
    before = [names.of(later(loop, s), f"later_{s.base}") for s in states]
    before += [names.of(symbol, f"{symbol.data}_later") for symbol in code.sums]
    rows = [names.of(row) for row in code.reads]
    statements = [(names.of(variable(name, node.shape)), node) for name, node in code.statements]
    inner = _step_writer(loop, statements, names, writer)
    body = inner.lines()
    carried = [
        inner.full(code.carried[s.base]) if s.base in code.carried else f"jnp.zeros_like({before[k]})"
        for k, s in enumerate(states)
    ]
    carried += [inner.full(add(s, node)) for s, node in code.sums.items()]
    kept = [names.of(row) for row in code.kept]
    for k, text in enumerate(carried):
        if len(", ".join(carried + kept)) > _LONG:
            carried[k] = before[k].replace("later", "earlier")
            body.append(f"{carried[k]} = {text}")
    returned = f"{_tuple(carried) or 'None'}, {_tuple(kept) or 'None'}"
    step = _free("step_back", writer)
    start = [_start(s, finals.get(s.base, zero(s.now.shape)), loop, writer) for s in states]
    start += [_zeros(symbol, loop) for symbol in code.sums]
    for result in code.results:
        writer.emitter.names[result] = result.data
    left = [code.initials[s.base].data if _is_read(loop, s) else "_" for s in states]
    left += [symbol.data for symbol in code.sums]
    out = f"{_tuple(left) if left else '_'}, {_tuple([a.data for a in code.kept.values()]) or '_'}"
    arrays = [writer.emitter.names.get(a, a.data) for a in code.reads.values()]
    lines = _function(step, before, rows, body, returned)
    return [*lines, f"{out} = {_scan(step, start, arrays, loop, not loop.reverse)}"]


def _is_read(loop: Loop, state: State) -> bool:
    return state.base in loop.code.initials and bool(state.initial.variables & loop.live)
