"""Draws scripts/results/bench.json: what every method costs, relative to `jax.value_and_grad`."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import tyro

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

RESULTS = Path(__file__).parent / "results"
SWEEP, GRAD = "funcbp sweep", "jax.value_and_grad"
COLUMNS = {
    "time_ms": "time",
    "temp_bytes": "temporary bytes",
    "flops": "matrix-product FLOPs",
    "build_ms": "trace + lower + compile",
}
RATIOS = {"time_ms": "time_ratio", "build_ms": "build_ratio"}
OURS, THEIRS = "#1b6ca8", "#b8b8b8"


@dataclass(frozen=True)
class Config:
    """Figure of the benchmark.

    Attributes:
        results: what scripts/bench.py wrote.
        out: the PNG.
    """

    results: Path = RESULTS / "bench.json"
    out: Path = RESULTS / "bench.png"


def panel(axes: Axes, rows: list[dict[str, Any]], column: str) -> None:
    base = next(r for r in rows if r["method"] == GRAD)
    ratios = [r[RATIOS[column]] if column in RATIOS else r[column] / (base[column] or 1) for r in rows]
    colors = [OURS if r["method"].startswith("funcbp") else THEIRS for r in rows]
    places = range(len(rows))
    spread = None
    if column == "time_ms":
        low = [max(0.0, r["time_ratio"] - r["time_ratio_low"]) for r in rows]
        high = [max(0.0, r["time_ratio_high"] - r["time_ratio"]) for r in rows]
        spread = [low, high]
    axes.barh(places, ratios, color=colors, height=0.72, xerr=spread, error_kw={"lw": 1, "ecolor": "#555555"})
    axes.axvline(1, color="#333333", lw=0.8, ls=":")
    # A bar that dwarfs the others (unrolled blocks) is cut, its number is not.
    limit = min(max(ratios), 2.6) * 1.28
    for place, ratio in zip(places, ratios, strict=True):
        beyond = rows[place]["time_ratio_high"] if spread else ratio
        at = min(max(beyond, ratio), limit * 0.82)
        cut = ratio > limit * 0.82
        axes.text(
            at + limit * 0.015,
            place,
            f"{ratio:.2f}" + (" →" if cut else ""),
            va="center",
            fontsize=8,
            color="white" if cut else "black",
        )
    axes.set_xlim(0, limit)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)


def main(config: Config) -> None:
    result = json.loads(config.results.read_text())
    cases: dict[str, list[dict[str, Any]]] = {}
    for row in result["networks"]:
        cases.setdefault(row["case"], []).append(row)
    if not cases:
        raise SystemExit(f"{config.results.name} holds no networks; run: python scripts/bench.py")
    counts = [len(rows) for rows in cases.values()]
    figure, grid = plt.subplots(
        len(cases),
        len(COLUMNS),
        figsize=(13, 0.27 * sum(counts) + 0.75 * len(cases) + 0.6),
        height_ratios=counts,
        squeeze=False,
        layout="constrained",
    )
    for line, (rows, row_axes) in enumerate(zip(cases.values(), grid, strict=True)):
        for number, (axes, column) in enumerate(zip(row_axes, COLUMNS, strict=True)):
            panel(axes, rows, column)
            names = [r["method"].replace("_with_no_batch_dims_", "_no_batch_") for r in rows]
            axes.set_yticks(range(len(rows)), names if number == 0 else [""] * len(rows))
            if number == 0:
                axes.set_title(rows[0]["title"], loc="left", fontsize=9.5, fontweight="bold")
            if line == len(cases) - 1:
                axes.set_xlabel(COLUMNS[column], fontsize=9)
    what = f"{result['platform'].upper()}, {result['cores']} cores, jax {result['versions']['jax']}"
    figure.suptitle(f"Relative to {GRAD} of plain JAX = 1; less is better ({what})", fontsize=11)
    config.out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(config.out, dpi=130, metadata={"Software": None})
    plt.close(figure)


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
