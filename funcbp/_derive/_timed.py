"""Variables that have a value in every step of a recurrence: `h@t`, `h@t-1`, and `h@m` after the last."""

from collections.abc import Callable
from fractions import Fraction

from ._differentiate import rebuild
from ._nodes import VARIABLE, Node, topological, variable
from ._scalars import Dimension, Scalar, scalar_of_dimension

__all__ = ["at_place", "base_of", "is_timed", "place", "shifted", "timed"]


def timed(base: str, when: str) -> str:
    """The name of a variable in a step."""
    return f"{base}@{when}"


def base_of(name: str) -> str:
    """The name without its step."""
    return name.partition("@")[0]


def is_timed(node: Node) -> bool:
    """Whether a node is a variable of a step."""
    return node.op is VARIABLE and "@" in node.data


def _renamed(node: Node, rename: Callable[[str], str]) -> Node:
    found = {
        n: variable(timed(base_of(n.data), rename(n.data.partition("@")[2])), n.shape)
        for n in topological([node])
        if is_timed(n)
    }
    return rebuild(node, found)


def place(start: Dimension, offset: int) -> str:
    """A step at a distance from a numbered one, as `m-1`."""
    number = scalar_of_dimension(start).plus(Scalar(Fraction(offset)))
    return number.spelled().replace(" ", "")


def shifted(node: Node, letter: str, by: int) -> Node:
    """The same expression `by` steps later."""

    def rename(when: str) -> str:
        offset = _offset(when, letter) + by
        return f"{letter}{offset:+d}" if offset else letter

    return _renamed(node, rename)


def at_place(node: Node, letter: str, start: Dimension) -> Node:
    """The same expression in one numbered step."""
    return _renamed(node, lambda when: place(start, _offset(when, letter)))


def _offset(when: str, letter: str) -> int:
    return int(when.removeprefix(letter) or 0)
