"""Train on handwritten digits with differential privacy: how much accuracy does which ε cost?

The data are scikit-learn's 1797 images of 8 × 8 pixels. Every run is DP-SGD on Poisson samples, for several
noise multipliers, with a fixed clipping norm and with one that follows a quantile of the norms; ε by
dp-accounting at one δ. The same network trained on the same samples without clipping or noise is the bound.
And the other use of per-example norms: wrong labels are planted, and looked for where norms stay large.

A run that was interrupted goes on with --resume and ends with the same numbers, bit for bit.
"""

import dataclasses
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from jax import numpy as jnp

from funcbp import backprop, layers, predict
from funcbp.training import (
    AdaptiveClipping,
    epsilon,
    largest_norms,
    load_checkpoint,
    make_private_step,
    make_step,
    norm_tracker,
    poisson_batch,
    poisson_capacity,
    track_norms,
)

from ._common import (
    COLORS,
    LINES,
    RESULTS,
    check_checkpoint,
    console,
    environment,
    interruptible,
    new_figure,
    progress,
    remove_unfinished,
    run_command,
    shown,
    write_checkpoint,
    write_json,
)
from .digits import CLASSES, LOSS, Digits, read_digits

PyTree = Any
Run = Callable[[Any], tuple[jax.Array, jax.Array, jax.Array]]
CLIPPINGS = ("fixed", "adaptive")


@dataclass(frozen=True)
class Config:
    """What is trained, and where the results go."""

    seed: int = 0
    """Of the split into training and test images, the first parameters, the samples and the noise."""

    runs: int = 3
    """Runs of each kind, with seeds of their own."""

    noise_multipliers: tuple[float, ...] = (0.8, 1.2, 2.0, 4.0, 8.0)
    """Standard deviations of the noise over the sensitivity."""

    hidden: int = 32
    """Width of the hidden layer."""

    steps: int = 300
    """Steps of each run."""

    batch: int = 256
    """Expected size of a sample."""

    learning_rate: float = 1.0
    """Of gradient descent; the same for all runs, not scaled with C: a smaller C makes smaller steps."""

    max_norm: float = 1.0
    """Fixed clipping norm; the adaptive one starts there."""

    quantile: float = 0.5
    """Share of the examples that adaptive clipping leaves as they are."""

    delta: float = 1e-4
    """δ, below 1 over the number of training images."""

    wrong: float = 0.05
    """Share of wrong labels that are planted."""

    out: Path | None = None
    """Directory for results and checkpoint; by default experiments/results, with --smoke its folder smoke."""

    smoke: bool = False
    """Few and short runs only, to see whether everything works."""

    resume: bool = False
    """Go on from the checkpoint of a run that was interrupted."""

    def __post_init__(self) -> None:
        for name in ("runs", "steps", "batch", "hidden"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}.")
        if not self.noise_multipliers or not min(self.noise_multipliers) > 0:
            raise ValueError(f"noise_multipliers must be positive, got {self.noise_multipliers}.")
        if not 0 < self.wrong < 1 or not 0 < self.delta < 1:
            raise ValueError(f"wrong and delta must be in (0, 1), got {self.wrong} and {self.delta}.")
        if self.seed < 0:
            raise ValueError(f"seed must not be negative, got {self.seed}.")

    @property
    def comparable(self) -> dict[str, Any]:
        """The options that decide the numbers."""
        chosen = {k: v for k, v in vars(self).items() if k not in ("out", "resume", "smoke")}
        return chosen | {"noise_multipliers": list(self.noise_multipliers)}


def network(config: Config) -> layers.Layer:
    """One hidden layer."""
    return layers.chain(layers.dense(config.hidden), layers.activation("tanh"), layers.dense(CLASSES))


def sampler(config: Config, examples: int) -> Callable[[jax.Array], Any]:
    """A Poisson sample of the training images by a key."""
    rate = config.batch / examples
    rows = poisson_capacity(examples, rate)
    return lambda key: poisson_batch(key, examples, rate, rows)


def accuracy(net: layers.Layer, params: PyTree, data: Digits) -> jax.Array:
    return jnp.mean(jnp.argmax(predict(net)(params, data.test_x), -1) == data.test_y)


def private_run(config: Config, data: Digits, multiplier: float, clipping: str) -> Run:
    """Training with noise, and examples clipped to a fixed or an adaptive norm."""
    adaptive = clipping == "adaptive"
    net = network(config)
    init, step = make_private_step(
        net,
        LOSS,
        optax.sgd(config.learning_rate),
        max_norm=AdaptiveClipping(config.max_norm, config.quantile) if adaptive else config.max_norm,
        noise_multiplier=multiplier,
        expected_batch_size=config.batch,
    )
    last_norm = (lambda state: state.max_norm) if adaptive else (lambda _: jnp.float32(config.max_norm))
    return trained(config, data, net, init, step, last_norm)


