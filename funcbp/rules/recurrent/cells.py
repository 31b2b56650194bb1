"""Recurrent cells: one step in time."""

import jax
from jax import numpy as jnp
from jaxtyping import Array, Float

from ..._numerics import matmul, upcast
from ..._rule import Rule
from ...domains import Domain, Normal, Point
from ...factors import Factor, Outer, Total
from .._checks import check_cotangent
from ._cells import ELMAN, GRU, LSTM, Arrays, Cell, check_gates

X = Float[Array, "*batch in"]
H = Float[Array, "*batch features"]
W = Float[Array, "in features"]
U = Float[Array, "features features"]
B = Float[Array, " features"]
WideW = Float[Array, "in gates"]
WideU = Float[Array, "features gates"]
WideB = Float[Array, " gates"]
Residuals = tuple[jax.Array, Arrays, Arrays, jax.Array, jax.Array, jax.Array | None, jax.Array | None, Arrays]


def _step(
    cell: Cell,
    x: jax.Array,
    state: Arrays,
    w_in: jax.Array,
    w_state: jax.Array,
    b: jax.Array | None,
    b_state: jax.Array | None = None,
) -> tuple[Arrays, Residuals]:
    a, u = matmul(x, w_in), matmul(state[0], w_state)
    a = a if b is None else a + upcast(b)
    u = u if b_state is None else u + upcast(b_state)
    new, saved = cell.step(a, u, tuple(map(upcast, state)))
    new, saved = jax.tree.map(lambda v: v.astype(x.dtype), (new, saved))
    return new, (x, state, new, w_in, w_state, b, b_state, saved)


def _pullback(
    rule: str, cell: Cell, residuals: Residuals, new_ct: Arrays
) -> tuple[jax.Array, Arrays, Factor, Factor, Factor | None, Factor | None]:
    x, state, new, w_in, w_state, b, b_state, saved = residuals
    for name, out, ct in zip(("h", "c") if len(new) > 1 else ("",), new, new_ct, strict=True):
        check_cotangent(rule, ct, out.shape, out.dtype, output=name)
    wide = jax.tree.map(upcast, (saved, state, new, new_ct))
    a_ct, state_ct = cell.back(*wide)
    u_ct = cell.state_ct(a_ct, wide[0])
    h_ct, *others = state_ct
    state_ct = (h_ct + matmul(u_ct, w_state.T), *others)
    return (
        matmul(a_ct, w_in.T).astype(x.dtype),
        tuple(ct.astype(x.dtype) for ct in state_ct),
        Outer(x, a_ct),
        Outer(state[0], u_ct),
        None if b is None else Total(a_ct),
        None if b_state is None else Total(u_ct),
    )


def elman_cell_fwd(x: X, h: H, w_in: W, w_state: U, b: B | None = None) -> tuple[H, Residuals]:
    """The plain recurrent cell (Elman 1990), with tanh.

    Forward:     h′ = tanh(p)      p = x W + h U + b
    Backward:    δ = (1 - h′)(1 + h′) ⊙ h̄′      x̄ = δ Wᵀ   h̄ = δ Uᵀ   W̄ = Σ xᵀ δ   Ū = Σ hᵀ δ   b̄ = Σ δ

    Derivation. δ = p̄ by tanh′ = 1 - tanh²; p is a dense layer of two inputs.

    Saves x, h, the parameters and h′, all alive anyway.
    """
    (new,), residuals = _step(ELMAN, x, (h,), w_in, w_state, b)
    return new, residuals


def elman_cell_pullback(residuals: Residuals, h_ct: H) -> tuple[X, H, Factor, Factor, Factor | None]:
    """δ = (1 - h′)(1 + h′) ⊙ h̄′, and what it meets."""
    x_ct, (before_ct,), w, u, b, _ = _pullback("elman_cell", ELMAN, residuals, (h_ct,))
    return x_ct, before_ct, w, u, b


