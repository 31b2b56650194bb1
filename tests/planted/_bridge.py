"""A case of any kind as one thing: a function, what the user says is its VJP, and arguments."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax import numpy as jnp

from ._case import Case

Tree = Any


@dataclass(frozen=True)
class Problem:
    """`vjp(args, ct)` claims to be the pullback of `function` at `args`, one cotangent for each.

    `value` is what the user's own forward pass gives, where there is one.
    """

    function: Callable[..., Tree]
    vjp: Callable[[tuple[Tree, ...], Tree], tuple[Tree, ...]]
    args: tuple[Tree, ...]
    is_gradient: bool = False
    value: Callable[..., Tree] | None = None

    def truth(self, ct: Tree) -> tuple[Tree, ...]:
        """`vjp(args, ct)` by autodiff."""
        return jax.vjp(self.function, *self.args)[1](ct)

    def cotangent(self, seed: int = 0) -> Tree:
        """Random numbers like the output; 1 for a gradient."""
        if self.is_gradient:
            return jnp.ones((), jax.eval_shape(self.function, *self.args).dtype)
        rng = np.random.default_rng(seed)
        out = jax.eval_shape(self.function, *self.args)
        return jax.tree.map(functools.partial(_random_like, rng), out)


def _random_like(rng: np.random.Generator, x: jax.ShapeDtypeStruct) -> jax.Array:
    numbers = rng.standard_normal(jnp.shape(x))
    if jnp.iscomplexobj(x):
        numbers = numbers + 1j * rng.standard_normal(jnp.shape(x))
    return jnp.asarray(numbers, jnp.result_type(x))


def _is_differentiable(tree: Tree) -> bool:
    leaves = [x for x in jax.tree.leaves(tree) if not isinstance(x, str)]
    return bool(leaves) and all(jnp.issubdtype(jnp.result_type(x), jnp.inexact) for x in leaves)


def cast(tree: Tree, dtype: Any) -> Tree:
    """Floating leaves in `dtype`, complex ones in the complex type of its width."""

    def one(x: Any) -> Any:
        kind = jnp.result_type(x)
        if jnp.issubdtype(kind, jnp.complexfloating):
            return jnp.asarray(x, jnp.complex128 if dtype == jnp.float64 else jnp.complex64)
        return jnp.asarray(x, dtype) if jnp.issubdtype(kind, jnp.floating) else x

    return jax.tree.map(one, tree)


def problem(case: Case, dtype: Any = None, exposed: bool = False) -> Problem:
    """The case at its example, or where its bug shows, in `dtype` (None: as it is)."""
    args = (case.exposed or case.args)() if exposed else case.args()
    if dtype is not None:
        args = tuple(cast(arg, dtype) for arg in args)
    default = 0 if case.kind in ("gradient", "jacobian") else None
    argnums = case.options.get("argnums", default)
    if argnums is None:
        argnums = tuple(i for i, arg in enumerate(args) if _is_differentiable(arg))
    chosen = (argnums,) if isinstance(argnums, int) else tuple(argnums)

    def filled(given: tuple[Tree, ...]) -> list[Tree]:
        full = list(args)
        for i, arg in zip(chosen, given, strict=True):
            full[i] = arg
        return full

    function, vjp, value = _BRIDGES[case.kind](case, isinstance(argnums, int))

    def picked(given: tuple[Tree, ...], ct: Tree) -> tuple[Tree, ...]:
        cts = vjp(filled(given), ct)
        return tuple(cts) if case.kind in ("gradient", "jacobian") else tuple(cts[i] for i in chosen)

    own = None if value is None else lambda *given: value(*filled(given))
    examples = tuple(args[i] for i in chosen)
    return Problem(lambda *given: function(*filled(given)), picked, examples, case.kind == "gradient", own)


def _static(case: Case) -> dict[str, Any]:
    return dict(case.options.get("static") or {})


def _same_shapes(a: Tree, b: Tree) -> bool:
    return jax.tree.structure(a) == jax.tree.structure(b)


def _gradient(case: Case, single: bool) -> tuple[Any, Any, Any]:
    static, has_aux = _static(case), case.options.get("has_aux", False)

    def function(*args: Tree) -> Tree:
        out = case.of(*args, **static)
        return out[0] if has_aux else out

    def vjp(args: list[Tree], ct: Tree) -> tuple[Tree, ...]:
        grads = case.mine(*args, **static)
        argnums = case.options.get("argnums", 0)
        like = args[argnums] if single else tuple(args[i] for i in argnums)
        if not _same_shapes(grads, like) and isinstance(grads, tuple) and len(grads) == 2:
            grads = grads[1]
        grads = (grads,) if single else grads
        # Times one would promote a narrow gradient, and hide its dtype.
        is_one = not isinstance(ct, jax.core.Tracer) and ct == 1
        return grads if is_one else jax.tree.map(lambda g: g * ct, grads)

    return function, vjp, None


def _pair(case: Case, single: bool) -> tuple[Any, Any, Any]:
    del single
    static = _static(case)
    function = functools.partial(case.of, **static)
    if not isinstance(case.mine, tuple):
        return function, lambda args, ct: jax.vjp(case.mine, *args)[1](ct), case.mine
    fwd, bwd = case.mine

    def vjp(args: list[Tree], ct: Tree) -> tuple[Tree, ...]:
        cts = bwd(fwd(*args, **static)[1], ct, **static)
        return cts if isinstance(cts, tuple) else (cts,)

    return function, vjp, lambda *args: fwd(*args, **static)[0]


def _jacobian(case: Case, single: bool) -> tuple[Any, Any, Any]:
    layout, argnum = case.options.get("layout", "jax"), case.options.get("argnums", 0)
    if not single:
        raise NotImplementedError(f"{case.name}: a Jacobian by several arguments")

    def vjp(args: list[Tree], ct: Tree) -> tuple[Tree, ...]:
        jacobian = case.mine(*args)
        if layout == "denominator":
            jacobian = jacobian.T
        jacobian = jacobian.reshape(ct.shape + args[argnum].shape)
        return (jnp.tensordot(ct, jacobian, ct.ndim),)

    return case.of, vjp, None


def _chain(case: Case, single: bool) -> tuple[Any, Any, Any]:
    del single

    def arguments(args: Any, i: int, x: Tree) -> tuple[Tree, ...]:
        return (x,) if len(args) == 1 or args[0][i] is None else (args[0][i], x)

    def function(*args: Tree) -> Tree:
        x = args[-1]
        for i, step in enumerate(case.of):
            x = step(*arguments(args, i, x))
        return x

    def vjp(args: list[Tree], ct: Tree) -> tuple[Tree, ...]:
        x, tapes = args[-1], []
        for i, (fwd, _) in enumerate(case.mine):
            x, residuals = fwd(*arguments(args, i, x))
            tapes.append(residuals)
        params = [None] * len(case.mine)
        for i, ((_, bwd), residuals) in reversed(list(enumerate(zip(case.mine, tapes, strict=True)))):
            *own, ct = bwd(residuals, ct)
            params[i] = own[0] if own else None
        return (ct,) if len(args) == 1 else (params, ct)

    return function, vjp, None


_BRIDGES = {"gradient": _gradient, "vjp": _pair, "jacobian": _jacobian, "chain": _chain}


def accuracy(mine: Tree, truth: Tree) -> float:
    """Largest difference over the leaves, each in units of the largest entry of the true leaf."""
    if jax.tree.structure(mine) != jax.tree.structure(truth):
        return float("inf")
    worst = 0.0
    for a, b in zip(jax.tree.leaves(mine), jax.tree.leaves(truth), strict=True):
        if np.shape(a) != np.shape(b):
            return float("inf")
        wide = np.complex128 if jnp.iscomplexobj(b) else np.float64
        a, b = np.asarray(a, wide), np.asarray(b, wide)
        if not b.size:
            continue
        if not np.isfinite(a).all():
            return float("inf")
        scale = np.abs(b).max()
        worst = max(worst, float(np.abs(a - b).max() / (scale if scale else 1.0)))
    return worst
