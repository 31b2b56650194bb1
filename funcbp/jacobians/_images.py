"""The structures of rules over positions and channels: convolution, pooling, normalization in groups."""

import math
from typing import Any

import jax
from jax import numpy as jnp

from ._calls import Call
from ._names import Name, subscript
from ._operator import Operator, Shape, size
from ._rows import normalized_rows
from ._structures import Builder
from .block_diagonal import blocks
from .identity import Identity
from .kronecker import Kronecker, from_left
from .matrix_free import Linear
from .product import compose
from .selection import Selection, rearrangement
from .tensor_product import tensor_product

__all__ = [
    "averaged",
    "by_kernel",
    "global_average",
    "grouped_norm",
    "linear",
    "looked_up",
    "rows_looked_up",
    "selected",
]


def linear(name: str, *of: str) -> Builder:
    """A map that is linear in the argument, applied as the rule does it; `of` is what it is written with."""

    def build(call: Call) -> Operator:
        inside = ", ".join(call.named(argument)[1] for argument in of)
        text = f"{name}({inside})" if inside else name
        return Linear(call.args, call.maps, call.x.shape, call.out.shape, text)

    return build


def by_kernel(call: Call) -> Operator:
    """dP = patches(X) dW; with groups of channels, so for every group.

    The patches are what kernels give that are 1 at one place.
    """
    x, name = call.named("x")
    *taps, inner, out = call.x.shape
    groups, places = x.shape[-1] // inner, math.prod(taps) * inner
    probe = jnp.tile(jnp.eye(places, dtype=x.dtype), (1, groups)).reshape(*taps, inner, groups * places)
    found = call.rule.primal(x, probe, **call.static)
    rows, name = found.shape[:-1], f"patches({name})"
    if groups == 1:
        left = found.reshape(-1, places)
        return Kronecker(left, None, (*taps, inner), (out,), rows, (out,), Name.of(name))
    patches = jnp.moveaxis(found.reshape(size(rows), groups, places), 1, 0)
    each = (out // groups,)
    block = blocks((groups,), lambda left: from_left(left, each, name=name), patches)
    apart = rearrangement(call.x.shape, lambda a: a.reshape(places, groups, *each).swapaxes(0, 1))
    together = rearrangement((groups, size(rows), *each), lambda a: a.swapaxes(0, 1).reshape(call.out.shape))
    return compose(together, compose(block, apart))


def averaged(call: Call) -> Operator:
    """I ⊗ P ⊗ I, P a product over the axes: what pooling along one makes of the identity."""
    batch, *lengths, channels = call.x.shape
    factors: list[Operator] = [Identity((batch,))]
    for k, n in enumerate(lengths):
        along = {
            option: value[k : k + 1] if isinstance(value, tuple) else value
            for option, value in call.static.items()
        }
        pooled = call.rule.primal(jnp.eye(n, dtype=call.x.dtype)[:, :, None], **along)[..., 0].T
        name = "P" if len(lengths) == 1 else f"P{subscript(k + 1)}"
        factors.append(_matrix(pooled, (n,), pooled.shape[:1], name))
    return tensor_product(*factors, Identity((channels,)))


def global_average(call: Call) -> Operator:
    """I ⊗ 𝟏ᵀ/n ⊗ I."""
    batch, *positions, channels = call.x.shape
    n = math.prod(positions)
    mean = Kronecker(
        jnp.full((1, n), 1 / n, call.x.dtype), None, tuple(positions), (), (), (), Name("𝟏ᵀ/n", "𝟏/n")
    )
    return tensor_product(Identity((batch,)), mean, Identity((channels,)))


def _matrix(matrix: jax.Array, inner: Shape, outer: Shape, name: str) -> Operator:
    return Kronecker(matrix, None, inner, (), outer, (), Name.of(name))


def selected(call: Call) -> Operator | None:
    """A rule whose outputs are some of its inputs, read off where it takes their numbers as a tangent."""
    count = size(call.x.shape)
    if count > 2 ** jnp.finfo(call.x.dtype).nmant:
        return None  # numbers that are not exact in this dtype
    numbers = jnp.arange(1, count + 1, dtype=call.x.dtype).reshape(call.x.shape)
    index = call.maps.push(call.args, numbers).astype(int) - 1
    return Selection(index, call.x.shape, call.out.shape, f"select({call.names[call.position]})")


def rows_looked_up(call: Call) -> Operator:
    """S ⊗ I when vec stacks rows: which row of the table each id reads; none outside of it."""
    ids, name = call.named("ids")
    return looked_up(ids, call.x.shape, f"onehot({name})")


def looked_up(ids: jax.Array, table: Shape, name: str) -> Operator:
    """The rows `ids` of a table of that shape."""
    count, *row = table
    index = jnp.where((ids < 0) | (ids >= count), count, ids)
    return tensor_product(Selection(index, (count,), ids.shape, name), Identity(tuple(row)))


def grouped_norm(call: Call) -> Operator:
    """Kᵀ ⊕[r Diag(γ) (I - 11ᵀ/n - x̂x̂ᵀ/n)] K, a block for every group of channels of every example."""
    x, gain, _, mean, r = call.done[1]
    groups = mean.shape[-2]
    split = (groups, x.shape[-1] // groups)

    def rows(a: Any) -> Any:
        apart = a.reshape(x.shape[0], -1, *split)
        return apart.swapaxes(1, 2).reshape(x.shape[0], groups, -1)

    order = rearrangement(x.shape, rows)
    r, mean = (jnp.broadcast_to(a, (*x.shape[:-1], *split)).reshape(x.shape) for a in (r, mean))
    x_hat = rows(r * (x - mean))
    scales = None if gain is None else rows(jnp.broadcast_to(gain, x.shape))
    block = normalized_rows(x_hat, rows(r), scales, call.names[1], x_hat.shape[-1], centered=True)
    return compose(order.T, compose(block, order))
