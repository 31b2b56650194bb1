"""`check_gradient`, `check_vjp`, `check_jacobian`, `check_chain`: what is handed over and what comes back."""

import re
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
from jax import numpy as jnp

import funcbp
from funcbp import domains, rules
from funcbp.verify import Cause, Checked, Report

rng = np.random.default_rng(7)
X = rng.standard_normal((6, 3)).astype("float32")
Y = rng.standard_normal(6).astype("float32")
W = rng.standard_normal(3).astype("float32")


def mse(w, x, y):
    return jnp.mean((x @ w - y) ** 2) / 2


def mse_gradient(w, x, y):
    return x.T @ (x @ w - y) / len(y)


def check_mse(my_grad: Any, **options: Any) -> Report:
    return funcbp.check_gradient(my_grad, of=mse, args=(W, X, Y), samples=2, **options)


def causes(report: Report) -> list[Cause]:
    return [finding.cause for finding in report.findings]


class TestGradient:
    def test_a_right_one(self):
        report = check_mse(mse_gradient)
        assert report.verdict == "right", report
        assert report.ok
        assert report.checked.by_leaf["w"] == report.checked.elements > 100
        assert report.checked.dtypes == ("the example's dtypes", "float64")
        assert any("against float64: yours" in note for note in report.notes)

    def test_the_error_of_the_source_has_a_name(self):
        report = check_mse(lambda w, x, y: x.T @ (y - x @ w) / len(y))
        assert causes(report) == [Cause.SIGN]
        (finding,) = report.findings
        assert finding.where.startswith("w[")
        assert finding.actual == pytest.approx(-finding.expected)
        assert abs(finding.actual - finding.expected) > finding.bound > 0

    def test_the_input_that_shows_it_is_shrunk(self):
        (finding,) = check_mse(lambda w, x, y: mse_gradient(w, x, y) * 2).findings
        assert set(finding.at) == {"w", "x", "y"}
        simple = [np.isin(value, [-3, -2, -1, 0, 1, 2, 3]).all() for value in finding.at.values()]
        assert sum(simple) >= 2, finding

    def test_value_and_gradient(self):
        def value_and_grad(w, x, y):
            return mse(w, x, y), mse_gradient(w, x, y)

        assert check_mse(value_and_grad).verdict == "right"

        def wrong_value(w, x, y):
            return 2 * mse(w, x, y), mse_gradient(w, x, y)

        assert causes(check_mse(wrong_value)) == [Cause.PRIMAL_DIFFERS]

    def test_several_arguments_and_aux(self):
        def loss(w, x, y):
            return mse(w, x, y), {"residual": x @ w - y}

        def mine(w, x, y):
            r = (x @ w - y) / len(y)
            return (mse(w, x, y), {"residual": None}), (x.T @ r, jnp.outer(r, w))

        options = {"of": loss, "args": (W, X, Y), "argnums": (0, 1), "has_aux": True, "samples": 2}
        assert funcbp.check_gradient(mine, **options).verdict == "right"

        def one_of_them(w, x, y):
            return (mse_gradient(w, x, y),)

        assert causes(funcbp.check_gradient(one_of_them, **options)) == [Cause.STRUCTURE]

    def test_numpy_functions_static_options_and_named_tuples(self):
        class Params(NamedTuple):
            w: Any
            b: Any

        def loss(p, x, *, power):
            return jnp.sum((x @ p.w + p.b) ** power)

        def mine(p, x, *, power):
            x, w = np.asarray(x), np.asarray(p.w)
            d = power * (x @ w + np.asarray(p.b)) ** (power - 1)
            return Params(x.T @ d, d.sum())

        args = (Params(W, np.float32(0.5)), X)
        report = funcbp.check_gradient(mine, of=loss, args=args, static={"power": 3}, samples=2)
        assert report.verdict == "right", report
        assert any("cannot be traced" in note for note in report.notes)

    def test_a_tree_that_does_not_fit(self):
        report = funcbp.check_gradient(
            lambda p: {"w": p["w"]},
            of=lambda p: jnp.sum(p["w"] ** 2) + p["b"] ** 2,
            args=({"w": W, "b": 1.0},),
        )
        assert causes(report) == [Cause.STRUCTURE]
        assert "'b'" in report.findings[0].message

    @pytest.mark.parametrize(
        ("arguments", "error", "says"),
        [
            ({"of": lambda w, x, y: x @ w}, TypeError, r"scalar.*float32\[6\]"),
            ({"of": lambda w, x: w}, TypeError, "tracing it failed"),
            ({"argnums": 5}, ValueError, "argnums=5.*3 entries"),
            ({"args": (W, X, np.arange(6)), "argnums": 2}, TypeError, "nothing to differentiate: y"),
            ({"order": 3}, ValueError, "order must be 1 or 2"),
            ({"budget": 0}, ValueError, "budget"),
            ({"smaples": 3}, TypeError, "no option smaples"),
            ({"dtypes": (int,)}, TypeError, "dtypes must be floating"),
            ({"domain": {"z": domains.Positive()}}, ValueError, "z"),
        ],
    )
    def test_bad_input(self, arguments, error, says):
        given = {"of": mse, "args": (W, X, Y)} | arguments
        with pytest.raises(error, match=says):
            funcbp.check_gradient(mse_gradient, **given)


