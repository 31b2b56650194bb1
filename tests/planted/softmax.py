"""Softmax, log-softmax, logsumexp and the losses on top of them."""

import jax
import numpy as np
from jax import numpy as jnp

from ._case import Family, array, integers, normal

family = Family("softmax")


def softmax(z):
    return jax.nn.softmax(z, axis=-1)


def softmax_fwd(z):
    e = jnp.exp(z - z.max(-1, keepdims=True))
    p = e / e.sum(-1, keepdims=True)
    return p, p


@family.vjp(softmax, normal((4, 6)), fwd=softmax_fwd)
def softmax_bwd(p, dy):
    return (p * (dy - jnp.sum(dy * p, -1, keepdims=True)),)


@family.vjp(softmax, lambda: (array((4, 6), scale=1e3),), fwd=softmax_fwd)
def softmax_of_huge_logits(p, dy):
    """Saturated: nearly every derivative is zero."""
    return (p * (dy - jnp.sum(dy * p, -1, keepdims=True)),)


@family.vjp(softmax, lambda: (jnp.ones((3, 1)) * array((3, 1)),), fwd=softmax_fwd)
def softmax_of_one_class(p, dy):
    """An axis of size one: constant, so the gradient is zero."""
    return (p * (dy - jnp.sum(dy * p, -1, keepdims=True)),)


@family.vjp(softmax, normal((4, 6)), "TERM_MISSING", fwd=softmax_fwd)
def diagonal_only(p, dy):
    """p(1-p) as for a sigmoid; the other classes are forgotten."""
    return (dy * p * (1 - p),)


@family.vjp(softmax, normal((4, 6)), "TERM_MISSING", "STATISTICS", fwd=softmax_fwd)
def normalizer_constant(p, dy):
    """The sum in the denominator is treated as a constant."""
    return (p * dy,)


@family.vjp(softmax, normal((6, 6)), "REDUCTION", fwd=softmax_fwd)
def centered_over_the_wrong_axis(p, dy):
    """Σ over the batch instead of over the classes."""
    return (p * (dy - jnp.sum(dy * p, 0, keepdims=True)),)


@family.vjp(softmax, normal((4, 6)), "FACTOR_MISSING", "TERM_MISSING", "VALUE", fwd=softmax_fwd)
def centered_without_weights(p, dy):
    """Σ δ instead of Σ δp."""
    return (p * (dy - jnp.sum(dy, -1, keepdims=True)),)


@family.vjp(softmax, normal((4, 6)), "SIGN", fwd=softmax_fwd)
def centering_added(p, dy):
    """Plus where the minus belongs."""
    return (p * (dy + jnp.sum(dy * p, -1, keepdims=True)),)


def log_softmax_fwd(z):
    shifted = z - z.max(-1, keepdims=True)
    out = shifted - jnp.log(jnp.sum(jnp.exp(shifted), -1, keepdims=True))
    return out, out


@family.vjp(jax.nn.log_softmax, normal((4, 6)), fwd=log_softmax_fwd)
def log_softmax_bwd(out, dy):
    return (dy - jnp.exp(out) * dy.sum(-1, keepdims=True),)


@family.vjp(jax.nn.log_softmax, lambda: (array((3, 5), scale=1e4),), fwd=log_softmax_fwd)
def log_softmax_of_huge_logits(out, dy):
    """The softmax is one-hot in float32."""
    return (dy - jnp.exp(out) * dy.sum(-1, keepdims=True),)


@family.vjp(jax.nn.log_softmax, normal((4, 6)), "COTANGENT_IGNORED", "FACTOR_MISSING", fwd=log_softmax_fwd)
def log_softmax_for_one_hot_cotangents(out, dy):
    """Σδ = 1 is assumed, true only below a cross-entropy with weight one."""
    return (dy - jnp.exp(out),)


@family.vjp(jax.nn.log_softmax, normal((4, 6)), "WRONG_POINT", fwd=log_softmax_fwd)
def log_softmax_used_as_softmax(out, dy):
    """The stored log-probabilities are taken for probabilities."""
    return (dy - out * dy.sum(-1, keepdims=True),)


@family.gradient(lambda z: jax.nn.logsumexp(z), normal((7,)))
def logsumexp_gradient(z):
    e = jnp.exp(z - z.max())
    return e / e.sum()


@family.gradient(lambda z: jax.nn.logsumexp(z), lambda: (1e6 * jnp.asarray([1.0, 1.0, 0.5]),))
def logsumexp_at_a_million(z):
    """A tie of huge logits."""
    e = jnp.exp(z - z.max())
    return e / e.sum()


@family.gradient(
    lambda z: jnp.log(jnp.sum(jnp.exp(z))), normal((7,)), "NONFINITE", exposed=lambda: (jnp.full(7, 100.0),)
)
def logsumexp_unshifted(z):
    """exp overflows in float32 from 89 on, where the gradient is still in [0, 1]."""
    e = jnp.exp(z)
    return e / e.sum()


