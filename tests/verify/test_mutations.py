"""Wrong rules must fail, right ones must not: each mutant is a rule with a subtly different backward pass."""

import inspect
from collections.abc import Callable
from typing import Any

import jax
import pytest
from jax import numpy as jnp
from jaxtyping import Array, Float

from funcbp import Rule, rules
from funcbp.verify import Cause, check_rule

Bwd = Callable[..., tuple[Any, ...]]


def clone(rule: Rule, bwd: Bwd, fwd: Callable[..., Any] | None = None) -> Rule:
    """The same rule with another backward function."""

    def mutant(residuals: Any, out_ct: Any, **statics: Any) -> tuple[Any, ...]:
        return bwd(residuals, out_ct, **statics)

    mutant.__name__ = f"{rule.name}_bwd"
    mutant.__signature__ = inspect.signature(rule.bwd)
    return Rule(
        fwd or rule.fwd,
        mutant,
        reference=rule.reference,
        domain=rule.domain,
        points=rule.points,
        settings=rule.settings[1:],
        sizes=rule.sizes,
    )


def changed(rule: Rule, index: int, change: Callable[[Any], Any]) -> Bwd:
    """The right backward pass with one cotangent changed."""

    def bwd(residuals: Any, out_ct: Any, **statics: Any) -> tuple[Any, ...]:
        cotangents = list(rule.bwd(residuals, out_ct, **statics))
        if cotangents[index] is not None:
            cotangents[index] = change(cotangents[index])
        return tuple(cotangents)

    return bwd


def mean(x: jax.Array) -> jax.Array:
    return jnp.mean(x, axis=-1, keepdims=True)


def layer_norm_with(x_ct: Callable[..., jax.Array]) -> Bwd:
    """`x_ct(r, x_hat, g, ct, n)` in place of r (g - ⟨g⟩ - x̂ ⟨g ⊙ x̂⟩)."""

    def bwd(residuals: Any, ct: jax.Array, *, eps: float = 1e-5) -> tuple[Any, ...]:
        x, gain, _, mu, r = residuals
        x_hat = r * (x - mu)
        g = ct if gain is None else gain * ct
        right = rules.layer_norm.bwd(residuals, ct, eps=eps)
        return (x_ct(r, x_hat, g, ct, x.shape[-1]), *right[1:])

    return bwd


def layer_norm_gain_from_x(residuals: Any, ct: jax.Array, *, eps: float = 1e-5) -> tuple[Any, ...]:
    x_ct, gain_ct, bias_ct = rules.layer_norm.bwd(residuals, ct, eps=eps)
    x = residuals[0]
    return x_ct, None if gain_ct is None else (x * ct).sum(tuple(range(x.ndim - 1))), bias_ct


def dense_with(change: Callable[..., tuple[Any, ...]]) -> Bwd:
    def bwd(residuals: Any, ct: jax.Array) -> tuple[Any, ...]:
        return change(*residuals, ct, *rules.dense.bwd(residuals, ct))

    return bwd


def flat(x: jax.Array) -> jax.Array:
    return x.reshape(-1, x.shape[-1])


def cross_entropy_with(z_ct: Callable[..., jax.Array]) -> Bwd:
    """`z_ct(q, y, ct)` in place of (q Σy - y) ℓ̄ along the last axis."""

    def bwd(residuals: Any, ct: jax.Array, **statics: Any) -> tuple[Any, ...]:
        logits, labels, _, top, total = residuals
        right = rules.softmax_cross_entropy.bwd(residuals, ct, **statics)
        if statics.get("axis", -1) != -1:
            return right
        return (z_ct(jnp.exp(logits - top) / total, labels, ct[..., None]), *right[1:])

    return bwd


def softmax_without_inner_term(q: Any, ct: jax.Array, **statics: Any) -> tuple[jax.Array]:
    return (q * ct / statics.get("temperature", 1.0),)


def softmax_over_the_last_axis(q: Any, ct: jax.Array, **statics: Any) -> tuple[jax.Array]:
    return rules.softmax.bwd(q, ct, **statics | {"axis": -1})


