"""A function in float64 throughout, also where its author wrote a narrower type."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax import lax
from jax import numpy as jnp

from .. import _compat
from .._compat import ClosedJaxpr, JaxprEqn, Literal

__all__ = ["as_traced", "lifted"]

_TYPE_PARAMETERS = ("new_dtype", "preferred_element_type", "dtype", "out_dtype", "accumulation_type")
_BY_BITS = frozenset({"bitcast_convert_type", "nextafter"})
_SCATTERS: dict[str, Callable[..., jax.Array]] = {
    "scatter": lax.scatter,
    "scatter-add": lax.scatter_add,
    "scatter_add": lax.scatter_add,
    "scatter-mul": lax.scatter_mul,
    "scatter_mul": lax.scatter_mul,
    "scatter-min": lax.scatter_min,
    "scatter_min": lax.scatter_min,
    "scatter-max": lax.scatter_max,
    "scatter_max": lax.scatter_max,
}


def lifted(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function without casts to types narrower than float64 (complex128) inside of it.

    A reference that casts to float32 or bfloat16 itself, as mixed-precision code does, has no float64 value
    otherwise: its casts would limit the truth to the digits of what is tested. Values that come from bits,
    such as random numbers, are the same numbers as before. Equations that carry functions of their own
    (`custom_linear_solve`, kernels) are evaluated as written, and their results widened.

    To be called where 64-bit types are enabled. Traceable; custom derivative rules are inlined, so lift the
    backward program, not what will be differentiated.

    >>> import jax
    >>> with jax.enable_x64(True):
    ...     y = lifted(lambda x: x.astype("float32") / 3)(jnp.float64(1))
    >>> y.dtype, float(y) == 1 / 3
    (dtype('float64'), True)
    """

    def wide(*args: Any) -> Any:
        closed, shape = jax.make_jaxpr(function, return_shape=True)(*args)
        outputs = _evaluate(closed, jax.tree.leaves(args))
        return jax.tree.unflatten(jax.tree.structure(shape), outputs)

    return wide


def as_traced(function: Callable[..., Any], specs: Any, args: Any, *, x64: bool) -> Any:
    """`function(*args)` in float64, but as traced for other dtypes: with the random numbers of those.

    JAX draws other numbers where 64-bit types are on. A function that draws is therefore traced as its user
    runs it, and then evaluated in float64.

    Args:
        function: any traceable function of pytrees.
        specs: a `jax.ShapeDtypeStruct` for every leaf of the arguments, as the user's are.
        args: the arguments, floating ones in float64.
        x64: whether 64-bit types are on where it is traced.
    """
    with _compat.enable_x64(x64):
        closed, shape = jax.make_jaxpr(function, return_shape=True)(*specs)
    return jax.tree.unflatten(jax.tree.structure(shape), _evaluate(closed, jax.tree.leaves(args)))


def _widened(x: Any) -> Any:
    dtype = jnp.result_type(x)
    if jnp.issubdtype(dtype, jnp.complexfloating):
        return jnp.asarray(x, jnp.complex128)
    return jnp.asarray(x, jnp.float64) if jnp.issubdtype(dtype, jnp.floating) else x


def _narrow(aval: Any) -> bool:
    dtype = getattr(aval, "dtype", None)
    if dtype is None or not jnp.issubdtype(dtype, jnp.inexact):
        return False
    return dtype not in (jnp.float64, jnp.complex128)


def _evaluate(closed: ClosedJaxpr, values: Sequence[Any]) -> list[Any]:
    environment: dict[Any, Any] = {}
    environment.update(zip(closed.jaxpr.constvars, map(_widened, closed.consts), strict=True))
    environment.update(zip(closed.jaxpr.invars, map(_widened, values), strict=True))

    def read(atom: Any) -> Any:
        return _widened(atom.val) if isinstance(atom, Literal) else environment[atom]

    for equation in closed.jaxpr.eqns:
        with _compat.from_line_of(equation):
            outputs = _equation(equation, [read(atom) for atom in equation.invars])
        environment.update(zip(equation.outvars, outputs, strict=True))
    return [read(atom) for atom in closed.jaxpr.outvars]


def _equation(equation: JaxprEqn, values: list[Any]) -> list[Any]:
    name = equation.primitive.name
    inner = _compat.called(equation)
    if inner is not None:
        return _evaluate(inner, values)
    if name in _CONTROL:
        return _CONTROL[name](equation, values)
    if not any(_narrow(atom.aval) for atom in (*equation.invars, *equation.outvars)):
        return _compat.bind(equation, values)
    if name == "reduce_precision":
        return values
    if name in _SCATTERS:
        return [_scattered(equation, values)]
    if name in _BY_BITS or any(isinstance(p, ClosedJaxpr) or callable(p) for p in _parameters(equation)):
        return _as_written(equation, values)
    wide = {key: _wide_parameter(key, value) for key, value in equation.params.items()}
    return [_widened(x) for x in _compat.bind(equation.replace(params=wide), values)]


def _parameters(equation: JaxprEqn) -> list[Any]:
    return [
        x for value in equation.params.values() for x in (value if isinstance(value, tuple) else (value,))
    ]


def _as_written(equation: JaxprEqn, values: list[Any]) -> list[Any]:
    given = [
        jnp.asarray(x, getattr(atom.aval, "dtype", None)) if _narrow(atom.aval) else x
        for x, atom in zip(values, equation.invars, strict=True)
    ]
    return [_widened(x) for x in _compat.bind(equation, given)]


def _wide_parameter(key: str, value: Any) -> Any:
    if key == "precision":
        return lax.Precision.HIGHEST
    if key not in _TYPE_PARAMETERS or value is None or not jnp.issubdtype(value, jnp.inexact):
        return value
    return jnp.dtype("complex128" if jnp.issubdtype(value, jnp.complexfloating) else "float64")


def _scattered(equation: JaxprEqn, values: list[Any]) -> Any:
    # Bound as it is, the equation would bring along its combining function, typed for narrow operands.
    names = ("dimension_numbers", "indices_are_sorted", "unique_indices", "mode")
    return _SCATTERS[equation.primitive.name](*values, **{key: equation.params[key] for key in names})


def _scan(equation: JaxprEqn, values: list[Any]) -> list[Any]:
    body = equation.params["jaxpr"]
    consts, carries = _compat.scan_counts(equation)
    fixed, carry, xs = values[:consts], values[consts : consts + carries], values[consts + carries :]

    def step(carry: list[Any], now: list[Any]) -> tuple[list[Any], list[Any]]:
        outputs = _evaluate(body, [*fixed, *carry, *now])
        return outputs[:carries], outputs[carries:]

    last, ys = lax.scan(step, carry, xs, length=equation.params["length"], reverse=equation.params["reverse"])
    return [*last, *ys]


def _while(equation: JaxprEqn, values: list[Any]) -> list[Any]:
    tests, consts = equation.params["cond_nconsts"], equation.params["body_nconsts"]
    asked, fixed, state = values[:tests], values[tests : tests + consts], values[tests + consts :]
    test, body = equation.params["cond_jaxpr"], equation.params["body_jaxpr"]
    return lax.while_loop(
        lambda state: _evaluate(test, [*asked, *state])[0],
        lambda state: _evaluate(body, [*fixed, *state]),
        state,
    )


def _cond(equation: JaxprEqn, values: list[Any]) -> list[Any]:
    index, *operands = values
    branches = [
        lambda given, closed=closed: _evaluate(closed, given) for closed in equation.params["branches"]
    ]
    return lax.switch(index, branches, operands)


_CONTROL = {"cond": _cond, "scan": _scan, "while": _while}
