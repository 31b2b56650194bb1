"""`clipped_grad`: sums of the gradients of examples, each times what depends on its norm, in one sweep."""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, cast

import jax
from jax import numpy as jnp

from ._frozen import Frozen
from ._loss import LossLike
from ._microbatches import accumulated, check_microbatches
from ._numerics import upcast
from ._precision import Precision
from ._sweep import Batch, Reduction, Setup, batch_of, in_dtypes_of, setup
from .factors import Factor, Stacked
from .layers import Layer
from .layers._layer import path_string

__all__ = [
    "Clipped",
    "ClippingRule",
    "Coefficients",
    "Per",
    "automatic_clipping",
    "check_clipping",
    "clipped_grad",
    "clipped_sum",
    "weighted_sums",
]

PyTree = Any
Coefficients = Callable[[jax.Array], jax.Array]
Per = Literal["network", "layer", "parameter"]


class Clipped(NamedTuple):
    """The result of `clipped_grad`.

    Attributes:
        value: the reduced loss, which is not clipped.
        grads: Σ c_n g_n, over Σ w_n for a mean, with the tree and dtypes of `params`.
        norms: ‖g_n‖, `(batch,)`; for several groups of parameters a dict of them by the group's name,
            `(batch, *stack)` where each of a stack is a group.
        coefficients: c_n, likewise.
        state: the network's new state; `()` if it has none.
        per_example: the loss of each example, `(batch,)`.
    """

    value: jax.Array
    grads: PyTree
    norms: Any
    coefficients: Any
    state: PyTree
    per_example: jax.Array


def clipped_grad(
    network: Layer,
    loss: LossLike,
    *,
    max_norm: float | Mapping[str, float] | None = None,
    coefficients: Coefficients | None = None,
    per: Per = "network",
    reduction: Reduction = "sum",
    frozen: Frozen = (),
    precision: Precision | None = None,
    microbatches: int = 1,
    train: bool = True,
) -> Callable[..., Clipped]:
    """Σ_n c_n g_n, the gradients g_n of single examples with coefficients c_n that depend on their norms.

    One forward and one backward pass: the activations and δ's of all layers are kept, ‖g_n‖ is contracted
    from them, then Σ c_n g_n from the same δ's, scaled: Σ c_n a_n δ_nᵀ = Aᵀ (c ⊙ Δ). No g_n is formed that
    need not be (Li et al. 2021, arXiv:2110.05679; Bu et al. 2022, arXiv:2210.00038). Shared parameters are
    exact. An example with c_n = 0, such as one of infinite norm, adds nothing, as long as its activations
    are finite (`training.make_private_step` leaves out those that are not).

    g_n is the gradient of an example's own loss, as in `backprop`: weighted, not divided by the number of
    examples. Frozen parameters take no part in norms.

    Args:
        network: a Layer. Layers that couple examples refuse.
        loss: as for `backprop`.
        max_norm: C in c_n = min(1, C / ‖g_n‖). A mapping from prefixes of the parameters' dotted paths clips
            each group by its own C; every parameter must be in one, the longest prefix that fits.
        coefficients: ‖g‖ → c, elementwise, in place of `max_norm`; see `automatic_clipping`.
        per: clip by the norm over the whole network, or over every layer or parameter, where each of L gets C
            / √L, so that the norm of the whole is at most C. In a `repeat` each block counts.
        reduction: "sum", or "mean" to divide value and sum by Σ w_n.
        frozen: as for `backprop`.
        precision: as for `backprop`.
        microbatches: as for `backprop`: the δ's of one part are kept at a time. With positions, as many as
            there are examples can be faster, too: a single example's gradient is formed once, for its norm
            and for the sum.
        train: as for `backprop`.

    Returns:
        `(params, x, y, *, state=(), key=None, weights=None, mask=None, positions=None) -> Clipped`, a pure
        function.

    Raises:
        TypeError, ValueError: as `backprop`; for options that do not fit each other or the parameters.

    >>> from funcbp import layers, rules
    >>> params, x = {"w": jnp.array([[1.0]])}, jnp.array([[1.0], [3.0]])
    >>> clipped = clipped_grad(layers.dense(1, bias=False), rules.l2_loss, max_norm=2.0)
    >>> result = clipped(params, x, jnp.zeros((2, 1)))
    >>> result.norms.tolist(), result.grads["w"].item()
    ([1.0, 9.0], 3.0)
    """
    rule = ClippingRule(max_norm, coefficients, per)
    check_clipping(rule)
    check_microbatches(microbatches)
    options = setup(network, loss, reduction, frozen, precision, train)

    def clipped(
        params: PyTree,
        x: PyTree,
        y: PyTree,
        *,
        state: PyTree = (),
        key: jax.Array | None = None,
        weights: jax.Array | None = None,
        mask: PyTree = None,
        positions: PyTree = None,
    ) -> Clipped:
        params, batch = batch_of(params, x, y, weights, mask, positions, frozen)
        step = functools.partial(clipped_sum, options, rule, params)

        with options.precision.products():
            if microbatches == 1:
                summed, joined, state = step(batch, state, key)
            else:
                summed, joined, state = accumulated(step, microbatches, batch, state, key)
        if reduction == "mean":
            total = jnp.sum(batch.weights)
            # Without any weight there is no gradient either: 0.
            summed = jax.tree.map(lambda a: (a / jnp.where(total == 0, 1, total)).astype(a.dtype), summed)
        value, grads = summed
        return Clipped(value, in_dtypes_of(grads, params), *joined[:2], state, joined[2])

    return clipped


