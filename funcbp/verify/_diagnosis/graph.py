"""The reference's program as one flat list of nodes: calls inlined, short scans unrolled."""

import linecache
import math
import os
import re
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import numpy as jnp

from ... import _compat
from ..._compat import ClosedJaxpr, JaxprEqn, Literal

__all__ = ["ELEMENTWISE", "MATRIX_CALLS", "Graph", "Node", "Source", "trace"]

# Every output element depends on the operands' elements at the same place; a scalar operand on all.
ELEMENTWISE = frozenset(
    {
        *(
            "abs",
            "acos",
            "acosh",
            "add",
            "add_any",
            "asin",
            "asinh",
            "atan",
            "atan2",
            "atanh",
            "cbrt",
            "ceil",
        ),
        *(
            "clamp",
            "convert_element_type",
            "copy",
            "copy_p",
            "cos",
            "cosh",
            "digamma",
            "div",
            "erf",
            "erf_inv",
        ),
        *("erfc", "exp", "exp2", "expm1", "floor", "igamma", "imag", "integer_pow", "lgamma", "log", "log1p"),
        *("logistic", "max", "min", "mul", "neg", "nextafter", "optimization_barrier", "pow", "real"),
        *("reduce_precision", "rem", "round", "rsqrt", "sign", "sin", "sinh", "sqrt", "square"),
        *("stop_gradient", "sub", "tan", "tanh"),
    }
)
# Functions of jax.numpy that read better as one node than as their factorizations.
MATRIX_CALLS = frozenset({"det", "expm", "inv", "pinv", "slogdet", "solve"})
_SPREADS = frozenset(
    {"broadcast_in_dim", "convert_element_type", "copy", "expand_dims", "reshape", "squeeze"}
)
_ASSIGNMENT = re.compile(r"(\w+)\s*=[^=]")
_LONGEST_SCAN = 64
_MOST_NODES = 4000


class Source(NamedTuple):
    """A line of the user's code."""

    file: str
    line: int
    function: str

    @property
    def text(self) -> str:
        """The line itself."""
        return linecache.getline(self.file, self.line).strip()

    def __str__(self) -> str:
        text = f": {self.text}" if self.text else ""
        return f"{os.path.basename(self.file)}:{self.line}, in {self.function}{text}"


@dataclass(frozen=True, eq=False)
class Node:
    """One operation.

    Attributes:
        index: its position in `Graph.nodes`.
        name: of the primitive; `"take_step"`, `"stack"` and `"choose"` stand for what control flow does.
        equation: the equation of the jaxpr; None for these three.
        inputs: values, by index.
        outputs: values, by index.
        step: which step of a scan, for `"take_step"`.
        source: the user's line.
    """

    index: int
    name: str
    equation: JaxprEqn | None
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    step: int
    source: Source | None

    @property
    def primitive(self) -> JaxprEqn:
        """The equation of a node that has one."""
        if self.equation is None:
            raise TypeError(f"{self.name} is no equation.")
        return self.equation

    @property
    def params(self) -> dict[str, Any]:
        """The equation's parameters."""
        return {} if self.equation is None else self.equation.params

    @property
    def elementwise(self) -> bool:
        """Whether each output element depends only on the operands' elements at its place."""
        return self.name in ELEMENTWISE or self.name == "custom_jvp_call"


