"""At kinks and ties every convention is right and nothing else; NaN is told apart by whether a derivative
exists."""

import jax
import numpy as np
import pytest
from jax import lax
from jax import numpy as jnp

from funcbp.verify import _kinks
from funcbp.verify._kinks import around, classify, examine


def puller(function):
    """The gradient of a function of arrays as `(values, cotangent) -> leaves`."""

    def pull(values, cotangent):
        return jax.vjp(function, *values)[1](cotangent)

    return pull


def kinds(function, values, candidates, cotangent=1.0, tolerance=1e-6):
    values = tuple(np.asarray(x, np.float64) for x in values)
    samples = around(puller(function), values, np.asarray(cotangent, np.float64))
    return [classify(c, samples, [tolerance] * len(values)).kind for c in candidates]


@pytest.mark.parametrize(
    ("function", "left", "right"),
    [
        (jax.nn.relu, 0.0, 1.0),
        (lambda x: jnp.maximum(x, 0), 0.0, 1.0),
        (jnp.abs, -1.0, 1.0),
        (lambda x: jnp.clip(x, 0.0, 1.0), 0.0, 1.0),
        (lambda x: jnp.where(x >= 0, 3 * x, 2 * x), 2.0, 3.0),
        (lambda x: jax.nn.leaky_relu((x + 0.1) - 0.1, 0.25), 0.25, 1.0),
    ],
    ids=["relu", "maximum", "abs", "clip", "where", "rounded"],
)
def test_every_value_between_the_sides_is_a_convention_and_nothing_else(function, left, right):
    middle, below, above = (left + right) / 2, left - 0.5, right + 0.5
    candidates = [[np.array(g)] for g in (left, middle, right, 0.7 * left + 0.3 * right, below, above)]
    assert kinds(function, [0.0], candidates) == ["inside"] * 4 + ["outside"] * 2


def test_conventions_have_names():
    samples = around(puller(jax.nn.relu), (np.zeros(()),), np.ones(()))
    names = [classify([np.array(g)], samples, [1e-6]).convention for g in (0.0, 0.5, 1.0, 0.3)]
    assert names == [
        "autodiff's own value",
        "halfway between left and right",
        "the gradient on the right",
        "a value in between",
    ]


@pytest.mark.parametrize(
    "function", [jnp.max, lambda x: jnp.sort(x)[-1], lambda x: -jnp.min(-x), lambda x: lax.top_k(x, 1)[0][0]]
)
def test_ties_may_be_split_or_given_to_one_side_but_not_counted_twice(function):
    x = np.array([2.0, 2.0, 2.0, 1.0])
    right = [[1, 1, 1, 0], [3, 0, 0, 0], [0, 3, 0, 0], [0, 0, 3, 0], [1.5, 0, 1.5, 0]]
    wrong = [[3, 3, 3, 0], [0, 0, 0, 0], [0, 0, 0, 3]]
    candidates = [[np.array(g) / 3] for g in right + wrong]
    assert kinds(function, [x], candidates) == ["inside"] * 5 + ["outside"] * 3


