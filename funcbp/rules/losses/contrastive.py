"""Losses that compare embeddings with each other."""

import jax
from jax import numpy as jnp
from jaxtyping import Array, Float, Int

from ... import _numerics
from ..._numerics import upcast
from ..._rule import Rule
from ...domains import Integers, Normal, Point
from .._checks import check_cotangent
from ._shared import check_axis, log_partition, without_axis
from .cosine import unit, unit_bwd

X = Float[Array, "*shape"]


def triplet_margin_loss_fwd(
    anchors: X,
    positives: X,
    negatives: X,
    *,
    axis: int = -1,
    norm_degree: float = 2.0,
    margin: float = 1.0,
    eps: float = 1e-6,
) -> tuple[X, tuple[X, X, X, X, X]]:
    """By how much a positive is not nearer to its anchor than a negative by the margin.

    As `optax.losses.triplet_margin_loss` (Balntas et al. 2016); but the distance is of |a - b|, of which
    optax leaves out the bars: for an odd `norm_degree` its distance is none.

    Forward, with d(u) = (Σ |u|^k + ε)^(1/k), k = `norm_degree`, d₊ = d(a - p), d₋ = d(a - n):

        ℓ = max(d₊ - d₋ + margin, 0)

    Backward, with δ = ℓ̄ where ℓ > 0, else 0, and g(u) = sign(u) (|u| / d)^(k-1):

        p̄ = -g(a - p) δ      n̄ = g(a - n) δ      ā = -p̄ - n̄

    Derivation. d^(k-1) dd = Σ |u|^(k-1) sign(u) du. At the kink ℓ = 0 the example is right: no gradient. At
    ε = 0 the distance 0 has the derivative 0, and so has |u| at 0 for k = 1.

    Saves a, p, n and d₊, d₋ (one number an example each).
    """
    check_axis("triplet_margin_loss", axis, anchors)
    if norm_degree < 1:
        raise ValueError(
            f"triplet_margin_loss: static option `norm_degree` must be at least 1 (else it is no norm), "
            f"got {norm_degree}."
        )
    a, p, n = upcast(anchors), upcast(positives), upcast(negatives)
    near, far = (_distance(a - other, axis, norm_degree, eps) for other in (p, n))
    gap = near - far + margin
    loss = jnp.squeeze(jnp.where(gap > 0, gap, 0), axis)
    return loss.astype(anchors.dtype), (anchors, positives, negatives, near, far)


def triplet_margin_loss_bwd(
    residuals: tuple[X, X, X, X, X],
    loss_ct: X,
    *,
    axis: int = -1,
    norm_degree: float = 2.0,
    margin: float = 1.0,
    eps: float = 1e-6,
) -> tuple[X, X, X]:
    """p̄ = -g(a - p) δ, n̄ = g(a - n) δ, ā = -p̄ - n̄."""
    del eps  # already inside the distances
    anchors, positives, negatives, near, far = residuals
    check_cotangent("triplet_margin_loss", loss_ct, without_axis(anchors.shape, axis), anchors.dtype)
    a = upcast(anchors)
    delta = jnp.where(near - far + margin > 0, jnp.expand_dims(upcast(loss_ct), axis), 0)
    to_near = _slope(a - upcast(positives), near, norm_degree) * delta
    to_far = _slope(a - upcast(negatives), far, norm_degree) * delta
    return (
        (to_near - to_far).astype(anchors.dtype),
        (-to_near).astype(positives.dtype),
        to_far.astype(negatives.dtype),
    )


def _size(u: jax.Array) -> jax.Array:
    """|u|, with the slope 0 at 0."""
    return u * jnp.sign(u)


def _distance(u: jax.Array, axis: int, degree: float, eps: float) -> jax.Array:
    # The inner `where` keeps the derivative of the power at 0 out of the way.
    powers = jnp.where(u == 0, 0, jnp.where(u == 0, 1, _size(u)) ** degree)
    total = jnp.sum(powers, axis=axis, keepdims=True) + eps
    return jnp.where(total == 0, 0, jnp.where(total == 0, 1, total) ** (1 / degree))


def _slope(u: jax.Array, distance: jax.Array, degree: float) -> jax.Array:
    ratio = u / jnp.where(distance == 0, 1, distance)
    if degree == 2:
        return ratio
    return jnp.where(u == 0, 0, jnp.sign(u) * jnp.where(u == 0, 1, _size(ratio)) ** (degree - 1))


def _triplet_reference(
    anchors: X,
    positives: X,
    negatives: X,
    *,
    axis: int = -1,
    norm_degree: float = 2.0,
    margin: float = 1.0,
    eps: float = 1e-6,
) -> X:
    def distance(u: X) -> X:
        return jnp.power(jnp.power(jnp.abs(u), norm_degree).sum(axis) + eps, 1 / norm_degree)

    return jax.nn.relu(distance(anchors - positives) - distance(anchors - negatives) + margin)


triplet_margin_loss = Rule(
    triplet_margin_loss_fwd,
    triplet_margin_loss_bwd,
    reference=_triplet_reference,
    domain={"anchors": Normal(), "positives": Normal(), "negatives": Normal()},
    points={
        "positive is the anchor": Point({"anchors": 2.0, "positives": 2.0}, {"positives": 0.0}),
        "right by far": Point(
            {"anchors": 0.0, "positives": 1.0, "negatives": 1e3},
            {"anchors": 0.0, "positives": 0.0, "negatives": 0.0},
        ),
    },
    settings=({"axis": 0}, {"norm_degree": 3.0}, {"margin": 0.2, "eps": 0.1}),
    formula="ℓ = max(d(a - p) - d(a - n) + margin, 0); ∂d/∂u = sign(u) (|u| / d)^(k-1)",
    saves="a, p, n, d(a - p), d(a - n)",
)


