"""The backward pass of a recurrence: one step of it, and what the steps bring together.

What a state is worth to all later steps is carried back from step to step. Within a step that is a variable,
λ; the derivation puts in for it what the step after brings, a program carries it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from ._algebra import add, contraction, factors_of, zero
from ._differentiate import pull, rebuild, tidy
from ._loops import Loop, State, row_variable
from ._names import Delta, Let, delta_name, fresh, needs_no_name
from ._nodes import ADD, CONTRACTION, VARIABLE, Node, intern, variable
from ._predicates import is_zero
from ._scan import over_steps, rows
from ._timed import at_place, base_of, shifted, timed

__all__ = [
    "Brought",
    "StepBackward",
    "backward_of_derivation",
    "backward_step",
    "final_cotangents",
    "is_later",
    "last_of",
    "later",
    "recurrence_of",
    "row_of",
]


@dataclass
class StepBackward:
    """The backward pass of one step.

    Attributes:
        deltas: of intermediates of the step, in terms of λ.
        cotangents: by name of an intermediate, its δ, or what is short enough to need no name.
        carried: by name of a state, what the step brings to the state before it.
        brought: by name, what the step brings to constants and to rows.
        finals: by name of a state, what the last one brings outside of the recurrence.
    """

    deltas: list[Delta] = field(default_factory=list)
    cotangents: dict[str, Node] = field(default_factory=dict)
    carried: dict[str, Node] = field(default_factory=dict)
    brought: dict[str, Node] = field(default_factory=dict)
    finals: dict[str, Node] = field(default_factory=dict)


@dataclass
class Brought:
    """What a recurrence brings to what it is made of.

    Attributes:
        deltas: assignments that are needed for it.
        brought: to named arrays.
        initial: expressions of initial states, and what is brought to them.
    """

    deltas: list[Delta] = field(default_factory=list)
    brought: list[tuple[str, Node]] = field(default_factory=list)
    initial: list[tuple[Node, Node]] = field(default_factory=list)


def later(loop: Loop, state: State) -> Node:
    """λ: what a state is worth to all later steps."""
    return variable(timed(f"later_{state.base}", loop.letter), state.now.shape)


def is_later(node: Node) -> bool:
    """Whether it is a λ."""
    return node.op is VARIABLE and node.data.startswith("later_")


def backward_step(
    loop: Loop, direct: Mapping[str, Node], finals: Mapping[str, Node], taken: set[str]
) -> StepBackward:
    """One step; which states have a λ is found by trying."""
    worth = set(finals)
    while True:
        used = set(taken)
        found = _step_of(loop, direct, worth, used)
        if set(found.carried) <= worth:
            taken |= used
            return found
        worth |= set(found.carried)


def _step_of(loop: Loop, direct: Mapping[str, Node], worth: set[str], taken: set[str]) -> StepBackward:
    found = StepBackward()
    brought: dict[str, list[tuple[str, Node]]] = {}
    for state in loop.states:
        if state.base in worth and state.now.data in loop.live:
            brought.setdefault(state.now.data, []).append(("later", later(loop, state)))
    for name, cotangent in direct.items():
        brought.setdefault(name, []).append(("outside", cotangent))
    for let in reversed(loop.lets):
        if let.name not in loop.live or let.name not in brought:
            continue
        parts = brought.pop(let.name)
        value = tidy(add(*(part for _, part in parts)))
        if is_zero(value):
            continue
        if _is_inlined(loop, let, value):
            found.cotangents[let.name] = value
        else:
            name = _delta_name(loop, let, taken)
            found.deltas.append(Delta(name, let.name, value, tuple(parts)))
            found.cotangents[let.name] = variable(name, value.shape)
        for target, more in pull(let.value, found.cotangents[let.name], loop.live).items():
            brought.setdefault(target, []).append((let.name, add(*more)))
    sums = {name: tidy(add(*(part for _, part in parts))) for name, parts in brought.items()}
    sums = {name: node for name, node in sums.items() if not is_zero(node)}
    found.carried = {s.base: sums.pop(s.before.data) for s in loop.states if s.before.data in sums}
    found.brought = sums
    return found


def _is_inlined(loop: Loop, let: Let, value: Node) -> bool:
    """Whether a δ needs no name: it is short, or goes on whole into that of what stands behind it."""
    if not any(base_of(v).startswith("later_") for v in value.variables):
        return needs_no_name(value)
    own = {x.name for x in loop.lets}
    reads = let.value.variables & loop.live
    return len(reads) == 1 and reads <= own


def _delta_name(loop: Loop, let: Let, taken: set[str]) -> str:
    base = base_of(let.name)
    only = not any(x.name[0] in "pP" for x in loop.lets) and len(loop.states) == 1
    name = "delta" if only and base == loop.states[0].base else delta_name(base)
    name = f"delta_{base}" if name in taken else name
    while name in taken:
        name += "_"
    taken.add(name)
    return timed(name, loop.letter)


# what a person writes


def backward_of_derivation(loop: Loop, given: Mapping[str, Node], taken: set[str]) -> Brought:
    """Sums over t, rows, and the first state's, in the variables of a step."""
    out = Brought()
    direct = {}
    for name, row in loop.stacks.items():
        if name in given and row.data in loop.live:
            direct[row.data] = row_of(loop, given[name], name, out, taken, by_element=True)
    finals = final_cotangents(loop, given)
    step = loop.backward = backward_step(loop, direct, finals, taken)
    step.finals = finals
    for state in loop.states:
        if state.base in step.carried and state.initial.variables & loop.live:
            out.initial.append((state.initial, at_place(step.carried[state.base], loop.letter, loop.first)))
    scanned = {row.data: outer.data for row, outer in loop.scanned.items()}
    for name, node in step.brought.items():
        if name in scanned:
            out.brought.append((scanned[name], rows(node, loop.letter, loop.steps, name)))
        else:
            out.brought.append((name, over_steps(node, loop.letter, loop.steps)))
    return out


