"""Combinators give back a Layer: their trees, their equivalences, their errors."""

import itertools
from typing import NamedTuple

import jax
import numpy as np
import pytest
from jax import numpy as jnp

import funcbp
from funcbp import layers, rules
from funcbp.verify._pairs import evaluated
from tests.support import assert_trees_close, assert_trees_equal, drawn, masked_mean, running_norm

KEY = jax.random.key(0)
X = jnp.asarray(np.random.default_rng(1).standard_normal((4, 6)), "float32")
CONTEXT = layers.Context(KEY)


def block(width: int = 6) -> layers.Layer:
    return layers.chain(
        layers.layer_norm(), layers.dense(width), layers.activation("tanh"), layers.dropout(0.3)
    )


def sweep(network, params, x, **options):
    collect = ("activations", "cotangents", "deltas")
    y = jax.eval_shape(lambda: network.fwd(params, (), x, CONTEXT).y)
    run = funcbp.backprop(network, rules.l2_loss, collect=collect, **options)
    return jax.jit(run)(params, x, np.zeros(y.shape, y.dtype), key=KEY)


def test_a_chain_by_name_is_a_chain_by_position():
    first, second, third = layers.dense(5), layers.activation("relu"), layers.dense(2)
    by_position, by_name = layers.chain(first, second, third), layers.chain(w=first, sigma=second, v=third)
    params, _ = by_position.init(KEY, X)
    named, _ = by_name.init(KEY, X)
    assert_trees_equal(tuple(named[n] for n in ("w", "sigma", "v")), params)
    a, b = sweep(by_position, params, X), sweep(by_name, named, X)
    assert_trees_equal(tuple(b.grads[n] for n in ("w", "sigma", "v")), a.grads)
    assert_trees_equal(b.activations["sigma"], a.activations[1])
    assert b.deltas.keys() == {"w", "sigma", "v"}
    assert b.deltas["sigma"] is None


def test_names_are_applied_in_the_order_given_not_sorted():
    network = layers.chain(z=layers.dense(3), a=layers.dense(2))
    params, _ = drawn(network, X)
    assert params["z"]["w"].shape == (6, 3)
    assert network.fwd(params, (), X, CONTEXT).y.shape == (4, 2)


def test_nesting_a_chain_changes_nothing():
    parts = [layers.dense(6), layers.activation("gelu"), layers.dense(3)]
    flat, nested = layers.chain(*parts), layers.chain(parts[0], layers.chain(*parts[1:]))
    params, _ = drawn(flat, X)
    regrouped = (params[0], params[1:])
    a, b = sweep(flat, params, X), sweep(nested, regrouped, X)
    assert_trees_equal((b.grads[0], *b.grads[1]), a.grads)
    assert_trees_equal(b.x_ct, a.x_ct)


def test_repeat_is_the_unrolled_chain():
    times = 3
    repeated = layers.repeat(layers.residual(layers.chain(layers.dense(6), layers.activation("tanh"))), times)
    unrolled = layers.chain(
        *[layers.residual(layers.chain(layers.dense(6), layers.activation("tanh")))] * times
    )
    params, _ = drawn(repeated, X)
    separate = tuple(jax.tree.map(lambda a, i=i: np.asarray(a)[i], params) for i in range(times))
    a, b = sweep(repeated, params, X), sweep(unrolled, separate, X)
    for field in ("grads", "activations", "deltas", "cotangents"):
        stacked = jax.tree.map(lambda *each: np.stack(each), *getattr(b, field))
        assert_trees_close(getattr(a, field), stacked)
    assert_trees_close(a.x_ct, b.x_ct)


def test_blocks_of_a_repeat_have_parameters_and_random_keys_of_their_own():
    network = layers.repeat(layers.dropout(0.5), 2)
    kept = network.fwd((), (), jnp.ones((50, 50)), CONTEXT).activations
    assert not np.array_equal(kept[0], kept[1])
    w = layers.repeat(layers.dense(6), 2).init(KEY, X)[0]["w"]
    assert not np.array_equal(w[0], w[1])


