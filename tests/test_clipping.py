"""Clipped sums by layers, groups and coefficients, in microbatches, with weights; and what is refused."""

import functools

import jax
import numpy as np
import pytest
from jax import numpy as jnp

import funcbp
from funcbp import factors, layers
from funcbp._clipping import ClippingRule, weighted_sums
from funcbp.verify._pairs import evaluated
from tests.per_example import (
    BATCH,
    CROSS_ENTROPY,
    assert_close,
    dense,
    leaf_norms,
    problem,
    summed,
    total_norms,
)


@pytest.fixture(autouse=True)
def _float64():
    with jax.enable_x64(True):
        yield


def clip(name="mlp", **options):
    network, _, args, _, each = problem(name)
    return jax.jit(funcbp.clipped_grad(network, CROSS_ENTROPY, **options))(*args), each


def test_each_layer_by_itself():
    """Two layers with parameters, each to C / √2: the whole to C."""
    result, each = clip(max_norm=0.5, per="layer")
    assert set(result.norms) == {"0", "2"}
    for layer in (0, 2):
        norms = total_norms(each[layer])
        c = np.minimum(1, 0.5 / np.sqrt(2) / norms)
        assert_close((result.norms[str(layer)], result.coefficients[str(layer)]), (norms, c))
        assert_close(result.grads[layer], summed(c, each[layer]))


def test_each_parameter_by_itself():
    result, each = clip(max_norm=0.5, per="parameter")
    assert set(result.norms) == {"0.w", "0.b", "2.w", "2.b"}
    norms = np.sqrt(leaf_norms(each)[2]["w"])
    assert_close(result.grads[2]["w"], summed(np.minimum(1, 0.25 / norms), each[2]["w"]))


def test_blocks_of_a_scan_are_layers_of_their_own():
    """The same as the blocks written one after the other."""
    _, _, (params, x, y), *_ = problem("repeat")
    unrolled = layers.chain(dense(), *[layers.residual(dense())] * 3, dense(3))
    separate = (
        params[0],
        *(jax.tree.map(lambda p, i=i: np.asarray(p)[i], params[1]) for i in range(3)),
        params[2],
    )
    stacked, _ = clip("repeat", max_norm=0.5, per="layer")
    one_by_one = jax.jit(funcbp.clipped_grad(unrolled, CROSS_ENTROPY, max_norm=0.5, per="layer"))
    expected = one_by_one(separate, x, y)
    assert stacked.norms["1"].shape == (BATCH, 3)
    for i in range(3):
        assert_close(stacked.norms["1"][:, i], expected.norms[str(1 + i)])
        assert_close(jax.tree.map(lambda g, i=i: np.asarray(g)[i], stacked.grads[1]), expected.grads[1 + i])
    assert_close((stacked.grads[0], stacked.grads[2]), (expected.grads[0], expected.grads[4]))


def test_groups_with_bounds_of_their_own():
    result, each = clip("repeat", max_norm={"": 0.3, "1": 0.2, "1.w": 0.1})
    names = {"": (each[0], each[2]), "1": each[1]["b"], "1.w": each[1]["w"]}
    bounds = {"": 0.3, "1": 0.2, "1.w": 0.1}
    c = {name: np.minimum(1, bounds[name] / total_norms(names[name])) for name in names}
    assert_close(result.coefficients, c)
    expected = (summed(c[""], each[0]), {"b": c["1"], "w": c["1.w"]}, summed(c[""], each[2]))
    expected = (expected[0], {n: summed(v, each[1][n]) for n, v in expected[1].items()}, expected[2])
    assert_close(result.grads, expected)


def test_automatic_clipping_and_coefficients_of_ones_own():
    result, each = clip(coefficients=funcbp.automatic_clipping(0.1))
    assert_close(result.grads, summed(1 / (total_norms(each) + 0.1), each))
    squared, _ = clip(coefficients=jnp.square)
    assert_close(squared.grads, summed(total_norms(each) ** 2, each))


WEIGHTS = np.array([1.0, 2.0, 0.0, 0.5])


