"""Mistakes in the middle of a backward pass: named with the line of the reference that they belong to."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
from jax import numpy as jnp

from funcbp.verify import Cause
from tests.verify.diagnosis.cases import diagnosed
from tests.verify.diagnosis.functions import (
    LN,
    MLP,
    QKV,
    RIDGE,
    RNN,
    attention,
    attention_bwd,
    embed,
    embed_draw,
    embed_overwritten,
    huber,
    layer_norm,
    layer_norm_bwd,
    logdet,
    mask_draw,
    masked,
    mlp,
    mlp_bwd,
    normal,
    pooled,
    quadratic,
    ridge,
    rms,
    rnn,
    rnn_bwd,
    sigmoid,
    sigmoid_bwd,
    skip,
    softmax,
    softmax_bwd,
    tie_draw,
    tied,
    tied_bwd,
    well,
)


class Case(NamedTuple):
    function: Callable[..., Any]
    backward: Callable[..., tuple[Any, ...]]
    draw: Callable[[np.random.Generator], tuple[Any, ...]]
    cause: Cause
    line: str | None
    argnums: tuple[int, ...] | None = None


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
