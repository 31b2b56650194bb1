"""A statistic's term over the wrong axis: p (g - sum(p g)) with the sum along columns, or with none at all."""

import itertools
from collections.abc import Iterator

import numpy as np

from .._report import Cause
from .graph import Node
from .mutants import Context, Mutant
from .pullbacks import implicit_axes, repeated_axes
from .tape import Contributions, Override, Tape

__all__ = ["over_other_axes"]


def over_other_axes(context: Context) -> Iterator[Mutant]:
    """Sums that are spread over their axes again: the term through each of them, along other axes."""
    for node in context.recorder.active:
        if node.name != "reduce_sum":
            continue
        spread = _spreading(context, node)
        shape = context.graph.shape(node.inputs[0])
        own = tuple(node.params["axes"])
        if spread is None or context.graph.shape(spread.outputs[0]) != shape:
            continue
        where = " and ".join(map(str, own))
        for axes in _others(shape, own):
            over = (
                f"over axis {' and '.join(map(str, axes))}" if axes else "over no axis, element by element,"
            )
            text = f"the term that goes through the sum over axis {where} is taken {over} instead"
            cause = Cause.REDUCTION if axes else Cause.TERM_MISSING
            override = _along(spread, axes)
            yield Mutant(cause, text, 3, {node.index: override}, node.source, (Cause.STATISTICS,))


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
            return user if graph.size(user.outputs[0]) > graph.size(value) else None
        if user.elementwise and implicit_axes(out, graph.shape(value)):
            return user
        if not user.elementwise and user.name not in ("broadcast_in_dim", "reshape", "squeeze"):
            return None
        value = user.outputs[0]


def _along(spread: Node, axes: tuple[int, ...]) -> Override:
    """The term with its elements added up along other axes."""

    def override(tape: Tape, node: Node, cts: list[np.ndarray]) -> Contributions:
        shape = tape.graph.shape(node.inputs[0])
        own = tuple(node.params["axes"])
        full = _unsummed(tape, spread)
        total = np.broadcast_to(full.sum(own, keepdims=True), shape)
        # What is between the sum and its repetition works on the sum: a factor for each of them.
        between = np.expand_dims(cts[0], own)
        factor = np.where(total == 0, 0, between / np.where(total == 0, 1, total))
        moved = np.broadcast_to((full * factor).sum(axes, keepdims=True), shape) if axes else full * factor
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
