"""Other gradient checkers on the planted cases, with their default settings, through thin bridges.

`torch` and `autograd` are optional; what is not installed is left out with a note. Where nothing would run by
default, a mode is set: modes=("rev",) for JAX and chex, as a `custom_vjp` raises in forward mode; "rev" and
order 1 for HIPS autograd. The number that `scipy.optimize.check_grad` returns is accepted up to 1e-5 of the
norm of the gradient.
"""

import importlib
import importlib.util
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import chex
import jax
import numpy as np
import scipy.optimize
from jax import flatten_util
from jax import numpy as jnp
from jax import test_util as jax_test_util
from rich.console import Console

from tests.planted import Case, Problem, problem

# Slow Jacobians call the function twice for every input: hopeless for the largest cases.
LARGEST_JACOBIAN = 2000
SCIPY_TOLERANCE = 1e-5
MESSAGE = 500


class CannotRun(Exception):
    """The tool has no way to take such a case."""


class Rejected(Exception):
    """The tool finds the derivative wrong."""


def custom_vjp(p: Problem) -> Callable[..., Any]:
    """The function as a JAX function whose derivative is the user's."""

    @jax.custom_vjp
    def op(*args: Any) -> Any:
        return p.function(*args)

    value = p.value or p.function
    op.defvjp(lambda *args: (value(*args), args), lambda args, ct: p.vjp(args, ct))
    return op


def jax_check_grads(case: Case, dtype: Any, modes: tuple[str, ...] = ("rev",)) -> None:
    p = problem(case, dtype)
    try:
        jax_test_util.check_grads(custom_vjp(p), p.args, case.options.get("order", 1), modes=modes)
    except AssertionError as error:
        raise Rejected(str(error)) from error


def chex_numerical(case: Case, dtype: Any) -> None:
    p = problem(case, dtype)
    try:
        chex.assert_numerical_grads(custom_vjp(p), p.args, case.options.get("order", 1), modes=("rev",))
    except AssertionError as error:
        raise Rejected(str(error)) from error


def elementwise(case: Case, dtype: Any) -> None:
    p = problem(case, dtype)
    ct = p.cotangent()
    mine = jax.vjp(custom_vjp(p), *p.args)[1](ct)
    try:
        chex.assert_trees_all_close(mine, p.truth(ct))
    except AssertionError as error:
        raise Rejected(str(error)) from error


@dataclass(frozen=True)
class Vector:
    """A problem as numpy functions of one float64 vector, contracted to a scalar where asked."""

    problem: Problem
    x: np.ndarray
    unravel: Callable[[Any], tuple[Any, ...]]

    @classmethod
    def of(cls, case: Case, only_first: bool = False) -> "Vector":
        p = problem(case, jnp.float64)
        if any(jnp.iscomplexobj(leaf) for leaf in jax.tree.leaves(p.args)):
            raise CannotRun("complex arguments")
        free = p.args[:1] if only_first else p.args
        x, unravel = flatten_util.ravel_pytree(free)
        if not x.size or x.size > LARGEST_JACOBIAN:
            raise CannotRun(f"{x.size} inputs")
        return cls(p, np.asarray(x), lambda v: (*unravel(jnp.asarray(v)), *p.args[len(free) :]))

    def value(self, x: np.ndarray) -> np.ndarray:
        out = flatten_util.ravel_pytree(self.problem.function(*self.unravel(x)))[0]
        if jnp.iscomplexobj(out):
            raise CannotRun("complex output")
        return np.asarray(out)

    def pullback(self, x: np.ndarray, ct: np.ndarray) -> np.ndarray:
        args = self.unravel(x)
        out = jax.eval_shape(self.problem.function, *args)
        _, unravel = flatten_util.ravel_pytree(jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), out))
        op = custom_vjp(self.problem)
        cts = jax.vjp(op, *args)[1](unravel(jnp.asarray(ct)))
        free = len(args) - len(self.problem.args) + len(cts)
        flat = flatten_util.ravel_pytree(cts[:free])[0]
        return np.asarray(flat[: x.size], np.float64)


def scipy_check_grad(case: Case) -> None:
    v = Vector.of(case)
    weights = (
        np.ones(1) if v.problem.is_gradient else np.random.default_rng(0).standard_normal(v.value(v.x).size)
    )
    error = scipy.optimize.check_grad(lambda x: v.value(x) @ weights, lambda x: v.pullback(x, weights), v.x)
    norm = np.linalg.norm(v.pullback(v.x, weights))
    if not error <= SCIPY_TOLERANCE * max(1.0, float(norm)):
        raise Rejected(f"check_grad = {error:.2e}, gradient's norm {norm:.2e}")


