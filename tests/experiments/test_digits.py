"""The digits experiment as its user runs it: a process of its own, killed and resumed."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments import _common, digits
from funcbp.training import checkpoint_metadata, save_checkpoint

REPOSITORY = Path(__file__).resolve().parents[2]
# Small, so that most of a run is the start of the process.
TINY = ("--hidden", "32", "--epochs", "60", "--checkpoint-every", "1")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Environment for the processes; what one has compiled, the next one finds."""
    found = {
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path_factory.mktemp("compiled")),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    # Set by hand, for example to one that lives longer, they stay.
    return found | dict(os.environ) | {"PYTHONPATH": str(REPOSITORY), "COLUMNS": "100"}


def start(cache: dict[str, str], cwd: Path, *options: str | Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "experiments.digits", *map(str, options)]
    pipe = subprocess.PIPE
    return subprocess.Popen(
        command, env=cache, cwd=cwd, stdout=pipe, stderr=pipe, text=True, encoding="utf-8"
    )


def finish(process: subprocess.Popen[str], status: int = 0) -> tuple[str, str]:
    out, err = process.communicate(timeout=120)
    assert process.returncode == status, out + err
    return out, err


def wait_for(what: Callable[[], Any], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 60
    while not what():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.0005)


@pytest.fixture
def running() -> Iterator[list[subprocess.Popen[str]]]:
    """Processes that a failing test must not leave behind."""
    processes: list[subprocess.Popen[str]] = []
    yield processes
    for process in processes:
        if process.poll() is None:
            process.kill()
        process.communicate()


def comparable(directory: Path) -> dict[str, Any]:
    results = json.loads((directory / "digits.json").read_text(encoding="utf-8"))
    return {name: value for name, value in results.items() if name != "timings"}


def test_help(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["digits", "--help"])
    with pytest.raises(SystemExit) as caught:
        digits.main()
    assert caught.value.code == 0
    out = capsys.readouterr().out
    for option in ("--seed", "--smoke", "--resume", "--out", "--checkpoint-every"):
        assert option in out
    assert str(REPOSITORY) not in out


def test_smoke(cache: dict[str, str], tmp_path: Path) -> None:
    out, err = finish(start(cache, tmp_path, "--smoke", "--hidden", "32", "--out", "here"))
    assert "relative error at the start" in err
    assert "epoch 6/6" in err
    for line in ("test accuracy", "time per step", "ratio to jax.grad", "gradient error, float64"):
        assert line in out
    assert "\x1b" not in out + err
    assert "Look next at here/digits.png and here/digits.json" in out

    results = json.loads((tmp_path / "here" / "digits.json").read_text(encoding="utf-8"))
    assert results["examples"] == {"training": 1437, "test": 360}
    assert results["test_accuracy"] > 0.85
    assert results["gradient_error"]["largest"]["float32"] < 1e-4
    assert results["gradient_error"]["largest"]["float64"] < 1e-12
    assert results["timings"]["ratio"] > 0
    assert {"by hand", "jax.grad"} < results["timings"]["seconds_per_step"].keys()
    assert results["environment"].keys() == {"python", "jax", "optax", "numpy", "device"}
    assert {len(values) for values in results["history"].values()} == {6}
    assert {len(norms) for norms in results["history"]["deltas"]} == {len(results["config"]["hidden"]) + 1}
    assert (tmp_path / "here" / "digits.png").read_bytes().startswith(b"\x89PNG")
    assert checkpoint_metadata(tmp_path / "here" / "digits.checkpoint.npz")["epochs"] == 6


