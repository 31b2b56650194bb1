"""How a parameter meets data: a table from primitives to what is recorded there and the factor it makes.

Every function has `(equation, operands, frame)` and gives back the outputs, or None where it does not know
the case; then the operation is applied to a tapped parameter as to any other value.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax import lax
from jax import numpy as jnp

from .. import _compat
from .._correlation import Geometry
from ..factors import Factor, Outer, Patches, Rows, Stacked
from ._factors import Positions, of_parameter
from ._frame import Frame, Operand, Use, Value, spec_of
from ._moves import known
from ._views import Move, View

__all__ = ["MEETINGS"]

Outputs = list[Operand] | None
Meeting = Callable[[_compat.JaxprEqn, Sequence[Operand], Frame], Outputs]


def _used(
    equation: _compat.JaxprEqn,
    operands: Sequence[Operand],
    frame: Frame,
    view: View,
    moves: tuple[Move, ...],
    record: Any,
    factor: Callable[[Any, jax.Array], Factor],
) -> Outputs:
    """Apply an equation to the values, note a use, and add its tap.

    `factor` is that of the view after `moves`.
    """
    (output,) = _compat.bind(equation, [o.array for o in operands])
    shape, all_moves = frame.bases[view.base].shape, (*view.moves, *moves)

    def of_base(record: Any, delta: jax.Array) -> Factor:
        return of_parameter(factor(record, delta), shape, all_moves)

    tap = frame.note(Use(view.base, spec_of(output), of_base), record)
    return [Value(output + tap)]


def _product(equation: _compat.JaxprEqn, operands: Sequence[Operand], frame: Frame) -> Outputs:
    """A product with data: Σ a δᵀ over the axes that only the data have.

    Axes that both have and the result, too (those of a batched product), make a stack of such factors.
    """
    found = _with_data(operands, equation)
    if found is None:
        return None
    side, view, other = found
    contracted, batch = ((dims[side], dims[1 - side]) for dims in equation.params["dimension_numbers"])
    features = [k for k in range(view.array.ndim) if k not in (*contracted[0], *batch[0])]
    positions = [k for k in range(np.ndim(other.array)) if k not in (*contracted[1], *batch[1])]
    depth = len(batch[0])
    first = [depth + k for k in range(len(features if side == 0 else positions))]
    second = [k for k in range(depth, depth + len(features) + len(positions)) if k not in first]
    out_positions, out_features = (second, first) if side == 0 else (first, second)
    stack, terms, columns = (
        math.prod(view.array.shape[k] for k in axes) for axes in (batch[0], contracted[0], features)
    )
    count = math.prod(np.shape(other.array)[k] for k in positions)
    where = (count,) if count != 1 else ()

    def laid_out(x: jax.Array, stacked: Sequence[int], moved: Sequence[int], width: int) -> jax.Array:
        """Stack (if any), examples, positions (if any), the vectors."""
        if stack == 1:
            return _with_examples(x, (*stacked, *moved)).reshape(x.shape[0], *where, width)
        x = x.transpose(*(k + 1 for k in stacked), 0, *(k + 1 for k in moved))
        return x.reshape(stack, x.shape[len(stacked)], *where, width)

    def factor(a: jax.Array, delta: jax.Array) -> Factor:
        a = laid_out(a, batch[1], (*positions, *contracted[1]), terms)
        delta = laid_out(delta, range(depth), (*out_positions, *out_features), columns)
        return Outer(a, delta) if stack == 1 else Stacked(Outer(a, delta))

    sizes = (terms, columns) if stack == 1 else (stack, terms, columns)
    moves = (("transpose", (*batch[0], *contracted[0], *features)), ("reshape", sizes))
    return _used(equation, operands, frame, view, moves, other.array, factor)


def _convolution(equation: _compat.JaxprEqn, operands: Sequence[Operand], frame: Frame) -> Outputs:
    """A kernel that slides over data: patches."""
    found = _with_data(operands, equation)
    parameters = equation.params
    if found is None or found[0] == 0 or parameters["batch_group_count"] != 1:
        return None
    _, kernel, image = found
    image_axes, kernel_axes, out_axes = parameters["dimension_numbers"]
    output_shape = _compat.output_shapes(equation)[0]
    geometry = Geometry(
        tuple(np.shape(image.array)[k] for k in image_axes[2:]),
        tuple(kernel.array.shape[k] for k in kernel_axes[2:]),
        tuple(output_shape[k] for k in out_axes[2:]),
        tuple(parameters["window_strides"]),
        tuple(parameters["rhs_dilation"]),
        tuple(parameters["lhs_dilation"]),
        tuple(low for low, _ in parameters["padding"]),
        parameters["feature_group_count"],
    )

    def factor(a: jax.Array, delta: jax.Array) -> Factor:
        a, delta = (
            _with_examples(x, (axes[0], *axes[2:], axes[1]))
            for x, axes in ((a, image_axes), (delta, out_axes))
        )
        if a.shape[1] == 1:
            return Patches(a[:, 0], delta[:, 0], geometry)
        return Positions(Patches(a, delta, geometry))

    moves = (("transpose", (*kernel_axes[2:], kernel_axes[1], kernel_axes[0])),)
    return _used(equation, operands, frame, kernel, moves, image.array, factor)


def _gather(equation: _compat.JaxprEqn, operands: Sequence[Operand], frame: Frame) -> Outputs:
    """Rows of a table by number; all other axes of the table are read whole."""
    table, indices = operands
    dims, mode = equation.params["dimension_numbers"], equation.params["mode"]
    if not (isinstance(table, View) and table.isometric) or dims.operand_batching_dims:
        return None
    shape, sizes = table.array.shape, equation.params["slice_sizes"]
    axis = _partly_read(shape, sizes, dims.start_index_map[:1])
    clips = mode == lax.GatherScatterMode.CLIP
    if axis is None or axis not in dims.start_index_map or (not clips and len(dims.start_index_map) > 1):
        return None
    length = sizes[axis]
    starts = jnp.asarray(indices.array)[..., dims.start_index_map.index(axis)].astype(jnp.int32)
    inside = jnp.clip(starts, 0, shape[axis] - length)
    # The derivative of what is out of range is none, unless it is clipped: it belongs to no row.
    starts = inside if clips else jnp.where(starts == inside, starts, -1 - shape[axis])
    ids = starts[..., None] + jnp.arange(length)
    offsets = dict(
        zip(
            (k for k in range(len(shape)) if k not in dims.collapsed_slice_dims),
            dims.offset_dims,
            strict=True,
        )
    )
    batch = [k for k in range(len(_compat.output_shapes(equation)[0])) if k not in dims.offset_dims]
    read = [offsets[axis]] if axis in offsets else []
    rest = [k for dim, k in offsets.items() if dim != axis]
    return _rows(equation, operands, frame, table, axis, ids, (*batch, *read, *rest))


def _dynamic_slice(equation: _compat.JaxprEqn, operands: Sequence[Operand], frame: Frame) -> Outputs:
    """As `_gather`; where the places are known, a view."""
    table, *starts = operands
    sizes = equation.params["slice_sizes"]
    if not isinstance(table, View):
        return None
    shape = table.array.shape
    places = [known(start) for start in starts]
    if all(place is not None for place in places):
        begin = [min(max(int(p), 0), n - s) for p, n, s in zip(places, shape, sizes, strict=True)]
        ends = tuple(b + s for b, s in zip(begin, sizes, strict=True))
        return [table.moved(("slice", tuple(begin), ends, None))]
    axis = _partly_read(shape, sizes, (0,))
    if axis is None or not table.isometric:
        return None
    start = jnp.asarray(starts[axis].array).astype(jnp.int32)
    ids = jnp.clip(start, 0, shape[axis] - sizes[axis]) + jnp.arange(sizes[axis])
    rest = [k for k in range(len(shape)) if k != axis]
    return _rows(equation, operands, frame, table, axis, ids, (axis, *rest))


def _rows(
    equation: _compat.JaxprEqn,
    operands: Sequence[Operand],
    frame: Frame,
    table: View,
    axis: int,
    ids: jax.Array,
    out_axes: Sequence[int],
) -> Outputs:
    shape = table.array.shape
    features = math.prod(shape) // shape[axis]

    def factor(ids: jax.Array, delta: jax.Array) -> Factor:
        ids = ids.reshape(ids.shape[0], -1)
        return Rows(ids, _with_examples(delta, out_axes).reshape(*ids.shape, features), shape[axis])

    order = (axis, *(k for k in range(len(shape)) if k != axis))
    moves = (("transpose", order), ("reshape", (shape[axis], features)))
    return _used(equation, operands, frame, table, moves, ids, factor)


def _with_data(operands: Sequence[Operand], equation: _compat.JaxprEqn) -> tuple[int, View, Value] | None:
    """Which of two operands is the view, that and the other, if the other is no parameter.

    What depends on no example counts as data only where the result is smaller than the parameter.
    """
    side = 0 if isinstance(operands[0], View) else 1
    view, other = operands[side], operands[1 - side]
    if not isinstance(view, View) or not isinstance(other, Value) or not view.isometric or other.owners:
        return None
    small = math.prod(_compat.output_shapes(equation)[0]) < view.array.size
    return (side, view, other) if other.data or small else None


def _partly_read(shape: Sequence[int], sizes: Sequence[int], default: Sequence[int]) -> int | None:
    """The only axis that is not read whole; None if there are several."""
    axes = [k for k, (n, s) in enumerate(zip(shape, sizes, strict=True)) if n != s]
    return axes[0] if len(axes) == 1 else default[0] if not axes and default else None


def _with_examples(x: jax.Array, axes: Sequence[int]) -> jax.Array:
    """The axes of one example in an order, behind that of the examples."""
    return x.transpose(0, *(k + 1 for k in axes))


MEETINGS: dict[str, Meeting] = {
    "dot_general": _product,
    "conv_general_dilated": _convolution,
    "gather": _gather,
    "dynamic_slice": _dynamic_slice,
}
