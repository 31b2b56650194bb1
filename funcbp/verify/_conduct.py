"""How a candidate behaves when it is called: structure, shapes, dtypes, purity, with and without jit, under
vmap."""

from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax import numpy as jnp

from .._compat import enable_x64
from ._evaluate import Evaluator, Outcome
from ._layouts import LayoutError
from ._problem import Probe, Problem, StructureError, Typing, like_output
from ._report import Cause, Finding

__all__ = ["first_call", "purity"]

_DIFFERS = 1e3  # roundings: two equal calls may sum in another order, but no more


def first_call(problem: Problem, typing: Typing) -> Iterator[Finding]:
    """Findings about tree, shape and dtype of what the candidate returns for the example."""
    out, values, cotangent = _prepared(problem, _example(problem, typing), typing)
    try:
        with enable_x64(typing.x64), jax.default_matmul_precision("highest"):
            value, trees = problem.backward(problem.pack(values), cotangent)
            found = problem.align(trees, values)
    except LayoutError as error:
        yield _finding(problem, Cause.SHAPE, str(error), typing)
        return
    except StructureError as error:
        yield _finding(problem, Cause.STRUCTURE, str(error), typing)
        return
    except Exception as error:
        told = next(iter(str(error).splitlines()), "no message")
        message = f"{Cause.RAISES.advice[:-1]}: {type(error).__name__}: {told}"
        yield _finding(problem, Cause.RAISES, message, typing)
        return
    if value is not None:
        yield from _same_spec("value", value, out)
    for i, ct in zip(problem.wrt, found, strict=True):
        leaf = problem.leaves[i]
        yield from _leaf_spec(problem, leaf.name, ct, values[i], typing)


def _leaf_spec(problem: Problem, name: str, ct: Any, like: Any, typing: Typing) -> Iterator[Finding]:
    situation = f"{typing}, at the example"
    if np.shape(ct) != np.shape(like):
        cause = Cause.BROADCAST if _repeated(np.shape(ct), np.shape(like)) else Cause.SHAPE
        message = f"Return shape {np.shape(like)}, not {np.shape(ct)}. {cause.advice}"
        yield Finding(name, cause, message, np.shape(like), np.shape(ct), situation=situation)
        return
    if not hasattr(ct, "dtype"):
        return
    found, wanted = np.dtype(ct.dtype), np.dtype(like.dtype)
    harmless = problem.kind != "vjp" and isinstance(ct, np.ndarray | np.generic) and found.kind == wanted.kind
    if found != wanted and not (harmless and found.itemsize > wanted.itemsize):
        message = f"Return {wanted}, not {found}. {Cause.DTYPE.advice}"
        yield Finding(name, Cause.DTYPE, message, str(wanted), str(found), situation=situation)


def _repeated(found: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    """Whether a shape is what the wanted one broadcasts to."""
    try:
        return len(found) >= len(wanted) and np.broadcast_shapes(found, wanted) == found
    except ValueError:
        return False


def _same_spec(name: str, value: Any, out: Any) -> Iterator[Finding]:
    if jax.tree.structure(value) != jax.tree.structure(out):
        message = f"Return the tree {jax.tree.structure(out)}, not {jax.tree.structure(value)}."
        yield Finding(name, Cause.STRUCTURE, message)
        return
    for found, wanted in zip(jax.tree.leaves(value), jax.tree.leaves(out), strict=True):
        if np.shape(found) != wanted.shape:
            message = f"The output has shape {np.shape(found)}, the reference's {wanted.shape}."
            yield Finding(name, Cause.PRIMAL_DIFFERS, message, wanted.shape, np.shape(found))


def purity(evaluator: Evaluator, typing: Typing, others: Sequence[Probe]) -> Iterator[Finding]:
    """Findings about calls that depend on earlier ones, on chance, or that change their arguments."""
    problem = evaluator.problem
    example = _example(problem, typing)
    first = evaluator.eager(example, typing)
    if _differ(first, evaluator.eager(example, typing)):
        yield _finding(problem, Cause.NONDETERMINISTIC, Cause.NONDETERMINISTIC.advice, typing)
        return
    for other in others:
        evaluator.eager(other, typing)
        if _differ(first, evaluator.eager(example, typing)):
            yield _finding(problem, Cause.STALE, Cause.STALE.advice, typing)
            return
    if others and _differ(first, _interleaved(problem, example, others[0], typing) or first):
        message = "bwd gives another result when fwd has run on other arguments in between. "
        yield _finding(problem, Cause.STALE, message + Cause.STALE.advice, typing)
        return
    changed = _changed(problem, example, typing)
    if changed:
        message = f"It changes its argument {changed} in place. {Cause.STALE.advice}"
        yield _finding(problem, Cause.STALE, message, typing)


def _interleaved(problem: Problem, first: Probe, second: Probe, typing: Typing) -> Outcome | None:
    """The outcome at `first`, with a forward pass at `second` before its backward pass."""
    run = problem.interleaved
    if run is None:
        return None

    def backward(given: tuple[Any, ...], cotangent: Any) -> Any:
        return run(given, problem.pack(problem.typed(second.values, typing)), cotangent)

    return Evaluator(problem.with_candidate(backward)).eager(first, typing)


def _changed(problem: Problem, example: Probe, typing: Typing) -> str | None:
    """The name of an argument that the candidate changes when it is given NumPy arrays."""
    _, values, cotangent = _prepared(problem, example, typing)
    given = [x if leaf.kind == "key" else np.array(x) for leaf, x in zip(problem.leaves, values, strict=True)]
    try:
        with enable_x64(typing.x64):
            problem.backward(problem.pack(given), cotangent)
    except Exception:
        return None  # it wants JAX arrays, which cannot be changed
    for leaf, before, after in zip(problem.leaves, values, given, strict=True):
        if leaf.kind != "key" and not np.array_equal(
            np.asarray(before), after, equal_nan=leaf.differentiable
        ):
            return leaf.name
    return None


def _prepared(problem: Problem, probe: Probe, typing: Typing) -> tuple[Any, tuple[Any, ...], Any]:
    with enable_x64(typing.x64):
        values = problem.typed(probe.values, typing)
        out = jax.eval_shape(problem.reference, *values)
        return out, values, like_output(probe.cotangent, out)


def _example(problem: Problem, typing: Typing) -> Probe:
    with enable_x64(typing.x64):
        values = problem.typed(problem.example, typing)
        out = jax.eval_shape(problem.reference, *values)
    rng = np.random.default_rng(0)
    cotangent = jax.tree.map(
        lambda o: 1.0 if problem.kind == "gradient" else rng.standard_normal(o.shape), out
    )
    return Probe("the example", tuple(values), jax.tree.map(np.asarray, cotangent))


def _differ(x: Outcome, y: Outcome) -> bool:
    for a, b in zip(x.cotangents, y.cotangents, strict=True):
        scale = np.abs(a[np.isfinite(a)]).max(initial=0.0)
        close = np.isclose(
            a, b, rtol=0, atol=_DIFFERS * float(jnp.finfo("float32").eps) * scale, equal_nan=True
        )
        if not close.all():
            return True
    return False


def _finding(problem: Problem, cause: Cause, message: str, typing: Typing) -> Finding:
    return Finding("result", cause, message, situation=f"{typing}, {problem.subject} called at the example")
