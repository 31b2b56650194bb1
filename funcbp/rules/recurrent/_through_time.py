"""A cell through time: one scan forward, one scan back that carries δ only; all other products outside."""

from typing import Any, NamedTuple

import jax
from jax import lax
from jax import numpy as jnp

from ..._numerics import matmul, upcast
from ...factors import Factor, Outer, Total
from .._checks import check_cotangent
from ._cells import Arrays, Cell, check_gates

__all__ = ["Parameters", "Trace", "back_through_time", "through_time"]


class Parameters(NamedTuple):
    """W, U, b and b′."""

    w_in: jax.Array
    w_state: jax.Array
    b: jax.Array | None
    b_state: jax.Array | None = None


class Trace(NamedTuple):
    """What a pass through time leaves behind.

    Attributes:
        x: the input, (*batch, time, in).
        start: the initial state.
        states: the states after every step, each (*batch, time, features).
        saved: what the cell saved, time first.
        mask: which steps count, (*batch, time); None for all.
        parameters: of the cell.
    """

    x: jax.Array
    start: Arrays
    states: Arrays
    saved: Arrays
    mask: jax.Array | None
    parameters: Parameters


def through_time(
    rule: str,
    cell: Cell,
    x: jax.Array,
    start: Arrays,
    parameters: Parameters,
    mask: jax.Array | None,
    truncate: int | None,
) -> tuple[Arrays, Arrays, Trace]:
    """States after every step, the last state, and what the backward pass needs."""
    w_in, w_state, b, b_state = parameters
    check_gates(rule, cell, *w_state.shape)
    cuts = _cuts(rule, truncate, x.shape[-2])
    a = matmul(x, w_in)
    a = a if b is None else a + upcast(b)

    def step(state: Arrays, each: Any) -> tuple[Arrays, tuple[Arrays, Arrays]]:
        a, skipped, cut = each
        state = _unless(cut, jax.tree.map(lax.stop_gradient, state), state)
        u = matmul(state[0], w_state)
        new, saved = cell.step(a, u if b_state is None else u + upcast(b_state), state)
        new = _unless(skipped, state, new)
        return new, jax.tree.map(lambda v: v.astype(x.dtype), (new, saved))

    xs = (_time_first(a), _skipped(mask), cuts)
    last, (states, saved) = lax.scan(step, tuple(map(upcast, start)), xs)
    last = tuple(v.astype(x.dtype) for v in last)
    states = tuple(map(_time_inside, states))
    return states, last, Trace(x, start, states, saved, mask, parameters)


def back_through_time(
    rule: str,
    cell: Cell,
    trace: Trace,
    h_ct: jax.Array,
    last_ct: Arrays,
    truncate: int | None,
) -> tuple[jax.Array, Arrays, Factor, Factor, Factor | None, Factor | None]:
    """x̄, the cotangent of the initial state, and the factors of W, U, b and b′."""
    x, start, states, saved, mask, (w_in, w_state, b, b_state) = trace
    check_cotangent(rule, h_ct, states[0].shape, x.dtype, output="states")
    for name, ct, out in zip(("last", "last_c"), last_ct, start, strict=False):
        check_cotangent(rule, ct, out.shape, x.dtype, output=name)
    after = tuple(map(_time_first, states))
    before = tuple(jnp.concatenate([s[None], a])[: len(a)] for s, a in zip(start, after, strict=True))

    def step(state_ct: Arrays, each: Any) -> tuple[Arrays, jax.Array]:
        ct, saved, before, after, skipped, cut = each
        saved, before, after = jax.tree.map(upcast, (saved, before, after))
        state_ct = (state_ct[0] + upcast(ct), *state_ct[1:])
        nothing = jax.tree.map(jnp.zeros_like, state_ct)
        a_ct, (direct, *others) = cell.back(saved, before, after, _unless(skipped, nothing, state_ct))
        passed = (direct + matmul(cell.state_ct(a_ct, saved), w_state.T), *others)
        passed = _unless(skipped, state_ct, passed)
        return _unless(cut, nothing, passed), a_ct

    xs = (_time_first(h_ct), saved, before, after, _skipped(mask), _cuts(rule, truncate, x.shape[-2]))
    start_ct, a_ct = lax.scan(step, tuple(map(upcast, last_ct)), xs, reverse=True)
    u_ct = _time_inside(cell.state_ct(a_ct, jax.tree.map(upcast, saved)))
    a_ct = _time_inside(a_ct)
    return (
        matmul(a_ct, w_in.T).astype(x.dtype),
        tuple(ct.astype(x.dtype) for ct in start_ct),
        Outer(x, a_ct),
        Outer(_time_inside(before[0]), u_ct),
        None if b is None else Total(a_ct),
        None if b_state is None else Total(u_ct),
    )


def _cuts(rule: str, truncate: int | None, time: int) -> jax.Array | None:
    """At which steps the state before is taken as a constant: every k steps, but not at the start."""
    if truncate is None:
        return None
    if not isinstance(truncate, int) or isinstance(truncate, bool) or truncate < 1:
        raise ValueError(
            f"{rule}: `truncate` must be None or a number of steps, at least 1, got {truncate!r}."
        )
    steps = jnp.arange(time)
    return (steps % truncate == 0) & (steps > 0)


def _skipped(mask: jax.Array | None) -> jax.Array | None:
    return None if mask is None else jnp.moveaxis(~mask, -1, 0)[..., None]


def _unless(condition: jax.Array | None, otherwise: Arrays, usual: Arrays) -> Arrays:
    """`usual`, or where the condition holds `otherwise`; a condition of None never does."""
    if condition is None:
        return usual
    return tuple(jnp.where(condition, a, b) for a, b in zip(otherwise, usual, strict=True))


def _time_first(x: jax.Array) -> jax.Array:
    return jnp.moveaxis(x, -2, 0)


def _time_inside(x: jax.Array) -> jax.Array:
    return jnp.moveaxis(x, 0, -2)
