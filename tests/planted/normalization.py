"""Layer, batch, group, RMS and weight normalization; scaling to unit length."""

import jax
from jax import numpy as jnp

from ._case import Family, array, normal

family = Family("normalization")
EPS = 1e-5


def layer_norm(x, gamma, beta):
    mean = x.mean(-1, keepdims=True)
    var = jnp.mean((x - mean) ** 2, -1, keepdims=True)
    return gamma * (x - mean) / jnp.sqrt(var + EPS) + beta


def layer_norm_fwd(x, gamma, beta):
    mean = x.mean(-1, keepdims=True)
    rstd = 1 / jnp.sqrt(jnp.mean((x - mean) ** 2, -1, keepdims=True) + EPS)
    x_hat = (x - mean) * rstd
    return gamma * x_hat + beta, (x_hat, rstd, gamma)


LAYER = normal((6, 8), (8,), (8,))


@family.vjp(layer_norm, LAYER, fwd=layer_norm_fwd)
def layer_norm_bwd(residuals, dy):
    x_hat, rstd, gamma = residuals
    dx_hat = dy * gamma
    centered = dx_hat - dx_hat.mean(-1, keepdims=True)
    dx = rstd * (centered - x_hat * jnp.mean(dx_hat * x_hat, -1, keepdims=True))
    return dx, jnp.sum(dy * x_hat, 0), dy.sum(0)


@family.vjp(layer_norm, LAYER, "TERM_MISSING", "STATISTICS", fwd=layer_norm_fwd)
def layer_norm_variance_constant(residuals, dy):
    """The path through the variance is dropped."""
    x_hat, rstd, gamma = residuals
    dx_hat = dy * gamma
    return rstd * (dx_hat - dx_hat.mean(-1, keepdims=True)), jnp.sum(dy * x_hat, 0), dy.sum(0)


@family.vjp(layer_norm, LAYER, "TERM_MISSING", "STATISTICS", fwd=layer_norm_fwd)
def layer_norm_mean_constant(residuals, dy):
    """The path through the mean is dropped."""
    x_hat, rstd, gamma = residuals
    dx_hat = dy * gamma
    dx = rstd * (dx_hat - x_hat * jnp.mean(dx_hat * x_hat, -1, keepdims=True))
    return dx, jnp.sum(dy * x_hat, 0), dy.sum(0)


@family.vjp(layer_norm, LAYER, "STATISTICS", fwd=layer_norm_fwd)
def layer_norm_statistics_constant(residuals, dy):
    """Mean and variance are both constants, as at inference."""
    x_hat, rstd, gamma = residuals
    return dy * gamma * rstd, jnp.sum(dy * x_hat, 0), dy.sum(0)


@family.vjp(layer_norm, LAYER, "FACTOR_MISSING", fwd=layer_norm_fwd)
def layer_norm_scale_forgotten(residuals, dy):
    """γ is not applied to δ on its way to x."""
    x_hat, rstd, _ = residuals
    centered = dy - dy.mean(-1, keepdims=True)
    dx = rstd * (centered - x_hat * jnp.mean(dy * x_hat, -1, keepdims=True))
    return dx, jnp.sum(dy * x_hat, 0), dy.sum(0)


@family.vjp(layer_norm, LAYER, "WRONG_POINT", fwd=layer_norm_fwd)
def layer_norm_gamma_meets_output(residuals, dy):
    """γx̂ is taken where x̂ meets δ in the gradient of γ."""
    x_hat, rstd, gamma = residuals
    dx_hat = dy * gamma
    centered = dx_hat - dx_hat.mean(-1, keepdims=True)
    dx = rstd * (centered - x_hat * jnp.mean(dx_hat * x_hat, -1, keepdims=True))
    return dx, jnp.sum(dy * x_hat * gamma, 0), dy.sum(0)


@family.vjp(layer_norm, normal((2, 3, 8), (8,), (8,)), "REDUCTION", "SHAPE", "BROADCAST", fwd=layer_norm_fwd)
def layer_norm_summed_over_batch_only(residuals, dy):
    """With a time axis, γ and β are summed over one leading axis instead of two."""
    x_hat, rstd, gamma = residuals
    dx_hat = dy * gamma
    centered = dx_hat - dx_hat.mean(-1, keepdims=True)
    dx = rstd * (centered - x_hat * jnp.mean(dx_hat * x_hat, -1, keepdims=True))
    return dx, jnp.sum(dy * x_hat, 0), dy.sum(0)


def batch_norm(x, gamma, beta):
    return gamma * (x - x.mean(0)) / jnp.sqrt(x.var(0) + EPS) + beta


