"""Constructors that simplify as a person would. All are true wherever the operands are finite."""

from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from fractions import Fraction

from ._keys import contraction_key
from ._nodes import ADD, CONTRACTION, Node, Operation, flattening, intern, label
from ._predicates import constant_value, is_product, is_view, is_zero, nonzero, positive, stochastic_axes
from ._scalars import ONE, ZERO, Dimension, Scalar, scalar_of_dimension

__all__ = [
    "IDENTITY",
    "POWER",
    "add",
    "broadcast",
    "constant",
    "contraction",
    "factors_of",
    "hadamard",
    "identity",
    "ones",
    "permute",
    "power",
    "scale",
    "split",
    "total",
    "zero",
]

Label = Hashable
Factor = tuple[Node, tuple[Label, ...]]


class _Power(Operation):
    """x to a rational power, element by element."""

    name = "power"
    rule = "power rule"
    elementwise = True

    def differential(self, node: Node, _index: int, tangent: Node, /) -> Node:
        exponent = node.data
        return scale(Scalar(exponent), hadamard(power(node.args[0], exponent - 1), tangent))

    def show(self, node, writer, /):
        return writer.power(node)

    def python(self, node: Node, arguments: Sequence[str], /) -> str:
        (x,), exponent = arguments, node.data
        if abs(exponent) == Fraction(1, 2):
            return f"jnp.sqrt({x})" if exponent > 0 else f"1 / jnp.sqrt({x})"
        if exponent == -1:
            return f"1 / {x}"
        shown = exponent if exponent.denominator == 1 else float(exponent)
        return f"{x} ** {shown}" if exponent > 0 else f"{x} ** ({shown})"


class _Identity(Operation):
    """The identity matrix, Kronecker's delta in indices."""

    name = "identity"

    def show(self, _node, writer, /):
        return writer.identity()

    def python(self, node: Node, _arguments: Sequence[str], /) -> str:
        return f"jnp.eye({scalar_of_dimension(node.shape[0]).spelled()})"


POWER, IDENTITY = _Power(), _Identity()
# Filled in by the operations that are recognized in products and sums of others.
recognizers: list[Callable[[list[Factor], set[Label]], list[Factor]]] = []
sum_recognizers: list[Callable[[list[tuple[Node, Scalar]]], list[tuple[Node, Scalar]]]] = []


def identity(size: Dimension) -> Node:
    """The identity matrix."""
    return intern(IDENTITY, (), None, (size, size))


def constant(value: Scalar | int | Fraction, shape: Sequence[Dimension] = ()) -> Node:
    """An array that is everywhere the same number."""
    scalar = value if isinstance(value, Scalar) else Scalar(Fraction(value))
    out = tuple(range(len(shape)))
    return intern(CONTRACTION, (), (scalar, (), out), shape)


def zero(shape: Sequence[Dimension]) -> Node:
    """An array of zeros."""
    return constant(ZERO, shape)


def ones(shape: Sequence[Dimension]) -> Node:
    """An array of ones."""
    return constant(ONE, shape)


def split(node: Node) -> tuple[Scalar, Node]:
    """The scalar in front, and the rest."""
    if node.op is not CONTRACTION:
        return ONE, node
    coefficient, labels, out = node.data
    if coefficient == ONE:
        return ONE, node
    if len(node.args) == 1 and labels[0] == out:
        return coefficient, node.args[0]
    return coefficient, intern(
        CONTRACTION, node.args, (ONE, labels, out), node.shape, contraction_key(ONE, node.args, labels, out)
    )


def factors_of(node: Node) -> tuple[Scalar, list[Factor], tuple[Label, ...]]:
    """Any node as a contraction: scalar, indexed factors, own indices."""
    if node.op is CONTRACTION:
        coefficient, labels, out = node.data
        return coefficient, list(zip(node.args, labels, strict=True)), out
    out = tuple(range(node.rank))
    return ONE, [(node, out)], out


def scale(value: Scalar | int | Fraction, node: Node) -> Node:
    """A scalar times a node."""
    scalar = value if isinstance(value, Scalar) else Scalar(Fraction(value))
    axes = tuple(range(node.rank))
    return contraction(scalar, [(node, axes)], axes, dict(enumerate(node.shape)))


def hadamard(*nodes: Node) -> Node:
    """The elementwise product of nodes of one shape."""
    axes = tuple(range(nodes[0].rank))
    return contraction(ONE, [(n, axes) for n in nodes], axes, dict(enumerate(nodes[0].shape)))


def permute(node: Node, axes: Sequence[int]) -> Node:
    """The axes in another order, as `jnp.transpose`."""
    return contraction(ONE, [(node, tuple(range(node.rank)))], tuple(axes), dict(enumerate(node.shape)))


