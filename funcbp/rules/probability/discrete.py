"""Log-probabilities of counts and classes, and entropies."""

import jax
from jax import numpy as jnp
from jax.scipy import special, stats
from jaxtyping import Array, Float, Int

from ..._numerics import upcast
from ..._rule import Rule
from ...domains import Integers, Normal, Point, Positive, Simplex, Uniform
from .._checks import check_cotangent
from ._density import density, ratio
from ._gamma import log_gamma

X = Float[Array, "*shape"]
K = Int[Array, "*shape"]
Labels = Int[Array, "*batch"]
Values = Float[Array, "*batch"]
Row = Float[Array, "*batch classes"]
_INFINITY = float("inf")


def _bernoulli_logpmf(k: K, p: X) -> X:
    """Success (1) with probability p, as `jax.scipy.stats.bernoulli.logpmf`; -∞ for any other k than 0 and 1.

    At p = 0 and 1 the slope of the possible outcome is finite, -1 and 1.
    """
    return jnp.where(k == 1, jnp.log(p), jnp.where(k == 0, jnp.log1p(-p), -jnp.inf))


def _bernoulli_score(k: K, p: X) -> tuple[X]:
    return (jnp.where(k == 1, 1 / p, jnp.where(k == 0, -1 / (1 - p), 0)),)


bernoulli_logpmf = density(
    _bernoulli_logpmf,
    _bernoulli_score,
    value="log p if k = 1, log(1 - p) if k = 0",
    scores="∂p = 1/p if k = 1, -1/(1 - p) if k = 0",
    reference=stats.bernoulli.logpmf,
    domain={"k": Integers(0, 2), "p": Uniform(0.05, 0.95)},
    points={
        "certain failure": Point(
            {"k": 0.0, "p": 0.0}, {"p": -1.0}, agrees=False, why="0 log 0 has no slope; JAX gives NaN"
        ),
        "certain success": Point(
            {"k": 1.0, "p": 1.0}, {"p": 1.0}, agrees=False, why="0 log 0 has no slope; JAX gives NaN"
        ),
    },
)


def _poisson_logpmf(k: K, log_rate: X) -> X:
    """Counts with the rate λ = e^η, from η; -∞ for a negative k. As `jax.scipy.stats.poisson.logpmf(k, e^η)`.

    At η = -∞ no count is certain: ℓ = 0 and its slope 0.
    """
    log_factorial = log_gamma(jnp.where(k < 0, 0, k) + jnp.ones_like(log_rate))
    inside = jnp.where(k > 0, k * log_rate, 0) - jnp.exp(log_rate) - log_factorial
    return jnp.where(k < 0, -jnp.inf, inside)


poisson_logpmf = density(
    _poisson_logpmf,
    lambda k, log_rate: (jnp.where(k < 0, 0, k - jnp.exp(log_rate)),),
    value="k η - e^η - log k!",
    scores="∂η = k - e^η",
    reference=lambda k, log_rate: stats.poisson.logpmf(k, jnp.exp(log_rate)),
    domain={"k": Integers(0, 6), "log_rate": Normal()},
    points={
        "no events": Point({"k": 0.0, "log_rate": 0.0}, {"log_rate": -1.0}),
        "zero rate": Point(
            {"k": 0.0, "log_rate": -_INFINITY}, {"log_rate": 0.0}, agrees=False, why="JAX gives 0 · ∞ = NaN"
        ),
    },
)


def categorical_logpmf_fwd(k: Labels, p: Row) -> tuple[Values, tuple[Labels, Row]]:
    """The log-probability of class k, from probabilities over the last axis (of logits it is minus the loss
    `softmax_cross_entropy_with_integer_labels`).

    Forward:     ℓ = log p_k
    Backward:    p̄ = e_k ℓ̄ / p_k

    Derivation. dℓ = dp_k / p_k: the probabilities are free numbers, that they sum to one is the business of
    what makes them. A class outside [0, classes) is impossible, ℓ = -∞ and p̄ = 0; one with p_k = 0 as well,
    but its cotangent is infinite.

    Saves k and p, both alive anyway.
    """
    index, inside = _inside(k, p.shape[-1])
    picked = jnp.take_along_axis(upcast(p), index[..., None], axis=-1, mode="clip")[..., 0]
    return jnp.where(inside, jnp.log(picked), -jnp.inf).astype(p.dtype), (k, p)


def categorical_logpmf_bwd(residuals: tuple[Labels, Row], value_ct: Values) -> tuple[None, Row]:
    """p̄ = e_k ℓ̄ / p_k; classes have no cotangent."""
    k, p = residuals
    check_cotangent("categorical_logpmf", value_ct, k.shape, p.dtype)
    e_k = _inside(k, p.shape[-1])[0][..., None] == jnp.arange(p.shape[-1])
    # Divided where selected only: other classes may have probability 0.
    return None, jnp.where(e_k, upcast(value_ct)[..., None] / jnp.where(e_k, upcast(p), 1), 0).astype(p.dtype)


def _inside(k: jax.Array, classes: int) -> tuple[jax.Array, jax.Array]:
    k = k.astype(jnp.promote_types(k.dtype, jnp.int32))
    return k, (k >= 0) & (k < classes)


def _one_hot(k: Labels, p: Row) -> jax.Array:
    return jax.nn.one_hot(k, p.shape[-1], dtype=bool)


