"""Hypothesis strategies: arrays out of domains, trees of them, a rule's arguments, cotangents.

Values are drawn one by one, with zeros, ties, edges and extremes among them, and every failing example is
shrunk: to zeros and ones, equal elements, the smallest shape. Shapes come from a small pool, because a new
shape costs a compilation and new values cost nothing.

>>> from hypothesis import given, settings
>>> from funcbp import rules
>>> from funcbp.verify import strategies
>>> @settings(max_examples=10, derandomize=True, database=None, deadline=None)
... @given(strategies.arguments(rules.softmax))
... def test_probabilities_are_not_negative(args):
...     assert (rules.softmax(*args) >= 0).all()
>>> test_probabilities_are_not_negative()

Needs hypothesis, which the extra `test` installs: `pip install "funcbp[test]"`.
"""

import math
from collections.abc import Hashable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jax import numpy as jnp
from jax.typing import DTypeLike

from .._rule import Rule
from .._signature import Argument
from ..domains import AwayFrom, Booleans, Domain, Integers, Normal, Point, Positive, Simplex, Uniform
from ._cases import DTYPES, Sizes, axis_sizes, cyclic, shape_of

try:
    from hypothesis import strategies as st
    from hypothesis.extra import numpy as hnp
    from hypothesis.strategies import SearchStrategy
except ImportError as error:
    raise ImportError(
        'funcbp.verify.strategies needs hypothesis: pip install "funcbp[test]", or pip install hypothesis.'
    ) from error

__all__ = ["arguments", "arrays", "cotangents", "pytrees"]

_USUAL = 4.0  # magnitudes up to this many times the scale are the bulk
_EXTREME = 2.0**13  # and this many times the scale the exception
_FEW = 64  # elements that are drawn one by one
_STARS = ((), (1,), (3,), (2, 3), (0,))
_LENGTHS = ((1,), (3, 2, 4, 5))


def arrays(
    domain: Domain,
    shape: tuple[int, ...],
    dtype: DTypeLike = "float32",
    *,
    sizes: Mapping[str, int] | None = None,
) -> SearchStrategy[np.ndarray]:
    """Arrays whose elements lie in a domain.

    Ties, zeros, edges of the domain and extreme magnitudes come up often; what fails shrinks element by
    element to 0 (the scale of `Positive`, the start of an interval), as far as it still fails. A domain that
    is not one of `funcbp.domains` is asked for a `sample`, and shrinks in its seed only.

    Args:
        domain: where the values live.
        shape: of the array.
        dtype: any floating, complex (real and imaginary part from the domain), integer or boolean dtype.
        sizes: length of every axis that the domain refers to by name, as `Integers(high="classes")` does.

    Returns:
        A strategy for NumPy arrays of this shape and dtype.

    Raises:
        ValueError: if the domain names an axis that `sizes` lacks.

    >>> from hypothesis import find, settings
    >>> from funcbp import domains
    >>> quick = settings(derandomize=True, database=None)
    >>> find(arrays(domains.Normal(), (3,)), lambda x: (x > 1).any(), settings=quick)
    array([0., 0., 2.], dtype=float32)
    """
    dtype = jnp.dtype(dtype)
    lengths = dict(sizes or {})
    if jnp.issubdtype(dtype, jnp.complexfloating):
        part = _real(domain, shape, np.finfo(dtype).dtype, lengths)
        return st.builds(lambda re, im: np.asarray(re + 1j * im, dtype), part, part)
    return _real(domain, shape, dtype, lengths)


def pytrees(domains: Any, like: Any) -> SearchStrategy[Any]:
    """Trees of arrays: everything that a function of parameters takes.

    Args:
        domains: a tree of domains, or a prefix of one: a domain that stands where `like` has a subtree is for
            all arrays in it.
        like: a tree of arrays or `jax.ShapeDtypeStruct`s, which give shapes and dtypes.

    Returns:
        A strategy for trees of NumPy arrays like `like`.

    Raises:
        ValueError: if `domains` is not a prefix of `like`.

    >>> from funcbp import domains
    >>> spec = {"w": jax.ShapeDtypeStruct((2, 3), "float32"), "labels": np.zeros(4, "int32")}
    >>> where = {"w": domains.Normal(), "labels": domains.Integers(0, 10)}
    >>> from hypothesis import find
    >>> jax.tree.map(np.shape, find(pytrees(where, spec), lambda tree: True))
    {'labels': (4,), 'w': (2, 3)}
    """

    def below(domain: Domain, subtree: Any) -> Any:
        return jax.tree.map(lambda leaf: arrays(domain, *_spec(leaf)), subtree)

    return _together(jax.tree.map(below, domains, like, is_leaf=_is_domain))


