"""Pullbacks of common primitives in NumPy: what a node's operands get from the cotangent of its output."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .graph import Node

if TYPE_CHECKING:
    from .tape import Tape

__all__ = ["PULLBACKS", "einsum_of", "fit", "moved_by", "scatter"]

Pullback = Callable[["Tape", Node, Sequence[Any], np.ndarray], Sequence[np.ndarray | None]]

Sent = Sequence[np.ndarray | None]

# Each output element is one element of the first operand, or a constant.
_MOVES = frozenset(
    ["dynamic_slice", "expand_dims", "gather", "reshape", "rev", "slice", "squeeze", "take_step", "transpose"]
)


def moved_by(node: Node) -> bool:
    """Whether a node only moves elements of its first operand."""
    return node.name in _MOVES


def fit(ct: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Undo implicit broadcasting: of scalars, and along axes of length one."""
    if ct.shape == shape:
        return ct
    return ct.sum(implicit_axes(ct.shape, shape), keepdims=True).reshape(shape)


def implicit_axes(out: tuple[int, ...], shape: tuple[int, ...]) -> tuple[int, ...]:
    """The axes of the output along which an elementwise operation repeats an operand of this shape."""
    return tuple(axis for axis, n in enumerate(out) if not shape or (shape[axis] == 1 and n != 1))


def scatter(places: np.ndarray, ct: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Add each element of the cotangent to its place, counted from 1; those at 0 are lost."""
    at, size = places.ravel().astype(np.int64), int(np.prod(shape))

    def real(x: np.ndarray) -> np.ndarray:
        return np.bincount(at, weights=x.ravel(), minlength=size + 1)[1:].reshape(shape)

    return real(ct.real) + 1j * real(ct.imag) if np.iscomplexobj(ct) else real(ct)


def _elementwise(
    tape: "Tape", node: Node, operands: Sequence[Any], ct: np.ndarray
) -> list[np.ndarray | None]:
    del operands
    sent: list[np.ndarray | None] = []
    for k, value in enumerate(node.inputs):
        slope = tape.slopes.get((node.index, k))
        sent.append(None if slope is None else fit(times(ct, slope), tape.graph.shape(value)))
    return sent


def times(ct: np.ndarray, slope: np.ndarray) -> np.ndarray:
    """A product in which zero times infinity is zero: what is not asked for does not matter."""
    return np.where(ct == 0, 0, ct * slope)


def _moves(tape: "Tape", node: Node, operands: Sequence[Any], ct: np.ndarray) -> Sent:
    moved = scatter(tape.maps[node.index], ct, tape.graph.shape(node.inputs[0]))
    return [moved, *([None] * (len(operands) - 1))]


def _broadcast(tape: "Tape", node: Node, operands: Sequence[Any], ct: np.ndarray) -> Sent:
    shape = tape.graph.shape(node.inputs[0])
    return [ct.sum(repeated_axes(node, shape), keepdims=True).reshape(shape), *([None] * (len(operands) - 1))]


def repeated_axes(node: Node, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The axes of the output along which a broadcast repeats its operand."""
    out, kept = node.params["shape"], node.params["broadcast_dimensions"]
    sizes = dict(zip(kept, shape, strict=True))
    return tuple(axis for axis, n in enumerate(out) if axis not in sizes or (sizes[axis] == 1 and n != 1))


def _reduce_sum(tape: "Tape", node: Node, operands: Sequence[Any], ct: np.ndarray) -> Sent:
    shape = tape.graph.shape(node.inputs[0])
    return [np.broadcast_to(np.expand_dims(ct, node.params["axes"]), shape), *([None] * (len(operands) - 1))]


def _extreme(tape: "Tape", node: Node, operands: Sequence[Any], ct: np.ndarray) -> Sent:
    axes = node.params["axes"]
    winners = operands[0] == np.expand_dims(tape.values[node.outputs[0]], axes)
    return [np.expand_dims(ct, axes) * winners / winners.sum(axes, keepdims=True)]


def einsum_of(node: Node, ranks: tuple[int, int]) -> tuple[str, str, str]:
    """The letters of a dot_general: both operands and the result."""
    (contract_l, contract_r), (batch_l, batch_r) = node.params["dimension_numbers"]
    letters = iter("abcdefghijklmnopqrstuvwxyz")
    left, right = [""] * ranks[0], [""] * ranks[1]
    out = ""
    for i, j in zip(batch_l, batch_r, strict=True):
        left[i] = right[j] = next(letters)
        out += left[i]
    for i, j in zip(contract_l, contract_r, strict=True):
        left[i] = right[j] = next(letters)
    for side in (left, right):
        for i, letter in enumerate(side):
            if not letter:
                side[i] = next(letters)
                out += side[i]
    return "".join(left), "".join(right), out


def _dot(tape: "Tape", node: Node, operands: Sequence[Any], ct: np.ndarray) -> Sent:
    x, w = operands
    left, right, out = einsum_of(node, (x.ndim, w.ndim))
    wanted = [v in tape.recorder.moving for v in node.inputs]
    return [
        np.einsum(f"{out},{right}->{left}", ct, w, optimize=True) if wanted[0] else None,
        np.einsum(f"{left},{out}->{right}", x, ct, optimize=True) if wanted[1] else None,
    ]


def _select(tape: "Tape", node: Node, operands: Sequence[Any], ct: np.ndarray) -> Sent:
    del tape, node
    which, *cases = operands
    return [None, *(np.where(which == k, ct, 0) for k in range(len(cases)))]


def _choose(tape: "Tape", node: Node, operands: Sequence[Any], ct: np.ndarray) -> Sent:
    del tape, node
    index, *values = operands
    chosen = int(np.clip(index, 0, len(values) - 1))
    return [None, *(ct if k == chosen else None for k in range(len(values)))]


def _concatenate(
    tape: "Tape", node: Node, operands: Sequence[Any], ct: np.ndarray
) -> list[np.ndarray | None]:
    del tape
    axis = node.params["dimension"]
    return list(np.split(ct, np.cumsum([np.shape(x)[axis] for x in operands])[:-1], axis))


def _stack(tape: "Tape", node: Node, operands: Sequence[Any], ct: np.ndarray) -> Sent:
    del tape, node, operands
    return list(ct)


def _cumsum(tape: "Tape", node: Node, operands: Sequence[Any], ct: np.ndarray) -> Sent:
    del tape, operands
    axis = node.params["axis"]
    if node.params["reverse"]:
        return [np.cumsum(ct, axis)]
    return [np.flip(np.cumsum(np.flip(ct, axis), axis), axis)]


PULLBACKS: dict[str, Pullback] = {
    "broadcast_in_dim": _broadcast,
    "choose": _choose,
    "concatenate": _concatenate,
    "cumsum": _cumsum,
    "dot_general": _dot,
    "elementwise": _elementwise,
    "moves": _moves,
    "reduce_max": _extreme,
    "reduce_min": _extreme,
    "reduce_sum": _reduce_sum,
    "select_n": _select,
    "stack": _stack,
}
