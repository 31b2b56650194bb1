"""Resizing by interpolation."""

from collections.abc import Callable, Mapping

import jax
import numpy as np
from jax import numpy as jnp
from jaxtyping import Array, Float

from ... import _numerics
from ..._numerics import upcast
from ..._rule import Rule
from ...domains import Normal, Point
from .._checks import check_cotangent
from ._options import Like, Numbers, per_axis

X = Float[Array, "batch *inputs channels"]
Y = Float[Array, "batch *outputs channels"]


def _cubic(d: np.ndarray) -> np.ndarray:
    """Keys' cubic convolution, a = -1/2 (IEEE Transactions on Acoustics 29, 1981)."""
    near, far = (1.5 * d - 2.5) * d * d + 1, ((-0.5 * d + 2.5) * d - 4) * d + 2
    return np.where(d < 1, near, np.where(d < 2, far, 0))


_KERNELS: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
    "linear": lambda d: np.maximum(1 - d, 0),
    "cubic": _cubic,
    "lanczos3": lambda d: np.where(d < 3, np.sinc(d) * np.sinc(d / 3), 0),
    "lanczos5": lambda d: np.where(d < 5, np.sinc(d) * np.sinc(d / 5), 0),
}


def resize_fwd(
    x: X, *, size: Numbers = None, method: str = "linear", antialias: bool = True
) -> tuple[Y, Like]:
    """Images in another size (by default 2 along every spatial axis), as `jax.image.resize`.

    Forward, for one axis of n inputs and m outputs, with κ the method's kernel and M its matrix of weights:

        y = M x      M_ti = κ((u_t - i)/c) / Σ_i κ((u_t - i)/c)      u_t = (t + ½) n/m - ½

    Backward:

        x̄ = Mᵀ ȳ

    Derivation. y is linear in x. Several axes are one such product each: the Kronecker product of their
    matrices; its transpose is that of the transposes.

    c = max(n/m, 1) with `antialias`, so that a smaller image averages over what it leaves out; else 1.
    "nearest" reads y_t = x_⌊(t + ½) n/m⌋, so that x̄ adds up where an input was read more than once; the other
    methods are "linear", "cubic", "lanczos3", "lanczos5".

    Saves the shape of x. Products and weights are in float32 at least. Raises ValueError for an
    unknown method, or a size below one.
    """
    y = upcast(x)
    for axis, n, m in _axes_by_growth(x, _outputs(x, size)):
        if method == "nearest":
            y = jnp.take(y, _nearest(n, m), axis=axis)
        else:
            y = _along(axis, y, _weights(n, m, method, antialias))
    return y.astype(x.dtype), Like.of(x)


def resize_bwd(
    residuals: Like, y_ct: Y, *, size: Numbers = None, method: str = "linear", antialias: bool = True
) -> tuple[X]:
    """x̄ = Mᵀ ȳ."""
    x = residuals
    outputs = _outputs(x, size)
    check_cotangent("resize", y_ct, (x.shape[0], *outputs, x.shape[-1]), x.dtype)
    ct = upcast(y_ct)
    for axis, n, m in reversed(_axes_by_growth(x, outputs)):
        if method == "nearest":
            read = (*ct.shape[:axis], n, *ct.shape[axis + 1 :])
            ct = jnp.zeros(read, ct.dtype).at[(slice(None),) * axis + (_nearest(n, m),)].add(ct)
        else:
            ct = _along(axis, ct, _weights(n, m, method, antialias).T)
    return (ct.astype(x.dtype),)


def _outputs(x: X | Like, size: Numbers) -> tuple[int, ...]:
    if 0 in x.shape[1:-1]:
        raise ValueError(f"resize: there are no positions in x, whose shape is {x.shape}.")
    return per_axis("resize", "size", size, x.ndim - 2, default=2)


def _axes_by_growth(x: X | Like, outputs: tuple[int, ...]) -> list[tuple[int, int, int]]:
    """Axis, inputs and outputs of what is resized; what shrinks most first: the fewest operations."""
    axes = [
        (axis, n, m) for axis, n, m in zip(range(1, x.ndim), x.shape[1:], outputs, strict=False) if n != m
    ]
    return sorted(axes, key=lambda each: each[2] / each[1])


def _nearest(n: int, m: int) -> np.ndarray:
    return (2 * np.arange(m) + 1) * n // (2 * m)


def _weights(n: int, m: int, method: str, antialias: bool) -> np.ndarray:
    """M, for one axis."""
    if method not in _KERNELS:
        raise ValueError(f"resize: `method` must be one of {['nearest', *_KERNELS]}, got {method!r}.")
    center = (np.arange(m) + 0.5) * n / m - 0.5
    spread = max(n / m, 1) if antialias else 1
    weights = _KERNELS[method](np.abs(center[:, None] - np.arange(n)) / spread)
    return weights / weights.sum(1, keepdims=True)


def _along(axis: int, x: jax.Array, matrix: np.ndarray) -> jax.Array:
    """The matrix applied to one axis."""
    return jnp.moveaxis(_numerics.matmul(jnp.moveaxis(x, axis, -1), jnp.asarray(matrix.T, x.dtype)), -1, axis)


def _resize_reference(x: X, *, size: Numbers = None, method: str = "linear", antialias: bool = True) -> Y:
    outputs = size if isinstance(size, tuple) else (size or 2,) * (x.ndim - 2)
    return jax.image.resize(x, (x.shape[0], *outputs, x.shape[-1]), method, antialias=antialias)


resize = Rule(
    resize_fwd,
    resize_bwd,
    reference=_resize_reference,
    domain={"x": Normal()},
    points={"constant": Point({"x": 3.0})},
    settings=(
        {"size": 5},
        {"size": 4, "method": "nearest"},
        {"size": 4, "method": "cubic", "antialias": False},
        {"method": "lanczos3"},
        {"size": 1, "method": "lanczos5"},
        {"antialias": False},
    ),
    sizes=(
        {"batch": 2, "inputs": (3, 4), "channels": 2},
        {"batch": 1, "inputs": (7,), "channels": 2},
        {"batch": 1, "inputs": (1, 2, 3), "channels": 1},
    ),
    formula="y = (M₁ ⊗ M₂) x, M the weights of an interpolation; x̄ = (M₁ ⊗ M₂)ᵀ ȳ",
    saves="the shape of x",
)
