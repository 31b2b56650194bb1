"""A backward pass in its surroundings: cotangents, values, state, vmap, jit, second order."""

import jax
import numpy as np
from jax import lax
from jax import numpy as jnp

from ._case import Family, array, normal

family = Family("contract")


def matmul(x, w):
    return x @ w


def matmul_fwd(x, w):
    return x @ w, (x, w)


PRODUCT = normal((16, 6), (6, 4))


def fused_loss(logits, target):
    return jnp.mean((logits - target) ** 2)


def fused_fwd(logits, target):
    d = logits - target
    return jnp.mean(d**2), 2 * d / d.size


@family.vjp(fused_loss, normal((6, 3), (6, 3)), "COTANGENT_IGNORED", fwd=fused_fwd)
def fused_gradient_not_scaled(grad, dy):
    """The gradient is computed in fwd; what comes from above is not multiplied in."""
    return grad, -grad


def per_example(logits, target):
    return jnp.sum((logits - target) ** 2, -1)


@family.vjp(
    per_example,
    normal((6, 3), (6, 3)),
    "COTANGENT_IGNORED",
    "VALUE",
    "REDUCTION",
    fwd=lambda logits, target: (per_example(logits, target), logits - target),
)
def upstream_assumed_uniform(d, dy):
    """The first example's δ is used for all, as if the losses were only ever averaged."""
    return 2 * d * dy[0], -2 * d * dy[0]


@family.vjp(matmul, PRODUCT, "NOT_LINEAR", fwd=matmul_fwd)
def weight_decay_inside(residuals, dy):
    """0.01 w is added in the backward pass: affine in δ."""
    x, w = residuals
    return dy @ w.T, x.T @ dy + 0.01 * w


@family.vjp(matmul, PRODUCT, "NOT_LINEAR", fwd=matmul_fwd)
def delta_normalized(residuals, dy):
    """δ is brought to unit length."""
    x, w = residuals
    dy = dy / jnp.linalg.norm(dy)
    return dy @ w.T, x.T @ dy


@family.vjp(matmul, PRODUCT, "PRIMAL_DIFFERS", fwd=lambda x, w: (jnp.maximum(x @ w, 0), (x, w)))
def fwd_has_an_activation_more(residuals, dy):
    """fwd is that of the fused layer, the reference the plain product."""
    x, w = residuals
    return dy @ w.T, x.T @ dy


@family.gradient(lambda w, x: jnp.mean((x @ w) ** 2), normal((4,), (6, 4)), "PRIMAL_DIFFERS")
def value_is_the_sum(w, x):
    """The value returned beside a right gradient is not averaged."""
    y = x @ w
    return jnp.sum(y**2), 2 * x.T @ y / len(x)


WEIGHT = array((4, 3), 5)


@family.gradient(
    lambda w, x: jnp.sum((x @ w) ** 2),
    lambda: (WEIGHT, array((6, 4), 1)),
    "STALE",
    "WRONG_POINT",
    exposed=normal((4, 3), (6, 4)),
)
def global_weight(w, x):
    """The notebook's global variable is used, not the argument; at the example they are equal."""
    return 2 * x.T @ (x @ jnp.asarray(WEIGHT, w.dtype))


_saved = {}


def remembering_fwd(x):
    _saved.setdefault(x.shape, x)
    return jnp.sin(x), _saved[x.shape]


@family.vjp(jnp.sin, normal((5,)), "STALE", "WRONG_POINT", fwd=remembering_fwd)
def residual_of_the_first_call(x, dy):
    """A cache by shape keeps the first input forever."""
    return (dy * jnp.cos(x),)


_calls = {"count": 0}


@family.gradient(lambda x: jnp.sum(x**2), normal((5,)), "NONDETERMINISTIC", "STALE")
def warm_up(x):
    """The gradient grows from call to call: a learning-rate schedule in the wrong place."""
    _calls["count"] += 1
    return 2 * x * min(1.0, _calls["count"] / 1000)


def column_mean_on_host(x):
    return np.asarray(x - x.mean(), x.dtype)


def centered(x):
    return x - x.mean()


@family.vjp(centered, normal((6,)), "VMAP", fwd=lambda x: (centered(x), None))
def host_callback_mean_over_everything(_, dy):
    """The callback gets the whole batch under vmap and averages over it."""
    spec = jax.ShapeDtypeStruct(dy.shape, dy.dtype)
    return (jax.pure_callback(column_mean_on_host, spec, dy, vmap_method="broadcast_all"),)


@jax.custom_batching.custom_vmap
def total(x):
    return jnp.sum(x)


@total.def_vmap
def _total_of_batch(size, batched, x):
    return jnp.broadcast_to(jnp.sum(x), (size,)), True


@family.vjp(lambda x, s: x * s, normal((6,), ()), "VMAP", fwd=lambda x, s: (x * s, (x, s)))
def batching_rule_sums_the_batch(residuals, dy):
    """The hand-written batching rule of a kernel sums over the batch, too."""
    x, s = residuals
    return dy * s, total(dy * x)


@family.vjp(jax.nn.softmax, normal((6,)), "SECOND_ORDER", order=2, fwd=lambda x: (jax.nn.softmax(x),) * 2)
def second_order_stopped(p, dy):
    """stop_gradient around the stored output: right once, wrong twice."""
    p = lax.stop_gradient(p)
    return (p * (dy - jnp.sum(p * dy)),)


@family.gradient(lambda x: jnp.sum(x**4), normal((5,)), "SECOND_ORDER", order=2)
def second_order_half_stopped(x):
    """One of the factors is detached."""
    return 4 * x * lax.stop_gradient(x) ** 2


@family.gradient(lambda x: jnp.sum(x**4), normal((5,)), order=2)
def twice_differentiable(x):
    return 4 * x**3


@family.vjp(jnp.tanh, normal((5,)), order=2, fwd=lambda x: (jnp.tanh(x),) * 2)
def tanh_twice_differentiable(y, dy):
    return (dy * (1 - y**2),)


@family.gradient(lambda x: jnp.sum(x**2), normal((5,)), "JIT_DIFFERS", "RAISES", "VALUE")
def traced_differently(x):
    """A shortcut for concrete arrays only."""
    return 2 * x if isinstance(x, jax.core.Tracer) else jnp.round(2 * x, 2)


@jax.custom_vjp
def branch_on_a_value(x, w):
    """A shortcut for δ = 0 that cannot be traced: jit of its gradient raises."""
    return x @ w


def skipping_bwd(residuals, dy):
    x, w = residuals
    if (dy == 0).all():
        return jnp.zeros_like(x), jnp.zeros_like(w)
    return dy @ w.T, x.T @ dy


branch_on_a_value.defvjp(matmul_fwd, skipping_bwd)
family.vjp(matmul, PRODUCT, "JIT_DIFFERS", "RAISES")(branch_on_a_value)


CASES = tuple(family.cases)
