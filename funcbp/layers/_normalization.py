"""Normalization layers: a rule, its gain and bias, and for batch normalization the running statistics."""

from typing import Any

import jax
from jax import numpy as jnp

from .. import rules
from .._numerics import accumulator, upcast
from .._rule import Rule
from ._checks import check_params, require_floating, require_positive
from ._layer import Context, Layer, PyTree, leaf

__all__ = ["batch_norm", "group_norm", "instance_norm", "layer_norm", "rms_norm"]


def layer_norm(*, gain: bool = True, bias: bool = True, eps: float = 1e-5) -> Layer:
    """Layer normalization over the last axis; `params = {"gain": (features,), "bias": (features,)}`.

    Args:
        gain: False leaves γ out.
        bias: False leaves β out.
        eps: added to the variance.
    """
    return _normalization(rules.layer_norm, {"gain": gain, "bias": bias}, eps=eps)


def rms_norm(*, gain: bool = True, eps: float = 1e-6) -> Layer:
    """Root-mean-square normalization over the last axis; `params = {"gain": (features,)}`.

    Args:
        gain: False leaves γ out.
        eps: added to the mean square.
    """
    return _normalization(rules.rms_norm, {"gain": gain}, eps=eps)


def group_norm(groups: int, *, gain: bool = True, bias: bool = True, eps: float = 1e-5) -> Layer:
    """Group normalization of `(batch, *spatial, channels)`; parameters as those of `layer_norm`.

    Args:
        groups: number of groups of channels; it must divide them.
        gain: False leaves γ out.
        bias: False leaves β out.
        eps: added to the variance.

    Raises:
        ValueError: for a number of groups below one, or, at `init`, one that does not divide the channels.
    """
    require_positive("group_norm", "groups", groups)
    return _normalization(rules.group_norm, {"gain": gain, "bias": bias}, groups=groups, eps=eps)


def instance_norm(*, gain: bool = True, bias: bool = True, eps: float = 1e-5) -> Layer:
    """Instance normalization of `(batch, *spatial, channels)`; parameters as those of `layer_norm`.

    Args:
        gain: False leaves γ out.
        bias: False leaves β out.
        eps: added to the variance.
    """
    return _normalization(rules.instance_norm, {"gain": gain, "bias": bias}, eps=eps)


def _normalization(rule: Rule, wanted: dict[str, bool], **static: Any) -> Layer:
    """A layer from a rule of (x, gain, bias) or (x, gain), whose residuals begin with its arguments."""
    names = [name for name, kept in wanted.items() if kept]

    def fwd(
        params: PyTree, state: PyTree, x: jax.Array, context: Context
    ) -> tuple[jax.Array, PyTree, PyTree]:
        del context
        check_params(rule.name, params, dict.fromkeys(names, (None,)))
        y, residuals = rule.fwd(x, **params, **static)
        return y, state, (x, *residuals[1 + len(wanted) :])

    def pullback(params: PyTree, residuals: PyTree, y_ct: jax.Array) -> tuple[PyTree, jax.Array]:
        x, *statistics = residuals
        saved = (x, *(params.get(name) for name in wanted), *statistics)
        x_ct, *factors = rule.pullback(saved, y_ct, **static)
        return _of(names, wanted, factors), x_ct

    def init(key: jax.Array, x_spec: Any) -> tuple[PyTree, PyTree]:
        del key
        return _initial(rule.name, names, x_spec), ()

    return leaf(init, fwd, pullback, rule=rule, static=static)


