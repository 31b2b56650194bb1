"""High precision: every primitive as JAX means it, digits that float64 does not have, and honest refusals."""

import time

import jax
import mpmath
import numpy as np
import pytest
from jax import lax
from jax import numpy as jnp
from jax.scipy import special

from funcbp._compat import quick_jit
from funcbp.verify._precise import NotPrecise, precisely


def rng(seed=0):
    return np.random.default_rng(seed)


def gradient(function):
    """A scalar's worth of a function, and its gradient, by autodiff."""

    def both(*args):
        out, pull = jax.vjp(function, *args)
        weights = jnp.cos(jnp.arange(out.size, dtype=out.dtype)).reshape(out.shape)
        return out, pull(weights)

    return both


def step(carry, row):
    carry = jnp.tanh(carry + row)
    return carry, lax.cond(carry[0] > 0, jnp.sin, jnp.cos, carry)


def loops(x):
    last, ys = lax.scan(step, jnp.zeros(x.shape[1]), x)
    return ys.sum(0) + last


def doubled(x):
    return lax.while_loop(lambda s: s[0] < 3, lambda s: (s[0] + 1, s[1] * 1.5), (0, x))[1]


def convolution(x, k, **options):
    return lax.conv_general_dilated(
        x, k, **{"window_strides": (2, 1), "padding": ((1, 2), (0, 1)), **options}
    )


MATRIX = rng().uniform(0.2, 0.9, (4, 3))
SQUARE = np.eye(3) * 3 + rng(1).standard_normal((3, 3))
IMAGES = rng(2).standard_normal((2, 4, 6, 5))
KERNEL = rng(3).standard_normal((6, 2, 3, 2))
TIED = np.array([1.0, 3.0, 3.0, -2.0])
SIGNED = np.linspace(-2.3, 2.6, 8)

