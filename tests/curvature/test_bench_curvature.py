"""The benchmark runs, and all of its methods agree."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[2] / "scripts" / "bench_curvature.py"


@pytest.mark.long
def test_smoke(tmp_path):
    out = tmp_path / "curvature.json"
    command = [sys.executable, str(BENCH), "--smoke", "--out", str(out)]
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "COLUMNS": "200"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    rows = {(row["case"], row["method"]): row for row in json.loads(out.read_text())["rows"]}
    assert {case for case, _ in rows} == {"ntk", "ntk-large", "ggn"}
    for row in rows.values():
        assert row["error_float64"] < 1e-12
        assert row["time_ms"] > 0
    assert rows["ggn", "funcbp"]["flops"] == rows["ggn", "expert's ten lines"]["flops"]
    assert "scan of VJPs" in done.stdout
