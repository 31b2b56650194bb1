"""What a random expression is, and how one grows from its result downwards."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

SIZES = {"m": 2, "n": 3, "k": 4}
Shape = tuple[str, ...]
Value = Callable[[dict[str, Any]], Any]
Grown = tuple[str, Value]
Way = Callable[["Grower", Shape, int], Grown | None]


@dataclass
class Tree:
    """A random function: `function(*arguments)`, the arguments by name, and how it is written."""

    seed: int
    text: str = ""
    names: dict[str, Shape] = field(default_factory=dict)
    value: Value = lambda env: 0.0

    def function(self, *arguments: Any) -> Any:
        return self.value(dict(zip(self.names, arguments, strict=True)))

    @property
    def arguments(self) -> list[np.ndarray]:
        """Values at which to compare, in float64."""
        rng = np.random.default_rng(self.seed)
        return [rng.normal(size=[SIZES[d] for d in shape]) for shape in self.names.values()]


class Grower:
    """Grows one expression.

    Args:
        seed: of every choice.
        ways: to make a result of a shape from smaller expressions; None from one that does not fit.
    """

    def __init__(self, seed: int, ways: Callable[[Shape], Sequence[Way]]) -> None:
        self.random = random.Random(seed)
        self.ways = ways
        self.tree = Tree(seed)

    def leaf(self, shape: Shape) -> Grown:
        """An argument, often one that is there already."""
        fitting = [n for n, s in self.tree.names.items() if s == shape]
        if fitting and self.random.random() < 0.5:
            name = self.random.choice(fitting)
        else:
            letters = "ABDEFGH" if len(shape) > 1 else "xyzuvw" if shape else "abcd"
            free = [c for c in letters if c not in self.tree.names]
            name = free[0] if free else f"{letters[0]}{len(self.tree.names)}"
            self.tree.names[name] = shape
        return name, lambda env: env[name]

    def grow(self, shape: Shape, depth: int) -> Grown:
        """An expression of this shape, at most so deep."""
        if depth <= 0:
            return self.leaf(shape)
        ways = self.ways(shape)
        for _ in range(20):
            grown = self.random.choice(ways)(self, shape, depth - 1)
            if grown is not None:
                return grown
        return self.leaf(shape)

    def other(self, *sizes: str) -> str:
        """A dimension that is not one of these."""
        return self.random.choice([s for s in SIZES if s not in sizes] or list(SIZES))
