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
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
from jax import lax
from jax import numpy as jnp

from .. import _compat
from .._compat import ClosedJaxpr, JaxprEqn, Literal

__all__ = ["AMPLITUDE", "SAMPLES", "monte_carlo"]

AMPLITUDE = 2.0**-26  # half of float64's digits: linear in the noise, and far above float64's own rounding
SAMPLES = 16

# Nothing is rounded: the value is moved, negated, chosen or known.
_EXACT = frozenset(
    {
        "abs",
        "bitcast_convert_type",
        "broadcast_in_dim",
        "clamp",
        "complex",
        "concatenate",
        "conj",
        "convert_element_type",
        "copy",
        "copy_p",
        "cummax",
        "cummin",
        "device_put",
        "dynamic_slice",
        "dynamic_update_slice",
        "empty",
        "expand_dims",
        "gather",
        "imag",
        "iota",
        "name",
        "neg",
        "optimization_barrier",
        "pad",
        "real",
        "reduce_precision",
        "reduce_window_max",
        "reduce_window_min",
        "reshape",
        "rev",
        "scatter",
        "select_n",
        "sharding_constraint",
        "slice",
        "split",
        "squeeze",
        "stop_gradient",
        "transpose",
    }
)
_PIECEWISE_CONSTANT = frozenset({"ceil", "floor", "nextafter", "round", "sign"})
_SUMS = frozenset(
    {
        "conv_general_dilated",
        "cumsum",
        "dot_general",
        "reduce_sum",
        "reduce_window_sum",
        "scatter-add",
        "scatter_add",
    }
)
_FACTORIZATIONS = frozenset(
    {
        "cholesky",
        "custom_linear_solve",
        "eig",
        "eigh",
        "fft",
        "hessenberg",
        "householder_product",
        "linear_solve",
        "lu",
        "qr",
        "schur",
        "svd",
        "triangular_solve",
        "tridiagonal",
        "tridiagonal_solve",
    }
)


class _Pair(NamedTuple):
    """A value as it is, and with noise (the same object while no noise has reached it)."""

    exact: Any
    noisy: Any


class _Noise:
    """Hands out slices of one long vector of noise; without a vector it only counts."""

    def __init__(self, values: jax.Array | None, pin: bool) -> None:
        self.values, self.pin, self.used = values, pin, 0

    def draw(self, *shape: int) -> jax.Array:
        """Noise of a shape."""
        start, self.used = self.used, self.used + math.prod(shape)
        if self.values is None:
            return jnp.zeros(shape)
        return self.values[start : self.used].reshape(shape)


