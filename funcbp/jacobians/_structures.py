"""The structures that rules have, each made from a call.

What is read off is read off the rule's own passes: the slope of an elementwise function is what a cotangent
of ones comes back as, and so is the gradient of every example's number.
"""

from collections.abc import Callable

import jax
from jax import numpy as jnp

from ._calls import Call
from ._names import Name
from ._operator import Operator, size
from ._rows import functionals, log_softmax_rows, normalized_rows, ones, softmax_rows
from .block_diagonal import blocks
from .diagonal import Diagonal
from .kronecker import Kronecker, from_left, from_right
from .product import compose
from .selection import Commutation, Selection

__all__ = [
    "Builder",
    "bias",
    "by_input",
    "by_weight",
    "elementwise",
    "gain",
    "gram",
    "inverse",
    "l2_normalize",
    "layer_norm",
    "log_softmax",
    "matmul",
    "moved",
    "outer_product",
    "reduction",
    "rms_norm",
    "sandwich",
    "scaled_rows",
    "softmax",
    "transposition",
]

Builder = Callable[[Call], Operator | None]


def elementwise(call: Call) -> Operator | None:
    """Diag(σ′)."""
    if call.x.shape != call.out.shape:
        return None
    return Diagonal(call.gradient, call.x.shape, call.name)


def reduction(call: Call) -> Operator | None:
    """⟨g_n, dx_n⟩ for every example n: what an example is, the option `axis` says, or the output's shape."""
    if call.static.get("keepdims"):
        return None
    count = call.x.ndim
    if call.out.shape and "axis" not in call.static and call.out.ndim != _examples(call):
        return None  # such as one number for every example and class
    reduced = set(range(call.out.ndim, count))
    if "axis" in call.static:
        axis = call.static["axis"]
        given = range(count) if axis is None else (axis,) if isinstance(axis, int) else axis
        reduced = {one % count for one in given}
    order = (*(k for k in range(count) if k not in reduced), *sorted(reduced))
    if call.out.shape != tuple(call.x.shape[k] for k in order[: count - len(reduced)]):
        return None
    rows = functionals(call.gradient.transpose(order), call.out.shape, call.name)
    return rows if order == tuple(range(count)) else compose(rows, Commutation(call.x.shape, order))


def _examples(call: Call) -> int:
    """How many leading axes count the examples: those before the named ones, or all but the last."""
    axes = call.rule.signature.arguments[call.position].axes
    return 1 if axes[0] == "batch" else call.x.ndim - max(1, len(axes) - 1)


def _along(call: Call, make: Callable[[jax.Array], Operator], rows: jax.Array) -> Operator | None:
    """Rows along the option `axis`: K, the rows along the last axis, and K back."""
    axis = call.static["axis"]
    if not isinstance(axis, int):
        return None
    order = [k for k in range(rows.ndim) if k != axis % rows.ndim]
    order.append(axis % rows.ndim)
    if order == list(range(rows.ndim)):
        return make(rows)
    turn = Commutation(rows.shape, tuple(order))
    return compose(turn.T, compose(make(turn.push(rows)), turn))


def softmax(call: Call) -> Operator | None:
    factor = 1 / call.static["temperature"]
    return _along(call, lambda q: softmax_rows(q, "q", factor), call.out)


def log_softmax(call: Call) -> Operator | None:
    return _along(call, lambda q: log_softmax_rows(q, "q"), jnp.exp(call.out))


def layer_norm(call: Call) -> Operator:
    x, gain, _, mean, r = call.done[1]
    return normalized_rows(r * (x - mean), r, gain, call.names[1], x.shape[-1], centered=True)


def rms_norm(call: Call) -> Operator:
    x, gain, r = call.done[1]
    return normalized_rows(r * x, r, gain, call.names[1], x.shape[-1], centered=False)


def l2_normalize(call: Call) -> Operator | None:
    x, r = call.done[1]
    if call.static["axis"] % x.ndim != x.ndim - 1:
        return None
    return normalized_rows(r * x, r, None, "", 1, centered=False)


def gain(call: Call) -> Operator:
    """dy_n = x̂_n ⊙ dγ: linear in γ, so that a tangent of ones goes to x̂."""
    rows = call.out.shape[: call.out.ndim - call.x.ndim]
    scaled = Diagonal(call.push_of_ones, call.out.shape, call.name)
    return compose(scaled, ones(rows, call.x.shape, call.out.dtype))


