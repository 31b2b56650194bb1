"""Other credit assignments than backpropagation: what a layer passes back, replaced in one line.

With p_l = q_{l-1} W_l + b_l, q_l = σ(p_l) and δ_l = ∂C/∂p_l, every rule below updates by ∂W_l = q_{l-1}ᵀ δ_l
and ∂b_l = Σ δ_l, as backpropagation does. They differ in the δ of the hidden layers, that is in what replaces
W_{l+1}ᵀ in the δ recurrence:

    backpropagation             δ_l = (δ_{l+1} W_{l+1}ᵀ) ⊙ σ′(p_l)
    feedback alignment          δ_l = (δ_{l+1} B_{l+1}) ⊙ σ′(p_l)           B fixed and random
    direct feedback alignment   δ_l = (δ_L D_l) ⊙ σ′(p_l)                   D fixed and random
    sign-symmetric              δ_l = (δ_{l+1} c sign(W_{l+1})ᵀ) ⊙ σ′(p_l)  c the root mean square of W

(Lillicrap et al. 2016, 10.1038/ncomms13276; Nøkland 2016, arXiv:1609.01596; Liao et al. 2016,
arXiv:1510.05067.) The first is the chain rule: with p_{l+1} = q_l W_{l+1} + b_{l+1},

    dC = ⟨δ_{l+1}, dq_l W_{l+1}⟩ = ⟨δ_{l+1} W_{l+1}ᵀ, σ′(p_l) ⊙ dp_l⟩

The others are not the gradient of anything: B has the shape of Wᵀ, D that of the product of all Wᵀ from the
output down. At the output all have the same, true δ_L, so the last layer learns by its true gradient.

A layer is three functions, of which `layer._replace(bwd=...)` replaces the last one: the new one keeps the
layer's own factors (activation and δ) and hands down another x̄. Forward pass and sweep know nothing of it.

The network is trained on scikit-learn's digits once by each rule, from the same start on the same data. Along
the way the angle between a rule's update of a weight and the true gradient at the same place is measured: at
90° an update does nothing, below it goes downhill. (The optimizer then scales its entries, for all alike.)
"""

import dataclasses
import itertools
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
import optax
from jax import numpy as jnp
from rich.table import Table

from funcbp import backprop, layers, predict, rules
from funcbp.training import make_step

from ._common import (
    COLORS,
    LINES,
    RESULTS,
    console,
    environment,
    interruptible,
    new_figure,
    progress,
    run_command,
    shown,
    write_json,
)
from .digits import CLASSES, Digits, read_digits

PyTree = Any
PassBack = Callable[[PyTree, jax.Array], jax.Array]

LOSS = rules.softmax_cross_entropy_with_integer_labels
RULES = {
    "backpropagation": "backpropagation",
    "feedback": "feedback alignment",
    "direct": "direct feedback alignment",
    "sign": "sign-symmetric",
}


@dataclass(frozen=True)
class Config:
    """What is trained, and where the results go."""

    seed: int = 0
    """Of the split of the images, the first parameters, the order of the data and the fixed matrices."""

    hidden: tuple[int, ...] = (128, 128, 64)
    """Widths of the hidden layers."""

    activation: Literal["gelu", "relu", "silu", "tanh"] = "tanh"
    """Activation of the hidden layers."""

    epochs: int = 40
    """Passes over the training images."""

    batch: int = 64
    """Images in a step."""

    learning_rate: float = 1e-3
    """Of Adam; the same for all rules."""

    out: Path | None = None
    """Directory for the results; by default experiments/results, with --smoke its folder smoke."""

    smoke: bool = False
    """A few epochs only, to see whether everything works."""

    def __post_init__(self) -> None:
        for name in ("epochs", "batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}.")
        if not self.hidden or min(self.hidden) < 1:
            raise ValueError(f"hidden must be one width or more, each at least 1, got {self.hidden}.")
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate must be positive, got {self.learning_rate}.")
        if self.seed < 0:
            raise ValueError(f"seed must not be negative, got {self.seed}.")

    @property
    def comparable(self) -> dict[str, Any]:
        """The options that decide the numbers."""
        return {k: v for k, v in vars(self).items() if k not in ("out", "smoke")}


def passing_back(layer: layers.Layer, pass_back: PassBack) -> layers.Layer:
    """The same layer with x̄ = pass_back(params, δ); the gradients of its own parameters stay."""

    def bwd(params: PyTree, residuals: PyTree, delta: jax.Array, *rest: Any) -> layers.Backward:
        return layer.bwd(params, residuals, delta, *rest)._replace(x_ct=pass_back(params, delta))

    return layer._replace(bwd=bwd)