def _elman_cell_reference(x: X, h: H, w_in: W, w_state: U, b: B | None = None) -> H:
    p = jnp.einsum("...i,ij->...j", x, w_in) + jnp.einsum("...i,ij->...j", h, w_state)
    return jnp.tanh(p if b is None else p + b)


_DOMAIN: dict[str, Domain] = {
    "x": Normal(),
    "h": Normal(0.5),
    "w_in": Normal(0.5),
    "w_state": Normal(0.5),
    "b": Normal(0.5),
}
_SATURATED = {"saturated": Point({"x": 1e4})}

elman_cell = Rule(
    elman_cell_fwd,
    elman_cell_pullback,
    reference=_elman_cell_reference,
    domain=_DOMAIN,
    points=_SATURATED,
    sizes=({"batch": (2,), "in": 3, "features": 4},),
    formula="h′ = tanh(x W + h U + b); δ = (1 - h′²) ⊙ h̄′, h̄ = δ Uᵀ, Ū = Σ hᵀ δ",
    saves="x, h, W, U, b, h′",
)


def gru_cell_fwd(
    x: X, h: H, w_in: WideW, w_state: WideU, b: WideB | None = None, b_state: WideB | None = None
) -> tuple[H, Residuals]:
    """The gated recurrent unit (Cho et al. 2014, arXiv:1406.1078), the reset gate after the product.

    Forward, with the thirds of a = x W + b and u = h U + b′ (r, z, n in this order):

        r = σ(a_r + u_r)      z = σ(a_z + u_z)      n = tanh(a_n + r ⊙ u_n)      h′ = (1 - z) ⊙ n + z ⊙ h

    Backward:

        ā_n = (1 - n)(1 + n) ⊙ (1 - z) ⊙ h̄′      ā_z = z (1 - z) ⊙ (h - n) ⊙ h̄′
        ā_r = r (1 - r) ⊙ u_n ⊙ ā_n      ū = (ā_r, ā_z, r ⊙ ā_n)
        x̄ = ā Wᵀ   h̄ = z ⊙ h̄′ + ū Uᵀ   W̄ = Σ xᵀ ā   Ū = Σ hᵀ ū   b̄ = Σ ā   b̄′ = Σ ū

    Derivation. dh′ = (1 - z) dn + (h - n) dz + z dh; each gate by σ′ = σ (1 - σ), tanh′ = 1 - tanh². u_n is
    multiplied by r before it is added, so its cotangent is not that of a_n: the two biases are different
    parameters in the last third (and only there).

    The reset gate acts on the product h U_n, as in cuDNN, PyTorch and flax (gates r, z, n as in PyTorch); in
    the paper it acts on h, before the product. z = 1 keeps the state, as in PyTorch; some papers have 1 - z.

    Saves x, h, the parameters, and r, z, n, u_n.
    """
    check_gates("gru_cell", GRU, *w_state.shape)
    (new,), residuals = _step(GRU, x, (h,), w_in, w_state, b, b_state)
    return new, residuals


def gru_cell_pullback(
    residuals: Residuals, h_ct: H
) -> tuple[X, H, Factor, Factor, Factor | None, Factor | None]:
    """ā through the gates, ū = (ā_r, ā_z, r ⊙ ā_n), and what they meet."""
    x_ct, (before_ct,), w, u, b, b_state = _pullback("gru_cell", GRU, residuals, (h_ct,))
    return x_ct, before_ct, w, u, b, b_state


def _gru_cell_reference(
    x: X, h: H, w_in: WideW, w_state: WideU, b: WideB | None = None, b_state: WideB | None = None
) -> H:
    f = h.shape[-1]
    a = jnp.einsum("...i,ij->...j", x, w_in) + (0 if b is None else b)
    u = jnp.einsum("...i,ij->...j", h, w_state) + (0 if b_state is None else b_state)
    r, z = jax.nn.sigmoid(a[..., :f] + u[..., :f]), jax.nn.sigmoid(a[..., f : 2 * f] + u[..., f : 2 * f])
    return (1 - z) * jnp.tanh(a[..., 2 * f :] + r * u[..., 2 * f :]) + z * h


