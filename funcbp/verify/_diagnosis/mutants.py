"""What a mutant is, and how one operand's share of a pullback is changed."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from .._report import Cause
from .graph import Node, Source
from .sites import Site
from .tape import Contributions, Override, Recorder, Tape

__all__ = ["Change", "Context", "Edge", "Mutant", "Pulled", "dropped", "edges"]

_WORDS = {
    "add": "sum",
    "add_any": "sum",
    "broadcast_in_dim": "broadcast",
    "conv_general_dilated": "convolution",
    "cumsum": "cumulative sum",
    "custom_jvp_call": "activation",
    "div": "quotient",
    "dot_general": "matrix product",
    "integer_pow": "power",
    "logistic": "sigmoid",
    "max": "maximum",
    "min": "minimum",
    "mul": "product",
    "neg": "minus",
    "pow": "power",
    "reduce_max": "maximum",
    "reduce_min": "minimum",
    "reduce_sum": "sum",
    "select_n": "where",
    "sub": "difference",
}
_POSITIONS = ("first", "second", "third", "fourth")


@dataclass(frozen=True, eq=False)
class Mutant:
    """The reference's backward pass with one human mistake.

    Attributes:
        cause: what kind of mistake.
        text: what is wrong and what to change.
        rank: how far-fetched; the lowest are tried first.
        overrides: the changed pullbacks, by node.
        source: the line that it belongs to.
        alternatives: what it may be called as well.
        path: in words, of the path that is dropped, for a mutant that drops one; its factor may be any other.
    """

    cause: Cause
    text: str
    rank: int
    overrides: Mapping[int, Override]
    source: Source | None
    alternatives: tuple[Cause, ...] = ()
    path: str | None = None


@dataclass(frozen=True)
class Edge:
    """An operand of the nodes of a site that moves in one of them at least."""

    site: Site
    position: int

    @property
    def node(self) -> Node:
        """One node for all."""
        return self.site.first

    @property
    def value(self) -> int:
        """The operand."""
        return self.node.inputs[self.position]

    def order(self, node: Node, recorder: Recorder) -> int | None:
        """Its place among the moving operands of a node; None where it does not move."""
        moving = [k for k, v in enumerate(node.inputs) if v in recorder.moving]
        return moving.index(self.position) if self.position in moving else None


class Pulled(NamedTuple):
    """One operand's share of a pullback, as it is right.

    Attributes:
        tape: the recorded run.
        node: the operation.
        edge: which operand.
        ct: the cotangent of the result.
        share: the right cotangent of the operand.
    """

    tape: Tape
    node: Node
    edge: Edge
    ct: np.ndarray
    share: np.ndarray

    @property
    def slope(self) -> np.ndarray:
        """The local derivative of an elementwise operation."""
        return self.tape.slopes[self.node.index, self.edge.position]

    def operand(self, position: int) -> np.ndarray:
        """An operand's value; the result's for -1."""
        return self.tape.values[self.node.outputs[0] if position < 0 else self.node.inputs[position]]

    def share_of(self, ct: np.ndarray) -> np.ndarray:
        """The operand's share for another cotangent of the result."""
        return self.share_with([ct])

    def share_with(
        self, cts: Sequence[np.ndarray], values: Mapping[int, np.ndarray] | None = None
    ) -> np.ndarray:
        """The same where some operands have other values."""
        order = self.edge.order(self.node, self.tape.recorder)
        return self.tape.pull(self.node, cts, values)[order or 0][1]


# The share that a mistake makes of the right one; None where it is dropped.
Change = Callable[[Pulled], np.ndarray | None]


def edges(site: Site, recorder: Recorder) -> Iterator[Edge]:
    """The moving operands of a site."""
    for position in range(len(site.first.inputs)):
        if any(node.inputs[position] in recorder.moving for node in site.nodes):
            yield Edge(site, position)


def dropped(_: Pulled) -> None:
    """No share at all."""


class Context:
    """What the mistakes look at: the recorder, names of arguments, and one run for values to guess by."""

    def __init__(self, recorder: Recorder, tape: Tape, names: Mapping[int, str]) -> None:
        self.recorder, self.tape, self.names = recorder, tape, names
        self.graph = recorder.graph

    def mutant(
        self, edge: Edge, cause: Cause, rank: int, text: str, change: Change, *alternatives: Cause
    ) -> Mutant:
        """A mutant that changes one operand's share; `{it}` in the text is that operand."""
        shown = self._shown(edge)
        # The whole of a loop is likelier than one of its steps.
        if edge.site.which not in ("", " in every step"):
            rank, alternatives = rank + 1, (*alternatives, Cause.OFF_BY_ONE)
        overrides = {node.index: _override(edge, change) for node in edge.site.nodes}
        path = f"the term that goes through {shown}" if change is dropped else None
        return Mutant(cause, text.format(it=shown), rank, overrides, self._source(edge), alternatives, path)

    def _source(self, edge: Edge) -> Source | None:
        """The line of a term rather than that of the sum it is in."""
        producer = self.graph.producer.get(edge.value)
        if edge.node.name in ("add", "add_any", "sub") and producer is not None and producer.source:
            return producer.source
        return edge.site.source

    def _shown(self, edge: Edge) -> str:
        word = _WORDS.get(edge.node.name, edge.node.name.replace("_", " "))
        name = self.names.get(edge.value)
        if name is None:
            single = len(edge.node.inputs) == 1
            name = "the operand" if single else f"the {_POSITIONS[min(edge.position, 3)]} operand"
            return f"{name} of the {word}{edge.site.which}"
        return f"{name} in the {word}{edge.site.which}"


def _override(edge: Edge, change: Change) -> Override:
    def override(tape: Tape, node: Node, cts: list[np.ndarray]) -> Contributions:
        sent = tape.pull(node, cts)
        order = edge.order(node, tape.recorder)
        if order is not None and order < len(sent):
            value, right = sent[order]
            changed = change(Pulled(tape, node, edge, cts[0], right))
            sent[order : order + 1] = (
                [] if changed is None else [(value, np.asarray(changed).reshape(right.shape))]
            )
        return sent

    return override
