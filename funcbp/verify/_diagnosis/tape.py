"""One run of the reference, recorded; and its reverse sweep in NumPy, with pullbacks that can be replaced.

A mutation changes the pullback of a few nodes. All others are linear, so that only the difference that the
mutation makes has to be sent down, through the nodes below it: thousands of mutants a second, nothing
compiled.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import jax
import numpy as np
from jax import lax
from jax import numpy as jnp

from ... import _compat
from .graph import Graph, Node
from .pullbacks import PULLBACKS, moved_by

__all__ = ["Contributions", "Override", "Recorder", "Tape"]

Contributions = list[tuple[int, np.ndarray]]
Override = Callable[["Tape", Node, list[np.ndarray]], Contributions]


class Recorder:
    """Runs a graph and keeps every value, and every local derivative of elementwise nodes: compiled once."""

    def __init__(self, graph: Graph, wrt: Sequence[int]) -> None:
        self.graph, self.wrt = graph, [graph.inputs[i] for i in wrt]
        self.moving = graph.moving(wrt)
        self.active = [n for n in graph.nodes if any(v in self.moving for v in n.outputs)]
        self._run = _compat.quick_jit(self._everything)
        self._opaque: dict[int, Any] = {}

    def tape(
        self,
        inputs: Sequence[Any],
        cotangents: Sequence[np.ndarray],
        numbers: Mapping[int, float] | None = None,
        forced: Mapping[int, int] | None = None,
    ) -> "Tape":
        """The recorded run at some inputs, with the cotangents of the outputs.

        Literals can be taken for other `numbers`, and predicates be `forced` to be false (0) or true (1).
        """
        graph = self.graph
        taken = {v: np.asarray(graph.constants[v], graph.avals[v].dtype) for v in graph.adjustable}
        taken.update({v: np.asarray(x, graph.avals[v].dtype) for v, x in (numbers or {}).items()})
        sides = {v: np.int8((forced or {}).get(v, -1)) for v in graph.predicates}
        values, slopes, maps = self._run(inputs, taken, sides)
        known = {v: np.asarray(x) for v, x in graph.constants.items() if not _is_key(x)}
        known.update(taken)
        known.update({v: np.asarray(x) for v, x in values.items()})
        return Tape(
            self,
            known,
            {k: np.asarray(x) for k, x in slopes.items()},
            {k: np.asarray(x) for k, x in maps.items()},
            cotangents,
        )

    def opaque(self, node: Node) -> Callable[..., list[np.ndarray | None]]:
        """The pullback of a node that has no NumPy rule: compiled when first asked for."""
        if node.index not in self._opaque:
            moving = [k for k, v in enumerate(node.inputs) if v in self.moving]

            def pull(operands: list[Any], cts: list[Any]) -> Any:
                def function(*chosen: Any) -> list[Any]:
                    whole = list(operands)
                    for k, x in zip(moving, chosen, strict=True):
                        whole[k] = x
                    outputs = _compat.bind(node.primitive, whole)
                    return [o for o, v in zip(outputs, node.outputs, strict=True) if self.graph.inexact(v)]

                return jax.vjp(function, *(operands[k] for k in moving))[1](cts)

            self._opaque[node.index] = (moving, _compat.quick_jit(pull))
        moving, compiled = self._opaque[node.index]

        def run(operands: list[Any], cts: list[Any]) -> list[np.ndarray | None]:
            found: list[np.ndarray | None] = [None] * len(operands)
            with jax.enable_x64(True):
                for k, ct in zip(moving, compiled(operands, cts), strict=True):
                    found[k] = np.asarray(ct)
            return found

        return run

    def _everything(
        self, inputs: Sequence[Any], numbers: Mapping[int, Any], forced: Mapping[int, Any]
    ) -> tuple[dict[int, Any], dict[Any, Any], dict[int, Any]]:
        graph = self.graph
        values: dict[int, Any] = {**graph.constants, **numbers}
        values.update(zip(graph.inputs, inputs, strict=True))
        slopes: dict[Any, Any] = {}
        maps: dict[int, Any] = {}
        active = {node.index for node in self.active}
        for node in graph.nodes:
            operands = [values[v] for v in node.inputs]
            values.update(zip(node.outputs, evaluate(node, operands), strict=True))
            for v in node.outputs:
                if v in forced:
                    values[v] = jnp.where(forced[v] < 0, values[v], forced[v] == 1)
            if node.index in active and node.elementwise:
                for k, slope in _slopes(node, operands, values[node.outputs[0]], self).items():
                    slopes[node.index, k] = slope
            elif node.index in active and moved_by(node):
                maps[node.index] = _map(node, operands)
        kept = {v: x for v, x in values.items() if v not in graph.constants and not _is_key(x)}
        return kept, slopes, maps


class Tape:
    """A recorded run: values, local derivatives, and the right cotangents of all values."""

    def __init__(
        self,
        recorder: Recorder,
        values: Mapping[int, np.ndarray],
        slopes: Mapping[tuple[int, int], np.ndarray],
        maps: Mapping[int, np.ndarray],
        cotangents: Sequence[np.ndarray],
    ) -> None:
        self.recorder, self.graph = recorder, recorder.graph
        self.values, self.slopes, self.maps = values, slopes, maps
        self._jacobians: dict[int, np.ndarray] = {}
        self.seeds: list[tuple[int, np.ndarray]] = [
            (v, np.asarray(ct))
            for v, ct in zip(self.graph.outputs, cotangents, strict=True)
            if self.graph.inexact(v)
        ]

    def pull(
        self, node: Node, cts: Sequence[np.ndarray], values: Mapping[int, np.ndarray] | None = None
    ) -> Contributions:
        """What the right pullback of a node sends to its operands; at other operands if `values` says so."""
        operands = [
            self.values.get(v) if values is None else values.get(v, self.values.get(v)) for v in node.inputs
        ]
        rule = PULLBACKS.get("elementwise" if node.elementwise else "moves" if moved_by(node) else node.name)
        with np.errstate(all="ignore"):
            if rule is not None:
                sent = rule(self, node, operands, cts[0])
            else:
                sent = self.recorder.opaque(node)(operands, list(cts))
        moving = self.recorder.moving
        return [(v, ct) for v, ct in zip(node.inputs, sent, strict=True) if ct is not None and v in moving]

    @cached_property
    def _right(self) -> tuple[dict[int, np.ndarray], dict[int, Contributions]]:
        cts: dict[int, np.ndarray] = {}
        sent: dict[int, Contributions] = {}
        for value, ct in self.seeds:
            _accumulate(cts, value, ct)
        for node in reversed(self.recorder.active):
            given = self.given(node, cts)
            if given is not None:
                sent[node.index] = self.pull(node, given)
                for value, ct in sent[node.index]:
                    _accumulate(cts, value, ct)
        return cts, sent

    @property
    def cotangents(self) -> Mapping[int, np.ndarray]:
        """The right cotangent of every value that has one."""
        return self._right[0]

    @property
    def sent(self) -> Mapping[int, Contributions]:
        """What every node sends to its operands, in the right sweep."""
        return self._right[1]

    def given(self, node: Node, cts: Mapping[int, np.ndarray]) -> list[np.ndarray] | None:
        """The cotangents of a node's outputs, zeros for those without; None if none has any."""
        if not any(v in cts for v in node.outputs):
            return None
        graph = self.graph
        return [cts[v] if v in cts else np.zeros(graph.shape(v)) for v in node.outputs if graph.inexact(v)]

    def changed(self, overrides: Mapping[int, Override]) -> list[np.ndarray]:
        """By how much the cotangents of the leaves change when nodes pull back as the overrides say."""
        deltas: dict[int, np.ndarray] = {}
        first = max(overrides)
        for node in reversed(self.recorder.active):
            if node.index > first:
                continue
            given = self.given(node, deltas)
            if node.index in overrides:
                right = self.given(node, self.cotangents)
                if right is None:
                    continue
                full = right if given is None else [a + b for a, b in zip(right, given, strict=True)]
                with np.errstate(all="ignore"):
                    for value, ct in overrides[node.index](self, node, full):
                        _accumulate(deltas, value, ct)
                for value, ct in self.sent[node.index]:
                    _accumulate(deltas, value, -ct)
            elif given is not None and any(d.any() for d in given):
                for value, ct in self.pull(node, given):
                    _accumulate(deltas, value, ct)
        return [deltas.get(v, np.zeros(self.graph.shape(v))) for v in self.recorder.wrt]

    def with_cotangents(self, of: Callable[[np.ndarray], np.ndarray]) -> "Tape":
        """The same run with other cotangents of the outputs."""
        nothing = [np.zeros(())] * len(self.graph.outputs)
        other = Tape(self.recorder, self.values, self.slopes, self.maps, nothing)
        other.seeds = [(v, of(ct)) for v, ct in self.seeds]
        return other

    def without_output(self, which: int) -> "Tape":
        """The same run with a cotangent of zero for one of the outputs."""
        other = self.with_cotangents(lambda ct: ct)
        value, ct = other.seeds[which]
        other.seeds[which] = (value, np.zeros_like(ct))
        return other

    def jacobian(self, leaf: int) -> np.ndarray:
        """Of the first output by a leaf, both flat: a row for each element of the output."""
        if leaf not in self._jacobians:
            shape = self.seeds[0][1].shape
            rows = [
                self.with_cotangents(lambda _, e=row: e.reshape(shape)).gradient()[leaf].ravel()
                for row in np.eye(math.prod(shape))
            ]
            self._jacobians[leaf] = np.stack(rows)
        return self._jacobians[leaf]

    def gradient(self) -> list[np.ndarray]:
        """The right cotangents of the leaves."""
        return [self.cotangents.get(v, np.zeros(self.graph.shape(v))) for v in self.recorder.wrt]


