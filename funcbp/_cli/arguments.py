"""`--arg x=float32[32,4]`, `--arg "y=int32[32] in 0..9"`, `--arg lam=0.1`: examples of arguments, in words.

A value is an array to be drawn (`dtype[shape]`, where needed `in` a domain), an array in a file (`@file.npy`,
`@file.npz:name`), a random key (`key`, `key(3)`), or a Python literal. `params.w=...` and `layers.0.w=...`
put arrays into dicts and lists.
"""

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import numpy as jnp

from .. import domains
from ..domains import Domain
from .errors import UsageError

__all__ = ["Given", "needs_x64", "parse", "tree_of", "values_of"]

_ARRAY = re.compile(r"(?P<dtype>\w+)\s*\[(?P<shape>[^\]]*)\](?:\s+in\s+(?P<domain>.+))?")
_FILE = re.compile(r"@(?P<path>.+?)(?:\s+in\s+(?P<domain>.+))?")
_KEY = re.compile(r"key(?:\((?P<seed>\d+)\))?")
_NAMED = re.compile(r"(?P<name>[a-z]+)(?:\((?P<values>[^)]*)\))?")
_WORDS: Mapping[str, Any] = {"true": True, "false": False, "none": None}
_DOMAINS = "0..9, 0.0..1.0, normal, normal(0.1), positive, positive(10), simplex, away(0), booleans"


@dataclass(frozen=True)
class Given:
    """One `--arg`.

    Attributes:
        path: the argument's name, then keys and indices in it.
        written: what stands after the `=`.
        value: a NumPy array, a key, a literal; None while it is still to be drawn.
        spec: shape and dtype of what is to be drawn.
        domain: where it lives, if that was said.
    """

    path: tuple[str | int, ...]
    written: str
    value: Any = None
    spec: jax.ShapeDtypeStruct | None = None
    domain: Domain | None = None

    @property
    def name(self) -> str:
        """The argument that it belongs to."""
        return str(self.path[0])

    def draw(self, rng: np.random.Generator) -> Any:
        """The value: an array drawn from its domain, or what was given."""
        if self.spec is None:
            return self.value
        domain = self.domain or domains.Normal()
        shape, dtype = self.spec.shape, self.spec.dtype
        drawn = domain.sample(rng, shape, {})
        if jnp.issubdtype(dtype, jnp.complexfloating):
            drawn = drawn + 1j * domain.sample(rng, shape, {})
        return np.asarray(drawn).astype(dtype)


def parse(text: str) -> Given:
    """One `name=value` of the command line.

    Raises:
        UsageError: if it is not understood, with what would be.

    >>> parse("y = int32[32] in 0..9").domain
    Integers(low=0, high=10)
    >>> parse("params.0.w=float32[4, 3]").path
    ('params', 0, 'w')
    >>> parse("lam=0.1").value, parse("reduction=mean").value
    (0.1, 'mean')
    """
    left, equals, right = text.partition("=")
    left, right = left.strip(), right.strip()
    path = tuple(int(part) if part.isdigit() else part for part in left.split("."))
    if not equals or not right or not all(str(part).isidentifier() or isinstance(part, int) for part in path):
        raise UsageError(f"--arg {text!r}: write it as name=value, such as x=float32[32,4] or lam=0.1.")
    if match := _ARRAY.fullmatch(right):
        spec = jax.ShapeDtypeStruct(_shape(match["shape"], text), _dtype(match["dtype"], text))
        return Given(path, right, spec=spec, domain=_domain_for(spec.dtype, match["domain"], text))
    if match := _FILE.fullmatch(right):
        array = _from_file(match["path"], text)
        domain = None if match["domain"] is None else _domain(match["domain"], array.dtype, text)
        return Given(path, right, array, domain=domain)
    if match := _KEY.fullmatch(right):
        return Given(path, right, jax.random.key(int(match["seed"] or 0)))
    return Given(path, right, _literal(right, text))


def needs_x64(given: Given) -> bool:
    """Whether its dtype is one that JAX has only with 64-bit types on."""
    dtype = given.spec.dtype if given.spec is not None else getattr(given.value, "dtype", None)
    wide = ("float64", "complex128", "int64", "uint64")
    return dtype is not None and str(dtype) in wide


def values_of(given: list[Given], seed: int) -> dict[str, Any]:
    """Every argument by name: arrays drawn from one generator, entries of trees put together."""
    rng = np.random.default_rng(seed)
    return tree_of([(g.path, g.draw(rng)) for g in given])


def tree_of(entries: list[tuple[tuple[str | int, ...], Any]]) -> dict[str, Any]:
    """Nested dicts and lists out of paths.

    Raises:
        UsageError: if an entry is there twice, or a list has holes.

    >>> tree_of([(("p", 0, "w"), 1), (("p", 1, "w"), 2), (("x",), 3)])
    {'p': [{'w': 1}, {'w': 2}], 'x': 3}
    """
    root: dict[Any, Any] = {}
    for path, value in entries:
        at = root
        for part in path[:-1]:
            at = at.setdefault(part, _Node())
            if not isinstance(at, _Node):
                raise UsageError(f"--arg {_dotted(path)}: {part} is an array already.")
        if path[-1] in at:
            raise UsageError(f"--arg {_dotted(path)} is given twice.")
        at[path[-1]] = value
    return {str(name): _built(value, str(name)) for name, value in root.items()}


