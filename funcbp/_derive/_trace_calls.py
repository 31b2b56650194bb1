"""Calls inside a jaxpr: functions of JAX that are known whole, and everything else, which is looked into."""

from collections.abc import Callable
from typing import Any

import jax
from jax import numpy as jnp

from .. import _compat
from ._algebra import contraction
from ._functions import NAMED, apply, logaddexp
from ._nodes import Node
from ._operations import determinant, inverse, log_determinant
from ._scalars import ONE
from ._trace import Equation, live
from ._trace_parts import RULES
from ._trace_rules import rule

__all__ = ["KNOWN"]

Builder = Callable[[Equation], Node | list[Node]]
KNOWN: dict[str, tuple[Callable[..., Any], Builder]] = {}


def known(name: str, function: Callable[..., Any]) -> Callable[[Builder], Builder]:
    """Register a function of JAX, by the name that it leaves in a jaxpr."""

    def register(builder: Builder) -> Builder:
        KNOWN[name] = (function, builder)
        return builder

    return register


for _name in NAMED:
    KNOWN[_name] = (getattr(jax.nn, _name), lambda eqn, name=_name: apply(name, eqn.args[0]))


@known("logaddexp", jnp.logaddexp)
def _logaddexp(eqn: Equation) -> Node:
    return logaddexp(eqn.aligned(0), eqn.aligned(1))


@known("inv", jnp.linalg.inv)
def _inv(eqn: Equation) -> Node:
    return inverse(_matrix(eqn))


@known("det", jnp.linalg.det)
def _det(eqn: Equation) -> Node:
    return determinant(_matrix(eqn))


@known("slogdet", jnp.linalg.slogdet)
def _slogdet(eqn: Equation) -> list[Node]:
    matrix = _matrix(eqn)
    return [apply("sign", determinant(matrix)), log_determinant(matrix)]


@known("solve", jnp.linalg.solve)
def _solve(eqn: Equation) -> Node:
    b = eqn.args[1]
    labels = ("j", "k")[: b.rank]
    return contraction(ONE, [(inverse(_matrix(eqn)), ("i", "j")), (b, labels)], ("i", "k")[: b.rank], {})


@known("diagonal", jnp.diagonal)
def _diagonal(eqn: Equation) -> Node:
    matrix = _matrix(eqn)
    return contraction(ONE, [(matrix, (0, 0))], (0,), {})


def _matrix(eqn: Equation) -> Node:
    shape = eqn.shapes[0]
    if len(live(shape)) != 2 or len(shape) != 2 or str(shape[0]) != str(shape[1]):
        raise eqn.refuse("only of one square matrix that is larger than 1 x 1")
    return eqn.args[0]


@rule("jit", "pjit", "closed_call", "core_call", "remat", "remat2", "checkpoint")
def _call(eqn: Equation) -> Node | list[Node]:
    inner = _compat.called(eqn.jax)
    if inner is None:
        raise eqn.refuse()
    found = KNOWN.get(str(eqn.params.get("name", "")))
    if found is not None and _is_the_same(found[0], eqn, inner):
        return found[1](eqn)
    return eqn.trace.inside(eqn.jax, inner, eqn.args)


RULES["custom_jvp_call"] = RULES["custom_vjp_call"] = RULES["custom_vjp_call_jaxpr"] = _call


def _is_the_same(function: Callable[..., Any], eqn: Equation, inner: _compat.ClosedJaxpr) -> bool:
    """Whether the call is to this function of JAX, and not to another of the same name."""
    avals: list[Any] = [v.aval for v in eqn.jax.invars]
    specs = [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in avals]
    try:
        with _compat.enable_x64():
            own = jax.make_jaxpr(function)(*specs)
    except (TypeError, ValueError):
        return False
    calls = [_compat.called(e) for e in own.jaxpr.eqns]
    wanted = str(inner.jaxpr)
    return any(c is not None and (str(c.jaxpr) == wanted or _nested(c, wanted)) for c in calls)


def _nested(closed: _compat.ClosedJaxpr, wanted: str) -> bool:
    calls = [_compat.called(e) for e in closed.jaxpr.eqns]
    return any(c is not None and str(c.jaxpr) == wanted for c in calls)