def recurrence_of(loop: Loop, delta: Delta) -> Node:
    """A δ in terms of those of the step after."""
    following = {
        later(loop, s): shifted(step, loop.letter, loop.direction)
        for s in loop.states
        if (step := loop.backward.carried.get(s.base)) is not None
    }
    zeros = {later(loop, s): zero(s.now.shape) for s in loop.states}
    return tidy(rebuild(delta.value, {**zeros, **following}))


def last_of(loop: Loop, delta: Delta) -> Node:
    """A δ in the last step."""
    finals = {later(loop, s): loop.backward.finals.get(s.base, zero(s.now.shape)) for s in loop.states}
    moved = {later(loop, s): variable(f"last {s.base}", s.now.shape) for s in loop.states}
    value = at_place(rebuild(delta.value, moved), loop.letter, loop.last[0])
    return tidy(rebuild(value, {moved[symbol]: final for symbol, final in finals.items()}))


def final_cotangents(loop: Loop, given: Mapping[str, Node]) -> dict[str, Node]:
    """What is brought to the last states, by their names."""
    states = {n: s for n, s in loop.finals.items() if n in given and s.now.data in loop.live}
    return {s.base: given[n] for n, s in states.items()}


def row_of(loop: Loop, whole: Node, name: str, out: Brought, taken: set[str], by_element: bool) -> Node:
    """A row of what is brought to a stack, by its elements where that is asked for and possible."""
    row = _unstacked(loop, whole) if by_element else None
    if row is None:
        g = variable(fresh("g", whole.rank, False, taken), whole.shape)
        out.deltas.append(Delta(g.data, name, whole, ((name, whole),)))
        row = row_variable(loop, g)
    return row


def _unstacked(loop: Loop, node: Node) -> Node | None:
    """Row t of an expression, if it is one of rows t."""
    if node.op is VARIABLE:
        return row_variable(loop, node)
    if node.op is ADD:
        return _all(lambda rows: add(*rows), [_unstacked(loop, a) for a in node.args])
    if node.op is not CONTRACTION:
        if not node.op.elementwise or any(a.shape != node.shape for a in node.args):
            return None
        return _all(
            lambda rows: intern(node.op, rows, node.data, node.shape[1:]),
            [_unstacked(loop, a) for a in node.args],
        )
    coefficient, factors, labels = factors_of(node)
    time, own = labels[0], labels[1:]
    moved = []
    for factor, axes in factors:
        if time in axes:
            row = _unstacked(loop, factor) if axes[0] == time and time not in axes[1:] else None
            if row is None:
                return None
            moved.append((row, axes[1:]))
        else:
            moved.append((factor, axes))
    return contraction(coefficient, moved, own, dict(zip(labels, node.shape, strict=True)))


def _all(make: Callable[[list[Node]], Node], parts: list[Node | None]) -> Node | None:
    found = [p for p in parts if p is not None]
    return make(found) if len(found) == len(parts) else None
