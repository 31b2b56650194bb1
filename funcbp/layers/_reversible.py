"""`reversible`: blocks whose input is computed from their output, so that no activation is kept."""

import operator
from typing import Any, NamedTuple

import jax
from jax import lax
from jax import numpy as jnp
from jax.tree_util import DictKey, KeyPath

from .._signature import describe
from ._chain import output_spec
from ._in_place import reverse_scan
from ._layer import (
    Backward,
    Context,
    Forward,
    Layer,
    Parts,
    PyTree,
    Visit,
    as_spec,
    in_layer,
    require_layer,
    split_key,
)
from ._saved import SavedContext

__all__ = ["reversible"]


class _Residuals(NamedTuple):
    y: tuple[jax.Array, jax.Array]
    state: PyTree
    context: SavedContext


def reversible(f: Layer, g: Layer, times: int = 1) -> Layer:
    """`times` blocks of two skip connections, of which only the last output is kept (Gomez et al. 2017).

    arXiv:1707.04585. The input is a pair x = (x₁, x₂), or an array whose last axis is cut in halves; so is
    the output.

        forward      y₁ = x₁ + f(x₂)          y₂ = x₂ + g(y₁)
        inverse      x₂ = y₂ - g(y₁)          x₁ = y₁ - f(x₂)
        backward     ȳ₁ ← ȳ₁ + (∂g/∂y₁)ᵀ ȳ₂   x̄₂ = ȳ₂ + (∂f/∂x₂)ᵀ ȳ₁   x̄₁ = ȳ₁

    Going back, each block recomputes its input, and with it the residuals of f and g: a second forward pass,
    and memory that does not grow with `times`. Random keys are those of the first.

    Rounding makes the inverse inexact: x₂ + g(y₁) loses low digits of x₂ that no subtraction brings back, and
    the error passes through the blocks below, which may amplify it. So the gradient's error grows with depth:
    in float64 it is of no account, in float32 mind it for very deep stacks or large f and g; half precision
    wants few blocks.

    Parameters are `{"f": …, "g": …}`, stacked as those of `repeat`, as are activations and cotangents.

    Args:
        f: its output must have the shape and dtype of x₁.
        g: its output must have the shape and dtype of x₂.
        times: how many blocks.

    Raises:
        TypeError: for what is not a Layer, or an input that is neither an array nor a pair of floating ones.
        ValueError: for `times` below one, an odd number of features, outputs that do not fit; and in training
            for f or g with a state: it moves in the forward pass, so the second could not be equal to the
            first.

    >>> from funcbp.layers import activation, chain, dense
    >>> network = reversible(chain(dense(4), activation("gelu"), dense(2)), dense(2), times=3)
    >>> params, _ = network.init(jax.random.key(0), jax.ShapeDtypeStruct((8, 4), "float32"))
    >>> params["g"]["w"].shape
    (3, 2, 2)
    """
    require_layer("reversible: f", f)
    require_layer("reversible: g", g)
    times = operator.index(times)
    if times < 1:
        raise ValueError(f"reversible: `times` must be at least 1, got {times}.")
    place = f"the block of a reversible of {times}"

    def init(key: jax.Array, x_spec: PyTree) -> tuple[PyTree, PyTree]:
        x1, x2 = jax.eval_shape(_pair, as_spec(x_spec))
        params, states = {}, {}
        for i, (name, layer, x, y) in enumerate((("f", f, x2, x1), ("g", g, x1, x2))):
            keys = jax.random.split(jax.random.fold_in(key, i), times)
            p, s = jax.vmap(lambda k, layer=layer, x=x: layer.init(k, x))(keys)
            one = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape[1:], a.dtype), (p, s))
            with in_layer(f"`{name}` of {place}"):
                _check(name, y, output_spec(layer, *one, x))
            params[name], states[name] = p, s
        return params, states if jax.tree.leaves(states) else ()

    def both(p: PyTree, s: PyTree, context: Context) -> Any:
        """What is run of f and of g, in the block that these belong to."""

        def run(name: str, x: jax.Array, y: jax.Array) -> Forward:
            layer, index = (f, 0) if name == "f" else (g, 1)
            with in_layer(f"`{name}` of {place}"):
                done = layer.fwd(p[name], s[name] if s else (), x, split_key(context, index))
                _check(name, y, done.y)
            return done

        return run

    def fwd(params: PyTree, state: PyTree, x: PyTree, context: Context) -> Forward:
        _check_params(params, times)
        if context.train and jax.tree.leaves(state):
            raise ValueError(
                "reversible: f or g has a state, which moves in training; what a block computes a second "
                "time, going back, would not be what it computed at first. Use layers without a state "
                "(layer_norm for batch_norm), or train=False."
            )
        keys = None if context.key is None else jax.random.split(context.key, times)

        def step(x: Any, each: tuple[PyTree, PyTree, jax.Array | None]) -> tuple[Any, PyTree]:
            p, s, key = each
            (x1, x2), run = x, both(p, s, context._replace(key=key))
            first = run("f", x2, x1)
            y1 = x1 + first.y
            second = run("g", y1, x2)
            return (y1, x2 + second.y), {"f": first.activations, "g": second.activations}

        y, activations = lax.scan(step, _pair(x), (params, state, keys), length=times)
        kept = _Residuals(y, state, SavedContext.of(context))
        return Forward(_like(x, y), state, kept, activations)

    def bwd(
        params: PyTree, residuals: _Residuals, y_ct: PyTree, visit: Visit, aux: PyTree, path: KeyPath
    ) -> Backward:
        context = residuals.context.context
        keys = None if context.key is None else jax.random.split(context.key, times)

        def step(carry: Any, p: PyTree, each: PyTree, a: PyTree) -> tuple[Any, PyTree]:
            (y1, y2, ct1, ct2), (s, key) = carry, each
            run, a = both(p, s, context._replace(key=key)), {"f": None, "g": None} if a is None else a
            again = run("g", y1, y2)
            of_g = g.bwd(p["g"], again.residuals, ct2, visit, a["g"], (*path, DictKey("g")))
            x2, ct1 = y2 - again.y, ct1 + of_g.x_ct
            again = run("f", x2, y1)
            of_f = f.bwd(p["f"], again.residuals, ct1, visit, a["f"], (*path, DictKey("f")))
            collected = {"f": of_f.collected, "g": of_g.collected}
            cotangents = {"f": of_f.cotangents, "g": of_g.cotangents}
            return (y1 - again.y, x2, ct1, ct2 + of_f.x_ct), (collected, cotangents)

        start = (*residuals.y, *_pair(y_ct))
        with in_layer(place):
            (_, _, *x_ct), (collected, cotangents) = reverse_scan(
                step, start, params, (residuals.state, keys), aux, times
            )
        return Backward(collected, cotangents, _like(y_ct, x_ct))

    return Layer(init, fwd, bwd, Parts("reversible", (f, g), {"times": times}))


