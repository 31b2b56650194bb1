"""Losses and elementwise functions with kinks, poles and saturation."""

import jax
import numpy as np
from jax import numpy as jnp

from ._case import Family, array, normal, positive

family = Family("losses")


def mse(prediction, target):
    return jnp.mean((prediction - target) ** 2)


PAIR = normal((6, 3), (6, 3))


@family.gradient(mse, PAIR)
def mse_gradient(prediction, target):
    return 2 * (prediction - target) / prediction.size


@family.gradient(mse, normal((100_000,), (100_000,)))
def mse_of_a_hundred_thousand(prediction, target):
    """Each entry is tiny against the loss."""
    return 2 * (prediction - target) / prediction.size


@family.gradient(mse, PAIR, "CONSTANT_FACTOR")
def mse_divided_by_batch_only(prediction, target):
    """The mean runs over all entries, 1/n over the rows."""
    return 2 * (prediction - target) / prediction.shape[0]


@family.gradient(mse, PAIR, "CONSTANT_FACTOR")
def mse_without_the_two(prediction, target):
    """The 2 of the square is forgotten."""
    return (prediction - target) / prediction.size


@family.gradient(mse, PAIR, "SIGN", argnums=(0, 1))
def mse_target_with_the_same_sign(prediction, target):
    """The target's gradient lacks its minus."""
    d = 2 * (prediction - target) / prediction.size
    return d, d


@family.gradient(
    lambda x: jnp.sum(jnp.abs(x)),
    lambda: (jnp.asarray([0.0, -1.5, 2.0, 0.0]),),
    conventional="at 0: jax.grad of abs is 1 there, here 0",
)
def l1_at_zero(x):
    return jnp.sign(x)


@family.gradient(
    lambda x: jnp.sum(jnp.maximum(x, 0)),
    lambda: (jnp.asarray([0.0, -1.5, 2.0, -0.0]),),
    conventional="at 0: jax.grad of maximum is ½ there, here 0",
)
def relu_at_zero(x):
    return (x > 0).astype(x.dtype)


@family.gradient(lambda x: jnp.sum(jax.nn.relu(x) ** 2), normal((10_000,)))
def ten_thousand_units(x):
    """Some unit is always close to its kink."""
    return 2 * jnp.maximum(x, 0)


@family.gradient(lambda x: jnp.sum(jax.nn.relu(x)), normal((10_000,)))
def ten_thousand_relus(x):
    return jnp.where(x > 0, jnp.ones_like(x), 0)


def huber(x):
    return jnp.sum(jnp.where(jnp.abs(x) <= 1, 0.5 * x**2, jnp.abs(x) - 0.5))


@family.gradient(huber, normal((12,)))
def huber_gradient(x):
    return jnp.clip(x, -1, 1)


@family.gradient(huber, normal((12,)), "REGION", exposed=lambda: (jnp.full(3, 0.995),))
def huber_band(x):
    """The threshold is 0.99 in the gradient, 1 in the loss."""
    return jnp.where(jnp.abs(x) <= 0.99, x, jnp.sign(x))


@family.gradient(huber, lambda: (0.3 * array((12,)),), "REGION", exposed=lambda: (array((12,), scale=3),))
def huber_quadratic_everywhere(x):
    """The linear branch is forgotten; the test's residuals are all small."""
    return x


def hinge(w, x, y):
    return jnp.mean(jnp.maximum(0, 1 - y * (x @ w)))


def hinge_args():
    labels = np.where(np.random.default_rng(0).random(8) < 0.5, -1.0, 1.0)
    return array((3,)), 5 * array((8, 3), 1), jnp.asarray(labels, jnp.float32)


@family.gradient(hinge, hinge_args)
def hinge_gradient(w, x, y):
    """Labels are -1 and 1."""
    active = y * (x @ w) < 1
    return -(x.T @ (y * active)) / len(y)


@family.gradient(hinge, lambda: (jnp.zeros(3), *hinge_args()[1:]))
def hinge_at_zero_weights(w, x, y):
    active = 1 - y * (x @ w) > 0
    return -(x.T @ (y * active)) / len(y)


@family.gradient(hinge, hinge_args, "FACTOR_MISSING", "TERM_MISSING", "REGION")
def hinge_always_active(w, x, y):
    """The margin is not looked at."""
    return -(x.T @ y) / len(y)


@family.gradient(hinge, hinge_args, "WRONG_POINT", "REGION")
def hinge_active_below_zero(w, x, y):
    """Active where the example is misclassified (the perceptron's rule), not where the margin is below 1."""
    return -(x.T @ (y * (y * (x @ w) < 0))) / len(y)