@dataclass
class Graph:
    """A program: values are counted, constants and inputs first made, then one node after another."""

    avals: list[Any] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)
    constants: dict[int, Any] = field(default_factory=dict)
    literals: set[int] = field(default_factory=set)
    inputs: list[int] = field(default_factory=list)
    outputs: list[int] = field(default_factory=list)

    def shape(self, value: int) -> tuple[int, ...]:
        """The shape of a value."""
        return tuple(self.avals[value].shape)

    def size(self, value: int) -> int:
        """The number of elements of a value."""
        return math.prod(self.shape(value))

    def inexact(self, value: int) -> bool:
        """Whether a value is floating or complex."""
        return jnp.issubdtype(self.avals[value].dtype, jnp.inexact)

    @cached_property
    def producer(self) -> dict[int, Node]:
        """The node that a value comes from; inputs and constants have none."""
        return {value: node for node in self.nodes for value in node.outputs}

    @cached_property
    def uses(self) -> dict[int, list[Node]]:
        """The nodes that read a value."""
        found: dict[int, list[Node]] = {}
        for node in self.nodes:
            for value in dict.fromkeys(node.inputs):
                found.setdefault(value, []).append(node)
        return found

    @cached_property
    def fixed(self) -> frozenset[int]:
        """The values that depend on no input: constants, and what is computed from constants."""
        varying = set(self.inputs)
        for node in self.nodes:
            if varying.intersection(node.inputs):
                varying.update(node.outputs)
        return frozenset(range(len(self.avals))) - varying

    @cached_property
    def adjustable(self) -> tuple[int, ...]:
        """Constants that are one floating number each: what a line writes as 0.5 or 1e-5."""
        return tuple(
            v
            for v, x in self.constants.items()
            if np.shape(x) == () and jnp.issubdtype(self.avals[v].dtype, jnp.floating)
        )

    @cached_property
    def predicates(self) -> tuple[int, ...]:
        """The computed conditions of `where`."""
        chosen = {n.inputs[0] for n in self.nodes if n.name == "select_n" and len(n.inputs) == 3}
        return tuple(v for v in sorted(chosen) if v in self.producer and self.avals[v].dtype == np.bool_)

    def names(self, inputs: Sequence[str]) -> dict[int, str]:
        """Values with a name: inputs, what lines assign (`p = x @ w`), and these spread or reshaped."""
        found = dict(zip(self.inputs, inputs, strict=True))
        for node in self.nodes:
            value = node.outputs[0]
            assigned = _ASSIGNMENT.match(node.source.text) if node.source else None
            users = self.uses.get(value, [])
            if node.name in _SPREADS and node.inputs[0] in found:
                found[value] = found[node.inputs[0]]
            elif assigned and users and all(user.source != node.source for user in users):
                found[value] = assigned[1]
        return found

    def moving(self, inputs: Sequence[int]) -> set[int]:
        """The values that depend differentiably on some of the inputs."""
        found = {self.inputs[i] for i in inputs}
        for node in self.nodes:
            if any(value in found for value in node.inputs):
                found.update(value for value in node.outputs if self.inexact(value))
        return found

    def _value(self, aval: Any) -> int:
        self.avals.append(aval)
        return len(self.avals) - 1

    def _constant(self, value: Any, aval: Any, literal: bool = False) -> int:
        index = self._value(aval)
        self.constants[index] = value
        if literal:
            self.literals.add(index)
        return index

    def _add(self, name: str, equation: JaxprEqn | None, inputs: Sequence[int], avals: Sequence[Any], **more):
        outputs = tuple(self._value(aval) for aval in avals)
        more = {"step": 0, "source": None, **more}
        self.nodes.append(Node(len(self.nodes), name, equation, tuple(inputs), outputs, **more))
        return outputs


def trace(function: Any, values: Sequence[Any]) -> Graph:
    """The graph of a function of arrays; inputs are the arrays in order. To be called with 64-bit types."""
    closed = jax.make_jaxpr(function)(*values)
    graph = Graph()
    graph.inputs = [graph._value(aval) for aval in closed.in_avals]
    graph.outputs = _inline(graph, closed, graph.inputs, None)
    if len(graph.nodes) > _MOST_NODES:
        raise ValueError(f"The program has {len(graph.nodes)} operations, more than {_MOST_NODES}.")
    return graph


def _inline(graph: Graph, closed: ClosedJaxpr, inputs: Sequence[int], outer: Source | None) -> list[int]:
    environment: dict[Any, int] = dict(zip(closed.jaxpr.invars, inputs, strict=True))
    for variable, constant in zip(closed.jaxpr.constvars, closed.consts, strict=True):
        environment[variable] = graph._constant(constant, variable.aval)

    def read(atom: Any) -> int:
        if isinstance(atom, Literal):
            return graph._constant(atom.val, atom.aval, literal=True)
        return environment[atom]

    for equation in closed.jaxpr.eqns:
        outputs = _equation(graph, equation, [read(atom) for atom in equation.invars], outer)
        environment.update(zip(equation.outvars, outputs, strict=True))
    return [read(atom) for atom in closed.jaxpr.outvars]


