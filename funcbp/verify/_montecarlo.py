"""Monte Carlo arithmetic: how much rounding can move each element of a result.

A function is evaluated in float64 with every rounded intermediate multiplied by 1 + A ξ, ξ uniform in [-1,
1], once for each of a few noise samples (Parker, "Monte Carlo Arithmetic", 1997; the CESTAC method of
Vignes, 1993). The spread of the results, divided by A, is the error to expect per unit of eps: it knows how
many terms were summed and what cancelled, element by element. A is so small that the result is linear in
it: one evaluation serves every dtype.

Branches are pinned: comparisons, maxima and selections are decided by the undisturbed values, so that noise
does not jump over a kink. With `pin_branches=False` it may: an element whose spread then explodes sits on
one.
"""

import math
from collections.abc import Callable
from typing import Any, Self

import jax
import numpy as np
from jax import lax
from jax import numpy as jnp

from .. import _compat
from .._compat import JaxprEqn, quick_jit
from ._arithmetic import NUMPY, Arithmetic
from ._lift import lifted
from ._pairs import EXACT, FACTORIZATIONS, SUMS, Disturbance, Pair, elements, evaluate, inexact

__all__ = ["AMPLITUDE", "SAMPLES", "monte_carlo", "sampled", "uniform"]

AMPLITUDE = 2.0**-26  # half of float64's digits: linear in the noise, and far above float64's own rounding
SAMPLES = 16

_AT_ONCE = 2**24  # elements computed in all; NumPy takes as long for them as XLA to compile
_COLUMNS = frozenset({"lu", "qr"})
_WHOLE = frozenset({"eig", "eigh", "hessenberg", "schur", "svd"})
_PIECEWISE_CONSTANT = frozenset({"ceil", "floor", "nextafter", "round", "sign"})


class _Noise(Disturbance):
    """Every rounding made visible; with `pin`, decisions are those of the undisturbed values."""

    def __init__(self, values: jax.Array | None, pin: bool) -> None:
        super().__init__(values)
        self.pin = pin

    def primitive(self, name: str, equation: JaxprEqn, inputs: list[Pair]) -> list[Pair]:
        return _primitive(name, equation, inputs, self)

    def after(self, outputs: list[Pair]) -> list[Pair]:
        return outputs if self.pin else [Pair(pair.noisy, pair.noisy) for pair in outputs]


class _Drawn(_Noise):
    """For programs that are evaluated at once: the noise is drawn where it is needed."""

    arithmetic = NUMPY

    def __init__(self, rng: np.random.Generator) -> None:
        super().__init__(None, True)
        self.rng = rng

    def draw(self, *shape: int) -> Any:
        return self.rng.uniform(-1.0, 1.0, shape)

    def count(self, evaluation: Callable[[Self], Any]) -> int:
        del evaluation
        return 0

    def copy(self, values: Any) -> Self:
        del values
        return self


def monte_carlo(
    function: Callable[..., Any],
    *,
    samples: int = SAMPLES,
    perturb_inputs: bool = True,
    pin_branches: bool = True,
    lift: bool = False,
) -> Callable[..., tuple[Any, Any]]:
    """`(seed, *args) -> (value, spread)`: the value of `function(*args)` and its expected error per unit of
    eps.

    To be called where 64-bit types are enabled, with float64 arguments; can be jitted and vmapped over
    arguments.

    Args:
        function: any traceable function of pytrees.
        samples: number of noisy evaluations; they run one after another.
        perturb_inputs: whether inputs are taken as rounded (a backward error of one eps is then allowed).
        pin_branches: whether comparisons are decided by the undisturbed values.
        lift: whether casts to narrower types inside the function are ignored, so that a function that
            computes in float32 whatever it is given has a value in float64 all the same.

    Returns:
        A function whose two results have the tree and shapes of `function`'s; the spread is the root mean
        square over the samples, and zero for integers.
    """

    def run(seed: Any, *args: Any) -> tuple[Any, Any]:
        closed, shape = jax.make_jaxpr(lifted(function) if lift else function, return_shape=True)(*args)
        leaves = jax.tree.leaves(args)

        def noisy(values: jax.Array | None) -> list[Any]:
            noise = _Noise(values, pin_branches)
            pairs = [
                _rounded(x, x, noise) if perturb_inputs else Pair(x, x) for x in map(jnp.asarray, leaves)
            ]
            return [pair.noisy for pair in evaluate(closed, pairs, noise)]

        count = _Noise(None, pin_branches).count(
            lambda noise: evaluate(closed, [_rounded(x, x, noise) for x in leaves], noise)
        )
        values = uniform(seed, samples, count)
        exact = _compat.jaxpr_as_fun(closed)(*leaves)
        spreads = [
            _root_mean_square(x, y) if inexact(x) else jnp.zeros(jnp.shape(x))
            for x, y in zip(exact, lax.map(noisy, values), strict=True)
        ]
        tree = jax.tree.structure(shape)
        return tree.unflatten(exact), tree.unflatten(spreads)

    return run


