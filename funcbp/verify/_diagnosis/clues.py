"""What the numbers tell where no mutant fits: a term, a factor or a region that follows some value."""

import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from .._report import Cause
from .evidence import Evidence, Explanation, outside
from .naming import identify
from .regions import Candidate, Region, region
from .search import Program
from .tape import Tape

__all__ = ["clue", "nonfinite"]

_MOST = 400


def nonfinite(evidence: Evidence, leaf: int, program: Program) -> Explanation | None:
    """Whether all that is wrong with a leaf is NaN or infinite where the truth is finite."""
    marks = []
    for c in evidence.compared:
        bad = outside(c, leaf)
        if bad.shape != c.mine[leaf].shape or (bad & np.isfinite(c.mine[leaf])).any():
            return None
        marks.append(bad)
    if not any(m.any() for m in marks):
        return None
    found = _region(evidence, leaf, program, marks)
    region = None if found is None else (found.condition, found.line)
    where = f" where {region[0]}" if region else ""
    text = f"NaN or infinite{where}, though the truth is finite; guard it, or take the limit"
    return Explanation(Cause.NONFINITE, text, region[1] if region else None)


def clue(evidence: Evidence, leaf: int, program: Program) -> Explanation:
    """The best that can be said about a leaf that nothing else explains."""
    return (
        _cotangent(evidence, leaf, program)
        or _factor(evidence, leaf, program)
        or _term(evidence, leaf, program)
        or _where(evidence, leaf, program)
        or _zeros(evidence, leaf)
        or _nothing(evidence, leaf)
    )


def _cotangent(evidence: Evidence, leaf: int, program: Program) -> Explanation | None:
    """Whether the truth for another cotangent is what the user returned."""
    if evidence.problem.kind == "gradient":
        return None
    for cause, text, of in (
        (
            Cause.COTANGENT_IGNORED,
            "the gradient for a cotangent of ones; multiply by the cotangent",
            np.ones_like,
        ),
        (Cause.NOT_LINEAR, "quadratic in the cotangent; use it once", lambda c: c * c),
        (Cause.NOT_LINEAR, "the gradient for the cotangent's absolute value; use it as it is", np.abs),
        (Cause.NOT_LINEAR, "the gradient for the cotangent's sign; use it as it is", np.sign),
        (
            Cause.COTANGENT_IGNORED,
            "the gradient for the cotangent's mean; use it element by element",
            lambda c: np.full_like(c, c.mean()),
        ),
        (
            Cause.COTANGENT_IGNORED,
            "the gradient for the cotangent's sum; use it element by element",
            lambda c: np.full_like(c, c.sum()),
        ),
    ):
        guesses = []
        for i in range(len(evidence.compared)):
            tape = program.tape(i)
            guesses.append(None if tape is None else tape.with_cotangents(of).gradient()[leaf])
        if evidence.agrees(leaf, guesses):
            return Explanation(cause, text)
    return _dropped_output(evidence, leaf, program)


def _dropped_output(evidence: Evidence, leaf: int, program: Program) -> Explanation | None:
    """Whether the cotangent of one of several outputs is ignored."""
    tapes = [program.tape(i) for i in range(len(evidence.compared))]
    count = max((len(t.seeds) for t in tapes if t is not None), default=0)
    for k in range(count) if count > 1 else ():
        guesses = [None if t is None else t.without_output(k).gradient()[leaf] for t in tapes]
        if evidence.agrees(leaf, guesses):
            text = f"the gradient of the other outputs: the cotangent of output {k} is ignored; add its term"
            return Explanation(Cause.TERM_MISSING, text, alternatives=(Cause.COTANGENT_IGNORED,))
    return None


