"""Planted mistakes: a good test catches them all, an inert one none."""

from typing import Any

import jax
import numpy as np
import pytest
from jax import numpy as jnp

from funcbp.verify._planting import plant, sensitivity

RNG = np.random.default_rng(0)
ARGS = tuple(jnp.asarray(RNG.normal(size=s), jnp.float32) for s in ((3, 4), (4, 4), (4,), (3, 4)))


def bwd(x: Any, w: Any, b: Any, ct: Any) -> tuple[Any, ...]:
    q = jnp.tanh(x @ w + b)
    d = ct * (1 - q * q)
    return d @ w.T, x.T @ d, d.sum(0)


def truth(x: Any, w: Any, b: Any, ct: Any) -> tuple[Any, ...]:
    return jax.vjp(lambda x, w, b: jnp.tanh(x @ w + b), x, w, b)[1](ct)


def good(backward: Any) -> None:
    for mine, true in zip(backward(*ARGS), truth(*ARGS), strict=True):
        np.testing.assert_allclose(mine, true, rtol=1e-4, atol=1e-5)


def inert(backward: Any) -> None:
    assert [g.shape for g in backward(*ARGS)] == [(3, 4), (4, 4), (4,)]


def weights_only(backward: Any) -> None:
    np.testing.assert_allclose(backward(*ARGS)[1], truth(*ARGS)[1], rtol=1e-4, atol=1e-5)


def test_a_good_test_catches_every_mistake():
    result = sensitivity(bwd, good, ARGS)
    assert not result.missed, str(result)
    assert len(result.caught) >= 15
    kinds = {mistake.kind for mistake in result.caught}
    assert kinds >= {"sign flipped", "mean for sum", "transpose left out", "second factor dropped"}
    assert result.rate == 1


def test_an_inert_test_catches_none():
    result = sensitivity(bwd, inert, ARGS)
    assert not result.caught
    assert result.rate == 0
    assert str(result).startswith(f"The test caught 0 of {len(result.missed)} planted mistakes.")


def test_what_a_test_does_not_look_at_is_named():
    result = sensitivity(bwd, weights_only, ARGS)
    assert 0 < result.rate < 1
    assert "mean for sum" in {mistake.kind for mistake in result.missed}
    assert all(mistake.line and mistake.line.startswith("test_planting.py:") for mistake in result.missed)


def test_a_test_that_fails_for_the_original_says_nothing():
    with pytest.raises(AssertionError):
        sensitivity(lambda *args: bwd(*args)[::-1], good, ARGS)


def test_overwritten_duplicates_are_planted():
    at = jnp.array([1, 0, 1])

    def scattered(ct: Any) -> Any:
        return jnp.zeros((3, 2), ct.dtype).at[at].add(ct)

    ct = jnp.arange(1.0, 7.0).reshape(3, 2)
    (mutant,) = [m for mistake, m in plant(scattered, (ct,)) if mistake.kind == "duplicates overwritten"]
    np.testing.assert_array_equal(mutant(ct), [[3, 4], [5, 6], [0, 0]])