def bias(call: Call) -> Operator:
    """1 dbᵀ."""
    return ones(call.out.shape[: call.out.ndim - call.x.ndim], call.x.shape, call.out.dtype)


def by_input(weight: str) -> Builder:
    """dp = dx W."""

    def build(call: Call) -> Operator:
        w, name = call.named(weight)
        return from_right(w, call.x.shape[:-1], name=name)

    return build


def by_weight(call: Call) -> Operator:
    """dp = x dW."""
    x, name = call.named("x")
    return from_left(x, call.x.shape[1:], name=name)


def matmul(call: Call) -> Operator:
    """dc = da b + a db."""
    a, b = call.args
    if call.position == 0:
        return blocks(a.shape[:-2], lambda b: from_right(b, a.shape[-2:-1], name=call.names[1]), b)
    return blocks(a.shape[:-2], lambda a: from_left(a, b.shape[-1:], name=call.names[0]), a)


def sandwich(call: Call) -> Operator:
    """dZ = dA X B + A dX B + A X dB."""
    a, x, b = call.args
    names = [Name.of(name) for name in call.names]

    def one(a: jax.Array, x: jax.Array, b: jax.Array) -> Operator:
        (m, n), (k, j) = a.shape, b.shape
        if call.position == 0:
            return Kronecker(None, x @ b, (m,), (n,), (m,), (j,), right_name=names[1] @ names[2])
        if call.position == 1:
            return Kronecker(a, b, (n,), (k,), (m,), (j,), names[0], names[2])
        return Kronecker(a @ x, None, (k,), (j,), (m,), (j,), names[0] @ names[1])

    return blocks(a.shape[:-2], one, a, x, b)


def inverse(call: Call) -> Operator:
    """dZ = -Z dX Z."""
    name = Name(f"{call.names[0]}⁻¹", f"{call.names[0]}⁻ᵀ")

    def one(z: jax.Array) -> Operator:
        n = z.shape[-1:]
        return -Kronecker(z, z, n, n, n, n, name, name)

    return blocks(call.x.shape[:-2], one, call.out)


def gram(call: Call) -> Operator:
    """dZ = dXᵀ X + Xᵀ dX = (K + I) (Xᵀ dX)."""

    def one(x: jax.Array) -> Operator:
        right = from_left(x.T, x.shape[-1:], name=Name.of(call.names[0]).T.text)
        return right + compose(Commutation(right.out_shape), right)

    return blocks(call.x.shape[:-2], one, call.x)


def outer_product(call: Call) -> Operator:
    """dZ = dx yᵀ + x dyᵀ."""
    x, y = call.args

    def one(x: jax.Array, y: jax.Array) -> Operator:
        name = Name.of(call.names[1 - call.position])
        if call.position == 0:
            return Kronecker(None, y[None], x.shape, (), x.shape, y.shape, right_name=name.T)
        return Kronecker(x[:, None], None, (), y.shape, x.shape, y.shape, name)

    return blocks(x.shape[:-1], one, x, y)


def scaled_rows(call: Call) -> Operator:
    """dZ = Diag(d) dX: every row by its number."""
    d, name = call.named("d")
    return Diagonal(jnp.broadcast_to(d[..., None], call.x.shape), call.x.shape, f"{name} 𝟏ᵀ")


def transposition(call: Call) -> Operator:
    """dZ = dXᵀ."""
    count = call.x.ndim
    return Commutation(call.x.shape, (*range(count - 2), count - 1, count - 2))


def moved(call: Call) -> Operator | None:
    """A linear rule that moves entries, read off where it moves their numbers (0: out of nowhere)."""
    count = size(call.x.shape)
    if count > 2 ** jnp.finfo(call.x.dtype).nmant:
        return None  # numbers that are not exact in this dtype
    numbers = jnp.arange(1, count + 1, dtype=call.x.dtype).reshape(call.x.shape)
    args = [*call.args[: call.position], numbers, *call.args[call.position + 1 :]]
    found = call.rule.primal(*args, **call.static).ravel()
    index = jnp.where(found == 0, count, found - 1).astype(int)
    return Selection(index, call.x.shape, call.out.shape, call.rule.name)