def _factor(evidence: Evidence, leaf: int, program: Program) -> Explanation | None:
    """Whether it is the truth times a power of some value, and perhaps one number for all probes."""
    for candidate in _candidates(evidence, leaf, program):
        for power in (1, -1, 2, -2, 0.5, -0.5):
            products = []
            for truth, value in zip(evidence.truth(leaf), candidate.values, strict=True):
                with np.errstate(all="ignore"):
                    products.append(None if value is None else _spread(truth * value**power, truth.shape))
            number = _number(evidence.mine(leaf), products)
            guesses = [None if p is None else number * p for p in products]
            if number and (number == 1 or _telling(products, candidate)) and evidence.agrees(leaf, guesses):
                return _factored(candidate, power, number)
    return None


def _number(mine: Sequence[np.ndarray], products: Sequence[np.ndarray | None]) -> float:
    """The one number that takes products to what the user returned, at the probe where it shows best."""
    for m, p in zip(mine, products, strict=True):
        if p is None or m.shape != p.shape or not np.isfinite(p).all() or not np.isfinite(m).all():
            continue
        norm = float(np.vdot(p, p).real)
        if norm and m.any():
            number = float(np.vdot(p, m).real) / norm
            return float(round(number)) if abs(number - round(number)) < 1e-9 else number
    return 0.0


def _telling(products: Sequence[np.ndarray | None], candidate: Candidate) -> bool:
    """Whether the value differs enough for a number besides to be no luck."""
    seen = [
        np.broadcast_to(v, p.shape)[p != 0].ravel()
        for v, p in zip(candidate.values, products, strict=True)
        if v is not None and p is not None and p.any()
    ]
    return bool(seen) and len(np.unique(np.concatenate(seen))) > 2


def _factored(candidate: Candidate, power: float, number: float) -> Explanation:
    much = "many" if power > 0 else "few"
    form = {1: "", 2: "²", 0.5: " to the power 1/2"}[abs(power)]
    besides = "" if number == 1 else f", and besides a number {number:.9g}"
    text = f"the truth with a factor {candidate.name}{form} too {much}{besides}; correct it"
    alike = all(v is None or v.size == 0 or np.ptp(v.real) == 0 for v in candidate.values)
    counted = alike and candidate.line is not None
    cause = Cause.CONSTANT_FACTOR if counted else Cause.FACTOR_MISSING
    others = (Cause.FACTOR_MISSING,) if counted else ()
    return Explanation(cause, text, candidate.line, others)


def _term(evidence: Evidence, leaf: int, program: Program) -> Explanation | None:
    """Whether what is too much or missing is proportional to some value."""
    differences = [m - t for m, t in zip(evidence.mine(leaf), evidence.truth(leaf), strict=True)]
    if all(d.size < 2 for d in differences):
        return None
    for candidate in _candidates(evidence, leaf, program):
        factors: list[float | None] = []
        guesses = []
        for d, truth, value in zip(differences, evidence.truth(leaf), candidate.values, strict=True):
            if value is None:
                factors.append(None)
                guesses.append(None)
                continue
            full = np.broadcast_to(value, d.shape)
            usable = np.isfinite(d) & np.isfinite(full)
            norm = (np.abs(full[usable]) ** 2).sum()
            factor = float(np.vdot(full[usable], d[usable]).real / norm) if norm else 0.0
            factors.append(factor if norm else None)
            guesses.append(truth + factor * full)
        told = [f for f in factors if f is not None]
        if not told or not evidence.agrees(leaf, guesses):
            continue
        named = identify(evidence, [None if f is None else abs(f) for f in factors], ())
        if named is None and not np.allclose(told, told[0], rtol=1e-6):
            continue
        sign = "-" if told[0] < 0 else "+"
        number = "" if np.isclose(abs(told[0]), 1) else f"{named.name if named else f'{abs(told[0]):.6g}'} × "
        text = f"the truth {sign} {number}{candidate.name}; that term is missing or too much"
        return Explanation(Cause.TERM_MISSING, text, candidate.line)
    return None


