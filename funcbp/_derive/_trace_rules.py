"""What a primitive of JAX is as an expression. A new one needs one function here, or one line in a table."""

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np

from ._algebra import add, broadcast, constant, contraction, hadamard, ones, permute, power, scale, total
from ._choices import compare, extreme, iota, select
from ._functions import apply, general_power
from ._nodes import Node
from ._operations import cholesky, inverse, largest, lower, reshape, triangle
from ._predicates import constant_value, is_zero
from ._scalars import ONE, scalar_of_dimension
from ._trace import Equation, Rule, dimension, fraction, live

__all__ = ["RULES", "is_one", "kept_axes", "rule"]

RULES: dict[str, Rule] = {}


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Register how primitives are read."""

    def register(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, function))
        return function

    return register


_UNARY = {
    name: name
    for name in [
        "exp",
        "exp2",
        "log",
        "log1p",
        "expm1",
        "sin",
        "cos",
        "tan",
        "sinh",
        "cosh",
        "tanh",
        "cbrt",
        "erf",
        "erfc",
    ]
} | {
    "asin": "arcsin",
    "acos": "arccos",
    "atan": "arctan",
    "asinh": "arcsinh",
    "atanh": "arctanh",
    "logistic": "sigmoid",
    "abs": "abs",
    "sign": "sign",
    "floor": "floor",
    "ceil": "ceil",
    "round": "round",
    "is_finite": "is_finite",
    "stop_gradient": "stop",
    "lgamma": "lgamma",
    "digamma": "digamma",
}
for _primitive, _name in _UNARY.items():
    RULES[_primitive] = lambda eqn, name=_name: apply(name, eqn.args[0])

for _primitive in ("copy", "copy_p", "reduce_precision", "optimization_barrier", "squeeze", "expand_dims"):
    RULES[_primitive] = lambda eqn: eqn.args[0]

_RELATIONS = {"eq": "=", "ne": "≠", "ge": "≥", "le": "≤", "gt": ">", "lt": "<"}
for _primitive, _relation in _RELATIONS.items():
    RULES[_primitive] = lambda eqn, relation=_relation: compare(relation, eqn.aligned(0), eqn.aligned(1))

for _primitive in ("max", "min"):
    RULES[_primitive] = lambda eqn: extreme(eqn.name, eqn.aligned(0), eqn.aligned(1))


@rule("convert_element_type")
def _convert(eqn: Equation) -> Node:
    new, old = np.dtype(eqn.params["new_dtype"]), eqn.dtype
    if new.kind in "biu" and old.kind == "f" and constant_value(eqn.args[0]) is None:
        raise eqn.refuse(f"a conversion from {old} to {new} has no derivative")
    return eqn.args[0]


@rule("dim_as_value")
def _dim_as_value(eqn: Equation) -> Node:
    return constant(scalar_of_dimension(dimension(eqn.params["dim"])))


@rule("neg")
def _neg(eqn: Equation) -> Node:
    return scale(-1, eqn.args[0])


@rule("add", "add_any")
def _add(eqn: Equation) -> Node:
    return _plus(eqn, 1)


@rule("sub")
def _sub(eqn: Equation) -> Node:
    return _plus(eqn, -1)


def _plus(eqn: Equation, sign: int) -> Node:
    x, y = eqn.aligned(0), scale(sign, eqn.aligned(1))
    a, b = constant_value(x), constant_value(y)
    if a is not None and b is not None:
        try:
            return constant(a.plus(b), x.shape)
        except ValueError:
            return add(x, y)
    return add(x, y)


@rule("mul")
def _mul(eqn: Equation) -> Node:
    return hadamard(eqn.aligned(0), eqn.aligned(1))


@rule("div")
def _div(eqn: Equation) -> Node:
    if eqn.dtype.kind in "iu":
        raise eqn.refuse("an integer division")
    return hadamard(eqn.aligned(0), power(eqn.aligned(1), -1))


@rule("square")
def _square(eqn: Equation) -> Node:
    return power(eqn.args[0], 2)


@rule("sqrt")
def _sqrt(eqn: Equation) -> Node:
    return power(eqn.args[0], Fraction(1, 2))


@rule("rsqrt")
def _rsqrt(eqn: Equation) -> Node:
    return power(eqn.args[0], Fraction(-1, 2))


@rule("integer_pow")
def _integer_pow(eqn: Equation) -> Node:
    return power(eqn.args[0], fraction(eqn.params["y"]))


@rule("pow")
def _pow(eqn: Equation) -> Node:
    return general_power(eqn.aligned(0), eqn.aligned(1))


@rule("and")
def _and(eqn: Equation) -> Node:
    _only_booleans(eqn)
    return hadamard(eqn.aligned(0), eqn.aligned(1))


@rule("or")
def _or(eqn: Equation) -> Node:
    _only_booleans(eqn)
    x, y = eqn.aligned(0), eqn.aligned(1)
    return add(x, y, scale(-1, hadamard(x, y)))


@rule("not")
def _not(eqn: Equation) -> Node:
    _only_booleans(eqn)
    return add(ones(eqn.args[0].shape), scale(-1, eqn.args[0]))


def _only_booleans(eqn: Equation) -> None:
    if eqn.dtype.kind != "b":
        raise eqn.refuse("bits of integers")


@rule("select_n")
def _select(eqn: Equation) -> Node:
    if eqn.dtype.kind != "b" or len(eqn.args) != 3:
        raise eqn.refuse("a choice of more than two")
    mask, no, yes = (eqn.aligned(k) for k in range(3))
    if is_zero(no) and yes.rank == 2 and (same := lower(yes, mask)) is not None:
        return same
    value = constant_value(mask)
    if value is not None and value.powers and value.number:
        eqn.trace.notes.append(f"{value.spelled()} is not zero")
    return select(mask, yes, no)


@rule("clamp")
def _clamp(eqn: Equation) -> Node:
    """As JAX does it: strictly between the bounds the derivative is the operand's."""
    low, x, high = (eqn.aligned(k) for k in range(3))
    return select(compare(">", x, low), select(compare("<", x, high), x, high), low)


