"""Formulas of textbooks and lecture notes, right and as they are found with a slip."""

import jax
from jax import numpy as jnp

from ._case import Family, array, integers, normal, spd

family = Family("sources")


def least_squares(w, x, y):
    return jnp.mean((y - x @ w) ** 2)


REGRESSION = normal((3,), (10, 3), (10,))


@family.gradient(least_squares, REGRESSION)
def least_squares_gradient(w, x, y):
    return -2 / len(y) * x.T @ (y - x @ w)


@family.gradient(least_squares, REGRESSION, "CONSTANT_FACTOR", "SIGN")
def least_squares_slip(w, x, y):
    """(1/n) Xᵀ(y - Xw): sign and 2 are both lost."""
    return x.T @ (y - x @ w) / len(y)


@family.gradient(least_squares, REGRESSION, "CONSTANT_FACTOR")
def least_squares_of_the_sum(w, x, y):
    """2Xᵀ(Xw - y) without the 1/n of the mean."""
    return 2 * x.T @ (x @ w - y)


def half_squares(w, x, y):
    return 0.5 * jnp.sum((y - x @ w) ** 2)


@family.gradient(half_squares, REGRESSION, "CONSTANT_FACTOR")
def half_squares_doubled(w, x, y):
    """The ½ was put there to cancel the 2, which stays."""
    return -2 * x.T @ (y - x @ w)


def ridge(w, x, y):
    return half_squares(w, x, y) + 0.5 * 0.3 * w @ w


@family.gradient(ridge, REGRESSION)
def ridge_gradient(w, x, y):
    return x.T @ (x @ w - y) + 0.3 * w


@family.gradient(ridge, REGRESSION, "SIGN")
def ridge_penalty_subtracted(w, x, y):
    """The penalty pulls away from zero."""
    return x.T @ (x @ w - y) - 0.3 * w


def weighted(w, x, y, weights):
    return 0.5 * jnp.sum(weights * (x @ w - y) ** 2)


@family.gradient(weighted, normal((3,), (8, 3), (8,), (8,)), "FACTOR_MISSING")
def weighted_without_weights(w, x, y, weights):
    """The ordinary normal equations."""
    return x.T @ (x @ w - y)


def poisson(w, x, y):
    return jnp.mean(jnp.exp(x @ w) - y * (x @ w))


@family.gradient(poisson, normal((3,), (8, 3), (8,), scale=0.5))
def poisson_regression(w, x, y):
    return x.T @ (jnp.exp(x @ w) - y) / len(y)


@family.gradient(poisson, normal((3,), (8, 3), (8,), scale=0.5), "WRONG_POINT", "FACTOR_MISSING", "VALUE")
def poisson_without_the_link(w, x, y):
    """Xᵀ(Xw - y): the residual of linear regression."""
    return x.T @ (x @ w - y) / len(y)


def neuron(w1, w2, x):
    """σ(w2 σ(w1 x)) with scalars."""
    return jax.nn.sigmoid(w2 * jax.nn.sigmoid(w1 * x))


def sigma_prime(z):
    return jax.nn.sigmoid(z) * (1 - jax.nn.sigmoid(z))


def scalars():
    return jnp.float32(0.7), jnp.float32(-1.3), jnp.float32(0.9)


@family.gradient(neuron, scalars, argnums=(0, 1))
def chain_of_two_neurons(w1, w2, x):
    p, q = w1 * x, jax.nn.sigmoid(w1 * x)
    delta = sigma_prime(w2 * q)
    return delta * w2 * sigma_prime(p) * x, delta * q


@family.gradient(neuron, scalars, "WRONG_POINT", argnums=(0, 1))
def chain_with_the_wrong_point(w1, w2, x):
    """σ'(q) where σ'(p) belongs, q = σ(p)."""
    q = jax.nn.sigmoid(w1 * x)
    delta = sigma_prime(w2 * q)
    return delta * w2 * sigma_prime(q) * x, delta * q