UNARY = [
    jnp.sqrt, lax.rsqrt, jnp.cbrt, jnp.exp, jnp.exp2, jnp.expm1, jnp.log, jnp.log1p, jax.nn.sigmoid, jnp.tanh,
    jnp.sin, jnp.cos, jnp.tan, jnp.arcsin, jnp.arccos, jnp.arctan, jnp.sinh, jnp.cosh, jnp.arcsinh,
    lambda x: jnp.arccosh(1 + x), jnp.arctanh, special.erf, special.erfc, special.erfinv, special.gammaln,
    special.digamma, lambda x: special.polygamma(1, x), lambda x: x**3, lambda x: x**-2, lambda x: x**1.7,
    lambda x: 2.5**x, lambda x: jnp.arctan2(x, 1 - x), special.i0e, special.i1e,
    lambda x: special.gammainc(2.0, x), lambda x: special.gammaincc(2.0, x), jnp.square,
]  # fmt: skip
SIGNED_FUNCTIONS = [
    jnp.abs, jnp.sign, jnp.floor, jnp.ceil, jnp.round, lambda x: lax.round(x), jax.nn.gelu, jax.nn.softplus,
    lambda x: x % 0.7, lambda x: jnp.clip(x, -1, 1), lambda x: jnp.maximum(x, -x / 3), jax.nn.silu,
    jax.nn.relu, lambda x: jnp.where(x > 0, x, x * x), special.gammaln, lambda x: jnp.fmod(x, -0.7),
    jnp.isfinite, jnp.cbrt, lambda x: jnp.nan_to_num(jnp.log(x)), lambda x: x.astype(int) * x,
    jax.nn.log_sigmoid,
]  # fmt: skip
ARRAYS = [
    (lambda x: x.sum(0) + x.max() - x.min(1, keepdims=True) * x.prod(), (MATRIX,)),
    (lambda x: jnp.cumsum(x, 0) * jnp.cumprod(x, 1) + lax.cummax(x) - lax.cummin(x, reverse=True), (MATRIX,)),
    (lambda x: lax.cumlogsumexp(x, axis=1), (MATRIX,)),
    (lambda x: jnp.pad(jnp.flip(x.T)[1:, ::2], ((1, 0), (0, 2)), constant_values=3.0).reshape(-1), (MATRIX,)),
    (lambda x: lax.pad(x, 7.0, ((1, -1, 2), (-1, 2, 0))), (MATRIX,)),
    (lambda x: jnp.concatenate([x, x * 2], 1)[jnp.array([0, 2, 0, -1])], (MATRIX,)),
    (lambda x: jnp.take(x, jnp.array([0, 9, 2]), axis=0, mode="fill", fill_value=5.0), (MATRIX,)),
    (lambda x: lax.dynamic_update_slice(x, x[:2, :1] ** 2, (jnp.int32(9), jnp.int32(1))), (MATRIX,)),
    (lambda x: lax.dynamic_slice(x, (jnp.int32(3), jnp.int32(0)), (2, 3)), (MATRIX,)),
    (lambda x: jnp.zeros(3).at[jnp.array([0, 0, 2, 7])].add(x[:, 0]), (MATRIX,)),
    (lambda x: x.at[jnp.array([1, 2])].set(x[:2] ** 2).at[0].mul(3.0), (MATRIX,)),
    (lambda x: x.at[:, 1].max(0.5) + x.at[1].min(0.3), (MATRIX,)),
    (lambda x: jnp.sort(x) * jnp.arange(4.0) + jnp.median(x) + lax.top_k(x, 2)[0].sum(), (TIED,)),
    (lambda x: x[jnp.argsort(-x)] * jnp.argmax(x) + jnp.argmin(x), (TIED,)),
    (lambda x: jnp.max(x) + jax.nn.logsumexp(x) + jax.nn.softmax(x) + jnp.std(x), (TIED,)),
    (lambda x, y: jnp.einsum("bij,bkj->bik", x, y), (IMAGES[0], IMAGES[1])),
    (lambda x, y: lax.dot_general(x, y, (((0, 2), (2, 0)), ((), ()))), (IMAGES[0], IMAGES[0].T)),
    (lambda x, k: convolution(x, k, feature_group_count=2), (IMAGES, KERNEL)),
    (lambda x, k: convolution(x, k, lhs_dilation=(1, 2), rhs_dilation=(2, 1)), (IMAGES[:, :2], KERNEL)),
    (lambda x: lax.reduce_window(x, -jnp.inf, lax.max, (1, 1, 2, 2), (1, 1, 2, 1), "SAME"), (IMAGES,)),
    (lambda x: lax.reduce_window(x, 0.0, lax.add, (1, 1, 2, 3), (1, 1, 1, 2), "VALID"), (IMAGES,)),
    (lambda x: jnp.linalg.cholesky(x @ x.T), (SQUARE,)),
    (lambda x: jnp.linalg.solve(x, x[:, 1]) + jnp.linalg.slogdet(x)[1] + jnp.linalg.inv(x), (SQUARE,)),
    (lambda x: jax.scipy.linalg.solve_triangular(x, x @ x, lower=True, trans=1), (SQUARE,)),
    (lambda x: jnp.linalg.eigh(x @ x.T)[0] + jnp.abs(jnp.linalg.eigh(x @ x.T)[1]), (SQUARE,)),
    (loops, (MATRIX,)),
    (doubled, (MATRIX[0],)),
    (lambda x: jnp.abs(jnp.exp(1j * x) * (x - 2j)) + jnp.conj(lax.complex(x, x)).imag, (MATRIX,)),
    (lambda x: jax.random.normal(jax.random.key(0), x.shape) * x + jnp.linalg.norm(x), (MATRIX,)),
    (lambda x: jnp.where(jnp.isnan(x / 0 * 0), 1.0, x) + x[:0].sum() + jnp.max(x, initial=2.0), (MATRIX,)),
]  # fmt: skip


def assert_as_jax(function, args, rtol=1e-11):
    with jax.enable_x64(True):
        expected = jax.device_get(quick_jit(function)(*args))
    actual = precisely(function)(*args)
    for a, e in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        if e.dtype == jax.dtypes.float0:
            continue
        assert a.shape == e.shape
        assert a.dtype.kind == e.dtype.kind
        np.testing.assert_allclose(a, e, rtol=rtol, atol=rtol)


@pytest.mark.parametrize("function", UNARY)
def test_functions_of_a_number_and_their_derivatives(function):
    assert_as_jax(gradient(function), (np.linspace(0.15, 0.85, 4),))


