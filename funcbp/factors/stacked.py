"""`Stacked`: equal parameters on a new first axis, as a scan over blocks has them."""

import jax
from jax import numpy as jnp

from ._base import Factor, Kronecker, factor

__all__ = ["Stacked"]


@factor()
class Stacked(Factor):
    """∂C/∂W of parameters that are stacked: the factor of every one, stacked likewise.

    It is one parameter with one more axis, and one factor: norms and inner products are sums over the stack.

    Attributes:
        of: a factor whose arrays have one axis more, the first, for the stack.
    """

    of: Factor

    def gradient(self) -> jax.Array:
        """One gradient after the other: `(stack, *parameter)`.

        >>> from funcbp.factors import Total
        >>> Stacked(Total(jnp.arange(12.0).reshape(2, 3, 2))).gradient()
        Array([[ 6.,  9.],
               [24., 27.]], dtype=float32)
        """
        return jax.vmap(lambda f: f.gradient())(self.of)

    def scaled(self, c: jax.Array | float) -> Factor:
        """As `Factor.scaled`; c of shape `(examples, stack)` scales each of the stack in its own way."""
        c = jnp.asarray(c)
        return Stacked(jax.vmap(lambda f, c: f.scaled(c), (0, 1 if c.ndim > 1 else None))(self.of, c))

    def per_example(self) -> jax.Array:
        """`(examples, stack, *parameter)`."""
        return jnp.moveaxis(jax.vmap(lambda f: f.per_example())(self.of), 0, 1)

    def squared_norms(self) -> jax.Array:
        """Summed over the stack."""
        return jnp.sum(jax.vmap(lambda f: f.squared_norms())(self.of), axis=0)

    def second_moment(self) -> jax.Array:
        """`(stack, *parameter)`."""
        return jax.vmap(lambda f: f.second_moment())(self.of)

    def kronecker(self, form: str = "expand") -> Kronecker | None:
        """One pair after the other: K-FAC of block-diagonal form."""
        return jax.vmap(lambda f: f.kronecker(form))(self.of)

    def examples(self) -> int:
        """Those of each of the stack."""
        return self._one().examples()

    def shape(self) -> tuple[int, ...]:
        """With the stack in front."""
        return (self._length(), *self._one().shape())

    def projected(self, key: jax.Array, k: int) -> jax.Array:
        """The sum over the stack of projections with a key each."""
        keys = jax.random.split(key, self._length())
        return jnp.sum(jax.vmap(lambda f, key: f.projected(key, k))(self.of, keys), axis=0)

    def _inner(self, other: Factor) -> jax.Array:
        return jnp.sum(jax.vmap(lambda a, b: a.inner(b))(self.of, self._same(other).of), axis=0)

    def _gram(self, other: Factor) -> jax.Array:
        return jnp.sum(jax.vmap(lambda a, b: a.gram(b))(self.of, self._same(other).of), axis=0)

    def _same(self, other: Factor) -> "Stacked":
        if not isinstance(other, Stacked):
            raise TypeError(f"Stacked: the other factor must be Stacked, too, got {type(other).__name__}.")
        return other

    def _length(self) -> int:
        return jax.tree.leaves(self.of)[0].shape[0]

    def _one(self) -> Factor:
        """The first of the stack, as shapes."""
        return jax.eval_shape(lambda of: jax.tree.map(lambda a: a[0], of), self.of)
