"""`Total`: a bias."""

import math

import jax
from jaxtyping import Array, Float

from .._numerics import upcast
from ._base import Factor, factor
from ._pairs import products

__all__ = ["Total", "compact"]


@factor("ndim")
class Total(Factor):
    """∂C/∂b = Σ δ, over all axes that b does not have.

    Attributes:
        delta: ∂C/∂p, `(*batch, *parameter)`.
        ndim: number of trailing axes that belong to the parameter.
    """

    delta: Float[Array, "*shape"]
    ndim: int = 1

    def gradient(self) -> jax.Array:
        """The sum over the leading axes.

        >>> from jax import numpy as jnp
        >>> Total(jnp.array([[1.0, 2.0], [3.0, 4.0]])).gradient()
        Array([4., 6.], dtype=float32)
        """
        return upcast(self.delta).sum(tuple(range(self.delta.ndim - self.ndim)))

    def _gram(self, other: Factor) -> jax.Array:
        both = self.examples(), other.examples()
        if not isinstance(other, Total) or {self.delta.ndim, other.delta.ndim} != {self.ndim + 1}:
            return super()._gram(other)
        return products(*(f.delta.reshape(n, -1) for f, n in zip((self, other), both, strict=True)))

    def _own_axes(self) -> int:
        return self.ndim


def compact(factor: Factor) -> Factor:
    """The gradients of the examples, as a `Total`, where they are less to keep or to compute; else itself.

    Less to keep are those of biases and gains, whose positions are summed, and of weights with many
    positions. And the gradient of a single example is what its weighted sum takes anyway: formed at once, it
    saves the products of positions that its norm would take. What is contracted then takes no products any
    more.

    >>> from jax import numpy as jnp
    >>> compact(Total(jnp.ones((2, 5, 3)))).delta.shape
    (2, 3)
    """
    shape, examples = factor.shape(), factor.examples()
    size = math.prod(shape)
    fewer = examples * size < sum(a.size for a in jax.tree.leaves(factor))
    if fewer or (examples == 1 and not _needs_less(factor, size)):
        return Total(factor.per_example(), len(shape))
    return factor


def _needs_less(factor: Factor, size: int) -> bool:
    """Whether the norm of an example takes fewer multiplications than its gradient has numbers."""
    pairs = jax.eval_shape(factor.pairs)
    return pairs is not None and pairs.work(pairs) <= size
