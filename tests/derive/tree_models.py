"""Ways to make an array from smaller ones: recurrences, blocks, layers, norms, batches of functions."""

from collections.abc import Callable
from typing import Any

import jax
from jax import numpy as jnp

from .tree_grower import SIZES, Grower, Grown, Shape, Way

Step = Callable[[Any, Any, Any, Any], Any]
STEPS: dict[str, Step] = {  # of a state h, a row x, a matrix W and a vector b
    "tanh layer": lambda h, x, W, b: jnp.tanh(W @ h + x + b),
    "gated": lambda h, x, W, b: (1 - jax.nn.sigmoid(x)) * h + jax.nn.sigmoid(x) * jnp.tanh(W @ h),
    "average": lambda h, x, W, b: jnp.tanh(b) * h + x,
    "scaled": lambda h, x, W, b: jax.nn.sigmoid(W @ x) * h + b * x,
    "residual": lambda h, x, W, b: h + 0.1 * W @ jax.nn.silu(h * x),
    "softmax": lambda h, x, W, b: jax.nn.softmax(W @ h + b) + x,
    "normed": lambda h, x, W, b: (W @ h + x) / jnp.sqrt(1 + h @ h),
}


def _recurrence(g: Grower, d: str, depth: int) -> tuple[str, Callable[[dict[str, Any]], tuple[Any, Any]]]:
    """A scan over rows; its last state and its stack of states."""
    name, step = g.random.choice(list(STEPS.items()))
    reverse = g.random.random() < 0.3
    (h, start), (rows, X) = g.grow((d,), depth - 2), g.grow((g.other(d), d), depth - 1)
    (weight, W), (bias, b) = g.grow((d, d), depth - 2), g.grow((d,), depth - 2)

    def value(env: dict[str, Any]) -> tuple[Any, Any]:
        weights, biases = W(env), b(env)

        def one(h, x):
            h = step(h, x, weights, biases)
            return h, h

        return jax.lax.scan(one, start(env), X(env), reverse=reverse)

    return f"{name} scan({h}, {rows}, {weight}, {bias})", value


def _last_state(g: Grower, shape: Shape, depth: int) -> Grown:
    text, both = _recurrence(g, shape[0], depth)
    return f"{text}.last", lambda env: both(env)[0]


def _states(g: Grower, shape: Shape, depth: int) -> Grown:
    d = shape[1]
    steps, (rows, X) = g.random.choice(list(STEPS.items())), g.grow(shape, depth - 1)
    (h, start), (weight, W) = g.grow((d,), depth - 2), g.grow((d, d), depth - 2)

    def value(env):
        first, weights = start(env), W(env)

        def one(h, x):
            h = steps[1](h, x, weights, first)
            return h, jnp.sin(h) if len(steps[0]) > 5 else h

        return jax.lax.scan(one, first, X(env))[1]

    return f"{steps[0]} states({h}, {rows}, {weight})", value


def _summed_steps(g: Grower, shape: Shape, depth: int) -> Grown:
    """A sum that a loop carries: a scalar for every step."""
    d = g.other()
    text, both = _recurrence(g, d, depth)
    (s, u) = g.grow((d,), depth - 2)

    def value(env):
        last, states = both(env)
        weights = u(env)
        add = lambda total, h: (total + jnp.tanh(h @ weights), None)  # noqa: E731
        return jax.lax.scan(add, last[0], states)[0]

    return f"Σ {text} · {s}", value


def _powers(g: Grower, shape: Shape, depth: int) -> Grown:
    """A loop that only its state goes through."""
    d, count = shape[0], g.random.choice([2, 3])
    (s, a), (t, x) = g.grow((d, d), depth - 1), g.grow((d,), depth)

    def value(env):
        matrix, start = a(env), x(env)
        return jax.lax.fori_loop(0, count, lambda _, h: jnp.tanh(matrix @ h) + start, start)

    return f"loop({s}, {t})", value


def _row_map(g: Grower, shape: Shape, depth: int) -> Grown:
    c = g.other(shape[1])
    (s, x), (t, w) = g.grow((shape[0], c), depth), g.grow((c, shape[1]), depth - 1)

    def value(env):
        weights = w(env)
        return jax.lax.map(lambda row: jnp.sin(row @ weights), x(env))

    return f"map({s}, {t})", value


