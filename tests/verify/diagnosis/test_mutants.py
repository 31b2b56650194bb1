"""Mistakes in the middle of a backward pass: named with the line of the reference that they belong to."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
from jax import numpy as jnp

from funcbp.verify import Cause
from tests.verify.diagnosis.cases import diagnosed


def normal(*shapes: tuple[int, ...]) -> Callable[[np.random.Generator], tuple[np.ndarray, ...]]:
    return lambda rng: tuple(rng.normal(size=shape) for shape in shapes)


class Case(NamedTuple):
    function: Callable[..., Any]
    backward: Callable[..., tuple[Any, ...]]
    draw: Callable[[np.random.Generator], tuple[Any, ...]]
    cause: Cause
    line: str | None
    argnums: tuple[int, ...] | None = None


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


M = Cause.TERM_MISSING
CASES: dict[str, Case] = {
    "mlp: slope missing": Case(mlp, mlp_bwd(lambda p, q: 1), MLP, Cause.FACTOR_MISSING, "jnp.tanh(p)"),
    "mlp: slope at p": Case(mlp, mlp_bwd(lambda p, q: 1 - p * p), MLP, Cause.WRONG_POINT, "jnp.tanh(p)"),
    "mlp: slope of q": Case(
        mlp, mlp_bwd(lambda p, q: 1 - jnp.tanh(q) ** 2), MLP, Cause.WRONG_POINT, "jnp.tanh(p)"
    ),
    "mlp: slope squared": Case(
        mlp, mlp_bwd(lambda p, q: (1 - q * q) ** 2), MLP, Cause.FACTOR_MISSING, "jnp.tanh(p)"
    ),
    "mlp: bias averaged": Case(mlp, mlp_bwd(bias=lambda d: d.mean(0)), MLP, Cause.REDUCTION, "p = x @ w + b"),
    "mlp: one row of the bias": Case(
        mlp, mlp_bwd(bias=lambda d: d[0]), MLP, Cause.REDUCTION, "p = x @ w + b"
    ),
    "mlp: transpose": Case(
        mlp, mlp_bwd(back=lambda d, v: d @ v), MLP, Cause.TRANSPOSE_FORGOTTEN, "return q @ v"
    ),
    "mlp: weight from the wrong delta": Case(
        mlp, mlp_bwd(weight=lambda x, d, e: x.T @ e), MLP, Cause.FACTOR_MISSING, "q = jnp.tanh(p)"
    ),
    "mlp: sign inside": Case(mlp, mlp_bwd(lambda p, q: -(1 - q * q)), MLP, Cause.SIGN, None),
    "layer norm: constants": Case(
        layer_norm, layer_norm_bwd(lambda r, z, g, mean, ct: r * g), LN, Cause.STATISTICS, None
    ),
    "layer norm: variance constant": Case(
        layer_norm, layer_norm_bwd(lambda r, z, g, mean, ct: r * (g - mean(g))), LN, M, "var = jnp.mean"
    ),
    "layer norm: mean constant": Case(
        layer_norm,
        layer_norm_bwd(lambda r, z, g, mean, ct: r * (g - z * mean(g * z))),
        LN,
        M,
        "mu = jnp.mean",
    ),
    "layer norm: gain forgotten": Case(
        layer_norm,
        layer_norm_bwd(lambda r, z, g, mean, ct: r * (ct - mean(ct) - z * mean(ct * z))),
        LN,
        Cause.FACTOR_MISSING,
        "return gain",
    ),
    "layer norm: sign of the variance term": Case(
        layer_norm,
        layer_norm_bwd(lambda r, z, g, mean, ct: r * (g - mean(g) + z * mean(g * z))),
        LN,
        Cause.SIGN,
        None,
    ),
    "layer norm: n - 1 for n": Case(
        layer_norm,
        layer_norm_bwd(lambda r, z, g, mean, ct: r * (g - mean(g) - 6 / 5 * z * mean(g * z))),
        LN,
        Cause.CONSTANT_FACTOR,
        "var = jnp.mean",
    ),
    "inverse: transpose": Case(
        jnp.linalg.inv,
        lambda a, ct: (-jnp.linalg.inv(a) @ ct @ jnp.linalg.inv(a),),
        well,
        Cause.TRANSPOSE_FORGOTTEN,
        None,
    ),
    "solve: transpose": Case(
        jnp.linalg.solve,
        lambda a, y, ct: (
            -jnp.outer(jnp.linalg.solve(a, ct), jnp.linalg.solve(a, y)),
            jnp.linalg.solve(a, ct),
        ),
        lambda rng: (*well(rng), rng.normal(size=3)),
        Cause.TRANSPOSE_FORGOTTEN,
        None,
    ),
    "softmax: diagonal only": Case(
        softmax, softmax_bwd(lambda q, ct: q * ct), normal((3, 4)), M, "return e /"
    ),
    "softmax: sign": Case(
        softmax,
        softmax_bwd(lambda q, ct: q * (ct + (q * ct).sum(-1, keepdims=True))),
        normal((3, 4)),
        Cause.SIGN,
        "return e /",
    ),
    "softmax: factor q": Case(
        softmax,
        softmax_bwd(lambda q, ct: ct - (q * ct).sum(-1, keepdims=True)),
        normal((3, 4)),
        Cause.FACTOR_MISSING,
        "return e /",
    ),
    "rnn: not through time": Case(rnn, rnn_bwd(carry=lambda d, w: 0 * d), RNN, M, "h = jnp.tanh(h @ w"),
    "rnn: transpose": Case(
        rnn, rnn_bwd(carry=lambda d, w: d @ w), RNN, Cause.TRANSPOSE_FORGOTTEN, "h = jnp.tanh(h @ w"
    ),
    "rnn: slope": Case(rnn, rnn_bwd(slope=lambda h: 1), RNN, Cause.FACTOR_MISSING, "h = jnp.tanh(h @ w"),
    "rnn: the state after the step": Case(rnn, rnn_bwd(state=1), RNN, Cause.OFF_BY_ONE, "h = jnp.tanh(h @ w"),
    "rnn: last step": Case(rnn, rnn_bwd(steps=lambda g: sum(g[1:])), RNN, M, "h = jnp.tanh(h @ w"),
    "embedding: overwritten": Case(
        embed, embed_overwritten, embed_draw, Cause.OVERWRITTEN, "rows = table[at]"
    ),
    "ridge: penalty": Case(ridge, lambda w, x, y, ct: (ct * x.T @ (x @ w - y) / 6,), RIDGE, M, None, (0,)),
    "ridge: penalty doubled": Case(
        ridge,
        lambda w, x, y, ct: (ct * (x.T @ (x @ w - y) / 6 + 1.2 * w),),
        RIDGE,
        Cause.CONSTANT_FACTOR,
        "penalty = 0.3",
        (0,),
    ),
    "ridge: mean forgotten in one term": Case(
        ridge,
        lambda w, x, y, ct: (ct * (x.T @ (x @ w - y) + 0.6 * w),),
        RIDGE,
        Cause.CONSTANT_FACTOR,
        "jnp.mean(r**2)",
        (0,),
    ),
    "quadratic form: one half": Case(
        quadratic,
        lambda x, a, ct: (ct[:, None] * (x @ a), x.T @ (ct[:, None] * x)),
        normal((3, 4), (4, 4)),
        M,
        None,
    ),
    "quadratic form: not symmetric": Case(
        quadratic,
        lambda x, a, ct: (2 * ct[:, None] * (x @ a), x.T @ (ct[:, None] * x)),
        normal((3, 4), (4, 4)),
        Cause.TRANSPOSE_FORGOTTEN,
        "y = x @ a",
    ),
    "skip path": Case(
        skip,
        lambda x, w, ct: ((ct * (x @ w > 0)) @ w.T, x.T @ (ct * (x @ w > 0))),
        normal((3, 4), (4, 4)),
        M,
        "x + h",
    ),
    "relu mask": Case(
        skip, lambda x, w, ct: (ct + ct @ w.T, x.T @ ct), normal((3, 4), (4, 4)), Cause.FACTOR_MISSING, "relu"
    ),
    "tied weight": Case(tied, tied_bwd, normal((3, 4), (4, 5)), M, "return h @ w.T", (0, 1)),
    "attention: scale": Case(attention, attention_bwd(1.0), QKV, Cause.CONSTANT_FACTOR, "s = q @ k.T"),
    "attention: row term": Case(
        attention, attention_bwd(row=lambda p, g: p * g), QKV, M, "p = jax.nn.softmax(s)"
    ),
    "logdet: transpose": Case(logdet, lambda a, ct: (ct * jnp.linalg.inv(a),), well, Cause.TRANSPOSED, None),
    "mask dropped": Case(
        masked, lambda x, m, ct: (ct * 3 * x**2,), mask_draw, Cause.FACTOR_MISSING, "kept = jnp.where"
    ),
    "mask inverted": Case(
        masked,
        lambda x, m, ct: (jnp.where(m, 0, ct * 3 * x**2),),
        mask_draw,
        Cause.FACTOR_MISSING,
        "kept = jnp.where",
    ),
    "power: exponent": Case(
        masked,
        lambda x, m, ct: (jnp.where(m, ct * 3 * x, 0),),
        mask_draw,
        Cause.FACTOR_MISSING,
        "kept = jnp.where",
    ),
    "sigmoid: at p": Case(
        sigmoid, sigmoid_bwd(lambda x, q: x * (1 - x)), normal((4, 2)), Cause.WRONG_POINT, "q = 1 /"
    ),
    "sigmoid: slope missing": Case(
        sigmoid, sigmoid_bwd(lambda x, q: 1), normal((4, 2)), Cause.FACTOR_MISSING, "q = 1 /"
    ),
    "cumsum: not reversed": Case(
        sigmoid,
        sigmoid_bwd(lambda x, q: q * (1 - q), lambda ct: jnp.cumsum(ct, 0)),
        normal((4, 2)),
        Cause.PERMUTED,
        "jnp.cumsum",
    ),
    "cumsum: its own step": Case(
        sigmoid,
        sigmoid_bwd(lambda x, q: q * (1 - q), lambda ct: jnp.cumsum(ct[::-1], axis=0)[::-1] - ct),
        normal((4, 2)),
        Cause.OFF_BY_ONE,
        "jnp.cumsum",
    ),
    "rms: constant": Case(
        rms,
        lambda x, ct: (ct / jnp.sqrt((x * x).mean(-1, keepdims=True)),),
        normal((3, 5)),
        Cause.STATISTICS,
        "scale = jnp.sqrt",
    ),
    "maximum: ties": Case(
        pooled,
        lambda x, ct: (ct[:, None] * (x == x.max(1, keepdims=True)) * jnp.cos(x),),
        tie_draw,
        Cause.KINK,
        "jnp.max",
    ),
    "cotangent ignored": Case(
        mlp,
        lambda x, w, b, v, ct: mlp_bwd()(x, w, b, v, jnp.ones_like(ct)),
        MLP,
        Cause.COTANGENT_IGNORED,
        None,
    ),
    "cotangent squared": Case(
        softmax,
        softmax_bwd(lambda q, c: q * (c * c - (q * c * c).sum(-1, keepdims=True))),
        normal((3, 4)),
        Cause.NOT_LINEAR,
        None,
    ),
    "huber: a band": Case(
        huber,
        lambda x, ct: (ct * jnp.where(jnp.abs(x) < 0.8, x, jnp.sign(x)),),
        normal((40,)),
        Cause.REGION,
        None,
    ),
    "a wrong element": Case(
        mlp,
        mlp_bwd(bias=lambda d: d.sum(0).at[-1].multiply(1.01)),
        MLP,
        Cause.OFF_BY_ONE,
        None,
    ),
    "overflow": Case(
        huber,
        lambda x, ct: (ct * jnp.where(jnp.abs(x) < 1, x, jnp.sign(x)) + jnp.where(x > 1.5, jnp.nan, 0),),
        normal((40,)),
        Cause.NONFINITE,
        None,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_the_cause_is_named_with_its_line(name: str):
    case = CASES[name]
    found = diagnosed(case.function, case.backward, case.draw, argnums=case.argnums)
    first = found[0]
    assert first.cause is case.cause, found
    if case.line is not None:
        assert case.line in (first.line or ""), found


NOISE = np.random.default_rng(7).normal(size=(64,))


def unexplained(x: Any, w: Any, b: Any, v: Any, ct: Any) -> tuple[Any, ...]:
    x_ct, w_ct, b_ct, v_ct = mlp_bwd()(x, w, b, v, ct)
    return x_ct, w_ct * (1 + 0.1 * jnp.sin(NOISE[:20].reshape(4, 5) + 3 * w_ct)), b_ct, v_ct


def test_what_nothing_explains_is_not_explained():
    (only,) = diagnosed(mlp, unexplained, MLP)
    assert only.cause is Cause.VALUE
    assert only.leaves == (1,)
    assert only.message.startswith("w: wrong in ")


def test_a_region_has_its_bounds():
    case = CASES["huber: a band"]
    (only,) = diagnosed(case.function, case.backward, normal((400,)))
    assert "0.8 < |x| < 1" in only.message


def test_every_wrong_leaf_has_one_diagnosis():
    found = diagnosed(mlp, lambda *a: tuple(3 * g for g in mlp_bwd(lambda p, q: 1)(*a)), MLP)
    assert sorted(leaf for d in found for leaf in d.leaves) == [0, 1, 2, 3]


def test_a_program_that_cannot_be_taken_apart_leaves_algebra():
    def halved(x: Any) -> Any:
        return jax.lax.while_loop(lambda s: s[0] < 3, lambda s: (s[0] + 1, s[1] / 2), (0, x))[1]

    rule = jax.custom_vjp(halved)
    rule.defvjp(lambda x: (halved(x), None), lambda _, ct: (ct / 8,))
    (only,) = diagnosed(rule, lambda x, ct: (-ct / 8,), normal((4,)))
    assert only.cause is Cause.SIGN
    (only,) = diagnosed(rule, lambda x, ct: (jnp.cos(x) * jnp.exp(ct),), normal((4,)))
    assert only.cause is Cause.VALUE
