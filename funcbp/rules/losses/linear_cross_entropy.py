"""A dense layer and its softmax cross-entropy in one: the logits are never held.

With a vocabulary of many thousands the logits are the largest array of a language model, by far. Here they
are made and forgotten chunk by chunk, `chunk` classes at a time, forward and backward.
"""

from typing import Any

import jax
import optax
from jax import lax
from jax import numpy as jnp
from jaxtyping import Array, Float, Int

from ... import _numerics
from ..._numerics import upcast
from ..._rule import Rule
from ...domains import Integers, Normal, Point
from ...factors import Factor
from ...factors._base import factor
from .._checks import check_cotangent
from ._shared import class_index

X = Float[Array, "*batch in"]
W = Float[Array, "in classes"]
Labels = Int[Array, "*batch"]
Losses = Float[Array, "*batch"]
Rows = Float[Array, "rows 1"]


@factor("chunk", "label_smoothing", "z_loss")
class SoftmaxOuter(Factor):
    """W̄ = Σ xᵀ δ for the output layer of a cross-entropy, where δ is made again chunk by chunk.

    Attributes:
        x: what went into the layer, `(rows, in)`.
        w: its weight, `(in, classes)`.
        index: the labels, `(rows,)`.
        top: the largest logit of each row, `(rows, 1)`.
        total: Σ e^(logit - top), `(rows, 1)`.
        ct: the cotangent of each row's loss, `(rows, 1)`.
        chunk: number of classes at a time.
        label_smoothing, z_loss: the options of the loss.
    """

    x: Float[Array, "rows in"]
    w: W
    index: Int[Array, " rows"]
    top: Rows
    total: Rows
    ct: Rows
    chunk: int = 1024
    label_smoothing: float = 0.0
    z_loss: float = 0.0

    def gradient(self) -> jax.Array:
        """xᵀ δ, `(in, classes)`, of which each chunk of columns is written where it belongs."""
        mass = 1 + 2 * self.z_loss * (self.top + jnp.log(self.total))
        even = self.label_smoothing / self.w.shape[1]

        def write(w_ct: jax.Array, start: Any, w: jax.Array) -> jax.Array:
            z = _numerics.matmul(self.x, w)
            e_k = self.index[:, None] - start == jnp.arange(w.shape[1])
            target = (1 - self.label_smoothing) * e_k + even
            # Made again in another order of summation, a large z may come out above the largest.
            below = jnp.where(z > self.top, 0, z - self.top)
            delta = (jnp.exp(below) / self.total * mass - target) * self.ct
            return lax.dynamic_update_slice_in_dim(w_ct, _numerics.matmul(self.x.T, delta), start, axis=1)

        return _over_chunks(write, jnp.zeros(self.w.shape, upcast(self.w).dtype), self.w, self.chunk)


def linear_softmax_cross_entropy_fwd(
    x: X,
    w: W,
    labels: Labels,
    *,
    chunk: int = 1024,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
) -> tuple[Losses, Any]:
    """Softmax cross-entropy of the logits z = x W against a class index k, without an array of logits.

    As `softmax_cross_entropy_with_integer_labels` (α = `label_smoothing`, ζ = `z_loss`) after `dense`. Like
    attention with the columns of W as keys and values: one pass over chunks of `chunk` columns c keeps

        M ← max(M, z_c)      S ← S e^(M_before - M) + Σ e^(z_c - M)      A likewise, Σ e^(z_c - M) W_cᵀ

    Forward:     ℓ = log S - (1 - α) (z_k - M) - α (⟨z⟩ - M) + ζ (log Z)²      log Z = M + log S
    Backward:    x̄ = (m A / S - (1 - α) w_k - α ⟨w⟩) ℓ̄                         m = 1 + 2 ζ log Z
                 W̄ = Σ xᵀ δ, δ = (m softmax(z) - (1 - α) e_k - α / classes) ℓ̄, chunk by chunk

    with ⟨·⟩ the mean over the classes and w_k the label's column. Derivation. dℓ = ⟨δ, dz⟩ for ℓ̄ = 1, dz = dx
    W + x dW; and softmax(z) Wᵀ is A / S, so that x̄ takes no pass over the chunks.

    A label outside [0, classes) gives NaN, value and gradient; a cotangent of 0 stays 0 there, too.

    Saves x, W, the labels, A / S (as large as x, float32) and M, S (one number a row each). Temporary memory
    is O(rows · (chunk + in)) beside the gradients, where autodiff has O(rows · classes). It takes 4 products
    of the size of x W (2 if W is frozen), one more than autodiff, which keeps the logits that are made again
    here; as many as scan and `jax.checkpoint`. For 512 rows, 8192 classes in chunks of 512 the gradients take
    less than a 20th of the temporary memory of autodiff, and less than half that of scan and `jax.checkpoint`
    with as many logits at a time.
    """
    _check("linear_softmax_cross_entropy", w, chunk)
    rows = x.reshape(-1, w.shape[0]) if x.size else x.reshape(0, w.shape[0])
    index, inside = class_index(labels.reshape(-1), w.shape[1])
    top, total, average, z_k, z_sum = _pass(rows, w, index, chunk)
    loss = jnp.log(total) - (1 - label_smoothing) * (z_k - top)
    if label_smoothing:
        loss = loss - label_smoothing * (z_sum / w.shape[1] - top)
    if z_loss:
        loss = loss + z_loss * jnp.square(top + jnp.log(total))
    loss = jnp.where(inside, loss[:, 0], jnp.nan).reshape(labels.shape)
    return loss.astype(x.dtype), (x, w, labels, average, top, total)


