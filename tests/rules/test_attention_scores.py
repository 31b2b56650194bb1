"""Attention where the generic check cannot look: jax.nn, conventions, memory, errors."""

import functools

import jax
import numpy as np
import pytest
from jax import numpy as jnp

from tests import at_once
from tests.at_once import rules
from tests.support import assert_trees_close

RULES = {"plain": rules.dot_product_attention, "blocked": functools.partial(rules.blocked_attention, block=2)}


def arrays(queries=5, keys=5, heads=4, groups=2, channels=3, batch=2, dtype="float32"):
    shapes = (
        (batch, queries, heads, channels),
        (batch, keys, groups, channels),
        (batch, keys, groups, channels),
    )
    rng = np.random.default_rng(0)
    return tuple(jnp.asarray(rng.standard_normal(shape), dtype) for shape in shapes)


def pulled(function, *args):
    """Value and cotangents of all arguments."""

    def both(*args):
        out, pull = at_once.vjp(function, *args)
        return out, pull(jnp.cos(out))

    return at_once.at_once(both)(*args)


@pytest.mark.parametrize("rule", RULES.values(), ids=list(RULES))
@pytest.mark.parametrize(
    "options",
    [{"is_causal": True}, {"local_window_size": (2, 1), "scale": 0.3}],
    ids=str,
)
def test_value_and_gradient_are_those_of_jax_nn(rule, options):
    args = arrays()
    bias = np.random.default_rng(1).standard_normal((1, 4, 5, 5)).astype("float32")
    mask = jnp.ones((2, 1, 1, 5), bool).at[1, :, :, 3:].set(False)

    def masked(attention):
        return pulled(lambda *a: attention(*a, mask, **options), *args, bias)

    assert_trees_close(masked(rule), masked(jax.nn.dot_product_attention), ulps=256)


@pytest.mark.parametrize("rule", RULES.values(), ids=list(RULES))
def test_a_query_that_sees_nothing_gives_zero_with_gradient_zero(rule):
    """In jax.nn it is the mean of all values, hidden ones too, and hidden values have a gradient."""
    query, key, value = arrays()
    mask = jnp.ones((2, 1, 5, 5), bool).at[0, 0, 1].set(False)

    def row(attention):
        return pulled(lambda *a: attention(*a, mask=mask)[0, 1] + 1, query, key, value)

    out, cotangents = row(rule)
    assert np.all(out == 1)
    assert not any(np.any(ct) for ct in cotangents)
    out, cotangents = row(jax.nn.dot_product_attention)
    np.testing.assert_allclose(out - 1, jnp.repeat(value[0].mean(0), 2, axis=0), rtol=1e-4, atol=1e-6)
    assert np.all(cotangents[2][0])


@pytest.mark.parametrize("rule", RULES.values(), ids=list(RULES))
def test_hidden_keys_may_be_anything(rule):
    """Any number, that is: 0 · NaN would be NaN."""
    query, key, value = arrays()
    mask = (jnp.arange(5) < 3)[None, None, None]

    def hidden(number):
        others = (x.at[:, 3:].set(number) for x in (key, value))
        return pulled(lambda *a: rule(*a, mask=mask), query, *others)

    out, cotangents = hidden(1e18)
    assert_trees_close((out, cotangents), hidden(0.0))
    assert not any(np.any(ct[:, 3:]) for ct in cotangents[1:])


@pytest.mark.parametrize(("queries", "keys", "block"), [(3, 7, 3), (1, 1, 4), (4, 0, 2), (0, 4, 2)])
def test_any_number_of_keys_fits_any_block(queries, keys, block):
    args = arrays(queries, keys)
    blocked = functools.partial(rules.blocked_attention, block=block)
    found, expected = (pulled(rule, *args) for rule in (blocked, rules.dot_product_attention))
    assert_trees_close(found, expected)


@pytest.mark.parametrize(
    ("axes", "name"), [((1, 1, 1, 7), "keys"), ((2, 1, 5, 1), "queries"), ((1, 4, 1, 1), "heads")]
)
def test_a_bias_is_broadcast_and_its_cotangent_summed(axes, name):
    args = arrays(5, 7)
    bias = np.random.default_rng(1).standard_normal(axes).astype("float32")
    g = np.random.default_rng(2).standard_normal(args[0].shape).astype("float32")

    def bias_ct(rule, bias, **options):
        return at_once.vjp(lambda b: rule(*args, b, **options), bias)[1](g)[0]

    full = bias_ct(rules.dot_product_attention, np.broadcast_to(bias, (2, 4, 5, 7)))
    summed = full.sum(tuple(i for i, n in enumerate(axes) if n == 1), keepdims=True)
    for rule, options in ((rules.dot_product_attention, {}), (rules.blocked_attention, {"block": 3})):
        found = bias_ct(rule, bias, **options)
        np.testing.assert_allclose(found, summed, atol=2e-6 * np.abs(full).max(), err_msg=name)


