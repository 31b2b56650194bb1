"""Right derivatives that stress a checker by their types, sizes, containers and options."""

import functools
from typing import NamedTuple

import jax
import numpy as np
from jax import lax
from jax import numpy as jnp

import funcbp

from ._case import Family, array, integers, normal, positive

family = Family("everyday")


def energy(x):
    return jnp.sum(jnp.sin(x) ** 2)


def energy_gradient(x):
    return 2 * jnp.sin(x) * jnp.cos(x)


@family.gradient(energy, lambda: (np.random.default_rng(0).standard_normal(6),))
def in_float64(x):
    return energy_gradient(x)


@family.gradient(energy, normal((6,), dtype=jnp.bfloat16))
def in_bfloat16(x):
    return energy_gradient(x)


@family.gradient(energy, normal((6,), dtype=jnp.float16))
def in_float16(x):
    return energy_gradient(x)


@family.gradient(energy, lambda: (jnp.float32(0.4),))
def of_a_scalar(x):
    return energy_gradient(x)


@family.gradient(lambda x: x**3 - 2 * x, lambda: (0.7,))
def of_a_python_float(x):
    return 3 * x**2 - 2


@family.gradient(energy, lambda: (jnp.zeros((0, 3)),))
def of_an_empty_array(x):
    return energy_gradient(x)


@family.gradient(energy, lambda: (jnp.zeros(5),))
def at_zero(x):
    return energy_gradient(x)


@family.gradient(lambda x: jnp.sum(jnp.sin(300 * x)), normal((6,)))
def high_frequency(x):
    return 300 * jnp.cos(300 * x)


@family.gradient(energy, normal((6,)))
@jax.jit
def jitted(x):
    return energy_gradient(x)


@family.gradient(lambda x: jnp.float32(3.0) + 0 * jnp.sum(x), normal((4,)))
def constant_function(x):
    return jnp.zeros_like(x)


@family.gradient(lambda used, unused: jnp.sum(used**2), normal((4,), (3,)), argnums=(0, 1))
def unused_argument(used, unused):
    return 2 * used, jnp.zeros_like(unused)


@family.gradient(lambda x: jnp.sum(jnp.floor(x)), normal((6,)))
def staircase(x):
    """Zero wherever it is differentiable."""
    return jnp.zeros_like(x)


@family.gradient(lambda x: (jnp.sum(x**2), {"norm": jnp.linalg.norm(x)}), normal((6,)), has_aux=True)
def reference_with_aux(x):
    return 2 * x


@family.gradient(lambda x, *, power: jnp.sum(jnp.abs(x) ** power), normal((6,)), static={"power": 3})
def static_option(x, *, power):
    return power * jnp.sign(x) * jnp.abs(x) ** (power - 1)


@family.gradient(lambda w, x: jnp.sum(jnp.tanh(x @ w)), normal((4,), (6, 4)))
def value_and_gradient(w, x):
    y = jnp.tanh(x @ w)
    return y.sum(), x.T @ (1 - y**2)


@family.gradient(lambda w, x: jnp.sum(jnp.tanh(x @ w)), normal((4,), (6, 4)), argnums=1)
def second_argument(w, x):
    return (1 - jnp.tanh(x @ w) ** 2)[:, None] * w


@family.gradient(lambda w, n: n * jnp.sum(w**2), lambda: (array((4,)), 3))
def python_integer_argument(w, n):
    return 2 * n * w


@family.gradient(lambda w, rows: jnp.sum(w[rows] ** 2), lambda: (array((5, 2)), integers((7,), 5)))
def integer_array_argument(w, rows):
    return 2 * w * jnp.bincount(rows, length=w.shape[0])[:, None]


class State(NamedTuple):
    position: jax.Array
    momentum: jax.Array


def hamiltonian(state, mass):
    return 0.5 * jnp.sum(state.momentum**2) / mass + jnp.sum(1 - jnp.cos(state.position))


@family.gradient(hamiltonian, lambda: (State(array((4,)), array((4,), 1)), jnp.float32(2.0)))
def named_tuple(state, mass):
    return State(jnp.sin(state.position), state.momentum / mass)


def mixture(params, x):
    weights = jax.nn.softmax(params["gate"]["logits"])
    return sum(w * jnp.sum(x @ expert["w"]) for w, expert in zip(weights, params["experts"], strict=True))


def mixture_args():
    params = {"gate": {"logits": array((2,))}, "experts": [{"w": array((3, 2), 1)}, {"w": array((3, 2), 2)}]}
    return params, array((5, 3), 3)


@family.gradient(mixture, mixture_args)
def nested_containers(params, x):
    p = jax.nn.softmax(params["gate"]["logits"])
    outputs = jnp.stack([jnp.sum(x @ expert["w"]) for expert in params["experts"]])
    each = jnp.broadcast_to(x.sum(0)[:, None], params["experts"][0]["w"].shape)
    return {
        "gate": {"logits": p * (outputs - p @ outputs)},
        "experts": [{"w": p[0] * each}, {"w": p[1] * each}],
    }


def complex_args():
    return (array((5,)) + 1j * array((5,), 1),)