def cotangents(like: Any) -> SearchStrategy[Any]:
    """Cotangents for `jax.vjp`, in the tree of an output.

    Args:
        like: the output: a tree of arrays or `jax.ShapeDtypeStruct`s.

    Returns:
        A strategy for trees of NumPy arrays; an output of integers or booleans gets zeros of dtype float0, as
        JAX wants it.
    """

    def of(leaf: Any) -> SearchStrategy[np.ndarray]:
        shape, dtype = _spec(leaf)
        if jnp.issubdtype(dtype, jnp.inexact):
            return arrays(Normal(), shape, dtype)
        return st.just(np.zeros(shape, jax.dtypes.float0))

    return _together(jax.tree.map(of, like))


def arguments(
    rule: Rule, dtype: DTypeLike = "float32", *, static: Mapping[str, Hashable] | None = None
) -> SearchStrategy[tuple[Any, ...]]:
    """All arguments of a rule, from its signature, its domain and its named points.

    Args:
        rule: the rule.
        dtype: of the floating arguments; integers are int32.
        static: the static options with which it will be called; shapes that the rule refuses with them are
            not drawn.

    Returns:
        A strategy for tuples of NumPy arrays, None for an optional argument that is absent.

    Raises:
        ValueError: if the rule refuses every shape in the pool.

    >>> from hypothesis import find
    >>> from funcbp import rules
    >>> find(arguments(rules.relu), lambda args: args[0].ndim > 0)
    (array([0.], dtype=float32),)
    """
    options = dict(static or {})
    pool = [sizes for sizes in _pool(rule) if _accepts(rule, sizes, dtype, options)]
    if not pool:
        raise ValueError(f"{rule.name}: none of the shapes {list(_pool(rule))} is accepted with {options}.")
    # Alternatives, and not a shape drawn first: these shrink much faster.
    return st.one_of([_at_sizes(rule, sizes, jnp.dtype(dtype)) for sizes in pool])


def _pool(rule: Rule) -> Iterator[Sizes]:
    seen = []
    for star in _STARS:
        for lengths in _LENGTHS:
            sizes = axis_sizes(rule, star, lengths)
            if sizes not in seen:
                seen.append(sizes)
                yield sizes


def _accepts(rule: Rule, sizes: Sizes, dtype: DTypeLike, static: Mapping[str, Any]) -> bool:
    given = [jax.ShapeDtypeStruct(shape_of(a, sizes), _dtype(a, dtype)) for a in rule.signature.arguments]
    try:
        jax.eval_shape(lambda *args: rule.primal(*args, **static), *given)
    except ValueError:
        return False
    return True


def _dtype(argument: Argument, floating: DTypeLike) -> Any:
    return jnp.dtype(floating if argument.floating else DTYPES[argument.kind])


def _at_sizes(rule: Rule, sizes: Sizes, dtype: Any) -> SearchStrategy[tuple[Any, ...]]:
    lengths = {axis: size for axis, size in sizes.items() if isinstance(size, int)}

    def drawn(argument: Argument, at: Mapping[str, Any]) -> SearchStrategy[Any]:
        shape, own = shape_of(argument, sizes), _dtype(argument, dtype)
        if argument.name in at:
            return st.just(cyclic(at[argument.name], (1, *shape)).reshape(shape).astype(own))
        values = arrays(rule.domain[argument.name], shape, own, sizes=lengths)
        return st.none() | values if argument.optional else values

    def at(point: Point) -> SearchStrategy[tuple[Any, ...]]:
        return st.tuples(*(drawn(argument, point.at) for argument in rule.signature.arguments))

    return st.one_of([at(point) for point in (Point({}), *rule.points.values())])


def _spec(leaf: Any) -> tuple[tuple[int, ...], Any]:
    # An array keeps its dtype: 64-bit types may be on where its values are used.
    return np.shape(leaf), getattr(leaf, "dtype", None) or jnp.result_type(leaf)


