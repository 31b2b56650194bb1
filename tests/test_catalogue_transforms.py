"""Every rule, as it is, through the transformations of JAX and the protocols of Python; wrong cotangents."""

import copy
import pickle
from typing import Any

import jax
import numpy as np
import pytest
from jax import numpy as jnp
from jaxtyping import Array, Float

from funcbp import Rule, catalogue, domains, rules

RULES = [pytest.param(rule, id=name) for name, rule in catalogue().items()]
SIZES = {"in": 2, "out": 3, "classes": 4, "features": 5, "rows": 2, "inner": 3, "columns": 4}


def arguments(rule: Rule) -> list[jax.Array]:
    rng, args = np.random.default_rng(0), []
    for argument in rule.signature.arguments:
        shape = tuple(7 if axis.startswith("*") else SIZES[axis] for axis in argument.axes)
        values = rule.domain[argument.name].sample(rng, shape, SIZES)
        args.append(jnp.asarray(values, jnp.float32 if argument.floating else jnp.int32))
    return args


@pytest.mark.parametrize("rule", RULES)
def test_a_bare_rule_goes_through_every_transformation(rule: Rule):
    args, statics = arguments(rule), dict(rule.signature.statics)
    out = rule(*args)
    for wrapped in (jax.jit(rule), jax.checkpoint(rule)):
        np.testing.assert_allclose(wrapped(*args), out, rtol=1e-6, atol=1e-6)
    compiled = jax.jit(rule, static_argnames=tuple(statics))
    np.testing.assert_allclose(compiled(*args, **statics), out, rtol=1e-6, atol=1e-6)
    assert jax.eval_shape(rule, *args).shape == out.shape
    assert [a.shape for a in jax.make_jaxpr(rule)(*args).out_avals] == [out.shape]
    stacked = [jnp.stack([x, x]) for x in args]
    np.testing.assert_allclose(jax.vmap(rule)(*stacked), jnp.stack([out, out]), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("rule", RULES)
def test_a_copy_is_the_rule_itself(rule: Rule):
    assert copy.copy(rule) is rule
    assert copy.deepcopy({"layer": rule})["layer"] is rule
    assert pickle.loads(pickle.dumps(rule)) is rule


def test_a_rule_that_no_module_has_cannot_be_pickled():
    def twice_fwd(p: Float[Array, "*shape"]) -> Any:
        return 2 * p, ()

    def twice_bwd(residuals: Any, q_ct: Any) -> Any:
        return (2 * q_ct,)

    twice = Rule(twice_fwd, twice_bwd, reference=lambda p: 2 * p, domain={"p": domains.Normal()})
    with pytest.raises(TypeError, match=r"rule `twice` cannot be pickled.*at the top level: twice = Rule"):
        pickle.dumps(twice)
    assert copy.deepcopy(twice) is twice


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda ct: ct.astype(jnp.int32), r"must be floating, got int32.*astype\(output.dtype\)"),
        (lambda ct: ct > 0, r"must be floating, got bool"),
        (lambda ct: np.asarray(ct).tolist(), r"must be an array, got list.*jnp.asarray\(cotangent"),
    ],
    ids=["integers", "booleans", "a list"],
)
def test_a_cotangent_that_is_no_floating_array_is_an_error(rule: Rule, change: Any, message: str):
    out, residuals = rule.fwd(*arguments(rule))
    for backward in (rule.bwd, rule.pullback):
        with pytest.raises(TypeError, match=f"{rule.name}: the cotangent {message}"):
            backward(residuals, change(jnp.ones_like(out)))


@pytest.mark.parametrize(
    "rule", [r for r in catalogue().values() if r is not rules.identity], ids=lambda r: r.name
)
def test_a_cotangent_of_another_dtype_is_an_error(rule: Rule):
    out, residuals = rule.fwd(*arguments(rule))
    with pytest.raises(TypeError, match=f"{rule.name}: the cotangent is bfloat16.*, the output float32"):
        rule.bwd(residuals, jnp.ones_like(out, jnp.bfloat16))


def test_a_numpy_cotangent_is_accepted():
    (p_ct,) = rules.tanh.bwd(jnp.zeros(2), np.ones(2, np.float32))
    assert p_ct.tolist() == [1, 1]
