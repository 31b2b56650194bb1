"""Bugs that no formula shows: regions, kinks, overflow, precision, dtype, shape, structure."""

import jax
import numpy as np
from jax import lax
from jax import numpy as jnp

from ._case import Family, array, normal, positive

family = Family("special")


def sinc(x):
    safe = jnp.where(x == 0, 1.0, x)
    return jnp.sum(jnp.where(x == 0, 1.0, jnp.sin(safe) / safe))


@family.gradient(sinc, normal((6,)), "NONFINITE", "REGION", exposed=lambda: (jnp.asarray([0.0, 1.0]),))
def sinc_at_zero(x):
    """0/0 at x = 0, where the derivative is 0."""
    return jnp.cos(x) / x - jnp.sin(x) / x**2


@family.gradient(
    lambda x: jnp.sum(jnp.abs(x)),
    normal((6,)),
    "NONFINITE",
    "KINK",
    exposed=lambda: (jnp.asarray([0.0, 1.0]),),
)
def absolute_value_as_quotient(x):
    """x/|x| is NaN at zero."""
    return x / jnp.abs(x)


def softplus_fwd(x):
    return jax.nn.softplus(x), x


@family.vjp(
    jax.nn.softplus, normal((6,)), "NONFINITE", fwd=softplus_fwd, exposed=lambda: (jnp.asarray([100.0, 1.0]),)
)
def softplus_overflow(x, dy):
    """eˣ/(1 + eˣ) is ∞/∞ from 89 on in float32."""
    return (dy * jnp.exp(x) / (1 + jnp.exp(x)),)


@family.vjp(
    jnp.tanh,
    normal((6,)),
    "NONFINITE",
    fwd=lambda x: (jnp.tanh(x), x),
    exposed=lambda: (jnp.asarray([60.0, 1.0]),),
)
def tanh_by_exponentials(x, dy):
    """The quotient of exponentials overflows from 45 on in float32."""
    e = jnp.exp(2 * x)
    return (dy * (1 - ((e - 1) / (e + 1)) ** 2),)


@family.vjp(
    jax.nn.relu6,
    normal((8,)),
    "REGION",
    fwd=lambda x: (jax.nn.relu6(x), x),
    exposed=lambda: (jnp.asarray([7.0, 1.0]),),
)
def relu6_without_upper_bound(x, dy):
    """Wrong from 6 on only, where a normal example never is."""
    return (jnp.where(x > 0, dy, 0),)


@family.vjp(
    jnp.exp,
    normal((8,)),
    "REGION",
    fwd=lambda x: (jnp.exp(x), x),
    exposed=lambda: (jnp.asarray([6.5, 1.0]),),
)
def exponential_clamped(x, dy):
    """Left over from a debugging session: the exponent is clamped at 6."""
    return (dy * jnp.exp(jnp.minimum(x, 6)),)


def slope(x):
    return jnp.where(x >= 0, x, 0.1 * x)


@family.vjp(
    slope, normal((8,)), "KINK", fwd=lambda x: (slope(x), x), exposed=lambda: (jnp.asarray([0.0, 1.0]),)
)
def leaky_relu_zero_at_the_kink(x, dy):
    """Two strict comparisons leave 0 at the kink, outside of [0.1, 1]."""
    return (dy * (1.0 * (x > 0) + 0.1 * (x < 0)).astype(x.dtype),)


@family.vjp(
    jnp.maximum,
    normal((5,), (5,)),
    "KINK",
    fwd=lambda a, b: (jnp.maximum(a, b), (a, b)),
    exposed=lambda: (jnp.ones(3), jnp.ones(3)),
)
def maximum_of_two_counts_twice(residuals, dy):
    """At a tie both arguments get all of δ."""
    a, b = residuals
    return jnp.where(a >= b, dy, 0), jnp.where(b >= a, dy, 0)


@family.vjp(
    jnp.maximum,
    lambda: (jnp.asarray([1.0, 2.0, -1.0]), jnp.asarray([1.0, 0.5, 3.0])),
    fwd=lambda a, b: (jnp.maximum(a, b), (a, b)),
    conventional="at the tie: jax.vjp shares, here the first gets all",
)
def maximum_of_two_first_wins(residuals, dy):
    a, b = residuals
    return jnp.where(a >= b, dy, 0), jnp.where(a >= b, 0, dy)


def matmul(x, w):
    return x @ w


def matmul_fwd(x, w):
    return x @ w, (x, w)


PRODUCT = normal((16, 6), (6, 4))


@family.vjp(matmul, PRODUCT, "PRECISION", fwd=matmul_fwd)
def product_in_bfloat16(residuals, dy):
    """Cast to bfloat16 for speed and back."""
    x, w = residuals
    dw = x.T.astype(jnp.bfloat16) @ dy.astype(jnp.bfloat16)
    return dy @ w.T, dw.astype(w.dtype)


@family.vjp(
    matmul,
    lambda: (
        np.random.default_rng(0).standard_normal((16, 6)),
        np.random.default_rng(1).standard_normal((6, 4)),
    ),
    "PRECISION",
    fwd=matmul_fwd,
    dtypes=("float64",),
)
def product_in_float32(residuals, dy):
    """A float64 user meets a cast to float32 inside."""
    x, w = residuals
    dw = x.T.astype(jnp.float32) @ dy.astype(jnp.float32)
    return dy @ w.T, dw.astype(w.dtype)


