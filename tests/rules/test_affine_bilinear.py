"""Bilinear forms and low-rank adapters, in other formulations; one table for embedding and output."""

import jax
import numpy as np
from jax import numpy as jnp

import funcbp
from funcbp import layers, rules
from tests.support import assert_gradient

KEY = jax.random.key(0)


def normal(seed: int, *shape: int) -> jax.Array:
    return jax.random.normal(jax.random.key(seed), shape)


def test_a_bilinear_form_is_a_matrix_for_every_output():
    x, y, w = normal(0, 2, 3), normal(1, 2, 4), normal(2, 3, 4, 5)
    expected = [[x[n] @ w[:, :, o] @ y[n] for o in range(5)] for n in range(2)]
    np.testing.assert_allclose(rules.bilinear(x, y, w), expected, rtol=1e-4, atol=1e-5)


def test_a_quadratic_form_gets_both_halves_of_its_gradient():
    """xᵀ A x: (A + Aᵀ) x, Cookbook 81; half of it is a common mistake."""
    x, a = normal(0, 4), normal(1, 4, 4)
    gradient = jax.grad(lambda x: rules.bilinear(x, x, a[:, :, None])[0])(x)
    np.testing.assert_allclose(gradient, (a + a.T) @ x, rtol=1e-5, atol=1e-5)


def test_an_adapter_is_a_dense_layer_with_another_weight():
    x, w, a, b = normal(0, 6, 7), normal(1, 7, 11), normal(2, 7, 2), normal(3, 2, 11)
    merged = w + 0.5 * a @ b
    adapted, pullback = jax.vjp(lambda *args: rules.low_rank_adapter(*args, scale=0.5), x, w, a, b)
    np.testing.assert_allclose(adapted, x @ merged, rtol=1e-4, atol=1e-4)
    ct = normal(4, 6, 11)
    x_ct, w_ct, a_ct, b_ct = pullback(ct)
    np.testing.assert_allclose(x_ct, ct @ merged.T, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(a_ct, 0.5 * w_ct @ b.T, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(b_ct, 0.5 * a.T @ w_ct, rtol=1e-4, atol=1e-4)


def test_with_a_frozen_weight_nothing_of_its_size_is_computed():
    x, w, a, b = normal(0, 6, 7), normal(1, 7, 11), normal(2, 7, 2), normal(3, 2, 11)

    def trained(x, a, b, ct):
        _, residuals = rules.low_rank_adapter.fwd(x, w, a, b)
        x_ct, _, a_factor, b_factor = rules.low_rank_adapter.pullback(residuals, ct)
        return x_ct, a_factor.gradient(), b_factor.gradient()

    made = jax.make_jaxpr(trained)(x, a, b, jnp.ones((6, 11)))
    shapes = {v.aval.shape for equation in made.eqns for v in equation.outvars}
    assert (6, 2) in shapes
    assert (7, 11) not in shapes


def test_one_table_for_embedding_and_output(x64: None):
    """What is read and what is multiplied by the transpose: both gradients, in one array."""
    untied = layers.chain(
        embed=layers.embedding(7, 4, dtype="float64"),
        sigma=layers.activation("tanh"),
        out=layers.dense(7, bias=False),
    )
    network = layers.tied(untied, {"out.w": "embed.table.T"})
    ids, targets = jnp.array([[0, 3, 3], [6, 0, 1]]), jnp.array([[3, 3, 6], [0, 1, 0]])
    params, _ = network.init(KEY, ids)
    loss = rules.softmax_cross_entropy_with_integer_labels
    grads = jax.jit(funcbp.backprop(network, loss, reduction="sum"))(params, ids, targets).grads

    def spelled(p):
        table = p["embed"]["table"]
        logits = jnp.tanh(table[ids]) @ table.T
        picked = jnp.take_along_axis(jax.nn.log_softmax(logits), targets[..., None], -1)
        return -picked.sum()

    assert_gradient(grads, spelled, params)
