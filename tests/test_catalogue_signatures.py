"""Signatures of rules that are no part of the catalogue: axes, dtypes and static options as annotated."""

from typing import Any

import jax
import numpy as np
import pytest
from jax import numpy as jnp
from jaxtyping import Array, BFloat16, Bool, Float, Float32, Inexact, Int8, Shaped

from funcbp import Rule, domains, rules
from funcbp._signature import describe
from funcbp.verify import check_rule


def scaled(annotation: Any, domain: domains.Domain | None = None, **statics: Any) -> Rule:
    """q = 2 p for an argument annotated so."""

    def scaled_fwd(p: annotation) -> Any:
        return 2 * p, ()

    def scaled_bwd(residuals: Any, q_ct: Any) -> Any:
        return (2 * q_ct,)

    return Rule(scaled_fwd, scaled_bwd, reference=lambda p: 2 * p, domain={"p": domain or domains.Normal()})


@pytest.mark.parametrize(
    ("axes", "fits", "does_not"),
    [
        ("n 3", [(5, 3), (3, 3)], [(5, 4), (3,)]),
        ("_ _", [(2, 3), (2, 2)], [(2,)]),
        ("...", [(), (2,), (2, 3)], []),
        ("... n n", [(2, 2), (5, 2, 2)], [(2, 3), (2,)]),
        ("*batch 1", [(1,), (4, 1)], [(), (4,)]),
        ("", [()], [(1,)]),
    ],
)
def test_axes_mean_what_jaxtyping_says(axes: str, fits: list[Any], does_not: list[Any]):
    rule = scaled(Float[Array, axes])
    for shape in fits:
        assert rule(jnp.ones(shape)).shape == shape
    for shape in does_not:
        with pytest.raises(ValueError, match="argument `p` has shape"):
            rule(jnp.ones(shape))


@pytest.mark.parametrize("axes", ["n 3", "_ _", "... n"])
def test_such_a_rule_can_be_checked(axes: str):
    assert check_rule(scaled(Float[Array, axes]), examples=4, dtypes=("float32",)).verdict == "right"


@pytest.mark.parametrize("axis", ["n+1", "#n", "n=3", "?n", "*#n", "_n", "*_"])
def test_an_axis_that_is_not_understood_is_refused(axis: str):
    with pytest.raises(TypeError, match=r"`p` is annotated Float\[Array, .*is not understood") as error:
        scaled(Float[Array, f"m {axis}"])
    assert repr(axis) in str(error.value)


def test_only_one_axis_can_be_variadic():
    try:
        annotation = Float[Array, "*a *b"]
    except ValueError:
        return  # jaxtyping refuses it by itself
    with pytest.raises(TypeError, match="only one axis"):
        scaled(annotation)


@pytest.mark.parametrize("dtype", [Float32, BFloat16, Int8, Inexact, Shaped])
def test_an_annotation_of_some_dtypes_is_refused(dtype: Any):
    with pytest.raises(TypeError, match=rf"annotated {dtype.__name__}\[.*Float, Int, UInt, Integer, Bool"):
        scaled(dtype[Array, "n"])


def masked_fwd(p: Float[Array, "*shape"], mask: Bool[Array, "*shape"]) -> Any:
    return jnp.where(mask, p, 0), mask


def masked_bwd(residuals: Any, q_ct: Any) -> Any:
    return jnp.where(residuals, q_ct, 0), None


def masked_reference(p: jax.Array, mask: jax.Array) -> jax.Array:
    return p * mask


def test_a_boolean_argument_has_no_cotangent():
    masked = Rule(
        masked_fwd,
        masked_bwd,
        reference=masked_reference,
        domain={"p": domains.Normal(), "mask": domains.Booleans()},
    )
    check_rule(masked, examples=8).raise_if_failed()
    p, mask = jnp.arange(3.0), jnp.array([True, False, True])
    assert jax.grad(lambda p: masked(p, mask).sum())(p).tolist() == [1, 0, 1]
    with pytest.raises(TypeError, match=r"`mask` must hold booleans, got int32\[3\].*mask.astype\(jnp.bool"):
        masked(p, mask.astype(jnp.int32))


@pytest.mark.parametrize("domain", [domains.Integers(), domains.Normal()])
def test_the_domain_of_a_boolean_argument_is_booleans(domain: domains.Domain):
    with pytest.raises(TypeError, match="domain of `mask` does not fit"):
        Rule(
            masked_fwd,
            masked_bwd,
            reference=masked_reference,
            domain={"p": domains.Normal(), "mask": domain},
        )


@pytest.mark.parametrize(
    ("rule", "option", "message"),
    [
        ("softmax", {"axis": "a"}, r"`axis` must be of type int \(its default is -1\), got 'a'"),
        ("softmax", {"axis": 1.0}, "`axis` must be of type int"),
        ("softmax", {"axis": True}, "`axis` must be of type int"),
        ("gelu", {"approximate": 1}, "`approximate` must be of type bool"),
        ("gelu", {"approximate": "no"}, "`approximate` must be of type bool"),
    ],
)
def test_a_static_option_has_the_type_of_its_default(rule: str, option: dict[str, Any], message: str):
    with pytest.raises(TypeError, match=f"{rule}: static option {message}"):
        getattr(rules, rule)(jnp.ones((2, 3)), **option)


def test_an_integer_serves_as_a_float_and_a_numpy_integer_as_an_int():
    x = jnp.array([[1.0, 3.0]])
    np.testing.assert_allclose(rules.layer_norm(x, eps=1), x * 0.70710677 - 1.4142135, rtol=1e-5)
    np.testing.assert_array_equal(rules.softmax(x, axis=np.int64(0)), jnp.ones((1, 2)))


def test_an_array_is_described_with_its_own_dtype():
    assert describe(np.ones(3)) == "float64[3]"
    assert describe(jnp.ones(3)) == "float32[3]"
    assert describe(1.0) == "float32[]"