@family.vjp(jnp.tanh, normal((8,)), "PRECISION", fwd=lambda x: (jnp.tanh(x), jnp.tanh(x).astype(jnp.float16)))
def activation_stored_in_half_precision(half, dy):
    """The residual is kept in float16 to save memory."""
    return (dy * (1 - half.astype(dy.dtype) ** 2),)


@family.gradient(lambda x: jnp.sum(jnp.sin(x) * x), normal((5,)), "PRECISION", "VALUE")
def numerical_gradient(x):
    """Forward differences with a step of 1e-3 instead of a formula."""
    step = 1e-3

    def value(v):
        return jnp.sum(jnp.sin(v) * v)

    return jnp.stack([(value(x + step * e) - value(x)) / step for e in jnp.eye(x.size, dtype=x.dtype)])


@family.vjp(matmul, normal((5, 6), (6, 4), dtype=jnp.bfloat16), "DTYPE", fwd=matmul_fwd)
def gradient_in_float32_for_bfloat16(residuals, dy):
    """Accumulated in float32, never cast back."""
    x, w = residuals
    up = jnp.promote_types(w.dtype, jnp.float32)
    return (dy @ w.T).astype(x.dtype), x.T.astype(up) @ dy.astype(up)


@family.gradient(lambda w, x: jnp.sum((x @ w) ** 2), normal((4,), (6, 4)), "SHAPE", "BROADCAST")
def gradient_as_column(w, x):
    """(4, 1) for a parameter of shape (4,)."""
    return (2 * x.T @ (x @ w))[:, None]


@family.gradient(
    lambda params, x: jnp.sum((x @ params["w"] + params["b"]) ** 2),
    lambda: ({"w": array((4,)), "b": jnp.float32(0.3)}, array((6, 4), 1)),
    "STRUCTURE",
)
def leaf_missing(params, x):
    """The bias is not in the returned dict."""
    return {"w": 2 * x.T @ (x @ params["w"] + params["b"])}


@family.vjp(
    lambda x, w, b: x @ w + b,
    normal((6, 4), (4, 3), (3,)),
    "STRUCTURE",
    fwd=lambda x, w, b: (x @ w + b, (x, w)),
)
def cotangent_of_the_bias_not_returned(residuals, dy):
    """Two cotangents for three arguments."""
    x, w = residuals
    return dy @ w.T, x.T @ dy


@family.vjp(matmul, PRODUCT, "RAISES", fwd=lambda x, w: (x @ w, (x, w, x @ w)))
def residuals_unpacked_wrongly(residuals, dy):
    """fwd saves three things, bwd unpacks two."""
    x, w = residuals
    return dy @ w.T, x.T @ dy


@family.gradient(lambda x: jnp.sum(x * jnp.tanh(jax.nn.softplus(x))), normal((6,)), "FACTOR_MISSING")
def mish_misremembered(x):
    """tanh(softplus x) + x σ(x), from memory: sech² is lost."""
    return jnp.tanh(jax.nn.softplus(x)) + x * jax.nn.sigmoid(x)


@family.gradient(lambda x: jnp.sum(jax.scipy.special.erf(x)), normal((6,)), "VALUE")
def slope_of_another_curve(x):
    """The derivative of tanh, which looks similar."""
    return 1 / jnp.cosh(x) ** 2


@family.gradient(lambda x: jnp.sum(x * lax.stop_gradient(jnp.exp(x))), normal((6,)), "VALUE")
def stop_gradient_overlooked(x):
    """The reference stops the gradient of the exponential; the formula differentiates it."""
    return jnp.exp(x) * (1 + x)


@family.vjp(
    lambda x, y: x * y, normal((6,), (6,)), "WRONG_POINT", "SWAPPED", fwd=lambda x, y: (x * y, (x, y))
)
def product_rule_mixed_up(residuals, dy):
    """Each factor meets itself."""
    x, y = residuals
    return dy * x, dy * y


@family.vjp(jnp.arctan2, normal((6,), (6,)), "SIGN", fwd=lambda y, x: (jnp.arctan2(y, x), (y, x)))
def arctangent_sign(residuals, dy):
    """-y/(x² + y²) lost its minus."""
    y, x = residuals
    r = x**2 + y**2
    return dy * x / r, dy * y / r


@family.vjp(
    jnp.sqrt, lambda: (positive((6,)),), "FACTOR_MISSING", "CONSTANT_FACTOR", fwd=lambda x: (jnp.sqrt(x), x)
)
def root_without_half(x, dy):
    """1/√x for 1/(2√x)."""
    return (dy / jnp.sqrt(x),)


def complex_args():
    return (array((5,)) + 1j * array((5,), 1),)


@family.gradient(lambda z: jnp.sum(jnp.abs(z) ** 2), complex_args, "CONVENTION", "SIGN", "VALUE")
def complex_not_conjugated(z):
    """2z where jax.grad's convention has 2z̄."""
    return 2 * z


CASES = tuple(family.cases)
