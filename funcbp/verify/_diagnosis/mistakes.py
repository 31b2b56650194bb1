"""The human mistakes, one a function or a line of a table: each yields its mutants at one operand.

The rank says how far-fetched a mistake is: 1 a path dropped or negated, 2 a factor dropped, 3 a mistake that
some primitives invite, 4 a factor too many, 5 a value from elsewhere.
"""

import itertools
from collections.abc import Callable, Iterator

import numpy as np

from .._report import Cause
from .graph import Graph, Node
from .linear import BY_NAME
from .mutants import Change, Context, Edge, Mutant, Pulled, dropped, edges
from .pullbacks import fit, implicit_axes, repeated_axes
from .sites import sites, statistics

__all__ = ["IN_OUTPUT", "mutants"]

_MOST_THRESHOLDS = 8
_AFFINE = frozenset(
    {"add", "add_any", "convert_element_type", "copy", "div", "mul", "neg", "stop_gradient", "sub"}
)

# Derivatives as they are written with the function's result q; at p instead they are wrong.
IN_OUTPUT: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "1 - q²": lambda q: 1 - q * q,
    "q (1 - q)": lambda q: q * (1 - q),
    "q": lambda q: q,
    "1 + q²": lambda q: 1 + q * q,
    "1/(2 q)": lambda q: 0.5 / q,
}


def mutants(context: Context) -> Iterator[Mutant]:
    """All mutants but those with values from elsewhere; not in the order of their rank."""
    yield from constants(context)
    for site in sites(context.recorder):
        for edge in edges(site, context.recorder):
            for mistake in (scaled, slopes, broadcasts, *BY_NAME.get(edge.node.name, ())):
                yield from mistake(context, edge)


def constants(context: Context) -> Iterator[Mutant]:
    """An intermediate value, or several statistics, treated as constants."""
    groups = statistics(context.recorder, lambda node: _matters(context, node))
    alone = sum(len(group) == 1 for group in groups) == 1
    for group in groups:
        overrides = {node.index: lambda *_: [] for node in group}
        source = group[-1].source
        if len(group) > 1:
            lines = sorted({str(node.source.line) for node in group if node.source})
            what = f"{len(group)} statistics (of line {', '.join(lines)})"
            text = f"{what} are treated as constants; differentiate through them, too"
            yield Mutant(Cause.STATISTICS, text, 1, overrides, source, (Cause.TERM_MISSING,))
            continue
        word = {"reduce_max": "maximum", "reduce_min": "minimum"}.get(group[0].name, "sum or mean")
        text = f"the {word} over an axis is treated as a constant; add the term that goes through it"
        only = alone and not _of_exponentials(context.graph, group[0])
        causes = (Cause.STATISTICS, Cause.TERM_MISSING) if only else (Cause.TERM_MISSING, Cause.STATISTICS)
        path = f"the term that goes through the {word} over an axis"
        yield Mutant(causes[0], text, 1, overrides, source, causes[1:], path)


def _matters(context: Context, node: Node) -> bool:
    """Whether anything goes through a node: nothing does through a shift that cancels."""
    changed = context.tape.changed({node.index: lambda *_: []})
    right = context.tape.gradient()
    return any(
        np.abs(c).max(initial=0.0) > 1e-10 * np.abs(g).max(initial=0.0)
        for c, g in zip(changed, right, strict=True)
    )


def _of_exponentials(graph: Graph, node: Node) -> bool:
    producer = graph.producer.get(node.inputs[0])
    return producer is not None and producer.name == "exp"


def scaled(context: Context, edge: Edge) -> Iterator[Mutant]:
    """A path dropped, negated, doubled or halved."""
    for cause, rank, text, change in _SCALED:
        yield context.mutant(edge, cause, rank, text, change)


_SCALED: tuple[tuple[Cause, int, str, Change], ...] = (
    (Cause.TERM_MISSING, 1, "the term that goes through {it} is missing; add it", dropped),
    (Cause.SIGN, 1, "the term that goes through {it} has the wrong sign; flip it", lambda p: -p.share),
    (
        Cause.CONSTANT_FACTOR,
        3,
        "the term that goes through {it} is twice what it should be; divide by 2",
        lambda p: 2 * p.share,
    ),
    (
        Cause.CONSTANT_FACTOR,
        3,
        "the term that goes through {it} is half of what it should be; multiply by 2",
        lambda p: p.share / 2,
    ),
)


def slopes(context: Context, edge: Edge) -> Iterator[Mutant]:
    """The local derivative of an elementwise function left out, inverted, or with an operand too many."""
    slope = context.tape.slopes.get((edge.node.index, edge.position))
    if slope is None or slope.size == 0 or np.all(np.abs(slope) == 1):
        if edge.node.name == "abs":
            text = "the sign of {it} is left out; multiply by it"
            yield context.mutant(
                edge,
                Cause.FACTOR_MISSING,
                2,
                text,
                _with_slope(lambda p: np.ones_like(p.slope)),
                Cause.REGION,
            )
        return
    others = [v for k, v in enumerate(edge.node.inputs) if k != edge.position]
    alike = np.ptp(slope.real) == 0 and (slope.size > 1 or edge.node.name in _AFFINE)
    if alike and all(v in context.graph.fixed for v in others):
        yield from _constant_slope(context, edge, slope)
    elif set(np.unique(slope).tolist()) <= {0.0, 0.5, 1.0}:
        yield from _mask(context, edge)
    else:
        yield from _slope(context, edge)


def _with_slope(of: Callable[[Pulled], np.ndarray]) -> Change:
    def change(p: Pulled) -> np.ndarray:
        return fit(np.broadcast_to(p.ct * of(p), p.ct.shape), p.share.shape)

    return change


