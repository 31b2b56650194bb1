"""`Patches`: the kernel of a convolution."""

import math

import jax
from jax import numpy as jnp
from jaxtyping import Array, Float

from .._correlation import Geometry, kernel_ct, under_taps
from ._base import Factor, Kronecker, factor
from ._pairs import Pairs
from .outer import Outer

__all__ = ["Patches"]


@factor("geometry")
class Patches(Factor):
    """∂C/∂W of a convolution: Σ a δᵀ over examples and positions, a the patch of the input under the kernel.

    For the gradient the patches, of which every input is in many, are never formed. They are for what needs
    a: products of positions where the images are small and the kernel is large, and Kronecker factors.

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
        one = self.a.ndim == self._own_axes()
        a, delta = (self.a[None], self.delta[None]) if one else (self.a, self.delta)
        return kernel_ct(a, delta, self.geometry)

    def unfolded(self) -> Outer:
        """The patches themselves: `(batch, positions, window · in)`, in the order of the kernel's axes.

        Raises:
            ValueError: for groups: the kernel is no matrix then.

        >>> geometry = Geometry((3,), (2,), (2,), (1,), (1,), (1,), (0,))
        >>> a, delta = jnp.array([[[1.0], [2.0], [3.0]]]), jnp.array([[[1.0], [10.0]]])
        >>> Patches(a, delta, geometry).unfolded().a.tolist()
        [[[1.0, 2.0], [2.0, 3.0]]]
        """
        if self.geometry.groups != 1:
            raise ValueError(
                f"Patches: with {self.geometry.groups} groups of channels a kernel is no matrix that patches "
                "are multiplied with."
            )
        count, positions = self.examples(), math.prod(self.geometry.outputs)
        patches = jnp.stack([*under_taps(self.a, self.geometry)], axis=-2)
        a, delta = (x.reshape(count, positions, -1) for x in (patches, self.delta))
        return Outer(a, delta)

    def kronecker(self, form: str = "expand") -> Kronecker | None:
        """Those of `unfolded`, `(window · in, window · in)` and `(out, out)`; None with groups."""
        return None if self.geometry.groups != 1 else self.unfolded().kronecker(form)

    def pairs(self) -> Pairs | None:
        """Those of `unfolded`; None with groups."""
        return None if self.geometry.groups != 1 else self.unfolded().pairs()

    def _own_axes(self) -> int:
        return len(self.geometry.window) + 1
