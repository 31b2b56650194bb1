"""What the experiments share: options, progress, results, figures, interruption, checkpoints, timing."""

import dataclasses
import hashlib
import io
import json
import math
import platform
import signal
import statistics
import sys
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeVar

import jax
import numpy as np
import optax
import tyro
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from funcbp.training import checkpoint_metadata, save_checkpoint
from funcbp.training._checkpoint import atomic_write

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PyTree = Any

REPOSITORY = Path(__file__).resolve().parent.parent
RESULTS = REPOSITORY / "experiments" / "results"

# Okabe and Ito's palette, neighbors differing in lightness too; line styles for print without color.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 1)), (0, (8, 2)))

Options = TypeVar("Options")


def parse(options: type[Options], description: str | None) -> Options:
    """Command-line options from a frozen dataclass: its fields, defaults and docstrings below the fields."""
    started = sys.modules["__main__"].__spec__
    prog = f"python -m {started.name}" if started else None
    return tyro.cli(options, prog=prog, description=description, config=(tyro.conf.FlagCreatePairsOff,))


def run_command(experiment: Callable[[Any], int], options: type[Any], description: str | None) -> int:
    """The exit status of an experiment with options from the command line; what is wrong is said in a line.

    Options with a field `resume` are those of an experiment that writes checkpoints.
    """
    config = parse(options, description)
    resumable = hasattr(config, "resume")
    try:
        return experiment(config)
    except (ValueError, OSError, ImportError) as error:
        screen = console(stderr=True)
        screen.print(f"error: {error}", markup=False, soft_wrap=True)
        if resumable and config.resume:
            screen.print("Without --resume the run starts from the beginning.")
        return 2
    except KeyboardInterrupt:
        advice = "add --resume to the same command to go on" if resumable else "nothing was written"
        console(stderr=True).print(f"stopped; {advice}")
        return 130


def console(*, stderr: bool = False) -> Console:
    """A console that does not fail on an output that has no letter δ."""
    stream = sys.stderr if stderr else sys.stdout
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="replace")
    return Console(stderr=stderr, highlight=False)


@contextmanager
def progress(what: str, total: int, done: int = 0, lines: int = 10) -> Generator[Callable[[int, str], None]]:
    """A progress bar on stderr; on a stderr that is no terminal, about so many `lines`.

    Gives `report(done, text)`.
    """
    screen = console(stderr=True)
    if not screen.is_terminal:

        def report(done: int, text: str) -> None:
            if done == total or done % max(1, total // lines) == 0:
                screen.print(f"{what} {done}/{total}  {text}", soft_wrap=True)

        yield report
        return

    columns = (TextColumn(what), BarColumn(16), MofNCompleteColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=screen) as bar:
        task = bar.add_task("", total=total, completed=done)
        yield lambda done, text: bar.update(task, completed=done, description=text)


class Interruption:
    """Whether Ctrl-C or SIGTERM asked for an end, and with which exit status that is answered."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None

    def __bool__(self) -> bool:
        return self.signal is not None

    @property
    def status(self) -> int:
        """The shell's convention."""
        return 0 if self.signal is None else 128 + self.signal


@contextmanager
def interruptible() -> Generator[Interruption]:
    """A first Ctrl-C or SIGTERM is only noted, for a loop to end where it can; a second one ends at once."""
    interruption = Interruption()

    def note(number: int, _: FrameType | None) -> None:
        if interruption:
            raise KeyboardInterrupt
        interruption.signal = signal.Signals(number)

    previous: dict[int, Any] = {s: signal.signal(s, note) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield interruption
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def interleaved_medians(
    runs: Mapping[str, Callable[[], Any]], repeats: int, warm_up: int = 10
) -> dict[str, float]:
    """Median seconds of each, in turns and in both orders, so that a busy machine slows all alike."""
    for run in runs.values():
        for _ in range(warm_up):
            jax.block_until_ready(run())
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for repeat in range(repeats):
        for name in list(runs)[:: 1 if repeat % 2 else -1]:
            start = time.perf_counter()
            jax.block_until_ready(runs[name]())
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def environment() -> dict[str, str]:
    """What results may depend on, without what only says whose machine it was."""
    return {
        "python": platform.python_version(),
        "jax": jax.__version__,
        "optax": optax.__version__,
        "numpy": np.__version__,
        "device": jax.devices()[0].device_kind,
    }


def as_json(value: Any, indent: str = "") -> str:
    """JSON with one line for a list of numbers, and float32 numbers as short as they are exact."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = dataclasses.asdict(value)
    if isinstance(value, Mapping):
        inner = indent + "  "
        lines = [
            f"{inner}{json.dumps(str(k), ensure_ascii=False)}: {as_json(v, inner)}" for k, v in value.items()
        ]
        return "{\n" + ",\n".join(lines) + f"\n{indent}}}" if lines else "{}"
    if isinstance(value, (list, tuple, np.ndarray)):
        return "[" + ", ".join(as_json(v, indent) for v in value) + "]"
    if isinstance(value, np.generic):
        value = float(str(value)) if isinstance(value, np.floating) else value.item()
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def write_json(path: Path, results: Mapping[str, Any]) -> None:
    """Write results, whole or not at all."""
    with atomic_write(path) as file:
        file.write((as_json(results) + "\n").encode())


@contextmanager
def new_figure(path: Path, rows: int, columns: int, title: str) -> "Generator[list[Axes]]":
    """A figure in the experiments' style: gives its axes row by row, then writes the PNG as a whole."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    style: dict[Any, Any] = {
        "font.size": 10,
        "axes.titlesize": 11,
        "axes.titlelocation": "left",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.color": "#dddddd",
        "grid.linewidth": 0.6,
        "lines.linewidth": 1.8,
        "legend.frameon": False,
    }
    with rc_context(style):
        # Not through pyplot, which would look for a display.
        layout = ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1)
        figure = Figure(figsize=(5.2 * columns, 3.6 * rows), layout=layout, facecolor="white")
        figure.suptitle(title, x=0.01, ha="left", fontsize=13, fontweight="bold")
        yield [figure.add_subplot(rows, columns, i + 1) for i in range(rows * columns)]
        with atomic_write(path) as file:
            figure.savefig(file, format="png", dpi=110, metadata={"Software": None})


