"""What every identity of the family shares: shapes, precision, residuals, and how its documentation reads."""

import functools
import inspect
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
from jax import numpy as jnp
from jaxtyping import Array, Float

from ..._numerics import upcast
from ..._rule import Rule
from ...domains import Domain, Normal, Point
from .._checks import check_cotangent
from ._algebra import scaled

__all__ = ["Saved", "identity", "scalar"]


@functools.partial(jax.tree_util.register_dataclass, data_fields=["arrays"], meta_fields=["out"])
@dataclass(frozen=True)
class Saved:
    """Residuals of an identity.

    Attributes:
        arrays: what the backward pass is given; arguments in their own dtype, the rest in float32 at least.
        out: shape and dtype of every output.
    """

    arrays: tuple[Any, ...]
    out: tuple[jax.ShapeDtypeStruct, ...]


def identity(
    name: str,
    summary: str,
    value: str,
    differential: str,
    cotangents: str,
    forward: Callable[..., tuple[Any, tuple[Any, ...]]],
    backward: Callable[..., tuple[jax.Array | None, ...]],
    *,
    axes: str,
    reference: Callable[..., Any],
    source: str,
    saves: str,
    note: str = "",
    domain: Mapping[str, Domain] | None = None,
    outputs: tuple[str, ...] = (),
    points: Mapping[str, Point] | None = None,
    settings: tuple[Mapping[str, Hashable], ...] = (),
    sizes: tuple[Mapping[str, int], ...] = (),
) -> Rule:
    """The rule of one identity, for a batch of matrices and vectors.

    Arguments are raised to float32 at least, and results rounded once.

    Args:
        name: of the rule.
        summary: one line.
        value: the function, in formulas.
        differential: its differential, from which the cotangents are read off.
        cotangents: the backward pass, in formulas.
        forward: `(*arguments, **options) -> (out, saved)`; keyword-only parameters are static options.
        backward: `(out_ct, *saved, **options) -> cotangents`.
        axes: of every argument behind the batch: `"y: m, a: m n"`.
        reference: as for `Rule`; so are domain (normal where not given), points, settings and sizes.
        source: where the identity stands.
        saves: the names of what is saved.
        note: conventions, and what happens at degenerate points.
        outputs: their names, if there are several.
    """
    shapes = dict(part.strip().split(": ") for part in axes.split(","))
    options = [p for p in inspect.signature(forward).parameters.values() if p.kind is p.KEYWORD_ONLY]

    def fwd(*args: jax.Array, **static: Any) -> tuple[Any, Saved]:
        wide = tuple(upcast(x) for x in args)
        out, saved = forward(*wide, **static)
        own = {id(w): x for w, x in zip(wide, args, strict=True)}
        out = jax.tree.map(lambda o: o.astype(args[0].dtype), out)
        specs = tuple(jax.ShapeDtypeStruct(o.shape, o.dtype) for o in jax.tree.leaves(out))
        return out, Saved(jax.tree.map(lambda s: own.get(id(s), s), saved), specs)

    def bwd(residuals: Saved, out_ct: Any, **static: Any) -> tuple[jax.Array | None, ...]:
        given = out_ct if outputs else (out_ct,)
        for ct, out, output in zip(given, residuals.out, outputs or ("",), strict=True):
            check_cotangent(name, ct, out.shape, out.dtype, output)
        dtype = residuals.out[0].dtype
        found = backward(_wide(out_ct), *_wide(residuals.arrays), **static)
        return tuple(None if ct is None else ct.astype(dtype) for ct in found)

    arguments = [
        inspect.Parameter(n, inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=Float[Array, f"*batch {s}"])
        for n, s in shapes.items()
    ]
    passed = [inspect.Parameter(n, inspect.Parameter.POSITIONAL_OR_KEYWORD) for n in ("residuals", "out_ct")]
    for function, kind, parameters in ((fwd, "fwd", arguments), (bwd, "bwd", passed)):
        every = {
            "__name__": f"{name}_{kind}",
            "__qualname__": f"{name}_{kind}",
            "__module__": forward.__module__,
            "__signature__": inspect.Signature([*parameters, *options]),
            "__annotations__": {p.name: p.annotation for p in parameters if p.annotation is not p.empty},
        }
        for attribute, content in every.items():
            setattr(function, attribute, content)
    fwd.__doc__ = _documentation(summary, value, differential, cotangents, source, saves, note)
    bwd.__doc__ = f"{cotangents}."
    domain = {n: Normal() for n in shapes} | dict(domain or {})
    return Rule(
        fwd,
        bwd,
        reference=reference,
        domain=domain,
        points=points,
        settings=settings,
        sizes=sizes,
        formula=f"{value}; {cotangents}",
        saves=saves,
    )


def scalar(
    name: str,
    summary: str,
    value: str,
    differential: str,
    gradients: str,
    forward: Callable[..., tuple[Any, tuple[Any, ...]]],
    backward: Callable[..., tuple[jax.Array, ...]],
    **rest: Any,
) -> Rule:
    """The rule of a number: `backward(*saved)` gives its gradients, and every cotangent is C̄ times one."""

    @functools.wraps(forward)
    def pull(number_ct: jax.Array, *saved: Any, **static: Any) -> tuple[jax.Array, ...]:
        return tuple(scaled(number_ct, gradient) for gradient in backward(*saved, **static))

    return identity(name, summary, value, differential, f"C̄ times {gradients}", forward, pull, **rest)


def _wide(tree: Any) -> Any:
    return jax.tree.map(lambda x: upcast(x) if jnp.issubdtype(x.dtype, jnp.floating) else x, tree)


def _documentation(
    summary: str, value: str, differential: str, cotangents: str, source: str, saves: str, note: str
) -> str:
    rest = " ".join(filter(None, [note, f"Saves {saves}.", f"Source: {source}."]))
    formulas = f"Forward:     {value}\nBackward:    {cotangents}"
    return f"{summary}\n\n{formulas}\n\nDerivation. {differential}.\n\n{rest}"
