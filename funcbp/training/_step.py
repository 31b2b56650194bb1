"""The optax step."""

import functools
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import optax
from jax import lax
from jax import numpy as jnp

from .._backprop import backprop
from .._frozen import frozen_predicate
from .._loss import LossLike
from .._precision import upcast_tree
from ..layers import Layer
from ..layers._layer import path_string

__all__ = ["Step", "fresh_buffers", "make_step", "value_function"]

PyTree = Any


class Step(NamedTuple):
    """What a step gives back.

    Attributes:
        params: updated.
        state: the network's.
        opt_state: the optimizer's.
        metrics: "value" (the loss before the update) and "gradient_norm"; and by its name whatever was asked
            for with `collect` or, as "collected", with `visit`.
    """

    params: PyTree
    state: PyTree
    opt_state: PyTree
    metrics: dict[str, PyTree]


def make_step(
    network: Layer,
    loss: LossLike,
    optimizer: optax.GradientTransformation,
    *,
    donate: bool = False,
    **options: Any,
) -> Callable[..., Step]:
    """A jitted training step with any optax optimizer.

    Args:
        network: a Layer.
        loss: as for `funcbp.backprop`.
        optimizer: unchanged; those that want `value`, `grad` or `value_fn` (polyak_sgd, lbfgs,
            reduce_on_plateau, …) get them.
        donate: reuse the buffers of params, state and opt_state for the results. The arrays passed in are
            gone then.
        options: those of `funcbp.backprop`; frozen parameters are not updated, whatever the optimizer does.

    Returns:
        `step(params, state, opt_state, x, y, key=None, *, weights=None, mask=None, positions=None) -> Step`.
        `opt_state` starts as `optimizer.init(params)`.

    >>> from funcbp import layers, rules
    >>> network, optimizer = layers.dense(1), optax.sgd(0.1)
    >>> x, y = jnp.ones((4, 2)), jnp.ones((4, 1))
    >>> params, state = network.init(jax.random.key(0), x)
    >>> step = make_step(network, rules.l2_loss, optimizer)
    >>> opt_state = optimizer.init(params)
    >>> for _ in range(50):
    ...     params, state, opt_state, metrics = step(params, state, opt_state, x, y)
    >>> float(metrics["value"]) < 1e-6
    True
    """
    if not isinstance(optimizer, optax.GradientTransformation | optax.GradientTransformationExtraArgs):
        raise TypeError(f"make_step: `optimizer` must be of optax, as optax.adam(1e-3); got {optimizer!r}.")
    sweep = backprop(network, loss, **options)
    asked = (*options.get("collect", ()), *(["collected"] if options.get("visit") else []))
    optimizer = optax.with_extra_args_support(optimizer)
    extra_arguments = _extra_arguments(optimizer)
    is_frozen = frozen_predicate(options.get("frozen", ()))

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
        result = sweep(params, x, y, **arrays)
        value_fn = value_function(network, loss, **options)
        extra = {
            "value": result.value,
            "grad": result.grads,
            "value_fn": lambda p: value_fn(p, x, y, **arrays),
        }
        updates, opt_state = optimizer.update(
            result.grads, opt_state, params, **{name: extra[name] for name in extra_arguments}
        )
        updates = jax.tree_util.tree_map_with_path(
            lambda path, u: jnp.zeros_like(u) if is_frozen(path_string(path)) else u, updates
        )
        metrics = {"value": result.value, "gradient_norm": optax.tree.norm(upcast_tree(result.grads))}
        metrics |= {name: getattr(result, name) for name in asked}
        return Step(optax.apply_updates(params, updates), result.state, opt_state, metrics)

    compiled = jax.jit(step, donate_argnums=(0, 1, 2) if donate else ())

    @functools.wraps(compiled)
    def prepared(params: PyTree, state: PyTree, opt_state: PyTree, *args: Any, **kwargs: Any) -> Step:
        # What a step returns is strongly typed and has buffers of its own. Initial values may not: weak types
        # would retrace the second step, shared buffers cannot be donated twice.
        return compiled(*fresh_buffers((params, state, opt_state), donate), *args, **kwargs)

    return prepared


def fresh_buffers(tree: PyTree, donate: bool) -> PyTree:
    seen: set[int] = set()

    def fresh(a: Any) -> Any:
        if getattr(a, "weak_type", False):
            a = lax.convert_element_type(a, a.dtype)
        if donate and id(a) in seen:
            a = jnp.copy(a)
        seen.add(id(a))
        return a

    return jax.tree.map(fresh, tree)


def _extra_arguments(optimizer: optax.GradientTransformationExtraArgs) -> list[str]:
    """Which of the extra arguments an optimizer takes: those it names, or all."""
    parameters = inspect.signature(optimizer.update).parameters
    takes_all = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    return [name for name in ("value", "grad", "value_fn") if takes_all or name in parameters]


def value_function(network: Layer, loss: LossLike, **options: Any) -> Callable[..., jax.Array]:
    """The sweep's value as a JAX function, whose `jax.grad` is the sweep's gradient.

    `(params, x, y, **arrays) -> value`; differentiable with respect to `params` and `x`. For line searches,
    and for whatever else takes a function and differentiates it.

    >>> from funcbp import layers, rules
    >>> f = value_function(layers.dense(1, bias=False), rules.l2_loss)
    >>> jax.grad(f)({"w": jnp.array([[2.0]])}, jnp.array([[1.0]]), jnp.array([[0.0]]))
    {'w': Array([[2.]], dtype=float32)}
    """
    sweep = backprop(network, loss, **options)

    def value(params: PyTree, x: PyTree, y: PyTree, **arrays: Any) -> jax.Array:
        @jax.custom_vjp
        def of_inputs(params: PyTree, x: PyTree) -> jax.Array:
            return sweep(params, x, y, **arrays).value

        def fwd(params: PyTree, x: PyTree) -> tuple[jax.Array, PyTree]:
            result = sweep(params, x, y, **arrays)
            return result.value, (result.grads, result.x_ct)

        def bwd(cotangents: PyTree, value_ct: jax.Array) -> tuple[PyTree, PyTree]:
            return jax.tree.map(lambda g: (value_ct * g).astype(g.dtype), cotangents)

        of_inputs.defvjp(fwd, bwd)
        return of_inputs(params, x)

    return value
