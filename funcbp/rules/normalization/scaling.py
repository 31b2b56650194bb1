"""Scaling to a fixed length, without centering: RMS, unit vectors, weight and spectral normalization."""

import jax
from jax import lax
from jax import numpy as jnp
from jaxtyping import Array, Float

from ..._numerics import upcast
from ..._rule import Rule
from ...domains import Normal, Point, Uniform
from ...factors import Factor
from .._checks import check_cotangent
from ._standardized import affine, affine_pullback, inverse_root, mean_over, scaling_ct

X = Float[Array, "*batch features"]
Stat = Float[Array, "*batch 1"]
Param = Float[Array, " features"]


def rms_norm_fwd(
    x: X, gain: Param | None = None, *, eps: float = 1e-6
) -> tuple[X, tuple[X, Param | None, Stat]]:
    """Root-mean-square normalization over the last axis (Zhang, Sennrich 2019, arXiv:1910.07467).

    Forward, for each row x, with ⟨·⟩ the mean over it:

        r = (⟨x²⟩ + ε)^(-1/2)      x̂ = r x      y = γ ⊙ x̂

    Backward, with g = γ ⊙ ȳ:

        x̄ = r (g - x̂ ⟨g ⊙ x̂⟩)      γ̄ = Σ ȳ ⊙ x̂

    Derivation. dr = -r² ⟨x̂ ⊙ dx⟩, so dx̂ = r (I - x̂x̂ᵀ/n) dx; that matrix is symmetric. It is layer
    normalization without the centering, and without its ⟨g⟩.

    Saves x, γ (alive anyway) and r (one number a row). At a row of zeros x̂ = 0 and x̄ = ε^(-1/2) g; with
    ε = 0 also x̄ = 0 (autodiff: NaN).
    """
    z = upcast(x)
    r = inverse_root(mean_over(jnp.square(z), -1) + eps)
    return affine(r * z, gain, None).astype(x.dtype), (x, gain, r)


def rms_norm_pullback(
    residuals: tuple[X, Param | None, Stat], y_ct: X, *, eps: float = 1e-6
) -> tuple[X, Factor | None]:
    """x̄ = r (g - x̂ ⟨g ⊙ x̂⟩), and the factor of γ."""
    del eps  # already inside r
    x, gain, r = residuals
    check_cotangent("rms_norm", y_ct, x.shape, x.dtype)
    x_hat = r * upcast(x)
    g, gain_factor, _ = affine_pullback(upcast(y_ct), x_hat, gain, None)
    return scaling_ct(g, x_hat, r, -1).astype(x.dtype), gain_factor


def _rms_norm_reference(x: X, gain: Param | None = None, *, eps: float = 1e-6) -> X:
    y = x / jnp.sqrt(jnp.mean(x**2, axis=-1, keepdims=True) + eps)
    return y if gain is None else y * gain


rms_norm = Rule(
    rms_norm_fwd,
    rms_norm_pullback,
    reference=_rms_norm_reference,
    domain={"x": Normal(), "gain": Normal()},
    points={"row of zeros": Point({"x": 0.0}), "constant row": Point({"x": 3.0})},
    settings=({"eps": 1e-2},),
    formula="y = γ ⊙ x̂, x̂ = x / √(⟨x²⟩ + ε); x̄ = r (g - x̂ ⟨g ⊙ x̂⟩), g = γ ⊙ ȳ",
    saves="x, γ, r",
)


V = Float[Array, "*shape"]


def l2_normalize_fwd(x: V, *, axis: int = -1, eps: float = 0.0) -> tuple[V, tuple[V, V]]:
    """Vectors along `axis`, scaled to unit length.

    Forward:     r = (Σx² + ε)^(-1/2)      y = r x
    Backward:    x̄ = r (ȳ - y Σ(ȳ ⊙ y))

    Derivation. dr = -r² Σ(y ⊙ dx), so dy = r (I - yyᵀ) dx: what is along y does not count (for ε = 0).

    The zero vector has no direction: y = 0 there, and with ε = 0 x̄ = 0 (autodiff: NaN), the mean over all
    directions from which one can come.

    Saves x (alive anyway) and r, one number a vector.
    """
    z = upcast(x)
    r = inverse_root(jnp.sum(jnp.square(z), axis=axis, keepdims=True) + eps)
    return (r * z).astype(x.dtype), (x, r)


