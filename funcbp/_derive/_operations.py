"""Operations on whole arrays: linear algebra, maxima, blocks, reshapes."""

from collections.abc import Sequence
from fractions import Fraction

from ._algebra import (
    add,
    broadcast,
    constant,
    contraction,
    hadamard,
    identity,
    permute,
    power,
    scale,
    split,
    total,
    zero,
)
from ._choices import compare, iota
from ._nodes import ADD, CONTRACTION, Node, Operation, intern
from ._predicates import is_zero
from ._scalars import ONE, Dimension, Scalar, collected, scalar_of_dimension

__all__ = [
    "cholesky",
    "determinant",
    "inverse",
    "joined",
    "largest",
    "log_determinant",
    "place_axis",
    "reshape",
    "reverse",
    "slice_axis",
    "triangle",
]


def product(*matrices: Node) -> Node:
    """The product of matrices, and of vectors at its ends."""
    factors = []
    k = 0
    for m in matrices:
        factors.append((m, tuple(range(k, k + m.rank))) if m.rank == 2 else (m, (k,)))
        k += m.rank - 1 if m.rank == 2 else 0
    labels = [x for _, ls in factors for x in ls]
    own = [x for x in dict.fromkeys(labels) if labels.count(x) == 1]
    return contraction(ONE, factors, own, {})


class _Inverse(Operation):
    """The inverse of a square matrix; a product with it is computed as a solve."""

    name = "inverse"
    rule = "d(A⁻¹) = −A⁻¹ dA A⁻¹"

    def differential(self, node: Node, _index: int, tangent: Node, /) -> Node:
        return scale(-1, product(node, tangent, node))

    def show(self, node, writer, /):
        return writer.superscript(node.args[0], writer.pick("⁻¹", "-1"))

    def python(self, _node: Node, arguments: Sequence[str], /) -> str:
        return f"jnp.linalg.inv({arguments[0]})"


class _LogDeterminant(Operation):
    """log |det A|."""

    name = "logdet"
    rule = "d log|det A| = tr(A⁻¹ dA)"

    def differential(self, node: Node, _index: int, tangent: Node, /) -> Node:
        return contraction(ONE, [(inverse(node.args[0]), (0, 1)), (tangent, (1, 0))], (), {})

    def show(self, node, writer, /):
        return writer.function(writer.pick("log det", r"\log\det"), node.args)

    def python(self, _node: Node, arguments: Sequence[str], /) -> str:
        return f"jnp.linalg.slogdet({arguments[0]})[1]"


class _Determinant(Operation):
    """The determinant."""

    name = "det"
    rule = "d det A = det(A) tr(A⁻¹ dA)"

    def differential(self, node: Node, _index: int, tangent: Node, /) -> Node:
        return contraction(ONE, [(node, ()), (inverse(node.args[0]), (0, 1)), (tangent, (1, 0))], (), {})

    def show(self, node, writer, /):
        return writer.function(writer.pick("det", r"\det"), node.args)

    def python(self, _node: Node, arguments: Sequence[str], /) -> str:
        return f"jnp.linalg.det({arguments[0]})"


class _Cholesky(Operation):
    """The lower triangular L with L Lᵀ = A."""

    name = "cholesky"
    rule = "dL = L Φ(L⁻¹ dA L⁻ᵀ), Φ the lower triangle with half of the diagonal"

    def differential(self, node: Node, _index: int, tangent: Node, /) -> Node:
        size = node.shape[0]
        half = add(scale(Fraction(1, 2), identity(size)), triangle(">", size))
        low = inverse(node)
        return product(node, hadamard(half, product(low, tangent, permute(low, (1, 0)))))

    def show(self, node, writer, /):
        return writer.function(writer.pick("chol", r"\operatorname{chol}"), node.args)

    def python(self, _node: Node, arguments: Sequence[str], /) -> str:
        return f"jnp.linalg.cholesky({arguments[0]})"


INVERSE, LOG_DETERMINANT, DETERMINANT, CHOLESKY = _Inverse(), _LogDeterminant(), _Determinant(), _Cholesky()


def inverse(matrix: Node) -> Node:
    """The inverse; of an inverse, transpose or multiple it is simplified."""
    if matrix.op is INVERSE:
        return matrix.args[0]
    coefficient, unit = split(matrix)
    if coefficient != ONE:
        return scale(coefficient.power(Fraction(-1)), inverse(unit))
    if unit.op is CONTRACTION and len(unit.args) == 1 and unit.data[1][0] == (1, 0):
        return permute(inverse(unit.args[0]), (1, 0))
    return intern(INVERSE, (matrix,), None, matrix.shape)


