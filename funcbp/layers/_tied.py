"""`tied`: one parameter in several places of a network."""

from collections.abc import Mapping
from typing import Any

import jax
from jax.tree_util import DictKey, GetAttrKey, KeyPath, SequenceKey

from .._signature import describe
from ..factors import Factor, Sum, Transposed
from ._layer import Backward, Context, Forward, Layer, Parts, PyTree, Visit, path_string, require_layer

__all__ = ["tied"]

_UNKNOWN = "tied: cannot find a parameter at {!r}; params must be dicts, tuples or NamedTuples."


def tied(network: Layer, share: Mapping[str, str]) -> Layer:
    """A network in which some parameters *are* others, given as `{shared: source}` in dotted paths.

    A source that ends in `.T` is used as its transpose: `{"unembed.w": "embed.table.T"}` ties an output layer
    to the embedding. The parameters keep the tree of `network`, with None in the place of a shared one.
    Backward, the source is visited once, with the `Sum` of the factors of all its uses: cross terms of norms
    and curvature are exact.

    A parameter inside a `repeat` is a stack of one for each block and cannot be tied from outside; tie inside
    the block.

    Raises:
        ValueError: for a path that is not a parameter, a shared parameter that is itself a source or shares
            from one that is shared, or shapes that do not fit.

    >>> from funcbp.layers import chain, dense, embedding
    >>> untied = chain(embed=embedding(7, 4), unembed=dense(7, bias=False))
    >>> network = tied(untied, {"unembed.w": "embed.table.T"})
    >>> params, _ = network.init(jax.random.key(0), jax.ShapeDtypeStruct((2, 3), "int32"))
    >>> jax.tree.map(lambda a: a.shape, params)
    {'embed': {'table': (7, 4)}, 'unembed': {'w': None}}
    """
    require_layer("tied: the network", network)
    sources = {target: source.removesuffix(".T") for target, source in share.items()}
    turned = {target: source.endswith(".T") for target, source in share.items()}
    if clash := sources.keys() & set(sources.values()):
        raise ValueError(
            f"tied: `{min(clash)}` is both shared and a source; name the first source for all of them."
        )

    def init(key: jax.Array, x_spec: PyTree) -> tuple[PyTree, PyTree]:
        params, state = network.init(key, x_spec)
        at = _places(params)
        for name in (*sources, *sources.values()):
            if name not in at:
                raise ValueError(f"tied: there is no parameter `{name}`; there are {', '.join(at)}.")
        for target, source in sources.items():
            own, other = at[target][1], at[source][1]
            shape = other.shape[::-1] if turned[target] else other.shape
            if own.shape != shape or own.dtype != other.dtype:
                raise ValueError(
                    f"tied: `{target}` is {describe(own)}, but `{share[target]}` is "
                    f"{describe(other.T if turned[target] else other)}; they must be equal."
                )
            _get(params, at[source][0])
            params = _replace(params, at[target][0], None)
        return params, state

    def whole(params: PyTree) -> PyTree:
        at = _places(params, missing=True)
        for target, source in sources.items():
            if source not in at or target not in at:
                raise ValueError(f"tied: params have no `{source}` for `{target}`; use what `init` returned.")
            if at[target][1] is not None:
                raise ValueError(
                    f"tied: params hold an array at `{target}`, which is `{share[target]}`; it must be None."
                )
            value = at[source][1]
            params = _replace(params, at[target][0], value.T if turned[target] else value)
        return params

    def fwd(params: PyTree, state: PyTree, x: PyTree, context: Context) -> Forward:
        return network.fwd(whole(params), state, x, context)

    def bwd(
        params: PyTree, residuals: PyTree, y_ct: PyTree, visit: Visit, aux: PyTree, path: KeyPath
    ) -> Backward:
        names = set(sources) | set(sources.values())

        def deferring(where: KeyPath, parameter: jax.Array, factor: Factor, aux_leaf: PyTree) -> PyTree:
            # Handed back as what is collected, and not put aside here: inside a scan it could not leave
            # otherwise.
            kept = path_string(where[len(path) :]) in names
            return factor if kept else visit(where, parameter, factor, aux_leaf)

        collected, cotangents, x_ct = network.bwd(whole(params), residuals, y_ct, deferring, aux, path)
        at = _places(params, missing=True)
        factors = {name: _get(collected, at[name][0]) for name in names}
        present = _places(params)
        aux_at = (
            {}
            if aux is None
            else dict(zip(present, jax.tree.structure(params).flatten_up_to(aux), strict=True))
        )
        for source in dict.fromkeys(sources.values()):
            where, parameter = at[source]
            uses = [factors[source]]
            uses += [
                Transposed(factors[t]) if turned[t] else factors[t] for t, s in sources.items() if s == source
            ]
            total = Sum(tuple(uses))
            _check_unstacked(source, parameter, total)
            result = visit((*path, *where), parameter, total, aux_at.get(source))
            collected = _replace(collected, where, result)
        for target in sources:
            collected = _replace(collected, at[target][0], None)
        return Backward(collected, cotangents, x_ct)

    return Layer(init, fwd, bwd, Parts("tied", (network,), {"share": dict(share), "whole": whole}))


def _check_unstacked(name: str, parameter: jax.Array, factor: Factor) -> None:
    shape = jax.eval_shape(factor.gradient).shape
    if shape != parameter.shape:
        raise ValueError(
            f"tied: the gradient of `{name}` has shape {shape}, the parameter {parameter.shape}. A parameter "
            "inside a repeat is stacked, one for each block: tie inside the block instead."
        )


def _places(params: PyTree, missing: bool = False) -> dict[str, tuple[KeyPath, Any]]:
    """Every parameter's path and value by dotted name; with `missing`, those that are None too."""
    leaves = jax.tree_util.tree_flatten_with_path(params, is_leaf=lambda a: a is None and missing)[0]
    return {path_string(path): (path, value) for path, value in leaves}


def _get(tree: PyTree, path: KeyPath) -> PyTree:
    for step in path:
        match step:
            case DictKey(key):
                tree = tree[key]
            case SequenceKey(idx):
                tree = tree[idx]
            case GetAttrKey(name):
                tree = getattr(tree, name)
            case _:
                raise TypeError(_UNKNOWN.format(step))
    return tree


def _replace(tree: PyTree, path: KeyPath, value: PyTree) -> PyTree:
    if not path:
        return value
    first, rest = path[0], path[1:]
    match first:
        case DictKey(key):
            return type(tree)({**tree, key: _replace(tree[key], rest, value)})
        case SequenceKey(idx):
            items = list(tree)
            items[idx] = _replace(items[idx], rest, value)
            return type(tree)(items)
        case GetAttrKey(name):
            return tree._replace(**{name: _replace(getattr(tree, name), rest, value)})
        case _:
            raise TypeError(_UNKNOWN.format(first))
