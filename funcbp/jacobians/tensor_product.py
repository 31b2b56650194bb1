"""Tensor product: operators that each act on axes of their own."""

import functools
import math

import jax
from jax import numpy as jnp

from ._names import parenthesized
from ._operator import Operator, Shape, Vec, size, structure
from .identity import Identity
from .product import compose

__all__ = ["TensorProduct", "tensor_product"]


@structure("factors")
class TensorProduct(Operator):
    """J_1 ⊗ … ⊗ J_n when vec stacks rows: J_k on the k-th group of axes. Average pooling is I ⊗ P ⊗ I.

    Attributes:
        factors: the operators, whose axes follow on each other in input and output.

    >>> from .selection import Selection
    >>> rows = tensor_product(Selection(jnp.array([2, 0]), (3,), (2,), "S"), Identity((4,)))
    >>> print(rows, "or", rows.show(vec="rows"))
    I₄ ⊗ S or S ⊗ I₄
    >>> (rows @ jnp.arange(12.0).reshape(3, 4)).tolist()
    [[8.0, 9.0, 10.0, 11.0], [0.0, 1.0, 2.0, 3.0]]
    """

    factors: tuple[Operator, ...]

    @property
    def in_shape(self) -> Shape:
        """Shape of the input."""
        return sum((factor.in_shape for factor in self.factors), ())

    @property
    def out_shape(self) -> Shape:
        """Shape of the output."""
        return sum((factor.out_shape for factor in self.factors), ())

    @property
    def T(self) -> Operator:
        """The transposed factors."""
        return TensorProduct(tuple(factor.T for factor in self.factors))

    def push(self, x_t: jax.Array) -> jax.Array:
        """One factor after the other, on its axes."""
        before = 1
        for factor in self.factors:
            x_t = _on_middle(factor, x_t.reshape(before, *factor.in_shape, -1))
            before *= size(factor.out_shape)
        return x_t.reshape(self.out_shape)

    def pull(self, y_ct: jax.Array) -> jax.Array:
        """One factor after the other, on its axes."""
        return self.T.push(y_ct)

    def show(self, vec: Vec = "columns") -> str:
        """The factors with ⊗ between them: the last first when vec stacks columns."""
        order = reversed(self.factors) if vec == "columns" else self.factors
        shown = [parenthesized(f.show(vec), "+−⊗") for f in order if not _trivial(f)]
        return " ⊗ ".join(shown) or "I₁"

    def after(self, first: Operator) -> Operator | None:
        """(A ⊗ B)(C ⊗ D) = AC ⊗ BD."""
        if not isinstance(first, TensorProduct) or len(first.factors) != len(self.factors):
            return None
        pairs = list(zip(self.factors, first.factors, strict=True))
        if any(own.in_shape != other.out_shape for own, other in pairs):
            return None
        return tensor_product(*(compose(own, other) for own, other in pairs))

    def as_tensor(self) -> jax.Array:
        """The product of the tensors, the axes of the output first."""
        tensors = [factor.as_tensor().astype(self.dtype) for factor in self.factors]
        product = functools.reduce(lambda a, b: jnp.tensordot(a, b, 0), tensors)
        outer, inner, place = list[int](), list[int](), 0
        for factor in self.factors:
            for axes, count in ((outer, len(factor.out_shape)), (inner, len(factor.in_shape))):
                axes.extend(range(place, place + count))
                place += count
        return product.transpose(*outer, *inner)

    def diagonal(self) -> jax.Array:
        """The products of the diagonals' entries."""
        return functools.reduce(lambda a, b: jnp.tensordot(a, b, 0), (f.diagonal() for f in self.factors))

    def trace(self) -> jax.Array:
        """The product of the traces."""
        return math.prod((f.trace() for f in self.factors), start=jnp.ones((), self.dtype))

    def logdet(self) -> jax.Array:
        """Σ n/n_k log |det J_k|, with n_k the size of the k-th factor."""
        self.require_square("logdet")
        if any(size(f.in_shape) != size(f.out_shape) for f in self.factors):
            return super().logdet()
        whole = size(self.in_shape)
        return sum((whole // size(f.in_shape) * f.logdet() for f in self.factors), jnp.zeros(()))

    def singular_values(self) -> jax.Array:
        """All products of those of the factors; those that are missing are 0."""
        products = functools.reduce(jnp.outer, (f.singular_values() for f in self.factors)).ravel()
        missing = min(size(self.in_shape), size(self.out_shape)) - len(products)
        return jnp.pad(jnp.sort(products, descending=True), (0, missing))


def tensor_product(*factors: Operator) -> Operator:
    """The tensor product; identities that follow on each other are one, and those of no axes left out."""
    joined: list[Operator] = []
    for factor in factors:
        if isinstance(factor, Identity) and joined and isinstance(joined[-1], Identity):
            joined[-1] = Identity((*joined[-1].shape, *factor.shape))
        elif not isinstance(factor, Identity) or factor.shape:
            joined.append(factor)
    return joined[0] if len(joined) == 1 else TensorProduct(tuple(joined)) if joined else Identity(())


def _trivial(factor: Operator) -> bool:
    return isinstance(factor, Identity) and size(factor.shape) == 1


def _on_middle(factor: Operator, x: jax.Array) -> jax.Array:
    """A factor on the axes between the first and the last."""
    if isinstance(factor, Identity):
        return x
    return jax.vmap(jax.vmap(factor.push, in_axes=-1, out_axes=-1))(x)
