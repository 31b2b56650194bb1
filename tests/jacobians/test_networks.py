"""A network's Jacobian is the product of its layers' operators; as `jax.jacrev` by every parameter."""

from typing import Any

import jax
import numpy as np
import pytest
from jax import numpy as jnp

from funcbp import factors, jacobian, layers
from funcbp.jacobians import MatrixFree, Operator, Product
from funcbp.layers import Context
from funcbp.verify._pairs import evaluated

MLP = layers.chain(
    layers.dense(5),
    layers.activation("tanh"),
    layers.layer_norm(),
    layers.dense(2),
    layers.activation("softmax"),
)
SKIP = layers.chain(
    first=layers.dense(4),
    block=layers.residual(layers.chain(layers.rms_norm(), layers.dense(4), layers.activation("gelu"))),
    last=layers.dense(2, bias=False),
)
WORDS = layers.chain(layers.embedding(6, 3), layers.gated_mlp(5), layers.dropout(0.5), layers.dense(2))
NORMED = layers.chain(layers.dense(3), layers.batch_norm(), layers.group_norm(1))
NETWORKS = {
    "mlp": (MLP, (4, 3)),
    "skip": (SKIP, (4, 3)),
    "words": (WORDS, None),
    "normed": (NORMED, (4, 3)),
    "positions": (layers.chain(layers.dense(2), layers.activation("relu")), (2, 3, 4)),
}


def prepared(network: layers.Layer, shape: tuple[int, ...] | None) -> tuple[Any, Any, jax.Array]:
    rng = np.random.default_rng(0)
    x = jnp.array([[1, 2], [0, 1]]) if shape is None else jnp.asarray(rng.standard_normal(shape))
    params, state = jax.eval_shape(network.init, jax.random.key(0), x)
    params = jax.tree.map(lambda a: jnp.asarray(rng.standard_normal(a.shape)), params)
    state = jax.tree.map(lambda a: jnp.asarray(rng.uniform(0.5, 1.5, a.shape)), state)
    return params, state, x


def operators(tree: Any) -> list[Operator]:
    return jax.tree.leaves(tree, is_leaf=lambda leaf: isinstance(leaf, Operator))


