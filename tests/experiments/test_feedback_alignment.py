"""The other credit assignments: with the right matrix each is backpropagation; and the experiment."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest
from jax import numpy as jnp

from experiments import feedback_alignment as experiment
from funcbp import backprop, layers
from tests.support import assert_trees_close, assert_trees_equal

CONFIG = experiment.Config(hidden=(6, 5), activation="tanh")


@pytest.fixture(scope="module")
def swept():
    x = jax.random.normal(jax.random.key(0), (4, 3))
    y = jnp.arange(4)
    parts = [
        layers.dense(6),
        layers.activation("tanh"),
        layers.dense(5),
        layers.activation("tanh"),
        layers.dense(10),
    ]
    params, _ = layers.chain(*parts).init(jax.random.key(1), x)

    def sweep(network):
        return jax.jit(backprop(network, experiment.LOSS, collect=("deltas",)))(params, x, y)

    return parts, params, sweep


def test_with_the_transposed_weight_feedback_alignment_is_backpropagation(swept):
    parts, params, sweep = swept
    fed = [
        experiment.by_feedback(one, params[i]["w"].T) if i in (2, 4) else one for i, one in enumerate(parts)
    ]
    assert_trees_equal(sweep(layers.chain(*fed)), sweep(layers.chain(*parts)))


def test_the_last_hidden_layer_of_direct_feedback_too(swept):
    parts, params, sweep = swept
    true = sweep(layers.chain(*parts))
    found = sweep(experiment.direct(parts, [jnp.ones((10, 6)), params[4]["w"].T]))
    assert_trees_close(found.grads[2:], true.grads[2:])
    # The first hidden layer gets δ_L D, whatever is between.
    q = jnp.tanh(
        true.deltas[0] * 0 + jax.random.normal(jax.random.key(0), (4, 3)) @ params[0]["w"] + params[0]["b"]
    )
    assert_trees_close(found.deltas[0], (found.deltas[4] @ jnp.ones((10, 6))) * (1 - q**2))
    assert not np.allclose(found.grads[0]["w"], true.grads[0]["w"])


def test_sign_symmetric_is_backpropagation_where_all_weights_have_one_size(swept):
    parts, params, sweep = swept
    fed = [experiment.by_sign(one) if i == 4 else one for i, one in enumerate(parts)]
    assert not np.allclose(sweep(layers.chain(*fed)).grads[0]["w"], sweep(layers.chain(*parts)).grads[0]["w"])
    w, delta = 0.3 * jnp.sign(params[4]["w"]), jnp.ones((2, 10))
    dense = parts[4].bwd({"w": w, "b": params[4]["b"]}, jnp.ones((2, 5)), delta, lambda *_: None, None, ())
    signed = fed[4].bwd({"w": w, "b": params[4]["b"]}, jnp.ones((2, 5)), delta, lambda *_: None, None, ())
    assert_trees_close(signed.x_ct, dense.x_ct)


def test_all_rules_have_the_true_gradient_at_the_output_and_no_other():
    all_networks = experiment.networks(CONFIG)
    x, y = jax.random.normal(jax.random.key(0), (4, 3)), jnp.arange(4)
    params, _ = all_networks["backpropagation"].init(jax.random.key(1), x)

    @jax.jit
    def degrees(params):
        grads = {name: backprop(n, experiment.LOSS)(params, x, y).grads for name, n in all_networks.items()}
        return {name: experiment.angles(g, grads["backpropagation"]) for name, g in grads.items()}

    found = degrees(params)
    assert found.keys() == experiment.RULES.keys()
    for name, angle in found.items():
        assert angle[-1] < 0.1
        assert (angle[:-1] < 0.1).all() == (name == "backpropagation")


@pytest.mark.long
def test_smoke(tmp_path: Path, capsys):
    config = experiment.Config(hidden=(16,), smoke=True, out=tmp_path)
    assert experiment.run_experiment(config) == 0
    out, err = capsys.readouterr()
    assert "Digits without backpropagation" in out
    assert "epoch 12/12" in err
    results = json.loads((tmp_path / "feedback_alignment.json").read_text(encoding="utf-8"))
    assert results["history"].keys() == experiment.RULES.keys()
    for history in results["history"].values():
        assert {len(values) for values in history.values()} == {3}
        assert history["loss"][-1] < history["loss"][0]
    assert (tmp_path / "feedback_alignment.png").read_bytes().startswith(b"\x89PNG")


def test_options_are_checked():
    with pytest.raises(ValueError, match="epochs must be at least 1, got 0"):
        experiment.Config(epochs=0)
    with pytest.raises(ValueError, match="batch must be at most 1437"):
        experiment.run_experiment(experiment.Config(batch=2000))


def test_committed_results():
    results = json.loads((experiment.RESULTS / "feedback_alignment.json").read_text(encoding="utf-8"))
    assert results["history"].keys() == experiment.RULES.keys()
    for name, history in results["history"].items():
        angle = np.asarray(history["angles"][-1])
        assert history["test_accuracy"][-1] > 0.97
        assert (angle < 90).all()
        assert (angle[:-1] < 0.1).all() == (name == "backpropagation")
    assert (experiment.RESULTS / "feedback_alignment.png").exists()
