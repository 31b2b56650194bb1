"""A residual network of convolutions, in ten lines, against `jax.grad` of plain JAX."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest
from jax import lax
from jax import numpy as jnp

import funcbp
from funcbp import layers, rules
from funcbp.layers import activation, add, chain, conv, dense, global_avg_pool, residual
from tests.support import drawn

pytestmark = pytest.mark.usefixtures("x64")

PyTree = Any
STAGES = ((4, 1), (8, 2))


def resnet(norm: Callable[[], layers.Layer], classes: int) -> layers.Layer:
    """A stem, for each stage a block that changes width and resolution and one that does not, a head."""

    def body(width: int, strides: int) -> layers.Layer:
        first = conv(width, 3, strides=strides, padding="SAME", bias=False, after="relu")
        second = conv(width, 3, padding="SAME", bias=False, after="relu")
        return chain(first, norm(), activation("relu"), second, norm())

    def stage(width: int, strides: int) -> layers.Layer:
        shortcut = chain(conv(width, 1, strides=strides, bias=False), norm())
        change = add(body=body(width, strides), shortcut=shortcut)
        return chain(change, activation("relu"), residual(body(width, 1)), activation("relu"))

    stem = chain(conv(4, 3, padding="SAME", bias=False), norm(), activation("relu"))
    return chain(stem, *(stage(*each) for each in STAGES), global_avg_pool(), dense(classes))


def batch_norm(x: jax.Array, p: PyTree) -> jax.Array:
    mean, variance = x.mean((0, 1, 2)), x.var((0, 1, 2))
    return (x - mean) / jnp.sqrt(variance + 1e-5) * p["gain"] + p["bias"]


def group_norm(x: jax.Array, p: PyTree) -> jax.Array:
    parts = x.reshape(*x.shape[:3], 2, -1)
    mean, variance = parts.mean((1, 2, 4), keepdims=True), parts.var((1, 2, 4), keepdims=True)
    return ((parts - mean) / jnp.sqrt(variance + 1e-5)).reshape(x.shape) * p["gain"] + p["bias"]


def plain_resnet(params: PyTree, x: jax.Array, normalize: Callable[..., jax.Array]) -> jax.Array:
    """The same, without the library."""

    def convolve(x: jax.Array, p: PyTree, strides: int = 1) -> jax.Array:
        layout = ("NHWC", "HWIO", "NHWC")
        return lax.conv_general_dilated(x, p["w"], (strides,) * 2, "SAME", dimension_numbers=layout)

    def body(x: jax.Array, p: PyTree, strides: int = 1) -> jax.Array:
        x = jax.nn.relu(normalize(convolve(x, p[0], strides), p[1]))
        return normalize(convolve(x, p[3]), p[4])

    stem, *stages, _, head = params
    x = jax.nn.relu(normalize(convolve(x, stem[0]), stem[1]))
    for (change, _, block, _), (_, strides) in zip(stages, STAGES, strict=True):
        projection = change["shortcut"]
        shortcut = normalize(convolve(x, projection[0], strides), projection[1])
        x = jax.nn.relu(body(x, change["body"], strides) + shortcut)
        x = jax.nn.relu(x + body(x, block))
    return x.mean((1, 2)) @ head["w"] + head["b"]


@pytest.mark.parametrize(
    ("norm", "plain"),
    [(layers.batch_norm, batch_norm), (lambda: layers.group_norm(2), group_norm)],
    ids=["batch_norm", "group_norm"],
)
def test_resnet_is_jax_grad_of_plain_jax(norm: Callable[[], layers.Layer], plain: Callable[..., jax.Array]):
    network = resnet(norm, classes=3)
    rng = np.random.default_rng(1)
    x, labels = jnp.asarray(rng.standard_normal((3, 8, 8, 2))), jnp.array([0, 2, 1])
    params, state = drawn(network, x)

    def value(params: PyTree, x: jax.Array) -> jax.Array:
        log_probabilities = jax.nn.log_softmax(plain_resnet(params, x, plain))
        return -jnp.mean(log_probabilities[jnp.arange(3), labels])

    sweep = jax.jit(funcbp.backprop(network, rules.softmax_cross_entropy_with_integer_labels))
    result = sweep(params, x, labels, state=state)
    expected, (grads, x_ct) = jax.jit(jax.value_and_grad(value, argnums=(0, 1)))(params, x)
    np.testing.assert_allclose(result.value, expected, rtol=1e-12)
    np.testing.assert_allclose(result.x_ct, x_ct, atol=1e-11 * np.abs(x_ct).max())
    leaves = jax.tree_util.tree_leaves_with_path(grads)
    for (path, truth), got in zip(leaves, jax.tree.leaves(result.grads), strict=True):
        assert np.abs(truth).max() > 0
        np.testing.assert_allclose(got, truth, atol=1e-11 * np.abs(truth).max(), err_msg=str(path))
