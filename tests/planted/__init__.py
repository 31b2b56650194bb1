"""Wrong and right derivatives as people write them: what the gradient checker is judged by."""

from . import (
    attention,
    convolution,
    dense,
    dropout,
    indexing,
    losses,
    matrix,
    normalization,
    recurrent,
    softmax,
)
from ._case import Case

__all__ = ["CASES", "Case"]

CASES: tuple[Case, ...] = tuple(
    case
    for module in (
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
    for case in module.CASES
)
