"""Where in a program a mistake can sit: single nodes, the steps of a loop together, statistics together."""

import itertools
from collections.abc import Callable, Iterator
from typing import NamedTuple

from .graph import Graph, Node, Source
from .pullbacks import implicit_axes
from .tape import Recorder

__all__ = ["Site", "Span", "loops", "sites", "spans", "statistics"]

_MOST_STEPS = 12
_LONGEST_SPAN = 16


class Site(NamedTuple):
    """Nodes that share a mistake: one, or the same in several steps of a loop."""

    nodes: tuple[Node, ...]
    which: str = ""

    @property
    def first(self) -> Node:
        """One for all."""
        return self.nodes[0]

    @property
    def source(self) -> Source | None:
        """The user's line."""
        return self.first.source


class Span(NamedTuple):
    """An elementwise function out of several nodes: all that leads from `x` to `y`."""

    x: int
    y: int
    nodes: tuple[Node, ...]


def sites(recorder: Recorder) -> list[Site]:
    """All places for a mistake, those next to the output first; loops as a whole before their steps."""
    repeated = loops(recorder.active)
    looped = {node.index for loop in repeated for node in loop}
    whole = [Site(tuple(loop), " in every step") for loop in repeated]
    single = [Site((node,)) for node in reversed(recorder.active) if node.index not in looped]
    return single + whole + [site for loop in repeated for site in _partly(loop)]


def _partly(loop: list[Node]) -> Iterator[Site]:
    yield Site(tuple(loop[1:]), " in every step but the first")
    yield Site(tuple(loop[:-1]), " in every step but the last")
    steps = range(len(loop))
    if len(loop) > _MOST_STEPS:
        steps = [*steps[: _MOST_STEPS // 2], *steps[-_MOST_STEPS // 2 :]]
    for step in steps:
        yield Site((loop[step],), f" in step {step}")


def loops(nodes: list[Node]) -> list[list[Node]]:
    """Nodes that repeat: of one line, in a period, whether an unrolled scan or a loop in Python."""
    by_line: dict[Source | None, list[Node]] = {}
    for node in nodes:
        by_line.setdefault(node.source, []).append(node)
    found = []
    for source, group in by_line.items():
        names = [node.name for node in group]
        period = next(
            (p for p in range(1, len(names) // 2 + 1) if len(names) % p == 0 and _has_period(names, p)), 0
        )
        if source is not None and period:
            found += [group[start::period] for start in range(period)]
    return found


def _has_period(names: list[str], period: int) -> bool:
    return all(a == b for a, b in zip(names, names[period:], strict=False))


def spans(recorder: Recorder) -> list[Span]:
    """Elementwise functions of one value that are made of several nodes, the shortest first."""
    found = []
    for node in recorder.active:
        if _flat(recorder, node):
            found += _spans_to(recorder, node)
    return sorted(found, key=lambda span: len(span.nodes))


def _flat(recorder: Recorder, node: Node) -> bool:
    """Whether a node is elementwise, and none of its moving operands is broadcast."""
    if not node.elementwise and node.name != "select_n":
        return False
    graph = recorder.graph
    shape = graph.shape(node.outputs[0])
    return all(graph.shape(v) == shape for v in node.inputs if v in recorder.moving)


def _spans_to(recorder: Recorder, last: Node) -> Iterator[Span]:
    graph = recorder.graph
    open_values, inside = {last.outputs[0]}, []
    while len(inside) < _LONGEST_SPAN:
        latest = max(open_values)
        node = graph.producer.get(latest)
        if node is None or not _flat(recorder, node):
            return
        open_values.discard(latest)
        open_values.update(v for v in node.inputs if v in recorder.moving)
        inside.append(node)
        if len(open_values) == 1:
            yield Span(next(iter(open_values)), last.outputs[0], tuple(inside))


def statistics(recorder: Recorder, matters: Callable[[Node], bool]) -> list[tuple[Node, ...]]:
    """Groups of reductions whose results go back to the elements: means, variances, maxima, norms."""
    found = [node for node in recorder.active if _is_statistic(recorder.graph, node) and matters(node)]
    if len(found) <= 6:
        groups = [c for n in range(2, len(found) + 1) for c in itertools.combinations(found, n)]
    else:
        by_function: dict[object, list[Node]] = {}
        for node in found:
            by_function.setdefault(node.source and node.source.function, []).append(node)
        windows = [tuple(found[i : i + n]) for n in (2, 3, 4) for i in range(len(found) - n + 1)]
        groups = [*windows, *map(tuple, by_function.values()), tuple(found)]
    groups += [(node,) for node in found]
    return sorted(dict.fromkeys(groups), key=len, reverse=True)


def _is_statistic(graph: Graph, node: Node) -> bool:
    if node.name not in ("reduce_sum", "reduce_max", "reduce_min"):
        return False
    pending, seen = [node.outputs[0]], set()
    while pending:
        value = pending.pop()
        for use in graph.uses.get(value, []):
            if _enlarges(graph, use, value):
                return True
            quiet = use.elementwise or use.name in ("broadcast_in_dim", "reshape", "squeeze", "select_n")
            if quiet and use.index not in seen:
                seen.add(use.index)
                pending += use.outputs
    return False


def _enlarges(graph: Graph, use: Node, value: int) -> bool:
    if use.name == "broadcast_in_dim":
        return graph.size(use.outputs[0]) > graph.size(value)
    return use.elementwise and bool(implicit_axes(graph.shape(use.outputs[0]), graph.shape(value)))
