"""In which dtypes a problem is looked at."""

import re
from collections.abc import Sequence
from dataclasses import replace

import jax
import numpy as np
from jax.typing import DTypeLike

from .._compat import enable_x64
from ._bounds import eps_of
from ._problem import Problem, Typing, x64_is_on

__all__ = ["WIDE", "as_drawn", "typings_of"]

WIDE = Typing("float64", True)

_RANDOM = re.compile(r"random_bits|threefry|rng_")


def typings_of(problem: Problem, dtypes: Sequence[DTypeLike] | None) -> tuple[Typing, ...]:
    """The example's dtypes (or those asked for, the coarsest first), and float64."""
    x64 = x64_is_on()
    if dtypes is not None:
        names = sorted((np.dtype(dtype).name for dtype in dtypes), key=eps_of, reverse=True)
        return tuple(Typing(name, x64 or name == "float64") for name in names)
    with enable_x64(x64):
        found = {
            x.dtype.name
            for leaf, x in zip(problem.leaves, problem.typed(problem.example, Typing(None, x64)), strict=True)
            if leaf.differentiable
        }
    if found <= {"float64", "complex128"}:
        return (WIDE,)
    return (Typing(None, x64), WIDE)


def as_drawn(problem: Problem, given: Typing) -> Problem:
    """The problem, with the random numbers of the example's dtypes in float64, too, if it draws any."""
    if given.x64 or problem.drawn is not None:
        return problem
    with enable_x64(given.x64):
        program = jax.make_jaxpr(problem.reference)(*problem.typed(problem.example, given))
    return replace(problem, drawn=given) if _RANDOM.search(str(program)) else problem