def _is_domain(x: Any) -> bool:
    return hasattr(x, "sample")


def _together(tree: Any) -> SearchStrategy[Any]:
    leaves, structure = jax.tree.flatten(tree)
    return st.tuples(*leaves).map(structure.unflatten)


def _real(
    domain: Domain, shape: tuple[int, ...], dtype: np.dtype, sizes: dict[str, int]
) -> SearchStrategy[np.ndarray]:
    if isinstance(domain, Booleans):
        return _filled(bool, shape, st.booleans()).map(lambda x: x.astype(dtype))
    if isinstance(domain, Integers):
        return _filled(np.int64, shape, _integers(domain, sizes)).map(lambda x: x.astype(dtype))
    if isinstance(domain, Simplex):
        return _rows_on_simplex(shape).map(lambda x: x.astype(dtype))
    elements = _elements(domain)
    if elements is None:
        seeds = st.integers(0, 2**32 - 1).map(np.random.default_rng)
        return seeds.map(lambda rng: np.asarray(domain.sample(rng, shape, sizes), dtype))
    return _filled(np.float64, shape, elements).map(lambda x: _rounded(domain, x, dtype))


def _filled(dtype: Any, shape: tuple[int, ...], elements: SearchStrategy[Any]) -> SearchStrategy[np.ndarray]:
    # One value that fills the rest of an array is cheap, but then that value is what a failure shrinks to.
    fill = st.nothing() if math.prod(shape) <= _FEW else None
    return hnp.arrays(dtype, shape, elements=elements, fill=fill)


def _integers(domain: Integers, sizes: Mapping[str, int]) -> SearchStrategy[int]:
    high = domain.high
    if isinstance(high, str):
        if high not in sizes:
            raise ValueError(
                f"{domain} ends at the length of axis {high!r}: give it with sizes={{{high!r}: ...}}."
            )
        high = sizes[high]
    return st.integers(domain.low, max(high - 1, domain.low))


def _elements(domain: Domain) -> SearchStrategy[float] | None:
    match domain:
        case Normal(scale):
            return _around_zero(scale)
        case AwayFrom(points, margin, scale):
            return _around_zero(scale).map(lambda x: _moved(x, points, margin))
        case Positive(scale):
            exponents = st.floats(-_USUAL, _USUAL) | st.sampled_from([0.0, 9.0, -9.0])
            return exponents.map(lambda e: scale * float(np.exp(e)))
        case Uniform(low, high):
            return st.floats(0, 1).map(lambda t: low + t * (high - low))
    return None


def _around_zero(scale: float) -> SearchStrategy[float]:
    usual = st.floats(-_USUAL, _USUAL, allow_subnormal=False)
    special = st.sampled_from([0.0, 1.0, -1.0, _EXTREME, -_EXTREME, 1 / _EXTREME])
    return (usual | special).map(lambda x: scale * x)


def _moved(x: float, points: tuple[float, ...], margin: float) -> float:
    for point in points:
        if abs(x - point) < margin:
            x = point + float(np.copysign(margin, x - point))
    return x


def _rows_on_simplex(shape: tuple[int, ...]) -> SearchStrategy[np.ndarray]:
    if not shape:
        return st.just(np.ones(()))

    def normalized(weights: np.ndarray) -> np.ndarray:
        # A row without any weight becomes the simplest point of the simplex: a corner.
        weights[..., :1] += weights.sum(-1, keepdims=True) == 0
        return weights / weights.sum(-1, keepdims=True)

    weights = st.floats(0, 1, allow_subnormal=False) | st.sampled_from([0.0, 1.0, 1 / _EXTREME])
    return _filled(np.float64, shape, weights).map(normalized)


def _rounded(domain: Domain, x: np.ndarray, dtype: np.dtype) -> np.ndarray:
    limits = jnp.finfo(dtype)
    rounded = np.asarray(np.clip(x, float(limits.min), float(limits.max)), dtype)
    if isinstance(domain, Uniform):
        # The interval is half open, and rounding must not close it.
        below = np.nextafter(np.asarray(domain.high, dtype), np.asarray(domain.low, dtype))
        rounded = np.asarray(np.minimum(rounded, below))
    return rounded
