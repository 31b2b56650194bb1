"""What the plain sweep costs, against autodiff of plain JAX in the same run.

Nothing is timed before its gradients agree in float64 and float32. Times are medians of interleaved repeats,
ratios are taken within a repeat; bytes and operation counts are exact.

    python scripts/bench.py            # all; some minutes
    python scripts/bench.py --smoke    # tiny sizes, to see that it runs
"""

import functools
import itertools
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
import optax
import tyro
from jax import lax
from jax import numpy as jnp
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

import funcbp
from funcbp import layers, rules
from scripts.bench_measure import agreement, compiled, describe_machine, saved_bytes, timed, write_json

PyTree = Any
Function = Callable[..., PyTree]
Section = Literal["mlp", "unrolled", "blocks"]
RESULTS = Path(__file__).parent / "results" / "bench.json"
SWEEP, GRAD = "funcbp sweep", "jax.value_and_grad"
POLICIES = ("nothing_saveable", "dots_saveable", "dots_with_no_batch_dims_saveable", "everything_saveable")
LOSS = rules.softmax_cross_entropy_with_integer_labels
CLASSES = 10
# The methods whose build time is compared; the others are built once.
BUILT = (SWEEP, GRAD, "funcbp, one block")


@dataclass(frozen=True)
class Config:
    """Benchmarks of funcbp against autodiff.

    Attributes:
        only: run only these sections.
        repeats: interleaved timed calls of every method.
        traces: fresh traces and compilations of every method.
        out: where to write the JSON.
        smoke: tiny sizes and two repeats.
    """

    only: tuple[Section, ...] = ()
    repeats: int = 40
    traces: int = 5
    out: Path = RESULTS
    smoke: bool = False


@dataclass(frozen=True)
class Case:
    """A network: `methods` build a fresh function of `args`, `residuals` give what each keeps for bwd."""

    name: str
    title: str
    methods: dict[str, Callable[[], Function]]
    residuals: dict[str, Callable[[], PyTree]]
    args: tuple[PyTree, ...]
    agree: tuple[str, ...]


# The networks, as funcbp layers and in plain JAX.


def _cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    return optax.losses.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def _affine(x: jax.Array, p: PyTree) -> jax.Array:
    return x @ p["w"] + p["b"]


def _data(batch: int, width: int) -> tuple[jax.Array, jax.Array]:
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.standard_normal((batch, width)), jnp.float32)
    return x, jnp.asarray(rng.integers(0, CLASSES, batch), jnp.int32)


def _checkpointed(function: Function, policy: str | None, prevent_cse: bool = True) -> Function:
    if policy is None:
        return function
    return jax.checkpoint(function, policy=getattr(jax.checkpoint_policies, policy), prevent_cse=prevent_cse)


def _case(
    name: str, title: str, network: layers.Layer, plain: Callable[[str | None], Function], data: Any
) -> Case:
    params, _ = network.init(jax.random.key(0), data[0])

    def saved() -> PyTree:
        forward = network.fwd(params, (), data[0], layers.Context())
        return forward.residuals, LOSS.fwd(forward.y, data[1])[1]

    methods: dict[str, Callable[[], Function]] = {SWEEP: lambda: funcbp.value_and_grad(network, LOSS)}
    residuals: dict[str, Callable[[], PyTree]] = {SWEEP: saved}
    for policy in (None, *POLICIES):
        label = GRAD if policy is None else f"checkpoint {policy}"
        methods[label] = lambda policy=policy: jax.value_and_grad(plain(policy))
        residuals[label] = lambda policy=policy: jax.vjp(lambda p: plain(policy)(p, *data), params)[1]
    return Case(name, title, methods, residuals, (params, *data), tuple(methods))


def _feedforward(name: str, widths: list[int], batch: int, activation: str, title: str) -> Case:
    *hidden, last = widths[1:]
    parts = [part for w in hidden for part in (layers.dense(w), layers.activation(activation))]
    sigma = getattr(jax.nn, activation)

    def plain(policy: str | None) -> Function:
        layer = _checkpointed(lambda x, p: sigma(_affine(x, p)), policy)

        def loss(params: PyTree, x: jax.Array, y: jax.Array) -> jax.Array:
            for p in params[:-1:2]:
                x = layer(x, p)
            return _cross_entropy(_affine(x, params[-1]), y)

        return loss

    return _case(name, title, layers.chain(*parts, layers.dense(last)), plain, _data(batch, widths[0]))


def _mlp(smoke: bool) -> Case:
    widths, batch = ([8, 6, 6, CLASSES], 4) if smoke else ([784, 512, 512, CLASSES], 256)
    return _feedforward(
        "mlp", widths, batch, "relu", f"MLP {'-'.join(map(str, widths))}, relu, batch {batch}"
    )


def _unrolled(smoke: bool) -> Case:
    depth, width, batch = (3, 8, 4) if smoke else (40, 256, 128)
    title = f"{depth} unrolled layers dense + gelu, width {width}, batch {batch}"
    return _feedforward("unrolled", [width] * (depth + 1) + [CLASSES], batch, "gelu", title)


