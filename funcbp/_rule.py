"""`Rule`: a hand-derived backward pass and everything that belongs to it, in one place."""

import functools
import importlib
import inspect
import pkgutil
import sys
from collections.abc import Callable, Hashable, Mapping
from types import FunctionType, MappingProxyType
from typing import Any

import jax

from ._signature import Signature, is_variadic
from .domains import Booleans, Domain, Integers, Point
from .factors import contract

__all__ = ["Rule", "catalogue"]

Static = Mapping[str, Hashable]
Sizes = Mapping[str, int | tuple[int, ...]]


class Rule:
    """A function with its hand-derived backward pass.

    Calling the rule gives an ordinary JAX function whose reverse-mode derivative *is* `bwd` (through
    `jax.custom_vjp`); `fwd` and `bwd` are the same pair as pure functions, `primal` is the function in plain
    JAX, `reference` an independent spelling of it.

    Args:
        fwd: `<name>_fwd(*arrays, **static) -> (out, residuals)`. Its jaxtyping signature states the shapes,
            its docstring the maths; keyword-only parameters are static options.
        bwd: `<name>_bwd(residuals, out_ct, **static) -> (ct of every array)`, None for one that has no
            derivative. For a function of parameters give `<name>_pullback` instead: the same, but the
            cotangent of a parameter stays a `Factor` (what met there: activation and δ). `bwd` is then the
            pullback with every factor contracted to its sum, so that the maths stands once.
        reference: the same function in another spelling (jax.nn, optax, an einsum), to test against.
        domain: for every array argument, where its values live.
        points: named kinks and edges, with the convention taken there.
        settings: static options to test at; the defaults are always among them.
        sizes: lengths of named axes to test at, where free ones would not fit together (a kernel and what it
            slides over): each a mapping from axes of the signature to a length, or to lengths for `*axes`.
        formula: one line, the function and its derivative, for tables.
        saves: what the residuals hold, in words.
        surrogate: whether the derivative is chosen, not derived, as that of a straight-through estimator: the
            reference states the choice (by `stop_gradient`), and is not held against differences.

    Limits of the callable, which are those of `jax.custom_vjp`: forward mode (`jax.jvp`, `jax.jacfwd`) raises
    TypeError; use `primal` there. In `jax.shard_map` with `check_vma=False` a replicated input's cotangent is
    not summed.

    Raises:
        TypeError: a definition that is inconsistent with itself, named by what is wrong with it.

    >>> import jax, jax.numpy as jnp
    >>> from funcbp import rules
    >>> out, residuals = rules.relu.fwd(jnp.array([-1.0, 2.0]))
    >>> rules.relu.bwd(residuals, jnp.array([3.0, 4.0]))
    (Array([0., 4.], dtype=float32),)
    >>> jax.grad(lambda p: rules.relu(p).sum())(jnp.array([-1.0, 2.0]))
    Array([0., 1.], dtype=float32)
    """

    name: str
    family: str
    fwd: Callable[..., tuple[Any, Any]]
    bwd: Callable[..., tuple[Any, ...]]
    pullback: Callable[..., tuple[Any, ...]]
    reference: Callable[..., Any]
    domain: Mapping[str, Domain]
    points: Mapping[str, Point]
    settings: tuple[Static, ...]
    sizes: tuple[Sizes, ...]
    signature: Signature
    formula: str
    saves: str
    surrogate: bool

    def __init__(
        self,
        fwd: FunctionType,
        bwd: FunctionType,
        *,
        reference: Callable[..., Any],
        domain: Mapping[str, Domain],
        points: Mapping[str, Point] | None = None,
        settings: tuple[Static, ...] = (),
        sizes: tuple[Sizes, ...] = (),
        formula: str = "",
        saves: str = "",
        surrogate: bool = False,
    ) -> None:
        name = fwd.__name__.removesuffix("_fwd")
        signature = Signature.of(name, fwd)
        points = dict(points or {})
        _validate(name, fwd, bwd, signature, domain, points, settings)
        _validate_sizes(name, signature, sizes)
        fields = {
            "name": name,
            "family": fwd.__module__.removeprefix("funcbp.rules.").split(".")[0],
            "signature": signature,
            "fwd": _checked(signature, fwd),
            "pullback": bwd,
            "bwd": _contracted(bwd) if bwd.__name__.endswith("_pullback") else bwd,
            "reference": reference,
            "domain": MappingProxyType(dict(domain)),
            "points": MappingProxyType(points),
            "settings": tuple(MappingProxyType(dict(s)) for s in ({}, *settings)),
            "sizes": tuple(MappingProxyType(dict(s)) for s in sizes) or (MappingProxyType({}),),
            "formula": formula,
            "saves": saves,
            "surrogate": surrogate,
            "__name__": name,
            "__qualname__": name,
            "__module__": fwd.__module__,
            "__doc__": fwd.__doc__,
            "__signature__": _returning_out(inspect.signature(fwd)),
        }
        self.__dict__.update(fields)

    def __setattr__(self, attribute: str, value: Any) -> None:
        raise AttributeError(f"rule `{self.name}` is immutable: define a new Rule to change `{attribute}`.")

    def __repr__(self) -> str:
        arguments = ", ".join(f"{a.name}: {' '.join(a.axes)}" for a in self.signature.arguments)
        return f"<Rule {self.name}({arguments})>"

    def __copy__(self) -> "Rule":
        return self

    def __deepcopy__(self, memo: Any) -> "Rule":
        del memo
        return self

    def __reduce__(self) -> str:
        # Its functions are often local ones, which pickle refuses: a rule is found again by its name.
        module = sys.modules.get(self.__dict__["__module__"])
        if getattr(module, self.name, None) is not self:
            raise TypeError(
                f"rule `{self.name}` cannot be pickled: `{self.__dict__['__module__']}` has no rule of that "
                f"name; assign it there, at the top level: {self.name} = Rule(...)."
            )
        return self.name

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The function itself, with `bwd` as its reverse-mode derivative."""
        arrays, statics = self.signature.bind(args, kwargs)
        return _custom_vjp(self, tuple(statics.items()))(*arrays)

    def primal(self, *args: Any, **kwargs: Any) -> Any:
        """The function in plain JAX, without a custom derivative: works under forward mode."""
        return self.fwd(*args, **kwargs)[0]


@functools.cache
def _custom_vjp(rule: Rule, statics: tuple[tuple[str, Hashable], ...]) -> Callable[..., Any]:
    # One wrapper for each set of statics: a new custom_vjp object at every call would retrace at every call.
    options = dict(statics)

    def function(*args: Any) -> Any:
        return rule.primal(*args, **options)

    function.__name__ = function.__qualname__ = rule.name
    wrapped = jax.custom_vjp(function)
    wrapped.defvjp(functools.partial(rule.fwd, **options), functools.partial(rule.bwd, **options))
    return wrapped


def _checked(signature: Signature, fwd: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(fwd)
    def checked(*args: Any, **kwargs: Any) -> Any:
        arrays, statics = signature.bind(args, kwargs)
        return fwd(*arrays, **statics)

    return checked


def _contracted(pullback: FunctionType) -> Callable[..., Any]:
    @functools.wraps(pullback)
    def bwd(residuals: Any, out_ct: Any, **static: Any) -> tuple[Any, ...]:
        cotangents = pullback(residuals, out_ct, **static)  # which checks out_ct
        dtype = jax.tree.leaves(out_ct)[0].dtype
        return tuple(contract(ct, dtype) for ct in cotangents)

    bwd.__name__ = pullback.__name__.replace("_pullback", "_bwd")
    return bwd


def _returning_out(signature: inspect.Signature) -> inspect.Signature:
    return signature.replace(return_annotation=inspect.Signature.empty)


def _validate(
    name: str,
    fwd: FunctionType,
    bwd: FunctionType,
    signature: Signature,
    domain: Mapping[str, Domain],
    points: Mapping[str, Point],
    settings: tuple[Static, ...],
) -> None:
    if fwd.__name__ != f"{name}_fwd":
        raise TypeError(f"a rule's forward function must be named <name>_fwd, got `{fwd.__name__}`.")
    if bwd.__name__ not in (f"{name}_bwd", f"{name}_pullback"):
        raise TypeError(
            f"rule `{name}`: its backward function must be named `{name}_bwd`, got `{bwd.__name__}`."
        )
    names = [a.name for a in signature.arguments]
    if list(domain) != names:
        raise TypeError(
            f"rule `{name}`: `domain` must name exactly the arguments {names} in order, got {list(domain)}."
        )
    for argument in signature.arguments:
        if _kind(domain[argument.name]) != argument.kind:
            raise TypeError(f"rule `{name}`: the domain of `{argument.name}` does not fit its annotation.")
    statics = {
        n: p.default
        for n, p in inspect.signature(bwd).parameters.items()
        if p.kind is inspect.Parameter.KEYWORD_ONLY
    }
    if statics != dict(signature.statics):
        raise TypeError(
            f"rule `{name}`: fwd has static options {dict(signature.statics)}, bwd has {statics}."
        )
    for setting in settings:
        if unknown := setting.keys() - signature.statics.keys():
            raise TypeError(f"rule `{name}`: settings name unknown static options {sorted(unknown)}.")
    for label, point in points.items():
        if unknown := (point.at.keys() | point.expected.keys()) - set(names):
            raise TypeError(f"rule `{name}`: point {label!r} names unknown arguments {sorted(unknown)}.")


def _validate_sizes(name: str, signature: Signature, sizes: tuple[Sizes, ...]) -> None:
    axes = {axis.removeprefix("*"): is_variadic(axis) for a in signature.arguments for axis in a.axes}
    for lengths in sizes:
        for axis, length in lengths.items():
            if axis not in axes:
                raise TypeError(f"rule `{name}`: sizes name the axis {axis!r}; its axes are {list(axes)}.")
            if isinstance(length, tuple) != axes[axis]:
                wanted = "a tuple of lengths" if axes[axis] else "one length"
                raise TypeError(f"rule `{name}`: the axis {axis!r} takes {wanted}, got {length!r}.")


def _kind(domain: Domain) -> str:
    if isinstance(domain, Integers):
        return "integer"
    return "boolean" if isinstance(domain, Booleans) else "floating"


@functools.cache
def catalogue() -> Mapping[str, Rule]:
    """Every rule of the library by name, family after family: what tests, docs and benchmarks enumerate.

    >>> catalogue()["dense"]
    <Rule dense(x: *batch in, w: in out, b: out)>
    """
    package = importlib.import_module("funcbp.rules")
    found: dict[str, Rule] = {}
    for module in pkgutil.walk_packages(package.__path__, "funcbp.rules."):
        for value in vars(importlib.import_module(module.name)).values():
            if isinstance(value, Rule) and value.__module__ == module.name:
                found[value.name] = value
    return MappingProxyType(found)
