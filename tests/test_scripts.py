"""The scripts run, and what they write has what is read from it."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import funcbp
from scripts import make_docs, measure_rules, plot_bench
from scripts.rule_rows import read

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
    command = [sys.executable, str(BENCH), "--smoke", "--only", "mlp", "--out", str(path)]
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
    assert "funcbp sweep" in done.stdout
    assert "100%" in done.stderr


def test_rules_are_measured_and_a_stopped_run_goes_on(tmp_path, capsys):
    out = tmp_path / "measured.json"
    config = measure_rules.Config(out=out, smoke=True, only=("relu",))
    with pytest.raises(SystemExit, match=r"^0$"):
        measure_rules.main(config)
    first = read(out)
    assert first.keys() == {"relu"}
    with pytest.raises(SystemExit, match=r"^0$"):
        measure_rules.main(replace(config, only=("dense",)))
    rows = read(out)
    assert rows["relu"] == first["relu"]
    ours, autodiff = rows["dense"]["ulps"]["float32"]
    assert 0 < ours <= 1.5 * autodiff
    assert rows["dense"]["flops"][0] == rows["dense"]["flops"][1] > 0
    assert rows["relu"]["saved_bytes"][0] <= rows["relu"]["saved_bytes"][1]
    assert "dense" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="neither a rule nor a family 'rleu'"):
        measure_rules.main(replace(config, only=("rleu",)))


def test_the_table_of_measurements_is_of_these_rules():
    rows = read(measure_rules.RESULTS)
    assert rows.keys() == funcbp.catalogue().keys()
    assert not [row["error"] for row in rows.values() if "error" in row]


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
    write = make_docs.Config(readme=readme, families=tmp_path, bench=bench[0])
    check = replace(write, check=True)
    with pytest.raises(SystemExit, match=r"stale; run: python scripts/make_docs\.py"):
        make_docs.main(check)
    make_docs.main(write)
    make_docs.main(check)
    text = readme.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert all(f"`{name}`" in text for name in funcbp.catalogue())
    columns = {line.replace("\\|", "").count("|") for line in text.splitlines() if line.startswith("|")}
    assert columns == {3, 7}
    page = tmp_path / "activations" / "README.md"
    for path in (readme, page):
        new = path.read_text()
        path.write_text(new.replace("`relu`", "`rule`"))
        with pytest.raises(SystemExit, match=r"stale; run: python scripts/make_docs\.py"):
            make_docs.main(check)
        path.write_text(new)


def test_make_docs_leaves_a_page_without_markers_alone(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text("nothing generated\n")
    make_docs.main(make_docs.Config(readme=readme, families=tmp_path))
    assert readme.read_text() == "nothing generated\n"