@functools.cache
def weighted(reduction, parts=1):
    """Compiled once for several tests."""
    network, *_ = problem("mlp")
    options = {"reduction": reduction, "microbatches": parts}
    return jax.jit(funcbp.clipped_grad(network, CROSS_ENTROPY, max_norm=0.4, **options))


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_microbatches_give_the_clipped_sum_of_the_batch(reduction):
    _, _, args, *_ = problem("mlp")
    whole = weighted(reduction)(*args, weights=WEIGHTS)
    for parts in (2, 4):
        assert_close(weighted(reduction, parts)(*args, weights=WEIGHTS), whole)


def test_the_mean_is_over_the_weights():
    _, _, args, *_ = problem("mlp")
    whole, mean = (weighted(reduction)(*args, weights=WEIGHTS) for reduction in ("sum", "mean"))
    assert_close(
        (mean.value, mean.grads), jax.tree.map(lambda a: np.asarray(a) / 3.5, (whole.value, whole.grads))
    )
    nothing = weighted("mean")(*args, weights=np.zeros(BATCH))
    assert all((a == 0).all() for a in jax.tree.leaves((nothing.value, nothing.grads)))


def test_bfloat16_keeps_norms_and_sums_in_float32():
    network, _, (params, x, y), _, each = problem("mlp")
    params, x = jax.tree.map(lambda a: np.asarray(a, "float32"), (params, x))
    precision = funcbp.Precision(compute="bfloat16")
    clipped = funcbp.clipped_grad(network, CROSS_ENTROPY, max_norm=0.4, precision=precision)
    result = jax.jit(clipped)(params, x, y)
    assert {a.dtype for a in jax.tree.leaves((result.norms, result.grads))} == {jnp.dtype("float32")}
    np.testing.assert_allclose(result.norms, total_norms(each), rtol=0.02)


def test_examples_are_left_out_wherever_a_stack_is():
    outer = factors.Outer(np.outer([1, np.inf, 1], np.ones(2)), np.ones((3, 4)))
    stacked = factors.Stacked(jax.tree.map(lambda a: np.stack([a, 2 * a]), outer))
    whole = factors.Sum((stacked, factors.Stacked(jax.tree.map(np.zeros_like, stacked.of))))
    rule = ClippingRule(None, lambda norms: jnp.ones_like(norms), "network")
    finite = np.array([1.0, np.inf, 1.0])

    def sums(finite, whole):
        return weighted_sums(rule, [""], [finite], [whole], 3, only_finite=True)[1:]

    scales, (total,) = evaluated(sums, finite, whole)
    assert scales.tolist() == [1, 0, 1]
    assert_close(total, np.stack([np.full((2, 4), 2.0), np.full((2, 4), 8.0)]))


def test_an_empty_batch():
    network, _, (params, x, y), _, _ = problem("mlp")
    x, y = np.asarray(x)[:0], np.asarray(y)[:0]
    result = jax.jit(funcbp.clipped_grad(network, CROSS_ENTROPY, max_norm=1.0))(params, x, y)
    assert result.norms.shape == (0,)
    assert all((g == 0).all() for g in jax.tree.leaves(result.grads))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({}, ValueError, "give either `max_norm` or `coefficients`, got None and None"),
        ({"max_norm": 1.0, "coefficients": jnp.square}, ValueError, "give either"),
        ({"coefficients": 0.5}, TypeError, "must be a function of norms, got 0.5"),
        ({"max_norm": 0.0}, ValueError, "`max_norm` must be positive, got 0.0"),
        ({"max_norm": {"0": -1.0}}, ValueError, "must be positive"),
        ({"max_norm": {"0": 1.0}}, ValueError, "no bound for the parameter `2.b`, only for '0'"),
        ({"max_norm": {"": 1.0}, "per": "layer"}, ValueError, "already names the groups"),
        ({"max_norm": 1.0, "per": "block"}, ValueError, "`per` must be 'network', 'layer' or 'parameter'"),
        ({"max_norm": 1.0, "microbatches": 0}, ValueError, "`microbatches` must be at least 1"),
        ({"max_norm": 1.0, "microbatches": 3}, ValueError, "a batch of 4 cannot be split into 3"),
        ({"max_norm": 1.0, "reduction": "max"}, ValueError, "`reduction` must be 'mean' or 'sum'"),
    ],
)
def test_errors_say_what_to_do(options, error, message):
    with pytest.raises(error, match=message):
        clip(**options)


def test_gamma_must_be_positive():
    with pytest.raises(ValueError, match="`gamma` must be positive, got 0"):
        funcbp.automatic_clipping(0)
