"""What is given a name: intermediates used twice or behind a nonlinearity, and the δ of each."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ._algebra import add, zero
from ._differentiate import one, pull, rebuild, remade, tidy
from ._functions import Function
from ._loop_code import backward_of_code
from ._loop_gradients import backward_of_derivation
from ._loops import JOIN, Loop, loop_of, operands
from ._names import Delta, Let, delta_name, fresh, needs_no_name
from ._nodes import ADD, CONTRACTION, VARIABLE, Node, topological, variable
from ._predicates import is_product, is_view, is_zero
from ._scalars import Dimension
from ._scan import RESULT, SCAN
from ._timed import base_of

__all__ = ["Delta", "Let", "Program", "differentiated", "let_insertion"]


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
        cotangents: by name of intermediate, its δ, or what is short enough to need no name.
        loops: the recurrences, by name of every result.
        code: whether it is what a program names, not a person.
    """

    output: str
    lets: list[Let]
    value: Node
    aliases: list[Let]
    wrt: tuple[str, ...]
    deltas: list[Delta] = field(default_factory=list)
    gradients: dict[str, Node] = field(default_factory=dict)
    cotangents: dict[str, Node] = field(default_factory=dict)
    loops: dict[str, Loop] = field(default_factory=dict)
    code: bool = False

    @property
    def statements(self) -> list[tuple[str, Node]]:
        """The forward pass as a list of assignments."""
        return [*((x.name, x.value) for x in self.lets), (self.output, self.value)]

    @property
    def names_of_deltas(self) -> set[str]:
        """The names of all δ's, without their steps."""
        steps = (x.backward.deltas for x in self.loops.values() if x.backward)
        return {base_of(d.name) for deltas in (self.deltas, *steps) for d in deltas}

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

    def __init__(
        self, root: Node, wrt: Sequence[str], every_product: bool, forced: Sequence[Node] = ()
    ) -> None:
        self.root, self.wrt, self.every_product = root, frozenset(wrt), every_product
        self.order = topological([root])
        self.roles: dict[Node, str] = dict.fromkeys(forced, "u")
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
        return self._active(node) and _seen_through(node).op not in (VARIABLE, SCAN, RESULT)

    def _named_whole(self, argument: Node) -> Node:
        """What is named behind a nonlinearity: a product with its scalar, unless it is used again."""
        inner = _seen_through(argument)
        alone = self.uses[inner] == 1 and inner.rank == argument.rank and inner not in self.roles
        return argument if alone else inner

    def _consider_arguments(self, node: Node) -> None:
        """What stands behind a nonlinearity is named by the kind of nonlinearity."""
        if node.op is SCAN:
            self.roles.update((n, "u") for n in operands(node) if n not in self.roles)
        if node.op in (ADD, CONTRACTION, VARIABLE, SCAN, RESULT, JOIN) or node.op.linear:
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
    forced: Sequence[Node] = (),
    suffix: str = "",
) -> Program:
    """Name the intermediates of an expression.

    Args:
        root: the result.
        output: its name.
        wrt: the variables that are differentiated.
        taken: names that are in use; the new ones are added to it.
        every_product: also name every product of matrices, as a program does, not only a person.
        names: of nodes that have one already; new ones are added to it.
        forced: what is named in any case.
        suffix: of every new name: the step of a recurrence.
    """
    choice = _Choice(root, wrt, every_product, forced)
    names = {} if names is None else names
    roles = {n: r for n, r in choice.roles.items() if n is not root}
    counts = Counter((r, n.rank > 1) for n, r in roles.items() if n not in names)
    replacements: dict[Node, Node] = {}
    memo: dict[Node, Node] = {}
    program = Program(output, [], root, [], tuple(wrt), code=every_product)
    for node in choice.order:
        if node.op is SCAN:
            symbols = _name_loop(program, node, choice.order, replacements, memo, taken, names)
            replacements.update(symbols)
            memo.update(symbols)
        if node not in roles:
            continue
        if node not in names:
            role = roles[node]
            names[node] = fresh(role, node.rank, counts[role, node.rank > 1] > 1, taken) + suffix
        value = replacements[node] if node in replacements else _apart(node, replacements, memo)
        let = Let(names[node], value)
        program.lets.append(let)
        replacements[node] = let.symbol
        memo[node] = let.symbol
    program.value = rebuild(root, replacements, memo)
    program.aliases = _aliases(program, taken) if not every_product else []
    return program


def _name_loop(
    program: Program,
    scan: Node,
    order: Sequence[Node],
    replacements: dict[Node, Node],
    memo: dict[Node, Node],
    taken: set[str],
    names: dict,
) -> dict[Node, Node]:
    """Name a recurrence and its results, of which each is an assignment."""
    used = {n.data: n for n in order if n.op is RESULT and n.args[0] is scan}
    args = [rebuild(a, replacements, memo) for a in scan.args]

    def insert(root: Node, loop: Loop, forced: Sequence[Node]) -> Program:
        live = sorted(loop.live)
        suffix = f"@{loop.letter}"
        return let_insertion(
            root, "", live, taken, every_product=program.code, names=names, forced=forced, suffix=suffix
        )

    loop, symbols = loop_of(scan, args, used, program.live, taken, names, insert)
    applied = remade(scan, args)
    for result, symbol in symbols.items():
        program.loops[symbol.data] = loop
        program.lets.append(Let(symbol.data, remade(result, [applied])))
    return symbols


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
        if let.name in program.loops:
            loop = program.loops[let.name]
            results = {
                n: brought.pop(n) for n, other in program.loops.items() if other is loop and n in brought
            }
            given = {n: tidy(add(*(part for _, part in parts))) for n, parts in results.items()}
            backward = backward_of_code if program.code else backward_of_derivation
            found = backward(loop, given, taken)
            program.deltas += found.deltas
            for name, part in found.brought:
                brought.setdefault(name, []).append((let.name, part))
            for value, cotangent in found.initial:
                carry(let.name, value, cotangent)
            continue
        parts = brought[let.name]
        value = tidy(add(*(part for _, part in parts)))
        if is_zero(value):
            continue
        if needs_no_name(value):
            program.cotangents[let.name] = value
            carry(let.name, let.value, value)
            continue
        name = delta_name(let.name)
        name = f"delta_{let.name}" if name in taken else name
        while name in taken:
            name += "_"
        taken.add(name)
        program.deltas.append(Delta(name, let.name, value, tuple(parts)))
        program.cotangents[let.name] = variable(name, let.value.shape)
        carry(let.name, let.value, program.cotangents[let.name])
    for name in program.wrt:
        parts = [part for _, part in brought.get(name, [])]
        program.gradients[name] = tidy(add(*parts)) if parts else zero(shapes[name])
    return program