gru_cell = Rule(
    gru_cell_fwd,
    gru_cell_pullback,
    reference=_gru_cell_reference,
    domain={**_DOMAIN, "b_state": Normal(0.5)},
    points=_SATURATED,
    sizes=({"batch": (2,), "in": 3, "features": 2, "gates": 6},),
    formula="h′ = (1 - z) n + z h, n = tanh(a_n + r u_n); ā_n = (1 - n²)(1 - z) h̄′, ū_n = r ā_n",
    saves="x, h, W, U, b, b′, r, z, n, u_n",
)


def lstm_cell_fwd(
    x: X, h: H, c: H, w_in: WideW, w_state: WideU, b: WideB | None = None
) -> tuple[tuple[H, H], Residuals]:
    """Long short-term memory (Hochreiter, Schmidhuber 1997; forget gate by Gers et al. 2000).

    Forward, with the quarters of p = x W + h U + b (i, f, g, o in this order, as in PyTorch and flax):

        i, f, o = σ(p_i), σ(p_f), σ(p_o)      g = tanh(p_g)      c′ = f ⊙ c + i ⊙ g      h′ = o ⊙ tanh(c′)

    Backward, with t = tanh(c′) and κ = c̄′ + o ⊙ (1 - t)(1 + t) ⊙ h̄′:

        δ_i = i (1 - i) ⊙ g ⊙ κ           δ_f = f (1 - f) ⊙ c ⊙ κ
        δ_g = (1 - g)(1 + g) ⊙ i ⊙ κ      δ_o = o (1 - o) ⊙ t ⊙ h̄′
        c̄ = f ⊙ κ      x̄ = δ Wᵀ   h̄ = δ Uᵀ   W̄ = Σ xᵀ δ   Ū = Σ hᵀ δ   b̄ = Σ δ

    Derivation. dh′ = t do + o (1 - t²) dc′, so all that reaches c′ is κ; dc′ = f dc + c df + g di + i dg.

    Gives (h′, c′). Saves x, h, c, the parameters, the four gates and c′ (alive anyway); t is recomputed.
    """
    check_gates("lstm_cell", LSTM, *w_state.shape)
    (h_new, c_new), residuals = _step(LSTM, x, (h, c), w_in, w_state, b)
    return (h_new, c_new), residuals


def lstm_cell_pullback(
    residuals: Residuals, out_ct: tuple[H, H]
) -> tuple[X, H, H, Factor, Factor, Factor | None]:
    """κ = c̄′ + o (1 - t²) ⊙ h̄′, δ of the four gates, and what they meet."""
    x_ct, (h_ct, c_ct), w, u, b, _ = _pullback("lstm_cell", LSTM, residuals, out_ct)
    return x_ct, h_ct, c_ct, w, u, b


def _lstm_cell_reference(
    x: X, h: H, c: H, w_in: WideW, w_state: WideU, b: WideB | None = None
) -> tuple[H, H]:
    f = h.shape[-1]
    p = jnp.einsum("...i,ij->...j", x, w_in) + jnp.einsum("...i,ij->...j", h, w_state)
    p = p if b is None else p + b
    gate = [p[..., n * f : (n + 1) * f] for n in range(4)]
    c = jax.nn.sigmoid(gate[1]) * c + jax.nn.sigmoid(gate[0]) * jnp.tanh(gate[2])
    return jax.nn.sigmoid(gate[3]) * jnp.tanh(c), c


lstm_cell = Rule(
    lstm_cell_fwd,
    lstm_cell_pullback,
    reference=_lstm_cell_reference,
    domain={name: _DOMAIN.get(name, Normal()) for name in ("x", "h", "c", "w_in", "w_state", "b")},
    points=_SATURATED,
    sizes=({"batch": (2,), "in": 3, "features": 2, "gates": 8},),
    formula="c′ = f c + i g, h′ = o tanh c′; κ = c̄′ + o (1 - t²) h̄′, δ_i = i (1 - i) g κ, …, c̄ = f κ",
    saves="x, h, c, W, U, b, i, f, g, o, c′",
)
