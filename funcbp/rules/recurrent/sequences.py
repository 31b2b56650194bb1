"""Recurrent networks: a cell through time, with the δ recurrence as one reverse scan.

What the three have in common. Forward, a = x W + b for all steps in one product, outside of the loop; in it
only what depends on the state. Backward, the loop runs from the last step to the first and carries δ alone:
the cotangents of W, U and b are contractions over examples and steps together, W̄ = Σ xᵀ ā and Ū = Σ h₋ᵀ ū
with h₋ the state before each step, formed once after it. Autodiff adds a product to W̄ and Ū at every step:
the same operations, but every step reads and writes the gradients.

The layout is (*batch, time, features). A step at which `mask` is False leaves the state as it is; its output
is that state, its input has the cotangent 0. With `truncate` k, the state is taken as a constant at every
k-th step (not the first): δ stops there, and the result is *not* the gradient of the outputs but that of
truncated backpropagation through time.
"""

import jax
import numpy as np
from jax import lax
from jax import numpy as jnp
from jaxtyping import Array, Bool, Float

from ..._rule import Rule
from ...domains import Booleans, Domain, Normal, Point
from ...factors import Factor
from ._cells import ELMAN, GRU, LSTM
from ._through_time import Parameters, Trace, back_through_time, through_time

X = Float[Array, "*batch time in"]
States = Float[Array, "*batch time features"]
H = Float[Array, "*batch features"]
W = Float[Array, "in features"]
U = Float[Array, "features features"]
B = Float[Array, " features"]
WideW = Float[Array, "in gates"]
WideU = Float[Array, "features gates"]
WideB = Float[Array, " gates"]
Mask = Bool[Array, "*batch time"]


def elman_fwd(
    x: X,
    h: H,
    w_in: W,
    w_state: U,
    b: B | None = None,
    mask: Mask | None = None,
    *,
    truncate: int | None = None,
) -> tuple[tuple[States, H], Trace]:
    """The plain recurrent network (Elman 1990), from the state h, over the last axis but one.

    Forward:     h_t = tanh(x_t W + h_{t-1} U + b)
    Backward:    λ_t = h̄_t + δ_{t+1} Uᵀ      δ_t = (1 - h_t)(1 + h_t) ⊙ λ_t
                 x̄_t = δ_t Wᵀ   h̄_0 = δ_1 Uᵀ   W̄ = Σ x_tᵀ δ_t   Ū = Σ h_{t-1}ᵀ δ_t   b̄ = Σ δ_t

    Derivation. h_t is an output and what the next step reads: its cotangent λ_t is the sum of both. Each step
    is an `elman_cell`; sums are over steps and examples.

    Gives the states after every step, and the last one. For `mask` and `truncate` see the head of this file.

    Saves x, h_0, the parameters and all h_t, alive anyway: nothing else.
    """
    parameters = Parameters(w_in, w_state, b)
    (states,), (last,), trace = through_time("elman", ELMAN, x, (h,), parameters, mask, truncate)
    return (states, last), trace


def elman_pullback(
    residuals: Trace, out_ct: tuple[States, H], *, truncate: int | None = None
) -> tuple[X, H, Factor, Factor, Factor | None, None]:
    """λ_t = h̄_t + δ_{t+1} Uᵀ, δ_t = (1 - h_t²) ⊙ λ_t, as one reverse scan; what δ meets, after it."""
    x_ct, (h_ct,), w, u, b, _ = back_through_time("elman", ELMAN, residuals, out_ct[0], out_ct[1:], truncate)
    return x_ct, h_ct, w, u, b, None


