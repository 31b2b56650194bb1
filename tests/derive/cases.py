"""Functions whose derivations are kept as golden files, by family."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
from jax import numpy as jnp

SIZES = {"b": 2, "m": 3, "n": 4, "k": 5, "l": 6, "d": 7, "c": 8, "h": 9}


@dataclass(frozen=True)
class Case:
    """One function: `dims` says what its arguments are."""

    function: Callable[..., Any]
    dims: dict[str, str]
    wrt: tuple[str, ...] | None = None
    assume: tuple[str, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def specs(self) -> list[jax.ShapeDtypeStruct]:
        shapes = [
            [int(d) if d.isdigit() else SIZES[d] for d in spelled.split()] for spelled in self.dims.values()
        ]
        return [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]


def _layer_norm(x, gain, bias):
    centered = x - x.mean(-1, keepdims=True)
    return gain * centered / jnp.sqrt((centered**2).mean(-1, keepdims=True) + 1e-5) + bias


def _attention(X, Q, K, V):
    scores = (X @ Q) @ (X @ K).T / jnp.sqrt(Q.shape[1])
    return jax.nn.softmax(scores) @ (X @ V)


def _gaussian_process(K, y):
    return 0.5 * y @ jnp.linalg.solve(K, y) + 0.5 * jnp.linalg.slogdet(K)[1]


def _gaussian(X, mu, S):
    R = X - mu
    n = X.shape[0]
    return 0.5 * jnp.sum((R @ jnp.linalg.inv(S)) * R) + 0.5 * n * jnp.linalg.slogdet(S)[1]


def _cross_entropy(Z, Y):
    return -jnp.mean(jnp.sum(Y * jax.nn.log_softmax(Z), axis=1))


def _cross_entropy_by_hand(Z, Y):
    e = jnp.exp(Z)
    return -jnp.mean(jnp.sum(Y * jnp.log(e / e.sum(1, keepdims=True)), axis=1))


def _binary(p, y):
    q = jax.nn.sigmoid(p)
    return -jnp.sum(y * jnp.log(q) + (1 - y) * jnp.log(1 - q))


def _residual(W, V, x, y):
    h = x + V @ jnp.tanh(W @ x)
    return 0.5 * jnp.sum((h - y) ** 2)


def _shared(W, x, y):
    return y @ jnp.tanh(W @ jnp.tanh(W @ x))


def _three_layers(W01, W12, W23, x0, y, s):
    return 0.5 * jnp.sum((s(W23 @ s(W12 @ s(W01 @ x0))) - y) ** 2)


_CHAIN = {"W01": "k l", "W12": "n k", "W23": "m n", "x0": "l", "y": "m"}
_AB = {"A": "m n", "B": "n k", "x": "k", "y": "m"}
_TWO = ("A", "B")
_NET = {"X": "m n", "W1": "n k", "b1": "k", "W2": "k c", "b2": "c", "Y": "m c"}
s = jax.nn.sigmoid


def _recurrent(W, U, b, h0, X):
    def step(h, x):
        h = jnp.tanh(W @ h + U @ x + b)
        return h, h

    return jax.lax.scan(step, h0, X)


def _recurrent_rows(W, U, b, X, Y):
    def step(H, x):
        H = jnp.tanh(H @ W + x @ U + b)
        return H, None

    last, _ = jax.lax.scan(step, jnp.zeros((X.shape[1], b.shape[0])), X)
    return 0.5 * jnp.sum((last - Y) ** 2)


def _moving_average(alpha, x, y):
    def step(h, x):
        h = alpha * h + (1 - alpha) * x
        return h, h

    _, h = jax.lax.scan(step, 0.0, x)
    return 0.5 * jnp.sum((h - y) ** 2)


def _cell(F, W, U, c0, X, y):
    def step(state, x):
        h, c = state
        gate = jax.nn.sigmoid(F @ h)
        c = gate * c + (1 - gate) * jnp.tanh(W @ h + U @ x)
        return (jnp.tanh(c), c), None

    (h, _), _ = jax.lax.scan(step, (jnp.zeros(c0.shape), c0), X)
    return y @ h


def _sequence_model(W, U, V, X, Y):
    def step(h, x):
        h = jnp.tanh(W @ h + U @ x)
        return h, V @ h

    _, Z = jax.lax.scan(step, jnp.zeros(W.shape[0]), X)
    return _cross_entropy(Z, Y)


def _backwards(W, X, y):
    def step(h, x):
        h = jnp.tanh(W @ h + x)
        return h, None

    return y @ jax.lax.scan(step, y, jnp.sin(X), reverse=True)[0]


def _power_iteration(A, x):
    return jnp.sum(jax.lax.fori_loop(0, 3, lambda _, x: jnp.linalg.inv(A * x[0]) @ x, x))


def _two_scans(W, h0, X):
    def step(h, x):
        h = jnp.tanh(W @ h + x)
        return h, h

    last, H = jax.lax.scan(step, h0, X)
    final, _ = jax.lax.scan(lambda h, x: (x * h * last, None), last, H, reverse=True)
    return jnp.sum(final)


_STATES = {"W": "n n", "U": "n d", "b": "n", "h0": "n", "X": "k d"}


CASES: dict[str, Case] = {
    # the boxed identities of the backpropagation text
    "linear": Case(lambda A, x, y: y @ A @ x, {"A": "m n", "x": "n", "y": "m"}, ("A",)),
    "linear_two": Case(lambda A, B, x, y: y @ A @ B @ x, _AB, _TWO),
    "quadratic": Case(lambda A, x: 0.5 * x @ A.T @ A @ x, {"A": "m n", "x": "n"}, ("A",)),
    "quadratic_two": Case(
        lambda A, B, x: 0.5 * x @ B.T @ A.T @ A @ B @ x, {"A": "m n", "B": "n k", "x": "k"}, _TWO
    ),
    "activated": Case(lambda A, x, y: y @ s(A @ x), {"A": "m n", "x": "n", "y": "m"}, ("A",)),
    "nested": Case(lambda A, B, x, y: y @ s(A @ jnp.tanh(B @ x)), _AB, _TWO),
    "quadratic_activated": Case(lambda A, x: 0.5 * s(A @ x) @ s(A @ x), {"A": "m n", "x": "n"}, ("A",)),
    "quadratic_nested": Case(
        lambda A, B, x: 0.5 * jnp.sum(s(A @ jnp.tanh(B @ x)) ** 2), {"A": "m n", "B": "n k", "x": "k"}, _TWO
    ),
    "squared_nested": Case(lambda A, B, x, y: 0.5 * jnp.sum((s(A @ jnp.tanh(B @ x)) - y) ** 2), _AB, _TWO),
    "chain_linear": Case(
        lambda W01, W12, W23, x0, y: _three_layers(W01, W12, W23, x0, y, lambda p: p),
        _CHAIN,
        ("W01", "W12", "W23"),
    ),
    "chain_nonlinear": Case(
        lambda W01, W12, W23, x0, y: _three_layers(W01, W12, W23, x0, y, s), _CHAIN, ("W01", "W12", "W23")
    ),
    "least_squares": Case(
        lambda X, W, Y: jnp.sum((X @ W - Y) ** 2) / (2 * X.shape[0]),
        {"X": "m n", "W": "n k", "Y": "m k"},
        ("W",),
    ),
    "logistic_layer": Case(
        lambda w, x, b, y: 0.5 * (s(w @ x + b) - y) ** 2, {"w": "n", "x": "n", "b": "", "y": ""}, ("w", "b")
    ),
    # index notation
    "index_linear": Case(lambda A, B, x, y: y @ A @ B @ x, _AB, _TWO, options={"style": "index"}),
    "index_nested": Case(
        lambda A, B, x, y: y @ s(A @ jnp.tanh(B @ x)), _AB, _TWO, options={"style": "index"}
    ),
    # products, traces, sums
    "trace": Case(lambda A, X: jnp.trace(A @ X), {"A": "m n", "X": "n m"}, ("X",)),
    "trace_quadratic": Case(lambda A, X: jnp.trace(X.T @ A @ X), {"A": "n n", "X": "n k"}, ("X",)),
    "frobenius": Case(lambda A, B: jnp.sum(A * B), {"A": "m n", "B": "m n"}),
    "bilinear": Case(lambda A, X, B: jnp.sum((A @ X) * B), {"A": "m n", "X": "n k", "B": "m k"}, ("X",)),
    "row_sums": Case(lambda X, w: jnp.sum(X.sum(1) * w), {"X": "m n", "w": "m"}),
    "mean_square": Case(lambda x: jnp.mean(x**2), {"x": "n"}),
    "diagonal": Case(lambda A, x: jnp.sum(jnp.diagonal(A) * x), {"A": "n n", "x": "n"}),
    "matrix_power": Case(lambda A, x, y: y @ A @ A @ x, {"A": "n n", "x": "n", "y": "n"}, ("A",)),
    "symmetric": Case(lambda S, x: 0.5 * x @ S @ x, {"S": "n n", "x": "n"}, ("x",), ("S symmetric",)),
    "quadratic_form": Case(lambda A, x: x @ A @ x, {"A": "n n", "x": "n"}),
    "factorization": Case(
        lambda U, V, M: 0.5 * jnp.sum((U @ V.T - M) ** 2), {"U": "m k", "V": "n k", "M": "m n"}, ("U", "V")
    ),
    "einsum": Case(lambda A, B, C: jnp.einsum("ij,jk,ki->", A, B, C), {"A": "m n", "B": "n k", "C": "k m"}),
    "batched": Case(
        lambda A, B: jnp.sum(jnp.einsum("bij,bjk->bik", A, B) ** 2), {"A": "b m n", "B": "b n k"}
    ),
    # losses
    "ridge": Case(
        lambda X, w, y, a: 0.5 * jnp.sum((X @ w - y) ** 2) + 0.5 * a * w @ w,
        {"X": "m n", "w": "n", "y": "m", "a": ""},
        ("w",),
    ),
    "logistic_regression": Case(
        lambda X, w, y: jnp.mean(jax.nn.softplus(X @ w) - y * (X @ w)),
        {"X": "m n", "w": "n", "y": "m"},
        ("w",),
    ),
    "binary_cross_entropy": Case(_binary, {"p": "n", "y": "n"}, ("p",)),
    "cross_entropy": Case(_cross_entropy, {"Z": "m c", "Y": "m c"}, ("Z",), ("rows of Y sum to one",)),
    "cross_entropy_free": Case(_cross_entropy, {"Z": "m c", "Y": "m c"}, ("Z",)),
    "cross_entropy_by_hand": Case(
        _cross_entropy_by_hand, {"Z": "m c", "Y": "m c"}, ("Z",), ("rows of Y sum to one",)
    ),
    "softmax_regression": Case(
        lambda X, W, Y: _cross_entropy(X @ W, Y),
        {"X": "m n", "W": "n c", "Y": "m c"},
        ("W",),
        ("rows of Y sum to one",),
    ),
    "huber": Case(
        lambda x, y: jnp.sum(jnp.where(jnp.abs(x - y) < 1, 0.5 * (x - y) ** 2, jnp.abs(x - y) - 0.5)),
        {"x": "n", "y": "n"},
        ("x",),
    ),
    "log_cosh": Case(lambda x, y: jnp.sum(jnp.log(jnp.cosh(x - y))), {"x": "n", "y": "n"}, ("x",)),
    "hinge": Case(
        lambda X, w, y: jnp.mean(jax.nn.relu(1 - y * (X @ w))), {"X": "m n", "w": "n", "y": "m"}, ("w",)
    ),
    # networks
    "network": Case(
        lambda X, W1, b1, W2, b2, Y: _cross_entropy(jnp.tanh(X @ W1 + b1) @ W2 + b2, Y),
        _NET,
        ("W1", "b1", "W2", "b2"),
        ("rows of Y sum to one",),
    ),
    "relu_network": Case(
        lambda X, W1, b1, W2, b2, Y: jnp.sum((jax.nn.relu(X @ W1 + b1) @ W2 + b2 - Y) ** 2) / 2,
        _NET,
        ("W1", "b1", "W2", "b2"),
    ),
    "residual": Case(_residual, {"W": "k n", "V": "n k", "x": "n", "y": "n"}, ("W", "V")),
    "shared": Case(_shared, {"W": "n n", "x": "n", "y": "n"}, ("W",)),
    "vmapped": Case(
        lambda X, W, y: jnp.sum(jax.vmap(lambda x: jnp.tanh(x @ W))(X) @ y),
        {"X": "m n", "W": "n k", "y": "k"},
        ("W",),
    ),
    "gelu": Case(lambda x: jnp.sum(jax.nn.gelu(x)), {"x": "n"}),
    "silu_gate": Case(
        lambda x, W, V, y: y @ (jax.nn.silu(W @ x) * (V @ x)),
        {"x": "n", "W": "k n", "V": "k n", "y": "k"},
        ("W", "V"),
    ),
    # normalization and attention
    "layer_norm": Case(
        lambda x, gain, bias, y: jnp.sum(_layer_norm(x, gain, bias) * y),
        {"x": "m n", "gain": "n", "bias": "n", "y": "m n"},
        ("x", "gain", "bias"),
    ),
    "layer_norm_row": Case(
        lambda x, y: y @ ((x - x.mean()) / jnp.sqrt(jnp.var(x))), {"x": "n", "y": "n"}, ("x",)
    ),
    "norm": Case(jnp.linalg.norm, {"x": "n"}, options={"names": ["x"]}),
    "cosine": Case(
        lambda x, y: x @ y / (jnp.linalg.norm(x) * jnp.linalg.norm(y)), {"x": "n", "y": "n"}, ("x",)
    ),
    "row_norms": Case(lambda X, w: w @ jnp.sqrt(jnp.sum(X**2, axis=1)), {"X": "m n", "w": "m"}, ("X",)),
    "softmax": Case(lambda z, y: y @ jax.nn.softmax(z), {"z": "n", "y": "n"}, ("z",)),
    "logsumexp": Case(jax.nn.logsumexp, {"z": "n"}, options={"names": ["z"]}),
    "attention_scores": Case(
        lambda Q, K, V, Y: jnp.sum(jax.nn.softmax(Q @ K.T / jnp.sqrt(K.shape[1])) @ V * Y),
        {"Q": "m d", "K": "n d", "V": "n h", "Y": "m h"},
        ("Q", "K", "V"),
    ),
    "attention": Case(
        lambda X, Q, K, V, Y: 0.5 * jnp.sum((_attention(X, Q, K, V) - Y) ** 2),
        {"X": "m n", "Q": "n d", "K": "n d", "V": "n h", "Y": "m h"},
        ("Q", "K", "V"),
    ),
    # linear algebra
    "logdet": Case(lambda A: jnp.linalg.slogdet(A)[1], {"A": "n n"}),
    "det": Case(lambda A, X: jnp.linalg.det(A @ X), {"A": "n n", "X": "n n"}, ("X",)),
    "inverse": Case(
        lambda A, X, B: jnp.trace(A @ jnp.linalg.inv(X) @ B), {"A": "m n", "X": "n n", "B": "n m"}, ("X",)
    ),
    "solve": Case(lambda A, b, y: y @ jnp.linalg.solve(A, b), {"A": "n n", "b": "n", "y": "n"}),
    "gaussian_process": Case(_gaussian_process, {"K": "n n", "y": "n"}, ("K",), ("K > 0",)),
    "gaussian": Case(_gaussian, {"X": "m n", "mu": "n", "S": "n n"}, ("mu", "S")),
    "cholesky": Case(lambda A, y: y @ jnp.linalg.cholesky(A) @ y, {"A": "n n", "y": "n"}, ("A",)),
    # blocks, choices, maxima
    "concatenate": Case(
        lambda x, y, W: jnp.sum(jnp.tanh(W @ jnp.concatenate([x, y])) ** 2) / 2,
        {"x": "m", "y": "n", "W": "k d"},
        ("x", "y"),
    ),
    "slices": Case(lambda x, y: y @ (x[1:] - x[:-1]) ** 2, {"x": "n", "y": "m"}, ("x",)),
    "row": Case(lambda X, y: jnp.tanh(X[0]) @ y, {"X": "m n", "y": "n"}, ("X",)),
    "maximum": Case(lambda x, y: jnp.sum(jnp.maximum(x, y) ** 2), {"x": "n", "y": "n"}, ("x",)),
    "largest": Case(lambda X, w: w @ jnp.max(X, axis=1), {"X": "m n", "w": "m"}, ("X",)),
    "lower_triangle": Case(lambda A, x: jnp.sum((jnp.tril(A) @ x) ** 2) / 2, {"A": "n n", "x": "n"}, ("A",)),
    "cumulative": Case(lambda x, y: y @ jnp.tanh(jnp.cumsum(x)), {"x": "n", "y": "n"}, ("x",)),
    "reshaped": Case(lambda X, y: y @ jnp.tanh(X.reshape(-1)), {"X": "2 3", "y": "6"}, ("X",)),
    "column": Case(lambda X, w, y: jnp.sum((X @ w - y) ** 2), {"X": "m n", "w": "n 1", "y": "m 1"}, ("w",)),
    # recurrences
    "recurrent": Case(
        lambda W, U, b, h0, X, y: 0.5 * jnp.sum((_recurrent(W, U, b, h0, X)[0] - y) ** 2),
        _STATES | {"y": "n"},
        ("W", "U", "b", "h0", "X"),
    ),
    "recurrent_stacked": Case(
        lambda W, U, b, h0, X, Y: 0.5 * jnp.sum((_recurrent(W, U, b, h0, X)[1] - Y) ** 2),
        _STATES | {"Y": "k n"},
        ("W", "U", "b", "h0"),
    ),
    "recurrent_rows": Case(
        _recurrent_rows, {"W": "n n", "U": "d n", "b": "n", "X": "k m d", "Y": "m n"}, ("W", "U", "b")
    ),
    "moving_average": Case(_moving_average, {"alpha": "", "x": "n", "y": "n"}, ("alpha", "x")),
    "cell": Case(
        _cell,
        {"F": "n n", "W": "n n", "U": "n d", "c0": "n", "X": "k d", "y": "n"},
        ("F", "W", "U", "c0"),
    ),
    "sequence_model": Case(
        _sequence_model,
        {"W": "n n", "U": "n d", "V": "c n", "X": "k d", "Y": "k c"},
        ("W", "U", "V"),
        ("rows of Y sum to one",),
    ),
    "backwards": Case(_backwards, {"W": "n n", "X": "k n", "y": "n"}),
    "power_iteration": Case(_power_iteration, {"A": "n n", "x": "n"}),
    "two_scans": Case(_two_scans, {"W": "n n", "h0": "n", "X": "k n"}),
    "index_recurrent": Case(
        lambda W, U, b, h0, X, y: y @ _recurrent(W, U, b, h0, X)[0],
        _STATES | {"y": "n"},
        ("W", "h0", "X"),
        options={"style": "index"},
    ),
}
