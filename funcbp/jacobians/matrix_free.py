"""What is applied and not written down: linear maps that have a name, and derivatives that have none."""

from typing import Any, Protocol

import jax

from ._operator import Operator, Shape, Vec, held_in, structure
from .transposed import Transposed

__all__ = ["Linear", "Maps", "MatrixFree"]


class Maps(Protocol):
    """How a derivative is applied; hashable, as it is static in a pytree."""

    def push(self, args: Any, x_t: jax.Array) -> jax.Array:
        """Tangent of the input to tangent of the output, at `args`."""
        ...

    def pull(self, args: Any, y_ct: jax.Array) -> jax.Array:
        """Cotangent of the output to cotangent of the input, at `args`."""
        ...


@structure("args")
class _Applied(Operator):
    """dY = Df(X)[dX], by forward mode; Ȳ Df(X), by a backward pass.

    Attributes:
        args: where the function is differentiated.
        maps: how its derivative is applied.
        in_shape_: of the input.
        out_shape_: of the output.
        name: of the derivative.
    """

    args: Any
    maps: Maps
    in_shape_: Shape
    out_shape_: Shape
    name: str = "Df"

    in_shape, out_shape = held_in("in_shape_"), held_in("out_shape_")

    @property
    def T(self) -> Operator:
        """Both directions exchanged."""
        return Transposed(self)

    def push(self, x_t: jax.Array) -> jax.Array:
        """Forward mode."""
        return self.maps.push(self.args, x_t)

    def pull(self, y_ct: jax.Array) -> jax.Array:
        """The backward pass."""
        return self.maps.pull(self.args, y_ct)


@structure("args")
class MatrixFree(_Applied):
    """A derivative that is applied, and of which no more is known."""

    def show(self, vec: Vec = "columns") -> str:
        """Its name, and that it is matrix-free."""
        del vec
        return f"[{self.name}, matrix-free]"


@structure("args")
class Linear(_Applied):
    """A linear map that has a name, and is applied as its rule applies it: a convolution by its input."""

    def show(self, vec: Vec = "columns") -> str:
        """Its name."""
        del vec
        return self.name
