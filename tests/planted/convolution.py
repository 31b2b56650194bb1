"""Convolution, correlation and pooling."""

import jax
from jax import lax
from jax import numpy as jnp

from ._case import Family, array, normal

family = Family("convolution")


def conv1d(x, w):
    """Valid correlation, y[t] = Σ x[t+k] w[k]."""
    n = x.shape[0] - w.shape[0] + 1
    return sum(w[k] * x[k : k + n] for k in range(w.shape[0]))


def conv1d_fwd(x, w):
    return conv1d(x, w), (x, w)


SIGNAL = normal((12,), (4,))


@family.vjp(conv1d, SIGNAL, fwd=conv1d_fwd)
def conv1d_bwd(residuals, dy):
    x, w = residuals
    return jnp.convolve(dy, w), jnp.stack([jnp.sum(dy * x[k : k + dy.size]) for k in range(w.size)])


@family.vjp(conv1d, SIGNAL, "PERMUTED", fwd=conv1d_fwd)
def kernel_not_flipped(residuals, dy):
    """δ is correlated with w where it must be convolved."""
    x, w = residuals
    return jnp.convolve(dy, w[::-1]), jnp.stack([jnp.sum(dy * x[k : k + dy.size]) for k in range(w.size)])


@family.vjp(conv1d, SIGNAL, "PERMUTED", fwd=conv1d_fwd)
def kernel_gradient_reversed(residuals, dy):
    """The taps of dw come out in reverse order."""
    x, w = residuals
    taps = jnp.stack([jnp.sum(dy * x[k : k + dy.size]) for k in range(w.size)])
    return jnp.convolve(dy, w), taps[::-1]


@family.vjp(conv1d, SIGNAL, "OFF_BY_ONE", "PERMUTED", fwd=conv1d_fwd)
def input_gradient_shifted(residuals, dy):
    """The padding on the two sides differs by one from the right one."""
    x, w = residuals
    shifted = jnp.pad(jnp.convolve(dy, w), (1, 0))[:-1]
    return shifted, jnp.stack([jnp.sum(dy * x[k : k + dy.size]) for k in range(w.size)])


def conv2d(x, w):
    return lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def conv2d_fwd(x, w):
    return conv2d(x, w), (x, w)


def patches(x, size):
    _, h, width, _ = x.shape
    half = size // 2
    padded = jnp.pad(x, ((0, 0), (half, half), (half, half), (0, 0)))
    rows = [[padded[:, i : i + h, j : j + width] for j in range(size)] for i in range(size)]
    return jnp.stack([jnp.stack(row, 3) for row in rows], 3)


IMAGES = normal((2, 5, 5, 2), (3, 3, 2, 3))


@family.vjp(conv2d, IMAGES, fwd=conv2d_fwd)
def conv2d_bwd(residuals, dy):
    x, w = residuals
    flipped = w[::-1, ::-1].transpose(0, 1, 3, 2)
    return conv2d(dy, flipped), jnp.einsum("nhwijc,nhwo->ijco", patches(x, 3), dy)


@family.vjp(conv2d, IMAGES, "PERMUTED", fwd=conv2d_fwd)
def conv2d_flipped_in_one_axis(residuals, dy):
    """The kernel is turned upside down, but not left to right."""
    x, w = residuals
    flipped = w[::-1].transpose(0, 1, 3, 2)
    return conv2d(dy, flipped), jnp.einsum("nhwijc,nhwo->ijco", patches(x, 3), dy)


@family.vjp(conv2d, normal((2, 5, 5, 3), (3, 3, 3, 3)), "TRANSPOSE_FORGOTTEN", "PERMUTED", fwd=conv2d_fwd)
def conv2d_channels_not_transposed(residuals, dy):
    """Input and output channels stay in place in the kernel of the backward pass; both are 3."""
    x, w = residuals
    return conv2d(dy, w[::-1, ::-1]), jnp.einsum("nhwijc,nhwo->ijco", patches(x, 3), dy)


@family.vjp(conv2d, IMAGES, "CONSTANT_FACTOR", fwd=conv2d_fwd)
def conv2d_kernel_averaged_over_batch(residuals, dy):
    """dw is a mean over the images."""
    x, w = residuals
    flipped = w[::-1, ::-1].transpose(0, 1, 3, 2)
    return conv2d(dy, flipped), jnp.einsum("nhwijc,nhwo->ijco", patches(x, 3), dy) / x.shape[0]


