"""What is known of an expression by its construction and by the declared facts."""

from ._nodes import ADD, CONTRACTION, VARIABLE, Node, facts
from ._scalars import Scalar

__all__ = ["constant_value", "is_product", "is_view", "is_zero", "nonzero", "positive", "stochastic_axes"]


def is_zero(node: Node) -> bool:
    """Whether it is zero by construction."""
    return node.op is CONTRACTION and not node.data[0].number


def constant_value(node: Node) -> Scalar | None:
    """The number that it is everywhere, by construction."""
    return node.data[0] if node.op is CONTRACTION and not node.args else None


def positive(node: Node) -> bool:
    """Whether every element is known to be greater than zero."""
    if node.op is VARIABLE:
        return node.data in facts().positive
    if node.op is ADD:
        return all(positive(a) for a in node.args) or _below_one(node)
    if node.op is CONTRACTION:
        return node.data[0].number > 0 and all(positive(a) for a in node.args)
    if node.op.name == "power":
        return positive(node.args[0])
    return node.op.positive


def _below_one(node: Node) -> bool:
    """1 - σ(p)."""
    if len(node.args) != 2:
        return False
    one, rest = node.args
    bounded = is_view(rest) and rest.data[0].number == -1 and rest.args[0].op.name == "sigmoid"
    return constant_value(one) == Scalar() and bounded


def nonzero(node: Node) -> bool:
    """Whether no element can be zero."""
    return positive(node) or (node.op is VARIABLE and node.data in facts().nonzero)


def stochastic_axes(node: Node) -> tuple[int, ...] | None:
    """The axes over which it is known to sum to one."""
    if node.op is VARIABLE and node.data in facts().stochastic:
        return (node.rank - 1,)
    sums_to_one = getattr(node.op, "sums_to_one", None)
    return sums_to_one(node) if sums_to_one else None


def is_product(node: Node) -> bool:
    """Whether it is a contraction that sums."""
    return node.op is CONTRACTION and any(k >= node.rank for labels in node.data[1] for k in labels)


def is_view(node: Node) -> bool:
    """Whether it only scales, transposes or repeats one factor."""
    if node.op is not CONTRACTION or len(node.args) != 1:
        return False
    labels = node.data[1][0]
    return all(k < node.rank for k in labels) and len(set(labels)) == len(labels)
