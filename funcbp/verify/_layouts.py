"""Ways to write a Jacobian down, and the way back to cotangents.

For ŷ = f(x), with vec the stacking of columns (or of rows, as `jnp.ravel` does):

| layout | shape | element |
|---|---|---|
| `"jax"` | out + in | J[i…, j…] = ∂yᵢ/∂xⱼ |
| `"numerator"` | (out, in) for vectors; transposed input for a scalar of a matrix | J[i, j] = ∂yᵢ/∂xⱼ |
| `"denominator"` | (in, out) for vectors; the input's shape for a scalar of a matrix | J[j, i] = ∂yᵢ/∂xⱼ |
| `"vec-columns"` | (size of out, size of in) | ∂vec(y)ᵢ/∂vec(x)ⱼ, columns stacked |
| `"vec-rows"` | (size of out, size of in) | ∂vec(y)ᵢ/∂vec(x)ⱼ, rows stacked |

(Magnus and Neudecker, Matrix Differential Calculus, use `"vec-columns"`; see also `funcbp.notation`.)
"""

import math
from typing import Any, Literal, get_args

import jax
from jax import numpy as jnp

__all__ = ["LAYOUTS", "Layout", "LayoutError", "from_layout", "layout_shape", "to_jax"]

Layout = Literal["jax", "numerator", "denominator", "vec-columns", "vec-rows"]
LAYOUTS: tuple[Layout, ...] = get_args(Layout)


class LayoutError(ValueError):
    """A Jacobian does not have the shape that its layout gives it."""


def from_layout(layout: Layout, jacobian: Any, out: Any, x: Any, cotangent: Any) -> Any:
    """The cotangent of `x` that a Jacobian of `out` in some layout gives: ⟨cotangent, J⟩.

    Args:
        layout: how the Jacobian is written.
        jacobian: in layout `"jax"` a tree like `out` of trees like `x`; else one array.
        out: tree of shapes of the output.
        x: the argument, or a tree of them in layout `"jax"`.
        cotangent: in the tree of `out`.

    Raises:
        LayoutError: if an array does not have the shape that the layout gives it.
    """
    outs, tree = jax.tree.flatten(out)
    inputs, of_input = jax.tree.flatten(x)
    if layout != "jax" and (len(outs) != 1 or len(inputs) != 1):
        raise ValueError(f"layout {layout!r} is for one array as a function of one array; use layout='jax'.")
    rows = tree.flatten_up_to(jacobian)
    total: list[Any] = [0.0] * len(inputs)
    for row, o, ct in zip(rows, outs, tree.flatten_up_to(cotangent), strict=True):
        for i, (j, leaf) in enumerate(zip(of_input.flatten_up_to(row), inputs, strict=True)):
            whole = to_jax(layout, jnp.asarray(j), jnp.shape(o), jnp.shape(leaf))
            total[i] += jnp.tensordot(ct, whole, len(jnp.shape(o)))
    return of_input.unflatten(total)


def layout_shape(layout: Layout, out: tuple[int, ...], x: tuple[int, ...]) -> tuple[int, ...] | None:
    """The shape of a Jacobian in a layout; None where the layout does not say.

    >>> layout_shape("numerator", (3,), (2,)), layout_shape("vec-rows", (3, 2), (4,))
    ((3, 2), (6, 4))
    """
    if layout == "jax":
        return out + x
    if layout in ("vec-columns", "vec-rows"):
        return math.prod(out), math.prod(x)
    if len(out) <= 1 and len(x) <= 1:
        return out + x if layout == "numerator" else x + out
    if not out and len(x) == 2:
        return x[::-1] if layout == "numerator" else x
    if not x and len(out) == 2:
        return out if layout == "numerator" else out[::-1]
    return None


def to_jax(layout: Layout, jacobian: jax.Array, out: tuple[int, ...], x: tuple[int, ...]) -> jax.Array:
    """A Jacobian as `jax.jacrev` lays it out, `out + x`.

    Raises:
        LayoutError: if it does not have the shape that its layout gives it.
    """
    shape = layout_shape(layout, out, x)
    if shape is None:
        raise ValueError(
            f"layout {layout!r} says nothing about an output of shape {out} by an argument of shape {x}; "
            f"use 'jax', 'vec-columns' or 'vec-rows'."
        )
    matrix = (math.prod(out), math.prod(x))
    same_size = layout != "jax" and len(out) <= 1 and len(x) <= 1 and jacobian.size == math.prod(matrix)
    column = same_size and jacobian.shape == (matrix if layout == "numerator" else matrix[::-1])
    if jacobian.shape != shape and not column:
        raise LayoutError(f"A Jacobian in layout {layout!r} has shape {shape} here, not {jacobian.shape}.")
    if layout == "vec-columns":
        stacked = jacobian.reshape(out[::-1] + x[::-1])
        order = [*range(len(out))[::-1], *(len(out) + axis for axis in range(len(x))[::-1])]
        return stacked.transpose(order)
    if layout == "denominator":
        return (jacobian.T if (len(out) <= 1 and len(x) <= 1) or not x else jacobian).reshape(out + x)
    if layout == "numerator" and not out and len(x) == 2:
        return jacobian.T
    return jacobian.reshape(out + x)
