"""Sums over all paths of a chain of states: hidden Markov models and linear-chain conditional random fields.

Forward, in logarithms, over the steps t of a row:     α_t(j) = b_t(j) + log Σ_i e^(α_(t-1)(i) + A_ij)
Value:                                                 log Z = log Σ_j e^(α_T(j))
Backward, from γ_T = softmax(α_T):                     ξ_t(i, j) = γ_t(j) P_t(i | j)
                                                       γ_(t-1)(i) = Σ_j ξ_t(i, j)

with P_t(i | j) = e^(α_(t-1)(i) + A_ij) / Σ_i′ e^(α_(t-1)(i′) + A_i′j), the posterior of the state before.

Derivation. dα_t(j) = db_t(j) + Σ_i P_t(i | j) (dα_(t-1)(i) + dA_ij): the δ's of this recurrence are the
posteriors, γ_t of the states and ξ_t of the transitions, so ∂log Z/∂b_t = γ_t, ∂log Z/∂A = Σ_t ξ_t. This is
the backward half of the forward-backward algorithm, with its β divided out (Eisner 2016, "Inside-outside and
forward-backward algorithms are just backprop"). Where no path arrives, all of a column -∞, P is 0: impossible
transitions and states make no NaN. Only α is kept; ξ is added up step by step, never held for all of them.
"""

import dataclasses
from typing import Any

import jax
import numpy as np
from jax import lax
from jax import numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ..._numerics import accumulator, upcast
from ..._rule import Rule
from ...domains import Booleans, Integers, Normal, Point
from .._checks import check_cotangent
from .._specs import Spec

Steps = Float[Array, "*batch time states"]
Transition = Float[Array, "states states"]
Initial = Float[Array, " states"]
Mask = Bool[Array, "*batch time"]
Tags = Int[Array, "*batch time"]
Values = Float[Array, "*batch"]
Alphas = Float[Array, "time *batch states"]
Residuals = tuple[Spec, Transition, Alphas, Mask | None]
_IMPOSSIBLE = -float("inf")


def _logsumexp(x: jax.Array, axis: int) -> jax.Array:
    top = lax.stop_gradient(jnp.max(x, axis, keepdims=True))
    top = jnp.where(jnp.isfinite(top), top, 0)
    return jnp.log(jnp.sum(jnp.exp(x - top), axis)) + jnp.squeeze(top, axis)


def _posterior(x: jax.Array, axis: int) -> jax.Array:
    """Softmax, 0 where all are -∞."""
    top = lax.stop_gradient(jnp.max(x, axis, keepdims=True))
    e = jnp.exp(x - jnp.where(jnp.isfinite(top), top, 0))
    total = jnp.sum(e, axis, keepdims=True)
    return e / jnp.where(total == 0, 1, total)


def _time_first(x: jax.Array, axis: int) -> jax.Array:
    return jnp.moveaxis(x, axis, 0)


def _kept(rule: str, shape: tuple[int, ...], mask: jax.Array | None) -> jax.Array:
    """Which steps count, time first, with an axis for the states: the first one always does."""
    if shape[-2] == 0:
        raise ValueError(f"{rule}: there are no time steps (shape {shape}); give at least one.")
    if mask is None:
        return jnp.ones((shape[-2], *(1,) * (len(shape) - 1)), bool)
    return _time_first(mask, -1)[..., None]


