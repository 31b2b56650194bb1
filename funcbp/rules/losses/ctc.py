"""Connectionist temporal classification (Graves et al. 2006): the sum over all alignments, in log space.

An alignment of N labels with the frames goes through 2N + 1 states: blank, label 1, blank, ..., label N,
blank. φ holds log α of the N + 1 blanks, ε that of the N labels, as after a frame. With ⊕ for logaddexp, r =
1 where a label is followed by the same, and Λ = `log_epsilon` for log 0, a frame with log-probabilities b (of
the blank) and e (of each label) does

    φ' = φ, but φ'ₙ = φₙ ⊕ (εₙ + Λ r) for the blank after label n      (a blank may be skipped, if no repeat)
    ε⁺ₙ = eₙ + (φ'ₙ₋₁ ⊕ εₙ)                                            (label n is entered or stays)
    φ⁺ = b + φ', but φ⁺ₙ = b + (φ'ₙ ⊕ (εₙ + Λ (1 - r)))                (a repeat goes through the blank)

and a padded frame nothing. ℓ = -φₙ at n the number of labels, after a last skip φ ⊕ ε.

The δ recurrence. d(x ⊕ y) = σ(x - y) dx + σ(y - x) dy: every ⊕ parts its δ in the shares of its two terms,
the posterior odds of the two ways into that state. So backwards in time δ needs log α alone, no
log-probabilities, and what arrives at e and b is (minus) the posterior probability that the frame belongs to
that label or blank: the classic α β / p, without β. Summed over the states of a class that is γ, and z̄ =
(softmax(z) Σγ - γ) ℓ̄, with Σγ = 1 where the frame is no padding.
"""

from typing import Any

import jax
import optax
from jax import lax
from jax import numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ..._compat import enable_x64
from ..._numerics import upcast
from ..._rule import Rule
from ...domains import Integers, Normal
from .._checks import check_cotangent
from ._domains import RightPadded
from ._shared import class_index, log_partition

Logits = Float[Array, "batch time classes"]
LogitPaddings = Bool[Array, "batch time"]
Labels = Int[Array, "batch labels"]
LabelPaddings = Bool[Array, "batch labels"]
Losses = Float[Array, " batch"]
Alphas = tuple[Float[Array, "time batch states"], Float[Array, "time batch labels"]]
Residuals = tuple[Logits, LogitPaddings, Labels, LabelPaddings, Any, Alphas]


def ctc_loss_with_forward_probs_fwd(
    logits: Logits,
    logit_paddings: LogitPaddings,
    labels: Labels,
    label_paddings: LabelPaddings,
    *,
    blank_id: int = 0,
    log_epsilon: float = -1e5,
) -> tuple[tuple[Losses, Array, Array], Residuals]:
    """CTC loss and the log α of blanks `(time, batch, labels + 1)` and of labels `(time, batch, labels)`.

    As `optax.losses.ctc_loss_with_forward_probs`; paddings are booleans, True for what is padded, labels
    padded at the end only.

    Forward and Backward: the recurrences at the head of this module, with the cotangents of log α added to δ
    at their frame.

    Derivation. There. A label outside [0, classes) gives NaN unless it is padding. More labels than the
    frames can hold have a loss of about -`log_epsilon`, as in optax. So has log α of a state that cannot be
    reached: of its derivatives float32 keeps two digits only, ours and autodiff's.

    Saves z, paddings, labels, max z, Σ e^(z - max z) and log α.
    """
    loss, alphas, last, partition = _forward(
        "ctc_loss_with_forward_probs", logits, logit_paddings, labels, label_paddings, blank_id, log_epsilon
    )
    blanks = alphas[0].at[-1].set(last).astype(logits.dtype)
    outputs = loss.astype(logits.dtype), blanks, alphas[1].astype(logits.dtype)
    return outputs, (logits, logit_paddings, labels, label_paddings, partition, alphas)


def ctc_loss_with_forward_probs_bwd(
    residuals: Residuals,
    out_ct: tuple[Losses, Array, Array],
    *,
    blank_id: int = 0,
    log_epsilon: float = -1e5,
) -> tuple[Logits, None, None, None]:
    """The δ recurrence, with the cotangents of log α."""
    logits, _, _, _, _, alphas = residuals
    shapes = (logits.shape[:1], *(x.shape for x in alphas))
    names = ("loss", "logalpha_blank", "logalpha_nonblank")
    for ct, shape, name in zip(out_ct, shapes, names, strict=True):
        check_cotangent("ctc_loss_with_forward_probs", ct, shape, logits.dtype, output=name)
    loss_ct, *alpha_cts = map(upcast, out_ct)
    return _backward(residuals, loss_ct, alpha_cts, blank_id, log_epsilon), None, None, None


