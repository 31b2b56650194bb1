"""The backward pass of a recurrence for a program: what is kept, carried, and summed afterwards."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from ._algebra import POWER, add, broadcast, contraction, factors_of, power, total
from ._differentiate import expand, rebuild, remade
from ._functions import Function
from ._loop_gradients import Brought, StepBackward, backward_step, final_cotangents, is_later, row_of
from ._loops import Loop, name_of_stack
from ._names import Delta, Let, needs_no_name
from ._nodes import ADD, CONTRACTION, VARIABLE, Node, Operation, intern, topological, variable
from ._timed import base_of, is_timed, timed

__all__ = ["BACKWARD", "LoopCode", "backward_of_code"]


class _Backward(Operation):
    """A result of the backward pass of a recurrence."""

    name = "backward pass of a scan"


BACKWARD = _Backward()


@dataclass
class LoopCode:
    """What the code of a recurrence is made of.

    Attributes:
        lets: the assignments of a step.
        stacks: of variables of a step, the arrays that keep them.
        befores: by name of a state, the array of the states before every step.
        statements: of a step of the backward pass.
        carried: by name of a state, what the step brings to the one before.
        kept: of δ's, the arrays that keep them.
        sums: what is summed from step to step, because it is no product of arrays that are kept.
        initials: by name of a state, what is brought to the one before the first step.
        reads: rows that a step of the backward pass reads, and their arrays.
    """

    lets: list[Let]
    stacks: dict[Node, Node] = field(default_factory=dict)
    befores: dict[str, Node] = field(default_factory=dict)
    statements: list[tuple[str, Node]] = field(default_factory=list)
    carried: dict[str, Node] = field(default_factory=dict)
    kept: dict[Node, Node] = field(default_factory=dict)
    sums: dict[Node, Node] = field(default_factory=dict)
    initials: dict[str, Node] = field(default_factory=dict)
    reads: dict[Node, Node] = field(default_factory=dict)

    @property
    def arrays(self) -> list[str]:
        """The names of what is kept of all steps; those of the states before them no one else uses."""
        return [n.data for n in (*self.stacks.values(), *self.results)]

    @property
    def results(self) -> list[Node]:
        """Everything that the backward pass gives."""
        return [*self.initials.values(), *self.sums, *self.kept.values()]


class _NotStackedError(Exception):
    """An expression that has no form for all steps at once."""


def backward_of_code(loop: Loop, given: Mapping[str, Node], taken: set[str]) -> Brought:
    """Products of arrays over all steps where they exist, else sums from step to step."""
    out = Brought()
    direct = {}
    for name, row in loop.stacks.items():
        if name in given and row.data in loop.live:
            direct[row.data] = row_of(loop, given[name], name, out, taken, needs_no_name(given[name]))
    finals = final_cotangents(loop, given)
    step = backward_step(loop, direct, finals, taken)
    step.finals = finals
    loop.backward = step
    code = loop.code = _Code(loop, step, taken).collected(out)
    arguments = [finals[s.base] for s in loop.states if s.base in finals]
    for k, symbol in enumerate(code.results):
        value = intern(BACKWARD, arguments, (loop.scan.digest.hex(), k), symbol.shape)
        out.deltas.append(Delta(symbol.data, "", value, ()))
    return out


class _Code:
    """Collects what the code of a recurrence keeps."""

    def __init__(self, loop: Loop, step: StepBackward, taken: set[str]) -> None:
        self.loop, self.step, self.taken = loop, step, taken
        self.known: dict[Node, Node] = {}
        self.deltas = {d.name for d in step.deltas}
        self.rows: list[tuple[str, Node]] = []
        self.code = LoopCode(self._lets())
        for name, row in loop.stacks.items():
            self.code.stacks[row] = variable(name, (loop.steps, *row.shape))

    def _lets(self) -> list[Let]:
        """The assignments of a step; σ(p) is named where the backward pass reads it again."""
        backward = [d.value for d in self.step.deltas]
        backward += [*self.step.carried.values(), *self.step.brought.values()]
        read = {
            n
            for n in topological([expand(n) for n in backward])
            if isinstance(n.op, Function) and any(is_timed(v) for v in topological([n]))
        }
        lets: list[Let] = []
        for let in self.loop.lets:
            value = expand(let.value)
            for node in topological([value])[:-1]:
                if node in read and node not in self.known:
                    number = node.args[0].data.partition("@")[0][1:] if is_timed(node.args[0]) else ""
                    name = self._free(f"q{number}" if number.isdigit() else "q")
                    lets.append(Let(timed(name, self.loop.letter), self._inside(node)))
                    self.known[node] = lets[-1].symbol
            lets.append(Let(let.name, self._inside(value)))
            if value.op is not VARIABLE:
                self.known.setdefault(value, let.symbol)
        return lets

    def _inside(self, node: Node) -> Node:
        return remade(node, [rebuild(a, self.known) for a in node.args])

    def _free(self, name: str) -> str:
        number, found = 1, name
        while found in self.taken:
            found, number = f"{name}{number}", number + 1
        self.taken.add(found)
        return found

    def collected(self, out: Brought) -> LoopCode:
        """Everything, when what is brought outside is known."""
        loop, step, code = self.loop, self.step, self.code
        scanned = {row.data: whole.data for row, whole in loop.scanned.items()}
        for name, node in step.brought.items():
            node = rebuild(expand(node), self.known)
            if name in scanned:
                out.brought.append((scanned[name], self._rows(node)))
            else:
                out.brought.append((name, self._sum(node)))
        for state in loop.states:
            if state.base in step.carried:
                code.carried[state.base] = rebuild(expand(step.carried[state.base]), self.known)
                symbol = variable(self._free(f"delta_{state.base}0"), state.now.shape)
                code.initials[state.base] = symbol
                if state.initial.variables & loop.live:
                    out.initial.append((state.initial, symbol))
        code.statements += [(d.name, rebuild(expand(d.value), self.known)) for d in step.deltas]
        code.statements += self.rows
        inner = [*(n for _, n in code.statements), *code.carried.values(), *code.sums.values()]
        for node in topological(inner):
            if is_timed(node) and node.data not in self.deltas and not is_later(node):
                code.reads[node] = self._stack(node)
        return code

    def _sum(self, node: Node) -> Node:
        try:
            return total(self._all_steps(node), (0,))
        except _NotStackedError:
            symbol = variable(self._free("total"), node.shape)
            self.code.sums[symbol] = node
            return symbol

    def _rows(self, node: Node) -> Node:
        try:
            return self._all_steps(node)
        except _NotStackedError:
            row = variable(timed(self._free("row"), self.loop.letter), node.shape)
            self.deltas.add(row.data)
            self.rows.append((row.data, node))
            return self._stack(row)

    def _stack(self, row: Node) -> Node:
        """The array over all steps of a variable of a step."""
        code, loop, shape = self.code, self.loop, (self.loop.steps, *row.shape)
        for found in (code.stacks, code.kept, loop.sources):
            if row in found:
                return found[row]
        base = base_of(row.data)
        if row.data in self.deltas:
            start, _, rest = base.partition("_")
            code.kept[row] = variable(self._free(f"{start}s_{rest}" if rest else f"{start}s"), shape)
            return code.kept[row]
        before = next((s for s in loop.states if s.before is row), None)
        if before is None:
            code.stacks[row] = variable(name_of_stack(loop, row), shape)
            return code.stacks[row]
        if before.base not in code.befores:
            name = f"{name_of_stack(loop, before.now)}_before"
            code.befores[before.base] = variable(self._free(name), shape)
            self._stack(before.now)
        return code.befores[before.base]

    def _all_steps(self, node: Node) -> Node:
        """An expression with the steps as its first axis."""
        if not any(is_timed(n) for n in topological([node])):
            return broadcast(node, tuple(range(1, node.rank + 1)), (self.loop.steps, *node.shape))
        if node.op is VARIABLE:
            return self._stack(node)
        if node.op is ADD:
            return add(*map(self._all_steps, node.args))
        if node.op is CONTRACTION:
            coefficient, factors, out = factors_of(node)
            moved = []
            for factor, labels in factors:
                if any(is_timed(n) for n in topological([factor])):
                    moved.append((self._all_steps(factor), ("step", *labels)))
                else:
                    moved.append((factor, labels))
            sizes = dict(zip(out, node.shape, strict=True))
            return contraction(coefficient, moved, ("step", *out), sizes)
        if not node.op.elementwise:
            raise _NotStackedError(node.op.name)
        return _elementwise(node, [self._all_steps(a) for a in node.args])


def _elementwise(node: Node, args: list[Node]) -> Node:
    if node.op is POWER:
        return power(args[0], node.data)
    return intern(node.op, args, node.data, args[0].shape)
