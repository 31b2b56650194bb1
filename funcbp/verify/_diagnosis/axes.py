"""A statistic's term over the wrong axis: p (g - sum(p g)) with the sum along columns, or with none."""

import itertools
import math
from collections.abc import Iterator

import numpy as np

from .._report import Cause
from .graph import Node
from .mutants import Context, Mutant
from .pullbacks import implicit_axes, repeated_axes
from .tape import Contributions, Override, Tape

__all__ = ["over_other_axes"]


def over_other_axes(context: Context) -> Iterator[Mutant]:
    """Sums that are spread over their axes again: the term through each, or through all, along other axes."""
    spreads = {}
    for node in context.recorder.active:
        spread = _spreading(context, node) if node.name == "reduce_sum" else None
        if spread is not None and context.graph.shape(spread.outputs[0]) == _summed(context, node):
            spreads[node] = spread
    alike: dict[object, list[Node]] = {}
    for node in spreads:
        alike.setdefault((_summed(context, node), tuple(node.params["axes"])), []).append(node)
    groups = [[node] for node in spreads] + [group for group in alike.values() if len(group) > 1]
    for group in groups:
        shape, own = _summed(context, group[0]), tuple(group[0].params["axes"])
        for axes in _others(shape, own):
            yield from _taken_along(group, spreads, shape, axes)


def _summed(context: Context, node: Node) -> tuple[int, ...]:
    return context.graph.shape(node.inputs[0])


def _taken_along(
    group: list[Node], spreads: dict[Node, Node], shape: tuple[int, ...], axes: tuple[int, ...]
) -> Iterator[Mutant]:
    own = tuple(group[0].params["axes"])
    over = f"over axis {_listed(axes)}" if axes else "over no axis, element by element,"
    terms = "the term that goes" if len(group) == 1 else f"the terms that go (of {len(group)} of these)"
    text = f"{terms} through the sum over axis {_listed(own)} is taken {over} instead"
    cause = Cause.REDUCTION if axes else Cause.TERM_MISSING
    as_mean = math.prod(shape[a] for a in own) / math.prod(shape[a] for a in axes)
    for scale, at_target in itertools.product(dict.fromkeys([1.0, as_mean]), (False, True)):
        overrides = {node.index: _along(spreads[node], axes, scale, at_target) for node in group}
        yield Mutant(cause, text, 3, overrides, group[0].source, (Cause.STATISTICS,))


def _listed(axes: tuple[int, ...]) -> str:
    return " and ".join(map(str, axes))


def _others(shape: tuple[int, ...], own: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    yield ()
    if len(shape) > 4:
        return
    for count in range(1, len(shape) + 1):
        for axes in itertools.combinations(range(len(shape)), count):
            if axes != own and any(shape[a] > 1 for a in axes):
                yield axes


def _spreading(context: Context, node: Node) -> Node | None:
    """The node that repeats a sum's result to the shape of what was summed, if nothing else reads it."""
    graph, value = context.graph, node.outputs[0]
    while True:
        users = [u for u in graph.uses.get(value, []) if any(v in context.recorder.moving for v in u.outputs)]
        if len(users) != 1:
            return None
        user = users[0]
        out = graph.shape(user.outputs[0])
        if user.name == "broadcast_in_dim" and repeated_axes(user, graph.shape(value)):
            if graph.size(user.outputs[0]) > graph.size(value):
                return user
        elif user.elementwise and implicit_axes(out, graph.shape(value)):
            return user
        elif not user.elementwise and user.name not in ("broadcast_in_dim", "reshape", "squeeze"):
            return None
        value = user.outputs[0]


def _along(spread: Node, axes: tuple[int, ...], scale: float, at_target: bool) -> Override:
    """The term with its elements added up along other axes; at the target if 1/sum is put in after that."""

    def override(tape: Tape, node: Node, cts: list[np.ndarray]) -> Contributions:
        shape = tape.graph.shape(node.inputs[0])
        own = tuple(node.params["axes"])
        full = _unsummed(tape, spread)
        total = np.broadcast_to(full.sum(own, keepdims=True), shape)
        # What is between the sum and its repetition works on the sum: a factor for each of them.
        between = scale * np.expand_dims(cts[0], own)
        factor = np.where(total == 0, 0, between / np.where(total == 0, 1, total))
        weight = np.expand_dims(tape.values[node.outputs[0]], own) if at_target else np.ones(())
        parts = full * factor * weight
        moved = (np.broadcast_to(parts.sum(axes, keepdims=True), shape) if axes else parts) / weight
        return [(node.inputs[0], moved)]

    return override


def _unsummed(tape: Tape, spread: Node) -> np.ndarray:
    """The cotangent of what is repeated, before the sum that undoes the repetition."""
    ct = tape.cotangents[spread.outputs[0]]
    if spread.name == "broadcast_in_dim":
        return ct
    shape = tape.graph.shape(spread.outputs[0])
    position = next(k for k, v in enumerate(spread.inputs) if implicit_axes(shape, tape.graph.shape(v)))
    return ct * tape.slopes[spread.index, position]
