"""Names, dimensions, facts, refusals and the generated function."""

import jax
import numpy as np
import pytest
from jax import numpy as jnp

import funcbp
from funcbp._derive import NotScalarError, UnsupportedError


def spec(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def test_an_unknown_operation_is_named_with_its_line() -> None:
    def loss(x):
        return jnp.sum(jnp.sort(x) * x)

    with pytest.raises(UnsupportedError, match=r"`sort` at .*test_derive\.py:\d+"):
        funcbp.derive(loss, spec(3))


def test_scans_that_are_not_derived_are_named() -> None:
    def nested(x):
        def outer(c, _):
            return jax.lax.scan(lambda h, _: (jnp.tanh(h + c), None), c, None, length=3)[0], None

        return jnp.sum(jax.lax.scan(outer, x, None, length=2)[0])

    def unbounded(x):
        return jnp.sum(jax.lax.while_loop(lambda h: h[0] < 1, lambda h: 2 * h, x))

    with pytest.raises(UnsupportedError, match=r"`scan` at .*test_derive\.py:\d+: a scan inside of a scan"):
        funcbp.derive(nested, spec(3))
    with pytest.raises(UnsupportedError, match=r"`while` at .*test_derive\.py:\d+"):
        funcbp.derive(unbounded, spec(3))


@pytest.mark.parametrize("length", [1, 4])
def test_what_a_scan_does_not_need_is_left_out(length, x64) -> None:
    """A counter that nothing reads, results that nothing reads, and one step, which is no recurrence."""

    def loss(W, X):
        def step(state, x):
            h, count = state
            return (jnp.tanh(W @ h + x), count + 1), h

        (h, _), _ = jax.lax.scan(step, (jnp.ones(3), 0), X)
        return jnp.sum(h)

    d = funcbp.derive(loss, spec(3, 3), spec(length, 3))
    assert "count" not in d.source()
    assert d.source().count("jax.lax.scan") == (2 if length > 1 else 0)
    assert d.check(samples=1).ok


def test_names_of_recurrences_do_not_meet(x64) -> None:
    """Every name of both recurrences is given once, in the derivation and in the code."""

    def loss(W, h0, X):
        def step(h, x):
            h = jnp.tanh(W @ h + x)
            return h, h

        _, H = jax.lax.scan(step, h0, X)
        return jnp.sum(jax.lax.scan(step, h0, H, reverse=True)[0])

    d = funcbp.derive(loss, spec(3, 3), spec(3), spec(4, 3))
    defined = [
        line.split(" = ")[0].strip() for line in str(d).splitlines() if " = " in line and ":" not in line
    ]
    deltas = [
        name for name in defined if (name.startswith("δ") and name.endswith("ₜ")) or name.endswith(",t")
    ]
    assert len(deltas) == len(set(deltas)) == 2
    assert d.check(samples=1).ok


def test_only_one_real_number_is_differentiated() -> None:
    with pytest.raises(NotScalarError, match=r"float64\[m\]|float64\[3\]"):
        funcbp.derive(lambda x: 2 * x, spec(3))


def test_an_array_that_is_closed_over_has_no_name() -> None:
    weights = jnp.arange(3.0)
    with pytest.raises(UnsupportedError, match="pass it as an argument"):
        funcbp.derive(lambda x: x @ weights, spec(3))


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"wrt": "B"}, "wrt has 'B'"),
        ({"wrt": "ids"}, "dtype int32"),
        ({"dims": {"A": "m"}}, r"dims of `A` are \['m'\]"),
        ({"dims": {"A": "n n"}}, "dimension 'n' has sizes 3 and 4"),
        ({"assume": "A is nice"}, "cannot read 'A is nice'"),
        ({"assume": "B > 0"}, "is about 'B'"),
        ({"assume": "rows of A sum to one"}, "must be free to move"),
        ({"names": ["A"]}, "2 arguments need as many different names"),
        ({"style": "prose"}, "style is"),
    ],
)
def test_wrong_options_are_named(keywords, message) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        funcbp.derive(
            lambda A, ids: jnp.sum(A),
            spec(3, 4),
            jax.ShapeDtypeStruct((3,), jnp.int32),
            **{"wrt": "A", **keywords},
        )


def test_a_fact_that_the_data_contradict_is_an_error() -> None:
    def loss(Z, Y):
        return -jnp.sum(Y * jax.nn.log_softmax(Z))

    with pytest.raises(ValueError, match="of `Y` it is declared that the rows sum to one"):
        funcbp.derive(loss, jnp.ones((3, 4)), jnp.ones((3, 4)), wrt="Z", assume="rows of Y sum to one")


def test_nothing_cancels_that_may_be_zero() -> None:
    """x² / x is x, except at 0, where it is NaN."""
    careful = funcbp.derive(lambda x: jnp.sum(x**2 * (1 / x)), spec(3))
    assert "⊘" in str(careful)
    declared = funcbp.derive(lambda x: jnp.sum(x**2 * (1 / x)), spec(3), assume="x != 0")
    assert declared.gradients["x"].factored == "𝟏"


def test_the_derivation_holds_for_all_sizes(x64) -> None:
    d = funcbp.derive(lambda X, w: jnp.mean((X @ w) ** 2), spec(3, 4), spec(4))
    assert d.general
    X, w = np.random.default_rng(0).normal(size=(5, 2)), np.ones(2)
    truth = jax.grad(lambda w: jnp.mean((X @ w) ** 2))(w)
    np.testing.assert_allclose(d.value_and_grad(X, w)[1]["w"], truth, rtol=1e-12)