def biased(x, b):
    return x + b


@family.vjp(biased, normal((2, 4, 4, 3), (3,)), "REDUCTION", fwd=lambda x, b: (x + b, None))
def channel_bias_of_the_mean_pixel(_, dy):
    """Summed over the batch, averaged over the pixels."""
    return dy, dy.mean((1, 2)).sum(0)


def max_pool(x):
    n, t, c = x.shape
    return x.reshape(n, t // 2, 2, c).max(2)


def max_pool_fwd(x):
    return max_pool(x), x


@family.vjp(max_pool, normal((2, 8, 3)), fwd=max_pool_fwd)
def max_pool_to_the_first(x, dy):
    """The first largest one gets everything."""
    n, t, c = x.shape
    winner = jax.nn.one_hot(x.reshape(n, t // 2, 2, c).argmax(2), 2, axis=2, dtype=dy.dtype)
    return ((winner * dy[:, :, None]).reshape(x.shape),)


@family.vjp(
    max_pool,
    lambda: (jnp.maximum(array((2, 8, 3)), 0),),
    fwd=max_pool_fwd,
    conventional="ties of zeros: jax.vjp gives each its share, here the first gets all",
)
def max_pool_after_relu(x, dy):
    """Windows of zeros are ties."""
    n, t, c = x.shape
    winner = jax.nn.one_hot(x.reshape(n, t // 2, 2, c).argmax(2), 2, axis=2, dtype=dy.dtype)
    return ((winner * dy[:, :, None]).reshape(x.shape),)


@family.vjp(
    max_pool,
    normal((2, 8, 3)),
    "KINK",
    fwd=max_pool_fwd,
    exposed=lambda: (jnp.ones((2, 8, 3)),),
)
def max_pool_ties_doubled(x, dy):
    """Every largest one gets all of δ; wrong where two are equal."""
    y = jnp.repeat(max_pool(x), 2, axis=1)
    return (jnp.where(x == y, jnp.repeat(dy, 2, axis=1), 0),)


def mean_pool(x):
    n, t, c = x.shape
    return x.reshape(n, t // 2, 2, c).mean(2)


@family.vjp(mean_pool, normal((2, 8, 3)), "CONSTANT_FACTOR", fwd=lambda x: (mean_pool(x), None))
def mean_pool_not_divided(_, dy):
    """δ is copied to the window without dividing by its size."""
    return (jnp.repeat(dy, 2, axis=1),)


@family.vjp(mean_pool, normal((2, 8, 3)), "PERMUTED", fwd=lambda x: (mean_pool(x), None))
def mean_pool_tiled(_, dy):
    """tile (abcabc) where repeat (aabbcc) belongs."""
    return (jnp.tile(dy, (1, 2, 1)) / 2,)


@family.vjp(mean_pool, normal((2, 8, 3)), fwd=lambda x: (mean_pool(x), None))
def mean_pool_bwd(_, dy):
    return (jnp.repeat(dy, 2, axis=1) / 2,)


def causal(x, w):
    """y[t] = Σ w[k] x[t-k]."""
    return sum(w[k] * jnp.pad(x, (k, 0))[: x.size] for k in range(w.size))


@family.vjp(causal, SIGNAL, "OFF_BY_ONE", "PERMUTED", fwd=lambda x, w: (causal(x, w), (x, w)))
def causal_kernel_gradient_late(residuals, dy):
    """dw[k] meets x[t-k-1] instead of x[t-k]."""
    x, w = residuals
    dx = sum(w[k] * jnp.pad(dy, (0, k))[k:] for k in range(w.size))
    return dx, jnp.stack([jnp.sum(dy * jnp.pad(x, (k + 1, 0))[: x.size]) for k in range(w.size)])


@family.vjp(causal, SIGNAL, fwd=lambda x, w: (causal(x, w), (x, w)))
def causal_bwd(residuals, dy):
    x, w = residuals
    dx = sum(w[k] * jnp.pad(dy, (0, k))[k:] for k in range(w.size))
    return dx, jnp.stack([jnp.sum(dy * jnp.pad(x, (k, 0))[: x.size]) for k in range(w.size)])


CASES = tuple(family.cases)
