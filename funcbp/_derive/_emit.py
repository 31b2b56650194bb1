"""Expressions as JAX code: products with `@`, sums, broadcasting, and `einsum` where nothing simpler does."""

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence

from ._algebra import IDENTITY, POWER, Factor, Label, factors_of
from ._choices import COMPARE, SELECT, untyped
from ._code import (
    ATOM,
    MATMUL,
    POWERED,
    PRODUCT,
    SIGN,
    SUM,
    Code,
    aligned,
    dot,
    einsum,
    letters_of,
    merged,
    quotient,
    total,
    volume,
)
from ._functions import Function
from ._keys import contraction_key
from ._names import fresh
from ._nodes import ADD, CONTRACTION, VARIABLE, Node
from ._operations import INVERSE, LOG_DETERMINANT, joined
from ._scalars import ONE, Dimension, Scalar, scalar_of_dimension
from ._softmax import LOG_SUM_EXP, softmax
from ._structure import CUMULATIVE, SOLVE, Structure, only_triangle, triangle_of

__all__ = ["Emitter", "shape_text", "unscaled"]


class Emitter:
    """Writes expressions in terms of names.

    Args:
        names: of expressions that are computed already.
        structure: what is known of matrices.
        taken: names in use; those of factorizations are added to it.
    """

    def __init__(self, names: dict[Node, str], structure: Structure, taken: set[str]) -> None:
        self.names, self.structure, self.taken = names, structure, taken
        self.sizes = structure.sizes
        self.repeated: set[Node] = set()
        self.products: Counter[object] = Counter()
        self.factors: dict[Node, str] = {}
        self.softmaxes: set[Node] = set()
        self.exponentials: dict[Node, tuple[str, str, str]] = {}
        self.pending: list[str] = []

    def full(self, node: Node) -> str:
        """An expression with the whole shape of a node."""
        code = self.code(node)
        if len(code.labels) == node.rank:
            return code.text
        return f"jnp.broadcast_to({aligned(code, tuple(range(node.rank))).text}, {shape_text(node)})"

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
        if node.op in (INVERSE, LOG_DETERMINANT, SOLVE):
            return Code(self._linear_algebra(node), ATOM, own)
        if node.op is LOG_SUM_EXP and (found := self._exponentials(node)) is not None:
            largest, _, denominator = found
            text = f"{largest} + jnp.log({denominator})"
            return (
                Code(f"jnp.squeeze({text}, {_axes(node)})", ATOM, own) if node.rank else Code(text, SUM, own)
            )
        if node in self.exponentials:
            _, numerator, denominator = self.exponentials[node]
            return Code(f"{numerator} / {denominator}", PRODUCT, own)
        level = SUM if node.op is CUMULATIVE else ATOM
        text = node.op.python(node, [self._whole(a).at(level) for a in node.args])
        return Code(text, ATOM, own)

    def _linear_algebra(self, node: Node) -> str:
        """An inverse, a solve or a determinant, by the cheapest factorization that there is."""
        matrix = node.args[0]
        identity = f"jnp.eye({scalar_of_dimension(matrix.shape[0]).spelled()})"
        right = self.full(node.args[1]) if node.op is SOLVE else identity
        turn = ", trans=1" if node.op is SOLVE and node.data else ""
        triangular = self.structure.triangular(matrix)
        if triangular is not None:
            stored = self.full(triangular[0])
            if node.op is LOG_DETERMINANT:
                return f"jnp.sum(jnp.log(jnp.abs(jnp.diagonal({stored}))))"
            side = ", lower=True" if triangular[1] else ""
            return f"jax.scipy.linalg.solve_triangular({stored}, {right}{turn}{side})"
        if matrix in self.repeated:
            factor = self._factored(matrix)
            if node.op is LOG_DETERMINANT:
                return f"jnp.sum(jnp.log(jnp.abs(jnp.diagonal({factor}[0]))))"
            return f"jax.scipy.linalg.lu_solve({factor}, {right}{turn})"
        text = self._whole(matrix).at(ATOM)
        if node.op is SOLVE:
            return f"jnp.linalg.solve({text}{'.T' if node.data else ''}, {right})"
        return node.op.python(node, [text])

    def _factored(self, matrix: Node) -> str:
        """The name of the LU factors of a matrix that is solved with more than once."""
        if matrix not in self.factors:
            numbered = (f"lu{number or ''}" for number in itertools.count())
            name = next(n for n in numbered if n not in self.taken)
            self.taken.add(name)
            self.pending.append(f"{name} = jax.scipy.linalg.lu_factor({self.full(matrix)})")
            self.factors[matrix] = name
        return self.factors[matrix]

    def _exponentials(self, logarithm: Node) -> tuple[str, str, str] | None:
        """Names of the maximum, of what the exponentials are, and of their sum, where softmax needs them too.

        Each is then taken once.
        """
        z = logarithm.args[0]
        quotient = softmax(z, logarithm.data)
        argument = self.full(z)
        if quotient not in self.softmaxes or quotient in self.names or not argument.isidentifier():
            return None
        if quotient not in self.exponentials:
            rank = z.rank if logarithm.rank else 0
            largest, denominator = (fresh(role, rank, False, self.taken) for role in ("m", "s"))
            numerator = fresh("e", z.rank, False, self.taken)
            along = f", {_axes(logarithm)}, keepdims=True" if logarithm.rank else ""
            self.pending += [
                f"{largest} = jnp.max({argument}{along})",
                f"{numerator} = jnp.exp({argument} - jnp.where(jnp.isfinite({largest}), {largest}, 0))",
                f"{denominator} = jnp.sum({numerator}{along})",
            ]
            self.exponentials[quotient] = largest, numerator, denominator
        return self.exponentials[quotient]

    def _elementwise(self, node: Node) -> Code:
        codes = [self.code(a) for a in node.args]
        union = tuple(k for k in range(node.rank) if any(k in c.labels for c in codes))
        level = ATOM if node.op is POWER or node.op is COMPARE else SUM
        if (found := only_triangle(node)) is not None:
            matrix = self.code(found[0])
            if matrix.labels == (0, 1):
                return Code(found[1].of(matrix.text), ATOM, (0, 1))
        texts = [aligned(c, union).at(level) for c in codes]
        if node.op is SELECT and node.args[0].op is COMPARE and node.args[0] not in self.names:
            mask = [aligned(self.code(a), union).at(ATOM) for a in node.args[0].args]
            texts[0] = COMPARE.condition(node.args[0], mask)
        if isinstance(node.op, Function) or node.op is SELECT:
            # Of an integer JAX has no sigmoid, and of two integers it chooses an integer.
            texts = [f"{t}.0" if t.removeprefix("-").isdigit() else t for t in texts]
        text = node.op.python(node, texts)
        binds = ATOM
        if node.op is POWER:
            binds = PRODUCT if text.startswith("1 /") else POWERED if "**" in text else ATOM
        return Code(text, binds, union)

    def _sum(self, node: Node) -> Code:
        placed = self._concatenation(node)
        if placed is not None:
            return placed
        codes = [self.code(t) for t in node.args]
        union = tuple(k for k in range(node.rank) if any(k in c.labels for c in codes))
        text = ""
        for code in codes:
            term = aligned(code, union)
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
        alone = self.products[unscaled(node)] < 2
        return self._masked(coefficient, factors, out) or self._product(coefficient, factors, out, alone)

    def _masked(self, coefficient: Scalar, factors: Sequence[Factor], out: tuple[Label, ...]) -> Code | None:
        """A matrix of which only the diagonal or a triangle is kept."""
        for mask, labels in factors:
            kept = triangle_of(mask)
            if (
                (kept is None and mask.op is not IDENTITY)
                or len(set(labels)) < 2
                or not set(labels) <= set(out)
            ):
                continue
            others = [f for f in factors if f != (mask, labels)]
            code = self._product(coefficient, others, out, alone=True)
            if kept is None:
                if len(code.labels) == 1 and set(out) == set(labels):
                    return Code(f"jnp.diag({code.text})", ATOM, out)
            elif set(code.labels[-2:]) == set(labels):
                kept = kept if code.labels[-2:] == labels else kept.transposed
                return Code(kept.of(code.text), ATOM, code.labels)
        return None

    def _product(
        self, coefficient: Scalar, factors: Sequence[Factor], out: tuple[Label, ...], alone: bool
    ) -> Code:
        """A scalar times factors, summed over what is not `out`.

        Args:
            coefficient: the scalar.
            factors: with an index for every axis.
            out: the indices of the result.
            alone: whether no other product has the same factors, so that one of them may take the scalar.
        """
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
        dims = {k: d for f, labels in factors for k, d in zip(labels, f.shape, strict=True)}
        sizes = {k: self._size(d) for k, d in dims.items()}
        if summed and alone:
            given = {f.data for f, _ in factors if f.op is VARIABLE and f not in self.names}
            coefficient, operands, below = _scaled_first(coefficient, operands, below, out, sizes, given)
        operands = self._summed(operands, summed, out, dims)
        return quotient(coefficient, operands, below, out, sizes)

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
        letters, result = letters_of(code.labels), tuple(dict.fromkeys(code.labels))
        spec = f"{''.join(letters[k] for k in code.labels)}->{''.join(letters[k] for k in result)}"
        return Code(f'jnp.einsum("{spec}", {code.text})', ATOM, result)

    def _summed(
        self,
        operands: list[Code],
        summed: set[Label],
        order: tuple[Label, ...],
        dims: Mapping[Label, Dimension],
    ) -> list[Code]:
        """Operands in which nothing is left to be summed."""
        operands = list(operands)
        sizes = {k: self._size(d) for k, d in dims.items()}
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
            after = (*order, *(k for c in rest for k in c.labels))
            if len(group) > 2:
                group = sorted(group, key=lambda c: len(c.labels))
                pair = [c for c in group if set(c.labels) <= set(group[-1].labels)][:2]
                if len(pair) < 2 or len(set(group[-1].labels)) > 2:
                    pair = group
                    ready = frozenset(x for x in left if not any(x in c.labels for c in rest))
                    operands = [*rest, einsum(pair, ready, after)]
                    continue
                operands = [*rest, merged(pair), *(c for c in group if c not in pair)]
                continue
            operands = [total(group[0], ready) if len(group) == 1 else dot(*group, ready, after, dims), *rest]


