"""A contraction as products of matrices: series are products, parallels are ⊙, open ends are sums.

The indices of a contraction are the nodes of a graph, its matrices the edges, its vectors sit on the nodes.
An index that is summed and touches two matrices is a matrix product; two matrices on the same pair of
indices are multiplied element by element; what cannot be reduced so has no matrix form.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ._algebra import IDENTITY, POWER, power
from ._nodes import ADD, CONTRACTION, VARIABLE, Node, facts
from ._operations import joined
from ._scalars import ONE, Scalar

__all__ = ["NoMatrixFormError", "Tree", "matrix_form"]


class NoMatrixFormError(Exception):
    """An expression that matrices and vectors cannot say."""


@dataclass(frozen=True)
class Tree:
    """A matrix expression: `kind` says how its parts are combined.

    Attributes:
        kind: leaf, ones, product, hadamard, quotient (part 0 ⊘ part 1), transpose, diag, sum, joined (along
            axis `data`), scale (scalar `data` times scalars and a body), frobenius, norm2, trace, total.
        parts: what is combined.
        data: the node of a leaf, the scalar of a scale.
        rank: of the value.
        place: the position of its first factor in the contraction, by which ⊙ is ordered.
    """

    kind: str
    parts: tuple["Tree", ...] = ()
    data: Any = None
    rank: int = 0
    place: int = 0


def matrix_form(node: Node) -> Tree:
    """The matrix expression of a node.

    Raises:
        NoMatrixFormError: if there is none.
    """
    if node.rank > 2:
        raise NoMatrixFormError(f"{node.rank} axes")
    blocks = joined(node)
    if blocks is not None:
        axis, parts = blocks
        rows = [_row(p, axis) for p in parts]
        return Tree("joined", tuple(rows), axis, node.rank)
    if node.op is ADD:
        return Tree("sum", tuple(matrix_form(t) for t in node.args), None, node.rank)
    if node.op is CONTRACTION:
        return _contraction(node)
    return Tree("leaf", (), node, node.rank)


def _row(part: Node, axis: int) -> Tree:
    """One part of a joined array; a vector that is a row of a matrix lies down."""
    tree = matrix_form(part.args[0])
    return transposed(tree) if part.rank == 2 and tree.rank == 1 and axis == 0 else tree


def transposed(tree: Tree) -> Tree:
    """The transpose, pushed inside of products."""
    if tree.rank == 0 or tree.kind == "diag":
        return tree
    if tree.kind == "transpose":
        return tree.parts[0]
    if tree.kind == "product":
        return replace(tree, parts=tuple(transposed(p) for p in reversed(tree.parts)))
    if tree.kind == "leaf" and _symmetric(tree.data):
        return tree
    if tree.kind == "scale":
        *scalars, body = tree.parts
        return Tree("scale", (*scalars, transposed(body)), tree.data, tree.rank)
    return Tree("transpose", (tree,), None, tree.rank, tree.place)


def _symmetric(node: Node) -> bool:
    return node.op is IDENTITY or (node.op is VARIABLE and node.data in facts().symmetric)


def product(*trees: Tree) -> Tree:
    """The product of matrices and vectors, without nesting."""
    parts = tuple(q for t in trees for q in (t.parts if t.kind == "product" else (t,)))
    place = min(t.place for t in trees)
    return Tree("product", parts, None, 2, place) if len(parts) > 1 else parts[0]


def _hadamard(trees: Sequence[Tree]) -> Tree:
    ordered = sorted(trees, key=lambda t: t.place)
    parts = tuple(q for t in ordered for q in (t.parts if t.kind == "hadamard" else (t,)))
    return parts[0] if len(parts) == 1 else Tree("hadamard", parts, None, parts[0].rank, parts[0].place)


_ONES = Tree("ones", (), None, 1)


@dataclass
class _Graph:
    """The state of a reduction."""

    out: tuple[int, ...]
    edges: list[tuple[Tree, int, int]] = field(default_factory=list)
    above: dict[int, list[Tree]] = field(default_factory=dict)
    below: dict[int, list[Tree]] = field(default_factory=dict)
    scalars: list[Tree] = field(default_factory=list)
    divisors: list[Tree] = field(default_factory=list)

    def vector(self, label: int) -> Tree | None:
        """Everything that sits on an index, taken off."""
        above, below = self.above.pop(label, []), self.below.pop(label, [])
        if not above and not below:
            return None
        top = _hadamard(above) if above else _ONES
        return Tree("quotient", (top, _hadamard(below)), None, 1) if below else top

    def around(self, label: int) -> list[tuple[Tree, int, int]]:
        """The matrices at an index, turned so that it is their column."""
        found = []
        for tree, a, b in self.edges:
            if b == label:
                found.append((tree, a, b))
            elif a == label:
                found.append((transposed(tree), b, a))
        return found

    def drop(self, label: int) -> None:
        """Take away the matrices at an index."""
        self.edges = [e for e in self.edges if label not in e[1:]]


def _contraction(node: Node) -> Tree:
    assert node.op is CONTRACTION
    coefficient, indices, out = node.data
    factors = list(zip(node.args, indices, strict=True))
    graph = _Graph(out)
    for place, (factor, labels) in enumerate(factors):
        _place(graph, factor, labels, place)
    summed = [k for k in dict.fromkeys(x for _, ls in factors for x in ls) if k not in out]
    while True:
        _merge_parallel(graph, set(summed))
        left = [k for k in summed if graph.around(k) or k in graph.above or k in graph.below]
        if not left:
            break
        if not any(_eliminate(graph, k, count) for count in (0, 1, 2) for k in reversed(left)):
            raise NoMatrixFormError("an index that three matrices share")
    return _with_scalars(coefficient, graph, _body(graph, node.rank), node.rank)


def _place(graph: _Graph, factor: Node, labels: tuple[int, ...], place: int) -> None:
    down = factor.op is POWER and factor.data < 0
    tree = replace(matrix_form(power(factor.args[0], -factor.data) if down else factor), place=place)
    if len(labels) == 0:
        (graph.divisors if down else graph.scalars).append(tree)
    elif len(labels) == 1:
        (graph.below if down else graph.above).setdefault(labels[0], []).append(tree)
    elif labels[0] == labels[1]:
        diagonal = Tree("diagonal", (tree,), None, 1, place)
        (graph.below if down else graph.above).setdefault(labels[0], []).append(diagonal)
    else:
        kind = Tree("quotient", (Tree("ones", (), None, 2), tree), None, 2, place) if down else tree
        graph.edges.append((kind, labels[0], labels[1]))


def _merge_parallel(graph: _Graph, summed: set[int]) -> None:
    """Matrices on the same pair of indices: ⊙; where both are summed and nothing else is there, : or tr."""
    pairs: dict[frozenset[int], list[tuple[Tree, int, int]]] = {}
    for edge in graph.edges:
        pairs.setdefault(frozenset(edge[1:]), []).append(edge)
    for pair, edges in pairs.items():
        alone = pair <= summed and not any(k in graph.above or k in graph.below for k in pair)
        alone = alone and all(len(graph.around(k)) == len(edges) for k in pair)
        if alone and len(edges) < 4:
            graph.edges = [e for e in graph.edges if e not in edges]
            graph.scalars.append(_closed(edges))
        elif len(edges) > 1:
            first = edges[0]
            turned = [t if a == first[1] else transposed(t) for t, a, _ in edges]
            quotients = [t for t in turned if t.kind == "quotient" and t.parts[0].kind == "ones"]
            rest = [t for t in turned if t not in quotients]
            tree = _hadamard(rest) if rest else quotients.pop(0)
            if quotients:
                tree = Tree("quotient", (tree, _hadamard([q.parts[1] for q in quotients])), None, 2)
            position = graph.edges.index(first)
            graph.edges[position] = (tree, *first[1:])
            graph.edges = [e for e in graph.edges if e not in edges[1:]]


def _closed(edges: list[tuple[Tree, int, int]]) -> Tree:
    first = edges[0]
    if len(edges) == 1:
        tree = first[0]
        squared = tree.kind == "leaf" and tree.data.op is POWER and tree.data.data == 2
        return Tree("norm2", (matrix_form(tree.data.args[0]),)) if squared else Tree("total", (tree,))
    if len(edges) == 2 and edges[1][1] == first[2]:
        return Tree("trace", (product(first[0], edges[1][0]),))
    turned = [t if a == first[1] else transposed(t) for t, a, _ in edges]
    return Tree("frobenius", (turned[0], _hadamard(turned[1:])))


def _eliminate(graph: _Graph, label: int, count: int) -> bool:
    """Sum over an index at which `count` matrices meet."""
    around = graph.around(label)
    if len(around) != count:
        return False
    if count == 0:
        if label in graph.above or label in graph.below:
            graph.scalars.append(_inner(graph, label))
            return True
        return False
    vector = graph.vector(label)
    graph.drop(label)
    if count == 1:
        tree, other, _ = around[0]
        graph.above.setdefault(other, []).append(product(tree, vector or _ONES))
        return True
    (left, a, _), (right, b, _) = around
    middle = (Tree("diag", (vector,), None, 2),) if vector else ()
    if graph.out == (b, a) or ((a, b) != graph.out[:2] and a > b):
        left, right, a, b = right, left, b, a
    graph.edges.append((product(left, *middle, transposed(right)), a, b))
    return True


def _inner(graph: _Graph, label: int) -> Tree:
    """The inner product of the vectors at an index."""
    above, below = graph.above.pop(label, []), graph.below.pop(label, [])
    if below:
        last = above.pop() if above else _ONES
        above.append(Tree("quotient", (last, _hadamard(below)), None, 1))
    above.sort(key=lambda t: t.place)
    if len(above) == 1:
        (tree,) = above
        if tree.kind == "leaf" and tree.data.op is POWER and tree.data.data == 2:
            return Tree("norm2", (matrix_form(tree.data.args[0]),))
        return product(transposed(_ONES), tree)
    return product(transposed(_hadamard(above[:-1])), above[-1])


def _body(graph: _Graph, rank: int) -> Tree | None:
    if rank == 0:
        return None
    if rank == 1:
        return graph.vector(graph.out[0]) or _ONES
    row, column = graph.out
    left, right = graph.vector(row), graph.vector(column)
    if not graph.edges and left is None and right is None:
        return Tree("ones", (), None, 2)
    if not graph.edges:
        return product(left or _ONES, transposed(right or _ONES))
    ((tree, a, _),) = graph.edges
    tree = tree if a == row else transposed(tree)
    diagonals = [_diagonal(v) for v in (left, right) if v]
    if tree.kind == "leaf" and tree.data.op is IDENTITY and diagonals:
        return product(*diagonals)
    before = (_diagonal(left),) if left else ()
    after = (_diagonal(right),) if right else ()
    return product(*before, tree, *after)


def _diagonal(vector: Tree) -> Tree:
    if vector.kind == "quotient" and vector.parts[0].kind == "ones":
        return Tree("inverse diag", (vector.parts[1],), None, 2)
    return Tree("diag", (vector,), None, 2)


def _with_scalars(coefficient: Scalar, graph: _Graph, body: Tree | None, rank: int) -> Tree:
    if body is None and not graph.divisors and coefficient == ONE and len(graph.scalars) == 1:
        return graph.scalars[0]
    if body is not None and not graph.scalars and not graph.divisors and coefficient == ONE:
        return body
    if body is not None and body.kind == "ones" and not graph.scalars and not graph.divisors:
        return Tree("scale", (Tree("leaf ones", (), None, rank),), (coefficient, 0, 0), rank)
    parts = (*graph.scalars, *graph.divisors, *((body,) if body is not None else ()))
    return Tree("scale", parts, (coefficient, len(graph.scalars), len(graph.divisors)), rank)
