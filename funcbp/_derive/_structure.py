"""What a factorization, a triangle or a running sum computes more cheaply than a product of matrices.

Before code is written, products with an inverse become solves and products with a triangle of ones become
running sums. They are nodes, so that a solve that is needed twice is one that is used twice.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ._algebra import Factor, Label, contraction, factors_of, permute
from ._choices import COMPARE, IOTA, SELECT
from ._differentiate import remade
from ._nodes import ADD, CONTRACTION, VARIABLE, Node, Operation, intern
from ._operations import CHOLESKY, INVERSE
from ._predicates import constant_value, is_view, is_zero
from ._scalars import ONE, scalar_of_dimension

__all__ = ["CUMULATIVE", "SOLVE", "Structure", "Triangle", "only_triangle", "triangle_of"]


class _Solve(Operation):
    """The solution of a linear system; `data` says whether its matrix is transposed."""

    name = "solve"


class _Cumulative(Operation):
    """Running sums; `data` is the axis, and whether they run from its end."""

    name = "cumulative"

    def python(self, node: Node, arguments: Sequence[str], /) -> str:
        axis, from_end = node.data
        along = "" if node.rank == 1 else f", axis={axis}"
        if from_end:
            return f"jax.lax.cumsum({arguments[0]}{along}, reverse=True)"
        return f"jnp.cumsum({arguments[0]}{along})"


SOLVE, CUMULATIVE = _Solve(), _Cumulative()
_STRICT = {"≥": 0, "≤": 0, ">": -1, "<": 1}


@dataclass(frozen=True)
class Triangle:
    """The part of a matrix with column - row ≤ `diagonal`, or, if it is not `lower`, ≥ `diagonal`."""

    lower: bool
    diagonal: int

    @property
    def transposed(self) -> "Triangle":
        """The same part of the transpose."""
        return Triangle(not self.lower, -self.diagonal)

    @property
    def rest(self) -> "Triangle":
        """All that is not in it."""
        return Triangle(not self.lower, self.diagonal + (1 if self.lower else -1))

    def of(self, text: str) -> str:
        """The code for this part of a matrix."""
        diagonal = f", {self.diagonal}" if self.diagonal else ""
        return f"jnp.tri{'l' if self.lower else 'u'}({text}{diagonal})"


def triangle_of(node: Node) -> Triangle | None:
    """Of which part of a matrix a comparison of its row and column numbers is the indicator, if it is one."""
    if node.op is not COMPARE or node.rank != 2 or node.data not in _STRICT:
        return None
    left, right = map(_counted, node.args)
    if left is None or right is None or left[0] == right[0]:
        return None
    found = Triangle(node.data in ("≥", ">"), left[1] - right[1] + _STRICT[node.data])
    return found if left[0] == 0 else found.transposed


def _counted(node: Node) -> tuple[int, int] | None:
    """The axis along which an array counts, and where it starts."""
    if node.op is ADD:
        constants = [value.constant for a in node.args if (value := constant_value(a)) is not None]
        rest = [a for a in node.args if constant_value(a) is None]
        inner = _counted(rest[0]) if len(rest) == len(constants) == 1 else None
        whole = inner is not None and constants[0] is not None and constants[0].denominator == 1
        return (inner[0], inner[1] + int(constants[0])) if whole else None
    if node.op is IOTA:
        return 0, 0
    if is_view(node) and node.data[0] == ONE and len(node.data[1][0]) == 1:
        inner = _counted(node.args[0])
        return (node.data[1][0][0], inner[1]) if inner else None
    return None


def only_triangle(node: Node) -> tuple[Node, Triangle] | None:
    """A matrix, and of which triangle of it the entries are chosen, zero elsewhere."""
    if node.op is not SELECT or (kept := triangle_of(node.args[0])) is None:
        return None
    _, yes, no = node.args
    if is_zero(no):
        return yes, kept
    return (no, kept.rest) if is_zero(yes) else None


class Structure:
    """Knows which matrices are triangular, and puts solves and running sums into expressions.

    Args:
        values: of the names that expressions may have in them.
        sizes: an example of every dimension, to choose the order of products by.
    """

    def __init__(self, values: Mapping[str, Node], sizes: Mapping[str, int]) -> None:
        self.values, self.sizes = values, dict(sizes)
        self.memo: dict[Node, Node] = {}

    def triangular(self, matrix: Node) -> tuple[Node, bool] | None:
        """A matrix that has the triangle stored, and whether it is the lower one; None if it is none."""
        if matrix.op is CHOLESKY:
            return matrix, True
        if matrix.op is VARIABLE and matrix.data in self.values:
            return (matrix, known[1]) if (known := self.triangular(self.values[matrix.data])) else None
        if (found := only_triangle(matrix)) is not None:
            return _stored(matrix, *found)
        if matrix.op is not CONTRACTION or matrix.rank != 2:
            return None
        coefficient, factors, _ = factors_of(matrix)
        for node, labels in factors:
            kept = triangle_of(node) if set(labels) == {0, 1} else None
            if kept is None:
                continue
            kept = kept if labels == (0, 1) else kept.transposed
            others = [f for f in factors if f != (node, labels)]
            stored = matrix
            if coefficient == ONE and len(others) == 1 and set(others[0][1]) == {0, 1}:
                stored = others[0][0] if others[0][1] == (0, 1) else permute(others[0][0], (1, 0))
            return _stored(matrix, stored, kept)
        return None

    def lowered(self, node: Node) -> Node:
        """The same value with solves and running sums in it."""
        if node not in self.memo:
            again = remade(node, [self.lowered(a) for a in node.args])
            self.memo[node] = self._product(again) if again.op is CONTRACTION else again
        return self.memo[node]

    def _product(self, node: Node) -> Node:
        coefficient, factors, out = factors_of(node)
        if not any(_special(f, out) for f in factors):
            return node
        before = list(factors)
        while (step := self._cheapest(factors, out)) is not None:
            group, made = step
            factors = [*(f for f in factors if f not in group), made]
            if made[0].op in (SOLVE, CUMULATIVE):
                before = factors
        return contraction(coefficient, before, out, dict(zip(out, node.shape, strict=True)))

    def _cheapest(
        self, factors: Sequence[Factor], out: Sequence[Label]
    ) -> tuple[list[Factor], Factor] | None:
        """The factors to multiply next, those whose product is smallest, and that product."""
        best: tuple[float, list[Factor], Factor] | None = None
        for k in dict.fromkeys(k for _, labels in factors for k in labels if k not in out):
            group = [f for f in factors if k in f[1]]
            made = _solution(k, group) or _plain(group, factors, out)
            if made is None:
                continue
            cost = 1.0
            for size in made[0].shape:
                cost *= scalar_of_dimension(size).value(self.sizes)
            if best is None or cost < best[0]:
                best = (cost, group, made)
        return best[1:] if best else None


def _stored(matrix: Node, stored: Node, kept: Triangle) -> tuple[Node, bool] | None:
    if kept.diagonal == 0:
        return stored, kept.lower
    triangular = kept.diagonal < 0 if kept.lower else kept.diagonal > 0
    return (matrix, kept.lower) if triangular else None


def _special(factor: Factor, out: Sequence[Label]) -> bool:
    """Whether it is an inverse, or a triangle with its diagonal, along an index that is summed."""
    node, labels = factor
    if len(set(labels)) < 2 or set(labels) <= set(out):
        return False
    if node.op is INVERSE:
        return True
    kept = triangle_of(node)
    return kept is not None and not kept.diagonal and node.shape[0] == node.shape[1]


def _solution(k: Label, group: Sequence[Factor]) -> Factor | None:
    """The product along an index as a solve or a running sum, where one of the factors makes it one."""
    for special in group:
        matrix, labels = special
        if not _special(special, [x for x in labels if x != k]):
            continue
        others = [f for f in group if f is not special]
        other = labels[1] if labels[0] == k else labels[0]
        union = tuple(dict.fromkeys(x for _, ls in others for x in ls))
        repeated = any(ls.count(x) > 1 for _, ls in others for x in ls)
        if not others or other in union or repeated or (matrix.op is INVERSE and len(union) > 2):
            continue
        if matrix.op is INVERSE:
            union = (k, *(x for x in union if x != k))
        operand = contraction(ONE, others, union, {})
        if constant_value(operand) is not None:
            continue
        turned = labels[0] == k
        if (kept := triangle_of(matrix)) is not None:
            made = intern(CUMULATIVE, (operand,), (union.index(k), kept.lower == turned), operand.shape)
        else:
            made = intern(SOLVE, (matrix.args[0], operand), turned, operand.shape)
        return made, tuple(other if x == k else x for x in union)
    return None


def _plain(group: Sequence[Factor], factors: Sequence[Factor], out: Sequence[Label]) -> Factor | None:
    """The product as any other."""
    outside = {x for f in factors if f not in group for x in f[1]} | set(out)
    union = tuple(dict.fromkeys(x for _, labels in group for x in labels))
    kept = tuple(x for x in union if x in outside)
    if len(group) < 2 and kept == union:
        return None
    return contraction(ONE, group, kept, {}), kept
