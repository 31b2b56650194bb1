"""The diagonal linear recurrence, in logarithmic depth (Martin, Cundy 2018, arXiv:1709.04057)."""

import jax
from jax import lax
from jax import numpy as jnp
from jaxtyping import Array, Float

from ..._numerics import upcast
from ..._rule import Rule
from ...domains import Normal, Point
from .._checks import check_cotangent

X = Float[Array, "*batch time features"]
H = Float[Array, "*batch features"]


def linear_recurrence_fwd(a: X, b: X, h: H | None = None) -> tuple[X, tuple[X, X, H | None]]:
    """A state that decays and is added to, over the last axis but one, from h (0 if there is none).

    Forward:     h_t = a_t ⊙ h_{t-1} + b_t
    Backward:    λ_t = h̄_t + a_{t+1} ⊙ λ_{t+1}      ā_t = λ_t ⊙ h_{t-1}      b̄_t = λ_t      h̄_0 = a_1 ⊙ λ_1

    Derivation. dh_t = h_{t-1} ⊙ da_t + a_t ⊙ dh_{t-1} + db_t: the adjoint of a linear recurrence is one, in
    the other direction and with the same a, one step later.

    Both are associative scans of pairs, (a, b) ∘ (a′, b′) = (a a′, a′ b + b′): logarithmic depth, for about
    twice the operations of a loop and a few arrays of the size of a that a loop would not need.

    Saves a, all h_t and h_0. Computed in float32 at least.
    """
    states = _scan(upcast(a), upcast(b), None if h is None else upcast(h)).astype(a.dtype)
    return states, (a, states, h)


def linear_recurrence_bwd(residuals: tuple[X, X, H | None], states_ct: X) -> tuple[X, X, H | None]:
    """λ_t = h̄_t + a_{t+1} ⊙ λ_{t+1}, ā_t = λ_t ⊙ h_{t-1}, b̄_t = λ_t, h̄_0 = a_1 ⊙ λ_1."""
    a, states, h = residuals
    check_cotangent("linear_recurrence", states_ct, states.shape, states.dtype)
    wide, first = upcast(a), jnp.zeros_like(a[..., :1, :]) if h is None else h[..., None, :]
    before = jnp.concatenate([first, states], axis=-2)[..., : a.shape[-2], :]
    later = jnp.concatenate([wide[..., 1:, :], jnp.ones_like(wide[..., :1, :])], axis=-2)
    ct = _scan(later, upcast(states_ct), None, reverse=True)
    start_ct = None if h is None else jnp.sum((wide * ct)[..., :1, :], axis=-2).astype(a.dtype)
    return (ct * upcast(before)).astype(a.dtype), ct.astype(a.dtype), start_ct


def _scan(a: jax.Array, b: jax.Array, start: jax.Array | None, reverse: bool = False) -> jax.Array:
    def after(first: tuple[jax.Array, ...], second: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        return first[0] * second[0], second[0] * first[1] + second[1]

    if start is not None:
        b = b.at[..., :1, :].add(a[..., :1, :] * start[..., None, :])
    # Reversed, it does not take a negative axis.
    return lax.associative_scan(after, (a, b), reverse=reverse, axis=a.ndim - 2)[1]


def _reference(a: X, b: X, h: H | None = None) -> X:
    state, every = jnp.zeros_like(a[..., 0, :]) if h is None else h, []
    for t in range(a.shape[-2]):
        state = a[..., t, :] * state + b[..., t, :]
        every.append(state)
    return jnp.stack(every, axis=-2)


linear_recurrence = Rule(
    linear_recurrence_fwd,
    linear_recurrence_bwd,
    reference=_reference,
    domain={"a": Normal(0.7), "b": Normal(), "h": Normal()},
    points={
        "forgets at once": Point({"a": 0.0}, {"b": 1.0, "h": 0.0}),
        "keeps all": Point({"a": 1.0}),
    },
    sizes=({"batch": (2,), "time": 5, "features": 3},),
    formula="h_t = a_t ⊙ h_{t-1} + b_t; λ_t = h̄_t + a_{t+1} ⊙ λ_{t+1}, ā_t = λ_t ⊙ h_{t-1}, b̄ = λ",
    saves="a, h_t, h_0",
)
