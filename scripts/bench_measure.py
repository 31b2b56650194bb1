"""Measurements that the benchmarks share: agreement, bytes, operations, build time, interleaved times."""

import itertools
import json
import math
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from jax import numpy as jnp
from jax.interpreters import partial_eval

PyTree = Any
Function = Callable[..., PyTree]

_BUDGET = 50.0  # milliseconds that a measurement should take at least


def matmul_flops(function: Function, *args: PyTree) -> int:
    """Operations of the matrix products that the results need; a scan's body counts as often as it runs."""
    jaxpr = jax.make_jaxpr(function)(*args).jaxpr
    return _flops(partial_eval.dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))[0])


def _flops(jaxpr: Any) -> int:
    total = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            contracted = equation.params["dimension_numbers"][0][0]
            left = equation.invars[0].aval.shape
            total += 2 * math.prod(equation.outvars[0].aval.shape) * math.prod(left[i] for i in contracted)
        inner = jax.tree.leaves(tuple(equation.params.values()), is_leaf=lambda p: hasattr(p, "jaxpr"))
        bodies = [_flops(getattr(p, "jaxpr", p)) for p in inner if hasattr(p, "eqns") or hasattr(p, "jaxpr")]
        if equation.primitive.name == "cond":
            total += max(bodies, default=0)
        else:
            total += sum(bodies) * (equation.params["length"] if equation.primitive.name == "scan" else 1)
    return total


def saved_bytes(saved: PyTree, alive: PyTree) -> int:
    """Bytes of the distinct arrays in `saved` that are none of `alive`."""
    known = {a.unsafe_buffer_pointer() for a in jax.tree.leaves(alive) if isinstance(a, jax.Array)}
    arrays = [a for a in jax.tree.leaves(saved) if isinstance(a, jax.Array) and a.size]
    return sum({p: a.nbytes for a in arrays if (p := a.unsafe_buffer_pointer()) not in known}.values())


def error(actual: PyTree, expected: PyTree) -> float:
    """Largest difference of any element, relative to the largest element of its leaf."""
    pairs = zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True)
    both = ((np.asarray(a, np.float64), np.asarray(b, np.float64)) for a, b in pairs)
    return max((_distance(a, b) for a, b in both if a.size), default=0.0)


def _distance(a: np.ndarray, b: np.ndarray) -> float:
    """max |a - b| / max |b|, where what is not finite in b must be the same in a."""
    finite = np.isfinite(b)
    if not np.array_equal(a[~finite], b[~finite], equal_nan=True):
        return np.inf
    a, b = a[finite], b[finite]
    return float(np.max(np.abs(a - b), initial=0) / (np.max(np.abs(b), initial=0) + 1e-300))


def agreement(
    what: str, functions: dict[str, Function], reference: Function, args: tuple[PyTree, ...]
) -> dict[str, dict[str, float]]:
    """The error of every function against the reference, in float64 and float32; exits if one disagrees."""
    errors: dict[str, dict[str, float]] = {name: {} for name in functions}
    for kind, dtype, limit in (("float64", np.float64, 1e-9), ("float32", np.float32, 1e-3)):
        with jax.enable_x64(dtype is np.float64):
            values = jax.tree.map(lambda a, dtype=dtype: _cast(a, dtype), args)
            expected = jax.jit(reference)(*values)
            for name, function in functions.items():
                worst = errors[name][f"error_{kind}"] = error(jax.jit(function)(*values), expected)
                if not worst < limit:
                    raise SystemExit(f"{what}: {name} differs by {worst:.1e} in {kind}; nothing was timed.")
    return errors


def _cast(a: Any, dtype: Any) -> jax.Array:
    values = np.asarray(a)
    return jnp.asarray(values.astype(dtype) if jnp.issubdtype(values.dtype, jnp.floating) else values)