categorical_logpmf = Rule(
    categorical_logpmf_fwd,
    categorical_logpmf_bwd,
    reference=lambda k, p: jnp.log(jnp.sum(jnp.where(_one_hot(k, p), p, 0), -1)),
    domain={"k": Integers(0, "classes"), "p": Simplex()},
    points={
        "other classes impossible": Point(
            {"k": 0.0, "p": (1.0, 0.0, 0.0, 0.0, 0.0)}, {"p": (1.0, 0.0, 0.0, 0.0, 0.0)}
        ),
        "not normalized": Point({"k": 1.0, "p": 2.0}),
    },
    sizes=({"classes": 5},),
    formula="ℓ = log p_k; p̄ = e_k ℓ̄ / p_k",
    saves="k, p",
)


def categorical_entropy_fwd(p: Row) -> tuple[Values, Row]:
    """The entropy of probabilities over the last axis, in nats.

    Forward:     H = -Σ p log p      with 0 log 0 = 0
    Backward:    p̄ = -(1 + log p) H̄,      0 where p = 0

    Derivation. d(p log p) = (1 + log p) dp. At p = 0 the slope is infinite; it is set to 0 there, the limit
    of p ⊙ p̄, which is what any parametrization by logits receives of it (∞ would give 0 · ∞ = NaN there).

    Saves p, alive anyway.
    """
    return jnp.sum(special.entr(upcast(p)), -1).astype(p.dtype), p


def categorical_entropy_bwd(residuals: Row, entropy_ct: Values) -> tuple[Row]:
    """p̄ = -(1 + log p) H̄, 0 where p = 0."""
    check_cotangent("categorical_entropy", entropy_ct, residuals.shape[:-1], residuals.dtype)
    p = upcast(residuals)
    slope = jnp.where(p == 0, 0, -(1 + jnp.log(jnp.where(p == 0, 1, p))))
    return ((slope * upcast(entropy_ct)[..., None]).astype(residuals.dtype),)


categorical_entropy = Rule(
    categorical_entropy_fwd,
    categorical_entropy_bwd,
    reference=lambda p: -jnp.einsum("...c,...c->...", p, jnp.log(p)),
    domain={"p": Simplex()},
    points={
        "one class certain": Point(
            {"p": (1.0, 0.0, 0.0, 0.0, 0.0)},
            {"p": (-1.0, 0.0, 0.0, 0.0, 0.0)},
            agrees=False,
            why="the slope at p = 0 is infinite, 0 is the limit of p times it; JAX gives NaN",
        )
    },
    sizes=({"classes": 5},),
    formula="H = -Σ p log p; p̄ = -(1 + log p) H̄, 0 at p = 0",
    saves="p",
)


def dirichlet_logpdf_fwd(x: Row, alpha: Row) -> tuple[Values, tuple[Row, Row]]:
    """The Dirichlet distribution over the last axis (`jax.scipy.stats.dirichlet` has it first).

    Forward:     ℓ = Σ ((α - 1) log x - log Γ(α)) + log Γ(Σα)      with 0 log 0 = 0
    Backward:    x̄ = (α - 1)/x ℓ̄      ᾱ = (log x - ψ(α) + ψ(Σα)) ℓ̄

    Derivation. d log Γ(a) = ψ(a) da, the digamma function. x is taken as free numbers: that they sum to one
    is the business of what makes them.

    Saves x and α, both alive anyway.
    """
    y, a = upcast(x), upcast(alpha)
    terms = special.xlogy(a - 1, y) - log_gamma(a)
    return (jnp.sum(terms, -1) + log_gamma(jnp.sum(a, -1))).astype(x.dtype), (x, alpha)


def dirichlet_logpdf_bwd(residuals: tuple[Row, Row], value_ct: Values) -> tuple[Row, Row]:
    """x̄ = (α - 1)/x ℓ̄, ᾱ = (log x - ψ(α) + ψ(Σα)) ℓ̄."""
    x, alpha = residuals
    check_cotangent("dirichlet_logpdf", value_ct, x.shape[:-1], x.dtype)
    y, a, ct = upcast(x), upcast(alpha), upcast(value_ct)[..., None]
    a_ct = (jnp.log(y) - special.digamma(a) + special.digamma(jnp.sum(a, -1, keepdims=True))) * ct
    return (ratio(a - 1, y) * ct).astype(x.dtype), a_ct.astype(alpha.dtype)


def _dirichlet_reference(x: Row, alpha: Row) -> Values:
    log_beta = jnp.sum(special.gammaln(alpha), -1) - special.gammaln(jnp.sum(alpha, -1))
    return jnp.einsum("...c,...c->...", alpha - 1, jnp.log(x)) - log_beta


dirichlet_logpdf = Rule(
    dirichlet_logpdf_fwd,
    dirichlet_logpdf_bwd,
    reference=_dirichlet_reference,
    domain={"x": Simplex(), "alpha": Positive()},
    points={
        "flat at a corner": Point(
            {"x": (1.0, 0.0, 0.0), "alpha": 1.0},
            {"x": 0.0},
            agrees=False,
            why="the slope of 0 log x is 0; JAX gives NaN",
        )
    },
    formula="ℓ = Σ ((α - 1) log x - log Γ(α)) + log Γ(Σα); x̄ = (α - 1)/x, ᾱ = log x - ψ(α) + ψ(Σα)",
    saves="x, α",
)
