"""Lines of a derivation, and how a differential becomes two of them."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from ._algebra import add, factors_of
from ._differentiate import differential, one, pull, rebuild, tidy
from ._functions import Function
from ._index import IndexWriter
from ._matrix import NoMatrixFormError
from ._names import Delta
from ._nodes import ADD, CONTRACTION, VARIABLE, Node, topological, variable
from ._notation import DIFFERENTIAL, PRODUCT, Writer, name_of
from ._predicates import is_view

__all__ = ["Line", "Notation", "delta_line", "differential_of", "differential_reason", "differentiated_lines"]


@dataclass(frozen=True)
class Line:
    """`left = right`, and why.

    Attributes:
        left: empty where it continues the line before.
        right: what it equals.
        reason: the rule, in a few words.
        boxed: whether it is a result.
    """

    left: str
    right: str
    reason: str = ""
    boxed: bool = False


class Notation:
    """Writes nodes as matrices where that is possible, else by their elements.

    Args:
        mode: `text` or `latex`.
        aliases: names for values that have one.
    """

    def __init__(self, mode: str, aliases: Mapping[Node, Node]) -> None:
        self.mode, self.aliases = mode, dict(aliases)
        self.matrix = Writer(mode)

    def named(self, node: Node) -> Node:
        """The node with aliases put in, as q for σ(p)."""
        return rebuild(node, self.aliases) if self.aliases else node

    def equation(self, name: str, node: Node) -> tuple[str, str]:
        """Both sides of `name = node`."""
        node = self.named(node)
        try:
            return name_of(name, self.mode), self.matrix.write(node)
        except NoMatrixFormError:
            writer = IndexWriter(self.mode)
            letters = writer.letters(node.rank)
            return writer.subscripted(name_of(name, self.mode), letters), writer.element(node, letters)

    def paired(self, cotangent: Node | None, node: Node) -> str:
        """`cotangent : node`; without a cotangent the node itself."""
        node = self.named(node)
        try:
            if cotangent is None:
                return self.matrix.write(node)
            cotangent = self.named(cotangent)
            if node.rank == 0:
                return f"{self.matrix.write(cotangent, PRODUCT)} {self.matrix.write(node, PRODUCT)}"
            return f"{self.matrix.write(cotangent, PRODUCT)} : {self.matrix.write(node, PRODUCT)}"
        except NoMatrixFormError:
            writer = IndexWriter(self.mode)
            if cotangent is None:
                return writer.element(node, ())
            letters = writer.letters(node.rank)
            left, right = (writer.element(n, letters, PRODUCT) for n in (self.named(cotangent), node))
            return f"{writer._sigma(letters)} {left} {right}"


def differential_of(name: str, like: Node) -> Node:
    return variable(DIFFERENTIAL + name, like.shape)


def differentiated_lines(
    live_names: frozenset[str],
    notation: Notation,
    symbols: Mapping[str, Node],
    name: str,
    value: Node,
    cotangent: Node | None,
) -> list[Line]:
    """Two lines: the differential, and everything moved to the other side of the product."""
    live = [v for v in symbols if v in live_names and v in value.variables]
    tangents = {v: differential_of(v, symbols[v]) for v in live}
    own = name_of(DIFFERENTIAL + name, notation.mode)
    moved = differential(value, tangents)
    if cotangent is None:
        left, first = own, notation.paired(None, moved)
    else:
        left = notation.paired(cotangent, differential_of(name, value))
        first = notation.paired(cotangent, moved)
    parts = pull(value, cotangent if cotangent is not None else one(), live_names)
    shown = [notation.paired(tidy(add(*parts[v])), tangents[v]) for v in live if v in parts]
    second = " + ".join(shown)
    why = differential_reason(value, frozenset(live))
    if cotangent is None and _bare(first).replace("ᵀ", "").replace(r"^{\top}", "") == _bare(second).replace(
        ":", ""
    ):
        return [Line(left, second, why)]
    lines = [Line(left, first, why)]
    if second and _bare(second) != _bare(first):
        lines.append(Line("", second, _moving_reason(value, frozenset(live))))
    return lines


def _bare(text: str) -> str:
    return re.sub(r"\\left|\\right|[() ]", "", text)


def delta_line(delta: Delta, notation: Notation) -> Line:
    left, right = notation.equation(delta.name, delta.value)
    names = dict.fromkeys(n for n, _ in delta.contributions)

    def formula(name: str) -> str:
        shown = name_of(name, notation.mode)
        return shown if notation.mode == "text" else f"${shown}$"

    if len(names) > 1:
        reason = f"what {' and '.join(map(formula, names))} bring is added"
    else:
        reason = f"what stands before {formula(DIFFERENTIAL + delta.of)}"
    return Line(left, right, reason)


def differential_reason(value: Node, live: frozenset[str]) -> str:
    """Which rules of differentials were used."""
    rules: list[str] = []
    for node in reversed(topological([value])):
        if not node.variables & live or node.op is VARIABLE or node.op is ADD:
            continue
        if node.op is CONTRACTION:
            if sum(bool(f.variables & live) for f in node.args) > 1:
                rules.append("product rule")
        elif node.op.name == "power":
            square = node.data == 2 and value.rank == 0
            rules.append("d‖X‖² = 2 X : dX" if square else "power rule")
        elif isinstance(node.op, Function) and node.op.prime is None and node.op.name != "exp":
            rules.append(f"d {node.op.text}: {node.op.rule}")
        elif node.op.rule:
            rules.append(node.op.rule)
    return "; ".join(dict.fromkeys(rules)) or "linear"


def _moving_reason(value: Node, live: frozenset[str]) -> str:
    """How factors came to the other side of the Frobenius product."""
    found = {"product": False, "hadamard": False, "ones": False}
    for node in topological([value]):
        if node.op is not CONTRACTION or not node.variables & live:
            if (
                node.op is not VARIABLE
                and node.op is not ADD
                and node.op.elementwise
                and node.variables & live
            ):
                found["hadamard"] = True
            continue
        _, factors, out = factors_of(node)
        for factor, labels in factors:
            if not factor.variables & live:
                continue
            others = {k for f, ls in factors if (f, ls) != (factor, labels) for k in ls}
            lone = set(labels) - others - set(out)
            found["ones"] |= bool(lone) or (is_view(node) and set(labels) < set(out))
            found["product"] |= bool((others - set(labels)) or (set(labels) & others - set(out)))
            found["hadamard"] |= bool(set(labels) & others & set(out))
    words = {
        "product": "transpose and move",
        "hadamard": "⊙ moves across :",
        "ones": "sum ↔ ones",
    }
    return "; ".join(text for key, text in words.items() if found[key])
