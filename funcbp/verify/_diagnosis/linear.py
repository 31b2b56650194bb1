"""Mistakes that sums, products, gathers, masks and cumulative sums invite, by primitive."""

from collections.abc import Callable, Iterator

import numpy as np

from .._report import Cause
from .matrices import kernels, matrices, systems
from .mutants import Change, Context, Edge, Mutant, Pulled
from .pullbacks import einsum_of, fit

__all__ = ["BY_NAME"]


def sums(context: Context, edge: Edge) -> Iterator[Mutant]:
    """The pullback of a sum divided by the number of terms, or spread along another axis."""
    shape, axes = context.graph.shape(edge.value), edge.node.params["axes"]
    n = int(np.prod([shape[a] for a in axes]))
    if n > 1:
        text = f"the cotangent of {{it}} is divided by n = {n}, as for a mean; it is a sum"
        yield context.mutant(edge, Cause.CONSTANT_FACTOR, 3, text, lambda p: p.share / n, Cause.REDUCTION)
    for other in range(len(shape)) if len(axes) == 1 else ():
        if other != axes[0] and shape[other] == shape[axes[0]]:
            text = f"the cotangent of {{it}} is spread along axis {other} in place of {axes[0]}"
            yield context.mutant(
                edge,
                Cause.REDUCTION,
                3,
                text,
                lambda p, o=other: np.swapaxes(p.share, o, axes[0]),
                Cause.BROADCAST,
            )


def products(context: Context, edge: Edge) -> Iterator[Mutant]:
    """A matrix product's pullback without a transpose, with operands in the wrong order, or averaged."""
    node, graph = edge.node, context.graph
    other = node.inputs[1 - edge.position]
    letters = einsum_of(node, (len(graph.shape(node.inputs[0])), len(graph.shape(node.inputs[1]))))
    own, its, out = letters[edge.position], letters[1 - edge.position], letters[2]
    shape = graph.shape(other)
    if len(shape) >= 2 and shape[-1] == shape[-2]:
        turned = its[:-2] + its[-1] + its[-2]
        yield context.mutant(
            edge,
            Cause.TRANSPOSE_FORGOTTEN,
            2,
            "in the cotangent of {it} the other operand is not transposed; transpose it",
            lambda p: np.einsum(f"{out},{turned}->{own}", p.ct, p.operand(1 - edge.position)),
        )
    shape = graph.shape(edge.value)
    if len(shape) >= 2 and shape[-1] == shape[-2]:
        yield context.mutant(
            edge,
            Cause.TRANSPOSED,
            3,
            "the cotangent of {it} is transposed; transpose it back",
            lambda p: np.swapaxes(p.share, -1, -2),
            Cause.TRANSPOSE_FORGOTTEN,
        )
    shape = graph.shape(node.outputs[0])
    if len(shape) >= 2 and shape[-1] == shape[-2]:
        yield context.mutant(
            edge,
            Cause.TRANSPOSE_FORGOTTEN,
            3,
            "the cotangent of {it} is made with the transpose of the product's own; transpose it",
            lambda p: p.share_of(np.swapaxes(p.ct, -1, -2)),
        )
    for axis, letter in enumerate(out):
        if letter not in own:
            yield from _contracted(context, edge, axis)


def _contracted(context: Context, edge: Edge, axis: int) -> Iterator[Mutant]:
    n = context.graph.shape(edge.node.outputs[0])[axis]
    text = f"the cotangent of {{it}} is averaged over n = {n}, not summed; multiply by n"
    yield context.mutant(edge, Cause.CONSTANT_FACTOR, 3, text, lambda p: p.share / n, Cause.REDUCTION)
    for index, which in ((0, "first"), (-1, "last")):
        text = f"of the sum in the cotangent of {{it}} only the {which} term is taken; sum over all"
        yield context.mutant(edge, Cause.REDUCTION, 4, text, _one_row(axis, index))


def _one_row(axis: int, index: int) -> Change:
    def change(p: Pulled) -> np.ndarray:
        kept = np.zeros_like(p.ct)
        at = (slice(None),) * axis + (index,)
        kept[at] = p.ct[at]
        return p.share_of(kept)

    return change


def gathers(context: Context, edge: Edge) -> Iterator[Mutant]:
    """Contributions of an index that occurs twice overwritten."""
    if edge.position == 0:
        yield context.mutant(
            edge,
            Cause.OVERWRITTEN,
            2,
            "where an index of {it} occurs twice, cotangents overwrite each other; add them (`.at[].add`)",
            _overwritten,
        )

        text = "the cotangent of {it} is divided by how often an index occurs; add, do not average"
        yield context.mutant(edge, Cause.CONSTANT_FACTOR, 3, text, _averaged, Cause.REDUCTION)


