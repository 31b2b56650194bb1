"""Conversion to lineax, whose solvers then apply."""

from typing import Any

import jax

from ._operator import Operator
from .diagonal import Diagonal
from .identity import Identity

__all__ = ["to_lineax"]


def to_lineax(operator: Operator) -> Any:
    """A diagonal and an identity as lineax has them, everything else as a function that is linear.

    Raises:
        ImportError: where lineax is not installed.
    """
    try:
        import lineax
    except ImportError as error:
        raise ImportError(
            "to_lineax needs lineax: pip install 'funcbp[lineax]' (or pip install lineax)."
        ) from error
    spec = jax.ShapeDtypeStruct(operator.in_shape, operator.dtype)
    if isinstance(operator, Identity):
        return lineax.IdentityLinearOperator(spec)
    if isinstance(operator, Diagonal):
        return lineax.DiagonalLinearOperator(operator.entries)
    return lineax.FunctionLinearOperator(operator.push, spec)
