"""Mistakes that take a value from elsewhere in the program: σ′ at q for p, x for h, one δ for another."""

from collections.abc import Callable, Iterator

import jax
import numpy as np
from jax import numpy as jnp

from ... import _compat
from .._report import Cause
from .graph import Node
from .mistakes import IN_OUTPUT
from .mutants import Change, Context, Edge, Mutant, Pulled, edges
from .pullbacks import einsum_of
from .sites import Span, loops, sites, spans
from .tape import Contributions, Tape, evaluate

__all__ = ["elsewhere", "functions", "in_time"]

_MOST_VALUES = 16
_MOST_SPANS = 24


def functions(context: Context) -> Iterator[Mutant]:
    """An elementwise function of several operations taken for one: its derivative dropped or misplaced."""
    for span in _all_spans(context):
        slope = _slope(context.tape, span)
        if slope is None or not _varies(span, slope):
            continue
        what = _function(context, span)
        if len(span.nodes) > 1:
            text = f"the derivative of {what} is left out; multiply by it"
            yield _of_span(span, Cause.FACTOR_MISSING, 2, text, lambda _: 1.0)
        q = context.tape.values[span.y]
        for name, form in IN_OUTPUT.items():
            with np.errstate(all="ignore"):
                fits = np.allclose(slope, form(q), rtol=1e-9, atol=1e-12)
            if fits:
                text = f"the derivative {name} of {what} is evaluated at its input, not at its result q"
                yield _of_span(
                    span, Cause.WRONG_POINT, 3, text, lambda tape, f=form, s=span: f(tape.values[s.x])
                )


def _function(context: Context, span: Span) -> str:
    """An elementwise function in words."""
    x, y = context.names.get(span.x, "its argument"), context.names.get(span.y)
    return f"the {span.nodes[0].name} of {x}" if y is None else f"{y} as a function of {x}"


def _all_spans(context: Context) -> list[Span]:
    recorder = context.recorder
    single = [
        Span(node.inputs[k], node.outputs[0], (node,))
        for node in recorder.active
        if node.elementwise
        for k in [k for k, v in enumerate(node.inputs) if v in recorder.moving]
        if len({v for v in node.inputs if v in recorder.moving}) == 1
        and recorder.graph.shape(node.inputs[k]) == recorder.graph.shape(node.outputs[0])
    ]
    return single + spans(recorder)[: 4 * _MOST_SPANS]


def _slope(tape: Tape, span: Span) -> np.ndarray | None:
    """The derivative of the function that a span is."""
    cts: dict[int, np.ndarray] = {span.y: np.ones(tape.graph.shape(span.y))}
    for node in span.nodes:
        given = tape.given(node, cts)
        if given is not None:
            for value, ct in tape.pull(node, given):
                cts[value] = cts[value] + ct if value in cts else ct
    return cts.get(span.x)


def _varies(span: Span, slope: np.ndarray) -> bool:
    """Whether a derivative is none of a linear function's."""
    if slope.size == 1:
        return any(node.name not in ("add", "sub", "mul", "div", "neg") for node in span.nodes)
    return slope.size > 0 and bool(np.ptp(slope.real) != 0)


def _of_span(
    span: Span, cause: Cause, rank: int, text: str, of: Callable[[Tape], np.ndarray | float]
) -> Mutant:
    def override(tape: Tape, _: Node, cts: list[np.ndarray]) -> Contributions:
        return [(span.x, cts[0] * of(tape))]

    return Mutant(cause, text, rank, {span.nodes[0].index: override}, span.nodes[0].source)


def elsewhere(context: Context) -> Iterator[Mutant]:
    """Derivatives, operands and cotangents from other places of the same shape."""
    yield from _points(context)
    for site in sites(context.recorder):
        if site.which not in ("", " in every step"):
            continue
        for edge in edges(site, context.recorder):
            if len(site.nodes) == 1:
                yield from _cotangents(context, edge)
                if edge.node.name in ("mul", "dot_general"):
                    yield from _operands(context, edge)