def sampled(
    function: Callable[..., Any], *, samples: int = SAMPLES, lift: bool = False
) -> Callable[..., tuple[Any, Any]]:
    """Value and spread for stacked examples, `(seed, *args) -> (value, spread)`: as `monte_carlo` under vmap,
    computed at once by NumPy.

    The samples are rows beside the examples, so that every equation is evaluated once for all of them, and
    nothing is compiled. What would take longer than compiling is compiled.
    """
    function = lifted(function) if lift else function
    traced: dict[Any, Any] = {}

    @quick_jit
    def compiled(seed: Any, *args: Any) -> tuple[Any, Any]:
        return lax.map(lambda one: monte_carlo(function, samples=samples)(seed, *one), args)

    def run(seed: int, *args: Any) -> tuple[Any, Any]:
        leaves, tree = jax.tree.flatten(args)
        if any(jnp.issubdtype(x.dtype, jax.dtypes.extended) for x in leaves):
            return jax.device_get(compiled(seed, *args))
        shapes = tuple(jax.ShapeDtypeStruct((samples * len(x), *x.shape[1:]), x.dtype) for x in leaves)
        if (tree, shapes) not in traced:
            traced[tree, shapes] = jax.make_jaxpr(jax.vmap(function), return_shape=True)(
                *tree.unflatten(shapes)
            )
        closed, shape = traced[tree, shapes]
        if elements(closed) > _AT_ONCE:
            return jax.device_get(compiled(seed, *args))
        rows = [np.concatenate([np.asarray(x)] * samples) for x in leaves]
        noise = _Drawn(np.random.default_rng(seed))
        pairs = evaluate(closed, [_rounded(x, x, noise) for x in rows], noise)

        def stacked(x: Any) -> Any:
            return x.reshape(samples, len(x) // samples, *x.shape[1:])

        exact = [stacked(pair.exact)[0] for pair in pairs]
        spreads = [
            _root_mean_square(x, stacked(pair.noisy), np) if inexact(x) else np.zeros(x.shape)
            for x, pair in zip(exact, pairs, strict=True)
        ]
        outputs = jax.tree.structure(shape)
        return outputs.unflatten(exact), outputs.unflatten(spreads)

    return run


def uniform(seed: Any, samples: int, count: int) -> jax.Array:
    """Numbers between -1 and 1. Traceable, where 64-bit types are enabled."""
    # A hash of the position (the finalizer of MurmurHash3): threefry would take longer to compile than all
    # the rest.
    x = jnp.arange(samples * count, dtype=jnp.uint64) + (jnp.asarray(seed, jnp.uint64) << 40)
    for multiplier in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        x = (x ^ (x >> 33)) * jnp.uint64(multiplier)
    return (((x ^ (x >> 33)) >> 11).astype(jnp.float64) * 2.0**-52 - 1).reshape(samples, count)


def _root_mean_square(exact: Any, noisy: Any, numpy: Any = jnp) -> Any:
    difference = numpy.abs(noisy - exact) / AMPLITUDE
    # In units of the largest, whose square would underflow where the value itself is tiny.
    largest = numpy.max(difference, axis=0)
    units = difference / numpy.where(largest > 0, largest, 1)
    return largest * numpy.sqrt(numpy.mean(units * units, axis=0))


def _rounded(exact: Any, noisy: Any, noise: Disturbance, factor: float = 1.0) -> Pair:
    """`noisy` with one rounding more."""
    if not inexact(exact):
        return Pair(exact, exact)
    # In a function that computes in less than float64 itself, the noise may be lost: its dtypes come first.
    rounded = noisy * (1 + factor * AMPLITUDE * noise.draw(*jnp.shape(exact)))
    return Pair(exact, rounded.astype(jnp.result_type(exact)))


def _primitive(name: str, equation: JaxprEqn, inputs: list[Pair], noise: Disturbance) -> list[Pair]:
    bind = noise.arithmetic.bind
    exact = bind(equation, [pair.exact for pair in inputs])
    if not any(inexact(x) for x in exact) or name in _PIECEWISE_CONSTANT:
        return [Pair(x, x) for x in exact]
    if name in EXACT and all(pair.noisy is pair.exact for pair in inputs):
        return [Pair(x, x) for x in exact]
    if name in _PINNED:
        return [
            Pair(x, y)
            for x, y in zip(exact, _PINNED[name](equation, inputs, exact, noise.arithmetic), strict=True)
        ]
    if name in FACTORIZATIONS:
        inputs = [_factorized(name, p, noise) for p in inputs]
    noisy = bind(equation, [pair.noisy for pair in inputs])
    pairs = [Pair(x, y) for x, y in zip(exact, noisy, strict=True)]
    if name in EXACT:
        return pairs
    if name in SUMS:
        return [_summed(name, equation, inputs, pairs[0], noise)]
    return [_rounded(pair.exact, pair.noisy, noise) for pair in pairs]


def _factorized(name: str, pair: Pair, noise: Disturbance) -> Pair:
    """What a stable factorization takes for its argument: its backward error is relative to columns, or to
    the whole matrix, not to single entries."""
    shape = jnp.shape(pair.exact)
    factor = math.sqrt(max(shape[-2:], default=1))
    if name not in _COLUMNS | _WHOLE or len(shape) < 2 or not inexact(pair.exact):
        return _rounded(pair.exact, pair.noisy, noise, factor)
    numpy = noise.arithmetic.numpy
    axes = -2 if name in _COLUMNS else (-2, -1)
    size = numpy.max(numpy.abs(pair.exact), axis=axes, keepdims=True, initial=0)
    noisy = pair.noisy + factor * AMPLITUDE * numpy.where(numpy.isfinite(size), size, 0) * noise.draw(*shape)
    return Pair(pair.exact, noisy.astype(jnp.result_type(pair.exact)))


def _summed(name: str, equation: JaxprEqn, inputs: list[Pair], pair: Pair, noise: Disturbance) -> Pair:
    # Every partial sum is rounded. For n terms t added one after another in random order, Σ over k of the
    # squared partial sum s_k is (n - 1)/3 s² + (n - 1)/6 Σt² on average: both are at hand without forming
    # the partial sums, because Σt² is the same linear operation on squared operands.
    n, numpy = _terms(name, equation), noise.arithmetic.numpy
    squares = [p.exact * p.exact if inexact(p.exact) else p.exact for p in inputs]
    (square,) = noise.arithmetic.bind(equation, [numpy.abs(s) if inexact(s) else s for s in squares])
    size = numpy.sqrt(numpy.abs(numpy.where(numpy.isfinite(square), square, 0)))
    products = float(len(inputs) > 1)
    partial = math.sqrt(1 + (n - 1) / 3) * pair.exact * noise.draw(*jnp.shape(pair.exact))
    terms = math.sqrt(products + (n - 1) / 6) * size * noise.draw(*jnp.shape(pair.exact))
    summed = pair.noisy + AMPLITUDE * (partial + terms)
    return Pair(pair.exact, summed.astype(jnp.result_type(pair.exact)))


def _terms(name: str, equation: JaxprEqn) -> int:
    """How many terms are added up for one element of a sum."""
    shapes = _compat.shapes(equation)
    parameters = equation.params
    if name == "dot_general":
        (contracted, _), _ = parameters["dimension_numbers"]
        n = math.prod(shapes[0][axis] for axis in contracted)
    elif name == "reduce_sum":
        n = math.prod(shapes[0][axis] for axis in parameters["axes"])
    elif name == "cumsum":
        n = shapes[0][parameters["axis"]]
    elif name == "reduce_window_sum":
        n = math.prod(parameters["window_dimensions"])
    elif name == "conv_general_dilated":
        n = math.prod(shapes[1]) // max(shapes[1][parameters["dimension_numbers"].rhs_spec[0]], 1)
    else:
        examples = parameters["dimension_numbers"].scatter_indices_batching_dims
        n = 1 + math.prod(size for axis, size in enumerate(shapes[1][:-1]) if axis not in examples)
    return max(n, 1)


def _larger(equation: JaxprEqn, inputs: list[Pair], exact: list[Any], arithmetic: Arithmetic) -> list[Any]:
    del equation
    x, y = inputs
    return [arithmetic.numpy.where(x.exact == exact[0], x.noisy, y.noisy)]


def _extreme(fill: float, reduce: str) -> Callable[..., list[Any]]:
    def pinned(equation: JaxprEqn, inputs: list[Pair], exact: list[Any], arithmetic: Arithmetic) -> list[Any]:
        axes, numpy = tuple(equation.params["axes"]), arithmetic.numpy
        winners = inputs[0].exact == numpy.expand_dims(exact[0], axes)
        return [getattr(numpy, reduce)(numpy.where(winners, inputs[0].noisy, fill), axis=axes, initial=fill)]

    return pinned


def _sort(equation: JaxprEqn, inputs: list[Pair], exact: list[Any], arithmetic: Arithmetic) -> list[Any]:
    del exact
    axis, keys = equation.params["dimension"], equation.params["num_keys"]
    order = arithmetic.order([p.exact for p in inputs], axis, keys)
    return [arithmetic.numpy.take_along_axis(p.noisy, order, axis) for p in inputs]


def _by_window(equation: JaxprEqn, inputs: list[Pair], exact: list[Any], arithmetic: Arithmetic) -> list[Any]:
    del exact
    # The last operand but the initial value decides which element of a window is meant; only the first is
    # summed.
    return arithmetic.bind(equation, [inputs[0].noisy, *(p.exact for p in inputs[1:])])


_PINNED: dict[str, Callable[..., list[Any]]] = {
    "max": _larger,
    "min": _larger,
    "reduce_max": _extreme(-math.inf, "max"),
    "reduce_min": _extreme(math.inf, "min"),
    "sort": _sort,
    "select_and_gather_add": _by_window,
    "select_and_scatter_add": _by_window,
}
