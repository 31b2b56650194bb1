"""Expressions in index notation: Σ, indices, Kronecker's δ."""

import itertools
from collections.abc import Callable, Sequence
from fractions import Fraction

from ._algebra import IDENTITY, POWER, factors_of, power
from ._matrix import NoMatrixFormError
from ._nodes import ADD, CONTRACTION, VARIABLE, Node
from ._notation import ATOM, FROBENIUS, HADAMARD, POST, PRODUCT, SUM, Writer, name_of
from ._scalars import ONE

__all__ = ["IndexWriter"]

_LETTERS = "ijklabcdefghpqrstuvw"
_SUBSCRIPT_LETTERS = dict(zip("ijklaehpqrstuv", "ᵢⱼₖₗₐₑₕₚqᵣₛₜᵤᵥ", strict=True))


class IndexWriter(Writer):
    """Writes elements of nodes.

    Args:
        mode: `text` or `latex`.
        special: how to write the elements of some variables, given their indices: ∂A_ij/∂A_kl, or δ_ik δ_jl.
    """

    by_element = True

    def __init__(
        self,
        mode: str,
        special: dict[str, Callable[[Sequence[str]], tuple[str, int]]] | None = None,
        reserved: str = "",
    ) -> None:
        super().__init__(mode)
        self.special = special or {}
        self.indices: tuple[str, ...] = ()
        self.used: set[str] = set(reserved)

    def element(self, node: Node, indices: Sequence[str], level: int = 0) -> str:
        """The element of a node with these indices."""
        before, self.indices = self.indices, tuple(indices)
        self.used |= set(indices)
        try:
            return self._at(self._element(node), level)
        finally:
            self.indices = before

    def write(self, node: Node, level: int = 0) -> str:
        """An operand of an elementwise operation: it has the same indices."""
        return self.element(node, self.indices[: node.rank], level)

    argument = write

    def letters(self, count: int) -> list[str]:
        """Index letters that are free."""
        pool = itertools.chain(_LETTERS, (f"{c}{n}" for n in itertools.count(1) for c in _LETTERS))
        free = list(itertools.islice((c for c in pool if c not in self.used), count))
        self.used |= set(free)
        return free

    def subscripted(self, name: str, indices: Sequence[str]) -> str:
        """A name with indices."""
        if not indices:
            return name
        inside = "".join(indices) if all(len(i) == 1 for i in indices) else ",".join(indices)
        if self.mode == "latex":
            return rf"{{{name}}}_{{{inside}}}" if "_" in name else f"{name}_{{{inside}}}"
        return f"{name}_{inside}" if len(inside) == 1 or inside.isalpha() else f"{name}[{inside}]"

    def _element(self, node: Node) -> tuple[str, int]:
        if node.op is VARIABLE:
            if node.data in self.special:
                return self.special[node.data](self.indices)
            return self.subscripted(name_of(node.data, self.mode), self.indices), ATOM
        if node.op is ADD:
            return self._terms(node), SUM
        if node.op is CONTRACTION:
            return self._contraction(node)
        if node.op is IDENTITY:
            return self.subscripted(self.pick("δ", r"\delta"), self.indices), ATOM
        return node.op.show(node, self)

    def _terms(self, node: Node) -> str:
        text, used = "", set(self.used)
        for term in node.args:
            self.used = set(used)  # summed indices of different terms may be the same letters
            shown = self.element(term, self.indices, FROBENIUS)
            if text and shown.startswith(("−", "-")):
                text += f" {shown[0]} {shown[1:]}"
            else:
                text += f" + {shown}" if text else shown
        return text

    def _contraction(self, node: Node) -> tuple[str, int]:
        coefficient, factors, out = factors_of(node)
        if not factors:
            return self._number(coefficient), PRODUCT
        names = dict(zip(out, self.indices, strict=True))
        summed = [k for k in dict.fromkeys(x for _, ls in factors for x in ls) if k not in names]
        names.update(zip(summed, self.letters(len(summed)), strict=True))
        sign = self._sigma([names[k] for k in summed])
        above, below = [], []
        for factor, labels in factors:
            down = factor.op is POWER and factor.data < 0
            target = power(factor.args[0], -factor.data) if down else factor
            shown = self.element(target, [names[k] for k in labels], POST)
            (below if down else above).append(shown)
        front = self.scalar(coefficient)
        pieces = [p for p in (front if front not in ("−", "-") else "", sign, *above) if p]
        text = (front if front in ("−", "-") else "") + (" ".join(pieces) or "1")
        for piece in below:
            text += f" / {piece}"
        single = len(pieces) == 1 and not below and len(above) == 1
        binds = POST if single and coefficient == ONE else FROBENIUS if coefficient.number < 0 else PRODUCT
        return text, binds if not sign else min(binds, HADAMARD)

    def _sigma(self, letters: Sequence[str]) -> str:
        if not letters:
            return ""
        if self.mode == "latex":
            return rf"\sum_{{{''.join(letters)}}}"
        if all(c in _SUBSCRIPT_LETTERS for c in letters):
            return "Σ" + "".join(_SUBSCRIPT_LETTERS[c] for c in letters)
        return f"Σ_{''.join(letters)}"

    # what operations ask for

    def function(self, name: str, args: tuple[Node, ...]) -> tuple[str, int]:
        """A function of elements; of whole arrays their matrix form and indices."""
        if all(a.rank == len(self.indices) for a in args):
            return self.call(name, ", ".join(self._function_argument(a) for a in args))
        inside = ", ".join(self._whole(a) for a in args)
        return self.subscripted(self.call(name, inside)[0], self.indices), ATOM

    def rowwise(self, name: str, node: Node, axes: tuple[int, ...]) -> tuple[str, int]:
        """A function along axes: softmax_j(Z_ij)."""
        if len(self.indices) == node.rank:
            indices = list(self.indices)
        else:
            own, along = iter(self.indices), iter(self.letters(len(axes)))
            indices = [next(along) if a in axes else next(own) for a in range(node.rank)]
        inside = self.element(node, indices)
        return self.call(self.subscripted(name, [indices[a] for a in axes]), inside)

    def superscript(self, node: Node, what: str) -> tuple[str, int]:
        """An element of an inverse."""
        base = self._whole(node)
        base = base if base.isalnum() or self.mode == "latex" else f"({base})"
        raised = self.pick(f"({base}{what})", rf"\left({base}^{{{what}}}\right)")
        return self.subscripted(raised, self.indices), ATOM

    def _whole(self, node: Node) -> str:
        """A whole array: in matrix notation, or as [element]_ij."""
        try:
            return Writer(self.mode).write(node)
        except NoMatrixFormError:
            letters = self.letters(node.rank)
            return self.subscripted(f"[{self.element(node, letters)}]", letters)

    def counting(self) -> tuple[str, int]:
        """The index itself."""
        return self.indices[0], ATOM

    def power(self, node: Node) -> tuple[str, int]:
        """An element to a power."""
        base, exponent = node.args[0], node.data
        if exponent < 0:
            below = self.write(power(base, -exponent), POST)
            return f"1 / {below}", PRODUCT
        if exponent == Fraction(1, 2):
            return self.pick(f"√{self.write(base, ATOM)}", rf"\sqrt{{{self.write(base)}}}"), ATOM
        inner = self.write(base)
        simple = base.op is VARIABLE and not base.rank
        return self._raised(inner if simple else self.parenthesized(inner), str(exponent)), POST

    def part(self, node: Node) -> tuple[str, int]:
        """An element of a slice: shifted indices."""
        axis, start, _, stride, drop = node.data
        indices = list(self.indices)
        first = start.spelled()
        if drop:
            indices.insert(axis, first)
        else:
            step = indices[axis] if stride == 1 else f"{stride}{indices[axis]}"
            indices[axis] = f"{step}+{first}" if start.number else step
        return self.element(node.args[0], indices, ATOM), ATOM

    def placed(self, node: Node) -> tuple[str, int]:
        """An element of a part with zeros around it."""
        axis, start, stop, stride, drop = node.data
        indices, first = list(self.indices), start.spelled()
        here = indices[axis]
        if drop:
            del indices[axis]
            condition = f"{here} = {first}"
        else:
            indices[axis] = f"{here}-{first}" if start.number else here
            condition = f"{first} {self.pick('≤', chr(92) + 'leq')} {here} < {stop.spelled()}"
            if stride != 1:
                indices[axis] = f"({indices[axis]})/{stride}"
        return f"[{condition}] {self.element(node.args[0], indices, POST)}", PRODUCT
