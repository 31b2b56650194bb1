"""Wrong and right derivatives as people write them: what the gradient checker is judged by."""

from . import (
    attention,
    chains,
    contract,
    convolution,
    dense,
    dropout,
    everyday,
    indexing,
    losses,
    matrix,
    normalization,
    recurrent,
    softmax,
    sources,
    special,
)
from ._bridge import Problem, accuracy, problem
from ._case import Case

__all__ = ["CASES", "Case", "Problem", "accuracy", "problem"]

_FAMILIES = (
    dense,
    softmax,
    normalization,
    attention,
    convolution,
    recurrent,
    matrix,
    losses,
    indexing,
    dropout,
)
CASES: tuple[Case, ...] = tuple(
    case for family in (*_FAMILIES, chains, sources, special, contract, everyday) for case in family.CASES
)
