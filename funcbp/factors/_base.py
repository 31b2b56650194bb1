"""What every factor can do."""

import functools
import math
import operator
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple, TypeVar, cast, dataclass_transform

import jax
from jax import numpy as jnp
from jax.typing import DTypeLike

from .._numerics import matmul, upcast
from ._blocks import block_length, fold, mapped
from ._pairs import Pairs

__all__ = ["Factor", "Kronecker", "contract", "factor"]

C = TypeVar("C", bound=type)


class Kronecker(NamedTuple):
    """Two matrices whose Kronecker product stands for Σ vec(g) vec(g)ᵀ, vec stacking rows (`jnp.ravel`).

    Attributes:
        rows: over what the parameter's rows met, `(*in, *in)` of a weight.
        columns: over what its columns met, `(out, out)`.
    """

    rows: jax.Array
    columns: jax.Array


class Factor:
    """The gradient of one parameter as the pair that it is a contraction of.

    The first axis of every array of a factor is the example: without it, the factor is that of one example,
    and has a gradient but nothing that is per example. With g_n the gradient of example n, `gradient` is Σ
    g_n; all other contractions are of the same arrays, too, and none takes another pass through the network.

    A structure of one's own states `gradient`. It needs no more if it is linear in a field `delta` and all
    its arrays have the example first; what is here goes through the gradients of single examples, in blocks
    that take no more memory than the factor itself (but at least one gradient). Structures that can do better
    override what they can; `pairs` is for sums of outer products.

    Results are in float32 at least.
    """

    def gradient(self) -> jax.Array:
        """Σ g_n, over all examples and positions: the gradient."""
        raise NotImplementedError

    def scaled(self, c: jax.Array | float) -> "Factor":
        """The factor of c_n g_n, for c of shape `(examples,)`, or a number: the same with every δ_n scaled.

        Where c is 0 so is the result, whatever δ is. In float32 at least, so that a bound which c keeps is
        kept to float32's digits.
        """
        delta = upcast(self._delta())
        c = jnp.asarray(c, delta.dtype)
        c = c.reshape(*c.shape, *(1,) * (delta.ndim - c.ndim)) if c.ndim else c
        return replace(self, delta=jnp.where(c == 0, 0, c * delta))  # ty: ignore[invalid-argument-type]

    def weighted(self, c: jax.Array) -> jax.Array:
        """Σ c_n g_n, for c of shape `(examples,)`: the δ's are scaled, not gradients."""
        self.examples()
        return self.scaled(c).gradient()

    def per_example(self) -> jax.Array:
        """g_n of every example: `(examples, *parameter)`."""
        self.examples()
        return jax.vmap(_gradient)(self)

    def squared_norms(self) -> jax.Array:
        """‖g_n‖² of every example: `(examples,)`.

        A sum over T positions of outer products of `rows` and `columns` entries, g = Σ_t a_t δ_tᵀ, has two
        forms, ⟨A Aᵀ, Δ Δᵀ⟩ and ‖Aᵀ Δ‖². The first takes T² (rows + columns) multiplications, the second T
        rows · columns; the first is taken for T (rows + columns) ≤ rows · columns. Times cross at the same
        place, and it is also where the gradient of an example becomes smaller than its A and Δ: neither form
        needs more memory than these.
        """
        self.examples()
        if (pairs := self._shorter_pairs(self)) is not None:
            return pairs[0].inner(pairs[1])
        return self._each(lambda one: jnp.sum(jnp.square(one.gradient())))

    def inner(self, other: "Factor") -> jax.Array:
        """⟨g_n, g′_n⟩ for two factors of one parameter and batch, of any structures: `(examples,)`.

        >>> from funcbp.factors import Outer, Rows
        >>> rows = Rows(jnp.array([2, 0]), jnp.array([[3.0], [5.0]]), 3)
        >>> rows.inner(Outer(jnp.eye(3)[jnp.array([2, 1])], jnp.ones((2, 1))))
        Array([3., 0.], dtype=float32)
        """
        products = [a._inner(b) for a in self.parts() for b in other.parts()]
        return functools.reduce(operator.add, products)

    def gram(self, other: "Factor | None" = None) -> jax.Array:
        """⟨g_n, g′_m⟩ for all n and m: `(examples, other's examples)`; by default of the factor with itself.

        For outer products without positions (A A′ᵀ) ⊙ (Δ Δ′ᵀ).
        """
        other = self if other is None else other
        products = [a._gram(b) for a in self.parts() for b in other.parts()]
        return functools.reduce(operator.add, products)

    def second_moment(self) -> jax.Array:
        """Σ g_n ⊙ g_n, in the shape of the parameter."""
        self.examples()
        return fold(lambda part: jnp.sum(jnp.square(part.per_example()), 0), self, self._block())

    def variance(self) -> jax.Array:
        """Of the entries of g_n over the examples, 1/N Σ g_n² - (1/N Σ g_n)²; the biased one, never below 0.

        As a difference of sums it has an absolute error of some ulps of the first.
        """
        n = self.examples()
        return jnp.maximum(self.second_moment() / n - jnp.square(self.gradient() / n), 0)

    def projected(self, key: jax.Array, k: int) -> jax.Array:
        """P g_n of every example, `(examples, k)`, with a random P of which E⟨P g, P g′⟩ = ⟨g, g′⟩.

        P depends on the key, k and the shape of the parameter only: factors of one parameter can be compared,
        and P is linear. A parameter with two axes or more is taken as a matrix (all axes but the last, last);
        with independent signs u_j and v_j (Rademacher)

            (P g)_j = u_jᵀ g v_j / √k      which is (uᵀ a)(vᵀ δ) for an outer product

        a parameter with one axis, or none, meets a sign for every entry. E u uᵀ = E v vᵀ = I make both
        unbiased. The variance of ‖P g‖² is at most 8 ‖g‖⁴ / k: four times that of a dense Gaussian P, which
        has rows · columns · k numbers, in place of (rows + columns) k.
        """
        shape = self.shape()
        rows, columns = (math.prod(shape[:-1]), shape[-1]) if len(shape) > 1 else (math.prod(shape), 1)
        left, right = (
            jax.random.rademacher(key, (size, k), jnp.result_type(float))
            for key, size in zip(jax.random.split(key), (rows, columns), strict=True)
        )
        right = right if len(shape) > 1 else jnp.ones_like(right)
        return self._project(left, right) / math.sqrt(k)

    def kronecker(self, form: str = "expand") -> Kronecker | None:
        """K-FAC's factors of Σ vec(g_n) vec(g_n)ᵀ; None for structures that have none (see `Outer`)."""
        del form
        return None

    def examples(self) -> int:
        """How many examples there are.

        Raises:
            ValueError: for a factor without an axis of examples.
        """
        sizes = {a.shape[:1] for a in jax.tree.leaves(self)}
        if self._delta().ndim <= self._own_axes() or len(sizes) != 1:
            shapes = [a.shape for a in jax.tree.leaves(self)]
            raise ValueError(
                f"{type(self).__name__}: what is per example needs an axis of examples, the first of every "
                f"array of the factor; it has arrays of shapes {shapes}."
            )
        return sizes.pop()[0]

    def shape(self) -> tuple[int, ...]:
        """The shape of the parameter."""
        return jax.eval_shape(_gradient, self).shape

    def parts(self) -> "tuple[Factor, ...]":
        """The terms, of a factor that is a sum."""
        return (self,)

    def pairs(self) -> Pairs | None:
        """The factor as sums over positions of outer products, if it is one."""
        return None

    def _delta(self) -> jax.Array:
        if not hasattr(self, "delta"):
            raise TypeError(
                f"{type(self).__name__} has no field `delta` in which it is linear, with the examples on its "
                "first axis; what is per example needs one."
            )
        return cast(jax.Array, self.delta)

    def _own_axes(self) -> int:
        """How many axes the δ of one example has at least."""
        return 1

    def _block(self) -> int:
        return block_length(self, math.prod(self.shape()))

    def _each(self, function: Callable[["Factor"], jax.Array]) -> jax.Array:
        """A function of the factor of every example, in blocks."""
        self.examples()
        return mapped(function, self, self._block())

    def _shorter_pairs(self, other: "Factor") -> tuple[Pairs, Pairs] | None:
        """Both as pairs, where products of positions are less work than gradients of examples."""
        same = self is other

        def pairs() -> tuple[Pairs | None, Pairs | None]:
            mine = self.pairs()
            return mine, mine if same else other.pairs()

        # Decided from shapes alone: nothing is unfolded that is not used.
        spec, other_spec = jax.eval_shape(pairs)
        if spec is None or other_spec is None or not spec.shorter(other_spec, gradients=1 if same else 2):
            return None
        return cast(tuple[Pairs, Pairs], pairs())

    def _inner(self, other: "Factor") -> jax.Array:
        self.examples(), other.examples()
        if (pairs := self._shorter_pairs(other)) is not None:
            return pairs[0].inner(pairs[1])
        return mapped(
            lambda two: jnp.vdot(two[0].gradient(), two[1].gradient()),
            (self, other),
            min(self._block(), other._block()),
        )

    def _gram(self, other: "Factor") -> jax.Array:
        self.examples(), other.examples()
        if (pairs := self._shorter_pairs(other)) is not None:
            return pairs[0].gram(pairs[1])

        def row(one: Factor) -> jax.Array:
            gradient = one.gradient()
            return mapped(lambda b: jnp.vdot(gradient, b.gradient()), other, other._block())

        return self._each(row)

    def _project(self, left: jax.Array, right: jax.Array) -> jax.Array:
        """leftᵀ g right, column by column, of every example."""

        def project(one: Factor) -> jax.Array:
            g = one.gradient().reshape(left.shape[0], right.shape[0])
            return jnp.sum(matmul(left.T, g) * right.T, axis=-1)

        return self._each(project)


def _gradient(one: Factor) -> jax.Array:
    return one.gradient()


@dataclass_transform(frozen_default=True)
def factor(*static: str) -> Callable[[C], C]:
    """Register a frozen dataclass as a pytree; fields named in `static` are sizes, fixed at trace time."""

    def register(cls: C) -> C:
        cls = dataclass(frozen=True)(cls)
        data = [f.name for f in fields(cls) if f.name not in static]
        return jax.tree_util.register_dataclass(cls, data_fields=data, meta_fields=list(static))

    return register


def contract(cotangent: Any, dtype: DTypeLike) -> Any:
    """A factor's gradient in `dtype`; anything else (an array, None) as it is.

    >>> from jax import numpy as jnp
    >>> contract(Factor, jnp.float32) is Factor, contract(None, jnp.float32) is None
    (True, True)
    """
    return cotangent.gradient().astype(dtype) if isinstance(cotangent, Factor) else cotangent