def _points(context: Context) -> Iterator[Mutant]:
    """A derivative evaluated at other values: of the result, of an earlier or a later layer."""
    for span in _all_spans(context)[: 2 * _MOST_SPANS]:
        slope = _slope(context.tape, span)
        if slope is None or not _varies(span, slope):
            continue
        values = [v for v in _alike(context, span.x) if v != span.x]
        if not values:
            continue
        compiled = _compat.quick_jit(_derivative(span))
        what = _function(context, span)
        for value in values:

            def at(tape: Tape, span: Span = span, value: int = value, f=compiled) -> np.ndarray:
                fixed = {v: tape.values[v] for n in span.nodes for v in n.inputs if v in tape.values}
                with jax.enable_x64(True):
                    return np.asarray(f(tape.values[value], fixed))

            text = (
                f"the derivative of {what} is evaluated at {_place(context, value)}"
                f"{' (its result)' if value == span.y else ''}; evaluate it at the function's input"
            )
            yield _of_span(span, Cause.WRONG_POINT, 4 if value == span.y else 5, text, at)


def _derivative(span: Span) -> Callable[..., jax.Array]:
    inner = {v for node in span.nodes for v in node.outputs}

    def derivative(at: jax.Array, fixed: dict[int, jax.Array]) -> jax.Array:
        def function(x: jax.Array) -> jax.Array:
            values = {**{v: c for v, c in fixed.items() if v not in inner}, span.x: x}
            for node in reversed(span.nodes):
                values.update(
                    zip(node.outputs, evaluate(node, [values[v] for v in node.inputs]), strict=True)
                )
            return values[span.y]

        return jax.jvp(function, (at,), (jnp.ones_like(at),))[1]

    return derivative


def _alike(context: Context, value: int) -> list[int]:
    """Recorded values of a shape, those nearby first; equal ones once."""
    tape = context.tape
    like = tape.values[value]
    same = [
        v
        for v, x in tape.values.items()
        if x.dtype.kind == "f" and x.shape == like.shape and x.dtype == like.dtype
    ]
    same.sort(key=lambda v: abs(v - value))
    found: list[int] = []
    for v in same:
        if len(found) <= _MOST_VALUES and not any(
            np.array_equal(tape.values[v], tape.values[w]) for w in found
        ):
            found.append(v)
    return found


def _place(context: Context, value: int) -> str:
    if value in context.names:
        return context.names[value]
    producer = context.graph.producer.get(value)
    if producer is None:
        return "a constant"
    line = f" of line {producer.source.line}" if producer.source else ""
    return f"the result of {producer.name}{line}"


def _operands(context: Context, edge: Edge) -> Iterator[Mutant]:
    """A product's cotangent made with another value than its other operand: x where h belongs."""
    node = edge.node
    other = node.inputs[1 - edge.position]
    for value in _alike(context, other)[1:]:
        text = (
            f"the cotangent of {{it}} is made with {_place(context, value)} in place of "
            f"{_place(context, other)}"
        )

        cause = _between(context, value, other)
        yield context.mutant(edge, cause, 5, text, _made_with(lambda _, v=value: v))


def _between(context: Context, earlier: int, later: int) -> Cause:
    """What is left out where an earlier value stands for a later one: a term, a factor, or a function."""
    names: list[str] = []
    while later > earlier:
        producer = context.graph.producer.get(later)
        if producer is None or not producer.elementwise:
            return Cause.WRONG_POINT
        names.append(producer.name)
        later = max((v for v in producer.inputs if v not in context.graph.adjustable), default=-1)
    if later != earlier or not set(names) <= {"add", "sub", "mul", "div", "neg", "convert_element_type"}:
        return Cause.WRONG_POINT
    return Cause.TERM_MISSING if {"add", "sub"} & set(names) else Cause.FACTOR_MISSING


def in_time(context: Context) -> Iterator[Mutant]:
    """A loop's products and slopes made with the state after the step instead of before, or the other way."""
    repeated = loops(context.recorder.active)
    for site in sites(context.recorder):
        if site.which != " in every step":
            continue
        for edge in edges(site, context.recorder):
            if site.first.name in ("mul", "dot_general"):
                yield from _shifted_in_time(context, edge, 1 - edge.position, repeated, _made_with)
            elif site.first.elementwise and len(site.first.inputs) == 1:
                change = _slope_at(Span(site.first.inputs[0], site.first.outputs[0], (site.first,)))
                yield from _shifted_in_time(context, edge, 0, repeated, change)


