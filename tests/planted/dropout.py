"""Dropout and other functions of a random key."""

import jax
import numpy as np
from jax import numpy as jnp

from ._case import Family, array

family = Family("dropout")
KEEP = 0.8


def dropout(x, key):
    return x * jax.random.bernoulli(key, KEEP, x.shape) / KEEP


def dropout_fwd(x, key):
    kept = jax.random.bernoulli(key, KEEP, x.shape)
    return x * kept / KEEP, (kept, key)


def keyed():
    return array((8, 6)), jax.random.key(0)


def old_style_key():
    return array((8, 6)), jax.random.PRNGKey(0)


@family.vjp(dropout, keyed, fwd=dropout_fwd)
def dropout_bwd(residuals, dy):
    kept, _ = residuals
    return dy * kept / KEEP, None


@family.vjp(dropout, old_style_key, fwd=dropout_fwd)
def dropout_with_a_raw_key(residuals, dy):
    """The key is an array of unsigned integers."""
    kept, _ = residuals
    return dy * kept / KEEP, None


@family.vjp(dropout, keyed, fwd=lambda x, key: (dropout(x, key), (x.shape, key)))
def dropout_mask_drawn_again(residuals, dy):
    """The mask is not stored; the same key gives the same mask."""
    shape, key = residuals
    return dy * jax.random.bernoulli(key, KEEP, shape) / KEEP, None


@family.vjp(dropout, keyed, "CONSTANT_FACTOR", fwd=dropout_fwd)
def dropout_not_rescaled(residuals, dy):
    """1/keep is forgotten."""
    kept, _ = residuals
    return dy * kept, None


@family.vjp(dropout, keyed, "FACTOR_MISSING", fwd=dropout_fwd)
def dropout_mask_forgotten(residuals, dy):
    """δ passes also where the unit was dropped."""
    return dy / KEEP, None


@family.vjp(dropout, keyed, "WRONG_POINT", "VALUE", fwd=dropout_fwd)
def dropout_with_another_mask(residuals, dy):
    """The backward pass splits the key and draws another mask."""
    _, key = residuals
    return dy * jax.random.bernoulli(jax.random.split(key)[0], KEEP, dy.shape) / KEEP, None


@family.vjp(dropout, keyed, "NONDETERMINISTIC", fwd=dropout_fwd)
def dropout_with_numpy_noise(residuals, dy):
    """The backward pass draws a new mask from numpy's global generator."""
    return dy * (np.random.random(dy.shape) < KEEP) / KEEP, None


@family.vjp(dropout, keyed, "VALUE", "FACTOR_MISSING", fwd=lambda x, key: (dropout(x, key), dropout(x, key)))
def dropout_mask_from_the_output(y, dy):
    """Kept means positive output: a mask for relu, not for dropout."""
    return jnp.where(y > 0, dy / KEEP, 0), None


def reparameterized(mean, log_std, key):
    return mean + jnp.exp(log_std) * jax.random.normal(key, mean.shape, mean.dtype)


def reparameterized_fwd(mean, log_std, key):
    y = reparameterized(mean, log_std, key)
    return y, (y, mean, log_std)


def latent():
    return array((5,)), 0.3 * array((5,), 1), jax.random.key(7)


@family.vjp(reparameterized, latent, fwd=reparameterized_fwd)
def reparameterized_bwd(residuals, dz):
    z, mean, _ = residuals
    return dz, dz * (z - mean), None


@family.vjp(reparameterized, latent, "FACTOR_MISSING", fwd=reparameterized_fwd)
def reparameterized_by_std(residuals, dz):
    """The derivative by σ, not by log σ."""
    z, mean, log_std = residuals
    return dz, dz * (z - mean) / jnp.exp(log_std), None


def kl(mean, log_var):
    return -0.5 * jnp.sum(1 + log_var - mean**2 - jnp.exp(log_var))


def latent_statistics():
    return array((4, 5)), 0.3 * array((4, 5), 1)


@family.gradient(kl, latent_statistics, argnums=(0, 1))
def kl_gradient(mean, log_var):
    return mean, 0.5 * jnp.expm1(log_var)


@family.gradient(kl, latent_statistics, "CONSTANT_FACTOR", argnums=(0, 1))
def kl_without_half(mean, log_var):
    """The ½ is missing for the log-variance."""
    return mean, jnp.exp(log_var) - 1


@family.gradient(kl, latent_statistics, "SIGN", argnums=(0, 1))
def kl_variance_sign(mean, log_var):
    """1 - exp for exp - 1."""
    return mean, 0.5 * (1 - jnp.exp(log_var))


CASES = tuple(family.cases)
