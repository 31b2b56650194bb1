"""Ways to make an array from smaller ones: elementwise functions, sums, shapes and linear algebra."""

from collections.abc import Callable
from typing import Any

import jax
from jax import numpy as jnp

from .tree_grower import SIZES, Grower, Shape, Way

FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "tanh": jnp.tanh,
    "sigmoid": jax.nn.sigmoid,
    "sin": jnp.sin,
    "cos": jnp.cos,
    "softplus": jax.nn.softplus,
    "silu": jax.nn.silu,
    "gelu": jax.nn.gelu,
    "relu": jax.nn.relu,
    "elu": jax.nn.elu,
    "leaky_relu": jax.nn.leaky_relu,
    "log_sigmoid": jax.nn.log_sigmoid,
    "soft_sign": jax.nn.soft_sign,
    "abs": jnp.abs,
    "arctan": jnp.arctan,
    "erf": jax.scipy.special.erf,
    "square": jnp.square,
    "cube": lambda x: x**3,
    "bell": lambda x: jnp.exp(-(x**2)),
    "root": lambda x: jnp.sqrt(1 + x**2),
    "log1p": lambda x: jnp.log1p(x**2),
    "log": lambda x: jnp.log(2 + x**2),
    "inverse": lambda x: 1 / (1 + x**2),
    "expm1": lambda x: jnp.expm1(jnp.tanh(x)),
    "power": lambda x: (1 + x**2) ** 0.75,
    "sinh": lambda x: jnp.sinh(jnp.tanh(x)),
    "cosh": lambda x: jnp.cosh(jnp.tanh(x)),
    "arcsinh": jnp.arcsinh,
    "arcsin": lambda x: jnp.arcsin(0.9 * jnp.tanh(x)),
    "arctanh": lambda x: jnp.arctanh(0.9 * jnp.sin(x)),
    "tan": lambda x: jnp.tan(jnp.tanh(x)),
    "exp2": lambda x: jnp.exp2(jnp.tanh(x)),
    "cbrt": lambda x: jnp.cbrt(1 + x**2),
    "erfc": jax.scipy.special.erfc,
    "gammaln": lambda x: jax.scipy.special.gammaln(2 + x**2),
    "log_cosh": lambda x: jnp.logaddexp(x, -x),
    "logit": lambda x: jax.scipy.special.logit(jax.nn.sigmoid(x)),
    "rsqrt": lambda x: jax.lax.rsqrt(1 + x**2),
    "clip": lambda x: jnp.clip(x, -1, 1),
    "clamp": lambda x: jax.lax.clamp(-0.5, x, 0.5),
    "huber": lambda x: jnp.where(jnp.abs(x) < 1, x**2 / 2, jnp.abs(x) - 0.5),
    "stopped": lambda x: x * jax.lax.stop_gradient(x),
    "sign": lambda x: x * jnp.sign(x),
    "exact gelu": lambda x: jax.nn.gelu(x, approximate=False),
    "celu": jax.nn.celu,
    "selu": jax.nn.selu,
    "mish": jax.nn.mish,
    "relu6": jax.nn.relu6,
    "hard_tanh": jax.nn.hard_tanh,
    "hard_sigmoid": jax.nn.hard_sigmoid,
    "hard_silu": jax.nn.hard_silu,
    "squareplus": jax.nn.squareplus,
    "sparse_plus": jax.nn.sparse_plus,
}


def _unary(g: Grower, shape: Shape, depth: int):
    name = g.random.choice(list(FUNCTIONS))
    text, x = g.grow(shape, depth)
    return f"{name}({text})", lambda env: FUNCTIONS[name](x(env))


def _binary(g: Grower, shape: Shape, depth: int):
    symbol, f = g.random.choice(
        [
            ("+", lambda a, b: a + b),
            ("-", lambda a, b: a - b),
            ("*", lambda a, b: a * b),
            ("/", lambda a, b: a / (1 + b**2)),
            ("max", jnp.maximum),
            ("min", jnp.minimum),
            ("where", lambda a, b: jnp.where(a > b, a * b, b)),
            ("logaddexp", jnp.logaddexp),
        ]
    )
    (s, x), (t, y) = g.grow(shape, depth), g.grow(shape, depth - 1)
    return f"({s} {symbol} {t})", lambda env: f(x(env), y(env))


def _scaled(g: Grower, shape: Shape, depth: int):
    if g.random.random() < 0.5:
        c = g.random.choice([2, -1, 0.5, 3, 0.25, 1 / 3])
        text, x = g.grow(shape, depth)
        return f"{c:.3g} {text}", lambda env: c * x(env)
    (s, a), (t, x) = g.grow((), depth - 1), g.grow(shape, depth)
    return f"{s} {t}", lambda env: a(env) * x(env)


