"""What `derive` gives back."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax

from .._compat import quick_jit
from ..verify import Report
from ._build import Built
from ._check import check
from ._definitions import definitions
from ._index import IndexWriter
from ._index_steps import index_steps
from ._lines import Line, Notation
from ._matrix import NoMatrixFormError
from ._nodes import Node, variable
from ._render import latex, markdown, text
from ._source import source_of
from ._steps import expansions, steps
from ._trees import Trees

__all__ = ["Derivation", "Formula"]


@dataclass(frozen=True)
class Formula:
    """The gradient of one argument, in Unicode.

    Attributes:
        factored: in terms of δ's and the named intermediates.
        expanded: in terms of the arguments alone.
        latex: `factored`, in LaTeX.
    """

    factored: str
    expanded: str
    latex: str

    def __str__(self) -> str:
        return self.factored


class Derivation:
    """The derivation of a gradient: printed, as a formula, and as code.

    `str(derivation)` is the derivation line by line; `latex`, `markdown` and a notebook show the same.
    `source` is a Python function that computes the value and the gradients without automatic
    differentiation, `value_and_grad` that function compiled, and `check` compares it with `jax.grad`.

    Attributes:
        function: that was differentiated.
        names: of its arguments; where one is a tree, of its leaves.
        wrt: the names of those it is differentiated by; of leaves the paths, as `params['w']`.
        shapes: of the arguments and leaves, with the names of dimensions.
        general: whether it holds for all sizes of the dimensions, not only for those of the arguments.
        style: `differential` or `index`.
    """

    def __init__(self, function: Callable[..., Any], trees: Trees, built: Built, style: str) -> None:
        self.function, self._trees, self._built, self.style = function, trees, built, style
        self.names = tuple(a.name for a in built.arguments)
        self.wrt = tuple(trees.paths[name] for name in built.program.wrt)
        self.shapes = built.shapes
        self.general = built.symbolic

    def __str__(self) -> str:
        return text(self._lines("text"), self._header(), self._footer())

    def __repr__(self) -> str:
        return f"<Derivation of the gradient by {', '.join(self.wrt)}>"

    def latex(self) -> str:
        """The derivation as an `aligned` environment."""
        return latex(self._lines("latex"))

    def markdown(self) -> str:
        """The derivation as Markdown with LaTeX between `$$`."""
        return markdown(self._lines("latex"), self._header(), self._footer())

    def _repr_markdown_(self) -> str:
        return self.markdown()

    def source(self) -> str:
        """A self-contained Python function of the arguments: forward pass, δ's by name, gradients."""
        return self._source

    @cached_property
    def _source(self) -> str:
        built = self._built
        with built.session.active():
            output = built.code.output
            formula = self._notation("text").equation(output, built.program.value)
            first = (
                f"{output} = {formula[1]}"
                if len(formula[1]) < 60 and built.program.value.rank == 0
                else output
            )
            taken = {
                *self.names,
                *self._trees.arguments,
                output,
                *built.sizes,
                *(x.name for x in built.code.lets),
            }
            taken |= {d.name for d in built.code.deltas} | {f"grad_{n}" for n in self.names} | {"jax", "jnp"}
            taken |= {name for loop in built.code.loops.values() if loop.code for name in loop.code.arrays}
            return source_of(built.code, self.shapes, built.sizes, built.names, taken, first, self._trees)

    @cached_property
    def gradients(self) -> Mapping[str, Formula]:
        """The formula of every gradient by the name of its argument, or the path of its leaf."""
        return {self._trees.paths[name]: self._formula(name) for name in self._built.program.wrt}

    def _formula(self, name: str) -> Formula:
        gradient = self._built.program.gradients[name]
        with self._built.session.active():
            unicode, tex = self._notation("text"), self._notation("latex")
            full = min((_written(unicode, g) for g in expansions(self._built.program, name)), key=len)
            return Formula(_written(unicode, gradient), full, _written(tex, gradient))

    @cached_property
    def value_and_grad(self) -> Callable[..., tuple[jax.Array, dict[str, jax.Array]]]:
        """The generated function, compiled: value, and gradients by name of an argument.

        The gradient of a tree is a tree; if not all of its leaves are differentiated, each has its path as
        name instead.
        """
        return jax.jit(self.plain)

    @cached_property
    def quick(self) -> Callable[..., tuple[jax.Array, dict[str, jax.Array]]]:
        """The generated function, compiled quickly to slower code: for a few calls."""
        return quick_jit(self.plain)

    @cached_property
    def plain(self) -> Callable[..., tuple[jax.Array, dict[str, jax.Array]]]:
        """The generated function, not compiled."""
        namespace: dict[str, Any] = {"jax": jax}
        exec(compile(self.source(), "<funcbp.derive>", "exec"), namespace)
        return namespace["value_and_gradients"]

    def check(self, seed: int = 0, samples: int = 3) -> Report:
        """Compare the generated function with `jax.grad` in float64, at random arguments that fit.

        Args:
            seed: of the arguments.
            samples: how many sets of them, each with other sizes where the derivation holds for all.

        Returns:
            A `funcbp.verify.Report`.
        """
        return check(self, seed, samples)

    def _notation(self, mode: str) -> Notation:
        return Notation(mode, {x.value: x.symbol for x in self._built.program.aliases})

    def _lines(self, mode: str) -> list[Line]:
        built = self._built
        with built.session.active():
            symbols: dict[str, Node] = {
                name: variable(name, tuple(d for d in shape if d != 1))
                for name, shape in built.shapes.items()
            }
            make = index_steps if self.style == "index" else steps
            return make(built.program, self._notation(mode), symbols)

    def _header(self) -> str:
        shown = []
        for name, shape in self.shapes.items():
            shown.append(f"{name} ({' × '.join(map(str, shape))})" if shape else f"{name} (scalar)")
        scope = "" if self.general else "   for these shapes"
        return f"Given {', '.join(shown)}{scope}"

    def _footer(self) -> list[str]:
        with self._built.session.active():
            notes = definitions(self._built.program, "text")
        return [*notes, *dict.fromkeys(self._built.notes)]


def _written(notation: Notation, node: Node) -> str:
    node = notation.named(node)
    try:
        return notation.matrix.write(node)
    except NoMatrixFormError:
        writer = IndexWriter(notation.mode)
        return writer.element(node, writer.letters(node.rank))