def built(make: Callable[[], Function], args: tuple[PyTree, ...]) -> tuple[Any, dict[str, float]]:
    """A compiled function, and the milliseconds that a fresh trace, lowering and compilation take."""
    jax.clear_caches()
    start = [time.perf_counter()]
    traced = jax.jit(make()).trace(*args)
    start.append(time.perf_counter())
    lowered = traced.lower()
    start.append(time.perf_counter())
    program = lowered.compile()
    start.append(time.perf_counter())
    spent = [1e3 * (b - a) for a, b in itertools.pairwise(start)]
    return program, dict(zip(("trace_ms", "lower_ms", "compile_ms"), spent, strict=True)) | {
        "build_ms": sum(spent)
    }


def compiled(
    makers: dict[str, Callable[[], Function]], args: tuple[PyTree, ...], rounds: int, base: str
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Every function compiled; median build times over interleaved rounds; bytes and operations."""
    programs: dict[str, Any] = {}
    spent: dict[str, list[dict[str, float]]] = {name: [] for name in makers}
    for _ in range(rounds):
        for name, make in makers.items():
            programs[name], times = built(make, args)
            spent[name].append(times)
    rows: dict[str, dict[str, Any]] = {}
    for name, make in makers.items():
        row: dict[str, Any] = {k: statistics.median(t[k] for t in spent[name]) for k in spent[name][0]}
        pairs = zip(spent[name], spent[base], strict=True)
        row["build_ratio"] = statistics.median(t["build_ms"] / b["build_ms"] for t, b in pairs)
        memory = programs[name].memory_analysis()
        row["temp_bytes"] = memory.temp_size_in_bytes
        row["peak_bytes"] = getattr(memory, "peak_memory_in_bytes", None)
        row["flops"] = matmul_flops(make(), *args)
        row["xla_flops"] = (programs[name].cost_analysis() or {}).get("flops")
        rows[name] = row
    return programs, rows


def timed(
    functions: dict[str, Function], args: tuple[PyTree, ...], repeats: int, base: str
) -> dict[str, Any]:
    times: dict[str, list[float]] = {name: [] for name in functions}
    names = list(functions)

    def milliseconds(name: str, calls: int) -> float:
        start = time.perf_counter()
        for _ in range(calls):
            jax.block_until_ready(functions[name](*args))
        return 1e3 * (time.perf_counter() - start) / calls

    # The first call may prepare something. Short ones are repeated, so that what else the machine does, and
    # the memory that a neighbor has left, weigh alike.
    for name in names:
        milliseconds(name, 1)
    calls = {name: max(1, round(_BUDGET / milliseconds(name, 1))) for name in names}
    order = np.random.default_rng(0)
    for _ in range(repeats):
        # Shuffled, so that nobody always runs after the same neighbor.
        for name in order.permutation(names):
            times[name].append(milliseconds(name, calls[name]))
    ratios = {n: [t / b for t, b in zip(times[n], times[base], strict=True)] for n in names}
    return {
        n: {"time_ms": statistics.median(times[n]), "time_ratio": statistics.median(ratios[n])}
        | dict(
            zip(
                ("time_ratio_low", "time_ratio_high"),
                np.quantile(ratios[n], (0.25, 0.75)).tolist(),
                strict=True,
            )
        )
        for n in names
    }


def measured_before(path: Path, smoke: bool) -> dict[str, list[dict[str, Any]]]:
    """The rows of every set-up in a result of the same versions and sizes, for runs of some set-ups alone."""
    result = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    if (result.get("versions"), result.get("smoke")) != (describe_machine()["versions"], smoke):
        return {}
    return {case: list(rows) for case, rows in itertools.groupby(result["rows"], key=lambda r: r["case"])}


def write_json(path: Path, result: dict[str, Any], *, sort_keys: bool = False) -> None:
    """Atomically: a run that is killed leaves the last complete result."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(".tmp")
    new.write_text(
        json.dumps(result, indent=1, sort_keys=sort_keys, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    os.replace(new, path)


def describe_machine() -> dict[str, Any]:
    device = jax.devices()[0]
    versions = {m.__name__: m.__version__ for m in (jax, np, optax)} | {"python": platform.python_version()}
    return {
        "device": device.device_kind,
        "platform": device.platform,
        "cores": os.cpu_count(),
        "versions": versions,
    }
