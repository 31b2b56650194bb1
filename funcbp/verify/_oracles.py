"""Where the truth comes from: float64 autodiff of an independent reference, and central differences to
check that."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import numpy as jnp
from jax.typing import DTypeLike

from .._compat import enable_x64, quick_jit
from ._bounds import allowance, round_tree
from ._montecarlo import SAMPLES, monte_carlo, sampled
from ._pairs import evaluated

__all__ = ["Oracle", "finite_differences", "magnitude", "oracle", "vjp_of", "vjp_oracle"]

_STEP = float(jnp.finfo("float64").eps) ** 0.2  # balances the h⁴ left by extrapolation with rounding, eps / h


class Oracle(NamedTuple):
    """A true value and the largest error that counts as rounding, in the same tree (NumPy arrays,
    float64)."""

    truth: Any
    bound: Any


def oracle(
    function: Callable[..., Any],
    args: tuple[Any, ...],
    dtype: DTypeLike = "float64",
    *,
    seed: int = 0,
    samples: int = SAMPLES,
    pin_branches: bool = True,
) -> Oracle:
    """The value of any function, computed in float64, and how far a computation in `dtype` may be from it.

    Casts to narrower types inside the function are ignored: a reference that computes in float32 or bfloat16
    whatever it is given has a float64 truth, too.

    Args:
        function: a traceable function of pytrees, the independent reference.
        args: its arguments; floating leaves are rounded to `dtype` first.
        dtype: in which the result under test is computed.
        seed: of the noise.
        samples: noisy evaluations behind the bound.
        pin_branches: with False, noise may cross a kink: where the bound then explodes, the result is
        undecidable.

    Returns:
        Truth and bound, element by element, in the tree of the function's result.
    """
    args = round_tree(args, dtype)
    at_once = pin_branches and bool(jax.tree.leaves(args))
    with enable_x64(), jax.default_matmul_precision("highest"):
        if at_once:
            # `sampled` is of stacked examples.
            stacked = jax.tree.map(lambda x: jnp.asarray(x)[None], args)
            found = jax.tree.map(lambda x: x[0], _sampled(function, samples)(seed, *stacked))
        else:
            found = _compiled(function, samples, pin_branches)(seed, *args)
        truth, spread = jax.device_get(found)
    return Oracle(truth, allowance(truth, spread, dtype, magnitude(args)))


@functools.lru_cache(maxsize=32)
def _sampled(function: Callable[..., Any], samples: int) -> Callable[..., Any]:
    return sampled(function, samples=samples, lift=True)


@functools.lru_cache(maxsize=32)
def _compiled(function: Callable[..., Any], samples: int, pin_branches: bool) -> Callable[..., Any]:
    return quick_jit(
        monte_carlo(
            function, samples=samples, perturb_inputs=pin_branches, pin_branches=pin_branches, lift=True
        )
    )


@functools.lru_cache(maxsize=32)
def _pullback(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda args, cotangent: vjp_of(function, args, cotangent)[1]


def vjp_oracle(
    function: Callable[..., Any],
    args: tuple[Any, ...],
    cotangent: Any,
    dtype: DTypeLike = "float64",
    *,
    seed: int = 0,
    samples: int = SAMPLES,
    pin_branches: bool = True,
) -> Oracle:
    """The cotangents of `args`, from `jax.vjp(function)` in float64, and how far one in `dtype` may be from
    them.

    Args:
        function: the independent reference.
        args: its positional arguments, pytrees; integer leaves have no cotangent.
        cotangent: of the output, in its tree and shapes.
        dtype: in which the backward pass under test is computed; arguments and cotangent are rounded to it
        first. seed: of the noise.
        samples: noisy evaluations behind the bound.
        pin_branches: as for `oracle`.

    Returns:
        Truth and bound in the tree of `args`, None in place of leaves that are not floating.

    >>> import numpy as np
    >>> truth, bound = vjp_oracle(lambda x: x * x, (np.array([1.0, 3.0]),), np.array([1.0, 0.5]), "float32")
    >>> truth[0], bool((bound[0] < 1e-5).all())
    (array([2., 3.]), True)
    """
    pull = _pullback(function)
    return oracle(pull, (args, cotangent), dtype, seed=seed, samples=samples, pin_branches=pin_branches)


def vjp_of(function: Callable[..., Any], args: tuple[Any, ...], cotangent: Any) -> tuple[Any, Any]:
    """`function(*args)` and the cotangents of `args`: None for leaves that are not floating. Traceable."""
    leaves, tree = jax.tree.flatten(args)
    floating = [jnp.issubdtype(jnp.result_type(x), jnp.floating) for x in leaves]

    def of_floating(values: list[Any]) -> Any:
        given = iter(values)
        return function(
            *tree.unflatten([next(given) if f else x for x, f in zip(leaves, floating, strict=True)])
        )

    out, pull = jax.vjp(of_floating, [x for x, f in zip(leaves, floating, strict=True) if f])
    cotangent = jax.tree.map(lambda c, o: jnp.asarray(c, jnp.result_type(o)), cotangent, out)
    cotangents = iter(pull(cotangent)[0])
    return out, tree.unflatten([next(cotangents) if f else None for f in floating])


def magnitude(tree: Any, batch_axes: int = 0) -> np.ndarray:
    """The largest finite absolute value in a tree (for every index of the leading axes), one at least."""
    largest: Any = np.float64(1.0)
    for leaf in jax.tree.leaves(tree):
        x = np.abs(np.asarray(leaf)).astype(np.float64)
        x = np.where(np.isfinite(x), x, 0.0)
        largest = np.maximum(largest, x.max(axis=tuple(range(batch_axes, x.ndim)), initial=0.0))
    return largest


def finite_differences(
    function: Callable[..., Any], args: tuple[Any, ...], cotangent: Any
) -> tuple[Any, Any]:
    """The cotangents of `args` by central differences in float64, and an estimate of their error.

    Every element is stepped by ±h and ±h/2 and the two quotients extrapolated (Richardson). The error
    estimate is the size of that correction plus what rounding of `function` does to the quotient; next to a
    kink it is large. Costs four evaluations for every input element: for small inputs.

    Args:
        function: any function of pytrees.
        args: its positional arguments; leaves that are not floating are held fixed.
        cotangent: of the output, in its tree and shapes.

    Returns:
        Estimate and error, each in the tree of `args`, None in place of leaves that are not floating.
    """
    leaves, tree = jax.tree.flatten(args)
    leaves = [np.asarray(x) for x in leaves]
    floating = [i for i, x in enumerate(leaves) if jnp.issubdtype(x.dtype, jnp.floating)]
    flat = np.concatenate([leaves[i].astype(np.float64).ravel() for i in floating] or [np.zeros(0)])
    steps = _STEP * np.maximum(np.abs(flat), 1.0)

    def projected(values: jax.Array) -> tuple[jax.Array, jax.Array]:
        given: list[Any] = list(leaves)
        start = 0
        for i in floating:
            given[i] = values[start : start + leaves[i].size].reshape(leaves[i].shape)
            start += leaves[i].size
        terms = jax.tree.map(lambda o, c: (o * c).ravel(), function(*tree.unflatten(given)), cotangent)
        terms = jnp.concatenate([jnp.zeros(1), *jax.tree.leaves(terms)])
        return terms.sum(), jnp.abs(terms).sum()

    points = np.concatenate([flat + factor * np.diag(steps) for factor in (1, -1, 0.5, -0.5)])
    with enable_x64(), jax.default_matmul_precision("highest"):
        values, sizes = evaluated(jax.vmap(projected), points)
    up, down, half_up, half_down = values.reshape(4, flat.size)
    coarse, fine, size = (up - down) / (2 * steps), (half_up - half_down) / steps, sizes[: flat.size]
    estimate = fine + (fine - coarse) / 3
    error = np.abs(fine - coarse) + float(jnp.finfo("float64").eps) * 16 * (size + 1) / steps
    return _scatter(estimate, leaves, floating, tree), _scatter(error, leaves, floating, tree)


def _scatter(flat: np.ndarray, leaves: list[np.ndarray], floating: list[int], tree: Any) -> Any:
    out: list[Any] = [None] * len(leaves)
    start = 0
    for i in floating:
        out[i] = flat[start : start + leaves[i].size].reshape(leaves[i].shape)
        start += leaves[i].size
    return tree.unflatten(out)
