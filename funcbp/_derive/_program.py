"""What is given a name: intermediates used twice or behind a nonlinearity, and the δ of each."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ._algebra import add, split, zero
from ._differentiate import one, pull, rebuild, remade, tidy
from ._functions import Function
from ._nodes import ADD, CONTRACTION, VARIABLE, Node, topological, variable
from ._predicates import constant_value, is_product, is_view, is_zero
from ._scalars import Dimension

__all__ = ["Delta", "Let", "Program", "differentiated", "let_insertion"]


@dataclass(frozen=True)
class Let:
    """A named intermediate: `name = value`."""

    name: str
    value: Node

    @property
    def symbol(self) -> Node:
        """The name as an expression."""
        return variable(self.name, self.value.shape)


@dataclass(frozen=True)
class Delta:
    """δ = ∂C/∂(an intermediate), as the sum of what each use of it brings."""

    name: str
    of: str
    value: Node
    contributions: tuple[tuple[str, Node], ...]


@dataclass
class Program:
    """The forward pass as named intermediates and an output, and after `differentiated` the backward pass.

    Attributes:
        output: name of the result.
        lets: the intermediates, each in terms of those before it.
        value: the result in terms of them.
        aliases: names for values that need no δ, as q = σ(p).
        wrt: the variables that are differentiated.
        deltas: in the order of the backward pass.
        gradients: by name of variable, in terms of δ's and intermediates.
        sources: by name of variable, the assignments that bring a part of its gradient.
        cotangents: by name of intermediate, its δ, or what is short enough to need no name.
    """

    output: str
    lets: list[Let]
    value: Node
    aliases: list[Let]
    wrt: tuple[str, ...]
    deltas: list[Delta] = field(default_factory=list)
    gradients: dict[str, Node] = field(default_factory=dict)
    sources: dict[str, list[str]] = field(default_factory=dict)
    cotangents: dict[str, Node] = field(default_factory=dict)

    @property
    def statements(self) -> list[tuple[str, Node]]:
        """The forward pass as a list of assignments."""
        return [*((x.name, x.value) for x in self.lets), (self.output, self.value)]

    @property
    def live(self) -> frozenset[str]:
        """Every name that depends on what is differentiated."""
        live = set(self.wrt)
        for x in self.lets:
            if x.value.variables & live:
                live.add(x.name)
        return frozenset(live)


def _seen_through(node: Node) -> Node:
    while is_view(node):
        node = node.args[0]
    return node


class _Choice:
    """Chooses what is named in one expression."""

    def __init__(self, root: Node, wrt: Sequence[str], every_product: bool) -> None:
        self.root, self.wrt, self.every_product = root, frozenset(wrt), every_product
        self.order = topological([root])
        self.roles: dict[Node, str] = {}
        self.uses: Counter[Node] = Counter()
        for node in self.order:
            for argument in node.args:
                if not is_view(node):
                    self.uses[_seen_through(argument)] += 1
        for node in self.order:
            self._consider_arguments(node)
        for node in self.order:
            if self._nameable(node) and not is_view(node) and node not in self.roles and self.uses[node] > 1:
                self.roles[node] = "u"
        for node in self._chain():
            self.roles.setdefault(node, "x")
        if every_product:
            self._name_products()

    def _active(self, node: Node) -> bool:
        return bool(node.variables & self.wrt)

    def _nameable(self, node: Node) -> bool:
        return self._active(node) and _seen_through(node).op is not VARIABLE

    def _named_whole(self, argument: Node) -> Node:
        """What is named behind a nonlinearity: a product with its scalar, unless it is used again."""
        inner = _seen_through(argument)
        alone = self.uses[inner] == 1 and inner.rank == argument.rank and inner not in self.roles
        return argument if alone else inner

    def _consider_arguments(self, node: Node) -> None:
        """What stands behind a nonlinearity is named by the kind of nonlinearity."""
        if node.op in (ADD, CONTRACTION, VARIABLE) or node.op.linear:
            return
        for argument in map(self._named_whole, node.args):
            if not self._nameable(argument) or (node.op.name == "power" and _squared_norm(argument)):
                continue
            role = self.roles.get(argument)
            if isinstance(node.op, Function) and node.op.elementwise and role in (None, "u", "r"):
                self.roles[argument] = "p" if _has_product(argument) else role or "u"
            elif node.op.name in ("softmax", "log_softmax", "logsumexp"):
                self.roles[argument] = "z"
            elif node.op.name == "power" and role is None:
                self.roles[argument] = "r" if node.data == 2 else "u"
            else:
                self.roles.setdefault(argument, "u")

    def _name_products(self) -> None:
        """Products that are factors of products, so that the order of multiplication is the user's."""
        for node in self.order:
            if node.op is CONTRACTION and not is_view(node):
                for argument in map(_seen_through, node.args):
                    if _has_product(argument):
                        self.roles.setdefault(argument, "t")

    def _chain(self) -> list[Node]:
        """The products of a chain of three or more different weights: the layers of a linear network."""
        depth: dict[Node, int] = {}
        inner: dict[Node, Node] = {}
        for node in self.order:
            if not is_product(node) or len(node.args) != 2:
                continue
            for weight, rest in (node.args, node.args[::-1]):
                if (
                    weight.op is VARIABLE
                    and weight.data in self.wrt
                    and self.uses[weight] == 1
                    and weight.rank == 2
                ):
                    below = _seen_through(rest)
                    depth[node] = 1 + depth.get(below, 0)
                    if below in depth:
                        inner[node] = below
                    break
        out: list[Node] = []
        for node in sorted(depth, key=lambda n: -depth[n]):
            if depth[node] >= 3 and node not in out:
                while node in inner:
                    node = inner[node]
                    out.append(node)
        return [n for n in self.order if n in out]