def test_sizes_that_the_function_looks_at_are_said() -> None:
    d = funcbp.derive(lambda x: jnp.sum(x.reshape(2, -1) ** 2), spec(4))
    assert not d.general
    assert "for these shapes" in str(d)


def test_a_function_of_the_users_with_a_known_name_is_looked_into() -> None:
    @jax.jit
    def inv(x):
        return 1 / x

    d = funcbp.derive(lambda A: jnp.sum(inv(A)), spec(3, 3))
    assert "⁻¹" not in str(d)
    assert d.check(samples=1).ok


def test_names_avoid_those_of_the_arguments(x64) -> None:
    d = funcbp.derive(
        lambda p1, q1, C, A: C @ jnp.tanh(A @ jnp.tanh(p1 * q1)), spec(3), spec(3), spec(2), spec(2, 3)
    )
    assert d.check(samples=1).ok


def test_a_wrong_source_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    right, wrong = (
        funcbp.derive(lambda A, x: jnp.sum(jnp.tanh(A @ x)), spec(2, 3), spec(3)) for _ in range(2)
    )
    assert "1 - q" in right.source()
    monkeypatch.setattr(wrong, "_source", right.source().replace("1 - q", "2 - q"))
    assert right.check(samples=1).ok
    assert not wrong.check(samples=1).ok


def test_markdown_holds_the_latex() -> None:
    d = funcbp.derive(lambda A, x, y: y @ A @ x, spec(2, 3), spec(3), spec(2))
    assert d.latex() in d.markdown()
    assert d._repr_markdown_() == d.markdown()


def test_latex_is_balanced() -> None:
    text = funcbp.derive(lambda A, x: jnp.sum(jax.nn.softmax(A @ x) ** 2), spec(2, 3), spec(3)).latex()
    assert text.count("{") == text.count("}")
    assert text.count(r"\left") == text.count(r"\right")
    assert text.isascii(), [c for c in text if not c.isascii()]


def test_names_of_activations_are_not_given_twice(x64) -> None:
    """tanh(A B) is named after its pre-activation, arctan(D) because it is used twice."""

    def loss(x, A, B, D):
        return x @ jnp.tanh(A @ B) @ jnp.arctan(D) @ x

    d = funcbp.derive(loss, spec(3), spec(3, 3), spec(3, 3), spec(3, 3))
    lines = [line.split(" = ")[0].strip() for line in d.source().splitlines() if " = " in line]
    assert len(lines) == len(set(lines))
    assert d.check(samples=1).ok


@pytest.mark.parametrize(
    ("function", "shown", "latex"),
    [
        (lambda x: jnp.sum(jax.scipy.special.erf(x)), "(2/√π) exp(−x∘²)", r"\frac{2}{\sqrt{\pi}}"),
        (lambda x: jnp.sum(jnp.log(x**2 + 1e-5)), "x∘² + 10⁻⁵", "x^{\\circ 2} + 10^{-5}"),
        (lambda x: jnp.sum(jnp.abs(x) ** 3), "|x|", r"\left|x\right|"),
        (lambda x: jnp.sum(jnp.concatenate([x, jnp.sin(x)]) ** 2), "[x; sin(x)]", r"\left[x;\; \sin"),
        (lambda x: jnp.sum(jnp.tanh(x[1:]) * x[1:]), "x[1:]", "x[1:]"),
    ],
)
def test_what_is_written_as_in_a_book(function, shown, latex) -> None:
    d = funcbp.derive(function, spec(3))
    assert shown in str(d)
    assert latex in d.latex()


def test_a_reason_has_its_formula_in_latex_too() -> None:
    d = funcbp.derive(lambda A, x: jnp.sum(jnp.tanh(A @ x)), spec(2, 3), spec(3))
    assert r"\text{what stands before $\mathrm{d}p$}" in d.latex()


def test_a_product_that_a_line_has_twice_is_named(x64) -> None:
    def attention(Q, K, V, Y):
        return jnp.sum((jax.nn.softmax(Q @ K.T) @ V - Y) ** 2)

    d = funcbp.derive(attention, spec(4, 3), spec(5, 3), spec(5, 2), spec(4, 2))
    assert d.source().count("R @ V.T") == 1
    assert d.check(samples=1).ok


def test_an_inverse_times_a_matrix_element_by_element_is_no_solve(x64) -> None:
    """A⁻¹ ⊙ B, which is summed over one axis only."""
    d = funcbp.derive(
        lambda A, B, x: x @ jnp.sum(jnp.linalg.inv(A) * B, axis=1), spec(3, 3), spec(3, 3), spec(3)
    )
    assert d.check(samples=1).ok


def test_functions_of_constants_in_a_recurrence(x64) -> None:
    """What is scanned over is zero everywhere, so that a step has nothing to read and sigmoid(0) in it."""

    def loss(x, B):
        step = lambda h, row: (jax.nn.sigmoid(row) * h, jnp.sin(row))  # noqa: E731
        last, rows = jax.lax.scan(step, x, B - B)
        return jnp.sum(last) + jnp.sum(rows)

    d = funcbp.derive(loss, spec(3), spec(4, 3))
    assert d.check(samples=1).ok
