"""Checking a rule: every property of a backward pass that can be had from its signature, domain and
reference."""

import functools
from collections.abc import Callable, Hashable, Iterator
from dataclasses import replace
from typing import Any, Literal

import jax
import numpy as np
from jax import numpy as jnp
from jax.typing import DTypeLike

from .._compat import enable_x64
from .._rule import Rule
from ._bounds import allowance, round_tree
from ._calls import Frozen, candidate, truth_of
from ._cases import Cases, Sizes, Variant, axis_sizes, cases, cyclic, draw, point_kind, variants
from ._collect import BASE, Collector
from ._compare import compare
from ._contract import contract_findings, specs
from ._oracles import finite_differences, magnitude, vjp_of
from ._pairs import evaluated
from ._report import Cause, Finding, Report

__all__ = ["assert_rule", "check_rule"]

Tier = Literal["quick", "default", "long"]
Depth = Literal["shapes", "quick", "values", "deep"]

_DEEP = 8  # examples for what costs more: second order, composition
_DEEP_PARTS = {
    "forward": ("jax.jvp of primal", Cause.FORWARD),
    "second": ("the derivative of the backward pass", Cause.SECOND_ORDER),
    "composed": ("between two other functions", Cause.COMPOSED),
}
_STARS = ((2, 3), (), (4,), (1,), (0,), (1, 1))


def check_rule(
    rule: Rule,
    *,
    dtypes: tuple[DTypeLike, ...] = ("float64", "float32"),
    tier: Tier = "default",
    seed: int = 0,
    examples: int = 64,
) -> Report:
    """Check a rule against `jax.vjp` of its reference in float64, element by element, and everything around
    it.

    Checked for all settings, with optional arguments and without: tree, None, shape and dtype of the
    cotangents, over several shapes (empty and size-one axes too); value and cotangents at random inputs, at
    random, zero and huge cotangents, at extreme magnitudes and at all named points; linearity in the
    cotangent; the same without jit, under vmap, under scan, through `jax.grad` of the callable and with a
    layer above and below; Jacobians, reverse and forward mode; at random inputs and at the named points where
    the function is smooth, the derivatives of the backward pass and of `primal` (at a kink the latter must be
    the convention); and the reference itself against central differences. Stops at the first combination of
    setting and dtype in which something is wrong.

    Args:
        rule: the rule.
        dtypes: to compute in; inputs are rounded to each.
        tier: `"long"` compares values over many shapes, not only one, and with every subset of optional
            arguments; `"quick"` compares value and cotangents at the same inputs, but with default settings,
            through the callable under vmap only (in float64 not compiled), and takes the reference on trust.
        seed: of everything that is drawn.
        examples: random inputs for each combination.

    Returns:
        A Report; mistakes in the rule are findings in it, not exceptions.

    >>> from funcbp import rules
    >>> check_rule(rules.square, examples=4).verdict
    'right'
    """
    collector = Collector(rule, seed)
    with enable_x64(), jax.default_matmul_precision("highest"), np.errstate(all="ignore"):
        for step in _steps(rule, dtypes, tier, seed, examples, collector):
            step()
            if collector.findings:
                break
    return collector.report(dtypes)


def assert_rule(rule: Rule, **options: Any) -> None:
    """Raise `AssertionError` with the report of `check_rule(rule, **options)` unless it is right."""
    check_rule(rule, **options).raise_if_failed()


def _steps(
    rule: Rule, dtypes: tuple[DTypeLike, ...], tier: Tier, seed: int, examples: int, collector: Collector
) -> Iterator[Callable[[], None]]:
    every, quick = tier == "long", tier == "quick"
    first = next(variants(rule, every))
    for variant in [first] if quick else variants(rule, every):
        for sizes in _few_sizes(rule) if quick else _many_sizes(rule):
            for dtype in dtypes[-1:] if quick else dtypes:
                yield functools.partial(_contract, variant, sizes, dtype, collector)
        for sizes in _shapes(rule) if every and variant == first else [axis_sizes(rule)]:
            usual = sizes == axis_sizes(rule)
            if not (rule.surrogate or quick):
                yield functools.partial(_reference, variant, sizes, seed, collector)
            for dtype in dtypes:
                deep = variant == first and dtype is dtypes[0]
                depth: Depth = "quick" if quick else "shapes" if not usual else "deep" if deep else "values"
                yield functools.partial(_values, variant, sizes, dtype, seed, examples, collector, depth)