def _where(evidence: Evidence, leaf: int, program: Program) -> Explanation | None:
    """Whether it is wrong only where some value is in a range."""
    marks = [outside(c, leaf) for c in evidence.compared]
    if any(m.shape != t.shape for m, t in zip(marks, evidence.truth(leaf), strict=True)):
        return None
    total = sum(m.size for m in marks)
    bad = sum(int(m.sum()) for m in marks)
    if not bad or bad > 0.9 * total:
        return None
    region = _region(evidence, leaf, program, marks)
    indices = _indices(evidence, leaf, marks)
    if region is not None and not (indices and region.exact and region.line is not None):
        cause = Cause.KINK if region.exact else Cause.REGION
        text = f"wrong only where {region.condition}; look at the branch for it"
        return Explanation(cause, text, region.line)
    return indices


def _zeros(evidence: Evidence, leaf: int) -> Explanation | None:
    """Whether all that is wrong is zero, or should be."""
    marks = [outside(c, leaf) for c in evidence.compared]
    pairs = list(zip(evidence.mine(leaf), evidence.truth(leaf), marks, strict=True))
    if all(m.all() or not m.any() for m in marks) or any(m.shape != t.shape for m, t, _ in pairs):
        return None
    if not any(m[marked].any() for m, _, marked in pairs):
        text = "zero wherever it is wrong, and right elsewhere; elements are left out, add them"
        return Explanation(Cause.TERM_MISSING, text, alternatives=(Cause.REGION, Cause.ZERO))
    if not any(t[marked].any() for _, t, marked in pairs):
        text = "wrong where the truth is zero, and right elsewhere; a mask is missing, multiply by it"
        return Explanation(Cause.FACTOR_MISSING, text, alternatives=(Cause.REGION,))
    return None


def _indices(evidence: Evidence, leaf: int, marks: Sequence[np.ndarray]) -> Explanation | None:
    """Whether it is wrong at one index of an axis only, or at a few."""
    truths = evidence.truth(leaf)
    for axis in range(marks[0].ndim):
        hit = {tuple(_marked_along(m, axis)) for m in marks if m.any()}
        lengths = {m.shape[axis] for m in marks}
        if len(hit) != 1 or len(lengths) != 1:
            continue
        n, at = lengths.pop(), list(hit.pop())
        where = f"index {', '.join(map(str, at))} of axis {axis}"
        if len(at) < n and not any(t[m].any() for t, m in zip(truths, marks, strict=True)):
            text = f"not zero at {where}, where the truth is; mask it"
            return Explanation(Cause.FACTOR_MISSING, text, alternatives=(Cause.REGION, Cause.OFF_BY_ONE))
        if len(at) < n and any(
            not m.any() and np.take(t, at, axis).any() for t, m in zip(truths, marks, strict=True)
        ):
            text = f"wrong only at {where}, and there only at some inputs; look at the branch for these"
            return Explanation(Cause.REGION, text, alternatives=(Cause.OFF_BY_ONE,))
        if at in ([0], [n - 1]) and n > 2:
            which = "first" if at == [0] else "last"
            text = f"wrong only at the {which} index of axis {axis}; look at that step"
            return Explanation(Cause.OFF_BY_ONE, text, alternatives=(Cause.REGION,))
        if len(at) <= n // 2:
            text = f"wrong only at {where}; look at these"
            return Explanation(Cause.REGION, text, alternatives=(Cause.OFF_BY_ONE,))
    return None


def _marked_along(marked: np.ndarray, axis: int) -> list[int]:
    others = tuple(a for a in range(marked.ndim) if a != axis)
    return np.flatnonzero(marked.any(others)).tolist()


def _region(evidence: Evidence, leaf: int, program: Program, marks: Sequence[np.ndarray]) -> Region | None:
    """A range of some value that tells wrong elements from right ones at all probes."""
    trivial = [
        (m == t) & (t == 0) & ~marked if m.shape == t.shape else np.zeros(t.shape, bool)
        for m, t, marked in zip(evidence.mine(leaf), evidence.truth(leaf), marks, strict=True)
    ]
    return region(_candidates(evidence, leaf, program, cotangents=False), marks, trivial)