def gru_fwd(
    x: X,
    h: H,
    w_in: WideW,
    w_state: WideU,
    b: WideB | None = None,
    b_state: WideB | None = None,
    mask: Mask | None = None,
    *,
    truncate: int | None = None,
) -> tuple[tuple[States, H], Trace]:
    """Gated recurrent units through time, from the state h, over the last axis but one.

    Forward:     h_t = (1 - z) ⊙ n + z ⊙ h_{t-1}, the gates and their order as in `gru_cell`
    Backward:    λ_t = h̄_t + z_{t+1} ⊙ λ_{t+1} + ū_{t+1} Uᵀ      ā_t, ū_t from λ_t as in `gru_cell`
                 x̄_t = ā_t Wᵀ   W̄ = Σ x_tᵀ ā_t   Ū = Σ h_{t-1}ᵀ ū_t   b̄ = Σ ā_t   b̄′ = Σ ū_t

    Derivation. The state reaches the next step on two ways, past the gates by z and through the product; λ_t
    is the sum of both and of the output's cotangent. Sums are over steps and examples.

    Gives the states after every step, and the last one. For `mask` and `truncate` see the head of this file.

    Saves x, h_0, the parameters, all h_t, and r, z, n, u_n of every step.
    """
    parameters = Parameters(w_in, w_state, b, b_state)
    (states,), (last,), trace = through_time("gru", GRU, x, (h,), parameters, mask, truncate)
    return (states, last), trace


def gru_pullback(
    residuals: Trace, out_ct: tuple[States, H], *, truncate: int | None = None
) -> tuple[X, H, Factor, Factor, Factor | None, Factor | None, None]:
    """λ_t = h̄_t + z_{t+1} ⊙ λ_{t+1} + ū_{t+1} Uᵀ as one reverse scan; what ā and ū meet, after it."""
    x_ct, (h_ct,), w, u, b, b_state = back_through_time(
        "gru", GRU, residuals, out_ct[0], out_ct[1:], truncate
    )
    return x_ct, h_ct, w, u, b, b_state, None


def lstm_fwd(
    x: X,
    h: H,
    c: H,
    w_in: WideW,
    w_state: WideU,
    b: WideB | None = None,
    mask: Mask | None = None,
    *,
    truncate: int | None = None,
) -> tuple[tuple[States, H, H], Trace]:
    """Long short-term memory through time, from the state (h, c), over the last axis but one.

    Forward:     p_t = x_t W + h_{t-1} U + b, (h_t, c_t) from it and c_{t-1} as in `lstm_cell`
    Backward:    λ_t = h̄_t + δ_{t+1} Uᵀ      κ_t = f_{t+1} ⊙ κ_{t+1} + o ⊙ (1 - tanh² c_t) ⊙ λ_t
                 δ_t from λ_t and κ_t as in `lstm_cell`
                 x̄_t = δ_t Wᵀ   W̄ = Σ x_tᵀ δ_t   Ū = Σ h_{t-1}ᵀ δ_t   b̄ = Σ δ_t

    Derivation. h_t is an output and what the next step reads, c_t only the latter: λ_t is a sum of two terms,
    and κ_t of what comes back through f and through h_t. Sums are over steps and examples.

    Gives the h after every step, the last h and the last c. For `mask` and `truncate` see the head of this
    file.

    Saves x, h_0, c_0, the parameters, all h_t, and c_t, i, f, g, o of every step.
    """
    parameters = Parameters(w_in, w_state, b)
    (states, _), (h, c), trace = through_time("lstm", LSTM, x, (h, c), parameters, mask, truncate)
    return (states, h, c), trace


def lstm_pullback(
    residuals: Trace, out_ct: tuple[States, H, H], *, truncate: int | None = None
) -> tuple[X, H, H, Factor, Factor, Factor | None, None]:
    """λ_t = h̄_t + δ_{t+1} Uᵀ, κ_t = f_{t+1} κ_{t+1} + o (1 - tanh² c_t) λ_t as one reverse scan."""
    x_ct, (h_ct, c_ct), w, u, b, _ = back_through_time(
        "lstm", LSTM, residuals, out_ct[0], out_ct[1:], truncate
    )
    return x_ct, h_ct, c_ct, w, u, b, None


def _unrolled(step, x, state, mask, truncate):
    """The states of a Python loop: (every h, last state)."""
    every = []
    for t in range(x.shape[-2]):
        if truncate and t and t % truncate == 0:
            state = jax.tree.map(lax.stop_gradient, state)
        new = step(x[..., t, :], state)
        keep = True if mask is None else mask[..., t, None]
        state = tuple(jnp.where(keep, a, b) for a, b in zip(new, state, strict=True))
        every.append(state[0])
    return (jnp.stack(every, axis=-2), *state)


