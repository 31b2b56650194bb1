"""K-FAC and EKFAC: gradients preconditioned by Kronecker factors that the same forward pass has given."""

import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, cast

import jax
import optax
from jax import lax
from jax import numpy as jnp
from jax.tree_util import tree_flatten_with_path, tree_map_with_path

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


class KFACState(NamedTuple):
    """State of `scale_by_kfac`.

    Attributes:
        count: of updates.
        average: a `Curvature` for every parameter, averaged over the updates.
        basis: eigenvectors of A and G for every weight, as of the last refresh; None for other parameters.
        spectrum: a `Spectrum` likewise.
    """

    count: jax.Array
    average: PyTree
    basis: PyTree
    spectrum: PyTree


class Spectrum(NamedTuple):
    """What a weight's curvature is along the eigenvectors of A and G.

    Attributes:
        rows: eigenvalues of A, `(*stack, in)`.
        columns: eigenvalues of G, `(*stack, out)`.
        moment: with "ekfac" second moments of the gradients, `(*stack, in, out)`, averaged since the refresh.
    """

    rows: jax.Array
    columns: jax.Array
    moment: jax.Array | None


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

        kfac     U [ (Uᵀ g V) / ((λ + π √ε) (μ + √ε / π)) ] Vᵀ,    π² = mean λ / mean μ
        ekfac    U [ (Uᵀ g V) / (s + ε) ] Vᵀ,                      s = E (Uᵀ g_n V)²

    with damping ε: the first is (A + π √ε I)⁻¹ g (G + √ε / π I)⁻¹, factored Tikhonov damping (Martens &
    Grosse 2015, arXiv:1503.05671). The second has the true second moments in the basis in place of the
    products λ μ (George et al. 2018, arXiv:1806.03884); they start as these at every refresh, and are
    averaged from then on. Every other parameter is divided by its averaged diagonal plus ε. What has no
    curvature stays as it is.

    Args:
        like: the curvature that `update` will be given, or its shapes (`jax.eval_shape` of the sweep).
        damping: ε, a number or a schedule.
        decay: of the averages, which are corrected for their start from zero.
        every: updates from one eigendecomposition to the next; the first has one.
        kind: "kfac" or "ekfac"; the second needs curvature with moments, of `bases=state.basis`, and
            `every` above 1.

    Returns:
        A transformation whose `update` takes `curvature=`, of `funcbp.curvature.kronecker_curvature`, as an
        extra argument.
    """
    if kind not in ("kfac", "ekfac"):
        raise ValueError(f"scale_by_kfac: `kind` must be 'kfac' or 'ekfac', got {kind!r}.")
    if not isinstance(every, int) or every < (2 if kind == "ekfac" else 1):
        least = "2, for its moments are averaged in between" if kind == "ekfac" else "1"
        raise ValueError(f"scale_by_kfac: `every` must be at least {least}; got {every!r}.")
    if not 0 <= decay < 1:
        raise ValueError(f"scale_by_kfac: `decay` must be in [0, 1), got {decay!r}.")

    def init(params: PyTree) -> KFACState:
        treedef = jax.tree.structure(params)
        entries = [_started(c, kind) for c in treedef.flatten_up_to(like)]
        average, basis, spectrum = zip(*entries, strict=True) if entries else ((), (), ())
        return KFACState(jnp.zeros((), jnp.int32), *map(treedef.unflatten, (average, basis, spectrum)))

    def update(
        updates: PyTree, state: Any, params: PyTree = None, *, curvature: PyTree = None, **others: Any
    ) -> tuple[PyTree, KFACState]:
        del params, others
        if curvature is None:
            raise ValueError(
                "scale_by_kfac: `update` needs `curvature=`, of funcbp.curvature.kronecker_curvature."
            )
        treedef = jax.tree.structure(updates)
        average = jax.tree.map(lambda a, b: decay * a + (1 - decay) * b, state.average, _kept(curvature))
        correction = 1 - decay ** (state.count + 1)
        means = treedef.flatten_up_to(jax.tree.map(lambda a: a / correction.astype(a.dtype), average))
        moments = [c.moment for c in treedef.flatten_up_to(curvature)]
        basis, spectrum = (treedef.flatten_up_to(tree) for tree in (state.basis, state.spectrum))

        def refreshed() -> list[Any]:
            return [None if m.rows is None else _decomposed(m, kind) for m in means]

        def stale() -> list[Any]:
            each = zip(basis, spectrum, moments, strict=True)
            return [None if s is None else (b, _averaged(s, m, decay)) for b, s, m in each]

        found = lax.cond(state.count % every == 0, refreshed, stale)
        basis, spectrum = ([None if f is None else f[i] for f in found] for i in (0, 1))
        epsilon = jnp.asarray(damping(state.count) if callable(damping) else damping)
        scaled = _scaled(updates, means, basis, spectrum, epsilon)
        return scaled, KFACState(state.count + 1, average, *map(treedef.unflatten, (basis, spectrum)))

    return optax.GradientTransformationExtraArgs(init, update)


def make_kfac_step(
    network: Layer,
    loss: LossLike,
    optimizer: optax.GradientTransformation,
    *,
    damping: optax.ScalarOrSchedule = 1e-3,
    decay: float = 0.95,
    every: int = 10,
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
        kind: see there.
        options: those of `funcbp.curvature.kronecker_curvature`; frozen parameters are not updated.

    Returns:
        `KFAC(init, step)`. The metrics of a step are "value", "gradient_norm" and "curvature".

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
    sweep = kronecker_curvature(network, loss, **options)
    preconditioned = functools.partial(scale_by_kfac, damping=damping, decay=decay, every=every, kind=kind)
    preconditioned(None)
    is_frozen = frozen_predicate(options.get("frozen", ()))
    optimizer = optax.with_extra_args_support(optimizer)

    def init(params: PyTree, x: PyTree, y: PyTree, *, state: PyTree = ()) -> PyTree:
        run = functools.partial(sweep, state=state, key=jax.random.key(0))
        like = jax.eval_shape(run, params, x, y).curvature
        return preconditioned(like).init(params), optimizer.init(params)

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
        bases = opt_state[0].basis if kind == "ekfac" else None
        result = sweep(params, x, y, bases=bases, **arrays)
        transformation = preconditioned(result.curvature)
        updates, curved = transformation.update(
            result.grads, opt_state[0], params, curvature=result.curvature
        )
        updates, rest = optimizer.update(updates, opt_state[1], params, value=result.value, grad=result.grads)
        updates = tree_map_with_path(
            lambda path, u: jnp.zeros_like(u) if is_frozen(path_string(path)) else u, updates
        )
        metrics = {"value": result.value, "gradient_norm": optax.tree.norm(upcast_tree(result.grads))}
        return Step(
            optax.apply_updates(params, updates),
            result.state,
            (curved, rest),
            metrics | {"curvature": result.curvature},
        )

    return KFAC(init, step)


def _kept(tree: PyTree) -> PyTree:
    """What is averaged of curvature: moments of weights are those of a basis, averaged elsewhere."""
    return jax.tree.map(
        lambda c: c if c.rows is None else c._replace(moment=None),
        tree,
        is_leaf=lambda c: isinstance(c, Curvature),
    )


def _started(curvature: Curvature, kind: Kind) -> tuple[Curvature, Basis | None, Spectrum | None]:
    """Zeros for averages and spectrum, the axes for a basis."""
    average = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), _kept(curvature))
    if average.rows is None:
        return average, None, None
    basis = Basis(*(jnp.broadcast_to(jnp.eye(a.shape[-1], dtype=a.dtype), a.shape) for a in average[:2]))
    values = (jnp.zeros_like(a[..., 0]) for a in average[:2])
    return average, basis, _spectrum(*values, kind)


def _decomposed(mean: Curvature, kind: Kind) -> tuple[Basis, Spectrum]:
    """Eigenvectors and eigenvalues of A and G."""
    # Positive semi-definite but for rounding.
    (rows, u), (columns, v) = (jnp.linalg.eigh(a) for a in (mean.rows, mean.columns))
    return Basis(u, v), _spectrum(jnp.maximum(rows, 0), jnp.maximum(columns, 0), kind)


def _spectrum(rows: jax.Array, columns: jax.Array, kind: Kind) -> Spectrum:
    return Spectrum(rows, columns, rows[..., :, None] * columns[..., None, :] if kind == "ekfac" else None)


def _averaged(spectrum: Spectrum, moment: jax.Array | None, decay: float) -> Spectrum:
    if spectrum.moment is None:
        return spectrum
    if moment is None:
        raise ValueError(
            "scale_by_kfac: kind='ekfac' needs the moments of weights: give kronecker_curvature's function "
            "`bases=opt_state.basis`."
        )
    return spectrum._replace(moment=decay * spectrum.moment + (1 - decay) * moment)


def _scaled(
    updates: PyTree,
    means: list[Curvature],
    bases: list[Basis | None],
    spectra: list[Spectrum | None],
    epsilon: jax.Array,
) -> PyTree:
    """The preconditioned gradients."""
    entries, treedef = tree_flatten_with_path(updates)
    at = {path: i for i, (path, _) in enumerate(entries)}
    out = [u for _, u in entries]
    for i, (path, u) in enumerate(entries):
        basis, spectrum, diagonal = bases[i], spectra[i], means[i].moment
        if diagonal is not None:
            out[i] = (u / (diagonal + epsilon)).astype(u.dtype)
        if basis is None or spectrum is None:
            continue
        matrix = u.reshape(*basis.rows.shape[:-2], -1, u.shape[-1])
        if matrix.shape[-2] == basis.rows.shape[-1]:
            out[i] = _solved(matrix, basis, spectrum, epsilon).reshape(u.shape).astype(u.dtype)
            continue
        bias = at[cast(Any, bias_of(path))]
        matrix = jnp.concatenate([matrix, entries[bias][1][..., None, :]], -2)
        solved = _solved(matrix, basis, spectrum, epsilon)
        out[i] = solved[..., :-1, :].reshape(u.shape).astype(u.dtype)
        out[bias] = solved[..., -1, :].astype(out[bias].dtype)
    return treedef.unflatten(out)


def _solved(g: jax.Array, basis: Basis, spectrum: Spectrum, epsilon: jax.Array) -> jax.Array:
    """The damped curvature's inverse times g."""
    rows, columns, moment = spectrum
    epsilon = epsilon.astype(rows.dtype)
    if moment is None:
        a, b = (jnp.mean(values, -1, keepdims=True) for values in (rows, columns))
        # Where one is 0, no balance is better than another.
        pi = jnp.where((a > 0) & (b > 0), jnp.sqrt(a / jnp.where(b > 0, b, 1)), 1)
        rows, columns = rows + pi * jnp.sqrt(epsilon), columns + jnp.sqrt(epsilon) / pi
        damped = rows[..., :, None] * columns[..., None, :]
    else:
        damped = moment + epsilon
    return basis.rows @ ((basis.rows.mT @ g @ basis.columns) / damped) @ basis.columns.mT
