"""`gated_mlp`: the feed-forward block of today's transformers."""

from typing import Any

import jax
from jax.nn.initializers import Initializer

from .. import rules
from ._checks import check_params, require_floating, require_positive
from ._initializers import initializer
from ._layer import Context, Layer, PyTree, leaf

__all__ = ["gated_mlp"]

_GATES = {"silu": rules.swiglu, "gelu": rules.geglu, "relu": rules.reglu}


def gated_mlp(
    hidden: int,
    *,
    features: int | None = None,
    activation: str = "silu",
    kernel_init: Initializer | None = None,
) -> Layer:
    """y = (σ(x G) ⊙ x U) D; `params = {"gate": (in, hidden), "up": the same, "down": (hidden, features)}`.

    Shazeer 2020, arXiv:2002.05202. Backward, with g = x G, u = x U, q = σ(g) ⊙ u and δ = ȳ:

        q̄ = δ Dᵀ      ḡ = σ′(g) ⊙ u ⊙ q̄      ū = σ(g) ⊙ q̄      x̄ = ḡ Gᵀ + ū Uᵀ

    with the factors (x, ḡ), (x, ū) and (q, δ) of G, U and D. Residuals are x, g and u; q is recomputed.

    Args:
        hidden: width of gate and value.
        features: width of the output, by default that of the input.
        activation: σ: "silu", "gelu" (by tanh) or "relu".
        kernel_init: initializer of all three; by default each keeps the variance of what it makes at one (see
            `initializer`): q has E[σ(g)²] if g and u have one.

    Raises:
        ValueError: for a width below one, or an activation that is none of these.
    """
    require_positive("gated_mlp", "hidden", hidden)
    if features is not None:
        require_positive("gated_mlp", "features", features)
    if activation not in _GATES:
        raise ValueError(f"gated_mlp: `activation` must be one of {', '.join(_GATES)}, got {activation!r}.")
    gated = _GATES[activation]
    inner_init, down_init = kernel_init or initializer(), kernel_init or initializer(activation)

    def init(key: jax.Array, x_spec: Any) -> tuple[PyTree, PyTree]:
        require_floating("gated_mlp", x_spec)
        width, dtype = x_spec.shape[-1], x_spec.dtype
        gate_key, up_key, down_key = jax.random.split(key, 3)
        return {
            "gate": inner_init(gate_key, (width, hidden), dtype),
            "up": inner_init(up_key, (width, hidden), dtype),
            "down": down_init(down_key, (hidden, features or width), dtype),
        }, ()

    def fwd(
        params: PyTree, state: PyTree, x: jax.Array, context: Context
    ) -> tuple[jax.Array, PyTree, PyTree]:
        del context
        inner = (None, hidden)
        check_params("gated_mlp", params, {"gate": inner, "up": inner, "down": (hidden, features)})
        g, u = rules.dense.primal(x, params["gate"]), rules.dense.primal(x, params["up"])
        y = rules.dense.primal(gated.primal(g, u), params["down"])
        return y, state, (x, g, u)

    def pullback(params: PyTree, residuals: PyTree, y_ct: jax.Array) -> tuple[PyTree, jax.Array]:
        x, g, u = residuals
        q, saved = gated.fwd(g, u)
        q_ct, down, _ = rules.dense.pullback((q, params["down"], None), y_ct)
        g_ct, u_ct = gated.bwd(saved, q_ct)
        from_gate, gate, _ = rules.dense.pullback((x, params["gate"], None), g_ct)
        from_up, up, _ = rules.dense.pullback((x, params["up"], None), u_ct)
        return {"gate": gate, "up": up, "down": down}, from_gate + from_up

    return leaf(init, fwd, pullback, pre_activation=True, rule=gated)
