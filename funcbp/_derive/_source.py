"""The backward pass as a Python function that a careful person would have written."""

import itertools
import re
from collections import Counter
from collections.abc import Mapping, Sequence

from ._algebra import split
from ._differentiate import expand
from ._emit import Emitter, shape_text, unscaled
from ._functions import Function
from ._loop_code import BACKWARD
from ._loops import Loop
from ._names import fresh
from ._nodes import ADD, CONTRACTION, VARIABLE, Node, topological, variable
from ._operations import INVERSE, LOG_DETERMINANT
from ._predicates import constant_value, is_product, is_view
from ._program import Program
from ._scalars import Dimension
from ._scan import RESULT
from ._softmax import SOFTMAX
from ._structure import SOLVE, Structure
from ._trees import Trees

__all__ = ["StatementWriter", "source_of", "wrapped"]

_WIDTH = 96
_PRODUCT = r"(?<!\w)\((\w+(?:\.T)? @ \w+(?:\.T)?)\)"


def source_of(
    program: Program,
    arguments: Mapping[str, tuple[Dimension, ...]],
    sizes: Mapping[str, int],
    aliases: Mapping[Node, str],
    taken: set[str],
    formula: str,
    trees: Trees,
) -> str:
    """A self-contained function of the arguments that returns the value and the gradients by name.

    Args:
        program: with every product named, differentiated.
        arguments: their names and shapes, with axes of size 1.
        sizes: an example of every dimension, to choose the order of products by.
        aliases: names for values that have one in the derivation.
        taken: names in use.
        formula: for the docstring.
        trees: the arguments as the user has them.
    """
    memo: dict[Node, Node] = {}
    forward = [(name, expand(value, memo)) for name, value in program.statements]
    deltas = [(d.name, expand(d.value, memo)) for d in program.deltas]
    gradients = [(f"grad_{name}", expand(g, memo)) for name, g in program.gradients.items()]
    layers = {x.name for x in program.lets}
    writer = StatementWriter([*forward, *deltas, *gradients], layers, sizes, aliases, set(taken))
    writer.loops = program.loops
    body = writer.lines()
    returned = ", ".join(_returned(program.wrt, trees))
    body = [*_reshaped(arguments), *body]
    gradients = [_shaped_back(name, arguments[name]) for name in program.wrt]
    body += [line for line in gradients if line]
    body.append(f"return {program.output}, {{{returned}}}")
    body = _without_unused(body)
    body = [*_unpacked(trees), *_dimension_lines(body, arguments), *body]
    header = ["import jax"] if any(re.search(r"\bjax\.", line) for line in body) else []
    header.append("from jax import numpy as jnp")
    if not any("jnp." in line for line in body):
        header = header[:-1]
    text = [*header, "", ""] if header else []
    text.append(f"def value_and_gradients({', '.join(trees.arguments)}):")
    text.append(f'    """The value {formula} and its gradients."""')
    lines = [line for entry in body for line in wrapped(entry).split("\n")]
    text += ["    " + line if line else "" for line in lines]
    return "\n".join(text) + "\n"


def _unpacked(trees: Trees) -> list[str]:
    """The leaves of the arguments that are trees."""
    lines = []
    for argument in trees.structures:
        names = trees.leaves[argument]
        if names:
            lines.append(f"{', '.join(names)}{',' if len(names) == 1 else ''} = jax.tree.leaves({argument})")
    return lines


def _returned(wrt: Sequence[str], trees: Trees) -> list[str]:
    """The entries of the dictionary of gradients."""
    entries = []
    for argument in trees.arguments:
        leaves = trees.leaves[argument]
        chosen = [n for n in leaves if n in wrt]
        if argument in trees.structures and chosen and len(chosen) == len(leaves):
            gradients = ", ".join(f"grad_{n}" for n in leaves)
            entries.append(f'"{argument}": jax.tree.unflatten(jax.tree.structure({argument}), [{gradients}])')
        else:
            entries += [f'"{trees.paths[n]}": grad_{n}' for n in chosen]
    return entries


