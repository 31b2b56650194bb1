"""The gradient noise scale against its definition, and which examples' norms stay large."""

import jax
import numpy as np
import pytest
from jax import numpy as jnp

import funcbp
from funcbp import layers, rules, training
from tests.support import drawn

KEY = jax.random.key(0)
NETWORK = layers.chain(layers.dense(4), layers.activation("tanh"), layers.dense(2))
COLLECT = ("norms", "squared_norms", "per_example_grads")
SWEEP = jax.jit(funcbp.backprop(NETWORK, rules.l2_loss, collect=COLLECT))


def population(count):
    rng = np.random.default_rng(0)
    x, y = (jnp.asarray(rng.standard_normal((count, n)), float) for n in (3, 2))
    return drawn(NETWORK, x)[0], x, y


def moments(each):
    """|G|² and tr Σ of a finite population, drawn from with replacement."""
    rows = np.concatenate([np.reshape(g, (len(g), -1)) for g in jax.tree.leaves(each)], 1)
    return np.square(rows.mean(0)).sum(), rows.var(0).sum()


def test_one_batch_has_the_sample_variance(x64):
    params, x, y = population(12)
    sweep = SWEEP(params, x, y)
    noise = training.gradient_noise(sweep)
    square, variance = moments(sweep.per_example_grads)
    np.testing.assert_allclose(noise.noise, variance * 12 / 11, rtol=1e-12)
    np.testing.assert_allclose(noise.signal, square - variance / 11, rtol=1e-12)
    np.testing.assert_allclose(noise.scale, noise.noise / noise.signal, rtol=1e-12)

    parts = training.gradient_noise(sweep, per_parameter=True)
    for part, g in zip(
        jax.tree.leaves(parts, is_leaf=lambda a: isinstance(a, training.GradientNoise)),
        jax.tree.leaves(sweep.per_example_grads),
        strict=True,
    ):
        np.testing.assert_allclose(part.noise, moments(g)[1] * 12 / 11, rtol=1e-10)
    total = sum(
        p.signal for p in jax.tree.leaves(parts, is_leaf=lambda a: isinstance(a, training.GradientNoise))
    )
    np.testing.assert_allclose(total, noise.signal, rtol=1e-10)


def test_rows_that_fill_up_do_not_count(x64):
    params, x, y = population(12)
    weights = np.float64(np.arange(12) < 8)
    filled = training.gradient_noise(SWEEP(params, x, y, weights=weights), weights=weights)
    expected = training.gradient_noise(SWEEP(params, np.asarray(x)[:8], np.asarray(y)[:8]))
    np.testing.assert_allclose(filled, expected, rtol=1e-11)


def test_estimates_are_unbiased_over_batches():
    params, x, y = population(64)
    square, variance = moments(SWEEP(params, x, y).per_example_grads)
    sweep = funcbp.backprop(NETWORK, rules.l2_loss, collect=("norms",))

    def one(key):
        rows = jax.random.randint(key, (8,), 0, 64)
        return training.gradient_noise(sweep(params, x[rows], y[rows]))

    noise = jax.jit(jax.vmap(one))(jax.random.split(KEY, 2000))
    for found, truth in ((noise.signal, square), (noise.noise, variance)):
        error = found.std() / np.sqrt(2000)
        assert abs(found.mean() - truth) < 5 * error
        assert error < 0.1 * truth
    assert (noise.signal < 0).any()

    state = None
    update = jax.jit(lambda state, noise: training.update_noise_scale(state, noise, 0.999))
    estimates = jax.tree.map(np.asarray, noise)
    for i in range(1000):
        state = update(state, jax.tree.map(lambda a, i=i: a[i], estimates))
    np.testing.assert_allclose(state.average.scale, variance / square, rtol=0.2)


def test_averages_without_the_bias_of_the_start_and_without_what_is_not_finite():
    noise = training.GradientNoise(jnp.float32(2.0), jnp.float32(30.0))
    state = training.update_noise_scale(None, noise)
    np.testing.assert_allclose(state.average, (2.0, 30.0), rtol=1e-6)
    missing = training.GradientNoise(jnp.float32(jnp.nan), jnp.float32(30.0))
    assert training.update_noise_scale(state, missing) == state


def test_frozen_parameters_and_single_examples():
    params, x, y = population(4)
    options = {"collect": ("squared_norms", "norms"), "frozen": ("0",)}
    parts = training.gradient_noise(
        jax.jit(funcbp.backprop(NETWORK, rules.l2_loss, **options))(params, x, y), per_parameter=True
    )
    assert parts[0] == {"w": None, "b": None}
    assert np.isfinite(parts[2]["w"].noise)
    weights = jnp.array([1.0, 0.0, 0.0, 0.0])
    one = training.gradient_noise(funcbp.Sweep(0, {}, (), None, norms=weights), weights=weights)
    assert np.isnan(one.scale)


def test_refusals():
    sweep = funcbp.Sweep(0, {}, (), None, norms=jnp.ones(4))
    with pytest.raises(ValueError, match=r"collect=\('squared_norms',\)"):
        training.gradient_noise(sweep, per_parameter=True)
    with pytest.raises(ValueError, match="one number for each of the 4 examples"):
        training.gradient_noise(sweep, weights=jnp.ones((4, 2)))
    with pytest.raises(ValueError, match=r"`decay` must be in \[0, 1\), got 1"):
        training.update_noise_scale(None, training.gradient_noise(sweep), 1)


def test_tracked_norms_are_means_over_the_steps_that_had_the_example():
    tracker = training.norm_tracker(4)
    tracker = training.track_norms(tracker, jnp.array([3, 1]), jnp.array([2.0, 7.0]))
    weights = jnp.array([1.0, 0.0])
    tracker = training.track_norms(tracker, jnp.array([3, 0]), jnp.array([4.0, 9.0]), weights)
    assert tracker.mean.tolist() == [0.0, 7.0, 0.0, 3.0]
    norms, indices = training.largest_norms(tracker, 2)
    assert (norms.tolist(), indices.tolist()) == ([7.0, 3.0], [1, 3])


def test_a_norm_that_is_not_finite_is_the_largest():
    tracker = training.norm_tracker(3)
    for _ in range(2):
        tracker = training.track_norms(tracker, jnp.arange(3), jnp.array([1.0, jnp.nan, jnp.inf]))
    assert np.isfinite(tracker.mean).all()
    assert set(training.largest_norms(tracker, 2)[1].tolist()) == {1, 2}
