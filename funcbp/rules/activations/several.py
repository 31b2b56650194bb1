"""Activations of more than one array, or of several entries: prelu, maxout, logaddexp."""

import jax
import numpy as np
from jax import numpy as jnp
from jaxtyping import Array, Float

from ..._numerics import upcast
from ..._rule import Rule
from ...domains import Distinct, Normal, Point
from ...factors import Elementwise, Factor
from .._checks import check_cotangent
from .elementwise import sigmoid

X = Float[Array, "*shape"]
P = Float[Array, "*batch features"]
Slope = Float[Array, " features"]
Pieces = Float[Array, "*batch pieces"]
Largest = Float[Array, "*batch"]


def prelu_fwd(p: P, slope: Slope) -> tuple[P, tuple[P, Slope]]:
    """Leaky relu whose slope left of 0 is learned, one for each feature (He et al. 2015, arXiv:1502.01852).

    Forward:     q = p if p ≥ 0 else κ p
    Backward:    p̄ = q̄ if p ≥ 0 else κ q̄      κ̄ = Σ min(p, 0) ⊙ q̄, over all leading axes

    Derivation. Left of 0, dq = κ dp + p dκ; elsewhere dq = dp.

    At 0 the slope is 1, as that of jax.nn.leaky_relu.

    Saves p and κ: κ may be of either sign, or 0, so that p cannot be read off q.
    """
    x = upcast(p)
    return jnp.where(x >= 0, x, upcast(slope) * x).astype(p.dtype), (p, slope)


def prelu_pullback(residuals: tuple[P, Slope], q_ct: P) -> tuple[P, Factor]:
    """p̄ = q̄ if p ≥ 0 else κ q̄, and the factor of κ."""
    p, slope = residuals
    check_cotangent("prelu", q_ct, p.shape, p.dtype)
    ct = upcast(q_ct)
    p_ct = jnp.where(p >= 0, ct, upcast(slope) * ct).astype(p.dtype)
    return p_ct, Elementwise(jnp.where(p >= 0, 0, p), q_ct)


prelu = Rule(
    prelu_fwd,
    prelu_pullback,
    reference=lambda p, slope: jax.nn.leaky_relu(p, slope),
    domain={"p": Normal(2.0), "slope": Normal()},
    points={"kink at 0": Point({"p": 0.0}, {"p": 1.0, "slope": 0.0}, smooth=False)},
    formula="q = p if p ≥ 0 else κ p; κ̄ = Σ min(p, 0) ⊙ q̄",
    saves="p, κ",
)


def maxout_fwd(p: Pieces) -> tuple[Largest, tuple[Pieces, Largest]]:
    """The largest of several pieces, the last axis (Goodfellow et al. 2013, arXiv:1302.4389).

    Forward:     q = max_k p_k
    Backward:    p̄_k = [p_k = q] q̄ / (number of k with p_k = q)

    Derivation. Around p all but the largest piece are smaller: dq = dp_k.

    Where several are largest they share q̄ equally, as in JAX: the least of the subgradients.

    Saves p and q.

    Raises:
        ValueError: for no pieces at all.
    """
    if not p.shape[-1]:
        raise ValueError(f"maxout: `p` has shape {p.shape}, the last axis of which must be at least 1.")
    q = jnp.max(p, axis=-1)
    return q, (p, q)


def maxout_bwd(residuals: tuple[Pieces, Largest], q_ct: Largest) -> tuple[Pieces]:
    """p̄_k = [p_k = q] q̄ / (number of them)."""
    p, q = residuals
    check_cotangent("maxout", q_ct, q.shape, q.dtype)
    largest = p == q[..., None]
    share = upcast(q_ct)[..., None] / jnp.sum(largest, axis=-1, keepdims=True)
    return (jnp.where(largest, share, 0).astype(p.dtype),)


maxout = Rule(
    maxout_fwd,
    maxout_bwd,
    reference=lambda p: jnp.max(p, axis=-1),
    domain={"p": Distinct()},
    points={
        "all equal": Point(
            {"p": 3.0}, {"p": lambda shape: np.full(shape, 1 / max(shape[-1], 1))}, smooth=False
        ),
        "two largest": Point(
            {"p": (1.0, 1.0, 0.0, 0.0, 0.0)}, {"p": (0.5, 0.5, 0.0, 0.0, 0.0)}, smooth=False
        ),
    },
    formula="q = max p; p̄ = [p = q] q̄ / (number of ties)",
    saves="p, q",
)


def logaddexp_fwd(x1: X, x2: X) -> tuple[X, tuple[X, X]]:
    """log(eˣ¹ + eˣ²), elementwise, as jnp.logaddexp.

    Forward:     q = max(x₁, x₂) + log(1 + e^(-|x₁ - x₂|))
    Backward:    x̄₁ = s q̄, s = 1 / (1 + e^(x₂ - x₁))      x̄₂ = (1 - s) q̄

    Derivation. dq = (eˣ¹ dx₁ + eˣ² dx₂) / (eˣ¹ + eˣ²).

    If both are -∞, q = -∞ and both cotangents are 0, as in logsumexp; jnp.logaddexp gives NaN for them.

    Saves x₁ and x₂.
    """
    difference, nothing = _difference(x1, x2)
    larger = jnp.where(nothing, -jnp.inf, jnp.where(difference > 0, upcast(x1), upcast(x2)))
    smaller_term = jnp.exp(jnp.where(difference > 0, -difference, difference))
    return (larger + jnp.log1p(smaller_term)).astype(x1.dtype), (x1, x2)


def logaddexp_bwd(residuals: tuple[X, X], q_ct: X) -> tuple[X, X]:
    """x̄₁ = s q̄, x̄₂ = (1 - s) q̄."""
    x1, x2 = residuals
    check_cotangent("logaddexp", q_ct, x1.shape, x1.dtype)
    difference, nothing = _difference(x1, x2)
    ct = jnp.where(nothing, 0, upcast(q_ct))
    # 1 - s as the s of the opposite difference: nothing cancels.
    first, second = sigmoid.primal(difference) * ct, sigmoid.primal(-difference) * ct
    return first.astype(x1.dtype), second.astype(x2.dtype)


def _difference(x1: X, x2: X) -> tuple[jax.Array, jax.Array]:
    """x₁ - x₂, 0 where both are -∞; and where that is."""
    nothing = (x1 == -jnp.inf) & (x2 == -jnp.inf)
    return jnp.where(nothing, 0, upcast(x1) - upcast(x2)), nothing


_NOTHING = -float("inf")

logaddexp = Rule(
    logaddexp_fwd,
    logaddexp_bwd,
    reference=jnp.logaddexp,
    domain={"x1": Normal(2.0), "x2": Normal(2.0)},
    points={
        "equal": Point({"x1": 3.0, "x2": 3.0}, {"x1": 0.5, "x2": 0.5}),
        "far apart": Point({"x1": 1e4, "x2": 0.0}, {"x1": 1.0, "x2": 0.0}),
        "one term": Point({"x2": _NOTHING}, {"x1": 1.0, "x2": 0.0}),
        "no term": Point(
            {"x1": _NOTHING, "x2": _NOTHING},
            {"x1": 0.0, "x2": 0.0},
            agrees=False,
            why="jnp.logaddexp gives NaN",
            smooth=False,
        ),
    },
    formula="q = log(eˣ¹ + eˣ²); x̄₁ = q̄ / (1 + e^(x₂ - x₁))",
    saves="x₁, x₂",
)
