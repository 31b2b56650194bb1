"""Mistakes that are the right gradient of other arguments: a weight ignored, a matrix not transposed.

The formula is right, and one of its ingredients is not: gamma is taken for one everywhere, b for zero, a mask
for all true, A for its transpose, u for v, a constant like ε or a temperature for zero or one. Each is the
reference's own gradient with that ingredient replaced.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .._problem import Leaf
from .._report import Cause
from .graph import Graph, Source

__all__ = ["Substitution", "own_literals", "substitutions"]

_MOST_PAIRS = 24
_MOST_NUMBERS = 24

Values = tuple[Any, ...]


@dataclass(frozen=True, eq=False)
class Substitution:
    """The reference's gradient with an ingredient replaced; the other fields are those of a mutant.

    Attributes:
        cause: what kind of mistake.
        text: what is wrong and what to change.
        rank: how far-fetched.
        values: from the leaves' values to those that the mistake takes.
        numbers: literals of the program that it takes for other numbers, by value.
        forced: predicates that it takes for always false (0) or always true (1), by value.
        source: the line that it belongs to.
        alternatives: what it may be called as well.
    """

    cause: Cause
    text: str
    rank: int
    values: Callable[[Values], Values] = lambda values: values
    numbers: Mapping[int, float] = field(default_factory=dict)
    forced: Mapping[int, int] = field(default_factory=dict)
    source: Source | None = None
    alternatives: tuple[Cause, ...] = ()
    path: None = None


def substitutions(leaves: Sequence[Leaf], graph: Graph) -> Iterator[Substitution]:
    """All of them; what changes nothing at the probes explains nothing, and does no harm."""
    for i, leaf in enumerate(leaves):
        if leaf.kind in ("floating", "complex"):
            yield from _constants(i, leaf)
            yield from _matrices(i, leaf)
            yield from _moved(i, leaf)
        elif leaf.kind == "boolean":
            yield from _masks(i, leaf)
        elif leaf.kind == "integer":
            yield from _counts(i, leaf)
    yield from _exchanged(leaves)
    yield from _literals(graph)
    yield from _predicates(graph)


def _of_leaf(index: int, of: Callable[[np.ndarray], np.ndarray]) -> Callable[[Values], Values]:
    def replaced(values: Values) -> Values:
        x = np.asarray(values[index])
        return (*values[:index], np.asarray(of(x), x.dtype), *values[index + 1 :])

    return replaced


def _constants(i: int, leaf: Leaf) -> Iterator[Substitution]:
    name, missing = leaf.name, Cause.FACTOR_MISSING
    text = f"as if {name} were one; the factor {name} is missing"
    yield Substitution(missing, text, 2, _of_leaf(i, np.ones_like))
    text = f"as if {name} were zero; the term with {name} is missing"
    yield Substitution(Cause.TERM_MISSING, text, 3, _of_leaf(i, np.zeros_like))
    text = f"as if {name} were minus what it is; the sign of {name} is wrong"
    yield Substitution(Cause.SIGN, text, 4, _of_leaf(i, np.negative))
    for text, of in (
        (f"as if {name} were squared; take it once", np.square),
        (f"as if {name} were its own inverse; {name} and 1/{name} are confused", lambda x: 1 / x),
        (f"as if {name} were its square root; take {name} itself", np.sqrt),
    ):
        yield Substitution(missing, text, 5, _of_leaf(i, of), alternatives=(Cause.WRONG_POINT,))


def _matrices(i: int, leaf: Leaf) -> Iterator[Substitution]:
    shape = np.shape(leaf.value)
    if len(shape) >= 2 and shape[-1] == shape[-2] > 1:
        text = f"made with {leaf.name} where its transpose belongs; transpose it"
        turned = _of_leaf(i, lambda x: np.swapaxes(x, -1, -2))
        yield Substitution(Cause.TRANSPOSE_FORGOTTEN, text, 2, turned, alternatives=(Cause.TRANSPOSED,))


def _moved(i: int, leaf: Leaf) -> Iterator[Substitution]:
    for axis, n in enumerate(np.shape(leaf.value)):
        if n < 2:
            continue
        for step, word in ((1, "before"), (-1, "after")):
            text = f"made with the element of {leaf.name} one {word} along axis {axis}; take its own"
            moved = _of_leaf(i, lambda x, s=step, a=axis: np.roll(x, s, a))
            yield Substitution(Cause.OFF_BY_ONE, text, 4, moved)
        text = f"made with {leaf.name} reversed along axis {axis}; take it in its order"
        yield Substitution(Cause.PERMUTED, text, 4, _of_leaf(i, lambda x, a=axis: np.flip(x, a)))


def _masks(i: int, leaf: Leaf) -> Iterator[Substitution]:
    name = leaf.name
    for rank, text, of in (
        (2, f"as if {name} were true everywhere; apply it", np.ones_like),
        (4, f"as if {name} were false everywhere; what it lets through is missing", np.zeros_like),
        (3, f"made with {name} inverted; turn it around", np.logical_not),
    ):
        yield Substitution(Cause.FACTOR_MISSING, text, rank, _of_leaf(i, of), alternatives=(Cause.REGION,))


def _counts(i: int, leaf: Leaf) -> Iterator[Substitution]:
    for step in (1, -1):
        text = f"made with {leaf.name} {'+' if step > 0 else '-'} 1; take it as it is"
        yield Substitution(Cause.OFF_BY_ONE, text, 3, _of_leaf(i, lambda x, s=step: x + s))
    text = f"as if {leaf.name} were one; the factor {leaf.name} is missing"
    yield Substitution(Cause.FACTOR_MISSING, text, 3, _of_leaf(i, np.ones_like))


def _exchanged(leaves: Sequence[Leaf]) -> Iterator[Substitution]:
    alike = [
        (i, j)
        for i, x in enumerate(leaves)
        for j, y in enumerate(leaves)
        if i != j and x.kind == y.kind != "key" and np.shape(x.value) == np.shape(y.value)
    ]
    for i, j in alike[:_MOST_PAIRS]:
        first, second = leaves[i].name, leaves[j].name
        text = f"made with {second} in place of {first}"
        yield Substitution(
            Cause.SWAPPED,
            text,
            4,
            lambda v, i=i, j=j: (*v[:i], v[j], *v[i + 1 :]),
            alternatives=(Cause.WRONG_POINT,),
        )
        if i < j:
            text = f"made with {first} and {second} exchanged; exchange them back"
            yield Substitution(Cause.SWAPPED, text, 3, lambda v, i=i, j=j: _swapped(v, i, j))


def _swapped(values: Values, i: int, j: int) -> Values:
    whole = list(values)
    whole[i], whole[j] = whole[j], whole[i]
    return tuple(whole)


def _literals(graph: Graph) -> Iterator[Substitution]:
    """Literals of the user's own lines that are left out: ε, a temperature, a share of label smoothing."""
    for value, number in list(own_literals(graph).items())[:_MOST_NUMBERS]:
        node = graph.uses[value][0]
        multiplies = node.name in ("mul", "div")
        for replaced in (1.0, 0.0) if multiplies else (0.0, 1.0):
            if number == replaced:
                continue
            neutral = replaced == (1.0 if multiplies else 0.0)
            text = f"as if the {number:.6g} of the {node.name} were {replaced:.0f}; put it in"
            yield Substitution(
                Cause.CONSTANT_FACTOR if multiplies and neutral else Cause.TERM_MISSING,
                text,
                4 if neutral else 5,
                numbers={value: replaced},
                source=node.source,
                alternatives=(Cause.WRONG_POINT,),
            )


def own_literals(graph: Graph) -> dict[int, float]:
    """Scalar floating constants that the program computes with, by value."""
    return {
        v: float(np.asarray(x).real)
        for v, x in graph.constants.items()
        if v in graph.adjustable and v in graph.uses and graph.uses[v][0].source is not None
    }


def _predicates(graph: Graph) -> Iterator[Substitution]:
    """Conditions inside of the program that are ignored."""
    for value in graph.predicates:
        node = next(n for n in graph.uses[value] if n.name == "select_n")
        masks = any(v in graph.fixed for v in node.inputs[1:])
        causes = (Cause.FACTOR_MISSING, Cause.REGION) if masks else (Cause.REGION, Cause.FACTOR_MISSING)
        for side, word in ((1, "true"), (0, "false")):
            text = f"as if the condition of `where` were always {word}; apply it"
            yield Substitution(
                causes[0],
                text,
                4,
                forced={value: side},
                source=node.source,
                alternatives=causes[1:],
            )
