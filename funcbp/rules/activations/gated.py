"""Gated linear units: a value, let through by a gate (Dauphin et al. 2017, arXiv:1612.08083).

Forward:     q = σ(g) ⊙ v
Backward:    ḡ = σ′(g) ⊙ v ⊙ q̄      v̄ = σ(g) ⊙ q̄

Derivation. dq = (σ′(g) ⊙ dg) ⊙ v + σ(g) ⊙ dv. σ and σ′ are those of the activation's own rule.
"""

from collections.abc import Callable, Hashable
from typing import Any

import jax
from jax import numpy as jnp
from jaxtyping import Array, Float

from ..._numerics import upcast
from ..._rule import Rule
from ...domains import Normal, Point
from .._checks import check_cotangent
from . import elementwise
from ._table import defined

X = Float[Array, "*shape"]
Halves = Float[Array, "*halves"]


def _let_through(sigma: Rule, gate: jax.Array, value: jax.Array, **static: Any) -> jax.Array:
    return sigma.primal(upcast(gate), **static) * upcast(value)


def _pulled_back(
    sigma: Rule, gate: jax.Array, value: jax.Array, q_ct: jax.Array, **static: Any
) -> tuple[jax.Array, jax.Array]:
    ct = upcast(q_ct)
    opened, residuals = sigma.fwd(upcast(gate), **static)
    (gate_ct,) = sigma.bwd(residuals, upcast(value) * ct, **static)
    return gate_ct.astype(q_ct.dtype), (opened * ct).astype(q_ct.dtype)


def _gated(
    name: str,
    sigma: Rule,
    reference: Callable[..., jax.Array],
    points: dict[str, Point],
    **options: tuple[Hashable, ...],
) -> Rule:
    """The rule of one gated linear unit; `options` as in the table of elementwise functions."""

    def fwd(gate: X, value: X, **static: Any) -> tuple[X, tuple[X, X]]:
        return _let_through(sigma, gate, value, **static).astype(gate.dtype), (gate, value)

    def bwd(residuals: tuple[X, X], q_ct: X, **static: Any) -> tuple[X, X]:
        gate, value = residuals
        check_cotangent(name, q_ct, gate.shape, gate.dtype)
        return _pulled_back(sigma, gate, value, q_ct, **static)

    formula = f"q = {sigma.name}(g) ⊙ v; ḡ = {sigma.name}′(g) ⊙ v ⊙ q̄, v̄ = {sigma.name}(g) ⊙ q̄"
    fwd.__doc__ = f"""A value v behind a gate: q = {sigma.name}(g) ⊙ v (Shazeer 2020, arXiv:2002.05202).

    Forward:     q = σ(g) ⊙ v, σ = {sigma.name}
    Backward:    ḡ = σ′(g) ⊙ v ⊙ q̄      v̄ = σ(g) ⊙ q̄

    Derivation. dq = (σ′(g) ⊙ dg) ⊙ v + σ(g) ⊙ dv.

    Saves g and v; σ(g) is recomputed.
    """
    domain = {"gate": Normal(2.0), "value": Normal()}
    saves = "g, v"
    return defined(
        __name__,
        name,
        fwd,
        bwd,
        options,
        reference=reference,
        domain=domain,
        points=points,
        formula=formula,
        saves=saves,
    )


_CLOSED = {"closed gate": Point({"gate": -1e4}, {"gate": 0.0, "value": 0.0})}
_KINK = {"kink at 0": Point({"gate": 0.0}, {"gate": 0.0, "value": 0.0}, smooth=False)}

# fmt: off
swiglu = _gated("swiglu", elementwise.silu, lambda gate, value: jax.nn.silu(gate) * value, _CLOSED)
geglu = _gated(
    "geglu", elementwise.gelu, lambda gate, value, approximate=True: jax.nn.gelu(gate, approximate) * value,
    _CLOSED, approximate=(True, False))
reglu = _gated("reglu", elementwise.relu, lambda gate, value: jax.nn.relu(gate) * value, _CLOSED | _KINK)
# fmt: on


def glu_fwd(p: X, *, axis: int = -1) -> tuple[Halves, X]:
    """A gated linear unit of one array, half of it the value v, half the gate g: q = v ⊙ sigmoid(g).

    Forward, with (v, g) the halves of p along `axis`:    q = v ⊙ σ(g)
    Backward:                                             v̄ = σ(g) ⊙ q̄      ḡ = σ′(g) ⊙ v ⊙ q̄

    Derivation. dq = σ(g) ⊙ dv + (σ′(g) ⊙ dg) ⊙ v, with σ′ = σ (1 - σ).

    Saves p; σ(g) is recomputed.

    Raises:
        ValueError: for an axis of odd length.
    """
    _half(p.shape, axis)
    value, gate = jnp.split(p, 2, axis)
    return _let_through(elementwise.sigmoid, gate, value).astype(p.dtype), p


def glu_bwd(residuals: X, q_ct: Halves, *, axis: int = -1) -> tuple[X]:
    """v̄ = σ(g) ⊙ q̄ beside ḡ = σ′(g) ⊙ v ⊙ q̄."""
    check_cotangent("glu", q_ct, _half(residuals.shape, axis), residuals.dtype)
    value, gate = jnp.split(residuals, 2, axis)
    gate_ct, value_ct = _pulled_back(elementwise.sigmoid, gate, value, q_ct)
    return (jnp.concatenate([value_ct, gate_ct], axis),)


def _half(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    if not -len(shape) <= axis < len(shape) or shape[axis] % 2:
        raise ValueError(
            f"glu: `axis` is {axis}, but `p` has shape {shape}; that axis must be there, its length even."
        )
    return tuple(n // 2 if i == axis % len(shape) else n for i, n in enumerate(shape))


glu = Rule(
    glu_fwd,
    glu_bwd,
    reference=jax.nn.glu,
    domain={"p": Normal(2.0)},
    points={"open": Point({"p": (1.0, 1.0, 1.0, 1e4, 1e4, 1e4)}, {"p": (1.0, 1.0, 1.0, 0.0, 0.0, 0.0)})},
    settings=({"axis": 0},),
    sizes=({"shape": (2, 6)},),
    formula="q = v ⊙ σ(g), (v, g) = p; v̄ = σ(g) ⊙ q̄, ḡ = σ′(g) ⊙ v ⊙ q̄",
    saves="p",
)
