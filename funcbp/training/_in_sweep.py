"""The update inside the reverse sweep: each parameter is updated where it meets its δ."""

import functools
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
import optax
from jax import numpy as jnp
from jax.tree_util import KeyPath

from .. import _compat
from .._frozen import Frozen, frozen_predicate
from .._loss import LossLike
from .._numerics import upcast
from .._precision import Precision
from .._sweep import Reduction, batch_of, setup
from .._visits import gradient_of
from ..factors import Factor
from ..layers import Layer
from ..layers._in_place import InPlace
from ..layers._layer import path_string
from ._step import Step, fresh_buffers

__all__ = ["make_in_sweep_step"]

PyTree = Any


def make_in_sweep_step(
    network: Layer,
    loss: LossLike,
    optimizer: optax.GradientTransformation,
    *,
    donate: bool = True,
    reduction: Reduction = "mean",
    frozen: Frozen = (),
    precision: Precision | None = None,
    microbatches: int = 1,
    train: bool = True,
) -> Callable[..., Step]:
    """A jitted training step that never holds the gradients of the whole model.

    As soon as the sweep has a parameter's δ, the gradient is contracted, the optimizer makes its update of
    that one parameter, and the new value is written over the old one; in a `repeat` block after block. The
    numbers are those of `make_step`, as is `opt_state`, which starts as `optimizer.init(params)`.

    The optimizer must act parameter by parameter, as sgd with or without momentum, adam, adamw, lion, rmsprop
    and schedules by the number of steps do; and on the parameters of a `repeat` block by block. What needs
    all gradients at once cannot work here, such as `clip_by_global_norm`. A trial with tiny parameters,
    when the step is made, finds that out; what depends on the size of parameters, or on the values of large
    ones only, it cannot see.

    Args:
        network: a Layer.
        loss: as for `funcbp.backprop`.
        optimizer: of optax, and parameter by parameter.
        donate: reuse the buffers of params, state and opt_state for the results; the arrays passed in are
            gone then. Without it they are all held twice, and what this saves is lost.
        reduction: as for `funcbp.backprop`.
        frozen: as for `funcbp.backprop`; frozen parameters are not updated, whatever the optimizer does.
        precision: as for `funcbp.backprop`; the update is in the parameters' own dtype.
        microbatches: must be 1: gradients that are summed over parts of a batch have to be held.
        train: as for `funcbp.backprop`.

    Returns:
        `step(params, state, opt_state, x, y, key=None, *, weights=None, mask=None, positions=None) -> Step`;
        its metrics are "value", before the update, and "gradient_norm".

    Raises:
        ValueError: for microbatches, and for an optimizer that does not act parameter by parameter, or, at
            the call, block by block.
        TypeError: for an optimizer that is not of optax; and as `funcbp.backprop`.

    >>> from funcbp import layers, rules
    >>> network, optimizer = layers.repeat(layers.dense(2), 8), optax.sgd(0.1)
    >>> x = jnp.eye(2)
    >>> params, state = network.init(jax.random.key(0), x)
    >>> step = make_in_sweep_step(network, rules.l2_loss, optimizer)
    >>> opt_state = optimizer.init(params)
    >>> for _ in range(100):
    ...     params, state, opt_state, metrics = step(params, state, opt_state, x, x)
    >>> float(metrics["value"]) < 0.02
    True
    """
    if not isinstance(optimizer, optax.GradientTransformation | optax.GradientTransformationExtraArgs):
        raise TypeError(
            f"make_in_sweep_step: `optimizer` must be of optax, as optax.adam(1e-3); got {optimizer!r}."
        )
    if microbatches != 1:
        raise ValueError(
            f"make_in_sweep_step: `microbatches` must be 1, got {microbatches}: the sum of the gradients of "
            "several parts would have to be held until the last; use make_step."
        )
    options = setup(network, loss, reduction, frozen, precision, train)
    optimizer = optax.with_extra_args_support(optimizer)
    by_block = _try_out(optimizer)
    is_frozen = frozen_predicate(frozen)

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
        params, batch = batch_of(params, x, y, weights, mask, positions, frozen)
        total = jnp.sum(batch.weights) if reduction == "mean" else None
        split = _Split.of(optimizer, params, opt_state)

        def visit(path: KeyPath, parameter: jax.Array, factor: Factor, held: InPlace) -> _Updated:
            name = path_string(path)
            before = held.arrays[0]
            if before.ndim < split.ndim(name):
                split.check_block(name, before, by_block)
            one = split.state_of(name, held)
            zero = jnp.zeros(before.shape, before.dtype)
            g = zero if is_frozen(name) else gradient_of(name, parameter, factor).astype(before.dtype)
            updates, after = optimizer.update(g, one, before)
            new = before if is_frozen(name) else optax.apply_updates(before, updates)
            return split.updated(name, new, after, jnp.sum(jnp.square(upcast(g))))

        with options.precision.products():
            result = options.run(params, batch, total, state, key, split.aux, collect=(), visit=visit)
        params, opt_state, squares = split.joined(result.collected)
        metrics = {"value": result.value, "gradient_norm": jnp.sqrt(squares)}
        return Step(params, result.state, opt_state, metrics)

    compiled = jax.jit(step, donate_argnums=(0, 1, 2) if donate else ())

    @functools.wraps(compiled)
    def prepared(params: PyTree, state: PyTree, opt_state: PyTree, *args: Any, **kwargs: Any) -> Step:
        return compiled(*fresh_buffers((params, state, opt_state), donate), *args, **kwargs)

    return prepared


