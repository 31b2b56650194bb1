import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest

from experiments import _common as common


def test_json_is_exact_and_short() -> None:
    value = {
        "a": [np.float32(0.1), 0.1, np.int32(3)],
        "δ": {"b": np.ones((2, 2), np.float32)},
        "c": {},
        "d": None,
    }
    text = common.as_json(value)
    assert text.splitlines() == [
        "{",
        '  "a": [0.1, 0.1, 3],',
        '  "δ": {',
        '    "b": [[1.0, 1.0], [1.0, 1.0]]',
        "  },",
        '  "c": {},',
        '  "d": null',
        "}",
    ]
    rng = np.random.default_rng(0)
    numbers = rng.standard_normal(100).astype(np.float32) * 10.0 ** rng.integers(-30, 30, 100)
    for array in (numbers.astype(np.float32), numbers):
        assert np.array_equal(np.array(json.loads(common.as_json(list(array))), array.dtype), array)


def test_json_refuses_what_it_cannot_say() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        common.as_json({"loss": float("nan")})


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_first_signal_is_noted_second_one_ends(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with common.interruptible() as interruption:
        assert not interruption
        os.kill(os.getpid(), number)
        assert interruption
        assert interruption.status == 128 + number
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
    assert signal.getsignal(number) is before


def test_progress_without_a_terminal_is_a_few_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with common.progress("epoch", 100, 20) as report:
        for done in range(21, 101):
            report(done, "loss 1")
    lines = capsys.readouterr().err.splitlines()
    assert lines == [f"epoch {done}/100  loss 1" for done in range(30, 101, 10)]


def test_medians_are_taken_in_turns() -> None:
    calls: list[str] = []
    runs = {name: lambda name=name: calls.append(name) for name in "ab"}
    medians = common.interleaved_medians(runs, repeats=4, warm_up=1)
    assert "".join(calls) == "ab" + "baabbaab"
    assert medians.keys() == {"a", "b"}


@pytest.mark.parametrize(
    ("value", "text"), [(0.0, "0 µs"), (2.5e-5, "25.0 µs"), (1.234e-3, "1.23 ms"), (123.4, "123 s")]
)
def test_seconds(value: float, text: str) -> None:
    assert common.seconds(value) == text


def test_figure_is_written_as_a_whole(tmp_path: Path) -> None:
    def broken() -> None:
        with common.new_figure(tmp_path / "figure.png", 1, 1, "title"):
            raise RuntimeError

    with pytest.raises(RuntimeError):
        broken()
    assert not list(tmp_path.iterdir())
    with common.new_figure(tmp_path / "figure.png", 1, 2, "title") as axes:
        assert len(axes) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["figure.png"]
