"""K-FAC and EKFAC: gradients preconditioned by Kronecker factors that the same forward pass has given."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, cast

import jax
import optax
from jax import lax
from jax import numpy as jnp
from jax.tree_util import tree_flatten_with_path, tree_map_with_path

from .._backprop import backprop
from .._frozen import frozen_predicate
from .._loss import LossLike
from .._precision import upcast_tree
from ..curvature._kronecker import Basis, Curvature, bias_of, kronecker_curvature
from ..layers import Layer
from ..layers._layer import path_string
from ._step import Step

__all__ = ["KFAC", "KFACState", "make_kfac_step", "scale_by_kfac"]

PyTree = Any
Kind = Literal["kfac", "ekfac"]

# Options of `kronecker_curvature` that are also those of the plain sweep.
_OF_THE_SWEEP = ("reduction", "frozen", "precision", "train")


class KFACState(NamedTuple):
    """State of `scale_by_kfac`.

    Attributes:
        count: of updates.
        measured: of curvatures that have been averaged.
        average: a `Curvature` for every parameter, averaged over the updates.
        basis: with "ekfac" eigenvectors of A and G for every weight, as of the last refresh; otherwise None.
        scale: with "kfac" an `Inverse` for every weight, as of the last refresh; with "ekfac" the second
            moments of the gradients along the basis, averaged since then; None for other parameters.
    """

    count: jax.Array
    measured: jax.Array
    average: PyTree
    basis: PyTree
    scale: PyTree


class Inverse(NamedTuple):
    """(A + π √ε I)⁻¹, `(*stack, in, in)`, and (G + √ε / π I)⁻¹, `(*stack, out, out)`."""

    rows: jax.Array
    columns: jax.Array


class KFAC(NamedTuple):
    """What `make_kfac_step` gives back.

    Attributes:
        init: `(params, x, y, *, state=()) -> opt_state`; of x and y only shapes and dtypes matter.
        step: `(params, state, opt_state, x, y, key, *, weights=None, mask=None, positions=None) -> Step`.
    """

    init: Callable[..., PyTree]
    step: Callable[..., Step]


def scale_by_kfac(
    like: PyTree,
    *,
    damping: optax.ScalarOrSchedule = 1e-3,
    decay: float = 0.95,
    every: int = 10,
    kind: Kind = "kfac",
) -> optax.GradientTransformationExtraArgs:
    """The inverse of the damped Kronecker-factored curvature times the gradient, as an optax transformation.

    For a weight with its bias as last row, its averaged factors A = U Λ Uᵀ and G = V Μ Vᵀ

        kfac     (A + π √ε I)⁻¹ g (G + √ε / π I)⁻¹,        π² = mean λ / mean μ
        ekfac    U [ (Uᵀ g V) / (s + ε) ] Vᵀ,              s = E (Uᵀ g_n V)²

    with damping ε: the first is factored Tikhonov damping (Martens & Grosse 2015, arXiv:1503.05671), its
    inverses by Cholesky factors, with the ε of the refresh. The second has the true second moments in the
    basis in place of the products λ μ (George et al. 2018, arXiv:1806.03884); they start as these at every
    refresh, and are averaged from then on. Every other parameter is divided by its averaged diagonal plus ε.
    What has no curvature stays as it is.

    Args:
        like: the curvature that `update` will be given, or its shapes (`jax.eval_shape` of the sweep).
        damping: ε, a number or a schedule.
        decay: of the averages, which are corrected for their start from zero.
        every: updates from one refresh, of the inverses or the eigenvectors, to the next; the first has one.
        kind: "kfac" or "ekfac"; the second needs curvature with moments, of `bases=state.basis`, and
            `every` above 1.

    Returns:
        A transformation whose `update` takes `curvature=`, of `funcbp.curvature.kronecker_curvature`, as an
        extra argument.
    """
    scaling = _Scaling(damping, decay, every, kind)
    scaling.check()

    def init(params: PyTree) -> KFACState:
        treedef = jax.tree.structure(params)
        average, basis, scale = (
            zip(*(_started(c, kind) for c in treedef.flatten_up_to(like)), strict=True)
            if treedef.num_leaves
            else ((), (), ())
        )
        zero = jnp.zeros((), jnp.int32)
        return KFACState(zero, zero, *map(treedef.unflatten, (average, basis, scale)))

    def update(
        updates: PyTree, state: Any, params: PyTree = None, *, curvature: PyTree = None, **others: Any
    ) -> tuple[PyTree, KFACState]:
        del params, others
        if curvature is None:
            raise ValueError(
                "scale_by_kfac: `update` needs `curvature=`, of funcbp.curvature.kronecker_curvature."
            )
        return scaling.scaled(updates, scaling.measured(state, curvature))

    return optax.GradientTransformationExtraArgs(init, update)


def make_kfac_step(
    network: Layer,
    loss: LossLike,
    optimizer: optax.GradientTransformation,
    *,
    damping: optax.ScalarOrSchedule = 1e-3,
    decay: float = 0.95,
    every: int = 10,
    curvature_every: int = 1,
    kind: Kind = "kfac",
    **options: Any,
) -> KFAC:
    """A jitted training step: one forward pass, gradient and curvature from it, K-FAC, then any optimizer.

    Args:
        network: a Layer. Layers that couple examples refuse.
        loss: as for `funcbp.backprop`, of those that have a root (`funcbp.curvature.hessian_root`).
        optimizer: what to do with the preconditioned gradient: `optax.sgd(0.1, momentum=0.9)`.
        damping: as for `scale_by_kfac`, as are decay, every and kind.
        decay: see there.
        every: see there.
        curvature_every: steps from one measurement of the curvature to the next, by which `every` can be
            divided; the steps between take a gradient alone.
        kind: see there.
        options: those of `funcbp.curvature.kronecker_curvature`; frozen parameters are not updated.

    Returns:
        `KFAC(init, step)`. The metrics of a step are "value" and "gradient_norm"; the averaged curvature is
        `opt_state[0].average`.

    >>> from funcbp import layers, rules
    >>> network, x, y = layers.dense(1), jnp.array([[1.0], [2.0], [3.0]]), jnp.array([[3.0], [5.0], [7.0]])
    >>> kfac = make_kfac_step(network, rules.l2_loss, optax.sgd(1.0), damping=1e-8, samples=None)
    >>> params, state = network.init(jax.random.key(0), x)
    >>> opt_state = kfac.init(params, x, y)
    >>> params, state, opt_state, _ = kfac.step(params, state, opt_state, x, y)
    >>> params["w"].round(2).item(), params["b"].round(2).item()
    (2.0, 1.0)
    """
    if not isinstance(optimizer, optax.GradientTransformation | optax.GradientTransformationExtraArgs):
        raise TypeError(
            f"make_kfac_step: `optimizer` must be of optax, as optax.sgd(0.1); got {optimizer!r}."
        )
    if not isinstance(curvature_every, int) or curvature_every < 1 or every % curvature_every:
        raise ValueError(
            f"make_kfac_step: `curvature_every` must divide `every`, {every}, so that a refresh has what is "
            f"new; got {curvature_every!r}."
        )
    scaling = _Scaling(damping, decay, every, kind)
    scaling.check()
    sweep = kronecker_curvature(network, loss, **options)
    plain = backprop(network, loss, **{k: v for k, v in options.items() if k in _OF_THE_SWEEP})
    is_frozen = frozen_predicate(options.get("frozen", ()))
    optimizer = optax.with_extra_args_support(optimizer)

    def init(params: PyTree, x: PyTree, y: PyTree, *, state: PyTree = ()) -> PyTree:
        run = functools.partial(sweep, state=state, key=jax.random.key(0))
        like = jax.eval_shape(run, params, x, y).curvature
        return scale_by_kfac(like, kind=kind).init(params), optimizer.init(params)

    @jax.jit
    def step(
        params: PyTree,
        state: PyTree,
        opt_state: PyTree,
        x: PyTree,
        y: PyTree,
        key: jax.Array | None = None,
        *,
        weights: jax.Array | None = None,
        mask: PyTree = None,
        positions: PyTree = None,
    ) -> Step:
        arrays = {"state": state, "key": key, "weights": weights, "mask": mask, "positions": positions}
        known, rest = opt_state

        def measured() -> tuple[Any, ...]:
            result = sweep(params, x, y, bases=known.basis if kind == "ekfac" else None, **arrays)
            return result.value, result.grads, result.state, scaling.measured(known, result.curvature)

        def unmeasured() -> tuple[Any, ...]:
            result = plain(params, x, y, **arrays)
            return result.value, result.grads, result.state, known

        if curvature_every == 1:
            value, grads, state, known = measured()
        else:
            value, grads, state, known = lax.cond(known.count % curvature_every == 0, measured, unmeasured)
        updates, known = scaling.scaled(grads, known)
        updates, rest = optimizer.update(updates, rest, params, value=value, grad=grads)
        updates = tree_map_with_path(
            lambda path, u: jnp.zeros_like(u) if is_frozen(path_string(path)) else u, updates
        )
        metrics = {"value": value, "gradient_norm": optax.tree.norm(upcast_tree(grads))}
        return Step(optax.apply_updates(params, updates), state, (known, rest), metrics)

    return KFAC(init, step)


@dataclass(frozen=True)
class _Scaling:
    """What `scale_by_kfac` does, in two halves: a curvature more, and a gradient scaled by what is known."""

    damping: optax.ScalarOrSchedule
    decay: float
    every: int
    kind: str

    def check(self) -> None:
        if self.kind not in ("kfac", "ekfac"):
            raise ValueError(f"scale_by_kfac: `kind` must be 'kfac' or 'ekfac', got {self.kind!r}.")
        if not isinstance(self.every, int) or self.every < (2 if self.kind == "ekfac" else 1):
            least = "2, for its moments are averaged in between" if self.kind == "ekfac" else "1"
            raise ValueError(f"scale_by_kfac: `every` must be at least {least}; got {self.every!r}.")
        if not 0 <= self.decay < 1:
            raise ValueError(f"scale_by_kfac: `decay` must be in [0, 1), got {self.decay!r}.")

    def measured(self, state: KFACState, curvature: PyTree) -> KFACState:
        """The averages with one curvature more; when it is time, what is made of them anew."""
        average = jax.tree.map(
            lambda a, b: self.decay * a + (1 - self.decay) * b, state.average, _kept(curvature)
        )
        state = state._replace(measured=state.measured + 1, average=average)
        means, treedef = self._means(state)
        moments = [c.moment for c in treedef.flatten_up_to(curvature)]
        bases, scales = (treedef.flatten_up_to(tree) for tree in (state.basis, state.scale))

        def made(mean: Curvature) -> tuple[Basis | None, Any]:
            rows, columns, _ = mean
            if rows is None or columns is None:
                return None, None
            if self.kind == "ekfac":
                return _decomposed(rows, columns)
            return None, _inverted(self._epsilon(state), rows, columns)

        def refreshed() -> list[Any]:
            return list(map(made, means))

        def stale() -> list[Any]:
            each = zip(bases, scales, moments, strict=True)
            return [(b, s if b is None else self._averaged(s, m)) for b, s, m in each]

        found = lax.cond(state.count % self.every == 0, refreshed, stale)
        basis, scale = (treedef.unflatten([f[i] for f in found]) for i in (0, 1))
        return state._replace(basis=basis, scale=scale)

    def scaled(self, updates: PyTree, state: KFACState) -> tuple[PyTree, KFACState]:
        """The preconditioned gradients, and the state after an update."""
        means, treedef = self._means(state)
        bases, scales = (treedef.flatten_up_to(tree) for tree in (state.basis, state.scale))
        scaled = _scaled(updates, means, bases, scales, self._epsilon(state))
        return scaled, state._replace(count=state.count + 1)

    def _means(self, state: KFACState) -> tuple[list[Curvature], Any]:
        """The averages, corrected for their start from zero."""
        correction = 1 - self.decay**state.measured
        means = jax.tree.map(lambda a: a / correction.astype(a.dtype), state.average)
        leaves, treedef = jax.tree.flatten(means, is_leaf=_is_curvature)
        return leaves, treedef

    def _epsilon(self, state: KFACState) -> jax.Array:
        return jnp.asarray(self.damping(state.count) if callable(self.damping) else self.damping)

    def _averaged(self, known: jax.Array, moment: jax.Array | None) -> jax.Array:
        if moment is None:
            raise ValueError(
                "scale_by_kfac: kind='ekfac' needs the moments of weights: give the function of "
                "kronecker_curvature `bases=opt_state.basis`."
            )
        return self.decay * known + (1 - self.decay) * moment


def _is_curvature(tree: Any) -> bool:
    return isinstance(tree, Curvature)


def _kept(tree: PyTree) -> PyTree:
    """What is averaged of curvature: moments of weights are those of a basis, averaged elsewhere."""
    return jax.tree.map(
        lambda c: c if c.rows is None else c._replace(moment=None), tree, is_leaf=_is_curvature
    )


def _started(curvature: Curvature, kind: Kind) -> tuple[Curvature, Basis | None, Any]:
    """Zeros for averages and moments, the identity for bases and inverses."""
    average = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), _kept(curvature))
    if average.rows is None:
        return average, None, None
    rows, columns = (_identity(a) for a in (average.rows, average.columns))
    if kind == "kfac":
        return average, None, Inverse(rows, columns)
    return average, Basis(rows, columns), jnp.zeros((*rows.shape[:-1], columns.shape[-1]), rows.dtype)


def _identity(like: jax.Array) -> jax.Array:
    return jnp.broadcast_to(jnp.eye(like.shape[-1], dtype=like.dtype), like.shape)


def _decomposed(rows: jax.Array, columns: jax.Array) -> tuple[Basis, jax.Array]:
    """Eigenvectors of A and G, and the products of their eigenvalues."""
    (a, u), (b, v) = (jnp.linalg.eigh(m) for m in (rows, columns))
    # Positive semi-definite but for rounding.
    a, b = jnp.maximum(a, 0), jnp.maximum(b, 0)
    return Basis(u, v), a[..., :, None] * b[..., None, :]


def _inverted(epsilon: jax.Array, rows: jax.Array, columns: jax.Array) -> Inverse:
    """The damped inverses of A and G."""
    a, b = (jnp.trace(m, axis1=-2, axis2=-1) / m.shape[-1] for m in (rows, columns))
    # Where one is 0, no balance is better than another.
    balanced = (a > 0) & (b > 0)
    pi = jnp.where(balanced, jnp.sqrt(a / jnp.where(balanced, b, 1)), 1)
    root = jnp.sqrt(epsilon).astype(rows.dtype)
    return Inverse(_inverse(rows, root * pi), _inverse(columns, root / pi))


def _inverse(a: jax.Array, damping: jax.Array) -> jax.Array:
    """(A + damping I)⁻¹ of a positive semi-definite matrix, by its Cholesky factor."""
    # Less damping than rounding leaves no factor.
    least = jnp.finfo(a.dtype).eps * jnp.trace(a, axis1=-2, axis2=-1)
    identity = _identity(a)
    factor = jnp.linalg.cholesky(a + jnp.maximum(damping, least)[..., None, None] * identity)
    root = lax.linalg.triangular_solve(factor, identity, left_side=True, lower=True)
    return root.mT @ root


def _scaled(
    updates: PyTree,
    means: list[Curvature],
    bases: list[Basis | None],
    scales: list[Any],
    epsilon: jax.Array,
) -> PyTree:
    """The preconditioned gradients."""
    entries, treedef = tree_flatten_with_path(updates)
    at = {path: i for i, (path, _) in enumerate(entries)}
    out = [u for _, u in entries]
    for i, (path, u) in enumerate(entries):
        basis, scale, diagonal = bases[i], scales[i], means[i].moment
        if diagonal is not None:
            out[i] = (u / (diagonal + epsilon)).astype(u.dtype)
        if scale is None:
            continue
        rows = (scale if basis is None else basis).rows
        matrix = u.reshape(*rows.shape[:-2], -1, u.shape[-1])
        if matrix.shape[-2] == rows.shape[-1]:
            out[i] = _solved(matrix, basis, scale, epsilon).reshape(u.shape).astype(u.dtype)
            continue
        bias = at[cast(Any, bias_of(path))]
        matrix = jnp.concatenate([matrix, entries[bias][1][..., None, :]], -2)
        solved = _solved(matrix, basis, scale, epsilon)
        out[i] = solved[..., :-1, :].reshape(u.shape).astype(u.dtype)
        out[bias] = solved[..., -1, :].astype(out[bias].dtype)
    return treedef.unflatten(out)


def _solved(g: jax.Array, basis: Basis | None, scale: Any, epsilon: jax.Array) -> jax.Array:
    """The damped curvature's inverse times g."""
    if basis is None:
        return scale.rows @ g @ scale.columns
    damped = scale + epsilon.astype(scale.dtype)
    return basis.rows @ ((basis.rows.mT @ g @ basis.columns) / damped) @ basis.columns.mT
