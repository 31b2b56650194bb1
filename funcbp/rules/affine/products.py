"""Products: dense layers and matrix multiplication.

Rows are examples: `x: (batch, in)`, `W: (in, out)`, p = x W + b, ∂W = xᵀ δ. (Texts that write columns have p
= W x and ∂W = δ xᵀ; each is the other's transpose.)
"""

from jax import numpy as jnp
from jaxtyping import Array, Float

from ... import _numerics
from ..._rule import Rule
from ...domains import Normal
from ...factors import Factor, Outer, Total
from .._checks import check_cotangent

X = Float[Array, "*batch in"]
W = Float[Array, "in out"]
B = Float[Array, " out"]
P = Float[Array, "*batch out"]


def dense_fwd(x: X, w: W, b: B | None = None) -> tuple[P, tuple[X, W, B | None]]:
    """A dense layer over the last axis, with or without a bias.

    Forward:     p = x W + b
    Backward:    x̄ = δ Wᵀ      W̄ = Σ xᵀ δ      b̄ = Σ δ      with δ = p̄, sums over all leading axes

    Derivation. dp = dx W + x dW + db, so δ : dp = (δ Wᵀ) : dx + (xᵀ δ) : dW + (1ᵀ δ) : db. The Jacobian with
    respect to vec W is X ⊗ I when vec stacks rows (`jnp.ravel`), I ⊗ X when it stacks columns; it is never
    formed.

    Saves x, W and b, all alive anyway. Products accumulate in float32 at least and are rounded once.
    """
    p = _numerics.matmul(x, w)
    if b is not None:
        p = p + b
    return p.astype(x.dtype), (x, w, b)


def dense_pullback(residuals: tuple[X, W, B | None], p_ct: P) -> tuple[X, Factor, Factor | None]:
    """x̄ = δ Wᵀ, and the factors of W and b."""
    x, w, b = residuals
    check_cotangent("dense", p_ct, (*x.shape[:-1], w.shape[-1]), x.dtype)
    x_ct = _numerics.matmul(p_ct, w.T).astype(x.dtype)
    return x_ct, Outer(x, p_ct), None if b is None else Total(p_ct)


def _dense_reference(x: X, w: W, b: B | None = None) -> P:
    p = jnp.einsum("...i,io->...o", x, w)
    return p if b is None else p + b


dense = Rule(
    dense_fwd,
    dense_pullback,
    reference=_dense_reference,
    domain={"x": Normal(), "w": Normal(), "b": Normal()},
    formula="p = x W + b; x̄ = δ Wᵀ, W̄ = Σ xᵀ δ, b̄ = Σ δ",
    saves="x, W, b",
)


M = Float[Array, "*batch rows inner"]
N = Float[Array, "*batch inner columns"]
MN = Float[Array, "*batch rows columns"]


def matmul_fwd(a: M, b: N) -> tuple[MN, tuple[M, N]]:
    """Matrix product, one for each index of the leading axes (which both have).

    Forward:     c = a b
    Backward:    ā = c̄ bᵀ      b̄ = aᵀ c̄

    Derivation. dc = da b + a db, so c̄ : dc = (c̄ bᵀ) : da + (aᵀ c̄) : db.

    Saves a and b. Products accumulate in float32 at least and are rounded once.
    """
    return _numerics.matmul(a, b).astype(a.dtype), (a, b)


def matmul_bwd(residuals: tuple[M, N], c_ct: MN) -> tuple[M, N]:
    """ā = c̄ bᵀ, b̄ = aᵀ c̄."""
    a, b = residuals
    check_cotangent("matmul", c_ct, (*a.shape[:-1], b.shape[-1]), a.dtype)
    a_ct = _numerics.matmul(c_ct, jnp.swapaxes(b, -1, -2))
    b_ct = _numerics.matmul(jnp.swapaxes(a, -1, -2), c_ct)
    return a_ct.astype(a.dtype), b_ct.astype(b.dtype)


matmul = Rule(
    matmul_fwd,
    matmul_bwd,
    reference=lambda a, b: jnp.einsum("...rk,...kc->...rc", a, b),
    domain={"a": Normal(), "b": Normal()},
    formula="c = a b; ā = c̄ bᵀ, b̄ = aᵀ c̄",
    saves="a, b",
)
