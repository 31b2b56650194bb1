"""How much of a function a set of inputs has reached: a check of one branch says nothing about the other."""

from collections.abc import Sequence

import jax
import numpy as np
from jax import numpy as jnp

from .._compat import enable_x64, quick_jit
from ._decisions import decisions
from ._problem import Probe, Problem, Typing

__all__ = ["coverage"]

_PROBES = 64  # at most, and always as many, so that one compilation serves


def coverage(problem: Problem, probes: Sequence[Probe]) -> tuple[int, int]:
    """Of how many decisions of the reference (comparisons, maxima, orders) more than one outcome was seen.

    Args:
        problem: its reference is followed.
        probes: the inputs.

    Returns:
        That number, and the number of decisions; `(0, 0)` for a function without branches.
    """
    wide = Typing("float64", True)
    states = decisions(problem.reference)
    with enable_x64(), jax.default_matmul_precision("highest"):
        values = [problem.typed(probe.values, wide) for probe in probes[:_PROBES]]
        if not values or not jax.eval_shape(states, *values[0]).size:
            return 0, 0
        values += [values[-1]] * (_PROBES - len(values))
        stacked = tuple(jnp.stack(leaf) for leaf in zip(*values, strict=True))
        run = quick_jit(lambda xs: jax.lax.map(lambda x: states(*x), xs))
        seen = np.asarray(run(stacked))
    return int((seen != seen[0]).any(axis=0).sum()), seen.shape[1]
