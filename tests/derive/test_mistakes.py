"""A wrong gradient is explained with the line of the derivation that the mistake sits in."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest
from jax import numpy as jnp

import funcbp
from funcbp._derive._workings import Workings
from funcbp.verify import Cause
from funcbp.verify._diagnosis.search import Program
from tests.verify.diagnosis.cases import diagnosed
from tests.verify.diagnosis.functions import (
    LN,
    MLP,
    QKV,
    attention,
    attention_bwd,
    layer_norm,
    layer_norm_bwd,
    mlp,
    mlp_bwd,
    normal,
    rnn,
    rnn_bwd,
)


def network(W: Any, V: Any, X: Any, Y: Any) -> Any:
    return jnp.sum((jnp.tanh(X @ W) @ V - Y) ** 2) / (2 * X.shape[0])


def network_gradient(slope: Callable[..., Any]) -> Callable[..., Any]:
    def gradient(W: Any, V: Any, X: Any, Y: Any) -> tuple[Any, Any]:
        P = X @ W
        R = (jnp.tanh(P) @ V - Y) / X.shape[0]
        return X.T @ ((R @ V.T) * slope(P)), jnp.tanh(P).T @ R

    return gradient


def regression(W: Any, X: Any, Y: Any) -> Any:
    return -jnp.mean(jnp.sum(Y * jax.nn.log_softmax(X @ W), axis=-1))


def form(x: Any, A: Any) -> Any:
    return x @ A @ x


SHAPES = normal((4, 5), (5, 2), (3, 4), (3, 2))
LINES = {
    "slope missing": (
        network,
        network_gradient(lambda P: 1.0),
        SHAPES,
        (0, 1),
        "δ = (1/d) (R Vᵀ) ⊙ tanh′(P): the ⊙ tanh′(P) is missing",
    ),
    "slope of the input": (
        network,
        network_gradient(lambda P: 1 - P**2),
        SHAPES,
        (0, 1),
        "(1 − P∘²) stands where tanh′(P) must",
    ),
    "softmax forgotten": (
        regression,
        lambda W, X, Y: (-X.T @ Y / X.shape[0],),
        normal((4, 3), (5, 4), (5, 3)),
        (0,),
        "is missing",
    ),
    "mean forgotten": (
        regression,
        lambda W, X, Y: (X.T @ (jax.nn.softmax(X @ W) * Y.sum(-1, keepdims=True) - Y),),
        normal((4, 3), (5, 4), (5, 3)),
        (0,),
        "the factor 1/k is missing",
    ),
    "half of a form": (form, lambda x, A: (A @ x,), normal((4,), (4, 4)), (0,), "the term Aᵀ x is missing"),
    "a form of a symmetric matrix": (
        form,
        lambda x, A: (2 * A @ x,),
        normal((4,), (4, 4)),
        (0,),
        "∂C/∂x = A x + Aᵀ x: A and Aᵀ are mistaken for each other",
    ),
}


@pytest.mark.parametrize("name", LINES)
def test_the_line_of_a_wrong_gradient(name: str) -> None:
    function, gradient, draw, argnums, words = LINES[name]
    (found,) = diagnosed(
        function, lambda *given: gradient(*given[:-1]), draw, kind="gradient", argnums=argnums
    )
    assert "In the derivation, " in found.message
    assert words in found.message


PULLBACKS = {
    "weight from the wrong delta": (
        mlp,
        mlp_bwd(weight=lambda x, d, e: x.T @ e),
        MLP,
        "∂C/∂w = xᵀ δ: (ct vᵀ) stands where δ must",
    ),
    "transpose": (mlp, mlp_bwd(back=lambda d, v: d @ v), MLP, "v and vᵀ are mistaken for each other"),
    "bias averaged": (
        mlp,
        mlp_bwd(bias=lambda d: d.mean(0)),
        MLP,
        "∂C/∂b = δᵀ 𝟏: a mean over m stands where the sum must",
    ),
    "variance constant": (
        layer_norm,
        layer_norm_bwd(lambda r, z, g, mean, ct: r * (g - mean(g))),
        LN,
        "the term (2/n) Diag(δ_u) R is missing",
    ),
    "scale of attention": (
        attention,
        attention_bwd(scale=1.0),
        QKV,
        "∂C/∂q = ½ δ_Z k and ∂C/∂k = ½ δ_Zᵀ q: the factor ½ is missing",
    ),
    "rows of attention": (
        attention,
        attention_bwd(row=lambda p, g: p * g),
        QKV,
        "the term Diag((ct ⊙ (S v)) 𝟏) S is missing",
    ),
}


@pytest.mark.parametrize("name", PULLBACKS)
def test_the_line_of_a_wrong_pullback(name: str) -> None:
    function, backward, draw, words = PULLBACKS[name]
    (found,) = diagnosed(function, backward, draw)
    assert words in found.message


def test_what_no_mistake_explains_gets_the_line_that_it_hangs_on() -> None:
    (found,) = diagnosed(mlp, mlp_bwd(bias=lambda d: d[0]), MLP)
    assert found.message.endswith("The derivation has ∂C/∂b = δᵀ 𝟏.")


def test_a_recurrence_is_left_out() -> None:
    (found,) = diagnosed(rnn, rnn_bwd(carry=lambda d, w: d @ w), normal((3,), (3, 3), (2, 3), (4, 2)))
    assert "derivation" not in found.message


def test_what_nothing_else_explains_has_the_cause_of_the_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Program, "search", lambda *_, **__: [])
    monkeypatch.setattr(Program, "combined", lambda *_: None)
    (found,) = diagnosed(mlp, mlp_bwd(lambda p, q: 1), MLP)
    assert found.cause is Cause.FACTOR_MISSING
    assert (
        found.message == "x, w and b: in the derivation, δ = (ct vᵀ) ⊙ tanh′(P): the ⊙ tanh′(P) is missing."
    )


@pytest.mark.long
def test_the_report_names_the_line() -> None:
    rng = np.random.default_rng(0)
    arguments = [jnp.asarray(x, jnp.float32) for x in SHAPES(rng)]
    report = funcbp.check_gradient(
        network_gradient(lambda P: 1.0), of=network, args=tuple(arguments), argnums=(0, 1), budget=5.0
    )
    assert "In the derivation, δ = (1/d) (R Vᵀ) ⊙ tanh′(P): the ⊙ tanh′(P) is missing." in str(report)
    assert report.findings[0].cause is Cause.FACTOR_MISSING


def test_the_numbers_of_a_derivation_are_right() -> None:
    values = SHAPES(np.random.default_rng(0))
    workings = Workings.of(network, values, ["W", "V", "X", "Y"], ["W", "V"])
    found = workings.at(values).gradients()
    with jax.enable_x64(True):
        truth = jax.grad(network, (0, 1))(*values)
    for name, gradient in zip(("W", "V"), truth, strict=True):
        np.testing.assert_allclose(found[name], gradient, rtol=1e-12)


@pytest.mark.parametrize(
    "function",
    [
        lambda x, A: jnp.sum(jnp.maximum(0, -(A @ x) * x)),
        lambda x, A: jnp.sum(jnp.where(x > 0, A @ x, 0.0) ** 2) / x.shape[0],
        lambda x, A: jnp.linalg.norm(A @ x) + jnp.abs(x).sum() / jnp.sqrt(3.0),
        lambda x, A: jax.nn.logsumexp(jnp.concatenate([A @ x, x[:1]])),
    ],
    ids=["hinge", "where", "norms", "joined"],
)
def test_every_mistake_can_be_written_and_made(function: Callable[..., Any]) -> None:
    values = normal((3,), (3, 3))(np.random.default_rng(0))
    workings = Workings.of(function, values, ["x", "A"], ["x", "A"])
    at, right = workings.at(values), workings.at(values).gradients()
    with workings.built.session.active(), np.errstate(all="ignore"):
        mistaken = list(workings.mistaken())
        changed = [m for m in mistaken if not _same(at.gradients(m), right)]
    assert all(m.text and workings.written(m.first) for m in mistaken)
    assert len(changed) > 10


def _same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    return all(np.allclose(a[name], b[name], equal_nan=True) for name in b)
