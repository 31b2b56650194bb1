"""Thresholds out of programs, and probes between them."""

import jax
import numpy as np
import pytest
from jax import lax
from jax import numpy as jnp

from funcbp.verify._breakpoints import between, thresholds
from funcbp.verify._decisions import constants, decisions
from funcbp.verify._problem import Probe, Problem


def points(*values):
    return [Probe("ordinary", tuple(map(np.asarray, value)), np.ones(())) for value in values]


def question(function, derivative, *example):
    def backward(given, ct):
        return None, (derivative(*given),)

    return Problem("gradient", "mine", function, backward, example, (0,))


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def huber(x):
    return jnp.sum(jnp.where(jnp.abs(x) <= 1, 0.5 * x * x, jnp.abs(x) - 0.5))


def huber_gradient(x):
    return jnp.where(jnp.abs(x) <= 1, x, jnp.sign(x))


def wrong_huber_gradient(x):
    return jnp.where(jnp.abs(x) <= 0.99, x, jnp.sign(x))


def exposing(problem, found):
    """The probes at which the candidate is wrong."""
    right = jax.jit(jax.grad(problem.function))
    return [p for p in found if not np.allclose(right(*p.values), problem.backward(p.values, 1.0)[1][0])]


def test_a_band_between_two_thresholds_is_hit():
    problem = question(huber, wrong_huber_gradient, normal(5))
    found = between(problem, points((normal(5),), (3 * normal(5, seed=1),)))
    with jax.enable_x64(True):
        assert found[0] in exposing(problem, found)
    assert not exposing(question(huber, huber_gradient, normal(5)), found)
    assert all(probe.label == "between two thresholds" for probe in found)
    assert len(found) <= 48


def test_a_band_among_many_thresholds_that_agree_is_hit_first():
    problem = question(huber, wrong_huber_gradient, normal(40))
    found = between(problem, points((normal(40),), (3 * normal(40, seed=1),)))
    with jax.enable_x64(True):
        assert exposing(problem, found[:3])


def test_a_wrong_branch_far_out_is_hit():
    def far(x):
        return jnp.where(x > 20, 0.0, jnp.cos(x))

    problem = question(lambda x: jnp.sum(jnp.sin(x)), far, normal(3))
    found = between(problem, points((normal(3),), (np.abs(normal(3, seed=1)) + 1,)))
    with jax.enable_x64(True):
        wrong = exposing(problem, found)
    assert wrong
    assert not any(probe.ordinary for probe in wrong)


def test_a_band_of_a_scalar_is_hit():
    problem = question(huber, wrong_huber_gradient, 0.3)
    found = between(problem, points((0.3,), (3.0,)))
    with jax.enable_x64(True):
        assert any(0.99 < probe.values[0] < 1 for probe in exposing(problem, found))


def test_values_that_cannot_be_mixed_stay():
    labels = np.eye(3)[[0, 1]]

    def loss(z, y):
        return jnp.sum(jnp.maximum(z, 0.3) * y)

    problem = question(loss, lambda z, y: jnp.where(z > 0.31, y, 0.0), normal(2, 3), labels)
    found = between(problem, points((normal(2, 3), labels), (normal(2, 3, seed=1), labels[::-1])))
    assert found
    assert all(np.array_equal(probe.values[1], labels) for probe in found)


def test_smooth_functions_have_nothing_between():
    problem = question(lambda x: jnp.sum(jnp.sin(x)), jnp.cos, normal(3))
    assert between(problem, points((normal(3),), (normal(3, seed=1),))) == []


def test_a_candidate_that_cannot_be_traced_is_left_out():
    def by_numpy(x):
        return np.where(np.asarray(x) > 0.7, 1.0, 0.0)

    problem = question(lambda x: jnp.sum(jnp.maximum(x, 0.5)), by_numpy, normal(3))
    assert thresholds(problem) == [0.5]
    assert between(problem, points((normal(3),), (normal(3, seed=1),)))


def test_the_same_seed_gives_the_same_probes():
    problem = question(huber, wrong_huber_gradient, normal(30))
    ends = points((normal(30),), (3 * normal(30, seed=1),))
    one, same = between(problem, ends, seed=3), between(problem, ends, seed=3)
    assert all(np.array_equal(a.values[0], b.values[0]) for a, b in zip(one, same, strict=True))