def test_dropout_layers_of_a_chain_have_keys_of_their_own():
    network = layers.chain(layers.dropout(0.5), layers.dropout(0.5))
    kept = network.fwd(((), ()), (), jnp.ones((50, 50)), CONTEXT).residuals
    assert not np.array_equal(kept[0], kept[1])


def test_residual_adds_the_input():
    body = layers.dense(6)
    params, _ = drawn(body, X)
    y = layers.residual(body).fwd(params, (), X, CONTEXT).y
    np.testing.assert_array_equal(y, X + body.fwd(params, (), X, CONTEXT).y)


def pair() -> layers.Layer:
    """y = x["data"] ⊙ x["gate"]: a layer of two inputs."""

    def fwd(params, state, x, context):
        return x["data"] * x["gate"], state, x

    def pullback(params, x, y_ct):
        return (), {"data": x["gate"] * y_ct, "gate": x["data"] * y_ct}

    return layers.leaf(lambda key, spec: ((), ()), fwd, pullback)


def test_residual_of_several_inputs_adds_only_the_entry_named():
    x = {"data": X, "gate": 2 * X}
    network = layers.residual(pair(), entry="data")
    forward = network.fwd((), (), x, CONTEXT)
    np.testing.assert_array_equal(forward.y, X + X * 2 * X)
    backward = network.bwd((), forward.residuals, jnp.ones_like(X), None, None, ())
    expected = evaluated(jax.grad(lambda x: (x["data"] + x["data"] * x["gate"]).sum()), x)
    assert_trees_equal(backward.x_ct, expected)


def test_residual_adds_whole_trees():
    both = layers.parallel(a=layers.dense(6), b=layers.dense(6))

    def swap():
        return layers.leaf(
            lambda key, spec: ((), ()),
            lambda params, state, x, context: ({"a": x["b"], "b": x["a"]}, state, ()),
            lambda params, residuals, y_ct: ((), {"a": y_ct["b"], "b": y_ct["a"]}),
        )

    network = layers.chain(both, layers.residual(swap()))
    params, _ = drawn(network, X)
    y = network.fwd(params, (), X, CONTEXT).y
    np.testing.assert_array_equal(y["a"], y["b"])


def test_parallel_sums_the_cotangents_of_its_branches():
    network = layers.chain(layers.parallel(data=layers.dense(3), gate=layers.activation("sigmoid")), pair())
    params, _ = drawn(network, X[:, :3])

    def value(params, x):
        z = (x @ params[0]["data"]["w"] + params[0]["data"]["b"]) * jax.nn.sigmoid(x)
        return 0.5 * (z**2).sum() / len(x)

    result = sweep(network, params, X[:, :3])
    grads, x_ct = evaluated(jax.grad(value, (0, 1)), params, X[:, :3])
    assert_trees_close(result.grads, grads)
    assert_trees_close(result.x_ct, x_ct)


def test_tied_parameters_are_one():
    untied = layers.chain(embed=layers.embedding(7, 4), out=layers.dense(7, bias=False))
    network = layers.tied(untied, {"out.w": "embed.table.T"})
    ids = jnp.array([[1, 6, 1], [0, 2, 2]])
    params, _ = drawn(network, ids)
    assert params["out"]["w"] is None

    def value(table):
        z = table[ids] @ table.T
        return 0.5 * (z**2).sum() / len(ids)

    result = sweep(network, params, ids)
    expected = evaluated(jax.grad(value), params["embed"]["table"])
    assert_trees_close(result.grads["embed"]["table"], expected)
    assert result.grads["out"]["w"] is None
    assert result.x_ct is None


def test_one_source_may_be_shared_several_times():
    network = layers.tied(layers.chain(*[layers.dense(6, bias=False)] * 3), {"1.w": "0.w", "2.w": "0.w.T"})
    params, _ = drawn(network, X)
    w = params[0]["w"]
    expected = evaluated(jax.grad(lambda w: 0.5 * ((X @ w @ w @ w.T) ** 2).sum() / len(X)), w)
    assert_trees_close(sweep(network, params, X).grads[0]["w"], expected)


