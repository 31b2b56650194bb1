"""The ways to call a rule, and the truth for each: what is computed, without any judgement."""

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import jax
from jax import numpy as jnp

from .._compat import quick_jit
from .._rule import Rule
from ..domains import Normal, Positive
from ._cases import Variant
from ._montecarlo import sampled
from ._oracles import vjp_of
from ._pairs import computed

__all__ = ["Frozen", "Ways", "candidate", "truth_of"]


class Frozen:
    """A variant as a cache key: by its reference and present arguments, so that clones of a rule share."""

    def __init__(self, variant: Variant) -> None:
        self.variant = variant
        self.key = (
            variant.rule.reference,
            tuple(variant.statics.items()),
            tuple(a.name for a in variant.present),
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Frozen) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)


class Ways(NamedTuple):
    """Functions of arguments and cotangents.

    Attributes:
        at_once: as `quick`, but computed by NumPy where that is possible.
        quick: stacked examples, `jax.vjp` of the callable under vmap: one compilation goes through fwd, bwd
            and the custom_vjp.
        run: the same one by one, under vmap and through the callable.
        further: for fewer examples, with tangents, everything deeper.
        once: a single example, without jit.
    """

    at_once: Callable[..., Any]
    quick: Callable[..., Any]
    run: Callable[..., Any]
    further: Callable[..., Any]
    once: Callable[..., Any]


@functools.lru_cache(maxsize=256)
def truth_of(frozen: Frozen, deep: bool) -> Callable[..., Any]:
    """Value and spread of what is compared, for stacked examples: `(args, cotangent)`, with tangents if
    deep, `-> ...`."""
    variant = frozen.variant
    statics = dict(variant.statics)

    def reference(*given: Any) -> Any:
        return variant.rule.reference(*variant.all_arguments(given), **statics)

    if deep:
        pull = functools.partial(vjp_of, reference)
        return sampled(functools.partial(_deep, variant, reference, pull))
    return sampled(functools.partial(_first, variant, reference))


def _named(variant: Variant, cotangents: Any) -> dict[str, Any]:
    pairs = zip(variant.present, cotangents, strict=True)
    return {f"{a.name}_ct": ct for a, ct in pairs if a.differentiable}


def _first(variant: Variant, function: Callable[..., Any], args: Any, cotangent: Any) -> dict[str, Any]:
    """Value and cotangents, by name."""
    out, cotangents = vjp_of(function, args, cotangent)
    return {"out": out, **_named(variant, cotangents)}


def _deep(
    variant: Variant,
    function: Callable[..., Any],
    pull: Callable[[Any, Any], tuple[Any, Any]],
    args: Any,
    cotangent: Any,
    tangents: Any,
) -> dict[str, dict[str, Any]]:
    """The derivatives of the function and of its backward pass, both in `pull`, along a tangent; and
    `function` between two other functions."""
    floating = [a.differentiable for a in variant.present]
    # A layer below must not leave a domain that is bounded, or go where it stays away from.
    unbounded = [isinstance(variant.rule.domain[a.name], Normal | Positive) for a in variant.present]

    def both(*values: Any) -> Any:
        given = iter(values)
        out, cotangents = pull(
            [next(given) if f else x for f, x in zip(floating, args, strict=True)], cotangent
        )
        return out, _named(variant, cotangents)

    primals = tuple(x for f, x in zip(floating, args, strict=True) if f)
    first, second = jax.jvp(both, primals, tuple(tangents))[1]

    def composed(*given: Any) -> Any:
        below = [x + x * x / 8 if free else x for free, x in zip(unbounded, given, strict=True)]
        return jax.tree.map(lambda y: jnp.sqrt(1 + y * y), function(*below))

    cotangents = _named(variant, vjp_of(composed, tuple(args), cotangent)[1])
    return {"forward": {"out": first}, "second": second, "composed": cotangents}


@functools.lru_cache(maxsize=64)
def candidate(rule: Rule, frozen: Frozen) -> Ways:
    """The rule under test, in all the ways it can be called."""
    variant = replace(frozen.variant, rule=rule)
    statics = dict(variant.statics)

    def pull(given: Any, cotangent: Any) -> tuple[Any, Any]:
        out, residuals = rule.fwd(*variant.all_arguments(given), **statics)
        cotangents = dict(
            zip(
                (a.name for a in rule.signature.arguments),
                rule.bwd(residuals, cotangent, **statics),
                strict=True,
            )
        )
        return out, tuple(cotangents[a.name] for a in variant.present)

    def once(given: Any, cotangent: Any) -> dict[str, Any]:
        out, cotangents = pull(given, cotangent)
        return {"out": out, **_named(variant, cotangents)}

    def called(*given: Any) -> Any:
        return rule(*variant.all_arguments(given), **statics)

    def primal(*given: Any) -> Any:
        return rule.primal(*variant.all_arguments(given), **statics)

    def run(args: Any, cotangent: Any) -> dict[str, Any]:
        by_grad = functools.partial(_first, variant, called)
        return {
            "one by one": jax.lax.map(lambda x: once(*x), (args, cotangent)),
            "vmap": jax.vmap(once)(args, cotangent),
            "grad": jax.vmap(by_grad)(args, cotangent),
        }

    def further(args: Any, cotangent: Any, tangents: Any) -> dict[str, Any]:
        by_grad = functools.partial(_first, variant, called)
        first = jax.tree.map(lambda x: x[0], args)
        floating = tuple(i for i, a in enumerate(variant.present) if a.differentiable)
        jacobians = {}
        if hasattr(cotangent, "shape") and cotangent.size:
            for mode, transform, function in (
                ("reverse", jax.jacrev, called),
                ("forward", jax.jacfwd, primal),
            ):
                rows = transform(function, floating)(*first)
                jacobians[mode] = _named_jacobians(variant, rows, cotangent.ndim - 1)
        return {
            "scan": jax.lax.map(lambda x: by_grad(*x), (args, cotangent)),
            **jax.vmap(functools.partial(_deep, variant, called, pull))(args, cotangent, tangents),
            "jacobians": jacobians,
        }

    def through_grad(args: Any, cotangent: Any) -> dict[str, Any]:
        return jax.vmap(functools.partial(_first, variant, called))(args, cotangent)

    def at_once(args: Any, cotangent: Any) -> dict[str, Any]:
        return computed(through_grad, args, cotangent)

    return Ways(at_once, quick_jit(through_grad), jax.jit(run), jax.jit(further), once)


def _named_jacobians(variant: Variant, jacobian: Any, out_ndim: int) -> dict[str, Any]:
    return {
        f"{name}_ct": j.reshape(-1, *j.shape[out_ndim:])
        for name, j in zip(variant.names, jacobian, strict=True)
    }
