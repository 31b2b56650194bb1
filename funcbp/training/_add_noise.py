"""`add_noise`: the Gaussian mechanism on a clipped sum, as an optax transformation; adaptive bounds."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import optax
from jax import numpy as jnp

from .._frozen import Frozen, frozen_predicate
from .._numerics import upcast
from ..layers._layer import path_string

__all__ = ["AdaptiveClipping", "AddNoiseState", "add_noise", "noised_mean"]

PyTree = Any


class AddNoiseState(NamedTuple):
    """The state of `add_noise`: a checkpoint of it goes on with the same noise.

    Attributes:
        key: the one given; never changed.
        count: updates made, int32; the noise of an update depends on the key and on this.
    """

    key: jax.Array
    count: jax.Array


def add_noise(
    noise_multiplier: float,
    sensitivity: float,
    key: jax.Array,
    *,
    expected_batch_size: float = 1.0,
    frozen: Frozen = (),
) -> optax.GradientTransformationExtraArgs:
    """(Σ c_n g_n + z S 𝒩(0, I)) / B, from the *sum* of clipped gradients (Abadi et al. 2016, Algorithm 1).

    For a step of one's own: `optax.chain(add_noise(...), optax.adam(1e-3))` on the `grads` of
    `funcbp.clipped_grad`. `optax.contrib.differentially_private_aggregate` wants the gradient of every
    example; this takes what a sweep with ghost clipping gives. `make_private_step` is the whole step.

    The noise of every parameter is independent, in float32 at least; the result is in the dtype of the sum.

    Args:
        noise_multiplier: z, the noise's standard deviation over the sensitivity; what `epsilon` wants.
        sensitivity: S, the most by which one example moves the sum in the Euclidean norm; `max_norm`.
        key: random key, which nothing else may use.
        expected_batch_size: B, what the sum is divided by: the *expected* size, sampling rate times number of
            examples, not the size drawn, which depends on the data.
        frozen: parameters that get no noise, as for `funcbp.backprop`.

    Raises:
        ValueError: for numbers that are negative, or an expected size of 0.

    >>> noise = add_noise(0.0, 1.0, jax.random.key(0), expected_batch_size=4)
    >>> sums = {"w": jnp.array([2.0, 4.0])}
    >>> noise.update(sums, noise.init(sums))[0]
    {'w': Array([0.5, 1. ], dtype=float32)}
    """
    check_noise("add_noise", noise_multiplier, expected_batch_size)
    if not (sensitivity >= 0 and math.isfinite(sensitivity)):
        raise ValueError(f"add_noise: `sensitivity` must be finite and not negative, got {sensitivity}.")
    is_frozen = frozen_predicate(frozen)

    def init(params: PyTree) -> AddNoiseState:
        del params
        # Of its own: where states are donated, the caller's key is not to vanish with them.
        return AddNoiseState(jnp.copy(key), jnp.zeros((), jnp.int32))

    def update(
        updates: PyTree, state: Any, params: PyTree = None, **extra: Any
    ) -> tuple[PyTree, AddNoiseState]:
        del params, extra
        now = jax.random.fold_in(state.key, state.count)
        std = noise_multiplier * sensitivity
        mean = noised_mean(now, updates, std, expected_batch_size, is_frozen)
        mean = jax.tree.map(lambda a, u: a.astype(u.dtype), mean, updates)
        return mean, AddNoiseState(state.key, state.count + 1)

    return optax.GradientTransformationExtraArgs(init, update)


def noised_mean(
    key: jax.Array,
    sums: PyTree,
    std: jax.Array | float,
    expected: float,
    is_frozen: Callable[[str], bool],
) -> PyTree:
    """(sum + std 𝒩(0, I)) / expected, in float32 at least; every parameter draws from a key of its own."""
    leaves, treedef = jax.tree_util.tree_flatten_with_path(sums)

    def noised(index: int, path: jax.tree_util.KeyPath, a: jax.Array) -> jax.Array:
        a = upcast(a)
        if is_frozen(path_string(path)):
            return a / expected
        noise = jax.random.normal(jax.random.fold_in(key, index), a.shape, a.dtype)
        return ((a + std * noise) / expected).astype(a.dtype)

    return treedef.unflatten([noised(i, path, a) for i, (path, a) in enumerate(leaves)])


@dataclass(frozen=True)
class AdaptiveClipping:
    """A bound C that follows a quantile of the norms, privately (Andrew et al. 2021, arXiv:1905.03871).

    After each step C ← C exp(-η (b̃ - γ)), where b̃ is the share of the drawn examples with ‖g_n‖ ≤ C, known
    with noise only: b̃ = ½ + (Σ (b_n - ½) + σ_b 𝒩(0, 1)) / B, of sensitivity ½. What the count spends the
    gradient has to save: for both together to be as private as one Gaussian mechanism of multiplier z, the
    gradient's is z_Δ = (z⁻² - (2 σ_b)⁻²)^(-½) > z (their Theorem 1). So `epsilon` takes z, unchanged.

    Attributes:
        initial: C of the first step.
        quantile: γ, the share of examples that are not to be clipped.
        learning_rate: η.
        count_noise: σ_b, in examples; by default B / 20, as the paper has it. It must be above z / 2.

    >>> round(AdaptiveClipping(count_noise=5.0).gradient_multiplier(1.0, 100), 4)
    1.005
    """

    initial: float = 0.1
    quantile: float = 0.5
    learning_rate: float = 0.2
    count_noise: float | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.quantile <= 1:
            raise ValueError(f"AdaptiveClipping: `quantile` must be in [0, 1], got {self.quantile}.")
        for name in ("initial", "learning_rate", "count_noise"):
            value = getattr(self, name)
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise ValueError(f"AdaptiveClipping: `{name}` must be positive and finite, got {value}.")

    def count_std(self, expected_batch_size: float) -> float:
        """σ_b."""
        return expected_batch_size / 20 if self.count_noise is None else self.count_noise

    def gradient_multiplier(self, noise_multiplier: float, expected_batch_size: float) -> float:
        """z_Δ, from the multiplier z that both mechanisms together are to have.

        Raises:
            ValueError: if the count alone is less private than that, 2 σ_b ≤ z.
        """
        if noise_multiplier == 0:
            return 0.0
        std = self.count_std(expected_batch_size)
        if not 2 * std > noise_multiplier:
            raise ValueError(
                f"AdaptiveClipping: `count_noise` σ_b = {std:g} leaves nothing of the noise multiplier "
                f"{noise_multiplier:g} for the gradient; it must be above {noise_multiplier / 2:g}."
            )
        return (noise_multiplier**-2 - (2 * std) ** -2) ** -0.5

    def next_bound(
        self,
        key: jax.Array,
        bound: jax.Array,
        norms: jax.Array,
        drawn: jax.Array,
        expected_batch_size: float,
    ) -> jax.Array:
        """C of the next step.

        Args:
            key: of this step's noise.
            bound: C of this step.
            norms: ‖g_n‖, `(batch,)`; NaN is above every bound.
            drawn: which rows are examples, `(batch,)`; the others fill the batch up.
            expected_batch_size: B.
        """
        centered = jnp.where(drawn, (norms <= bound) - 0.5, 0)
        noise = self.count_std(expected_batch_size) * jax.random.normal(key, (), centered.dtype)
        share = 0.5 + (jnp.sum(centered) + noise) / expected_batch_size
        return (bound * jnp.exp(-self.learning_rate * (share - self.quantile))).astype(bound.dtype)


def check_noise(who: str, noise_multiplier: float, expected_batch_size: float) -> None:
    """Raise `ValueError` for what is no multiplier, or no size."""
    if not (noise_multiplier >= 0 and math.isfinite(noise_multiplier)):
        raise ValueError(
            f"{who}: `noise_multiplier` must be finite and not negative, got {noise_multiplier}."
        )
    if not (expected_batch_size > 0 and math.isfinite(expected_batch_size)):
        raise ValueError(
            f"{who}: `expected_batch_size` must be positive, got {expected_batch_size}; it is the sampling "
            "rate times the number of examples."
        )