def test_tying_inside_a_repeated_block():
    inner = layers.tied(
        layers.chain(layers.dense(3, bias=False), layers.dense(6, bias=False)), {"1.w": "0.w.T"}
    )
    network = layers.repeat(inner, 2)
    params, _ = drawn(network, X)
    w = params[0]["w"]
    value = lambda w: 0.5 * ((X @ w[0] @ w[0].T @ w[1] @ w[1].T) ** 2).sum() / len(X)  # noqa: E731
    expected = evaluated(jax.grad(value), w)
    assert_trees_close(sweep(network, params, X).grads[0]["w"], expected)


def test_a_shared_parameter_is_visited_once_with_a_sum():
    network = layers.tied(layers.chain(*[layers.dense(6, bias=False)] * 2), {"1.w": "0.w"})
    params, _ = drawn(network, X)
    seen = []
    sweep(network, params, X, visit=lambda path, p, f, aux: seen.append((layers._layer.path_string(path), f)))
    assert [name for name, _ in seen] == ["0.w"]
    assert isinstance(seen[0][1], funcbp.factors.Sum)


def test_states_are_threaded_and_empty_ones_stay_empty():
    network = layers.chain(layers.dense(6), layers.repeat(running_norm(), 2), layers.activation("tanh"))
    params, state = network.init(KEY, X)
    new = network.fwd(params, state, X, CONTEXT).state
    assert jax.tree.structure(new) == jax.tree.structure(state)
    assert new[0] == new[2] == ()
    assert new[1].shape == (2, 6)
    assert layers.chain(layers.dense(6)).init(KEY, X)[1] == ()


def test_the_mask_reaches_the_layers():
    x = jax.random.normal(KEY, (2, 3, 6))
    mask = jnp.array([[True, False, True], [True, True, False]])
    network = layers.chain(layers.activation("identity"), masked_mean())
    y = network.fwd(((), ()), (), x, CONTEXT._replace(mask=mask)).y
    np.testing.assert_allclose(y[0], (x[0, 0] + x[0, 2]) / 2, rtol=1e-6)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: layers.chain(), TypeError, "either by position or by name"),
        (
            lambda: layers.chain(layers.dense(1), b=layers.dense(1)),
            TypeError,
            "either by position or by name",
        ),
        (lambda: layers.chain(layers.dense), TypeError, "layer `0` is a function, not a Layer"),
        (lambda: layers.parallel(), TypeError, "either by position or by name"),
        (
            lambda: layers.residual(layers.dense(5)).init(KEY, X),
            ValueError,
            r"float32\[4, 6\], the body's output float32",
        ),
        (
            lambda: layers.residual(pair()).init(KEY, {"data": X, "gate": X}),
            ValueError,
            "residual\\(body, entry=",
        ),
        (
            lambda: layers.residual(pair(), entry="x").init(KEY, {"data": X, "gate": X}),
            ValueError,
            "no entry 'x'",
        ),
        (
            lambda: layers.repeat(layers.dense(5), 2).init(KEY, X),
            ValueError,
            "must give back the shape and dtype",
        ),
        (lambda: layers.residual(layers.dense), TypeError, "the body is a function, not a Layer"),
        (lambda: layers.repeat(layers.dense, 2), TypeError, "the block is a function, not a Layer"),
        (lambda: layers.tied(layers.dense, {}), TypeError, "the network is a function, not a Layer"),
        (lambda: layers.parallel(layers.dense), TypeError, "layer `0` is a function, not a Layer"),
        (
            lambda: tie({"1.w": "0.v"}),
            ValueError,
            "there is no parameter `0.v`; there are 0.b, 0.w, 1.b, 1.w",
        ),
        (lambda: tie({"1.b": "0.w"}), ValueError, r"`1.b` is float32\[6\], but `0.w` is float32\[6, 6\]"),
        (lambda: tie({"1.w": "0.w", "0.w": "1.w"}), ValueError, "is both shared and a source"),
    ],
)
def test_errors_say_what_to_do(make, error, message):
    with pytest.raises(error, match=message):
        make()


def tie(share):
    return layers.tied(layers.chain(layers.dense(6), layers.dense(6)), share).init(KEY, X)


