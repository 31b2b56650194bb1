"""Functions whose derivations the README shows."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

import funcbp

__all__ = ["NESTED", "READ_ALOUD", "Shown"]


@dataclass(frozen=True)
class Shown:
    """A function, and what it is derived with.

    Attributes:
        title: what it is called.
        function: to be derived; one return statement.
        dims: dimensions of every argument, single letters.
        wrt: the arguments to differentiate by.
        assume: facts that simplifications may use.
    """

    title: str
    function: Callable[..., Any]
    dims: dict[str, str]
    wrt: tuple[str, ...]
    assume: tuple[str, ...] = ()

    def derivation(self) -> funcbp.Derivation:
        letters = sorted({letter for spelled in self.dims.values() for letter in spelled.split()})
        sizes = {letter: 2 + k for k, letter in enumerate(letters)}
        specs = [
            jax.ShapeDtypeStruct([sizes[d] for d in dims.split()], jnp.float32) for dims in self.dims.values()
        ]
        return funcbp.derive(self.function, *specs, wrt=self.wrt, dims=self.dims, assume=self.assume)


def nested(A, B, x, y):
    return y @ jax.nn.sigmoid(A @ jnp.tanh(B @ x))


def least_squares(X, W, Y):
    return jnp.sum((X @ W - Y) ** 2) / (2 * X.shape[0])


def cross_entropy(X, W, Y):
    return -jnp.mean(jnp.sum(Y * jax.nn.log_softmax(X @ W), axis=1))


def layer_norm(x, y):
    return y @ ((x - jnp.mean(x)) / jnp.std(x))


NESTED = Shown("Two layers", nested, {"A": "m n", "B": "n k", "x": "k", "y": "m"}, ("A", "B"))

READ_ALOUD = (
    Shown("Least squares", least_squares, {"X": "n d", "W": "d k", "Y": "n k"}, ("W",)),
    Shown(
        "Softmax cross-entropy where the rows of Y sum to one",
        cross_entropy,
        {"X": "n d", "W": "d k", "Y": "n k"},
        ("W",),
        ("rows of Y sum to one",),
    ),
    Shown("Layer norm of one row", layer_norm, {"x": "n", "y": "n"}, ("x",)),
)
