"""From a function and its arguments to the programs that are printed and computed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np

from ._arguments import Argument, example_sizes, symbolic_specs
from ._errors import NotScalarError
from ._nodes import Facts, Node, Session, keeping_products, variable
from ._program import Program, differentiated, let_insertion
from ._scalars import Dimension
from ._trace import Trace, live, trace_shapes
from ._trace_calls import RULES

__all__ = ["Built", "build"]


@dataclass
class Built:
    """Everything that is derived, before it is printed.

    Attributes:
        session: to which the expressions belong.
        arguments: with the names of their dimensions.
        symbolic: whether it holds for all sizes.
        program: what a person names.
        code: what a program names.
        names: of expressions.
        notes: conditions that were met on the way.
    """

    session: Session
    arguments: list[Argument]
    symbolic: bool
    program: Program
    code: Program
    names: dict[Node, str]
    sizes: dict[str, int]
    notes: list[str] = field(default_factory=list)

    @property
    def shapes(self) -> dict[str, tuple[Dimension, ...]]:
        """Shapes of the arguments, in names of dimensions if it holds for all."""
        return {a.name: a.dims if self.symbolic else a.shape for a in self.arguments}


def build(
    function: Callable[..., Any],
    arguments: list[Argument],
    wrt: Sequence[str],
    assume: Sequence[str],
    reserved: Sequence[str] = (),
) -> Built:
    """Trace, name, differentiate; no name that is reserved is given."""
    names = [a.name for a in arguments]
    for name in wrt:
        found = next((a for a in arguments if a.name == name), None)
        if found is None:
            raise ValueError(f"derive: wrt has {name!r}, the arguments are {', '.join(names)}")
        if not found.floating:
            raise TypeError(
                f"derive: argument `{name}` has dtype {found.dtype}, which cannot be differentiated"
            )
    facts = Facts.parse(assume, names)
    for name in wrt:
        if name in facts.stochastic | facts.symmetric:
            raise ValueError(f"assume: `{name}` is differentiated, so that it must be free to move")
    check_facts(facts, arguments)
    session = Session(facts)
    with session.active():
        root, symbolic, notes = _traced(function, arguments)
        output = next(c for c in ("C", "L", "f", "J", "value") if c not in {*names, *reserved})
        dims = {d for a in arguments for d in a.dims if isinstance(d, str)}
        taken = {*names, *reserved, output, *dims, "jax", "jnp", "d"}
        shapes = {a.name: _kept(a.dims if symbolic else a.shape) for a in arguments}
        known: dict[Node, str] = {}
        program = differentiated(let_insertion(root, output, wrt, taken, names=known), taken, shapes)
        used = set(taken)
        with keeping_products():
            code = let_insertion(root, output, wrt, used, every_product=True, names=known)
            code = differentiated(code, used - program.names_of_deltas, shapes)
        names = {x.value: x.name for x in program.aliases}
    return Built(session, arguments, symbolic, program, code, names, example_sizes(arguments), notes)


def _kept(shape: Sequence[Dimension]) -> tuple[Dimension, ...]:
    return tuple(shape[k] for k in live(shape))


def _traced(function: Callable[..., Any], arguments: list[Argument]) -> tuple[Node, bool, list[str]]:
    """The expression for all sizes, or where that is impossible for the sizes of the arguments."""
    try:
        return _trace(function, arguments, symbolic_specs(arguments), symbolic=True)
    except NotScalarError:
        raise
    except Exception:
        specs = [a.spec(a.shape) for a in arguments]
        return _trace(function, arguments, specs, symbolic=False)


def _trace(
    function: Callable[..., Any],
    arguments: list[Argument],
    specs: list[jax.ShapeDtypeStruct],
    *,
    symbolic: bool,
) -> tuple[Node, bool, list[str]]:
    closed, out = trace_shapes(function, specs)
    leaves = jax.tree.leaves(out)
    if len(leaves) != 1 or live(leaves[0].shape) or np.dtype(leaves[0].dtype).kind != "f":
        shown = jax.tree.map(lambda s: f"{s.dtype}{list(s.shape)}", out)
        raise NotScalarError(f"derive: the function must return one real number, it returns {shown}")
    trace = Trace(RULES)
    with keeping_products():
        nodes = [variable(a.name, _kept(a.dims if symbolic else a.shape)) for a in arguments]
        (root,) = trace.run(closed, nodes)
    return root, symbolic, trace.notes


def check_facts(facts: Facts, arguments: Sequence[Argument]) -> None:
    """Compare what is declared with the data that were given.

    Raises:
        ValueError: if a declared fact is false of them.
    """
    for a in arguments:
        if a.array is None:
            continue
        x = np.asarray(a.array, np.float64)
        square = x.ndim == 2 and x.shape[0] == x.shape[1]
        tests = (
            ("stochastic", "the rows sum to one", bool(x.ndim) and np.allclose(x.sum(-1), 1, atol=1e-5)),
            ("symmetric", "it is symmetric", square and np.allclose(x, x.T, atol=1e-6)),
            ("positive", "it is positive", bool((x > 0).all())),
            ("nonzero", "it has no zero", bool((x != 0).all())),
        )
        for kind, words, true in tests:
            if a.name in getattr(facts, kind) and not true:
                raise ValueError(
                    f"assume: of `{a.name}` it is declared that {words}, which its values contradict"
                )
