"""What touches JAX's non-public surface, in one place: jaxprs as data, and differences between versions."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import jax
from jax._src import source_info_util
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, jaxpr_as_fun

__all__ = [
    "HAS_FUSION_EMITTERS_OPTION",
    "ClosedJaxpr",
    "Jaxpr",
    "JaxprEqn",
    "Literal",
    "bind",
    "called",
    "enable_x64",
    "frames",
    "from_line_of",
    "jaxpr_as_fun",
    "output_dtypes",
    "output_shapes",
    "quick_jit",
    "scan_counts",
    "shapes",
]

# From 0.11 on XLA stops at an option that it once had.
HAS_FUSION_EMITTERS_OPTION = jax.__version_info__ < (0, 11)

_COMPILE_FAST: dict[str, bool | int] = {"xla_backend_optimization_level": 0}
if HAS_FUSION_EMITTERS_OPTION:
    _COMPILE_FAST["xla_cpu_use_fusion_emitters"] = False  # on a CPU three quarters of the time

# Primitives that are a call and nothing else, under their names in all supported versions.
_CALLS = frozenset(
    {
        "checkpoint",
        "closed_call",
        "core_call",
        "custom_jvp_call",
        "custom_vjp_call",
        "custom_vjp_call_jaxpr",
        "jit",
        "pjit",
        "remat",
        "remat2",
    }
)


def enable_x64(enabled: bool = True) -> AbstractContextManager[Any]:
    """A context in which 64-bit types are on (or off), whatever the user's setting is."""
    return jax.enable_x64(enabled)


def quick_jit(function: Callable[..., Any]) -> Callable[..., Any]:
    """`jax.jit` for what runs only a few times: compiled faster, to slower code."""
    return jax.jit(function, compiler_options=_COMPILE_FAST)


def bind(equation: JaxprEqn, values: Sequence[Any]) -> list[Any]:
    """The outputs of one equation of a jaxpr, applied to other values."""
    parameters = equation.primitive.get_bind_params(equation.params)
    # Until jax 0.8 a pair: functions to call, and the parameters.
    functions, parameters = parameters if isinstance(parameters, tuple) else ((), parameters)
    outputs = equation.primitive.bind(*functions, *values, **parameters)
    return list(outputs) if equation.primitive.multiple_results else [outputs]


def from_line_of(equation: JaxprEqn) -> AbstractContextManager[Any]:
    """A context in which what is traced comes from the source line of an equation, not from here."""
    return source_info_util.user_context(equation.source_info.traceback)


def shapes(equation: JaxprEqn) -> list[tuple[int, ...]]:
    """The shape of every operand of an equation."""
    return [tuple(getattr(atom.aval, "shape", ())) for atom in equation.invars]


def output_shapes(equation: JaxprEqn) -> list[tuple[int, ...]]:
    """The shape of every output of an equation."""
    return [tuple(getattr(variable.aval, "shape", ())) for variable in equation.outvars]


def output_dtypes(equation: JaxprEqn) -> list[Any]:
    """The dtype of every output of an equation; None of what is no array."""
    return [getattr(variable.aval, "dtype", None) for variable in equation.outvars]


def scan_counts(equation: JaxprEqn) -> tuple[int, int]:
    """How many operands of a scan are constants, and how many are carried.

    Read from the shapes, because versions name it differently: what is scanned over, and what is stacked, has
    one axis more outside of the body than inside.
    """
    body = equation.params["jaxpr"]

    def longer(outside: Sequence[Any], inside: Sequence[Any]) -> int:
        return sum(len(o.aval.shape) > len(i.shape) for o, i in zip(outside, inside, strict=True))

    scanned = longer(equation.invars, body.in_avals)
    stacked = longer(equation.outvars, body.out_avals)
    carried = len(equation.outvars) - stacked
    return len(equation.invars) - scanned - carried, carried


def called(equation: JaxprEqn) -> ClosedJaxpr | None:
    """The function that a call (jit, remat, custom_jvp, custom_vjp) calls; None for every other primitive."""
    if equation.primitive.name not in _CALLS:
        return None
    for key in ("call_jaxpr", "jaxpr", "fun_jaxpr"):
        inner = equation.params.get(key)
        if isinstance(inner, ClosedJaxpr):
            return inner
        if isinstance(inner, Jaxpr):
            return ClosedJaxpr(inner, ())
    return None


def frames(equation: JaxprEqn) -> list[tuple[str, int, str]]:
    """File, line and function of every call that led to an equation, the innermost first."""
    traceback = equation.source_info.traceback
    if traceback is None:
        return []
    return [(frame.file_name, frame.line_num, frame.function_name) for frame in traceback.frames]
