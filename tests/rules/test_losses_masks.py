"""`where` and `axis` of the losses: what is left out has no part, and all may be left out."""

from typing import Any

import jax
import numpy as np
import optax
import pytest
from jax import numpy as jnp

from funcbp import catalogue
from tests import at_once
from tests.at_once import rules

MASKED = [
    "cosine_distance",
    "cosine_similarity",
    "generalized_kl_divergence",
    "kl_divergence",
    "kl_divergence_with_log_targets",
    "poly_loss_cross_entropy",
    "ranking_softmax_loss",
    "softmax_cross_entropy",
    "softmax_cross_entropy_with_integer_labels",
]
OPTIONS = {
    "softmax_cross_entropy": {"label_smoothing": 0.1, "z_loss": 0.1},
    "softmax_cross_entropy_with_integer_labels": {"label_smoothing": 0.1, "z_loss": 0.1},
}
A = jnp.asarray(np.random.default_rng(0).standard_normal((3, 4)), "float32")
B = jax.nn.softmax(jnp.asarray(np.random.default_rng(1).standard_normal((3, 4)), "float32"))


def second(name: str) -> jax.Array:
    return jnp.array([0, 1, 2]) if name.endswith("integer_labels") else B


def test_every_loss_with_a_mask_is_here():
    losses = [r for r in catalogue().values() if r.family == "losses"]
    masked = {r.name for r in losses if "where" in [a.name for a in r.signature.arguments]}
    assert masked == {*MASKED, "smooth_labels"}


def value_and_cotangents(name: str, a: jax.Array, b: jax.Array, *where: jax.Array) -> tuple[Any, ...]:
    """The losses, and what `bwd` makes of ones."""
    rule, options = getattr(rules, name), OPTIONS.get(name, {})

    @at_once.at_once
    def both(*args: jax.Array) -> tuple[Any, ...]:
        out, residuals = rule.fwd(*args, **options)
        return out, *rule.bwd(residuals, jnp.ones_like(out), **options)

    return both(a, b, *where)


@pytest.mark.parametrize("name", MASKED)
def test_a_row_that_is_all_masked_out_has_the_loss_and_the_gradient_0(name: str):
    where = jnp.zeros(A.shape, bool).at[1].set(True)
    z = A.at[0, 1].set(jnp.inf).at[2].set(-jnp.inf)
    out, *cotangents = value_and_cotangents(name, z, second(name), where)
    assert out[0] == out[2] == 0 != out[1]
    for ct in cotangents:
        if ct is not None:
            assert np.isfinite(ct).all()
            np.testing.assert_array_equal(ct[[0, 2]], 0)


@pytest.mark.parametrize("name", MASKED)
def test_a_mask_is_the_same_as_leaving_columns_out(name: str):
    where = jnp.broadcast_to(jnp.array([True, True, True, False]), A.shape)
    b = second(name)
    value, gradient, *_ = value_and_cotangents(name, A.at[:, 3].set(1e9), b, where)
    expected, fewer, *_ = value_and_cotangents(name, A[:, :3], b if b.ndim == 1 else b[:, :3])
    np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(gradient[:, :3], fewer, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(gradient[:, 3], 0)


def test_optax_has_nan_for_what_is_masked_out():
    """Why the references are not optax's functions as they are."""
    where = jnp.zeros((1, 4), bool)
    cosine = at_once.grad(lambda a: optax.losses.cosine_similarity(a, B[:1], where=where).sum())(A[:1])
    labels = at_once.grad(lambda y: optax.losses.softmax_cross_entropy(A[:1], y, where=where).sum())(B[:1])
    assert np.isnan(cosine).all()
    assert np.isnan(labels).all()


def test_class_indices_along_another_axis():
    labels = jnp.array([0, 2, 1, 0])
    loss = rules.softmax_cross_entropy_with_integer_labels
    value, gradient = at_once.value_and_grad(lambda z: loss(z, labels, axis=0).sum())(A)
    moved, transposed = at_once.value_and_grad(lambda z: loss(z, labels).sum())(A.T)
    np.testing.assert_allclose(value, moved, rtol=1e-6)
    np.testing.assert_allclose(gradient, transposed.T, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", [n for n in MASKED if n != "ranking_softmax_loss"])
def test_an_axis_that_is_not_there_is_named(name: str):
    with pytest.raises(ValueError, match=rf"{name}: static option `axis` is 2.*from -2 to 1"):
        getattr(rules, name)(A, second(name), axis=2)


def test_no_classes_and_no_examples():
    empty = jnp.zeros((0, 4))
    assert rules.softmax_cross_entropy(empty, empty).shape == (0,)
    assert rules.softmax_cross_entropy_with_integer_labels(empty, jnp.zeros(0, int)).shape == (0,)
    nothing = jnp.zeros((3, 0))
    np.testing.assert_array_equal(rules.kl_divergence(nothing, nothing), 0)
    np.testing.assert_array_equal(rules.cosine_similarity(nothing, nothing), 0)