class TestVjp:
    def test_a_rule(self):
        report = funcbp.check_vjp(rules.tanh, of=jnp.tanh, args=(X,), samples=2)
        assert report.verdict == "right", report

    def test_a_pair_with_an_integer_argument(self):
        def fwd(table, ids):
            return table[ids], (table, ids)

        def bwd(residuals, ct):
            table, ids = residuals
            return jnp.zeros_like(table).at[ids].set(ct), None

        report = funcbp.check_vjp(
            (fwd, bwd), of=lambda table, ids: table[ids], args=(X, np.arange(4)), samples=4
        )
        assert causes(report) == [Cause.OVERWRITTEN], report

    def test_a_custom_vjp(self):
        @jax.custom_vjp
        def cube(x):
            return x**3

        cube.defvjp(lambda x: (x**3, x), lambda x, ct: (2 * x**2 * ct,))
        report = funcbp.check_vjp(cube, of=lambda x: x**3, args=(W,), samples=2)
        assert causes(report) == [Cause.CONSTANT_FACTOR], report

    def test_not_linear(self):
        pair = (lambda x: (jnp.sin(x), x), lambda x, ct: (jnp.cos(x) * ct * jnp.abs(ct),))
        assert causes(funcbp.check_vjp(pair, of=jnp.sin, args=(W,), samples=2)) == [Cause.NOT_LINEAR]

    def test_contract(self):
        def pair(bwd):
            return (lambda x, b: (x + b, (x, b)), bwd)

        def check(bwd):
            return causes(funcbp.check_vjp(pair(bwd), of=jnp.add, args=(X, W)))

        assert check(lambda r, ct: (ct, ct)) == [Cause.BROADCAST]
        assert check(lambda r, ct: (ct.T, ct.sum(0))) == [Cause.SHAPE]
        assert check(lambda r, ct: (ct, ct.sum(0).astype(jnp.bfloat16))) == [Cause.DTYPE]
        assert check(lambda r, ct: (ct, ct.sum(0), ct)) == [Cause.STRUCTURE]
        assert check(lambda r, ct: ({"x": ct}, ct.sum(0))) == [Cause.STRUCTURE]
        assert check(lambda r, ct: 1 / 0) == [Cause.RAISES]

    def test_none_is_zero(self):
        pair = (lambda x, b: (x * b, b), lambda b, ct: (ct * b, None))
        assert causes(funcbp.check_vjp(pair, of=jnp.multiply, args=(X, X), samples=2)) == [Cause.ZERO]

    def test_impure(self):
        kept = {}

        def fwd(x):
            kept["x"] = x
            return x**2, None

        report = funcbp.check_vjp(
            (fwd, lambda _, ct: (2 * kept["x"] * ct,)), of=jnp.square, args=(W,), samples=2
        )
        assert causes(report) == [Cause.STALE]
        assert "fwd has run on other arguments" in report.findings[0].message

    def test_by_chance(self):
        pair = (lambda x: (x**2, x), lambda x, ct: (2 * x * ct * np.float32(rng.random()),))
        report = funcbp.check_vjp(pair, of=jnp.square, args=(W,), samples=2)
        assert causes(report) == [Cause.NONDETERMINISTIC]

    def test_only_under_vmap(self):
        def bwd(x, ct):
            # A kernel that was written for whole batches: vmap has one more axis than its author thought of.
            return (2 * x * ct * (1.0 if x.ndim == 1 and not _batched(x) else 2.0),)

        def _batched(x):
            return type(x).__name__ == "BatchTracer"

        report = funcbp.check_vjp((lambda x: (x**2, x), bwd), of=jnp.square, args=(W,), samples=2)
        assert causes(report) == [Cause.VMAP], report

    def test_second_order(self):
        pair = (lambda x: (x**3, x), lambda x, ct: (3 * jax.lax.stop_gradient(x) ** 2 * ct,))
        given = {"of": lambda x: x**3, "args": (W,), "samples": 2}
        assert funcbp.check_vjp(pair, **given).verdict == "right"
        assert causes(funcbp.check_vjp(pair, order=2, **given)) == [Cause.SECOND_ORDER]

    def test_hidden_low_precision(self):
        def bwd(x, ct):
            return ((jnp.cos(x).astype(jnp.bfloat16) * ct.astype(jnp.bfloat16)).astype(x.dtype),)

        report = funcbp.check_vjp((lambda x: (jnp.sin(x), x), bwd), of=jnp.sin, args=(W,), samples=2)
        assert causes(report) == [Cause.PRECISION], report


