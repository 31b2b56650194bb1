"""Train a small network on handwritten digits with the hand-derived sweep, checked against jax.grad.

The data are scikit-learn's 1797 images of 8 × 8 pixels. Every gradient comes from `funcbp.backprop`; after
every epoch it is compared with `jax.grad` of the same network written a second time in plain JAX. At the end:
loss, accuracy, time per step of both, the largest gradient error; a figure with the δ's over training; JSON.

A run that was interrupted goes on with --resume and ends with the same numbers, bit for bit.
"""

import dataclasses
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
import optax
from jax import numpy as jnp
from sklearn.datasets import load_digits

from funcbp import Precision, backprop, layers, predict, rules, value_and_grad
from funcbp.training import load_checkpoint

from ._common import (
    RESULTS,
    check_checkpoint,
    console,
    environment,
    fingerprint,
    interleaved_medians,
    interruptible,
    progress,
    remove_unfinished,
    run_command,
    shown,
    write_checkpoint,
    write_json,
)
from ._digits_report import draw, show

PyTree = Any
Gradient = Callable[..., tuple[jax.Array, PyTree, jax.Array]]

CLASSES = 10
LOSS = rules.softmax_cross_entropy_with_integer_labels
# A wrong term in a derivation is far above this. It is looked for in float64, because in float32 both
# gradients lose digits once the network is sure: softmax(z) - 1 is a difference of nearly equal numbers.
TOLERANCE = 1e-6


@dataclass(frozen=True)
class Config:
    """What is trained, and where the results go."""

    seed: int = 0
    """Of the split into training and test images, the first parameters, the order of the data and dropout."""

    hidden: tuple[int, ...] = (128, 64)
    """Widths of the hidden layers."""

    activation: Literal["gelu", "relu", "silu", "tanh"] = "gelu"
    """Activation of the hidden layers."""

    dropout: float = 0.2
    """Share of hidden activations that are set to zero in training."""

    epochs: int = 30
    """Passes over the training images."""

    batch: int = 64
    """Images in a step."""

    learning_rate: float = 3e-3
    """Largest learning rate of AdamW; a tenth of the steps warms up to it, a cosine takes it to zero."""

    weight_decay: float = 1e-2
    """AdamW's."""

    checkpoint_every: int = 5
    """Epochs from one checkpoint to the next."""

    out: Path | None = None
    """Directory for results and checkpoint; by default experiments/results, with --smoke its folder smoke."""

    smoke: bool = False
    """A few epochs only, to see whether everything works."""

    resume: bool = False
    """Go on from the checkpoint of a run that was interrupted."""

    def __post_init__(self) -> None:
        for name in ("epochs", "batch", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}.")
        if not self.hidden or min(self.hidden) < 1:
            raise ValueError(f"hidden must be one width or more, each at least 1, got {self.hidden}.")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), got {self.dropout}.")
        if not self.learning_rate > 0 or not self.weight_decay >= 0:
            raise ValueError("learning_rate must be positive, weight_decay not negative.")
        if self.seed < 0:
            raise ValueError(f"seed must not be negative, got {self.seed}.")

    @property
    def comparable(self) -> dict[str, Any]:
        """The options that decide the numbers."""
        elsewhere = ("checkpoint_every", "out", "resume", "smoke")
        return {k: list(v) if k == "hidden" else v for k, v in vars(self).items() if k not in elsewhere}


class Digits(NamedTuple):
    x: np.ndarray
    y: np.ndarray
    test_x: np.ndarray
    test_y: np.ndarray


def read_digits(seed: int) -> Digits:
    """The images, 80 % for training and 20 % for the test, minus the mean of the training images."""
    digits = load_digits()
    order = np.random.default_rng(seed).permutation(len(digits.target))
    x, y = digits.data[order].astype(np.float32) / 16, digits.target[order].astype(np.int32)
    first = len(y) * 4 // 5
    x -= x[:first].mean(axis=0)
    return Digits(x[:first], y[:first], x[first:], y[first:])