def _equation(graph: Graph, equation: JaxprEqn, inputs: list[int], outer: Source | None) -> Sequence[int]:
    source = outer or _source(equation)
    name = equation.primitive.name
    inner = _compat.called(equation)
    if inner is not None and equation.params.get("name") in MATRIX_CALLS and _of_a_library(equation, inner):
        name, inner = equation.params["name"], None
    if inner is not None and not (name == "custom_jvp_call" and _is_function_of_one(inner)):
        return _inline(graph, inner, inputs, source if _of_a_library(equation, inner) else outer)
    if name == "scan" and equation.params["length"] <= _LONGEST_SCAN:
        return _scan(graph, equation, inputs, outer)
    if name == "cond":
        return _cond(graph, equation, inputs, outer)
    avals = [variable.aval for variable in equation.outvars]
    return graph._add(name, equation, inputs, avals, source=source)


def _scan(graph: Graph, equation: JaxprEqn, inputs: list[int], outer: Source | None) -> Sequence[int]:
    body, length = equation.params["jaxpr"], equation.params["length"]
    consts, carries = _compat.scan_counts(equation)
    fixed, carry, xs = inputs[:consts], inputs[consts : consts + carries], inputs[consts + carries :]
    source = outer or _source(equation)
    steps: list[Sequence[int]] = [()] * length
    for step in reversed(range(length)) if equation.params["reverse"] else range(length):
        now = [
            graph._add("take_step", None, [x], [aval], step=step, source=source)[0]
            for x, aval in zip(xs, body.in_avals[consts + carries :], strict=True)
        ]
        results = _inline(graph, body, [*fixed, *carry, *now], outer)
        carry, steps[step] = results[:carries], results[carries:]
    stacked = [
        graph._add("stack", None, list(values), [variable.aval], source=source)[0]
        for values, variable in zip(zip(*steps, strict=True), equation.outvars[carries:], strict=True)
    ]
    return [*carry, *stacked]


def _cond(graph: Graph, equation: JaxprEqn, inputs: list[int], outer: Source | None) -> Sequence[int]:
    index, *operands = inputs
    branches = [_inline(graph, branch, operands, outer) for branch in equation.params["branches"]]
    return [
        graph._add("choose", None, [index, *values], [variable.aval], source=outer or _source(equation))[0]
        for values, variable in zip(zip(*branches, strict=True), equation.outvars, strict=True)
    ]


def _is_function_of_one(closed: ClosedJaxpr) -> bool:
    """Whether it is an elementwise function of one array, which reads better as one node: relu, softplus."""
    if len(closed.in_avals) != 1 or len(closed.out_avals) != 1:
        return False
    if closed.in_avals[0].shape != closed.out_avals[0].shape:
        return False
    for equation in closed.jaxpr.eqns:
        inner = _compat.called(equation)
        if inner is not None:
            if not _is_elementwise(inner):
                return False
        elif equation.primitive.name not in ELEMENTWISE:
            return False
    return True


def _is_elementwise(closed: ClosedJaxpr) -> bool:
    return all(
        _is_elementwise(inner)
        if (inner := _compat.called(e)) is not None
        else e.primitive.name in ELEMENTWISE | {"select_n", "broadcast_in_dim"}
        for e in closed.jaxpr.eqns
    )


_LIBRARIES = tuple(
    os.path.join(path, "")
    for path in (
        os.path.dirname(jax.__file__),
        os.path.dirname(np.__file__),
        sysconfig.get_path("stdlib"),
        os.path.dirname(os.path.dirname(__file__)),
    )
)
_PACKAGES = os.path.join(sysconfig.get_path("purelib"), "")


def _source(equation: JaxprEqn) -> Source | None:
    frames = [frame for frame in _compat.frames(equation) if _of_the_user(frame[0])]
    own = [frame for frame in frames if not frame[0].startswith(_PACKAGES)]
    return Source(*(own or frames)[0]) if frames else None


def _of_the_user(file: str) -> bool:
    # The standard library's folder holds site-packages, too.
    return (file.startswith(_PACKAGES) and not file.startswith(_LIBRARIES[:2])) or not file.startswith(
        _LIBRARIES
    )


def _of_a_library(equation: JaxprEqn, inner: ClosedJaxpr) -> bool:
    """Whether a call is one of jax.numpy's own: its equations then show the line of an earlier caller."""
    name = equation.params.get("name")
    if name is None or not inner.jaxpr.eqns:
        return False
    return not any(
        _of_the_user(file) and function.rpartition(".")[2] == name
        for file, _, function in _compat.frames(inner.jaxpr.eqns[0])
    )