def _window(g: Grower, shape: Shape, depth: int) -> Grown | None:
    """A part of two arrays joined, of which each was larger."""
    axis = g.random.randrange(len(shape))
    second = g.other(shape[axis])
    name, f = g.random.choice([("tanh", jnp.tanh), ("softmax", jax.nn.softmax), ("square", jnp.square)])
    start = g.random.randrange(SIZES[second] + 1)
    (s, x), (t, y) = g.grow(shape, depth), g.grow((*shape[:axis], second, *shape[axis + 1 :]), depth - 1)

    def value(env):
        whole = f(jnp.concatenate([x(env), y(env)], axis=axis))
        return jax.lax.slice_in_dim(whole, start, start + SIZES[shape[axis]], axis=axis)

    return f"{name}([{s}; {t}])[{start}:]", value


def _strided(g: Grower, shape: Shape, depth: int) -> Grown | None:
    if shape[0] != "m":
        return None
    odd = g.random.random() < 0.5
    text, x = g.grow(("k", *shape[1:]), depth)
    return f"{text}[::2]", lambda env: x(env)[1::2] if odd else x(env)[::2]


def _flattened(g: Grower, shape: Shape, depth: int) -> Grown | None:
    """Vectors of the largest size from two by two."""
    if shape != ("k",):
        return None
    (s, x), (t, y) = g.grow(("m",), depth), g.grow(("m",), depth - 1)
    (u, a) = g.grow(("m", "m"), depth)
    return g.random.choice(
        [
            (f"kron({s}, {t})", lambda env: jnp.kron(x(env), y(env))),
            (f"ravel({u})", lambda env: jnp.ravel(a(env))),
            (f"tile({s})", lambda env: jnp.tile(x(env), 2)),
            (f"repeat({t})", lambda env: jnp.repeat(y(env), 2)),
            (f"pad({s})", lambda env: jnp.pad(x(env), (1, 1))),
        ]
    )


def _einsum(g: Grower, shape: Shape, depth: int) -> Grown:
    """Three operands, of which the last is small."""
    first, second, third = {
        0: [("abc", "bd", "acd"), ("ab", "bc", "ca"), ("a", "ab", "b"), ("ab", "ab", "a")],
        1: [("ab", "bc", "c"), ("ba", "b", "bc"), ("abc", "c", "b"), ("aa", "a", "ab")],
        2: [("ac", "cd", "db"), ("abc", "c", "cd"), ("ab", "a", "b"), ("abc", "cd", "bd")],
    }[len(shape)][g.random.randrange(4)]
    sizes = dict(zip("ab", shape, strict=False))
    for letter in "abcd":
        sizes.setdefault(letter, g.random.choice(list(SIZES)))
    spec = f"{first},{second},{third}->{'ab'[: len(shape)]}"
    grown = [
        g.grow(tuple(sizes[c] for c in letters), depth - k)
        for k, letters in enumerate((first, second, third))
    ]
    return (
        f"einsum({spec}: {', '.join(text for text, _ in grown)})",
        lambda env: jnp.einsum(spec, *(x(env) for _, x in grown)),
    )


def _loss(g: Grower, shape: Shape, depth: int) -> Grown:
    rows, columns = g.random.sample(list(SIZES), 2)
    (s, z), (t, y) = g.grow((rows, columns), depth), g.grow((rows, columns), depth - 1)
    name, f = g.random.choice(
        [
            ("cross-entropy", lambda z, y: -jnp.mean(jnp.sum(jax.nn.softmax(y) * jax.nn.log_softmax(z), -1))),
            ("squared error", lambda z, y: 0.5 * jnp.mean(jnp.sum((z - y) ** 2, -1))),
            ("logistic", lambda z, y: jnp.mean(jnp.logaddexp(0, -y * z))),
            ("cosine", lambda z, y: jnp.vdot(z, y) / (1 + jnp.linalg.norm(z) * jnp.linalg.norm(y))),
            ("binary", lambda z, y: jnp.sum(jax.nn.softplus(z) - jax.nn.sigmoid(y) * z)),
            ("gaussian", lambda z, y: jnp.sum(y + 0.5 * (z / jnp.exp(jnp.tanh(y))) ** 2)),
        ]
    )
    return f"{name}({s}, {t})", lambda env: f(z(env), y(env))


def _norm(g: Grower, shape: Shape, depth: int) -> Grown:
    inner = (g.other(), g.other())[: g.random.choice([1, 2])]
    text, x = g.grow(inner, depth)
    order = g.random.choice([None, 1, "max"])

    def value(env):
        values = x(env)
        if order == 1:
            return jnp.sum(jnp.abs(values))
        return jnp.max(jnp.abs(values)) if order == "max" else jnp.linalg.norm(values)

    return f"norm({text}, {order})", value