def broadcast(node: Node, axes: Sequence[int], shape: Sequence[Dimension]) -> Node:
    """The node repeated: its axis k becomes axis `axes[k]` of the new shape."""
    return contraction(ONE, [(node, tuple(axes))], tuple(range(len(shape))), dict(enumerate(shape)))


def total(node: Node, axes: Sequence[int]) -> Node:
    """The sum over these axes."""
    out = tuple(k for k in range(node.rank) if k not in axes)
    return contraction(ONE, [(node, tuple(range(node.rank)))], out, dict(enumerate(node.shape)))


def power(base: Node, exponent: int | Fraction) -> Node:
    """Elementwise power. `(x²)^½` stays: it is |x|, not x."""
    exponent = Fraction(exponent)
    if exponent == 0:
        return ones(base.shape)
    if exponent == 1:
        return base
    if (value := constant_value(base)) is not None and (value.number > 0 or exponent.denominator == 1):
        return (
            constant(value.power(exponent), base.shape)
            if value.number or exponent > 0
            else _raw_power(base, exponent)
        )
    coefficient, unit = split(base)
    if coefficient != ONE and (exponent.denominator == 1 or coefficient.number > 0):
        return scale(coefficient.power(exponent), power(unit, exponent))
    if base.op is POWER and (positive(base.args[0]) or (base.data.denominator == 1 == exponent.denominator)):
        return power(base.args[0], base.data * exponent)
    if base.op is CONTRACTION and len(base.args) == 1 and len(set(base.data[1][0])) == len(base.data[1][0]):
        labels, out = base.data[1][0], base.data[2]
        if set(labels) <= set(out):  # a transpose or a repetition: the power goes inside
            inner = power(base.args[0], exponent)
            return contraction(ONE, [(inner, labels)], out, dict(zip(out, base.shape, strict=True)))
    return _raw_power(base, exponent)


def _raw_power(base: Node, exponent: Fraction) -> Node:
    return intern(POWER, (base,), exponent, base.shape)


def contraction(
    coefficient: Scalar, factors: Sequence[Factor], out: Sequence[Label], sizes: Mapping[Label, Dimension]
) -> Node:
    """coefficient · Σ Π factors, summed over every index that is not in `out`.

    Args:
        coefficient: the scalar in front.
        factors: nodes with an index for every axis.
        out: the indices of the result, each once.
        sizes: of the indices, at least of those that no factor has.
    """
    out = tuple(out)
    work = _Work(coefficient, out, dict(sizes))
    for node, labels in factors:
        work.sizes.update(zip(labels, node.shape, strict=True))
    shape = tuple(work.sizes[k] for k in out)
    work.summed = {k for _, labels in factors for k in labels} - set(out)
    work.flattening = flattening() or bool(len(factors) == 1 and work.summed)
    work.flatten(list(factors))
    if not work.coefficient.number:
        return zero(shape)
    work.sift()
    work.merge_powers()
    for recognize in recognizers:
        work.factors = recognize(work.factors, work.summed)
    work.sum_to_one()
    used = {k for _, labels in work.factors for k in labels}
    for k in work.summed - used:
        work.coefficient = work.coefficient * scalar_of_dimension(work.sizes[k])
    return _contraction_node(work.coefficient, work.factors, out, shape)


