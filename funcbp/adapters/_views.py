"""Views of a parameter: the parameter with its entries moved, which is still the parameter.

A move is a tuple of the name of what is done and of its static arguments. All but "broadcast" carry every
entry to one place or drop it, so that the gradient of a view, carried back, has the same norm.
"""

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax import lax

__all__ = ["Move", "View", "carried_back", "normal_form", "replayed"]

Move = tuple[Any, ...]


@dataclass(frozen=True)
class View:
    """A parameter inside a program, as it is or moved.

    Attributes:
        array: its value, which nothing is differentiated with respect to.
        base: the number of the parameter that it is a view of.
        moves: how it was made from that.
    """

    array: jax.Array
    base: int
    moves: tuple[Move, ...] = ()

    @property
    def isometric(self) -> bool:
        """Whether every entry of the parameter is in at most one place."""
        return not any(move[0] == "broadcast" for move in self.moves)

    def moved(self, *moves: Move) -> "View":
        """A view of the view."""
        return View(replayed(moves, self.array), self.base, (*self.moves, *moves))


def replayed(moves: tuple[Move, ...], x: jax.Array) -> jax.Array:
    """What the moves make of an array.

    >>> replayed((("transpose", (1, 0)), ("reshape", (4,))), jax.numpy.arange(4).reshape(2, 2)).tolist()
    [0, 2, 1, 3]
    """
    for name, *arguments in moves:
        x = _MOVES[name](x, *arguments)
    return x


def carried_back(moves: tuple[Move, ...], gradient: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """The gradient of the parameter, of `shape`, from that of its view.

    >>> carried_back((("slice", (1,), (3,), None),), jax.numpy.ones(2), (4,)).tolist()
    [0.0, 1.0, 1.0, 0.0]
    """
    spec = jax.ShapeDtypeStruct(shape, gradient.dtype)
    (moved,) = jax.linear_transpose(lambda x: replayed(moves, x), spec)(gradient)
    return moved


def normal_form(shape: tuple[int, ...], moves: tuple[Move, ...]) -> tuple[Move, ...]:
    """The same isometric moves of a parameter of `shape`, without those that do nothing.

    Casts are left out, factors of "scale" too.

    >>> normal_form((2, 3), (("convert", "float32"), ("transpose", (1, 0)), ("transpose", (1, 0))))
    ()
    >>> normal_form((2, 3), (("reshape", (2, 1, 3)), ("transpose", (1, 0, 2)), ("reshape", (2, 3))))
    ()
    """
    before = [tuple(shape)]
    kept: list[Move] = []
    for move in moves:
        if move[0] in ("convert", "scale"):
            continue
        move = _plainer(before[-1], move)
        after = jax.eval_shape(lambda x, m=move: replayed((m,), x), _spec(before[-1])).shape
        if kept and move[0] == kept[-1][0] == "transpose":
            before.pop()
            order = kept.pop()[1]
            move = ("transpose", tuple(order[axis] for axis in move[1]))
        elif kept and move[0] == kept[-1][0] == "reshape":
            kept.pop(), before.pop()
        if move not in (("reshape", before[-1]), ("transpose", tuple(range(len(before[-1]))))):
            kept.append(move)
            before.append(after)
    return tuple(kept)


def _plainer(shape: tuple[int, ...], move: Move) -> Move:
    """A transpose that only moves axes of size 1 as a reshape."""
    if move[0] == "transpose":
        larger = [axis for axis in move[1] if shape[axis] != 1]
        if larger == sorted(larger) and len(larger) < len(shape):
            return ("reshape", tuple(shape[axis] for axis in move[1]))
    return move


def _spec(shape: tuple[int, ...]) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, np.dtype("float32"))


_MOVES = {
    "transpose": lax.transpose,
    "reshape": lax.reshape,
    "slice": lax.slice,
    "reverse": lax.rev,
    "broadcast": lax.broadcast_in_dim,
    "convert": lax.convert_element_type,
    "scale": lambda x, by: x * by,
}
