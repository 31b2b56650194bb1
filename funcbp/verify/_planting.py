"""Would your own test have noticed? Plants human mistakes into a backward pass and runs the test on each.

The backward pass is traced to a jaxpr; a mutant is the same jaxpr with one equation evaluated wrongly: a sign
flipped, a factor or term dropped, a transpose left out, a sum made a mean, a constant changed. Mutants that
give the same numbers as the original at random inputs are no mistakes, and dropped.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax import numpy as jnp

from .. import _compat
from .._compat import ClosedJaxpr, JaxprEqn, Literal

__all__ = ["Mistake", "Sensitivity", "plant", "sensitivity"]

Rewrite = Callable[[JaxprEqn, Sequence[Any]], list[Any]]
_DIFFERENCE = 1e-5


@dataclass(frozen=True)
class Mistake:
    """A mistake that was planted.

    Attributes:
        kind: what was done: `"sign flipped"`.
        operation: the operation it was done to, by the name of JAX's primitive.
        line: the line of the backward pass: `"model.py:12"`; None if it is not known.
    """

    kind: str
    operation: str
    line: str | None

    def __str__(self) -> str:
        return f"{self.kind}, in {self.operation}" + (f" ({self.line})" if self.line else "")


@dataclass(frozen=True)
class Sensitivity:
    """Which of the planted mistakes a test noticed.

    Attributes:
        caught: those for which it raised `AssertionError`.
        missed: those that it let pass.
        equivalent: number of mutants that were no mistakes, because nothing changed.
    """

    caught: tuple[Mistake, ...]
    missed: tuple[Mistake, ...]
    equivalent: int = 0

    @property
    def rate(self) -> float:
        """The share of mistakes that was caught; 1 if none could be planted."""
        count = len(self.caught) + len(self.missed)
        return len(self.caught) / count if count else 1.0

    def __str__(self) -> str:
        count = len(self.caught) + len(self.missed)
        lines = [f"The test caught {len(self.caught)} of {count} planted mistakes."]
        lines += [f"  missed  {mistake}" for mistake in self.missed]
        lines += [f"  caught  {mistake}" for mistake in self.caught]
        return "\n".join(lines)


def plant(backward: Callable[..., Any], args: Sequence[Any]) -> list[tuple[Mistake, Callable[..., Any]]]:
    """Copies of a backward pass with one mistake each.

    Args:
        backward: any traceable function: a gradient, or a `bwd` of residuals and cotangent.
        args: arguments to trace it with. A copy works for other arguments as well, and is traced anew.

    Returns:
        Pairs of the mistake and the copy, which takes the arguments of `backward`.
    """
    closed = jax.make_jaxpr(backward)(*args)
    found = []
    for index, equation in enumerate(_equations(closed)):
        for kind, rewrite in _rewrites(equation):
            mistake = Mistake(kind, equation.primitive.name, _line(equation))
            found.append((mistake, _mutated(backward, index, kind, rewrite)))
    return found


def sensitivity(
    backward: Callable[..., Any],
    test: Callable[[Callable[..., Any]], Any],
    args: Sequence[Any],
    *,
    most: int = 100,
    seed: int = 0,
) -> Sensitivity:
    """Plants mistakes into a backward pass, and runs a test on each of them.

    Args:
        backward: any traceable function: a gradient, or a `bwd` of residuals and cotangent.
        test: takes a backward pass and raises `AssertionError` if it finds it wrong.
        args: arguments of `backward`: their shapes and dtypes count, and the values as an example.
        most: of how many mistakes to try, chosen at random if there are more.
        seed: of that choice, and of the inputs that tell mistakes from equivalent rewrites.

    Returns:
        Which mistakes were caught, and which were not.

    Raises:
        AssertionError: if the test fails for the original: it then says nothing about mistakes.

    >>> import jax.numpy as jnp
    >>> def my_gradient(x): return 2 * x
    >>> def my_test(gradient): assert gradient(jnp.float32(3)) > 0
    >>> print(sensitivity(my_gradient, my_test, (jnp.float32(1.5),)))
    The test caught 1 of 4 planted mistakes.
    ...
    """
    test(backward)
    rng = np.random.default_rng(seed)
    inputs = [tuple(args), tuple(jax.tree.map(lambda x: _redrawn(x, rng), tuple(args)))]
    right = [jax.tree.leaves(backward(*given)) for given in inputs]
    planted = plant(backward, args)
    if len(planted) > most:
        planted = [planted[i] for i in sorted(rng.choice(len(planted), most, replace=False))]
    caught, missed, equivalent = [], [], 0
    for mistake, mutant in planted:
        if all(
            _equal(jax.tree.leaves(mutant(*given)), expected)
            for given, expected in zip(inputs, right, strict=True)
        ):
            equivalent += 1
            continue
        try:
            test(mutant)
        except AssertionError:
            caught.append(mistake)
        else:
            missed.append(mistake)
    return Sensitivity(tuple(caught), tuple(missed), equivalent)


def _mutated(backward: Callable[..., Any], index: int, kind: str, rewrite: Rewrite) -> Callable[..., Any]:
    def mutant(*args: Any) -> Any:
        closed, shape = jax.make_jaxpr(backward, return_shape=True)(*args)
        evaluator = _Evaluator(index, rewrite)
        outputs = evaluator.run(closed, [jnp.asarray(x) for x in jax.tree.leaves(args)])
        return jax.tree.unflatten(jax.tree.structure(shape), outputs)

    mutant.__name__ = mutant.__qualname__ = f"{getattr(backward, '__name__', 'backward')} with {kind}"
    return mutant


class _Evaluator:
    """Evaluates a jaxpr with one equation, by its number in order of execution, evaluated otherwise."""

    def __init__(self, index: int, rewrite: Rewrite) -> None:
        self.left, self.rewrite = index, rewrite

    def run(self, closed: ClosedJaxpr, inputs: Sequence[Any]) -> list[Any]:
        environment: dict[Any, Any] = dict(zip(closed.jaxpr.constvars, closed.consts, strict=True))
        environment.update(zip(closed.jaxpr.invars, inputs, strict=True))

        def read(atom: Any) -> Any:
            return atom.val if isinstance(atom, Literal) else environment[atom]

        for equation in closed.jaxpr.eqns:
            operands = [read(atom) for atom in equation.invars]
            inner = _compat.called(equation)
            if inner is not None:
                outputs = self.run(inner, operands)
            else:
                self.left -= 1
                outputs = (self.rewrite if self.left == -1 else _compat.bind)(equation, operands)
            environment.update(zip(equation.outvars, outputs, strict=True))
        return [read(atom) for atom in closed.jaxpr.outvars]


def _equations(closed: ClosedJaxpr) -> Iterator[JaxprEqn]:
    """The equations in order of execution, calls inlined."""
    for equation in closed.jaxpr.eqns:
        inner = _compat.called(equation)
        if inner is None:
            yield equation
        else:
            yield from _equations(inner)


def _rewrites(equation: JaxprEqn) -> Iterator[tuple[str, Rewrite]]:
    """The mistakes that can be made in an equation."""
    if not any(_inexact(variable) for variable in equation.outvars):
        return
    if len(equation.outvars) == 1:
        yield "sign flipped", lambda e, xs: [-_compat.bind(e, xs)[0]]
    yield from _OF_ALL.get(equation.primitive.name, ())
    shapes = _compat.shapes(equation)
    for k, shape in enumerate(shapes):
        if equation.primitive.name == "dot_general" and len(shape) > 1 and shape[-1] == shape[-2]:
            yield f"operand {k + 1} transposed", _with_operand(k, lambda x: jnp.swapaxes(x, -1, -2))
        if isinstance(equation.invars[k], Literal) and _inexact(equation.invars[k]):
            yield f"constant {k + 1} doubled", _with_operand(k, lambda x: 2 * x)
            if equation.primitive.name != "mul":
                yield f"constant {k + 1} made 1", _with_operand(k, jnp.ones_like)
    if equation.primitive.name in ("mul", "dot_general", "sub", "div") and shapes[0] == shapes[1]:
        yield "operands exchanged", lambda e, xs: _compat.bind(e, [xs[1], xs[0]])


def _with_operand(k: int, change: Callable[[Any], Any]) -> Rewrite:
    return lambda e, xs: _compat.bind(e, [change(x) if i == k else x for i, x in enumerate(xs)])


def _inexact(atom: Any) -> bool:
    return jnp.issubdtype(atom.aval.dtype, jnp.inexact)


def _only(k: int) -> Rewrite:
    """The operand itself, as if the other were not there."""

    def rewrite(equation: JaxprEqn, operands: Sequence[Any]) -> list[Any]:
        out: Any = equation.outvars[0].aval
        return [jnp.broadcast_to(operands[k], out.shape).astype(out.dtype)]

    return rewrite


def _mean(equation: JaxprEqn, operands: Sequence[Any]) -> list[Any]:
    (total,) = _compat.bind(equation, operands)
    return [total * (total.size / max(operands[0].size, 1))]


def _unchanged(equation: JaxprEqn, operands: Sequence[Any]) -> list[Any]:
    out: Any = equation.outvars[0].aval
    return [operands[0].reshape(out.shape)]


def _first_row(equation: JaxprEqn, operands: Sequence[Any]) -> list[Any]:
    axes = equation.params["axes"]
    return [operands[0][tuple(0 if a in axes else slice(None) for a in range(operands[0].ndim))]]


def _overwritten(equation: JaxprEqn, operands: Sequence[Any]) -> list[Any]:
    """Contributions to the same place: the last one wins; found by the order of the updates."""
    operand, indices, updates = operands
    count = jnp.arange(1.0, updates.size + 1, dtype=updates.dtype).reshape(updates.shape)
    last = jax.lax.scatter_max(
        jnp.zeros_like(operand),
        indices,
        count,
        equation.params["dimension_numbers"],
        mode=equation.params["mode"],
    )
    flat = jnp.concatenate([jnp.zeros(1, updates.dtype), updates.ravel()])
    return [operand + flat[last.astype(jnp.int32)]]


def _moved(equation: JaxprEqn, operands: Sequence[Any]) -> list[Any]:
    (result,) = _compat.bind(equation, operands)
    return [jnp.roll(result, 1, 0) if result.ndim else result]


_OF_ALL: dict[str, tuple[tuple[str, Rewrite], ...]] = {
    "add": (("second term dropped", _only(0)), ("first term dropped", _only(1))),
    "add_any": (("second term dropped", _only(0)), ("first term dropped", _only(1))),
    "sub": (("second term dropped", _only(0)), ("first term dropped", _only(1))),
    "mul": (("second factor dropped", _only(0)), ("first factor dropped", _only(1))),
    "div": (("divisor dropped", _only(0)),),
    "exp": (("function left out", _only(0)),),
    "tanh": (("function left out", _only(0)),),
    "logistic": (("function left out", _only(0)),),
    "sqrt": (("function left out", _only(0)),),
    "rsqrt": (("function left out", _only(0)),),
    "integer_pow": (("power left out", _only(0)),),
    "square": (("power left out", _only(0)),),
    "neg": (("minus left out", _only(0)),),
    "reduce_sum": (("mean for sum", _mean), ("only the first row", _first_row)),
    "transpose": (("transpose left out", _unchanged),),
    "rev": (("reversal left out", _unchanged),),
    "cumsum": (("sum left out", _unchanged),),
    "select_n": (
        ("mask dropped", _only(-1)),
        ("mask inverted", lambda e, xs: _compat.bind(e, [xs[0], *xs[:0:-1]])),
    ),
    "scatter-add": (("duplicates overwritten", _overwritten),),
    "scatter_add": (("duplicates overwritten", _overwritten),),
    "concatenate": (("moved by one", _moved),),
    "gather": (("moved by one", _moved),),
}


def _line(equation: JaxprEqn) -> str | None:
    own = next(
        (f for f in _compat.frames(equation) if "/jax/" not in f[0] and "/verify/_planting" not in f[0]), None
    )
    return None if own is None else f"{own[0].rpartition('/')[2]}:{own[1]}"


def _redrawn(x: Any, rng: np.random.Generator) -> Any:
    """An array like another, with other values of its size; integers, booleans and keys as they are."""
    array = jnp.asarray(x)
    if not jnp.issubdtype(array.dtype, jnp.inexact):
        return x
    values = np.asarray(array)
    if array.ndim == 0:
        return jnp.asarray(values * rng.uniform(0.5, 1.5), array.dtype)
    return jnp.asarray(
        rng.permutation(values.ravel()).reshape(values.shape) * rng.uniform(0.5, 1.5, values.shape),
        array.dtype,
    )


def _equal(mutant: Sequence[Any], right: Sequence[Any]) -> bool:
    for m, r in itertools.zip_longest(mutant, right):
        m, r = np.asarray(m), np.asarray(r)
        scale = np.abs(r).max(initial=0.0)
        if m.shape != r.shape or not np.array_equal(np.isfinite(m), np.isfinite(r)):
            return False
        usable = np.isfinite(r)
        if (np.abs(m - r)[usable] > _DIFFERENCE * scale).any():
            return False
    return True
