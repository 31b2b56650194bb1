"""A derivation's backward pass as numbers, line by line, and what it gives if one line has a mistake."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ._arguments import arguments_of
from ._build import Built, build
from ._errors import UnsupportedError
from ._lines import Notation
from ._matrix import NoMatrixFormError
from ._nodes import CONTRACTION, Node, variable
from ._numeric import value_of
from ._slips import Kind, Slip, slips, without_a_factor

__all__ = ["At", "Mistaken", "Workings"]


@dataclass(frozen=True)
class Mistaken:
    """One mistake, in one line or the same in several.

    Attributes:
        slips: by position among `Workings.lines`.
    """

    slips: Mapping[int, Slip]

    @property
    def first(self) -> int:
        """The first of its lines."""
        return min(self.slips)

    @property
    def kind(self) -> Kind:
        """What kind of mistake."""
        return self.slips[self.first].kind

    @property
    def text(self) -> str:
        """What is wrong."""
        return self.slips[self.first].text


class At:
    """The derivation at some values of its arguments: the forward pass, and the right backward pass."""

    def __init__(self, workings: "Workings", values: Sequence[Any]) -> None:
        self._workings = workings
        built = workings.built
        self._values: dict[str, np.ndarray] = {}
        for argument, value in zip(built.arguments, values, strict=True):
            x = np.asarray(value, np.float64 if argument.floating else None)
            self._values[argument.name] = x.reshape([n for n in x.shape if n != 1])
        self._shapes = {a.name: np.shape(v) for a, v in zip(built.arguments, values, strict=True)}
        memo: dict[Node, np.ndarray] = {}
        self._right: list[np.ndarray] = []
        with built.session.active():
            for let in built.program.lets:
                self._values[let.name] = value_of(let.value, self._values, built.sizes, memo)
            for name, node in workings.lines:
                self._right.append(value_of(node, self._values, built.sizes, memo))
                self._values[name] = self._right[-1]

    def gradients(self, mistaken: Mistaken | None = None) -> dict[str, np.ndarray]:
        """The gradients by name, if one line has a mistake.

        Raises:
            ValueError: if the mistake cannot be made here.
        """
        lines, sizes = self._workings.lines, self._workings.built.sizes
        found = dict(zip((name for name, _ in lines), self._right, strict=True))
        if mistaken is not None:
            values, changed, memo = dict(self._values), set[str](), dict[Node, np.ndarray]()
            for k, (name, node) in list(enumerate(lines))[mistaken.first :]:
                slip = mistaken.slips.get(k)
                if slip is not None or node.variables & changed:
                    changed.add(name)
                    own = node if slip is None else slip.value
                    values[name] = found[name] = value_of(own, values, sizes, memo)
        wrt = self._workings.built.program.wrt
        return {name: np.reshape(found[_gradient(name)], self._shapes[name]) for name in wrt}


class Workings:
    """The lines of a derivation's backward pass: the δ's, then the gradients.

    Attributes:
        built: the derivation.
        lines: name and right side.
    """

    def __init__(self, built: Built) -> None:
        self.built = built
        program = built.program
        self.lines = [(d.name, d.value) for d in program.deltas]
        self.lines += [(_gradient(name), node) for name, node in program.gradients.items()]

    @classmethod
    def of(
        cls, function: Callable[..., Any], values: Sequence[Any], names: Sequence[str], wrt: Sequence[str]
    ) -> "Workings":
        """Derive a function of arrays that gives one real number.

        Raises:
            UnsupportedError: if it cannot be derived, or only with recurrences.
        """
        workings = cls(build(function, arguments_of(values, names), wrt, ()))
        if workings.built.program.loops:
            raise UnsupportedError("derive: the steps of a recurrence as numbers")
        return workings

    def at(self, values: Sequence[Any]) -> At:
        """Its numbers at values of the arguments."""
        return At(self, values)

    def mistaken(self) -> Iterator[Mistaken]:
        """Every mistake in every line, one at a time, then those that several lines can share.

        To be called where the session is active.
        """
        notation = self._notation()
        found: dict[tuple[str, str], dict[int, Slip]] = {}
        for k, (_, node) in enumerate(self.lines):
            for slip in slips(node, self._others(k), lambda n: _written(notation, n)):
                found.setdefault((slip.kind, slip.text), {}).setdefault(k, slip)
                yield Mistaken({k: slip})
        for shared in found.values():
            if len(shared) > 1:
                yield Mistaken(shared)

    def _others(self, line: int) -> list[Node]:
        """What may stand in a line by mistake: other names, and the δ's before it without one factor."""
        program = self.built.program
        names = [variable(d.name, d.value.shape) for d in program.deltas]
        names += [x.symbol for x in program.lets] + [x.value for x in program.aliases]
        whole = [d.value for d in program.deltas[:line] if d.value.op is CONTRACTION]
        return [*names, *(part for value in whole for part in without_a_factor(value))]

    def reached(self, mistaken: Mistaken) -> frozenset[str]:
        """The arguments whose gradients depend on the lines of a mistake."""
        changed: set[str] = set()
        for k, (name, node) in enumerate(self.lines):
            if k in mistaken.slips or node.variables & changed:
                changed.add(name)
        return frozenset(n for n in self.built.program.wrt if _gradient(n) in changed)

    def common_line(self, names: frozenset[str]) -> int | None:
        """The last line on which just these gradients depend."""
        whole = [Slip("other", "", node) for _, node in self.lines]
        fitting = [k for k, slip in enumerate(whole) if self.reached(Mistaken({k: slip})) == names]
        return fitting[-1] if fitting else None

    def written(self, line: int) -> str:
        """A line as the derivation has it: `δ = (Wᵀ y) ⊙ σ′(p)`."""
        name, node = self.lines[line]
        with self.built.session.active():
            left, right = self._notation().equation(name, node)
            if name.startswith("grad:"):
                left = left.replace(
                    self._notation().equation(name, variable(name, ()))[0],
                    f"∂{self.built.program.output}/∂{_shown(name)}",
                )
        return f"{left} = {right}"

    def _notation(self) -> Notation:
        return Notation("text", {x.value: x.symbol for x in self.built.program.aliases})


def _gradient(name: str) -> str:
    return f"grad:{name}"


def _shown(name: str) -> str:
    from ._notation import name_of

    return name_of(name.removeprefix("grad:"), "text")


def _written(notation: Notation, node: Node) -> str:
    try:
        return notation.matrix.write(notation.named(node), 5)
    except NoMatrixFormError:
        return notation.equation("", node)[1]
