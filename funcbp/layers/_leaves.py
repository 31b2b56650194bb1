"""The layers that are one rule each."""

from typing import Any

import jax
from jax import numpy as jnp
from jax.nn import initializers
from jax.nn.initializers import Initializer
from jax.typing import DTypeLike

from .. import rules
from .._numerics import upcast
from .._rule import Rule, catalogue
from .._signature import describe
from ._checks import check_params, require_floating, require_positive
from ._initializers import initializer
from ._layer import Context, Layer, PyTree, leaf

__all__ = ["activation", "dense", "dropout", "embedding"]


def dense(
    features: int,
    *,
    bias: bool = True,
    after: str | None = None,
    kernel_init: Initializer | None = None,
    bias_init: Initializer = initializers.zeros,
) -> Layer:
    """p = x W + b over the last axis; `params = {"w": (in, features), "b": (features,)}`.

    Args:
        features: width of the output.
        bias: False leaves b out.
        after: the activation whose output this layer reads; sets the default variance of W (see
            `initializer`).
        kernel_init: initializer of W, instead of that default.
        bias_init: initializer of b.

    Raises:
        ValueError: for a width below one.
    """
    require_positive("dense", "features", features)
    kernel_init = kernel_init or initializer(after)

    def init(key: jax.Array, x_spec: Any) -> tuple[PyTree, PyTree]:
        require_floating("dense", x_spec)
        w_key, b_key = jax.random.split(key)
        params = {"w": kernel_init(w_key, (x_spec.shape[-1], features), x_spec.dtype)}
        return params | ({"b": bias_init(b_key, (features,), x_spec.dtype)} if bias else {}), ()

    def fwd(
        params: PyTree, state: PyTree, x: jax.Array, context: Context
    ) -> tuple[jax.Array, PyTree, jax.Array]:
        del context
        check_params("dense", params, {"w": (None, features)} | ({"b": (features,)} if bias else {}))
        p, _ = rules.dense.fwd(x, params["w"], params.get("b"))
        return p, state, x

    def pullback(params: PyTree, x: jax.Array, p_ct: jax.Array) -> tuple[PyTree, jax.Array]:
        x_ct, w, b = rules.dense.pullback((x, params["w"], params.get("b")), p_ct)
        return {"w": w} | ({"b": b} if bias else {}), x_ct

    return leaf(init, fwd, pullback, pre_activation=True)


def activation(rule: str | Rule, **static: Any) -> Layer:
    """q = σ(p), by the name of an activation (`"gelu"`, `"softmax"`, …) or any Rule of one array.

    Args:
        rule: the name in the catalogue's family of activations, or the Rule.
        static: its static options, for example `approximate=False` of gelu.

    Raises:
        ValueError: for an unknown name; the message lists those there are.
        TypeError: for a rule that takes more than one array.
    """
    if isinstance(rule, str):
        if rule not in catalogue() or not _is_activation(catalogue()[rule]):
            known = [name for name, other in catalogue().items() if _is_activation(other)]
            raise ValueError(f"activation: there is no activation {rule!r}; known are {', '.join(known)}.")
        rule = catalogue()[rule]
    if not isinstance(rule, Rule) or len(rule.signature.arguments) != 1:
        raise TypeError(f"activation: needs a Rule of one array, got {rule!r}.")

    if unknown := static.keys() - rule.signature.statics.keys():
        raise TypeError(
            f"activation: {rule.name} has no option `{min(unknown)}`; it has {list(rule.signature.statics)}."
        )

    def init(key: jax.Array, x_spec: PyTree) -> tuple[PyTree, PyTree]:
        del key, x_spec
        return (), ()

    def fwd(
        params: PyTree, state: PyTree, p: jax.Array, context: Context
    ) -> tuple[jax.Array, PyTree, PyTree]:
        del params, context
        q, residuals = rule.fwd(p, **static)
        return q, state, residuals

    def pullback(params: PyTree, residuals: PyTree, q_ct: jax.Array) -> tuple[PyTree, jax.Array]:
        del params
        (p_ct,) = rule.bwd(residuals, q_ct, **static)
        return (), p_ct

    return leaf(init, fwd, pullback, rule=rule, static=static)