def test_an_error_inside_a_network_names_the_layer():
    network = layers.chain(first=layers.dense(6), deep=layers.repeat(layers.chain(layers.dense(6)), 2))
    params, _ = drawn(network, X)
    params["deep"][0]["w"] = params["deep"][0]["w"][:, :5]
    with pytest.raises(ValueError, match=r"expected \(in, out\) with in = 6") as caught:
        network.fwd(params, (), X, CONTEXT)
    assert [note for note in caught.value.__notes__ if note.startswith("in layer")] == [
        "in layer `0` of a chain of 1",
        "in layer the block of a repeat of 2",
        "in layer `deep` of a chain of 2",
    ]


def test_params_of_another_network_are_refused():
    network = layers.chain(layers.dense(6), layers.dense(2))
    with pytest.raises(ValueError, match="params must be a tuple with one entry a layer"):
        network.fwd((), (), X, CONTEXT)


def test_a_stacked_parameter_cannot_be_tied():
    network = layers.tied(layers.repeat(layers.chain(layers.dense(6), layers.dense(6)), 2), {"1.w": "0.w"})
    params, _ = drawn(network, X)
    with pytest.raises(ValueError, match="tie inside the block instead"):
        sweep(network, params, X)


def test_parameters_of_a_repeat_of_another_length_are_refused():
    params, _ = layers.repeat(layers.dense(6), 3).init(KEY, X)
    with pytest.raises(ValueError, match="the first axis of params is the block, of 2, but `b` has shape"):
        layers.repeat(layers.dense(6), 2).fwd(params, (), X, CONTEXT)


def test_static_residuals_are_refused_where_a_scan_would_trace_them():
    layer = layers.leaf(
        lambda key, spec: ((), ()),
        lambda params, state, x, context: (x, state, 3),
        lambda params, n, ct: ((), ct),
    )
    with pytest.raises(TypeError, match="residuals must be arrays, got int"):
        layers.repeat(layer, 2).fwd((), (), X, CONTEXT)


def test_branches_without_a_derivative_add_nothing_to_the_cotangent():
    def reads(name, cotangent):
        return layers.leaf(
            lambda key, spec: ((), ()),
            lambda params, state, x, context: (x[name], state, ()),
            lambda params, residuals, y_ct: ((), cotangent(y_ct)),
        )

    pairs = {
        "none": lambda ct: None,
        "first": lambda ct: {"a": ct, "b": None},
        "second": lambda ct: {"a": None, "b": ct},
    }
    for order in itertools.permutations(pairs):
        network = layers.parallel(*[reads("b" if name == "second" else "a", pairs[name]) for name in order])
        backward = network.bwd(((),) * 3, ((),) * 3, (X, X, X), None, None, ())
        assert_trees_equal(backward.x_ct, {"a": X, "b": X})


class Pair(NamedTuple):
    data: jax.Array
    gate: jax.Array


def test_residual_of_a_named_tuple_gives_one_back():
    product = layers.leaf(
        lambda key, spec: ((), ()),
        lambda params, state, x, context: (x.data * x.gate, state, x),
        lambda params, x, y_ct: ((), Pair(x.gate * y_ct, x.data * y_ct)),
    )
    network, x = layers.residual(product, entry=0), Pair(X, 2 * X)
    forward = network.fwd((), (), x, CONTEXT)
    backward = network.bwd((), forward.residuals, jnp.ones_like(X), None, None, ())
    assert_trees_equal(backward.x_ct, Pair(1 + 2 * X, X))


def test_float64_data_of_numpy_initialize_what_jax_computes_in():
    x = np.ones((4, 6))
    network = layers.chain(
        layers.residual(layers.dense(6)), layers.repeat(layers.residual(layers.dense(6)), 2)
    )
    params, _ = network.init(KEY, x)
    assert {p.dtype for p in jax.tree.leaves(params)} == {jnp.dtype("float32")}


def test_a_layer_can_be_a_key():
    """Of a cache, or a static argument of jit."""
    layer = layers.chain(layers.dense(1), layers.dropout(0.5))
    assert {layer: "found"}[layer] == "found"
    assert hash(layer) != hash(layers.chain(layers.dense(1), layers.dropout(0.5)))