def batch_norm_fwd(x, gamma, beta):
    rstd = 1 / jnp.sqrt(x.var(0) + EPS)
    x_hat = (x - x.mean(0)) * rstd
    return gamma * x_hat + beta, (x_hat, rstd, gamma)


BATCH = normal((10, 4), (4,), (4,))


@family.vjp(batch_norm, BATCH, fwd=batch_norm_fwd)
def batch_norm_bwd(residuals, dy):
    x_hat, rstd, gamma = residuals
    n = dy.shape[0]
    dgamma, dbeta = jnp.sum(dy * x_hat, 0), dy.sum(0)
    return gamma * rstd / n * (n * dy - dbeta - x_hat * dgamma), dgamma, dbeta


@family.vjp(batch_norm, BATCH, "STATISTICS", fwd=batch_norm_fwd)
def batch_norm_as_at_inference(residuals, dy):
    """The statistics of the batch are treated as constants."""
    x_hat, rstd, gamma = residuals
    return dy * gamma * rstd, jnp.sum(dy * x_hat, 0), dy.sum(0)


@family.vjp(batch_norm, BATCH, "CONSTANT_FACTOR", "TERM_MISSING", fwd=batch_norm_fwd)
def batch_norm_mean_not_divided(residuals, dy):
    """n δ lost its n: the mean terms weigh n times too little."""
    x_hat, rstd, gamma = residuals
    n = dy.shape[0]
    dgamma, dbeta = jnp.sum(dy * x_hat, 0), dy.sum(0)
    return gamma * rstd * (dy - (dbeta + x_hat * dgamma) / n**2), dgamma, dbeta


@family.vjp(batch_norm, BATCH, "SIGN", fwd=batch_norm_fwd)
def batch_norm_variance_term_added(residuals, dy):
    """A plus before the term of the variance."""
    x_hat, rstd, gamma = residuals
    n = dy.shape[0]
    dgamma, dbeta = jnp.sum(dy * x_hat, 0), dy.sum(0)
    return gamma * rstd / n * (n * dy - dbeta + x_hat * dgamma), dgamma, dbeta


@family.vjp(batch_norm, BATCH, "SWAPPED", fwd=batch_norm_fwd)
def batch_norm_gamma_beta_swapped(residuals, dy):
    """dβ, dγ in the order of another framework."""
    x_hat, rstd, gamma = residuals
    n = dy.shape[0]
    dgamma, dbeta = jnp.sum(dy * x_hat, 0), dy.sum(0)
    return gamma * rstd / n * (n * dy - dbeta - x_hat * dgamma), dbeta, dgamma


def rms_norm(x, weight):
    return weight * x / jnp.sqrt(jnp.mean(x**2, -1, keepdims=True) + EPS)


def rms_norm_fwd(x, weight):
    r = 1 / jnp.sqrt(jnp.mean(x**2, -1, keepdims=True) + EPS)
    return weight * x * r, (x, weight, r)


RMS = normal((6, 8), (8,))


@family.vjp(rms_norm, RMS, fwd=rms_norm_fwd)
def rms_norm_bwd(residuals, dy):
    x, weight, r = residuals
    g = dy * weight
    return r * g - x * r**3 * jnp.mean(g * x, -1, keepdims=True), jnp.sum(dy * x * r, 0)


@family.vjp(rms_norm, lambda: (1e-6 * array((3, 8)), array((8,), 1)), fwd=rms_norm_fwd)
def rms_norm_of_tiny_rows(residuals, dy):
    """ε dominates."""
    x, weight, r = residuals
    g = dy * weight
    return r * g - x * r**3 * jnp.mean(g * x, -1, keepdims=True), jnp.sum(dy * x * r, 0)


@family.vjp(rms_norm, RMS, "CONSTANT_FACTOR", "REDUCTION", fwd=rms_norm_fwd)
def rms_norm_sum_for_mean(residuals, dy):
    """Σ g x where the mean belongs: the second term d times too large."""
    x, weight, r = residuals
    g = dy * weight
    return r * g - x * r**3 * jnp.sum(g * x, -1, keepdims=True), jnp.sum(dy * x * r, 0)


@family.vjp(rms_norm, RMS, "FACTOR_MISSING", "VALUE", fwd=rms_norm_fwd)
def rms_norm_square_for_cube(residuals, dy):
    """r² where r³ belongs."""
    x, weight, r = residuals
    g = dy * weight
    return r * g - x * r**2 * jnp.mean(g * x, -1, keepdims=True), jnp.sum(dy * x * r, 0)


@family.vjp(rms_norm, RMS, "FACTOR_MISSING", "WRONG_POINT", fwd=rms_norm_fwd)
def rms_norm_weight_meets_raw_input(residuals, dy):
    """The weight's gradient uses x, not the normalized x."""
    x, weight, r = residuals
    g = dy * weight
    return r * g - x * r**3 * jnp.mean(g * x, -1, keepdims=True), jnp.sum(dy * x, 0)


