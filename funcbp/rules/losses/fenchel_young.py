"""Fenchel-Young losses: of scores z against a distribution y, by what the scores predict.

A regularizer Ω over the simplex makes of scores the prediction p(z) = argmax_p ⟨p, z⟩ - Ω(p), and of that
maximum Ω*(z) the loss (Blondel, Martins, Niculae 2020, arXiv:1901.02324):

Forward:     ℓ = Ω*(z) - ⟨y, z⟩
Backward:    z̄ = (p(z) - y) ℓ̄      ȳ = -z ℓ̄
Derivation. dΩ* = ⟨p, dz⟩ (Danskin: that p itself moves does not count at a maximum). Ω(y) is left out, as in
optax: it is constant in z, and 0 where y is one class; with it the loss would be 0 at p = y, its minimum.

A target of 0 at a score of -∞ adds nothing. Saves z and y; p is recomputed.
"""

from collections.abc import Callable, Mapping

import jax
import numpy as np
import optax
from jax import numpy as jnp
from jaxtyping import Array, Float

from ..._numerics import upcast
from ..._rule import Rule
from ...domains import Normal, Point, Simplex
from .._checks import check_cotangent
from .._simplex import above, threshold
from ..activations.softmax import logsumexp, softmax

Scores = Float[Array, "*batch classes"]
Losses = Float[Array, "*batch"]
Function = Callable[[jax.Array], jax.Array]


def make_fenchel_young_loss(
    max_fun: Function,
    argmax: Function,
    *,
    name: str,
    formula: str = "ℓ = Ω*(z) - ⟨y, z⟩; ∂ℓ/∂z = p(z) - y, ∂ℓ/∂y = -z",
    reference: Callable[[jax.Array, jax.Array], jax.Array] | None = None,
    points: Mapping[str, Point] | None = None,
) -> Rule:
    """The rule of a Fenchel-Young loss, as `optax.losses.make_fenchel_young_loss`, which autodiffs `max_fun`.

    That `argmax` is the gradient of `max_fun` is what `funcbp.verify.check_rule` then checks.

    Args:
        max_fun: Ω*, from scores `(*batch, classes)` in float32 or float64 to numbers `(*batch,)`.
        argmax: its gradient p, from the same scores to predictions of their shape, differentiable itself.
        name: of the rule; assign it to that name in the module of `max_fun`.
        formula: for tables.
        reference: `(scores, targets) -> losses` in plain JAX; by default autodiff of `max_fun`.
        points: named points, as of a `Rule`.

    >>> import jax, jax.numpy as jnp
    >>> loss = make_fenchel_young_loss(
    ...     lambda z: jnp.sum(z * z, -1) / 2, lambda z: z, name="squared"
    ... )
    >>> jax.grad(loss)(jnp.array([1.0, 2.0]), jnp.array([0.0, 1.0]))
    Array([1., 1.], dtype=float32)
    """

    def fwd(scores: Scores, targets: Scores) -> tuple[Losses, tuple[Scores, Scores]]:
        z, y = upcast(scores), upcast(targets)
        loss = max_fun(z) - jnp.sum(y * _counted(z, y), axis=-1)
        return loss.astype(scores.dtype), (scores, targets)

    def bwd(residuals: tuple[Scores, Scores], loss_ct: Losses) -> tuple[Scores, Scores]:
        scores, targets = residuals
        check_cotangent(name, loss_ct, scores.shape[:-1], scores.dtype)
        z, y, ct = upcast(scores), upcast(targets), upcast(loss_ct)[..., None]
        return ((argmax(z) - y) * ct).astype(scores.dtype), (-_counted(z, y) * ct).astype(targets.dtype)

    def of_max_fun(scores: Scores, targets: Scores) -> Losses:
        return max_fun(scores) - jnp.einsum("...c,...c->...", targets, scores)

    fwd.__doc__ = f"""Fenchel-Young loss of scores z against targets y, over the last axis.

    Forward and Backward:    {formula}; times ℓ̄

    Derivation. dΩ* = ⟨p, dz⟩, p the maximizer (Danskin). A target of 0 at a score of -∞ adds nothing.

    Saves z and y; p is recomputed.
    """
    for function, kind in ((fwd, "fwd"), (bwd, "bwd")):
        function.__name__, function.__module__ = f"{name}_{kind}", max_fun.__module__
    return Rule(
        fwd,
        bwd,
        reference=reference or of_max_fun,
        domain={"scores": Normal(2.0), "targets": Simplex()},
        points=points,
        formula=formula,
        saves="z, y",
    )