def _elman_reference(x, h, w_in, w_state, b=None, mask=None, *, truncate=None):
    def step(x, state):
        return (jnp.tanh(x @ w_in + state[0] @ w_state + (0 if b is None else b)),)

    return _unrolled(step, x, (h,), mask, truncate)


def _gru_reference(x, h, w_in, w_state, b=None, b_state=None, mask=None, *, truncate=None):
    def step(x, state):
        a_r, a_z, a_n = jnp.split(x @ w_in + (0 if b is None else b), 3, axis=-1)
        u_r, u_z, u_n = jnp.split(state[0] @ w_state + (0 if b_state is None else b_state), 3, axis=-1)
        z = jax.nn.sigmoid(a_z + u_z)
        return (z * state[0] + (1 - z) * jnp.tanh(a_n + jax.nn.sigmoid(a_r + u_r) * u_n),)

    return _unrolled(step, x, (h,), mask, truncate)


def _lstm_reference(x, h, c, w_in, w_state, b=None, mask=None, *, truncate=None):
    def step(x, state):
        p = jnp.concatenate([x, state[0]], -1) @ jnp.concatenate([w_in, w_state]) + (0 if b is None else b)
        i, f, g, o = jnp.split(p, 4, axis=-1)
        c = jax.nn.sigmoid(f) * state[1] + jax.nn.sigmoid(i) * jnp.tanh(g)
        return jax.nn.sigmoid(o) * jnp.tanh(c), c

    return _unrolled(step, x, (h, c), mask, truncate)


_SIZES = {"batch": (2,), "time": 3, "in": 3, "features": 2}
_POINTS = {
    "saturated": Point({"x": 1e4}),
    "nothing counts": Point({"mask": 0.0}),
    "a gap": Point({"mask": lambda shape: np.arange(shape[-1]) != 1}),
}


def _domain(*names: str) -> dict[str, Domain]:
    domain: dict[str, Domain] = {name: Normal(0.5) for name in names}
    return {**domain, "x": Normal(), "mask": Booleans()}


# `truncate` is in no settings: what it computes is not the derivative of the function, on purpose.
elman = Rule(
    elman_fwd,
    elman_pullback,
    reference=_elman_reference,
    domain=_domain("x", "h", "w_in", "w_state", "b"),
    points=_POINTS,
    sizes=(_SIZES,),
    formula="h_t = tanh(x_t W + h_{t-1} U + b); δ_t = (1 - h_t²) ⊙ (h̄_t + δ_{t+1} Uᵀ), Ū = Σ h_{t-1}ᵀ δ_t",
    saves="x, h_0, W, U, b, h_t",
)
gru = Rule(
    gru_fwd,
    gru_pullback,
    reference=_gru_reference,
    domain=_domain("x", "h", "w_in", "w_state", "b", "b_state"),
    points=_POINTS,
    sizes=({**_SIZES, "gates": 6},),
    formula="h_t = (1 - z) n + z h_{t-1}; λ_t = h̄_t + z_{t+1} λ_{t+1} + ū_{t+1} Uᵀ, Ū = Σ h_{t-1}ᵀ ū_t",
    saves="x, h_0, W, U, b, b′, h_t, r, z, n, u_n",
)
lstm = Rule(
    lstm_fwd,
    lstm_pullback,
    reference=_lstm_reference,
    domain=_domain("x", "h", "c", "w_in", "w_state", "b"),
    points=_POINTS,
    sizes=({**_SIZES, "gates": 8},),
    formula="λ_t = h̄_t + δ_{t+1} Uᵀ, κ_t = f_{t+1} κ_{t+1} + o (1 - tanh² c_t) λ_t, Ū = Σ h_{t-1}ᵀ δ_t",
    saves="x, h_0, c_0, W, U, b, h_t, c_t, i, f, g, o",
)
