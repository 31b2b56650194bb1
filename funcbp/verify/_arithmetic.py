"""What a walk through a jaxpr computes with: JAX, to be traced and compiled; or NumPy, at once.

Compiling a program for a few dozen inputs takes far longer than evaluating it once, an equation at a time.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import lax
from jax import numpy as jnp

from .. import _compat
from .._compat import JaxprEqn
from ._primitives import apply, as_array

__all__ = ["NUMPY", "TRACED", "Arithmetic"]


class Arithmetic(NamedTuple):
    """Operations on arrays of one kind; the loops as in `jax.lax`.

    Attributes:
        numpy: `jax.numpy` or NumPy.
        array: makes an array of a value, of the dtype that an abstract value has.
        bind: the outputs of an equation that is neither a call nor control flow.
        order: `(keys, axis, count) -> indices` that sort by the first `count` keys, stably.
        scan: `jax.lax.scan`.
        while_loop: `jax.lax.while_loop`.
        switch: `jax.lax.switch`.
    """

    numpy: Any
    array: Callable[[Any, Any], Any]
    bind: Callable[[JaxprEqn, list[Any]], list[Any]]
    order: Callable[[Sequence[Any], int, int], Any]
    scan: Callable[..., Any]
    while_loop: Callable[..., Any]
    switch: Callable[..., Any]


def _traced_order(keys: Sequence[Any], axis: int, count: int) -> Any:
    iota = lax.broadcasted_iota(jnp.int32, keys[0].shape, axis)
    *_, order = lax.sort((*keys, iota), dimension=axis, num_keys=count, is_stable=True)
    return order


def _order(keys: Sequence[Any], axis: int, count: int) -> Any:
    return np.lexsort(tuple(keys[:count])[::-1], axis=axis)


def _scan(step: Any, carry: Any, xs: Any, length: int, reverse: bool = False) -> Any:
    rows: dict[int, Any] = {}
    for t in range(length)[:: -1 if reverse else 1]:
        carry, rows[t] = step(carry, jax.tree.map(lambda x, t=t: x[t], xs))
    return carry, jax.tree.map(lambda *column: np.stack(column), *(rows[t] for t in range(length)))


def _while_loop(go_on: Any, step: Any, state: Any) -> Any:
    while go_on(state):
        state = step(state)
    return state


def _switch(index: Any, branches: Sequence[Any], operands: Any) -> Any:
    return branches[min(max(int(index), 0), len(branches) - 1)](operands)


def _as_it_is(x: Any, aval: Any) -> Any:
    del aval
    return x


def _array(x: Any, aval: Any) -> Any:
    return as_array(x, aval.dtype)


TRACED = Arithmetic(jnp, _as_it_is, _compat.bind, _traced_order, lax.scan, lax.while_loop, lax.switch)
NUMPY = Arithmetic(np, _array, apply, _order, _scan, _while_loop, _switch)
