"""Fenchel-Young losses: known members, one of one's own, and a wrong one."""

import jax
import numpy as np
import optax
import pytest
from jax import numpy as jnp

from funcbp.rules.losses import make_fenchel_young_loss
from funcbp.verify import check_rule
from tests import at_once
from tests.at_once import rules

RNG = np.random.default_rng(0)
SCORES = jnp.asarray(RNG.standard_normal((4, 5)))
LABELS = jnp.array([0, 3, 4, 1])
ONE_HOT = jax.nn.one_hot(LABELS, 5)


def pulled(rule, *args: jax.Array) -> tuple[jax.Array, jax.Array]:
    value, pullback = at_once.vjp(lambda z: rule(z, *args), SCORES)
    return value, pullback(jnp.arange(1.0, 5))[0]


@pytest.mark.parametrize(
    ("ours", "known"),
    [
        ("softmax_fenchel_young_loss", "softmax_cross_entropy_with_integer_labels"),
        ("sparsemax_fenchel_young_loss", "multiclass_sparsemax_loss"),
    ],
)
def test_of_one_class_it_is_the_known_loss(ours: str, known: str):
    both = pulled(getattr(rules, ours), ONE_HOT), pulled(getattr(rules, known), LABELS)
    for one, other in zip(*both, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def test_it_is_least_where_the_prediction_is_the_target():
    for name in ("softmax", "sparsemax"):
        loss, prediction = getattr(rules, f"{name}_fenchel_young_loss"), getattr(rules, name)(SCORES)
        gradient = at_once.grad(lambda z, loss=loss, p=prediction: loss(z, p).sum())(SCORES)
        np.testing.assert_allclose(gradient, np.zeros_like(gradient), atol=1e-6)


def test_of_a_maximum_of_one_s_own_it_is_what_optax_makes_by_autodiff():
    def squared(z: jax.Array) -> jax.Array:
        return jnp.sum(z * z, -1) / 2

    rule = make_fenchel_young_loss(squared, lambda z: z, name="squared_fenchel_young_loss")
    targets = jax.nn.softmax(SCORES + 1)
    for ours, theirs in zip(
        pulled(rule, targets), pulled(optax.losses.make_fenchel_young_loss(squared), targets), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
    assert check_rule(rule, tier="quick").verdict == "right"


def test_a_prediction_that_is_not_the_gradient_of_the_maximum_is_found():
    wrong = make_fenchel_young_loss(
        lambda z: jax.nn.logsumexp(z, -1), lambda z: jax.nn.softmax(2 * z), name="wrong_fenchel_young_loss"
    )
    assert check_rule(wrong, tier="quick").verdict == "wrong"
