"""Activations of several arrays or entries: gated units, prelu, maxout, logaddexp."""

import jax
import numpy as np
import pytest
from jax import numpy as jnp

from tests import at_once
from tests.at_once import rules

INF = jnp.inf


def test_glu_is_its_value_behind_a_sigmoid():
    p = jax.random.normal(jax.random.key(0), (3, 8))
    expected = p[:, :4] * jax.nn.sigmoid(p[:, 4:])
    np.testing.assert_allclose(rules.glu(p), expected, rtol=1e-6)
    np.testing.assert_allclose(rules.glu(p.T, axis=0), expected.T, rtol=1e-6)


@pytest.mark.parametrize(("shape", "axis"), [((2, 3), -1), ((2, 3), 2), ((), -1)])
def test_glu_needs_two_halves(shape: tuple[int, ...], axis: int):
    with pytest.raises(ValueError, match=f"glu: `axis` is {axis}.*its length even"):
        rules.glu(jnp.ones(shape), axis=axis)


def test_both_of_two_that_are_multiplied_get_a_cotangent():
    """A gate at 0 still lets its value's cotangent through, and the other way around."""
    gate_ct, value_ct = rules.swiglu.bwd((jnp.zeros(2), jnp.full(2, 3.0)), jnp.ones(2))
    assert gate_ct.tolist() == [1.5, 1.5]
    assert value_ct.tolist() == [0, 0]
    gate_ct, value_ct = rules.swiglu.bwd((jnp.full(2, 20.0), jnp.zeros(2)), jnp.ones(2))
    assert gate_ct.tolist() == [0, 0]
    np.testing.assert_allclose(value_ct, 20.0, rtol=1e-6)


def test_prelu_learns_one_slope_a_feature_of_either_sign():
    p = jnp.array([[-1.0, -2.0, 3.0], [-4.0, 5.0, 0.0]])
    slope = jnp.array([0.5, -1.0, 0.0])
    q, pullback = at_once.vjp(rules.prelu, p, slope)
    assert q.tolist() == [[-0.5, 2.0, 3.0], [-2.0, 5.0, 0.0]]
    p_ct, slope_ct = pullback(jnp.ones((2, 3)))
    assert p_ct.tolist() == [[0.5, -1.0, 1.0], [0.5, 1.0, 1.0]]
    assert slope_ct.tolist() == [-5.0, -2.0, 0.0]


def test_the_largest_pieces_share_alike():
    gradient = at_once.grad(lambda p: rules.maxout(p).sum())
    assert gradient(jnp.array([[2.0, 1.0, 2.0, 2.0], [0.0, 1.0, -1.0, 0.5]])).tolist() == [
        pytest.approx([1 / 3, 0, 1 / 3, 1 / 3]),
        [0, 1, 0, 0],
    ]
    with pytest.raises(ValueError, match=r"maxout: `p` has shape \(2, 0\)"):
        rules.maxout(jnp.ones((2, 0)))


@pytest.mark.parametrize(
    ("x1", "x2", "value", "first", "second"),
    [
        (0.0, 0.0, np.log(2), 0.5, 0.5),
        (-INF, 1.0, 1.0, 0.0, 1.0),
        (INF, 1.0, INF, 1.0, 0.0),
        (-INF, -INF, -INF, 0.0, 0.0),
        (1e4, -1e4, 1e4, 1.0, 0.0),
    ],
)
def test_logaddexp_at_its_ends(x1: float, x2: float, value: float, first: float, second: float):
    np.testing.assert_allclose(rules.logaddexp(x1, x2), value, rtol=1e-6)
    np.testing.assert_allclose(at_once.grad(rules.logaddexp, (0, 1))(x1, x2), (first, second), rtol=1e-6)
