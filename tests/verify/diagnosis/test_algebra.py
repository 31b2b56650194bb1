"""Mistakes that show in the numbers alone."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest
from jax import numpy as jnp

from funcbp.verify import Cause
from tests.verify.diagnosis.cases import diagnosed


def matmul(x: jax.Array, w: jax.Array) -> jax.Array:
    return jnp.tanh(x) @ w


def right(x: jax.Array, w: jax.Array, ct: jax.Array) -> tuple[jax.Array, jax.Array]:
    return jax.vjp(matmul, x, w)[1](ct)


def square(rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    return rng.normal(size=(4, 4)), rng.normal(size=(4, 4))


def oblong(rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    return rng.normal(size=(3, 5)), rng.normal(size=(5, 7))


Change = Callable[[Any, Any], tuple[Any, Any]]
CASES: dict[str, tuple[Change, Callable[..., Any], Cause, str]] = {
    "sign": (lambda x, w: (-x, w), oblong, Cause.SIGN, "x: minus the truth"),
    "both signs": (lambda x, w: (-x, -w), oblong, Cause.SIGN, "x and w: minus the truth"),
    "half": (lambda x, w: (x, w / 2), oblong, Cause.CONSTANT_FACTOR, "times 1/2"),
    "mean": (lambda x, w: (x, w / 3), oblong, Cause.CONSTANT_FACTOR, "1/n, n = 3, the length of axis 0 of x"),
    "root": (
        lambda x, w: (x, w / 7**0.5),
        oblong,
        Cause.CONSTANT_FACTOR,
        "1/√n, n = 7, the length of axis 1 of w",
    ),
    "odd factor": (lambda x, w: (x, 0.999 * w), oblong, Cause.CONSTANT_FACTOR, "times 0.999"),
    "zero": (lambda x, w: (x, 0 * w), oblong, Cause.ZERO, "w: always zero"),
    "transposed": (lambda x, w: (x, w.T), square, Cause.TRANSPOSED, "transpose"),
    "shape repaired": (lambda x, w: (x, w.T.reshape(w.shape)), oblong, Cause.TRANSPOSED, "reshape"),
    "exchanged": (lambda x, w: (w, x), square, Cause.SWAPPED, "belongs to w"),
    "reversed": (lambda x, w: (x[::-1], w), oblong, Cause.PERMUTED, "axis 0"),
    "rolled": (lambda x, w: (jnp.roll(x, 1, 0), w), oblong, Cause.OFF_BY_ONE, "one step later"),
    "shifted": (
        lambda x, w: (jnp.concatenate([jnp.zeros_like(x[:1]), x[:-1]]), w),
        oblong,
        Cause.OFF_BY_ONE,
        "moved in is zero",
    ),
    "first step": (lambda x, w: (x.at[0].set(0), w), oblong, Cause.OFF_BY_ONE, "first index of axis 0"),
    "summed": (lambda x, w: (x + 0 * x, w.sum(0) + 0 * w), oblong, Cause.REDUCTION, "summed over axis 0"),
    "minus transposed": (lambda x, w: (x, -w.T), square, Cause.TRANSPOSED, "and besides: minus"),
    "ones": (lambda x, w: (jnp.ones_like(x), w), oblong, Cause.FACTOR_MISSING, "one everywhere"),
}


@pytest.mark.parametrize("name", CASES)
def test_algebra_names_the_cause(name: str):
    change, draw, cause, words = CASES[name]
    (first, *_) = diagnosed(matmul, lambda x, w, ct: change(*right(x, w, ct)), draw)
    assert first.cause is cause, first
    assert words in first.message, first


def test_a_right_gradient_has_no_diagnosis():
    assert diagnosed(matmul, right, oblong) == ()


def test_several_causes_are_told_apart():
    x, w = diagnosed(matmul, lambda x, w, ct: (-right(x, w, ct)[0], 2 * right(x, w, ct)[1]), oblong)
    assert (x.cause, x.leaves) == (Cause.SIGN, (0,))
    assert (w.cause, w.leaves, w.factor) == (Cause.CONSTANT_FACTOR, (1,), pytest.approx(2.0))


def test_a_forgotten_sum_shows_in_the_shape():
    def shifted(x: jax.Array, b: jax.Array) -> jax.Array:
        return jnp.sin(x) + b

    def backward(x: jax.Array, b: jax.Array, ct: jax.Array) -> tuple[jax.Array, jax.Array]:
        return ct * jnp.cos(x), ct

    (only,) = diagnosed(shifted, backward, lambda rng: (rng.normal(size=(3, 4)), rng.normal(size=(4,))))
    assert (only.cause, only.leaves) == (Cause.BROADCAST, (1,))
    assert "sum over axis 0" in only.message


def test_the_conjugate_is_told_from_the_truth():
    def scaled(z: jax.Array, a: jax.Array) -> jax.Array:
        return z * z * a

    def draw(rng: np.random.Generator) -> tuple[np.ndarray, ...]:
        return tuple(rng.normal(size=4) + 1j * rng.normal(size=4) for _ in range(2))

    (only,) = diagnosed(scaled, lambda z, a, ct: (jnp.conj(2 * z * a * ct), z * z * ct), draw)
    assert (only.cause, only.leaves) == (Cause.SIGN, (0,))
    assert "conjugate" in only.message
