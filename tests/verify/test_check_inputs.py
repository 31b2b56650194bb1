"""What a check finds because of where it looks, and what it must not take for a mistake."""

import jax
import numpy as np
from jax import numpy as jnp

import funcbp
from funcbp.verify import Cause

rng = np.random.default_rng(11)


def causes(report):
    return [finding.cause for finding in report.findings]


def dropout(x, key):
    return jnp.where(jax.random.bernoulli(key, 0.8, x.shape), x / 0.8, 0)


def test_random_numbers_are_those_of_the_users_dtypes():
    """JAX draws other numbers in float64: the truth must not."""

    def bwd(key, ct):
        return jnp.where(jax.random.bernoulli(key, 0.8, ct.shape), ct / 0.8, 0), None

    pair = (lambda x, key: (dropout(x, key), key), bwd)
    args = (rng.standard_normal((5, 4)).astype("float32"), jax.random.key(1))
    report = funcbp.check_vjp(pair, of=dropout, args=args, samples=2)
    assert report.verdict == "right", report


def test_labels_that_the_reference_treats_apart():
    """The example has no ignored label; the reference tells that there may be some."""

    def loss(logits, labels):
        kept = labels != -100
        log_p = jax.nn.log_softmax(logits)[jnp.arange(len(labels)), jnp.where(kept, labels, 0)]
        return -jnp.sum(log_p * kept) / jnp.maximum(kept.sum(), 1)

    def my_grad(logits, labels):
        return (jax.nn.softmax(logits) - jax.nn.one_hot(labels, 4)) / len(labels)

    args = (rng.standard_normal((6, 4)).astype("float32"), np.array([0, 1, 2, 3, 1, 0]))
    assert funcbp.check_gradient(my_grad, of=loss, args=args, samples=2).verdict == "wrong"


def test_a_value_captured_at_definition():
    weight = rng.standard_normal((4, 3))

    def my_grad(w, x):
        return 2 * x.T @ (x @ jnp.asarray(weight, w.dtype))

    report = funcbp.check_gradient(
        my_grad,
        of=lambda w, x: jnp.sum((x @ w) ** 2),
        args=(weight, rng.standard_normal((6, 4))),
        samples=2,
    )
    assert causes(report) == [Cause.STALE], report
    assert "does not change with w" in report.findings[0].message


def test_singular_matrices_are_no_mistake():
    a = np.eye(4) + 0.3 * rng.standard_normal((4, 4))
    report = funcbp.check_gradient(
        lambda a: jnp.linalg.inv(a).T, of=lambda a: jnp.linalg.slogdet(a)[1], args=(a,), samples=2
    )
    assert report.verdict == "right", report