def torch_gradcheck(case: Case, fast: bool) -> None:
    torch = importlib.import_module("torch")
    # As an attribute, the module of this name is hidden by its function.
    failure = importlib.import_module("torch.autograd.gradcheck").GradcheckError
    p = problem(case, jnp.float64)
    leaves, tree = jax.tree.flatten(p.args)
    if sum(np.size(leaf) for leaf in leaves) > LARGEST_JACOBIAN:
        raise CannotRun("too many inputs for a Jacobian")
    op = custom_vjp(p)

    def as_torch(x: Any) -> Any:
        return torch.from_numpy(np.array(x))

    class Bridge(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *tensors: Any) -> Any:
            ctx.save_for_backward(*tensors)
            args = jax.tree.unflatten(tree, [jnp.asarray(t.detach().numpy()) for t in tensors])
            return tuple(as_torch(out) for out in jax.tree.leaves(p.function(*args)))

        @staticmethod
        def backward(ctx: Any, *cts: Any) -> Any:
            args = jax.tree.unflatten(tree, [jnp.asarray(t.detach().numpy()) for t in ctx.saved_tensors])
            out, pullback = jax.vjp(op, *args)
            ct = jax.tree.unflatten(jax.tree.structure(out), [jnp.asarray(c.numpy()) for c in cts])
            # Of complex numbers torch returns the conjugate of what JAX returns, and takes it as cotangent.
            grads = pullback(jax.tree.map(jnp.conj, ct))
            return tuple(as_torch(jnp.conj(g)) for g in jax.tree.leaves(grads))

    inputs = tuple(as_torch(leaf).requires_grad_() for leaf in leaves)
    try:
        torch.autograd.gradcheck(Bridge.apply, inputs, fast_mode=fast)
    except failure as error:
        raise Rejected(str(error)) from error


def hips_autograd(case: Case, only_first: bool) -> None:
    extend, test_util = (importlib.import_module(f"autograd.{name}") for name in ("extend", "test_util"))
    v = Vector.of(case, only_first)
    op = extend.primitive(v.value)
    extend.defvjp(op, lambda _, x: lambda ct: v.pullback(x, np.asarray(ct)))
    try:
        test_util.check_grads(op, modes=["rev"], order=1)(v.x)
    except AssertionError as error:
        raise Rejected(str(error)) from error


PEERS: dict[str, tuple[str | None, Callable[[Case], None]]] = {
    "jax check_grads f64": (None, lambda case: jax_check_grads(case, jnp.float64)),
    "jax check_grads f32": (None, lambda case: jax_check_grads(case, jnp.float32)),
    "chex f64": (None, lambda case: chex_numerical(case, jnp.float64)),
    "chex f32": (None, lambda case: chex_numerical(case, jnp.float32)),
    "scipy check_grad": (None, scipy_check_grad),
    "torch gradcheck slow": ("torch", lambda case: torch_gradcheck(case, fast=False)),
    "torch gradcheck fast": ("torch", lambda case: torch_gradcheck(case, fast=True)),
    "autograd argument 0": ("autograd", lambda case: hips_autograd(case, only_first=True)),
    "autograd all": ("autograd", lambda case: hips_autograd(case, only_first=False)),
    "elementwise vs jax.vjp f64": (None, lambda case: elementwise(case, jnp.float64)),
    "elementwise vs jax.vjp f32": (None, lambda case: elementwise(case, jnp.float32)),
}


def available(console: Console) -> list[str]:
    """The tools that can be imported; says which cannot, and what JAX's default modes do."""
    missing = {package for package, _ in PEERS.values() if package and not importlib.util.find_spec(package)}
    for package in sorted(missing):
        console.print(f"left out: {package} is not installed (pip install {package})")
    try:
        op = jax.custom_vjp(jnp.sin)
        op.defvjp(lambda x: (jnp.sin(x), x), lambda x, ct: (ct * jnp.cos(x),))
        jax_test_util.check_grads(op, (jnp.ones(3),), 1)
    except TypeError as error:
        console.print(f"jax.test_util.check_grads with default modes raises: {str(error).splitlines()[0]}")
    return [tool for tool, (package, _) in PEERS.items() if package not in missing]


def _attempt(tool: str, case: Case) -> tuple[str, str]:
    _, run = PEERS[tool]
    # HIPS autograd draws its directions from the global generator.
    np.random.seed(0)
    try:
        with jax.enable_x64(not tool.endswith("f32")), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            run(case)
    except CannotRun as reason:
        return "n/a", str(reason)
    except Rejected as reason:
        return "wrong", str(reason)[:MESSAGE]
    except Exception as error:
        return "error", f"{type(error).__name__}: {error}"[:MESSAGE]
    return "right", ""


def judge(tool: str, case: Case) -> tuple[str, float, str]:
    """Verdict, seconds, message.

    An exception counts as catching a bug, unless a right derivative of the same function raises, too.
    """
    if package := PEERS[tool][0]:
        importlib.import_module(package)
    start = time.perf_counter()
    verdict, message = _attempt(tool, case)
    seconds = time.perf_counter() - start
    if verdict == "error" and case.is_bug:
        verdict = "n/a" if _attempt(tool, autodiffed(case))[0] == "error" else "wrong"
    return verdict, seconds, message


def autodiffed(case: Case) -> Case:
    """The same function with autodiff in the place of what the user wrote."""
    p = problem(case)

    def fwd(*args: Any) -> Any:
        return jax.vjp(p.function, *args)

    def bwd(pullback: Any, ct: Any) -> Any:
        return pullback(ct)

    return Case(case.name, case.family, "vjp", (fwd, bwd), p.function, lambda: p.args)
