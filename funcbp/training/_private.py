"""DP-SGD: the optax step on clipped, noised sums of the gradients of examples."""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, cast

import jax
import optax
from jax import numpy as jnp

from .._clipping import ClippingRule, Coefficients, Per, check_clipping, clipped_sum
from .._frozen import Frozen, frozen_predicate
from .._loss import LossLike
from .._microbatches import accumulated, check_microbatches
from .._precision import Precision
from .._sweep import batch_of, setup
from ..layers import Layer
from ..layers._layer import path_string
from ._add_noise import AdaptiveClipping, check_noise, noised_mean
from ._step import Step, fresh_buffers

__all__ = ["PrivateState", "PrivateStep", "make_private_step"]

PyTree = Any


class PrivateState(NamedTuple):
    """What a private step hands to the next one. A checkpoint of it goes on with the same noise, bit for bit.

    Attributes:
        opt_state: the optimizer's.
        key: the one given to `init`; never changed.
        count: steps made, int32: what `epsilon` has to be asked for. Noise and dropout of a step depend on
            the key and on this.
        max_norm: C of the next step, where it is adaptive; else None.
    """

    opt_state: PyTree
    key: jax.Array
    count: jax.Array
    max_norm: jax.Array | None = None


class PrivateStep(NamedTuple):
    """A pair of functions.

    Attributes:
        init: `(params, key) -> PrivateState`; nothing else may use the key.
        step: `(params, state, opt_state, x, y, *, weights=None, mask=None, positions=None) -> Step`.
    """

    init: Callable[[PyTree, jax.Array], PrivateState]
    step: Callable[..., Step]


