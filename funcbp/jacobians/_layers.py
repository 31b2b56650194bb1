"""The layers that are rules of their input and their parameters: what structure they have."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
from jax import numpy as jnp

from .. import rules
from .._numerics import upcast
from .._rule import Rule
from ..layers import Layer
from ..layers._attention import four_axes, places
from ..layers._layer import Parts
from ._at import At, Done, Kind, PyTree, matrix_free, of_call
from ._calls import Call
from ._images import looked_up
from ._names import Name
from ._operator import Operator
from ._rules import of_rule
from .identity import Identity
from .kronecker import Kronecker, from_right
from .product import compose
from .sum import add

__all__ = ["LEAVES"]


def _dense(layer: Layer, at: At, inside: Parts) -> Done:
    del layer, inside
    return _ruled(rules.dense, at, ("w", "b"), "p", {})


def _convolution(layer: Layer, at: At, inside: Parts) -> Done:
    del layer
    return _ruled(inside.options["rule"], at, ("w", "b"), "p", inside.options["static"])


def _activation(layer: Layer, at: At, inside: Parts) -> Done:
    del layer
    return _ruled(inside.options["rule"], at, (), "q", inside.options["static"])


def _normalization(layer: Layer, at: At, inside: Parts) -> Done:
    del layer
    wanted = [a.name for a in inside.options["rule"].signature.arguments[1:]]
    return _ruled(inside.options["rule"], at, wanted, "y", inside.options["static"])


def _ruled(rule: Rule, at: At, wanted: Sequence[str], output: str, static: dict[str, Any]) -> Done:
    """A layer that is a rule of its input and its parameters."""
    args = (at.x, *(at.params.get(name) if wanted else None for name in wanted))
    names = (at.name, *(at.called(name) for name in wanted))
    arrays, options = rule.signature.bind(args, static)
    calls = [Call(rule, arrays, options, k, names) for k in range(len(args))]
    by_params: PyTree = ()
    if at.by_params and wanted:
        by_params = {n: of_rule(calls[k]) for k, n in enumerate(wanted, 1) if args[k] is not None}
    return Done(
        calls[0].out,
        at.called(output),
        of_rule(calls[0]) if at.by_x else None,
        by_params if at.by_params else None,
    )


def _batch_norm(layer: Layer, at: At, inside: Parts) -> Done:
    """In evaluation: a number for every channel."""
    rule, wanted = rules.batch_norm_inference, ("gain", "bias")
    if at.x.dtype != upcast(at.x).dtype:
        return matrix_free(layer, at, inside)
    y = layer.fwd(at.params, at.state, at.x, at.context).y
    statistics = [at.state[name].astype(at.x.dtype) for name in ("mean", "variance")]
    args = (at.x, *statistics, *(at.params.get(name) for name in wanted))
    names = (at.name, *(at.called(name) for name in ("mean", "variance", *wanted)))

    def by(position: int) -> Operator:
        return of_call(rule, args, names, position, **inside.options["static"])[1]

    by_params = {name: by(k) for k, name in enumerate(wanted, 3) if name in at.params}
    return Done(y, at.called("y"), by(0) if at.by_x else None, by_params if at.by_params else None)


def _embedding(layer: Layer, at: At, inside: Parts) -> Done:
    del inside
    y = layer.fwd(at.params, at.state, at.x, at.context).y
    names = (at.called("table"), at.name)
    by_table = of_call(rules.embedding, (at.params["table"], at.x), names)[1] if at.by_params else None
    return Done(y, at.called("q"), None, {"table": by_table} if at.by_params else None)


def _positional_embedding(layer: Layer, at: At, inside: Parts) -> Done:
    """y = x + E[positions]."""
    del inside
    y = layer.fwd(at.params, at.state, at.x, at.context).y
    table, where = at.params["table"], places(at.context.positions, at.x)
    by_table = looked_up(where, table.shape, "onehot(positions)") if at.by_params else None
    return Done(
        y,
        at.called("y"),
        Identity(at.x.shape) if at.by_x else None,
        {"table": by_table} if at.by_params else None,
    )


def _dropout(layer: Layer, at: At, inside: Parts) -> Done:
    """In evaluation it lets everything through."""
    del layer, inside
    return Done(at.x, at.name, Identity(at.x.shape) if at.by_x else None, () if at.by_params else None)


def _gated_mlp(layer: Layer, at: At, inside: Parts) -> Done:
    """(Dᵀ ⊗ I) [Diag(σ′(g) ⊙ u) (Gᵀ ⊗ I) + Diag(σ(g)) (Uᵀ ⊗ I)]."""
    del layer
    rows, rule = at.x.shape[:-1], inside.options["rule"]
    inner = {"gate": at.called("g"), "up": at.called("u")}
    args = [rules.dense.primal(at.x, at.params[name]) for name in inner]
    q, *_ = rule.fwd(*args)
    down = from_right(at.params["down"], rows, name=at.called("down"))
    by_x, by_params = list[Operator](), dict[str, Operator]()
    for k, name in enumerate(inner):
        slope = of_call(rule, args, [*inner.values()], k)[1]
        by_x.append(compose(slope, from_right(at.params[name], rows, name=at.called(name))))
        by_params[name] = compose(compose(down, slope), _weight(at.x, at.name, at.params[name].shape[1:]))
    by_params["down"] = _weight(q, at.called("q"), at.params["down"].shape[1:])
    y = rules.dense.primal(q, at.params["down"])
    return Done(
        y, at.called("y"), compose(down, add(*by_x)) if at.by_x else None, by_params if at.by_params else None
    )


def _weight(
    x: jax.Array, name: str, columns: tuple[int, ...], split: tuple[int, ...] | None = None
) -> Kronecker:
    """∂(x W)/∂W; `split` are the axes into which the columns are cut afterwards."""
    inner = x.shape[-1:]
    left = x.reshape(-1, *inner)
    return Kronecker(left, None, inner, columns, x.shape[:-1], split or columns, Name.of(name))


def _multi_head_attention(layer: Layer, at: At, inside: Parts) -> Done:
    """The projections, the rotation, attention by query, key and value, and the projection back."""
    options, rows = inside.options, at.x.shape[:-1]
    heads, turns = _heads(at, inside)
    args = (*heads.values(), None, four_axes(at.context.mask, at.x))
    names = [at.called(name) for name in ("q", "k", "v", "bias", "mask")]
    w, widths = at.params["output"]["w"], (heads["query"].shape[2], heads["value"].shape[3])
    back = Kronecker(None, w, rows, widths, rows, w.shape[1:], right_name=Name.of(at.called("w_output")))
    by_x, by_params = list[Operator](), dict[str, Any]()
    for k, (name, turn) in enumerate(turns.items()):
        inner = compose(of_call(options["rule"], args, names, k, **options["static"])[1], turn)
        w, split, called = at.params[name]["w"], heads[name].shape[2:], at.called(f"w_{name}")
        project = Kronecker(None, w, rows, w.shape[:1], rows, split, right_name=Name.of(called))
        by_x.append(compose(inner, project))
        own = _linear_parameters(at.params[name], at.x, at.name, split)
        by_params[name] = {n: compose(compose(back, inner), operator) for n, operator in own.items()}
    o = options["rule"].primal(*args, **options["static"]).reshape(*rows, -1)
    by_params["output"] = _linear_parameters(at.params["output"], o, at.called("o"))
    return Done(
        layer.fwd(at.params, at.state, at.x, at.context).y,
        at.called("y"),
        compose(back, functools.reduce(add, by_x)) if at.by_x else None,
        by_params if at.by_params else None,
    )


def _heads(at: At, inside: Parts) -> tuple[dict[str, jax.Array], dict[str, Operator]]:
    """Query, key and value, and what turns them by their positions."""
    counts = dict.fromkeys(("query", "key", "value"), inside.options["groups"])
    counts["query"], base = inside.options["heads"], inside.options["rotary_base"]
    heads, turns = dict[str, jax.Array](), dict[str, Operator]()
    for name, count in counts.items():
        p = rules.dense.primal(at.x, at.params[name]["w"], at.params[name].get("b"))
        p = p.reshape(*p.shape[:-1], count, p.shape[-1] // count)
        heads[name], turns[name] = p, Identity(p.shape)
        if base is not None and name != "value":
            args = (p, places(at.context.positions, at.x))
            heads[name], turns[name] = of_call(rules.rotary_embedding, args, (name, "positions"), base=base)
    return heads, turns


def _linear_parameters(
    params: PyTree, x: jax.Array, name: str, split: tuple[int, ...] | None = None
) -> dict[str, Operator]:
    """I ⊗ x by the weights, and I ⊗ 𝟏 by the bias."""
    columns = params["w"].shape[1:]
    found: dict[str, Operator] = {"w": _weight(x, name, columns, split)}
    if "b" in params:
        ones = jnp.ones((x.size // x.shape[-1], 1), x.dtype)
        rows = x.shape[:-1]
        found["b"] = Kronecker(ones, None, (), columns, rows, split or columns, Name.of("𝟏"))
    return found


LEAVES: dict[str, Kind] = {
    "dense": _dense,
    "_convolution": _convolution,
    "activation": _activation,
    "_normalization": _normalization,
    "batch_norm": _batch_norm,
    "embedding": _embedding,
    "positional_embedding": _positional_embedding,
    "dropout": _dropout,
    "gated_mlp": _gated_mlp,
    "multi_head_attention": _multi_head_attention,
}
