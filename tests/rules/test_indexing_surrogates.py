"""Derivatives that are chosen: the value is the hard function's, exactly, and the slope the soft one's."""

import jax
import numpy as np
from jax import numpy as jnp

from funcbp import rules

X = jnp.array([-2.5, -1.0, -0.3, 0.0, 0.4, 1.0, 3.7])


def slopes(rule) -> np.ndarray:
    return np.asarray(jax.jit(jax.grad(lambda x: rule(x).sum()))(X))


def test_values_are_those_of_the_hard_function():
    np.testing.assert_array_equal(rules.straight_through_round(X), jnp.round(X))
    np.testing.assert_array_equal(rules.straight_through_sign(X), jnp.sign(X))
    np.testing.assert_array_equal(rules.straight_through_clip(X), jnp.clip(X, 0, 1))
    np.testing.assert_array_equal(rules.straight_through_step(X), X > 0)
    np.testing.assert_array_equal(rules.reverse_gradient(X), X)


def test_slopes_are_those_of_the_soft_function():
    np.testing.assert_array_equal(slopes(rules.straight_through_round), 1)
    np.testing.assert_array_equal(slopes(rules.straight_through_sign), [0, 1, 1, 1, 1, 1, 0])
    np.testing.assert_array_equal(slopes(rules.straight_through_clip), 1)
    np.testing.assert_array_equal(slopes(rules.reverse_gradient), -1)
    np.testing.assert_array_equal(slopes(rules.stop_gradient), 0)
    s = np.asarray(jax.nn.sigmoid(X))
    np.testing.assert_allclose(slopes(rules.straight_through_step), s * (1 - s), rtol=1e-6)


def test_forward_mode_has_the_same_slope():
    for rule in (rules.straight_through_sign, rules.reverse_gradient, rules.stop_gradient):
        tangent = jax.jvp(rule.primal, (X,), (jnp.ones_like(X),))[1]
        np.testing.assert_array_equal(tangent, slopes(rule))


def test_what_is_stopped_lets_no_infinite_cotangent_through():
    assert rules.stop_gradient.bwd(jnp.ones(2), jnp.array([jnp.inf, jnp.nan]))[0].tolist() == [0, 0]
