"""Every layer of the catalogue in `jacobian`: what its operators are, and that they are `jax.jacrev`'s."""

import functools
from typing import Any

import jax
import numpy as np
import pytest
from jax import numpy as jnp

from funcbp import jacobian, layers
from funcbp.jacobians import Operator
from funcbp.layers import (
    activation,
    add,
    chain,
    conv,
    conv_transpose,
    dense,
    multi_head_attention,
    parallel,
    repeat,
    residual,
    tied,
)
from funcbp.layers._layer import path_string
from funcbp.verify._pairs import evaluated

TANH = activation("tanh")
PRODUCT = layers.leaf(
    lambda key, spec: ((), ()),
    lambda params, state, x, context: (x[0] * x[1], state, x),
    lambda params, x, y_ct: ((), (x[1] * y_ct, x[0] * y_ct)),
)
ATTENTION = functools.partial(multi_head_attention, 2, bias=False)
HEAD = "(w_outputᵀ ⊗ I₆) K(0, 2, 1, 3)"
SOFTMAX = "⊕₄[(vᵀ ⊗ I₃) ⊕₃[Diag(p) − p pᵀ]"
SKIP = "I₆ + Diag(tanh′(p₀)) (w₀ᵀ ⊗ I₂)"
NORM = "Kᵀ ⊕₄[r Diag(gain) (I − 𝟏𝟏ᵀ/n − x̂x̂ᵀ/n)] K"
SHEARS = "(I₈ + (S₂ᵀ ⊗ I₂) (w_gᵀ ⊗ I₂) (S₁ ⊗ I₂)) (I₈ + (S₁ᵀ ⊗ I₂) (w_fᵀ ⊗ I₂) (S₂ ⊗ I₂))"

