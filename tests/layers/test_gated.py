"""`gated_mlp`: against `jax.grad` of the formula, what it keeps, its initial parameters, its errors."""

import jax
import numpy as np
import pytest
from jax import numpy as jnp

import funcbp
from funcbp import factors, layers, rules
from tests.support import assert_gradient, drawn

KEY = jax.random.key(0)
SIGMA = {"silu": jax.nn.silu, "gelu": jax.nn.gelu, "relu": jax.nn.relu}


def spelled(params, x, sigma):
    return (sigma(x @ params["gate"]) * (x @ params["up"])) @ params["down"]


@pytest.mark.parametrize("name", SIGMA)
def test_gradients_are_those_of_the_formula(x64: None, name: str):
    rng = np.random.default_rng(0)
    x, y = (jnp.asarray(rng.standard_normal((3, 2, n))) for n in (4, 6))
    network = layers.gated_mlp(5, features=6, activation=name)
    params, _ = drawn(network, x)
    result = jax.jit(funcbp.backprop(network, rules.l2_loss, reduction="sum"))(params, x, y)
    value = lambda p, x: (0.5 * (spelled(p, x, SIGMA[name]) - y) ** 2).sum()  # noqa: E731
    assert_gradient((result.grads, result.x_ct), lambda both: value(*both), (params, x))


def test_it_keeps_its_input_and_two_pre_activations():
    x = jnp.ones((3, 4))
    network = layers.gated_mlp(5)
    params, _ = drawn(network, x)
    kept = network.fwd(params, (), x, layers.Context()).residuals
    assert [a.shape for a in kept] == [(3, 4), (3, 5), (3, 5)]
    assert kept[0] is x


def test_a_visit_sees_the_three_pairs_of_activation_and_delta():
    x = jnp.asarray(np.random.default_rng(0).standard_normal((3, 4)), "float32")
    network = layers.gated_mlp(5)
    params, _ = drawn(network, x)
    seen = {}

    def visit(path, parameter, factor, aux):
        seen[path[-1].key] = factor

    run = funcbp.backprop(network, rules.l2_loss, collect=("deltas",), visit=visit)
    with jax.disable_jit():
        deltas = run(params, x, jnp.zeros((3, 4))).deltas
    assert {type(f) for f in seen.values()} == {factors.Outer}
    q = jax.nn.silu(x @ params["gate"]) * (x @ params["up"])
    np.testing.assert_allclose(seen["down"].a, q, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(seen["down"].delta, deltas)
    np.testing.assert_array_equal(seen["gate"].a, x)


def test_the_default_initializers_keep_the_variance():
    x = jax.random.normal(KEY, (512, 256))
    network = layers.gated_mlp(512)
    params, _ = network.init(jax.random.key(1), x)
    assert float(jnp.std(network.fwd(params, (), x, layers.Context()).y)) == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: layers.gated_mlp(0), "`hidden` must be at least 1, got 0"),
        (lambda: layers.gated_mlp(3, features=0), "`features` must be at least 1"),
        (lambda: layers.gated_mlp(3, activation="tanh"), "one of silu, gelu, relu, got 'tanh'"),
        (
            lambda: layers.gated_mlp(3).fwd(
                layers.gated_mlp(4).init(KEY, jnp.ones((1, 2)))[0], (), jnp.ones((1, 2)), layers.Context()
            ),
            r"parameter `gate` has shape \(2, 4\), this layer's is \(any, 3\)",
        ),
    ],
)
def test_errors_say_what_is_wrong(make, message):
    with pytest.raises(ValueError, match=message):
        make()