@pytest.mark.parametrize("function", SIGNED_FUNCTIONS)
def test_functions_of_positive_and_negative_numbers(function):
    assert_as_jax(function, (SIGNED,), rtol=1e-10)


@pytest.mark.parametrize(("function", "args"), ARRAYS)
def test_arrays_and_their_derivatives(function, args):
    def real(*args):
        return function(*args) * 1.0

    if function is doubled:
        assert_as_jax(function, args)
    else:
        assert_as_jax(gradient(real), args, rtol=1e-9)


def test_digits_that_float64_does_not_have():
    def attention_like(x):
        return jax.nn.logsumexp(jnp.array([1e8, 0.0]) + x)

    def lost(x):
        return ((x + 1e10) ** 2 - 1e20) - 2e10 * x  # x²

    x = np.array(0.1)
    with mpmath.workdps(60):
        expected = float(mpmath.mpf(0.1) ** 2)
    assert precisely(lost)(x) == expected
    (slope,) = precisely(lambda x: jax.vjp(lost, x)[1](1.0))(x)
    assert slope == 0.2
    with jax.enable_x64(True):
        assert abs(float(jax.grad(lost)(0.1)) - 0.2) > 1e-8
    tiny = precisely(lambda x: jax.vjp(attention_like, x)[1](1.0))(np.zeros(2))[0]
    np.testing.assert_array_equal(tiny, [1.0, 0.0])


def test_results_are_rounded_once():
    x = np.linspace(0.1, 0.9, 5)
    with mpmath.workdps(40):
        expected = [float(mpmath.erf(mpmath.exp(mpmath.mpf(v)))) for v in x.tolist()]
    np.testing.assert_array_equal(precisely(lambda x: special.erf(jnp.exp(x)))(x), expected)


def test_the_estimated_error_tells_when_the_digits_are_not_enough():
    def cancels(x):
        return (x + 1e30) - 1e30

    enough, error = precisely(cancels, digits=50, estimate=True)(np.array(0.1))
    assert (float(enough), float(error)) == (0.1, 0.0)
    _, error = precisely(cancels, digits=20, estimate=True)(np.array(0.1))
    assert error > 0.01


def test_narrow_casts_round_only_when_asked():
    def narrow(x):
        return x.astype(jnp.float32).astype(jnp.float64) @ x.astype(jnp.bfloat16).astype(jnp.float64)

    x = np.array([0.1, 0.7])
    with mpmath.workdps(40):
        expected = float(sum(mpmath.mpf(v) ** 2 for v in x.tolist()))
    with jax.enable_x64(True):
        rounded = float(narrow(jnp.asarray(x)))
    assert precisely(narrow)(x) == expected
    assert abs(expected - rounded) > 1e-4
    np.testing.assert_allclose(precisely(narrow, casts=True)(x), rounded, rtol=1e-15)


def test_nothing_overflows_on_the_way():
    assert precisely(lambda x: jnp.log(jnp.exp(x)))(np.array(5000.0)) == 5000.0
    assert precisely(jnp.exp)(np.array([5000.0, -5000.0, np.inf])).tolist() == [np.inf, 0.0, np.inf]
    assert precisely(lambda x: jnp.exp(jnp.exp(x)))(np.array(100.0)) == np.inf


def test_an_unknown_primitive_is_named():
    with pytest.raises(NotPrecise, match="svd"):
        precisely(jnp.linalg.svd)(SQUARE)


def test_a_long_program_is_refused_before_it_starts():
    with pytest.raises(NotPrecise, match="1000000 multiplications"):
        precisely(jnp.matmul, largest=10**5)(np.ones((100, 100)), np.ones((100, 100)))


def test_a_hundred_thousand_multiplications_take_seconds():
    def layer(x, w):
        return jnp.tanh(x @ w)

    x, w = rng().standard_normal((20, 40)), rng(1).standard_normal((40, 40))
    started = time.perf_counter()
    _, slope = precisely(gradient(layer))(x, w)
    assert time.perf_counter() - started < 10
    with jax.enable_x64(True):
        np.testing.assert_allclose(slope[0], gradient(layer)(x, w)[1][0], rtol=1e-12, atol=1e-13)
