"""The functions that `derive` writes, beside `jax.value_and_grad` of the original, for every golden case.

Both get the same arguments, and their largest difference is in the table. The axes are as long as it takes
for the computation to be what is timed, not the call; those of a recurrence, and of a derivation that holds
for the sizes of the tests alone, stay short. Times are medians of interleaved repeats, as ratios to
`jax.value_and_grad` within a repeat; a function is called slower beyond noise where three quarters of its
ratios are above 1.05. Operations and bytes are XLA's own count for the compiled programs, in which the body
of a loop counts once; in the operations of matrix products it counts as often as it runs.

    python -m scripts.bench_derive            # a few minutes
    python -m scripts.bench_derive --smoke    # a few of them, at the sizes of the tests
"""

import math
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
from rich.progress import track
from rich.table import Table

import funcbp
from funcbp._derive._check import draw
from scripts.bench_measure import describe_machine, error, matmul_flops, timed, write_json
from tests.derive.cases import CASES, SIZES, Case

_OVERFLOWING = ("det",)  # in float32 where the matrix is larger
_SLOWER = 1.05
RESULTS = Path(__file__).parent / "results" / "derive.json"
OURS, AUTODIFF = "derive", "jax.value_and_grad"


@dataclass(frozen=True)
class Config:
    """Cost of generated functions.

    Attributes:
        only: these cases; none for all.
        times: how much longer every axis is at least than in the tests, where the derivation holds for all
            sizes.
        numbers: how many the arguments have together at least, of what is no recurrence.
        repeats: interleaved timed calls.
        out: where to write the JSON.
        smoke: three cases, short axes, two repeats.
    """

    only: tuple[str, ...] = ()
    times: int = 8
    numbers: int = 1 << 15
    repeats: int = 16
    out: Path = RESULTS
    smoke: bool = False


def _shapes(case: Case, times: int) -> list[list[int]]:
    return [
        [int(d) if d.isdigit() else times * SIZES[d] for d in text.split()] for text in case.dims.values()
    ]


def _derived(case: Case, times: int) -> funcbp.Derivation:
    specs = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in _shapes(case, times)]
    return funcbp.derive(
        case.function, *specs, wrt=case.wrt, dims=case.dims, assume=case.assume, **case.options
    )


def _large(name: str, times: int, numbers: int) -> funcbp.Derivation:
    """The derivation of a case for axes that are long enough to be timed."""
    case = CASES[name]
    d = _derived(case, 1)
    if times == 1 or not d.general or _shapes(case, 1) == _shapes(case, times):
        return d
    if "jax.lax.scan" not in d.source() and name not in _OVERFLOWING:
        while sum(map(math.prod, _shapes(case, times))) < numbers:
            times *= 2
    return _derived(case, times)


def measured(name: str, times: int, numbers: int, repeats: int) -> dict[str, Any]:
    """One row: operations, bytes and time of both."""
    case, d = CASES[name], _large(name, times, numbers)
    drawn = draw(d, np.random.default_rng(0), varied=False)
    if drawn is None:
        raise SystemExit(f"{name}: no arguments fit what is assumed.")
    args = tuple(jnp.asarray(x, jnp.float32) for x in drawn.values())
    positions = tuple(d.names.index(n) for n in d.wrt)
    gradients = jax.value_and_grad(case.function, positions)

    def autodiff(*args: jax.Array) -> Any:
        value, found = gradients(*args)
        return value, dict(zip(d.wrt, found, strict=True))

    functions: dict[str, Callable[..., Any]] = {OURS: d.plain, AUTODIFF: autodiff}
    programs: dict[str, Any] = {n: jax.jit(f).lower(*args).compile() for n, f in functions.items()}
    worst = error(programs[OURS](*args), programs[AUTODIFF](*args))
    found = timed(programs, args, repeats, AUTODIFF)[OURS]
    costs = {n: p.cost_analysis() for n, p in programs.items()}
    counts = {k: [costs[n].get(k, 0.0) for n in (OURS, AUTODIFF)] for k in ("flops", "bytes accessed")}
    counts["matmul_flops"] = [matmul_flops(f, *args) for f in functions.values()]
    temp = [p.memory_analysis().temp_size_in_bytes for p in programs.values()]
    shapes = [list(x.shape) for x in args]
    return {"name": name, "shapes": shapes, "error": worst, "temp_bytes": temp} | counts | found


def table(rows: list[dict[str, Any]]) -> Table:
    made = Table(
        "derivation", "time / jax.grad (quartiles)", "FLOPs", "of products", "bytes", "temp bytes", "error"
    )
    for r in rows:
        counted = (r[k] for k in ("flops", "matmul_flops", "bytes accessed", "temp_bytes"))
        ratios = (f"{a / b:.2f}" if b else "-" for a, b in counted)
        time = f"{r['time_ratio']:.2f} ({r['time_ratio_low']:.2f}-{r['time_ratio_high']:.2f})"
        made.add_row(r["name"], time, *ratios, f"{r['error']:.0e}")
    return made


def main(config: Config) -> None:
    names = list(config.only or CASES)
    times, repeats = config.times, config.repeats
    if config.smoke:
        names, times, repeats = names[:3], 1, 2
    console = Console(width=None if sys.stdout.isatty() else 120)
    rows = [measured(n, times, config.numbers, repeats) for n in track(names, console=Console(stderr=True))]
    result = describe_machine() | {
        "times": times,
        "numbers": config.numbers,
        "repeats": repeats,
        "smoke": config.smoke,
        "rows": rows,
    }
    write_json(config.out, result)
    console.print(table(sorted(rows, key=lambda r: -r["time_ratio"])))
    slower = [r["name"] for r in rows if r["time_ratio_low"] > _SLOWER]
    console.print(f"{len(slower)} of {len(rows)} are slower than {AUTODIFF} beyond noise: {slower or 'none'}")


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