class StatementWriter:
    """Writes assignments as lines.

    Args:
        statements: names and values, without symbols such as σ′.
        layers: names of intermediates; what follows a pre-activation p1 among them is called q1.
        sizes: an example of every dimension.
        aliases: names for values that have one in the derivation.
        taken: names in use.
        given: names of expressions that are there already.
    """

    def __init__(
        self,
        statements: Sequence[tuple[str, Node]],
        layers: set[str],
        sizes: Mapping[str, int],
        aliases: Mapping[Node, str],
        taken: set[str],
        given: Mapping[Node, str] | None = None,
    ) -> None:
        self.structure = Structure(dict(statements), sizes)
        self.statements = [(name, self.structure.lowered(value)) for name, value in statements]
        self.layers, self.aliases, self.taken = layers, aliases, taken | set(aliases.values())
        self.emitter = Emitter(dict(given or {}), self.structure, self.taken)
        self.loops: Mapping[str, Loop] = {}
        self.uses: Counter[Node] = Counter()
        nodes = topological([value for _, value in self.statements])
        for node in nodes:
            self.uses.update(node.args)
        self.uses.update(value for _, value in self.statements)
        self.ranks = {n.data: n.rank for n in nodes if n.op is VARIABLE}
        self.emitter.products.update(unscaled(n) for n in nodes if is_product(n))
        self.emitter.softmaxes = {n for n in nodes if n.op is SOFTMAX}
        factored = Counter(n.args[0] for n in nodes if n.op in (INVERSE, LOG_DETERMINANT, SOLVE))
        self.emitter.repeated = {matrix for matrix, count in factored.items() if count > 1}

    def full(self, node: Node) -> str:
        """An expression, for what is no assignment."""
        return self.emitter.full(self.structure.lowered(node))

    def lines(self) -> list[str]:
        """An assignment a line: intermediates, the value, δ's, gradients, and what is used twice."""
        out = []
        for name, value in self.statements:
            if value.op in (RESULT, BACKWARD):
                loop = self._loop(name, value)
                out += [*self._flushed(), *loop]
                continue
            out += self._shared(value)
            text = self._text(name, value)
            repeated, text = self._repeated_products(text)
            out += [*self._flushed(), *repeated]
            while any(len(line) > _WIDTH for line in wrapped(f"{name} = {text}").split("\n")):
                shorter = self._named_part(value, len(text))
                if not shorter:
                    break
                out += [*self._flushed(), shorter]
                text = self._text(name, value)
            out += self._flushed()
            if text != name:
                out.append(f"{name} = {text}")
            if value.op is not VARIABLE and value not in self.emitter.names:
                self.emitter.names[value] = name
            self.emitter.names[variable(name, value.shape)] = name
        return self._products_once(out)

    def _products_once(self, lines: Sequence[str]) -> list[str]:
        """The lines, where a product of two matrices that several of them have is computed by the first."""
        own = {line for line in lines if re.match(r"\w+ = ", line)}
        counts = Counter(p for line in own for p in set(re.findall(_PRODUCT, line)))
        pairs = [line.split(" = ", 1) for line in lines if line in own]
        defined = {p: name for name, p in pairs if re.fullmatch(_PRODUCT, f"({p})")}
        early = {p: name for p, name in defined.items() if not name.startswith(("delta", "grad_"))}
        names: dict[str, str] = {}
        out: list[str] = []
        for line in lines:
            name, _, text = line.partition(" = ")
            if line not in own or names.get(text) == name:
                out += [line] if line not in own else []
                continue
            for product in dict.fromkeys(re.findall(_PRODUCT, text)):
                shared = product in early or (counts[product] > 1 and self._of_matrices(product))
                if product not in names and shared:
                    names[product] = early.get(product) or fresh("t", 2, False, self.taken)
                    out.append(f"{names[product]} = {product}")
                text = _replaced(text, product, names.get(product))
            if text in defined:
                names.setdefault(text, name)
            out.append(f"{name} = {text}")
        return out

    def _repeated_products(self, text: str) -> tuple[list[str], str]:
        """Products of matrices that a line has more than once, as assignments, and the line with names."""
        out = []
        for product in dict.fromkeys(re.findall(_PRODUCT, text)):
            if len(re.findall(rf"(?<!\w)\({re.escape(product)}\)", text)) > 1 and self._of_matrices(product):
                name = fresh("t", 2, False, self.taken)
                out.append(f"{name} = {product}")
                text = _replaced(text, product, name)
        return out, text

    def _of_matrices(self, product: str) -> bool:
        ranks = self.ranks | {name: node.rank for node, name in self.emitter.names.items()}
        return all(ranks.get(x.removesuffix(".T")) == 2 for x in product.split(" @ "))

    def _loop(self, name: str, value: Node) -> list[str]:
        """A recurrence or its backward pass, at the first of its results."""
        from ._loop_source import backward_lines, forward_lines

        if variable(name, value.shape) in self.emitter.names:
            return []
        if value.op is RESULT:
            return forward_lines(self.loops[name], self)
        loops = [x for x in self.loops.values() if x.code is not None]
        loop = next(x for x in loops if variable(name, value.shape) in x.code.results)
        return backward_lines(loop, value, self)

    def _text(self, name: str, value: Node) -> str:
        """The expression; of a gradient with the dtype of its argument."""
        if not name.startswith("grad_"):
            return _filled(self.emitter.full(value), value)
        argument, number = name.removeprefix("grad_"), constant_value(value)
        if number is None:
            return _filled(self.emitter.typed(value, argument), value)
        if not number.number:
            return f"jnp.zeros_like({argument})"
        return f"jnp.full_like({argument}, {number.spelled()})"

    def _shared(self, value: Node) -> list[str]:
        out = []
        for node in topological([value]):
            if (
                node is value
                or node in self.emitter.names
                or self.uses[node] < 2
                or not self._worth_a_name(node)
            ):
                continue
            name = self._name(node)
            text = self.emitter.full(node)
            out += [*self._flushed(), f"{name} = {text}"]
            self.emitter.names[node] = name
        return out

    def _named_part(self, value: Node, length: int) -> str:
        """A name for a part of a line that is too long."""
        parts = [
            n
            for n in topological([value])[:-1]
            if n.args and not is_view(n) and n not in self.emitter.names and split(n)[0].number > 0
        ]
        texts = [(abs(len(self.emitter.full(n)) - length // 2), k, n) for k, n in enumerate(parts)]
        if not texts:
            return ""
        node = min(texts, key=lambda t: t[:2])[2]
        text, name = self.emitter.full(node), self._name(node)
        self.emitter.names[node] = name
        return f"{name} = {text}"

    def _flushed(self) -> list[str]:
        """Factorizations that what was just written needs."""
        lines, self.emitter.pending = self.emitter.pending, []
        return lines

    def _worth_a_name(self, node: Node) -> bool:
        if node.op is VARIABLE or not node.args or is_view(node):
            return False
        if node.op in (ADD, CONTRACTION):
            return is_product(node) or len(topological([node])) > 6
        return node.op.name != "power" or node.data.denominator != 1 or node.args[0].op is not VARIABLE

    def _name(self, node: Node) -> str:
        if node in self.aliases:
            return self.aliases[node]
        if isinstance(node.op, Function) and self._pre_activation(node.args[0]):
            name = "Qq"[node.rank < 2] + node.args[0].data[1:].replace("@", "_")
            if name not in self.taken:
                self.taken.add(name)
                return name
        role = "q" if isinstance(node.op, Function) else "s" if node.op.name == "softmax" else "t"
        return fresh(role, node.rank, False, self.taken)

    def _pre_activation(self, node: Node) -> bool:
        return node.op is VARIABLE and node.data[0] in "pP" and node.data in self.layers


def _filled(text: str, value: Node) -> str:
    """A diagonal that stands alone, filled in, where `jnp.diag` compares every row with every column."""
    inside = text.removeprefix("jnp.diag(").removesuffix(")")
    depth = list(itertools.accumulate((c == "(") - (c == ")") for c in inside))
    if not text.startswith("jnp.diag(") or value.op is not CONTRACTION or min(depth) < 0:
        return text
    return f"jnp.fill_diagonal(jnp.zeros({shape_text(value)}), {inside}, inplace=False)"


def _replaced(text: str, product: str, name: str | None) -> str:
    """The text with a name for a product in parentheses, if there is one."""
    return re.sub(rf"(?<!\w)\({re.escape(product)}\)", name, text) if name else text


def _reshaped(arguments: Mapping[str, tuple[Dimension, ...]]) -> list[str]:
    """Arguments without their axes of size 1."""
    out = []
    for name, shape in arguments.items():
        kept = tuple(d for d in shape if d != 1)
        if kept != shape:
            text = shape_text(variable(name, kept)) if kept else "()"
            out.append(f"{name} = jnp.reshape({name}, {text})")
    return out


def _shaped_back(name: str, shape: tuple[Dimension, ...]) -> str:
    if 1 not in shape:
        return ""
    return f"grad_{name} = jnp.reshape(grad_{name}, {shape_text(variable(name, shape))})"


def _without_unused(body: Sequence[str]) -> list[str]:
    """The assignments whose names are read further down."""
    read: set[str] = set()
    out = []
    for line in reversed(body):
        name, is_assignment, value = line.partition(" = ")
        if not is_assignment or not name.isidentifier() or name in read:
            read |= set(re.findall(r"(?<![.\w])[^\W\d]\w*", value if is_assignment else line))
            out.append(line)
    return out[::-1]


def _dimension_lines(body: Sequence[str], arguments: Mapping[str, tuple[Dimension, ...]]) -> list[str]:
    """The sizes that the code mentions."""
    words = set(re.findall(r"(?<![\w.\"])[A-Za-z]\w*(?![\w(\"])", " ".join(body)))
    where = {d: (name, k) for name, shape in reversed(list(arguments.items())) for k, d in enumerate(shape)}
    return [f"{d} = {name}.shape[{k}]" for d, (name, k) in where.items() if isinstance(d, str) and d in words]


def wrapped(line: str) -> str:
    """A long assignment over several lines, broken at the + and - of its outermost sum or after commas."""
    if len(line) <= _WIDTH:
        return line
    head, _, tail = line.partition(" = ")
    pieces = _pieces(tail, (" + ", " - ")) if head.isidentifier() else []
    if len(pieces) < 2:
        pieces = _pieces(tail, (" * ", " / ")) if head.isidentifier() else []
    if len(pieces) < 2:
        return _at_commas(line)
    return f"{head} = (\n" + "\n".join(f"    {p}" for p in pieces) + "\n)"


def _at_commas(line: str) -> str:
    """The last bracket of a line opened over several lines."""
    depth, start = 0, -1
    for k, character in enumerate(line):
        start = k if character in "([{" and not depth else start
        depth += (character in "([{") - (character in ")]}")
    if start < 0 or not line.endswith((")", "}")) or not (line.startswith("return") or "scan(" in line):
        return line
    inside = [p.removeprefix(",").strip() for p in _pieces(line[start + 1 : -1], (", ",))]
    return f"{line[: start + 1]}\n" + "".join(f"    {p},\n" for p in inside) + line[-1]


def _pieces(text: str, operators: Sequence[str]) -> list[str]:
    depth, start, out = 0, 0, []
    for k, character in enumerate(text):
        depth += (character in "([{") - (character in ")]}")
        if depth == 0 and k > start and any(text.startswith(o, k) for o in operators):
            out.append(text[start:k])
            start = k + 1
    return [*out, text[start:]]
