"""How accurate a gradient is, in units of the last place, next to autodiff of its reference in the same
dtype."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax import numpy as jnp
from jax.typing import DTypeLike

from .._compat import enable_x64, quick_jit
from .._rule import Rule
from ._bounds import round_tree, ulp
from ._cases import Variant, axis_sizes, draw
from ._lift import lifted
from ._oracles import vjp_of
from ._precise import precisely

__all__ = ["Accuracy", "Errors", "Ulps", "accuracy", "ulps"]

_FEW = 8  # examples that are evaluated in high precision, where autodiff in float64 is what is measured


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


@dataclass(frozen=True)
class Errors:
    """Errors of one array, in ulps of the true value, over its elements.

    Attributes:
        median: the 50th percentile.
        high: the 99th percentile.
        largest: of all; infinite where a number is not finite and the true one is.
    """

    median: float
    high: float
    largest: float


@dataclass(frozen=True)
class Ulps:
    """Errors of a gradient and of autodiff at the same inputs: one `Errors` for each leaf.

    Attributes:
        mine: of the gradient.
        autodiff: of autodiff in the same dtype.
        dtypes: of the leaves.
        truth: what both are compared with: `"float64"`, or `"40 digits"`.
    """

    mine: tuple[Errors, ...]
    autodiff: tuple[Errors, ...]
    dtypes: tuple[str, ...]
    truth: str

    def __str__(self) -> str:
        mine, autodiff = (max(e.high for e in errors) for errors in (self.mine, self.autodiff))
        return f"yours {mine:.3g} ulp, autodiff {autodiff:.3g} ulp"


def ulps(
    mine: Sequence[Any],
    pull: Callable[..., Any],
    values: Sequence[Any],
    cotangent: Any,
    *,
    autodiff: Sequence[Any] | None = None,
    truth: Sequence[Any] | None = None,
    digits: int = 40,
) -> Ulps:
    """Errors of a gradient and of autodiff, against autodiff with more digits.

    Args:
        mine: the gradient: one array for each leaf, in the dtype in which it was computed.
        pull: `(values, cotangent) -> leaves`, the gradient by autodiff. Traceable.
        values: arrays in the dtypes in which `mine` was computed.
        cotangent: pytree of arrays, as given to `mine`.
        autodiff: `pull(values, cotangent)` in the same dtypes, if at hand.
        truth: the true gradient in float64, if at hand.
        digits: of the truth for float64, which takes seconds; for smaller dtypes it is computed in float64.

    Raises:
        NotPrecise: if a leaf is float64, no truth is given, and the program cannot be evaluated precisely.
    """
    wide = any(jnp.finfo(_float_type(x)).bits == 64 for x in mine)
    with enable_x64(), jax.default_matmul_precision("highest"), np.errstate(all="ignore"):
        typed = tuple(jnp.asarray(v) for v in values)
        if autodiff is None:
            autodiff = jax.device_get(quick_jit(pull)(typed, cotangent))
        if truth is None and not wide:
            inputs = jax.tree.map(_widened, (typed, cotangent))
            truth = jax.device_get(quick_jit(lifted(pull))(*inputs))
    if truth is None:
        truth = precisely(pull, digits, rest=True)(typed, cotangent)
    dtypes = tuple(str(np.asarray(x).dtype) for x in mine)
    ours, theirs = (
        tuple(_errors(x, t, _float_type(m)) for x, t, m in zip(leaves, truth, mine, strict=True))
        for leaves in (mine, autodiff)
    )
    return Ulps(ours, theirs, dtypes, f"{digits} digits" if wide else "float64")


def _float_type(x: Any) -> np.dtype:
    """The floating type of an array's (real and imaginary) parts."""
    return np.asarray(x).real.dtype if np.iscomplexobj(x) else np.asarray(x).dtype


def _widened(x: Any) -> Any:
    if not jnp.issubdtype(jnp.result_type(x), jnp.inexact):
        return x
    return jnp.asarray(x, jnp.complex128 if jnp.iscomplexobj(x) else jnp.float64)


def _errors(actual: Any, truth: Any, dtype: Any) -> Errors:
    value, rest = truth if isinstance(truth, tuple) else (truth, 0.0)
    actual = np.asarray(actual, np.complex128 if np.iscomplexobj(actual) else np.float64)
    with np.errstate(all="ignore"):
        # Neighboring numbers are subtracted without rounding: what the truth has beyond float64 still counts.
        difference = (actual - value) - rest
    if np.iscomplexobj(actual):
        actual, value, difference = (np.stack([x.real, x.imag]) for x in (actual, value, difference))
    with np.errstate(all="ignore"):
        error = np.abs(difference) / ulp(value, dtype)
    exact = (actual == value) & ~np.isfinite(actual) | np.isnan(value)
    error = np.where(exact, 0.0, np.where(np.isnan(error), np.inf, error))
    if not error.size:
        return Errors(0.0, 0.0, 0.0)
    # By rank: an infinite error is no number to interpolate with.
    found = np.percentile(error, [50, 99, 100], method="higher")
    return Errors(*found.tolist())


def accuracy(rule: Rule, dtype: DTypeLike, *, examples: int = 256, seed: int = 0) -> Accuracy:
    """Measure a rule's backward pass and autodiff of its reference at inputs from its domain.

    For float64 the truth is evaluated in high precision, at a few of the examples.

    Args:
        rule: the rule, with its default options and all its arguments.
        dtype: inputs and cotangents are rounded to it first.
        examples: number of inputs.
        seed: of what is drawn.

    Raises:
        NotPrecise: for float64, if the reference cannot be evaluated in high precision.
    """
    precise = jnp.finfo(dtype).bits >= 64
    variant = Variant(rule, {}, rule.signature.arguments)
    rng = np.random.default_rng(seed)
    examples = min(examples, _FEW) if precise else examples
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
        truth = _truth(autodiff, args, cotangent, precise)
        both = [jax.device_get(jax.jit(jax.vmap(f))(*typed((args, cotangent)))) for f in (ours, autodiff)]
        errors = [np.concatenate(jax.tree.leaves(jax.tree.map(_ulps(dtype), one, truth))) for one in both]
    first, second = (float(np.percentile(e, 99)) for e in errors)
    return Accuracy(rule.name, jnp.dtype(dtype).name, first, second, errors[0].size)


def _truth(autodiff: Callable[..., Any], args: Any, cotangent: Any, precise: bool) -> Any:
    if not precise:
        return jax.device_get(jax.jit(jax.vmap(autodiff))(args, cotangent))
    count = len(jax.tree.leaves(args)[0])
    each = [precisely(autodiff)(*jax.tree.map(lambda x, i=i: x[i], (args, cotangent))) for i in range(count)]
    return jax.tree.map(lambda *rows: np.stack(rows), *each)


def _ulps(dtype: DTypeLike) -> Any:
    def error(actual: np.ndarray, truth: np.ndarray) -> np.ndarray:
        return (np.abs(np.asarray(actual, np.float64) - truth) / ulp(truth, dtype)).ravel()

    return error