def _many_sizes(rule: Rule) -> list[Sizes]:
    return [axis_sizes(rule, star, named) for star in _STARS for named in ((5, 7, 3, 11), (1,))]


def _few_sizes(rule: Rule) -> list[Sizes]:
    return [axis_sizes(rule), axis_sizes(rule, (0,)), axis_sizes(rule, (), (1,))]


def _shapes(rule: Rule) -> list[Sizes]:
    shapes = [axis_sizes(rule, own=own) for own in rule.sizes]
    shapes += [axis_sizes(rule, star) for star in _STARS[1:]]
    shapes += [axis_sizes(rule, (3,), named) for named in ((1,), (2,), (9, 17, 4, 6))]
    different = [sizes for i, sizes in enumerate(shapes) if sizes not in shapes[:i]]
    return [sizes for sizes in different if _takes(rule, sizes)]


def _takes(rule: Rule, sizes: Sizes) -> bool:
    given = specs(Variant(rule, {}, rule.signature.arguments), sizes, "float64")
    try:
        jax.eval_shape(rule.reference, *given)
    except (TypeError, ValueError, ZeroDivisionError, IndexError):
        return False
    return True


def _contract(variant: Variant, sizes: Sizes, dtype: DTypeLike, collector: Collector) -> None:
    collector.add_findings(contract_findings(variant, sizes, dtype))


def _reference(variant: Variant, sizes: Sizes, seed: int, collector: Collector) -> None:
    shape = tuple(sorted(sizes.items()))
    collector.add_findings(
        _reference_findings(
            variant.rule.reference, Frozen(variant), tuple(variant.statics.items()), shape, seed
        )
    )


@functools.lru_cache(maxsize=256)
def _reference_findings(
    reference: Callable[..., Any],
    frozen: Frozen,
    statics: tuple[tuple[str, Hashable], ...],
    sizes: tuple[tuple[str, Any], ...],
    seed: int,
) -> tuple[Finding, ...]:
    variant = frozen.variant
    rng = np.random.default_rng(seed)
    args = tuple(x[0] for x in draw(variant, dict(sizes), rng, 1))

    def function(*given: Any) -> Any:
        return reference(*variant.all_arguments(given), **dict(statics))

    out = jax.eval_shape(function, *args)
    cotangent = jax.tree.map(lambda o: rng.standard_normal(o.shape), out)
    estimate, error = finite_differences(function, args, cotangent)
    truth = evaluated(lambda a, c: vjp_of(function, a, c)[1], args, cotangent)
    # Where autodiff has no gradient (the std of a single number) it cannot be compared.
    estimate = jax.tree.map(lambda e, t: np.where(np.isfinite(t), e, t), estimate, truth)
    named = [f"{a.name}_ct" for a in variant.present]
    found = compare(
        *(dict(zip(named, x, strict=True)) for x in (truth, estimate, error)),
        cause=Cause.REFERENCE,
        situation="float64, central differences of the reference",
    )
    return found.findings