def _constant_slope(context: Context, edge: Edge, slope: np.ndarray) -> Iterator[Mutant]:
    if edge.node.name == "stop_gradient":
        text = "{it} is differentiated; the reference stops the gradient there"
        yield context.mutant(edge, Cause.VALUE, 2, text, _with_slope(lambda p: np.ones_like(p.slope)))
        return
    for rank, text, of in (
        (2, "is left out; multiply by it", lambda p: np.ones_like(p.slope)),
        (3, "is applied twice; apply it once", lambda p: p.slope**2),
        (3, "is inverted; multiply by it", lambda p: 1 / p.slope),
    ):
        whole = f"the factor {slope.flat[0]:.6g} of {{it}} {text}"
        yield context.mutant(edge, Cause.CONSTANT_FACTOR, rank, whole, _with_slope(of))


def _mask(context: Context, edge: Edge) -> Iterator[Mutant]:
    for cause, rank, text, of in (
        (Cause.FACTOR_MISSING, 2, "the derivative of {it} is left out; multiply by it", np.ones_like),
        (Cause.FACTOR_MISSING, 3, "the mask of {it} is inverted; turn it around", lambda d: 1 - d),
        (Cause.KINK, 3, "at ties {it} gets nothing; split the cotangent", lambda d: np.where(d == 0.5, 0, d)),
        (Cause.KINK, 3, "at ties {it} gets all; split the cotangent", lambda d: np.where(d == 0.5, 1, d)),
    ):
        yield context.mutant(edge, cause, rank, text, _with_slope(lambda p, of=of: of(p.slope)))
    numbers = {float(np.asarray(context.graph.constants[v])) for v in context.graph.adjustable}
    for t in sorted({-1.0, 0.0, 0.5, 1.0} | {x for x in numbers if np.isfinite(x)})[:_MOST_THRESHOLDS]:
        text = f"the mask of {{it}} is {{it}} > {t:.6g}; take the threshold of the forward pass"
        mask = _with_slope(lambda p, t=t: p.operand(p.edge.position) > t)
        yield context.mutant(edge, Cause.WRONG_POINT, 4, text, mask, Cause.REGION)


def _slope(context: Context, edge: Edge) -> Iterator[Mutant]:
    def mutant(
        cause: Cause, rank: int, text: str, of: Callable[[Pulled], np.ndarray], *others: Cause
    ) -> Mutant:
        return context.mutant(edge, cause, rank, text, _with_slope(of), *others)

    missing = Cause.FACTOR_MISSING
    yield mutant(
        missing, 2, "the derivative of {it} is left out; multiply by it", lambda p: np.ones_like(p.slope)
    )
    yield mutant(missing, 4, "the derivative of {it} is applied twice", lambda p: p.slope**2)
    yield mutant(missing, 4, "the derivative of {it} is inverted", lambda p: 1 / p.slope)
    for k in (*range(len(edge.node.inputs)), -1):
        name = "its result" if k < 0 else f"its {('first', 'second', 'third')[min(k, 2)]} operand"
        factor = f"the derivative of {{it}} has {name} as a factor"
        # With its own operand a product's derivative is the product.
        of_product = edge.node.name == "mul" and k == edge.position
        causes = (Cause.WRONG_POINT, missing) if of_product else (missing,)
        yield mutant(causes[0], 4, f"{factor} too many", lambda p, k=k: p.slope * p.operand(k), *causes[1:])
        yield mutant(missing, 4, f"{factor} too few", lambda p, k=k: p.slope / p.operand(k))
        instead = f"{name} stands in place of the derivative of {{it}}"
        cause = missing if edge.node.name == "pow" else Cause.WRONG_POINT
        yield mutant(cause, 4, instead, lambda p, k=k: p.operand(k))


def broadcasts(context: Context, edge: Edge) -> Iterator[Mutant]:
    """The sum that undoes broadcasting: a mean, one row only, or over another axis."""
    node, graph = edge.node, context.graph
    shape, out = graph.shape(edge.value), graph.shape(node.outputs[0])
    axes: tuple[int, ...] = ()
    if node.name == "broadcast_in_dim":
        axes = repeated_axes(node, shape)
    elif node.elementwise:
        axes = implicit_axes(out, shape)
    axes = tuple(a for a in axes if out[a] > 1)
    groups = [c for size in range(len(axes), 0, -1) for c in itertools.combinations(axes, size)]
    for some in groups if len(axes) <= 3 else [axes]:
        n = int(np.prod([out[a] for a in some]))
        where = " and ".join(map(str, some))
        text = f"the cotangent of {{it}} is averaged over axis {where}, not summed; multiply by n = {n}"
        yield context.mutant(
            edge, Cause.REDUCTION, 2, text, lambda p, n=n: p.share / n, Cause.CONSTANT_FACTOR
        )
    for index, which in ((0, "first"), (-1, "last")) if axes else ():
        text = f"of the cotangent of {{it}} only the {which} row is taken; sum over axis {axes[0]}"
        yield context.mutant(edge, Cause.REDUCTION, 3, text, _row_only(axes, index))
    for other in range(len(out)):
        if len(axes) == 1 and other not in axes and out[other] == out[axes[0]]:
            text = f"the cotangent of {{it}} is summed over axis {other} in place of {axes[0]}"
            yield context.mutant(
                edge,
                Cause.REDUCTION,
                3,
                text,
                lambda p, o=other: p.share_of(np.swapaxes(p.ct, o, axes[0])),
            )


def _row_only(axes: tuple[int, ...], index: int) -> Change:
    def change(p: Pulled) -> np.ndarray:
        kept = np.zeros_like(p.ct)
        at = tuple(index if a in axes else slice(None) for a in range(p.ct.ndim))
        kept[at] = p.ct[at]
        return p.share_of(kept)

    return change
