"""JAX's derivatives and the rules, traced as a whole and computed by NumPy: for tests of the maths.

Called with JAX's own, every operation of every shape would be compiled for itself. Inside of a trace these
are JAX's own.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax

from funcbp import Rule, catalogue
from funcbp.verify._pairs import evaluated

__all__ = [
    "at_once",
    "grad",
    "hessian",
    "jacfwd",
    "jacrev",
    "jvp",
    "rules",
    "value_and_grad",
    "vjp",
    "vmap",
]

PyTree = Any


def at_once(function: Callable[..., PyTree]) -> Callable[..., PyTree]:
    """The same function, computed by NumPy where it is given numbers; keyword arguments are static."""

    @functools.wraps(function)
    def run(*args: Any, **static: Any) -> PyTree:
        if _traced((args, static)):
            return function(*args, **static)
        return evaluated(functools.partial(function, **static), *args)

    return run


def _traced(tree: PyTree) -> bool:
    return any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves(tree))


def _whole(transform: Callable[..., Any]) -> Callable[..., Any]:
    def of(function: Callable[..., PyTree], *args: Any, **options: Any) -> Callable[..., PyTree]:
        return at_once(transform(function, *args, **options))

    return functools.wraps(transform)(of)


grad, value_and_grad, jacrev, jacfwd, hessian, vmap = map(
    _whole, (jax.grad, jax.value_and_grad, jax.jacrev, jax.jacfwd, jax.hessian, jax.vmap)
)


def vjp(function: Callable[..., PyTree], *primals: Any) -> tuple[PyTree, Callable[[PyTree], PyTree]]:
    """`jax.vjp`: the pullback runs the function once more."""
    if _traced(primals):
        return jax.vjp(function, *primals)

    def pull(primals: Any, ct: PyTree) -> PyTree:
        return jax.vjp(function, *primals)[1](ct)

    return at_once(function)(*primals), lambda ct: at_once(pull)(primals, ct)


def jvp(function: Callable[..., PyTree], primals: Any, tangents: Any) -> tuple[PyTree, PyTree]:
    """`jax.jvp`."""
    return at_once(functools.partial(jax.jvp, function))(primals, tangents)


class _AtOnce:
    """A rule whose functions are called `at_once`; with the rest of its attributes."""

    def __init__(self, rule: Rule) -> None:
        self._rule = rule
        self.fwd, self.bwd, self.primal = map(at_once, (rule.fwd, rule.bwd, rule.primal))
        self.reference = at_once(rule.reference)

    def __call__(self, *args: Any, **static: Any) -> PyTree:
        return at_once(self._rule)(*args, **static)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._rule, name)


class _Rules:
    """`funcbp.rules`, `at_once`."""

    def __init__(self) -> None:
        self.__dict__.update({name: _AtOnce(rule) for name, rule in catalogue().items()})


rules = _Rules()