@dataclass(frozen=True)
class _Updated:
    """What a visit hands back.

    Attributes:
        held: the parameter, and those arrays of its optimizer's state that have its shape.
        rest: the other arrays of that state.
        square: ‖g‖².
    """

    held: InPlace
    rest: tuple[jax.Array, ...]
    square: jax.Array


jax.tree_util.register_dataclass(_Updated, data_fields=["held", "rest", "square"], meta_fields=[])


@dataclass(frozen=True)
class _Split:
    """An optimizer's state, parameter by parameter.

    The state for a tree of parameters is that for one array, with a tree of arrays wherever that has an array
    of the parameter's own; what is no such tree, as a count of steps, is all parameters'.

    Attributes:
        init: the optimizer's.
        params: the tree of parameters.
        names: the path of every parameter.
        arrays: every parameter.
        one: the structure of the state for one array.
        own: whether an entry of it is the parameter's own.
        entries: of every parameter, the entries of its state.
    """

    init: Callable[[Any], Any]
    params: Any
    names: list[str]
    arrays: list[jax.Array]
    one: Any
    own: list[bool]
    entries: list[list[jax.Array]]

    @classmethod
    def of(cls, optimizer: optax.GradientTransformation, params: PyTree, opt_state: PyTree) -> "_Split":
        """Raise `ValueError` for a state that cannot be split."""
        leaves, tree = jax.tree_util.tree_flatten_with_path(params)
        names, arrays = [path_string(path) for path, _ in leaves], [a for _, a in leaves]
        if not arrays:
            raise ValueError("make_in_sweep_step: the network has no parameters to update.")
        one = jax.tree.structure(jax.eval_shape(optimizer.init, arrays[0]))
        wanted = jax.tree.structure(jax.eval_shape(optimizer.init, params))
        if jax.tree.structure(opt_state) != wanted:
            raise ValueError(
                f"make_in_sweep_step: `opt_state` is {jax.tree.structure(opt_state)}, not {wanted} as "
                "optimizer.init(params) or the last step gave it."
            )
        try:
            places = one.flatten_up_to(opt_state)
        except ValueError as error:
            raise ValueError(
                "make_in_sweep_step: the optimizer's state cannot be split by parameters, because what it "
                f"keeps of a parameter depends on where that is ({error}); use make_step."
            ) from error
        own = [
            jax.tree.structure(place) == tree
            and [a.ndim > 0 for a in jax.tree.leaves(place)] == [a.ndim > 0 for a in arrays]
            for place in places
        ]
        entries = [
            [jax.tree.leaves(place)[i] if mine else place for mine, place in zip(own, places, strict=True)]
            for i in range(len(arrays))
        ]
        return cls(optimizer.init, tree, names, arrays, one, own, entries)

    @property
    def aux(self) -> PyTree:
        """For the sweep: every parameter and what of its state has its shape."""
        held = [
            InPlace((a, *(e for e, inside in zip(entries, self._inside(i), strict=True) if inside)))
            for i, (a, entries) in enumerate(zip(self.arrays, self.entries, strict=True))
        ]
        return jax.tree.unflatten(self.params, held)

    def ndim(self, name: str) -> int:
        """Number of axes that a parameter has; a block's part of it has fewer."""
        return self.arrays[self.names.index(name)].ndim

    def state_of(self, name: str, held: InPlace) -> PyTree:
        """The optimizer's state for one parameter, or for a block's part of it, which is what is held."""
        i, own = self.names.index(name), iter(held.arrays[1:])
        return self.one.unflatten(
            [next(own) if inside else e for e, inside in zip(self.entries[i], self._inside(i), strict=True)]
        )

    def updated(self, name: str, new: Any, state: PyTree, square: jax.Array) -> _Updated:
        """What a visit hands back of the new parameter and state."""
        pairs = list(zip(self.one.flatten_up_to(state), self._inside(self.names.index(name)), strict=True))
        held = InPlace((new, *(e for e, inside in pairs if inside)))
        return _Updated(held, tuple(e for e, inside in pairs if not inside), square)

    def joined(self, collected: PyTree) -> tuple[PyTree, PyTree, jax.Array]:
        """Params, opt_state, and the squared norm of the gradient."""
        each = self.params.flatten_up_to(collected)
        params = [one.held.arrays[0] for one in each]
        entries = []
        for i, one in enumerate(each):
            # What all blocks have in common came out of the scan once for each of them.
            rest = iter([e[(0,) * one.square.ndim] for e in one.rest])
            held = iter(one.held.arrays[1:])
            entries.append([next(held) if inside else next(rest) for inside in self._inside(i)])
        places = [
            self.params.unflatten([e[k] for e in entries]) if mine else entries[0][k]
            for k, mine in enumerate(self.own)
        ]
        squares = functools.reduce(operator.add, [jnp.sum(one.square) for one in each])
        return self.params.unflatten(params), self.one.unflatten(places), squares

    def check_block(self, name: str, part: jax.Array, by_block: bool) -> None:
        """Raise `ValueError` if the parameter cannot be updated block by block."""
        i = self.names.index(name)
        specs = jax.tree.leaves(jax.eval_shape(self.init, part))
        pairs = zip(specs, self.entries[i], self._inside(i), strict=True)
        fits = all(spec.shape == (part.shape if inside else e.shape) for spec, e, inside in pairs)
        if not (by_block and fits):
            raise ValueError(
                f"make_in_sweep_step: `{name}` is a stack of the blocks of a repeat, and this optimizer does "
                "not treat it block by block: what it does to a part depends on the others, or on the number "
                "of axes (a norm over the whole array, a mask by ndim, factored moments); use make_step."
            )

    def _inside(self, i: int) -> list[bool]:
        """Which entries of the state of parameter i have its shape, and can be updated where they are."""
        shape = self.arrays[i].shape
        return [mine and e.shape == shape for mine, e in zip(self.own, self.entries[i], strict=True)]


