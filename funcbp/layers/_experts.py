"""`mixture_of_experts`: equal layers of which each position uses a few."""

import operator
from typing import Any

import jax
from jax import numpy as jnp
from jax.nn.initializers import Initializer
from jax.tree_util import DictKey, KeyPath

from .. import rules
from .._numerics import upcast
from .._signature import describe
from ._chain import output_spec
from ._checks import check_params, require_floating
from ._initializers import initializer
from ._layer import (
    Backward,
    Context,
    Delta,
    Forward,
    Layer,
    Parts,
    PyTree,
    Visit,
    as_spec,
    in_layer,
    path_string,
    require_layer,
)
from ._saved import once

__all__ = ["mixture_of_experts"]


def mixture_of_experts(
    expert: Layer, experts: int, *, k: int = 2, router_init: Initializer | None = None
) -> Layer:
    """y = Σ_e g_e E_e(x), with the gates g a softmax over the k largest of the logits x R.

    `params = {"router": (in, experts), "experts": those of `expert`, stacked on a new first axis}`; what is
    collected, activations and cotangents of the experts are stacked likewise. Shazeer et al. 2017,
    arXiv:1701.06538. Backward:

        Ē_e = g_e ȳ, from which each expert's own backward      ḡ_e = ⟨E_e(x), ȳ⟩
        z̄ = g ⊙ (ḡ - ⟨g, ḡ⟩), the δ of the router              x̄ = Σ_e x̄_e + z̄ Rᵀ

    Dense: all experts see all positions, and g_e = 0 leaves no trace of those that were not chosen, neither
    in y nor in any gradient. Nothing is dropped and examples stay independent, at experts / k times the
    work of sending each position only where it is used.

    Args:
        expert: the layer that there are several of; one floating array to one.
        experts: how many.
        k: how many of them a position uses.
        router_init: initializer of R.

    Raises:
        ValueError: for fewer than one expert, or k not from 1 to `experts`.
    """
    require_layer("mixture_of_experts: the expert", expert)
    experts, k = operator.index(experts), operator.index(k)
    if not 1 <= k <= experts:
        raise ValueError(
            f"mixture_of_experts: `k` must be from 1 to the number of experts, {experts}, got {k}."
        )
    router_init = router_init or initializer()
    place = f"the expert of a mixture of {experts}"

    def init(key: jax.Array, x_spec: Any) -> tuple[PyTree, PyTree]:
        x_spec = as_spec(x_spec)
        require_floating("mixture_of_experts", x_spec)
        router_key, key = jax.random.split(key)
        params, state = jax.vmap(lambda one: expert.init(one, x_spec))(jax.random.split(key, experts))
        one = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape[1:], a.dtype), (params, state))
        with in_layer(place):
            _check_output(x_spec, output_spec(expert, *one, x_spec))
        router = router_init(router_key, (x_spec.shape[-1], experts), x_spec.dtype)
        return {"router": router, "experts": params}, state

    def fwd(params: PyTree, state: PyTree, x: jax.Array, context: Context) -> Forward:
        _check_params_of(params, experts)
        keys = None if context.key is None else jax.random.split(context.key, experts)
        shared = tuple(jax.tree.leaves((x, context.mask, context.positions)))

        def one(p: PyTree, s: PyTree, key: jax.Array | None) -> tuple[PyTree, PyTree, PyTree]:
            y, s, residuals, activations = expert.fwd(p, s, x, context._replace(key=key))
            _check_output(x, y)
            # What all experts share, x above all, is kept once.
            return y, s, once((residuals, activations), shared).own

        with in_layer(place):
            values, state, saved = jax.vmap(one)(params["experts"], state, keys)
        logits = rules.dense.primal(x, params["router"])
        gates = rules.top_k_gates.primal(logits, k=k)
        values = jnp.moveaxis(values, 0, -2)
        y = rules.mixture.primal(gates, values)
        residuals, activations = saved.beside(shared).tree(saved.stacked)
        kept = (x, gates, values, once(residuals, shared))
        return Forward(y, state, kept, {"router": logits, "experts": activations})

    def bwd(
        params: PyTree, residuals: PyTree, y_ct: jax.Array, visit: Visit, aux: PyTree, path: KeyPath
    ) -> Backward:
        x, gates, values, saved = residuals
        gates_ct, values_ct = rules.mixture.bwd((gates, values), y_ct)
        (logits_ct,) = rules.top_k_gates.bwd(gates, gates_ct, k=k)
        from_router, factor, _ = rules.dense.pullback((x, params["router"], None), logits_ct)
        aux = {"router": None, "experts": None} if aux is None else aux
        router = visit((*path, DictKey("router")), params["router"], factor, aux["router"])

        def one(p: PyTree, stacked: Any, ct: jax.Array, a: PyTree) -> Backward:
            return expert.bwd(p, saved.tree(stacked), ct, visit, a, (*path, DictKey("experts")))

        with in_layer(place):
            each = jax.vmap(one)(
                params["experts"], saved.stacked, jnp.moveaxis(values_ct, -2, 0), aux["experts"]
            )
        x_ct = (jnp.sum(upcast(each.x_ct), 0) + upcast(from_router)).astype(x.dtype)
        return Backward(
            {"router": router, "experts": each.collected},
            {"router": Delta(logits_ct), "experts": each.cotangents},
            x_ct,
        )

    return Layer(init, fwd, bwd, Parts("mixture_of_experts", (expert,), {"experts": experts, "k": k}))


def _check_output(x: Any, y: Any) -> None:
    leading = x.shape[:-1]
    if not hasattr(y, "shape") or y.shape[:-1] != leading or not y.ndim or y.dtype != x.dtype:
        raise ValueError(
            f"mixture_of_experts: an expert must give one array of shape {(*leading, '…')} and dtype "
            f"{x.dtype.name} for the input {describe(x)}, got {jax.tree.map(describe, y)}."
        )


def _check_params_of(params: PyTree, experts: int) -> None:
    if not isinstance(params, dict) or params.keys() != {"router", "experts"}:
        raise ValueError(
            "mixture_of_experts: params must be a dict of ['router', 'experts'], got "
            f"{jax.tree.structure(params)}; use what `init` returned."
        )
    check_params("mixture_of_experts", {"router": params["router"]}, {"router": (None, experts)})
    for where, a in jax.tree_util.tree_leaves_with_path(params["experts"]):
        if a.shape[:1] != (experts,):
            raise ValueError(
                f"mixture_of_experts: the first axis of `{path_string(where)}` is the expert, of {experts}, "
                f"but its shape is {a.shape}; use what `init` returned."
            )
