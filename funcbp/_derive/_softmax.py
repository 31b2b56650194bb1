"""Softmax, log softmax and log-sum-exp, recognized in the formulas that they are inlined to."""

from collections.abc import Sequence
from typing import Any

from ._algebra import (
    POWER,
    Factor,
    Label,
    add,
    broadcast,
    contraction,
    hadamard,
    recognizers,
    scale,
    split,
    sum_recognizers,
    total,
)
from ._nodes import ADD, CONTRACTION, Node, Operation, intern
from ._scalars import ONE, Scalar

__all__ = [
    "LOG_SOFTMAX",
    "LOG_SUM_EXP",
    "SOFTMAX",
    "log_of",
    "log_softmax",
    "log_sum_exp",
    "softmax",
]


def _along(node: Node, axes: Sequence[int], shape: Sequence[Any]) -> Node:
    """What was summed over axes, repeated along them."""
    kept = [a for a in range(len(shape)) if a not in axes]
    return broadcast(node, kept, shape)


def _summed(node: Node, axes: Sequence[int]) -> Node:
    return _along(total(node, axes), axes, node.shape)


class _Rowwise(Operation):
    """A function of the entries along some axes together."""

    def __init__(self, name: str, text: str, latex: str) -> None:
        self.name, self.text, self.latex = name, text, latex
        self.positive = name == "softmax"
        self.rule = {
            "softmax": "d softmax(z) = s ⊙ (dz − ⟨s, dz⟩)",
            "log_softmax": "d log softmax(z) = dz − ⟨s, dz⟩",
            "logsumexp": "d log Σeᶻ = ⟨softmax(z), dz⟩",
        }[name]

    def sums_to_one(self, node: Node) -> tuple[int, ...] | None:
        """The axes over which it sums to one."""
        return node.data if self.name == "softmax" else None

    def differential(self, node: Node, _index: int, tangent: Node, /) -> Node:
        (z,), axes = node.args, node.data
        s = softmax(z, axes)
        mean = total(hadamard(s, tangent), axes)
        if self.name == "logsumexp":
            return mean
        change = add(tangent, scale(-1, _along(mean, axes, z.shape)))
        return hadamard(s, change) if self.name == "softmax" else change

    def show(self, node, writer, /):
        return writer.rowwise(writer.pick(self.text, self.latex), node.args[0], node.data)

    def python(self, node: Node, arguments: Sequence[str], /) -> str:
        rank = node.args[0].rank
        axes = node.data
        axis = axes[0] if len(axes) == 1 else axes
        option = "" if axes == (rank - 1,) and self.name != "logsumexp" else f", axis={axis}"
        option = "" if len(axes) == rank and rank == 1 else option
        module = "jax.scipy.special.logsumexp" if self.name == "logsumexp" else f"jax.nn.{self.name}"
        return f"{module}({arguments[0]}{option})"


SOFTMAX = _Rowwise("softmax", "softmax", r"\operatorname{softmax}")
LOG_SOFTMAX = _Rowwise("log_softmax", "log softmax", r"\log\operatorname{softmax}")
LOG_SUM_EXP = _Rowwise("logsumexp", "logsumexp", r"\operatorname{logsumexp}")


def _terms(node: Node) -> list[Node]:
    coefficient, unit = split(node)
    return [scale(coefficient, t) for t in unit.args] if unit.op is ADD else [node]


def _without_shift(z: Node, axes: Sequence[int]) -> tuple[Node, list[Node]]:
    """z without the terms that are constant along the axes, and those terms."""
    terms = _terms(z)
    shifts = [t for t in terms if _constant_along(t, axes)]
    rest = [t for t in terms if t not in shifts]
    return (add(*rest), shifts) if rest and shifts else (z, [])


def _constant_along(node: Node, axes: Sequence[int]) -> bool:
    if node.op is not CONTRACTION:
        return False
    return not {k for labels in node.data[1] for k in labels} & set(axes)


def _reduce_constant(node: Node, axes: Sequence[int]) -> Node:
    """A node that is constant along axes, without them."""
    coefficient, labels, out = node.data
    kept = [a for a in out if a not in axes]
    sizes = {a: node.shape[a] for a in kept}
    return contraction(coefficient, list(zip(node.args, labels, strict=True)), kept, sizes)