def in_float32(rule: Rule) -> Bwd:
    def bwd(residuals: Any, ct: jax.Array, **statics: Any) -> tuple[Any, ...]:
        low = jax.tree.map(lambda x: x.astype(jnp.float32), (residuals, ct))
        return tuple(x.astype(ct.dtype) for x in rule.bwd(*low, **statics))

    return bwd


def one_element(x: jax.Array, factor: float) -> jax.Array:
    return x.reshape(-1).at[0].multiply(factor).reshape(x.shape)


LN, XENT, INT_XENT = (
    rules.layer_norm,
    rules.softmax_cross_entropy,
    rules.softmax_cross_entropy_with_integer_labels,
)
MUTANTS: dict[str, tuple[Rule, Bwd, str, Cause]] = {
    "layer_norm: no x_hat term": (
        LN,
        layer_norm_with(lambda r, x_hat, g, ct, n: r * (g - mean(g))),
        "x_ct",
        Cause.VALUE,
    ),
    "layer_norm: no mean term": (
        LN,
        layer_norm_with(lambda r, x_hat, g, ct, n: r * (g - x_hat * mean(g * x_hat))),
        "x_ct",
        Cause.VALUE,
    ),
    "layer_norm: n - 1 for n": (
        LN,
        layer_norm_with(
            lambda r, x_hat, g, ct, n: r * (g - (mean(g) + x_hat * mean(g * x_hat)) * n / (n - 1))
        ),
        "x_ct",
        Cause.VALUE,
    ),
    "layer_norm: gain forgotten": (
        LN,
        layer_norm_with(lambda r, x_hat, g, ct, n: r * (ct - mean(ct) - x_hat * mean(ct * x_hat))),
        "x_ct",
        Cause.VALUE,
    ),
    "layer_norm: x_ct 0.1 % low": (LN, changed(LN, 0, lambda x: 0.999 * x), "x_ct", Cause.VALUE),
    "layer_norm: gain from x": (LN, layer_norm_gain_from_x, "gain_ct", Cause.VALUE),
    "layer_norm: one bias element": (
        LN,
        changed(LN, 2, lambda b: one_element(b, 1.001)),
        "bias_ct",
        Cause.VALUE,
    ),
    "dense: x_ct by W": (
        rules.dense,
        dense_with(lambda x, w, b, ct, x_ct, w_ct, b_ct: (flat(ct) @ jnp.resize(w, w.T.shape), w_ct, b_ct)),
        "x_ct",
        Cause.SHAPE,
    ),
    "dense: W transposed": (
        rules.dense,
        dense_with(lambda x, w, b, ct, x_ct, w_ct, b_ct: (x_ct, w_ct.T, b_ct)),
        "w_ct",
        Cause.SHAPE,
    ),
    "dense: W transposed, shape repaired": (
        rules.dense,
        changed(rules.dense, 1, lambda w: w.T.reshape(w.shape)),
        "w_ct",
        Cause.VALUE,
    ),
    "dense: no sum over the batch": (
        rules.dense,
        dense_with(lambda x, w, b, ct, x_ct, w_ct, b_ct: (x_ct, w_ct, None if b is None else ct)),
        "b_ct",
        Cause.SHAPE,
    ),
    "dense: bias averaged": (
        rules.dense,
        dense_with(
            lambda x, w, b, ct, x_ct, w_ct, b_ct: (x_ct, w_ct, None if b is None else flat(ct).mean(0))
        ),
        "b_ct",
        Cause.VALUE,
    ),
    "dense: bias missing": (
        rules.dense,
        dense_with(lambda x, w, b, ct, x_ct, w_ct, b_ct: (x_ct, w_ct, None)),
        "b_ct",
        Cause.STRUCTURE,
    ),
    "dense: cotangent ignored": (
        rules.dense,
        dense_with(lambda x, w, b, ct, *right: rules.dense.bwd((x, w, b), jnp.ones_like(ct))),
        "x_ct",
        Cause.VALUE,
    ),
    "dense: one element of W": (
        rules.dense,
        changed(rules.dense, 1, lambda w: one_element(w, 1.001)),
        "w_ct",
        Cause.VALUE,
    ),
    "cross entropy: y missing": (
        XENT,
        cross_entropy_with(lambda q, y, ct: q * y.sum(-1, keepdims=True) * ct),
        "logits_ct",
        Cause.VALUE,
    ),
    "cross entropy: sum of y missing": (
        XENT,
        cross_entropy_with(lambda q, y, ct: (q - y) * ct),
        "logits_ct",
        Cause.VALUE,
    ),
    "cross entropy: mean over examples": (
        XENT,
        cross_entropy_with(lambda q, y, ct: (q - y) * ct / ct.size),
        "logits_ct",
        Cause.VALUE,
    ),
    "cross entropy: cotangent ignored": (
        XENT,
        cross_entropy_with(lambda q, y, ct: q - y + 0 * ct),
        "logits_ct",
        Cause.NOT_LINEAR,
    ),
    "cross entropy: a cotangent for integers": (
        INT_XENT,
        lambda r, ct, **statics: (INT_XENT.bwd(r, ct, **statics)[0], r[1].astype(ct.dtype), None),
        "labels_ct",
        Cause.STRUCTURE,
    ),
    "cross entropy: NaN at an impossible class": (
        INT_XENT,
        changed(INT_XENT, 0, lambda z: z + 0 * jnp.where(z == 0, jnp.inf, 0)),
        "logits_ct",
        Cause.NONFINITE,
    ),
    "sigmoid: slope at q for p": (
        rules.sigmoid,
        lambda q, ct: rules.sigmoid.bwd(jax.nn.sigmoid(q), ct),
        "p_ct",
        Cause.VALUE,
    ),
    "relu: slope 1 at 0": (rules.relu, lambda q, ct: (jnp.where(q >= 0, ct, 0),), "p_ct", Cause.VALUE),
    "relu: slope 0.5 at 0": (
        rules.relu,
        lambda q, ct: (jnp.where(q > 0, ct, 0) + jnp.where(q == 0, ct / 2, 0),),
        "p_ct",
        Cause.VALUE,
    ),
    "tanh: sign": (rules.tanh, changed(rules.tanh, 0, jnp.negative), "p_ct", Cause.VALUE),
    "square: factor 2": (rules.square, changed(rules.square, 0, lambda p: p / 2), "p_ct", Cause.VALUE),
    "sin: float32 inside float64": (rules.sin, in_float32(rules.sin), "p_ct", Cause.VALUE),
    "sin: bfloat16 for float32": (
        rules.sin,
        changed(rules.sin, 0, lambda p: p.astype(jnp.bfloat16)),
        "p_ct",
        Cause.DTYPE,
    ),
    "sin: not linear": (
        rules.sin,
        lambda p, ct: (jnp.cos(p) * jnp.clip(ct, -1, 1),),
        "p_ct",
        Cause.NOT_LINEAR,
    ),
    "identity: a list": (rules.identity, lambda _, ct: [ct], "bwd", Cause.STRUCTURE),
    "silu: NaN where saturated": (
        rules.silu,
        lambda p, ct: (ct * (jnp.exp(p) / (1 + jnp.exp(p))) * (1 + p / (1 + jnp.exp(p))),),
        "p_ct",
        Cause.NONFINITE,
    ),
    "softmax: no inner term": (rules.softmax, softmax_without_inner_term, "p_ct", Cause.VALUE),
    "softmax: always the last axis": (rules.softmax, softmax_over_the_last_axis, "p_ct", Cause.VALUE),
    "l2_loss: one half forgotten": (
        rules.l2_loss,
        changed(rules.l2_loss, 0, lambda x: 2 * x),
        "predictions_ct",
        Cause.VALUE,
    ),
    "squared_error: sign of the targets": (
        rules.squared_error,
        changed(rules.squared_error, 1, jnp.negative),
        "targets_ct",
        Cause.VALUE,
    ),
    "matmul: operands swapped": (
        rules.matmul,
        lambda r, ct: rules.matmul.bwd(r, ct)[::-1],
        "a_ct",
        Cause.SHAPE,
    ),
}