def test_stopped_and_resumed_gives_the_same(
    cache: dict[str, str], tmp_path: Path, running: list[subprocess.Popen[str]]
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    finish(start(cache, tmp_path, *TINY, "--out", whole))
    process = start(cache, tmp_path, *TINY, "--out", parts)
    running.append(process)
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("epoch"):
            break
    process.terminate()
    _, err = finish(process, 128 + signal.SIGTERM)
    assert "add --resume to the same command to go on" in err
    _, err = finish(start(cache, tmp_path, *TINY, "--out", parts, "--resume"))
    assert "epoch 60/60" in err
    assert comparable(parts) == comparable(whole)


@pytest.mark.long
def test_killed_at_any_moment_and_resumed(
    cache: dict[str, str], tmp_path: Path, running: list[subprocess.Popen[str]]
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    checkpoint = parts / "digits.checkpoint.npz"
    parts.mkdir()

    def unfinished() -> list[Path]:
        return list(parts.glob(f".{checkpoint.name}.*.tmp"))

    def epochs() -> int:
        return checkpoint_metadata(checkpoint)["epochs"] if checkpoint.exists() else 0

    def run(*options: str) -> subprocess.Popen[str]:
        running.append(start(cache, tmp_path, *TINY, "--out", parts, *options))
        return running[-1]

    # While it compiles: what is compiled arrives in a cache that is empty at first.
    compiled = tmp_path / "compiled"
    compiled.mkdir()
    running.append(
        start(cache | {"JAX_COMPILATION_CACHE_DIR": str(compiled)}, tmp_path, *TINY, "--out", parts)
    )
    process = running[-1]
    wait_for(lambda: len(list(compiled.iterdir())) > 2, process)
    process.kill()
    _, err = finish(process, -signal.SIGKILL)
    assert "relative error at the start" not in err
    assert not checkpoint.exists()

    finish(start(cache, tmp_path, *TINY, "--out", whole))

    # In the middle of writing a checkpoint; without one to resume from, --resume starts from the beginning.
    process = run("--resume")
    wait_for(lambda: epochs() >= 2, process)
    deadline = time.monotonic() + 0.2
    # No pause: the unfinished file is there for a millisecond.
    while not unfinished() and time.monotonic() < deadline:
        pass
    process.kill()
    _, err = finish(process, -signal.SIGKILL)
    assert "no parts/digits.checkpoint.npz to resume; starting from the beginning" in err
    first = epochs()
    assert 2 <= first < 60

    # Right after one was written, which is in the middle of the next epoch.
    process = run("--resume")
    wait_for(lambda: epochs() >= first + 8, process)
    process.kill()
    _, err = finish(process, -signal.SIGKILL)
    assert f"resumed after epoch {first} of 60" in err
    second = epochs()
    assert first + 8 <= second < 60

    # SIGTERM ends it in order.
    process = run("--resume", "--checkpoint-every", "100")
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("epoch"):
            break
    process.terminate()
    _, err = finish(process, 128 + signal.SIGTERM)
    assert f"stopped after epoch {epochs()} of 60; add --resume to the same command to go on" in err
    assert second < epochs() < 60

    _, err = finish(run("--resume"))
    assert "epoch 60/60" in err
    assert comparable(parts) == comparable(whole)
    assert (parts / "digits.png").read_bytes() == (whole / "digits.png").read_bytes()
    assert not unfinished()


def test_refused_checkpoints(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = tmp_path / "digits.checkpoint.npz"
    config = digits.Config(out=tmp_path, seed=1, dropout=0.5, checkpoint_every=3, resume=True)
    monkeypatch.setattr(_common, "parse", lambda *_: config)
    metadata = {"config": digits.Config().comparable, "environment": {}, "epochs": 5}
    save_checkpoint(checkpoint, {}, metadata=metadata)
    assert digits.main() == 2
    assert capsys.readouterr().err.splitlines() == [
        f"error: {checkpoint} is of another configuration:",
        "  seed: 0 in the checkpoint, 1 now",
        "  dropout: 0.2 in the checkpoint, 0.5 now",
        "Without --resume the run starts from the beginning.",
    ]
    checkpoint.write_bytes(checkpoint.read_bytes()[:-100])
    assert digits.main() == 2
    assert "digits.checkpoint.npz is damaged" in capsys.readouterr().err


def test_data_of_an_epoch_depend_on_nothing_else() -> None:
    config = digits.Config(seed=3, batch=10)
    rows = digits.batches(config, 47, 5)
    assert rows.shape == (4, 10)
    assert len(set(rows.ravel())) == 40
    assert (rows == digits.batches(config, 47, 5)).all()
    assert not (rows == digits.batches(config, 47, 6)).all()
    data = digits.read_digits(3)
    assert abs(data.x.mean(axis=0)).max() < 1e-6
    images = {image.tobytes() for image in np.concatenate([data.x, data.test_x])}
    assert len(data.y) + len(data.test_y) == 1797
    assert len(images) > 1790


def test_committed_results() -> None:
    directory = REPOSITORY / "experiments" / "results"
    results = comparable(directory)
    assert results["test_accuracy"] >= 0.96
    assert results["gradient_error"]["largest"]["float64"] < 1e-12
    assert (directory / "digits.png").exists()