def _forward(
    initial: jax.Array, transition: jax.Array, steps: jax.Array, kept: jax.Array
) -> tuple[Values, Alphas]:
    def step(alpha: jax.Array, at: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        b, counts = at
        moved = b + _logsumexp(alpha[..., None] + transition, -2)
        alpha = jnp.where(counts, moved, alpha)
        return alpha, alpha

    b = _time_first(upcast(steps), -2)
    first = initial + b[0]
    last, later = lax.scan(step, first, (b[1:], kept[1:]))
    return _logsumexp(last, -1), jnp.concatenate([first[None], later])


def _backward(
    transition: jax.Array, alphas: Alphas, kept: jax.Array, ct: Values
) -> tuple[Initial, Transition, Steps]:
    """γ_0 and ξ summed over the rows, and γ of every step that counts, all times the cotangent of log Z."""
    batch = tuple(range(ct.ndim))

    def step(carry: tuple[jax.Array, jax.Array], at: tuple[jax.Array, jax.Array]) -> tuple[Any, jax.Array]:
        gamma, total = carry
        before, counts = at
        xi = gamma[..., None, :] * _posterior(before[..., None] + transition, -2)
        xi = jnp.where(counts[..., None], xi, 0)
        earlier = jnp.where(counts, jnp.sum(xi, -1), gamma)
        return (earlier, total + jnp.sum(xi, batch)), jnp.where(counts, gamma, 0)

    last = _posterior(alphas[-1], -1) * ct[..., None]
    (first, total), later = lax.scan(
        step, (last, jnp.zeros_like(transition)), (alphas[:-1], kept[1:]), reverse=True
    )
    return jnp.sum(first, batch), total, jnp.moveaxis(jnp.concatenate([first[None], later]), 0, -2)


def hmm_log_likelihood_fwd(
    log_initial: Initial, log_transition: Transition, log_emission: Steps, mask: Mask | None = None
) -> tuple[Values, Residuals]:
    """The log-likelihood of observations under a hidden Markov model, summed over all paths of hidden states.

    Forward:     α_0 = π + b_0     α_t(j) = b_t(j) + log Σ_i e^(α_(t-1)(i) + A_ij)     ℓ = log Σ_j e^(α_T(j))
    Backward:    b̄_t = γ_t ℓ̄      Ā = Σ_t ξ_t ℓ̄      π̄ = γ_0 ℓ̄      (Ā and π̄ summed over rows, too)

    Derivation. At the head of the module. π, A and b are logarithms, not normalized by this function; -∞
    marks what is impossible. Of observations that no path explains ℓ is -∞, and all cotangents are 0.

    A step where `mask` is False (padding) is passed over: it neither emits nor moves. The first one always
    counts.

    Saves A, the mask and α, in float32 at least. Raises ValueError where there are no steps.
    """
    kept = _kept("hmm_log_likelihood", log_emission.shape, mask)
    value, alphas = _forward(upcast(log_initial), upcast(log_transition), log_emission, kept)
    return value.astype(log_emission.dtype), (Spec.of(log_emission), log_transition, alphas, mask)


def hmm_log_likelihood_bwd(residuals: Residuals, value_ct: Values) -> tuple[jax.Array | None, ...]:
    """π̄ = γ_0 ℓ̄, Ā = Σ_t ξ_t ℓ̄, b̄_t = γ_t ℓ̄; a mask has no cotangent."""
    found = _pulled_back("hmm_log_likelihood", residuals, value_ct)
    return (*(z.astype(value_ct.dtype) for z in found), None)


def _pulled_back(rule: str, residuals: Residuals, value_ct: Values) -> tuple[Initial, Transition, Steps]:
    steps, transition, alphas, mask = residuals
    check_cotangent(rule, value_ct, steps.shape[:-2], steps.dtype)
    return _backward(upcast(transition), alphas, _kept(rule, steps.shape, mask), upcast(value_ct))


def crf_log_partition_fwd(
    unary: Steps, transition: Transition, mask: Mask | None = None
) -> tuple[Values, Residuals]:
    """The log-partition function of a linear-chain conditional random field: log Σ over all paths of e^score.

    Forward:     α_0 = u_0      α_t(j) = u_t(j) + log Σ_i e^(α_(t-1)(i) + A_ij)      ℓ = log Σ_j e^(α_T(j))
    Backward:    ū_t = γ_t ℓ̄      Ā = Σ_t ξ_t ℓ̄      (Ā summed over rows, too)

    Derivation. At the head of the module: the cotangents are the expected features, γ the marginals of the
    tags and ξ those of their pairs. With no possible path ℓ = log Z is -∞, and all cotangents are 0.

    `mask` as in `hmm_log_likelihood`.

    Saves A, the mask and α, in float32 at least. Raises ValueError where there are no steps.
    """
    return _partition("crf_log_partition", unary, transition, mask)


def _partition(rule: str, unary: Steps, transition: Transition, mask: Mask | None) -> Any:
    kept = _kept(rule, unary.shape, mask)
    value, alphas = _forward(jnp.zeros((), accumulator(unary)), upcast(transition), unary, kept)
    return value.astype(unary.dtype), (Spec.of(unary), transition, alphas, mask)


def crf_log_partition_bwd(residuals: Residuals, value_ct: Values) -> tuple[Steps, Transition, None]:
    """ū_t = γ_t ℓ̄, Ā = Σ_t ξ_t ℓ̄; a mask has no cotangent."""
    _, transition_ct, unary_ct = _pulled_back("crf_log_partition", residuals, value_ct)
    return unary_ct.astype(value_ct.dtype), transition_ct.astype(value_ct.dtype), None


def crf_log_likelihood_fwd(
    unary: Steps, transition: Transition, tags: Tags, mask: Mask | None = None
) -> tuple[Values, Any]:
    """The log-probability of a row of tags y under a linear-chain conditional random field: score less log Z.

    Forward:     ℓ = Σ_t u_t(y_t) + Σ_t A(y_(t-1), y_t) - log Z
    Backward:    ū_t = (e_(y_t) - γ_t) ℓ̄      Ā = Σ_t (e_(y_(t-1)) e_(y_t)ᵀ - ξ_t) ℓ̄      (over rows, too)

    Derivation. The score is linear in u and A, with what was observed as its derivative; log Z has what was
    expected (Lafferty, McCallum, Pereira 2001): observed less expected features.

    `mask` as in `hmm_log_likelihood`. A tag outside [0, states) at a step that counts gives NaN, and has no
    observed feature.

    Saves A, the tags, the mask and α, in float32 at least. Raises ValueError where there are no steps.
    """
    log_z, residuals = _partition("crf_log_likelihood", unary, transition, mask)
    del log_z
    score = _score(upcast(unary), upcast(transition), tags, _counted(tags, mask))
    value = score - _logsumexp(residuals[2][-1], -1)
    return value.astype(unary.dtype), (residuals, tags)


def _counted(tags: Tags, mask: Mask | None) -> jax.Array:
    first = jnp.arange(tags.shape[-1]) == 0
    return jnp.ones(tags.shape, bool) if mask is None else mask | first


def _pairs(tags: Tags, counted: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Of every step but the first: the tag of the last step before that counts, and its own."""
    at = lax.cummax(jnp.where(counted, jnp.arange(tags.shape[-1]), 0), tags.ndim - 1)
    return jnp.take_along_axis(tags, at[..., :-1], -1), tags[..., 1:]


def _score(unary: jax.Array, transition: jax.Array, tags: Tags, counted: jax.Array) -> Values:
    states = unary.shape[-1]
    tags = jnp.where(tags < 0, states, tags)  # a negative index would count from the end
    observed = jnp.take_along_axis(unary, tags[..., None], -1)[..., 0]
    moves = transition.at[_pairs(tags, counted)].get(mode="fill", fill_value=jnp.nan)
    return jnp.sum(jnp.where(counted, observed, 0), -1) + jnp.sum(jnp.where(counted[..., 1:], moves, 0), -1)


def crf_log_likelihood_bwd(residuals: Any, value_ct: Values) -> tuple[Steps, Transition, None, None]:
    """ū_t = (e_(y_t) - γ_t) ℓ̄, Ā = Σ_t (e_(y_(t-1)) e_(y_t)ᵀ - ξ_t) ℓ̄; tags and a mask have no cotangent."""
    chain, tags = residuals
    _, expected_pairs, expected = _pulled_back("crf_log_likelihood", chain, value_ct)
    states, counted, ct = expected.shape[-1], _counted(tags, chain[-1]), upcast(value_ct)[..., None]
    tags = jnp.where(tags < 0, states, tags)
    observed = jax.nn.one_hot(tags, states, dtype=ct.dtype) * jnp.where(counted, ct, 0)[..., None]
    pairs_ct = jnp.where(counted[..., 1:], ct, 0)
    observed_pairs = jnp.zeros_like(expected_pairs).at[_pairs(tags, counted)].add(pairs_ct, mode="drop")
    dtype = value_ct.dtype
    return (observed - expected).astype(dtype), (observed_pairs - expected_pairs).astype(dtype), None, None


def _step_by_step(initial: jax.Array, transition: jax.Array, steps: jax.Array, mask: Any) -> Values:
    """The reference of log Z: a Python loop, and JAX's own log-sum-exp."""
    alpha = initial + steps[..., 0, :]
    for t in range(1, steps.shape[-2]):
        moved = jax.nn.logsumexp(alpha[..., :, None] + transition, -2) + steps[..., t, :]
        alpha = moved if mask is None else jnp.where(mask[..., t, None], moved, alpha)
    return jax.nn.logsumexp(alpha, -1)


def _partition_reference(unary: Steps, transition: Transition, mask: Mask | None = None) -> Values:
    return _step_by_step(jnp.zeros_like(unary[..., 0, :]), transition, unary, mask)


def _likelihood_reference(
    unary: Steps, transition: Transition, tags: Tags, mask: Mask | None = None
) -> Values:
    one_hot = jax.nn.one_hot(tags, unary.shape[-1], dtype=unary.dtype)
    last, score = one_hot[..., 0, :], jnp.sum(unary[..., 0, :] * one_hot[..., 0, :], -1)
    for t in range(1, unary.shape[-2]):
        now, kept = one_hot[..., t, :], True if mask is None else mask[..., t]
        gained = jnp.einsum("...i,ij,...j->...", last, transition, now) + jnp.sum(unary[..., t, :] * now, -1)
        score = score + jnp.where(kept, gained, 0)
        last = jnp.where(jnp.asarray(kept)[..., None], now, last)
    return score - _partition_reference(unary, transition, mask)


def _no_way_to_the_first(shape: tuple[int, ...]) -> np.ndarray:
    """A transition matrix in which state 0 cannot be entered."""
    return np.where(np.arange(shape[-1]) == 0, _IMPOSSIBLE, np.zeros(shape))


_SAFE = "with all of a column -∞ autodiff gives NaN"
_SIZES = ({"time": 4, "states": 3},)
_CHAIN_POINTS = {
    "equal scores": Point({"transition": 0.0, "unary": 0.0}),
    "saturated": Point({"unary": (1e4, 0.0, -1e4)}),
    "no state twice in a row": Point(
        {"transition": lambda shape: np.where(np.eye(shape[-1]), _IMPOSSIBLE, 0)}
    ),
    "a state that cannot be entered": Point({"transition": _no_way_to_the_first}, agrees=False, why=_SAFE),
    "all padding": Point({"mask": 0.0}),
    "no possible path": Point(
        {"unary": _IMPOSSIBLE}, {"unary": 0.0, "transition": 0.0}, agrees=False, why=_SAFE
    ),
}


def _renamed(point: Point) -> Point:
    names = {"unary": "log_emission", "transition": "log_transition", "mask": "mask"}
    at, expected = ({names[k]: v for k, v in values.items()} for values in (point.at, point.expected))
    return dataclasses.replace(point, at=at, expected=expected)


hmm_log_likelihood = Rule(
    hmm_log_likelihood_fwd,
    hmm_log_likelihood_bwd,
    reference=lambda log_initial, log_transition, log_emission, mask=None: _step_by_step(
        log_initial, log_transition, log_emission, mask
    ),
    domain={
        "log_initial": Normal(),
        "log_transition": Normal(),
        "log_emission": Normal(),
        "mask": Booleans(),
    },
    points={
        **{label: _renamed(point) for label, point in _CHAIN_POINTS.items()},
        "certain start": Point({"log_initial": (0.0, _IMPOSSIBLE, _IMPOSSIBLE)}),
    },
    sizes=_SIZES,
    formula="ℓ = log Σ over paths; ∂ℓ/∂b_t = γ_t, ∂ℓ/∂A = Σ ξ_t, ∂ℓ/∂π = γ_0",
    saves="A, mask, α",
)

crf_log_partition = Rule(
    crf_log_partition_fwd,
    crf_log_partition_bwd,
    reference=_partition_reference,
    domain={"unary": Normal(), "transition": Normal(), "mask": Booleans()},
    points=_CHAIN_POINTS,
    sizes=_SIZES,
    formula="log Z = log Σ over paths of e^score; ∂/∂u_t = γ_t, ∂/∂A = Σ ξ_t",
    saves="A, mask, α",
)

crf_log_likelihood = Rule(
    crf_log_likelihood_fwd,
    crf_log_likelihood_bwd,
    reference=_likelihood_reference,
    domain={
        "unary": Normal(),
        "transition": Normal(),
        "tags": Integers(0, "states"),
        "mask": Booleans(),
    },
    points={"equal scores": _CHAIN_POINTS["equal scores"], "saturated": _CHAIN_POINTS["saturated"]},
    sizes=_SIZES,
    formula="ℓ = score(y) - log Z; ∂ℓ/∂u_t = e_y - γ_t, ∂ℓ/∂A = Σ (e_y e_yᵀ - ξ_t)",
    saves="A, y, mask, α",
)