@family.gradient(neuron, scalars, "FACTOR_MISSING", argnums=(0, 1))
def chain_without_the_weight(w1, w2, x):
    """w2 is skipped on the way to w1."""
    p, q = w1 * x, jax.nn.sigmoid(w1 * x)
    delta = sigma_prime(w2 * q)
    return delta * sigma_prime(p) * x, delta * q


def column_network(w1, w2, x, y):
    """Column convention: a = tanh(W1 x), ½‖W2 a - y‖²."""
    return 0.5 * jnp.sum((w2 @ jnp.tanh(w1 @ x) - y) ** 2)


COLUMN = normal((4, 4), (4, 4), (4,), (4,))


@family.gradient(column_network, COLUMN, argnums=(0, 1))
def delta_rule(w1, w2, x, y):
    a = jnp.tanh(w1 @ x)
    d2 = w2 @ a - y
    return jnp.outer((w2.T @ d2) * (1 - a**2), x), jnp.outer(d2, a)


@family.gradient(column_network, COLUMN, "WRONG_POINT", "VALUE", argnums=(0, 1))
def delta_rule_misplaced_bracket(w1, w2, x, y):
    """Wᵀ(δ∘σ') for (Wᵀδ)∘σ'."""
    a = jnp.tanh(w1 @ x)
    d2 = w2 @ a - y
    return jnp.outer(w2.T @ (d2 * (1 - a**2)), x), jnp.outer(d2, a)


@family.gradient(column_network, COLUMN, "TRANSPOSED", argnums=(0, 1))
def delta_rule_outer_product_reversed(w1, w2, x, y):
    """x δᵀ: the row convention's formula in the column convention."""
    a = jnp.tanh(w1 @ x)
    d2 = w2 @ a - y
    return jnp.outer(x, (w2.T @ d2) * (1 - a**2)), jnp.outer(a, d2)


@family.gradient(column_network, COLUMN, "TRANSPOSE_FORGOTTEN", argnums=(0, 1))
def delta_rule_weights_as_they_are(w1, w2, x, y):
    """W2 δ for W2ᵀ δ."""
    a = jnp.tanh(w1 @ x)
    d2 = w2 @ a - y
    return jnp.outer((w2 @ d2) * (1 - a**2), x), jnp.outer(d2, a)


def bilinear(a, x, b):
    return a @ x @ b


@family.gradient(bilinear, normal((4,), (4, 4), (4,)), argnums=1)
def bilinear_form(a, x, b):
    return jnp.outer(a, b)


@family.gradient(bilinear, normal((4,), (4, 4), (4,)), "TRANSPOSED", "SWAPPED", argnums=1)
def bilinear_form_reversed(a, x, b):
    """b aᵀ."""
    return jnp.outer(b, a)


@family.gradient(lambda a, x, b: jnp.trace(a @ x @ b), normal((3, 4), (4, 5), (5, 3)), argnums=1)
def trace_of_three(a, x, b):
    return a.T @ b.T


@family.gradient(
    lambda a, x, b: jnp.trace(a @ x @ b), normal((4, 4), (4, 4), (4, 4)), "TRANSPOSED", argnums=1
)
def trace_of_three_in_the_other_layout(a, x, b):
    """BA, from a table in numerator layout."""
    return b @ a


def inverse_form(a, x, b):
    return a @ jnp.linalg.solve(x, b)


def inverse_form_args():
    return array((4,)), array((4, 4), 1) + 3 * jnp.eye(4), array((4,), 2)


@family.gradient(inverse_form, inverse_form_args, argnums=1)
def inverse_in_a_bilinear_form(a, x, b):
    xit = jnp.linalg.inv(x).T
    return -xit @ jnp.outer(a, b) @ xit