def test_the_median_of_ties():
    def median(x):
        return jnp.sort(x)[1]

    x = np.array([1.0, 1.0, 0.0])
    candidates = [[np.array(g)] for g in ([1.0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [1.0, 1.0, 0])]
    assert kinds(median, [x], candidates) == ["inside", "inside", "outside", "outside"]


def dense(x, w, b):
    return jax.nn.relu(x @ w + b)


def dense_gradient(x, w, b, ct, slope):
    delta = ct * np.where(x @ w + b == 0, slope, (x @ w + b > 0) * 1.0)
    return [delta @ w.T, x.T @ delta, delta.sum(0)]


@pytest.mark.parametrize(
    ("slope", "kind"), [(0.0, "inside"), (0.5, "inside"), (1.0, "inside"), (-0.5, "outside")]
)
@pytest.mark.parametrize("empty", ["x", "w"])
def test_many_kinks_at_once(slope, kind, empty):
    rng = np.random.default_rng(0)
    x, w, b, ct = (
        rng.standard_normal((10, 10)),
        rng.standard_normal((10, 10)),
        np.zeros(10),
        rng.standard_normal((10, 10)),
    )
    x, w = (x * 0, w) if empty == "x" else (x, w * 0)
    mine = dense_gradient(x, w, b, ct, slope)
    assert examine(puller(dense), (x, w, b), ct, mine, [1e-6] * 3).kind == kind


def test_away_from_kinks_the_gradients_agree():
    rng = np.random.default_rng(0)
    x, w, b, ct = (rng.standard_normal(s) for s in ((3, 4), (4, 5), (5,), (3, 5)))
    found = examine(puller(dense), (x, w, b), ct, dense_gradient(x, w, b, ct, 0), [1e-12] * 3)
    assert found.kind == "smooth"
    assert found.distance < 1
    assert not any(mask.any() for mask in found.kinked)


def test_a_small_input_is_no_kink():
    assert kinds(jax.nn.relu, [[1e-12, 1.0]], [[np.ones(2)]], np.ones(2)) == ["smooth"]


def test_rounding_of_the_tested_dtype_may_decide_a_tie():
    x = np.array([1.0, 1e-9, -1.0])

    def f(x):
        return jax.nn.relu(x.sum())

    exactly = examine(puller(f), (x,), np.ones(()), [np.zeros(3)], [1e-6])
    in_float32 = examine(puller(f), (x,), np.ones(()), [np.zeros(3)], [1e-6], amplitude=2.0**-23)
    assert (exactly.kind, in_float32.kind) == ("smooth", "inside")


def test_the_norm_at_zero():
    candidates = [np.zeros(4), np.full(4, np.nan), np.array([0.3, 0, 0, 0]), np.array([2.0, 0, 0, 0])]
    found = kinds(jnp.linalg.norm, [np.zeros(4)], [[g] for g in candidates])
    assert found == ["inside", "undefined", found[2], "outside"]


def test_no_derivative_exists():
    candidates = [[np.array(g)] for g in (0.0, np.inf, np.nan, 3.0)]
    assert kinds(jnp.sqrt, [0.0], candidates) == ["undefined"] * 4
    assert kinds(lambda x: x * jnp.log(x), [0.0], candidates) == ["undefined"] * 4


def test_nan_where_the_derivative_is_finite():
    def masked(x):
        return jnp.where(x > 0, jnp.sqrt(x), 0.0).sum()

    right, wrong = np.array([0.25, 0.0]), np.array([0.25, np.nan])
    assert kinds(masked, [[4.0, -1.0]], [[right], [wrong]]) == ["smooth", "nan"]
    at_zero = np.array([0.25, np.nan])
    assert kinds(masked, [[4.0, 0.0]], [[at_zero]]) == ["undefined"]


def test_a_guard_is_no_kink():
    def sinc(x):
        safe = jnp.where(x == 0, 1.0, x)
        return jnp.where(x == 0, 1.0, jnp.sin(safe) / safe)

    assert kinds(sinc, [0.0], [[np.array(0.0)], [np.array(np.nan)], [np.array(0.5)]]) == [
        "smooth",
        "nan",
        "smooth",
    ]


def test_kinks_inside_loops_and_calls():
    def f(x):
        def step(carry, row):
            return carry, jax.jit(jax.checkpoint(jax.nn.relu))(row) * carry

        return lax.scan(step, 2.0, x)[1].sum()

    x = np.array([0.0, 1.0, -1.0])
    candidates = [[np.array(g)] for g in ([0, 2.0, 0], [1.0, 2, 0], [2.0, 2, 0], [3.0, 2, 0], [1.0, 2, 1])]
    assert kinds(f, [x], candidates) == ["inside"] * 3 + ["outside"] * 2


def test_complex_leaves():
    def f(z):
        return jnp.abs(z.real) + z.imag

    own = puller(f)((jnp.complex64(1j),), jnp.float32(1))[0]
    slope = complex(0, own.imag)
    samples = around(puller(f), (np.complex128(1j),), np.ones(()))
    found = [
        classify([np.complex128(g)], samples, [1e-6]).kind for g in (slope, slope + 1, slope + 2, -slope)
    ]
    assert found == ["inside", "inside", "outside", "outside"]


def test_many_ties_counted_twice_are_wrong_although_the_hull_is_large():
    def pooled(x):
        return lax.reduce_window(x, -jnp.inf, lax.max, (2, 2), (2, 2), "VALID").sum()

    x, first = np.ones((4, 4)), np.zeros((4, 4))
    first[::2, ::2] = 1
    right, wrong = [np.full((4, 4), 0.25), first], np.ones((4, 4))
    found = [examine(puller(pooled), (x,), np.ones(()), [g], [1e-6]).kind for g in (*right, wrong)]
    assert found == ["inside", "inside", "outside"]


def test_too_many_kinks_for_the_samples_are_undecided(monkeypatch):
    monkeypatch.setattr(_kinks, "_ROUNDS", 1)
    rng = np.random.default_rng(0)
    pattern = rng.integers(0, 2, 200).astype(float)
    found = examine(puller(jax.nn.relu), (np.zeros(200),), np.ones(200), [pattern], [1e-6])
    assert found.kind == "undecided"