# Much like others that are left: the same cause at another argument or in another rule.
ALIKE = {
    "layer_norm: no mean term",
    "layer_norm: gain forgotten",
    "layer_norm: x_ct 0.1 % low",
    "layer_norm: gain from x",
    "dense: W transposed",
    "dense: no sum over the batch",
    "dense: cotangent ignored",
    "dense: one element of W",
    "cross entropy: y missing",
    "cross entropy: mean over examples",
    "relu: slope 1 at 0",
    "square: factor 2",
    "softmax: no inner term",
    "l2_loss: one half forgotten",
    "matmul: operands swapped",
}


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.long if n in ALIKE else ()) for n in MUTANTS]
)
def test_a_wrong_rule_is_caught_where_it_is_wrong(name: str):
    rule, bwd, where, cause = MUTANTS[name]
    report = check_rule(clone(rule, bwd), examples=8)
    assert report.verdict == "wrong"
    assert any(f.cause is cause and f.where.split("[")[0] == where for f in report.findings), str(report)
    untouched = {f.where.split("[")[0] for f in report.findings} - {where}
    if cause is Cause.VALUE and "ignored" not in name:
        assert not untouched, str(report)


def test_a_transpose_on_a_square_matrix_is_caught():
    def square_fwd(x: Float[Array, "*batch n"], w: Float[Array, "n n"]) -> tuple[Any, Any]:
        return x @ w, (x, w)

    def square_bwd(residuals: Any, ct: jax.Array) -> tuple[Any, ...]:
        return rules.dense.bwd((*residuals, None), ct)[:2]

    domain = {name: rules.dense.domain[name] for name in ("x", "w")}
    square = Rule(square_fwd, square_bwd, reference=jnp.matmul, domain=domain)
    assert check_rule(square, examples=8).verdict == "right"
    turned = clone(square, lambda r, ct: (ct @ r[1], square_bwd(r, ct)[1]))
    assert {f.where.split("[")[0] for f in check_rule(turned, examples=8).findings} == {"x_ct"}


