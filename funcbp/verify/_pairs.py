"""Evaluate a jaxpr on pairs of values: as it is, and disturbed.

The walk through calls, scans, loops and branches is here; what a primitive does to a pair is up to a
`Disturbance`: rounding noise for error bounds, or ties broken one way and another at kinks.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Self

import jax
import numpy as np
from jax import numpy as jnp

from .. import _compat
from .._compat import ClosedJaxpr, JaxprEqn, Literal
from ._arithmetic import NUMPY, TRACED, Arithmetic

__all__ = [
    "EXACT",
    "FACTORIZATIONS",
    "SUMS",
    "Disturbance",
    "Pair",
    "computed",
    "elements",
    "evaluate",
    "evaluated",
    "inexact",
]

# Nothing is rounded: the value is moved, negated, chosen or known.
EXACT = frozenset(
    {
        "abs",
        "bitcast_convert_type",
        "broadcast_in_dim",
        "clamp",
        "complex",
        "concatenate",
        "conj",
        "convert_element_type",
        "copy",
        "copy_p",
        "cummax",
        "cummin",
        "device_put",
        "dynamic_slice",
        "dynamic_update_slice",
        "empty",
        "expand_dims",
        "gather",
        "imag",
        "iota",
        "name",
        "neg",
        "optimization_barrier",
        "pad",
        "real",
        "reduce_precision",
        "reduce_window_max",
        "reduce_window_min",
        "reshape",
        "rev",
        "scatter",
        "select_n",
        "sharding_constraint",
        "slice",
        "split",
        "squeeze",
        "stop_gradient",
        "transpose",
    }
)
SUMS = frozenset(
    {
        "conv_general_dilated",
        "cumsum",
        "dot_general",
        "reduce_sum",
        "reduce_window_sum",
        "scatter-add",
        "scatter_add",
    }
)
FACTORIZATIONS = frozenset(
    {
        "cholesky",
        "custom_linear_solve",
        "eig",
        "eigh",
        "fft",
        "hessenberg",
        "householder_product",
        "linear_solve",
        "lu",
        "qr",
        "schur",
        "svd",
        "triangular_solve",
        "tridiagonal",
        "tridiagonal_solve",
    }
)

_COMPILED = FACTORIZATIONS | {"conv_general_dilated", "while"}


class Pair(NamedTuple):
    """A value as it is, and disturbed (the same object while no disturbance has reached it)."""

    exact: Any
    noisy: Any


class Disturbance(ABC):
    """What happens to the values of a program; hands out slices of one long vector of noise.

    Args:
        values: the vector; without one, draws are only counted, and zero.
    """

    arithmetic: Arithmetic = TRACED

    def __init__(self, values: jax.Array | None) -> None:
        self.values, self.used = values, 0

    @abstractmethod
    def primitive(self, name: str, equation: JaxprEqn, inputs: list[Pair]) -> list[Pair]:
        """The outputs of an equation that is neither a call nor control flow."""

    def after(self, outputs: list[Pair]) -> list[Pair]:
        """What becomes of the outputs of every equation."""
        return outputs

    def copy(self, values: jax.Array | None) -> Self:
        """The same kind of disturbance with another vector."""
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__, values=values, used=0)
        return other

    def take(self, size: int) -> jax.Array:
        """The next numbers of the vector."""
        start, self.used = self.used, self.used + size
        return jnp.zeros(size) if self.values is None else self.values[start : self.used]

    def draw(self, *shape: int) -> jax.Array:
        """Noise of a shape."""
        return self.take(math.prod(shape)).reshape(shape)

    def count(self, evaluation: Callable[[Self], Any]) -> int:
        """How many numbers of the vector an evaluation uses up."""
        counter = self.copy(None)

        def dry() -> int:
            evaluation(counter)
            return 0

        jax.eval_shape(dry)
        return counter.used


def inexact(x: Any) -> bool:
    """Whether an array is floating or complex."""
    return jnp.issubdtype(jnp.result_type(x), jnp.inexact)


def elements(closed: ClosedJaxpr) -> int:
    """How many elements a program computes, every round of its scans counted.

    >>> elements(jax.make_jaxpr(lambda x: jax.lax.map(jnp.sin, x))(jnp.ones((5, 2))))
    10
    """
    total = 0
    for equation in closed.jaxpr.eqns:
        parameters, inner = equation.params, _compat.called(equation)
        match equation.primitive.name:
            case _ if inner is not None:
                total += elements(inner)
            case "scan":
                total += parameters["length"] * elements(parameters["jaxpr"])
            case "while":
                total += elements(parameters["body_jaxpr"])
            case "cond":
                total += max(map(elements, parameters["branches"]))
            case _:
                total += sum(map(math.prod, _compat.output_shapes(equation)))
    return total


def evaluate(closed: ClosedJaxpr, pairs: Sequence[Pair], noise: Disturbance) -> list[Pair]:
    environment: dict[Any, Pair] = {}

    def known(value: Any, aval: Any) -> Pair:
        array = noise.arithmetic.array(value, aval)
        return Pair(array, array)

    def read(atom: Any) -> Pair:
        return known(atom.val, atom.aval) if isinstance(atom, Literal) else environment[atom]

    constants = [known(c, v.aval) for c, v in zip(closed.consts, closed.jaxpr.constvars, strict=True)]
    environment.update(zip(closed.jaxpr.constvars, constants, strict=True))
    environment.update(zip(closed.jaxpr.invars, pairs, strict=True))
    for equation in closed.jaxpr.eqns:
        outputs = _equation(equation, [read(atom) for atom in equation.invars], noise)
        environment.update(zip(equation.outvars, outputs, strict=True))
    return [read(atom) for atom in closed.jaxpr.outvars]


def _equation(equation: JaxprEqn, inputs: list[Pair], noise: Disturbance) -> list[Pair]:
    name = equation.primitive.name
    inner = _compat.called(equation)
    if inner is not None:
        outputs = evaluate(inner, inputs, noise)
    elif name in _CONTROL:
        outputs = _CONTROL[name](equation, inputs, noise)
    else:
        outputs = noise.primitive(name, equation, inputs)
    outputs = [pair if inexact(pair.exact) else Pair(pair.exact, pair.exact) for pair in outputs]
    return noise.after(outputs)


def _scan(equation: JaxprEqn, inputs: list[Pair], noise: Disturbance) -> list[Pair]:
    body, length = equation.params["jaxpr"], equation.params["length"]
    consts, carries = _compat.scan_counts(equation)
    fixed, carry, xs = inputs[:consts], inputs[consts : consts + carries], inputs[consts + carries :]
    if not length:
        zeros = noise.arithmetic.numpy.zeros
        made = map(zeros, _compat.output_shapes(equation), _compat.output_dtypes(equation))
        empty = [Pair(x, x) for x in made]
        return [*carry, *empty[carries:]]
    first = [Pair(p.exact[0], p.noisy[0]) for p in xs]
    count = noise.count(lambda n: evaluate(body, [*fixed, *carry, *first], n))

    def step(carry: list[Pair], now: tuple[list[Pair], jax.Array]) -> tuple[list[Pair], list[Pair]]:
        x, values = now
        outputs = evaluate(body, [*fixed, *carry, *x], noise.copy(values))
        return outputs[:carries], outputs[carries:]

    last, ys = noise.arithmetic.scan(
        step, carry, (xs, noise.draw(length, count)), length=length, reverse=equation.params["reverse"]
    )
    return [*last, *ys]


def _while(equation: JaxprEqn, inputs: list[Pair], noise: Disturbance) -> list[Pair]:
    test, body = equation.params["cond_jaxpr"], equation.params["body_jaxpr"]
    tests, consts = equation.params["cond_nconsts"], equation.params["body_nconsts"]
    asked, fixed, state = inputs[:tests], inputs[tests : tests + consts], inputs[tests + consts :]
    # The number of rounds is not known: every round meets the same noise.
    values = noise.draw(noise.count(lambda n: evaluate(body, [*fixed, *state], n)))
    undisturbed = Undisturbed(noise.arithmetic)

    def go_on(state: list[Pair]) -> jax.Array:
        return evaluate(test, [Pair(p.exact, p.exact) for p in [*asked, *state]], undisturbed)[0].exact

    def step(state: list[Pair]) -> list[Pair]:
        return evaluate(body, [*fixed, *state], noise.copy(values))

    return noise.arithmetic.while_loop(go_on, step, state)


def _cond(equation: JaxprEqn, inputs: list[Pair], noise: Disturbance) -> list[Pair]:
    index, *operands = inputs

    def branch(closed: ClosedJaxpr) -> Callable[[list[Pair]], list[Pair]]:
        values = noise.draw(noise.count(lambda n: evaluate(closed, operands, n)))
        return lambda pairs: evaluate(closed, pairs, noise.copy(values))

    branches = [branch(closed) for closed in equation.params["branches"]]
    return noise.arithmetic.switch(index.exact, branches, operands)


_CONTROL = {"cond": _cond, "scan": _scan, "while": _while}


class Undisturbed(Disturbance):
    """Nothing happens to the values: the program as it is, in some arithmetic."""

    def __init__(self, arithmetic: Arithmetic) -> None:
        super().__init__(None)
        self.arithmetic = arithmetic

    def primitive(self, name: str, equation: JaxprEqn, inputs: list[Pair]) -> list[Pair]:
        del name
        return [Pair(x, x) for x in self.arithmetic.bind(equation, [pair.exact for pair in inputs])]

    def draw(self, *shape: int) -> Any:
        return self.arithmetic.numpy.zeros(shape)

    def count(self, evaluation: Callable[[Self], Any]) -> int:
        del evaluation
        return 0

    def copy(self, values: Any) -> Self:
        del values
        return self


def evaluated(function: Callable[..., Any], *args: Any, arithmetic: Arithmetic = NUMPY) -> Any:
    """`function(*args)`, as traced by JAX and computed by NumPy, or in another arithmetic that is no tracing.

    >>> float(evaluated(lambda x: jnp.dot(x, x), np.array([3.0, 4.0], np.float32)))
    25.0
    """
    closed, out = jax.make_jaxpr(function, return_shape=True)(*args)
    return jax.tree.unflatten(jax.tree.structure(out), _evaluated(closed, jax.tree.leaves(args), arithmetic))


def computed(function: Callable[..., Any], *args: Any) -> Any:
    """`function(*args)`, traced once: computed by NumPy, or compiled if it has a factorization or the like,
    of which each would be compiled for itself.

    >>> float(computed(jnp.linalg.det, np.diag([3.0, 4.0]).astype(np.float32)))
    12.0
    """
    closed, out = jax.make_jaxpr(function, return_shape=True)(*args)
    leaves = jax.tree.leaves(args)
    if _factorizes(closed):
        results = _compat.quick_jit(_compat.jaxpr_as_fun(closed))(*leaves)
    else:
        results = _evaluated(closed, leaves, NUMPY)
    return jax.tree.unflatten(jax.tree.structure(out), results)


def _evaluated(closed: ClosedJaxpr, values: Sequence[Any], arithmetic: Arithmetic) -> list[Any]:
    leaves = [np.asarray(x) for x in values]
    with np.errstate(all="ignore"):
        pairs = evaluate(closed, [Pair(x, x) for x in leaves], Undisturbed(arithmetic))
    return [pair.exact for pair in pairs]


def _factorizes(closed: ClosedJaxpr) -> bool:
    for equation in closed.jaxpr.eqns:
        inner = _compat.called(equation)
        if equation.primitive.name in _COMPILED or (inner is not None and _factorizes(inner)):
            return True
    return False