def _averaged(p: Pulled) -> np.ndarray:
    at = p.tape.maps[p.node.index].ravel().astype(np.int64)
    counts = np.bincount(at, minlength=p.share.size + 1)[1:].reshape(p.share.shape)
    return p.share / np.maximum(counts, 1)


def _overwritten(p: Pulled) -> np.ndarray:
    flat = np.zeros(p.share.size + 1, p.ct.dtype)
    flat[p.tape.maps[p.node.index].ravel().astype(np.int64)] = p.ct.ravel()
    return flat[1:].reshape(p.share.shape)


def reshapes(context: Context, edge: Edge) -> Iterator[Mutant]:
    """An axis split or joined with its two parts in the wrong order: tile for repeat."""
    shape, out = context.graph.shape(edge.value), context.graph.shape(edge.node.outputs[0])
    split = len(out) > len(shape)
    parts = out if split else shape
    for axis in range(len(parts) - 1):
        if min(parts[axis : axis + 2]) < 2:
            continue
        turned = (*parts[:axis], parts[axis + 1], parts[axis], *parts[axis + 2 :])

        def change(p: Pulled, a: int = axis, turned: tuple[int, ...] = turned) -> np.ndarray:
            ct = p.ct if split else p.ct.reshape(turned)
            return np.swapaxes(ct, a, a + 1).reshape(p.share.shape)

        text = f"in the cotangent of {{it}} the axes {axis} and {axis + 1} of the reshape are exchanged"
        yield context.mutant(edge, Cause.PERMUTED, 3, text, change, Cause.TRANSPOSED)


def places(context: Context, edge: Edge) -> Iterator[Mutant]:
    """Places that the forward pass overwrites and that get a cotangent all the same."""
    if edge.position == 0:
        text = "what is overwritten in {it} gets a cotangent, too; set it to zero there"
        yield context.mutant(
            edge, Cause.FACTOR_MISSING, 2, text, lambda p: p.ct, Cause.REGION, Cause.TERM_MISSING
        )


def logarithmic_sums(context: Context, edge: Edge) -> Iterator[Mutant]:
    """A cumulative logsumexp: its own step left out, or alone."""

    def own(p: Pulled) -> np.ndarray:
        return p.ct * np.exp(p.operand(0) - p.operand(-1))

    for cause, text, of in (
        (
            Cause.OFF_BY_ONE,
            "the cotangent of {it} leaves out its own step; include it",
            lambda p: p.share - own(p),
        ),
        (Cause.REDUCTION, "the cotangent of {it} is not summed; sum over the steps that it is part of", own),
    ):
        yield context.mutant(edge, cause, 3, text, of, Cause.TERM_MISSING)


def turns(context: Context, edge: Edge) -> Iterator[Mutant]:
    """A transpose or a reversal that is not undone."""
    causes = (Cause.PERMUTED, Cause.TRANSPOSED)
    if edge.node.name == "transpose" and len(context.graph.shape(edge.value)) == 2:
        causes = (Cause.TRANSPOSE_FORGOTTEN, Cause.TRANSPOSED, Cause.PERMUTED)
    text = "{it} is not undone in the cotangent; undo it"
    yield context.mutant(edge, causes[0], 2, text, lambda p: p.ct.reshape(p.share.shape), *causes[1:])


def steps(context: Context, edge: Edge) -> Iterator[Mutant]:
    """What lands one place off."""
    if edge.position != 0:
        return
    for axis, n in enumerate(context.graph.shape(edge.value)):
        for step in (1, -1) if n > 1 else ():
            text = f"the cotangent of {{it}} lands one place off along axis {axis}; shift it by {-step}"
            for shifted in (np.roll, _pushed):
                yield context.mutant(
                    edge,
                    Cause.OFF_BY_ONE,
                    3,
                    text,
                    lambda p, a=axis, s=step, f=shifted: f(p.share, s, a),
                )


def _pushed(x: np.ndarray, step: int, axis: int) -> np.ndarray:
    moved = np.moveaxis(np.roll(x, step, axis), axis, 0).copy()
    moved[0 if step > 0 else -1] = 0
    return np.moveaxis(moved, 0, axis)


