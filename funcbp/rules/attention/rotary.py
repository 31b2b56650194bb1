"""Rotary position embedding (Su et al. 2021, arXiv:2104.09864)."""

import jax
import numpy as np
from jax import lax
from jax import numpy as jnp
from jaxtyping import Array, Float, Int

from ..._numerics import accumulator, upcast
from ..._rule import Rule
from ...domains import Integers, Normal, Point
from .._checks import check_cotangent

X = Float[Array, "*batch time heads channels"]
Positions = Int[Array, "*batch time"]
Nothing = Float[Array, "*batch time heads 0"]


def rotary_embedding_fwd(
    x: X, positions: Positions, *, base: float = 10000.0, interleaved: bool = False
) -> tuple[X, tuple[Positions, Nothing]]:
    """Every pair of channels turned by an angle proportional to the position.

    Forward, for the pair i of c / 2 at position t:

        θ = t base^(-2i / c)      (y₁, y₂) = R(θ) (x₁, x₂) = (x₁ cos θ - x₂ sin θ, x₁ sin θ + x₂ cos θ)

    Backward:

        (x̄₁, x̄₂) = R(-θ) (ȳ₁, ȳ₂)

    Derivation. y = R(θ) x is linear in x, and R(θ)ᵀ = R(-θ): the pullback turns back by the same angle. It is
    not the rotation itself, although it preserves lengths, too.

    Pair i is the channels i and i + c / 2 (GPT-NeoX, Llama), or 2i and 2i + 1 with `interleaved` (RoFormer,
    GPT-J). Angles are computed in float32 at least.

    Saves the positions (and an array without elements, for dtype and shape); sin and cos are recomputed.
    """
    _check(x.shape[-1], base)
    y = _turned(x, positions, 1.0, base, interleaved)
    return y, (positions, x[..., :0])


def rotary_embedding_bwd(
    residuals: tuple[Positions, Nothing], y_ct: X, *, base: float = 10000.0, interleaved: bool = False
) -> tuple[X, None]:
    """The rotation by -θ; positions have no cotangent."""
    positions, like = residuals
    check_cotangent("rotary_embedding", y_ct, (*like.shape[:-1], *np.shape(y_ct)[-1:]), like.dtype)
    return _turned(y_ct, positions, -1.0, base, interleaved), None


def _turned(x: jax.Array, positions: jax.Array, sign: float, base: float, interleaved: bool) -> jax.Array:
    pairs = x.shape[-1] // 2
    # In float64 before it is rounded: a power of `base` in float32 is off by several ulps.
    frequency = jnp.asarray(base ** (-np.arange(pairs) / max(pairs, 1)), accumulator(x))
    angle = positions.astype(frequency.dtype)[..., None, None] * frequency
    cos, sin = jnp.cos(angle), sign * jnp.sin(angle)
    pair = (pairs, 2) if interleaved else (2, pairs)
    axis = -1 if interleaved else -2
    z = upcast(x).reshape(*x.shape[:-1], *pair)
    first, second = jnp.take(z, 0, axis), jnp.take(z, 1, axis)
    turned = jnp.stack([first * cos - second * sin, first * sin + second * cos], axis)
    return turned.reshape(x.shape).astype(x.dtype)


def _check(channels: int, base: float) -> None:
    if channels % 2:
        raise ValueError(
            f"rotary_embedding: channels are turned in pairs, `x` has {channels}, an odd number."
        )
    if not base > 0:
        raise ValueError(f"rotary_embedding: `base` must be positive, got {base!r}.")


def _reference(x: X, positions: Positions, *, base: float = 10000.0, interleaved: bool = False) -> X:
    """As a product of complex numbers, x e^(iθ)."""
    half = x.shape[-1] // 2
    first, second = (x[..., ::2], x[..., 1::2]) if interleaved else (x[..., :half], x[..., half:])
    frequency = np.exp(-np.log(base) * np.arange(half) / half)
    wide = jnp.promote_types(x.dtype, jnp.float32)
    angle = jnp.einsum("...t,c->...tc", positions.astype(wide), frequency.astype(wide))[..., None, :]
    turned = lax.complex(first.astype(wide), second.astype(wide)) * jnp.exp(1j * angle)
    parts = (turned.real, turned.imag)
    y = jnp.stack(parts, -1).reshape(x.shape) if interleaved else jnp.concatenate(parts, -1)
    return y.astype(x.dtype)


rotary_embedding = Rule(
    rotary_embedding_fwd,
    rotary_embedding_bwd,
    reference=_reference,
    domain={"x": Normal(), "positions": Integers(0, 100)},
    points={"the first position": Point({"positions": 0.0}, {"x": 1.0})},
    settings=({"interleaved": True}, {"base": 100.0}),
    sizes=({"batch": (2,), "time": 3, "heads": 2, "channels": 4},),
    formula="(y₁, y₂) = R(θ) (x₁, x₂), θ = t base^(-2i / c); x̄ = R(-θ) ȳ",
    saves="positions",
)
