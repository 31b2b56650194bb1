"""Losses against values known otherwise, at their edges, and against backward passes that were wrong."""

import jax
import numpy as np
import optax
import pytest
from jax import numpy as jnp

from tests import at_once
from tests.at_once import rules

INF = float("inf")
Z = jax.random.normal(jax.random.key(0), (3, 4))
Y = jax.nn.softmax(jax.random.normal(jax.random.key(1), (3, 4)))
K = jnp.array([0, 3, 1])


def test_a_certain_and_right_answer_has_no_binary_cross_entropy():
    z, y = jnp.array([INF, -INF, INF, -INF]), jnp.array([1.0, 0.0, 0.0, 1.0])
    value, pullback = at_once.vjp(rules.sigmoid_binary_cross_entropy, z, y)
    np.testing.assert_array_equal(value, [0, 0, INF, INF])
    np.testing.assert_array_equal(pullback(jnp.ones(4))[0], [0, 0, 1, -1])
    assert np.isnan(optax.losses.sigmoid_binary_cross_entropy(z, y)[:2]).all()


def test_smoothing_in_the_loss_is_smoothing_of_the_labels():
    smoothed = rules.smooth_labels(jax.nn.one_hot(K, 4), alpha=0.2)
    expected = at_once.value_and_grad(lambda z: rules.softmax_cross_entropy(z, smoothed).sum())(Z)
    index = rules.softmax_cross_entropy_with_integer_labels
    for function in (
        lambda z: rules.softmax_cross_entropy(z, jax.nn.one_hot(K, 4), label_smoothing=0.2).sum(),
        lambda z: index(z, K, label_smoothing=0.2).sum(),
        lambda z: rules.linear_softmax_cross_entropy(z, jnp.eye(4), K, chunk=3, label_smoothing=0.2).sum(),
    ):
        for actual, one in zip(at_once.value_and_grad(function)(Z), expected, strict=True):
            np.testing.assert_allclose(actual, one, rtol=1e-5, atol=1e-6)


def test_the_z_loss_is_the_squared_log_partition():
    expected = rules.softmax_cross_entropy(Z, Y) + 0.3 * jax.nn.logsumexp(Z, axis=-1) ** 2
    np.testing.assert_allclose(rules.softmax_cross_entropy(Z, Y, z_loss=0.3), expected, rtol=1e-6)


def test_log_cosh_keeps_its_digits_near_0_and_does_not_overflow():
    r = jnp.array([1e-4, 1e-3, 1e3, 1e30])
    np.testing.assert_allclose(rules.log_cosh(r), [5e-9, 5e-7, 1e3 - np.log(2), 1e30], rtol=1e-6)
    np.testing.assert_allclose(at_once.vmap(at_once.grad(rules.log_cosh))(r), [1e-4, 1e-3, 1, 1], rtol=1e-6)
    assert optax.losses.log_cosh(r)[0] != pytest.approx(5e-9, rel=0.1)


def test_the_label_of_a_focal_loss_has_a_gradient_where_it_is_0_or_1():
    """optax drops the term of the label that is multiplied by 0."""
    step = 1e-3
    for y in (0.0, 1.0):
        both = [rules.sigmoid_focal_loss(jnp.float32(0.7), jnp.float32(y + s)) for s in (-step, step)]
        estimate = (both[1] - both[0]) / (2 * step)
        ours, theirs = (
            at_once.grad(loss, argnums=1)(jnp.float32(0.7), jnp.float32(y))
            for loss in (rules.sigmoid_focal_loss, optax.losses.sigmoid_focal_loss)
        )
        assert ours == pytest.approx(float(estimate), rel=1e-3)
        assert theirs != pytest.approx(float(estimate), rel=0.1)


def test_a_focal_loss_with_a_small_exponent_is_finite_where_it_saturates():
    z, y = jnp.array([200.0, -200.0, 90.0]), jnp.array([1.0, 0.0, 1.0])
    cotangents = at_once.grad(lambda z, y: rules.sigmoid_focal_loss(z, y, gamma=0.5).sum(), (0, 1))(z, y)
    np.testing.assert_allclose(cotangents[0], 0, atol=1e-30)
    assert np.isfinite(cotangents[1]).all()


def test_the_quantile_loss_has_its_minimum_at_the_quantile():
    targets = jnp.arange(101.0)
    slope = jax.vmap(
        at_once.grad(lambda q: rules.quantile_loss(jnp.full(101, q), targets, quantile=0.9).sum())
    )
    assert (np.sign(slope(jnp.array([89.5, 90.5]))) == [-1, 1]).all()


def test_sparsemax_is_sparse():
    """z = (1, 0.5, -2): τ = ¼, p = (¾, ¼, 0); ℓ = ⟨p, z - z_k⟩ + ½ (1 - ⟨p, p⟩)."""
    value, gradient = at_once.value_and_grad(rules.multiclass_sparsemax_loss)(
        jnp.array([1.0, 0.5, -2.0]), jnp.array(0)
    )
    np.testing.assert_allclose(value, -0.125 + 0.5 * (1 - 0.625), rtol=1e-6)
    np.testing.assert_allclose(gradient, [-0.25, 0.25, 0.0], atol=1e-6)
    separated = jnp.array([1.5, 0.5, -2.0])
    assert rules.multiclass_sparsemax_loss(separated, jnp.array(0)) == 0