def plain_run(config: Config, data: Digits) -> Run:
    """The same without privacy."""
    net, optimizer = network(config), optax.sgd(config.learning_rate)
    step = make_step(net, LOSS, optimizer)
    return trained(
        config, data, net, lambda params, _: optimizer.init(params), step, lambda _: jnp.float32(jnp.inf)
    )


def trained(
    config: Config,
    data: Digits,
    net: layers.Layer,
    init: Callable[[PyTree, jax.Array], PyTree],
    step: Callable[..., Any],
    last_norm: Callable[[PyTree], jax.Array],
) -> Run:
    """`seed -> test accuracy, last C, overflows`, jitted; a scan over the steps.

    Args:
        init: `(params, key) -> opt_state`.
        step: of `make_step` or `make_private_step`.
        last_norm: C, by the last state of the optimizer.
    """
    sample = sampler(config, len(data.y))

    def run(seed: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        first, samples, noise = jax.random.split(jax.random.key(seed), 3)
        params, state = net.init(first, data.x)

        def body(carry: Any, i: jax.Array) -> Any:
            batch = sample(jax.random.fold_in(samples, i))
            x, y = jnp.asarray(data.x)[batch.indices], jnp.asarray(data.y)[batch.indices]
            params, opt_state = carry
            result = step(params, state, opt_state, x, y, weights=batch.weights)
            return (result.params, result.opt_state), batch.size > len(batch.indices)

        (params, opt_state), overflowed = jax.lax.scan(
            body, (params, init(params, noise)), jnp.arange(config.steps)
        )
        return accuracy(net, params, data), last_norm(opt_state), jnp.sum(overflowed)

    return jax.jit(run)


def planted(config: Config, data: Digits) -> tuple[np.ndarray, np.ndarray]:
    """Labels of which some are wrong, and which ones are."""
    rng = np.random.default_rng(config.seed)
    chosen = rng.choice(len(data.y), round(config.wrong * len(data.y)), replace=False)
    labels = data.y.copy()
    labels[chosen] = (labels[chosen] + rng.integers(1, CLASSES, len(chosen))) % CLASSES
    return labels, np.sort(chosen)


def found_labels(config: Config, data: Digits) -> dict[str, Any]:
    """Train on the planted labels, tracking norms; how many of them are among as many largest norms."""
    labels, wrong = planted(config, data)
    net, sample = network(config), sampler(config, len(labels))
    optimizer = optax.sgd(config.learning_rate / 4)
    sweep = backprop(net, LOSS, collect=("norms",))

    @jax.jit
    def run(seed: jax.Array) -> jax.Array:
        first, samples, _ = jax.random.split(jax.random.key(seed), 3)
        params, _ = net.init(first, data.x)

        def body(carry: Any, i: jax.Array) -> Any:
            batch = sample(jax.random.fold_in(samples, i))
            x, y = jnp.asarray(data.x)[batch.indices], jnp.asarray(labels)[batch.indices]
            params, opt_state, tracker = carry
            result = sweep(params, x, y, weights=batch.weights)
            updates, opt_state = optimizer.update(result.grads, opt_state, params)
            assert result.norms is not None
            tracker = track_norms(tracker, batch.indices, result.norms, batch.weights)
            return (optax.apply_updates(params, updates), opt_state, tracker), None

        start = (params, optimizer.init(params), norm_tracker(len(labels)))
        (_, _, tracker), _ = jax.lax.scan(body, start, jnp.arange(config.steps))
        return largest_norms(tracker, len(wrong))[1]

    found = np.intersect1d(np.asarray(run(np.uint32(config.seed))), wrong)
    return {"planted": len(wrong), "found": len(found), "by_chance": len(wrong) ** 2 / len(labels)}


def kinds(config: Config) -> list[tuple[str, float]]:
    """(clipping, noise multiplier) of every line of the results; without privacy first."""
    return [("none", 0.0), *((clipping, z) for clipping in CLIPPINGS for z in config.noise_multipliers)]


def run_kind(config: Config, data: Digits, kind: tuple[str, float]) -> tuple[np.ndarray, np.ndarray]:
    """Test accuracies and last bounds of the runs of a kind."""
    clipping, multiplier = kind
    run = plain_run(config, data) if clipping == "none" else private_run(config, data, multiplier, clipping)
    ends = [run(np.uint32(config.seed + i)) for i in range(config.runs)]
    accuracies, bounds, overflows = (np.asarray(jax.device_get(v)) for v in zip(*ends, strict=True))
    if overflows.any():
        raise ValueError("a sample was larger than its capacity; another --seed will do.")
    return accuracies, bounds


def draw(path: Path, results: dict[str, Any]) -> None:
    """Accuracy against ε, with the mean of the runs as a line and every run as a point."""
    bound = 100 * np.mean(results["not_private"])
    title = f"Digits, (ε, {results['config']['delta']:g})-private"
    with new_figure(path, 1, 1, title) as (axes,):
        for i, clipping in enumerate(CLIPPINGS):
            lines = [line for line in results["private"] if line["clipping"] == clipping]
            x = [line["epsilon"] for line in lines]
            y = 100 * np.asarray([line["test_accuracy"] for line in lines])
            axes.plot(x, y.mean(1), color=COLORS[i], linestyle=LINES[i], label=f"{clipping} clipping norm")
            axes.plot(x, y, color=COLORS[i], marker="o", markersize=3, linestyle="")
        axes.axhline(bound, color=COLORS[6], linestyle=LINES[3], label=f"not private: {bound:.1f} %")
        axes.set(xlabel="ε", ylabel="test images right (%)", xscale="log")
        spent = sorted({line["epsilon"] for line in results["private"]})
        axes.set_xticks(spent, [f"{e:.1f}" for e in spent])
        axes.set_xticks([], minor=True)
        axes.legend(loc="lower right")


def run_experiment(config: Config) -> int:
    """The whole experiment; returns the exit status."""
    out = (config.out or (RESULTS / "smoke" if config.smoke else RESULTS)).resolve()
    checkpoint = out / "private_digits.checkpoint.npz"
    screen = console(stderr=True)
    if config.smoke:
        config = dataclasses.replace(
            config, steps=min(config.steps, 20), runs=1, noise_multipliers=config.noise_multipliers[:2]
        )
    data = read_digits(config.seed)
    if config.batch > len(data.y):
        raise ValueError(f"batch must be at most {len(data.y)}, the training images, got {config.batch}.")
    remove_unfinished(checkpoint)
    if not config.resume:
        checkpoint.unlink(missing_ok=True)
    resumes = config.resume and checkpoint.exists()
    done = check_checkpoint(checkpoint, config.comparable) if resumes else 0
    every = kinds(config)
    shape = (len(every), config.runs)
    run = {"accuracy": np.zeros(shape, np.float32), "max_norm": np.zeros(shape, np.float32)}
    if resumes:
        run = load_checkpoint(checkpoint, like=run)

    with interruptible() as interruption, progress("runs", len(every), done) as report:
        while done < len(every) and not interruption:
            run["accuracy"][done], run["max_norm"][done] = run_kind(config, data, every[done])
            clipping, multiplier = every[done]
            done += 1
            mean = run["accuracy"][done - 1].mean()
            report(done, f"{clipping} clipping, noise {multiplier:g}: {mean:.1%}")
            write_checkpoint(checkpoint, config.comparable, run, done)
    if interruption:
        screen.print(f"stopped after {done} of {len(every)}; add --resume to the same command to go on")
        return interruption.status

    rate = config.batch / len(data.y)
    spent = {z: epsilon(config.steps, rate, z, config.delta) for z in config.noise_multipliers}
    results = {
        "experiment": "private_digits",
        "config": config.comparable,
        "examples": {"training": len(data.y), "test": len(data.test_y)},
        "not_private": list(run["accuracy"][0]),
        "private": [
            {
                "clipping": clipping,
                "noise_multiplier": z,
                "epsilon": spent[z],
                "test_accuracy": list(run["accuracy"][i]),
                "last_max_norm": list(run["max_norm"][i]),
            }
            for i, (clipping, z) in enumerate(every)
            if clipping != "none"
        ],
        "wrong_labels": found_labels(config, data),
        "environment": environment(),
    }
    figure = out / "private_digits.png"
    draw(figure, results)
    write_json(out / "private_digits.json", results)
    show(results, [figure, out / "private_digits.json"])
    return 0


def show(results: dict[str, Any], where: list[Path]) -> None:
    """The numbers on the terminal, and where to look next."""
    screen = console()
    screen.print(f"not private: {np.mean(results['not_private']):.1%}")
    for line in results["private"]:
        screen.print(
            f"ε {line['epsilon']:6.2f}  noise {line['noise_multiplier']:4g}  {line['clipping']:8}  "
            f"{np.mean(line['test_accuracy']):.1%}  C {np.mean(line['last_max_norm']):.2g}"
        )
    wrong = results["wrong_labels"]
    screen.print(
        f"of {wrong['planted']} wrong labels {wrong['found']} are among as many largest norms "
        f"({wrong['by_chance']:.1f} by chance)"
    )
    screen.print("Look next at " + " and ".join(map(shown, where)), soft_wrap=True)


def main() -> int:
    return run_command(run_experiment, Config, __doc__)


if __name__ == "__main__":
    sys.exit(main())
