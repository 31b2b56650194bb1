"""Expressions as JAX code: products with `@`, sums, broadcasting, and `einsum` where nothing simpler does."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from ._algebra import POWER, Factor, Label, factors_of
from ._choices import COMPARE, SELECT, untyped
from ._functions import Function
from ._nodes import ADD, CONTRACTION, VARIABLE, Node
from ._operations import INVERSE, LOG_DETERMINANT, joined
from ._scalars import Scalar, scalar_of_dimension

__all__ = ["Emitter"]

SUM, MATMUL, PRODUCT, SIGN, POWERED, ATOM = range(6)


@dataclass(frozen=True)
class Code:
    """An expression of Python: its text, how tightly it binds, and the indices of its axes.

    `labels` are those axes of the result that it really has, in order; a missing one is left to
    broadcasting.
    """

    text: str
    binds: int
    labels: tuple[Label, ...]

    def at(self, level: int) -> str:
        """The text, in parentheses if it binds less tightly."""
        return self.text if self.binds >= level else f"({self.text})"


class Emitter:
    """Writes expressions in terms of names.

    Args:
        names: of expressions that are computed already.
        sizes: of the dimensions, to choose the order of products by.
        taken: names in use; those of factorizations are added to it.
    """

    def __init__(self, names: dict[Node, str], sizes: Mapping[str, int], taken: set[str]) -> None:
        self.names, self.sizes, self.taken = names, sizes, taken
        self.repeated: set[Node] = set()
        self.factors: dict[Node, str] = {}
        self.pending: list[str] = []

    def full(self, node: Node) -> str:
        """An expression with the whole shape of a node."""
        code = self.code(node)
        if len(code.labels) == node.rank:
            return code.text
        return f"jnp.broadcast_to({self._aligned(code, tuple(range(node.rank))).text}, {shape_text(node)})"

    def typed(self, node: Node, like: str) -> str:
        """The same, in the dtype of an array where its own code has none."""
        return f"{self._whole(node).at(ATOM)}.astype({like}.dtype)" if untyped(node) else self.full(node)

    def _whole(self, node: Node) -> Code:
        code = self.code(node)
        if len(code.labels) == node.rank:
            return code
        return Code(self.full(node), ATOM, tuple(range(node.rank)))

    def code(self, node: Node) -> Code:
        """An expression whose axes are labelled by the axes of the node; repeated axes may be missing."""
        own = tuple(range(node.rank))
        if node in self.names:
            return Code(self.names[node], ATOM, own)
        if node.op is VARIABLE:
            return Code(node.data, ATOM, own)
        if node.op is ADD:
            return self._sum(node)
        if node.op is CONTRACTION:
            return self._contraction(node)
        if node.op.elementwise:
            return self._elementwise(node)
        if node.op in (INVERSE, LOG_DETERMINANT) and node.args[0] in self.repeated:
            factor = self._factored(node.args[0])
            solved = f"jax.scipy.linalg.lu_solve({factor}, jnp.eye({factor}[0].shape[0]))"
            logarithm = f"jnp.sum(jnp.log(jnp.abs(jnp.diagonal({factor}[0]))))"
            return Code(solved if node.op is INVERSE else logarithm, ATOM, own)
        text = node.op.python(node, [self._whole(a).at(ATOM) for a in node.args])
        return Code(text, ATOM, own)

    def _factored(self, matrix: Node) -> str:
        """The name of the LU factors of a matrix that is solved with more than once."""
        if matrix not in self.factors:
            numbered = (f"lu{number or ''}" for number in itertools.count())
            name = next(n for n in numbered if n not in self.taken)
            self.taken.add(name)
            self.pending.append(f"{name} = jax.scipy.linalg.lu_factor({self.full(matrix)})")
            self.factors[matrix] = name
        return self.factors[matrix]

    def _elementwise(self, node: Node) -> Code:
        codes = [self.code(a) for a in node.args]
        union = tuple(k for k in range(node.rank) if any(k in c.labels for c in codes))
        level = ATOM if node.op is POWER or node.op is COMPARE else SUM
        texts = [self._aligned(c, union).at(level) for c in codes]
        if node.op is SELECT and node.args[0].op is COMPARE and node.args[0] not in self.names:
            mask = [self._aligned(self.code(a), union).at(ATOM) for a in node.args[0].args]
            texts[0] = COMPARE.condition(node.args[0], mask)
        if isinstance(node.op, Function) or node.op is SELECT:
            # Of an integer JAX has no sigmoid, and of two integers it chooses an integer.
            texts = [f"{t}.0" if t.removeprefix("-").isdigit() else t for t in texts]
        text = node.op.python(node, texts)
        binds = ATOM
        if node.op is POWER:
            binds = PRODUCT if text.startswith("1 /") else POWERED if "**" in text else ATOM
        return Code(text, binds, union)

    def _aligned(self, code: Code, target: Sequence[Label]) -> Code:
        """The same with its axes in the order of the target, and new axes where it has none."""
        own = [k for k in target if k in code.labels]
        if tuple(own) != code.labels:
            code = _transposed(code, own)
        missing = [k not in code.labels for k in target]
        if not code.labels or not any(missing[target.index(code.labels[0]) :]):
            return code
        start = target.index(code.labels[0])
        index = ", ".join("None" if gone else ":" for gone in missing[start:])
        return Code(f"{code.at(ATOM)}[{index}]", ATOM, code.labels)

    def _sum(self, node: Node) -> Code:
        placed = self._concatenation(node)
        if placed is not None:
            return placed
        codes = [self.code(t) for t in node.args]
        union = tuple(k for k in range(node.rank) if any(k in c.labels for c in codes))
        text = ""
        for code in codes:
            term = self._aligned(code, union)
            negative = term.text.startswith("-") and term.binds in (SIGN, MATMUL, PRODUCT)
            body = term.text[1:] if negative else term.at(MATMUL) if text else term.text
            if not text:
                text = f"-{body}" if negative else body
            else:
                text += f" - {body}" if negative else f" + {body}"
        return Code(text, SUM, union)

    def _concatenation(self, node: Node) -> Code | None:
        """A sum of parts that fill an axis one after the other."""
        found = joined(node)
        if found is None or any(t in self.names or t.data[4] for t in node.args):
            return None
        axis, parts = found
        inside = ", ".join(self.full(p.args[0]) for p in parts)
        return Code(f"jnp.concatenate([{inside}], axis={axis})", ATOM, tuple(range(node.rank)))

    # products

    def _contraction(self, node: Node) -> Code:
        coefficient, factors, out = factors_of(node)
        summed = {k for _, labels in factors for k in labels} - set(out)
        operands, below = [], []
        for factor, labels in factors:
            down = (
                factor.op is POWER
                and factor.data < 0
                and factor not in self.names
                and not set(labels) & summed
            )
            target = factor.args[0] if down and factor.data == -1 else factor
            code = self._factor(target, labels, summed)
            if down and factor.data != -1:
                code = self._reciprocal(factor, labels)
            (below if down else operands).append(code)
        solved = self._solves(factors, operands, summed)
        sizes = {k: self._size(d) for f, labels in factors for k, d in zip(labels, f.shape, strict=True)}
        operands = self._summed(solved, summed, out, sizes)
        return self._quotient(coefficient, operands, below, out)

    def _reciprocal(self, factor: Node, labels: tuple[Label, ...]) -> Code:
        from ._algebra import power

        return self._factor(power(factor.args[0], -factor.data), labels, set())

    def _size(self, dimension: int | str) -> float:
        return scalar_of_dimension(dimension).value(dict(self.sizes))

    def _relabelled(self, code: Code, labels: Sequence[Label]) -> Code:
        return Code(code.text, code.binds, tuple(labels[k] for k in code.labels if isinstance(k, int)))

    def _factor(self, node: Node, labels: tuple[Label, ...], summed: set[Label]) -> Code:
        code = self._whole(node) if set(labels) & summed else self.code(node)
        code = self._relabelled(code, labels)
        if len(set(code.labels)) == len(code.labels):
            return code
        if len(code.labels) == 2:
            return Code(f"jnp.diagonal({code.text})", ATOM, code.labels[:1])
        letters, result = _letters(code.labels), tuple(dict.fromkeys(code.labels))
        spec = f"{''.join(letters[k] for k in code.labels)}->{''.join(letters[k] for k in result)}"
        return Code(f'jnp.einsum("{spec}", {code.text})', ATOM, result)

    def _solves(self, factors: Sequence[Factor], operands: list[Code], summed: set[Label]) -> list[Code]:
        """Products with an inverse as solves."""
        operands = list(operands)
        for factor, labels in factors:
            if factor.op is not INVERSE or factor in self.names or len(set(labels)) < 2:
                continue
            own = next((c for c in operands if c.labels == labels and c.text == self.code(factor).text), None)
            for k, (axis, flip) in enumerate(((labels[1], False), (labels[0], True))):
                sharing = [c for c in operands if axis in c.labels and c is not own]
                others = [c for c in operands if c is not own and c not in sharing]
                if own is None or axis not in summed or len(sharing) != 1 or len(sharing[0].labels) > 2:
                    continue
                (rest,) = sharing
                if labels[k] in rest.labels:  # they share both axes: a product element by element
                    continue
                if len(rest.labels) == 2 and rest.labels[0] != axis:
                    rest = _transposed(rest, rest.labels[::-1])
                if factor.args[0] in self.repeated:
                    turn = ", trans=1" if flip else ""
                    text = f"jax.scipy.linalg.lu_solve({self._factored(factor.args[0])}, {rest.text}{turn})"
                    operands = [*others, Code(text, ATOM, (labels[k], *rest.labels[1:]))]
                    break
                matrix = self._whole(factor.args[0])
                text = f"jnp.linalg.solve({matrix.at(ATOM)}{'.T' if flip else ''}, {rest.text})"
                operands = [*others, Code(text, ATOM, (labels[k], *rest.labels[1:]))]
                break
        return operands

    def _summed(
        self, operands: list[Code], summed: set[Label], order: tuple[Label, ...], sizes: Mapping[Label, float]
    ) -> list[Code]:
        """Operands in which nothing is left to be summed."""
        operands = list(operands)
        while True:
            left = [k for k in summed if any(k in c.labels for c in operands)]
            if not left:
                return operands
            best: tuple[float, int, list[Code], frozenset[Label]] | None = None
            for k in sorted(left, key=str):
                group = [c for c in operands if k in c.labels]
                ready = frozenset(
                    x
                    for x in left
                    if all((x in c.labels) == (c in group) for c in operands) and len(group) <= 2
                )
                union = dict.fromkeys(x for c in group for x in c.labels if x not in ready)
                cost = 1.0
                for x in union:
                    cost *= sizes[x]
                choice = (cost + 1e12 * (len(group) > 2), len(group), group, ready)
                if best is None or choice[:2] < best[:2]:
                    best = choice
            assert best is not None
            _, _, group, ready = best
            rest = [c for c in operands if c not in group]
            if len(group) > 2:
                group = sorted(group, key=lambda c: len(c.labels))
                pair = [c for c in group if set(c.labels) <= set(group[-1].labels)][:2]
                if len(pair) < 2 or len(set(group[-1].labels)) > 2:
                    pair = group
                    ready = frozenset(x for x in left if not any(x in c.labels for c in rest))
                    operands = [*rest, _einsum(pair, ready)]
                    continue
                merged = self._merged(pair)
                operands = [*rest, merged, *(c for c in group if c not in pair)]
                continue
            operands = [_total(group[0], ready) if len(group) == 1 else _dot(*group, ready, order), *rest]

    def _merged(self, pair: Sequence[Code]) -> Code:
        union = max((c.labels for c in pair), key=len)
        return Code(" * ".join(self._aligned(c, union).at(PRODUCT) for c in pair), PRODUCT, union)

    def _quotient(
        self, coefficient: Scalar, above: list[Code], below: list[Code], out: Sequence[Label]
    ) -> Code:
        union = tuple(k for k in out if any(k in c.labels for c in (*above, *below)))
        sign = "-" if coefficient.number < 0 else ""
        top, bottom = coefficient.sides(lambda n: repr(float(n)), _dimension_power)
        if len(above) == 2 and not below and all(len(c.labels) == 1 for c in above) and len(union) == 2:
            first, second = above if above[0].labels[0] == union[0] else above[::-1]
            above = [Code(f"jnp.outer({first.text}, {second.text})", ATOM, union)]
        scalars = sorted(above, key=lambda c: bool(c.labels))
        alone = len(above) == 1 and not top and not bottom and not below
        if alone and not sign:
            return self._aligned(above[0], union)
        pieces = top + [self._aligned(c, union).at(MATMUL if alone else PRODUCT) for c in scalars]
        pieces = [p if k == 0 or not _is_quotient(p) else f"({p})" for k, p in enumerate(pieces)]
        text = " * ".join(pieces) or "1"
        lower = bottom + [self._aligned(c, union).at(POWERED) for c in below]
        if len(bottom) > 1:
            lower = [f"({' * '.join(bottom)})", *lower[len(bottom) :]]
        for piece in lower:
            text += f" / {piece}"
        binds = PRODUCT if len(pieces) + len(lower) > 1 or not pieces else SIGN if sign else ATOM
        binds = MATMUL if alone and "@" in text else binds
        return Code(sign + text, binds, union)


def _is_quotient(text: str) -> bool:
    depth = 0
    for character in text:
        depth += (character in "([") - (character in ")]")
        if depth == 0 and character == "/":
            return True
    return False


def _dimension_power(base: str | int, exponent: Fraction) -> str:
    text = str(base).replace("^", "**")
    text = f"({text})" if " " in text else text
    if exponent == 1:
        return text
    return f"{text}**{exponent}" if exponent.denominator == 1 else f"{text}**{float(exponent)}"


def _letters(labels: Sequence[Label]) -> dict[Label, str]:
    return {k: "ijklmnpqrstuv"[n] for n, k in enumerate(dict.fromkeys(labels))}


def _transposed(code: Code, order: Sequence[Label]) -> Code:
    if len(order) == 2:
        text = code.text[:-2] if code.text.endswith(".T") and code.binds == ATOM else f"{code.at(ATOM)}.T"
        return Code(text, ATOM, tuple(order))
    permutation = ", ".join(str(code.labels.index(k)) for k in order)
    return Code(f"jnp.transpose({code.text}, ({permutation}))", ATOM, tuple(order))


def _total(code: Code, gone: frozenset[Label]) -> Code:
    axes = [a for a, k in enumerate(code.labels) if k in gone]
    if len(axes) == len(code.labels):
        return Code(f"jnp.sum({code.text})", ATOM, ())
    axis = str(axes[0]) if len(axes) == 1 else f"({', '.join(map(str, axes))})"
    rest = tuple(k for k in code.labels if k not in gone)
    return Code(f"jnp.sum({code.text}, axis={axis})", ATOM, rest)


def _dot(left: Code, right: Code, gone: frozenset[Label], order: Sequence[Label]) -> Code:
    """The product of two, summed over the indices in `gone`, if possible with its axes in this order."""
    shared = set(left.labels) & set(right.labels)
    if len(left.labels) == len(right.labels) == 2 and len(gone) == 1 and shared == gone:
        (first,), (second,) = ([k for k in c.labels if k not in gone] for c in (left, right))
        if first in order and second in order and order.index(first) > order.index(second):
            left, right = right, left
    if shared != gone or max(len(left.labels), len(right.labels)) > 2 or len(gone) > 1:
        if shared == gone and set(left.labels) == set(right.labels) == shared and len(gone) > 1:
            right = right if right.labels == left.labels else _transposed(right, left.labels)
            return Code(f"jnp.vdot({left.text}, {right.text})", ATOM, ())
        if set(left.labels) == set(right.labels):
            right = right if right.labels == left.labels else _transposed(right, left.labels)
            return _total(Code(f"{left.at(PRODUCT)} * {right.at(PRODUCT)}", PRODUCT, left.labels), gone)
        return _einsum([left, right], gone)
    (k,) = gone
    if len(left.labels) == 1 and len(right.labels) == 2 and right.labels[0] != k:
        left, right = right, left
    if len(left.labels) == 2 and left.labels[1] != k:
        left = _transposed(left, left.labels[::-1])
    if len(right.labels) == 2 and right.labels[0] != k:
        right = _transposed(right, right.labels[::-1])
    labels = (*(x for x in left.labels if x != k), *(x for x in right.labels if x != k))
    return Code(f"{_matrix_operand(left)} @ {_matrix_operand(right)}", MATMUL, labels)


def _matrix_operand(code: Code) -> str:
    return code.at(POWERED) if code.binds < ATOM else code.text


def _einsum(operands: Sequence[Code], gone: frozenset[Label]) -> Code:
    letters = _letters([k for c in operands for k in c.labels])
    out = tuple(dict.fromkeys(k for c in operands for k in c.labels if k not in gone))
    spec = ",".join("".join(letters[k] for k in c.labels) for c in operands)
    spec += "->" + "".join(letters[k] for k in out)
    return Code(f'jnp.einsum("{spec}", {", ".join(c.text for c in operands)})', ATOM, out)


def shape_text(node: Node) -> str:
    """The shape of a node as a tuple of sizes."""
    inside = ", ".join(scalar_of_dimension(d).spelled() for d in node.shape)
    return f"({inside},)" if node.rank == 1 else f"({inside})"