def _layer_norm(g: Grower, shape: Shape, depth: int) -> Grown:
    (s, x), (t, gain) = g.grow(shape, depth), g.grow(shape[-1:], depth - 1)

    def centered(env):
        values = x(env)
        deviation = values - jnp.mean(values, -1, keepdims=True)
        variance = jnp.mean(deviation**2, -1, keepdims=True)
        return gain(env) * deviation / jnp.sqrt(variance + 0.01)

    def scaled(env):
        values = x(env)
        return gain(env) * values / jnp.sqrt(jnp.mean(values**2, -1, keepdims=True) + 0.01)

    centers = g.random.random() < 0.5
    return f"{'layer' if centers else 'rms'} norm({s}, {t})", centered if centers else scaled


def _attention(g: Grower, shape: Shape, depth: int) -> Grown:
    queries, width = shape
    keys, inner = g.other(width), g.other(width)
    causal = g.random.random() < 0.3
    keys = queries if causal else keys
    (s, q), (t, k) = g.grow((queries, inner), depth - 1), g.grow((keys, inner), depth - 1)
    (u, v) = g.grow((keys, width), depth - 1)

    def value(env):
        scores = q(env) @ k(env).T / jnp.sqrt(1.0 * SIZES[inner])
        if causal:
            scores = jnp.where(jnp.tril(jnp.ones_like(scores)) > 0, scores, -1e9)
        return jax.nn.softmax(scores) @ v(env)

    return f"attention({s}, {t}, {u})", value


def _mapped_scalar(g: Grower, shape: Shape, depth: int) -> Grown:
    """One number for every row (column, matrix) of a batch."""
    d, e = g.other(*shape), g.other(*shape)
    (s, x), (t, y) = g.grow((shape[0], d), depth), g.grow((shape[0], d), depth - 1)
    (u, a), (w, b) = g.grow((d, d), depth - 1), g.grow((shape[0], d, e), depth - 1)
    return g.random.choice(
        [
            (f"vmap({s}ᵀ {u} {s})", lambda env: jax.vmap(lambda r: r @ a(env) @ r)(x(env))),
            (f"vmap({s} · {t})", lambda env: jax.vmap(jnp.dot)(x(env), jnp.sin(y(env)))),
            (f"vmap(lse {s})", lambda env: jax.vmap(jax.nn.logsumexp, in_axes=1)(x(env).T)),
            (f"vmap(‖{w}‖)", lambda env: jax.vmap(lambda m: jnp.sqrt(1 + jnp.sum(m**2)))(b(env))),
        ]
    )


def _mapped_matrices(g: Grower, shape: Shape, depth: int) -> Grown:
    a, b = shape
    c = g.other(a, b)
    if g.random.random() < 0.5:
        (s, x), (t, y) = g.grow((a, b, c), depth - 1), g.grow((a, c), depth)
        return f"vmap({s} {t})", lambda env: jax.vmap(jnp.matmul)(x(env), y(env))
    (s, x), (t, z) = g.grow((a, b, c), depth - 1), g.grow((c,), depth)
    return f"vmap({s} {t}, 1)", lambda env: jax.vmap(jnp.matmul, (1, None), 1)(x(env), z(env))


def _factored(g: Grower, shape: Shape, depth: int) -> Grown:
    """What is solved by way of a factorization, or with a triangle."""
    d = shape[0]
    (s, a), (t, b) = g.grow((d, g.other(d)), depth - 1), g.grow(shape, depth)

    def factor(env):
        root = a(env)
        return jnp.linalg.cholesky(root @ root.T + jnp.eye(SIZES[d]))

    return g.random.choice(
        [
            (f"cho_solve({s}, {t})", lambda env: jax.scipy.linalg.cho_solve((factor(env), True), b(env))),
            (
                f"triangular({s}, {t})",
                lambda env: jax.scipy.linalg.solve_triangular(factor(env), b(env), lower=True),
            ),
            (
                f"triangularᵀ({s}, {t})",
                lambda env: jax.scipy.linalg.solve_triangular(factor(env), b(env), lower=True, trans=1),
            ),
        ]
    )


ANY: list[Way] = [_window, _strided]
BY_RANK: list[list[Way]] = [
    [_einsum, _loss, _loss, _norm, _summed_steps],
    [_einsum, _last_state, _powers, _flattened, _layer_norm, _mapped_scalar, _factored],
    [_einsum, _states, _row_map, _layer_norm, _attention, _mapped_matrices, _factored],
    [_layer_norm],
]