# The network, the shape of its input (None: ids), and the operators: by the input, and by some parameters.
LAYERS: dict[str, tuple[layers.Layer, tuple[int, ...] | None, dict[str, str]]] = {
    "conv": (
        conv(2, 2, padding="SAME"),
        (2, 3, 4, 1),
        {"x": "Conv(w)", "w": "I₂ ⊗ patches(x)", "b": "I₂ ⊗ 𝟏"},
    ),
    "conv, grouped": (
        conv(4, 2, strides=2, groups=2, bias=False),
        (2, 4, 3, 2),
        {"x": "Conv(w)", "w": "K ⊕₂[I₂ ⊗ patches(x)] K"},
    ),
    "conv, transposed": (
        conv_transpose(2, 2, strides=2),
        (2, 2, 2, 1),
        {"x": "ConvTranspose(w)", "w": "I₂ ⊗ patches(x)"},
    ),
    "average pooling": (layers.avg_pool(2), (2, 4, 5, 2), {"x": "I₂ ⊗ P₂ ⊗ P₁ ⊗ I₂"}),
    "average pooling, padded": (
        layers.avg_pool(2, strides=1, padding="SAME", count_include_pad=False),
        (2, 3, 2),
        {"x": "I₂ ⊗ P ⊗ I₂"},
    ),
    "maximum pooling": (layers.max_pool(2, strides=1), (2, 3, 3, 2), {"x": "select(x)"}),
    "global average": (layers.global_avg_pool(), (2, 3, 2, 2), {"x": "I₂ ⊗ 𝟏ᵀ/n ⊗ I₂"}),
    "convolutional network": (
        chain(conv(2, 2), activation("relu"), layers.max_pool(2), layers.global_avg_pool(), dense(3)),
        (2, 5, 5, 1),
        {
            "x": "(w₄ᵀ ⊗ I₂) (I₂ ⊗ 𝟏ᵀ/n ⊗ I₂) select(q₁) Diag(relu′(p₀)) Conv(w₀)",
            "0.w": "(w₄ᵀ ⊗ I₂) (I₂ ⊗ 𝟏ᵀ/n ⊗ I₂) select(q₁) Diag(relu′(p₀)) (I₂ ⊗ patches(x))",
            "4.b": "I₃ ⊗ 𝟏",
        },
    ),
    "group norm": (layers.group_norm(2), (2, 3, 4), {"x": NORM, "gain": "Diag(∂group_norm/∂gain) (I₄ ⊗ 𝟏)"}),
    "instance norm": (layers.instance_norm(), (2, 3, 2), {"x": NORM, "bias": "I₂ ⊗ 𝟏"}),
    "batch norm": (
        layers.batch_norm(),
        (3, 2),
        {"x": "Diag(∂batch_norm_inference/∂x)", "gain": "Diag(∂batch_norm_inference/∂gain) (I₂ ⊗ 𝟏)"},
    ),
    "attention": (
        ATTENTION(rotary_base=100.0, causal=True),
        (2, 3, 4),
        {
            "x": f"(w_outputᵀ ⊗ I₆) (K(0, 2, 1, 3) {SOFTMAX} (s k ⊗ I₃)] K(0, 2, 1, 3) Rot (w_queryᵀ ⊗ I₆) + "
            f"K(0, 2, 1, 3) {SOFTMAX} (I₃ ⊗ s q) K₃,₂] K(0, 2, 1, 3) Rot (w_keyᵀ ⊗ I₆) + "
            "K(0, 2, 1, 3) ⊕₄[I₂ ⊗ P] K(0, 2, 1, 3) (w_valueᵀ ⊗ I₆))",
            "query.w": f"{HEAD} {SOFTMAX} (s k ⊗ I₃)] K(0, 2, 1, 3) Rot (I₄ ⊗ x)",
            "value.w": f"{HEAD} ⊕₄[I₂ ⊗ P] K(0, 2, 1, 3) (I₄ ⊗ x)",
            "output.w": "I₄ ⊗ o",
        },
    ),
    "attention in groups": (
        multi_head_attention(4, key_value_heads=2, head_features=2, features=3, soft_cap=2.0),
        (2, 3, 4),
        {
            "value.b": "(w_outputᵀ ⊗ I₆) K(0, 2, 1, 3) ⊕₈[I₂ ⊗ P] K(0, 2, 1, 3) (I₂ ⊗ R ⊗ I₆) (I₄ ⊗ 𝟏)",
            "output.b": "I₃ ⊗ 𝟏",
        },
    ),
    "attention in blocks": (
        ATTENTION(block=2),
        (1, 3, 4),
        {"key.w": "(w_outputᵀ ⊗ I₃) [∂blocked_attention/∂k, matrix-free] (I₄ ⊗ x)"},
    ),
    "elman": (layers.elman(2), (2, 3, 2), {"x": "[∂elman/∂x, matrix-free]", "b": "[∂elman/∂b, matrix-free]"}),
    "gru": (layers.gru(2), (2, 3, 2), {"w_state": "[∂gru/∂w_state, matrix-free]"}),
    "lstm": (layers.lstm(2, last=True), (2, 3, 2), {"w_in": "[∂lstm/∂w_in, matrix-free]"}),
    "repeat": (
        repeat(residual(chain(dense(3), TANH)), 2),
        (2, 3),
        {"x": f"Π₂[{SKIP}]", "0.w": f"Σ(k≤2) Π(l>k)[{SKIP}] [Diag(tanh′(p₀)) (I₃ ⊗ x)]"},
    ),
    "repeat of a repeat": (
        repeat(repeat(chain(dense(2), TANH), 2), 2),
        (2, 2),
        {"x": "Π₂[Π₂[Diag(tanh′(p₀)) (w₀ᵀ ⊗ I₂)]]"},
    ),
    "repeat of images": (
        repeat(chain(conv(2, 3, padding="SAME"), layers.group_norm(1), activation("relu")), 2),
        (1, 3, 3, 2),
        {"x": "Π₂[Diag(relu′(y₁)) Kᵀ ⊕₁[r Diag(gain₁) (I − 𝟏𝟏ᵀ/n − x̂x̂ᵀ/n)] K Conv(w₀)]"},
    ),
    "reversible": (
        layers.reversible(dense(2), dense(2), 2),
        (2, 4),
        {"x": f"Π₂[{SHEARS}]", "g.w": f"Σ(k≤2) Π(l>k)[{SHEARS}] [(S₂ᵀ ⊗ I₂) (I₂ ⊗ x)]"},
    ),
    "tied": (
        tied(chain(a=dense(3), s=TANH, b=dense(3)), {"b.w": "a.w"}),
        (2, 3),
        {
            "x": "(w_bᵀ ⊗ I₂) Diag(tanh′(p_a)) (w_aᵀ ⊗ I₂)",
            "a.w": "(w_bᵀ ⊗ I₂) Diag(tanh′(p_a)) (I₃ ⊗ x) + I₃ ⊗ q_s",
        },
    ),
    "tied embedding": (
        tied(chain(embed=layers.embedding(5, 3), un=dense(5, bias=False)), {"un.w": "embed.table.T"}),
        None,
        {"embed.table": "(w_unᵀ ⊗ I₆) (I₃ ⊗ onehot(x)) + (I₅ ⊗ q_embed) K₅,₃"},
    ),
    "positions": (
        layers.positional_embedding(4),
        (2, 3, 2),
        {"x": "I₁₂", "table": "I₂ ⊗ onehot(positions)"},
    ),
    "gated": (
        layers.gated_mlp(3),
        (2, 3),
        {
            "x": "(downᵀ ⊗ I₂) (Diag(∂swiglu/∂g) (gateᵀ ⊗ I₂) + Diag(∂swiglu/∂u) (upᵀ ⊗ I₂))",
            "gate": "(downᵀ ⊗ I₂) Diag(∂swiglu/∂g) (I₃ ⊗ x)",
            "down": "I₃ ⊗ q",
        },
    ),
    "mixture": (
        layers.mixture_of_experts(dense(2), 3, k=2),
        (3, 2),
        {
            "x": "[∂mixture_of_experts/∂x, matrix-free]",
            "router": "[∂mixture_of_experts/∂router, matrix-free]",
        },
    ),
    "add": (
        add(dense(2), chain(dense(2), TANH)),
        (2, 3),
        {"x": "w₀ᵀ ⊗ I₂ + Diag(tanh′(p₁₀)) (w₁₀ᵀ ⊗ I₂)", "1.0.w": "Diag(tanh′(p₁₀)) (I₂ ⊗ x)"},
    ),
    "two outputs": (
        chain(dense(3), parallel(mean=dense(2), gate=chain(dense(1), activation("sigmoid")))),
        (2, 3),
        {
            "mean.x": "w₁_meanᵀ w₀ᵀ ⊗ I₂",
            "gate.x": "Diag(sigmoid′(p₁_gate₀)) (w₁_gate₀ᵀ w₀ᵀ ⊗ I₂)",
            "mean.1.gate.0.w": "0",
        },
    ),
    "several arrays between": (
        chain(parallel(dense(3), dense(3)), PRODUCT),
        (2, 3),
        {"x": "[∂chain/∂x, matrix-free]", "0.0.w": "[∂chain/∂0.0.w, matrix-free]"},
    ),
    "transformer": (
        layers.transformer_block(4, heads=2, hidden=5),
        (1, 3, 4),
        {"mlp.down.w": "I₄ ⊗ q_mlp_sigma"},
    ),
}
# The others take 20 s more.
FEW = {
    "convolutional network",
    "average pooling, padded",
    "attention",
    "elman",
    "repeat",
    "tied embedding",
    "positions",
    "gated",
}


