"""Softmax and its kin where a row is masked, saturated or far from 0."""

import jax
import numpy as np
import pytest
from jax import numpy as jnp

from funcbp.rules.activations import softmax_entropy
from tests import at_once
from tests.at_once import rules

NOTHING = jnp.full(3, -jnp.inf)
MASKED = jnp.array([1.0, -jnp.inf, 2.0])


def test_a_row_of_which_nothing_is_left_has_limits_where_jax_has_nan():
    assert rules.softmax(NOTHING).tolist() == [0, 0, 0]
    assert rules.log_softmax(NOTHING).tolist() == [-np.inf] * 3
    for reduction in (rules.logsumexp, rules.logmeanexp):
        assert reduction(NOTHING) == -np.inf
    assert softmax_entropy(NOTHING) == 0
    for rule in (rules.softmax, rules.logsumexp, rules.logmeanexp, softmax_entropy):
        for function in (rule, rule.primal):
            gradient = at_once.grad(lambda p, f=function: f(p).sum())(NOTHING)
            assert gradient.tolist() == [0, 0, 0], rule.name
    assert np.isnan(at_once.grad(jax.nn.logsumexp)(NOTHING)).all()
    assert np.isnan(jax.nn.softmax(NOTHING)).all()


def test_such_a_row_does_not_touch_the_others():
    p = jnp.stack([MASKED, NOTHING])
    gradient = at_once.grad(lambda p: rules.logsumexp(p, axis=-1)[0])(p)
    np.testing.assert_allclose(gradient[0], jax.nn.softmax(MASKED), rtol=1e-6)
    assert (gradient[1] == 0).all()


def test_a_masked_entry_takes_no_part():
    kept = MASKED[jnp.array([0, 2])]
    for rule in (rules.logsumexp, softmax_entropy):
        np.testing.assert_allclose(rule(MASKED), rule(kept), rtol=1e-6)
        gradient = at_once.grad(rule)(MASKED)
        assert gradient[1] == 0
        np.testing.assert_allclose(gradient[jnp.array([0, 2])], at_once.grad(rule)(kept), rtol=1e-5)


@pytest.mark.parametrize("offset", [0.0, 1e4, -1e6])
def test_the_gradient_of_logsumexp_is_the_softmax_wherever_it_is(offset: float):
    p = jnp.array([0.0, 1.0, 3.0]) + offset
    gradient = at_once.grad(rules.logsumexp)(p)
    np.testing.assert_allclose(gradient, jax.nn.softmax(p), rtol=1e-6)
    np.testing.assert_allclose(gradient.sum(), 1, rtol=1e-6)


def test_axes_and_means():
    p = np.random.default_rng(0).standard_normal((2, 3, 4)).astype("float32")
    reference = at_once.at_once(jax.nn.logsumexp)
    for axis in (None, 0, -1, (0, 2), (-1, 1)):
        for keepdims in (False, True):
            expected = reference(p, axis=axis, keepdims=keepdims)
            actual = rules.logsumexp(p, axis=axis, keepdims=keepdims)
            np.testing.assert_allclose(actual, expected, rtol=1e-6)
    mean = rules.logsumexp(p, axis=(0, 2)) - np.log(8)
    np.testing.assert_allclose(rules.logmeanexp(p, axis=(0, 2)), mean, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("axis", [2, -3, (0, 5)])
def test_an_axis_that_is_not_there_is_named(axis):
    with pytest.raises(ValueError, match=r"`axis` is .* but `p` has shape \(2, 3\)"):
        rules.logsumexp(jnp.ones((2, 3)), axis=axis)


def test_known_entropies():
    np.testing.assert_allclose(softmax_entropy(jnp.full(8, 5.0)), np.log(8), rtol=1e-6)
    assert softmax_entropy(jnp.array([1e4, 0.0])) == 0
    p = jnp.log(jnp.array([0.5, 0.25, 0.25]))
    np.testing.assert_allclose(softmax_entropy(p), 1.5 * np.log(2), rtol=1e-6)


def test_the_entropy_keeps_its_digits_in_half_precision():
    """Autodiff of -Σ s log s adds up large terms, each of them rounded."""
    p = (4 * jax.random.normal(jax.random.key(0), (64, 16))).astype("bfloat16")

    def spelled(p):
        return -jnp.sum(jax.nn.softmax(p) * jax.nn.log_softmax(p))

    exact = np.asarray(at_once.grad(spelled)(p.astype("float32")))
    ours = np.asarray(at_once.grad(lambda p: softmax_entropy(p).sum())(p), np.float32)
    theirs = np.asarray(at_once.grad(spelled)(p), np.float32)
    errors = [np.median(np.abs(g - exact) / np.abs(exact)) for g in (ours, theirs)]
    assert errors[0] < 2.0**-9
    assert errors[1] > 4 * errors[0]


def test_softmax_at_a_temperature_saves_its_output_only():
    p, ct = jnp.array([1.0, -2.0, 0.5]), jnp.array([1.0, 2.0, -1.0])
    for temperature in (0.25, 2.0):
        q, residuals = rules.softmax.fwd(p, temperature=temperature)
        assert residuals is q
        expected, pullback = at_once.vjp(lambda p, t=temperature: jax.nn.softmax(p / t), p)
        np.testing.assert_allclose(q, expected, rtol=1e-6)
        p_ct = rules.softmax.bwd(residuals, ct, temperature=temperature)[0]
        np.testing.assert_allclose(p_ct, pullback(ct)[0], rtol=1e-5)


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan")])
def test_softmax_has_no_temperature_below_zero(temperature: float):
    with pytest.raises(ValueError, match=r"softmax: `temperature` must be above 0"):
        rules.softmax(jnp.zeros(3), temperature=temperature)