def cumulative(context: Context, edge: Edge) -> Iterator[Mutant]:
    """A cumulative sum's cotangent summed from the wrong end, not at all, or without its own step."""
    axis, backward = edge.node.params["axis"], not edge.node.params["reverse"]

    def summed(ct: np.ndarray, reverse: bool) -> np.ndarray:
        return np.flip(np.cumsum(np.flip(ct, axis), axis), axis) if reverse else np.cumsum(ct, axis)

    for cause, text, of in (
        (
            Cause.PERMUTED,
            "the cotangent of {it} is summed from the wrong end; reverse it",
            lambda p: summed(p.ct, not backward),
        ),
        (
            Cause.REDUCTION,
            "the cotangent of {it} is not summed; sum over all later steps",
            lambda p: p.ct,
        ),
        (
            Cause.OFF_BY_ONE,
            "the cotangent of {it} leaves out its own step; include it",
            lambda p: summed(p.ct, backward) - p.ct,
        ),
        (
            Cause.REDUCTION,
            "the cotangent of {it} is summed over all steps, not only the later ones",
            lambda p: np.broadcast_to(p.ct.sum(axis, keepdims=True), p.ct.shape),
        ),
    ):
        yield context.mutant(edge, cause, 3, text, of)


def selections(context: Context, edge: Edge) -> Iterator[Mutant]:
    """A mask dropped or inverted."""
    for rank, text, of in (
        (2, "the mask of {it} is missing; apply it to the cotangent, too", _unmasked),
        (3, "the mask of {it} is inverted; turn it around", lambda p: _unmasked(p) - p.share),
    ):
        yield context.mutant(edge, Cause.FACTOR_MISSING, rank, text, of, Cause.REGION)


def _unmasked(p: Pulled) -> np.ndarray:
    return fit(p.ct, p.share.shape)


def extremes(context: Context, edge: Edge) -> Iterator[Mutant]:
    """A maximum over an axis: ties not split, or all elements taken for winners."""
    axes = edge.node.params["axes"]

    def spread(p: Pulled) -> np.ndarray:
        return np.broadcast_to(np.expand_dims(p.ct, axes), p.share.shape)

    def winners(p: Pulled) -> np.ndarray:
        return p.operand(0) == np.expand_dims(p.operand(-1), axes)

    for cause, rank, text, of in (
        (
            Cause.KINK,
            2,
            "at ties of {it} every winner gets the whole cotangent; split it among them",
            lambda p: spread(p) * winners(p),
        ),
        (
            Cause.FACTOR_MISSING,
            3,
            "all elements of {it} get the cotangent; only the winner has one",
            spread,
        ),
    ):
        yield context.mutant(edge, cause, rank, text, of)


def parts(context: Context, edge: Edge) -> Iterator[Mutant]:
    """The parts of a concatenation exchanged."""
    node, graph = edge.node, context.graph
    for other, value in enumerate(node.inputs):
        if other != edge.position and graph.shape(value) == graph.shape(edge.value):

            def change(p: Pulled, part: int = other) -> np.ndarray:
                axis = node.params["dimension"]
                ends = np.cumsum([graph.shape(v)[axis] for v in p.node.inputs])[:-1]
                return np.split(p.ct, ends, axis)[part]

            text = f"the cotangent of {{it}} is that of part {other}; take its own part"
            yield context.mutant(edge, Cause.SWAPPED, 3, text, change, Cause.PERMUTED)


_MATRIX_FUNCTIONS = (
    "cholesky",
    "custom_linear_solve",
    "eigh",
    "householder_product",
    "linear_solve",
    "lu",
    "qr",
    "svd",
    "triangular_solve",
)
BY_NAME: dict[str, tuple[Callable[[Context, Edge], Iterator[Mutant]], ...]] = {
    "concatenate": (parts,),
    "conv_general_dilated": (kernels,),
    "cumlogsumexp": (logarithmic_sums,),
    "cumsum": (cumulative,),
    "dot_general": (products,),
    "dynamic_slice": (steps,),
    "dynamic_update_slice": (places,),
    "gather": (gathers, steps),
    "inv": (matrices, systems),
    "reduce_max": (extremes,),
    "reduce_min": (extremes,),
    "reduce_sum": (sums,),
    "reshape": (reshapes,),
    "rev": (turns,),
    "scatter": (places,),
    "select_n": (selections,),
    "slice": (steps,),
    "solve": (matrices, systems),
    "take_step": (steps,),
    "transpose": (turns,),
    **{name: (matrices,) for name in _MATRIX_FUNCTIONS},
}
