"""Recurrent networks and other recurrences in time."""

import jax
import numpy as np
from jax import lax
from jax import numpy as jnp

from ._case import Family, array, normal

family = Family("recurrent")


def rnn(params, xs):
    """Last state of h' = tanh(hW + xU + b)."""

    def step(h, x):
        return jnp.tanh(h @ params["W"] + x @ params["U"] + params["b"]), None

    return jnp.sum(lax.scan(step, jnp.zeros_like(params["b"]), xs)[0] ** 2)


def rnn_args():
    params = {"W": 0.5 * array((4, 4)), "U": array((3, 4), 1), "b": 0.1 * array((4,), 2)}
    return params, array((6, 3), 3)


def states(params, xs):
    hs = [jnp.zeros_like(params["b"])]
    for x in xs:
        hs.append(jnp.tanh(hs[-1] @ params["W"] + x @ params["U"] + params["b"]))
    return hs


def through_time(params, xs, derivative=lambda h: 1 - h**2, back=None, met=1, steps=None):
    """Backpropagation through time with the one piece in question left open."""
    hs = states(params, xs)
    back = params["W"].T if back is None else back(params["W"])
    grads = jax.tree.map(jnp.zeros_like, params)
    dh = 2 * hs[-1]
    last = len(xs) - (len(xs) if steps is None else steps)
    for t in reversed(range(last, len(xs))):
        delta = dh * derivative(hs[t + 1])
        grads["W"] += jnp.outer(hs[t + 1 - met], delta)
        grads["U"] += jnp.outer(xs[t], delta)
        grads["b"] += delta
        dh = delta @ back
    return grads


@family.gradient(rnn, rnn_args)
def rnn_gradient(params, xs):
    return through_time(params, xs)


@family.gradient(rnn, rnn_args, "TERM_MISSING")
def truncated_to_three_steps(params, xs):
    """Backpropagation through time stops after three of six steps."""
    return through_time(params, xs, steps=3)


@family.gradient(rnn, rnn_args, "TERM_MISSING")
def last_step_only(params, xs):
    """The state is treated as a constant input of the last step."""
    return through_time(params, xs, steps=1)


@family.gradient(rnn, rnn_args, "TRANSPOSE_FORGOTTEN")
def recurrent_weights_not_transposed(params, xs):
    """δW where δWᵀ belongs; W is square by nature."""
    return through_time(params, xs, back=lambda w: w)


@family.gradient(rnn, rnn_args, "OFF_BY_ONE", "WRONG_POINT")
def new_state_meets_delta(params, xs):
    """h[t] instead of h[t-1] meets δ in the gradient of W."""
    return through_time(params, xs, met=0)


@family.gradient(rnn, rnn_args, "FACTOR_MISSING")
def tanh_derivative_missing_in_time(params, xs):
    """No tanh' on the way back."""
    return through_time(params, xs, derivative=jnp.ones_like)


@family.gradient(rnn, rnn_args, "WRONG_POINT", "FACTOR_MISSING")
def sigmoid_derivative_for_tanh(params, xs):
    """h(1 - h), the derivative of the activation used before."""
    return through_time(params, xs, derivative=lambda h: h * (1 - h))


def lstm(params, x, h, c):
    i, f, g, o = jnp.split(x @ params["W"] + h @ params["U"] + params["b"], 4, axis=-1)
    c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
    return jax.nn.sigmoid(o) * jnp.tanh(c), c


def lstm_args():
    params = {"W": array((3, 16)), "U": array((4, 16), 1), "b": array((16,), 2)}
    return params, array((5, 3), 3), array((5, 4), 4), array((5, 4), 5)


def lstm_fwd(params, x, h, c):
    i, f, g, o = jnp.split(x @ params["W"] + h @ params["U"] + params["b"], 4, axis=-1)
    i, f, g, o = jax.nn.sigmoid(i), jax.nn.sigmoid(f), jnp.tanh(g), jax.nn.sigmoid(o)
    new = f * c + i * g
    return (o * jnp.tanh(new), new), (params, x, h, c, i, f, g, o, new)


def lstm_finish(residuals, gates, dc):
    params, x, h, _, _, f, *_ = residuals
    grads = {"W": x.T @ gates, "U": h.T @ gates, "b": gates.sum(0)}
    return grads, gates @ params["W"].T, gates @ params["U"].T, dc * f


@family.vjp(lstm, lstm_args, fwd=lstm_fwd)
def lstm_bwd(residuals, cts):
    *_, c, i, f, g, o, new = residuals
    dh, dc = cts
    tanh_c = jnp.tanh(new)
    dc = dc + dh * o * (1 - tanh_c**2)
    gates = [dc * g * i * (1 - i), dc * c * f * (1 - f), dc * i * (1 - g**2), dh * tanh_c * o * (1 - o)]
    return lstm_finish(residuals, jnp.concatenate(gates, -1), dc)


@family.vjp(lstm, lstm_args, "TERM_MISSING", fwd=lstm_fwd)
def lstm_cell_through_output_only(residuals, cts):
    """The cotangent of the cell state itself is dropped."""
    *_, c, i, f, g, o, new = residuals
    dh, _ = cts
    tanh_c = jnp.tanh(new)
    dc = dh * o * (1 - tanh_c**2)
    gates = [dc * g * i * (1 - i), dc * c * f * (1 - f), dc * i * (1 - g**2), dh * tanh_c * o * (1 - o)]
    return lstm_finish(residuals, jnp.concatenate(gates, -1), dc)