def test_dropout_depends_on_the_seed_alone():
    args, options = arrays(), {"dropout_rate": 0.4}
    plain = rules.dot_product_attention(*args, seed=jnp.int32(3), **options)
    for block in (1, 3, 8):
        blocked = rules.blocked_attention(*args, seed=jnp.int32(3), block=block, **options)
        np.testing.assert_allclose(blocked, plain, rtol=1e-4, atol=1e-5)
    other = rules.dot_product_attention(*args, seed=jnp.int32(4), **options)
    assert not np.allclose(plain, other, atol=1e-2)
    without = rules.dot_product_attention(*args, seed=jnp.int32(3))
    np.testing.assert_array_equal(without, rules.dot_product_attention(*args))


def test_dropout_keeps_the_mean():
    query, key, _ = arrays(keys=400, batch=8)
    ones = jnp.ones((8, 400, 2, 3))
    attention = functools.partial(rules.dot_product_attention, dropout_rate=0.3, scale=0.0)
    out = attention(query, key, ones, seed=jnp.int32(0))
    # Each is a mean of 400 weights 0 or 1 / 0.7: its standard deviation is √(0.3 / 0.7 / 400) = 0.033.
    assert float(out.mean()) == pytest.approx(1, abs=4 * 0.033 / np.sqrt(8 * 5 * 4))
    assert float(out[..., 0].std()) == pytest.approx(0.033, rel=0.25)


def gradient(rule, **options):
    return jax.jit(at_once.grad(lambda a: rule(*a, is_causal=True, **options).sum()))


def test_the_blocked_form_never_holds_queries_times_keys():
    time = 512
    args = arrays(time, time, 2, 2, 8, 1)
    weights = 4 * 2 * time * time  # bytes of P, two heads
    plain, blocked = (
        gradient(rule, **options).lower(args).compile().memory_analysis().temp_size_in_bytes
        for rule, options in ((rules.dot_product_attention, {}), (rules.blocked_attention, {"block": 32}))
    )
    assert plain >= weights
    # A few arrays of queries × block, which is a sixteenth of P, and of the size of the arguments.
    assert blocked < weights / 2
    assert blocked < plain / 3
    longer = arrays(2 * time, 2 * time, 2, 2, 8, 1)
    twice = gradient(rules.blocked_attention, block=32).lower(longer).compile().memory_analysis()
    assert twice.temp_size_in_bytes < 2.2 * blocked  # linear in time
    saved = jax.eval_shape(rules.blocked_attention.fwd, *args)[1]
    assert max(a.size for a in jax.tree.leaves(saved)) == args[0].size


@pytest.mark.parametrize("rule", RULES.values(), ids=list(RULES))
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"query": jnp.ones((2, 5, 3, 3))}, "`query` has 3 heads, `key` 2; the former must be a multiple"),
        ({"bias": jnp.ones((2, 4, 5, 3))}, r"`bias` has shape \(2, 4, 5, 3\), the scores .* \(2, 4, 5, 5\)"),
        ({"mask": jnp.ones((5, 5), bool)}, r"`mask` has shape \(5, 5\).*four axes"),
        ({"dropout_rate": 0.1}, "`dropout_rate` is 0.1, but there is no `seed`"),
        ({"dropout_rate": 1.0, "seed": jnp.int32(0)}, r"`dropout_rate` must be in \[0, 1\), got 1.0"),
        ({"soft_cap": 0.0}, "`soft_cap` must be positive, or None"),
        ({"local_window_size": -1}, "`local_window_size` must be None, a number of keys, or a pair"),
        ({"local_window_size": (1, 2, 3)}, "`local_window_size` must be None"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_errors_say_what_to_do(rule, change, message):
    named = dict(zip(("query", "key", "value"), arrays(), strict=True))
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(lambda: rule(**named | change))


def test_a_block_has_at_least_one_key():
    with pytest.raises(ValueError, match="blocked_attention: `block` must be at least 1, got 0"):
        rules.blocked_attention(*arrays(), block=0)
