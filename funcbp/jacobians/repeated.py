"""Repeated: equal blocks one after the other, each with its own numbers; applied as a scan."""

import jax
from jax import lax
from jax import numpy as jnp

from ._names import subscript
from ._operator import Operator, Shape, Vec, structure
from .transposed import Transposed

__all__ = ["Repeated", "RepeatedByParameter"]


@structure("block")
class Repeated(Operator):
    """J_n … J_2 J_1: by the input of a `repeat` of n blocks.

    Attributes:
        block: J_k, an operator whose arrays have one leading axis, k.
        times: n.
    """

    block: Operator
    times: int

    @property
    def in_shape(self) -> Shape:
        """Shape of the input."""
        return self.block.in_shape

    @property
    def out_shape(self) -> Shape:
        """Shape of the output, which is that of the input."""
        return self.block.out_shape

    @property
    def T(self) -> Operator:
        """Both directions exchanged."""
        return Transposed(self)

    def push(self, x_t: jax.Array) -> jax.Array:
        """Block after block, from the first."""
        x_t = x_t.astype(jnp.result_type(x_t, self.dtype))
        return lax.scan(lambda v, block: (block.push(v), None), x_t, self.block, length=self.times)[0]

    def pull(self, y_ct: jax.Array) -> jax.Array:
        """Block after block, from the last: the δ recurrence."""
        y_ct = y_ct.astype(jnp.result_type(y_ct, self.dtype))
        return lax.scan(
            lambda v, block: (block.pull(v), None), y_ct, self.block, length=self.times, reverse=True
        )[0]

    def show(self, vec: Vec = "columns") -> str:
        """Π over the blocks."""
        return f"Π{subscript(self.times)}[{self.block.show(vec)}]"

    def logdet(self) -> jax.Array:
        """The sum of those of the blocks."""
        return jnp.sum(jax.vmap(lambda block: block.logdet())(self.block))


@structure("block", "own")
class RepeatedByParameter(Operator):
    """dy = Σ_k J_n … J_{k+1} K_k dθ_k: by a parameter of a `repeat`, stacked on its first axis.

    Attributes:
        block: J_k, by the input of block k, an operator whose arrays have one leading axis, k.
        own: K_k, by its parameter.
        times: n.
    """

    block: Operator
    own: Operator
    times: int

    @property
    def in_shape(self) -> Shape:
        """That of the stacked parameter."""
        return (self.times, *self.own.in_shape)

    @property
    def out_shape(self) -> Shape:
        """Shape of the output."""
        return self.own.out_shape

    @property
    def T(self) -> Operator:
        """Both directions exchanged."""
        return Transposed(self)

    def push(self, x_t: jax.Array) -> jax.Array:
        """Block after block, from the first; each adds what comes from its own parameter."""

        def step(v: jax.Array, each: tuple[Operator, Operator, jax.Array]) -> tuple[jax.Array, None]:
            block, own, theta_t = each
            return block.push(v) + own.push(theta_t), None

        nothing = jnp.zeros(self.out_shape, jnp.result_type(x_t, self.dtype))
        return lax.scan(step, nothing, (self.block, self.own, x_t))[0]

    def pull(self, y_ct: jax.Array) -> jax.Array:
        """Block after block, from the last: δ meets every block's parameter."""

        def step(v: jax.Array, each: tuple[Operator, Operator]) -> tuple[jax.Array, jax.Array]:
            block, own = each
            return block.pull(v), own.pull(v)

        y_ct = y_ct.astype(jnp.result_type(y_ct, self.dtype))
        return lax.scan(step, y_ct, (self.block, self.own), length=self.times, reverse=True)[1]

    def show(self, vec: Vec = "columns") -> str:
        """Σ over the blocks k of the product over those after k."""
        return f"Σ(k≤{self.times}) Π(l>k)[{self.block.show(vec)}] [{self.own.show(vec)}]"