def _counted(z: jax.Array, y: jax.Array) -> jax.Array:
    """z, but 0 where a target of 0 meets -∞."""
    return jnp.where((y == 0) & (z == -jnp.inf), 0, z)


def _log_partition(z: jax.Array) -> jax.Array:
    return logsumexp.primal(z, axis=-1)


def _sparsemax(z: jax.Array) -> jax.Array:
    return above(z, threshold(z))


def _sparse_maximum(z: jax.Array) -> jax.Array:
    p = _sparsemax(z)
    # A score of -∞ has p = 0.
    return jnp.sum(p * jnp.where(p > 0, z, 0), axis=-1) + (1 - jnp.sum(p * p, axis=-1)) / 2


def _sparse_reference(scores: Scores, targets: Scores) -> Losses:
    # Without sorting: class j has p > 0 if all the others exceed it by less than 1 together.
    excess = jnp.sum(jax.nn.relu(scores[..., None, :] - scores[..., :, None]), axis=-1)
    support = excess < 1
    tau = (jnp.sum(scores, axis=-1, where=support) - 1) / jnp.sum(support, axis=-1)
    largest = (1 + jnp.sum(scores**2 - tau[..., None] ** 2, axis=-1, where=support)) / 2
    return largest - jnp.einsum("...c,...c->...", targets, scores)


def _optax(scores: Scores, targets: Scores) -> Losses:
    return optax.losses.make_fenchel_young_loss(jax.nn.logsumexp)(scores, targets)


def _first(value: float, others: float = 0.0) -> Callable[[tuple[int, ...]], np.ndarray]:
    """A value for the first class of every row."""
    return lambda shape: np.broadcast_to(np.where(np.arange(shape[-1]) == 0, value, others), shape)


_CERTAIN = Point({"scores": _first(1e4), "targets": _first(1.0)}, {"scores": 0.0})
_IMPOSSIBLE = Point(
    {"scores": _first(0.0, -float("inf")), "targets": _first(1.0)},
    {"scores": 0.0, "targets": 0.0},
    agrees=False,
    why="0 · ∞ is 0 here; NaN otherwise",
    smooth=False,
)

softmax_fenchel_young_loss = make_fenchel_young_loss(
    _log_partition,
    softmax.primal,
    name="softmax_fenchel_young_loss",
    formula="ℓ = log Σ e^z - ⟨y, z⟩; ∂ℓ/∂z = softmax(z) - y, ∂ℓ/∂y = -z",
    reference=_optax,
    points={
        "equal scores": Point({"scores": 2.0}),
        "certain": _CERTAIN,
        "impossible, never seen": _IMPOSSIBLE,
    },
)
sparsemax_fenchel_young_loss = make_fenchel_young_loss(
    _sparse_maximum,
    _sparsemax,
    name="sparsemax_fenchel_young_loss",
    formula="ℓ = ⟨p, z⟩ + ½ (1 - ⟨p, p⟩) - ⟨y, z⟩, p = sparsemax(z); ∂ℓ/∂z = p - y, ∂ℓ/∂y = -z",
    reference=_sparse_reference,
    points={
        "equal scores": Point({"scores": 2.0}),
        "certain": _CERTAIN,
        "impossible, never seen": _IMPOSSIBLE,
    },
)