def _values(
    variant: Variant,
    sizes: Sizes,
    dtype: DTypeLike,
    seed: int,
    examples: int,
    collector: Collector,
    depth: Depth,
) -> None:
    spec = specs(variant, sizes, "float64")
    out = jax.eval_shape(
        lambda *a: variant.rule.reference(*variant.all_arguments(a), **variant.statics), *spec
    )
    made = cases(variant, sizes, dtype, seed, examples, out)
    truth, spread = truth_of(Frozen(variant), False)(0, made.args, made.cotangent)
    scale = np.maximum(magnitude((made.args, made.cotangent), 1), _divided(made.args))
    bound = _allowed(truth, spread, dtype, scale)
    ways = candidate(variant.rule, Frozen(variant))
    args, cotangent = _typed((made.args, made.cotangent), dtype)
    if depth in ("quick", "shapes"):
        at_once = depth == "quick" and jnp.dtype(dtype) == np.float64
        got = {BASE: jax.device_get((ways.at_once if at_once else ways.quick)(args, cotangent))}
    else:
        got = jax.device_get(ways.run(args, cotangent))
    check = functools.partial(_compared, collector, variant, made, dtype, _overflows(truth["out"], dtype))

    wrong = check(BASE, Cause.VALUE, got[BASE], truth, bound)
    _linear(collector, variant, made, dtype, got[BASE], bound)
    if depth != "shapes":  # a named point is of axes that are long enough for it
        _points(collector, variant, made, dtype, got[BASE], bound)
    collector.count(variant, made, dtype)
    if depth in ("quick", "shapes"):
        return
    check("under vmap", Cause.VMAP, got["vmap"], truth, bound, skip=wrong)
    check("jax.vjp of the callable", Cause.GRAD_DIFFERS, got["grad"], truth, bound, skip=wrong)
    if depth == "values" or wrong:
        return

    # Named points go along with the first examples: one compilation for both.
    rows = np.arange(min(_DEEP, examples))
    rows = np.concatenate([rows, *(made.where(point_kind(label))[1:] for label in variant.rule.points)])
    few = functools.partial(jax.tree.map, lambda x: x[rows])
    rng = np.random.default_rng(seed + 1)
    tangents = round_tree(
        [rng.standard_normal(x.shape) for x in few(made.args) if x.dtype == np.float64], dtype
    )
    deep_truth, deep_spread = truth_of(Frozen(variant), True)(
        0, few(made.args), few(made.cotangent), tangents
    )
    deep_bound = _allowed(deep_truth, deep_spread, dtype, few(scale) ** 2)
    got = jax.device_get(ways.further(few(args), few(cotangent), _typed(tangents, dtype)))
    check("jax.vjp in a scan", Cause.GRAD_DIFFERS, got["scan"], few(truth), few(bound), rows=rows)
    for part, (what, cause) in _DEEP_PARTS.items():
        # Below a layer that squares, the huge numbers of some points would overflow.
        chosen = [
            i for i, row in enumerate(rows) if _is_smooth(variant.rule, made.kinds[row], part == "composed")
        ]
        pick = functools.partial(jax.tree.map, lambda x, chosen=chosen: x[chosen])
        results = pick((got[part], deep_truth[part], deep_bound[part]))
        check(what, cause, *results, rows=rows[chosen])
    _kinks(collector, variant, made, dtype, got["forward"]["out"], tangents, rows)
    rows = made.where("basis")
    for mode, jacobian in got["jacobians"].items():
        true, allowed = ({n: x[n][rows] for n in jacobian} for x in (truth, bound))
        check(f"Jacobian, {mode} mode", Cause.JACOBIAN, jacobian, true, allowed, rows=rows)
    one = functools.partial(jax.tree.map, lambda x: x[:1])
    eager = jax.device_get(ways.once(*jax.tree.map(lambda x: jnp.asarray(x[0]), (args, cotangent))))
    eager = jax.tree.map(lambda x: x[None], eager)
    check("without jit", Cause.JIT_DIFFERS, eager, one(truth), one(bound), rows=np.arange(1))


def _overflows(out: Any, dtype: DTypeLike) -> np.ndarray:
    """Of which examples the output is beyond the range of a dtype."""
    with np.errstate(all="ignore"):
        return magnitude(jax.tree.leaves(out), 1) > float(jnp.finfo(dtype).max)


def _divided(args: Any) -> np.ndarray:
    """By how much an underflowed intermediate may grow where it is divided by an argument, within reason."""
    with np.errstate(all="ignore"):
        reciprocals = [1 / np.abs(x) for x in jax.tree.leaves(args) if x.dtype == np.float64]
    return np.minimum(magnitude(reciprocals, 1), 1e4)


def _allowed(truth: Any, spread: Any, dtype: DTypeLike, scale: Any) -> Any:
    """The rounding of what is checked, and of the truth: that was computed in float64."""
    rounded = allowance(truth, spread, "float64", scale)
    return jax.tree.map(np.add, allowance(truth, spread, dtype, scale), rounded)


def _is_smooth(rule: Rule, kind: str, only_random: bool) -> bool:
    point = next((p for label, p in rule.points.items() if point_kind(label) == kind), None)
    return point is None or (point.smooth and not only_random)


def _typed(tree: Any, dtype: DTypeLike) -> Any:
    return jax.tree.map(lambda x: x.astype(jnp.dtype(dtype)) if x.dtype == np.float64 else x, tree)


