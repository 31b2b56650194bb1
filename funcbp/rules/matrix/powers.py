"""Powers and the exponential of any square matrix."""

from typing import Any

import jax
import numpy as np
from jax import numpy as jnp
from jax.scipy import linalg as jsl

from ...domains import Point, WellConditioned
from ._algebra import T, identity_like, in_float32
from ._domains import eye
from ._identity import identity


def _matrix_power(x: jax.Array, *, power: int = 3) -> tuple[jax.Array, tuple[Any, ...]]:
    if power == 0:
        return identity_like(x), (x, [])
    base = x if power > 0 else jnp.linalg.inv(x)
    out, steps = base, []
    for bit in format(abs(power), "b")[1:]:
        square = out @ out
        steps.append((out, square))
        out = square @ base if bit == "1" else square
    return out, (
        base,
        [
            step if bit == "1" else step[:1]
            for step, bit in zip(steps, format(abs(power), "b")[1:], strict=True)
        ],
    )


def _matrix_power_pullback(
    ct: jax.Array, base: jax.Array, steps: list[tuple[jax.Array, ...]], *, power: int = 3
) -> tuple[jax.Array]:
    if power == 0:
        return (jnp.zeros_like(base),)
    base_ct = jnp.zeros_like(base)
    for below, *square in reversed(steps):
        if square:  # out = square base
            base_ct, ct = base_ct + T(square[0]) @ ct, ct @ T(base)
        ct = ct @ T(below) + T(below) @ ct
    base_ct = base_ct + ct
    return (base_ct if power > 0 else -(T(base) @ base_ct @ T(base)),)


matrix_power = identity(
    "matrix_power",
    "An integer power of a square matrix, as `jnp.linalg.matrix_power`.",
    "Z = Xᵏ",
    "dZ = Σ Xⁱ dX Xᵏ⁻¹⁻ⁱ, i from 0 to k - 1; for k < 0 the same of X⁻¹",
    "X̄ = Σ (Xⁱ)ᵀ Z̄ (Xᵏ⁻¹⁻ⁱ)ᵀ, by repeated squaring backwards: for Z = Y Y, Ȳ = Z̄ Yᵀ + Yᵀ Z̄; for Z = Y X, "
    "Ȳ = Z̄ Xᵀ",
    _matrix_power,
    _matrix_power_pullback,
    axes="x: n n",
    domain={"x": WellConditioned()},
    points={"X = I": Point({"x": eye}, {"x": 3.0})},
    settings=({"power": 0}, {"power": 1}, {"power": 6}, {"power": -2}),
    sizes=({"n": 3},),
    reference=in_float32(lambda x, power=3: jnp.linalg.matrix_power(x, power)),
    source="Cookbook (90); Giles 2008, 2.2.6",
    saves="X or X⁻¹, and what is squared on the way: O(log k) matrices and products",
)


def _expm_pullback(ct: jax.Array, a: jax.Array) -> tuple[jax.Array]:
    # The same squarings as for the value, each with its differential: three products for one.
    return (jax.jvp(jsl.expm, (T(a),), (ct,))[1],)


expm = identity(
    "expm",
    "The exponential of any square matrix, as `jax.scipy.linalg.expm`.",
    "Z = exp A",
    "dZ = L(A, dA), the Fréchet derivative ∫ e^(sA) dA e^((1-s)A) ds; the adjoint of L(A, ·) is L(Aᵀ, ·)",
    "Ā = L(Aᵀ, Z̄), by scaling and squaring with differentials: for Z = Y Y, L_Z = L_Y Y + Y L_Y",
    lambda a: (jsl.expm(a), (a,)),
    _expm_pullback,
    axes="a: n n",
    domain={"a": WellConditioned()},
    points={"A = 0": Point({"a": 0.0}, {"a": 1.0}), "A = I": Point({"a": eye}, {"a": float(np.e)})},
    sizes=({"n": 3},),
    reference=in_float32(jsl.expm),
    source="Al-Mohy and Higham 2009; Najfeld and Havel 1995; Higham, Functions of Matrices, 10.6",
    saves="A",
    note="Autodiff keeps every squaring; this keeps none, at the price of squaring once more.",
)
