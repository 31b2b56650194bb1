"""Every rule, as it is, through the transformations of JAX and the protocols of Python; wrong cotangents."""

import copy
import pickle
from typing import Any

import chex
import jax
import numpy as np
import pytest
from jax import numpy as jnp
from jaxtyping import Array, Float

from funcbp import Rule, catalogue, domains, rules
from funcbp.verify._cases import Variant, axis_sizes, draw
from funcbp.verify._contract import specs

RULES = [pytest.param(rule, id=name) for name, rule in catalogue().items()]
# One of every shape of signature by default: compiling all of them takes minutes.
FEW = ("relu", "dense", "softmax_cross_entropy_with_integer_labels", "layer_norm")


def arguments(rule: Rule) -> list[jax.Array]:
    variant = Variant(rule, {}, rule.signature.arguments)
    values = draw(variant, axis_sizes(rule), np.random.default_rng(0), 1)
    pairs = zip(variant.present, values, strict=True)
    return [jnp.asarray(x[0], jnp.float32 if argument.floating else x.dtype) for argument, x in pairs]


def shapes_of(rule: Rule) -> tuple[Any, Any]:
    """Output and residuals of `fwd`, as shapes and dtypes: nothing is compiled."""
    variant = Variant(rule, {}, rule.signature.arguments)
    return jax.eval_shape(rule.fwd, *specs(variant, axis_sizes(rule), "float32"))


@pytest.mark.parametrize(
    "rule",
    [
        pytest.param(rule, id=name, marks=() if name in FEW else pytest.mark.long)
        for name, rule in catalogue().items()
    ],
)
def test_a_bare_rule_goes_through_every_transformation(rule: Rule):
    args, statics = arguments(rule), dict(rule.signature.statics)
    out = rule(*args)

    def same(actual: Any, expected: Any = out) -> None:
        chex.assert_trees_all_close(actual, expected, rtol=1e-5, atol=1e-5)

    for wrapped in (jax.jit(rule), jax.checkpoint(rule)):
        same(wrapped(*args))
    same(jax.jit(rule, static_argnames=tuple(statics))(*args, **statics))
    chex.assert_trees_all_equal_shapes(jax.eval_shape(rule, *args), out)
    avals = jax.make_jaxpr(rule)(*args).out_avals
    assert [a.shape for a in avals] == [x.shape for x in jax.tree.leaves(out)]
    stacked = [jnp.stack([x, x]) for x in args]
    same(jax.vmap(rule)(*stacked), jax.tree.map(lambda x: jnp.stack([x, x]), out))


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
def test_a_wrong_cotangent_is_an_error_that_says_what_to_do(rule: Rule):
    out, residuals = shapes_of(rule)
    for backward in (rule.bwd, rule.pullback):
        for dtype in (jnp.int32, jnp.bool_):
            wrong = jax.tree.map(lambda o, dtype=dtype: jax.ShapeDtypeStruct(o.shape, dtype), out)
            with pytest.raises(TypeError, match=rf"{rule.name}: the cotangent.* must be floating, got "):
                jax.eval_shape(backward, residuals, wrong)
        with pytest.raises(TypeError, match=rf"{rule.name}: the cotangent.* must be an array, got list"):
            backward(residuals, jax.tree.map(lambda o: [0.0], out))
        if rule.name == "identity":
            continue  # saves nothing to compare with
        wrong = jax.tree.map(lambda o: jax.ShapeDtypeStruct(o.shape, jnp.bfloat16), out)
        with pytest.raises(TypeError, match=rf"{rule.name}: the cotangent.* is bfloat16.*, the output"):
            jax.eval_shape(backward, residuals, wrong)
        wrong = jax.tree.map(lambda o: jax.ShapeDtypeStruct((3, *o.shape), o.dtype), out)
        with pytest.raises(ValueError, match=rf"{rule.name}: the cotangent.* is float32"):
            jax.eval_shape(backward, residuals, wrong)


def test_a_numpy_cotangent_is_accepted():
    (p_ct,) = rules.tanh.bwd(jnp.zeros(2), np.ones(2, np.float32))
    assert p_ct.tolist() == [1, 1]
