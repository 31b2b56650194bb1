"""d(XW)/dW, applied and dense: the structured operator against `jax.jacrev`, in one run.

    python -m scripts.bench_jacobians [--smoke] [--out results.json]

Nothing is timed that is not equal to `jax.jacrev`'s tensor. Repeats are interleaved, each long enough that
other work on the machine slows both alike; ratios are of medians.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import numpy as jnp

from funcbp import jacobian
from scripts.bench_measure import write_json

RESULTS = Path(__file__).parent / "results" / "jacobians.json"


def product(X: jax.Array, W: jax.Array) -> jax.Array:
    return X @ W


def by_jacrev(X: jax.Array, W: jax.Array, v: jax.Array) -> jax.Array:
    return jnp.tensordot(jax.jacrev(product, 1)(X, W), v, 2)


def applied(X: jax.Array, W: jax.Array, v: jax.Array) -> jax.Array:
    return jacobian(product, X, W, argnum=1) @ v


def dense_by_jacrev(X: jax.Array, W: jax.Array) -> jax.Array:
    return jax.jacrev(product, 1)(X, W)


def dense(X: jax.Array, W: jax.Array) -> jax.Array:
    return jacobian(product, X, W, argnum=1).as_tensor()


def measured(functions: dict[str, Callable[[], Any]], repeats: int, budget: float) -> dict[str, float]:
    """Median seconds a call, the functions taking turns of about `budget` seconds each."""
    calls = {name: max(1, round(budget / seconds(function, 3))) for name, function in functions.items()}
    found: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(repeats):
        for name, function in functions.items():
            found[name].append(seconds(function, calls[name]))
    return {name: statistics.median(times) for name, times in found.items()}


def seconds(function: Callable[[], Any], calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        jax.block_until_ready(function())
    return (time.perf_counter() - start) / calls


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="small, to see that it runs")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where to write JSON")
    options = parser.parse_args()
    n, m, k = (4, 3, 2) if options.smoke else (64, 64, 32)
    repeats, budget = (2, 0.001) if options.smoke else (7, 0.1)
    rng = np.random.default_rng(0)
    X, W, v = (jnp.asarray(rng.standard_normal(s), jnp.float32) for s in ((n, m), (m, k), (m, k)))
    pairs = {"apply": (by_jacrev, applied, (X, W, v)), "dense": (dense_by_jacrev, dense, (X, W))}
    rows: list[dict[str, Any]] = []
    for what, (rival, ours, args) in pairs.items():
        compiled = {"jacrev": jax.jit(rival), "structured": jax.jit(ours)}
        expected, actual = (function(*args) for function in compiled.values())
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4)
        times = measured({name: lambda f=f, a=args: f(*a) for name, f in compiled.items()}, repeats, budget)
        ratio = times["jacrev"] / times["structured"]
        rows.append({"what": what, "sizes": [n, m, k], "seconds": times, "ratio": ratio})
    print(f"d(XW)/dW, {n}x{m}x{k}, {jax.default_backend()}: jacrev, structured, ratio")
    for row in rows:
        ms = [1e3 * row["seconds"][name] for name in ("jacrev", "structured")]
        print(f"{row['what']:10} {ms[0]:9.3f} ms {ms[1]:9.3f} ms {row['ratio']:7.1f}x")
    write_json(options.out, {"jax": jax.__version__, "rows": rows})


if __name__ == "__main__":
    main()