def remove_unfinished(path: Path) -> None:
    """Remove what killed writers of this file left beside it."""
    for left in path.parent.glob(f".{path.name}.*.tmp"):
        left.unlink(missing_ok=True)


def shown(path: Path) -> str:
    """A path as the user would type it: relative where it is below the working directory."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def seconds(value: float) -> str:
    """Seconds in a unit that fits, with three digits.

    >>> seconds(0.00123), seconds(12.3)
    ('1.23 ms', '12.3 s')
    """
    unit, scale = next(((u, s) for u, s in (("s", 1), ("ms", 1e3)) if value * s >= 1), ("µs", 1e6))
    digits = max(0, 2 - math.floor(math.log10(value * scale))) if value > 0 else 0
    return f"{value * scale:.{digits}f} {unit}"


def write_checkpoint(path: Path, config: dict[str, Any], run: PyTree, done: int) -> None:
    """Save a run with the options that decide its numbers and the epochs that it has behind it."""
    metadata = {"config": config, "environment": environment(), "epochs": done}
    save_checkpoint(path, run, metadata=metadata)


def check_checkpoint(path: Path, config: dict[str, Any]) -> int:
    """The epochs that the checkpoint has behind it; a `ValueError` if it is of another configuration."""
    metadata = checkpoint_metadata(path)
    saved, wanted = metadata["config"], config
    other = [
        f"{name}: {saved.get(name)} in the checkpoint, {wanted.get(name)} now"
        for name in wanted | saved
        if saved.get(name) != wanted.get(name)
    ]
    if other:
        raise ValueError(f"{shown(path)} is of another configuration:\n  " + "\n  ".join(other))
    now = environment()
    for name, then in metadata["environment"].items():
        if then != now.get(name):
            note = f"note: written with {name} {then}, this is {now.get(name)}; last digits may differ"
            console(stderr=True).print(note, soft_wrap=True)
    return metadata["epochs"]


def fingerprint(tree: PyTree) -> str:
    """A hash of all bits of a tree of arrays."""
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(tree):
        digest.update(np.asarray(leaf).tobytes())
    return digest.hexdigest()
