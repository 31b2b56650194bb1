"""One factor of a product moves: what the product is as an operator on it.

The differential of a contraction is a sum of contractions with d of one factor, dY_ab = c Σ L_ai dX_ij R_jb.
Factors that have only axes of the output are Diag(·) after it, those that have only axes of X are Diag(·)
before it; of the rest, what connects one axis of the output to one of X is L or R.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
from jax import numpy as jnp

from .._derive._algebra import Factor, Label, contraction, factors_of
from .._derive._errors import UnsupportedError
from .._derive._matrix import NoMatrixFormError
from .._derive._nodes import ADD, CONTRACTION, Node
from .._derive._notation import Writer
from .._derive._scalars import ONE, Scalar
from ._names import Name
from ._operator import Operator
from ._values import Values, shape_of
from .diagonal import Diagonal
from .identity import Identity
from .kronecker import Kronecker
from .product import compose
from .scaled import scale
from .selection import Commutation, Selection

__all__ = ["by_factor", "written"]

_WRITER = Writer("text")
_LONGEST = 40


class _Axis(NamedTuple):
    """One axis of the output with one of the moving factor; None for an axis that is not there."""

    out: Label | None
    inner: Label | None
    factors: list[Factor]


def by_factor(node: Node, position: int, values: Values) -> Operator:
    """The derivative of a contraction by one of its factors.

    Raises:
        UnsupportedError: where it is not made of matrix products from left and right.
    """
    coefficient, factors, out = factors_of(node)
    moving, labels = factors.pop(position)
    shape = shape_of(moving)
    first: Operator = Identity(shape)
    if len(set(labels)) < len(labels):
        labels, shape, first = labels[:1], shape[:1], _taking_diagonal(shape)
    sizes = dict(zip(labels, shape, strict=True)) | dict(zip(out, shape_of(node), strict=True))
    alone = [f for f in factors if not f[1]]
    after = [f for f in factors if f[1] and set(f[1]) <= set(out) and (len(f[1]) > 1 or f[1][0] in labels)]
    before = [f for f in factors if f not in after and len(f[1]) > 1 and set(f[1]) <= set(labels)]
    axes = _axes([f for f in factors if f not in [*alone, *after, *before]], labels, out)
    for k, axis in enumerate(axes):
        if axis.factors and axis.out == axis.inner:  # a number for every place on the axis, or one for all
            own = () if axis.out is None else (axis.out,)
            (after if own else alone).append((contraction(ONE, axis.factors, own, sizes), own))
            axes[k] = axis._replace(factors=[])
    operator = compose(_diagonal(before, labels, sizes, values), first)
    operator = compose(_middle(axes, labels, out, sizes, values), operator)
    operator = compose(_diagonal(after, out, sizes, values), operator)
    return _scaled(coefficient, alone, operator, values)


def written(node: Node) -> str:
    """A node as matrix calculus writes it; shortened where it is long, S where it has no matrix form."""
    if _length(node, {}) > _LONGEST:
        return "S" if node.op in (ADD, CONTRACTION) else f"{node.op.name}(…)"
    try:
        return _WRITER.write(node)
    except NoMatrixFormError:
        return "S"


def _length(node: Node, memo: dict[Node, int]) -> int:
    """How many symbols there are to write, shared parts as often as they are written."""
    if node not in memo:
        memo[node] = 1 + sum(_length(a, memo) for a in node.args)
    return memo[node]


def _taking_diagonal(shape: tuple[int, ...]) -> Operator:
    if len(shape) != 2:
        raise UnsupportedError("a diagonal of more than two axes")
    return Selection(jnp.arange(shape[0]) * (shape[0] + 1), shape, shape[:1], "diag")


def _diagonal(
    factors: Sequence[Factor], axes: Sequence[Label], sizes: Mapping[Label, int], values: Values
) -> Operator:
    shape = tuple(sizes[k] for k in axes)
    if not factors:
        return Identity(shape)
    entries = contraction(ONE, list(factors), tuple(axes), dict(sizes))
    return Diagonal(values(entries), shape, written(entries))


def _middle(
    axes: Sequence[_Axis],
    labels: Sequence[Label],
    out: Sequence[Label],
    sizes: Mapping[Label, int],
    values: Values,
) -> Operator:
    """L dX R, with X transposed first where its columns belong to the rows of the output."""
    if set(labels) == set(out) and not any(axis.factors for axis in axes):
        return _permuted(labels, out, sizes)
    if len(labels) > 2 or len(out) > 2:
        raise UnsupportedError("a product of arrays with more than two axes")
    rows, columns = _paired(axes, labels, out)
    left, left_name = _matrix(rows, sizes, values)
    right, right_name = _matrix(columns, sizes, values)
    groups = [() if k is None else (sizes[k],) for k in (rows.inner, columns.inner, rows.out, columns.out)]
    product = Kronecker(left, None if right is None else right.T, *groups, left_name, right_name.T)
    order = [k for k in (rows.inner, columns.inner) if k is not None]
    return compose(product, _permuted(labels, order, sizes))


def _permuted(labels: Sequence[Label], order: Sequence[Label], sizes: Mapping[Label, int]) -> Operator:
    shape = tuple(sizes[k] for k in labels)
    axes = tuple(list(labels).index(k) for k in order)
    return Identity(shape) if axes == tuple(range(len(axes))) else Commutation(shape, axes)


def _axes(factors: Sequence[Factor], labels: Sequence[Label], out: Sequence[Label]) -> list[_Axis]:
    """What is connected, with the axes at its ends."""
    groups: list[tuple[set[Label], list[Factor]]] = [({k}, []) for k in dict.fromkeys((*labels, *out))]
    for factor in factors:
        touching = [g for g in groups if g[0] & set(factor[1])]
        groups = [g for g in groups if g not in touching]
        names = set(factor[1]).union(*(g[0] for g in touching))
        groups.append((names, [f for g in touching for f in g[1]] + [factor]))
    axes = []
    for names, members in groups:
        ends = [k for k in out if k in names], [k for k in labels if k in names]
        if max(map(len, ends)) > 1:
            raise UnsupportedError("a product that is not one from the left and one from the right")
        axes.append(_Axis(*(end[0] if end else None for end in ends), members))
    return axes


def _paired(axes: Sequence[_Axis], labels: Sequence[Label], out: Sequence[Label]) -> list[_Axis]:
    """The rows and the columns, by the axis of the output; an axis of X that is summed joins a free place."""
    found = [next(a for a in axes if a.out == k) for k in out]
    found += [_Axis(None, None, [])] * (2 - len(out))
    for label in labels:
        summed = next(a for a in axes if a.inner == label)
        if summed.out is None:
            free = next(k for k, axis in enumerate(found) if axis.inner is None)
            found[free] = _Axis(found[free].out, label, [*found[free].factors, *summed.factors])
    return found


def _matrix(axis: _Axis, sizes: Mapping[Label, int], values: Values) -> tuple[jax.Array | None, Name]:
    """(axis of the output, axis of X), and its name; None for the identity."""
    if axis.out == axis.inner and not axis.factors:
        return None, Name.of("I")
    ends = [k for k in (axis.out, axis.inner) if k is not None]
    node = contraction(ONE, axis.factors, tuple(ends), {k: sizes[k] for k in ends})
    shape = tuple(1 if k is None else sizes[k] for k in (axis.out, axis.inner))
    return values(node).reshape(shape), _named(node, axis)


def _named(node: Node, axis: _Axis) -> Name:
    if node.rank == 2:
        turned = contraction(ONE, [(node, (0, 1))], (1, 0), {})
        return Name(written(node), written(turned))
    name = Name.of(written(node) if " " not in written(node) else f"({written(node)})")
    return name if axis.inner is None else name.T


def _scaled(coefficient: Scalar, alone: Sequence[Factor], operator: Operator, values: Values) -> Operator:
    for node, _ in alone:
        operator = scale(values(node), operator, written(node))
    number: Any = coefficient.value({})
    text = str(coefficient.number) if not coefficient.powers else f"{number:g}"
    return operator if number == 1 else scale(number, operator, text.replace("-", "−"))
