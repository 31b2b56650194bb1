"""`residual`: a layer with a skip connection around it."""

from typing import Any

import jax
from jax import numpy as jnp
from jax.tree_util import KeyPath

from .._signature import describe
from ._chain import output_spec
from ._layer import Backward, Context, Forward, Layer, Parts, PyTree, Visit, as_spec, require_layer

__all__ = ["residual", "skip"]


def residual(body: Layer, *, entry: str | int | None = None) -> Layer:
    """y = x + body(x); backward x̄ = ȳ + body's x̄.

    Parameters, state, activations and cotangents are those of `body` (its own output, before the addition).

    Args:
        body: the layer that is skipped.
        entry: where the input is a dict or tuple of several arrays, the entry that is added: y = x[entry] +
            body(x).

    Raises:
        ValueError: when what is added and the body's output differ in tree, shape or dtype; nothing is
            broadcast.
        TypeError: when what is added is not floating.
    """

    require_layer("residual: the body", body)

    def init(key: jax.Array, x_spec: PyTree) -> tuple[PyTree, PyTree]:
        x_spec = as_spec(x_spec)
        params, state = body.init(key, x_spec)
        _check(skip(x_spec, entry), output_spec(body, params, state, x_spec))
        return params, state

    def fwd(params: PyTree, state: PyTree, x: PyTree, context: Context) -> Forward:
        y, state, residuals, activations = body.fwd(params, state, x, context)
        skipped = skip(x, entry)
        _check(skipped, y)
        return Forward(jax.tree.map(jnp.add, skipped, y), state, residuals, activations)

    def bwd(
        params: PyTree, residuals: PyTree, y_ct: PyTree, visit: Visit, aux: PyTree, path: KeyPath
    ) -> Backward:
        collected, cotangents, x_ct = body.bwd(params, residuals, y_ct, visit, aux, path)
        if entry is None:
            return Backward(collected, cotangents, jax.tree.map(jnp.add, x_ct, y_ct))
        added = y_ct if x_ct[entry] is None else jax.tree.map(jnp.add, x_ct[entry], y_ct)
        parts: Any = dict(x_ct) if isinstance(x_ct, dict) else list(x_ct)
        parts[entry] = added
        if not isinstance(x_ct, dict):
            parts = type(x_ct)(*parts) if hasattr(x_ct, "_fields") else type(x_ct)(parts)
        return Backward(collected, cotangents, parts)

    return Layer(init, fwd, bwd, Parts("residual", (body,), {"entry": entry}))


def skip(x: PyTree, entry: str | int | None) -> PyTree:
    if entry is None:
        return x
    try:
        return x[entry]
    except (KeyError, IndexError, TypeError):
        raise ValueError(
            f"residual: the input has no entry {entry!r}; it is {jax.tree.structure(x)}."
        ) from None


def _check(x: PyTree, y: PyTree) -> None:
    if jax.tree.structure(x) != jax.tree.structure(y):
        raise ValueError(
            f"residual: what is added is {jax.tree.structure(x)}, the body's output {jax.tree.structure(y)}; "
            "they must be equal. With several inputs say which one is added: residual(body, entry=…)."
        )
    for a, b in zip(jax.tree.leaves(x), jax.tree.leaves(y), strict=True):
        if a.shape != b.shape or a.dtype != b.dtype:
            raise ValueError(
                f"residual: the input is {describe(a)}, the body's output {describe(b)}; they must be equal."
            )
        if not jnp.issubdtype(a.dtype, jnp.floating):
            raise TypeError(f"residual: only floating arrays can be added, got {describe(a)}.")
