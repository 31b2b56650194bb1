"""The type of a layer, and `leaf`, which makes one from what its author knows: init, fwd and a pullback.

The backward pass is only the δ recurrence. Where a parameter meets its δ, the layer calls `visit` with the
parameter's `Factor` (activation and δ) and hands back what `visit` returns: the gradient, if the factor is
contracted to its sum; an updated parameter, a norm, nothing at all, if not.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
from jax.tree_util import KeyPath, keystr

__all__ = [
    "Backward",
    "Context",
    "Delta",
    "Forward",
    "Layer",
    "Parts",
    "Visit",
    "as_spec",
    "in_layer",
    "leaf",
    "path_string",
    "require_layer",
    "split_key",
]

PyTree = Any
Visit = Callable[[KeyPath, jax.Array, Any, PyTree], PyTree]


class Context(NamedTuple):
    """What a forward pass may depend on besides parameters, state and input.

    Attributes:
        key: for layers that draw random numbers; the combinators give each layer its own.
        train: static; False for evaluation (no dropout, running statistics).
        mask: which positions count, for layers that mix positions.
        positions: the index of every position, for layers that depend on it.
        independent: static; True where no example may depend on another: for per-example quantities, and in
            microbatches. A layer that couples examples raises ValueError then.
    """

    key: jax.Array | None = None
    train: bool = True
    mask: PyTree = None
    positions: PyTree = None
    independent: bool = False


class Forward(NamedTuple):
    """What a forward pass gives back; `activations` is every layer's output, in the tree of the network."""

    y: PyTree
    state: PyTree
    residuals: PyTree
    activations: PyTree


class Backward(NamedTuple):
    """What a backward pass gives back.

    Attributes:
        collected: what `visit` returned, in the tree of the parameters.
        cotangents: ∂value/∂output of every layer, in the tree of the network; a `Delta` where that is a
            pre-activation.
        x_ct: ∂value/∂input; None for an input that has no derivative (integers).
    """

    collected: PyTree
    cotangents: PyTree
    x_ct: PyTree


class Delta(NamedTuple):
    """A cotangent at a pre-activation: δ = ∂value/∂p."""

    value: PyTree


@dataclass(frozen=True, eq=False)
class Parts:
    """What a layer's forward pass is made of, for those who walk through a network.

    Attributes:
        kind: the name of the function that made the layer.
        layers: those inside.
        options: what else it was made with.
        leaf: whether its output is one value, which is what stands for it among the activations.
        pre_activation: whether that is a pre-activation p.
    """

    kind: str
    layers: "tuple[Layer, ...]" = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    leaf: bool = False
    pre_activation: bool = False


class _Record(NamedTuple):
    init: Callable[[jax.Array, PyTree], tuple[PyTree, PyTree]]
    fwd: Callable[[PyTree, PyTree, PyTree, Context], Forward]
    bwd: Callable[[PyTree, PyTree, PyTree, Visit, PyTree, KeyPath], Backward]
    parts: Parts | None = None


class Layer(_Record):
    """Three pure functions; every combinator gives back the same type.

    Attributes:
        init: `(key, x_spec) -> (params, state)`; `x_spec` is a `jax.ShapeDtypeStruct` (or a pytree of them)
            of a batch.
        fwd: `(params, state, x, context) -> Forward`.
        bwd: `(params, residuals, y_ct, visit, aux, path) -> Backward`. `visit(path, parameter, factor,
            aux_leaf)` is called once for every parameter, as soon as its δ is there; `aux` is None or has the
            tree of the parameters.
        parts: what `fwd` is made of, where that is known. Nothing needs it to run; `jacobian` finds known
            structure by it, `recompute` what can be kept.
    """

    __slots__ = ()

    def _replace(self, **changes: Any) -> "Layer":
        """With some of the fields replaced. Parts describe `fwd`: with another one they are not known.

        >>> double = leaf(lambda *_: ((), ()), lambda p, s, x, _: (2 * x, s, ()), lambda p, r, y: ((), 2 * y))
        >>> double._replace(bwd=None).parts == double.parts, double._replace(fwd=None).parts
        (True, None)
        """
        if "fwd" in changes:
            changes.setdefault("parts", None)
        return super()._replace(**changes)


