"""Does K-FAC reach a loss on handwritten digits in fewer steps, and in less time, than Adam and momentum?

One network, the same data order, first parameters and batches for all. Every optimizer gets its learning rate
from the same grid, K-FAC with the damping fixed, and is judged by the fewest steps to the target: a mean loss
over all training images, looked at after every so many steps. The rate that wins on one seed is then run on
others: theirs are the numbers reported, with the seconds that their steps took, without those of compilation
and evaluation.

Momentum is 0.9 for all but Adam, which has its own. K-FAC's curvature comes from targets sampled from the
model, one for every example.
"""

import dataclasses
import functools
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
import optax
from jax import numpy as jnp
from rich.table import Table

from funcbp import layers, predict, rules
from funcbp.training import make_kfac_step, make_step

from ._common import (
    COLORS,
    LINES,
    RESULTS,
    console,
    environment,
    new_figure,
    progress,
    run_command,
    seconds,
    shown,
    write_json,
)
from .digits import CLASSES, Digits, read_digits

PyTree = Any
LOSS = rules.softmax_cross_entropy_with_integer_labels


@dataclass(frozen=True)
class Config:
    """What is compared, and where the results go."""

    hidden: tuple[int, ...] = (128, 64)
    """Widths of the hidden layers."""

    batch: int = 64
    """Images in a step."""

    target: float = 0.01
    """Mean loss over all training images that is to be reached."""

    steps: int = 1500
    """Steps after which an optimizer has failed."""

    look_every: int = 10
    """Steps from one look at the loss to the next."""

    rates: tuple[float, ...] = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0)
    """Learning rates, the same grid for all."""

    damping: float = 1e-2
    """K-FAC's and EKFAC's."""

    refresh_every: int = 10
    """Steps from one refresh of the inverses, or of the eigenvectors, to the next."""

    curvature_every: int = 5
    """Steps from one measurement of the curvature to the next; divides refresh_every."""

    seeds: int = 5
    """Runs of each optimizer at its best rate; the grid is searched on another seed."""

    out: Path | None = None
    """Directory for the results; by default experiments/results, with --smoke its folder smoke."""

    smoke: bool = False
    """Two rates, one seed, few steps and a target that is soon reached, to see whether everything works."""

    def __post_init__(self) -> None:
        for name in ("batch", "steps", "look_every", "seeds", "refresh_every", "curvature_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}.")
        if self.refresh_every % self.curvature_every:
            both = f"{self.curvature_every} and {self.refresh_every}"
            raise ValueError(f"curvature_every must divide refresh_every, got {both}.")
        if not self.rates or min(self.rates) <= 0:
            raise ValueError(f"rates must be positive, and one at least, got {self.rates}.")
        if not self.hidden or min(self.hidden) < 1:
            raise ValueError(f"hidden must be one width or more, each at least 1, got {self.hidden}.")
        if not self.target > 0 or not self.damping > 0:
            raise ValueError("target and damping must be positive.")


class Run(NamedTuple):
    """One training.

    Attributes:
        steps: to the target; None if it was not reached.
        seconds: that the steps took.
        losses: at every look.
    """

    steps: int | None
    seconds: float
    losses: list[float]


class Method(NamedTuple):
    """An optimizer.

    Attributes:
        name: of it.
        init: `(params, x, y, rate) -> opt_state`; the rate is in the state, so that a grid is compiled once.
        step: `(params, state, opt_state, x, y, key) -> Step`.
    """

    name: str
    init: Callable[..., PyTree]
    step: Callable[..., Any]


def network(config: Config) -> layers.Layer:
    """Dense layers with tanh between them."""
    parts = [part for width in config.hidden for part in (layers.dense(width), layers.activation("tanh"))]
    return layers.chain(*parts, layers.dense(CLASSES))


def methods(config: Config) -> list[Method]:
    """All that are compared."""
    net = network(config)
    momentum = functools.partial(optax.sgd, momentum=0.9)
    return [
        _first_order("SGD with momentum", net, momentum),
        _first_order("Adam", net, optax.adam),
        _second_order("K-FAC", net, momentum, config, "kfac"),
        _second_order("EKFAC", net, momentum, config, "ekfac"),
    ]