def close(actual: Any, expected: Any) -> None:
    np.testing.assert_allclose(actual, expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("argnum", [0, 1], ids=["params", "input"])
@pytest.mark.parametrize("name", NETWORKS)
def test_whole_network(name: str, argnum: int, x64: None):
    network, shape = NETWORKS[name]
    params, state, x = prepared(network, shape)
    if argnum == 1 and shape is None:
        with pytest.raises(TypeError, match="the input must be one array of real numbers"):
            jacobian(network, params, x, argnum=1)
        return

    def outputs(params: Any, x: jax.Array) -> jax.Array:
        return network.fwd(params, state, x, Context(None, False)).y

    @jax.jit
    def both(params: Any, x: jax.Array) -> Any:
        found = jacobian(network, params, x, argnum=argnum, state=state)
        u = cotangent(params, x)
        dense = [(J.as_tensor(), u @ J, J @ jnp.sin(jnp.ones(J.in_shape))) for J in operators(found)]
        return found, dense, u

    def cotangent(params: Any, x: jax.Array) -> jax.Array:
        spec = jax.eval_shape(outputs, params, x)
        return jnp.cos(jnp.arange(spec.size, dtype=float)).reshape(spec.shape)

    found, dense, u = both(params, x)
    expected = evaluated(jax.jacrev(outputs, argnum), params, x)
    assert jax.tree.structure(jax.tree.map(lambda _: 0, expected)) == jax.tree.structure(
        jax.tree.map(lambda _: 0, found, is_leaf=lambda leaf: isinstance(leaf, Operator))
    )
    for (tensor, pulled, pushed), truth in zip(dense, jax.tree.leaves(expected), strict=True):
        assert tensor.shape == truth.shape
        close(tensor, truth)
        close(pulled, jnp.tensordot(u, truth, u.ndim))
        close(pushed, jnp.sin(1.0) * truth.reshape(*u.shape, -1).sum(-1))


def test_it_is_written_as_the_product_of_the_layers(x64: None):
    params, state, x = prepared(MLP, (4, 3))
    by_x = jacobian(MLP, params, x, argnum=1, state=state)
    assert isinstance(by_x, Product)
    assert str(by_x) == (
        "⊕₄[Diag(q) − q qᵀ] (w₃ᵀ ⊗ I₄) ⊕₄[r Diag(gain₂) (I − 𝟏𝟏ᵀ/n − x̂x̂ᵀ/n)] Diag(tanh′(p₀)) (w₀ᵀ ⊗ I₄)"
    )
    by_params = jacobian(MLP, params, x, state=state)
    assert str(by_params[3]["w"]) == "⊕₄[Diag(q) − q qᵀ] (I₂ ⊗ y₂)"
    assert str(by_params[3]["b"]) == "⊕₄[Diag(q) − q qᵀ] (I₂ ⊗ 𝟏)"
    assert str(by_params[0]["w"]).endswith("Diag(tanh′(p₀)) (I₅ ⊗ x)")


def test_deep_linear_layers_become_one_matrix(x64: None):
    network = layers.chain(layers.dense(4, bias=False), layers.dense(2, bias=False))
    params, _, x = prepared(network, (3, 5))
    operator = jacobian(network, params, x, argnum=1, names=("params", "Q"))
    assert str(operator) == "w₁ᵀ w₀ᵀ ⊗ I₃"
    assert str(jacobian(network, params, x, names=("params", "Q"))[0]["w"]) == "w₁ᵀ ⊗ Q"


def test_a_layer_without_a_known_structure_says_so(x64: None):
    network = layers.chain(layers.dense(4), layers.elman(5))
    params, _, x = prepared(network, (3, 2))
    operator = jacobian(network, params, x, argnum=1)
    assert str(operator) == "[∂elman₁/∂p₀, matrix-free] (w₀ᵀ ⊗ I₃)"
    assert isinstance(jacobian(layers.elman(5), params[1], x @ params[0]["w"], argnum=1), MatrixFree)


def dense() -> layers.Layer:
    """No layer of the library, for all that it is called."""
    return layers.leaf(
        lambda key, spec: ({"w": jnp.ones(spec.shape)}, ()),
        lambda params, state, x, context: (params["w"] * x, state, x),
        lambda params, x, y_ct: ({"w": factors.Elementwise(x, y_ct)}, params["w"] * y_ct),
    )


def test_a_layer_is_not_known_by_its_name(x64: None):
    params, _, x = prepared(dense(), (3, 2))
    operator = jacobian(dense(), params, x, argnum=1)
    assert str(operator) == "[∂dense/∂x, matrix-free]"
    close(operator @ x, params["w"] * x)


def test_a_wrong_number_of_arguments_is_an_error():
    with pytest.raises(TypeError, match="takes params and x, got 1"):
        jacobian(layers.dense(2), {})


def test_what_is_replaced_is_not_taken_for_what_it_was(x64: None):
    dense = layers.dense(2)
    params, _, x = prepared(dense, (3, 4))
    truth = np.asarray(jacobian(dense, params, x, argnum=1).as_tensor())
    # Another backward pass does not change the derivative of the forward pass; another forward pass does.
    other_bwd = dense._replace(bwd=lambda *args: dense.bwd(*args)._replace(x_ct=0 * x))
    close(jacobian(other_bwd, params, x, argnum=1).as_tensor(), truth)
    again = jacobian(layers.recompute(dense), params, x, argnum=1)
    assert not isinstance(again, MatrixFree)
    close(again.as_tensor(), truth)

    def doubled(params: Any, state: Any, x: jax.Array, context: Context) -> layers.Forward:
        return dense.fwd(params, state, 2 * x, context)

    other_fwd = jacobian(dense._replace(fwd=doubled), params, x, argnum=1)
    assert isinstance(other_fwd, MatrixFree)
    close(other_fwd @ jnp.ones((3, 4)), 2 * np.tensordot(truth, np.ones((3, 4)), 2))


def test_three_functions_are_a_layer(x64: None):
    params, _, x = prepared(layers.dense(2), (3, 4))
    bare = layers.Layer(*layers.dense(2)[:3])
    assert bare.parts is None
    assert isinstance(jacobian(layers.chain(bare), (params,), x, argnum=1), MatrixFree)