def _broadcast(g: Grower, shape: Shape, depth: int):
    if not shape:
        return None
    axis = g.random.randrange(len(shape))
    rest = shape[:axis] + shape[axis + 1 :]
    (s, a), (t, x) = g.grow(rest, depth - 1), g.grow(shape, depth)
    divide = g.random.random() < 0.3
    if divide:
        return f"({t} / {s})", lambda env: x(env) / (2 + jnp.expand_dims(a(env), axis) ** 2)
    times = g.random.random() < 0.5
    if times:
        return f"({t} ⊙ {s})", lambda env: x(env) * jnp.expand_dims(a(env), axis)
    return f"({t} + {s})", lambda env: x(env) + jnp.expand_dims(a(env), axis)


def _sum(g: Grower, shape: Shape, depth: int):
    axis = g.random.randrange(len(shape) + 1)
    size = g.other() if len(shape) < 2 else "m"
    full = (*shape[:axis], size, *shape[axis:])
    name, f = g.random.choice(
        [
            ("sum", jnp.sum),
            ("mean", jnp.mean),
            ("logsumexp", jax.nn.logsumexp),
            ("norm", lambda x, axis: jnp.sqrt(1 + jnp.sum(x**2, axis=axis))),
            ("max", jnp.max),
            ("min", jnp.min),
            ("var", jnp.var),
        ]
    )
    text, x = g.grow(full, depth)
    return f"{name}({text}, {axis})", lambda env: f(x(env), axis=axis)


def _along(g: Grower, shape: Shape, depth: int):
    if not shape:
        return None
    axis = g.random.randrange(len(shape))
    name, f = g.random.choice(
        [
            ("softmax", jax.nn.softmax),
            ("log_softmax", jax.nn.log_softmax),
            ("softmax by hand", lambda x, axis: jnp.exp(x) / jnp.sum(jnp.exp(x), axis=axis, keepdims=True)),
            ("standardize", lambda x, axis: jax.nn.standardize(x, axis=axis, epsilon=0.1)),
            ("cumsum", jnp.cumsum),
            ("flip", jnp.flip),
            ("centered", lambda x, axis: x - x.mean(axis, keepdims=True)),
        ]
    )
    text, x = g.grow(shape, depth)
    return f"{name}({text}, {axis})", lambda env: f(x(env), axis=axis)


def _joined(g: Grower, shape: Shape, depth: int):
    if not shape:
        return None
    axis = g.random.randrange(len(shape))
    size = SIZES[shape[axis]]
    cut = g.random.randrange(1, size)
    (s, x), (t, y) = g.grow(shape, depth), g.grow(shape, depth - 1)

    def join(env):
        a, b = x(env), y(env)
        first = jax.lax.slice_in_dim(a, 0, cut, axis=axis)
        second = jax.lax.slice_in_dim(b, cut, size, axis=axis)
        return jnp.concatenate([first, second], axis=axis)

    return f"[{s}; {t}]", join


def _reshaped(g: Grower, shape: Shape, depth: int):
    if len(shape) < 2:
        return None
    turned = shape[::-1]
    text, x = g.grow(turned, depth)
    return f"reshape({text})", lambda env: jnp.reshape(x(env), [SIZES[d] for d in shape])


def _stacked(g: Grower, shape: Shape, depth: int):
    if not shape or shape[0] != "m":
        return None
    (s, x), (t, y) = g.grow(shape[1:], depth), g.grow(shape[1:], depth - 1)
    return f"stack({s}, {t})", lambda env: jnp.stack([x(env), y(env)])


def _indexed(g: Grower, shape: Shape, depth: int):
    if len(shape) > 1:
        return None
    size = g.other(*shape)
    index = g.random.randrange(SIZES[size])
    front = g.random.random() < 0.5
    text, x = g.grow((size, *shape) if front else (*shape, size), depth)
    return f"{text}[{index}]", lambda env: x(env)[index] if front else x(env)[..., index]


def _inner(g: Grower, shape: Shape, depth: int):
    size = g.other()
    (s, x), (t, y) = g.grow((size,), depth), g.grow((size,), depth)
    return f"{s} · {t}", lambda env: x(env) @ y(env)


def _quadratic(g: Grower, shape: Shape, depth: int):
    size = g.other()
    (s, x), (t, a) = g.grow((size,), depth - 1), g.grow((size, size), depth)
    return f"{s}ᵀ {t} {s}", lambda env: x(env) @ a(env) @ x(env)


def _trace(g: Grower, shape: Shape, depth: int):
    a, b = g.random.sample(list(SIZES), 2)
    (s, x), (t, y) = g.grow((a, b), depth), g.grow((b, a), depth - 1)
    return f"tr({s} {t})", lambda env: jnp.trace(x(env) @ y(env))