def test_sparsemax_losses_are_those_of_optax():
    ours, theirs = (
        at_once.value_and_grad(lambda z, f=f: f(z, K).sum())(Z)
        for f in (rules.multiclass_sparsemax_loss, optax.losses.multiclass_sparsemax_loss)
    )
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "name", ["multiclass_hinge_loss", "multiclass_perceptron_loss", "multiclass_sparsemax_loss"]
)
def test_a_label_that_is_no_class_is_seen_unless_it_is_masked_out(name: str):
    loss, labels = getattr(rules, name), jnp.array([0, 4, -1])
    value, pullback = at_once.vjp(lambda z: loss(z, labels), Z)
    assert np.isnan(value).tolist() == [False, True, True]
    assert np.isnan(pullback(jnp.ones(3))[0]).all(-1).tolist() == [False, True, True]
    assert np.isfinite(pullback(jnp.array([1.0, 0.0, 0.0]))[0]).all()
    with pytest.raises(ValueError, match=rf"{name}: argument `scores`.*at least one class"):
        loss(jnp.zeros((3, 0)), labels)


def test_large_scores_do_not_drown_the_margin():
    scores = jnp.array([2.0**25, 2.0**25])
    assert rules.multiclass_hinge_loss(scores, jnp.array(0)) == 1
    assert optax.losses.multiclass_hinge_loss(scores, jnp.array(0)) == 0


def test_a_divergence_of_a_distribution_from_itself_is_0():
    for rule, y in (
        (rules.kl_divergence, Y),
        (rules.generalized_kl_divergence, Y),
        (rules.kl_divergence_with_log_targets, jnp.log(Y)),
    ):
        np.testing.assert_allclose(rule(jnp.log(Y), y), 0, atol=1e-6)


def test_targets_that_are_exactly_one_hot_have_a_finite_divergence():
    one_hot, log_p = jax.nn.one_hot(K, 4), jax.nn.log_softmax(Z)
    value, (q_ct, y_ct) = at_once.value_and_grad(lambda q, y: rules.kl_divergence(q, y).sum(), (0, 1))(
        log_p, one_hot
    )
    np.testing.assert_allclose(value, -log_p[jnp.arange(3), K].sum(), rtol=1e-6)
    np.testing.assert_array_equal(q_ct, -one_hot)
    assert np.isfinite(y_ct).all()
    theirs = at_once.grad(lambda y: optax.losses.kl_divergence(log_p, y).sum())(one_hot)
    assert np.isnan(theirs).any()


def test_cosines_of_parallel_and_of_zero_vectors():
    a = jnp.array([[3.0, 4.0], [0.0, 0.0]])
    similarity, pullback = at_once.vjp(rules.cosine_similarity, a, 2 * a)
    np.testing.assert_allclose(similarity, [1, 0], rtol=1e-6)
    for ct in pullback(jnp.ones(2)):
        np.testing.assert_allclose(ct, 0, atol=1e-7)


def test_ntxent_is_that_of_optax_and_finite_without_a_pair():
    x, labels = jax.random.normal(jax.random.key(2), (6, 3)), jnp.array([0, 0, 1, 1, 2, 2])
    ours, theirs = (
        jax.jit(at_once.value_and_grad(lambda x, f=f: f(x, labels, temperature=0.1)))(x)
        for f in (rules.ntxent, optax.losses.ntxent)
    )
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=1e-5)
    gradients = jax.jit(at_once.value_and_grad(rules.ntxent))
    for single in (jnp.arange(6), jnp.zeros(6, int)):
        value, gradient = gradients(x, single)
        assert value == 0
        np.testing.assert_array_equal(gradient, 0)


def test_a_triplet_with_an_odd_norm_has_a_distance():
    a, p, n = jnp.zeros((1, 2)), jnp.array([[1.0, -1.0]]), jnp.array([[0.5, 0.0]])
    assert rules.triplet_margin_loss(a, p, n, norm_degree=1.0, eps=0.0).tolist() == [2.5]
    ours = at_once.grad(lambda p: rules.triplet_margin_loss(a, p, n, norm_degree=1.0, eps=0.0).sum())(p)
    assert ours.tolist() == [[1.0, -1.0]]
    at_zero = at_once.grad(lambda a: rules.triplet_margin_loss(a, a, n, eps=0.0).sum())(a)
    assert np.isfinite(at_zero).all()


def test_a_class_that_is_nowhere_has_no_dice_loss():
    z, t = jnp.array([[[1.0, 0.0], [1.0, 0.0]]]), jnp.zeros((1, 2, 2)).at[..., 0].set(1)
    options = {"smooth": 0.0, "apply_softmax": False}
    value, gradient = at_once.value_and_grad(lambda z: rules.dice_loss(z, t, **options).sum())(z)
    assert value == 0
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: rules.huber_loss(Z, delta=0.0),
            "huber_loss: static option `delta` must be positive.*got 0.0",
        ),
        (lambda: rules.quantile_loss(Z, quantile=90.0), "`quantile` must be between 0 and 1, got 90.0"),
        (lambda: rules.sigmoid_focal_loss(Z, Z, gamma=-1.0), "`gamma` must not be negative, got -1.0"),
        (lambda: rules.cosine_similarity(Z, Z, epsilon=-1.0), "`epsilon` must not be negative, got -1.0"),
        (lambda: rules.triplet_margin_loss(Z, Z, Z, norm_degree=0.5), "`norm_degree` must be at least 1"),
        (lambda: rules.ntxent(Z, K, temperature=0.0), "`temperature` must be positive, got 0.0"),
        (
            lambda: rules.dice_loss(Z, Z, reduction="all"),
            "`reduction` must be 'mean', 'sum' or 'none', got 'all'",
        ),
        (lambda: rules.linear_softmax_cross_entropy(Z, Z.T, K, chunk=0), "`chunk` must be at least 1"),
        (lambda: rules.linear_softmax_cross_entropy(Z, Z[:0].T, K), "`w` has shape .* at least one class"),
    ],
)
def test_a_wrong_option_is_named(call, message: str):
    with pytest.raises(ValueError, match=message):
        call()