def batch_norm(*, gain: bool = True, bias: bool = True, momentum: float = 0.99, eps: float = 1e-5) -> Layer:
    """Batch normalization: statistics over all axes but the last; parameters as those of `layer_norm`.

    In training by the mean and variance of the batch, of which running averages are kept: `state = {"mean":
    (features,), "variance": (features,)}`, both in float32 at least. In evaluation by those averages, and
    examples are apart from each other.

    In training it couples the examples: a gradient of one example alone does not exist, and the statistics of
    a part of a batch are others than those of the batch. Where examples must be independent
    (`Context.independent`) it refuses. Examples of weight zero in the loss count in the statistics.

    Args:
        gain: False leaves γ out.
        bias: False leaves β out.
        momentum: what the running averages keep at a step, m in state ← m state + (1 - m) statistics. The
            variance is the biased one.
        eps: added to the variance.

    Raises:
        ValueError: for a momentum outside [0, 1]; at a call, without a state, or where examples must be
            independent.
    """
    if not 0 <= momentum <= 1:
        raise ValueError(f"batch_norm: `momentum` must be in [0, 1], got {momentum}.")
    wanted = {"gain": gain, "bias": bias}
    names = [name for name, kept in wanted.items() if kept]

    def init(key: jax.Array, x_spec: Any) -> tuple[PyTree, PyTree]:
        del key
        params = _initial("batch_norm", names, x_spec)
        shape, dtype = x_spec.shape[-1:], accumulator(x_spec)
        return params, {"mean": jnp.zeros(shape, dtype), "variance": jnp.ones(shape, dtype)}

    def fwd(
        params: PyTree, state: PyTree, x: jax.Array, context: Context
    ) -> tuple[jax.Array, PyTree, PyTree]:
        check_params("batch_norm", params, dict.fromkeys(names, (None,)))
        _check_state(state, x)
        if not context.train:
            mean, variance = (state[name].astype(accumulator(x)) for name in ("mean", "variance"))
            y, _ = rules.batch_norm_inference.fwd(
                upcast(x), mean, variance, **jax.tree.map(upcast, params), eps=eps
            )
            return y.astype(x.dtype), state, {"given": (x, mean, variance)}
        if context.independent:
            raise ValueError(
                "batch_norm: examples must be independent here (for per-example quantities, or in "
                "microbatches), but in training it couples them by the statistics of the batch; use "
                "group_norm or layer_norm, or train=False."
            )
        (y, _, _), (_, _, _, mean, variance) = rules.batch_norm.fwd(x, **params, eps=eps)
        new = {"mean": mean, "variance": variance}
        state = {k: (momentum * s + (1 - momentum) * new[k]).astype(s.dtype) for k, s in state.items()}
        return y, state, {"batch": (x, mean, variance)}

    def pullback(params: PyTree, residuals: PyTree, y_ct: jax.Array) -> tuple[PyTree, jax.Array]:
        ((statistics, (x, mean, variance)),) = residuals.items()
        if statistics == "batch":
            nothing = jnp.zeros(mean.shape, x.dtype)
            saved = (x, params.get("gain"), params.get("bias"), mean, variance)
            x_ct, *factors = rules.batch_norm.pullback(saved, (y_ct, nothing, nothing), eps=eps)
        else:
            saved = (upcast(x), mean, variance, params.get("gain"), params.get("bias"))
            x_ct, _, _, *factors = rules.batch_norm_inference.pullback(saved, upcast(y_ct), eps=eps)
        return _of(names, wanted, factors), x_ct.astype(x.dtype)

    return leaf(init, fwd, pullback, static={"eps": eps})


def _initial(layer: str, names: list[str], x_spec: Any) -> PyTree:
    require_floating(layer, x_spec)
    initial = {"gain": jnp.ones, "bias": jnp.zeros}
    return {name: initial[name](x_spec.shape[-1:], x_spec.dtype) for name in names}


def _of(names: list[str], wanted: dict[str, bool], factors: list[Any]) -> PyTree:
    every = dict(zip(wanted, factors, strict=True))
    return {name: every[name] for name in names}


def _check_state(state: PyTree, x: jax.Array) -> None:
    if not isinstance(state, dict) or state.keys() != {"mean", "variance"}:
        raise ValueError(
            f"batch_norm: the state is {jax.tree.structure(state)}, not its running mean and variance; pass "
            "state= what `init` returned, or the last step gave back."
        )
    for name, a in state.items():
        if jnp.shape(a) != x.shape[-1:]:
            raise ValueError(
                f"batch_norm: the running {name} has shape {jnp.shape(a)}, the input {x.shape[-1]} features; "
                "use what `init` returned."
            )