class _Node(dict[Any, Any]):
    """A container in the making, told apart from a dict that is a value."""


def _built(value: Any, name: str) -> Any:
    if not isinstance(value, _Node):
        return value
    entries = {key: _built(entry, f"{name}.{key}") for key, entry in value.items()}
    if not any(isinstance(key, int) for key in entries):
        return entries
    if set(entries) != set(range(len(entries))):
        raise UsageError(f"--arg {name}: a list needs entries 0 to {len(entries) - 1}, got {list(entries)}.")
    return [entries[i] for i in range(len(entries))]


def _dotted(path: tuple[str | int, ...]) -> str:
    return ".".join(map(str, path))


def _shape(text: str, whole: str) -> tuple[int, ...]:
    sizes = [size.strip() for size in text.split(",") if size.strip()]
    if not all(size.isdigit() for size in sizes):
        raise UsageError(
            f"--arg {whole!r}: [{text}] is no shape; write sizes, such as [32,4], or [] for none."
        )
    return tuple(map(int, sizes))


def _dtype(name: str, whole: str) -> Any:
    try:
        dtype = jnp.dtype(name)
    except TypeError:
        dtype = None
    if dtype is None or not (jnp.issubdtype(dtype, jnp.number) or dtype == np.bool_):
        raise UsageError(
            f"--arg {whole!r}: {name!r} is no dtype; write float32, bfloat16, complex64, int32, bool, ..."
        )
    return dtype


def _domain_for(dtype: Any, text: str | None, whole: str) -> Domain | None:
    if text is not None:
        return _domain(text, dtype, whole)
    if jnp.issubdtype(dtype, jnp.integer):
        raise UsageError(f"--arg {whole!r}: say which integers, both ends included: '{whole} in 0..9'.")
    return domains.Booleans() if dtype == np.bool_ else None


def _domain(text: str, dtype: Any, whole: str) -> Domain:
    text = text.strip()
    unknown = UsageError(f"--arg {whole!r}: {text!r} is no domain for {dtype}; there are {_DOMAINS}.")
    integers = jnp.issubdtype(dtype, jnp.integer)
    low, dots, high = text.partition("..")
    match = _NAMED.fullmatch(text)
    try:
        if dots:
            return _range(low, high, integers)
        if match is None or integers:
            raise unknown
        return _named(match["name"], tuple(float(v) for v in (match["values"] or "").split(",") if v.strip()))
    except (KeyError, TypeError, ValueError):
        raise unknown from None


def _range(low: str, high: str, integers: bool) -> Domain:
    if integers:
        first, last = int(low), int(high)
        if first > last:
            raise ValueError
        return domains.Integers(first, last + 1)
    lower, upper = float(low), float(high)
    if lower >= upper:
        raise ValueError
    return domains.Uniform(lower, upper)


def _named(name: str, values: tuple[float, ...]) -> Domain:
    if name == "away":
        return domains.AwayFrom(values or (0.0,))
    simple = {
        "normal": domains.Normal,
        "positive": domains.Positive,
        "simplex": domains.Simplex,
        "booleans": domains.Booleans,
    }
    return simple[name](*values)


def _from_file(text: str, whole: str) -> np.ndarray:
    name, _, entry = text.partition(":")
    path = Path(name)
    if not path.is_file():
        raise UsageError(f"--arg {whole!r}: there is no file {path}.")
    try:
        loaded = np.load(path, allow_pickle=False)
    except (ValueError, OSError) as error:
        raise UsageError(f"--arg {whole!r}: {path} cannot be read as .npy or .npz: {error}") from error
    if isinstance(loaded, np.ndarray):
        return loaded
    with loaded:
        names = loaded.files
        if not entry and len(names) == 1:
            entry = names[0]
        if entry not in names:
            raise UsageError(f"--arg {whole!r}: say which array, as @{path}:{names[0]}; there are {names}.")
        return loaded[entry]


def _literal(text: str, whole: str) -> Any:
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        # The shell takes the quotes away: a bare word is a string.
        if text.isidentifier():
            return text
        raise UsageError(
            f"--arg {whole!r}: {text!r} is not understood; write dtype[shape], as float32[32,4], "
            "@file.npy, key, a number, true, false or a word."
        ) from None
    return _array(value, whole) if isinstance(value, list) else value


def _array(value: list[Any], whole: str) -> np.ndarray:
    try:
        array = np.asarray(value)
    except ValueError:
        raise UsageError(f"--arg {whole!r}: rows of different lengths are no array.") from None
    if array.dtype.kind not in "bifc":
        raise UsageError(f"--arg {whole!r}: only lists of numbers are arrays.")
    return array.astype(np.float32) if array.dtype == np.float64 else array