class TestKinks:
    @pytest.mark.parametrize(
        ("at_zero", "expected"),
        [
            pytest.param(0.0, [], marks=pytest.mark.long),
            pytest.param(0.5, [], marks=pytest.mark.long),
            (1.0, []),
            (-0.5, [Cause.KINK]),
        ],
    )
    def test_every_convention_is_right(self, at_zero, expected):
        def bwd(x, ct):
            return (ct * jnp.where(x > 0, 1.0, jnp.where(x < 0, 0.0, at_zero)).astype(x.dtype),)

        pair = (lambda x: (jnp.maximum(x, 0), x), bwd)
        report = funcbp.check_vjp(pair, of=jax.nn.relu, args=(X,), samples=2)
        assert report.verdict == ("wrong" if expected else "right"), report
        assert causes(report) == expected

    def test_a_tie_that_is_not_split(self):
        def bwd(x, ct):
            return (ct[:, None] * (x == x.max(1, keepdims=True)),)

        pair = (lambda x: (x.max(1), x), bwd)
        report = funcbp.check_vjp(pair, of=lambda x: x.max(1), args=(X,), samples=2)
        assert causes(report) == [Cause.KINK], report

    def test_nan_where_a_limit_exists(self):
        def bwd(x, ct):
            return (ct * (jnp.cos(x) * x - jnp.sin(x)) / x**2,)

        def sinc(x):
            return jnp.sinc(x / jnp.pi)

        report = funcbp.check_vjp((lambda x: (sinc(x), x), bwd), of=sinc, args=(X,), samples=2)
        assert causes(report) == [Cause.NONFINITE], report

    def test_a_thin_band_beside_a_kink(self):
        def huber(x):
            return jnp.where(jnp.abs(x) < 1, x**2 / 2, jnp.abs(x) - 0.5)

        pair = (
            lambda x: (huber(x), x),
            lambda x, ct: (ct * jnp.where(jnp.abs(x) < 0.99, x, jnp.sign(x)),),
        )
        report = funcbp.check_vjp(pair, of=huber, args=(X,), samples=2)
        assert report.verdict == "wrong"
        (finding,) = report.findings
        assert finding.cause is Cause.REGION
        assert re.search(r"0\.99", finding.message), finding


