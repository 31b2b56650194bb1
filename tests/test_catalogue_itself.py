"""The catalogue as such: names, documentation, and the errors of wrong calls and wrong definitions."""

import functools
import re
from collections.abc import Callable
from typing import Any

import chex
import jax
import pytest
from jax import numpy as jnp
from jaxtyping import Array, Float, Int

import funcbp
from funcbp import Rule, catalogue, domains, rules
from funcbp.verify._cases import Variant, axis_sizes
from funcbp.verify._contract import specs

RULES = [pytest.param(rule, id=name) for name, rule in catalogue().items()]
X = Float[Array, "*shape"]


@pytest.mark.parametrize("rule", RULES)
def test_is_exported_under_its_name(rule: Rule):
    assert getattr(rules, rule.name) is rule
    assert rule.name in rules.__all__


def test_everything_exported_is_in_the_catalogue():
    assert set(rules.__all__) == set(catalogue())
    assert len(rules.__all__) == len(catalogue())
    assert len(catalogue()) >= 18


@pytest.mark.parametrize("rule", RULES)
def test_is_documented(rule: Rule):
    assert rule.formula
    assert rule.saves or rule.name == "identity"
    assert rule.__doc__ is not None
    assert "Saves" in rule.__doc__
    for word in ("Forward", "ackward", "Derivation."):
        assert word in rule.__doc__, f"{rule.name}: its docstring lacks {word!r}"


@pytest.mark.parametrize("rule", RULES)
def test_names_are_consistent(rule: Rule):
    assert re.fullmatch(r"[a-z][a-z0-9_]*", rule.name)
    assert rule.fwd.__name__ == f"{rule.name}_fwd"
    assert rule.bwd.__name__ == f"{rule.name}_bwd"
    assert rule.family in rule.__module__
    assert repr(rule).startswith(f"<Rule {rule.name}(")


