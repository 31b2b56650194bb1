"""Pooling to a given number of outputs: bins of nearly equal length, which may share an entry."""

import math
from dataclasses import dataclass

import jax
import numpy as np
from jax import numpy as jnp
from jaxtyping import Array, Float

from ..._numerics import upcast
from ..._rule import Rule
from ...domains import Distinct, Normal, Point
from .._checks import check_cotangent
from ._options import Like, Numbers, per_axis

X = Float[Array, "batch *inputs channels"]
Y = Float[Array, "batch *outputs channels"]


@dataclass(frozen=True)
class _Bins:
    """Bin t of m holds the entries ⌊t n/m⌋ … ⌈(t+1) n/m⌉ - 1 of an axis of n: they cover it.

    These are the i for which the intervals [i/n, (i+1)/n) and [t/m, (t+1)/m) overlap. In that n and m can be
    exchanged: the bins that an entry is in are found as the entries of a bin are. With g what n and m have in
    common the pattern repeats g times, and only one period of it is looked at.
    """

    axis: int
    length: int
    outputs: int

    def turned(self) -> "_Bins":
        """The entries as bins, and the bins as their entries."""
        return _Bins(self.axis, self.outputs, self.length)

    def sizes(self) -> np.ndarray:
        """Number of entries of every bin."""
        return self._stop() - self._start()

    def places(self) -> np.ndarray:
        """The entries of every bin; a bin shorter than others repeats its last one."""
        return np.minimum(self._start()[:, None] + np.arange(self.sizes().max()), self._stop()[:, None] - 1)

    def read(self, x: jax.Array) -> jax.Array:
        """The entries of every bin on a new axis behind this one."""
        one = self._period()
        periods = self.length // one.length
        before, behind = x.shape[: self.axis], x.shape[self.axis + 1 :]
        x = x.reshape(*before, periods, one.length, *behind)
        if one.outputs == 1:
            found = jnp.expand_dims(x, one.axis)
        elif one.length == 1:
            found = jnp.repeat(jnp.expand_dims(x, one.axis), one.outputs, one.axis)
        else:
            found = jnp.take(x, one.places(), one.axis, mode="clip")
        return found.reshape(*before, self.outputs, found.shape[one.axis + 1], *behind)

    def filled(self) -> np.ndarray:
        """Which of what `read` gives is an entry of the bin, and no repetition."""
        sizes = self.sizes()[:, None]
        return np.arange(sizes.max()) < sizes

    def _period(self) -> "_Bins":
        common = math.gcd(self.length, self.outputs)
        return _Bins(self.axis + 1, self.length // common, self.outputs // common)

    def _start(self) -> np.ndarray:
        return np.arange(self.outputs) * self.length // self.outputs

    def _stop(self) -> np.ndarray:
        return -(-np.arange(1, self.outputs + 1) * self.length // self.outputs)


def _bins(rule: str, x: X | Like, size: Numbers) -> list[_Bins]:
    """The bins along each spatial axis."""
    inputs = x.shape[1:-1]
    if 0 in inputs:
        raise ValueError(f"{rule}: there are no positions in x, whose shape is {x.shape}.")
    outputs = per_axis(rule, "size", size, len(inputs))
    return [_Bins(axis, *each) for axis, each in enumerate(zip(inputs, outputs, strict=True), 1)]


def _check(rule: str, y_ct: Y, x: X | Like, along: list[_Bins]) -> None:
    check_cotangent(rule, y_ct, (x.shape[0], *(bins.outputs for bins in along), x.shape[-1]), x.dtype)


def adaptive_avg_pool_fwd(x: X, *, size: Numbers = None) -> tuple[Y, Like]:
    """Average over `size` bins along every spatial axis (by default 1), whatever its length.

    Forward, with n inputs, m outputs and bin t the entries ⌊t n/m⌋ … ⌈(t+1) n/m⌉ - 1:

        y_t = 1/n_t Σ x_i over the n_t entries of bin t

    Backward:

        x̄_i = Σ ȳ_t/n_t over the bins that i is in: one, or two

    Derivation. y is linear in x; the entry (t, i) of its matrix is 1/n_t where i is in bin t. The bins that i
    is in are again bins, of the m outputs, one for each of the n inputs: x̄ is read as y is. Several axes: one
    after the other. Bins as those of PyTorch's layer of that name.

    Saves the shape of x. Raises ValueError for a size below one, or an x without positions.
    """
    y = upcast(x)
    for bins in _bins("adaptive_avg_pool", x, size):
        y = _total(y, bins) / _along(bins.sizes(), bins, y)
    return y.astype(x.dtype), Like.of(x)


def adaptive_avg_pool_bwd(residuals: Like, y_ct: Y, *, size: Numbers = None) -> tuple[X]:
    """x̄_i = Σ ȳ_t/n_t over the bins that i is in."""
    x, along = residuals, _bins("adaptive_avg_pool", residuals, size)
    _check("adaptive_avg_pool", y_ct, x, along)
    ct = upcast(y_ct)
    for bins in reversed(along):
        ct = _total(ct / _along(bins.sizes(), bins, ct), bins.turned())
    return (ct.astype(x.dtype),)


def _total(x: jax.Array, bins: _Bins) -> jax.Array:
    """The sum over every bin."""
    entries, filled = bins.read(x), bins.filled()
    if not filled.all():
        entries = jnp.where(_along(filled, bins, x), entries, 0)
    return jnp.sum(entries, bins.axis + 1)


def _along(numbers: np.ndarray, bins: _Bins, like: jax.Array) -> np.ndarray:
    """What is given for every bin, or for all its entries, before the axes behind."""
    return np.asarray(numbers).reshape(*numbers.shape, *[1] * (like.ndim - bins.axis - 1))


def _adaptive(x: X, size: Numbers, operation: str) -> Y:
    """Bin by bin."""
    for axis in range(1, x.ndim - 1):
        n, m = x.shape[axis], size[axis - 1] if isinstance(size, tuple) else size or 1
        edges = [(int(np.floor(t * n / m)), int(np.ceil((t + 1) * n / m))) for t in range(m)]
        parts = [jax.lax.slice_in_dim(x, start, stop, axis=axis) for start, stop in edges]
        x = jnp.stack([getattr(jnp, operation)(part, axis=axis) for part in parts], axis=axis)
    return x


_SETTINGS = ({"size": 2}, {"size": 3}, {"size": 5})
_SIZES = (
    {"batch": 2, "inputs": (4, 3), "channels": 2},
    {"batch": 1, "inputs": (7,), "channels": 2},
    {"batch": 1, "inputs": (2, 1, 3), "channels": 1},
)

adaptive_avg_pool = Rule(
    adaptive_avg_pool_fwd,
    adaptive_avg_pool_bwd,
    reference=lambda x, size=None: _adaptive(x, size, "mean"),
    domain={"x": Normal()},
    points={"constant": Point({"x": 3.0})},
    settings=_SETTINGS,
    sizes=_SIZES,
    formula="y_t = Σ x_i/n_t over bin t; x̄_i = Σ ȳ_t/n_t over the bins that i is in",
    saves="the shape of x",
)


def adaptive_max_pool_fwd(x: X, *, size: Numbers = None) -> tuple[Y, X]:
    """Maximum over `size` bins along every spatial axis (by default 1), whatever its length.

    Forward, with the bins of `adaptive_avg_pool`:    y_t = max x_i over bin t
    Backward:                                         x̄_i = Σ ȳ_t over the bins whose first maximum is i

    Derivation. Off ties dy_t = dx_i for the i where the maximum of bin t is. At ties the first in the order
    of rows gets everything, as in `max_pool`: along the last axis first, and back in the other order.

    Saves x; where the maxima are is found again, an index for every output at a time, which autodiff keeps as
    masks. Raises ValueError for a size below one, or an x without positions.
    """
    y = x
    for bins in reversed(_bins("adaptive_max_pool", x, size)):
        y = jnp.max(bins.read(y), bins.axis + 1)
    return y, x


def adaptive_max_pool_bwd(residuals: X, y_ct: Y, *, size: Numbers = None) -> tuple[X]:
    """x̄_i = Σ ȳ_t over the bins whose first maximum is i."""
    along = _bins("adaptive_max_pool", residuals, size)
    _check("adaptive_max_pool", y_ct, residuals, along)
    y, firsts = residuals, []
    for bins in reversed(along):
        y, first = _first_maximum(y, bins)
        firsts.append((first, bins))
    ct = upcast(y_ct)
    for first, bins in reversed(firsts):
        into = bins.turned()
        own = _along(np.arange(bins.length)[:, None], bins, ct)
        chosen = (into.read(first) == own) & _along(into.filled(), bins, ct)
        ct = jnp.sum(jnp.where(chosen, into.read(ct), 0), bins.axis + 1)
    return (ct.astype(residuals.dtype),)


def _first_maximum(x: jax.Array, bins: _Bins) -> tuple[jax.Array, jax.Array]:
    """The maximum of every bin, and which entry of the axis it is: the first that nothing exceeds."""
    entries, axis = bins.read(x), bins.axis + 1
    top = jnp.max(entries, axis, keepdims=True)
    place = jnp.where(entries < top, bins.length, _along(bins.places(), bins, x))
    return jnp.squeeze(top, axis), jnp.min(place, axis)


adaptive_max_pool = Rule(
    adaptive_max_pool_fwd,
    adaptive_max_pool_bwd,
    reference=lambda x, size=None: _adaptive(x, size, "max"),
    domain={"x": Distinct()},
    settings=_SETTINGS,
    sizes=_SIZES,
    formula="y_t = max x_i over bin t; x̄_i = Σ ȳ_t over the bins whose first maximum is i",
    saves="x",
)