@rule("dot_general")
def _dot_general(eqn: Equation) -> Node:
    (left_sum, right_sum), (left_batch, right_batch) = eqn.params["dimension_numbers"]
    left = {k: ("left", k) for k in range(len(eqn.shapes[0]))}
    right = {k: ("right", k) for k in range(len(eqn.shapes[1]))}
    right |= {
        int(r): left[int(x)]
        for x, r in zip((*left_sum, *left_batch), (*right_sum, *right_batch), strict=True)
    }
    summed = {left[int(k)] for k in left_sum}
    batch = [left[int(k)] for k in left_batch]
    free = [k for k in (*left.values(), *right.values()) if k not in summed and k not in batch]
    out = [k for k, size in zip([*batch, *dict.fromkeys(free)], eqn.out, strict=True) if not is_one(size)]
    factors = [
        (node, tuple(labels[k] for k in live(shape)))
        for node, labels, shape in zip(eqn.args, (left, right), eqn.shapes, strict=True)
    ]
    return contraction(ONE, factors, out, {})


def is_one(size: Any) -> bool:
    return isinstance(size, (int, np.integer)) and size == 1


@rule("transpose")
def _transpose(eqn: Equation) -> Node:
    kept = live(eqn.shapes[0])
    return permute(eqn.args[0], [kept.index(k) for k in eqn.params["permutation"] if k in kept])


@rule("broadcast_in_dim")
def _broadcast_in_dim(eqn: Equation) -> Node:
    kept, to = live(eqn.out), eqn.params["broadcast_dimensions"]
    axes = [kept.index(int(to[k])) for k in live(eqn.shapes[0])]
    return broadcast(eqn.args[0], axes, eqn.dims)


@rule("reshape")
def _reshape(eqn: Equation) -> Node:
    return reshape(eqn.args[0], eqn.dims)


def kept_axes(eqn: Equation, key: str = "axes") -> list[int]:
    """A parameter that names axes, in the axes that are kept."""
    kept = live(eqn.shapes[0])
    return [kept.index(int(k)) for k in eqn.params[key] if int(k) in kept]


@rule("reduce_sum")
def _reduce_sum(eqn: Equation) -> Node:
    return total(eqn.args[0], kept_axes(eqn))


@rule("reduce_max", "reduce_min")
def _reduce_max(eqn: Equation) -> Node:
    axes = sorted(kept_axes(eqn))
    return largest(eqn.name[-3:], eqn.args[0], axes) if axes else eqn.args[0]


@rule("iota")
def _iota(eqn: Equation) -> Node:
    kept, axis = live(eqn.out), eqn.params["dimension"]
    if axis not in kept:
        return constant(0, eqn.dims)
    return broadcast(iota(eqn.dims[kept.index(axis)]), [kept.index(axis)], eqn.dims)


@rule("cumsum")
def _cumsum(eqn: Equation) -> Node:
    kept, axis = live(eqn.out), eqn.params["axis"]
    if axis not in kept:
        return eqn.args[0]
    k = kept.index(axis)
    mask = triangle("≤" if eqn.params["reverse"] else "≥", eqn.dims[k])
    labels = tuple("before" if a == k else a for a in range(eqn.args[0].rank))
    out = tuple(range(eqn.args[0].rank))
    return contraction(ONE, [(mask, (k, "before")), (eqn.args[0], labels)], out, {})


@rule("cholesky")
def _cholesky(eqn: Equation) -> Node:
    if len(eqn.out) != 2:
        raise eqn.refuse("a batch of matrices")
    return cholesky(eqn.args[0])


@rule("triangular_solve")
def _triangular_solve(eqn: Equation) -> Node:
    params, (a, b) = eqn.params, eqn.args
    if a.rank != 2 or params["unit_diagonal"]:
        raise eqn.refuse("a batch of matrices, or a diagonal of ones that is not stored")
    mask = triangle("≥" if params["lower"] else "≤", a.shape[0])
    part = (params["lower"] and lower(a, mask)) or hadamard(mask, a)
    solved = inverse(permute(part, (1, 0)) if params["transpose_a"] else part)
    if params["left_side"]:
        return contraction(ONE, [(solved, ("i", "j")), (b, ("j", "k")[: b.rank])], ("i", "k")[: b.rank], {})
    labels = ("k", "i") if b.rank == 2 else ("i",)
    return contraction(ONE, [(b, labels), (solved, ("i", "j"))], (*labels[:-1], "j"), {})