def batches(config: Config, examples: int, epoch: int) -> np.ndarray:
    """Indices of an epoch's batches: of seed and epoch alone, so that a resumed run sees the same data."""
    order = np.random.default_rng((config.seed, epoch)).permutation(examples)
    steps = examples // config.batch
    return order[: steps * config.batch].reshape(steps, config.batch)


def network(config: Config) -> layers.Layer:
    """The network as funcbp's user writes it."""
    parts = []
    for i, width in enumerate(config.hidden):
        parts += [
            layers.dense(width, after=config.activation if i else None),
            layers.activation(config.activation),
            layers.dropout(config.dropout),
        ]
    return layers.chain(*parts, layers.dense(CLASSES, after=config.activation))


def plain_loss(config: Config, params: PyTree, x: jax.Array, y: jax.Array, key: jax.Array) -> jax.Array:
    """The same network and loss in plain JAX: the oracle, which shares no line of code with funcbp.

    It draws the same dropout masks, because it splits the key the same way.
    """
    sigma = getattr(jax.nn, config.activation)
    for i in range(0, 3 * len(config.hidden), 3):
        x = sigma(jnp.dot(x, params[i]["w"]) + params[i]["b"])
        if config.dropout:
            kept = jax.random.bernoulli(jax.random.fold_in(key, i + 2), 1 - config.dropout, x.shape)
            x = jnp.where(kept, x / (1 - config.dropout), 0)
    logits = jnp.dot(x, params[-1]["w"]) + params[-1]["b"]
    return optax.losses.softmax_cross_entropy_with_integer_labels(logits, y).mean()


def errors(ours: PyTree, theirs: PyTree) -> jax.Array:
    """For every array of the gradient, the largest error of an entry over the largest entry."""

    def error(a: jax.Array, b: jax.Array) -> jax.Array:
        return jnp.max(jnp.abs(a - b)) / jnp.maximum(jnp.max(jnp.abs(b)), jnp.finfo(b.dtype).tiny)

    return jnp.stack(jax.tree.leaves(jax.tree.map(error, ours, theirs)))


