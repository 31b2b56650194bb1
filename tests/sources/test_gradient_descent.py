"""Gradient descent on a number, a vector, a matrix: `optax.sgd` on the sweep's gradients."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax
import pytest
from jax import numpy as jnp

from funcbp import layers, predict, rules
from funcbp.training import make_step

from .networks import (
    computed,
    forward,
    half_squares,
    linear_chain,
    nonlinear_chain,
    random_weights,
    with_sigmas,
)
from .oracles import EPS, assert_close, assert_differs

RNG = np.random.default_rng(3)
X, Y, ETA = 1.3, 0.8, 0.1
MINIMUM = Y / X
ONE = linear_chain((1, 1))
WIDTHS = (3, 2, 3, 2)
DEEP = linear_chain(WIDTHS)
WEIGHTS = random_weights(RNG, WIDTHS)
INPUTS, TARGETS = RNG.normal(size=(4, 3)), RNG.normal(size=(4, 2))


def number(value: float) -> np.ndarray:
    return np.array([[value]])


def weight(value: float) -> dict[str, Any]:
    return {"w01": {"w": number(value)}}


def slope(w: float) -> float:
    """dC/dw of C = ½(w x - y)², by the library."""
    return float(computed(ONE, weight(w), number(X), number(Y)).grads["w01"]["w"][0, 0])


@functools.cache
def stepper(optimizer: Callable[..., optax.GradientTransformation], eta: float) -> Callable[[float], float]:
    step = make_step(ONE, rules.l2_loss, optimizer(eta))

    def one(w: float) -> float:
        opt_state = optimizer(eta).init(weight(w))
        return float(step(weight(w), (), opt_state, number(X), number(Y)).params["w01"]["w"][0, 0])

    return one


def descend(params: Any, grads: Any, eta: float = ETA) -> Any:
    """w - η g, leaf by leaf."""
    return jax.tree.map(lambda w, g: w - eta * g, params, grads)


@pytest.mark.formula("S2-020", "S2-021", "S2-022", "S2-024", "S2-025")
@pytest.mark.parametrize(("w", "sign"), [(MINIMUM + 1, 1), (MINIMUM - 1, -1)])
def test_the_step_goes_against_the_slope(w: float, sign: int) -> None:
    """Right of w_* the slope is positive and w decreases; left of it negative, and w increases."""
    assert np.sign(slope(w)) == sign
    assert np.sign(stepper(optax.sgd, ETA)(w) - w) == -sign


@pytest.mark.formula("S2-023")
def test_sign_descent() -> None:
    """w - (something)(sign of slope): nearer to w_* if that is small, past it and farther if it is not."""
    w = MINIMUM + 0.3
    for something, nearer in ((0.1, True), (1.0, False)):
        after = stepper(optax.sign_sgd, something)(w)
        assert_close(np.array(after), np.array(w - something * np.sign(slope(w))))
        assert (abs(after - MINIMUM) < abs(w - MINIMUM)) is nearer


@pytest.mark.formula("S2-026", "S2-027")
@pytest.mark.parametrize("w", [MINIMUM + 1, MINIMUM - 1])
def test_magnitude_times_sign_is_the_slope(w: float) -> None:
    """w - η|dC/dw|(sign of slope) = w - η dC/dw: optax.sgd(η)."""
    after = np.array(stepper(optax.sgd, ETA)(w))
    assert_close(after, np.array(w - ETA * abs(slope(w)) * np.sign(slope(w))))
    assert_close(after, np.array(w - ETA * (w * X - Y) * X))


@functools.cache
def deep_step() -> tuple[Any, Any]:
    """Gradients at WEIGHTS, and the weights after one step of the library with optax.sgd."""
    grads = computed(DEEP, WEIGHTS, INPUTS, TARGETS).grads
    step = make_step(DEEP, rules.l2_loss, optax.sgd(ETA))
    return grads, step(WEIGHTS, (), optax.sgd(ETA).init(WEIGHTS), INPUTS, TARGETS)


@pytest.mark.formula("S2-028", "S2-029", "S2-146", "S2-153", "S2-156")
def test_elements_vectors_and_matrices_are_updated_alike() -> None:
    """w_i - η∂C/∂w_i for every element, w - η∇C, W - ηδC/δW: one rule, all from the same W^(t)."""
    grads, after = deep_step()
    by_element = jax.tree.map(np.copy, WEIGHTS)
    for name, layer in by_element.items():
        for ab in np.ndindex(layer["w"].shape):
            layer["w"][ab] -= ETA * grads[name]["w"][ab]
    assert_close(after.params, by_element)
    assert_close(after.params, descend(WEIGHTS, grads))
    one_after_the_other = WEIGHTS
    for name in WEIGHTS:
        gradient = computed(DEEP, one_after_the_other, INPUTS, TARGETS).grads[name]
        one_after_the_other = one_after_the_other | {name: descend(one_after_the_other[name], gradient)}
    assert_differs(one_after_the_other, after.params)


@pytest.mark.formula("S2-143")
def test_the_derivative_is_taken_before_the_step() -> None:
    """W^(t+1) = W^(t) - η ∂C/∂W^(t). Printed with ∂W^(t+1), it is the implicit step, another rule."""
    network, w = linear_chain((3, 2)), {"w01": {"w": WEIGHTS["w01"]["w"]}}
    explicit = descend(w, computed(network, w, INPUTS, TARGETS).grads)
    n = len(INPUTS)
    curvature = np.eye(3) + ETA / n * INPUTS.T @ INPUTS
    solved = np.linalg.solve(curvature, w["w01"]["w"] + ETA / n * INPUTS.T @ TARGETS)
    implicit = {"w01": {"w": solved}}
    assert_close(implicit, descend(w, computed(network, implicit, INPUTS, TARGETS).grads))
    assert_differs(implicit, explicit)


@pytest.mark.formula("S2-171")
def test_a_cost_linear_in_the_weights_falls_for_ever() -> None:
    """C = yᵀAx: A - η yxᵀ, and every step lowers C by η|y|²|x|²."""
    network, linear = linear_chain((3, 2)), (lambda z, y: jnp.sum(z * y, axis=-1), lambda z, y: y)
    x, y, params = INPUTS[:1], TARGETS[:1], {"w01": {"w": WEIGHTS["w01"]["w"]}}
    lowered_by = ETA * np.sum(x**2) * np.sum(y**2)
    for _ in range(3):
        sweep = computed(network, params, x, y, linear)
        after = descend(params, sweep.grads)
        assert_close(after["w01"]["w"].T, params["w01"]["w"].T - ETA * y.T @ x)
        assert_close(sweep.value - computed(network, after, x, y, linear).value, lowered_by)
        params = after


@pytest.mark.formula("S2-016", "S2-018", "C-41")
def test_linear_regression_converges_to_the_normal_equations() -> None:
    """XᵀXW = XᵀY makes 1/n Xᵀ(XW - Y) zero; descent gets there for η < 2/λ_max(XᵀX/n), and away above."""
    network, n = linear_chain((3, 2)), len(INPUTS)
    best = np.linalg.solve(INPUTS.T @ INPUTS, INPUTS.T @ TARGETS)
    at_best = computed(network, {"w01": {"w": best}}, INPUTS, TARGETS)
    assert np.max(np.abs(at_best.grads["w01"]["w"])) < 64 * EPS * np.max(np.abs(INPUTS.T @ TARGETS))
    largest = np.linalg.eigvalsh(INPUTS.T @ INPUTS / n).max()
    start = {"w01": {"w": np.zeros((3, 2))}}

    @jax.jit
    def step(w: Any, eta: float) -> tuple[Any, jax.Array]:
        sweep = computed(network, w, INPUTS, TARGETS)
        return descend(w, sweep.grads, eta), sweep.value

    for eta, direction in ((1.9 / largest, -1), (2.1 / largest, 1)):
        values, w = [], start
        for _ in range(60):
            w, value = step(w, eta)
            values.append(float(value - at_best.value))
        assert np.all(np.sign(np.diff(values[-30:])) == direction)
        assert (values[-1] < values[0]) == (direction < 0)


def hand_written(name: str, g: np.ndarray, w: np.ndarray, memory: dict[str, Any], t: int) -> np.ndarray:
    """One step of each tweak, from its definition; `memory` starts empty."""
    v, s = memory.get("v", 0.0 * g), memory.get("s", 0.0 * g)
    match name:
        case "momentum":
            memory["v"] = v = 0.9 * v + g
            return w - ETA * v
        case "nesterov":
            memory["v"] = v = 0.9 * v + g
            return w - ETA * (g + 0.9 * v)
        case "rmsprop":
            memory["s"] = s = 0.9 * s + 0.1 * g * g
            return w - ETA * g / np.sqrt(s + 1e-8)
    memory["v"] = v = 0.9 * v + 0.1 * g
    memory["s"] = s = 0.999 * s + 0.001 * g * g
    step = v / (1 - 0.9**t) / (np.sqrt(s / (1 - 0.999**t)) + 1e-8)
    return w - ETA * (step + (0.01 * w if name == "adamw" else 0.0))


OPTIMIZERS = {
    "momentum": optax.sgd(ETA, momentum=0.9),
    "nesterov": optax.sgd(ETA, momentum=0.9, nesterov=True),
    "rmsprop": optax.rmsprop(ETA, decay=0.9, eps=1e-8),
    "adam": optax.adam(ETA, b1=0.9, b2=0.999, eps=1e-8),
    "adamw": optax.adamw(ETA, b1=0.9, b2=0.999, eps=1e-8, weight_decay=0.01),
}


@pytest.mark.formula("S2-034", "C-35")
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_tweaks_to_gradient_descent(name: str) -> None:
    """Momentum, Nesterov, RMSProp, Adam, decoupled weight decay: three steps by hand and by optax."""
    step = make_step(DEEP, rules.l2_loss, OPTIMIZERS[name])
    theirs, opt_state = WEIGHTS, OPTIMIZERS[name].init(jax.tree.map(jnp.asarray, WEIGHTS))
    ours, memory = WEIGHTS, {layer: {} for layer in WEIGHTS}
    for t in (1, 2, 3):
        grads = computed(DEEP, ours, INPUTS, TARGETS).grads
        ours = {
            layer: {"w": hand_written(name, np.asarray(grads[layer]["w"]), w["w"], memory[layer], t)}
            for layer, w in ours.items()
        }
        theirs, _, opt_state, _ = step(theirs, (), opt_state, INPUTS, TARGETS)
    assert_close(theirs, ours)


@pytest.mark.formula("S2-005", "S2-019", "C-37")
def test_training_from_scratch() -> None:
    """Predict, measure, tweak, repeat, in bare numpy: the trajectory of the library and of jax.grad."""
    sigmas, params = ("identity", "tanh", "tanh", "identity"), with_sigmas(WEIGHTS)
    network, optimizer, n = nonlinear_chain(sigmas, WIDTHS), optax.sgd(ETA), len(INPUTS)
    step = make_step(network, rules.l2_loss, optimizer)
    opt_state = optimizer.init(params)
    theirs = jax.tree.map(jnp.asarray, WEIGHTS)
    update = jax.jit(
        lambda w: descend(w, jax.grad(lambda w: half_squares(forward(sigmas, w, INPUTS), TARGETS))(w))
    )
    w01, w12, w23 = (layer["w"].copy() for layer in WEIGHTS.values())
    costs = []
    for _ in range(50):
        q1 = np.tanh(INPUTS @ w01)
        q2 = np.tanh(q1 @ w12)
        d3 = (q2 @ w23 - TARGETS) / n
        costs.append(np.sum(d3**2) * n / 2)
        d2 = d3 @ w23.T * (1 - q2**2)
        d1 = d2 @ w12.T * (1 - q1**2)
        w01, w12, w23 = w01 - ETA * INPUTS.T @ d1, w12 - ETA * q1.T @ d2, w23 - ETA * q2.T @ d3
        params, _, opt_state, metrics = step(params, (), opt_state, INPUTS, TARGETS)
        theirs = update(theirs)
        assert_close(metrics["value"], np.array(costs[-1]), terms=4096)
    by_hand = {"w01": {"w": w01}, "w12": {"w": w12}, "w23": {"w": w23}}
    assert_close({name: params[name] for name in by_hand}, by_hand, terms=4096)
    assert_close(theirs, by_hand, terms=4096)
    assert np.all(np.diff(costs) < 0)


@pytest.mark.formula("S2-017", "C-32")
@pytest.mark.parametrize("sigmas", [("identity",) * 4, ("identity", "tanh", "tanh", "identity")])
def test_zero_weights_never_move_but_in_a_single_layer(sigmas: tuple[str, ...]) -> None:
    """W = 0 with two layers or more and σ(0) = 0: every gradient is 0; one layer learns from zero."""
    zeros = jax.tree.map(np.zeros_like, WEIGHTS)
    deep = computed(nonlinear_chain(sigmas, WIDTHS), with_sigmas(zeros), INPUTS, TARGETS)
    assert all(np.all(np.asarray(g) == 0) for g in jax.tree.leaves(deep.grads))
    single = computed(linear_chain((3, 2)), {"w01": {"w": np.zeros((3, 2))}}, INPUTS, TARGETS)
    assert_close(single.grads["w01"]["w"], -INPUTS.T @ TARGETS / len(INPUTS))


@pytest.mark.formula("S2-017", "C-33")
def test_equal_hidden_nodes_stay_equal() -> None:
    """Hidden nodes with the same weights get the same gradients for ever: chance must tell them apart."""
    params = with_sigmas({"w01": {"w": np.full((3, 2), 0.4)}, "w12": {"w": np.array([[0.3, -0.2]] * 2)}})
    network = nonlinear_chain(("identity", "tanh", "identity"), (3, 2, 2))
    for _ in range(3):
        params = descend(params, computed(network, params, INPUTS, TARGETS).grads)
        w01, w12 = (np.asarray(params[name]["w"]) for name in ("w01", "w12"))
        assert np.all(w01[:, 0] == w01[:, 1])
        assert np.all(w12[0] == w12[1])
    assert_differs(w01, np.full((3, 2), 0.4))


@pytest.mark.formula("S2-017", "C-34")
@pytest.mark.parametrize(
    ("relu", "after", "deviation", "factor"),
    [
        (False, None, None, 1.0),
        (True, "relu", None, 1.0),
        (True, None, None, 0.5**9),
        (False, None, 1.0, 300.0**9),
    ],
)
def test_scale_of_the_first_weights(
    rng: np.random.Generator, relu: bool, after: str | None, deviation: float | None, factor: float
) -> None:
    """Var w = 1/n keeps E|p|²/n, 2/n does behind relu, where 1/n halves it; variance 1 multiplies it by n."""
    n, depth = 300, 10
    kernel = None if deviation is None else jax.nn.initializers.normal(deviation)
    members = [layers.dense(n, bias=False, kernel_init=kernel)]
    for _ in range(depth - 1):
        members += [layers.activation("relu")] * relu
        members.append(layers.dense(n, bias=False, after=after, kernel_init=kernel))
    network, x = layers.chain(*members), rng.normal(size=(8, n))
    params, _ = network.init(jax.random.key(1), x)
    first, last = predict(members[0])(params[0], x), predict(network)(params, x)
    ratio = float(jnp.mean(last**2) / jnp.mean(first**2)) / factor
    assert 0.5 < ratio < 2