def monte_carlo(
    function: Callable[..., Any],
    *,
    samples: int = SAMPLES,
    perturb_inputs: bool = True,
    pin_branches: bool = True,
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

    Returns:
        A function whose two results have the tree and shapes of `function`'s; the spread is the root mean
        square over the samples, and zero for integers.
    """

    def run(seed: Any, *args: Any) -> tuple[Any, Any]:
        closed, shape = jax.make_jaxpr(function, return_shape=True)(*args)
        leaves = jax.tree.leaves(args)

        def noisy(values: jax.Array | None) -> list[Any]:
            noise = _Noise(values, pin_branches)
            pairs = [
                _rounded(x, x, noise) if perturb_inputs else _Pair(x, x) for x in map(jnp.asarray, leaves)
            ]
            return [pair.noisy for pair in _evaluate(closed, pairs, noise)]

        count = _count(
            lambda noise: _evaluate(closed, [_rounded(x, x, noise) for x in leaves], noise), pin_branches
        )
        values = _uniform(seed, samples, count)
        exact = _compat.jaxpr_as_fun(closed)(*leaves)
        spreads = [
            _root_mean_square(x, y) if _inexact(x) else jnp.zeros(jnp.shape(x))
            for x, y in zip(exact, lax.map(noisy, values), strict=True)
        ]
        tree = jax.tree.structure(shape)
        return tree.unflatten(exact), tree.unflatten(spreads)

    return run


def _uniform(seed: Any, samples: int, count: int) -> jax.Array:
    # A hash of the position (the finalizer of MurmurHash3): threefry would take longer to compile than all
    # the rest.
    x = jnp.arange(samples * count, dtype=jnp.uint64) + (jnp.asarray(seed, jnp.uint64) << 40)
    for multiplier in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        x = (x ^ (x >> 33)) * jnp.uint64(multiplier)
    return (((x ^ (x >> 33)) >> 11).astype(jnp.float64) * 2.0**-52 - 1).reshape(samples, count)


def _root_mean_square(exact: jax.Array, noisy: jax.Array) -> jax.Array:
    difference = jnp.abs(noisy - exact) / AMPLITUDE
    return jnp.sqrt(jnp.mean(difference * difference, axis=0))


def _count(evaluate: Callable[[_Noise], Any], pin: bool) -> int:
    noise = _Noise(None, pin)

    def dry() -> int:
        evaluate(noise)
        return 0

    jax.eval_shape(dry)
    return noise.used


def _inexact(x: Any) -> bool:
    return jnp.issubdtype(jnp.result_type(x), jnp.inexact)


def _rounded(exact: Any, noisy: Any, noise: _Noise, factor: float = 1.0) -> _Pair:
    """`noisy` with one rounding more."""
    if not _inexact(exact):
        return _Pair(exact, exact)
    # In a function that computes in less than float64 itself, the noise may be lost: its dtypes come first.
    rounded = noisy * (1 + factor * AMPLITUDE * noise.draw(*jnp.shape(exact)))
    return _Pair(exact, rounded.astype(jnp.result_type(exact)))


def _evaluate(closed: ClosedJaxpr, pairs: Sequence[_Pair], noise: _Noise) -> list[_Pair]:
    environment: dict[Any, _Pair] = {}
    environment.update(zip(closed.jaxpr.constvars, [_Pair(c, c) for c in closed.consts], strict=True))
    environment.update(zip(closed.jaxpr.invars, pairs, strict=True))

    def read(atom: Any) -> _Pair:
        return _Pair(atom.val, atom.val) if isinstance(atom, Literal) else environment[atom]

    for equation in closed.jaxpr.eqns:
        outputs = _equation(equation, [read(atom) for atom in equation.invars], noise)
        environment.update(zip(equation.outvars, outputs, strict=True))
    return [read(atom) for atom in closed.jaxpr.outvars]


def _equation(equation: JaxprEqn, inputs: list[_Pair], noise: _Noise) -> list[_Pair]:
    name = equation.primitive.name
    inner = _compat.called(equation)
    if inner is not None:
        outputs = _evaluate(inner, inputs, noise)
    elif name in _CONTROL:
        outputs = _CONTROL[name](equation, inputs, noise)
    else:
        outputs = _primitive(name, equation, inputs, noise)
    outputs = [pair if _inexact(pair.exact) else _Pair(pair.exact, pair.exact) for pair in outputs]
    return outputs if noise.pin else [_Pair(pair.noisy, pair.noisy) for pair in outputs]


def _primitive(name: str, equation: JaxprEqn, inputs: list[_Pair], noise: _Noise) -> list[_Pair]:
    exact = _compat.bind(equation, [pair.exact for pair in inputs])
    if not any(_inexact(x) for x in exact) or name in _PIECEWISE_CONSTANT:
        return [_Pair(x, x) for x in exact]
    if name in _EXACT and all(pair.noisy is pair.exact for pair in inputs):
        return [_Pair(x, x) for x in exact]
    if name in _PINNED:
        return [_Pair(x, y) for x, y in zip(exact, _PINNED[name](equation, inputs, exact), strict=True)]
    if name in _FACTORIZATIONS:
        inputs = [
            _rounded(p.exact, p.noisy, noise, math.sqrt(max(jnp.shape(p.exact), default=1))) for p in inputs
        ]
    noisy = _compat.bind(equation, [pair.noisy for pair in inputs])
    pairs = [_Pair(x, y) for x, y in zip(exact, noisy, strict=True)]
    if name in _EXACT:
        return pairs
    if name in _SUMS:
        return [_summed(name, equation, inputs, pairs[0], noise)]
    return [_rounded(pair.exact, pair.noisy, noise) for pair in pairs]


def _summed(name: str, equation: JaxprEqn, inputs: list[_Pair], pair: _Pair, noise: _Noise) -> _Pair:
    # Every partial sum is rounded. For n terms t added one after another in random order, Σ over k of the
    # squared partial sum s_k is (n - 1)/3 s² + (n - 1)/6 Σt² on average: both are at hand without forming
    # the partial sums, because Σt² is the same linear operation on squared operands.
    n = _terms(name, equation)
    squares = [p.exact * p.exact if _inexact(p.exact) else p.exact for p in inputs]
    (square,) = _compat.bind(equation, [jnp.abs(s) if _inexact(s) else s for s in squares])
    size = jnp.sqrt(jnp.abs(jnp.where(jnp.isfinite(square), square, 0)))
    products = float(len(inputs) > 1)
    partial = math.sqrt(1 + (n - 1) / 3) * pair.exact * noise.draw(*jnp.shape(pair.exact))
    terms = math.sqrt(products + (n - 1) / 6) * size * noise.draw(*jnp.shape(pair.exact))
    summed = pair.noisy + AMPLITUDE * (partial + terms)
    return _Pair(pair.exact, summed.astype(jnp.result_type(pair.exact)))


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
        n = 1 + math.prod(shapes[1][:-1])
    return max(n, 1)


def _larger(equation: JaxprEqn, inputs: list[_Pair], exact: list[Any]) -> list[Any]:
    del equation
    x, y = inputs
    return [jnp.where(x.exact == exact[0], x.noisy, y.noisy)]


def _extreme(fill: float, reduce: Callable[..., jax.Array]) -> Callable[..., list[Any]]:
    def pinned(equation: JaxprEqn, inputs: list[_Pair], exact: list[Any]) -> list[Any]:
        axes = equation.params["axes"]
        winners = inputs[0].exact == jnp.expand_dims(exact[0], axes)
        return [reduce(jnp.where(winners, inputs[0].noisy, fill), axis=axes, initial=fill)]

    return pinned


def _sort(equation: JaxprEqn, inputs: list[_Pair], exact: list[Any]) -> list[Any]:
    del exact
    axis, keys = equation.params["dimension"], equation.params["num_keys"]
    shape = inputs[0].exact.shape
    iota = lax.broadcasted_iota(jnp.int32, shape, axis)
    *_, order = lax.sort((*(p.exact for p in inputs), iota), dimension=axis, num_keys=keys, is_stable=True)
    return [jnp.take_along_axis(p.noisy, order, axis) for p in inputs]


def _by_window(equation: JaxprEqn, inputs: list[_Pair], exact: list[Any]) -> list[Any]:
    del exact
    # The last operand but the initial value decides which element of a window is meant; only the first is
    # summed.
    return _compat.bind(equation, [inputs[0].noisy, *(p.exact for p in inputs[1:])])


_PINNED: dict[str, Callable[..., list[Any]]] = {
    "max": _larger,
    "min": _larger,
    "reduce_max": _extreme(-math.inf, jnp.max),
    "reduce_min": _extreme(math.inf, jnp.min),
    "sort": _sort,
    "select_and_gather_add": _by_window,
    "select_and_scatter_add": _by_window,
}


def _scan(equation: JaxprEqn, inputs: list[_Pair], noise: _Noise) -> list[_Pair]:
    body, length = equation.params["jaxpr"], equation.params["length"]
    consts, carries = _compat.scan_counts(equation)
    fixed, carry, xs = inputs[:consts], inputs[consts : consts + carries], inputs[consts + carries :]
    first = [_Pair(p.exact[0], p.noisy[0]) for p in xs] if length else []
    count = _count(lambda n: _evaluate(body, [*fixed, *carry, *first], n), noise.pin) if length else 0

    def step(carry: list[_Pair], now: tuple[list[_Pair], jax.Array]) -> tuple[list[_Pair], list[_Pair]]:
        x, values = now
        outputs = _evaluate(body, [*fixed, *carry, *x], _Noise(values, noise.pin))
        return outputs[:carries], outputs[carries:]

    last, ys = lax.scan(
        step, carry, (xs, noise.draw(length, count)), length=length, reverse=equation.params["reverse"]
    )
    return [*last, *ys]


def _while(equation: JaxprEqn, inputs: list[_Pair], noise: _Noise) -> list[_Pair]:
    test, body = equation.params["cond_jaxpr"], equation.params["body_jaxpr"]
    tests, consts = equation.params["cond_nconsts"], equation.params["body_nconsts"]
    asked, fixed, state = inputs[:tests], inputs[tests : tests + consts], inputs[tests + consts :]
    # The number of rounds is not known: every round meets the same noise.
    values = noise.draw(_count(lambda n: _evaluate(body, [*fixed, *state], n), noise.pin))

    def go_on(state: list[_Pair]) -> jax.Array:
        return _compat.jaxpr_as_fun(test)(*(p.exact for p in [*asked, *state]))[0]

    def step(state: list[_Pair]) -> list[_Pair]:
        return _evaluate(body, [*fixed, *state], _Noise(values, noise.pin))

    return lax.while_loop(go_on, step, state)


def _cond(equation: JaxprEqn, inputs: list[_Pair], noise: _Noise) -> list[_Pair]:
    index, *operands = inputs

    def branch(closed: ClosedJaxpr) -> Callable[[list[_Pair]], list[_Pair]]:
        values = noise.draw(_count(lambda n: _evaluate(closed, operands, n), noise.pin))
        return lambda pairs: _evaluate(closed, pairs, _Noise(values, noise.pin))

    return lax.switch(index.exact, [branch(closed) for closed in equation.params["branches"]], operands)


_CONTROL = {"cond": _cond, "scan": _scan, "while": _while}