def l2_normalize_bwd(residuals: tuple[V, V], y_ct: V, *, axis: int = -1, eps: float = 0.0) -> tuple[V]:
    """x̄ = r (ȳ - y Σ(ȳ ⊙ y))."""
    del eps  # already inside r
    x, r = residuals
    check_cotangent("l2_normalize", y_ct, x.shape, x.dtype)
    return (_unit_ct(upcast(y_ct), r * upcast(x), r, axis).astype(x.dtype),)


def _unit_ct(g: jax.Array, unit: jax.Array, r: jax.Array, axis: int | tuple[int, ...]) -> jax.Array:
    return r * (g - unit * jnp.sum(unit * g, axis=axis, keepdims=True))


l2_normalize = Rule(
    l2_normalize_fwd,
    l2_normalize_bwd,
    reference=lambda x, axis=-1, eps=0.0: x / jnp.sqrt(jnp.sum(x * x, axis=axis, keepdims=True) + eps),
    domain={"x": Normal()},
    points={
        "zero vector": Point(
            {"x": 0.0}, {"x": 0.0}, agrees=False, why="x/‖x‖ is 0/0: 0 here, NaN in JAX", smooth=False
        ),
        "one entry": Point({"x": (2.0, 0.0)}),
    },
    settings=({"axis": 0}, {"eps": 1e-2}),
    formula="y = x / √(Σx² + ε); x̄ = r (ȳ - y Σ(ȳ ⊙ y))",
    saves="x, r",
)


W = Float[Array, "*in out"]
Gain = Float[Array, " out"]


def weight_norm_fwd(v: W, gain: Gain) -> tuple[W, tuple[W, Gain, Gain]]:
    """Weight normalization (Salimans, Kingma 2016, arXiv:1602.07868): length and direction of each unit.

    Forward, for the weights v of one output (all axes but the last):

        v̂ = v / ‖v‖      w = γ v̂

    Backward:

        v̄ = γ/‖v‖ (w̄ - v̂ Σ(v̂ ⊙ w̄))      γ̄ = Σ v̂ ⊙ w̄

    Derivation. d‖v‖ = Σ v̂ ⊙ dv, so dw = v̂ dγ + γ/‖v‖ (I - v̂v̂ᵀ) dv; the projection is symmetric. v̄ is
    orthogonal to v: a gradient step can only lengthen it.

    Where v = 0: w = 0, v̄ = 0 and γ̄ = 0 (autodiff: NaN).

    Saves v, γ (alive anyway) and 1/‖v‖, one number an output.
    """
    z = upcast(v)
    r = inverse_root(jnp.sum(jnp.square(z), axis=_inputs(v)))
    return (upcast(gain) * r * z).astype(v.dtype), (v, gain, r)


def weight_norm_bwd(residuals: tuple[W, Gain, Gain], w_ct: W) -> tuple[W, Gain]:
    """v̄ = γ/‖v‖ (w̄ - v̂ Σ(v̂ ⊙ w̄)), γ̄ = Σ v̂ ⊙ w̄."""
    v, gain, r = residuals
    check_cotangent("weight_norm", w_ct, v.shape, v.dtype)
    unit, ct = r * upcast(v), upcast(w_ct)
    v_ct = upcast(gain) * _unit_ct(ct, unit, r, _inputs(v))
    return v_ct.astype(v.dtype), jnp.sum(unit * ct, axis=_inputs(v)).astype(gain.dtype)


def _inputs(v: W) -> tuple[int, ...]:
    return tuple(range(v.ndim - 1))


def _weight_norm_reference(v: W, gain: Gain) -> W:
    columns = v.reshape(-1, v.shape[-1]) if v.size else v.reshape(0, v.shape[-1])
    return gain * v / jnp.linalg.norm(columns, axis=0)


