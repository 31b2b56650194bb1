"""Poisson samples: each example by itself, one shape, nothing dropped silently."""

import math

import jax
import numpy as np
import pytest
from scipy.stats import binom

from funcbp import training
from tests.support import assert_trees_equal

KEY = jax.random.key(0)


def draws(rate, examples=50, count=400):
    draw = jax.vmap(lambda key: training.poisson_batch(key, examples, rate, examples))
    return jax.jit(draw)(jax.random.split(KEY, count))


def test_every_example_is_drawn_with_the_rate_by_itself():
    count, examples, rate = 400, 50, 0.2
    batch = jax.device_get(draws(rate))
    drawn = np.zeros((count, examples))
    for row, indices, weights in zip(drawn, batch.indices, batch.weights, strict=True):
        row[indices[weights == 1]] = 1
    assert (drawn.sum(1) == batch.size).all()
    assert (batch.weights.sum(1) == batch.size).all()
    deviation = math.sqrt(rate * (1 - rate) / count)
    assert np.abs(drawn.mean(0) - rate).max() < 5 * deviation
    # Sizes are binomial, not fixed: their variance is that of independent draws.
    assert abs(batch.size.var() / (examples * rate * (1 - rate)) - 1) < 5 * math.sqrt(2 / count)
    correlation = np.corrcoef(drawn.T) - np.eye(examples)
    assert np.abs(correlation).max() < 6 / math.sqrt(count)


def test_rows_are_ascending_and_padding_is_zero():
    batch = training.poisson_batch(KEY, 20, 0.4, 20)
    size = int(batch.size)
    assert 0 < size < 20
    assert (np.diff(batch.indices[:size]) > 0).all()
    assert (batch.indices[size:] == 0).all()
    assert batch.weights.tolist() == [1.0] * size + [0.0] * (20 - size)
    assert [a.dtype.name for a in batch] == ["int32", "float32", "int32"]


def test_rate_one_draws_all_and_a_small_rate_almost_none():
    assert int(training.poisson_batch(KEY, 7, 1.0, 7).size) == 7
    assert draws(1e-7).size.sum() == 0


def test_an_overflow_is_reported_and_raised():
    batch = training.poisson_batch(KEY, 20, 1.0, 8)
    assert int(batch.size) == 20
    assert batch.indices.shape == (8,)
    with pytest.raises(RuntimeError, match=r"batch 0 has drawn 20 examples, but `capacity` is 8"):
        next(training.poisson_batches(KEY, 20, 1.0, 8))


def test_batches_depend_on_key_and_number_alone():
    batches = training.poisson_batches(KEY, 30, 0.3)
    first = [next(batches) for _ in range(4)]
    assert_trees_equal(first[3], next(training.poisson_batches(KEY, 30, 0.3, start=3)))
    assert len({tuple(b.indices.tolist()) for b in first}) == 4


@pytest.mark.parametrize(("examples", "rate"), [(1437, 0.1), (60_000, 0.004), (5, 0.5), (100, 1e-6)])
def test_capacity_is_the_least_that_suffices(examples, rate):
    rows = training.poisson_capacity(examples, rate)
    assert binom.sf(rows, examples, rate) <= 1e-9
    assert rows == 1 or binom.sf(rows - 1, examples, rate) > 1e-9
    assert training.poisson_capacity(examples, rate, multiple_of=8) in range(rows, rows + 8)
    assert training.poisson_capacity(examples, rate, multiple_of=8) % 8 == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 0.5, 3), "`examples` must be at least 1, got 0"),
        ((5, 0.0, 3), "`rate` is a probability above 0, got 0.0"),
        ((5, 32, 3), "it is B over the number of examples"),
        ((5, 0.5, 0), "`capacity` must be a whole number"),
    ],
)
def test_refusals(arguments, message):
    with pytest.raises(ValueError, match=message):
        training.poisson_batch(KEY, *arguments)


def test_capacity_refuses():
    with pytest.raises(ValueError, match="`overflow` must be a probability"):
        training.poisson_capacity(5, 0.5, overflow=0.0)
    with pytest.raises(ValueError, match="`rate`"):
        training.poisson_batches(KEY, 5, 2.0)