def log_determinant(matrix: Node) -> Node:
    """log |det A|."""
    return intern(LOG_DETERMINANT, (matrix,), None, ())


def determinant(matrix: Node) -> Node:
    """det A."""
    return intern(DETERMINANT, (matrix,), None, ())


def cholesky(matrix: Node) -> Node:
    """The Cholesky factor of a symmetric matrix."""
    return intern(CHOLESKY, (matrix,), None, matrix.shape)


def triangle(relation: str, size: Dimension) -> Node:
    """The indicator of row `relation` column."""
    counting = iota(size)
    rows, columns = (broadcast(counting, (k,), (size, size)) for k in (0, 1))
    return compare(relation, rows, columns)


def lower(matrix: Node, mask: Node) -> Node | None:
    """The matrix itself, if the mask takes its lower triangle and it is lower triangular already."""
    if matrix.op is CHOLESKY and mask is triangle("≥", matrix.shape[0]):
        return matrix
    return None


class _Largest(Operation):
    """The largest (smallest) entry along axes; JAX divides the derivative equally between ties."""

    rule = "max along an axis: to where it is attained, equally between ties"

    def __init__(self, name: str) -> None:
        self.name = name

    def differential(self, node: Node, _index: int, tangent: Node, /) -> Node:
        x, axes = node.args[0], node.data
        where = intern(ATTAINED, (x, node), axes, x.shape)
        return total(hadamard(where, tangent), axes)

    def show(self, node, writer, /):
        return writer.rowwise(writer.pick(self.name, "\\" + self.name), node.args[0], node.data)

    def python(self, node: Node, arguments: Sequence[str], /) -> str:
        return f"jnp.{self.name}({arguments[0]}, axis={_axis(node.data)})"


class _Attained(Operation):
    """1 where the largest entry is attained, divided by how often."""

    name = "attained"
    constant = True

    def sums_to_one(self, node: Node) -> tuple[int, ...]:
        """The axes over which it sums to one."""
        return node.data

    def show(self, node, writer, /):
        name = "arg" + node.args[1].op.name
        return writer.rowwise(writer.pick(name, rf"\operatorname{{{name}}}"), node.args[0], node.data)

    def expanded(self, node: Node, /) -> Node:
        (x, best), axes = node.args, node.data
        kept = [a for a in range(x.rank) if a not in axes]
        here = compare("=", x, broadcast(best, kept, x.shape))
        return hadamard(here, broadcast(power(total(here, axes), -1), kept, x.shape))


ATTAINED = _Attained()
_LARGEST = {"max": _Largest("max"), "min": _Largest("min")}


def _axis(axes: tuple[int, ...]) -> str:
    return str(axes[0]) if len(axes) == 1 else str(axes)


def largest(name: str, x: Node, axes: Sequence[int]) -> Node:
    """`jnp.max` or `jnp.min` over axes."""
    shape = [d for a, d in enumerate(x.shape) if a not in axes]
    return intern(_LARGEST[name], (x,), tuple(axes), shape)


class _Slice(Operation):
    """A part of an axis."""

    name = "slice"
    rule = "slice: zeros around"
    linear = True

    def differential(self, node: Node, _index: int, tangent: Node, /) -> Node:
        return intern(self, (tangent,), node.data, node.shape)

    def transpose(self, node: Node, cotangent: Node, /) -> Node:
        return intern(PLACE, (cotangent,), node.data, node.args[0].shape)

    def show(self, node, writer, /):
        return writer.part(node)

    def python(self, node: Node, arguments: Sequence[str], /) -> str:
        return f"{arguments[0]}[{_ranges(node, node.args[0].rank)}]"


class _Place(Operation):
    """An array with a part filled in, zero elsewhere: the transpose of a slice."""

    name = "place"
    rule = "zeros around: slice"
    linear = True

    def differential(self, node: Node, _index: int, tangent: Node, /) -> Node:
        return intern(self, (tangent,), node.data, node.shape)

    def transpose(self, node: Node, cotangent: Node, /) -> Node:
        return intern(SLICE, (cotangent,), node.data, node.args[0].shape)

    def show(self, node, writer, /):
        return writer.placed(node)

    def python(self, node: Node, arguments: Sequence[str], /) -> str:
        shape = ", ".join(scalar_of_dimension(d).spelled() for d in node.shape)
        shape = f"({shape},)" if node.rank == 1 else f"({shape})"
        return f"jnp.zeros({shape}).at[{_ranges(node, node.rank)}].set({arguments[0]})"