def softmax(z: Node, axes: Sequence[int]) -> Node:
    """eᶻ / Σ eᶻ; what is constant along the axes cancels."""
    z, _ = _without_shift(z, axes)
    return intern(SOFTMAX, (z,), tuple(axes), z.shape)


def log_softmax(z: Node, axes: Sequence[int]) -> Node:
    """z - log Σ eᶻ; what is constant along the axes cancels."""
    z, _ = _without_shift(z, axes)
    return intern(LOG_SOFTMAX, (z,), tuple(axes), z.shape)


def log_sum_exp(z: Node, axes: Sequence[int]) -> Node:
    """log Σ eᶻ; what is constant along the axes comes out of it."""
    z, shifts = _without_shift(z, axes)
    shape = [d for a, d in enumerate(z.shape) if a not in axes]
    node = intern(LOG_SUM_EXP, (z,), tuple(axes), shape)
    return add(node, *(_reduce_constant(s, axes) for s in shifts)) if shifts else node


def _exponential(node: Node) -> Node | None:
    return node.args[0] if node.op.name == "exp" else None


def _sum_of_exponentials(node: Node) -> tuple[Node, tuple[int, ...], tuple[int, ...]] | None:
    """For Σ eᶻ: z, the axes of z that are summed, and the order of those that are left."""
    if node.op is not CONTRACTION or len(node.args) != 1 or node.data[0] != ONE:
        return None
    z = _exponential(node.args[0])
    labels, out = node.data[1][0], node.data[2]
    if z is None or len(set(labels)) != len(labels) or not set(out) <= set(labels):
        return None
    summed = tuple(a for a, k in enumerate(labels) if k not in out)
    return (z, summed, tuple(labels.index(k) for k in out)) if summed else None


def log_of(x: Node) -> Node | None:
    """The logarithm of what has a better one than `log`."""
    coefficient, unit = split(x)
    if coefficient != ONE:
        return None
    if (z := _exponential(unit)) is not None:
        return z
    if unit.op is SOFTMAX:
        return log_softmax(unit.args[0], unit.data)
    found = _sum_of_exponentials(unit)
    if found is not None:
        z, axes, order = found
        if order == tuple(sorted(order)):
            return log_sum_exp(z, axes)
    if unit.op is CONTRACTION and len(unit.args) == 1:  # a repetition or a transpose of one of these
        labels, out = unit.data[1][0], unit.data[2]
        if set(labels) <= set(out) and (inner := log_of(unit.args[0])) is not None:
            return contraction(ONE, [(inner, labels)], out, dict(zip(out, unit.shape, strict=True)))
    return None


def _recognize_softmax(factors: list[Factor], _summed: set[Label]) -> list[Factor]:
    """eᶻ times 1/Σeᶻ."""
    for below, own in factors:
        found = _sum_of_exponentials(below.args[0]) if below.op is POWER and below.data == -1 else None
        if found is None:
            continue
        z, axes, order = found
        for above, labels in factors:
            if _exponential(above) is z and tuple(labels[a] for a in order) == own:
                rest = [f for f in factors if f not in ((below, own), (above, labels))]
                return [*rest, (softmax(z, axes), labels)]
    return factors


def _recognize_log_softmax(terms: list[tuple[Node, Scalar]]) -> list[tuple[Node, Scalar]]:
    """z minus log Σ eᶻ."""
    for node, scalar in terms:
        found = _repeated_log_sum_exp(node)
        if found is None:
            continue
        z, axes = found
        wanted = {split(t)[1]: split(t)[0] * -scalar for t in _terms(z)}
        have = dict(terms)
        if all(have.get(unit) == s for unit, s in wanted.items()):
            rest = [(u, s) for u, s in terms if u not in wanted and u is not node]
            return _recognize_log_softmax([(log_softmax(z, axes), -scalar), *rest])
    return terms


def _repeated_log_sum_exp(node: Node) -> tuple[Node, tuple[int, ...]] | None:
    if node.op is not CONTRACTION or len(node.args) != 1 or node.args[0].op is not LOG_SUM_EXP:
        return None
    inner = node.args[0]
    z, axes = inner.args[0], inner.data
    kept = tuple(a for a in range(z.rank) if a not in axes)
    return (z, axes) if node.data[1][0] == kept and node.shape == z.shape else None


recognizers.append(_recognize_softmax)
sum_recognizers.append(_recognize_log_softmax)