def _first_order(name: str, net: layers.Layer, make: Callable[..., Any]) -> Method:
    optimizer = optax.inject_hyperparams(make)(learning_rate=1.0)

    def init(params: PyTree, x: jax.Array, y: jax.Array, rate: float) -> PyTree:
        del x, y
        return _with_rate(optimizer.init(params), rate)

    return Method(name, init, make_step(net, LOSS, optimizer))


def _second_order(
    name: str, net: layers.Layer, make: Callable[..., Any], config: Config, kind: Literal["kfac", "ekfac"]
) -> Method:
    optimizer = optax.inject_hyperparams(make)(learning_rate=1.0)
    every = max(2, config.refresh_every) if kind == "ekfac" else config.refresh_every
    kfac = make_kfac_step(
        net,
        LOSS,
        optimizer,
        damping=config.damping,
        every=every,
        curvature_every=config.curvature_every,
        kind=kind,
    )

    def init(params: PyTree, x: jax.Array, y: jax.Array, rate: float) -> PyTree:
        curved, rest = kfac.init(params, x, y)
        return curved, _with_rate(rest, rate)

    return Method(name, init, kfac.step)


def _with_rate(state: Any, rate: float) -> Any:
    return state._replace(hyperparams={**state.hyperparams, "learning_rate": jnp.float32(rate)})


