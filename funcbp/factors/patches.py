"""`Patches`: the kernel of a convolution."""

import jax
from jaxtyping import Array, Float

from .._correlation import Geometry, kernel_ct
from ._base import Factor, factor

__all__ = ["Patches"]


@factor("geometry")
class Patches(Factor):
    """∂C/∂W of a convolution: Σ a δᵀ over examples and positions, a the patch of the input under the kernel.

    The patches, of which every input is in many, are never formed.

    Attributes:
        a: what the kernel slid over, `(batch, *inputs, in)`.
        delta: ∂C/∂p, `(batch, *outputs, out)`.
        geometry: how it slid.
    """

    a: Float[Array, "batch *inputs in"]
    delta: Float[Array, "batch *outputs out"]
    geometry: Geometry

    def gradient(self) -> jax.Array:
        """The correlation of a with δ: `(*window, in / groups, out)`.

        >>> from jax import numpy as jnp
        >>> geometry = Geometry((3,), (2,), (2,), (1,), (1,), (1,), (0,))
        >>> a, delta = jnp.array([[[1.0], [2.0], [3.0]]]), jnp.array([[[1.0], [10.0]]])
        >>> Patches(a, delta, geometry).gradient().ravel()
        Array([21., 32.], dtype=float32)
        """
        return kernel_ct(self.a, self.delta, self.geometry)
