"""Convolution layers; arrays are (batch, *spatial, channels)."""

from typing import Any

import jax
from jax.nn import initializers
from jax.nn.initializers import Initializer

from .. import rules
from .._rule import Rule
from ..rules.convolution._options import Numbers, Padding, per_axis
from ._checks import check_params, require_floating, require_positive
from ._initializers import initializer
from ._layer import Context, Layer, PyTree, leaf

__all__ = ["conv", "conv_transpose"]


def conv(
    features: int,
    window: int | tuple[int, ...],
    *,
    strides: Numbers = None,
    padding: Padding = None,
    dilation: Numbers = None,
    groups: int = 1,
    bias: bool = True,
    after: str | None = None,
    kernel_init: Initializer | None = None,
    bias_init: Initializer = initializers.zeros,
) -> Layer:
    """p = x ⋆ W + b; `params = {"w": (*window, in / groups, features), "b": (features,)}`.

    Numbers are for every spatial axis of the input, tuples one each.

    Args:
        features: number of output channels.
        window: size of the kernel.
        strides: steps from one output to the next; by default 1.
        padding: None (none), "SAME", "CAUSAL", a number, or pairs (front, behind).
        dilation: steps from one tap of the kernel to the next; by default 1.
        groups: channels in so many parts, each convolved by itself; `in` of them is a depthwise convolution.
        bias: False leaves b out.
        after: the activation whose output this layer reads; sets the default variance of W (see
            `initializer`).
        kernel_init: initializer of W, instead of that default.
        bias_init: initializer of b.

    Raises:
        ValueError: for numbers below one; at `init`, for groups that do not divide the channels, or options
            that do not fit the input.
    """
    options = {"strides": strides, "padding": padding, "dilation": dilation}
    require_positive("conv", "groups", groups)
    return _convolution(
        "conv",
        rules.conv_general,
        options,
        features,
        window,
        groups,
        bias,
        kernel_init or initializer(after),
        bias_init,
    )


def conv_transpose(
    features: int,
    window: int | tuple[int, ...],
    *,
    strides: Numbers = None,
    padding: Padding = None,
    dilation: Numbers = None,
    bias: bool = True,
    after: str | None = None,
    kernel_init: Initializer | None = None,
    bias_init: Initializer = initializers.zeros,
) -> Layer:
    """Transposed convolution, which makes images larger; `params` as those of `conv`.

    Args:
        features: number of output channels.
        window: size of the kernel.
        strides: outputs for each input; by default 1.
        padding: None makes room for whole kernels, "SAME" gives inputs times strides outputs; see the rule.
        dilation: steps from one tap of the kernel to the next; by default 1.
        bias: False leaves b out.
        after: the activation whose output this layer reads; sets the default variance of W (see
            `initializer`).
        kernel_init: initializer of W, instead of that default.
        bias_init: initializer of b.

    Raises:
        ValueError: for numbers below one; at `init`, for options that do not fit the input.
    """
    options = {"strides": strides, "padding": padding, "dilation": dilation}
    return _convolution(
        "conv_transpose",
        rules.conv_transpose,
        options,
        features,
        window,
        1,
        bias,
        kernel_init or initializer(after),
        bias_init,
    )


def _convolution(
    name: str,
    rule: Rule,
    options: dict[str, Any],
    features: int,
    window: int | tuple[int, ...],
    groups: int,
    bias: bool,
    kernel_init: Initializer,
    bias_init: Initializer,
) -> Layer:
    require_positive(name, "features", features)

    def init(key: jax.Array, x_spec: Any) -> tuple[PyTree, PyTree]:
        require_floating(name, x_spec)
        channels = x_spec.shape[-1]
        if channels % groups or features % groups:
            raise ValueError(
                f"{name}: `groups` must divide the channels of input and output, got {groups} groups for "
                f"{channels} and {features} channels."
            )
        taps = per_axis(name, "window", window, len(x_spec.shape) - 2)
        w_key, b_key = jax.random.split(key)
        params = {"w": kernel_init(w_key, (*taps, channels // groups, features), x_spec.dtype)}
        return params | ({"b": bias_init(b_key, (features,), x_spec.dtype)} if bias else {}), ()

    def fwd(
        params: PyTree, state: PyTree, x: jax.Array, context: Context
    ) -> tuple[jax.Array, PyTree, jax.Array]:
        del context
        taps = per_axis(name, "window", window, x.ndim - 2)
        kernel = (*taps, x.shape[-1] // groups, features)
        check_params(name, params, {"w": kernel} | ({"b": (features,)} if bias else {}))
        p, _ = rule.fwd(x, params["w"], params.get("b"), **options)
        return p, state, x

    def pullback(params: PyTree, x: jax.Array, p_ct: jax.Array) -> tuple[PyTree, jax.Array]:
        x_ct, w, b = rule.pullback((x, params["w"], params.get("b")), p_ct, **options)
        return {"w": w} | ({"b": b} if bias else {}), x_ct

    return leaf(init, fwd, pullback, pre_activation=True, rule=rule, static=options)
