"""Slips of the pen: what a line of a derivation becomes when a person makes one mistake in it."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from ._algebra import POWER, Factor, add, contraction, factors_of, permute, power, scale
from ._differentiate import remade
from ._functions import _Prime
from ._nodes import ADD, CONTRACTION, VARIABLE, Node, intern
from ._predicates import is_zero
from ._scalars import ONE, Scalar, scalar_of_dimension

__all__ = ["Kind", "Slip", "slips", "without_a_factor"]

Kind = Literal["sign", "term", "factor", "constant", "transpose", "point", "sum", "other"]
Show = Callable[[Node], str]


@dataclass(frozen=True)
class Slip:
    """A line with one mistake.

    Attributes:
        kind: of mistake.
        text: what is wrong, as `the factor Xᵀ is missing`.
        value: the right side with the mistake.
    """

    kind: Kind
    text: str
    value: Node


def slips(node: Node, others: Sequence[Node], show: Show) -> Iterator[Slip]:
    """Every mistake in an expression, those in its outermost product first.

    Args:
        node: the right side of a line.
        others: names that may be mistaken for each other.
        show: writes an expression.
    """
    if is_zero(node):
        return
    if node.op is ADD:
        yield from _in_sum(node, show)
    elif node.op is CONTRACTION:
        yield from _in_product(node, show)
    yield from _in_place(node, others, show)
    for k, argument in enumerate(node.args):
        for slip in slips(argument, others, show):
            args = [slip.value if j == k else a for j, a in enumerate(node.args)]
            yield Slip(slip.kind, slip.text, remade(node, args))


def _in_sum(node: Node, show: Show) -> Iterator[Slip]:
    for k, term in enumerate(node.args):
        rest = [*node.args[:k], *node.args[k + 1 :]]
        shown = _bare(show(term))
        yield Slip("term", f"the term {shown} is missing", add(*rest))
        yield Slip("sign", f"the sign of {shown} is wrong", add(*rest, scale(-1, term)))


def _in_product(node: Node, show: Show) -> Iterator[Slip]:
    coefficient, factors, out = factors_of(node)
    sizes = dict(zip(out, node.shape, strict=True))

    def again(scalar: Scalar, parts: Sequence[Factor]) -> Node:
        return contraction(scalar, parts, out, sizes)

    for k, (factor, labels) in enumerate(factors):
        rest = [*factors[:k], *factors[k + 1 :]]
        within = {x for _, ls in rest for x in ls} | set(out)
        if set(labels) <= within:
            circle = "⊙ " if set(labels) <= set(out) and len(labels) == len(out) > 0 else "factor "
            yield Slip("factor", f"the {circle}{show(factor)} is missing", again(coefficient, rest))
            twice = [*factors, (factor, labels)]
            yield Slip("factor", f"the {circle}{show(factor)} is there twice", again(coefficient, twice))
        if len(labels) == 2 and factor.shape[0] == factor.shape[1] and labels[0] != labels[1]:
            text = f"{show(factor)} and {show(permute(factor, (1, 0)))} are mistaken for each other"
            turned = [*factors[:k], (factor, labels[::-1]), *factors[k + 1 :]]
            yield Slip("transpose", text, again(coefficient, turned))
            if sum(other is factor for other, _ in factors) > 1:
                turned = [(f, ls[::-1] if f is factor else ls) for f, ls in factors]
                yield Slip("transpose", text, again(coefficient, turned))
    yield from _constants(node, coefficient, show, lambda scalar: again(scalar, factors))
    summed = {k: d for f, ls in factors for k, d in zip(ls, f.shape, strict=True) if k not in out}
    for dimension in dict.fromkeys(summed.values()):
        mean = coefficient / scalar_of_dimension(dimension)
        text = f"a mean over {dimension} stands where the sum must"
        yield Slip("sum", text, again(mean, factors))


def without_a_factor(node: Node) -> Iterator[Node]:
    """A product without each of its factors that it can do without."""
    for slip in _in_product(node, lambda _: ""):
        if slip.kind == "factor" and slip.text.endswith("missing"):
            yield slip.value


def _bare(shown: str) -> str:
    """A term without its sign and the parentheses around it."""
    depth = 0
    for k, character in enumerate(shown):
        depth += (character == "(") - (character == ")")
        if not depth and k < len(shown) - 1:
            return shown.removeprefix("−")
    return shown[1:-1].removeprefix("−")


def _constants(
    node: Node, coefficient: Scalar, show: Show, again: Callable[[Scalar], Node]
) -> Iterator[Slip]:
    number, sizes = Scalar(coefficient.number), Scalar(Fraction(1), coefficient.powers)
    parts = dict.fromkeys((coefficient, number, sizes, Scalar(abs(coefficient.number))))
    for part in parts:
        if part in (ONE, -ONE):
            continue
        shown = show(scale(part, _one())).strip("()")
        yield Slip("constant", f"the factor {shown} is missing", again(coefficient / part))
        yield Slip("constant", f"the factor {shown} is there twice", again(coefficient * part))
    for factor in (2, Fraction(1, 2)):
        text = f"it is {'twice' if factor == 2 else 'half of'} what it must be"
        yield Slip("constant", text, again(coefficient * Scalar(Fraction(factor))))
    yield Slip("sign", f"the sign of {_bare(show(node))} is wrong", again(-coefficient))


def _one() -> Node:
    return contraction(ONE, [], (), {})


def _in_place(node: Node, others: Sequence[Node], show: Show) -> Iterator[Slip]:
    """Something else of the same shape instead."""
    instead: list[Node] = []
    if node.op is VARIABLE:
        instead = [o for o in others if o is not node and o.shape == node.shape]
    elif isinstance(node.op, _Prime):
        (x,) = node.args
        value = intern(node.op.function, (x,), None, x.shape)
        at_input = node.op.function.derivative(x, x)
        instead = [value, intern(node.op, (value,), None, x.shape), at_input, x]
    elif node.op is POWER:
        instead = [
            power(node.args[0], e) for e in dict.fromkeys((node.data + 1, node.data - 1, -node.data)) if e
        ]
    for other in instead:
        kind = "other" if node.op is VARIABLE else "point"
        yield Slip(kind, f"{show(other)} stands where {show(node)} must", other)