def ctc_loss_fwd(
    logits: Logits,
    logit_paddings: LogitPaddings,
    labels: Labels,
    label_paddings: LabelPaddings,
    *,
    blank_id: int = 0,
    log_epsilon: float = -1e5,
) -> tuple[Losses, Residuals]:
    """Minus the log-probability of the labels, over all alignments with the frames: one value a sequence.

    As `optax.losses.ctc_loss`; paddings are booleans, True for what is padded, labels padded at the end only.

    Forward:     ℓ = -log Σ Π softmax(z)      the sum over alignments, the product over frames
    Backward:    z̄ = (softmax(z) - γ) ℓ̄      γ the posterior probabilities of the classes; 0 at padded frames

    Derivation. At the head of this module: a recurrence for log α, and one for δ that needs log α only.

    Saves z, paddings, labels, max z, Σ e^(z - max z) and log α, 2 labels + 1 numbers a frame.
    """
    loss, alphas, _, partition = _forward(
        "ctc_loss", logits, logit_paddings, labels, label_paddings, blank_id, log_epsilon
    )
    return loss.astype(logits.dtype), (logits, logit_paddings, labels, label_paddings, partition, alphas)


def ctc_loss_bwd(
    residuals: Residuals, loss_ct: Losses, *, blank_id: int = 0, log_epsilon: float = -1e5
) -> tuple[Logits, None, None, None]:
    """z̄ = (softmax(z) - γ) ℓ̄."""
    logits = residuals[0]
    check_cotangent("ctc_loss", loss_ct, logits.shape[:1], logits.dtype)
    return _backward(residuals, upcast(loss_ct), None, blank_id, log_epsilon), None, None, None


def _forward(
    rule: str,
    logits: jax.Array,
    logit_paddings: jax.Array,
    labels: jax.Array,
    label_paddings: jax.Array,
    blank_id: int,
    log_epsilon: float,
) -> tuple[jax.Array, Alphas, jax.Array, Any]:
    """The loss, log α after each frame, that of the blanks after the last skip, and the log-partition."""
    _check(rule, logits, blank_id)
    z = upcast(logits)
    s, top, total = log_partition(z)
    index, inside = class_index(labels, z.shape[-1])
    log_p = s - jnp.log(total)
    emitted = jnp.take_along_axis(log_p, index[:, None, :], axis=-1, mode="clip")
    emitted = jnp.where((inside | label_paddings)[:, None, :], emitted, jnp.nan)
    again = log_epsilon * _repeated(labels, z.dtype)
    skip_not = log_epsilon - again

    def frame(state: Any, given: Any) -> tuple[Any, Any]:
        (blanks, letters), (e, b, padded) = state, given
        reached = _enter(blanks, letters + again)
        e = e + jnp.logaddexp(reached[:, :-1], letters)
        b = b + _enter(reached, letters + skip_not)
        new = jnp.where(padded, blanks, b), jnp.where(padded, letters, e)
        return new, new

    by_time = [
        jnp.swapaxes(x, 0, 1) for x in (emitted, log_p[..., blank_id, None], logit_paddings[..., None])
    ]
    (blanks, letters), alphas = lax.scan(frame, _start(labels, z.dtype, log_epsilon), tuple(by_time))
    last = _enter(blanks, letters)
    loss = -jnp.take_along_axis(last, _length(label_paddings), axis=1)[:, 0]
    return loss, alphas, last, (top, total)


def _backward(
    residuals: Residuals, loss_ct: jax.Array, alpha_cts: Any, blank_id: int, log_epsilon: float
) -> jax.Array:
    """z̄, for the cotangents of the loss and of log α (None: there are none)."""
    logits, logit_paddings, labels, label_paddings, (top, total), alphas = residuals
    z = upcast(logits)
    again = log_epsilon * _repeated(labels, z.dtype)
    skip_not = log_epsilon - again
    chosen = jnp.arange(labels.shape[1] + 1) == _length(label_paddings)
    last_ct = jnp.where(chosen, -loss_ct[:, None], 0)
    # What is added to δ before a frame is undone: the cotangents of log α before it.
    added = None
    if alpha_cts is not None:
        last_ct = last_ct + alpha_cts[0][-1]
        added = tuple(jnp.concatenate([jnp.zeros_like(ct[:1]), ct[:-1]]) for ct in alpha_cts)
    deltas = _enter_bwd(alphas[0][-1], alphas[1][-1], last_ct)
    if alpha_cts is not None:
        deltas = (deltas[0], deltas[1] + alpha_cts[1][-1])

    def frame(deltas: Any, given: Any) -> tuple[Any, Any]:
        (blanks, letters), padded, more = given
        kept = deltas
        deltas = tuple(jnp.where(padded, 0, x) for x in deltas)
        reached = _enter(blanks, letters + again)
        to_reached, through = _enter_bwd(reached, letters + skip_not, deltas[0])
        entered = jax.nn.sigmoid(reached[:, :-1] - letters) * deltas[1]
        stayed = jax.nn.sigmoid(letters - reached[:, :-1]) * deltas[1]
        to_reached = to_reached + jnp.pad(entered, ((0, 0), (0, 1)))
        to_blanks, skipped = _enter_bwd(blanks, letters + again, to_reached)
        before = (to_blanks, skipped + stayed + through)
        before = tuple(jnp.where(padded, x, y) for x, y in zip(kept, before, strict=True))
        if more is not None:
            before = tuple(x + y for x, y in zip(before, more, strict=True))
        return before, (deltas[1], jnp.sum(deltas[0], axis=1))

    start = _start(labels, z.dtype, log_epsilon)
    earlier = tuple(jnp.concatenate([x[None], a[:-1]]) for x, a in zip(start, alphas, strict=True))
    padded = jnp.swapaxes(logit_paddings[..., None], 0, 1)
    _, (to_letters, to_blank) = lax.scan(frame, deltas, (earlier, padded, added), reverse=True)
    gamma = _by_class(jnp.swapaxes(to_letters, 0, 1), to_blank.T, labels, z.shape[-1], blank_id)
    softmax = jnp.exp(z - top) / total
    return (gamma - softmax * jnp.sum(gamma, axis=-1, keepdims=True)).astype(logits.dtype)


