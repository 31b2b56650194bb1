"""What a user hands over, brought into the one form that is checked: a `Problem`."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax import numpy as jnp

from .._rule import Rule
from ._layouts import LAYOUTS, Layout, from_layout
from ._problem import Problem, StructureError, leaf_kind, like_output

__all__ = ["Pair", "gradient_problem", "jacobian_problem", "pair_of", "vjp_problem"]

Argnums = int | tuple[int, ...]
Pair = tuple[Callable[..., Any], Callable[..., Any]]


def gradient_problem(
    my_grad: Callable[..., Any],
    of: Callable[..., Any],
    args: tuple[Any, ...],
    argnums: Argnums = 0,
    *,
    has_aux: bool = False,
    static: Mapping[str, Any] | None = None,
) -> Problem:
    """The question whether `my_grad(*args)` is the gradient of the scalar function `of`.

    Raises:
        TypeError: if `of` is not a traceable function of `args` with a real scalar value.
    """
    static = dict(static or {})
    positions = _positions(argnums, args)
    function = _without_aux(of, has_aux, static)

    def backward(given: tuple[Any, ...], cotangent: Any) -> tuple[Any, tuple[Any, ...]]:
        del cotangent  # of a scalar: one
        value, gradient = _split(my_grad(*given, **static), given, argnums)
        if has_aux and isinstance(value, tuple):
            value = value[0]
        gradients = (gradient,) if isinstance(argnums, int) else tuple(gradient)
        return value, gradients

    problem = Problem("gradient", _name(my_grad), function, backward, args, positions)
    _require_differentiable(problem)
    out = _out_spec(problem, of)
    if jax.tree.structure(out) != jax.tree.structure(0.0) or out.shape != ():
        raise TypeError(
            f"of={_name(of)} must return a scalar to have a gradient, not {_describe(out)}; reduce it, "
            f"pass has_aux=True if it returns (value, aux), or use check_vjp or check_jacobian."
        )
    if not jnp.issubdtype(out.dtype, jnp.floating):
        raise TypeError(f"of={_name(of)} must return a real floating scalar, not {out.dtype}.")
    return problem


def vjp_problem(
    my_op: Rule | Callable[..., Any] | Pair,
    of: Callable[..., Any],
    args: tuple[Any, ...],
    argnums: Argnums | None = None,
    *,
    has_aux: bool = False,
    static: Mapping[str, Any] | None = None,
) -> Problem:
    """The question whether `my_op` computes `of` and pulls cotangents back through it."""
    static = dict(static or {})
    function = _without_aux(of, has_aux, static)
    positions = _differentiable(args) if argnums is None else _positions(argnums, args)
    pair = pair_of(my_op)
    if pair is None:
        backward = _through_jax(_without_aux(_callable(my_op), has_aux, static), positions)
        problem = Problem("vjp", _name(my_op), function, backward, args, positions)
    else:
        interleaved = _through_pair(pair, static, positions)
        problem = Problem(
            "vjp",
            _name(my_op),
            function,
            lambda given, cotangent: interleaved(given, None, cotangent),
            args,
            positions,
            interleaved,
        )
    _require_differentiable(problem)
    _out_spec(problem, of)
    return problem


def jacobian_problem(
    my_jac: Callable[..., Any],
    of: Callable[..., Any],
    args: tuple[Any, ...],
    argnums: Argnums = 0,
    *,
    layout: Layout = "jax",
    has_aux: bool = False,
    static: Mapping[str, Any] | None = None,
) -> Problem:
    """The question whether `my_jac(*args)`, written in a layout, is the Jacobian of `of`."""
    if layout not in LAYOUTS:
        raise ValueError(f"layout must be one of {', '.join(LAYOUTS)}, not {layout!r}.")
    static = dict(static or {})
    positions = _positions(argnums, args)
    function = _without_aux(of, has_aux, static)

    def backward(layout: Layout, given: tuple[Any, ...], cotangent: Any) -> tuple[Any, tuple[Any, ...]]:
        jacobian = my_jac(*given, **static)
        out = jax.eval_shape(function, *given)
        wanted = [given[i] for i in positions]
        by_argument = _per_argument(jacobian, out, argnums)
        return None, tuple(
            from_layout(layout, j, out, x, cotangent) for j, x in zip(by_argument, wanted, strict=True)
        )

    others = {str(name): functools.partial(backward, name) for name in LAYOUTS if name != layout}
    mine = functools.partial(backward, layout)
    problem = Problem(
        "jacobian", _name(my_jac), function, mine, args, positions, layout=layout, others=others
    )
    _require_differentiable(problem)
    _out_spec(problem, of)
    return problem


def pair_of(my_op: Any) -> Pair | None:
    """The `(fwd, bwd)` of what is one: a `Rule`, or a pair of functions; None for other callables."""
    if isinstance(my_op, Rule):
        return my_op.fwd, my_op.bwd
    if isinstance(my_op, tuple | list) and len(my_op) == 2 and all(map(callable, my_op)):
        return my_op[0], my_op[1]
    return None


def _through_pair(
    pair: Pair, static: dict[str, Any], positions: tuple[int, ...]
) -> Callable[[tuple[Any, ...], tuple[Any, ...] | None, Any], tuple[Any, tuple[Any, ...]]]:
    fwd, bwd = pair

    def run(given: tuple[Any, ...], between: tuple[Any, ...] | None, cotangent: Any) -> Any:
        result = fwd(*given, **static)
        if not isinstance(result, tuple) or len(result) != 2:
            raise StructureError(f"fwd must return (out, residuals), not {_describe(result)}.")
        out, residuals = result
        if between is not None:
            fwd(*between, **static)
        return out, _chosen(bwd(residuals, cotangent, **static), given, positions)

    return run


def _chosen(cotangents: Any, given: tuple[Any, ...], positions: tuple[int, ...]) -> tuple[Any, ...]:
    """Those of the cotangents that are asked for, whether `bwd` gives one for every argument or only for
    the differentiable ones."""
    if not isinstance(cotangents, tuple | list):
        cotangents = (cotangents,)
    if len(cotangents) == len(given):
        return tuple(cotangents[i] for i in positions)
    differentiable = _differentiable(given)
    if len(cotangents) == len(differentiable):
        return tuple(cotangents[differentiable.index(i)] for i in positions)
    raise StructureError(
        f"bwd must return a tuple with one cotangent for each of the {len(given)} arguments, not "
        f"{len(cotangents)} of them."
    )


def _through_jax(
    function: Callable[..., Any], positions: tuple[int, ...]
) -> Callable[[tuple[Any, ...], Any], tuple[Any, tuple[Any, ...]]]:
    def backward(given: tuple[Any, ...], cotangent: Any) -> tuple[Any, tuple[Any, ...]]:
        leaves, tree = jax.tree.flatten([given[i] for i in positions])
        moving = [i for i, x in enumerate(leaves) if leaf_kind(x) in ("floating", "complex")]

        def of_moving(*values: Any) -> Any:
            whole, chosen = list(given), list(leaves)
            for i, x in zip(moving, values, strict=True):
                chosen[i] = x
            for i, x in zip(positions, tree.unflatten(chosen), strict=True):
                whole[i] = x
            return function(*whole)

        out, pullback = jax.vjp(of_moving, *(leaves[i] for i in moving))
        found: list[Any] = [None] * len(leaves)
        for i, ct in zip(moving, pullback(like_output(cotangent, out)), strict=True):
            found[i] = ct
        return out, tuple(tree.unflatten(found))

    return backward


def _without_aux(function: Callable[..., Any], has_aux: bool, static: dict[str, Any]) -> Callable[..., Any]:
    if not has_aux and not static:
        return function

    @functools.wraps(function)  # with its signature: reports use the user's names
    def value_only(*args: Any) -> Any:
        result = function(*args, **static)
        return result[0] if has_aux else result

    return value_only


def _split(result: Any, given: tuple[Any, ...], argnums: Argnums) -> tuple[Any, Any]:
    """`(value, gradient)` of what a gradient function returned; the value is None if it returned none."""
    wanted = given[argnums] if isinstance(argnums, int) else tuple(given[i] for i in argnums)
    if not _fits(result, wanted) and isinstance(result, tuple | list) and len(result) == 2:
        value, gradient = result
        if _fits(gradient, wanted):
            return value, gradient
        if _fits(value, wanted):  # (gradient, aux), as jax.grad with has_aux
            return None, value
    if isinstance(argnums, tuple) and not isinstance(result, tuple | list):
        result = (result,)
    if isinstance(argnums, tuple) and len(result) != len(argnums):
        raise StructureError(f"Return one gradient for each of argnums={argnums}, not {len(result)} of them.")
    return None, result


def _fits(result: Any, wanted: Any) -> bool:
    if isinstance(wanted, tuple) and type(wanted) is tuple and isinstance(result, list):
        result = tuple(result)
    try:
        parts = jax.tree.structure(wanted).flatten_up_to(result)
    except (TypeError, ValueError):
        return False
    return all(part is None or leaf_kind(part) or np.isscalar(part) for part in parts)


def _per_argument(jacobian: Any, out: Any, argnums: Argnums) -> tuple[Any, ...]:
    """The Jacobian's parts, one tree for each argument: jax.jacrev puts the output's tree outside."""
    if isinstance(argnums, int):
        return (jacobian,)
    tree = jax.tree.structure(out)
    rows = tree.flatten_up_to(jacobian)
    return tuple(tree.unflatten([row[i] for row in rows]) for i in range(len(argnums)))


def _positions(argnums: Argnums, args: tuple[Any, ...]) -> tuple[int, ...]:
    given = (argnums,) if isinstance(argnums, int) else tuple(argnums)
    for i in given:
        if not -len(args) <= i < len(args):
            raise ValueError(f"argnums={argnums} must name positions in args, which has {len(args)} entries.")
    return tuple(i % len(args) for i in given)


def _differentiable(args: tuple[Any, ...]) -> tuple[int, ...]:
    return tuple(
        i
        for i, x in enumerate(args)
        if any(leaf_kind(leaf) in ("floating", "complex") for leaf in jax.tree.leaves(x))
    )


def _require_differentiable(problem: Problem) -> None:
    if not problem.wrt:
        wanted = ", ".join(problem.names[i] for i in problem.argnums) or "no argument"
        raise TypeError(f"There is nothing to differentiate: {wanted} has no floating or complex leaf.")


def _out_spec(problem: Problem, of: Callable[..., Any]) -> Any:
    try:
        return jax.eval_shape(problem.reference, *problem.example)
    except Exception as error:
        told = next(iter(str(error).splitlines()), "no message")
        raise TypeError(
            f"of={_name(of)} must be a JAX function of the given args; tracing it failed with "
            f"{type(error).__name__}: {told}"
        ) from error


def _callable(my_op: Any) -> Callable[..., Any]:
    if not callable(my_op):
        raise TypeError(
            f"my_op must be a Rule, a function with a custom VJP, or a pair (fwd, bwd), not {my_op!r}."
        )
    return my_op


def _name(subject: Any) -> str:
    if isinstance(subject, tuple | list):
        return " / ".join(_name(part) for part in subject)
    return getattr(subject, "__name__", None) or getattr(subject, "name", None) or type(subject).__name__


def _describe(tree: Any) -> str:
    leaves = jax.tree.leaves(tree)
    if len(leaves) == 1 and leaves[0] is tree and hasattr(tree, "shape"):
        return f"{tree.dtype}{list(tree.shape)}"
    return str(jax.tree.structure(tree))
