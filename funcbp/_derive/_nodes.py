"""Expressions: immutable nodes, of which equal ones are the same object.

Three kinds are everywhere: a `variable`, an `Add`, and a `contraction`, which is a scalar times a product of
indexed factors, summed over the indices that are not its own. Matrix product, transpose, sum, broadcast,
trace, outer and elementwise product are all contractions. Everything else is an `Operation` of its own.
"""

import hashlib
import itertools
import re
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakValueDictionary

from ._scalars import Dimension

__all__ = [
    "ADD",
    "CONTRACTION",
    "VARIABLE",
    "Facts",
    "Node",
    "Operation",
    "Session",
    "facts",
    "flattening",
    "intern",
    "keeping_products",
    "label",
    "topological",
    "variable",
]


class Operation:
    """What makes one kind of node: how it differentiates, how it is written, how it is computed.

    Attributes:
        name: as an error and the derivation name it.
        rule: in a few words, the rule by which it is differentiated.
        elementwise: whether it maps elements to elements.
        linear: whether it is linear in its first argument, so that `transpose` stands in for a differential.
        positive: whether it is greater than zero wherever it is defined.
        constant: whether its derivative is zero wherever it has one.
    """

    name = ""
    rule = ""
    elementwise = False
    linear = False
    positive = False
    constant = False

    def differential(self, node: "Node", index: int, tangent: "Node", /) -> "Node":
        """The differential of a node when its argument `index` moves by `tangent`; linear in `tangent`."""
        raise NotImplementedError(self.name)

    def transpose(self, node: "Node", cotangent: "Node", /) -> "Node":
        """For a linear operation: the cotangent of its argument."""
        raise NotImplementedError(self.name)

    def show(self, node: "Node", writer: Any, /) -> tuple[str, int]:
        """How it is written, and how tightly it binds (see `_notation`)."""
        raise NotImplementedError(self.name)

    def python(self, node: "Node", arguments: Sequence[str], /) -> str:
        """How it is computed, in terms of expressions for its arguments."""
        raise NotImplementedError(self.name)

    def expanded(self, _node: "Node", /) -> "Node | None":
        """The same in simpler nodes, for what is written as a symbol (σ′) but computed by a formula."""
        return None


class _Structural(Operation):
    def __init__(self, name: str) -> None:
        self.name = name


VARIABLE, ADD, CONTRACTION = _Structural("variable"), _Structural("add"), _Structural("contraction")


class Node:
    """An expression. Compared and hashed by identity; `intern` sees to it that equal ones are identical.

    Attributes:
        op: what it is.
        args: the nodes it is made of.
        data: parameters of the operation.
        shape: its dimensions.
        digest: equal for equal expressions, in every process.
        variables: names of those it depends on with a derivative that is not zero.
    """

    __slots__ = ("__weakref__", "args", "data", "digest", "op", "shape", "variables")

    def __init__(
        self, op: Operation, args: tuple["Node", ...], data: Any, shape: tuple[Dimension, ...], digest: bytes
    ) -> None:
        self.op, self.args, self.data, self.shape, self.digest = op, args, data, shape, digest
        own = {data} if op is VARIABLE else set()
        inside = () if op.constant else (a.variables for a in args)
        self.variables: frozenset[str] = frozenset(own).union(*inside)

    @property
    def rank(self) -> int:
        """The number of axes."""
        return len(self.shape)

    def __repr__(self) -> str:
        return (
            f"{self.op.name}{self.data if self.data is not None else ''}({', '.join(map(repr, self.args))})"
        )


