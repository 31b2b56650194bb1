"""Is my gradient right, where is it wrong, and why: the questions that a user asks."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Unpack

import numpy as np

from .._rule import Rule
from ._conclude import conclude
from ._layouts import Layout
from ._options import CheckOptions, options_of
from ._problem import Problem
from ._progress import line
from ._report import OnUndecidable, Report
from ._search import Search
from ._subjects import Argnums, Pair, gradient_problem, jacobian_problem, vjp_problem

__all__ = [
    "assert_gradient",
    "assert_jacobian",
    "assert_vjp",
    "check_gradient",
    "check_jacobian",
    "check_vjp",
]


def check_gradient(
    my_grad: Callable[..., Any],
    *,
    of: Callable[..., Any],
    args: tuple[Any, ...],
    argnums: Argnums = 0,
    has_aux: bool = False,
    static: Mapping[str, Any] | None = None,
    **options: Unpack[CheckOptions],
) -> Report:
    """Whether `my_grad(*args)` is the gradient of the scalar function `of`, where not, and why.

    `args` is one example. Beside it, the check looks at values drawn like it at several magnitudes, at
    special values (zeros, ties, saturation, denormals, masks), between and on the thresholds found in both
    functions, at other sizes, in the example's dtypes and in float64, without jit and under vmap, and at
    repeated calls. What the example suggests about an argument (rows that sum to one, labels, a symmetric
    matrix) is kept and said in the report's notes. The truth is `jax.vjp` of `of` in float64; how far from
    it rounding may lead is computed for every element (`monte_carlo`). At a kink every element of the convex
    hull of the gradients around is right, by a convention that the notes name.

    Args:
        my_grad: `my_grad(*args, **static)` gives the gradient with respect to the arguments at `argnums`, or
            `(value, gradient)`; with `has_aux` `((value, aux), gradient)` or `(gradient, aux)`. It may be
            jitted, or NumPy. Complex gradients follow `jax.grad`: the conjugate of ∂f/∂x - i ∂f/∂y is not
            taken.
        of: the function; traceable, real and scalar. With `has_aux` it returns `(value, aux)`.
        args: example arguments: pytrees of arrays, random keys, and static values (strings, Python integers)
            that stay as they are.
        argnums: position or positions of what is differentiated.
        has_aux: whether `of` has an auxiliary output, which is ignored.
        static: keyword arguments for both functions.
        **options: `domain`: for an argument, by name or position, where its values are drawn from
            (`funcbp.domains`); `points`: further args to look at, by label; `dtypes`: to compute in, instead
            of the example's and float64; `order=2`: also the derivative of the gradient; `samples`: random
            inputs; `seed`; `rtol`: a relative error that is fine in any case; `budget`: seconds after which
            nothing new is begun; `progress`: called with the name of each stage, instead of a line on a
            terminal.

    Returns:
        A Report. Mistakes in `my_grad` are findings in it, not exceptions.

    Raises:
        TypeError: if `of` cannot be differentiated at `args`.
        ValueError: for options out of range.

    >>> import jax.numpy as jnp, numpy as np
    >>> def mse(w, x, y):
    ...     return jnp.mean((x @ w - y) ** 2) / 2
    >>> def my_grad(w, x, y):
    ...     return x.T @ (y - x @ w) / len(y)
    >>> x = np.arange(12.0, dtype=np.float32).reshape(4, 3) % 5
    >>> report = check_gradient(my_grad, of=mse, args=(np.ones(3, np.float32), x, x[:, 0]))
    >>> report.verdict, report.findings[0].cause.value
    ('wrong', 'sign')
    """
    problem = gradient_problem(my_grad, of, args, argnums, has_aux=has_aux, static=static)
    return _checked(problem, **options)


def check_vjp(
    my_op: Rule | Callable[..., Any] | Pair,
    *,
    of: Callable[..., Any],
    args: tuple[Any, ...],
    argnums: Argnums | None = None,
    has_aux: bool = False,
    static: Mapping[str, Any] | None = None,
    **options: Unpack[CheckOptions],
) -> Report:
    """Whether a backward pass is that of `of`; everything as for `check_gradient`, and linearity in the
    cotangent, with random, zero, huge and added cotangents.

    Args:
        my_op: a `Rule`; a pair `(fwd, bwd)` with `fwd(*args, **static) -> (out, residuals)` and
            `bwd(residuals, out_ct, **static) -> cotangents`, one for every argument, None where there is no
            derivative; or a function with a custom VJP.
        of: the reference, any traceable function of pytrees.
        args: example arguments.
        argnums: whose cotangents are looked at; None: of all that have any.
        has_aux: whether both functions return `(out, aux)`.
        static: keyword arguments for both.
        **options: as for `check_gradient`.

    >>> import jax.numpy as jnp, numpy as np
    >>> pair = (lambda x: (jnp.sin(x), x), lambda x, ct: (ct * jnp.cos(x),))
    >>> check_vjp(pair, of=jnp.sin, args=(np.linspace(-1, 2, 5),)).verdict
    'right'
    """
    problem = vjp_problem(my_op, of, args, argnums, has_aux=has_aux, static=static)
    return _checked(problem, **options)


def check_jacobian(
    my_jac: Callable[..., Any],
    *,
    of: Callable[..., Any],
    args: tuple[Any, ...],
    argnums: Argnums = 0,
    layout: Layout = "jax",
    has_aux: bool = False,
    static: Mapping[str, Any] | None = None,
    **options: Unpack[CheckOptions],
) -> Report:
    """Whether `my_jac(*args)` is the Jacobian of `of`; everything as for `check_gradient`.

    Args:
        my_jac: gives the Jacobian with respect to the arguments at `argnums`.
        of: the function, traceable.
        args: example arguments.
        argnums: position or positions of what is differentiated.
        layout: how the Jacobian is written: `"jax"` as `jax.jacrev` does, `"numerator"`, `"denominator"`,
            `"vec-columns"` or `"vec-rows"`.
        has_aux: whether `of` returns `(out, aux)`.
        static: keyword arguments for both.
        **options: as for `check_gradient`.

    >>> import jax.numpy as jnp, numpy as np
    >>> x, w = np.ones((2, 3)), np.arange(12.0).reshape(3, 4)
    >>> def my_jac(x, w):
    ...     return jnp.kron(jnp.eye(4), x)
    >>> check_jacobian(my_jac, of=jnp.matmul, args=(x, w), argnums=1, layout="vec-columns").verdict
    'right'
    """
    problem = jacobian_problem(my_jac, of, args, argnums, layout=layout, has_aux=has_aux, static=static)
    return _checked(problem, **options)


def assert_gradient(
    my_grad: Callable[..., Any], *, on_undecidable: OnUndecidable = "warn", **options: Any
) -> None:
    """Raise `AssertionError` with the report of `check_gradient(my_grad, **options)` if it is wrong.

    Args:
        my_grad: as for `check_gradient`.
        on_undecidable: whether to `"warn"` or `"raise"` where nothing could be decided.
        **options: as for `check_gradient`.
    """
    check_gradient(my_grad, **options).raise_if_failed(on_undecidable)


def assert_vjp(
    my_op: Rule | Callable[..., Any] | Pair, *, on_undecidable: OnUndecidable = "warn", **options: Any
) -> None:
    """Raise `AssertionError` with the report of `check_vjp(my_op, **options)` if it is wrong.

    Args:
        my_op: as for `check_vjp`.
        on_undecidable: whether to `"warn"` or `"raise"` where nothing could be decided.
        **options: as for `check_vjp`.
    """
    check_vjp(my_op, **options).raise_if_failed(on_undecidable)


def assert_jacobian(
    my_jac: Callable[..., Any], *, on_undecidable: OnUndecidable = "warn", **options: Any
) -> None:
    """Raise `AssertionError` with the report of `check_jacobian(my_jac, **options)` if it is wrong.

    Args:
        my_jac: as for `check_jacobian`.
        on_undecidable: whether to `"warn"` or `"raise"` where nothing could be decided.
        **options: as for `check_jacobian`.
    """
    check_jacobian(my_jac, **options).raise_if_failed(on_undecidable)


def _checked(problem: Problem, **options: Unpack[CheckOptions]) -> Report:
    settings = options_of(**options)
    tell, end = line(problem.subject)
    if settings.progress is None:
        settings = replace(settings, progress=tell)
    try:
        search = Search(problem, settings)
        search.run()
        settings.tell("conclusions")
        with np.errstate(all="ignore"):
            return conclude(search)
    finally:
        end()