def _compared(
    collector: Collector,
    variant: Variant,
    made: Cases,
    dtype: DTypeLike,
    overflowed: np.ndarray,
    what: str,
    cause: Cause,
    actual: dict[str, Any],
    truth: dict[str, Any],
    bound: dict[str, Any],
    skip: frozenset[str] = frozenset(),
    rows: np.ndarray | None = None,
) -> frozenset[str]:
    """Compare named results of the examples at `rows` (all of them); returns the names of wrong ones, `skip`
    among them."""
    rows = np.arange(len(made.kinds)) if rows is None else rows
    other = {point_kind(label) for label, point in variant.rule.points.items() if not point.agrees}
    agreeing = ~np.isin(np.array(made.kinds)[rows], list(other))
    wrong = set(skip)
    for name in truth.keys() - skip:
        of = Cause.PRIMAL_DIFFERS if name == "out" and cause is Cause.VALUE else cause
        # Of an output that the dtype cannot hold, which may be all that is saved, there is no gradient.
        judged = agreeing if name == "out" else agreeing & ~overflowed[rows]
        pick = functools.partial(jax.tree.map, lambda x, judged=judged: np.asarray(x)[judged])
        found = compare(
            *({name: pick(x[name])} for x in (actual, truth, bound)), dtype=dtype, cause=of, batch_axes=1
        )
        collector.add(variant, made, dtype, what, found, rows[judged])
        if found.findings:
            wrong.add(name)
    return frozenset(wrong)


def _linear(
    collector: Collector,
    variant: Variant,
    made: Cases,
    dtype: DTypeLike,
    actual: dict[str, Any],
    bound: dict[str, Any],
) -> None:
    a, b, both = made.where("sum")
    for name in (n for n in actual if n != "out"):
        x, allowed = np.asarray(actual[name], np.float64), np.asarray(bound[name])
        found = compare(
            {name: x[both][None]},
            {name: (x[a] + x[b])[None]},
            {name: (allowed[a] + allowed[b] + allowed[both])[None]},
            cause=Cause.NOT_LINEAR,
            batch_axes=1,
        )
        collector.add(
            variant, made, dtype, "the cotangents of a sum and of its terms", found, np.array([both])
        )


def _points(
    collector: Collector,
    variant: Variant,
    made: Cases,
    dtype: DTypeLike,
    actual: dict[str, Any],
    bound: dict[str, Any],
) -> None:
    """The stated convention: cotangents for a cotangent of ones, and finite wherever they are stated."""
    if variant.statics:
        return
    for label, point in variant.rule.points.items():
        ones, other = made.where(point_kind(label))
        for argument, value in point.expected.items():
            name = f"{argument}_ct"
            if name not in actual:
                continue
            x = np.asarray(actual[name], np.float64)
            expected = cyclic(value, x[ones][None].shape)
            # For a cotangent of ones the scale is one; where the oracle is exact its bound is tighter.
            stated = allowance(expected, np.maximum(np.abs(expected), 1.0), dtype)
            allowed = np.minimum(stated, bound[name][ones][None])
            found = compare({name: x[ones][None]}, {name: expected}, {name: allowed}, cause=Cause.CONVENTION)
            found = replace(
                found,
                findings=tuple(
                    replace(f, message=f"{f.message} {point.why}".strip()) for f in found.findings
                ),
            )
            collector.add(variant, made, dtype, f"the convention at {label!r}", found, np.array([ones]))
            finite = {name: np.where(np.isfinite(x[other]), 0.0, np.nan)[None]}
            zero = {name: np.zeros((1, *x[other].shape))}
            found = compare(finite, zero, zero)
            collector.add(variant, made, dtype, f"the convention at {label!r}", found, np.array([other]))


def _kinks(
    collector: Collector,
    variant: Variant,
    made: Cases,
    dtype: DTypeLike,
    actual: Any,
    tangents: list[np.ndarray],
    rows: np.ndarray,
) -> None:
    """At a kink `primal` has a derivative, too, and it is the stated one: Σ of the output's tangent is
    ⟨expected, tangent⟩."""
    if variant.statics:
        return
    moved = dict(zip(variant.names, tangents, strict=True))
    for label, point in variant.rule.points.items():
        if point.smooth or point.expected.keys() != moved.keys():
            continue
        (at,) = np.flatnonzero(rows == made.where(point_kind(label))[1])
        leaves = [np.asarray(x[at], np.float64) for x in jax.tree.leaves(actual)]
        total = sum((x.sum() for x in leaves), np.zeros(()))[None]
        terms = [cyclic(v, moved[a][at][None].shape)[0] * moved[a][at] for a, v in point.expected.items()]
        expected = sum((x.sum() for x in terms), np.zeros(()))[None]
        size = sum((np.abs(x).sum() for x in [*leaves, *terms]), np.zeros(()))[None]
        named = ({"out": x} for x in (total, expected, allowance(expected, size, dtype)))
        found = compare(*named, cause=Cause.CONVENTION, batch_axes=1)
        collector.add(variant, made, dtype, f"jax.jvp of primal at {label!r}", found, rows[[at]])