def _blocks(smoke: bool) -> Case:
    depth, width, batch = (3, 8, 4) if smoke else (64, 128, 64)
    body = [layers.layer_norm(), layers.dense(width), layers.activation("gelu"), layers.dense(width)]
    block = layers.residual(layers.chain(*body))

    def plain(policy: str | None) -> Function:
        def step(x: jax.Array, params: PyTree) -> tuple[jax.Array, None]:
            norm, up, _, down = params
            centered = x - x.mean(-1, keepdims=True)
            z = centered * lax.rsqrt(jnp.var(x, -1, keepdims=True) + 1e-5) * norm["gain"] + norm["bias"]
            return x + _affine(jax.nn.gelu(_affine(z, up)), down), None

        def loss(params: PyTree, x: jax.Array, y: jax.Array) -> jax.Array:
            # A scan needs no barrier against common subexpressions.
            x, _ = lax.scan(_checkpointed(step, policy, prevent_cse=False), x, params[0])
            return _cross_entropy(_affine(x, params[1]), y)

        return loss

    title = f"{depth} blocks residual(layer_norm, dense, gelu, dense) in a scan, width {width}, batch {batch}"
    network = layers.chain(layers.repeat(block, depth), layers.dense(CLASSES))
    case = _case("blocks", title, network, plain, _data(batch, width))

    def unrolled() -> Function:
        sweep = funcbp.value_and_grad(
            layers.chain(layers.chain(*[block] * depth), layers.dense(CLASSES)), LOSS
        )

        def from_stacked(params: PyTree, x: jax.Array, y: jax.Array) -> PyTree:
            each = tuple(jax.tree.map(lambda a, i=i: a[i], params[0]) for i in range(depth))
            value, (grads, last) = sweep((each, params[1]), x, y)
            return value, (jax.tree.map(lambda *g: jnp.stack(g), *grads), last)

        return from_stacked

    def single() -> Function:
        sweep = funcbp.value_and_grad(layers.chain(layers.repeat(block, 1), layers.dense(CLASSES)), LOSS)
        return lambda params, x, y: sweep((jax.tree.map(lambda a: a[:1], params[0]), params[1]), x, y)

    methods = case.methods | {"funcbp, block unrolled": unrolled, "funcbp, one block": single}
    agree = (*case.agree, "funcbp, block unrolled")
    return Case(case.name, case.title, methods, case.residuals, case.args, agree)


def run_case(case: Case, config: Config, step: Callable[[str], None]) -> list[dict[str, Any]]:
    reference = case.methods[GRAD]()
    checked = agreement(case.name, {n: case.methods[n]() for n in case.agree}, reference, case.args)
    step(f"{case.name}: building")
    often = {n: make for n, make in case.methods.items() if n in BUILT}
    once = {GRAD: case.methods[GRAD]} | {n: make for n, make in case.methods.items() if n not in BUILT}
    programs, rows = compiled(once, case.args, 1, GRAD)
    repeated, their_rows = compiled(often, case.args, config.traces, GRAD)
    programs, rows = programs | repeated, rows | their_rows
    step(f"{case.name}: running")
    times = timed(programs, case.args, config.repeats, GRAD)
    saved = {n: saved_bytes(residuals(), case.args) for n, residuals in case.residuals.items()}
    return [
        {"case": case.name, "title": case.title, "method": name, "residual_bytes": saved.get(name)}
        | times[name]
        | rows[name]
        | checked.get(name, {})
        for name in case.methods
    ]


def _count(n: float | None) -> str:
    if n is None:
        return "-"
    power = next(i for i in (3, 2, 1, 0) if abs(n) >= 1000**i or i == 0)
    return f"{n / 1000**power:.4g}{['', ' k', ' M', ' G'][power]}"


def tables(result: dict[str, Any]) -> Iterator[Table]:
    for _, group in itertools.groupby(result["networks"], key=lambda row: row["case"]):
        rows = list(group)
        headings = (
            "method",
            "time",
            "ratio (quartiles)",
            "temp B",
            "saved B",
            "FLOPs",
            "trace",
            "lower",
            "compile",
        )
        table = Table(*headings, title=rows[0]["title"])
        for r in rows:
            ratio = f"{r['time_ratio']:.2f} ({r['time_ratio_low']:.2f}-{r['time_ratio_high']:.2f})"
            counts = (_count(r[k]) for k in ("temp_bytes", "residual_bytes", "flops"))
            build = (f"{r[f'{k}_ms']:.0f} ms" for k in ("trace", "lower", "compile"))
            table.add_row(r["method"], f"{r['time_ms']:.2f} ms", ratio, *counts, *build)
        yield table


def main(config: Config) -> None:
    repeats, traces = (2, 1) if config.smoke else (config.repeats, config.traces)
    config = Config(config.only, repeats, traces, config.out, config.smoke)
    makers = {"mlp": _mlp, "unrolled": _unrolled, "blocks": _blocks}
    wanted: Iterable[str] = config.only or tuple(makers)
    cases = [make(config.smoke) for name, make in makers.items() if name in wanted]
    result: dict[str, Any] = describe_machine() | {
        "smoke": config.smoke,
        "repeats": repeats,
        "networks": [],
    }
    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("", total=2 * len(cases))
        step = functools.partial(progress.update, task, advance=1)
        for case in cases:
            result["networks"] += run_case(case, config, lambda text: step(description=text))
    write_json(config.out, result)
    console = Console(width=None if sys.stdout.isatty() else 160)
    for table in tables(result):
        console.print(table)


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
