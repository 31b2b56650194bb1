"""The gates of recurrent cells, elementwise: stated once, for one step and for a scan over time.

A cell reads a = x W + b, from its input, and u = h U (+ b′), from its state; the products are not its
business. States are tuples whose first entry is h.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
from jax import numpy as jnp

from ..activations import sigmoid

__all__ = ["ELMAN", "GRU", "LSTM", "Cell", "check_gates"]

Arrays = tuple[jax.Array, ...]


class Cell(NamedTuple):
    """A cell between its products.

    Attributes:
        gates: how many times as wide a and u are as h.
        step: `(a, u, state) -> (new state, saved)`.
        back: `(saved, state, new state, ct of the new state) -> (ā, ct of the state but for what u brings)`.
        state_ct: `(ā, saved) -> ū`, the same array where a and u are added.
    """

    gates: int
    step: Callable[[jax.Array, jax.Array, Arrays], tuple[Arrays, Arrays]]
    back: Callable[[Arrays, Arrays, Arrays, Arrays], tuple[jax.Array, Arrays]]
    state_ct: Callable[[jax.Array, Arrays], jax.Array]


def check_gates(rule: str, cell: Cell, features: int, gates: int) -> None:
    """Raise unless the weights have the width of all gates together."""
    if gates != cell.gates * features:
        raise ValueError(
            f"{rule}: `w_state` has shape ({features}, {gates}), expected ({features}, "
            f"{cell.gates * features}): {cell.gates} gates beside each other."
        )


def _elman_step(a: jax.Array, u: jax.Array, state: Arrays) -> tuple[Arrays, Arrays]:
    del state
    return (jnp.tanh(a + u),), ()


def _elman_back(saved: Arrays, state: Arrays, new: Arrays, new_ct: Arrays) -> tuple[jax.Array, Arrays]:
    del saved, state
    (h,), (h_ct,) = new, new_ct
    return (1 - h) * (1 + h) * h_ct, (jnp.zeros_like(h_ct),)


def _gru_step(a: jax.Array, u: jax.Array, state: Arrays) -> tuple[Arrays, Arrays]:
    (h,) = state
    (a_r, a_z, a_n), (u_r, u_z, m) = jnp.split(a, 3, -1), jnp.split(u, 3, -1)
    r, z = sigmoid.primal(a_r + u_r), sigmoid.primal(a_z + u_z)
    n = jnp.tanh(a_n + r * m)
    return ((1 - z) * n + z * h,), (r, z, n, m)


def _gru_back(saved: Arrays, state: Arrays, new: Arrays, new_ct: Arrays) -> tuple[jax.Array, Arrays]:
    del new
    (r, z, n, m), (h,), (h_ct,) = saved, state, new_ct
    n_ct = (1 - n) * (1 + n) * (1 - z) * h_ct
    z_ct = z * (1 - z) * (h - n) * h_ct
    r_ct = r * (1 - r) * m * n_ct
    return jnp.concatenate([r_ct, z_ct, n_ct], -1), (z * h_ct,)


def _gru_state_ct(a_ct: jax.Array, saved: Arrays) -> jax.Array:
    r_ct, z_ct, n_ct = jnp.split(a_ct, 3, -1)
    return jnp.concatenate([r_ct, z_ct, n_ct * saved[0]], -1)


def _lstm_step(a: jax.Array, u: jax.Array, state: Arrays) -> tuple[Arrays, Arrays]:
    i, f, g, o = jnp.split(a + u, 4, -1)
    i, f, g, o = sigmoid.primal(i), sigmoid.primal(f), jnp.tanh(g), sigmoid.primal(o)
    c = f * state[1] + i * g
    return (o * jnp.tanh(c), c), (i, f, g, o)


def _lstm_back(saved: Arrays, state: Arrays, new: Arrays, new_ct: Arrays) -> tuple[jax.Array, Arrays]:
    (i, f, g, o), (_, c), (_, c_new), (h_ct, c_ct) = saved, state, new, new_ct
    t = jnp.tanh(c_new)
    c_ct = c_ct + o * (1 - t) * (1 + t) * h_ct
    gates = (
        i * (1 - i) * g * c_ct,
        f * (1 - f) * c * c_ct,
        (1 - g) * (1 + g) * i * c_ct,
        o * (1 - o) * t * h_ct,
    )
    return jnp.concatenate(gates, -1), (jnp.zeros_like(h_ct), f * c_ct)


def _same(a_ct: jax.Array, saved: Arrays) -> jax.Array:
    del saved
    return a_ct


ELMAN = Cell(1, _elman_step, _elman_back, _same)
GRU = Cell(3, _gru_step, _gru_back, _gru_state_ct)
LSTM = Cell(4, _lstm_step, _lstm_back, _same)
