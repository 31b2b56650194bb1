"""Texts of Python with the indices of their axes, and how two of them are multiplied."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from ._algebra import Label
from ._scalars import Dimension, Scalar, scalar_of_dimension

__all__ = [
    "ATOM",
    "MATMUL",
    "POWERED",
    "PRODUCT",
    "SIGN",
    "SUM",
    "Code",
    "aligned",
    "dot",
    "einsum",
    "letters_of",
    "merged",
    "quotient",
    "total",
    "transposed",
    "volume",
]

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


def volume(labels: Iterable[Label], sizes: Mapping[Label, float]) -> float:
    """How many numbers an array with these indices has."""
    return math.prod(sizes[k] for k in labels)


def aligned(code: Code, target: Sequence[Label]) -> Code:
    """The same with its axes in the order of the target, and new axes where it has none."""
    own = [k for k in target if k in code.labels]
    if tuple(own) != code.labels:
        code = transposed(code, own)
    missing = [k not in code.labels for k in target]
    if not code.labels or not any(missing[target.index(code.labels[0]) :]):
        return code
    start = target.index(code.labels[0])
    index = ", ".join("None" if gone else ":" for gone in missing[start:])
    return Code(f"{code.at(ATOM)}[{index}]", ATOM, code.labels)


def merged(pair: Sequence[Code]) -> Code:
    """The product, element by element, of operands that all have their axes among those of one of them."""
    union = max((c.labels for c in pair), key=len)
    return Code(" * ".join(aligned(c, union).at(PRODUCT) for c in pair), PRODUCT, union)


def quotient(
    coefficient: Scalar,
    above: Sequence[Code],
    below: Sequence[Code],
    out: Sequence[Label],
    sizes: Mapping[Label, float],
) -> Code:
    """A scalar times what is above, divided by what is below; what has fewer axes is multiplied first."""
    union = tuple(k for k in out if any(k in c.labels for c in (*above, *below)))
    small = [c for c in above if set(c.labels) < set(union)]
    for first in sorted(small, key=lambda c: volume(c.labels, sizes)):
        inside = [[c for c in side if set(c.labels) <= set(first.labels)] for side in (above, below)]
        if len(inside[0]) + len(inside[1]) > 1 or coefficient.magnitude != Scalar():
            scaled = quotient(coefficient.magnitude, *inside, first.labels, sizes)
            rest = [[c for c in side if not set(c.labels) <= set(first.labels)] for side in (above, below)]
            return quotient(coefficient.sign, [scaled, *rest[0]], rest[1], out, sizes)
    return _written(coefficient, above, below, union)


def _written(
    coefficient: Scalar, above: Sequence[Code], below: Sequence[Code], union: tuple[Label, ...]
) -> Code:
    sign = "-" if coefficient.number < 0 else ""
    top, bottom = coefficient.sides(lambda n: repr(float(n)), _dimension_power)
    if len(above) == 2 and not below and all(len(c.labels) == 1 for c in above) and len(union) == 2:
        first, second = above if above[0].labels[0] == union[0] else above[::-1]
        above = [Code(f"jnp.outer({first.text}, {second.text})", ATOM, union)]
    scalars = sorted(above, key=lambda c: bool(c.labels))
    alone = len(above) == 1 and not top and not bottom and not below
    if alone and not sign:
        return aligned(above[0], union)
    pieces = top + [aligned(c, union).at(MATMUL if alone else PRODUCT) for c in scalars]
    pieces = [p if k == 0 or not _is_quotient(p) else f"({p})" for k, p in enumerate(pieces)]
    text = " * ".join(pieces) or "1"
    lower = bottom + [aligned(c, union).at(POWERED) for c in below]
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


def letters_of(labels: Sequence[Label]) -> dict[Label, str]:
    return {k: "ijklmnpqrstuv"[n] for n, k in enumerate(dict.fromkeys(labels))}


def transposed(code: Code, order: Sequence[Label]) -> Code:
    if len(order) == 2:
        text = code.text[:-2] if code.text.endswith(".T") and code.binds == ATOM else f"{code.at(ATOM)}.T"
        return Code(text, ATOM, tuple(order))
    permutation = ", ".join(str(code.labels.index(k)) for k in order)
    return Code(f"jnp.transpose({code.text}, ({permutation}))", ATOM, tuple(order))


def total(code: Code, gone: frozenset[Label]) -> Code:
    axes = [a for a, k in enumerate(code.labels) if k in gone]
    if len(axes) == len(code.labels):
        return Code(f"jnp.sum({code.text})", ATOM, ())
    axis = str(axes[0]) if len(axes) == 1 else f"({', '.join(map(str, axes))})"
    rest = tuple(k for k in code.labels if k not in gone)
    return Code(f"jnp.sum({code.text}, axis={axis})", ATOM, rest)


def dot(
    left: Code,
    right: Code,
    gone: frozenset[Label],
    order: Sequence[Label],
    dims: Mapping[Label, Dimension],
) -> Code:
    """The product of two, summed over the indices in `gone`, with its axes in this order."""
    shared = set(left.labels) & set(right.labels)
    if len(left.labels) == len(right.labels) == 2 and len(gone) == 1 and shared == gone:
        (first,), (second,) = ([k for k in c.labels if k not in gone] for c in (left, right))
        if first in order and second in order and order.index(first) > order.index(second):
            left, right = right, left
    rows = left.labels[:-1]
    if len(rows) > 1 and rows == right.labels[:-1] and set(rows) == shared == gone:
        first, second = sorted((left, right), key=lambda c: [*order, c.labels[-1]].index(c.labels[-1]))
        left, right = (_rows(c, dims[c.labels[-1]]) for c in (first, second))
        return Code(f"{left.text}.T @ {right.text}", MATMUL, (left.labels[-1], right.labels[-1]))
    if shared != gone or max(len(left.labels), len(right.labels)) > 2 or len(gone) > 1:
        if set(left.labels) == set(right.labels):
            right = right if right.labels == left.labels else transposed(right, left.labels)
            return total(Code(f"{left.at(PRODUCT)} * {right.at(PRODUCT)}", PRODUCT, left.labels), gone)
        return einsum([left, right], gone, order)
    (k,) = gone
    if len(left.labels) == 1 and len(right.labels) == 2 and right.labels[0] != k:
        left, right = right, left
    if len(left.labels) == 2 and left.labels[1] != k:
        left = transposed(left, left.labels[::-1])
    if len(right.labels) == 2 and right.labels[0] != k:
        right = transposed(right, right.labels[::-1])
    labels = (*(x for x in left.labels if x != k), *(x for x in right.labels if x != k))
    return Code(f"{_matrix_operand(left)} @ {_matrix_operand(right)}", MATMUL, labels)


def _rows(code: Code, size: Dimension) -> Code:
    """An array as a matrix of its rows."""
    text = f"{code.at(ATOM)}.reshape(-1, {scalar_of_dimension(size).spelled()})"
    return Code(text, ATOM, code.labels[-1:])


def _matrix_operand(code: Code) -> str:
    return code.at(POWERED) if code.binds < ATOM else code.text


def einsum(operands: Sequence[Code], gone: frozenset[Label], order: Sequence[Label]) -> Code:
    """A sum of products with its axes in this order, and with its operands in the order of their axes."""
    found = dict.fromkeys(k for c in operands for k in c.labels if k not in gone)
    out = (*(k for k in dict.fromkeys(order) if k in found), *(k for k in found if k not in order))
    if len(operands) == 2:
        shared = set(operands[0].labels) & set(operands[1].labels)
        operands = sorted(
            operands, key=lambda c: [out.index(k) for k in c.labels if k in out and k not in shared]
        )
    letters = letters_of([k for c in operands for k in c.labels])
    spec = ",".join("".join(letters[k] for k in c.labels) for c in operands)
    spec += "->" + "".join(letters[k] for k in out)
    return Code(f'jnp.einsum("{spec}", {", ".join(c.text for c in operands)})', ATOM, out)
