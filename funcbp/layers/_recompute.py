"""`recompute`: a layer that keeps less of its forward pass, and makes the rest again in the backward pass."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
from jax import lax
from jax import numpy as jnp
from jax.tree_util import KeyPath

from ._layer import Backward, Context, Forward, Layer, Parts, PyTree, Visit, require_layer, split_key
from ._residual import skip
from ._saved import SavedContext

__all__ = ["recompute"]

Policy = Callable[[str, jax.ShapeDtypeStruct], bool]


class _Residuals(NamedTuple):
    x: PyTree
    outputs: dict[str, jax.Array]
    state: PyTree
    context: SavedContext


def recompute(layer: Layer, save: str | Policy = "nothing") -> Layer:
    """The same layer; of its residuals only the input is kept, and of its outputs inside what `save` says.

    Going back, the forward pass is run again from there, just before the layer's own backward pass. Inside a
    `repeat`, that is what `jax.checkpoint` does for the body of a scan. It has the random keys and the state
    of the first pass, so the result is the same, bit for bit but for what XLA fuses differently.

        save        kept beside the input               made again
        "nothing"   nothing                             everything
        "p"         pre-activations, p = q W + b        normalization, activations; no product of which the
                                                        result is kept
        "q"         outputs of activations, q = σ(p)    products where p is needed: for σ such as gelu and
                                                        silu; not where σ′ is had from q, as for relu, tanh,
                                                        sigmoid, softmax
        a policy    where `policy(path, spec)` is true, for the path ("0", "mlp.1") and the shape and dtype of
                    the output of a layer inside

    The layers inside are those of nested `chain` and `residual`; any other layer is made again as a whole,
    and one that is a single rule can have its output kept. To keep something inside a `repeat`, put
    `recompute` there: `repeat(recompute(block), n)`.

    Raises:
        TypeError: for what is not a Layer.
        ValueError: for an unknown `save`, and where nothing inside is a pre-activation ("p") or the output of
            an activation ("q").

    >>> from funcbp.layers import activation, chain, dense, repeat
    >>> block = chain(dense(4), activation("gelu"), dense(4))
    >>> network = repeat(recompute(block, "p"), 8)
    """
    require_layer("recompute: the layer", layer)
    keeps = _policy(layer, save)

    def fwd(params: PyTree, state: PyTree, x: PyTree, context: Context) -> Forward:
        done = layer.fwd(params, state, x, context)
        outputs = dict(_outputs(layer, done.activations))
        kept = {path: y for path, y in outputs.items() if keeps(path, jax.ShapeDtypeStruct(y.shape, y.dtype))}
        return done._replace(residuals=_Residuals(x, kept, state, SavedContext.of(context)))

    def bwd(
        params: PyTree, residuals: _Residuals, y_ct: PyTree, visit: Visit, aux: PyTree, path: KeyPath
    ) -> Backward:
        # Else XLA would see that all this has been computed before, and keep it; and not before δ is here,
        # else it would be made again for all layers at once.
        (x, outputs), y_ct = lax.optimization_barrier(((residuals.x, residuals.outputs), y_ct))
        context = residuals.context.context
        _, again = _again(layer, params, residuals.state, x, context, outputs, "")
        return layer.bwd(params, again, y_ct, visit, aux, path)

    return Layer(layer.init, fwd, bwd, Parts("recompute", (layer,), {"save": save}))


def _policy(layer: Layer, save: Any) -> Policy:
    if callable(save):
        return save
    if save == "nothing":
        return lambda *_: False
    if save not in ("p", "q"):
        raise ValueError(
            f"recompute: `save` must be 'nothing', 'p', 'q' or a function of (path, spec), got {save!r}."
        )
    names = {
        path
        for path, parts in _leaves(layer)
        if (parts.pre_activation if save == "p" else parts.kind == "activation")
    }
    if not names:
        what = "a pre-activation" if save == "p" else "the output of an activation"
        raise ValueError(
            f"recompute: save={save!r}, but nothing inside is {what}. Only layers in nested chains and "
            "residuals are looked at: put recompute inside of a repeat."
        )
    return lambda path, _: path in names


def _inside(layer: Layer, path: str) -> list[tuple[str, Layer]] | None:
    """The layers of a chain, or the body of a residual, with their paths; None for any other layer."""
    parts = layer.parts
    if parts is None or parts.kind not in ("chain", "residual"):
        return None
    if parts.kind == "residual":
        return [(path, parts.layers[0])]
    names = parts.options["members"].names
    return [(f"{path}.{n}".lstrip("."), one) for n, one in zip(names, parts.layers, strict=True)]


def _leaves(layer: Layer, path: str = "") -> Iterator[tuple[str, Parts]]:
    """Layers that are one rule each."""
    inside = _inside(layer, path)
    for place, one in inside or ():
        yield from _leaves(one, place)
    if inside is None and layer.parts is not None and layer.parts.leaf:
        yield path, layer.parts


def _outputs(layer: Layer, activations: PyTree, path: str = "") -> Iterator[tuple[str, jax.Array]]:
    """Their outputs."""
    inside = _inside(layer, path)
    if inside is None:
        if layer.parts is not None and layer.parts.leaf and isinstance(activations, jax.Array):
            yield path, activations
        return
    each = [activations]
    if layer.parts is not None and layer.parts.kind == "chain":
        each = layer.parts.options["members"].split(activations, "activations")
    for (place, one), a in zip(inside, each, strict=True):
        yield from _outputs(one, a, place)


def _again(
    layer: Layer,
    params: PyTree,
    state: PyTree,
    x: PyTree,
    context: Context,
    outputs: Mapping[str, jax.Array],
    path: str,
) -> tuple[PyTree, PyTree]:
    """Output and residuals of the layer's forward pass, where `outputs` need not be computed."""
    inside = _inside(layer, path)
    if inside is None:
        done = layer.fwd(params, state, x, context)
        if path not in outputs:
            return done.y, done.residuals
        # What the layer keeps of its output is what was kept; its product has no reader then.
        kept = outputs[path]
        return kept, jax.tree.map(lambda r: kept if r is done.y else r, done.residuals)
    assert layer.parts is not None
    if layer.parts.kind == "residual":
        y, residuals = _again(inside[0][1], params, state, x, context, outputs, path)
        return jax.tree.map(jnp.add, skip(x, layer.parts.options["entry"]), y), residuals
    members = layer.parts.options["members"]
    each, states, residuals = members.split(params, "params"), members.split_state(state), []
    for i, (place, one) in enumerate(inside):
        x, r = _again(one, each[i], states[i], x, split_key(context, i), outputs, place)
        residuals.append(r)
    return x, tuple(residuals)
