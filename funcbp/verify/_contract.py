"""What can be checked of a rule without computing anything: trees, None, shapes and dtypes, for any shape."""

from typing import Any

import jax
import numpy as np
from jax import numpy as jnp
from jax.typing import DTypeLike

from .._signature import describe
from ._cases import DTYPES, Sizes, Variant, shape_of
from ._report import Cause, Finding

__all__ = ["contract_findings", "specs"]


def specs(variant: Variant, sizes: Sizes, dtype: DTypeLike) -> tuple[jax.ShapeDtypeStruct, ...]:
    """Shape and dtype of every present argument."""
    return tuple(
        jax.ShapeDtypeStruct(shape_of(a, sizes), jnp.dtype(dtype if a.floating else DTYPES[a.kind]))
        for a in variant.present
    )


def contract_findings(variant: Variant, sizes: Sizes, dtype: DTypeLike) -> tuple[Finding, ...]:
    """Findings about the trees, shapes and dtypes of `fwd` and `bwd`; nothing is compiled.

    Where the reference itself raises for a shape, the rule may do as it likes.
    """
    rule, statics = variant.rule, dict(variant.statics)
    given = specs(variant, sizes, dtype)
    situation = ", ".join(filter(None, [jnp.dtype(dtype).name, f"sizes {dict(sizes)}", str(variant)]))

    def finding(where: str, cause: Cause, message: str, expected: Any = None, actual: Any = None) -> Finding:
        return Finding(where, cause, message, expected, actual, situation=situation)

    try:
        out = jax.eval_shape(lambda *a: rule.reference(*variant.all_arguments(a), **statics), *given)
    except (TypeError, ValueError, ZeroDivisionError, IndexError):
        return ()
    out = jax.tree.map(lambda o: jax.ShapeDtypeStruct(o.shape, _like(o.dtype, dtype)), out)
    try:
        value, residuals = jax.eval_shape(lambda *a: rule.fwd(*variant.all_arguments(a), **statics), *given)
    except Exception as error:
        return (finding("out", Cause.RAISES, f"fwd raises {type(error).__name__}: {error}"),)
    if jax.tree.map(describe, value) != jax.tree.map(describe, out):
        cause = Cause.SHAPE if jax.tree.map(np.shape, value) != jax.tree.map(np.shape, out) else Cause.DTYPE
        message = "Return what the reference returns, in the dtype of the arguments."
        return (finding("out", cause, message, jax.tree.map(describe, out), jax.tree.map(describe, value)),)
    try:
        cotangents = jax.eval_shape(lambda r, c: rule.bwd(r, c, **statics), residuals, out)
    except Exception as error:
        return (finding("bwd", Cause.RAISES, f"bwd raises {type(error).__name__}: {error}"),)
    arguments = rule.signature.arguments
    if not isinstance(cotangents, tuple) or len(cotangents) != len(arguments):
        message = f"Return a tuple with one cotangent for each of {[a.name for a in arguments]}."
        return (finding("bwd", Cause.STRUCTURE, message, len(arguments), describe_tree(cotangents)),)
    present = dict(zip((a.name for a in variant.present), given, strict=True))
    findings = []
    for argument, cotangent in zip(arguments, cotangents, strict=True):
        expected = present.get(argument.name) if argument.differentiable else None
        name = f"{argument.name}_ct"
        if (cotangent is None) != (expected is None):
            why = "it is absent" if argument.name not in present else "it has no derivative"
            message = "Return its cotangent, not None." if cotangent is None else f"Return None: {why}."
            findings.append(
                finding(name, Cause.STRUCTURE, message, describe_tree(expected), describe_tree(cotangent))
            )
        elif expected is not None and np.shape(cotangent) != expected.shape:
            message = (
                f"Return the shape of `{argument.name}`: is a sum over batch axes missing, or a transpose?"
            )
            findings.append(finding(name, Cause.SHAPE, message, expected.shape, np.shape(cotangent)))
        elif expected is not None and cotangent.dtype != expected.dtype:
            message = f"Return the dtype of `{argument.name}`: cast the result."
            findings.append(finding(name, Cause.DTYPE, message, expected.dtype.name, cotangent.dtype.name))
    return tuple(findings)


def _like(of: Any, dtype: DTypeLike) -> Any:
    return jnp.dtype(dtype) if jnp.issubdtype(of, jnp.floating) else of


def describe_tree(tree: Any) -> str:
    """Dtype and shape of every leaf of a tree, in words."""
    return str(jax.tree.map(describe, tree)) if tree is not None else "None"