@family.gradient(lambda z: jnp.sum(jnp.abs(z) ** 2), complex_args)
def complex_modulus(z):
    return 2 * jnp.conj(z)


@family.vjp(lambda z: z**2, complex_args, fwd=lambda z: (z**2, z))
def holomorphic_square(z, dy):
    return (dy * 2 * z,)


@family.vjp(lambda x: x * jnp.exp(1j * x), normal((5,)), fwd=lambda x: (x * jnp.exp(1j * x), x))
def real_to_complex(x, dy):
    return (jnp.real(dy * jnp.exp(1j * x) * (1 + 1j * x)),)


@family.vjp(
    lambda x: jnp.sort(x)[::-1], normal((9,)), fwd=lambda x: (jnp.sort(x)[::-1], jnp.argsort(x)[::-1])
)
def sorted_downward(order, dy):
    return (jnp.zeros_like(dy).at[order].add(dy),)


@jax.custom_vjp
def hand_made(x, w):
    return jax.nn.relu(x @ w)


hand_made.defvjp(
    lambda x, w: (jax.nn.relu(x @ w), (x, w)),
    lambda saved, dy: (
        (dy * (saved[0] @ saved[1] > 0)) @ saved[1].T,
        saved[0].T @ (dy * (saved[0] @ saved[1] > 0)),
    ),
)
family.vjp(lambda x, w: jnp.maximum(x @ w, 0), normal((5, 4), (4, 3)))(hand_made)


@jax.custom_vjp
def sign_slip(x):
    """A `jax.custom_vjp` with the sign of cos lost: cos' = +sin."""
    return jnp.cos(x)


sign_slip.defvjp(lambda x: (jnp.cos(x), x), lambda x, dy: (dy * jnp.sin(x),))
family.vjp(jnp.cos, normal((6,)), "SIGN")(sign_slip)


family.add("vjp", funcbp.rules.relu, jax.nn.relu, normal((5, 4)))
family.add("vjp", funcbp.rules.softmax, jax.nn.softmax, normal((5, 4)))


@family.vjp(
    lambda x: jax.nn.log_sigmoid(x),
    lambda: (jnp.asarray([-80.0, -1.0, 0.0, 40.0, 100.0]),),
    fwd=lambda x: (-jax.nn.softplus(-x), x),
)
def log_sigmoid_in_saturation(x, dy):
    return (dy * jax.nn.sigmoid(-x),)


@family.gradient(lambda x: jnp.prod(x), lambda: (positive((5,), low=0.5),))
def product_by_division(x):
    """Holds away from zero; all factors here are positive."""
    return jnp.stack([jnp.prod(jnp.delete(x, i)) for i in range(x.size)])


@family.gradient(lambda x: jnp.sum(x**2), normal((6,)))
def with_numpy(x):
    return 2 * np.asarray(x)


@family.vjp(jnp.tanh, normal((6,)), fwd=lambda x: (jnp.tanh(x), np.tanh(np.asarray(x))))
def residuals_of_numpy(y, dy):
    return (np.asarray(dy) * (1 - y**2),)


@family.vjp(lambda x: jnp.tanh(x), normal((6,)), fwd=lambda x: (jnp.tanh(x), jnp.tanh(x)))
def bare_cotangent(y, dy):
    """One argument, one array, no tuple."""
    return dy * (1 - y**2)


@family.gradient(lambda x: jnp.sum(jnp.sin(x) * x), normal((6,)))
def autodiff_itself(x):
    return jax.grad(lambda v: jnp.sum(jnp.sin(v) * v))(x)


@family.gradient(energy, normal((20, 30)))
def forward_mode(x):
    return jax.jvp(lambda v: jnp.sin(v) ** 2, (x,), (jnp.ones_like(x),))[1]


def iterate(x, steps):
    return jnp.sum(lax.fori_loop(0, steps, lambda _, v: jnp.sin(v), x))


@family.gradient(functools.partial(iterate, steps=5), normal((4,)))
def loop_with_partial(x):
    slope = jnp.ones_like(x)
    for _ in range(5):
        slope, x = slope * jnp.cos(x), jnp.sin(x)
    return slope


@family.jacobian(lambda x, y: jnp.outer(x, y), normal((3,), (2,)), argnums=0)
def jacobian_of_an_outer_product(x, y):
    return jnp.einsum("ik,j->ijk", jnp.eye(x.size, dtype=x.dtype), y)


@family.jacobian(lambda x: jnp.stack([x[0] * x[1], jnp.sin(x[2])]), normal((3,)))
def small_jacobian_by_hand(x):
    zero = jnp.zeros_like(x[0])
    return jnp.stack([jnp.stack([x[1], x[0], zero]), jnp.stack([zero, zero, jnp.cos(x[2])])])


@family.gradient(
    lambda x: 1e-3 * jnp.sum(x[0]) + 1e6 * jnp.sum(x[1] ** 2), lambda: ((array((3,)), array((3,), 1)),)
)
def leaves_of_different_size(x):
    return jnp.full_like(x[0], 1e-3), 2e6 * x[1]


CASES = tuple(family.cases)
