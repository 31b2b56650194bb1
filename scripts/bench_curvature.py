"""Tangent kernels and the diagonal of the Gauss-Newton matrix, against the best that plain JAX does.

Nothing is timed before all methods agree: in float64 and float32 at tiny sizes, and in float32 at those that
are timed. Times are medians of interleaved repeats, ratios are taken within a repeat and are those to funcbp:
above 1 funcbp is faster; temp bytes are XLA's. Methods that would need more than `--room` bytes are compiled
for their bytes and not run. BackPACK runs beside the diagonal where it is installed.

    python scripts/bench_curvature.py            # all; ten minutes and more
    python scripts/bench_curvature.py --smoke    # tiny sizes, to see that it runs
"""

import itertools
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
import tyro
from jax import numpy as jnp
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from funcbp import curvature, layers, rules
from scripts import curvature_rivals, exploit_peers, exploit_rivals
from scripts.bench_measure import (
    agreement,
    built,
    describe_machine,
    error,
    measured_before,
    timed,
    write_json,
)

PyTree = Any
Function = Callable[..., PyTree]
Section = Literal["ntk", "ntk-large", "ggn"]
RESULTS = Path(__file__).parent / "results" / "curvature.json"
OURS = "funcbp"
UNITS = (("temp_bytes", 1e6), ("flops", 1e9))
LOSS = rules.softmax_cross_entropy_with_integer_labels


@dataclass(frozen=True)
class Config:
    """Benchmarks of curvature.

    Attributes:
        only: run only these set-ups; what others gave before is kept.
        repeats: interleaved timed calls of every method.
        room: bytes of temporaries up to which a method is run.
        out: where to write the JSON.
        smoke: tiny sizes and two repeats.
    """

    only: tuple[Section, ...] = ()
    repeats: int = 15
    room: int = 4_000_000_000
    out: Path = RESULTS
    smoke: bool = False


@dataclass(frozen=True)
class Case:
    """A set-up.

    Attributes:
        name: of it.
        title: with its sizes.
        quantity: what is computed.
        args: parameters in funcbp's tree, and x.
        methods: by name, functions of these.
    """

    name: str
    title: str
    quantity: str
    args: tuple[PyTree, jax.Array]
    methods: dict[str, Function]


def _mlp(name: str, widths: list[int], batch: int) -> Case:
    *hidden, last = widths[1:]
    parts = [part for w in hidden for part in (layers.dense(w), layers.activation("relu"))]
    network = layers.chain(*parts, layers.dense(last))
    x = jnp.asarray(np.random.default_rng(0).standard_normal((batch, widths[0])), jnp.float32)
    params = network.init(jax.random.key(0), x)[0]
    kernel = name.startswith("ntk")
    make = curvature_rivals.kernels if kernel else curvature_rivals.diagonals
    rivals = {
        method: lambda params, x, function=function: function(list(params[::2]), x)
        for method, function in make(exploit_rivals.mlp()).items()
    }
    quantity = "full tangent kernel" if kernel else "exact diagonal of the Gauss-Newton matrix"
    title = f"MLP {'-'.join(map(str, widths))}, {batch} examples"
    return Case(name, title, quantity, (params, x), {OURS: _ours(network, kernel)} | rivals)


def _ours(network: layers.Layer, kernel: bool) -> Function:
    if kernel:
        return curvature.ntk(network)
    diagonal = curvature.ggn_diagonal(network, LOSS, reduction="sum")

    def of_weights(params: PyTree, x: jax.Array) -> PyTree:
        # The labels do not enter this loss's Hessian.
        return list(diagonal(params, x, jnp.zeros(x.shape[0], jnp.int32))[::2])

    return of_weights


MAKERS: dict[str, Callable[[bool], Case]] = {
    "ntk": lambda smoke: _mlp("ntk", *(([8, 6, 6, 3], 4) if smoke else ([784, 512, 512, 10], 32))),
    "ntk-large": lambda smoke: _mlp(
        "ntk-large", *(([9, 7, 7, 7, 2], 3) if smoke else ([3072, 2048, 2048, 2048, 8], 16))
    ),
    "ggn": lambda smoke: _mlp("ggn", *(([8, 6, 6, 3], 4) if smoke else ([784, 512, 512, 10], 64))),
}


