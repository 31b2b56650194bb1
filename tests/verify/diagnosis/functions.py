"""Functions with backward passes that take their mistakes as arguments."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax import numpy as jnp


def normal(*shapes: tuple[int, ...]) -> Callable[[np.random.Generator], tuple[np.ndarray, ...]]:
    return lambda rng: tuple(rng.normal(size=shape) for shape in shapes)


def mlp(x: Any, w: Any, b: Any, v: Any) -> Any:
    p = x @ w + b
    q = jnp.tanh(p)
    return q @ v


def mlp_bwd(
    slope: Callable[..., Any] = lambda p, q: 1 - q * q,
    bias: Callable[..., Any] = lambda d: d.sum(0),
    back: Callable[..., Any] = lambda d, w: d @ w.T,
    weight: Callable[..., Any] = lambda x, d, e: x.T @ d,
) -> Callable[..., tuple[Any, ...]]:
    def bwd(x: Any, w: Any, b: Any, v: Any, ct: Any) -> tuple[Any, ...]:
        p = x @ w + b
        q = jnp.tanh(p)
        e = back(ct, v)
        d = e * slope(p, q)
        return d @ w.T, weight(x, d, e), bias(d), q.T @ ct

    return bwd


MLP = normal((3, 4), (4, 5), (5,), (5, 5))


def layer_norm(x: Any, gain: Any) -> Any:
    mu = jnp.mean(x, axis=-1, keepdims=True)
    var = jnp.mean((x - mu) ** 2, axis=-1, keepdims=True)
    r = jax.lax.rsqrt(var + 1e-3)
    return gain * ((x - mu) * r)


def layer_norm_bwd(x_ct: Callable[..., Any]) -> Callable[..., tuple[Any, ...]]:
    def bwd(x: Any, gain: Any, ct: Any) -> tuple[Any, ...]:
        mu = x.mean(-1, keepdims=True)
        r = 1 / jnp.sqrt(((x - mu) ** 2).mean(-1, keepdims=True) + 1e-3)
        z = (x - mu) * r
        return x_ct(r, z, gain * ct, lambda a: a.mean(-1, keepdims=True), ct), (ct * z).sum(0)

    return bwd


LN = normal((3, 6), (6,))


def softmax(x: Any) -> Any:
    e = jnp.exp(x - jax.lax.stop_gradient(x.max(-1, keepdims=True)))
    return e / e.sum(-1, keepdims=True)


def softmax_bwd(of: Callable[..., Any]) -> Callable[..., tuple[Any, ...]]:
    return lambda x, ct: (of(jax.nn.softmax(x), ct),)


def rnn(h: Any, w: Any, u: Any, xs: Any) -> Any:
    def step(h: Any, x: Any) -> tuple[Any, Any]:
        h = jnp.tanh(h @ w + x @ u)
        return h, h

    return jax.lax.scan(step, h, xs)[1]


def rnn_bwd(
    carry: Callable[..., Any] = lambda d, w: d @ w.T,
    slope: Callable[..., Any] = lambda h: 1 - h * h,
    state: int = 0,
    steps: Callable[..., Any] = lambda gs: sum(gs),
) -> Callable[..., tuple[Any, ...]]:
    def bwd(h: Any, w: Any, u: Any, xs: Any, ct: Any) -> tuple[Any, ...]:
        hs = [h]
        for x in xs:
            hs.append(jnp.tanh(hs[-1] @ w + x @ u))
        h_ct, ws, us, x_cts = jnp.zeros_like(h), [], [], []
        for t in reversed(range(len(xs))):
            d = (h_ct + ct[t]) * slope(hs[t + 1])
            ws.append(jnp.outer(hs[t + state], d))
            us.append(jnp.outer(xs[t], d))
            x_cts.append(d @ u.T)
            h_ct = carry(d, w)
        return h_ct, steps(ws), sum(us), jnp.stack(x_cts[::-1])

    return bwd


RNN = normal((3,), (3, 3), (2, 3), (4, 2))


def embed(table: Any, at: Any) -> Any:
    rows = table[at]
    return jnp.sin(rows)


def embed_draw(rng: np.random.Generator) -> tuple[Any, ...]:
    return rng.normal(size=(5, 3)), np.array([1, 3, 1, 0])


def embed_overwritten(table: Any, at: Any, ct: Any) -> tuple[Any, ...]:
    rows = ct * jnp.cos(table[at])
    out = jnp.zeros_like(table)
    for i in range(4):
        out = out.at[at[i]].set(rows[i])
    return (out,)


def ridge(w: Any, x: Any, y: Any) -> Any:
    r = x @ w - y
    penalty = 0.3 * jnp.sum(w**2)
    return 0.5 * jnp.mean(r**2) + penalty


RIDGE = normal((4,), (6, 4), (6,))


def huber(x: Any) -> Any:
    small = jnp.abs(x) < 1
    return jnp.where(small, 0.5 * x * x, jnp.abs(x) - 0.5)


def quadratic(x: Any, a: Any) -> Any:
    y = x @ a
    return jnp.sum(y * x, -1)


def skip(x: Any, w: Any) -> Any:
    h = jax.nn.relu(x @ w)
    return x + h


def tied(x: Any, w: Any) -> Any:
    h = jnp.tanh(x @ w)
    return h @ w.T


def tied_bwd(x: Any, w: Any, ct: Any) -> tuple[Any, ...]:
    h = jnp.tanh(x @ w)
    d = (ct @ w) * (1 - h * h)
    return d @ w.T, x.T @ d


def attention(q: Any, k: Any, v: Any) -> Any:
    s = q @ k.T / jnp.sqrt(4.0)
    p = jax.nn.softmax(s)
    return p @ v


def attention_bwd(
    scale: float = 0.5, row: Callable[..., Any] = lambda p, g: p * (g - (p * g).sum(-1, keepdims=True))
) -> Callable[..., tuple[Any, ...]]:
    def bwd(q: Any, k: Any, v: Any, ct: Any) -> tuple[Any, ...]:
        p = jax.nn.softmax(q @ k.T / 2)
        s = row(p, ct @ v.T) * scale
        return s @ k, s.T @ q, p.T @ ct

    return bwd


QKV = normal((3, 4), (3, 4), (3, 5))


def logdet(a: Any) -> Any:
    return jnp.linalg.slogdet(a)[1]


def well(rng: np.random.Generator) -> tuple[Any, ...]:
    return (rng.normal(size=(3, 3)) + 3 * np.eye(3),)


def masked(x: Any, mask: Any) -> Any:
    kept = jnp.where(mask, x**3, 0.0)
    return kept.sum(0)


def mask_draw(rng: np.random.Generator) -> tuple[Any, ...]:
    return rng.normal(size=(4, 3)), rng.random((4, 3)) < 0.6


def sigmoid(x: Any) -> Any:
    q = 1 / (1 + jnp.exp(-x))
    return jnp.cumsum(q, axis=0)


def sigmoid_bwd(of: Callable[..., Any], sums: Callable[..., Any] | None = None) -> Callable[..., Any]:
    back = sums or (lambda ct: jnp.cumsum(ct[::-1], axis=0)[::-1])
    return lambda x, ct: (back(ct) * of(x, jax.nn.sigmoid(x)),)


def rms(x: Any) -> Any:
    scale = jnp.sqrt(jnp.mean(x * x, -1, keepdims=True))
    return x / scale


def pooled(x: Any) -> Any:
    return jnp.max(jnp.sin(x), axis=1)


def tie_draw(rng: np.random.Generator) -> tuple[Any, ...]:
    return (rng.integers(0, 2, size=(5, 3)).astype(float),)