Embeddings = Float[Array, "batch features"]
Labels = Int[Array, " batch"]
Scalar = Float[Array, ""]
Similarities = Float[Array, "batch batch"]


def ntxent_fwd(
    embeddings: Embeddings, labels: Labels, *, temperature: float = 0.07
) -> tuple[Scalar, tuple[Embeddings, Labels, Similarities]]:
    """Normalized temperature-scaled cross-entropy: each of a class is to find the others of it.

    As `optax.losses.ntxent` (Chen et al. 2020, arXiv:2002.05709): one value for the whole batch, whose
    examples it couples, the mean over all N ordered pairs (i, j) of one label.

    Forward, with x̂ = x / ‖x‖, S = X̂ X̂ᵀ / t, Dᵢ = Σ e^(Sᵢₖ) over the k of another label, uᵢⱼ = log Dᵢ - Sᵢⱼ:

        ℓ = 1/N Σ log(1 + e^(uᵢⱼ))      over the pairs

    Backward:

        S̄ᵢⱼ = -σ(uᵢⱼ) ℓ̄/N for a pair      S̄ᵢₖ = e^(Sᵢₖ) / Dᵢ Σⱼ σ(uᵢⱼ) ℓ̄/N for another label
        g = (S̄ + S̄ᵀ) X̂ / t                 x̄ = (g - x̂ ⟨x̂, g⟩) / ‖x‖

    Derivation. dℓ = 1/N Σ σ(uᵢⱼ) (d log Dᵢ - dSᵢⱼ), d log Dᵢ = Σₖ e^(Sᵢₖ) / Dᵢ dSᵢₖ, and dS = (dX̂ X̂ᵀ + X̂ dX̂ᵀ)
    / t, of which both terms give the same.

    Without a pair value and gradient are 0 (optax divides 0 by 0); an embedding of zeros has the gradient 0.

    Saves x, the labels and S: 2 products of matrices in all, where autodiff has 3.
    """
    if not temperature > 0:
        raise ValueError(f"ntxent: static option `temperature` must be positive, got {temperature}.")
    x_hat, _, _ = unit(upcast(embeddings), -1)
    similarities = _numerics.matmul(x_hat, x_hat.T) / temperature
    pairs, u, _ = _pairs(similarities, labels)
    loss = jnp.sum(jnp.logaddexp(u, 0), where=pairs) / jnp.maximum(jnp.sum(pairs), 1)
    return loss.astype(embeddings.dtype), (embeddings, labels, similarities)


def ntxent_bwd(
    residuals: tuple[Embeddings, Labels, Similarities], loss_ct: Scalar, *, temperature: float = 0.07
) -> tuple[Embeddings, None]:
    """x̄ = (g - x̂ ⟨x̂, g⟩) / ‖x‖ with g = (S̄ + S̄ᵀ) X̂ / temperature."""
    embeddings, labels, similarities = residuals
    check_cotangent("ntxent", loss_ct, (), embeddings.dtype)
    x = upcast(embeddings)
    pairs, u, softmax = _pairs(similarities, labels)
    share = jnp.where(pairs, jax.nn.sigmoid(u), 0)
    s_ct = softmax * jnp.sum(share, axis=1, keepdims=True) - share
    s_ct = s_ct * (upcast(loss_ct) / (temperature * jnp.maximum(jnp.sum(pairs), 1)))
    g = _numerics.matmul(s_ct + s_ct.T, unit(x, -1)[0])
    return unit_bwd(x, g, -1).astype(embeddings.dtype), None


def _pairs(similarities: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The pairs (i, j) of one label; log Dᵢ - Sᵢⱼ; e^(Sᵢₖ) / Dᵢ where k is of another label, else 0."""
    same = labels[:, None] == labels[None, :]
    s, top, total = log_partition(similarities, 1, ~same)
    u = top + jnp.log(total) - similarities
    # Where nothing is of another label, D is 0.
    u = jnp.where(jnp.all(same, axis=1, keepdims=True), -jnp.inf, u)
    return same & ~jnp.eye(len(labels), dtype=bool), u, jnp.exp(s) / total


def _ntxent_reference(embeddings: Embeddings, labels: Labels, *, temperature: float = 0.07) -> Scalar:
    unit_rows = embeddings / jnp.sqrt(jnp.sum(embeddings**2, axis=1, keepdims=True))
    s = jnp.einsum("if,jf->ij", unit_rows, unit_rows) / temperature
    same = labels[:, None] == labels[None, :]
    pairs = same & ~jnp.eye(len(labels), dtype=bool)
    d = jax.nn.logsumexp(jnp.where(same, -1e9, s), axis=1, keepdims=True)
    return jnp.mean(jnp.logaddexp(d, s) - s, where=pairs)


ntxent = Rule(
    ntxent_fwd,
    ntxent_bwd,
    reference=_ntxent_reference,
    domain={"embeddings": Normal(), "labels": Integers(0, 2)},
    points={
        "one label": Point({"labels": 0.0}, {"embeddings": 0.0}),
    },
    settings=({"temperature": 0.5},),
    formula="ℓ = 1/N Σ log(1 + e^(log Dᵢ - Sᵢⱼ)) over pairs, S = X̂ X̂ᵀ / t; ∂ℓ/∂X̂ = (S̄ + S̄ᵀ) X̂ / t",
    saves="x, labels, S",
)