def cross_entropy(logits, labels):
    return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], 1))


def labeled():
    return array((6, 4)), integers((6,), 4)


@family.gradient(cross_entropy, labeled)
def cross_entropy_gradient(logits, labels):
    return (jax.nn.softmax(logits) - jax.nn.one_hot(labels, logits.shape[1])) / len(labels)


@family.gradient(cross_entropy, lambda: (np.array([[1e3, 0.0, -1e3]] * 2, np.float32), np.array([0, 2])))
def cross_entropy_saturated(logits, labels):
    """Probabilities exactly 0 and 1."""
    return (jax.nn.softmax(logits) - jax.nn.one_hot(labels, logits.shape[1])) / len(labels)


@family.gradient(cross_entropy, labeled, "CONSTANT_FACTOR")
def cross_entropy_not_averaged(logits, labels):
    """The loss is a mean, the gradient that of the sum."""
    return jax.nn.softmax(logits) - jax.nn.one_hot(labels, logits.shape[1])


@family.gradient(cross_entropy, labeled, "CONSTANT_FACTOR")
def cross_entropy_divided_by_classes(logits, labels):
    """Divided by all entries, not by the batch."""
    return (jax.nn.softmax(logits) - jax.nn.one_hot(labels, logits.shape[1])) / logits.size


@family.gradient(cross_entropy, labeled, "SIGN")
def cross_entropy_negated(logits, labels):
    """y - p: the descent direction."""
    return (jax.nn.one_hot(labels, logits.shape[1]) - jax.nn.softmax(logits)) / len(labels)


@family.gradient(cross_entropy, labeled, "OFF_BY_ONE", "PERMUTED", "VALUE")
def labels_counted_from_one(logits, labels):
    """The one-hot position is shifted by one."""
    return (jax.nn.softmax(logits) - jax.nn.one_hot(labels - 1, logits.shape[1])) / len(labels)


def one_hot_cross_entropy(logits, y):
    return -jnp.sum(y * jax.nn.log_softmax(logits)) / logits.shape[0]


@family.gradient(one_hot_cross_entropy, lambda: (array((6, 4)), jax.nn.one_hot(integers((6,), 4), 4)))
def cross_entropy_with_one_hot(logits, y):
    """p - y holds because the rows of y sum to one."""
    return (jax.nn.softmax(logits) - y) / logits.shape[0]


def ignoring(logits, labels):
    kept = labels >= 0
    picked = jnp.take_along_axis(jax.nn.log_softmax(logits), jnp.maximum(labels, 0)[:, None], 1)[:, 0]
    return -jnp.sum(picked * kept) / jnp.maximum(kept.sum(), 1)


def padded():
    return array((6, 4)), jnp.asarray([2, 0, -1, 3, -1, 1])


@family.gradient(ignoring, padded)
def ignored_labels(logits, labels):
    kept = labels >= 0
    error = jax.nn.softmax(logits) - jax.nn.one_hot(labels, logits.shape[1])
    return jnp.where(kept[:, None], error, 0) / jnp.maximum(kept.sum(), 1)


@family.gradient(ignoring, padded, "CONSTANT_FACTOR")
def ignored_labels_counted(logits, labels):
    """Divided by all labels, also those that are ignored."""
    error = jax.nn.softmax(logits) - jax.nn.one_hot(labels, logits.shape[1])
    return jnp.where((labels >= 0)[:, None], error, 0) / len(labels)


def smoothed(logits, labels):
    n, k = logits.shape
    target = 0.9 * jax.nn.one_hot(labels, k) + 0.1 / k
    return -jnp.sum(target * jax.nn.log_softmax(logits)) / n


@family.gradient(smoothed, labeled, "TERM_MISSING")
def smoothing_without_uniform_part(logits, labels):
    """The 0.1/k of label smoothing is dropped from the target."""
    n, k = logits.shape
    return (jax.nn.softmax(logits) - 0.9 * jax.nn.one_hot(labels, k)) / n


def tempered(logits, temperature):
    return jnp.sum(jnp.square(jax.nn.softmax(logits / temperature)))


@family.gradient(tempered, lambda: (array((5,)), jnp.float32(2.5)), "CONSTANT_FACTOR", "FACTOR_MISSING")
def temperature_forgotten(logits, temperature):
    """1/T of the chain rule is missing."""
    p = jax.nn.softmax(logits / temperature)
    return 2 * p * (p - jnp.sum(p * p))


@family.jacobian(softmax, normal((5,)))
def softmax_jacobian(z):
    p = jax.nn.softmax(z)
    return jnp.diag(p) - jnp.outer(p, p)


@family.jacobian(softmax, normal((5,)), "SIGN", "TERM_MISSING")
def softmax_jacobian_plus(z):
    """diag(p) + ppᵀ."""
    p = jax.nn.softmax(z)
    return jnp.diag(p) + jnp.outer(p, p)


CASES = tuple(family.cases)
