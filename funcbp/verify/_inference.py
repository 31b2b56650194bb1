"""What an example says about the values that its arguments may take.

A checker that searches beyond the user's point has to know where the function lives: labels that are one-hot
stay one-hot, a symmetric matrix stays symmetric. Each guess is a structure seen in the example that arbitrary
values would hardly have; the user's own domain comes first. A guess that is narrower than the dtype is an
assumption, and is said so in the report.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jax import numpy as jnp

from .. import domains
from ._guesses import Guess, Seen, guess, guess_integers, in_every_row, reals
from ._problem import Leaf, Problem
from ._structured_rows import SumToOne
from ._structures import Coins, Keys, Magnitudes, Shape, Structure

__all__ = ["Assumption", "infer"]


@dataclass(frozen=True)
class Assumption:
    """What is taken for granted about the values of one leaf.

    Attributes:
        domain: where its values are drawn from.
        phrase: for the report: `"y: rows that sum to one, as in the example"`.
        narrow: whether the dtype allows more, and only the example speaks against it: beyond it, a
            difference is worth a note, but no verdict.
        chance: how likely arbitrary values would look the same: `2**-n` for n numbers that are all positive.
    """

    domain: Structure
    phrase: str
    narrow: bool = True
    chance: float = 0.0


def infer(
    problem: Problem, domain: Mapping[str | int, domains.Domain] | None = None
) -> tuple[Assumption, ...]:
    """One assumption for each of `problem.leaves`.

    Args:
        problem: the question, with its example.
        domain: what the user says about arguments, by name or position; it holds for every leaf of that
            argument whose kind it fits.

    Raises:
        ValueError: if `domain` names an argument that there is not, or needs named axes.
    """
    given = _positions(problem, domain or {})
    arrays = sum(leaf.differentiable and leaf.value.ndim > 0 for leaf in problem.leaves)
    lengths = frozenset(n for leaf in problem.leaves if leaf.differentiable for n in leaf.value.shape)
    found = []
    for leaf in problem.leaves:
        chosen = given.get(leaf.argument)
        if chosen is not None and _fits(chosen, leaf):
            phrase = f"{leaf.name}: {chosen}, as given by domain"
            found.append(Assumption(_Given(chosen), phrase, narrow=False))
        else:
            found.append(_assume(leaf, arrays > 0, lengths))
    return tuple(found)


def _positions(problem: Problem, domain: Mapping[str | int, domains.Domain]) -> dict[int, domains.Domain]:
    positions = {}
    for key, chosen in domain.items():
        if key in problem.names:
            positions[problem.names.index(str(key))] = chosen
        elif isinstance(key, int) and -len(problem.args) <= key < len(problem.args):
            positions[key % len(problem.args)] = chosen
        else:
            raise ValueError(
                f"domain has an entry for {key!r}, but the arguments are {', '.join(problem.names)} "
                f"(positions 0 to {len(problem.args) - 1}): name one of them."
            )
    return positions


def _fits(chosen: domains.Domain, leaf: Leaf) -> bool:
    if leaf.kind == "key":
        return False
    try:
        drawn = np.asarray(chosen.sample(np.random.default_rng(0), np.shape(leaf.value), {}))
    except KeyError as error:
        raise ValueError(
            f"domain: {chosen} for {leaf.name} names an axis, {error}, and there are no named axes here: "
            "give a number."
        ) from error
    kinds = {"floating": "fiub", "complex": "cfiub", "integer": "iu", "boolean": "b"}
    return drawn.dtype.kind in kinds[leaf.kind]


@dataclass(frozen=True)
class _Given(Structure):
    """A domain that the user gave."""

    domain: domains.Domain

    def draw(self, rng: np.random.Generator, shape: Shape) -> np.ndarray:
        return np.asarray(self.domain.sample(rng, shape, {}))

    def project(self, x: np.ndarray) -> np.ndarray:
        match self.domain:
            case domains.Normal():
                return x
            case domains.Positive(scale):
                return Magnitudes(scale).project(x)
            case domains.Uniform(low, high):
                return np.clip(x, low, np.nextafter(high, low))
            case domains.Integers(low, int(high)):
                return np.clip(np.round(x), low, max(high - 1, low)).astype(x.dtype)
            case domains.Simplex() if x.ndim:
                return SumToOne().project(x)
            case domains.AwayFrom(points, margin):
                for point in points:
                    x = np.where(np.abs(x - point) < margin, point + np.copysign(margin, x - point), x)
                return x
            case domains.Booleans():
                return (x != 0).astype(x.dtype)
            case _:  # nothing is known but its samples
                return self.draw(np.random.default_rng(0), x.shape).astype(x.dtype)


def _assume(leaf: Leaf, accompanied: bool, lengths: frozenset[int]) -> Assumption:
    value = leaf.value
    if leaf.kind == "key":
        return Assumption(Keys(value), f"{leaf.name}: random keys", narrow=False)
    if leaf.kind == "boolean":
        kept = in_every_row(value, True)
        what = "at least one True in every row, as in the example" if kept else "True and False"
        return Assumption(Coins(kept), f"{leaf.name}: {what}", narrow=kept)
    found: Guess | None = None
    if leaf.kind == "integer":
        found = guess_integers(value, lengths)
    elif value.size:
        eps = float(jnp.finfo(value.dtype).eps)
        value = value.astype(complex if leaf.kind == "complex" else float)
        found = guess(Seen(value, eps, leaf.wrt, accompanied))
    if found is None:
        return Assumption(reals(value), f"{leaf.name}: any numbers", narrow=False)
    structure, what, chance = found
    return Assumption(structure, f"{leaf.name}: {what}, as in the example", chance=chance)
