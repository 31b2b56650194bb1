"""Derivations are what they were, and right; `python -m tests.derive.goldens` writes them anew."""

import re
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from funcbp._derive._check import draw

from .cases import CASES
from .goldens import FOLDER, derivation, golden
from .numerics import evaluated

# Together they have every operation; the code of all others is compared with the golden one, as text.
EVERY_OPERATION = [
    "attention",
    "backwards",
    "batched",
    "cell",
    "cholesky",
    "concatenate",
    "cross_entropy",
    "cumulative",
    "det",
    "diagonal",
    "gaussian",
    "gelu",
    "huber",
    "inverse",
    "largest",
    "layer_norm",
    "log_cosh",
    "logdet",
    "logistic_regression",
    "logsumexp",
    "lower_triangle",
    "maximum",
    "moving_average",
    "power_iteration",
    "recurrent_rows",
    "relu_network",
    "reshaped",
    "row_norms",
    "row_sums",
    "sequence_model",
    "silu_gate",
    "slices",
    "softmax",
    "two_scans",
]
COMPARED = [n if n in EVERY_OPERATION else pytest.param(n, marks=pytest.mark.long) for n in CASES]


@pytest.mark.parametrize("name", CASES)
def test_derivation_is_the_golden_one(name: str) -> None:
    assert golden(CASES[name]) == (FOLDER / f"{name}.txt").read_text(encoding="utf-8")


def test_every_golden_file_has_a_case() -> None:
    assert {path.stem for path in FOLDER.glob("*.txt")} == set(CASES)


def test_every_operation_has_a_case_that_is_compared() -> None:
    assert set(EVERY_OPERATION) <= set(CASES)
    words = {
        name: set(re.findall(r"j(?:np|ax)[.\w]+", (FOLDER / f"{name}.txt").read_text(encoding="utf-8")))
        for name in CASES
    }
    assert set().union(*words.values()) == set().union(*(words[n] for n in EVERY_OPERATION))


@pytest.mark.parametrize("name", COMPARED)
def test_derivation_agrees_with_jax(name: str, x64) -> None:
    case, d = CASES[name], derivation(CASES[name])
    values = draw(d, np.random.default_rng(3), varied=True)
    assert values is not None
    positions = tuple(d.names.index(n) for n in d.wrt)
    value, gradients = evaluated(jax.value_and_grad(case.function, positions), *values.values())
    found_value, found = d.quick(*values.values())
    np.testing.assert_allclose(found_value, value, rtol=1e-12, atol=1e-12)
    scale = max(np.abs(g).max() for g in gradients)
    for n, truth in zip(d.wrt, gradients, strict=True):
        assert found[n].shape == truth.shape
        assert np.abs(found[n] - truth).max() <= 1e-12 * scale


@pytest.mark.parametrize(
    "name",
    ["nested", *(pytest.param(n, marks=pytest.mark.long) for n in ("network", "attention_scores", "solve"))],
)
def test_report_says_right(name: str) -> None:
    report = derivation(CASES[name]).check(samples=1)
    assert report.ok, str(report)
    assert report.checked.elements


def test_deriving_and_printing_stays_under_a_second() -> None:
    derivation(CASES["linear"])  # the first trace imports parts of JAX
    seconds = {}
    for name, case in CASES.items():
        start = time.process_time()
        d = derivation(case)
        str(d), d.source()
        seconds[name] = time.process_time() - start
    assert sorted(seconds.values())[len(seconds) // 2] < 0.3
    assert max(seconds.values()) < 1.0, max(seconds.items(), key=lambda item: item[1])


def test_code_passes_ruff(tmp_path) -> None:
    for name in CASES:
        code = (FOLDER / f"{name}.txt").read_text(encoding="utf-8").split("-" * 80)[1]
        (tmp_path / f"{name}.py").write_text('"""Generated."""\n\n' + code.strip() + "\n", encoding="utf-8")
    ruff = [
        sys.executable,
        "-m",
        "ruff",
        "check",
        "--isolated",
        "--select",
        "E,F,I,B",
        "--line-length",
        "120",
    ]
    found = subprocess.run([*ruff, str(tmp_path)], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout
