"""Terms of the gradient with other factors: what goes through one path or two, too much or too little.

The gradient is a sum over paths from the argument to the output. What is wrong with it is looked for as a
combination of what goes through single paths; as there are far more numbers than paths, one that fits is no
luck.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from .._report import Cause
from .evidence import Evidence, Explanation
from .mutants import Mutant
from .naming import identify

__all__ = ["explained_by_paths"]

Lost = Callable[[int, Mutant], list[np.ndarray] | None]
_CLOSE = 1e-6


def explained_by_paths(
    evidence: Evidence, leaves: Sequence[int], paths: Sequence[Mutant], lost: Lost
) -> Explanation | None:
    """One path, or two, that are multiplied by some factor, each by the same at all probes.

    Args:
        evidence: what came out.
        leaves: the wrong leaves.
        paths: mutants that drop one path each.
        lost: what goes through a path at a probe, for all leaves.
    """
    probes = [i for i in range(len(evidence.compared)) if paths and lost(i, paths[0]) is not None]
    columns = [(path, _column(evidence, leaves, probes, path, lost)) for path in paths]
    kept = [(path, column) for path, column in columns if column is not None and column.any()]
    wrong = _scaled(evidence, probes, [_differences(evidence, i, leaves) for i in probes])
    if not kept or not wrong.any() or not np.isfinite(wrong).all():
        return None
    for fitting in _fitting(np.stack([column for _, column in kept]), wrong):
        found = [(kept[k][0], factor) for k, factor in fitting]
        if all(evidence.agrees(leaf, _guesses(evidence, leaf, found, lost)) for leaf in leaves):
            return _explanation(evidence, found)
    return None


def _column(
    evidence: Evidence, leaves: Sequence[int], probes: Sequence[int], path: Mutant, lost: Lost
) -> np.ndarray | None:
    shares = [lost(i, path) for i in probes]
    if any(share is None for share in shares):
        return None
    parts = [np.concatenate([share[k].ravel() for k in leaves]) for share in shares if share is not None]
    column = _scaled(evidence, probes, parts)
    return column if np.isfinite(column).all() else None


def _differences(evidence: Evidence, probe: int, leaves: Sequence[int]) -> np.ndarray:
    c = evidence.compared[probe]
    return np.concatenate([(c.mine[k] - c.truth[k]).ravel() for k in leaves])


def _scaled(evidence: Evidence, probes: Sequence[int], parts: Sequence[np.ndarray]) -> np.ndarray:
    """All probes in one vector, none louder than the others."""
    tops = [max(np.abs(t).max(initial=0.0) for t in evidence.compared[i].truth) or 1.0 for i in probes]
    return np.concatenate([np.real(part) / top for part, top in zip(parts, tops, strict=True)])


def _fitting(matrix: np.ndarray, wrong: np.ndarray) -> Iterator[list[tuple[int, float]]]:
    """Which rows, with which factors, add up to what is wrong: single ones first."""
    gram, products, total = matrix @ matrix.T, matrix @ wrong, float(wrong @ wrong)
    for k in range(len(matrix)):
        if products[k] ** 2 > (1 - _CLOSE**2) * gram[k, k] * total:
            yield [(k, float(products[k] / gram[k, k]))]
    found = []
    for i, j in itertools.combinations(range(len(matrix)), 2):
        determinant = gram[i, i] * gram[j, j] - gram[i, j] ** 2
        if determinant < 1e-9 * gram[i, i] * gram[j, j]:
            continue
        a = (products[i] * gram[j, j] - products[j] * gram[i, j]) / determinant
        b = (products[j] * gram[i, i] - products[i] * gram[i, j]) / determinant
        rest = total - a * products[i] - b * products[j]
        if rest < 1e-10 * total and min(abs(a), abs(b)) > _CLOSE:
            found.append([(i, float(a)), (j, float(b))])
    yield from sorted(found, key=_oddness)


def _oddness(found: list[tuple[int, float]]) -> int:
    """Factors that people miss come first: none, a sign, twice."""
    return sum(not any(abs(f - plain) < _CLOSE for plain in (-1, -2, 1, -0.5)) for _, f in found)


def _guesses(
    evidence: Evidence, leaf: int, found: Sequence[tuple[Mutant, float]], lost: Lost
) -> list[np.ndarray | None]:
    guesses: list[np.ndarray | None] = []
    for i, truth in enumerate(evidence.truth(leaf)):
        guess: np.ndarray | None = truth
        for path, factor in found:
            share = lost(i, path)
            guess = None if share is None or guess is None else guess + factor * share[leaf]
        guesses.append(guess)
    return guesses


def _explanation(evidence: Evidence, found: Sequence[tuple[Mutant, float]]) -> Explanation:
    texts, causes = [], []
    for path, excess in found:
        factor = 1 + excess
        named = identify(evidence, [factor] * len(evidence.compared), ())
        if abs(factor) < _CLOSE:
            causes.append(path.cause)
            texts.append(f"{path.path} is missing; add it")
        elif abs(factor + 1) < _CLOSE:
            causes.append(Cause.SIGN)
            texts.append(f"{path.path} has the wrong sign; flip it")
        else:
            causes.append(Cause.CONSTANT_FACTOR)
            number = f"{factor:.9g}" if named is None else str(named)
            texts.append(f"{path.path} is multiplied by {number} too much; divide by it")
    if sorted(round(excess, 6) for _, excess in found) == [-1, 1]:
        # One of two terms stands for both, as if they were equal.
        causes.insert(0, Cause.TERM_MISSING)
    first = causes[0]
    sources = {path.source for path, _ in found}
    others = tuple(dict.fromkeys(c for c in (*causes[1:], Cause.TERM_MISSING) if c is not first))
    line = sources.pop() if len(sources) == 1 else None
    factor = 1 + found[0][1] if len(found) == 1 else None
    return Explanation(first, "; ".join(texts), None if line is None else str(line), others, factor)
