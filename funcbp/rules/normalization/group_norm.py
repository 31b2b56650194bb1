"""Group normalization (Wu, He 2018, arXiv:1803.08494) and instance normalization (Ulyanov et al. 2016,
arXiv:1607.08022): statistics of one example, over its positions and some of its channels."""

import jax
from jax import numpy as jnp
from jaxtyping import Array, Float

from ..._numerics import upcast
from ..._rule import Rule
from ...domains import Normal, Point
from ...factors import Factor
from .._checks import check_cotangent
from ._standardized import affine, affine_pullback, centered, inverse_root, scaling_ct, standardized

X = Float[Array, "batch *spatial channels"]
Grouped = Float[Array, "batch *spatial groups members"]
Stat = Float[Array, "batch *ones groups 1"]
Param = Float[Array, " channels"]
Residuals = tuple[X, Param | None, Param | None, Stat, Stat]


def group_norm_fwd(
    x: X, gain: Param | None = None, bias: Param | None = None, *, groups: int = 1, eps: float = 1e-5
) -> tuple[X, Residuals]:
    """Group normalization: channels in `groups` equal groups of neighbors, each with its own statistics.

    Forward, with μ, σ² mean and biased variance over the positions and channels of a group of one example:

        r = (σ² + ε)^(-1/2)      x̂ = r (x - μ)      y = γ ⊙ x̂ + β      (γ and β by channel)

    Backward, with g = γ ⊙ ȳ and ⟨·⟩ the mean over the group:

        x̄ = r (g - ⟨g⟩ - x̂ ⟨g ⊙ x̂⟩)      γ̄ = Σ ȳ ⊙ x̂      β̄ = Σ ȳ

    Derivation. As in layer normalization, over the other axes. γ differs inside a group, so it goes into g
    before the means are taken.

    One group is layer normalization over positions and channels; as many groups as channels is instance
    normalization. A group of one number, or of equal ones, has x̂ = 0; with ε = 0 also x̄ = 0 (autodiff: NaN).

    Saves x, γ, β (alive anyway) and μ, r (one number a group). Raises ValueError unless `groups` divides the
    channels.
    """
    z = _grouped(x, groups)
    x_hat, mean, variance = standardized(upcast(z), _group_axes(z), eps)
    y = affine(x_hat.reshape(x.shape), gain, bias)
    return y.astype(x.dtype), (x, gain, bias, mean, inverse_root(variance + eps))


def group_norm_pullback(
    residuals: Residuals, y_ct: X, *, groups: int = 1, eps: float = 1e-5
) -> tuple[X, Factor | None, Factor | None]:
    """x̄ = r (g - ⟨g⟩ - x̂ ⟨g ⊙ x̂⟩), and the factors of γ and β."""
    del eps  # already inside r
    x, gain, bias, mean, r = residuals
    check_cotangent("group_norm", y_ct, x.shape, x.dtype)
    z = _grouped(x, groups)
    x_hat = r * (upcast(z) - mean)
    g, gain_factor, bias_factor = affine_pullback(upcast(y_ct), x_hat.reshape(x.shape), gain, bias)
    axes = _group_axes(z)
    x_ct = scaling_ct(centered(_grouped(g, groups), axes), x_hat, r, axes)
    return x_ct.reshape(x.shape).astype(x.dtype), gain_factor, bias_factor