@family.gradient(inverse_form, inverse_form_args, "TRANSPOSE_FORGOTTEN", argnums=1)
def inverse_in_a_bilinear_form_slip(a, x, b):
    """X⁻¹ for X⁻ᵀ."""
    xi = jnp.linalg.inv(x)
    return -xi @ jnp.outer(a, b) @ xi


def rayleigh(x, a):
    return x @ a @ x / (x @ x)


@family.gradient(rayleigh, lambda: (array((4,)), spd(4)))
def rayleigh_quotient(x, a):
    """The matrix is symmetric in the example; the formula holds for every one."""
    s = x @ x
    return ((a + a.T) @ x - 2 * (x @ a @ x) / s * x) / s


@family.gradient(rayleigh, lambda: (array((4,)), spd(4)), "STATISTICS", "TERM_MISSING")
def rayleigh_denominator_constant(x, a):
    """2Ax/xᵀx: the quotient rule's second half is missing."""
    return (a + a.T) @ x / (x @ x)


@family.gradient(
    rayleigh,
    lambda: (array((4,)), spd(4)),
    "TRANSPOSE_FORGOTTEN",
    "REGION",
    "TERM_MISSING",
    exposed=normal((4,), (4, 4)),
)
def rayleigh_for_symmetric_matrices_only(x, a):
    """2Ax for (A + Aᵀ)x, unseen at a symmetric example."""
    s = x @ x
    return 2 * (a @ x - (x @ a @ x) / s * x) / s


def factorization(u, v, r):
    return jnp.sum((r - u @ v.T) ** 2)


FACTORS = normal((5, 2), (5, 2), (5, 5))


@family.gradient(factorization, FACTORS, argnums=(0, 1))
def matrix_factorization(u, v, r):
    e = r - u @ v.T
    return -2 * e @ v, -2 * e.T @ u


@family.gradient(factorization, FACTORS, "TRANSPOSE_FORGOTTEN", argnums=(0, 1))
def matrix_factorization_slip(u, v, r):
    """E U for EᵀU; users and items are equally many."""
    e = r - u @ v.T
    return -2 * e @ v, -2 * e @ u


def skip_gram(center, context, negatives):
    positive = jnp.logaddexp(0.0, -context @ center)
    return positive + jnp.sum(jnp.logaddexp(0.0, negatives @ center))


@family.gradient(skip_gram, normal((6,), (6,), (5, 6)), argnums=(0, 1, 2))
def negative_sampling(center, context, negatives):
    p, n = jax.nn.sigmoid(context @ center) - 1, jax.nn.sigmoid(negatives @ center)
    return p * context + n @ negatives, p * center, jnp.outer(n, center)


@family.gradient(skip_gram, normal((6,), (6,), (5, 6)), "SIGN", argnums=(0, 1, 2))
def negative_sampling_attracted(center, context, negatives):
    """The negatives pull instead of push, in the center's gradient."""
    p, n = jax.nn.sigmoid(context @ center) - 1, jax.nn.sigmoid(negatives @ center)
    return p * context - n @ negatives, p * center, jnp.outer(n, center)


def reinforce(theta, states, actions, returns):
    log_pi = jax.nn.log_softmax(states @ theta)
    return -jnp.mean(returns * jnp.take_along_axis(log_pi, actions[:, None], 1)[:, 0])


def episode():
    return array((4, 3)), array((7, 4), 1), integers((7,), 3), array((7,), 2)


@family.gradient(reinforce, episode)
def policy_gradient(theta, states, actions, returns):
    p = jax.nn.softmax(states @ theta)
    return states.T @ (returns[:, None] * (p - jax.nn.one_hot(actions, 3))) / len(returns)


@family.gradient(reinforce, episode, "FACTOR_MISSING")
def policy_gradient_without_returns(theta, states, actions, returns):
    """The returns are forgotten: cross-entropy with the actions taken."""
    p = jax.nn.softmax(states @ theta)
    return states.T @ (p - jax.nn.one_hot(actions, 3)) / len(returns)


CASES = tuple(family.cases)