def shape_text(node: Node) -> str:
    """The shape of a node as a tuple of sizes."""
    inside = ", ".join(scalar_of_dimension(d).spelled() for d in node.shape)
    return f"({inside},)" if node.rank == 1 else f"({inside})"


def unscaled(node: Node) -> object:
    """The same for contractions that differ in scalars alone."""
    _, indices, out = node.data
    matrices = [(n, labels) for n, labels in zip(node.args, indices, strict=True) if labels]
    return contraction_key(ONE, [n for n, _ in matrices], [labels for _, labels in matrices], out)


def _scaled_first(
    coefficient: Scalar,
    operands: list[Code],
    below: list[Code],
    out: Sequence[Label],
    sizes: Mapping[Label, float],
    given: set[str],
) -> tuple[Scalar, list[Code], list[Code]]:
    """Scalars multiply an operand of a product instead of the product, if there are fewer numbers in it.

    One that is computed, not `given`, is preferred: it is multiplied while it is computed, so that its
    numbers are not read and written once more, as those of the product are.
    """
    result = {k for c in (*operands, *below) for k in c.labels if k in out}
    most = volume(result, sizes)
    fewer = [c for c in operands if c.labels and _passes(c, given) * volume(c.labels, sizes) < 2 * most]
    if not fewer:
        return coefficient, operands, below
    smallest = min(fewer, key=lambda c: (c.text in given, volume(c.labels, sizes)))
    scalars = [c for c in operands if not c.labels]
    divisors = [c for c in below if not c.labels]
    scaled = quotient(coefficient.magnitude, [*scalars, smallest], divisors, smallest.labels, sizes)
    others = [c for c in operands if c.labels and c is not smallest]
    kept = [scaled if c is smallest else c for c in operands if c is smallest or c in others]
    return coefficient.sign, kept, [c for c in below if c.labels]


def _passes(code: Code, given: set[str]) -> int:
    return 2 if code.text in given else 1


def _axes(logarithm: Node) -> str:
    axes = logarithm.data
    return f"axis={axes[0] if len(axes) == 1 else axes}"