def _is_activation(rule: Rule) -> bool:
    if rule.family != "activations" or len(rule.signature.arguments) != 1:
        return False
    spec = jax.ShapeDtypeStruct((2, 4), jnp.float32)
    return jax.eval_shape(rule.primal, spec).shape == spec.shape


def dropout(rate: float) -> Layer:
    """In training, sets entries to zero with probability `rate` and scales the rest by 1 / (1 - rate).

    The residual is the mask, one byte an entry.

    Raises:
        ValueError: for a rate outside [0, 1), or a training pass without `key=`.
    """
    rate = float(rate)
    if not 0 <= rate < 1:
        raise ValueError(f"dropout: rate must be in [0, 1), got {rate}.")

    def init(key: jax.Array, x_spec: PyTree) -> tuple[PyTree, PyTree]:
        del key, x_spec
        return (), ()

    def fwd(
        params: PyTree, state: PyTree, x: jax.Array, context: Context
    ) -> tuple[jax.Array, PyTree, PyTree]:
        del params
        if not context.train or rate == 0:
            return x, state, None
        if context.key is None:
            raise ValueError(f"dropout: a training pass with rate {rate} needs a random key; pass key=.")
        kept = jax.random.bernoulli(context.key, 1 - rate, x.shape)
        return _scaled(kept, x), state, kept

    def pullback(params: PyTree, kept: jax.Array | None, y_ct: jax.Array) -> tuple[PyTree, jax.Array]:
        del params
        return (), y_ct if kept is None else _scaled(kept, y_ct)

    def _scaled(kept: jax.Array, x: jax.Array) -> jax.Array:
        return jnp.where(kept, upcast(x) / (1 - rate), 0).astype(x.dtype)

    return leaf(init, fwd, pullback)


def embedding(
    size: int,
    features: int,
    *,
    table_init: Initializer | None = None,
    dtype: DTypeLike = jnp.float32,
) -> Layer:
    """Rows of a table by integer id; `params = {"table": (size, features)}`.

    The rule `embedding`: row i of Ē is the sum of the δ's of every place where id i was read (`Rows`); ids
    have no cotangent. An id outside [0, size) reads NaN, so that it cannot pass unseen; its δ is dropped.

    Args:
        size: number of ids.
        features: width of a row.
        table_init: initializer of the table; default normal with variance 1 / features.
        dtype: of the table.

    Raises:
        TypeError: for ids that are not integers.
        ValueError: for a size or width below one.
    """
    require_positive("embedding", "size", size)
    require_positive("embedding", "features", features)
    table_init = table_init or initializers.normal(features**-0.5)

    def init(key: jax.Array, x_spec: Any) -> tuple[PyTree, PyTree]:
        _integers(x_spec)
        return {"table": table_init(key, (size, features), dtype)}, ()

    def fwd(
        params: PyTree, state: PyTree, ids: jax.Array, context: Context
    ) -> tuple[jax.Array, PyTree, PyTree]:
        del context
        _integers(ids)
        check_params("embedding", params, {"table": (size, features)})
        rows, residuals = rules.embedding.fwd(params["table"], ids)
        return rows, state, residuals

    def pullback(params: PyTree, residuals: PyTree, y_ct: jax.Array) -> tuple[PyTree, None]:
        del params
        table, _ = rules.embedding.pullback(residuals, y_ct)
        return {"table": table}, None

    return leaf(init, fwd, pullback)


def _integers(ids: Any) -> None:
    if not hasattr(ids, "dtype") or not jnp.issubdtype(ids.dtype, jnp.integer):
        raise TypeError(
            f"embedding: ids must be integers, got {describe(ids)}; convert them: ids.astype(jnp.int32)."
        )
