"""Programs of JAX evaluated with NumPy, an equation at a time, so that nothing has to be compiled.

What has no line here is given to JAX itself, whose compiled operations are few where shapes are few.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from scipy import linalg, special

from funcbp import _compat

__all__ = ["evaluated"]

Operation = Callable[..., Any]


def evaluated(function: Callable[..., Any], *args: np.ndarray) -> Any:
    """`function(*args)` in float64, as traced by JAX and computed by NumPy."""
    closed, out = jax.make_jaxpr(function, return_shape=True)(*args)
    with np.errstate(all="ignore"):
        values = _run(closed, jax.tree.leaves(args))
    return jax.tree.unflatten(jax.tree.structure(out), values)


def _run(closed: _compat.ClosedJaxpr, args: Sequence[Any]) -> list[Any]:
    env: dict[Any, Any] = dict(zip(closed.jaxpr.invars, args, strict=True))
    env |= {v: np.asarray(c) for v, c in zip(closed.jaxpr.constvars, closed.consts, strict=True)}

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, _compat.Literal) else env[atom]

    for equation in closed.jaxpr.eqns:
        outputs = _equation(equation, [read(v) for v in equation.invars])
        env.update(zip(equation.outvars, outputs, strict=True))
    return [read(v) for v in closed.jaxpr.outvars]


def _equation(equation: _compat.JaxprEqn, values: list[Any]) -> list[Any]:
    name, parameters = equation.primitive.name, equation.params
    inner = _compat.called(equation)
    if inner is not None:
        return _run(inner, values)
    if name == "scan":
        return _scan(equation, values)
    if name == "custom_linear_solve":
        return _solved(equation, values)
    if name in _PLAIN:
        return [_PLAIN[name](*values)]
    if name in _SHAPED:
        return [_SHAPED[name](parameters, *values)]
    if name == "cond":
        index, *operands = values
        return _run(parameters["branches"][int(index)], operands)
    if name == "unstack":
        return list(np.moveaxis(values[0], parameters["axis"], 0))
    if name == "split":
        at = np.cumsum(parameters["sizes"])[:-1]
        return np.split(np.asarray(values[0]), at, parameters["axis"])
    return [np.asarray(x) for x in _compat.bind(equation, values)]


def _scan(equation: _compat.JaxprEqn, values: list[Any]) -> list[Any]:
    constants, carried = _compat.scan_counts(equation)
    body, length = equation.params["jaxpr"], equation.params["length"]
    fixed, state, rows = (
        values[:constants],
        values[constants : constants + carried],
        values[constants + carried :],
    )
    order = range(length)[:: -1 if equation.params["reverse"] else 1]
    stacks: dict[int, list[Any]] = {}
    for t in order:
        outs = _run(body, [*fixed, *state, *(np.asarray(x)[t] for x in rows)])
        state, stacks[t] = outs[:carried], outs[carried:]
    return [*state, *(np.stack(column) for column in zip(*(stacks[t] for t in range(length)), strict=True))]


def _solved(equation: _compat.JaxprEqn, values: list[Any]) -> list[Any]:
    """Run what JAX itself runs: its own factorization and its own solver."""
    counts, jaxprs = equation.params["const_lengths"], equation.params["jaxprs"]
    before = counts.matvec + counts.vecmat
    constants = values[before : before + counts.solve]
    right = values[before + counts.solve + counts.transpose_solve :]
    return _run(jaxprs.solve, [*constants, *right])


def _dot(parameters: dict[str, Any], a: Any, b: Any) -> Any:
    (left, right), (left_batch, right_batch) = parameters["dimension_numbers"]
    names = list(range(np.ndim(a)))
    others = list(range(np.ndim(a), np.ndim(a) + np.ndim(b)))
    for i, j in zip((*left, *left_batch), (*right, *right_batch), strict=True):
        others[j] = names[i]
    batch = [names[i] for i in left_batch]
    free = [k for k in (*names, *others) if k not in batch and k not in {names[i] for i in left}]
    return np.einsum(a, names, b, others, [*batch, *free])


def _broadcast(parameters: dict[str, Any], x: Any) -> Any:
    shape, axes = parameters["shape"], parameters["broadcast_dimensions"]
    sizes = [1] * len(shape)
    for axis, size in zip(axes, np.shape(x), strict=True):
        sizes[axis] = size
    return np.broadcast_to(np.reshape(x, sizes), shape)


def _iota(parameters: dict[str, Any]) -> Any:
    shape, axis = parameters["shape"], parameters["dimension"]
    sizes = [-1 if k == axis else 1 for k in range(len(shape))]
    return np.broadcast_to(np.arange(shape[axis], dtype=parameters["dtype"]).reshape(sizes), shape)


def _slice(parameters: dict[str, Any], x: Any) -> Any:
    starts, stops = parameters["start_indices"], parameters["limit_indices"]
    strides = parameters["strides"] or (1,) * len(starts)
    return np.asarray(x)[tuple(slice(*t) for t in zip(starts, stops, strides, strict=True))]


def _pad(parameters: dict[str, Any], x: Any, value: Any) -> Any:
    for axis, (low, high, between) in enumerate(parameters["padding_config"]):
        size = np.shape(x)[axis]
        shape = [*np.shape(x)]
        shape[axis] = max(low, 0) + size + between * max(size - 1, 0) + max(high, 0)
        padded = np.full(shape, value)
        start = max(low, 0)
        index = [slice(None)] * np.ndim(x)
        index[axis] = slice(start, start + (between + 1) * size, between + 1)
        padded[tuple(index)] = x
        index[axis] = slice(max(-low, 0), shape[axis] - max(-high, 0))
        x = padded[tuple(index)]
    return x


def _cumulative(parameters: dict[str, Any], x: Any) -> Any:
    axis = parameters["axis"]
    if parameters["reverse"]:
        return np.flip(np.cumsum(np.flip(x, axis), axis), axis)
    return np.cumsum(x, axis)


def _triangular(parameters: dict[str, Any], a: Any, b: Any) -> Any:
    """The solution of one system; a = aᵀ, b = bᵀ where the unknown stands on the left of the matrix."""
    left, turned = parameters["left_side"], bool(parameters["transpose_a"])
    unit, options = parameters["unit_diagonal"], {"lower": parameters["lower"], "check_finite": False}
    if np.ndim(a) > 2:
        each = [_triangular(parameters, x, y) for x, y in zip(a, b, strict=True)]
        return np.stack(each)
    solved = linalg.solve_triangular(
        a, b if left else b.T, trans=int(turned == left), unit_diagonal=unit, **options
    )
    return solved if left else solved.T


def _reduced(f: Operation) -> Operation:
    return lambda parameters, x: f(x, axis=tuple(parameters["axes"]))


_PLAIN: dict[str, Operation] = {
    "abs": np.abs,
    "acos": np.arccos,
    "add": np.add,
    "add_any": np.add,
    "and": np.logical_and,
    "asin": np.arcsin,
    "asinh": np.arcsinh,
    "atan": np.arctan,
    "atanh": np.arctanh,
    "cbrt": np.cbrt,
    "ceil": np.ceil,
    "copy": np.asarray,
    "cos": np.cos,
    "cosh": np.cosh,
    "digamma": special.digamma,
    "div": np.divide,
    "eq": np.equal,
    "erf": special.erf,
    "erfc": special.erfc,
    "exp": np.exp,
    "exp2": np.exp2,
    "expm1": np.expm1,
    "floor": np.floor,
    "ge": np.greater_equal,
    "gt": np.greater,
    "is_finite": np.isfinite,
    "le": np.less_equal,
    "lgamma": special.gammaln,
    "log": np.log,
    "log1p": np.log1p,
    "logistic": special.expit,
    "lt": np.less,
    "max": np.maximum,
    "min": np.minimum,
    "mul": np.multiply,
    "ne": np.not_equal,
    "neg": np.negative,
    "not": np.logical_not,
    "optimization_barrier": lambda x: x,
    "or": np.logical_or,
    "pow": np.power,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "select_n": lambda which, no, yes: np.where(which, yes, no),
    "sign": np.sign,
    "sin": np.sin,
    "sinh": np.sinh,
    "sqrt": np.sqrt,
    "square": np.square,
    "stop_gradient": lambda x: x,
    "sub": np.subtract,
    "tan": np.tan,
    "tanh": np.tanh,
    "zeros_like": np.zeros_like,
}
_SHAPED: dict[str, Operation] = {
    "broadcast_in_dim": _broadcast,
    "concatenate": lambda parameters, *parts: np.concatenate(parts, parameters["dimension"]),
    "convert_element_type": lambda parameters, x: np.asarray(x).astype(parameters["new_dtype"]),
    "cumsum": _cumulative,
    "dot_general": _dot,
    "expand_dims": lambda parameters, x: np.expand_dims(x, parameters["dimensions"]),
    "integer_pow": lambda parameters, x: np.asarray(x, np.float64) ** parameters["y"],
    "iota": _iota,
    "pad": _pad,
    "reduce_and": _reduced(np.all),
    "reduce_max": _reduced(np.max),
    "reduce_min": _reduced(np.min),
    "reduce_or": _reduced(np.any),
    "reduce_sum": _reduced(np.sum),
    "reshape": lambda parameters, x: np.reshape(x, parameters["new_sizes"]),
    "rev": lambda parameters, x: np.flip(x, parameters["dimensions"]),
    "slice": _slice,
    "squeeze": lambda parameters, x: np.squeeze(x, parameters["dimensions"]),
    "stack": lambda parameters, *parts: np.stack(parts, parameters["axis"]),
    "triangular_solve": _triangular,
    "transpose": lambda parameters, x: np.transpose(x, parameters["permutation"]),
}
