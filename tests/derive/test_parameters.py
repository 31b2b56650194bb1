"""Arguments that are trees of arrays, as parameters are."""

from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
from jax import numpy as jnp

import funcbp

SHAPES = {"w1": (3, 4), "b1": (4,), "w2": (4, 2)}


def parameters(shapes: dict[str, tuple[int, ...]] = SHAPES, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=shape) for name, shape in shapes.items()}


def loss(params: Any, x: Any, y: Any) -> Any:
    h = jnp.tanh(x @ params["w1"] + params["b1"])
    return jnp.mean((h @ params["w2"] - y) ** 2)


DATA = (np.random.default_rng(1).normal(size=(5, 3)), np.random.default_rng(2).normal(size=(5, 2)))


def test_leaves_are_called_by_their_keys(x64) -> None:
    d = funcbp.derive(loss, parameters(), *DATA, wrt="params")
    assert d.names == ("b1", "w1", "w2", "x", "y")
    assert list(d.gradients) == list(d.wrt) == ["params['b1']", "params['w1']", "params['w2']"]
    assert "∂C/∂w₁ = xᵀ δ" in str(d)
    assert "b1, w1, w2 = jax.tree.leaves(params)" in d.source()
    assert d.check(samples=2).ok


def test_the_gradient_of_a_tree_is_a_tree(x64) -> None:
    params = parameters()
    d = funcbp.derive(loss, params, *DATA)
    value, found = d.value_and_grad(params, *DATA)
    truth_value, truth = jax.value_and_grad(loss, (0, 1, 2))(params, *DATA)
    np.testing.assert_allclose(value, truth_value, rtol=1e-12)
    assert jax.tree.structure(found["params"]) == jax.tree.structure(params)
    for a, b in zip(
        jax.tree.leaves([found["params"], found["x"], found["y"]]), jax.tree.leaves(truth), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-11)


def test_one_leaf_is_chosen_by_its_path_or_name(x64) -> None:
    by_path = funcbp.derive(loss, parameters(), *DATA, wrt=["params['w1']", "x"])
    by_name = funcbp.derive(loss, parameters(), *DATA, wrt=["w1", "x"])
    assert by_path.wrt == by_name.wrt == ("params['w1']", "x")
    assert by_path.source() == by_name.source()
    assert list(by_path.value_and_grad(parameters(), *DATA)[1]) == ["params['w1']", "x"]
    assert by_path.check(samples=1).ok


def test_dimensions_are_named_by_path() -> None:
    d = funcbp.derive(loss, parameters(), *DATA, dims={"params['w1']": "a h", "x": "n a"})
    assert d.shapes["w1"] == ("a", "h")
    assert d.shapes["b1"] == ("h",)


class Layer(NamedTuple):
    w: Any
    b: Any


@pytest.mark.parametrize("kind", [lambda w, b: {"w": w, "b": b}, Layer], ids=["dict", "named tuple"])
def test_equal_keys_are_told_apart_by_position(kind, x64) -> None:
    def network(layers, x):
        for layer in layers:
            w, b = (layer["w"], layer["b"]) if isinstance(layer, dict) else layer
            x = jnp.tanh(w @ x) + b
        return jnp.sum(x)

    layers = [kind(np.ones((4, 3)), np.ones(4)), kind(np.ones((2, 4)), np.ones(2))]
    d = funcbp.derive(network, layers, np.ones(3), wrt="layers")
    assert set(d.names) == {"w0", "b0", "w1", "b1", "x"}
    assert set(d.gradients) == {f"layers[{k}]{leaf}" for k in (0, 1) for leaf in _paths(layers[0])}
    assert d.check(samples=1).ok


def _paths(tree: Any) -> list[str]:
    return [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_flatten_with_path(tree)[0]]


def test_leaves_of_one_name_get_their_whole_path(x64) -> None:
    def function(a, b):
        return jnp.sum(a["w"] * b["w"]) + jnp.sum(a["b"])

    trees = ({"w": np.ones(3), "b": np.ones(2)}, {"w": np.ones(3)})
    d = funcbp.derive(function, *trees)
    assert d.names == ("a_b", "a_w", "b_w")
    assert d.check(samples=1).ok


def test_integers_in_a_tree_are_left_out(x64) -> None:
    def function(params, x):
        return jnp.sum(params["w"] * x) * params["steps"]

    d = funcbp.derive(function, {"w": np.ones(3), "steps": np.array(3)}, np.ones(3), wrt="params")
    assert d.wrt == ("params['w']",)
    assert d.check(samples=1).ok


def test_names_of_trees_are_not_given_away(x64) -> None:
    def function(P, C):
        return C["c"] @ jnp.tanh(P["A"] @ P["x"])

    d = funcbp.derive(function, {"A": np.ones((2, 3)), "x": np.ones(3)}, {"c": np.ones(2)})
    lines = [line.split(" = ")[0].strip() for line in d.source().splitlines()]
    assert not {"P", "C"} & set(lines)
    assert d.check(samples=1).ok


def test_a_complex_argument_is_named() -> None:
    with pytest.raises(TypeError, match=r"argument `params\['w'\]` is complex \(complex64\).*two arguments"):
        funcbp.derive(lambda params: jnp.sum(jnp.abs(params["w"])), {"w": jnp.ones(3) + 1j})
    with pytest.raises(TypeError, match=r"argument `z` is complex"):
        funcbp.derive(lambda z: jnp.abs(z), jnp.ones(()) + 1j)


def test_what_is_no_array_is_named_by_its_path() -> None:
    with pytest.raises(TypeError, match=r"argument `params\['name'\]` is a str"):
        funcbp.derive(lambda params: params["w"], {"w": jnp.ones(()), "name": "x"})
