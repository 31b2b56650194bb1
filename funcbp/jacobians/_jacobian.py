"""`jacobian`: the entry point."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax import numpy as jnp
from jax.tree_util import keystr

from .._rule import Rule
from ..layers import Layer
from ._calls import Call
from ._function import of_function
from ._network import of_network
from ._rules import of_rule

__all__ = ["jacobian"]


def jacobian(
    function: Callable[..., Any] | Rule | Layer,
    *args: Any,
    argnum: int = 0,
    names: Sequence[str] | None = None,
    **options: Any,
) -> Any:
    """The Jacobian as an operator that keeps its structure: J @ v and v @ J without a matrix being formed.

    Of a rule it is what the rule is known to have: Diag(σ′), Wᵀ ⊗ I, Diag(q) - q qᵀ for every row. Of a
    function it is read off the differential form that `derive` finds, a product along every path. Of a
    network it is the product of its layers' operators, from one forward pass. What has no structure that is
    known is matrix-free: applied by forward mode and by the backward pass, and `str(J)` says so.

    Args:
        function: a `Rule`; a `Layer`; or a function of arrays (and trees of them) that returns one array.
        args: its arguments; of a layer `params, x`.
        argnum: by which one to differentiate; if that is a tree, so is the result.
        names: of the arguments, for `str(J)`; by default those of the parameters.
        options: static options of a rule; `state=` and `mask=`, `positions=` of a layer, which is taken in
            evaluation.

    Returns:
        An `Operator`, or a tree of them: dtype and shapes as of `jax.jacrev(function, argnum)(*args)`, which
        `J.as_tensor()` equals. Of a network with several outputs a tree of outputs, and in it those.

    Raises:
        TypeError: for an argument that is not made of real numbers, or a result that is not one array.
        ValueError: for an `argnum` or names that do not fit.

    Sources: Magnus and Neudecker, "Matrix Differential Calculus"; the layouts are those of `funcbp.notation`.

    >>> X, W = jnp.ones((4, 3)), jnp.ones((3, 2))
    >>> J = jacobian(lambda X, W: X @ W, X, W, argnum=1)
    >>> print(J)
    I₂ ⊗ X
    >>> J.show(vec="rows"), J.as_tensor().shape, (J @ W).shape
    ('X ⊗ I₂', (4, 2, 3, 2), (4, 2))
    >>> print(jacobian(lambda X, W: jnp.tanh(X @ W), X, W, argnum=0))
    Diag(tanh′(X W)) (Wᵀ ⊗ I₄)
    >>> from funcbp import layers, rules
    >>> print(jacobian(rules.softmax, jnp.zeros(3)))
    Diag(q) − q qᵀ
    >>> cnn = layers.chain(layers.conv(2, 3), layers.activation("relu"), layers.avg_pool(2))
    >>> images = jnp.ones((4, 6, 6, 1))
    >>> params, _ = cnn.init(jax.random.key(0), images)
    >>> print(jacobian(cnn, params, images, argnum=1))
    (I₂ ⊗ P₂ ⊗ P₁ ⊗ I₄) Diag(relu′(p₀)) Conv(w₀)
    >>> print(jacobian(cnn, params, images)[0]["w"])
    (I₂ ⊗ P₂ ⊗ P₁ ⊗ I₄) Diag(relu′(p₀)) (I₂ ⊗ patches(x))
    """
    if not 0 <= argnum < len(args):
        raise ValueError(f"jacobian: argnum must be from 0 to {len(args) - 1}, got {argnum}.")
    if isinstance(function, Layer):
        return of_network(function, *args, argnum=argnum, names=names, **options)
    called = _names(function, args, names)
    if isinstance(function, Rule):
        arrays, static = function.signature.bind(args, options)
        if not function.signature.arguments[argnum].floating:
            _refuse(called[argnum], args[argnum])
        names_of_all = tuple(called[: len(args)]) + tuple(
            a.name for a in function.signature.arguments[len(args) :]
        )
        return of_rule(Call(function, arrays, static, argnum, names_of_all))
    if options:
        raise TypeError(
            f"jacobian: a function has no option `{min(options)}`; bind it with functools.partial."
        )
    return _by_leaves(function, args, argnum, called)


def _by_leaves(
    function: Callable[..., Any], args: tuple[Any, ...], argnum: int, called: Sequence[str]
) -> Any:
    """An operator for every leaf of an argument."""
    entries, structure = jax.tree_util.tree_flatten_with_path(args)
    leaves = [jnp.asarray(leaf) for _, leaf in entries]
    names = [_leaf_name(path, called) for path, _ in entries]
    names = [name if names.count(name) == 1 else f"{name}{k}" for k, name in enumerate(names)]
    operators = []
    for k, (path, _) in enumerate(entries):
        if path[0].idx == argnum:
            if not jnp.issubdtype(leaves[k].dtype, jnp.floating):
                _refuse(called[argnum] + keystr(path[1:]), leaves[k])
            operators.append(of_function(function, structure, leaves, names, k))
    return jax.tree.unflatten(jax.tree.structure(args[argnum]), operators)


def _leaf_name(path: Any, called: Sequence[str]) -> str:
    """The argument's name; of a leaf in a tree its last key."""
    if len(path) == 1:
        return called[path[0].idx]
    last = keystr(path[-1:], simple=True)
    return last if last.isidentifier() else f"{called[path[0].idx]}{last}"


def _names(function: Any, args: Sequence[Any], names: Sequence[str] | None) -> list[str]:
    if names is not None:
        if len(names) < len(args):
            raise ValueError(f"jacobian: {len(args)} arguments need as many names, got {list(names)}.")
        return list(names)
    try:
        found = [p for p in inspect.signature(function).parameters.values() if p.kind != p.VAR_KEYWORD]
    except (TypeError, ValueError):
        found = []
    known = [p.name for p in found if p.kind != p.VAR_POSITIONAL]
    return [known[k] if k < len(known) else f"x{k}" for k in range(len(args))]


def _refuse(name: str, value: Any) -> None:
    dtype = jnp.asarray(value).dtype
    raise TypeError(
        f"jacobian: `{name}` has dtype {dtype}, which cannot be differentiated; convert it to a real dtype, "
        "or choose another argnum."
    )