def _grouped(x: X, groups: int) -> Grouped:
    channels = x.shape[-1]
    if groups < 1 or channels % groups:
        raise ValueError(
            f"group_norm: `groups` must divide the channels, got {groups} groups for {channels} channels."
        )
    return x.reshape(*x.shape[:-1], groups, channels // groups)


def _group_axes(z: Grouped) -> tuple[int, ...]:
    return (*range(1, z.ndim - 2), z.ndim - 1)


def _group_norm_reference(
    x: X, gain: Param | None = None, bias: Param | None = None, *, groups: int = 1, eps: float = 1e-5
) -> X:
    def one(z: jax.Array) -> jax.Array:
        return (z - z.mean()) / jnp.sqrt(z.var() + eps)

    y = jnp.concatenate([jax.vmap(one)(part) for part in jnp.split(x, groups, axis=-1)], axis=-1)
    y = y if gain is None else y * gain
    return y if bias is None else y + bias


group_norm = Rule(
    group_norm_fwd,
    group_norm_pullback,
    reference=_group_norm_reference,
    domain={"x": Normal(), "gain": Normal(), "bias": Normal()},
    points={"constant group": Point({"x": 3.0})},
    settings=({"groups": 2}, {"groups": 4}, {"eps": 1e-2}),
    sizes=(
        {"batch": 2, "spatial": (3,), "channels": 4},
        {"batch": 2, "spatial": (), "channels": 8},
        {"batch": 1, "spatial": (2, 3), "channels": 4},
    ),
    formula="y = γ ⊙ x̂ + β, x̂ = r (x - μ) over a group; x̄ = r (g - ⟨g⟩ - x̂ ⟨g ⊙ x̂⟩), g = γ ⊙ ȳ",
    saves="x, γ, β, μ, r",
)


def instance_norm_fwd(
    x: X, gain: Param | None = None, bias: Param | None = None, *, eps: float = 1e-5
) -> tuple[X, Residuals]:
    """Instance normalization: every channel of every example by its own statistics, over the positions.

    Forward, with μ, σ² the mean and biased variance over the positions:

        r = (σ² + ε)^(-1/2)      x̂ = r (x - μ)      y = γ ⊙ x̂ + β

    Backward, with g = γ ⊙ ȳ and ⟨·⟩ the mean over the positions:

        x̄ = r (g - ⟨g⟩ - x̂ ⟨g ⊙ x̂⟩)      γ̄ = Σ ȳ ⊙ x̂      β̄ = Σ ȳ

    Derivation. Group normalization with groups of one channel.

    Saves x, γ, β (alive anyway) and μ, r (one number a channel of each example).
    """
    return group_norm_fwd(x, gain, bias, groups=x.shape[-1], eps=eps)


def instance_norm_pullback(
    residuals: Residuals, y_ct: X, *, eps: float = 1e-5
) -> tuple[X, Factor | None, Factor | None]:
    """x̄ = r (g - ⟨g⟩ - x̂ ⟨g ⊙ x̂⟩), and the factors of γ and β."""
    x, *_ = residuals
    check_cotangent("instance_norm", y_ct, x.shape, x.dtype)
    return group_norm_pullback(residuals, y_ct, groups=x.shape[-1], eps=eps)


def _instance_norm_reference(
    x: X, gain: Param | None = None, bias: Param | None = None, *, eps: float = 1e-5
) -> X:
    positions = tuple(range(1, x.ndim - 1))
    mean = jnp.mean(x, axis=positions, keepdims=True)
    variance = jnp.var(x, axis=positions, keepdims=True)
    y = (x - mean) / jnp.sqrt(variance + eps)
    y = y if gain is None else y * gain
    return y if bias is None else y + bias


instance_norm = Rule(
    instance_norm_fwd,
    instance_norm_pullback,
    reference=_instance_norm_reference,
    domain={"x": Normal(), "gain": Normal(), "bias": Normal()},
    points={"constant channel": Point({"x": 3.0})},
    settings=({"eps": 1e-2},),
    sizes=(
        {"batch": 2, "spatial": (3, 2), "channels": 3},
        {"batch": 2, "spatial": (4,), "channels": 1},
        {"batch": 2, "spatial": (1,), "channels": 2},
    ),
    formula="y = γ ⊙ x̂ + β, x̂ = r (x - μ) over positions; x̄ = r (g - ⟨g⟩ - x̂ ⟨g ⊙ x̂⟩), g = γ ⊙ ȳ",
    saves="x, γ, β, μ, r",
)
