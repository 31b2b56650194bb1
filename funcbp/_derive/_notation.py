"""Matrix expressions as Unicode text and as LaTeX."""

from fractions import Fraction
from typing import Any

from ._algebra import POWER
from ._constants import written_number
from ._letters import DIFFERENTIAL, name_of
from ._matrix import Tree, matrix_form
from ._nodes import CONTRACTION, Node
from ._operations import INVERSE
from ._predicates import constant_value
from ._scalars import ONE, Dimension, Scalar, collected, scalar_of_dimension

__all__ = ["ATOM", "DIFFERENTIAL", "FROBENIUS", "HADAMARD", "POST", "PRODUCT", "SUM", "Writer", "name_of"]

SUM, FROBENIUS, HADAMARD, PRODUCT, POST, ATOM = range(1, 7)

_SUPERSCRIPTS = str.maketrans("0123456789-/", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻ᐟ")
_FRACTIONS = {
    Fraction(1, 2): "½",
    Fraction(1, 3): "⅓",
    Fraction(1, 4): "¼",
    Fraction(2, 3): "⅔",
    Fraction(3, 4): "¾",
}
OSLASH = r"\oslash"


class Writer:
    """Writes nodes in matrix notation.

    Args:
        mode: `text` or `latex`.
    """

    by_element = False

    def __init__(self, mode: str) -> None:
        self.mode = mode

    def pick(self, text: str, latex: str) -> str:
        """What this mode writes."""
        return text if self.mode == "text" else latex

    def write(self, node: Node, level: int = 0) -> str:
        """A node, in parentheses if it binds less tightly than `level`.

        Raises:
            NoMatrixFormError: if it has no matrix form.
        """
        return self._at(self.tree(matrix_form(node)), level)

    argument = write

    def _at(self, shown: tuple[str, int], level: int) -> str:
        text, binds = shown
        return text if binds >= level else self.parenthesized(text)

    def parenthesized(self, text: str) -> str:
        """Between parentheses that fit."""
        return self.pick(f"({text})", rf"\left({text}\right)")

    def tree(self, tree: Tree) -> tuple[str, int]:
        """A matrix expression and how tightly it binds."""
        return getattr(self, "_" + tree.kind.replace(" ", "_"))(tree)

    def sub(self, tree: Tree, level: int) -> str:
        """A part of a matrix expression."""
        return self._at(self.tree(tree), level)

    # kinds of matrix expressions

    def _leaf(self, tree: Tree) -> tuple[str, int]:
        node: Node = tree.data
        if node.op.name == "variable":
            return name_of(node.data, self.mode), ATOM
        return node.op.show(node, self)

    def _ones(self, tree: Tree) -> tuple[str, int]:
        one = self.pick("𝟏", r"\mathbf{1}")
        return (one, ATOM) if tree.rank < 2 else (f"{one} {self._raised(one, 'T')}", PRODUCT)

    def _leaf_ones(self, tree: Tree) -> tuple[str, int]:
        return self._ones(tree)

    def _product(self, tree: Tree) -> tuple[str, int]:
        return " ".join(self.sub(p, POST) for p in tree.parts), PRODUCT

    def _hadamard(self, tree: Tree) -> tuple[str, int]:
        return self.pick(" ⊙ ", r" \odot ").join(self.sub(p, POST) for p in tree.parts), HADAMARD

    def _quotient(self, tree: Tree) -> tuple[str, int]:
        top, bottom = tree.parts
        above = "1" if top.kind == "ones" else self.sub(top, POST)
        return f"{above} {self.pick('⊘', OSLASH)} {self.sub(bottom, POST)}", HADAMARD

    def _raised(self, text: str, what: str) -> str:
        if what == "T":
            return self.pick(f"{text}ᵀ", rf"{text}^{{\top}}")
        return self.pick(text + what.translate(_SUPERSCRIPTS), rf"{text}^{{{what}}}")

    def _transpose(self, tree: Tree) -> tuple[str, int]:
        (inner,) = tree.parts
        if inner.kind == "leaf" and inner.data.op is INVERSE:
            base = self.write(inner.data.args[0], ATOM)
            return self.pick(f"{base}⁻ᵀ", rf"{base}^{{-\top}}"), POST
        text, binds = self.tree(inner)
        raised = inner.kind == "leaf" and inner.data.op is POWER
        text = text if binds >= ATOM and not raised else self.parenthesized(text)
        return self._raised(text, "T"), POST

    def _diag(self, tree: Tree) -> tuple[str, int]:
        return self.call(self.pick("Diag", r"\operatorname{Diag}"), self.sub(tree.parts[0], 0))

    def _inverse_diag(self, tree: Tree) -> tuple[str, int]:
        return self._raised(self._diag(tree)[0], "-1"), POST

    def _diagonal(self, tree: Tree) -> tuple[str, int]:
        return self.call(self.pick("diag", r"\operatorname{diag}"), self.sub(tree.parts[0], 0))

    def _trace(self, tree: Tree) -> tuple[str, int]:
        return self.call(self.pick("tr", r"\operatorname{tr}"), self.sub(tree.parts[0], 0))

    def _total(self, tree: Tree) -> tuple[str, int]:
        one = self.pick("𝟏", r"\mathbf{1}")
        return f"{self._raised(one, 'T')} {self.sub(tree.parts[0], POST)} {one}", PRODUCT

    def _frobenius(self, tree: Tree) -> tuple[str, int]:
        left, right = tree.parts
        return f"{self.sub(left, PRODUCT)} : {self.sub(right, PRODUCT)}", FROBENIUS

    def _norm2(self, tree: Tree) -> tuple[str, int]:
        return self._raised(self._norm(tree), "2"), ATOM

    def _norm(self, tree: Tree) -> str:
        inside = self.sub(tree.parts[0], 0)
        return self.pick(f"‖{inside}‖", rf"\left\lVert {inside} \right\rVert")

    def _sum(self, tree: Tree) -> tuple[str, int]:
        text = ""
        for part in tree.parts:
            shown = self._in_sum(part)
            if shown.startswith(("−", "-")):
                text += (
                    f" − {shown[1:]}"
                    if text and self.mode == "text"
                    else f" - {shown[1:]}"
                    if text
                    else shown
                )
            else:
                text += f" + {shown}" if text else shown
        return text, SUM

    def _joined(self, tree: Tree) -> tuple[str, int]:
        """[x; y] one below the other, [X, Y] side by side."""
        between = ", " if tree.data == 1 else "; "
        inside = self.pick(between, between.replace(" ", r"\; ")).join(self.sub(p, 0) for p in tree.parts)
        return self.pick(f"[{inside}]", rf"\left[{inside}\right]"), ATOM

    def _in_sum(self, part: Tree) -> str:
        """A term; of a constant only the number, as in 1 − q."""
        if part.kind == "ones":
            return "1"
        if part.kind == "scale" and len(part.parts) == 1 and part.parts[0].kind in ("leaf ones", "ones"):
            return self.scalar(part.data[0]) or "1"
        return self.sub(part, FROBENIUS)

    def _scale(self, tree: Tree) -> tuple[str, int]:
        coefficient, above, below = tree.data
        scalars, divisors, body = (
            tree.parts[:above],
            tree.parts[above : above + below],
            tree.parts[above + below :],
        )
        factors = [*scalars, *body]
        if not factors and not divisors:
            return self._number(coefficient), PRODUCT
        if body and not scalars and coefficient in (ONE, -ONE):
            factor = self.tree(body[0]) if not divisors else (self.sub(body[0], POST), PRODUCT)
            text, binds = (
                factor if coefficient == ONE else (f"{self.minus}{self._at(factor, HADAMARD)}", factor[1])
            )
            binds = min(binds, PRODUCT)
        else:
            pieces = [self.sub(f, POST if len(factors) > 1 or divisors else HADAMARD) for f in factors]
            front = self.scalar(coefficient)
            text, binds = self._in_front(front, pieces), PRODUCT
        for divisor in divisors:
            text = f"{text} / {self.sub(divisor, POST)}"
        if coefficient.number < 0 and binds > FROBENIUS:
            binds = FROBENIUS
        return text, binds

    def _in_front(self, front: str, pieces: list[str]) -> str:
        if front in ("", "−", "-"):
            return front + " ".join(pieces)
        space = self.pick(" ", r" \, ")
        return space.join([front, *pieces]) if pieces else front

    @property
    def minus(self) -> str:
        """The minus sign."""
        return self.pick("−", "-")

    def scalar(self, scalar: Scalar) -> str:
        """A scalar in front of something: nothing for 1, ½, (1/n)."""
        sign = self.minus if scalar.number < 0 else ""
        if abs(scalar.number) == 1 and not scalar.powers:
            return sign
        if self.mode == "text" and not scalar.powers and abs(scalar.number) in _FRACTIONS:
            return sign + _FRACTIONS[abs(scalar.number)]
        above, below = scalar.sides(lambda number: written_number(number, self.mode), self._base_power)
        if self.mode == "latex":
            top, bottom = r" \, ".join(above) or "1", r" \, ".join(below)
            return sign + (rf"\frac{{{top}}}{{{bottom}}}" if below else top)
        top, bottom = "".join(above) or "1", "".join(below)
        bottom = f"({bottom})" if len(below) > 1 or " " in bottom else bottom
        return sign + (f"({top}/{bottom})" if below else top)

    def _base_power(self, base: str | int, exponent: Fraction) -> str:
        text = name_of(base, self.mode) if isinstance(base, str) and base.isidentifier() else str(base)
        if exponent == Fraction(1, 2):
            return self.pick(f"√{text}" if text.isalnum() else f"√({text})", rf"\sqrt{{{text}}}")
        text = f"({text})" if " " in text and exponent != 1 else text
        return text if exponent == 1 else self._raised(text, str(exponent))

    # what operations ask for

    def atom(self, text: str) -> tuple[str, int]:
        """Something that never needs parentheses."""
        return text, ATOM

    def call(self, name: str, inside: str) -> tuple[str, int]:
        """A function of something already written."""
        return name + self.parenthesized(inside), ATOM

    def function(self, name: str, args: tuple[Node, ...]) -> tuple[str, int]:
        """A function of nodes."""
        return self.call(name, ", ".join(self._function_argument(a) for a in args))

    def absolute(self, node: Node) -> tuple[str, int]:
        """|x|, element by element."""
        inside = self._function_argument(node)
        return self.pick(f"|{inside}|", rf"\left|{inside}\right|"), ATOM

    def _function_argument(self, node: Node) -> str:
        value = constant_value(node)
        if value is None:
            return self.write(node)
        return self._number(value)

    def _number(self, value: Scalar) -> str:
        text = self.scalar(value)
        return "0" if not value.number else text + "1" if text in ("", "−", "-") else text

    def operand(self, node: Node) -> str:
        """One side of a comparison; of a constant the number."""
        value = constant_value(node)
        return self.write(node, FROBENIUS) if value is None else self._number(value)

    def rowwise(self, name: str, node: Node, axes: tuple[int, ...]) -> tuple[str, int]:
        """A function of the entries along axes; of the rows unless it says otherwise."""
        inside = self.write(node)
        if node.rank == 2 and axes == (0,):
            inside += self.pick(" by columns", r"\text{ by columns}")
        return self.call(name, inside)

    def superscript(self, node: Node, what: str) -> tuple[str, int]:
        """A matrix with something above it."""
        return self.pick(f"{self.write(node, ATOM)}{what}", rf"{self.write(node, ATOM)}^{{{what}}}"), POST

    def identity(self) -> tuple[str, int]:
        """The identity matrix."""
        return "I", ATOM

    def counting(self) -> tuple[str, int]:
        """0, 1, 2, ..."""
        return self.pick("(0, 1, …)", r"(0, 1, \ldots)"), ATOM

    def power(self, node: Node) -> tuple[str, int]:
        """x to a power, element by element."""
        base, exponent = node.args[0], node.data
        if exponent < 0:
            below = self.write(_positive_power(base, -exponent), POST)
            if base.rank == 0:
                return f"1 / {below}", PRODUCT
            return f"1 {self.pick('⊘', OSLASH)} {below}", HADAMARD
        norm = _squared_norm(base)
        if norm is not None and exponent.denominator == 2:
            text = self._norm(norm)
            return (
                (text, ATOM) if exponent == Fraction(1, 2) else (self._raised(text, str(exponent * 2)), POST)
            )
        if exponent == Fraction(1, 2):
            inside = self.write(base)
            return self.pick(f"√{self.write(base, ATOM)}", rf"\sqrt{{{inside}}}"), ATOM
        circle = "" if base.rank == 0 else self.pick("∘", r"\circ ")
        inner = self.write(base, ATOM)
        if self.mode == "latex":
            return f"{inner}^{{{circle}{exponent}}}", POST
        return f"{inner}{'∘' if base.rank else ''}{str(exponent).translate(_SUPERSCRIPTS)}", POST

    def part(self, node: Node) -> tuple[str, int]:
        """A slice."""
        axis = node.data[0]
        inside = ", ".join([":"] * axis + [_range(node, node.args[0].shape[axis])])
        return f"{self.write(node.args[0], ATOM)}[{inside}]", POST

    def placed(self, node: Node) -> tuple[str, int]:
        """A part with zeros around it."""
        where = _range(node, node.shape[node.data[0]])
        name = self.pick(f"place[{where}]", rf"\operatorname{{place}}_{{{where}}}")
        return self.call(name, self.write(node.args[0]))


def _range(node: Node, size: Dimension) -> str:
    """The part of an axis that a slice takes: `1:n-1`, and nothing where it is the beginning or the end."""
    _, start, stop, stride, drop = node.data
    first, last = (collected(x.spelled()).replace(" ", "") for x in (start, stop))
    if drop:
        return first
    first = first if start.number else ""
    last = "" if last == collected(scalar_of_dimension(size).spelled()).replace(" ", "") else last
    return f"{first}:{last}" + ("" if stride == 1 else f":{stride}")


def _positive_power(base: Node, exponent: Fraction) -> Node:
    from ._algebra import power

    return power(base, exponent)


def _squared_norm(node: Node) -> Tree | None:
    if node.op is not CONTRACTION or node.rank:
        return None
    tree: Any = matrix_form(node)
    return tree if tree.kind == "norm2" else None