def linear_softmax_cross_entropy_pullback(
    residuals: Any,
    loss_ct: Losses,
    *,
    chunk: int = 1024,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
) -> tuple[X, Factor, None]:
    """x̄ = (m A / S - (1 - α) w_k - α ⟨w⟩) ℓ̄, and the factor of W."""
    x, w, labels, average, top, total = residuals
    check_cotangent("linear_softmax_cross_entropy", loss_ct, labels.shape, x.dtype)
    index, inside = class_index(labels.reshape(-1), w.shape[1])
    ct = upcast(loss_ct).reshape(-1)
    ct = jnp.where(inside | (ct == 0), ct, jnp.nan)[:, None]
    w_k = upcast(jnp.take(w, index, axis=1, mode="clip").T)
    x_ct = (1 + 2 * z_loss * (top + jnp.log(total))) * average - (1 - label_smoothing) * w_k
    if label_smoothing:
        x_ct = x_ct - label_smoothing * jnp.mean(upcast(w), axis=1)
    rows = x.reshape(index.size, w.shape[0])
    w_ct = SoftmaxOuter(rows, w, index, top, total, ct, chunk, label_smoothing, z_loss)
    return (x_ct * ct).astype(x.dtype).reshape(x.shape), w_ct, None


def _pass(x: jax.Array, w: jax.Array, index: jax.Array, chunk: int) -> tuple[jax.Array, ...]:
    """M, S, A / S, z_k and Σ z of every row."""

    def step(state: tuple[jax.Array, ...], start: Any, part: jax.Array) -> tuple[jax.Array, ...]:
        top, total, average, z_k, z_sum = state
        z = _numerics.matmul(x, part)
        # Softmax and loss do not depend on what is subtracted: no derivative goes through it.
        new = lax.stop_gradient(jnp.maximum(top, jnp.max(z, axis=1, keepdims=True)))
        shrink, e = jnp.exp(top - new), jnp.exp(z - new)
        e_k = index[:, None] - start == jnp.arange(part.shape[1])
        return (
            new,
            shrink * total + jnp.sum(e, axis=1, keepdims=True),
            shrink * average + _numerics.matmul(e, part.T),
            z_k + jnp.sum(jnp.where(e_k, z, 0), axis=1, keepdims=True),
            z_sum + jnp.sum(z, axis=1, keepdims=True),
        )

    dtype = _numerics.accumulator(x, w)
    zero = jnp.zeros((x.shape[0], 1), dtype)
    # The lowest number, not -∞: of two such the difference is 0, not NaN.
    start = (jnp.full_like(zero, jnp.finfo(dtype).min), zero, jnp.zeros(x.shape, dtype), zero, zero)
    top, total, average, z_k, z_sum = _over_chunks(step, start, w, chunk)
    return top, total, average / total, z_k, z_sum


def _over_chunks(step: Any, state: Any, w: jax.Array, chunk: int) -> Any:
    """`step(state, start, w[:, start : start + chunk])` for all columns; the last chunk may be smaller."""
    whole, rest = divmod(w.shape[1], chunk)

    def body(state: Any, number: jax.Array) -> tuple[Any, None]:
        start = number * chunk
        return step(state, start, lax.dynamic_slice_in_dim(w, start, chunk, axis=1)), None

    if whole:
        state, _ = lax.scan(body, state, jnp.arange(whole))
    return step(state, whole * chunk, w[:, whole * chunk :]) if rest else state


def _check(rule: str, w: jax.Array, chunk: int) -> None:
    if chunk < 1:
        raise ValueError(f"{rule}: static option `chunk` must be at least 1 class at a time, got {chunk}.")
    if not w.shape[1]:
        raise ValueError(f"{rule}: argument `w` has shape {w.shape}; it needs at least one class.")


def _reference(
    x: X,
    w: W,
    labels: Labels,
    *,
    chunk: int = 1024,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
) -> Losses:
    del chunk  # there is one only
    z = jnp.einsum("...i,ic->...c", x, w)
    target = optax.losses.smooth_labels(jax.nn.one_hot(labels, w.shape[1], dtype=z.dtype), label_smoothing)
    return optax.losses.softmax_cross_entropy(z, target) + z_loss * jax.nn.logsumexp(z, axis=-1) ** 2


linear_softmax_cross_entropy = Rule(
    linear_softmax_cross_entropy_fwd,
    linear_softmax_cross_entropy_pullback,
    reference=_reference,
    domain={"x": Normal(), "w": Normal(), "labels": Integers(0, "classes")},
    points={"no input": Point({"x": 0.0}), "equal columns": Point({"w": 1.0}, {"x": 0.0})},
    settings=({"chunk": 3}, {"chunk": 2, "label_smoothing": 0.1, "z_loss": 0.01}),
    formula="ℓ = log Σe^(x W) - x w_k, in chunks; x̄ = (Σ softmax w - w_k) ℓ̄, W̄ = Σ xᵀ (softmax - e_k) ℓ̄",
    saves="x, W, k, Σ softmax w, max z, Σ e^(z - max z)",
)