@dataclass
class Facts:
    """What the user declared, by name of a variable.

    Attributes:
        stochastic: matrices whose rows sum to one (vectors whose entries do).
        symmetric: matrices.
        positive: variables whose elements all are.
        nonzero: variables without a zero.
    """

    stochastic: set[str] = field(default_factory=set)
    symmetric: set[str] = field(default_factory=set)
    positive: set[str] = field(default_factory=set)
    nonzero: set[str] = field(default_factory=set)

    @classmethod
    def parse(cls, sentences: Iterable[str], names: Sequence[str]) -> "Facts":
        """Read `rows of Y sum to one`, `S symmetric`, `x > 0`, `x != 0`.

        Raises:
            ValueError: for another sentence, or a name that is not an argument.
        """
        out = cls()
        for sentence in sentences:
            matches = [(re.fullmatch(p, sentence.strip(), re.IGNORECASE), kind) for p, kind in _SENTENCES]
            found, kind = next((m for m in matches if m[0]), (None, ""))
            if found is None:
                raise ValueError(
                    f"assume: cannot read {sentence!r}; write 'rows of Y sum to one', 'S symmetric', 'x > 0' "
                    "or 'x != 0'"
                )
            if found[1] not in names:
                raise ValueError(
                    f"assume: {sentence!r} is about {found[1]!r}, the arguments are {', '.join(names)}"
                )
            getattr(out, kind).add(found[1])
        return out


_SENTENCES = (
    (r"(?:the )?rows of (\w+) sum to (?:one|1)", "stochastic"),
    (r"(?:the )?entries of (\w+) sum to (?:one|1)", "stochastic"),
    (r"(\w+) (?:is )?symmetric", "symmetric"),
    (r"(\w+) > 0", "positive"),
    (r"(\w+) (?:!=|≠) 0", "nonzero"),
)


class Session:
    """The expressions and facts of one derivation."""

    def __init__(self, facts: Facts | None = None) -> None:
        self.facts = facts or Facts()
        self.flatten = True
        self.table: WeakValueDictionary[Any, Node] = WeakValueDictionary()
        self.labels = itertools.count(1000)

    @contextmanager
    def active(self) -> Generator["Session"]:
        """Expressions built inside belong to this session."""
        token = _current.set(self)
        try:
            yield self
        finally:
            _current.reset(token)


_current: ContextVar[Session] = ContextVar("funcbp_derive_session")


def facts() -> Facts:
    """What is declared in the current session."""
    return _current.get().facts


@contextmanager
def keeping_products() -> Generator[None]:
    """Inside, a sum of products stays one factor of other products, as the user's code computes it."""
    session = _current.get()
    before, session.flatten = session.flatten, False
    try:
        yield
    finally:
        session.flatten = before


def flattening() -> bool:
    """Whether products of products become one product."""
    return _current.get().flatten


def label() -> int:
    """An index that no other expression of the session uses."""
    return next(_current.get().labels)


def intern(
    op: Operation,
    args: Sequence[Node] = (),
    data: Any = None,
    shape: Sequence[Dimension] = (),
    key: Any = None,
) -> Node:
    """The node of this operation; `key` is what identifies it where order does not matter."""
    args, shape = tuple(args), tuple(shape)
    identity = (op, args if key is None else key, data if key is None else None, shape)
    table = _current.get().table
    found = table.get(identity)
    if found is None:
        if key is None:
            content = f"{op.name}|{data}|{shape}".encode() + b"".join(a.digest for a in args)
        else:
            content = f"{op.name}|{shape}".encode() + _digest_of_key(key)
        digest = hashlib.blake2b(content, digest_size=12).digest()
        found = table[identity] = Node(op, args, data, shape, digest)
    return found


def _digest_of_key(key: Any) -> bytes:
    if isinstance(key, Node):
        return key.digest
    if isinstance(key, frozenset):
        return b"{" + b",".join(sorted(_digest_of_key(k) for k in key)) + b"}"
    if isinstance(key, tuple):
        return b"(" + b",".join(_digest_of_key(k) for k in key) + b")"
    return str(key).encode()


def variable(name: str, shape: Sequence[Dimension]) -> Node:
    """A named array."""
    return intern(VARIABLE, (), name, shape)


def topological(roots: Iterable[Node]) -> list[Node]:
    """Every node under the roots once, arguments before what uses them."""
    order: list[Node] = []
    seen: set[Node] = set()
    stack = [(root, False) for root in reversed(list(roots))]
    while stack:
        node, ready = stack.pop()
        if ready:
            order.append(node)
        elif node not in seen:
            seen.add(node)
            stack.append((node, True))
            stack.extend((a, False) for a in reversed(node.args) if a not in seen)
    return order
