"""Recurrent networks as layers, over `(*batch, time, in)`."""

from typing import Any

import jax
from jax import numpy as jnp
from jax.nn import initializers
from jax.nn.initializers import Initializer

from .. import rules
from .._rule import Rule
from .._signature import describe
from ..rules.recurrent._through_time import Parameters
from ._checks import check_params, require_floating, require_positive
from ._initializers import initializer
from ._layer import Context, Layer, PyTree, leaf

__all__ = ["elman", "gru", "lstm"]


def elman(features: int, **options: Any) -> Layer:
    """`rules.elman`; `params = {"w_in": (in, features), "w_state": (features, features), "b": (features,)}`.

    Options as of `lstm`, without `forget_bias`.
    """
    return _through_time("elman", rules.elman, features, 1, ("b",), **options)


def gru(features: int, **options: Any) -> Layer:
    """`rules.gru`; `params = {"w_in", "w_state", "b", "b_state"}`, three gates wide, in the order r, z, n.

    Options as of `lstm`, without `forget_bias`.
    """
    return _through_time("gru", rules.gru, features, 3, ("b", "b_state"), **options)


def lstm(
    features: int,
    *,
    last: bool = False,
    stateful: bool = False,
    truncate: int | None = None,
    forget_bias: float = 1.0,
    kernel_init: Initializer | None = None,
) -> Layer:
    """`rules.lstm`; `params = {"w_in", "w_state", "b"}`, four gates wide, in the order i, f, g, o.

    The mask of the context, `(*batch, time)`, says which steps count: at the others the state stands still.

    Args:
        features: width of the state.
        last: give the last state alone, `(*batch, features)`, not that of every step.
        stateful: start from where the last batch ended: the layer has a state, which begins at 0. δ does not
            reach the batch before: this is truncated backpropagation through time.
        truncate: stop δ every so many steps inside of a batch, too.
        forget_bias: initial value of the forget gate's bias.
        kernel_init: initializer of W; that of U is orthogonal, gate by gate.

    Raises:
        ValueError: for a width below one; for a stateful layer, when a batch has another shape.
    """
    layer = _through_time(
        "lstm",
        rules.lstm,
        features,
        4,
        ("b",),
        last=last,
        stateful=stateful,
        truncate=truncate,
        kernel_init=kernel_init,
    )

    def init(key: jax.Array, x_spec: Any) -> tuple[PyTree, PyTree]:
        params, state = layer.init(key, x_spec)
        return params | {"b": params["b"].at[features : 2 * features].set(forget_bias)}, state

    return layer._replace(init=init)


def _through_time(
    name: str,
    rule: Rule,
    features: int,
    gates: int,
    biases: tuple[str, ...],
    *,
    last: bool = False,
    stateful: bool = False,
    truncate: int | None = None,
    kernel_init: Initializer | None = None,
) -> Layer:
    require_positive(name, "features", features)
    kernel_init = kernel_init or initializer()
    width = gates * features
    names = [a.name for a in rule.signature.arguments]
    states = [n for n in ("h", "c") if n in names]
    sizes: dict[str, tuple[int | None, ...]] = {
        "w_in": (None, width),
        "w_state": (features, width),
        **dict.fromkeys(biases, (width,)),
    }

    def init(key: jax.Array, x_spec: Any) -> tuple[PyTree, PyTree]:
        require_floating(name, x_spec)
        first, *rest = jax.random.split(key, 1 + gates)
        square = [initializers.orthogonal()(k, (features, features), x_spec.dtype) for k in rest]
        params = {
            "w_in": kernel_init(first, (x_spec.shape[-1], width), x_spec.dtype),
            "w_state": jnp.concatenate(square, axis=-1),
            **{b: jnp.zeros(width, x_spec.dtype) for b in biases},
        }
        return params, _zeros(x_spec) if stateful else ()

    def _zeros(x: Any) -> tuple[jax.Array, ...]:
        return tuple(jnp.zeros((*x.shape[:-2], features), x.dtype) for _ in states)

    def fwd(
        params: PyTree, state: PyTree, x: jax.Array, context: Context
    ) -> tuple[jax.Array, PyTree, PyTree]:
        check_params(name, params, sizes)
        if x.ndim < 2:
            raise ValueError(f"{name}: the input must be (*batch, time, in), got {describe(x)}.")
        start = state if jax.tree.leaves(state) else _zeros(x)
        if start[0].shape[:-1] != x.shape[:-2]:
            raise ValueError(
                f"{name}: the state is {describe(start[0])}, the input {describe(x)}; a stateful layer needs "
                "batches of one shape, or a new state: the one that `init` returns."
            )
        (every, *ends), trace = rule.fwd(x, *start, **params, mask=context.mask, truncate=truncate)
        # Parameters are given to the pullback anyway; the mask as it came, for a repeat not to stack it.
        trace = trace._replace(parameters=None, mask=context.mask)
        return ends[0] if last else every, tuple(ends) if stateful else (), trace

    def pullback(params: PyTree, trace: PyTree, y_ct: jax.Array) -> tuple[PyTree, jax.Array]:
        weights = (params[n] for n in ("w_in", "w_state", *biases))
        h, *others = (jnp.zeros_like(s) for s in trace.start)
        out_ct = (jnp.zeros_like(trace.states[0]), y_ct) if last else (y_ct, h)
        trace = trace._replace(parameters=Parameters(*weights))
        cotangents = rule.pullback(trace, (*out_ct, *others), truncate=truncate)
        named = dict(zip(names, cotangents, strict=True))
        return {n: named[n] for n in params}, named["x"]

    return leaf(init, fwd, pullback, rule=rule)