weight_norm = Rule(
    weight_norm_fwd,
    weight_norm_bwd,
    reference=_weight_norm_reference,
    domain={"v": Normal(), "gain": Normal()},
    points={
        "zero weights": Point(
            {"v": 0.0},
            {"v": 0.0, "gain": 0.0},
            agrees=False,
            why="v/‖v‖ is 0/0: 0 here, NaN in JAX",
            smooth=False,
        )
    },
    formula="w = γ v̂, v̂ = v/‖v‖; v̄ = γ/‖v‖ (w̄ - v̂ Σ(v̂ ⊙ w̄)), γ̄ = Σ v̂ ⊙ w̄",
    saves="v, γ, 1/‖v‖",
)


Matrix = Float[Array, "*batch in out"]
U = Float[Array, "*batch in"]
Right = Float[Array, "*batch out"]
Sigma = Float[Array, "*batch 1 1"]


def spectral_norm_by_vectors_fwd(w: Matrix, u: U, v: Right) -> tuple[Matrix, tuple[Matrix, U, Right, Sigma]]:
    """A matrix over the estimate of its largest singular value that a power iteration's vectors give.

    As `torch.nn.utils.spectral_norm` (Miyato et al. 2018, arXiv:1802.05957), with u and v the state that the
    training loop iterates: v = unit(Wᵀ u), u = unit(W v), once before each step.

    Forward:     σ = uᵀ W v      y = W/σ
    Backward:    w̄ = (ȳ - ⟨ȳ, y⟩ u vᵀ)/σ      ū = v̄ = 0: constants, by choice

    Derivation. With u and v fixed, dσ = uᵀ dW v and dy = dW/σ - y dσ/σ. At the true singular vectors that is
    the whole derivative (they keep length 1, so that how they move does not count): the rule `spectral_norm`.

    Where σ = 0, y = 0 and w̄ = 0 (autodiff: NaN).

    Saves W, u, v (alive anyway) and σ, one number a matrix.
    """
    sigma = jnp.sum(upcast(w) * _rank_one(u, v), axis=(-2, -1), keepdims=True)
    return (upcast(w) * _over(sigma)).astype(w.dtype), (w, u, v, sigma)


def spectral_norm_by_vectors_bwd(
    residuals: tuple[Matrix, U, Right, Sigma], y_ct: Matrix
) -> tuple[Matrix, U, Right]:
    """w̄ = (ȳ - ⟨ȳ, y⟩ u vᵀ)/σ, and 0 for u and v."""
    w, u, v, sigma = residuals
    check_cotangent("spectral_norm_by_vectors", y_ct, w.shape, w.dtype)
    ct, inverse = upcast(y_ct), _over(sigma)
    along = jnp.sum(ct * upcast(w), axis=(-2, -1), keepdims=True) * inverse
    w_ct = inverse * (ct - along * _rank_one(u, v))
    return w_ct.astype(w.dtype), jnp.zeros_like(u), jnp.zeros_like(v)


def _rank_one(u: U, v: Right) -> Matrix:
    # Constants of `primal`, too.
    return lax.stop_gradient(upcast(u)[..., :, None] * upcast(v)[..., None, :])


def _over(sigma: Sigma) -> Sigma:
    """1/σ, and 0 at 0."""
    zero = sigma == 0
    return jnp.where(zero, 0, 1 / jnp.where(zero, 1, sigma))


def _by_vectors_reference(w: Matrix, u: U, v: Right) -> Matrix:
    u, v = lax.stop_gradient((u, v))
    return w / jnp.einsum("...i,...io,...o->...", u, w, v)[..., None, None]


spectral_norm_by_vectors = Rule(
    spectral_norm_by_vectors_fwd,
    spectral_norm_by_vectors_bwd,
    reference=_by_vectors_reference,
    domain={"w": Uniform(0.5, 1.5), "u": Uniform(0.3, 0.6), "v": Uniform(0.3, 0.6)},
    points={
        "zero matrix": Point(
            {"w": 0.0},
            {"w": 0.0, "u": 0.0, "v": 0.0},
            agrees=False,
            why="0/0: 0 here, NaN in JAX",
            smooth=False,
        ),
    },
    formula="y = W/σ, σ = uᵀ W v; w̄ = (ȳ - ⟨ȳ, y⟩ u vᵀ)/σ, ū = v̄ = 0",
    saves="W, u, v, σ",
    surrogate=True,
)
