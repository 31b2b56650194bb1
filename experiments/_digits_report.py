"""What the digits experiment shows: its figure and its table."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from rich.table import Table

from ._common import COLORS, LINES, console, new_figure, seconds, shown


def draw(path: Path, results: dict[str, Any]) -> None:
    """The figure: loss, accuracy, ‖δ‖ of every layer and the gradient's error, over the epochs."""
    history = results["history"]
    epochs = np.arange(1, len(history["loss"]) + 1)
    marker = "o" if len(epochs) < 10 else None
    right = f"{results['test_accuracy']:.1%} of test images right"
    title = f"Handwritten digits, trained by the hand-derived sweep: {right}"
    with new_figure(path, 2, 2, title) as (loss, accuracy, deltas, error):

        def line(axes: Axes, i: int, values: Any, label: str) -> None:
            axes.plot(epochs, values, color=COLORS[i % 7], linestyle=LINES[i % 7], marker=marker, label=label)

        line(loss, 0, history["loss"], "training, with dropout")
        line(loss, 1, history["test_loss"], "test")
        loss.set(title="Loss", ylabel="cross-entropy", yscale="log")
        loss.legend()

        line(accuracy, 1, 100 * np.asarray(history["test_accuracy"]), "test")
        accuracy.set(title="Accuracy on test images", ylabel="right (%)", ylim=(None, 101))

        widths = (*results["config"]["hidden"], results["classes"])
        for i, norms in enumerate(np.asarray(history["deltas"]).T):
            last = ", output" if i + 1 == len(widths) else ""
            line(deltas, i, norms, f"layer {i + 1} ({widths[i]} wide{last})")
        deltas.set(title="δ at every layer's pre-activations p", ylabel="‖δ‖ = ‖∂loss/∂p‖, mean of the epoch")
        deltas.set_yscale("log")
        deltas.legend()

        for i, dtype in enumerate(("float32", "float64")):
            line(error, i, history[f"gradient_error_{dtype}"], f"in {dtype}")
            spacing = float(np.finfo(dtype).eps)
            error.axhline(spacing, color=COLORS[i], linestyle=LINES[3], linewidth=1)
            end = ("axes fraction", "data")
            error.annotate(f"ε of {dtype}", (1, spacing), xycoords=end, ha="right", va="top", fontsize=9)
        error.set(title="Gradient by hand against jax.grad", ylabel="largest relative error", yscale="log")
        error.set_ylim(1e-17, 1)
        error.legend(loc="upper left", ncols=2)

        for axes in (loss, accuracy, deltas, error):
            axes.set(xlabel="epoch", xlim=(0, len(epochs) + 1))


def show(results: dict[str, Any], where: list[Path]) -> None:
    """The table on the terminal, and where to look next."""
    screen = console()
    timings, error = results["timings"]["seconds_per_step"], results["gradient_error"]
    table = Table(title="Handwritten digits, trained by the hand-derived sweep", title_justify="left")
    table.add_column("")
    table.add_column("by hand", justify="right")
    table.add_column("jax.grad", justify="right")
    table.add_row("training loss, last epoch", f"{results['training_loss']:.4f}", "")
    table.add_row("test loss", f"{results['test_loss']:.4f}", "")
    table.add_row("test accuracy", f"{results['test_accuracy']:.2%}", "")
    table.add_section()
    table.add_row("time per step", seconds(timings["by hand"]), seconds(timings["jax.grad"]))
    table.add_row("  ratio to jax.grad", f"{results['timings']['ratio']:.2f}", "1")
    table.add_row("time per step with ‖δ‖ of every layer", seconds(timings["by hand, with ‖δ‖"]), "")
    table.add_section()
    for dtype, largest in error["largest"].items():
        table.add_row(f"gradient error, {dtype}, at the start", f"{error['start'][dtype]:.1e}", "")
        table.add_row("  largest of all epochs", f"{largest:.1e}", "")
    screen.print(table)
    screen.print("Look next at " + " and ".join(map(shown, where)), soft_wrap=True)