class _Work:
    """A contraction while it is simplified."""

    def __init__(self, coefficient: Scalar, out: tuple[Label, ...], sizes: dict[Label, Dimension]) -> None:
        self.coefficient, self.out, self.sizes = coefficient, out, sizes
        self.summed: set[Label] = set()
        self.flattening = True
        self.factors: list[Factor] = []

    def flatten(self, factors: list[Factor]) -> None:
        """Take the factors of factors that are contractions; one that is there twice becomes a power."""
        counts = Counter(factors)
        for node, labels in dict.fromkeys(factors):
            count = counts[node, labels]
            if count > 1:
                self.flatten([(power(node, count), labels)])
            elif node.op is CONTRACTION and (self.flattening or not is_product(node)):
                inner, inner_labels, inner_out = node.data
                self.coefficient = self.coefficient * inner
                names: dict[Label, Label] = dict(zip(inner_out, labels, strict=True))
                for factor, own in zip(node.args, inner_labels, strict=True):
                    for k, size in zip(own, factor.shape, strict=True):
                        if k not in names:
                            names[k] = label()
                            self.summed.add(names[k])
                            self.sizes[names[k]] = size
                    self.factors.append((factor, tuple(names[k] for k in own)))
            else:
                self.factors.append((node, labels))

    def sift(self) -> None:
        """Kronecker's delta picks: Σⱼ δᵢⱼ xⱼ = xᵢ."""
        k = 0
        while k < len(self.factors):
            node, labels = self.factors[k]
            gone = next((x for x in labels if x in self.summed), None)
            if node.op is not IDENTITY or (gone is None and labels[0] != labels[1]):
                k += 1
                continue
            del self.factors[k]
            k = 0
            if labels[0] != labels[1]:
                kept = labels[1] if labels[0] == gone else labels[0]
                self.summed.discard(gone)
                self.factors = [(n, tuple(kept if x == gone else x for x in ls)) for n, ls in self.factors]

    def merge_powers(self) -> None:
        """xᵃ xᵇ = xᵃ⁺ᵇ, where that is true of every x, or x is known not to be zero."""
        merged: dict[Factor, list[Fraction]] = {}
        for node, labels in self.factors:
            base, exponent = (node.args[0], node.data) if node.op is POWER else (node, Fraction(1))
            merged.setdefault((base, labels), []).append(exponent)
        factors: list[Factor] = []
        for (base, labels), exponents in merged.items():
            up, down = [e for e in exponents if e > 0], [e for e in exponents if e < 0]
            groups = [exponents] if nonzero(base) or not (up and down) else [up, down]
            for group in groups:
                factor = power(base, sum(group))
                if factor.op is CONTRACTION:
                    self.factors = []
                    self.flatten([(factor, labels)])
                    factors += self.factors
                else:
                    factors.append((factor, labels))
        self.factors = factors

    def sum_to_one(self) -> None:
        """Drop what is summed along an axis where it sums to one."""
        for factor in list(self.factors):
            axes = stochastic_axes(factor[0])
            if axes is None:
                continue
            own = [factor[1][a] for a in axes]
            elsewhere = {k for f in self.factors if f is not factor for k in f[1]}
            alone = len(set(factor[1])) == len(factor[1]) and not set(own) & elsewhere
            if alone and set(own) <= self.summed:
                self.factors.remove(factor)
                self.summed -= set(own)


def _contraction_node(
    coefficient: Scalar, factors: Sequence[Factor], out: tuple[Label, ...], shape: tuple[Dimension, ...]
) -> Node:
    names: dict[Label, int] = {k: a for a, k in enumerate(out)}
    for _, labels in factors:
        for k in labels:
            names.setdefault(k, len(names))
    nodes = tuple(n for n, _ in factors)
    indices = tuple(tuple(names[k] for k in labels) for _, labels in factors)
    own = tuple(range(len(out)))
    if coefficient == ONE and len(nodes) == 1 and indices[0] == own:
        return nodes[0]
    return intern(
        CONTRACTION,
        nodes,
        (coefficient, indices, own),
        shape,
        contraction_key(coefficient, nodes, indices, own),
    )


def add(*nodes: Node) -> Node:
    """The sum of nodes of one shape: like terms collected, a common scalar in front."""
    shape = nodes[0].shape
    terms: dict[tuple[Node, object], Scalar] = {}
    for node in nodes:
        _collect(ONE, node, terms)
    units = [(unit, s) for (unit, _), s in terms.items() if s.number]
    for recognize in sum_recognizers:
        units = recognize(units)
    if not units:
        return zero(shape)
    if len(units) == 1:
        return scale(units[0][1], units[0][0])
    if units[0][1].number < 0:  # a positive term first
        first = next((k for k, (_, s) in enumerate(units) if s.number > 0), 0)
        units.insert(0, units.pop(first))
    common = units[0][1]
    common = Scalar(abs(common.number), common.powers)
    if common != ONE and all(s.powers == common.powers and abs(s.number) == common.number for _, s in units):
        return scale(common, add(*(scale(1 if s.number > 0 else -1, u) for u, s in units)))
    if all(s.number < 0 for _, s in units):
        return scale(-1, add(*(scale(-s, u) for u, s in units)))
    key = frozenset((unit, s) for unit, s in units)
    return intern(ADD, [scale(s, u) for u, s in units], None, shape, key)


def _collect(factor: Scalar, node: Node, terms: dict[tuple[Node, object], Scalar]) -> None:
    if is_zero(node):
        return
    coefficient, unit = split(node)
    coefficient = coefficient * factor
    if unit.op is ADD:
        for term in unit.args:
            _collect(coefficient, term, terms)
        return
    if is_view(unit) and unit.args[0].op is ADD:  # a sum that is transposed or repeated: its terms are
        labels, out = unit.data[1][0], unit.data[2]
        sizes = dict(zip(out, unit.shape, strict=True))
        for term in unit.args[0].args:
            _collect(coefficient, contraction(ONE, [(term, labels)], out, sizes), terms)
        return
    before = terms.get((unit, coefficient.powers))
    terms[unit, coefficient.powers] = coefficient if before is None else before.plus(coefficient)
