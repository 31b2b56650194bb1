"""Programs of JAX evaluated with NumPy and SciPy, so that nothing has to be compiled."""

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import linalg, special

from funcbp import _compat
from funcbp.verify._arithmetic import NUMPY
from funcbp.verify._pairs import evaluated as evaluated_in

__all__ = ["evaluated"]


def evaluated(function: Callable[..., Any], *args: np.ndarray) -> Any:
    """`function(*args)` in float64, as traced by JAX and computed by NumPy."""
    return evaluated_in(function, *args, arithmetic=NUMPY._replace(bind=_bind))


def _bind(equation: _compat.JaxprEqn, values: list[Any]) -> list[Any]:
    name = equation.primitive.name
    if name in _FUNCTIONS:
        return [np.asarray(_FUNCTIONS[name](*values))]
    if name == "triangular_solve":
        return [_triangular(equation.params, *values)]
    if name == "custom_linear_solve":
        return _solved(equation, values)
    return NUMPY.bind(equation, values)


def _solved(equation: _compat.JaxprEqn, values: list[Any]) -> list[Any]:
    """Run what JAX itself runs: its own factorization and its own solver."""
    counts, jaxprs = equation.params["const_lengths"], equation.params["jaxprs"]
    before = counts.matvec + counts.vecmat
    constants = values[before : before + counts.solve]
    right = values[before + counts.solve + counts.transpose_solve :]
    return evaluated(_compat.jaxpr_as_fun(jaxprs.solve), *constants, *right)


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


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "acosh": np.arccosh,
    "atanh": np.arctanh,
    "cbrt": np.cbrt,
    "cosh": np.cosh,
    "digamma": special.digamma,
    "erf": special.erf,
    "erfc": special.erfc,
    "exp2": np.exp2,
    "expm1": np.expm1,
    "lgamma": special.gammaln,
    "log1p": np.log1p,
    "sinh": np.sinh,
    "tanh": np.tanh,
}