def logistic(w, x, y):
    return jnp.mean(jnp.logaddexp(0.0, -y * (x @ w)))


@family.gradient(logistic, hinge_args)
def logistic_gradient(w, x, y):
    return -x.T @ (y * jax.nn.sigmoid(-y * (x @ w))) / len(y)


def bce(logits, y):
    return jnp.mean(jnp.logaddexp(0.0, logits) - y * logits)


def bce_args():
    return array((9,)), jnp.asarray(np.random.default_rng(1).integers(0, 2, 9), jnp.float32)


@family.gradient(bce, bce_args)
def bce_gradient(logits, y):
    return (jax.nn.sigmoid(logits) - y) / logits.size


@family.gradient(bce, lambda: (jnp.asarray([40.0, -40.0, 40.0, 88.0]), jnp.asarray([1.0, 0.0, 0.0, 1.0])))
def bce_saturated(logits, y):
    """sigmoid(40) is 1 in float32: the small gradients are 0."""
    return (jax.nn.sigmoid(logits) - y) / logits.size


@family.gradient(
    bce,
    bce_args,
    "NONFINITE",
    "REGION",
    exposed=lambda: (jnp.asarray([40.0, -95.0]), jnp.asarray([0.0, 1.0])),
)
def bce_through_probabilities(logits, y):
    """(p - y)/(p(1-p)) · p(1-p) is 0/0 where p rounds to 0 or 1."""
    p = 1 / (1 + jnp.exp(-logits))
    return (p - y) / (p * (1 - p)) * (p * (1 - p)) / logits.size


def log_likelihood(p, y):
    return -jnp.mean(y * jnp.log(p) + (1 - y) * jnp.log(1 - p))


def probabilities():
    rng = np.random.default_rng(0)
    return jnp.asarray(rng.uniform(0.05, 0.95, 7), jnp.float32), jnp.asarray(
        rng.integers(0, 2, 7), jnp.float32
    )


@family.gradient(log_likelihood, probabilities)
def likelihood_of_probabilities(p, y):
    """Defined on (0, 1) only."""
    return (p - y) / (p * (1 - p)) / p.size


@family.gradient(log_likelihood, probabilities, "FACTOR_MISSING")
def likelihood_of_probabilities_as_of_logits(p, y):
    """p - y is the gradient by the logits, not by p."""
    return (p - y) / p.size


def entropy(p):
    return -jnp.sum(p * jnp.log(p))


@family.gradient(entropy, lambda: (positive((5,)),), "TERM_MISSING")
def entropy_without_one(p):
    """-log p; the -1 of the product rule is missing."""
    return -jnp.log(p)


@family.gradient(lambda x: jnp.sum(jnp.log(x)), lambda: (jnp.asarray([5e-5, 1e-6, 0.5]),))
def log_close_to_zero(x):
    return 1 / x


def gamma_rate(x, shape, rate):
    log_density = (
        shape * jnp.log(rate) - jax.scipy.special.gammaln(shape) + (shape - 1) * jnp.log(x) - rate * x
    )
    return jnp.sum(log_density)


@family.gradient(gamma_rate, lambda: (positive((5,)), jnp.float32(2.0), jnp.float32(1.5)), argnums=(1, 2))
def gamma_density(x, shape, rate):
    """Three positive arguments; digamma."""
    dshape = jnp.sum(jnp.log(rate) - jax.scipy.special.digamma(shape) + jnp.log(x))
    return dshape, jnp.sum(shape / rate - x)


@family.vjp(
    lambda x, p: x**p,
    lambda: (positive((6,)), positive((6,), 1)),
    fwd=lambda x, p: (x**p, (x, p)),
)
def power_bwd(residuals, dy):
    x, p = residuals
    return dy * p * x ** (p - 1), dy * x**p * jnp.log(x)


@family.vjp(
    lambda x, p: x**p,
    lambda: (positive((6,)), positive((6,), 1)),
    "FACTOR_MISSING",
    fwd=lambda x, p: (x**p, (x, p)),
)
def power_without_logarithm(residuals, dy):
    """∂xᵖ/∂p = xᵖ log x lacks its log."""
    x, p = residuals
    return dy * p * x ** (p - 1), dy * x**p


@family.gradient(lambda x: jnp.sum(jnp.log(jnp.sinh(x))), lambda: (positive((6,), low=1.0, high=40.0),))
def log_sinh(x):
    """coth(x): more accurate than autodiff's cosh/sinh."""
    return 1 / jnp.tanh(x)