def batches(config: Config, examples: int, seed: int) -> np.ndarray:
    """Indices of every step's images: whole epochs, each in an order of its own."""
    rng, per_epoch = np.random.default_rng(seed), examples // config.batch
    epochs = -(-config.steps // per_epoch)
    orders = [rng.permutation(examples)[: per_epoch * config.batch] for _ in range(epochs)]
    return np.concatenate(orders).reshape(-1, config.batch)[: config.steps]


def train(config: Config, method: Method, data: Digits, rate: float, seed: int, evaluate: Any) -> Run:
    """From the first parameters of a seed until the target is reached, or there are no steps left."""
    key = jax.random.key(seed)
    x, y = jnp.asarray(data.x), jnp.asarray(data.y)
    params, state = network(config).init(key, x[: config.batch])
    opt_state = method.init(params, x[: config.batch], y[: config.batch], rate)
    indices = batches(config, len(data.y), seed)
    losses, spent = [], 0.0
    for start in range(0, config.steps, config.look_every):
        rows = indices[start : start + config.look_every]
        chunk = [(x[r], y[r], jax.random.fold_in(key, start + i)) for i, r in enumerate(rows)]
        jax.block_until_ready(chunk)
        begin = time.perf_counter()
        for x_now, y_now, key_now in chunk:
            params, state, opt_state, _ = method.step(params, state, opt_state, x_now, y_now, key_now)
        jax.block_until_ready(params)
        spent += time.perf_counter() - begin
        losses.append(float(evaluate(params, x, y)))
        if losses[-1] <= config.target:
            return Run(start + len(rows), spent, losses)
        if not np.isfinite(losses[-1]):
            break
    return Run(None, spent, losses)


def compare(config: Config, data: Digits) -> dict[str, Any]:
    """For every method the grid, the best rate, and runs at it."""
    predictor = predict(network(config))
    evaluate = jax.jit(lambda params, x, y: jnp.mean(LOSS(predictor(params, x), y)))
    found: dict[str, Any] = {}
    every = methods(config)
    total, done = len(every) * (len(config.rates) + config.seeds + 1), 0
    with progress("run", total) as report:

        def run(method: Method, rate: float, seed: int, config: Config = config) -> Run:
            nonlocal done
            result = train(config, method, data, rate, seed, evaluate)
            done += 1
            reached = f"{result.steps} steps" if result.steps else f"loss {min(result.losses):.3g}"
            report(done, f"{method.name}, rate {rate:g}: {reached}")
            return result

        for method in every:
            # Compiles, so that no timed run does.
            run(method, config.rates[0], 0, dataclasses.replace(config, steps=config.look_every))
            grid = {rate: run(method, rate, 0) for rate in config.rates}
            best = min(grid, key=lambda rate: (grid[rate].steps or np.inf, _lowest(grid[rate])))
            runs = [run(method, best, seed) for seed in range(1, config.seeds + 1)]
            found[method.name] = _summary(grid, best, runs)
    return found


def _lowest(run: Run) -> float:
    return float(np.nanmin(run.losses)) if np.isfinite(run.losses).any() else np.inf


def _summary(grid: dict[float, Run], best: float, runs: list[Run]) -> dict[str, Any]:
    reached = [run for run in runs if run.steps is not None]
    steps = [run.steps for run in reached if run.steps is not None]
    return {
        "rate": best,
        "grid": {f"{rate:g}": run.steps for rate, run in grid.items()},
        "reached": len(reached),
        "runs": len(runs),
        "steps": statistics.median(steps) if steps else None,
        "seconds": statistics.median(run.seconds for run in reached) if reached else None,
        "every_steps": [run.steps for run in runs],
        "every_seconds": [run.seconds for run in runs],
        "losses": runs[0].losses,
        "seconds_of_losses": runs[0].seconds,
    }


def draw(path: Path, config: Config, found: dict[str, Any]) -> None:
    """The loss of the first seed of each method over steps and seconds."""
    title = "Handwritten digits: loss of all training images, every optimizer at its best rate"
    with new_figure(path, 1, 2, title) as (by_step, by_time):
        for i, (name, one) in enumerate(found.items()):
            losses = np.asarray(one["losses"])
            steps = config.look_every * np.arange(1, len(losses) + 1)
            style: dict[str, Any] = {"color": COLORS[i], "linestyle": LINES[i]}
            style["label"] = f"{name}, {one['rate']:g}"
            by_step.plot(steps, losses, **style)
            by_time.plot(steps / steps[-1] * one["seconds_of_losses"], losses, **style)
        for axes in (by_step, by_time):
            axes.axhline(config.target, color="#888888", linewidth=1)
            axes.set(yscale="log", ylabel="cross-entropy")
        by_step.set(xlabel="step")
        by_time.set(xlabel="seconds")
        by_step.legend()


def show(config: Config, found: dict[str, Any], where: list[Path]) -> None:
    """The table on the terminal."""
    table = Table(title=f"Digits to a training loss of {config.target:g}: median of those that reached it")
    for column in ("", "rate", "steps", "time", "time per step", "reached"):
        table.add_column(column, justify="left" if not column else "right")
    for name, one in found.items():
        numbers = ("-", "-", "-")
        if one["steps"]:
            numbers = (f"{one['steps']:g}", seconds(one["seconds"]), seconds(one["seconds"] / one["steps"]))
        table.add_row(name, f"{one['rate']:g}", *numbers, f"{one['reached']} of {one['runs']}")
    screen = console()
    screen.print(table)
    screen.print("Look next at " + " and ".join(map(shown, where)), soft_wrap=True)


def run_experiment(config: Config) -> int:
    """The whole experiment; returns the exit status."""
    out = (config.out or (RESULTS / "smoke" if config.smoke else RESULTS)).resolve()
    if config.smoke:
        config = dataclasses.replace(config, rates=(1e-2, 1e-1), seeds=1, steps=60, target=0.5, hidden=(16,))
    data = read_digits(0)
    if config.batch > len(data.y):
        raise ValueError(f"batch must be at most {len(data.y)}, the number of training images.")
    found = compare(config, data)
    figure, file = out / "kfac_digits.png", out / "kfac_digits.json"
    draw(figure, config, found)
    options = {name: value for name, value in vars(config).items() if name not in ("out", "smoke")}
    write_json(
        file,
        {"experiment": "kfac_digits", "config": options, "methods": found, "environment": environment()},
    )
    show(config, found, [figure, file])
    return 0


def main() -> int:
    return run_command(run_experiment, Config, __doc__)


if __name__ == "__main__":
    sys.exit(main())
