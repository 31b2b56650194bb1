"""Any traceable function, evaluated with as many digits as asked for.

Where float64 autodiff cancels, it is no truth for a float64 gradient. Its program is then evaluated equation
by equation on NumPy arrays of mpmath numbers: exact inputs, no rounding to speak of, no overflow, and the
result rounded once. That costs some microseconds for each multiplication, bearable for 10⁵ to 10⁶ of them.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import mpmath
import numpy as np

from .. import _compat
from .._compat import ClosedJaxpr, JaxprEqn, Literal, enable_x64
from ._precise_arrays import STRUCTURAL
from ._precise_linear import LINEAR
from ._precise_numbers import ELEMENTWISE, PLAIN, is_precise, to_numbers, to_numpy, wrapped
from ._precise_sums import SUMMED, NotPrecise

__all__ = ["NotPrecise", "precisely", "work"]

_LARGEST = 3_000_000
_TABLES = (STRUCTURAL, ELEMENTWISE, SUMMED, LINEAR)
_MOVED = frozenset({"optimization_barrier"})


def precisely(
    function: Callable[..., Any],
    digits: int = 40,
    *,
    casts: bool = False,
    estimate: bool = False,
    rest: bool = False,
    largest: int = _LARGEST,
) -> Callable[..., Any]:
    """`function`, traced in float64 and evaluated with `digits` decimal digits.

    Args:
        function: any traceable function of pytrees of arrays; a backward pass, for one.
        digits: of every intermediate.
        casts: whether casts to narrower floating types inside the function round.
        estimate: whether to evaluate a second time with half as many digits more, and to return a pair: the
            value, and the absolute difference between the two.
        rest: whether every array of the result is a pair: the numbers rounded to float64, and what is left.
        largest: the number of scalar multiplications from which on the function is not evaluated.

    Returns:
        A function of the same arguments; its results are NumPy arrays, float64 or complex128 in place of
        floating and complex ones, correctly rounded unless more than `digits` - 16 digits cancel. Numbers
        that are too large for float64 are infinite.

    Raises:
        NotPrecise: (from the returned function) for a primitive that cannot be evaluated so, or for a
            program that is too long.

    >>> import numpy as np
    >>> def f(x):
    ...     return (x + 1) - x
    >>> float(f(np.float64(1e16))), float(precisely(f)(np.float64(1e16)))
    (0.0, 1.0)
    """

    def evaluated(*args: Any) -> Any:
        with enable_x64(), jax.default_matmul_precision("highest"):
            closed, shape = jax.make_jaxpr(function, return_shape=True)(*args)
            steps = work(closed)
            if steps > largest:
                raise NotPrecise(f"a program of {steps} multiplications, more than {largest},")
            leaves, tree = jax.tree.leaves(args), jax.tree.structure(shape)
            value = _run(closed, leaves, digits, casts)
            if rest:
                return tree.unflatten([_with_rest(x, digits) for x in value])
            if not estimate:
                return tree.unflatten(map(to_numpy, value))
            better = _run(closed, leaves, digits + digits // 2, casts)
        with mpmath.workdps(digits + digits // 2):
            errors = [
                to_numpy(wrapped(abs(x - y), x.shape)) if is_precise(x) else 0 * y
                for x, y in zip(value, better, strict=True)
            ]
        return tree.unflatten(map(to_numpy, better)), tree.unflatten(errors)

    return evaluated


def _with_rest(x: Any, digits: int) -> tuple[Any, Any]:
    value = to_numpy(x)
    if not is_precise(x):
        return value, np.zeros_like(value)
    with mpmath.workdps(digits), np.errstate(all="ignore"):
        rest = to_numpy(wrapped(x - to_numbers(value), x.shape))
    return value, np.where(np.isfinite(value), rest, 0.0)


def work(closed: ClosedJaxpr) -> int:
    """About how many scalar operations a program takes; the rounds of a `while` loop are not known and count
    once."""
    return sum(_steps(equation) for equation in closed.jaxpr.eqns)


def _steps(equation: JaxprEqn) -> int:
    inner = _compat.called(equation)
    if inner is not None:
        return work(inner)
    name, parameters = equation.primitive.name, equation.params
    if name == "scan":
        return parameters["length"] * work(parameters["jaxpr"])
    if name == "cond":
        return max(work(branch) for branch in parameters["branches"])
    if name == "while":
        return work(parameters["body_jaxpr"])
    shapes = _compat.shapes(equation)
    outputs = [math.prod(getattr(atom.aval, "shape", ())) for atom in equation.outvars]
    size = max([math.prod(shape) for shape in shapes] + outputs, default=0)
    if name == "dot_general":
        (contracted, _), _ = parameters["dimension_numbers"]
        size = outputs[0] * math.prod(shapes[0][axis] for axis in contracted)
    elif name == "conv_general_dilated":
        size = outputs[0] * math.prod(shapes[1])
        size //= max(shapes[1][parameters["dimension_numbers"].rhs_spec[0]], 1)
    elif name in LINEAR:
        size *= max(shapes[0], default=1)
    elif name in STRUCTURAL:
        size //= 8
    return size


def _run(closed: ClosedJaxpr, leaves: Sequence[Any], digits: int, casts: bool) -> list[Any]:
    with mpmath.workdps(digits):
        return _evaluate(closed, [to_numbers(x) for x in leaves], casts)


def _evaluate(closed: ClosedJaxpr, values: Sequence[Any], casts: bool) -> list[Any]:
    environment: dict[Any, Any] = {}
    environment.update(zip(closed.jaxpr.constvars, map(to_numbers, closed.consts), strict=True))
    environment.update(zip(closed.jaxpr.invars, values, strict=True))

    def read(atom: Any) -> Any:
        return to_numbers(atom.val) if isinstance(atom, Literal) else environment[atom]

    for equation in closed.jaxpr.eqns:
        outputs = _equation(equation, [read(atom) for atom in equation.invars], casts)
        environment.update(zip(equation.outvars, outputs, strict=True))
    return [read(atom) for atom in closed.jaxpr.outvars]


def _equation(equation: JaxprEqn, values: list[Any], casts: bool) -> list[Any]:
    name = equation.primitive.name
    inner = _compat.called(equation)
    if inner is not None:
        return _evaluate(inner, values, casts)
    if name in _CONTROL:
        return _CONTROL[name](equation, values, casts)
    if name in _MOVED:
        return values
    if name == "convert_element_type" and casts and is_precise(values[0]):
        narrow = np.asarray(to_numpy(values[0])).astype(equation.params["new_dtype"])
        return [to_numbers(narrow)]
    if name in STRUCTURAL:
        return _listed(STRUCTURAL[name](equation, *values))
    if not any(map(is_precise, values)):
        return [to_numbers(x) for x in _plainly(name, equation, values)]
    for table in _TABLES:
        if name in table:
            return _listed(table[name](equation, *values))
    raise NotPrecise(f"the primitive {name}")


def _plainly(name: str, equation: JaxprEqn, values: list[Any]) -> list[Any]:
    # Integers and keys are exact as they are. NumPy does what is common, without compiling it.
    if name in PLAIN and all(isinstance(x, np.ndarray) for x in values):
        return [np.asarray(PLAIN[name](*values))]
    return [
        x if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key) else np.asarray(x)
        for x in _compat.bind(equation, values)
    ]


def _listed(outputs: Any) -> list[Any]:
    return outputs if isinstance(outputs, list) else [outputs]


def _scan(equation: JaxprEqn, values: list[Any], casts: bool) -> list[Any]:
    body, length = equation.params["jaxpr"], equation.params["length"]
    consts, carries = _compat.scan_counts(equation)
    fixed, carry, xs = values[:consts], values[consts : consts + carries], values[consts + carries :]
    rows: list[list[Any]] = []
    order = range(length)
    for i in reversed(order) if equation.params["reverse"] else order:
        outputs = _evaluate(
            body, [*fixed, *carry, *(np.asarray(x[i]) if is_precise(x) else x[i] for x in xs)], casts
        )
        carry = outputs[:carries]
        rows.append(outputs[carries:])
    if equation.params["reverse"]:
        rows.reverse()
    avals: list[Any] = [atom.aval for atom in equation.outvars[carries:]]
    stacked = [
        np.stack([row[k] for row in rows]) if rows else to_numbers(np.zeros(aval.shape, aval.dtype))
        for k, aval in enumerate(avals)
    ]
    return [*carry, *stacked]


def _while(equation: JaxprEqn, values: list[Any], casts: bool) -> list[Any]:
    tests, consts = equation.params["cond_nconsts"], equation.params["body_nconsts"]
    asked, fixed, state = values[:tests], values[tests : tests + consts], values[tests + consts :]
    while bool(_evaluate(equation.params["cond_jaxpr"], [*asked, *state], casts)[0]):
        state = _evaluate(equation.params["body_jaxpr"], [*fixed, *state], casts)
    return state


def _cond(equation: JaxprEqn, values: list[Any], casts: bool) -> list[Any]:
    branches = equation.params["branches"]
    index = min(max(int(values[0]), 0), len(branches) - 1)
    return _evaluate(branches[index], values[1:], casts)


def _solve(equation: JaxprEqn, values: list[Any], casts: bool) -> list[Any]:
    lengths, programs = equation.params["const_lengths"], equation.params["jaxprs"]
    start = lengths.matvec + lengths.vecmat
    constants = values[start : start + lengths.solve]
    right = values[sum(lengths) :]
    return _evaluate(programs.solve, [*constants, *right], casts)


_CONTROL = {"cond": _cond, "custom_linear_solve": _solve, "scan": _scan, "while": _while}
