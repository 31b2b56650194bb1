"""The gradient noise scale: how large a batch still pays, out of one sweep's norms."""

from typing import Any, NamedTuple

import jax
from jax import numpy as jnp

from .._numerics import upcast
from .._sweep import Sweep

__all__ = ["GradientNoise", "NoiseScaleState", "gradient_noise", "update_noise_scale"]

PyTree = Any


class GradientNoise(NamedTuple):
    """Unbiased estimates from one batch; either can come out below 0.

    Attributes:
        signal: of |G|², the squared norm of the true gradient.
        noise: of tr Σ, the variance of one example's gradient, summed over all entries.
    """

    signal: jax.Array
    noise: jax.Array

    @property
    def scale(self) -> jax.Array:
        """B_simple = tr Σ / |G|²; a batch of that size has as much noise as signal.

        A ratio of two estimates is not unbiased, and from one batch it is rough: see `update_noise_scale`.
        """
        return self.noise / self.signal


class NoiseScaleState(NamedTuple):
    """Exponential moving averages of the two estimates, apart, and what their weights add up to.

    Attributes:
        signal: Σ_t (1 - d) d^(T-t) |G|²_t.
        noise: likewise of tr Σ.
        weight: Σ_t (1 - d) d^(T-t).
    """

    signal: jax.Array
    noise: jax.Array
    weight: jax.Array

    @property
    def average(self) -> GradientNoise:
        """The averages without the bias towards their start at 0; NaN before the first update."""
        return GradientNoise(self.signal / self.weight, self.noise / self.weight)


def gradient_noise(sweep: Sweep, *, weights: jax.Array | None = None, per_parameter: bool = False) -> PyTree:
    """|G|² and tr Σ from the norms of the gradients of examples and their mean (McCandlish et al. 2018).

    arXiv:1812.06162, appendix A.1, with batches of 1 and n: for independent examples E‖g_n‖² = |G|² + tr Σ
    and E‖ḡ‖² = |G|² + tr Σ / n, so that

        tr Σ ≈ (Σ ‖g_n‖² - n ‖ḡ‖²) / (n - 1)
        |G|² ≈ (n² ‖ḡ‖² - Σ ‖g_n‖²) / (n (n - 1))

    One sweep has both; two batch sizes need not be run.

    Args:
        sweep: of `backprop(..., reduction="mean", collect=("norms",))`; with "squared_norms" for what is per
            parameter.
        weights: those of the sweep, 1 for an example, 0 for what fills the batch up, `(batch,)`.
        per_parameter: whether to estimate for every parameter by itself.

    Returns:
        A `GradientNoise`, NaN for fewer than two examples; or per parameter, in the tree of the parameters,
        None where they are frozen.

    Raises:
        ValueError: if the sweep has not collected what is needed.

    >>> from funcbp import backprop, layers, rules
    >>> sweep = backprop(layers.dense(1, bias=False), rules.l2_loss, collect=("norms",))
    >>> x, params = jnp.ones((3, 1)), {"w": jnp.zeros((1, 1))}
    >>> noise = gradient_noise(sweep(params, x, jnp.array([[1.0], [2.0], [3.0]])))
    >>> round(float(noise.noise), 5), round(float(noise.signal), 5)
    (1.0, 3.66667)
    """
    name = "squared_norms" if per_parameter else "norms"
    given = getattr(sweep, name)
    if given is None:
        raise ValueError(f"gradient_noise: the sweep must be run with collect=({name!r},).")
    if per_parameter:
        return jax.tree.map(
            lambda squares, g: None if squares is None else _estimates(_per_example(squares), g, weights),
            given,
            sweep.grads,
            is_leaf=lambda a: a is None,
        )
    return _estimates(jnp.square(given), sweep.grads, weights)


def update_noise_scale(
    state: NoiseScaleState | None, noise: GradientNoise, decay: float = 0.99
) -> NoiseScaleState:
    """Average the two estimates over the steps, each by itself; the ratio of the averages is the scale.

    An estimate that is not finite (fewer than two examples, an overflow) is left out.

    Args:
        state: of the steps so far; None at the first.
        noise: of this step.
        decay: d; about 1 / (1 - d) steps count.

    Raises:
        ValueError: for a decay outside of [0, 1).

    >>> state = update_noise_scale(None, GradientNoise(jnp.float32(2.0), jnp.float32(30.0)))
    >>> state = update_noise_scale(state, GradientNoise(jnp.float32(4.0), jnp.float32(30.0)))
    >>> round(float(state.average.scale), 2)
    9.98
    """
    if not 0 <= decay < 1:
        raise ValueError(f"update_noise_scale: `decay` must be in [0, 1), got {decay}.")
    if state is None:
        state = NoiseScaleState(*(jnp.zeros_like(noise.signal) for _ in range(3)))
    now = NoiseScaleState(noise.signal, noise.noise, jnp.ones_like(noise.signal))
    finite = jnp.isfinite(noise.signal) & jnp.isfinite(noise.noise)
    return jax.tree.map(lambda a, b: jnp.where(finite, decay * a + (1 - decay) * b, a), state, now)


def _estimates(squares: jax.Array, mean: PyTree, weights: jax.Array | None) -> GradientNoise:
    if weights is not None and weights.shape != squares.shape:
        raise ValueError(
            f"gradient_noise: `weights` must have one number for each of the {squares.shape[0]} examples, "
            f"got the shape {weights.shape}."
        )
    n = jnp.asarray(squares.shape[0] if weights is None else jnp.sum(weights != 0), squares.dtype)
    # What fills a batch up has a norm of 0.
    total = jnp.sum(squares)
    of_mean = sum(jnp.sum(jnp.square(upcast(g))) for g in jax.tree.leaves(mean))
    degrees = jnp.where(n > 1, n - 1, jnp.nan)
    return GradientNoise((n * n * of_mean - total) / (n * degrees), (total - n * of_mean) / degrees)


def _per_example(squares: jax.Array) -> jax.Array:
    return jnp.sum(squares, tuple(range(1, squares.ndim)))
