"""The experiment on private training as its user runs it, stopped and resumed; and its committed results."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from experiments import _common, private_digits
from funcbp.training import epsilon

RESULTS = Path(__file__).resolve().parents[2] / "experiments" / "results"
TINY = {"steps": 6, "runs": 1, "noise_multipliers": (1.0,), "batch": 64, "hidden": 8}


def run(monkeypatch, **options):
    monkeypatch.setattr(_common, "parse", lambda *_: private_digits.Config(**TINY | options))
    return private_digits.main()


def test_help(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["private_digits", "--help"])
    with pytest.raises(SystemExit) as caught:
        private_digits.main()
    assert caught.value.code == 0
    assert "--noise-multipliers" in capsys.readouterr().out


def test_runs_and_resumes_to_the_same(tmp_path, capsys, monkeypatch):
    assert run(monkeypatch, out=tmp_path) == 0
    out = capsys.readouterr().out
    assert "not private:" in out
    assert "wrong labels" in out
    whole = json.loads((tmp_path / "private_digits.json").read_text(encoding="utf-8"))
    assert [line["clipping"] for line in whole["private"]] == ["fixed", "adaptive"]
    assert whole["private"][0]["epsilon"] == epsilon(6, 64 / 1437, 1.0, 1e-4)
    assert whole["private"][0]["last_max_norm"] == [1.0]
    assert (tmp_path / "private_digits.png").read_bytes().startswith(b"\x89PNG")

    # All is done: only the report is made again.
    monkeypatch.setattr(private_digits, "run_kind", None)
    assert run(monkeypatch, out=tmp_path, resume=True) == 0
    assert json.loads((tmp_path / "private_digits.json").read_text(encoding="utf-8")) == whole
    assert run(monkeypatch, out=tmp_path, resume=True, seed=1) == 2
    assert "seed: 0 in the checkpoint, 1 now" in capsys.readouterr().err


def test_planted_labels_are_wrong_and_as_many_as_said():
    config = private_digits.Config(wrong=0.1)
    data = private_digits.read_digits(0)
    labels, wrong = private_digits.planted(config, data)
    assert np.array_equal(np.flatnonzero(labels != data.y), wrong)
    assert len(wrong) == 144


@pytest.mark.parametrize("options", [{"steps": 0}, {"noise_multipliers": ()}, {"wrong": 0.0}, {"seed": -1}])
def test_refused_options(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        private_digits.Config(**options)


def test_committed_results():
    results = json.loads((RESULTS / "private_digits.json").read_text(encoding="utf-8"))
    bound = np.mean(results["not_private"])
    assert bound > 0.95
    for clipping in private_digits.CLIPPINGS:
        lines = [line for line in results["private"] if line["clipping"] == clipping]
        spent = [line["epsilon"] for line in lines]
        means = [np.mean(line["test_accuracy"]) for line in lines]
        assert spent == sorted(spent, reverse=True)
        assert bound >= means[0] > means[-1]
    wrong = results["wrong_labels"]
    assert wrong["found"] > 0.8 * wrong["planted"]
    assert (RESULTS / "private_digits.png").exists()
