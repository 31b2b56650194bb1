"""The texts' chains as networks of the library, and the same functions in plain array operations.

Layers are named as in the text: `w01` takes q₀ to p₁, `sigma1` takes p₁ to q₁. Rows are examples here, so the
text's W₀₁ is `params["w01"]["w"].T` and its column x₀ is `x.T`.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax import numpy as jnp

from funcbp import Sweep, backprop, catalogue, layers, rules
from tests.at_once import at_once

PyTree = Any
Sigma = str | tuple[str, ...]

# σ as a function of the array library and p, for jax.grad and for differences; σ′ in p, in numpy. Both are
# written without looking at the library's.
SIGMA: dict[str, tuple[Callable[[Any, Any], Any], Callable[[np.ndarray], np.ndarray]]] = {
    "identity": (lambda xp, p: p, np.ones_like),
    "sigmoid": (lambda xp, p: 1 / (1 + xp.exp(-p)), lambda p: np.exp(-p) / (1 + np.exp(-p)) ** 2),
    "tanh": (lambda xp, p: xp.tanh(p), lambda p: 1 / np.cosh(p) ** 2),
    "sin": (lambda xp, p: xp.sin(p), np.cos),
    "square": (lambda xp, p: p**2, lambda p: 2 * p),
    "softplus": (lambda xp, p: xp.log(1 + xp.exp(p)), lambda p: 1 / (1 + np.exp(-p))),
    "silu": (
        lambda xp, p: p / (1 + xp.exp(-p)),
        lambda p: (1 + np.exp(-p) * (1 + p)) / (1 + np.exp(-p)) ** 2,
    ),
}
COLLECT = ("activations", "cotangents", "deltas", "per_example")


def sigma(name: Sigma, p: Any) -> Any:
    """σ(p), in jnp for JAX arrays and numpy for others; a tuple of names is one σ a node (last axis)."""
    xp = jnp if isinstance(p, jax.Array) else np
    if isinstance(name, tuple):
        return xp.stack([sigma(n, p[..., i]) for i, n in enumerate(name)], axis=-1)
    return SIGMA[name][0](xp, p)


def slope(name: Sigma, p: Any) -> np.ndarray:
    """σ′(p) in numpy, node by node for a tuple of names along the last axis."""
    p = np.asarray(p)
    if isinstance(name, tuple):
        return np.stack([slope(n, p[..., i]) for i, n in enumerate(name)], axis=-1)
    return SIGMA[name][1](p)


def per_node(*names: str) -> layers.Layer:
    """A layer with a different activation at every node, made of the library's rules."""
    members = [catalogue()[name] for name in names]

    def fwd(params: PyTree, state: PyTree, p: jax.Array, context: Any) -> tuple[jax.Array, PyTree, PyTree]:
        pairs = [rule.fwd(p[..., i]) for i, rule in enumerate(members)]
        return jnp.stack([q for q, _ in pairs], axis=-1), state, [residuals for _, residuals in pairs]

    def pullback(params: PyTree, residuals: PyTree, q_ct: jax.Array) -> tuple[PyTree, jax.Array]:
        parts = [rule.bwd(residuals[i], q_ct[..., i])[0] for i, rule in enumerate(members)]
        return (), jnp.stack(parts, axis=-1)

    return layers.leaf(lambda key, spec: ((), ()), fwd, pullback)


def activation(name: Sigma) -> layers.Layer:
    return per_node(*name) if isinstance(name, tuple) else layers.activation(name)


def linear_chain(widths: Sequence[int], *, bias: bool = False) -> layers.Layer:
    """w01, w12, … one after the other."""
    return layers.chain(**{f"w{i}{i + 1}": layers.dense(n, bias=bias) for i, n in enumerate(widths[1:])})


def nonlinear_chain(sigmas: Sequence[Sigma], widths: Sequence[int], *, bias: bool = False) -> layers.Layer:
    """sigma0, w01, sigma1, w12, … with sigma0 on the raw input."""
    members = {"sigma0": activation(sigmas[0])}
    for i, n in enumerate(widths[1:]):
        members[f"w{i}{i + 1}"] = layers.dense(n, bias=bias)
        members[f"sigma{i + 1}"] = activation(sigmas[i + 1])
    return layers.chain(**members)


def random_weights(rng: np.random.Generator, widths: Sequence[int], *, bias: bool = False) -> PyTree:
    """{"w01": {"w": (n₀, n₁)}, …}, of size 1/√n₀ so that no σ saturates."""
    params = {}
    for i, (n, m) in enumerate(itertools.pairwise(widths)):
        params[f"w{i}{i + 1}"] = {"w": rng.normal(size=(n, m)) / np.sqrt(n)}
        if bias:
            params[f"w{i}{i + 1}"]["b"] = rng.normal(size=m)
    return params


def with_sigmas(params: PyTree) -> PyTree:
    """The tree that `nonlinear_chain` takes: its activations have no parameters."""
    return params | {f"sigma{i}": () for i in range(len(params) + 1)}


def forward(sigmas: Sequence[Sigma] | None, params: PyTree, x: Any) -> Any:
    """The network in plain array operations: q_L = σ_L(… σ₁(σ₀(x) W₀₁ + b₁) …); no σ for the linear chain."""
    q = x if sigmas is None else sigma(sigmas[0], x)
    for i in range(len(params)):
        layer = params[f"w{i}{i + 1}"]
        p = q @ layer["w"] + layer.get("b", 0.0)
        q = p if sigmas is None else sigma(sigmas[i + 1], p)
    return q


def half_squares(prediction: Any, y: Any) -> Any:
    """C = 1/n Σ_examples ½ Σ_outputs (ŷ - y)²."""
    return ((prediction - y) ** 2).sum() / (2 * y.shape[0])


def run(
    network: layers.Layer, params: PyTree, x: Any, y: Any, loss: Any = rules.l2_loss, **options: Any
) -> Sweep:
    """One sweep with everything collected, operation by operation: no rounding is fused away."""
    return backprop(network, loss, collect=COLLECT, **options)(params, x, y)


def computed(
    network: layers.Layer, params: PyTree, x: Any, y: Any, loss: Any = rules.l2_loss, **options: Any
) -> Sweep:
    """`run`, computed by NumPy: the faster way for all but the smallest networks."""
    return at_once(backprop(network, loss, collect=COLLECT, **options))(params, x, y)


def from_output(sweep: Sweep) -> list[jax.Array]:
    """δ₀, δ₁, … as the text numbers them, from the output; the last one is ∂C/∂x₀.

    The library names a δ after the layer whose pre-activation it belongs to: δ_k of the text is that of
    w(H-k)(H+1-k), with H hidden layers.
    """
    # Sorted by name, for a dict that has been through jit is.
    names = sorted((name for name, delta in sweep.deltas.items() if delta is not None), reverse=True)
    return [*(sweep.deltas[name] for name in names), sweep.x_ct]