def unit(x):
    return x / jnp.sqrt(jnp.sum(x**2))


@family.jacobian(unit, normal((4,)))
def unit_vector_jacobian(x):
    r = jnp.sqrt(jnp.sum(x**2))
    return (jnp.eye(x.size, dtype=x.dtype) - jnp.outer(x, x) / r**2) / r


@family.jacobian(unit, normal((4,)), "FACTOR_MISSING", "CONSTANT_FACTOR")
def unit_vector_not_scaled(x):
    """The projector without 1/‖x‖."""
    return jnp.eye(x.size, dtype=x.dtype) - jnp.outer(x, x) / jnp.sum(x**2)


def weight_norm(v, g):
    return g * v / jnp.linalg.norm(v, axis=0)


@family.vjp(weight_norm, normal((5, 3), (3,)), fwd=lambda v, g: (weight_norm(v, g), (v, g)))
def weight_norm_bwd(residuals, dw):
    v, g = residuals
    length = jnp.linalg.norm(v, axis=0)
    u = v / length
    dg = jnp.sum(dw * u, 0)
    return g / length * (dw - u * dg), dg


def group_norm(x):
    n, c = x.shape
    groups = x.reshape(n, 2, c // 2)
    centered = groups - groups.mean(-1, keepdims=True)
    return (centered / jnp.sqrt(groups.var(-1, keepdims=True) + EPS)).reshape(n, c)


@family.vjp(group_norm, normal((3, 8)), "REDUCTION", fwd=lambda x: (group_norm(x), x))
def group_norm_over_all_channels(x, dy):
    """The two means of the backward pass run over all channels, not over the group."""
    n, c = x.shape
    groups = x.reshape(n, 2, c // 2)
    rstd = 1 / jnp.sqrt(groups.var(-1, keepdims=True) + EPS)
    x_hat, d = (groups - groups.mean(-1, keepdims=True)) * rstd, dy.reshape(groups.shape)
    inner = d - d.mean((1, 2), keepdims=True) - x_hat * jnp.mean(d * x_hat, (1, 2), keepdims=True)
    return ((rstd * inner).reshape(n, c),)


def variance(x):
    return jnp.mean((x - x.mean()) ** 2)


@family.gradient(variance, normal((9,)))
def variance_gradient(x):
    """The mean's own derivative cancels: 2(x - x̄)/n is all."""
    return 2 * (x - x.mean()) / x.size


@family.gradient(lambda x: jnp.mean(x**2) - x.mean() ** 2, lambda: (3 + array((9,)),))
def variance_in_one_pass(x):
    """The reference cancels, the gradient does not."""
    return 2 * (x - x.mean()) / x.size


@family.gradient(lambda x: jnp.mean((x + 1e4) ** 2), normal((32,)))
def cancellation_in_the_reference(x):
    return 2 * (x + 1e4) / x.size


@family.gradient(variance, normal((9,)), "CONSTANT_FACTOR")
def variance_unbiased(x):
    """1/(n-1) for a variance with 1/n."""
    return 2 * (x - x.mean()) / (x.size - 1)


@family.gradient(lambda x: jnp.std(x), normal((9,)), "FACTOR_MISSING", "CONSTANT_FACTOR")
def deviation_without_root(x):
    """The derivative of the root, 1/(2s), is missing."""
    return 2 * (x - x.mean()) / x.size


@family.vjp(layer_norm, lambda: (array((3, 1)), array((1,), 1), array((1,), 2)), fwd=layer_norm_fwd)
def layer_norm_of_one_feature(residuals, dy):
    """Variance exactly zero."""
    x_hat, rstd, gamma = residuals
    dx_hat = dy * gamma
    centered = dx_hat - dx_hat.mean(-1, keepdims=True)
    dx = rstd * (centered - x_hat * jnp.mean(dx_hat * x_hat, -1, keepdims=True))
    return dx, jnp.sum(dy * x_hat, 0), dy.sum(0)


def softplus_norm(x):
    return jax.nn.softplus(x) / jnp.sum(jax.nn.softplus(x), -1, keepdims=True)


@family.vjp(softplus_norm, normal((4, 5)), "STATISTICS", "TERM_MISSING", fwd=lambda x: (softplus_norm(x), x))
def sum_to_one_denominator_constant(x, dy):
    """The total in the denominator depends on x, too."""
    return (dy * jax.nn.sigmoid(x) / jnp.sum(jax.nn.softplus(x), -1, keepdims=True),)


CASES = tuple(family.cases)