def _has_product(node: Node) -> bool:
    if is_product(node):
        return True
    return node.op is ADD and any(is_product(_seen_through(t)) for t in node.args)


def _squared_norm(node: Node) -> bool:
    """Σ x²: its root is written ‖x‖, without a name for what is under the root."""
    return (
        node.op is CONTRACTION
        and len(node.args) == 1
        and node.rank == 0
        and node.args[0].op.name == "power"
        and node.args[0].data == 2
    )


def let_insertion(
    root: Node,
    output: str,
    wrt: Sequence[str],
    taken: set[str],
    *,
    every_product: bool = False,
    names: dict | None = None,
) -> Program:
    """Name the intermediates of an expression.

    Args:
        root: the result.
        output: its name.
        wrt: the variables that are differentiated.
        taken: names that are in use; the new ones are added to it.
        every_product: also name every product of matrices, as a program does, not only a person.
        names: of nodes that have one already; new ones are added to it.
    """
    choice = _Choice(root, wrt, every_product)
    names = {} if names is None else names
    roles = {n: r for n, r in choice.roles.items() if n is not root}
    counts = Counter((r, n.rank > 1) for n, r in roles.items() if n not in names)
    replacements: dict[Node, Node] = {}
    memo: dict[Node, Node] = {}
    lets: list[Let] = []
    for node in choice.order:
        if node not in roles:
            continue
        if node not in names:
            role = roles[node]
            names[node] = fresh(role, node.rank, counts[role, node.rank > 1] > 1, taken)
        let = Let(names[node], _apart(node, replacements, memo))
        lets.append(let)
        replacements[node] = let.symbol
        memo[node] = let.symbol
    value = rebuild(root, replacements, memo)
    program = Program(output, lets, value, [], tuple(wrt))
    program.aliases = _aliases(program, taken) if not every_product else []
    return program


def _apart(node: Node, replacements: dict[Node, Node], memo: dict[Node, Node]) -> Node:
    """The node in terms of the names of what is inside of it."""
    return remade(node, [rebuild(a, replacements, memo) for a in node.args])


def _aliases(program: Program, taken: set[str]) -> list[Let]:
    """q = σ(p), where a p is a pre-activation and q goes into a product, and s = softmax(z)."""
    found = []
    nodes = topological([value for _, value in program.statements])
    values = {x.value for x in program.lets}
    for let in program.lets:
        letter = {"p": "q", "z": "s"}.get(let.name[0].lower(), "")
        uses = [n for n in nodes if let.symbol in n.args and n not in values]
        if letter == "q":
            own = [n for n in uses if isinstance(n.op, Function) and _goes_into_product(program, n)]
        else:
            own = [n for n in uses if n.op.name == "softmax" and letter == "s"]
        if len(own) == 1 and len([n for n in uses if isinstance(n.op, Function)]) <= 1:
            name = (letter.upper() if let.name[0].isupper() else letter) + let.name[1:]
            if name not in taken:
                taken.add(name)
                found.append(Let(name, own[0]))
    return found


def _goes_into_product(program: Program, node: Node) -> bool:
    return any(
        is_product(n) and node in n.args and len(n.args) > 1
        for name, value in program.statements
        for n in topological([value])
        if name != program.output
    )


def _needs_no_name(value: Node) -> bool:
    """Whether a δ is only a multiple of what has a name."""
    return value.op is VARIABLE or constant_value(value) is not None or split(value)[1].op is VARIABLE


def fresh(role: str, rank: int, several: bool, taken: set[str]) -> str:
    """A name that is free: capital for matrices, numbered if there are several of its kind."""
    letter = role.upper() if rank > 1 else role
    number = 1 if several else 0
    while f"{letter}{number or ''}" in taken:
        number += 1
    name = f"{letter}{number or ''}"
    taken.add(name)
    return name


def delta_name(name: str) -> str:
    """The name of an intermediate's δ."""
    letter, number = name.rstrip("0123456789"), name[len(name.rstrip("0123456789")) :]
    if letter in ("p", "P"):
        return f"delta_{number}" if number else "delta"
    return f"delta_{name}"


def differentiated(program: Program, taken: set[str], shapes: Mapping[str, Sequence[Dimension]]) -> Program:
    """Fill in the backward pass: from the output to the arguments, a δ for every intermediate."""
    live = program.live
    brought: dict[str, list[tuple[str, Node]]] = {}

    def carry(name: str, value: Node, cotangent: Node) -> None:
        for target, parts in pull(value, cotangent, live).items():
            brought.setdefault(target, []).append((name, add(*parts)))

    carry(program.output, program.value, one())
    for let in reversed(program.lets):
        if let.name not in live or let.name not in brought:
            continue
        parts = brought[let.name]
        value = tidy(add(*(part for _, part in parts)))
        if is_zero(value):
            continue
        if _needs_no_name(value):
            program.cotangents[let.name] = value
            carry(let.name, let.value, value)
            continue
        name = delta_name(let.name)
        while name in taken:
            name += "_"
        taken.add(name)
        program.deltas.append(Delta(name, let.name, value, tuple(parts)))
        program.cotangents[let.name] = variable(name, let.value.shape)
        carry(let.name, let.value, program.cotangents[let.name])
    for name in program.wrt:
        parts = [part for _, part in brought.get(name, [])]
        program.gradients[name] = tidy(add(*parts)) if parts else zero(shapes[name])
        program.sources[name] = [source for source, _ in brought.get(name, [])]
    return program
