"""Names of intermediates and their δ's."""

from dataclasses import dataclass

from ._algebra import split
from ._nodes import VARIABLE, Node, variable
from ._predicates import constant_value

__all__ = ["Delta", "Let", "delta_name", "fresh", "needs_no_name"]


@dataclass(frozen=True)
class Let:
    """A named intermediate: `name = value`."""

    name: str
    value: Node

    @property
    def symbol(self) -> Node:
        """The name as an expression."""
        return variable(self.name, self.value.shape)


@dataclass(frozen=True)
class Delta:
    """δ = ∂C/∂(an intermediate), as the sum of what each use of it brings."""

    name: str
    of: str
    value: Node
    contributions: tuple[tuple[str, Node], ...]


def needs_no_name(value: Node) -> bool:
    """Whether a δ is only a multiple of what has a name."""
    return value.op is VARIABLE or constant_value(value) is not None or split(value)[1].op is VARIABLE


def fresh(role: str, rank: int, several: bool, taken: set[str]) -> str:
    """A name that is free: capital for matrices, numbered if there are several of its kind."""
    letter = role.upper() if rank > 1 else role
    number = 1 if several else 0
    while f"{letter}{number or ''}" in taken:
        number += 1
    name = f"{letter}{number or ''}"
    taken.add(name)
    return name


def delta_name(name: str) -> str:
    """The name of an intermediate's δ."""
    letter, number = name.rstrip("0123456789"), name[len(name.rstrip("0123456789")) :]
    if letter in ("p", "P"):
        return f"delta_{number}" if number else "delta"
    return f"delta_{name}"
