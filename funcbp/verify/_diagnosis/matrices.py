"""Mistakes that matrix functions, linear systems and convolutions invite: transposes and flips."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from .._report import Cause
from .graph import Node
from .mutants import Change, Context, Edge, Mutant, Pulled
from .tape import Contributions, Override, Tape

__all__ = ["kernels", "matrices", "systems"]


def matrices(context: Context, edge: Edge) -> Iterator[Mutant]:
    """A matrix function: its cotangent transposed, or made symmetric."""
    shape = context.graph.shape(edge.value)
    if len(shape) < 2 or shape[-1] != shape[-2]:
        return

    def turned(g: np.ndarray) -> np.ndarray:
        return np.swapaxes(g, -1, -2)

    for cause, text, of in (
        (Cause.TRANSPOSED, "the cotangent of {it} is transposed; transpose it back", turned),
        (
            Cause.TERM_MISSING,
            "the cotangent of {it} is made symmetric; leave it as it is",
            lambda g: (g + turned(g)) / 2,
        ),
        (
            Cause.TERM_MISSING,
            "the cotangent of {it} has its transpose added; leave that out",
            lambda g: g + turned(g),
        ),
    ):
        yield context.mutant(edge, cause, 3, text, lambda p, of=of: of(p.share), Cause.TRANSPOSE_FORGOTTEN)


def systems(context: Context, edge: Edge) -> Iterator[Mutant]:
    """An inverse or a linear system whose pullback needs the transposed matrix, taken as it is."""
    text = "the cotangent of {it} is made with the matrix as it is; transpose it"
    change = _solved if edge.node.name == "solve" else _at_transposed
    shape = context.graph.shape(edge.node.inputs[0])
    if len(shape) == 2 and shape[0] == shape[1]:
        yield context.mutant(edge, Cause.TRANSPOSE_FORGOTTEN, 2, text, change, Cause.TRANSPOSED)
        yield Mutant(
            Cause.TRANSPOSE_FORGOTTEN,
            f"the {edge.node.name} in the backward pass is made with the matrix as it is; transpose it",
            2,
            {edge.node.index: _all_shares(edge, change)},
            edge.site.source,
        )


def _all_shares(edge: Edge, change: Change) -> Override:
    """The same change to the shares of all operands."""

    def override(tape: Tape, node: Node, cts: list[np.ndarray]) -> Contributions:
        sent = tape.pull(node, cts)
        moving = [k for k, v in enumerate(node.inputs) if v in tape.recorder.moving]
        found: Contributions = []
        for position, (value, share) in zip(moving, sent, strict=True):
            changed = change(Pulled(tape, node, replace(edge, position=position), cts[0], share))
            found.append((value, share if changed is None else changed))
        return found

    return override


def _solved(p: Pulled) -> np.ndarray:
    right_side = np.linalg.solve(p.operand(0), p.ct)
    if p.edge.position == 1:
        return right_side
    return -np.outer(right_side, p.operand(-1)) if p.ct.ndim == 1 else -right_side @ p.operand(-1).T


def _at_transposed(p: Pulled) -> np.ndarray:
    turned = {p.node.inputs[0]: np.ascontiguousarray(p.operand(0).T)}
    return p.share_with([p.ct], turned)


def kernels(context: Context, edge: Edge) -> Iterator[Mutant]:
    """A convolution's kernel flipped where it must not be, or not where it must."""
    spatial = edge.node.params["dimension_numbers"].rhs_spec[2:]
    if edge.position == 1:
        text = "the cotangent of the kernel is flipped; flip it back"
        yield context.mutant(edge, Cause.PERMUTED, 3, text, lambda p: np.flip(p.share, spatial))
        return

    def unflipped(p: Pulled) -> np.ndarray:
        kernel = p.node.inputs[1]
        flipped = {kernel: np.ascontiguousarray(np.flip(p.operand(1), spatial))}
        return p.share_with([p.ct], flipped)

    text = "the cotangent of {it} is made with the kernel flipped the wrong way; flip it"
    yield context.mutant(edge, Cause.PERMUTED, 3, text, unflipped)
