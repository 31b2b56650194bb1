"""Every factor's gradient against its definition as an explicit sum."""

import jax
import numpy as np
import pytest
from jax import numpy as jnp

from funcbp.factors import Elementwise, Factor, Outer, Rows, Sum, Total, Transposed, contract

RNG = np.random.default_rng(0)
BATCHES = [(), (1,), (5,), (2, 3), (0,), (4, 0)]


def normal(*shape: int) -> jax.Array:
    return jnp.asarray(RNG.integers(-8, 8, shape), jnp.float32)  # small integers: sums are exact


@pytest.mark.parametrize("batch", BATCHES)
def test_outer_is_the_sum_of_outer_products(batch):
    a, delta = normal(*batch, 3), normal(*batch, 2)
    expected = sum((np.outer(a[i], delta[i]) for i in np.ndindex(batch)), np.zeros((3, 2)))
    np.testing.assert_array_equal(Outer(a, delta).gradient(), expected)


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("ndim", [1, 2])
def test_total_sums_what_the_parameter_does_not_have(batch, ndim):
    delta = normal(*batch, 2, 3)
    axes = tuple(range(len(batch) + 2 - ndim))
    np.testing.assert_array_equal(Total(delta, ndim).gradient(), np.asarray(delta).sum(axes))


@pytest.mark.parametrize("batch", BATCHES)
def test_elementwise_sums_products(batch):
    a, delta = normal(*batch, 3), normal(*batch, 3)
    expected = (np.asarray(a) * np.asarray(delta)).sum(tuple(range(len(batch))))
    np.testing.assert_array_equal(Elementwise(a, delta).gradient(), expected)


@pytest.mark.parametrize("batch", BATCHES)
def test_rows_adds_up_duplicates(batch):
    ids, delta = jnp.asarray(RNG.integers(0, 3, batch)), normal(*batch, 2)
    expected = np.zeros((4, 2))
    for i in np.ndindex(batch):
        expected[ids[i]] += delta[i]
    np.testing.assert_array_equal(Rows(ids, delta, 4).gradient(), expected)


@pytest.mark.parametrize("outside", [-1, 4, 100])
def test_rows_drops_ids_out_of_range(outside):
    gradient = Rows(jnp.array([1, outside]), normal(2, 3) + 10, 4).gradient()
    assert np.flatnonzero(np.asarray(gradient).any(-1)).tolist() == [1]


def test_a_shared_parameter_is_the_sum_of_its_uses():
    a, b = Outer(normal(5, 3), normal(5, 2)), Outer(normal(7, 2), normal(7, 3))
    total = Sum((a, Transposed(b)))
    np.testing.assert_array_equal(total.gradient(), a.gradient() + b.gradient().T)


@pytest.mark.parametrize(
    "factor",
    [
        Outer(normal(2, 3), normal(2, 4)),
        Total(normal(2, 3)),
        Elementwise(normal(2, 3), normal(2, 3)),
        Rows(jnp.array([0, 1]), normal(2, 3), 5),
        Transposed(Outer(normal(2, 3), normal(2, 4))),
        Sum((Total(normal(2, 3)), Total(normal(4, 3)))),
    ],
    ids=lambda f: type(f).__name__,
)
def test_a_factor_is_a_pytree_of_arrays(factor: Factor):
    leaves, tree = jax.tree.flatten(factor)
    assert all(isinstance(leaf, jax.Array) for leaf in leaves)
    np.testing.assert_array_equal(jax.jit(lambda f: f.gradient())(factor), factor.gradient())
    stacked = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), factor)
    assert jax.vmap(lambda f: f.gradient())(stacked).shape == (2, *factor.gradient().shape)
    assert tree.unflatten(leaves).gradient().shape == factor.gradient().shape


def test_half_precision_accumulates_in_float32():
    ones = jnp.ones((4096, 1), jnp.bfloat16)
    for factor in (Outer(ones, ones), Total(ones), Elementwise(ones, ones)):
        assert factor.gradient().dtype == jnp.float32
        assert factor.gradient().item() == 4096  # bfloat16 stops counting at 256
    assert Rows(jnp.zeros(4096, int), ones, 1).gradient().item() == 4096


def test_contract_leaves_everything_else_alone():
    array = jnp.ones(2)
    assert contract(array, jnp.float32) is array
    assert contract(None, jnp.float32) is None
    assert contract(Total(array[None]), jnp.bfloat16).dtype == jnp.bfloat16
