"""What every rule costs and how accurate it is, next to `jax.vjp` of its reference in the same run.

The table goes into the package (`funcbp rules` prints it). A rule whose source has not changed since it was
measured is skipped, so that a run that was stopped goes on where it was. Bytes, operations and ulps are
deterministic for a version of JAX; the time is the median of interleaved ratios.

    python scripts/measure_rules.py                      # what is new or has changed
    python scripts/measure_rules.py --only losses gelu   # these families and rules, again
"""

import functools
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tyro
from jax import numpy as jnp
from rich.console import Console
from rich.table import Table

import funcbp
from funcbp import Rule
from funcbp.verify import accuracy
from funcbp.verify._cases import Sizes, Variant, axis_sizes, cases, draw, point_kind
from scripts.bench_measure import agreement, compiled, saved_bytes, timed
from scripts.rule_rows import Rows, collect

PyTree = Any
Function = Callable[..., PyTree]
RESULTS = Path(funcbp.__file__).parent / "rules" / "measured.json"
DTYPES = ("float32", "bfloat16", "float16")
LENGTHS = (64, 48, 32, 40, 24)
IMAGES = 1024


@dataclass(frozen=True)
class Config:
    """Measure the rules of the catalogue.

    Attributes:
        only: families and rules to measure, even if nothing has changed; none for all that has.
        repeats: interleaved timed calls.
        jobs: processes.
        out: the JSON, read first and written after every rule.
        smoke: the sizes of the tests and two repeats.
    """

    only: tuple[str, ...] = ()
    repeats: int = 40
    jobs: int = 1
    out: Path = RESULTS
    smoke: bool = False


def functions(rule: Rule, sizes: Sizes) -> tuple[Function, Function, tuple[jax.Array, ...], PyTree]:
    """fwd and bwd of a rule, `jax.vjp` of its reference, and what both are given: arguments and cotangent."""
    variant = Variant(rule, {}, rule.signature.arguments)
    rng = np.random.default_rng(0)
    values = [x[0] for x in draw(variant, sizes, rng, 1)]
    floating = [i for i, a in enumerate(variant.present) if a.floating]
    args = tuple(jnp.asarray(x, jnp.float32 if i in floating else x.dtype) for i, x in enumerate(values))

    def hand(args: tuple[jax.Array, ...], cotangent: PyTree) -> PyTree:
        out, residuals = rule.fwd(*args)
        cotangents = rule.bwd(residuals, cotangent)
        return out, [cotangents[i] for i in floating]

    def autodiff(args: tuple[jax.Array, ...], cotangent: PyTree) -> PyTree:
        out, pullback = pullback_of(rule, args)
        return out, list(pullback(cotangent))

    out = jax.eval_shape(rule.primal, *args)
    cotangent = jax.tree.map(lambda o: jnp.asarray(rng.standard_normal(o.shape), o.dtype), out)
    return hand, autodiff, args, cotangent


def pullback_of(rule: Rule, args: tuple[jax.Array, ...]) -> tuple[PyTree, Any]:
    """`jax.vjp` of the reference with respect to its floating arguments."""
    floating = [i for i, a in enumerate(rule.signature.arguments) if a.floating]

    def function(*moving: jax.Array) -> PyTree:
        values = dict(zip(floating, moving, strict=True))
        return rule.reference(*[values.get(i, x) for i, x in enumerate(args)])

    return jax.vjp(function, *(args[i] for i in floating))


def measured(rule: Rule, *, repeats: int, smoke: bool) -> dict[str, Any]:
    """One row: pairs are (hand-derived, autodiff)."""
    sizes = axis_sizes(rule) if smoke else axis_sizes(rule, LENGTHS[:2], LENGTHS)
    if "*inputs" in sizes and not smoke:
        # The rule's own images have a few pixels: two of them are over before anything can be timed.
        sizes = {**sizes, "batch": IMAGES}
    hand, autodiff, args, cotangent = functions(rule, sizes)
    both = (args, cotangent)
    row: dict[str, Any] = dict(agreement(rule.name, {"hand": hand}, autodiff, both)["hand"])
    makers: dict[str, Callable[[], Function]] = {"hand": lambda: hand, "autodiff": lambda: autodiff}
    programs, costs = compiled(makers, both, 1, "autodiff")
    for key in ("temp_bytes", "flops"):
        row[key] = [costs[m][key] for m in makers]
    out, residuals = rule.fwd(*args)
    other, pullback = pullback_of(rule, args)
    row["saved_bytes"] = [saved_bytes(residuals, (args, out)), saved_bytes(pullback, (args, other))]
    times = timed(programs, both, 2 if smoke else repeats, "autodiff")["hand"]
    row |= {key: times[key] for key in ("time_ratio", "time_ratio_low", "time_ratio_high")}
    examples = 16 if smoke else 256
    found = {d: accuracy(rule, d, examples=examples) for d in DTYPES[: 1 if smoke else None]}
    return row | {
        "ulps": {d: [a.ours, a.autodiff] for d, a in found.items()},
        "finite_only_here": finite_only_here(rule),
    }


def finite_only_here(rule: Rule) -> list[str]:
    """The named points at which our cotangents are finite and those of autodiff are not."""
    labels = [label for label, point in rule.points.items() if not point.agrees]
    if not labels:
        return []
    variant, sizes = Variant(rule, {}, rule.signature.arguments), axis_sizes(rule)
    hand, autodiff, _, cotangent = functions(rule, sizes)
    made = cases(variant, sizes, "float32", 0, 1, jax.tree.map(jax.typeof, cotangent))
    chosen = np.concatenate([made.where(point_kind(label))[1:] for label in labels])

    def single(x: np.ndarray) -> np.ndarray:
        return x[chosen].astype(np.float32) if x.dtype == np.float64 else x[chosen]

    given = jax.tree.map(single, (made.args, made.cotangent))
    ours, theirs = (_finite(jax.jit(jax.vmap(f))(*given)[1]) for f in (hand, autodiff))
    return [label for label, here, there in zip(labels, ours, theirs, strict=True) if here and not there]


def _finite(cotangents: PyTree) -> np.ndarray:
    """Example by example: whether all of it is."""
    each = [np.isfinite(x).reshape(len(x), -1).all(axis=1) for x in map(np.asarray, cotangents)]
    return np.all(each, axis=0)


def table(rows: Rows) -> Table:
    headings = ("rule", *(f"ulp {d}" for d in DTYPES), "saved B", "temp B", "FLOPs", "time")
    made = Table(*headings, title="fwd + bwd: hand-derived, jax.vjp of the reference")
    for name, row in rows.items():
        ulps = (_pair(row["ulps"].get(d)) for d in DTYPES)
        counts = (_pair(row[k]) for k in ("saved_bytes", "temp_bytes", "flops"))
        made.add_row(name, *ulps, *counts, f"{row['time_ratio']:.2f}")
    return made


def _pair(pair: list[float] | None) -> str:
    return "-" if pair is None else ", ".join(f"{x:.4g}" for x in pair)


def main(config: Config) -> None:
    row_of = functools.partial(measured, repeats=config.repeats, smoke=config.smoke)
    rows = collect(row_of, config.only, config.jobs, config.out)
    console = Console(width=None if sys.stdout.isatty() else 160)
    failed = {name: row["error"] for name, row in rows.items() if "error" in row}
    console.print(table({name: row for name, row in rows.items() if name not in failed}))
    for name, error in failed.items():
        console.print(f"{name} could not be measured:\n{error}", markup=False)
    console.print(f"{config.out}; next: python scripts/make_docs.py")
    raise SystemExit(1 if failed else 0)


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