def automatic_clipping(gamma: float = 0.01) -> Coefficients:
    """c = 1 / (‖g‖ + γ): every gradient to a length near 1, with nothing to tune (Bu et al. 2022).

    arXiv:2206.07136. Small gradients keep some of their size: c ‖g‖ < 1.

    >>> automatic_clipping(1.0)(jnp.array([0.0, 1.0, 3.0]))
    Array([1.  , 0.5 , 0.25], dtype=float32)
    """
    if not gamma > 0:
        raise ValueError(f"automatic_clipping: `gamma` must be positive, got {gamma}.")
    return lambda norms: 1 / (norms + gamma)


@dataclass(frozen=True)
class ClippingRule:
    """How parameters are clipped: in which groups, and each by which coefficients."""

    max_norm: float | Mapping[str, float] | None
    coefficients: Coefficients | None
    per: str

    @property
    def stacked(self) -> bool:
        """Whether each of a stack of parameters is clipped by itself."""
        return self.per != "network"

    @property
    def single(self) -> bool:
        """Whether there is but one group, without a name."""
        return self.per == "network" and not isinstance(self.max_norm, Mapping)

    def group(self, path: str) -> str:
        """The name of the group of the parameter at a dotted path."""
        if isinstance(self.max_norm, Mapping):
            return _longest_prefix(tuple(self.max_norm), path)
        return {"network": "", "layer": path.rpartition(".")[0], "parameter": path}[self.per]

    def scale(self, group: str, norms: jax.Array, groups: int) -> jax.Array:
        """The coefficients of one of so many groups."""
        if self.coefficients is not None:
            return self.coefficients(norms)
        if isinstance(self.max_norm, Mapping):
            bound = self.max_norm[group]
        else:
            bound = cast(float, self.max_norm) / math.sqrt(groups)
        # min(1, C / ‖g‖), without a division by zero.
        return bound / jnp.maximum(norms, bound)


def clipped_sum(
    options: Setup,
    rule: ClippingRule,
    params: PyTree,
    batch: Batch,
    state: PyTree,
    key: jax.Array | None,
    only_finite: bool = False,
) -> tuple[PyTree, PyTree, PyTree]:
    """(value, Σ c_n g_n in float32 at least), (norms, coefficients, loss of every example), state."""
    collect = ("squared_norms", "compact factors", "per_example")
    result = options.run(params, batch, None, state, key, collect=collect)
    leaves, treedef = jax.tree_util.tree_flatten_with_path(params)
    squares, factors = (treedef.flatten_up_to(tree) for tree in (result.squared_norms, result.factors))
    groups = [rule.group(path_string(path)) for path, _ in leaves]
    examples = batch.weights.shape[0]
    norms, scales, sums = weighted_sums(rule, groups, squares, factors, examples, only_finite)
    grads = [
        jnp.zeros(p.shape, upcast(p).dtype) if g is None else g
        for (_, p), g in zip(leaves, sums, strict=True)
    ]
    return (result.value, treedef.unflatten(grads)), (norms, scales, result.per_example), result.state