def make_private_step(
    network: Layer,
    loss: LossLike,
    optimizer: optax.GradientTransformation,
    *,
    noise_multiplier: float,
    expected_batch_size: float,
    max_norm: float | Mapping[str, float] | AdaptiveClipping | None = None,
    coefficients: Coefficients | None = None,
    sensitivity: float | None = None,
    per: Per = "network",
    frozen: Frozen = (),
    precision: Precision | None = None,
    microbatches: int = 1,
    train: bool = True,
    donate: bool = False,
) -> PrivateStep:
    """A jitted step of DP-SGD with any optax optimizer (Abadi et al. 2016, arXiv:1607.00133).

    The optimizer is given (Σ c_n g_n + z S 𝒩(0, I)) / B. Clipping is that of `funcbp.clipped_grad`, in one
    sweep and without the gradients of examples; the noise is independent for every parameter, added in
    float32 at least, before the sum is rounded to the parameter's dtype. S, the most by which adding or
    removing one example moves the sum in the Euclidean norm, is

        max_norm=C                              C
        max_norm=C, per="layer" or "parameter"  C: each of L gets C / √L
        max_norm={group: C_i}                   √Σ C_i²
        max_norm=AdaptiveClipping(...)          C of the step
        coefficients=                           `sensitivity`: the supremum of c(r) r over all r; times √L if
                                                clipped per layer or parameter. 1 for `automatic_clipping`.

    up to the rounding of norms and sums in float32. An example whose gradient is not finite in some parameter
    (NaN or infinite inputs, overflow) adds nothing to the sum, so that it cannot show. Layers that couple
    examples refuse.

    Args:
        network: a Layer.
        loss: as for `funcbp.backprop`.
        optimizer: any that needs no more than the gradient. It is not given the loss, which is not private.
        noise_multiplier: z, for which `epsilon` gives the privacy; 0 for none.
        expected_batch_size: B, the sampling rate times the number of examples. Not the size drawn: that
            depends on the data.
        max_norm: as for `clipped_grad`; or an `AdaptiveClipping`.
        coefficients: as for `clipped_grad`.
        sensitivity: S, with `coefficients` only.
        per: as for `clipped_grad`.
        frozen: as for `backprop`; they take no part in norms, get no noise and are not updated.
        precision: as for `backprop`.
        microbatches: as for `backprop`.
        train: as for `backprop`.
        donate: as for `make_step`.

    Returns:
        `init(params, key)` and `step(params, state, opt_state, x, y, *, weights=None, mask=None,
        positions=None)`. `weights` are 0 for the rows that fill up a batch, as `poisson_batch` gives them; a
        batch of such rows alone makes a step of noise.

        Private are the step's `params` and `opt_state` and, in `metrics`, "gradient_norm" (of what the
        optimizer was given), "noise" (its noise's standard deviation, z S / B) and "max_norm" (C of this
        step, if adaptive). **Not private**, to be looked at but not to be published: "value" (the mean
        loss), "per_example", "norms", "coefficients".

    Raises:
        TypeError, ValueError: as `clipped_grad`; from optax for an optimizer that needs the loss.

    >>> from funcbp import layers, rules
    >>> network, x, y = layers.dense(1), jnp.ones((8, 2)), jnp.ones((8, 1))
    >>> private = make_private_step(
    ...     network, rules.l2_loss, optax.sgd(0.1), max_norm=1.0, noise_multiplier=0.1, expected_batch_size=8
    ... )
    >>> params, state = network.init(jax.random.key(0), x)
    >>> opt_state = private.init(params, jax.random.key(1))
    >>> for _ in range(50):
    ...     params, state, opt_state, metrics = private.step(params, state, opt_state, x, y)
    >>> float(metrics["value"]) < 0.01, int(opt_state.count)
    (True, 50)
    """
    _check_optimizer(optimizer)
    check_noise("make_private_step", noise_multiplier, expected_batch_size)
    check_microbatches(microbatches)
    adaptive = max_norm if isinstance(max_norm, AdaptiveClipping) else None
    _check_clipping(adaptive, max_norm, coefficients, sensitivity, per)
    fixed = adaptive.initial if adaptive else cast("float | Mapping[str, float] | None", max_norm)
    rule = ClippingRule(fixed, coefficients, per)
    check_clipping(rule)
    if adaptive:
        multiplier = adaptive.gradient_multiplier(noise_multiplier, expected_batch_size)
    else:
        multiplier = noise_multiplier
    options = setup(network, loss, "sum", frozen, precision, train)
    is_frozen = frozen_predicate(frozen)
    optimizer = optax.with_extra_args_support(optimizer)

    def init(params: PyTree, key: jax.Array) -> PrivateState:
        bound = jnp.asarray(adaptive.initial, jnp.float32) if adaptive else None
        # Of its own: where the state is donated, the caller's key is not to vanish with it.
        return PrivateState(optimizer.init(params), jnp.copy(key), jnp.zeros((), jnp.int32), bound)

    def step(
        params: PyTree,
        state: PyTree,
        opt_state: PrivateState,
        x: PyTree,
        y: PyTree,
        *,
        weights: jax.Array | None = None,
        mask: PyTree = None,
        positions: PyTree = None,
    ) -> Step:
        params, batch = batch_of(params, x, y, weights, mask, positions, frozen)
        now = jax.random.fold_in(opt_state.key, opt_state.count)
        network_key, noise_key, count_key = jax.random.split(now, 3)
        bound = opt_state.max_norm
        clip = rule if bound is None else ClippingRule(cast(float, bound), None, "network")
        sweep = functools.partial(clipped_sum, options, clip, params, only_finite=True)
        with options.precision.products():
            if microbatches == 1:
                result = sweep(batch, state, network_key)
            else:
                result = accumulated(sweep, microbatches, batch, state, network_key)
        (value, sums), (norms, scales, per_example), state = result

        std = multiplier * (_sensitivity(fixed, sensitivity) if bound is None else bound)
        mean = noised_mean(noise_key, sums, std, expected_batch_size, is_frozen)
        grads = jax.tree.map(lambda g, p: g.astype(p.dtype), mean, params)
        updates, inner = optimizer.update(grads, opt_state.opt_state, params)
        updates = jax.tree_util.tree_map_with_path(
            lambda path, u: jnp.zeros_like(u) if is_frozen(path_string(path)) else u, updates
        )
        total = jnp.sum(batch.weights)
        metrics = {
            "value": value / jnp.where(total == 0, 1, total),
            "per_example": per_example,
            "norms": norms,
            "coefficients": scales,
            "gradient_norm": optax.tree.norm(mean),
            "noise": std / expected_batch_size,
        }
        following = bound
        if adaptive and bound is not None:
            drawn = jnp.any(batch.weights != 0, tuple(range(1, batch.weights.ndim)))
            following = adaptive.next_bound(count_key, bound, norms, drawn, expected_batch_size)
            metrics["max_norm"] = bound
        count = opt_state.count + 1
        private_state = PrivateState(inner, opt_state.key, count, following)
        return Step(optax.apply_updates(params, updates), state, private_state, metrics)

    compiled = jax.jit(step, donate_argnums=(0, 1, 2) if donate else ())

    @functools.wraps(step)
    def prepared(params: PyTree, state: PyTree, opt_state: PrivateState, *args: Any, **kwargs: Any) -> Step:
        return compiled(*fresh_buffers((params, state, opt_state), donate), *args, **kwargs)

    return PrivateStep(init, prepared)


def _sensitivity(max_norm: float | Mapping[str, float] | None, given: float | None) -> float:
    if given is not None:
        return given
    return math.hypot(*max_norm.values()) if isinstance(max_norm, Mapping) else cast(float, max_norm)


def _check_clipping(
    adaptive: AdaptiveClipping | None, max_norm: Any, coefficients: Any, sensitivity: float | None, per: str
) -> None:
    if (coefficients is None) != (sensitivity is None):
        raise ValueError(
            "make_private_step: `sensitivity` belongs to `coefficients`, and they need it: the most that "
            f"c(r) r can be over all norms r; got sensitivity={sensitivity} with "
            f"coefficients={coefficients!r}, max_norm={max_norm!r}."
        )
    if sensitivity is not None and not (sensitivity > 0 and math.isfinite(sensitivity)):
        raise ValueError(f"make_private_step: `sensitivity` must be positive and finite, got {sensitivity}.")
    if adaptive and (coefficients is not None or per != "network"):
        raise ValueError(
            "make_private_step: an AdaptiveClipping is of the norm over the whole network; leave out "
            f"per={per!r} and coefficients={coefficients!r}."
        )


def _check_optimizer(optimizer: Any) -> None:
    if not isinstance(optimizer, optax.GradientTransformation | optax.GradientTransformationExtraArgs):
        raise TypeError(
            f"make_private_step: `optimizer` must be of optax, as optax.adam(1e-3); got {optimizer!r}."
        )