SLICE, PLACE = _Slice(), _Place()


def _ranges(node: Node, rank: int) -> str:
    axis, start, stop, stride, drop = node.data
    step = "" if stride == 1 else f":{stride}"
    first = collected(start.spelled()) if start.number else "0" if drop else ""
    inside = first if drop else f"{first}:{collected(stop.spelled())}{step}"
    return ", ".join([":"] * axis + [inside] + [":"] * max(0, rank - axis - 1))


def slice_axis(x: Node, axis: int, start: Scalar, stop: Scalar, stride: int, size: Dimension) -> Node:
    """x[start:stop:stride] along an axis, of which `size` is left; of size 1 the axis goes."""
    if not start.number and stride == 1 and stop == scalar_of_dimension(x.shape[axis]):
        return x
    own = () if size == 1 else (size,)
    shape = (*x.shape[:axis], *own, *x.shape[axis + 1 :])
    return intern(SLICE, (x,), (axis, start, stop, stride, size == 1), shape)


def place_axis(part: Node, axis: int, start: Scalar, size: Dimension, shape: tuple[Dimension, ...]) -> Node:
    """A part of `size` along an axis, beginning at `start`, in zeros of a shape."""
    if part.shape == shape:
        return part
    if is_zero(part):
        return zero(shape)
    return intern(PLACE, (part,), (axis, start, start.plus(scalar_of_dimension(size)), 1, size == 1), shape)


def joined(node: Node) -> tuple[int, list[Node]] | None:
    """The axis and the parts of a sum of parts that fill an axis one after the other; None of another."""
    if node.op is not ADD or any(t.op is not PLACE for t in node.args):
        return None
    parts = sorted(node.args, key=lambda t: t.data[1].number)
    axis, end = parts[0].data[0], Scalar(Fraction(0))
    for part in parts:
        own, start, stop, stride, _ = part.data
        if own != axis or start != end or stride != 1:
            return None
        end = stop
    return (axis, parts) if end == scalar_of_dimension(node.shape[axis]) else None


class _Reverse(Operation):
    """An axis backwards."""

    name = "reverse"
    rule = "reversal is its own transpose"
    linear = True

    def differential(self, node: Node, _index: int, tangent: Node, /) -> Node:
        return intern(self, (tangent,), node.data, node.shape)

    def transpose(self, node: Node, cotangent: Node, /) -> Node:
        return intern(self, (cotangent,), node.data, node.shape)

    def show(self, node, writer, /):
        return writer.function(writer.pick("reverse", r"\operatorname{reverse}"), node.args)

    def python(self, node: Node, arguments: Sequence[str], /) -> str:
        return f"jnp.flip({arguments[0]}, {_axis(node.data)})"


class _Reshape(Operation):
    """The same entries, row by row, in another shape."""

    name = "reshape"
    rule = "reshape back"
    linear = True

    def differential(self, node: Node, _index: int, tangent: Node, /) -> Node:
        return reshape(tangent, node.shape)

    def transpose(self, node: Node, cotangent: Node, /) -> Node:
        return reshape(cotangent, node.args[0].shape)

    def show(self, node, writer, /):
        return writer.function(writer.pick("reshape", r"\operatorname{reshape}"), node.args)

    def python(self, node: Node, arguments: Sequence[str], /) -> str:
        shape = ", ".join(scalar_of_dimension(d).spelled() for d in node.shape)
        return f"jnp.reshape({arguments[0]}, ({shape}{',' if node.rank == 1 else ''}))"


REVERSE, RESHAPE = _Reverse(), _Reshape()


def reverse(x: Node, axes: Sequence[int]) -> Node:
    """`jnp.flip`."""
    return intern(REVERSE, (x,), tuple(axes), x.shape)


def reshape(x: Node, shape: Sequence[Dimension]) -> Node:
    """`jnp.reshape`, row-major."""
    shape = tuple(shape)
    if x.op is RESHAPE:
        x = x.args[0]
    if x.shape == shape:
        return x
    if split(x)[1].op is CONTRACTION and not x.args:
        return constant(x.data[0], shape)
    return intern(RESHAPE, (x,), None, shape)