def _as_plain(params: PyTree, x: jax.Array) -> tuple[PyTree, jax.Array, jax.Array]:
    """The arguments of the peers' network, with labels that do not matter."""
    return list(params[::2]), x, jnp.zeros(x.shape[0], jnp.int32)


def run(name: str, config: Config, found: dict[str, str]) -> Iterator[dict[str, Any]]:
    """All methods of a set-up, with the peers that are found."""
    tiny, case = MAKERS[name](True), MAKERS[name](config.smoke)
    reference = list(tiny.methods)[-1]
    errors = agreement(name, tiny.methods, tiny.methods[reference], tiny.args)
    theirs = exploit_peers.peers(case.quantity, found)
    errors |= exploit_peers.agreement(name, theirs, tiny.methods[OURS], tiny.args, _as_plain)
    programs = {n: built(lambda method=method: method, case.args)[0] for n, method in case.methods.items()}
    runs = {n: p for n, p in programs.items() if p.memory_analysis().temp_size_in_bytes <= config.room}
    _check(name, runs, case.args)
    eager = exploit_peers.built(name, theirs, programs[OURS], case.args, _as_plain)
    times = timed(runs | eager, case.args, config.repeats, OURS)
    for method, program in (programs | eager).items():
        yield (
            {"case": name, "title": case.title, "quantity": case.quantity, "method": method}
            | times.get(method, dict.fromkeys(times[OURS]))
            | errors[method]
            | exploit_peers.counts(program, case.methods.get(method), case.args)
        )


def _check(what: str, programs: dict[str, Any], args: tuple[PyTree, ...]) -> None:
    """All methods give the same at the sizes that are timed."""
    expected = jax.tree.map(np.asarray, programs[list(programs)[-1]](*args))
    for name, program in programs.items():
        if not (worst := error(program(*args), expected)) < 1e-3:
            raise SystemExit(f"{what}: {name} differs by {worst:.1e}; nothing was timed.")


def tables(rows: list[dict[str, Any]]) -> Iterator[Table]:
    """One for every set-up."""
    for title, group in itertools.groupby(rows, key=lambda row: (row["quantity"], row["title"])):
        of_group = list(group)
        (ours,) = (r for r in of_group if r["method"] == OURS)
        table = Table("method", "time", "time / funcbp (quartiles)", "temp MB", "temp / funcbp", "GFLOP")
        table.add_column("GFLOP / funcbp")
        table.title = ": ".join(title)
        for r in of_group:
            times = ("not run", "")
            if r["time_ms"] is not None:
                spread = f"({r['time_ratio_low']:.2f}-{r['time_ratio_high']:.2f})"
                times = (f"{r['time_ms']:.2f} ms", f"{r['time_ratio']:.2f} {spread}")
            units = [(key, unit) for key, one in UNITS for unit in (one, max(1, ours[key]))]
            table.add_row(r["method"], *times, *(exploit_peers.shown(r[key], unit) for key, unit in units))
        yield table


def in_order(rows: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    return [row for name in MAKERS for row in rows.get(name, ())]


def main(config: Config) -> None:
    config = Config(config.only, 2, config.room, config.out, True) if config.smoke else config
    names = [name for name in MAKERS if not config.only or name in config.only]
    rows = measured_before(config.out, config.smoke) if config.only else {}
    found = exploit_peers.load(Console(width=200))
    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("", total=len(names))
        for name in names:
            progress.update(task, description=name)
            rows[name] = list(run(name, config, found))
            progress.advance(task)
            result = describe_machine() | exploit_peers.described(found)
            result |= {"smoke": config.smoke, "repeats": config.repeats, "rows": in_order(rows)}
            write_json(config.out, result)
    console = Console(width=None if sys.stdout.isatty() else 140)
    for table in tables(in_order(rows)):
        console.print(table)


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