def _logdet(g: Grower, shape: Shape, depth: int):
    text, x = g.grow(("n", "k"), depth - 1)
    which = g.random.random() < 0.5

    def value(env):
        a = x(env)
        spd = a @ a.T + jnp.eye(SIZES["n"])
        return jnp.linalg.slogdet(spd)[1] if which else jnp.log(1 + jnp.linalg.det(spd))

    return f"logdet({text})", value


def _matvec(g: Grower, shape: Shape, depth: int):
    (d,) = shape
    e = g.other(d)
    (s, a), (t, x) = g.grow((d, e), depth), g.grow((e,), depth)
    if g.random.random() < 0.5:
        return f"{s} {t}", lambda env: a(env) @ x(env)
    (s, a), (t, x) = g.grow((e, d), depth), g.grow((e,), depth - 1)
    return f"{t}ᵀ {s}", lambda env: x(env) @ a(env)


def _solve(g: Grower, shape: Shape, depth: int):
    d = shape[0]
    (s, a), (t, b) = g.grow((d, g.other(d)), depth - 1), g.grow(shape, depth)

    def value(env):
        root = a(env)
        return jnp.linalg.solve(root @ root.T + jnp.eye(SIZES[d]), b(env))

    return f"solve({s}, {t})", value


def _diagonal(g: Grower, shape: Shape, depth: int):
    text, x = g.grow((shape[0], shape[0]), depth)
    return f"diag({text})", lambda env: jnp.diagonal(x(env))


def _product(g: Grower, shape: Shape, depth: int):
    a, b = shape
    c = g.other(a, b)
    (s, x), (t, y) = g.grow((a, c), depth), g.grow((c, b), depth)
    return f"{s} {t}", lambda env: x(env) @ y(env)


def _transposed(g: Grower, shape: Shape, depth: int):
    text, x = g.grow(shape[::-1], depth)
    axes = tuple(reversed(range(len(shape))))
    return f"({text})ᵀ", lambda env: jnp.transpose(x(env), axes)


def _outer(g: Grower, shape: Shape, depth: int):
    (s, x), (t, y) = g.grow(shape[:1], depth), g.grow(shape[1:], depth - 1)
    return f"{s} {t}ᵀ", lambda env: jnp.outer(x(env), y(env))


def _mapped(g: Grower, shape: Shape, depth: int):
    """A function of rows, by vmap."""
    c = g.other(shape[1])
    (s, x), (t, w) = g.grow((shape[0], c), depth), g.grow((c, shape[1]), depth - 1)
    return f"vmap({s} {t})", lambda env: jax.vmap(lambda row: jnp.tanh(row @ w(env)))(x(env))


def _square_of(g: Grower, shape: Shape, depth: int):
    name, f = g.random.choice(
        [
            ("inv", lambda a: jnp.linalg.inv(a @ a.T + jnp.eye(a.shape[0]))),
            ("cholesky", lambda a: jnp.linalg.cholesky(a @ a.T + jnp.eye(a.shape[0]))),
            ("gram", lambda a: a @ a.T),
            ("tril", jnp.tril),
            ("plus identity", lambda a: a + 2 * jnp.eye(a.shape[0])),
        ]
    )
    text, x = g.grow(shape, depth)
    return f"{name}({text})", lambda env: f(x(env))


def _batched(g: Grower, shape: Shape, depth: int):
    a, b, c = shape
    d = g.other()
    (s, x), (t, y) = g.grow((a, b, d), depth - 1), g.grow((a, d, c), depth - 1)
    return f"einsum({s}, {t})", lambda env: jnp.einsum("abd,adc->abc", x(env), y(env))


def _contracted(g: Grower, shape: Shape, depth: int):
    a, b = shape
    c = g.other(a, b)
    (s, x), (t, y) = g.grow((a, c, b), depth - 1), g.grow((c,), depth - 1)
    return f"einsum({s}, {t})", lambda env: jnp.einsum("acb,c->ab", x(env), y(env))


ANY: list[Way] = [
    *[_unary, _unary, _binary, _binary, _scaled, _broadcast],
    *[_along, _joined, _reshaped, _stacked],
]
BY_RANK: list[list[Way]] = [
    [_inner, _inner, _quadratic, _trace, _logdet, _sum, _sum, _indexed],
    [_matvec, _matvec, _matvec, _sum, _solve, _diagonal, _indexed],
    [_product, _product, _product, _transposed, _outer, _mapped, _contracted, _solve],
    [_batched, _batched, _transposed],
]
SQUARE: list[Way] = [_square_of, _square_of]