def _try_out(optimizer: optax.GradientTransformation) -> bool:
    """Whether the optimizer acts block by block; `ValueError` if it does not even parameter by parameter.

    Parameters together, one by one, and in slices of their first axis, with gradients of all sizes and at
    last one that is no number: what looks at a norm over all, or at whether all is finite, shows.
    """
    rng = np.random.default_rng(0)

    def random() -> list[np.ndarray]:
        return [rng.standard_normal(shape) for shape in ((2, 3, 4), (2, 3))]

    params = random()
    gradients = [[scale * a for a in random()] for scale in (1.0, 1e-3, 1e15, 1e15)]
    gradients[-1][0][0] = np.nan

    def updates(params: PyTree, *gradients: PyTree) -> PyTree:
        state, passed = optimizer.init(params), []
        for g in gradients:
            found, state = optimizer.update(g, state, params)
            passed.append(found)
        return jax.tree.map(lambda *each: jnp.stack(each, -1), *passed)

    @jax.jit
    def three_ways(params: Any, gradients: Any) -> tuple[Any, Any, Any]:
        pairs = [(p, *(g[i] for g in gradients)) for i, p in enumerate(params)]
        return (
            updates(params, *gradients),
            [updates(*pair) for pair in pairs],
            [jax.vmap(updates)(*pair) for pair in pairs],
        )

    try:
        with jax.ensure_compile_time_eval(), _compat.enable_x64():
            together, alone, sliced = jax.device_get(three_ways(params, gradients))
    except (TypeError, ValueError, KeyError, AttributeError, IndexError) as error:
        raise ValueError(
            "make_in_sweep_step: `optimizer` cannot update one parameter by itself, with nothing but its "
            f"gradient, its state and its value ({type(error).__name__}: {error}); use make_step."
        ) from error
    if not _equal(together, alone):
        raise ValueError(
            "make_in_sweep_step: `optimizer` gives other updates to parameters one by one than to all "
            "together: it looks at all gradients at once (clip_by_global_norm, apply_if_finite), or draws "
            "random numbers for them. Inside the sweep there is only one gradient at a time; use make_step."
        )
    return _equal(together, sliced)


def _equal(one: list[np.ndarray], other: list[np.ndarray]) -> bool:
    # In float64; sums over other axes may be in another order.
    pairs = zip(one, other, strict=True)
    return all(np.allclose(a, b, rtol=1e-9, atol=1e-12, equal_nan=True) for a, b in pairs)
