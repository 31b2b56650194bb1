"""What a line of a table of elementwise functions becomes: a Rule.

Forward, elementwise:     q = σ(p)
Backward, elementwise:    p̄ = σ′(p) ⊙ q̄

Derivation. dq = σ′(p) ⊙ dp, so q̄ : dq = (σ′(p) ⊙ q̄) : dp; the Jacobian Diag(σ′(p)) is symmetric.

Each line says what is saved: `q` where σ′ can be had from it (the array is alive anyway, as the next layer's
input), else `p`. Half precision is computed in float32 and rounded once at the end.
"""

import functools
import inspect
from collections.abc import Callable, Hashable, Mapping
from types import FunctionType
from typing import Any

import jax
from jaxtyping import Array, Float

from ..._numerics import upcast
from ..._rule import Rule
from ...domains import Domain, Normal, Point
from .._checks import check_cotangent

__all__ = ["at", "defined", "elementwise", "require_positive"]

X = Float[Array, "*shape"]
_REAL_LINE = Normal(2.0)


def elementwise(
    module: str,
    name: str,
    formula: str,
    sigma: Callable[..., jax.Array],
    derivative: Callable[..., jax.Array],
    saves: str,
    reference: Callable[..., jax.Array],
    points: Mapping[str, Point] | None = None,
    note: str = "",
    domain: Domain = _REAL_LINE,
    **options: tuple[Hashable, ...],
) -> Rule:
    """The rule of one function.

    Args:
        module: `__name__` of the module that the rule is assigned in.
        name: of the rule.
        formula: `"q = …, σ′ = …"`.
        sigma: σ, of p.
        derivative: σ′, of what `saves` names.
        saves: `"p"` or `"q"`.
        reference: the same function elsewhere.
        points: named kinks and edges.
        note: what else its documentation says.
        domain: where p lives.
        options: static options, handed to the three functions by name; each is its default, followed by other
            values to test at.
    """

    def fwd(p: X, **static: Any) -> tuple[X, X]:
        q = sigma(upcast(p), **static).astype(p.dtype)
        return q, q if saves == "q" else p

    def bwd(residuals: X, q_ct: X, **static: Any) -> tuple[X]:
        check_cotangent(name, q_ct, residuals.shape, residuals.dtype)
        return ((derivative(upcast(residuals), **static) * upcast(q_ct)).astype(q_ct.dtype),)

    fwd.__doc__ = _documentation(formula, saves, note)
    return defined(
        module,
        name,
        fwd,
        bwd,
        options,
        reference=reference,
        domain={"p": domain},
        points=points,
        formula=formula,
        saves=saves,
    )


def defined(
    module: str,
    name: str,
    fwd: FunctionType,
    bwd: FunctionType,
    options: Mapping[str, tuple[Hashable, ...]],
    **record: Any,
) -> Rule:
    """The Rule `name` of a module, of functions that take any static options: those of `options`."""
    defaults = {option: values[0] for option, values in options.items()}
    return Rule(
        _with_options(fwd, module, f"{name}_fwd", defaults),
        _with_options(bwd, module, f"{name}_bwd", defaults),
        settings=tuple({o: value} for o, values in options.items() for value in values[1:]),
        **record,
    )


def _with_options(function: FunctionType, module: str, name: str, defaults: dict[str, Hashable]) -> Any:
    @functools.wraps(function)
    def complete(*arrays: Any, **static: Any) -> Any:
        return function(*arrays, **defaults | static)

    signature = inspect.signature(function)
    positional = [p for p in signature.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
    static = [
        inspect.Parameter(option, inspect.Parameter.KEYWORD_ONLY, default=value, annotation=type(value))
        for option, value in defaults.items()
    ]
    complete.__module__, complete.__name__ = module, name
    vars(complete)["__signature__"] = signature.replace(parameters=[*positional, *static])
    return complete


def _documentation(formula: str, saves: str, note: str) -> str:
    forward, slope = formula.split(", σ′ = ")
    return f"""{forward}, elementwise.

    Forward:     {forward}
    Backward:    p̄ = σ′ ⊙ q̄, σ′ = {slope}

    Derivation. dq = σ′ ⊙ dp, and Diag(σ′) is symmetric.

    {" ".join(filter(None, (note, f"Saves {saves}.")))}
    """


def at(p: float, ct: float, why: str = "", smooth: bool = True, agrees: bool = True) -> Point:
    """A point of a function of one variable, and its slope there."""
    return Point({"p": p}, {"p": ct}, why=why, smooth=smooth, agrees=agrees)


def require_positive(rule: str, option: str, value: float, why: str) -> None:
    """Raise `ValueError` unless a static option is above zero."""
    if not value > 0:
        raise ValueError(f"{rule}: `{option}` must be above 0, got {value!r}; {why}.")
