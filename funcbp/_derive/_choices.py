"""Comparisons, choices between values, and the constants that they are made of."""

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from ._algebra import IDENTITY, add, constant, hadamard, identity, ones, scale, split, zero
from ._nodes import ADD, CONTRACTION, Node, Operation, intern
from ._predicates import constant_value, is_view, is_zero
from ._scalars import ONE, Dimension, Scalar, scalar_of_dimension

__all__ = ["IOTA", "compare", "extreme", "iota", "number", "select"]


class _Number(Operation):
    """An infinity or NaN."""

    name = "number"
    elementwise = True

    def show(self, node, writer, /):
        infinite = {"inf": ("∞", r"\infty"), "-inf": ("(−∞)", r"(-\infty)")}
        shown = infinite.get(str(node.data), ("NaN", r"\mathrm{NaN}"))
        return writer.atom(writer.pick(*shown))

    def python(self, node: Node, _arguments: Sequence[str], /) -> str:
        return {"inf": "jnp.inf", "-inf": "-jnp.inf"}.get(str(node.data), "jnp.nan")


NUMBER = _Number()


def number(value: float) -> Node:
    """A scalar that is not finite."""
    return intern(NUMBER, (), str(value), ())


class _Iota(Operation):
    """0, 1, 2, ... along an axis."""

    name = "iota"

    def show(self, _node, writer, /):
        return writer.counting()

    def python(self, node: Node, _arguments: Sequence[str], /) -> str:
        return f"jnp.arange({scalar_of_dimension(node.shape[0]).spelled()})"


IOTA = _Iota()


def iota(size: Dimension) -> Node:
    """The vector 0, 1, ..., size - 1."""
    return intern(IOTA, (), None, (size,))


_PYTHON_RELATION = {"=": "==", "≠": "!=", "≥": ">=", "≤": "<="}
_LATEX_RELATION = {"≠": r"\neq", "≥": r"\geq", "≤": r"\leq"}
_OPPOSITE = {"=": "≠", "≠": "=", "≥": "<", "≤": ">", ">": "≤", "<": "≥"}


class _Compare(Operation):
    """1 where a relation holds, 0 elsewhere: [x > y]."""

    name = "comparison"
    elementwise = True
    constant = True

    def show(self, node, writer, /):
        left, right = (_index_name(a, writer) or writer.operand(a) for a in node.args)
        relation = writer.pick(node.data, _LATEX_RELATION.get(node.data, node.data))
        return writer.atom(f"[{left} {relation} {right}]")

    def python(self, node: Node, arguments: Sequence[str], /) -> str:
        return f"jnp.where({self.condition(node, arguments)}, 1.0, 0.0)"

    def condition(self, node: Node, arguments: Sequence[str]) -> str:
        """As a Boolean expression."""
        return f"{arguments[0]} {_PYTHON_RELATION.get(node.data, node.data)} {arguments[1]}"


def _index_name(node: Node, writer: Any) -> str:
    """The row or column number, as i or j."""
    if node.rank == 2 and is_view(node) and node.args[0].op is IOTA and not writer.by_element:
        return "ij"[node.data[1][0][0]]
    return ""


COMPARE = _Compare()


def compare(relation: str, x: Node, y: Node) -> Node:
    """The indicator of `x relation y`; equal row and column numbers give the identity."""
    a, b = constant_value(x), constant_value(y)
    if a is not None and b is not None:
        truth = _compare_scalars(relation, a, b)
        if truth is not None:
            return constant(int(truth), x.shape)
    if relation == "=" and len(x.shape) == 2 and x.shape[0] == x.shape[1]:
        axes = [
            n.data[1]
            for n in (x, y)
            if n.args and split(n)[0] == ONE and len(n.args) == 1 and n.args[0].op is IOTA
        ]
        if len(axes) == 2 and {axes[0][0], axes[1][0]} == {(0,), (1,)}:
            return identity(x.shape[0])
    return intern(COMPARE, (x, y), relation, x.shape)


def _compare_scalars(relation: str, a: Scalar, b: Scalar) -> bool | None:
    try:
        difference = a.plus(-b)
    except ValueError:
        return None
    if difference.powers and relation in ("=", "≠"):
        return relation == "≠"
    n = difference.number
    return {"=": n == 0, "≠": n != 0, "≥": n >= 0, "≤": n <= 0, ">": n > 0, "<": n < 0}[relation]


class _Select(Operation):
    """Where a condition holds one value, elsewhere another."""

    name = "where"
    rule = "where: each branch on its own side"
    elementwise = True

    def differential(self, node: Node, index: int, tangent: Node, /) -> Node:
        mask = node.args[0]
        if index == 0:
            return zero(node.shape)
        return hadamard(mask if index == 1 else _complement(mask), tangent)

    def show(self, node, writer, /):
        return writer.function(writer.pick("where", r"\operatorname{where}"), node.args)

    def python(self, _node: Node, arguments: Sequence[str], /) -> str:
        return f"jnp.where({', '.join(arguments)})"


def _complement(mask: Node) -> Node:
    """1 where the mask is 0."""
    if mask.op is COMPARE:
        return intern(COMPARE, mask.args, _OPPOSITE[mask.data], mask.shape)
    return add(ones(mask.shape), scale(-1, mask))


SELECT = _Select()


def select(mask: Node, yes: Node, no: Node) -> Node:
    """`jnp.where(mask, yes, no)`."""
    value = constant_value(mask)
    if value is not None:
        return yes if value.number else no
    if yes is no:
        return yes
    if mask.op is IDENTITY and is_zero(no):
        return hadamard(mask, yes)
    return intern(SELECT, (mask, yes, no), None, yes.shape)


class _Extreme(Operation):
    """The larger (smaller) of two; where they are equal JAX gives half of the derivative to each."""

    elementwise = True
    rule = "max, min: to the larger (smaller) one, half each where equal"

    def __init__(self, name: str, relation: str) -> None:
        self.name, self.relation = name, relation

    def differential(self, node: Node, index: int, tangent: Node, /) -> Node:
        x, y = node.args if index == 0 else node.args[::-1]
        return hadamard(add(compare(self.relation, x, y), scale(Fraction(1, 2), _equal(x, y))), tangent)

    def show(self, node, writer, /):
        return writer.function(writer.pick(self.name, "\\" + self.name), node.args)

    def python(self, _node: Node, arguments: Sequence[str], /) -> str:
        return f"jnp.{self.name}imum({', '.join(arguments)})"


def _equal(x: Node, y: Node) -> Node:
    return intern(COMPARE, (x, y), "=", x.shape)


_EXTREMES = {"max": _Extreme("max", ">"), "min": _Extreme("min", "<")}


def extreme(name: str, x: Node, y: Node) -> Node:
    """`max` or `min` of two nodes, element by element."""
    for a, b in ((x, y), (y, x)):
        if a.variables == frozenset() and _is_infinity(a, "-inf" if name == "max" else "inf"):
            return b
    return intern(_EXTREMES[name], (x, y), None, x.shape)


def _is_infinity(node: Node, which: str) -> bool:
    inner = node.args[0] if len(node.args) == 1 and split(node)[0] == ONE else node
    return inner.op is NUMBER and inner.data == which


def untyped(node: Node) -> bool:
    """Whether it is made of numbers and comparisons alone, so that no argument gives its code a dtype."""
    if node.op is COMPARE or node.op is IDENTITY:
        return True
    if node.op is SELECT:
        return all(map(untyped, node.args[1:]))
    return node.op in (ADD, CONTRACTION) and all(map(untyped, node.args))
