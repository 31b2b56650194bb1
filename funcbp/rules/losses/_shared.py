"""What the losses share: options in signatures, axes, masks, class indices, the log-partition of a row."""

import inspect
from collections.abc import Callable, Hashable, Mapping
from typing import Any

import jax
from jax import lax
from jax import numpy as jnp

__all__ = [
    "check_axis",
    "class_index",
    "classes",
    "excluded",
    "log_partition",
    "masked_reference",
    "one_hot",
    "spread",
    "with_options",
    "without_axis",
]


def with_options(function: Any, options: Mapping[str, Hashable]) -> Any:
    """`function`, whose signature now spells the keyword-only options that its `**options` stands for."""
    signature = inspect.signature(function)
    parameters = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
    for name, default in options.items():
        parameters.append(inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default))
    function.__signature__ = signature.replace(parameters=parameters)
    return function


def check_axis(rule: str, axis: int, x: jax.Array) -> None:
    """Raise unless `x` has that axis."""
    if not -x.ndim <= axis < x.ndim:
        raise ValueError(
            f"{rule}: static option `axis` is {axis}, but the arrays have {x.ndim} axes: "
            f"choose from {-x.ndim} to {x.ndim - 1}."
        )


def without_axis(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    """A shape with one axis summed over.

    >>> without_axis((2, 3, 5), -2)
    (2, 5)
    """
    axis %= len(shape)
    return shape[:axis] + shape[axis + 1 :]


def spread(loss_ct: jax.Array, axis: int, where: jax.Array | None) -> jax.Array:
    """The cotangent of a sum over `axis`, as that of its terms: 0 for what `where` leaves out."""
    ct = jnp.expand_dims(loss_ct, axis)
    return ct if where is None else jnp.where(where, ct, 0)


def excluded(x: jax.Array, where: jax.Array | None, value: float = 0.0) -> jax.Array:
    """`x` with `value` at what `where` leaves out."""
    return x if where is None else jnp.where(where, x, value)


def log_partition(
    z: jax.Array, axis: int = -1, where: jax.Array | None = None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """s = z - M, M = max z and S = Σ eˢ, apart: in M + log S the digits of S would drown.

    What `where` leaves out has s = -∞. Where it leaves out everything, M = 0 and S = 1: log-partition 0,
    softmax 0.
    """
    z = excluded(z, where, -jnp.inf)
    top = jnp.max(z, axis=axis, keepdims=True, initial=-jnp.inf)
    # A row of nothing but -∞ has no finite maximum; its S is 0.
    top = jnp.where(jnp.isfinite(top), top, 0)
    total = jnp.sum(jnp.exp(z - top), axis=axis, keepdims=True)
    if where is not None:
        total = jnp.where(jnp.any(where, axis=axis, keepdims=True), total, 1)
    return z - top, top, total


def class_index(labels: jax.Array, classes: int) -> tuple[jax.Array, jax.Array]:
    """The labels in an integer type that holds every class, and which of them are one."""
    labels = labels.astype(jnp.promote_types(labels.dtype, jnp.int32))
    return labels, (labels >= 0) & (labels < classes)


def classes(shape: tuple[int, ...], where: jax.Array | None, axis: int) -> jax.Array | int:
    """How many classes there are, at least 1."""
    if where is None:
        return max(shape[axis], 1)
    return jnp.maximum(jnp.sum(where, axis=axis, keepdims=True), 1)


def one_hot(index: jax.Array, shape: tuple[int, ...], axis: int = -1) -> jax.Array:
    """e_k along `axis`, as booleans, by comparison and not by a scatter: it fuses with what surrounds it."""
    return jnp.expand_dims(index, axis) == lax.broadcasted_iota(index.dtype, shape, axis % len(shape))


def masked_reference(loss: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """A reference that is 0 for a row of which `where` leaves nothing, where optax may divide 0 by 0."""

    def reference(
        a: jax.Array, b: jax.Array, where: jax.Array | None = None, *, axis: int = -1, **options: Any
    ) -> jax.Array:
        if where is None:
            return loss(a, b, axis=axis, **options)
        some = jnp.any(where, axis=axis, keepdims=True)
        values = loss(a, b, axis=axis, where=where | ~some, **options)
        return jnp.where(jnp.squeeze(some, axis), values, 0)

    return reference