@pytest.mark.parametrize("budget", [1, 5])
def test_the_budget_holds(budget):
    problem = question(huber, wrong_huber_gradient, normal(30))
    assert len(between(problem, points((normal(30),), (3 * normal(30, seed=1),)), budget=budget)) == budget


# ------------------------------------------------------------------------------------------ decisions


def scanned(x):
    return lax.scan(lambda h, a: (jnp.maximum(h, a), h), 0.0, x)[0]


DECIDING = {
    "comparison": (lambda x: jnp.where(x[0] > x[1], 1.0, 2.0), [1.0, 0.0], [1.0, 2.0]),
    "maximum": (lambda x: jnp.maximum(x[0], 0.5), [0.4, 0.0], [0.6, 0.0]),
    "absolute value": (lambda x: jnp.abs(x[0]), [0.4, 0.0], [-0.4, 0.0]),
    "sign": (lambda x: jnp.sign(x[0]), [0.4, 0.0], [-0.4, 0.0]),
    "clamp": (lambda x: lax.clamp(-1.0, x[0], 1.0), [0.5, 0.0], [1.5, 0.0]),
    "clip": (lambda x: jnp.clip(x[0], -1.0, 1.0), [0.5, 0.0], [-1.5, 0.0]),
    "largest": (jnp.max, [0.5, 0.0], [0.5, 1.0]),
    "smallest": (jnp.min, [0.5, 0.0], [0.5, 1.0]),
    "argmax": (jnp.argmax, [0.5, 0.0], [0.5, 1.0]),
    "sorted": (jnp.sort, [0.5, 0.0], [0.5, 1.0]),
    "top k": (lambda x: lax.top_k(x, 1)[0], [0.5, 0.0], [0.5, 1.0]),
    "floor": (lambda x: jnp.floor(x[0]), [0.5, 0.0], [1.5, 0.0]),
    "round": (lambda x: jnp.round(x[0]), [0.4, 0.0], [0.6, 0.0]),
    "whole number": (lambda x: x[0].astype(int), [0.5, 0.0], [1.5, 0.0]),
    "inside jit": (lambda x: jax.jit(jax.nn.relu)(x[0]), [0.5, 0.0], [-0.5, 0.0]),
    "inside cond": (lambda x: lax.cond(x[1] > 0, jnp.abs, jnp.sin, x[0]), [0.5, 1.0], [-0.5, 1.0]),
    "inside scan": (scanned, [0.5, 0.0], [0.5, 1.0]),
    "of a gradient": (jax.grad(lambda x: jnp.sum(jax.nn.relu(x))), [0.5, 0.0], [-0.5, 0.0]),
}


@pytest.mark.parametrize("name", DECIDING)
def test_a_decision_changes_its_state(name):
    function, here, there = DECIDING[name]
    states = decisions(function)
    near = np.asarray(here) + 1e-3
    assert np.array_equal(states(jnp.asarray(here)), states(jnp.asarray(near, jnp.float32))) or 0.0 in here
    assert states(jnp.asarray(here)).tolist() != states(jnp.asarray(there)).tolist()


def test_decisions_can_be_jitted_and_vmapped():
    xs = jnp.linspace(-2, 2, 5)
    states = jax.jit(jax.vmap(decisions(lambda x: jnp.clip(x, -1.0, 1.0))))(xs)
    assert states.shape[0] == 5
    assert len(np.unique(states, axis=0)) >= 3


def test_decisions_of_large_arrays_are_sampled():
    assert decisions(jnp.abs)(jnp.ones(10**5)).size <= 256


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda x: jnp.where(x < 2.5, x, 0.0), [2.5]),
        (lambda x: jnp.where(x > -2.5, x, 0.0), [2.5]),
        (lambda x: jnp.clip(x, -1.0, 6.0), [1.0, 6.0]),
        (lambda x: jax.nn.relu(x), [0.0]),
        (lambda x: jnp.where(x < -jnp.sqrt(jnp.float32(4.0)), x, 1.5), [2.0]),
        (lambda x: jnp.sin(3.0 * x), []),
        (lambda x: jnp.where(jnp.arange(3) < 2, x, 0.0), []),
        (lambda x: jnp.where(x < x + 1, x, 0.0), []),
        (lambda x: jnp.maximum(jnp.full(3, 4.0), x), [4.0]),
    ],
)
def test_numbers_that_something_is_compared_with(function, expected):
    assert constants(function, jnp.ones(3)) == expected