def _candidates(
    evidence: Evidence, leaf: int, program: Program, *, cotangents: bool = True
) -> Iterator[Candidate]:
    """Values that broadcast to the leaf: arguments, other cotangents, intermediates, their derivatives."""
    problem, count = evidence.problem, len(evidence.compared)
    shapes = [t.shape for t in evidence.truth(leaf)]
    for i, x in enumerate(problem.leaves):
        if x.kind in ("floating", "complex", "integer"):
            values = [np.asarray(c.probe.values[i], np.result_type(c.truth[leaf])) for c in evidence.compared]
            if all(_spreads(v.shape, s) for v, s in zip(values, shapes, strict=True)):
                yield Candidate(x.name, None, tuple(values), problem.wrt[leaf] == i)
    if cotangents:
        for other in range(len(problem.wrt)):
            truths = evidence.truth(other)
            if other != leaf and all(_spreads(v.shape, s) for v, s in zip(truths, shapes, strict=True)):
                yield Candidate(f"the cotangent of {evidence.name(other)}", None, tuple(truths))
    tapes = [program.tape(i) for i in range(count)]
    first = next((t for t in tapes if t is not None), None)
    if first is None or program.late:
        return
    for value, name, line in itertools.islice(_intermediates(first, cotangents), _MOST):
        values = [None if t is None else _value(t, value) for t in tapes]
        if all(v is None or _spreads(v.shape, s) for v, s in zip(values, shapes, strict=True)):
            yield Candidate(name, line, tuple(values))


def _intermediates(tape: Tape, cotangents: bool) -> Iterator[tuple[object, str, str | None]]:
    for node in tape.graph.nodes:
        line = None if node.source is None else str(node.source)
        at = "" if node.source is None else f" of line {node.source.line}"
        for value in node.outputs:
            if value in tape.values and tape.values[value].dtype.kind == "f":
                yield value, f"the result of {node.name}{at}", line
                if cotangents and value in tape.cotangents:
                    yield ("ct", value), f"the cotangent of the result of {node.name}{at}", line
    if cotangents:
        for index, k in tape.slopes:
            node = tape.graph.nodes[index]
            at = "" if node.source is None else f" of line {node.source.line}"
            line = None if node.source is None else str(node.source)
            yield ("slope", index, k), f"the derivative of {node.name}{at}", line


def _value(tape: Tape, key: object) -> np.ndarray | None:
    if isinstance(key, tuple):
        return tape.cotangents.get(key[1]) if key[0] == "ct" else tape.slopes.get(key[1:])
    return tape.values.get(key)


def _spreads(shape: tuple[int, ...], to: tuple[int, ...]) -> bool:
    try:
        return np.broadcast_shapes(shape, to) == to
    except ValueError:
        return False


def _spread(x: np.ndarray, to: tuple[int, ...]) -> np.ndarray:
    return np.broadcast_to(x, to)


def _nothing(evidence: Evidence, leaf: int) -> Explanation:
    """How it differs, in numbers."""
    wrong = count = 0
    products = []
    for c in evidence.compared:
        bad = outside(c, leaf)
        wrong, count = wrong + int(bad.sum()), count + bad.size
        m, t = c.mine[leaf].ravel(), c.truth[leaf].ravel()
        if m.shape == t.shape and m.size > 1 and np.isfinite(m).all() and bad.any():
            norm = float(np.linalg.norm(m) * np.linalg.norm(t))
            products.append(float(np.vdot(m, t).real) / norm if norm else 0.0)
    text = f"wrong in {wrong} of {count} elements, for a reason that was not found"
    if products:
        text += f" (cosine of the angle to the truth {np.mean(products):.3g})"
    return Explanation(Cause.VALUE, f"{text}; compare it term by term")