class TestJacobian:
    def test_layouts(self):
        x, w = X.astype("float64")[:4], rng.standard_normal((3, 2))

        def by_columns(x, w):
            return jnp.kron(jnp.eye(w.shape[1], dtype=x.dtype), x)

        given = {"of": jnp.matmul, "args": (x, w), "argnums": 1, "samples": 2}
        assert funcbp.check_jacobian(by_columns, layout="vec-columns", **given).verdict == "right"
        report = funcbp.check_jacobian(by_columns, layout="vec-rows", **given)
        assert causes(report) == [Cause.LAYOUT], report
        assert "vec-columns" in report.findings[0].message

    def test_a_transposed_one(self):
        a = rng.standard_normal((3, 3))
        given = {"of": lambda x: a @ x, "args": (rng.standard_normal(3),), "samples": 2}
        assert funcbp.check_jacobian(lambda x: jnp.asarray(a), layout="numerator", **given).verdict == "right"
        report = funcbp.check_jacobian(lambda x: jnp.asarray(a).T, layout="numerator", **given)
        assert causes(report) == [Cause.TRANSPOSED], report

    def test_a_shape_that_the_layout_does_not_have(self):
        report = funcbp.check_jacobian(
            lambda x: jnp.ones((3, 2), x.dtype), of=lambda x: X @ x, args=(W,), layout="numerator"
        )
        assert causes(report) == [Cause.SHAPE]
        with pytest.raises(ValueError, match="layout must be one of"):
            funcbp.check_jacobian(lambda x: x, of=lambda x: X @ x, args=(W,), layout="rows")


class TestChain:
    steps = (
        (lambda w, x: (x @ w, (x, w)), lambda r, ct: (r[0].T @ ct, ct @ r[1].T)),
        (lambda x: (jnp.tanh(x), jnp.tanh(x)), lambda q, ct: (ct * (1 - q),)),
        (lambda w, x: (x @ w, (x, w)), lambda r, ct: (r[0].T @ ct, ct @ r[1].T)),
    )

    def test_the_one_guilty_step(self):
        params = [rng.standard_normal((3, 4)), None, rng.standard_normal((4, 2))]
        report = funcbp.check_chain(self.steps, args=(params, X.astype("float64")), samples=1)
        assert {finding.where.partition(":")[0] for finding in report.findings} == {"steps[1]"}
        with pytest.raises(AssertionError, match=r"steps\[0\]"):
            funcbp.assert_chain(self.steps[1:2], args=(X.astype("float64"),), samples=1)

    def test_bad_input(self):
        with pytest.raises(ValueError, match="params must have one entry for each of the 3 steps, not 1"):
            funcbp.check_chain(self.steps, args=([W], X))
        with pytest.raises(ValueError, match="of must have one entry"):
            funcbp.check_chain(self.steps, of=[jnp.sin], args=(X,))


def test_assertions():
    funcbp.assert_gradient(mse_gradient, of=mse, args=(W, X, Y), samples=1)
    with pytest.raises(AssertionError, match="sign"):
        funcbp.assert_gradient(lambda *a: -mse_gradient(*a), of=mse, args=(W, X, Y), samples=1)
    with pytest.raises(AssertionError, match="wrong"):
        funcbp.assert_vjp(lambda x: 2 * x, of=jnp.sin, args=(W,), samples=1)
    with pytest.raises(AssertionError, match="wrong"):
        funcbp.assert_jacobian(lambda x: jnp.eye(3), of=jnp.sin, args=(W,), samples=1)


def test_a_budget_that_is_used_up_never_makes_a_wrong_one_right():
    report = check_mse(lambda w, x, y: 2 * mse_gradient(w, x, y), budget=1e-9)
    assert report.verdict != "right", report
    assert Report("f", checked=Checked(elements=1, by_leaf={"x": 1}), unexplained=1).verdict == "undecidable"


def test_undecidable_is_told():
    report = Report("f", undecided=("nothing was finite",))
    assert report.verdict == "undecidable"
    assert report.ok
    with pytest.warns(UserWarning, match="undecidable"):
        report.raise_if_failed("warn")
    with pytest.raises(AssertionError, match="undecidable"):
        report.raise_if_failed("raise")
    with pytest.raises(ValueError, match="on_undecidable"):
        report.raise_if_failed("ignore")