def _shifted_in_time(
    context: Context,
    edge: Edge,
    position: int,
    repeated: list[list[Node]],
    change: Callable[[Callable[[Pulled], int | None]], Change],
) -> Iterator[Mutant]:
    """A change that takes an operand of another step."""
    values = [node.inputs[position] for node in edge.site.nodes]
    if len(set(values)) < 2:
        return
    for shifted, which in (
        ([*values[1:], _after(context, values, repeated)], "later"),
        ([None, *values[:-1]], "earlier"),
    ):
        if which == "earlier" or shifted[-1] is not None:
            text = f"the cotangent of {{it}} takes the value one step {which}; take its own"
            at = {n.index: v for n, v in zip(edge.site.nodes, shifted, strict=True)}
            yield context.mutant(edge, Cause.OFF_BY_ONE, 3, text, change(lambda p, at=at: at[p.node.index]))


def _after(context: Context, values: list[int], repeated: list[list[Node]]) -> int | None:
    """The value one step after the last that a loop reads: what its last step leaves behind."""
    known = context.tape.values
    for loop in repeated:
        left = [known[node.outputs[0]] for node in loop if node.outputs[0] in known]
        if len(left) == len(values) and all(
            np.array_equal(a, known[v]) for a, v in zip(left[:-1], values[1:], strict=True)
        ):
            return loop[-1].outputs[0]
    return None


def _slope_at(span: Span) -> Callable[[Callable[[Pulled], int | None]], Change]:
    """An elementwise function's share made with its derivative at another value; None is its own."""
    compiled = _compat.quick_jit(_derivative(span))

    def made(value_of: Callable[[Pulled], int | None]) -> Change:
        def change(p: Pulled) -> np.ndarray:
            value = value_of(p)
            if value is None:
                return p.share
            with jax.enable_x64(True):
                return p.ct * np.asarray(compiled(p.tape.values[value], {}))

        return change

    return made


def _made_with(value_of: Callable[[Pulled], int | None]) -> Change:
    """A product's share made with another value than its other operand; None is zero."""

    def change(p: Pulled) -> np.ndarray:
        value = value_of(p)
        if value is None:
            return np.zeros_like(p.share)
        other = p.tape.values[value]
        if p.node.name == "mul":
            return p.ct * other if p.ct.shape == p.share.shape else p.share
        letters = einsum_of(p.node, (p.operand(0).ndim, p.operand(1).ndim))
        own, its, out = letters[p.edge.position], letters[1 - p.edge.position], letters[2]
        return np.einsum(f"{out},{its}->{own}", p.ct, other)

    return change


def _cotangents(context: Context, edge: Edge) -> Iterator[Mutant]:
    """The δ of another value in place of the result's own: a σ′ that one of two users of δ forgot."""
    cts, graph, own = context.tape.cotangents, context.graph, edge.node.outputs[0]
    if own not in cts or edge.node.name not in ("dot_general", "broadcast_in_dim", "add", "mul", "sub"):
        return
    same = [v for v in cts if v != own and graph.shape(v) == graph.shape(own)]
    same.sort(key=lambda v: abs(v - own))
    for value in same[:_MOST_VALUES]:
        if np.array_equal(cts[value], cts[own]):
            continue
        text = (
            f"the cotangent of {{it}} is made from that of {_place(context, value)} in place of "
            f"{_place(context, own)}; a factor or term between them is missing"
        )
        cause = Cause.FACTOR_MISSING if _later(context, own, value) else Cause.TERM_MISSING

        def change(p: Pulled, v: int = value) -> np.ndarray:
            return p.share_of(p.tape.cotangents[v])

        # Only this share changes: the δ that goes on is right.
        yield context.mutant(edge, cause, 5, text, change)


def _later(context: Context, value: int, later: int) -> bool:
    """Whether a value is an elementwise function of an earlier one."""
    while later > value:
        producer = context.graph.producer.get(later)
        if producer is None or not producer.elementwise:
            return False
        later = max((v for v in producer.inputs if v in context.recorder.moving), default=-1)
    return later == value
