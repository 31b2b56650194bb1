"""Differentials, and their adjoints: P : dY is carried to what Y is made of."""

from collections.abc import Mapping

from ._algebra import Factor, Label, add, contraction, factors_of, identity, power, zero
from ._nodes import ADD, CONTRACTION, VARIABLE, Node, intern, label, variable
from ._predicates import is_zero
from ._scalars import ONE

__all__ = ["differential", "distribute", "expand", "one", "pull", "rebuild", "remade", "tidy", "weight"]

_MOVE = "·"


def pull(node: Node, cotangent: Node, live: frozenset[str]) -> dict[str, list[Node]]:
    """For every live variable X in a node Y, the contributions G of `cotangent : dY = Σ G : dX`."""
    found: dict[str, list[Node]] = {}
    _pull(node, cotangent, live, found)
    return found


def _pull(node: Node, cotangent: Node, live: frozenset[str], found: dict[str, list[Node]]) -> None:
    if not node.variables & live or is_zero(cotangent):
        return
    if node.op is VARIABLE:
        found.setdefault(node.data, []).append(cotangent)
    elif node.op is ADD:
        for term in node.args:
            _pull(term, cotangent, live, found)
    elif node.op is CONTRACTION:
        for k, factor in enumerate(node.args):
            if factor.variables & live:
                _pull(factor, _factor_cotangent(node, k, cotangent), live, found)
    elif node.op.linear:
        _pull(node.args[0], node.op.transpose(node, cotangent), live, found)
    else:
        for k, argument in enumerate(node.args):
            if argument.variables & live:
                move = variable(_MOVE, argument.shape)
                moved = pull(node.op.differential(node, k, move), cotangent, frozenset({_MOVE}))
                if moved:
                    _pull(argument, add(*moved[_MOVE]), live, found)


def _factor_cotangent(node: Node, position: int, cotangent: Node) -> Node:
    """Exchange the roles of the result and one factor."""
    coefficient, factors, out = factors_of(node)
    factor, labels = factors[position]
    others: list[Factor] = [(cotangent, out), *factors[:position], *factors[position + 1 :]]
    own: list[Label] = []
    for axis, k in enumerate(labels):
        if k in own:  # a diagonal: the cotangent has it on its diagonal
            second = label()
            others.append((identity(factor.shape[axis]), (k, second)))
            own.append(second)
        else:
            own.append(k)
    return contraction(coefficient, others, own, dict(zip(own, factor.shape, strict=True)))


def differential(node: Node, tangents: Mapping[str, Node]) -> Node:
    """dY, when the variables X move by their tangents."""
    if not node.variables & tangents.keys():
        return zero(node.shape)
    if node.op is VARIABLE:
        return tangents[node.data]
    if node.op is ADD:
        return add(*(differential(t, tangents) for t in node.args))
    if node.op is CONTRACTION:
        coefficient, factors, out = factors_of(node)
        sizes = dict(zip(out, node.shape, strict=True))
        terms = []
        for k, (factor, labels) in enumerate(factors):
            if factor.variables & tangents.keys():
                moved = [*factors[:k], (differential(factor, tangents), labels), *factors[k + 1 :]]
                terms.append(contraction(coefficient, moved, out, sizes))
        return add(*terms)
    return add(
        *(
            node.op.differential(node, k, differential(a, tangents))
            for k, a in enumerate(node.args)
            if a.variables & tangents.keys()
        )
    )


def rebuild(node: Node, replacements: Mapping[Node, Node], memo: dict[Node, Node] | None = None) -> Node:
    """The node with some nodes replaced, simplified anew."""
    memo = {} if memo is None else memo
    stack = [node]
    while stack:
        current = stack[-1]
        if current in memo:
            stack.pop()
        elif current in replacements:
            memo[current] = replacements[current]
            stack.pop()
        elif missing := [a for a in current.args if a not in memo]:
            stack.extend(missing)
        else:
            memo[current] = remade(current, [memo[a] for a in current.args])
            stack.pop()
    return memo[node]


def remade(node: Node, args: list[Node]) -> Node:
    if node.op is ADD:
        return add(*args)
    if node.op is CONTRACTION:
        coefficient, labels, out = node.data
        sizes = dict(zip(out, node.shape, strict=True))
        return contraction(coefficient, list(zip(args, labels, strict=True)), out, sizes)
    if all(a is b for a, b in zip(args, node.args, strict=True)):
        return node
    if node.op.name == "power":
        return power(args[0], node.data)
    return intern(node.op, args, node.data, node.shape)


def expand(node: Node, memo: dict[Node, Node] | None = None) -> Node:
    """Every symbol such as σ′ replaced by its formula."""
    memo = {} if memo is None else memo
    if node not in memo:
        again = remade(node, [expand(a, memo) for a in node.args])
        formula = again.op.expanded(again)
        memo[node] = again if formula is None else expand(formula, memo)
    return memo[node]


def distribute(node: Node) -> Node:
    """Products of sums as sums of products, symbols such as σ′ replaced by formulas."""
    node = expand(node)
    if node.op is ADD:
        return add(*(distribute(t) for t in node.args))
    if node.op is not CONTRACTION:
        return node
    coefficient, factors, out = factors_of(node)
    for k, (factor, labels) in enumerate(factors):
        if factor.op is ADD:
            sizes = dict(zip(out, node.shape, strict=True))
            return add(
                *(
                    distribute(
                        contraction(coefficient, [*factors[:k], (t, labels), *factors[k + 1 :]], out, sizes)
                    )
                    for t in factor.args
                )
            )
    return node


def weight(node: Node) -> int:
    """How much there is to read."""
    return 1 + sum(weight(a) for a in node.args)


def tidy(node: Node) -> Node:
    """The shorter of an expression and the same multiplied out."""
    if not any(a.op is ADD for n in (node, *node.args) for a in (n, *n.args)):
        return node
    if weight(node) > 60:
        return node
    other = distribute(node)
    return other if weight(other) < weight(node) else node


def one() -> Node:
    """The cotangent of the output itself."""
    return contraction(ONE, [], (), {})