def weighted_sums(
    rule: ClippingRule,
    groups: Sequence[str],
    squares: Sequence[jax.Array | None],
    factors: Sequence[Factor | None],
    examples: int,
    only_finite: bool = False,
) -> tuple[Any, Any, list[jax.Array | None]]:
    """Norms, coefficients c_n and Σ c_n g_n.

    Args:
        rule: how to clip.
        groups: of every parameter, by name.
        squares: of every parameter ‖g_n‖², `(examples, *stack)`; None if frozen.
        factors: of every parameter; None if frozen.
        examples: how many.
        only_finite: leave out examples of which something is not finite, at the price of a copy of each
            factor.

    Returns:
        Norms and coefficients, each a dict by group, or an array if there is but one; and the sums.
    """
    norms = _norms(rule, groups, squares, examples)
    count = sum(math.prod(n.shape[1:]) for n in norms.values())
    scales = {group: rule.scale(group, n, count) for group, n in norms.items()}
    if only_finite:
        kept = functools.reduce(jnp.logical_and, map(_finite, (*norms.values(), *scales.values())))
        scales = {group: _where(kept, c) for group, c in scales.items()}
        factors = [None if f is None else _without(f, kept) for f in factors]
    sums = [
        None if f is None else f.weighted(scales[group]) for f, group in zip(factors, groups, strict=True)
    ]
    return (norms[""], scales[""], sums) if rule.single else (norms, scales, sums)


def _without(factor: Factor, kept: jax.Array) -> Factor:
    """Zeros for what is not kept: of an infinite activation a coefficient of 0 would make NaN."""

    def part(a: Any) -> Any:
        # Of a stack, wherever it is within the factor, the examples are not the first axis.
        return Stacked(jax.vmap(lambda f: _without(f, kept))(a.of)) if _is_stack(a) else _where(kept, a)

    return jax.tree.map(part, factor, is_leaf=_is_stack)


def _is_stack(a: Any) -> bool:
    return isinstance(a, Stacked)


def _where(kept: jax.Array, a: jax.Array) -> jax.Array:
    return jnp.where(kept.reshape(*kept.shape, *(1,) * (a.ndim - 1)), a, jnp.zeros_like(a))


def _finite(a: jax.Array) -> jax.Array:
    return jnp.all(jnp.isfinite(a), tuple(range(1, a.ndim)))


def _norms(
    rule: ClippingRule, groups: Sequence[str], squares: Sequence[Any], examples: int
) -> dict[str, jax.Array]:
    """The norm of every group, `(batch, *stack)`; 0 for a network of which all is frozen."""
    totals: dict[str, jax.Array] = {}
    for group, square in zip(groups, squares, strict=True):
        if square is not None:
            square = square if rule.stacked else jnp.sum(square, tuple(range(1, square.ndim)))
            totals[group] = totals[group] + square if group in totals else square
    if rule.single and not totals:
        totals[""] = jnp.zeros(examples, jnp.float32)
    return {group: jnp.sqrt(total) for group, total in totals.items()}


def check_clipping(rule: ClippingRule) -> None:
    max_norm, coefficients, per = rule.max_norm, rule.coefficients, rule.per
    if (max_norm is None) == (coefficients is None):
        raise ValueError(
            f"clipped_grad: give either `max_norm` or `coefficients`, got {max_norm!r} and {coefficients!r}."
        )
    if coefficients is not None and not callable(coefficients):
        raise TypeError(f"clipped_grad: `coefficients` must be a function of norms, got {coefficients!r}.")
    if per not in ("network", "layer", "parameter"):
        raise ValueError(f"clipped_grad: `per` must be 'network', 'layer' or 'parameter', got {per!r}.")
    if isinstance(max_norm, Mapping) and per != "network":
        raise ValueError(f"clipped_grad: `max_norm` already names the groups; leave out per={per!r}.")
    bounds = max_norm.values() if isinstance(max_norm, Mapping) else [1 if max_norm is None else max_norm]
    if not all(bound > 0 for bound in bounds):
        raise ValueError(f"clipped_grad: `max_norm` must be positive, got {max_norm!r}.")


def _longest_prefix(prefixes: tuple[str, ...], path: str) -> str:
    fitting = [p for p in prefixes if not p or path == p or path.startswith(f"{p}.")]
    if not fitting:
        raise ValueError(
            f"clipped_grad: `max_norm` has no bound for the parameter `{path}`, only for "
            f"{', '.join(map(repr, prefixes))}."
        )
    return max(fitting, key=len)