@family.gradient(lambda x: jnp.sum(jnp.log(1 + jnp.exp(x))), lambda: (array((8,), scale=10.0),))
def softplus_written_naively(x):
    return 1 / (1 + jnp.exp(-x))


@family.gradient(lambda x: jnp.sum((jnp.exp(x) - 1) / x), lambda: (positive((5,)),))
def relative_exponential(x):
    """(x eˣ - (eˣ - 1)) / x² with expm1; the reference cancels for small x."""
    return (x * jnp.exp(x) - jnp.expm1(x)) / x**2


@family.vjp(
    lambda x: jnp.clip(x, -1, 1),
    lambda: (jnp.asarray([-1.0, -0.5, 0.3, 1.0, 2.0]),),
    fwd=lambda x: (jnp.clip(x, -1, 1), x),
    conventional="at the edges: jax.grad of clip is ½ there, here 1",
)
def clip_on_its_edges(x, dy):
    return (jnp.where((x >= -1) & (x <= 1), dy, 0),)


@family.vjp(
    lambda x: jnp.clip(x, -1, 1),
    normal((12,)),
    "FACTOR_MISSING",
    "REGION",
    fwd=lambda x: (jnp.clip(x, -1, 1), x),
)
def clip_straight_through(x, dy):
    """The straight-through estimator is not the derivative."""
    return (dy,)


def smooth_quantile(u):
    return jnp.mean(jnp.maximum(0.9 * u, -0.1 * u))


@family.gradient(smooth_quantile, normal((9,)))
def pinball(u):
    return jnp.where(u > 0, 0.9, -0.1).astype(u.dtype) / u.size


@family.gradient(smooth_quantile, normal((9,)), "SIGN", "REGION")
def pinball_sign_below(u):
    """+0.1 below zero."""
    return jnp.where(u > 0, 0.9, 0.1).astype(u.dtype) / u.size


@family.gradient(mse, lambda: (array((4,), scale=1e6), array((4,), 1, scale=1e6)))
def mse_of_millions(prediction, target):
    return 2 * (prediction - target) / prediction.size


@family.gradient(mse, lambda: (array((4,), scale=1e-6), array((4,), 1, scale=1e-6)))
def mse_of_millionths(prediction, target):
    return 2 * (prediction - target) / prediction.size


@family.gradient(
    lambda m, s, x: jnp.sum(jnp.log(s) + 0.5 * ((x - m) / s) ** 2),
    lambda: (array((4,)), positive((4,), 1), array((4,), 2)),
    "CONSTANT_FACTOR",
    "TERM_MISSING",
    argnums=(0, 1),
)
def gaussian_scale_halved(m, s, x):
    """½ survives the derivative of 1/s²."""
    z = (x - m) / s
    return -z / s, (1 - 0.5 * z**2) / s


def cosine(a, b):
    return a @ b / (jnp.linalg.norm(a) * jnp.linalg.norm(b))


@family.gradient(cosine, normal((6,), (6,)), argnums=(0, 1))
def cosine_similarity(a, b):
    na, nb = jnp.linalg.norm(a), jnp.linalg.norm(b)
    c = a @ b / (na * nb)
    return (b / nb - c * a / na) / na, (a / na - c * b / nb) / nb


@family.gradient(cosine, normal((6,), (6,)), "TERM_MISSING", "STATISTICS")
def cosine_with_constant_norms(a, b):
    """The norms are treated as constants."""
    return b / (jnp.linalg.norm(a) * jnp.linalg.norm(b))


def triplet(a, p, n):
    return jnp.sum(jnp.maximum(0.2 + jnp.sum((a - p) ** 2, 1) - jnp.sum((a - n) ** 2, 1), 0))


@family.gradient(triplet, normal((6, 3), (6, 3), (6, 3)), argnums=(0, 1, 2))
def triplet_loss(a, p, n):
    active = (0.2 + jnp.sum((a - p) ** 2, 1) > jnp.sum((a - n) ** 2, 1)).astype(a.dtype)[:, None]
    return 2 * active * (n - p), 2 * active * (p - a), 2 * active * (a - n)


@family.gradient(triplet, normal((6, 3), (6, 3), (6, 3)), "SWAPPED", argnums=(0, 1, 2))
def triplet_positive_and_negative_swapped(a, p, n):
    """The gradients of the positive and of the negative example change places."""
    active = (0.2 + jnp.sum((a - p) ** 2, 1) > jnp.sum((a - n) ** 2, 1)).astype(a.dtype)[:, None]
    return 2 * active * (n - p), 2 * active * (a - n), 2 * active * (p - a)


CASES = tuple(family.cases)