def _enter(blanks: jax.Array, letters: jax.Array) -> jax.Array:
    """φ, but φₙ ⊕ εₙ for the blank after label n."""
    return jnp.concatenate([blanks[:, :1], jnp.logaddexp(blanks[:, 1:], letters)], axis=1)


def _enter_bwd(blanks: jax.Array, letters: jax.Array, delta: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The shares of φ and ε in δ."""
    odds = blanks[:, 1:] - letters
    own = jnp.concatenate([delta[:, :1], jax.nn.sigmoid(odds) * delta[:, 1:]], axis=1)
    return own, jax.nn.sigmoid(-odds) * delta[:, 1:]


def _by_class(
    to_letters: jax.Array, to_blank: jax.Array, labels: jax.Array, classes: int, blank_id: int
) -> jax.Array:
    """Sums over the states of each class: `(batch, time, classes)`."""
    zeros = jnp.zeros((*to_blank.shape, classes), to_letters.dtype)
    index = jnp.clip(class_index(labels, classes)[0], 0, classes - 1)
    gamma = jax.vmap(lambda row, k, x: row.at[:, k].add(x))(zeros, index, to_letters)
    return gamma.at[..., blank_id].add(to_blank)


def _start(labels: jax.Array, dtype: Any, log_epsilon: float) -> tuple[jax.Array, jax.Array]:
    """log α before the first frame: all in the first blank."""
    batch, count = labels.shape
    nothing = jnp.full((batch, count + 1), log_epsilon, dtype)
    return nothing.at[:, 0].set(0), nothing[:, 1:]


def _repeated(labels: jax.Array, dtype: Any) -> jax.Array:
    """1 where a label is followed by the same, else 0."""
    return jnp.pad((labels[:, :-1] == labels[:, 1:]).astype(dtype), ((0, 0), (0, min(labels.shape[1], 1))))


def _length(label_paddings: jax.Array) -> jax.Array:
    """The number of labels of each sequence, as a column."""
    return jnp.sum(~label_paddings, axis=1, keepdims=True)


def _check(rule: str, logits: jax.Array, blank_id: int) -> None:
    _, frames, classes = logits.shape
    if not frames:
        raise ValueError(f"{rule}: argument `logits` has shape {logits.shape}; it needs at least one frame.")
    if not 0 <= blank_id < classes:
        raise ValueError(
            f"{rule}: static option `blank_id` is {blank_id}, but `logits` has {classes} classes: choose "
            f"from 0 to {classes - 1}."
        )


def _ctc_reference(
    logits: Logits,
    logit_paddings: LogitPaddings,
    labels: Labels,
    label_paddings: LabelPaddings,
    **options: Any,
) -> tuple[Array, Array, Array]:
    padded = logit_paddings.astype(logits.dtype), label_paddings.astype(logits.dtype)
    # optax starts in the widest type there is, and goes on in it.
    with enable_x64(logits.dtype == jnp.float64):
        return optax.losses.ctc_loss_with_forward_probs(logits, padded[0], labels, padded[1], **options)


_COMMON: dict[str, Any] = {
    "domain": {
        "logits": Normal(2.0),
        "logit_paddings": RightPadded(4),
        "labels": Integers(1, 3),
        "label_paddings": RightPadded(0),
    },
    "sizes": (
        {"batch": 2, "time": 5, "classes": 3, "labels": 2},
        {"batch": 1, "time": 7, "classes": 3, "labels": 3},
    ),
    "settings": ({"blank_id": 2},),
}

ctc_loss = Rule(
    ctc_loss_fwd,
    ctc_loss_bwd,
    reference=lambda *args, **options: _ctc_reference(*args, **options)[0],
    formula="ℓ = -log Σ Π softmax(z); ∂ℓ/∂z = softmax(z) - γ",
    saves="z, paddings, labels, max z, Σ e^(z - max z), log α",
    **_COMMON,
)

ctc_loss_with_forward_probs = Rule(
    ctc_loss_with_forward_probs_fwd,
    ctc_loss_with_forward_probs_bwd,
    reference=_ctc_reference,
    formula="ℓ = -log Σ Π softmax(z), and log α; ∂ℓ/∂z = softmax(z) - γ",
    saves="z, paddings, labels, max z, Σ e^(z - max z), log α",
    **_COMMON,
)
