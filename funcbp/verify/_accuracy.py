"""How accurate a rule is, in units of the last place, next to autodiff of its reference in the same dtype."""

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax import numpy as jnp
from jax.typing import DTypeLike

from .._compat import enable_x64
from .._rule import Rule
from ._bounds import round_tree, ulp
from ._cases import Variant, axis_sizes, draw
from ._oracles import vjp_of

__all__ = ["Accuracy", "accuracy"]


@dataclass(frozen=True)
class Accuracy:
    """Errors of all cotangents of a rule, in ulps of the true value: the 99th percentile.

    Attributes:
        rule: its name.
        dtype: in which both were computed.
        ours: of the rule's backward pass.
        autodiff: of `jax.vjp` of its reference, at the same inputs.
        elements: how many numbers that is about.
    """

    rule: str
    dtype: str
    ours: float
    autodiff: float
    elements: int


def accuracy(rule: Rule, dtype: DTypeLike, *, examples: int = 256, seed: int = 0) -> Accuracy:
    """Measure a rule's backward pass and autodiff of its reference at inputs from its domain.

    Args:
        rule: the rule, with its default options and all its arguments.
        dtype: below float64; inputs and cotangents are rounded to it first.
        examples: number of inputs.
        seed: of what is drawn.

    Raises:
        ValueError: for float64, for which float64 is no truth.
    """
    if jnp.finfo(dtype).bits >= 64:
        raise ValueError(
            f"accuracy: the truth is computed in float64, so dtype must be smaller, got {dtype}."
        )
    variant = Variant(rule, {}, rule.signature.arguments)
    rng = np.random.default_rng(seed)
    args = round_tree(draw(variant, axis_sizes(rule), rng, examples), dtype)

    def ours(args: Any, cotangent: Any) -> Any:
        return rule.bwd(rule.fwd(*args)[1], cotangent)

    def autodiff(args: Any, cotangent: Any) -> Any:
        return vjp_of(rule.reference, args, cotangent)[1]

    def typed(tree: Any) -> Any:
        return jax.tree.map(lambda x: x.astype(jnp.dtype(dtype)) if x.dtype == np.float64 else x, tree)

    with enable_x64(), jax.default_matmul_precision("highest"), np.errstate(all="ignore"):
        out = jax.eval_shape(rule.reference, *(x[0] for x in args))
        cotangent = round_tree(jax.tree.map(lambda o: rng.standard_normal((examples, *o.shape)), out), dtype)
        truth = jax.device_get(jax.jit(jax.vmap(autodiff))(args, cotangent))
        both = [jax.device_get(jax.jit(jax.vmap(f))(*typed((args, cotangent)))) for f in (ours, autodiff)]
        errors = [np.concatenate(jax.tree.leaves(jax.tree.map(_ulps(dtype), one, truth))) for one in both]
    first, second = (float(np.percentile(e, 99)) for e in errors)
    return Accuracy(rule.name, jnp.dtype(dtype).name, first, second, errors[0].size)


def _ulps(dtype: DTypeLike) -> Any:
    def error(actual: np.ndarray, truth: np.ndarray) -> np.ndarray:
        return (np.abs(np.asarray(actual, np.float64) - truth) / ulp(truth, dtype)).ravel()

    return error