def test_a_wrong_primal_is_caught():
    def sin_fwd(p: rules.sin.fwd.__annotations__["p"]) -> Any:
        return jnp.sin(p) * (1 + 1e-4), p

    report = check_rule(clone(rules.sin, rules.sin.bwd, sin_fwd), examples=8)
    assert Cause.PRIMAL_DIFFERS in {f.cause for f in report.findings}


def test_a_wrong_second_derivative_is_caught():
    bwd = changed(rules.sin, 0, jax.lax.stop_gradient)
    report = check_rule(clone(rules.sin, bwd), examples=8)
    assert {f.cause for f in report.findings} == {Cause.SECOND_ORDER}


def softplus_by_abs(p: jax.Array) -> jax.Array:
    return jnp.maximum(p, 0) + jnp.log1p(jnp.exp(-jnp.abs(p)))


def relu_by_maximum(p: jax.Array) -> jax.Array:
    return jnp.maximum(p, 0)


@pytest.mark.parametrize(
    ("rule", "spelling", "causes"),
    [
        (rules.softplus, softplus_by_abs, {Cause.FORWARD, Cause.SECOND_ORDER}),
        (rules.relu, relu_by_maximum, {Cause.CONVENTION}),
    ],
    ids=["softplus by abs", "relu by maximum"],
)
def test_a_branch_that_has_another_slope_at_0_is_caught(
    rule: Rule, spelling: Callable[..., Any], causes: set[Cause]
):
    """The derivative that JAX takes at the kink of abs and max shows at that one point only."""

    def fwd(p: Float[Array, "*shape"]) -> Any:
        q = spelling(p)
        return q, q

    fwd.__name__ = f"{rule.name}_fwd"
    findings = check_rule(clone(rule, rule.bwd, fwd), examples=8).findings
    assert {f.cause for f in findings} == causes
    assert all(set(f.at["p"].ravel()) == {0.0} for f in findings)


@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.long) for seed in (2, 3))])
@pytest.mark.parametrize("rule", [rules.dense, rules.softmax_cross_entropy], ids=lambda rule: rule.name)
def test_a_right_rule_is_not_caught(rule: Rule, seed: int):
    assert check_rule(rule, seed=seed, dtypes=("float32",)).verdict == "right"
