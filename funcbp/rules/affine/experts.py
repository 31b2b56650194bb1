"""A mixture of experts: gates from the largest logits, and the sum of what the experts say."""

from jax import lax
from jax import numpy as jnp
from jaxtyping import Array, Float

from ..._numerics import contracted, upcast
from ..._rule import Rule
from ...domains import Distinct, Normal, Point
from .._checks import check_cotangent
from ..activations.softmax import softmax

Gates = Float[Array, "*batch experts"]
Values = Float[Array, "*batch experts features"]
Y = Float[Array, "*batch features"]


def top_k_gates_fwd(logits: Gates, *, k: int = 2) -> tuple[Gates, Gates]:
    """Softmax over the k largest logits, 0 for the others (Shazeer et al. 2017, arXiv:1701.06538).

    Forward, with K the indices of the k largest z:    g_i = [i ∈ K] e^(z_i) / Σ_{j ∈ K} e^(z_j)
    Backward:                                          z̄ = g ⊙ (ḡ - ⟨g, ḡ⟩)

    Derivation. Around z the set K stays as it is: a softmax of its entries, with the pullback of softmax.
    Where g is 0 so is z̄: an expert that was not chosen is not told that it should have been.

    Of equal logits the first is taken, as by lax.top_k: at a tie for the last place g jumps, and z̄ is that of
    the choice made.

    Saves g.

    Raises:
        ValueError: for k below 1 or above the number of experts.
    """
    _check_k(k, logits.shape[-1])
    z = upcast(logits)
    _, chosen = lax.top_k(lax.stop_gradient(z), k)
    inside = jnp.put_along_axis(jnp.zeros(z.shape, bool), chosen, True, axis=-1, inplace=False)
    gates = softmax.primal(jnp.where(inside, z, -jnp.inf)).astype(logits.dtype)
    return gates, gates


def top_k_gates_bwd(residuals: Gates, gates_ct: Gates, *, k: int = 2) -> tuple[Gates]:
    """z̄ = g ⊙ (ḡ - ⟨g, ḡ⟩)."""
    del k  # read off the gates
    check_cotangent("top_k_gates", gates_ct, residuals.shape, residuals.dtype)
    return softmax.bwd(residuals, gates_ct)


def _check_k(k: int, experts: int) -> None:
    if not 1 <= k <= experts:
        raise ValueError(f"top_k_gates: `k` must be from 1 to the number of experts, {experts}, got {k}.")


def _top_k_gates_reference(logits: Gates, k: int = 2) -> Gates:
    place = jnp.argsort(jnp.argsort(-logits, axis=-1, stable=True), axis=-1)
    weights = jnp.where(place < k, jnp.exp(logits - jnp.max(logits, axis=-1, keepdims=True)), 0)
    return weights / jnp.sum(weights, axis=-1, keepdims=True)


top_k_gates = Rule(
    top_k_gates_fwd,
    top_k_gates_bwd,
    reference=_top_k_gates_reference,
    domain={"logits": Distinct()},
    points={
        "tie for the last place": Point(
            {"logits": (1.0, 0.0, 0.0, 0.0, -1.0)}, {"logits": 0.0}, smooth=False
        ),
        "excluded experts": Point({"logits": (0.5, 1.0, *3 * (-float("inf"),))}, {"logits": 0.0}),
    },
    settings=({"k": 1}, {"k": 5}),
    sizes=({"experts": 5},),
    formula="g = softmax over the k largest z, else 0; z̄ = g ⊙ (ḡ - ⟨g, ḡ⟩)",
    saves="g",
)


def mixture_fwd(weights: Gates, values: Values) -> tuple[Y, tuple[Gates, Values]]:
    """A weighted sum of what several experts say.

    Forward:     y = Σ_e g_e v_e
    Backward:    ḡ_e = ⟨v_e, ȳ⟩      v̄_e = g_e ȳ

    Derivation. dy = Σ_e dg_e v_e + g_e dv_e.

    Saves g and v. Sums are in float32 at least and rounded once.
    """
    y = contracted("...e,...ef->...f", weights, values)
    return y.astype(values.dtype), (weights, values)


def mixture_bwd(residuals: tuple[Gates, Values], y_ct: Y) -> tuple[Gates, Values]:
    """ḡ_e = ⟨v_e, ȳ⟩, v̄_e = g_e ȳ."""
    weights, values = residuals
    check_cotangent("mixture", y_ct, (*values.shape[:-2], values.shape[-1]), values.dtype)
    weights_ct = contracted("...ef,...f->...e", values, y_ct)
    values_ct = upcast(weights)[..., None] * upcast(y_ct)[..., None, :]
    return weights_ct.astype(weights.dtype), values_ct.astype(values.dtype)


mixture = Rule(
    mixture_fwd,
    mixture_bwd,
    reference=lambda weights, values: jnp.einsum("...e,...ef->...f", weights, values),
    domain={"weights": Normal(), "values": Normal()},
    formula="y = Σ g_e v_e; ḡ_e = ⟨v_e, ȳ⟩, v̄_e = g_e ȳ",
    saves="g, v",
)
