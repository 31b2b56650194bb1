"""What rules of linear maps share: the map and its transpose stand side by side, the rest is written once."""

import functools
import inspect
from collections.abc import Callable
from types import FunctionType
from typing import Any

import jax
from jax import numpy as jnp

from ..._numerics import upcast
from ..._rule import Rule
from .._checks import check_cotangent
from .._specs import Spec

__all__ = ["add_along_axis", "add_at", "linear"]


def linear(
    forward: FunctionType,
    transpose: Callable[..., Any],
    *,
    y: str,
    x_ct: str,
    because: str,
    reference: Callable[..., Any],
    **definition: Any,
) -> Rule:
    """The rule of a map that is linear in its floating arguments (up to a constant).

    Args:
        forward: `_<name>(*arrays, **static) -> y`; its signature is the rule's, its docstring the beginning
            of the rule's.
        transpose: takes ȳ and, by name, those of the arguments and static options that it needs; gives the
            cotangent of the floating argument, or a tuple of them. A floating argument is given as its
            `Spec`: a transpose needs no values.
        y: the forward map as an equation.
        x_ct: its transpose as an equation.
        because: why that is the transpose, a sentence.
        reference: another spelling.
        definition: what else `Rule` takes.
    """
    name = forward.__name__.removeprefix("_")
    parameters = inspect.signature(forward).parameters.values()
    statics = [p for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY]
    names = [p.name for p in parameters if p not in statics]
    defaults = {p.name: p.default for p in statics}
    wanted = list(inspect.signature(transpose).parameters)[1:]

    def fwd(*arrays: Any, **static: Any) -> tuple[Any, Any]:
        dtype = next(a.dtype for a in arrays if _is_floating(a))
        out = jax.tree.map(lambda o: o.astype(dtype), forward(*arrays, **static))
        saved = tuple(Spec.of(a) if _is_floating(a) else a for a in arrays)
        return out, (saved, jax.tree.map(Spec.of, out))

    def bwd(residuals: Any, out_ct: Any, **static: Any) -> tuple[Any, ...]:
        arguments, out = residuals
        if isinstance(out, tuple):
            for i, (ct, spec) in enumerate(zip(out_ct, out, strict=True)):
                check_cotangent(name, ct, spec.shape, spec.dtype, output=f"[{i}]")
        else:
            check_cotangent(name, out_ct, out.shape, out.dtype)
        known = defaults | static | dict(zip(names, arguments, strict=True))
        found = transpose(out_ct, **{n: known[n] for n in wanted})
        cotangents = iter(found if isinstance(found, tuple) else (found,))
        return tuple(next(cotangents).astype(a.dtype) if isinstance(a, Spec) else None for a in arguments)

    taken = [inspect.Parameter(n, inspect.Parameter.POSITIONAL_ONLY) for n in ("residuals", "out_ct")]
    bwd.__dict__["__signature__"] = inspect.Signature([*taken, *statics])
    named: Any = functools.wraps(forward)(fwd)
    named.__name__, bwd.__name__ = f"{name}_fwd", f"{name}_bwd"
    saves = definition.pop("saves", "nothing but shapes")
    named.__doc__ = (
        f"{inspect.cleandoc(forward.__doc__ or '')}\n\nForward:     {y}\nBackward:    {x_ct}\n\n"
        f"Derivation. The map is linear, its transpose applied to ȳ is the backward pass: {because}.\n\n"
        f"Saves {saves}."
    )
    return Rule(named, bwd, reference=reference, formula=f"{y}; {x_ct}", saves=saves, **definition)


def _is_floating(x: Any) -> bool:
    return jnp.issubdtype(x.dtype, jnp.floating)


def add_at(x: Spec, index: Any, values: jax.Array) -> jax.Array:
    """The transpose of reading x[index]: zeros like x, plus `values` where they were read, in float32 at
    least. Duplicate indices add up; one that is out of range adds nothing, a negative one counts from the
    end."""
    values = upcast(values)
    return jnp.zeros(x.shape, values.dtype).at[index].add(values, mode="drop")


def add_along_axis(x: Spec, indices: jax.Array, values: jax.Array, axis: int) -> jax.Array:
    """The transpose of `jnp.take_along_axis(x, indices, axis)`, as `add_at`."""
    grid = list(jnp.indices(values.shape, sparse=True))
    grid[axis] = indices
    return add_at(x, tuple(grid), values)
