"""The scripts run, and what they write has what is read from it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import funcbp
from scripts import make_docs, plot_bench

BENCH = Path(__file__).parents[1] / "scripts" / "bench.py"
MEASURED = {
    "method",
    "time_ms",
    "time_ratio",
    "temp_bytes",
    "peak_bytes",
    "residual_bytes",
    "flops",
    "xla_flops",
    "trace_ms",
    "lower_ms",
    "compile_ms",
}


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    path = tmp_path_factory.mktemp("bench") / "bench.json"
    command = [sys.executable, str(BENCH), "--smoke", "--only", "mlp", "rules", "--out", str(path)]
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "COLUMNS": "200"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return path, done


def test_bench_writes_what_was_measured(bench):
    path, done = bench
    result = json.loads(path.read_text())
    assert result["smoke"]
    assert result["versions"].keys() == {"jax", "numpy", "optax", "python"}
    methods = {row["method"]: row for row in result["networks"]}
    assert methods.keys() > {"funcbp sweep", "jax.value_and_grad"}
    sweep, grad = methods["funcbp sweep"], methods["jax.value_and_grad"]
    assert sweep.keys() >= MEASURED | {"error_float32", "error_float64"}
    assert sweep["flops"] == grad["flops"] == 3072
    assert sweep["residual_bytes"] < grad["residual_bytes"]
    assert {row["family"] for row in result["rules"]} == {r.family for r in funcbp.catalogue().values()}
    assert all(row["hand_flops"] == row["autodiff_flops"] for row in result["rules"])
    assert "funcbp sweep" in done.stdout
    assert "100%" in done.stderr


def test_plot_draws(bench, tmp_path):
    picture = tmp_path / "bench.png"
    plot_bench.main(plot_bench.Config(results=bench[0], out=picture))
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_make_docs_writes_tables_and_finds_stale_ones(bench, tmp_path):
    readme = tmp_path / "README.md"
    names = ("rules", "bench")
    readme.write_text(
        "before\n" + "".join(f"<!-- {n}:begin -->\n<!-- {n}:end -->\n" for n in names) + "after\n"
    )
    write = make_docs.Config(readme=readme, bench=bench[0])
    check = make_docs.Config(check=True, readme=readme, bench=bench[0])
    with pytest.raises(SystemExit, match=r"stale; run: python scripts/make_docs\.py"):
        make_docs.main(check)
    make_docs.main(write)
    make_docs.main(check)
    text = readme.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert all(f"`{name}`" in text for name in funcbp.catalogue())
    columns = {line.replace("\\|", "").count("|") for line in text.splitlines() if line.startswith("|")}
    assert columns == {7}
    readme.write_text(text.replace("`relu`", "`rule`"))
    with pytest.raises(SystemExit):
        make_docs.main(check)


def test_make_docs_leaves_a_page_without_markers_alone(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text("nothing generated\n")
    make_docs.main(make_docs.Config(readme=readme))
    assert readme.read_text() == "nothing generated\n"