class Functions:
    """What is compiled for a run."""

    def __init__(self, config: Config, steps: int) -> None:
        net = network(config)
        total = steps * config.epochs
        schedule = optax.schedules.warmup_cosine_decay_schedule(
            0, config.learning_rate, max(1, total // 10), total
        )
        self.optimizer = optax.adamw(schedule, weight_decay=config.weight_decay)
        self.init = jax.jit(lambda key, x: net.init(key, jax.ShapeDtypeStruct(x.shape, x.dtype))[0])
        key = jax.random.key(config.seed)

        def with_deltas(params: PyTree, x: jax.Array, y: jax.Array, key: jax.Array) -> tuple[Any, ...]:
            sweep = backprop(net, LOSS, collect=("deltas",))(params, x, y, key=key)
            return (
                sweep.value,
                sweep.grads,
                jnp.stack([jnp.linalg.norm(d) for d in jax.tree.leaves(sweep.deltas)]),
            )

        def by_hand(params: PyTree, x: jax.Array, y: jax.Array, key: jax.Array) -> tuple[Any, ...]:
            return *value_and_grad(net, LOSS)(params, x, y, key=key), jnp.zeros(0)

        def by_jax(params: PyTree, x: jax.Array, y: jax.Array, key: jax.Array) -> tuple[Any, ...]:
            return *jax.value_and_grad(plain_loss, argnums=1)(config, params, x, y, key), jnp.zeros(0)

        # One step for all three, so that they differ in the gradient and in nothing else.
        def step_with(gradient: Gradient) -> Callable[..., Any]:
            @jax.jit
            def step(params: PyTree, opt_state: PyTree, x: jax.Array, y: jax.Array, index: jax.Array) -> Any:
                value, grads, norms = gradient(params, x, y, jax.random.fold_in(key, index))
                updates, opt_state = self.optimizer.update(grads, opt_state, params)
                return optax.apply_updates(params, updates), opt_state, value, norms

            return step

        self.step = step_with(with_deltas)
        self.rivals = {
            "by hand, with ‖δ‖": self.step,
            "by hand": step_with(by_hand),
            "jax.grad": step_with(by_jax),
        }

        @jax.jit
        def gradient_error(params: PyTree, x: jax.Array, y: jax.Array, index: jax.Array) -> jax.Array:
            key_now = jax.random.fold_in(key, index)
            _, ours = value_and_grad(net, LOSS, precision=Precision(matmul="highest"))(
                params, x, y, key=key_now
            )
            with jax.default_matmul_precision("highest"):
                theirs = jax.grad(plain_loss, argnums=1)(config, params, x, y, key_now)
            return jnp.max(errors(ours, theirs))

        @jax.jit
        def evaluate(params: PyTree, x: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
            logits = predict(net)(params, x)
            return jnp.mean(LOSS(logits, y)), jnp.mean(jnp.argmax(logits, -1) == y)

        self.gradient_error = gradient_error
        self.evaluate = evaluate


class Run(NamedTuple):
    """All that a run has to remember: what is saved, and what the results are made from."""

    params: PyTree
    opt_state: PyTree
    # Of every epoch; of full length from the start, so that a checkpoint has the same shapes at any time.
    history: dict[str, np.ndarray]


def new_run(config: Config, functions: Functions, data: Digits) -> Run:
    params = functions.init(jax.random.key(config.seed), data.x)
    names = ("loss", "test_loss", "test_accuracy", "gradient_error_float32", "gradient_error_float64")
    history: dict[str, np.ndarray] = {name: np.zeros(config.epochs, np.float32) for name in names}
    history["deltas"] = np.zeros((config.epochs, len(config.hidden) + 1), np.float32)
    return Run(params, functions.optimizer.init(params), history)


def train_epoch(config: Config, functions: Functions, data: Digits, run: Run, epoch: int) -> Run:
    """One pass over the training images; `history` gets the entries of this epoch."""
    params, opt_state, history = run
    losses, norms = [], []
    indices = batches(config, len(data.y), epoch)
    for i, rows in enumerate(indices):
        index = np.uint32(epoch * len(indices) + i)
        params, opt_state, value, deltas = functions.step(
            params, opt_state, data.x[rows], data.y[rows], index
        )
        losses.append(value)
        norms.append(deltas)
    history["loss"][epoch] = np.mean(jax.device_get(losses))
    history["deltas"][epoch] = np.mean(jax.device_get(norms), axis=0)
    history["test_loss"][epoch], history["test_accuracy"][epoch] = functions.evaluate(
        params, data.test_x, data.test_y
    )
    for dtype, error in gradient_errors(functions, data, params, (epoch + 1) * len(indices)).items():
        history[f"gradient_error_{dtype}"][epoch] = error
    return Run(params, opt_state, history)


def gradient_errors(functions: Functions, data: Digits, params: PyTree, step: int) -> dict[str, float]:
    """The gradient's error over all training images, with the dropout masks of `step`."""
    found = {"float32": float(functions.gradient_error(params, data.x, data.y, np.uint32(step)))}
    with jax.enable_x64(True):
        params, x = jax.tree.map(lambda a: jnp.asarray(a, jnp.float64), (params, data.x))
        found["float64"] = float(functions.gradient_error(params, x, data.y, np.uint32(step)))
    return found


def time_steps(
    functions: Functions, data: Digits, config: Config, run: Run, repeats: int
) -> dict[str, float]:
    """Median seconds of a step of each kind."""
    rows = batches(config, len(data.y), 0)[0]
    arguments = jax.device_put((run.params, run.opt_state, data.x[rows], data.y[rows], np.uint32(0)))
    return interleaved_medians(
        {name: lambda step=step: step(*arguments) for name, step in functions.rivals.items()}, repeats
    )


def run_experiment(config: Config) -> int:
    """The whole experiment; returns the exit status."""
    out = (config.out or (RESULTS / "smoke" if config.smoke else RESULTS)).resolve()
    checkpoint = out / "digits.checkpoint.npz"
    screen = console(stderr=True)
    if config.smoke:
        config = dataclasses.replace(config, epochs=min(config.epochs, 6))
    data = read_digits(config.seed)
    if config.batch > len(data.y):
        raise ValueError(
            f"batch must be at most {len(data.y)}, the number of training images, got {config.batch}."
        )
    remove_unfinished(checkpoint)
    if not config.resume:
        # Else a run that is killed before its first checkpoint would be resumed from another one's.
        checkpoint.unlink(missing_ok=True)
    # Before anything is compiled: who mistyped an option need not wait for that.
    resumes = config.resume and checkpoint.exists()
    done = check_checkpoint(checkpoint, config.comparable) if resumes else 0

    steps = len(data.y) // config.batch
    functions = Functions(config, steps)
    fresh = run = new_run(config, functions, data)
    if resumes:
        run = load_checkpoint(checkpoint, like=fresh)
        screen.print(f"resumed after epoch {done} of {config.epochs}")
    elif config.resume:
        screen.print(f"no {shown(checkpoint)} to resume; starting from the beginning", soft_wrap=True)

    start = gradient_errors(functions, data, fresh.params, 0)
    errors_at_start = ", ".join(f"{value:.1e} in {dtype}" for dtype, value in start.items())
    screen.print(
        f"gradient by hand against jax.grad, relative error at the start: {errors_at_start}", soft_wrap=True
    )

    with interruptible() as interruption, progress("epoch", config.epochs, done) as report:
        while done < config.epochs and not interruption:
            run = train_epoch(config, functions, data, run, done)
            done += 1
            loss, accuracy, error = (
                run.history[name][done - 1] for name in ("loss", "test_accuracy", "gradient_error_float32")
            )
            if not np.isfinite(loss):
                raise ValueError(f"the loss is {loss} in epoch {done}; try a smaller --learning-rate.")
            report(done, f"loss {loss:.4f}  test {accuracy:.1%}  gradient error {error:.0e}")
            if done % config.checkpoint_every == 0 or done == config.epochs:
                write_checkpoint(checkpoint, config.comparable, run, done)
        if interruption:
            write_checkpoint(checkpoint, config.comparable, run, done)
    if interruption:
        screen.print(
            f"stopped after epoch {done} of {config.epochs}; add --resume to the same command to go on"
        )
        return interruption.status

    timings = time_steps(functions, data, config, run, repeats=20 if config.smoke else 200)
    history = {name: list(values) for name, values in run.history.items()}
    largest = {dtype: max(error, *history[f"gradient_error_{dtype}"]) for dtype, error in start.items()}
    results = {
        "experiment": "digits",
        "config": config.comparable,
        "classes": CLASSES,
        "examples": {"training": len(data.y), "test": len(data.test_y)},
        "steps": steps * config.epochs,
        "parameters": sum(a.size for a in jax.tree.leaves(run.params)),
        "training_loss": history["loss"][-1],
        "test_loss": history["test_loss"][-1],
        "test_accuracy": history["test_accuracy"][-1],
        "gradient_error": {"start": start, "largest": largest, "tolerance_float64": TOLERANCE},
        "parameters_sha256": fingerprint(run.params),
        "history": history,
        "timings": {"seconds_per_step": timings, "ratio": timings["by hand"] / timings["jax.grad"]},
        "environment": environment(),
    }
    figure = out / "digits.png"
    draw(figure, results)
    write_json(out / "digits.json", results)
    show(results, [figure, out / "digits.json"])

    if not largest["float64"] < TOLERANCE:
        screen.print(
            f"error: the gradient by hand differs from jax.grad by {largest['float64']:.1e}", soft_wrap=True
        )
        return 1
    return 0


def main() -> int:
    return run_command(run_experiment, Config, __doc__)


if __name__ == "__main__":
    sys.exit(main())
