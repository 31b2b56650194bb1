"""What a transformer is made of beside attention: learned positions, and the block."""

from typing import Any

import jax
from jax import numpy as jnp
from jax.nn import initializers
from jax.nn.initializers import Initializer

from ..factors import Rows
from ._attention import multi_head_attention, places
from ._chain import chain
from ._checks import check_params, require_floating, require_positive
from ._layer import Context, Layer, PyTree, leaf
from ._leaves import activation, dense, dropout
from ._normalization import layer_norm
from ._residual import residual

__all__ = ["positional_embedding", "transformer_block"]


def positional_embedding(size: int, *, table_init: Initializer | None = None) -> Layer:
    """y = x + E[positions], for x of `(batch, time, features)`; `params = {"table": (size, features)}`.

    The positions are those of the context, `(batch, time)`, or 0, 1, …. A position outside [0, size) reads
    NaN, as in `embedding`.

    Args:
        size: number of positions.
        table_init: initializer of the table; default normal with standard deviation 0.02.

    Raises:
        ValueError: for a size below one, or, where the context has no positions, more than `size` of them.
    """
    require_positive("positional_embedding", "size", size)
    table_init = table_init or initializers.normal(0.02)

    def init(key: jax.Array, x_spec: Any) -> tuple[PyTree, PyTree]:
        require_floating("positional_embedding", x_spec)
        return {"table": table_init(key, (size, x_spec.shape[-1]), x_spec.dtype)}, ()

    def fwd(
        params: PyTree, state: PyTree, x: jax.Array, context: Context
    ) -> tuple[jax.Array, PyTree, PyTree]:
        check_params("positional_embedding", params, {"table": (size, None)})
        if context.positions is None and x.shape[-2] > size:
            raise ValueError(f"positional_embedding: {x.shape[-2]} positions, but the table has {size}.")
        rows = places(context.positions, x)
        rows = jnp.where(rows < 0, size, rows)
        read = jnp.take(params["table"], rows, axis=0, mode="fill", fill_value=jnp.nan)
        return x + read, state, context.positions

    def pullback(params: PyTree, positions: jax.Array | None, y_ct: jax.Array) -> tuple[PyTree, jax.Array]:
        del params
        return {"table": Rows(places(positions, y_ct), y_ct, size)}, y_ct

    return leaf(init, fwd, pullback)


def transformer_block(
    features: int,
    *,
    heads: int,
    hidden: int | None = None,
    sigma: str = "gelu",
    dropout_rate: float = 0.0,
    bias: bool = True,
    **attention: Any,
) -> Layer:
    """A block in pre-norm form: x + attention(norm(x)), then x + mlp(norm(x)).

    A chain of two residual chains, `attention` (norm, attention, dropout) and `mlp` (norm, up, sigma, down,
    dropout), by name.

    Args:
        features: width of the block.
        heads: of `multi_head_attention`.
        hidden: width between the two layers of the mlp; by default 4 · features.
        sigma: the activation there.
        dropout_rate: at the end of both branches.
        bias: whether projections and norms have one.
        attention: further options of `multi_head_attention`, such as `causal=True`.

    >>> blocks = transformer_block(8, heads=2, causal=True)
    >>> params, _ = blocks.init(jax.random.key(0), jax.ShapeDtypeStruct((1, 3, 8), "float32"))
    >>> params["mlp"]["up"]["w"].shape
    (8, 32)
    """
    hidden = 4 * features if hidden is None else hidden
    return chain(
        attention=residual(
            chain(
                norm=layer_norm(bias=bias),
                attention=multi_head_attention(heads, features=features, bias=bias, **attention),
                dropout=dropout(dropout_rate),
            )
        ),
        mlp=residual(
            chain(
                norm=layer_norm(bias=bias),
                up=dense(hidden, bias=bias),
                sigma=activation(sigma),
                down=dense(features, bias=bias, after=sigma),
                dropout=dropout(dropout_rate),
            )
        ),
    )