@family.vjp(lstm, lstm_args, "WRONG_POINT", fwd=lstm_fwd)
def lstm_forget_gate_meets_new_cell(residuals, cts):
    """The new cell state instead of the old one in the forget gate's gradient."""
    *_, i, f, g, o, new = residuals
    dh, dc = cts
    tanh_c = jnp.tanh(new)
    dc = dc + dh * o * (1 - tanh_c**2)
    gates = [dc * g * i * (1 - i), dc * new * f * (1 - f), dc * i * (1 - g**2), dh * tanh_c * o * (1 - o)]
    return lstm_finish(residuals, jnp.concatenate(gates, -1), dc)


@family.vjp(lstm, lstm_args, "PERMUTED", "SWAPPED", fwd=lstm_fwd)
def lstm_gates_in_another_order(residuals, cts):
    """The gates are joined as i, f, o, g."""
    *_, c, i, f, g, o, new = residuals
    dh, dc = cts
    tanh_c = jnp.tanh(new)
    dc = dc + dh * o * (1 - tanh_c**2)
    gates = [dc * g * i * (1 - i), dc * c * f * (1 - f), dh * tanh_c * o * (1 - o), dc * i * (1 - g**2)]
    return lstm_finish(residuals, jnp.concatenate(gates, -1), dc)


def ema(x, decay):
    """y[t] = a y[t-1] + (1-a) x[t]."""
    return lax.scan(lambda y, v: (decay * y + (1 - decay) * v,) * 2, jnp.zeros_like(x[0]), x)[1]


@family.vjp(ema, normal((9,)), fwd=lambda x, decay: (ema(x, decay), None), static={"decay": 0.8})
def ema_bwd(_, dy, decay):
    carried = lax.scan(lambda a, v: (decay * a + v,) * 2, jnp.zeros_like(dy[0]), dy, reverse=True)[1]
    return ((1 - decay) * carried,)


@family.vjp(ema, normal((9,)), "PERMUTED", fwd=lambda x, decay: (ema(x, decay), None), static={"decay": 0.8})
def ema_backward_runs_forward(_, dy, decay):
    """The adjoint recurrence runs in the direction of time."""
    carried = lax.scan(lambda a, v: (decay * a + v,) * 2, jnp.zeros_like(dy[0]), dy)[1]
    return ((1 - decay) * carried,)


def linear_recurrence(a, x):
    """h[t] = a[t] h[t-1] + x[t]."""
    return lax.scan(lambda h, t: (t[0] * h + t[1],) * 2, jnp.zeros_like(x[0]), (a, x))[1]


def recurrence_fwd(a, x):
    h = linear_recurrence(a, x)
    return h, (a, h)


@family.vjp(linear_recurrence, normal((7, 3), (7, 3), scale=0.7), fwd=recurrence_fwd)
def linear_recurrence_bwd(residuals, dy):
    a, h = residuals
    following = jnp.concatenate([a[1:], jnp.zeros_like(a[:1])])
    delta = linear_recurrence(following[::-1], dy[::-1])[::-1]
    return delta * jnp.concatenate([jnp.zeros_like(h[:1]), h[:-1]]), delta


@family.vjp(
    linear_recurrence, normal((7, 3), (7, 3), scale=0.7), "OFF_BY_ONE", "WRONG_POINT", fwd=recurrence_fwd
)
def decay_of_the_same_step(residuals, dy):
    """δ[t] = dy[t] + a[t] δ[t+1] where a[t+1] belongs."""
    a, h = residuals
    delta = linear_recurrence(a[::-1], dy[::-1])[::-1]
    return delta * jnp.concatenate([jnp.zeros_like(h[:1]), h[:-1]]), delta


def euler(x0, rate, steps):
    x = x0
    for _ in range(steps):
        x = x + 0.1 * rate * x * (1 - x)
    return jnp.sum(x)


def logistic_args():
    return jnp.asarray(np.random.default_rng(0).uniform(0.2, 0.8, 5), jnp.float32), jnp.float32(1.5)


@family.gradient(euler, logistic_args, argnums=(0, 1), static={"steps": 4})
def adjoint_of_euler(x0, rate, steps):
    xs = [x0]
    for _ in range(steps):
        xs.append(xs[-1] + 0.1 * rate * xs[-1] * (1 - xs[-1]))
    adjoint, drate = jnp.ones_like(x0), 0.0
    for x in reversed(xs[:-1]):
        drate += 0.1 * jnp.sum(adjoint * x * (1 - x))
        adjoint = adjoint * (1 + 0.1 * rate * (1 - 2 * x))
    return adjoint, drate


@family.gradient(euler, logistic_args, "TERM_MISSING", argnums=(0, 1), static={"steps": 4})
def adjoint_rate_of_the_first_step(x0, rate, steps):
    """The gradient of a parameter used at every step is assigned, not accumulated."""
    xs = [x0]
    for _ in range(steps):
        xs.append(xs[-1] + 0.1 * rate * xs[-1] * (1 - xs[-1]))
    adjoint, drate = jnp.ones_like(x0), 0.0
    for x in reversed(xs[:-1]):
        drate = 0.1 * jnp.sum(adjoint * x * (1 - x))
        adjoint = adjoint * (1 + 0.1 * rate * (1 - 2 * x))
    return adjoint, drate


CASES = tuple(family.cases)
