"""A recurrence as named steps: states, rows of what is scanned over, and intermediates of one step."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ._algebra import constant
from ._differentiate import rebuild
from ._names import Let, fresh
from ._nodes import VARIABLE, Node, Operation, intern, keeping_products, topological, variable
from ._predicates import constant_value, is_view
from ._scalars import Dimension
from ._scan import RESULT, Recurrence
from ._timed import base_of, is_timed, place, timed

__all__ = ["JOIN", "Loop", "State", "loop_of", "name_of_stack", "operands", "row_variable", "stack_name"]


class _Join(Operation):
    """Several results of one body."""

    name = "join"


JOIN = _Join()


@dataclass(frozen=True)
class State:
    """What is carried from step to step.

    Attributes:
        base: its name without a step.
        before: the variable that is the state before a step.
        now: the variable that is the state after it.
        initial: the value before the first step.
    """

    base: str
    before: Node
    now: Node
    initial: Node


@dataclass
class Loop:
    """A recurrence with names.

    Attributes:
        scan: the node.
        letter: of the step.
        steps: how many there are.
        reverse: whether it begins at the last row.
        states: what is carried.
        scanned: rows in a step, and the arrays of which they are rows.
        lets: the assignments of a step.
        aliases: names for values of a step that need no δ.
        stacks: names of stacked results, with the variable of a step that they stack.
        finals: names of the states after the last step, with the state.
        sources: the arrays of which variables of a step are rows.
        names: shared by all programs of a derivation.
        taken: names in use.
        live: every variable of a step that depends on what is differentiated.
        backward: a step of the backward pass.
        code: what a program makes of it.
    """

    scan: Node
    letter: str
    states: list[State] = field(default_factory=list)
    scanned: dict[Node, Node] = field(default_factory=dict)
    lets: list[Let] = field(default_factory=list)
    aliases: list[Let] = field(default_factory=list)
    stacks: dict[str, Node] = field(default_factory=dict)
    finals: dict[str, State] = field(default_factory=dict)
    sources: dict[Node, Node] = field(default_factory=dict)
    names: dict[Any, str] = field(default_factory=dict)
    taken: set[str] = field(default_factory=set)
    live: frozenset[str] = frozenset()
    backward: Any = None
    code: Any = None

    @property
    def steps(self) -> Dimension:
        """The number of steps."""
        return self.scan.data.length

    @property
    def reverse(self) -> bool:
        """Whether it begins at the last row."""
        return self.scan.data.reverse

    @property
    def direction(self) -> int:
        """From the index of a step to that of the next one."""
        return -1 if self.reverse else 1

    @property
    def last(self) -> tuple[Dimension, int]:
        """The index of the last step, as something to count from, and the distance from it."""
        return (1, 0) if self.reverse else (self.steps, 0)

    @property
    def first(self) -> Dimension:
        """The index of the first step."""
        return self.steps if self.reverse else 1

    @property
    def before(self) -> str:
        """The index of the step before."""
        return f"{self.letter}{-self.direction:+d}"

    def value(self, name: str) -> Node:
        """What is assigned to a variable of a step."""
        return next(x.value for x in self.lets if x.name == name)


def operands(scan: Node) -> list[Node]:
    """The operands that need a name of their own, so that a step can speak of them."""
    data: Recurrence = scan.data
    constants = scan.args[: len(data.constants)]
    scanned = scan.args[len(data.constants) + len(data.carried) :]
    named = [n for n in constants if not _simple(n)]
    return named + [n for n in scanned if n.op not in (VARIABLE, RESULT) and constant_value(n) is None]


def _simple(node: Node) -> bool:
    while is_view(node):
        node = node.args[0]
    return node.op is VARIABLE or constant_value(node) is not None


def loop_of(
    scan: Node,
    args: Sequence[Node],
    used: Mapping[int, Node],
    wrt: frozenset[str],
    taken: set[str],
    names: dict[Any, str],
    insert: Callable[..., Any],
) -> tuple[Loop, dict[Node, Node]]:
    """Name a recurrence.

    Args:
        scan: the node.
        args: its operands in terms of names.
        used: the results that something reads, by position.
        wrt: the names that are live.
        taken: names in use; the new ones are added to it.
        names: of nodes that have one already; new ones are added to it.
        insert: names the intermediates of an expression, as `let_insertion`.

    Returns:
        The loop, and the symbols of its results.
    """
    data: Recurrence = scan.data
    letter = names.setdefault(scan, next((c for c in "tsr" if c not in taken), "t"))
    loop = Loop(scan, letter, names=names, taken=taken)
    kept = _kept_states(data, used)
    given = dict(zip((*data.constants, *data.carried, *data.scanned), args, strict=True))
    replaced: dict[Node, Node] = {c: given[c] for c in data.constants}
    for placeholder in data.scanned:
        replaced[placeholder] = _row(loop, given[placeholder], placeholder)
    for k in kept:
        old = data.carried[k]
        base = _state_name(loop, intern(RESULT, (scan,), k, old.shape), given[old])
        before, now = (variable(timed(base, when), old.shape) for when in (loop.before, letter))
        loop.states.append(State(base, before, now, given[old]))
        replaced[old] = before
    wanted = [*kept, *(k for k in used if k >= len(data.carried))]
    with keeping_products():
        memo: dict[Node, Node] = {}
        outs = {k: rebuild(data.outs[k], replaced, memo) for k in wanted}
    loop.live = _live(loop, outs, kept, wrt)
    values = _name_step(loop, outs, kept, insert)
    return loop, _results(loop, values, kept, used)


def _kept_states(data: Recurrence, used: Mapping[int, Node]) -> list[int]:
    """The states on which a result that is read depends."""
    needed, before = set(used), set()
    while needed != before:
        before = set(needed)
        reads = frozenset[str]().union(*(_names_in(data.outs[k]) for k in needed))
        needed |= {k for k, c in enumerate(data.carried) if c.data in reads}
    return [k for k in range(len(data.carried)) if k in needed]


def _names_in(node: Node) -> frozenset[str]:
    return frozenset(n.data for n in topological([node]) if n.op is VARIABLE)


def _row(loop: Loop, whole: Node, placeholder: Node) -> Node:
    number = constant_value(whole)
    if number is not None:
        return constant(number, placeholder.shape)
    row = row_variable(loop, whole)
    loop.scanned[row] = whole
    return row


def row_variable(loop: Loop, whole: Node) -> Node:
    """The row of a named array in a step: x of X, where that letter is free."""
    if whole.data in loop.stacks:
        return loop.stacks[whole.data]
    key = ("row", whole.data)
    if key not in loop.names:
        name = whole.data
        if is_timed(whole):  # the last state of another recurrence
            name = fresh(f"{base_of(name)}_last", 1, False, loop.taken)
        lower = name[0].lower() + name[1:]
        small = whole.rank == 2 and len(name.rstrip("0123456789")) == 1 and lower not in loop.taken
        loop.names[key] = lower if small else name
        loop.taken.add(loop.names[key])
    row = variable(timed(loop.names[key], loop.letter), whole.shape[1:])
    loop.sources[row] = whole
    return row


def _state_name(loop: Loop, result: Node, initial: Node) -> str:
    key = ("base", result)
    if key not in loop.names:
        found = re.fullmatch(r"([a-zA-Z]+)_?0", initial.data) if initial.op is VARIABLE else None
        letters = ([found[1]] if found else []) + (["h", "c"] if result.rank < 2 else ["H", "C"])
        loop.names[key] = _free(letters, result.rank, loop)
    return loop.names[key]


def _free(letters: Sequence[str], rank: int, loop: Loop) -> str:
    """A name that is free, and one for the array of all that are called so."""
    numbered = (letter + number for number in ("", *map(str, range(1, 100))) for letter in letters)
    base = next(b for b in numbered if b not in loop.taken)
    stack = stack_name(base, rank)
    while stack != base and stack in loop.taken:
        stack += "s"
    loop.names["stack", base] = stack
    loop.taken |= {base, stack}
    return base


def stack_name(base: str, rank: int) -> str:
    """The name of the array of which the rows are called `base`."""
    return base[0].upper() + base[1:] if rank == 1 else base


def _live(loop: Loop, outs: Mapping[int, Node], kept: Sequence[int], wrt: frozenset[str]) -> frozenset[str]:
    live = set(wrt) | {row.data for row, whole in loop.scanned.items() if whole.variables & wrt}
    live |= {s.before.data for s in loop.states if s.initial.variables & wrt}
    size = -1
    while size != len(live):
        size = len(live)
        live |= {s.before.data for s, k in zip(loop.states, kept, strict=True) if outs[k].variables & live}
    return frozenset(live)


def _name_step(
    loop: Loop, outs: Mapping[int, Node], kept: Sequence[int], insert: Callable[..., Any]
) -> dict[int, Node]:
    """Assignments of a step, among them one for every state; what the results are in terms of them."""
    forced: dict[Node, str] = {}
    for state, k in zip(loop.states, kept, strict=True):
        if outs[k].op is not VARIABLE and constant_value(outs[k]) is None:
            forced.setdefault(outs[k], state.now.data)
    loop.names.update({n: name for n, name in forced.items() if n not in loop.names})
    root = intern(JOIN, tuple(outs.values()), None, ())
    program = insert(root, loop, list(forced))
    loop.lets, loop.aliases = program.lets, program.aliases
    for let in loop.lets:
        loop.live |= {let.name} if let.value.variables & loop.live else set()
    own = {x.name for x in loop.lets}
    values = dict(zip(outs, program.value.args, strict=True))
    for state, k in zip(loop.states, kept, strict=True):
        if state.now.data not in own:
            loop.lets.append(Let(state.now.data, values[k]))
            if values[k].variables & loop.live:
                loop.live |= {state.now.data}
    return values


def _results(
    loop: Loop, values: Mapping[int, Node], kept: Sequence[int], used: Mapping[int, Node]
) -> dict[Node, Node]:
    symbols = {}
    states = dict(zip(kept, loop.states, strict=True))
    for k, result in used.items():
        if k in states:
            name = timed(states[k].base, place(*loop.last))
            loop.finals[name] = states[k]
        else:
            row = _stacked_variable(loop, values[k], result)
            name = name_of_stack(loop, row)
            loop.stacks[name] = row
        symbols[result] = variable(name, result.shape)
    return symbols


def _stacked_variable(loop: Loop, value: Node, result: Node) -> Node:
    """The variable of a step that is stacked; a value without a name is given one."""
    if value.op is VARIABLE and any(x.name == value.data for x in loop.lets):
        return value
    key = ("base", result)
    if key not in loop.names:
        letters = ["y", "o", "z"] if result.rank < 3 else ["Y", "O", "Z"]
        loop.names[key] = _free(letters, value.rank, loop)
    name = timed(loop.names[key], loop.letter)
    loop.lets.append(Let(name, value))
    if value.variables & loop.live:
        loop.live |= {name}
    return variable(name, value.shape)


def name_of_stack(loop: Loop, row: Node) -> str:
    """H for the rows h; where that is taken by something else, another."""
    key = ("stack", base_of(row.data))
    if key not in loop.names:
        loop.names[key] = fresh(key[1][0], row.rank + 1, False, loop.taken)
    return loop.names[key]
