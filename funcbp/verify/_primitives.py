"""Equations of a jaxpr computed by NumPy, so that nothing has to be compiled.

What has no line here (factorizations, gathers, convolutions, special functions) is given to JAX, one
operation at a time. So are functions of which XLA on a CPU loses more than two ulps in places (log1p, expm1,
tanh, cosh, exp2, ...): whoever calls them cannot help it, and is not to be blamed for it.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax import numpy as jnp

from .. import _compat
from .._compat import JaxprEqn

__all__ = ["apply", "as_array"]

Operation = Callable[..., Any]


def apply(equation: JaxprEqn, values: list[Any]) -> list[Any]:
    """The outputs of an equation that is neither a call nor control flow, as NumPy arrays."""
    name, parameters = equation.primitive.name, equation.params
    dtypes = _compat.output_dtypes(equation)
    real = not any(jnp.issubdtype(dtype, jnp.complexfloating) for dtype in dtypes)
    floating = real and all(jnp.issubdtype(dtype, jnp.floating) for dtype in dtypes)
    if name in _FLOATING and floating:
        outputs = [_FLOATING[name](*values)]
    elif name in _ANY and real:
        outputs = [_ANY[name](*values)]
    elif name in _SHAPED:
        outputs = [_SHAPED[name](parameters, *values)]
    elif name in _SEVERAL:
        outputs = _SEVERAL[name](parameters, *values)
    elif name == "convert_element_type" and _casts(values[0], dtypes[0]):
        outputs = values
    else:
        outputs = _compat.bind(equation, values)
    return [as_array(x, dtype) for x, dtype in zip(outputs, dtypes, strict=True)]


def as_array(x: Any, dtype: Any) -> Any:
    """A NumPy array; random keys, which are no numbers for NumPy, as they are."""
    return x if jnp.issubdtype(dtype, jax.dtypes.extended) else np.asarray(x, dtype)


def _casts(x: Any, dtype: Any) -> bool:
    """Whether NumPy's cast is XLA's: for what NumPy does to a float that no integer can hold, it is not."""
    if any(jnp.issubdtype(d, jax.dtypes.extended) for d in (x.dtype, dtype)):
        return False
    # Half precision is left to XLA, too, which may round twice.
    source, target = x.dtype, np.dtype(dtype)
    if target.kind == "f":
        return source.kind in "biuf" and target.itemsize >= 4
    return source.kind in "biu" and target.kind in "biu"


def _reshape(parameters: dict[str, Any], x: Any) -> Any:
    # Batched convolutions reorder the axes by it, too.
    order = parameters["dimensions"]
    return np.reshape(x if order is None else np.transpose(x, order), parameters["new_sizes"])


def _dot(parameters: dict[str, Any], a: Any, b: Any) -> Any:
    (left, right), (left_batch, right_batch) = parameters["dimension_numbers"]
    free_left = [i for i in range(np.ndim(a)) if i not in (*left, *left_batch)]
    free_right = [i for i in range(np.ndim(b)) if i not in (*right, *right_batch)]
    # Rows times columns, for every batch: what matmul is fast at, and einsum without a path is not.
    x = np.transpose(a, (*left_batch, *free_left, *left))
    y = np.transpose(b, (*right_batch, *right, *free_right))
    batch = x.shape[: len(left_batch)]
    rows, columns = x.shape[len(batch) : len(batch) + len(free_left)], y.shape[len(batch) + len(right) :]
    terms = x.shape[len(batch) + len(free_left) :]
    wide = parameters["preferred_element_type"] or np.result_type(x, y)
    sizes = (np.prod(rows, dtype=int), np.prod(terms, dtype=int), np.prod(columns, dtype=int))
    x, y = (z.reshape((*batch, *s)).astype(wide) for z, s in ((x, sizes[:2]), (y, sizes[1:])))
    return np.matmul(x, y).reshape((*batch, *rows, *columns))


def _broadcast(parameters: dict[str, Any], x: Any) -> Any:
    shape, axes = parameters["shape"], parameters["broadcast_dimensions"]
    sizes = [1] * len(shape)
    for axis, size in zip(axes, np.shape(x), strict=True):
        sizes[axis] = size
    return np.broadcast_to(np.reshape(x, sizes), shape)


def _iota(parameters: dict[str, Any]) -> Any:
    shape, axis = parameters["shape"], parameters["dimension"]
    sizes = [-1 if k == axis else 1 for k in range(len(shape))]
    return np.broadcast_to(np.arange(shape[axis]).reshape(sizes), shape)


def _slice(parameters: dict[str, Any], x: Any) -> Any:
    starts, stops = parameters["start_indices"], parameters["limit_indices"]
    strides = parameters["strides"] or (1,) * len(starts)
    return x[tuple(slice(*t) for t in zip(starts, stops, strides, strict=True))]


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


def _select(which: Any, *cases: Any) -> Any:
    return np.where(which, cases[1], cases[0]) if len(cases) == 2 else np.choose(which, cases)


def _square_root_of_inverse(x: Any) -> Any:
    return 1 / np.sqrt(x)


def _logistic(x: Any) -> Any:
    # Without overflow, and with all digits at both ends.
    small = np.exp(-np.abs(x))
    return np.where(x >= 0, 1.0, small) / (1 + small)


def _power(parameters: dict[str, Any], x: Any) -> Any:
    return x ** parameters["y"] if parameters["y"] >= 0 else 1 / x ** -parameters["y"]


def _reduced(f: Operation) -> Operation:
    return lambda parameters, x: f(x, axis=tuple(parameters["axes"]))


def _greatest(parameters: dict[str, Any], x: Any) -> Any:
    least = np.iinfo(x.dtype).min if x.dtype.kind in "iu" else -np.inf
    return np.max(x, axis=tuple(parameters["axes"]), initial=least)


def _least(parameters: dict[str, Any], x: Any) -> Any:
    greatest = np.iinfo(x.dtype).max if x.dtype.kind in "iu" else np.inf
    return np.min(x, axis=tuple(parameters["axes"]), initial=greatest)


def _position(f: Operation) -> Operation:
    return lambda parameters, x: f(x, axis=parameters["axes"][0])


def _cumulative(f: Operation) -> Operation:
    def run(parameters: dict[str, Any], x: Any) -> Any:
        axis = parameters["axis"]
        return np.flip(f(np.flip(x, axis), axis=axis), axis) if parameters["reverse"] else f(x, axis=axis)

    return run


def _split(parameters: dict[str, Any], x: Any) -> list[Any]:
    return np.split(x, np.cumsum(parameters["sizes"])[:-1], parameters["axis"])


# For floating results only: of integers, JAX's mean something else, or overflow.
_FLOATING: dict[str, Operation] = {
    "acos": np.arccos,
    "asin": np.arcsin,
    "asinh": np.arcsinh,
    "atan": np.arctan,
    "atan2": np.arctan2,
    "ceil": np.ceil,
    "cos": np.cos,
    "div": np.divide,
    "exp": np.exp,
    "floor": np.floor,
    "log": np.log,
    "logistic": _logistic,
    "pow": np.power,
    "rem": np.fmod,
    "rsqrt": _square_root_of_inverse,
    "sin": np.sin,
    "sqrt": np.sqrt,
    "tan": np.tan,
}
_ANY: dict[str, Operation] = {
    "abs": np.abs,
    "add": np.add,
    "add_any": np.add,
    "and": np.bitwise_and,
    "copy": np.asarray,
    "copy_p": np.asarray,
    "eq": np.equal,
    "ge": np.greater_equal,
    "gt": np.greater,
    "is_finite": np.isfinite,
    "le": np.less_equal,
    "lt": np.less,
    "max": np.maximum,
    "min": np.minimum,
    "mul": np.multiply,
    "ne": np.not_equal,
    "neg": np.negative,
    "not": np.invert,
    "optimization_barrier": np.asarray,
    "or": np.bitwise_or,
    "select_n": _select,
    "sign": np.sign,
    "square": np.square,
    "stop_gradient": np.asarray,
    "sub": np.subtract,
    "xor": np.bitwise_xor,
}
_SHAPED: dict[str, Operation] = {
    "argmax": _position(np.argmax),
    "argmin": _position(np.argmin),
    "broadcast_in_dim": _broadcast,
    "concatenate": lambda parameters, *parts: np.concatenate(parts, parameters["dimension"]),
    "cummax": _cumulative(np.maximum.accumulate),
    "cummin": _cumulative(np.minimum.accumulate),
    "cumprod": _cumulative(np.cumprod),
    "cumsum": _cumulative(np.cumsum),
    "dot_general": _dot,
    "expand_dims": lambda parameters, x: np.expand_dims(x, parameters["dimensions"]),
    "integer_pow": _power,
    "iota": _iota,
    "pad": _pad,
    "reduce_and": _reduced(np.all),
    "reduce_max": _greatest,
    "reduce_min": _least,
    "reduce_or": _reduced(np.any),
    "reduce_prod": _reduced(np.prod),
    "reduce_sum": _reduced(np.sum),
    "reshape": _reshape,
    "rev": lambda parameters, x: np.flip(x, parameters["dimensions"]),
    "slice": _slice,
    "squeeze": lambda parameters, x: np.squeeze(x, parameters["dimensions"]),
    "stack": lambda parameters, *parts: np.stack(parts, parameters["axis"]),
    "transpose": lambda parameters, x: np.transpose(x, parameters["permutation"]),
}
_SEVERAL: dict[str, Callable[..., list[Any]]] = {
    "split": _split,
    "unstack": lambda parameters, x: list(np.moveaxis(x, parameters["axis"], 0)),
}
