"""Mistakes that show in the whole Jacobian of a small output: not transposed, or only its diagonal used."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from .._report import Cause
from .graph import Graph
from .tape import Tape

__all__ = ["JacobianMistake", "jacobian_mistakes"]

_LARGEST = 64


@dataclass(frozen=True, eq=False)
class JacobianMistake:
    """A leaf's cotangent made from the Jacobian J of the output in another way than Jᵀ ct.

    Attributes:
        cause: what kind of mistake.
        text: what is wrong and what to change.
        rank: how far-fetched.
        leaf: the leaf, of the shape of the output.
        of: from J as a square matrix and the flat cotangent to the leaf's flat cotangent.
    """

    cause: Cause
    text: str
    rank: int
    leaf: int
    of: Callable[[np.ndarray, np.ndarray], np.ndarray]
    source: None = None
    alternatives: tuple[Cause, ...] = ()
    path: None = None

    def guess(self, tape: Tape) -> np.ndarray:
        """What it makes of a recorded run."""
        shape = tape.graph.shape(tape.recorder.wrt[self.leaf])
        jacobian = tape.jacobian(self.leaf)
        return self.of(jacobian, tape.seeds[0][1].ravel()).reshape(shape)


def jacobian_mistakes(graph: Graph, wrt: list[int]) -> Iterator[JacobianMistake]:
    """Mistakes at the leaves that have the shape of the only output."""
    if len(graph.outputs) != 1 or not graph.inexact(graph.outputs[0]):
        return
    shape = graph.shape(graph.outputs[0])
    if not 2 <= math.prod(shape) <= _LARGEST:
        return
    for leaf, value in enumerate(wrt):
        if graph.shape(value) == shape:
            yield JacobianMistake(
                Cause.PERMUTED,
                "summed in the order of the forward pass (J ct); run through the steps from the last",
                2,
                leaf,
                _triangular_product,
                alternatives=(Cause.TRANSPOSE_FORGOTTEN,),
            )
            yield JacobianMistake(
                Cause.TRANSPOSE_FORGOTTEN,
                "the function's own linear map applied to the cotangent (J ct); apply its transpose",
                2,
                leaf,
                lambda jacobian, ct: jacobian @ ct,
                alternatives=(Cause.PERMUTED,),
            )
            yield JacobianMistake(
                Cause.TERM_MISSING,
                "only the diagonal of the Jacobian is used: every output also depends on the other elements; "
                "add their terms",
                3,
                leaf,
                lambda jacobian, ct: np.diagonal(jacobian) * ct,
            )


def _triangular_product(jacobian: np.ndarray, ct: np.ndarray) -> np.ndarray:
    """J ct where every element depends on earlier ones only; else nothing that could agree."""
    if np.triu(jacobian, 1).any() and np.tril(jacobian, -1).any():
        return np.full(ct.shape, np.nan)
    return jacobian @ ct
