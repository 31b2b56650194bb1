"""What a check is called with: arguments in the order of the reference's parameters, and its kind."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import jax

from .._rule import Rule
from ..domains import Domain
from .arguments import Given, values_of
from .errors import UsageError

__all__ = ["Call", "Kind", "bind", "guess_kind", "positions"]

Kind = Literal["gradient", "vjp", "jacobian"]

_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


@dataclass(frozen=True)
class Call:
    """Arguments for both functions of a check.

    Attributes:
        names: of the positional arguments.
        args: their values.
        static: keyword-only arguments.
        domain: of arguments, by position, where it was said.
    """

    names: tuple[str, ...]
    args: tuple[Any, ...]
    static: Mapping[str, Any] = field(default_factory=dict)
    domain: Mapping[int, Domain] = field(default_factory=dict)


def bind(function: Callable[..., Any], name: str, given: list[Given], seed: int) -> Call:
    """Put the `--arg`s in the order of a function's parameters.

    Raises:
        UsageError: for an argument that the function lacks, or one that it needs and did not get.
    """
    values = values_of(given, seed)
    try:
        parameters = dict(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        # Some built-in functions do not tell: then the order on the command line is theirs.
        return _call(tuple(values), tuple(values.values()), {}, given)
    named = {n: p for n, p in parameters.items() if p.kind not in _VARIADIC}
    kinds = {p.kind for p in parameters.values()}
    extra = [n for n in values if n not in named]
    if extra and not kinds & set(_VARIADIC):
        raise UsageError(f"--arg {extra[0]}=...: {name} has no such argument; it has {_names(named)}.")
    keywords = {n for n, p in named.items() if p.kind is p.KEYWORD_ONLY}
    if inspect.Parameter.VAR_POSITIONAL not in kinds:
        keywords |= set(extra)
    missing = [n for n, p in named.items() if n not in values and p.default is p.empty]
    if missing:
        raise UsageError(
            f"{name} needs {', '.join(missing)}: say what to call it with, as "
            f"--arg {missing[0]}=float32[32,4] or --arg {missing[0]}=0.1."
        )
    order = _positional(named, keywords, values) + [n for n in extra if n not in keywords]
    args = tuple(values[n] if n in values else named[n].default for n in order)
    static = {n: values[n] for n in values if n in keywords}
    return _call(tuple(order), args, static, given)


def _positional(
    named: Mapping[str, inspect.Parameter], keywords: set[str], values: Mapping[str, Any]
) -> list[str]:
    order = [n for n in named if n not in keywords]
    # Defaults stand in for what is left out before something given; behind it they are left to the function.
    while order and order[-1] not in values:
        order.pop()
    return order


def _names(named: Mapping[str, Any]) -> str:
    return ", ".join(named) or "none"


def _call(
    names: tuple[str, ...], args: tuple[Any, ...], static: Mapping[str, Any], given: list[Given]
) -> Call:
    said: dict[str, list[Given]] = {}
    for each in given:
        said.setdefault(each.name, []).append(each)
    domain = {}
    for position, name in enumerate(names):
        entries = said.get(name, [])
        chosen = {entry.domain for entry in entries}
        # One domain holds for all arrays of an argument; where they differ, the example has to speak.
        if len(chosen) == 1 and None not in chosen:
            domain[position] = entries[0].domain
    return Call(names, args, static, {k: v for k, v in domain.items() if v is not None})


def guess_kind(candidate: Any) -> Kind:
    """`"vjp"` for what carries a backward pass (a rule, a custom_vjp, a pair), else `"gradient"`.

    >>> guess_kind((max, min)), guess_kind(max)
    ('vjp', 'gradient')
    """
    backward = isinstance(candidate, Rule | jax.custom_vjp | tuple | list)
    return "vjp" if backward else "gradient"


def positions(wanted: tuple[str, ...], names: tuple[str, ...]) -> int | tuple[int, ...] | None:
    """`argnums` from numbers or names; None if nothing was said.

    Raises:
        UsageError: for an argument that there is not.

    >>> positions(("w",), ("w", "x")), positions(("0", "x"), ("w", "x")), positions((), ("w",))
    (0, (0, 1), None)
    """
    found = []
    for each in wanted:
        position = int(each) if each.isdigit() else names.index(each) if each in names else len(names)
        if position >= len(names):
            count = f"0 to {len(names) - 1}" if names else "none"
            raise UsageError(f"--argnums {each}: there are {count}: {', '.join(names)}.")
        found.append(position)
    if not found:
        return None
    return found[0] if len(found) == 1 else tuple(found)