def numbered(network: layers.Layer, shape: tuple[int, ...] | None) -> tuple[Any, Any, jax.Array]:
    rng = np.random.default_rng(0)
    x = jnp.array([[1, 2, 0], [0, 1, 4]]) if shape is None else jnp.asarray(rng.standard_normal(shape))
    params, state = jax.eval_shape(network.init, jax.random.key(0), x)
    params = jax.tree.map(lambda a: jnp.asarray(rng.standard_normal(a.shape)), params)
    state = jax.tree.map(lambda a: jnp.asarray(rng.uniform(0.5, 1.5, a.shape)), state)
    return params, state, x


def wave(shape: tuple[int, ...], start: float) -> jax.Array:
    return jnp.cos(start + jnp.arange(np.prod(shape, dtype=int), dtype=float)).reshape(shape)


@pytest.mark.parametrize(
    "name", [name if name in FEW else pytest.param(name, marks=pytest.mark.long) for name in LAYERS]
)
def test_every_layer(name: str, x64: None):
    network, shape, expected = LAYERS[name]
    params, state, x = numbered(network, shape)
    written: dict[str, str] = {}

    def outputs(params: Any, x: jax.Array) -> Any:
        return network.fwd(params, state, x, layers.Context(None, False)).y

    def errors(params: Any, x: jax.Array) -> list[jax.Array]:
        by = [0] * bool(jax.tree.leaves(params)) + [1] * (shape is not None)
        found = []
        for argnum in by:
            operators = jacobian(network, params, x, argnum=argnum, state=state)
            named = jax.tree_util.tree_leaves_with_path(operators, is_leaf=lambda a: isinstance(a, Operator))
            truth = jax.tree.leaves(jax.jacrev(outputs, argnum)(params, x))
            for (path, J), dense_J in zip(named, truth, strict=True):
                written[".".join([path_string(path)] * bool(path) + ["x"] * argnum)] = str(J)
                found.append(error(J, dense_J))
        return found

    assert np.max(evaluated(errors, params, x)) < 1e-12
    assert {path: written[path] for path in expected} == expected


