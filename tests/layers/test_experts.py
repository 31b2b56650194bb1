"""`mixture_of_experts`: against `jax.grad` of a loop over the experts, what is stacked, its errors."""

import jax
import numpy as np
import pytest
from jax import numpy as jnp

import funcbp
from funcbp import layers, rules
from tests.support import assert_gradient, drawn

KEY = jax.random.key(0)


def network(experts: int = 4, k: int = 2) -> layers.Layer:
    expert = layers.chain(layers.dense(5), layers.activation("tanh"), layers.dense(3, bias=False))
    return layers.mixture_of_experts(expert, experts, k=k)


def spelled(params, x, k):
    """A loop over the experts, and the gates from a sorted copy of the logits."""
    first, _, last = params["experts"]
    logits = x @ params["router"]
    kept = logits >= jnp.sort(logits, -1)[..., -k, None]
    gates = jax.nn.softmax(logits, where=kept)
    y = 0
    for e in range(params["router"].shape[-1]):
        out = jnp.tanh(x @ first["w"][e] + first["b"][e]) @ last["w"][e]
        y = y + gates[..., e, None] * out
    return y


@pytest.mark.parametrize("k", [1, 2, 4])
def test_gradients_are_those_of_a_loop(x64: None, k: int):
    rng = np.random.default_rng(0)
    x, y = (jnp.asarray(rng.standard_normal((3, 2, n))) for n in (6, 3))
    params, _ = drawn(network(k=k), x)
    run = funcbp.backprop(network(k=k), rules.l2_loss, reduction="sum", collect=("deltas", "activations"))
    result = jax.jit(run)(params, x, y)
    value = lambda p, x: (0.5 * (spelled(p, x, k) - y) ** 2).sum()  # noqa: E731
    assert_gradient((result.grads, result.x_ct), lambda both: value(*both), (params, x))
    assert result.deltas["router"].shape == (3, 2, 4)
    assert [a.shape for a in result.activations["experts"]] == [(4, 3, 2, 5), (4, 3, 2, 5), (4, 3, 2, 3)]
    untouched = np.asarray(result.deltas["router"]) == 0
    assert (untouched.sum(-1) == (4 if k == 1 else 4 - k)).all()


def test_an_expert_that_no_one_chose_gets_no_gradient():
    x = jnp.ones((2, 6))
    params, _ = drawn(network(), x)
    params["router"] = np.where(np.arange(4) == 3, np.float32(-10), params["router"])
    grads = jax.jit(funcbp.backprop(network(), rules.l2_loss))(params, x, np.zeros((2, 3), "float32")).grads
    grads = jax.tree.map(np.asarray, grads)
    for gradient in jax.tree.leaves(grads["experts"]):
        assert (gradient[3] == 0).all()
        assert (gradient[:3] != 0).any()
    assert (grads["router"][:, 3] == 0).all()


def test_the_input_is_kept_once_not_once_for_every_expert():
    x = jnp.ones((32, 6))
    params, _ = drawn(network(experts=8), x)

    def saved(params, x):
        return network(experts=8).fwd(params, (), x, layers.Context()).residuals

    kept = jax.eval_shape(saved, params, x)
    assert sum(a.shape == (32, 6) for a in jax.tree.leaves(kept)) >= 1
    assert not any(a.shape == (8, 32, 6) for a in jax.tree.leaves(kept))


def test_experts_drop_out_each_by_itself_and_blocks_of_them_can_be_repeated():
    expert = layers.chain(layers.dense(6), layers.dropout(0.5))
    block = layers.residual(layers.mixture_of_experts(expert, 3))
    x = jnp.ones((2, 6))
    params, state = drawn(layers.repeat(block, 2), x)
    assert params["experts"][0]["w"].shape == (2, 3, 6, 6)
    run = funcbp.backprop(layers.repeat(block, 2), rules.l2_loss, collect=("activations",))
    result = jax.jit(run)(params, x, np.zeros((2, 6), "float32"), state=state, key=KEY)
    outputs = result.activations["experts"][1]
    assert outputs.shape == (2, 3, 2, 6)
    dropped = np.asarray(outputs == 0)
    assert dropped.any()
    assert not (dropped[:, :1] == dropped).all()
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(result.grads))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: network(k=0), ValueError, "`k` must be from 1 to the number of experts, 4, got 0"),
        (lambda: network(k=5), ValueError, "`k` must be from 1 to the number of experts, 4, got 5"),
        (lambda: layers.mixture_of_experts(rules.relu, 2), TypeError, "the expert is a Rule, not a Layer"),
        (
            lambda: layers.mixture_of_experts(layers.embedding(3, 2), 2).init(KEY, jnp.ones((2,), int)),
            TypeError,
            "must be one floating array",
        ),
        (
            lambda: network().fwd(
                network(3).init(KEY, jnp.ones((1, 6)))[0], (), jnp.ones((1, 6)), layers.Context()
            ),
            ValueError,
            r"parameter `router` has shape \(6, 3\), this layer's is \(any, 4\)",
        ),
        (
            lambda: network().fwd({"router": jnp.ones((6, 4))}, (), jnp.ones((1, 6)), layers.Context()),
            ValueError,
            r"must be a dict of \['router', 'experts'\]",
        ),
    ],
)
def test_errors_say_what_is_wrong(make, error, message):
    with pytest.raises(error, match=message):
        make()