def evaluate(node: Node, operands: Sequence[Any]) -> Sequence[Any]:
    """A node's outputs. Traceable."""
    if node.name == "take_step":
        return [operands[0][node.step]]
    if node.name == "stack":
        return [jnp.stack(operands)]
    if node.name == "choose":
        index, *values = operands
        return [lax.select_n(jnp.clip(jnp.asarray(index, jnp.int32), 0, len(values) - 1), *values)]
    return _compat.bind(node.primitive, operands)


def _slopes(node: Node, operands: Sequence[Any], out: Any, recorder: Recorder) -> dict[int, Any]:
    moving = [k for k, v in enumerate(node.inputs) if v in recorder.moving]

    def function(*chosen: Any) -> Any:
        whole = [
            jnp.broadcast_to(x, out.shape) if node.name != "convert_element_type" else x for x in operands
        ]
        for k, x in zip(moving, chosen, strict=True):
            whole[k] = x
        return evaluate(node, whole)[0]

    if not moving:
        return {}
    _, pull = jax.vjp(function, *(jnp.broadcast_to(operands[k], out.shape) for k in moving))
    return dict(zip(moving, pull(jnp.ones(out.shape, out.dtype)), strict=True))


def _map(node: Node, operands: Sequence[Any]) -> Any:
    """For every element of the output, one more than the place in the operand that it comes from; 0: none."""
    operand = operands[0]
    places = 1.0 + jnp.arange(operand.size, dtype=jnp.float64).reshape(operand.shape)
    if node.name == "take_step":
        return places[node.step]
    (found,) = _compat.bind(node.primitive, [places, *operands[1:]])
    return jnp.where(jnp.isfinite(found), found, 0)


def _accumulate(cts: dict[int, np.ndarray], value: int, ct: np.ndarray) -> None:
    cts[value] = cts[value] + ct if value in cts else ct


def _is_key(value: Any) -> bool:
    return hasattr(value, "dtype") and jnp.issubdtype(value.dtype, jax.dtypes.prng_key)