def leaf(
    init: Callable[[jax.Array, PyTree], tuple[PyTree, PyTree]],
    fwd: Callable[[PyTree, PyTree, PyTree, Context], tuple[PyTree, PyTree, PyTree]],
    pullback: Callable[[PyTree, PyTree, PyTree], tuple[PyTree, PyTree]],
    *,
    pre_activation: bool = False,
    **options: Any,
) -> Layer:
    """A layer from the three functions that its author writes.

    Args:
        init: `(key, x_spec) -> (params, state)`; `()` for none.
        fwd: `(params, state, x, context) -> (y, state, residuals)`. Residuals must not hold parameters:
            `pullback` is given them, and a scan over blocks would copy them. They must be arrays.
        pullback: `(params, residuals, y_ct) -> (factors, x_ct)`: a `Factor` for every parameter, in the tree
            of `params`.
        pre_activation: whether the output is a pre-activation p, so that its cotangent is a δ.
        options: what the layer was made with, for `Layer.parts`. Its kind there is the name of the outermost
            function in which `fwd` is written, with its module where that is none of these layers'.

    >>> from funcbp import factors
    >>> scale = leaf(
    ...     lambda key, spec: (jax.numpy.ones(spec.shape[-1:]), ()),
    ...     lambda gain, state, x, context: (gain * x, state, x),
    ...     lambda gain, x, y_ct: (factors.Elementwise(x, y_ct), gain * y_ct),
    ... )
    """

    def layer_init(key: jax.Array, x_spec: PyTree) -> tuple[PyTree, PyTree]:
        return init(key, as_spec(x_spec))

    def layer_fwd(params: PyTree, state: PyTree, x: PyTree, context: Context) -> Forward:
        y, state, residuals = fwd(params, state, x, context)
        return Forward(y, state, residuals, y)

    def layer_bwd(
        params: PyTree, residuals: PyTree, y_ct: PyTree, visit: Visit, aux: PyTree, path: KeyPath
    ) -> Backward:
        factors, x_ct = pullback(params, residuals, y_ct)
        leaves, treedef = jax.tree_util.tree_flatten_with_path(params)
        aux_leaves = [None] * len(leaves) if aux is None else treedef.flatten_up_to(aux)
        collected = [
            visit((*path, *where), parameter, factor, aux_leaf)
            for (where, parameter), factor, aux_leaf in zip(
                leaves, treedef.flatten_up_to(factors), aux_leaves, strict=True
            )
        ]
        return Backward(treedef.unflatten(collected), Delta(y_ct) if pre_activation else y_ct, x_ct)

    kind, module = getattr(fwd, "__qualname__", "layer").split(".")[0], getattr(fwd, "__module__", "")
    kind = kind if module.rpartition(".")[0] == __package__ else f"{module}.{kind}"
    return Layer(layer_init, layer_fwd, layer_bwd, Parts(kind, (), options, True, pre_activation))


def as_spec(x: PyTree) -> PyTree:
    """Shapes and the dtypes that JAX will have: float64 data of numpy are float32 where 64 bits are off."""
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, jax.dtypes.canonicalize_dtype(a.dtype)), x)


def require_layer(what: str, layer: Any) -> None:
    """Raise `TypeError` for what is not a Layer."""
    if not isinstance(layer, Layer):
        raise TypeError(f"{what} is a {type(layer).__name__}, not a Layer; did you forget to call it?")


def path_string(path: KeyPath) -> str:
    """A path in a tree of parameters as dotted text.

    >>> path_string((jax.tree_util.SequenceKey(0), jax.tree_util.DictKey("w")))
    '0.w'
    """
    return keystr(path, simple=True, separator=".")


def split_key(context: Context, index: int) -> Context:
    """The context for the layer at `index`, with a key of its own."""
    return context if context.key is None else context._replace(key=jax.random.fold_in(context.key, index))


class in_layer:
    """Adds the place in the network to an error that is raised inside."""

    def __init__(self, place: str) -> None:
        self.place = place

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if error is not None:
            error.add_note(f"in layer {self.place}")