def _pair(x: PyTree) -> tuple[jax.Array, jax.Array]:
    """The two arrays, or halves of one."""
    parts = jax.tree.leaves(x)
    if isinstance(x, dict) or len(parts) not in (1, 2) or (len(parts) == 2 and len(x) != 2):
        raise TypeError(
            "reversible: the input must be an array, or a pair of arrays, got the tree "
            f"{jax.tree.structure(x)}."
        )
    for a in parts:
        if not jnp.issubdtype(a.dtype, jnp.floating):
            raise TypeError(f"reversible: the input must be floating, got {describe(a)}.")
    if len(parts) == 2:
        return parts[0], parts[1]
    if parts[0].ndim == 0 or parts[0].shape[-1] % 2:
        raise ValueError(f"reversible: the last axis must have two equal halves, got {describe(parts[0])}.")
    first, second = jnp.split(parts[0], 2, axis=-1)
    return first, second


def _like(x: PyTree, pair: Any) -> PyTree:
    """The pair in the form of x: an array, or a pair."""
    leaves, tree = jax.tree.flatten(x)
    return tree.unflatten(pair if len(leaves) == 2 else [jnp.concatenate(pair, axis=-1)])


def _check(name: str, added_to: Any, y: Any) -> None:
    same = hasattr(y, "shape") and (y.shape, y.dtype) == (added_to.shape, added_to.dtype)
    if not same:
        raise ValueError(
            f"reversible: {name} must give an array like that which it is added to, {describe(added_to)}; "
            f"got {jax.tree.map(describe, y)}."
        )


def _check_params(params: PyTree, times: int) -> None:
    if not isinstance(params, dict) or params.keys() != {"f", "g"}:
        raise ValueError(
            f"reversible: params must be a dict of ['f', 'g'], got {jax.tree.structure(params)}; use what "
            "`init` returned."
        )
    if lengths := {a.shape[:1] for a in jax.tree.leaves(params)} - {(times,)}:
        raise ValueError(
            f"reversible: the first axis of params is the block, of {times}, got {sorted(lengths)}; use what "
            "`init` returned."
        )
