"""Leaf layers: what they compute, their initial parameters, their errors."""

import jax
import numpy as np
import pytest
from jax import numpy as jnp

import funcbp
from funcbp import layers

KEY = jax.random.key(0)
CONTEXT = layers.Context(KEY)
X = jnp.asarray(np.random.default_rng(1).standard_normal((4, 6)), "float32")


def test_dense_is_x_w_plus_b():
    params, state = layers.dense(3, bias_init=jax.nn.initializers.normal(1.0)).init(KEY, X)
    y = layers.dense(3).fwd(params, state, X, CONTEXT).y
    np.testing.assert_allclose(y, X @ params["w"] + params["b"], rtol=1e-6)
    assert layers.dense(3, bias=False).init(KEY, X)[0].keys() == {"w"}


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_parameters_have_the_dtype_of_the_input(dtype):
    spec = jax.ShapeDtypeStruct((4, 6), dtype)
    network = layers.chain(layers.dense(3), layers.layer_norm(), layers.dense(2))
    assert {p.dtype for p in jax.tree.leaves(network.init(KEY, spec)[0])} == {jnp.dtype(dtype)}


@pytest.mark.parametrize(
    ("after", "moment"), [(None, 1.0), ("identity", 1.0), ("relu", 0.5), ("tanh", 0.3943), ("square", 3.0)]
)
def test_the_default_initializer_keeps_the_variance(after, moment):
    w = layers.dense(400, after=after).init(KEY, jax.ShapeDtypeStruct((1, 400), jnp.float32))[0]["w"]
    assert np.var(w) == pytest.approx(1 / (400 * moment), rel=0.02)


@pytest.mark.parametrize("after", ["relu", "tanh"])
def test_a_deep_network_with_fitting_initializers_neither_fades_nor_explodes(after):
    block = layers.chain(layers.activation(after), layers.dense(256, after=after))
    network = layers.repeat(block, 20)
    x = jax.random.normal(KEY, (64, 256))
    params, state = network.init(KEY, x)
    assert 0.5 < float(jnp.std(network.fwd(params, state, x, CONTEXT).y)) < 2


def test_embedding_reads_rows_and_shows_ids_out_of_range():
    params, state = layers.embedding(5, 3).init(KEY, jax.ShapeDtypeStruct((2,), jnp.int32))
    y = layers.embedding(5, 3).fwd(params, state, jnp.array([4, 0]), CONTEXT).y
    np.testing.assert_array_equal(y, params["table"][jnp.array([4, 0])])
    for outside in (-1, 5):
        assert np.isnan(layers.embedding(5, 3).fwd(params, state, jnp.array([outside]), CONTEXT).y).all()


def test_dropout_keeps_the_mean_and_is_off_in_evaluation():
    x, layer = jnp.ones((1000, 100)), layers.dropout(0.25)
    y = layer.fwd((), (), x, CONTEXT).y
    assert set(np.unique(y)) == {0.0, np.float32(1 / 0.75)}
    assert float((y == 0).mean()) == pytest.approx(0.25, abs=0.01)
    assert layer.fwd((), (), x, CONTEXT._replace(train=False)).y is x
    assert layers.dropout(0.0).fwd((), (), x, CONTEXT).y is x


def test_dropout_residual_is_one_byte_an_entry():
    residual = layers.dropout(0.5).fwd((), (), X, CONTEXT).residuals
    assert residual.nbytes == X.size


def test_activation_takes_names_rules_and_static_options():
    for layer in (
        layers.activation("gelu", approximate=False),
        layers.activation(funcbp.rules.gelu, approximate=False),
    ):
        np.testing.assert_allclose(
            layer.fwd((), (), X, CONTEXT).y, jax.nn.gelu(X, approximate=False), rtol=1e-5, atol=1e-7
        )
    softmax = layers.activation("softmax").fwd((), (), X, CONTEXT).y
    np.testing.assert_allclose(softmax, jax.nn.softmax(X), rtol=1e-6)


@pytest.mark.parametrize("options", [{}, {"gain": False}, {"bias": False}, {"gain": False, "bias": False}])
def test_layer_norm_parameters_are_optional(options):
    layer = layers.layer_norm(**options)
    params, state = layer.init(KEY, X)
    assert params.keys() == {name for name in ("gain", "bias") if options.get(name, True)}
    y = layer.fwd(params, state, X, CONTEXT).y
    np.testing.assert_allclose(y, jax.nn.standardize(X, axis=-1), rtol=1e-4, atol=1e-5)


def dense_with(features, **options):
    return layers.dense(3).fwd(layers.dense(features, **options).init(KEY, X)[0], (), X, CONTEXT)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: layers.dense(0), ValueError, "`features` must be at least 1, got 0"),
        (lambda: layers.embedding(0, 1), ValueError, "`size` must be at least 1"),
        (lambda: layers.dense(3.0), TypeError, "`features` must be a whole number, got 3.0"),
        (lambda: layers.activation("gelu", approximat=False), TypeError, "gelu has no option `approximat`"),
        (lambda: dense_with(5), ValueError, r"parameter `w` has shape \(6, 5\), this layer's is \(any, 3\)"),
        (lambda: dense_with(3, bias=False), ValueError, r"params must be a dict of \['w', 'b'\]"),
        (lambda: layers.layer_norm().fwd({}, (), X, CONTEXT), ValueError, "params must be a dict of .'gain'"),
        (
            lambda: layers.embedding(3, 2).fwd({"table": jnp.ones((5, 2))}, (), jnp.array([1]), CONTEXT),
            ValueError,
            "`table` has shape",
        ),
        (lambda: layers.dropout(1.0), ValueError, r"rate must be in \[0, 1\), got 1.0"),
        (lambda: layers.dropout(-0.1), ValueError, "rate must be in"),
        (lambda: layers.repeat(layers.dense(1), 0), ValueError, "`times` must be at least 1"),
        (
            lambda: layers.activation("gelo"),
            ValueError,
            r"there is no activation 'gelo'; known are .*gelu",
        ),
        (lambda: layers.activation("logsumexp"), ValueError, "there is no activation 'logsumexp'"),
        (lambda: layers.dense(3, after="log"), ValueError, "a function of all real numbers, log is not"),
        (lambda: layers.activation(funcbp.rules.dense), TypeError, "needs a Rule of one array"),
        (lambda: layers.activation(jax.nn.relu), TypeError, "needs a Rule of one array"),
        (lambda: layers.dense(3, after="softmax"), ValueError, "`after` must name an elementwise activation"),
        (lambda: layers.dense(3).init(KEY, jnp.ones((2, 3), int)), TypeError, "put layers.embedding first"),
        (lambda: layers.dense(3).init(KEY, jnp.float32(1)), TypeError, "at least one axis"),
        (lambda: layers.embedding(3, 2).init(KEY, X), TypeError, "ids must be integers, got float32"),
        (
            lambda: layers.dropout(0.5).fwd((), (), X, layers.Context()),
            ValueError,
            "needs a random key; pass key=",
        ),
    ],
)
def test_errors_say_what_to_do(make, error, message):
    with pytest.raises(error, match=message):
        make()
