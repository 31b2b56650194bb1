"""Which operations make of a parameter a view: a table of primitives.

Every function has `(params, operands)`, of which one is a view, and gives back a view for every output, or
None where the result is none.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax import numpy as jnp
from jax.core import Tracer

from ._frame import Operand, Value
from ._views import Move, View

__all__ = ["MOVES", "known"]

Params = dict[str, Any]
Moved = list[View] | None


def known(operand: Operand) -> Any:
    """A scalar that is known while tracing; else None."""
    array = operand.array
    scalar = isinstance(operand, Value) and not isinstance(array, Tracer) and np.ndim(array) == 0
    return array if scalar else None


def _unary(move: Callable[[Params, jax.Array], Move | None]) -> Callable[[Params, Sequence[Operand]], Moved]:
    def moved(params: Params, operands: Sequence[Operand]) -> Moved:
        view = operands[0]
        found = move(params, view.array) if isinstance(view, View) else None
        return None if found is None or not isinstance(view, View) else [view.moved(found)]

    return moved


def _cast(params: Params, _: jax.Array) -> Move | None:
    dtype = np.dtype(params["new_dtype"])
    return ("convert", dtype.name) if jnp.issubdtype(dtype, jnp.floating) else None


def _reshape(params: Params, _: jax.Array) -> Move | None:
    return ("reshape", tuple(params["new_sizes"])) if params["dimensions"] is None else None


def _squeeze(params: Params, x: jax.Array) -> Move:
    return ("reshape", tuple(n for k, n in enumerate(x.shape) if k not in params["dimensions"]))


def _broadcast(params: Params, x: jax.Array) -> Move:
    shape = tuple(params["shape"])
    if math.prod(shape) == x.size:
        return ("reshape", shape)
    return ("broadcast", shape, tuple(params["broadcast_dimensions"]))


def _same(_: Params, operands: Sequence[Operand]) -> Moved:
    return [_as_view(operands[0])]


def _slice(params: Params, _: jax.Array) -> Move:
    strides = params["strides"]
    ends = tuple(params["start_indices"]), tuple(params["limit_indices"])
    return ("slice", *ends, None if strides is None else tuple(strides))


def _split(params: Params, operands: Sequence[Operand]) -> Moved:
    (view,) = operands
    axis, first, parts = params["axis"], 0, []
    for size in params["sizes"]:
        limit = list(view.array.shape)
        start = [0] * len(limit)
        start[axis], limit[axis] = first, first + size
        parts.append(_as_view(view).moved(("slice", tuple(start), tuple(limit), None)))
        first += size
    return parts


def _scaled(params: Params, operands: Sequence[Operand]) -> Moved:
    """A parameter times a number that is known."""
    del params
    number = next((known(o) for o in operands if isinstance(o, Value)), None)
    view = next(o for o in operands if isinstance(o, View))
    return None if number is None else [view.moved(("scale", float(number)))]


def _divided(params: Params, operands: Sequence[Operand]) -> Moved:
    number = known(operands[1])
    return None if number is None else _scaled(params, (operands[0], Value(1 / float(number))))


def _as_view(operand: Operand) -> View:
    if not isinstance(operand, View):
        raise TypeError(f"a view is expected, not {operand!r}")
    return operand


MOVES: dict[str, Callable[[Params, Sequence[Operand]], Moved]] = {
    "transpose": _unary(lambda params, _: ("transpose", tuple(params["permutation"]))),
    "reshape": _unary(_reshape),
    "squeeze": _unary(_squeeze),
    "slice": _unary(_slice),
    "rev": _unary(lambda params, _: ("reverse", tuple(params["dimensions"]))),
    "broadcast_in_dim": _unary(_broadcast),
    "convert_element_type": _unary(_cast),
    "copy": _same,
    "copy_p": _same,
    "split": _split,
    "neg": _unary(lambda *_: ("scale", -1.0)),
    "mul": _scaled,
    "div": _divided,
}