@pytest.mark.parametrize("rule", RULES)
def test_is_immutable(rule: Rule):
    with pytest.raises(AttributeError, match=f"`{rule.name}` is immutable"):
        rule.bwd = rule.fwd


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: rules.dense(jnp.ones((2, 3)), jnp.ones((4, 5))),
            ValueError,
            r"`w` has shape \(4, 5\).*in = 3",
        ),
        (
            lambda: rules.dense(jnp.ones((2, 3)), jnp.ones(3)),
            ValueError,
            r"`w` has shape \(3,\), expected \(in, out\)",
        ),
        (lambda: rules.dense(jnp.ones((2, 3)), jnp.ones((3, 5), jnp.bfloat16)), TypeError, "share one dtype"),
        (lambda: rules.relu(jnp.arange(3)), TypeError, r"`p` must be floating, got int32\[3\]"),
        (
            lambda: rules.softmax(jnp.ones(3), axes=0),
            TypeError,
            r"unknown option `axes`.*static options are \['axis', 'temperature'\]",
        ),
        (lambda: rules.softmax(jnp.ones(3), axis=[0]), TypeError, "`axis` must be hashable"),
        (lambda: rules.dense(jnp.ones((2, 3))), TypeError, "argument `w` is missing"),
        (lambda: rules.relu(jnp.ones(3), jnp.ones(3)), TypeError, r"takes 1 arrays \['p'\], got 2"),
        (lambda: rules.relu(jnp.ones(3), p=jnp.ones(3)), TypeError, "`p` was given twice"),
        (lambda: rules.relu("text"), TypeError, "`p` must be an array, got str"),
        (
            lambda: rules.softmax_cross_entropy_with_integer_labels(jnp.ones((2, 3)), jnp.ones(2)),
            TypeError,
            r"`labels` must hold integers, got float32\[2\]",
        ),
    ],
)
def test_a_wrong_call_names_the_argument(call: Callable[[], Any], error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        call()


def _fwd(p: X, *, factor: float = 2.0) -> tuple[X, tuple[()]]:
    return factor * p, ()


def _bwd(residuals: tuple[()], q_ct: X, *, factor: float = 2.0) -> tuple[X]:
    return (factor * q_ct,)


def _define(
    fwd: Any = _fwd, bwd: Any = _bwd, names: tuple[str, str] = ("double_fwd", "double_bwd"), **options: Any
):
    fwd.__name__, bwd.__name__ = names
    return Rule(
        fwd,
        bwd,
        **{"reference": lambda p, factor=2.0: factor * p, "domain": {"p": domains.Normal()}} | options,
    )


def _bwd_without_option(residuals: tuple[()], q_ct: X) -> tuple[X]:
    return (2 * q_ct,)


def _fwd_without_annotation(p, *, factor: float = 2.0):
    return factor * p, ()


def _fwd_without_default(p: X, *, factor: float) -> tuple[X, tuple[()]]:
    return factor * p, ()


def test_a_sound_definition_is_accepted():
    assert float(_define()(jnp.float32(3.0), factor=4.0)) == 12.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"names": ("double", "double_bwd")}, "must be named <name>_fwd"),
        ({"names": ("double_fwd", "twice_bwd")}, "must be named `double_bwd`, got `twice_bwd`"),
        ({"domain": {}}, r"must name exactly the arguments \['p'\]"),
        ({"domain": {"p": domains.Integers()}}, "domain of `p` does not fit"),
        ({"bwd": _bwd_without_option}, r"fwd has static options \{'factor': 2.0\}, bwd has \{\}"),
        ({"settings": ({"scale": 1.0},)}, r"unknown static options \['scale'\]"),
        ({"points": {"zero": domains.Point({"x": 0.0})}}, r"'zero' names unknown arguments \['x'\]"),
        ({"fwd": _fwd_without_annotation}, "`p` needs one jaxtyping annotation"),
        ({"fwd": _fwd_without_default}, "`factor` needs a default"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_definition_that_contradicts_itself_is_refused(options: dict[str, Any], message: str):
    with pytest.raises(TypeError, match=message):
        _define(**options)


def test_an_integer_domain_must_be_annotated_as_integer():
    def lookup_fwd(ids: Int[Array, "*batch"]) -> tuple[Any, tuple[()]]:
        return ids, ()

    def lookup_bwd(residuals: tuple[()], out_ct: Any) -> tuple[None]:
        return (None,)

    with pytest.raises(TypeError, match="domain of `ids` does not fit"):
        Rule(lookup_fwd, lookup_bwd, reference=lambda ids: ids, domain={"ids": domains.Normal()})


def test_repeated_calls_trace_once():
    chex.clear_trace_counter()

    @jax.jit
    @chex.assert_max_traces(n=1)
    def step(x: jax.Array) -> jax.Array:
        return jax.grad(lambda x: rules.softmax(x, axis=0).max())(x)

    for scale in range(1, 4):
        step(scale * jnp.ones((2, 3)))


def test_a_rule_passed_to_jit_is_not_traced_again():
    traces = []

    def reference(p: jax.Array, factor: float = 2.0) -> jax.Array:
        return factor * p

    def traced_fwd(p: X) -> tuple[X, tuple[()]]:
        traces.append("fwd")
        return 2 * p, ()

    def traced_bwd(residuals: tuple[()], q_ct: X) -> tuple[X]:
        traces.append("bwd")
        return (2 * q_ct,)

    rule = Rule(traced_fwd, traced_bwd, reference=reference, domain={"p": domains.Normal()})
    step = jax.jit(jax.grad(rule))
    for _ in range(3):
        step(jnp.float32(1.0))
    assert sorted(traces) == ["bwd", "fwd"]


@pytest.mark.parametrize("rule", RULES)
def test_forward_mode_works_on_primal(rule: Rule):
    variant = Variant(rule, {}, rule.signature.arguments)
    given = specs(variant, axis_sizes(rule), "float32")
    floating = [i for i, a in enumerate(variant.present) if a.floating]

    def moved(function: Callable[..., Any], *args: jax.Array) -> Any:
        def of_floating(*values: jax.Array) -> Any:
            every = list(args)
            for i, x in zip(floating, values, strict=True):
                every[i] = x
            return function(*every)

        values = tuple(args[i] for i in floating)
        return jax.jvp(of_floating, values, values)

    primal, tangent = jax.eval_shape(functools.partial(moved, rule.primal), *given)
    chex.assert_trees_all_equal_shapes(primal, tangent, jax.eval_shape(rule, *given))


def test_forward_mode_is_refused_by_the_callable():
    x = jnp.ones((2, 3))
    with pytest.raises(TypeError, match="custom_vjp"):
        jax.jvp(rules.tanh, (x,), (x,))


def test_the_package_exports_what_it_names():
    for name in funcbp.__all__:
        assert hasattr(funcbp, name)
