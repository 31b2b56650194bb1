"""CTC against all alignments one by one, posteriors that sum to one, padding and what cannot be aligned."""

import itertools

import jax
import numpy as np
import optax
import pytest
from jax import numpy as jnp

from funcbp import rules

FRAMES, CLASSES = 5, 3
Z = jax.random.normal(jax.random.key(0), (4, FRAMES, CLASSES))
LABELS = jnp.array([[1, 2], [1, 1], [2, 0], [0, 0]])
NO_LABEL = jnp.array([[False, False], [False, False], [False, True], [True, True]])
NO_FRAME = jnp.arange(FRAMES) >= jnp.array([5, 4, 3, 5])[:, None]


@jax.jit
@jax.value_and_grad
def summed(z: jax.Array, labels: jax.Array) -> jax.Array:
    """The losses of all sequences, and their gradient."""
    return rules.ctc_loss(z, NO_FRAME, labels, NO_LABEL).sum()


def collapsed(path: tuple[int, ...]) -> list[int]:
    """What an alignment says: repeats once, blanks (0) not at all."""
    return [k for i, k in enumerate(path) if k and (i == 0 or path[i - 1] != k)]


def by_enumeration(z: np.ndarray, label: list[int]) -> tuple[float, np.ndarray]:
    """Loss, and posterior probability of every class at every frame, by going through all alignments."""
    log_p = z - np.logaddexp.reduce(z, axis=-1, keepdims=True)
    total, posterior = 0.0, np.zeros(z.shape)
    for path in itertools.product(range(z.shape[1]), repeat=len(z)):
        if collapsed(path) == label:
            weight = np.exp(sum(log_p[t, k] for t, k in enumerate(path)))
            total += weight
            for t, k in enumerate(path):
                posterior[t, k] += weight
    return -np.log(total), posterior / total


def test_loss_and_gradient_are_those_of_all_alignments():
    value = jax.jit(rules.ctc_loss)(Z, NO_FRAME, LABELS, NO_LABEL)
    _, gradient = summed(Z, LABELS)
    softmax = jax.nn.softmax(Z)
    for i, (frames, count) in enumerate([(5, 2), (4, 2), (3, 1), (5, 0)]):
        loss, posterior = by_enumeration(np.asarray(Z[i, :frames], np.float64), LABELS[i, :count].tolist())
        np.testing.assert_allclose(value[i], loss, rtol=1e-5)
        np.testing.assert_allclose(gradient[i, :frames], softmax[i, :frames] - posterior, atol=1e-5)
        np.testing.assert_array_equal(gradient[i, frames:], 0)


def test_every_frame_passes_on_a_gradient_that_sums_to_zero():
    np.testing.assert_allclose(summed(Z, LABELS)[1].sum(-1), 0, atol=1e-5)


def test_forward_probabilities_are_those_of_optax():
    ours = jax.jit(rules.ctc_loss_with_forward_probs)(Z, NO_FRAME, LABELS, NO_LABEL)
    theirs = jax.jit(optax.losses.ctc_loss_with_forward_probs)(
        Z, NO_FRAME.astype(Z.dtype), LABELS, NO_LABEL.astype(Z.dtype)
    )
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-4)


def test_what_is_padding_does_not_matter():
    value, gradient = summed(jnp.where(NO_FRAME[..., None], 1e6, Z), jnp.where(NO_LABEL, 99, LABELS))
    expected, slope = summed(Z, LABELS)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    np.testing.assert_allclose(gradient, slope, atol=1e-6)


def test_a_label_that_is_no_class_is_seen():
    value, gradient = jax.jit(jax.vmap(jax.value_and_grad(one)))(Z[:2], jnp.array([[1, 3], [1, 2]]))
    assert np.isnan(value).tolist() == [True, False]
    assert np.isnan(gradient).any((-1, -2)).tolist() == [True, False]


def one(z: jax.Array, labels: jax.Array) -> jax.Array:
    """The loss of one sequence without padding."""
    paddings = jnp.zeros((1, len(z)), bool), jnp.zeros((1, len(labels)), bool)
    return rules.ctc_loss(z[None], paddings[0], labels[None], paddings[1])[0]


def test_labels_that_do_not_fit_have_a_huge_loss_and_a_finite_gradient():
    value, gradient = jax.jit(jax.value_and_grad(one))(Z[0, :2], jnp.array([1, 1]))
    assert value > 5e4
    assert np.isfinite(gradient).all()


def test_a_hopeless_alignment_of_many_frames_is_finite():
    z = jnp.zeros((300, 4)).at[:, 1].set(-1e4)
    value, gradient = jax.jit(jax.value_and_grad(one))(z, jnp.array([1, 2]))
    assert np.isfinite(value)
    np.testing.assert_allclose(gradient.sum(-1), 0, atol=1e-3)
    np.testing.assert_allclose(gradient[:, 1].sum(), -1, rtol=1e-3)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"blank_id": 3}, ValueError, "ctc_loss: static option `blank_id` is 3, but `logits` has 3 classes"),
        ({"logits": Z[:, :0], "logit_paddings": NO_FRAME[:, :0]}, ValueError, "needs at least one frame"),
        ({"logit_paddings": jnp.zeros((4, FRAMES))}, TypeError, r"`logit_paddings` must hold booleans"),
    ],
)
def test_a_wrong_call_is_named(change: dict, error: type[Exception], message: str):
    arguments = {"logits": Z, "logit_paddings": NO_FRAME, "labels": LABELS, "label_paddings": NO_LABEL}
    with pytest.raises(error, match=message):
        rules.ctc_loss(**(arguments | change))
