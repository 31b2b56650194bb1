"""Whether a candidate is linear in the output's cotangent, as every pullback is."""

from dataclasses import replace

import jax
import numpy as np

from ._evaluate import Evaluator
from ._problem import Probe, Typing

__all__ = ["nonlinear"]

_CLOSE = 1e-6  # in float64, relative to the largest of the terms


def nonlinear(evaluator: Evaluator, probe: Probe, typing: Typing, seed: int = 0) -> tuple[int, ...]:
    """Indices into `Problem.wrt` of the cotangents that are not linear in the output's.

    One that does not change with the output's cotangent at all is left out: that mistake has a name of its
    own.
    """
    if evaluator.problem.kind != "vjp":
        return ()
    rng = np.random.default_rng(seed)
    c, d = probe.cotangent, jax.tree.map(lambda x: rng.standard_normal(np.shape(x)), probe.cotangent)
    tried = [c, d, jax.tree.map(np.add, c, d), jax.tree.map(np.negative, c), jax.tree.map(lambda x: 8 * x, c)]
    found = evaluator.candidate([replace(probe, cotangent=x) for x in tried], typing)
    wrong = []
    for k, (of_c, of_d, of_sum, of_minus, of_eight) in enumerate(
        zip(*(x.cotangents for x in found), strict=True)
    ):
        size = max(np.abs(x).max(initial=0.0) for x in (of_c, of_d, of_sum))
        if not np.isfinite(size) or size == 0:
            continue
        ignored = np.abs(of_c - of_minus).max(initial=0.0) <= _CLOSE * size
        gaps = (of_sum - of_c - of_d, of_minus + of_c, (of_eight - 8 * of_c) / 8)
        if not ignored and any(np.abs(gap).max(initial=0.0) > _CLOSE * size for gap in gaps):
            wrong.append(k)
    return tuple(wrong)
