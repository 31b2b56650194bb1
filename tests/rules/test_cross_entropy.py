"""What is particular to the cross-entropies."""

import jax
import numpy as np
import optax
import pytest
from jax import numpy as jnp

from tests import at_once
from tests.at_once import rules

LOGITS = jax.random.normal(jax.random.key(0), (4, 300))


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "int32", "uint32"])
def test_labels_of_a_small_type_among_many_classes(dtype):
    labels = jnp.array([0, 1, 44, 127], dtype)  # 300 classes wrap around in 8 bits: 44 + 256 = 300
    expected = optax.losses.softmax_cross_entropy_with_integer_labels(LOGITS, labels.astype("int32"))
    loss = rules.softmax_cross_entropy_with_integer_labels
    np.testing.assert_allclose(loss(LOGITS, labels), expected, rtol=1e-6)
    gradient = at_once.grad(lambda z: loss(z, labels).sum())(LOGITS)
    assert (gradient < 0).sum(-1).tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize("outside", [-1, 300, 1000])
def test_a_label_out_of_range_is_seen(outside):
    labels = jnp.array([0, outside, 5, 299])
    loss = rules.softmax_cross_entropy_with_integer_labels
    value, pullback = at_once.vjp(lambda z: loss(z, labels), LOGITS)
    (gradient,) = pullback(jnp.ones(4))
    assert np.isnan(value).tolist() == [False, True, False, False]
    assert np.isnan(gradient).all(-1).tolist() == [False, True, False, False]
    assert not np.isnan(gradient[jnp.array([0, 2, 3])]).any()


def test_large_logits_keep_the_digits_of_a_small_loss():
    """z = (1000, 990): the loss is log(1 + e⁻¹⁰) = 4.54e-5, of which 1000 + log S - 1000 keeps two digits."""
    z = jnp.array([1000.0, 990.0])
    expected = np.log1p(np.exp(-10.0))
    np.testing.assert_allclose(rules.softmax_cross_entropy(z, jnp.array([1.0, 0.0])), expected, rtol=2e-3)
    np.testing.assert_allclose(
        rules.softmax_cross_entropy_with_integer_labels(z, jnp.array(0)), expected, rtol=2e-3
    )


@pytest.mark.parametrize("outside", [-1, 300])
def test_padding_that_is_masked_out_has_the_gradient_zero(outside: int):
    labels, kept = jnp.array([0, outside, 5, outside]), jnp.array([True, False, True, False])

    def masked(z: jax.Array) -> jax.Array:
        losses = rules.softmax_cross_entropy_with_integer_labels(z, labels)
        return jnp.where(kept, losses, 0).sum()

    value, gradient = at_once.value_and_grad(masked)(LOGITS)
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()
    assert (gradient != 0).any(-1).tolist() == kept.tolist()


def test_one_hot_labels_are_told_which_loss_is_theirs():
    one_hot = jnp.eye(300, dtype=jnp.int32)[:4]
    with pytest.raises(
        ValueError, match=r"`labels` has shape.* For one-hot labels use softmax_cross_entropy\."
    ):
        rules.softmax_cross_entropy_with_integer_labels(LOGITS, one_hot)