def by_feedback(layer: layers.Layer, b: jax.Array) -> layers.Layer:
    """x̄ = δ B: feedback alignment; with B = Wᵀ it is backpropagation."""
    return passing_back(layer, lambda _, delta: delta @ b)


def by_sign(layer: layers.Layer) -> layers.Layer:
    """x̄ = δ c sign(W)ᵀ, with c such that c sign(W) has the norm of W."""

    def pass_back(params: PyTree, delta: jax.Array) -> jax.Array:
        w = params["w"]
        return delta @ (jnp.sqrt(jnp.mean(w**2)) * jnp.sign(w)).T

    return passing_back(layer, pass_back)


def direct(parts: list[layers.Layer], feedback: list[jax.Array]) -> layers.Layer:
    """Each hidden layer gets δ_L D, whatever is above it: here it is the chain whose bwd is replaced.

    `parts` are dense layers and activations in turns, `feedback` the D's of the activations.
    """
    network = layers.chain(*parts)

    def bwd(
        params: PyTree, residuals: PyTree, delta: jax.Array, visit: Any, aux: PyTree, path: Any
    ) -> layers.Backward:
        done: list[layers.Backward] = []
        for i in reversed(range(len(parts))):
            y_ct = delta if i == len(parts) - 1 else delta @ feedback[i // 2] if i % 2 else done[-1].x_ct
            aux_i = None if aux is None else aux[i]
            where = (*path, jax.tree_util.SequenceKey(i))
            done.append(parts[i].bwd(params[i], residuals[i], y_ct, visit, aux_i, where))
        collected, cotangents, _ = zip(*reversed(done), strict=True)
        return layers.Backward(collected, cotangents, done[-1].x_ct)

    return network._replace(bwd=bwd)


def networks(config: Config) -> dict[str, layers.Layer]:
    """The same network with each rule; fixed matrices are drawn as the weights are, in variance."""
    widths = (*config.hidden, CLASSES)
    keys = jax.random.split(jax.random.key(config.seed + 1), 2 * len(config.hidden)).reshape(2, -1)

    def parts(change: Callable[[int, layers.Layer], layers.Layer]) -> list[layers.Layer]:
        found = []
        for i, width in enumerate(widths):
            dense = layers.dense(width, after=config.activation if i else None)
            # The x̄ of the first layer is no one's δ.
            found += [change(i, dense) if i else dense, layers.activation(config.activation)]
        return found[:-1]

    def fixed(key: jax.Array, rows: int, columns: int) -> jax.Array:
        return jax.random.normal(key, (rows, columns)) / np.sqrt(columns)

    matrices = [fixed(keys[0, i], b, a) for i, (a, b) in enumerate(itertools.pairwise(widths))]
    from_output = [fixed(keys[1, i], CLASSES, width) for i, width in enumerate(config.hidden)]
    plain = parts(lambda _, dense: dense)
    return {
        "backpropagation": layers.chain(*plain),
        "feedback": layers.chain(*parts(lambda i, dense: by_feedback(dense, matrices[i - 1]))),
        "direct": direct(plain, from_output),
        "sign": layers.chain(*parts(lambda _, dense: by_sign(dense))),
    }


def angles(ours: PyTree, theirs: PyTree) -> jax.Array:
    """Degrees between two gradients of every weight matrix."""
    pairs = [(a["w"].ravel(), b["w"].ravel()) for a, b in zip(ours[::2], theirs[::2], strict=True)]
    cosines = jnp.stack([a @ b / (jnp.linalg.norm(a) * jnp.linalg.norm(b)) for a, b in pairs])
    return jnp.degrees(jnp.arccos(jnp.clip(cosines, -1, 1)))


def train(
    config: Config, network: layers.Layer, plain: layers.Layer, data: Digits, report: Callable[[str], bool]
) -> dict[str, np.ndarray] | None:
    """Train by one rule; the history of every epoch, or None if `report` says to stop."""
    optimizer = optax.adam(config.learning_rate)
    step = make_step(network, LOSS, optimizer)

    @jax.jit
    def epoch(params: PyTree, opt_state: PyTree, rows: jax.Array) -> Any:
        def one(carry: PyTree, row: jax.Array) -> tuple[PyTree, jax.Array]:
            done = step(carry[0], (), carry[1], jnp.asarray(data.x)[row], jnp.asarray(data.y)[row])
            return (done.params, done.opt_state), done.metrics["value"]

        (params, opt_state), losses = jax.lax.scan(one, (params, opt_state), rows)
        found, true = (backprop(n, LOSS)(params, data.x, data.y).grads for n in (network, plain))
        right = jnp.mean(jnp.argmax(predict(plain)(params, data.test_x), -1) == data.test_y)
        values = {"loss": losses.mean(), "test_accuracy": right, "angles": angles(found, true)}
        return params, opt_state, values

    params, _ = plain.init(jax.random.key(config.seed), data.x)
    opt_state, history = optimizer.init(params), []
    for i in range(config.epochs):
        order = np.random.default_rng((config.seed, i)).permutation(len(data.y))
        steps = len(order) // config.batch
        rows = order[: steps * config.batch].reshape(steps, config.batch)
        params, opt_state, values = epoch(params, opt_state, rows)
        history.append(jax.device_get(values))
        if not np.isfinite(history[-1]["loss"]):
            raise ValueError(f"the loss is {history[-1]['loss']}; try a smaller --learning-rate.")
        if report(f"loss {history[-1]['loss']:.4f}  test {history[-1]['test_accuracy']:.1%}"):
            return None
    return {name: np.stack([values[name] for values in history]) for name in history[0]}


def draw(path: Path, results: dict[str, Any]) -> None:
    """Loss, accuracy, and the angle of the update of the first and the last hidden weight matrix."""
    histories = results["history"]
    title = "Digits without backpropagation: what replaces Wᵀ in the δ recurrence"
    with new_figure(path, 2, 2, title) as (loss, accuracy, first, last):
        for i, (name, history) in enumerate(histories.items()):
            epochs = np.arange(1, len(history["loss"]) + 1)
            style: dict[str, Any] = {"color": COLORS[i], "linestyle": LINES[i], "label": RULES[name]}
            loss.plot(epochs, history["loss"], **style)
            accuracy.plot(epochs, 100 * np.asarray(history["test_accuracy"]), **style)
            # Of the output layer it is 0 for all.
            each = np.asarray(list(history["angles"]))
            first.plot(epochs, each[:, 0], **style)
            last.plot(epochs, each[:, -2], **style)
        loss.set(title="Training loss", ylabel="cross-entropy", yscale="log")
        accuracy.set(title="Accuracy on test images", ylabel="right (%)", ylim=(None, 101))
        depth = len(results["config"]["hidden"])
        for axes, layer in ((first, 1), (last, depth)):
            axes.set(title=f"Update of W, layer {layer} of {depth + 1}, against the true gradient")
            axes.set(ylabel="angle (degrees)", ylim=(-3, 100))
            axes.axhline(90, color="#888888", linewidth=1)
        for axes in (loss, accuracy, first, last):
            axes.set(xlabel="epoch")
        accuracy.legend()


def show(results: dict[str, Any], where: list[Path]) -> None:
    """The table on the terminal, and where to look next."""
    table = Table(title="Digits without backpropagation", title_justify="left")
    table.add_column("", no_wrap=True)
    for what in ("training loss", "test accuracy", "angle, first layer", "angle, last hidden"):
        table.add_column(what, justify="right")
    for name, history in results["history"].items():
        angle = history["angles"][-1]
        numbers = (f"{history['loss'][-1]:.4f}", f"{history['test_accuracy'][-1]:.1%}")
        table.add_row(RULES[name], *numbers, f"{angle[0]:.0f}°", f"{angle[-2]:.0f}°")
    screen = console()
    screen.print(table)
    screen.print("Look next at " + " and ".join(map(shown, where)), soft_wrap=True)


def run_experiment(config: Config) -> int:
    """The whole experiment; returns the exit status."""
    out = (config.out or (RESULTS / "smoke" if config.smoke else RESULTS)).resolve()
    if config.smoke:
        config = dataclasses.replace(config, epochs=min(config.epochs, 3))
    data = read_digits(config.seed)
    if config.batch > len(data.y):
        raise ValueError(
            f"batch must be at most {len(data.y)}, the number of training images, got {config.batch}."
        )
    all_networks, history = networks(config), {}
    total = config.epochs * len(all_networks)
    with interruptible() as interruption, progress("epoch", total) as report:
        for i, (name, network) in enumerate(all_networks.items()):
            done = iter(range(i * config.epochs + 1, total + 1))

            def each(text: str, name: str = name, done: Any = done) -> bool:
                report(next(done), f"{RULES[name]}: {text}")
                return bool(interruption)

            found = train(config, network, all_networks["backpropagation"], data, each)
            if found is None:
                break
            history[name] = found
    if interruption:
        console(stderr=True).print("stopped; nothing is written")
        return interruption.status
    results = {
        "experiment": "feedback_alignment",
        "config": config.comparable,
        "examples": {"training": len(data.y), "test": len(data.test_y)},
        "history": history,
        "environment": environment(),
    }
    figure = out / "feedback_alignment.png"
    draw(figure, results)
    write_json(out / "feedback_alignment.json", results)
    show(results, [figure, out / "feedback_alignment.json"])
    return 0


def main() -> int:
    return run_command(run_experiment, Config, __doc__)


if __name__ == "__main__":
    sys.exit(main())