def error(J: Operator, truth: jax.Array) -> jax.Array:
    """The largest of the tensor and of both products, relative to the largest entry."""
    v, u = wave(J.in_shape, 0.0), wave(J.out_shape, 1.0)
    assert J.as_tensor().dtype == truth.dtype
    off = (
        J.as_tensor() - truth,
        J @ v - jnp.tensordot(truth, v, v.ndim),
        u @ J - jnp.tensordot(u, truth, u.ndim),
    )
    return jnp.stack([jnp.max(jnp.abs(each)) for each in off]) / jnp.max(jnp.abs(truth), initial=1)


@pytest.mark.long
def test_mask_and_positions(x64: None):
    network = chain(
        layers.positional_embedding(5), repeat(chain(ATTENTION(rotary_base=9.0), layers.elman(4)), 2)
    )
    params, _, x = numbered(network, (2, 3, 4))
    context = {
        "mask": jnp.array([[True, True, False], [True, True, True]]),
        "positions": jnp.array([[2, 3, 4], [0, 4, 1]]),
    }

    def outputs(params: Any, x: jax.Array) -> jax.Array:
        return network.fwd(params, (), x, layers.Context(None, False, **context)).y

    def errors(params: Any, x: jax.Array) -> list[jax.Array]:
        operators = jacobian(network, params, x, **context), jacobian(network, params, x, argnum=1, **context)
        found = jax.tree.leaves(operators, is_leaf=lambda a: isinstance(a, Operator))
        truth = jax.tree.leaves(jax.jacrev(outputs, (0, 1))(params, x))
        return [error(*each) for each in zip(found, truth, strict=True)]

    assert np.max(evaluated(errors, params, x)) < 1e-12


def test_compiled_in_float32():
    network, shape, _ = LAYERS["repeat"]
    params, state, x = numbered(network, shape)
    operator = jax.jit(lambda params, x: jacobian(network, params, x, state=state)[0]["w"])(params, x)
    v = np.ones(operator.in_shape, int)
    assert (operator.dtype, (operator @ v).dtype) == (np.float32, np.float32)

    def outputs(w: jax.Array) -> jax.Array:
        return network.fwd(({**params[0], "w": w}, ()), (), x, layers.Context(None, False)).y

    truth = jax.jit(jax.jacrev(outputs))(params[0]["w"])
    np.testing.assert_allclose(operator @ v, np.tensordot(truth, v, v.ndim), rtol=1e-5)
    np.testing.assert_allclose(operator.as_tensor(), truth, rtol=1e-5, atol=1e-6)


def test_all_layers_are_here():
    kinds = {
        "_convolution": {"conv", "conv_transpose"},
        "_through_time": {"elman", "gru", "lstm"},
        "_normalization": {"layer_norm", "rms_norm", "group_norm", "instance_norm"},
        "activation": {"activation", "avg_pool", "max_pool", "global_avg_pool"},
        "chain": {"chain", "transformer_block"},
    }
    seen = {kind for network, _, _ in LAYERS.values() for kind in inside(network)}
    made = {name for kind in seen for name in kinds.get(kind, {kind})}
    elsewhere = {"recompute", "initializer", "leaf"}
    assert {name for name in layers.__all__ if name[0].islower()} - made == elsewhere


def inside(layer: layers.Layer) -> set[str]:
    """The kinds of layers in a network."""
    assert layer.parts is not None
    return {layer.parts.kind}.union(*map(inside, layer.parts.layers))
