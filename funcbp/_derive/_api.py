"""`derive`: the entry point."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from ._arguments import arguments_of
from ._build import build
from ._derivation import Derivation
from ._trees import Trees, trees_of

__all__ = ["derive"]


def derive(
    function: Callable[..., Any],
    *args: Any,
    wrt: str | Sequence[str] | None = None,
    names: Sequence[str] | None = None,
    dims: Mapping[str, str | Sequence[str]] | None = None,
    assume: str | Sequence[str] = (),
    style: Literal["differential", "index"] = "differential",
) -> Derivation:
    """Derive the gradient of a function of matrices, as a textbook does.

    The function is traced, not called with numbers. Sizes that are equal in the arguments are one
    dimension, so give different sizes to what is different. Vectors are columns; `A : B` is Σ A_ij B_ij,
    `⊙` the product of elements.

    A `lax.scan` (a `lax.fori_loop` of known length, a `lax.map`) becomes a recurrence in t: one step with its
    states h_t, its differential once, δ_t in terms of δ_{t+1} and what the last step begins with, and
    gradients as sums over t, Σ_t δ_t h_{t-1}ᵀ. The code has one scan forward, which keeps the states, and one
    backward; sums over the steps are taken once, as products of what was kept, where they are such products.
    A scan inside of a scan and a `lax.while_loop` are refused.

    Args:
        function: of arrays, made of JAX operations; returns one real number.
        args: its arguments, real arrays, `jax.ShapeDtypeStruct`s, or trees of them, as parameters in a
            dictionary; of arrays, declared facts are checked. A leaf of a tree is called by its last key
            where that is enough, else by its path: `w` or `params_encoder_w`.
        wrt: names of the arguments to differentiate by, or paths of leaves as `params['w']`; everything
            floating if not given.
        names: of the arguments; those of the parameters if not given.
        dims: names of an array's dimensions, as `{"X": "n d"}`; m, n, k, ... if not given.
        assume: facts that a simplification may use: `rows of Y sum to one`, `S symmetric`, `x > 0`,
            `x != 0`. They are checked on the arrays that are given.
        style: `differential`, or `index` for a calculation with indices and Kronecker's δ.

    Returns:
        A `Derivation`.

    Raises:
        UnsupportedError: for an operation that has no rule here; it names the operation and the line.
        NotScalarError: if the function returns something else than one real number.
        TypeError: for an argument that is no array, is complex, or cannot be differentiated.
        ValueError: for names that do not fit, or a fact that the data contradict.

    >>> import jax.numpy as jnp
    >>> d = derive(lambda A, x, y: y @ A @ x, jnp.ones((2, 3)), jnp.ones(3), jnp.ones(2), wrt="A")
    >>> print(d)
    Given A (m × n), x (n), y (m)
    <BLANKLINE>
     C = yᵀ A x
    <BLANKLINE>
    dC = yᵀ dA x                                                      linear
       = y xᵀ : dA                                                    transpose and move
    <BLANKLINE>
    ┌──────────────┐
    │ ∂C/∂A = y xᵀ │
    └──────────────┘
    >>> d.check().ok
    True
    """
    if style not in ("differential", "index"):
        raise ValueError(f"derive: style is 'differential' or 'index', not {style!r}")
    trees, values = trees_of(function, args, names)
    called = dict(zip(trees.chosen(list(dims or {})), (dims or {}).values(), strict=True))
    arguments = arguments_of(values, trees.names, called, trees.paths)
    floating = [a.name for a in arguments if a.floating]
    if wrt is None:
        chosen = floating
    else:
        wanted = [wrt] if isinstance(wrt, str) else list(wrt)
        chosen = [n for n in trees.chosen(wanted) if n in floating or n not in _inside(trees, wanted)]
    sentences = [assume] if isinstance(assume, str) else list(assume)
    built = build(trees.flat(function), arguments, chosen, sentences, trees.arguments)
    return Derivation(function, trees, built, style)


def _inside(trees: Trees, wanted: Sequence[str]) -> set[str]:
    """The leaves that are meant because their tree is: of those only the floating ones are."""
    return {leaf for name in wanted if name in trees.structures for leaf in trees.leaves[name]}
