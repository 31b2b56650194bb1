"""What every structured Jacobian can do, and how one is declared.

An operator J takes a tangent of the input's shape to one of the output's, J @ v, and a cotangent back, v @ J.
As a tensor it is J[i…, j…] = ∂y[i…] / ∂x[j…], the output's axes first, as `jax.jacrev` has it. To write that
as a matrix one must say how vec stacks (by rows as `jnp.ravel`, or by columns as the textbooks do), and
whether outputs are its rows (numerator layout) or its columns (denominator layout).
"""

import dataclasses
import math
from collections.abc import Callable
from operator import attrgetter
from typing import Any, ClassVar, Literal, TypeVar, dataclass_transform

import jax
import numpy as np
from jax import numpy as jnp

__all__ = ["Layout", "Operator", "Shape", "Vec", "check_vec", "held_in", "size", "structure"]

Shape = tuple[int, ...]
Layout = Literal["numerator", "denominator"]
Vec = Literal["rows", "columns"]
T = TypeVar("T")


@dataclass_transform(frozen_default=True, eq_default=False)
def structure(*arrays: str) -> Callable[[type[T]], type[T]]:
    """A frozen dataclass that is a pytree: the fields named are its leaves, the others are static."""

    def declared(cls: type[T]) -> type[T]:
        made: Any = dataclasses.dataclass(frozen=True, eq=False, repr=False)(cls)
        static = [field.name for field in dataclasses.fields(made) if field.name not in arrays]
        return jax.tree_util.register_dataclass(made, data_fields=list(arrays), meta_fields=static)

    return declared


def size(shape: Shape) -> int:
    """How many entries an array of that shape has."""
    return math.prod(shape)


class Operator:
    """A linear map from arrays of `in_shape` to arrays of `out_shape` that keeps its structure.

    `J @ v`, `v @ J`, `J.T`, `J @ K`, `J + K`, `J - K`, `c * J` and `-J` are what they say. Every operator is
    a pytree, so that it passes through `jax.jit`.

    Attributes:
        in_shape: of the argument, and of what `J @ v` takes.
        out_shape: of the value, and of what `v @ J` takes.
    """

    # NumPy is not to take `array @ operator` apart into its elements.
    __array_ufunc__: ClassVar[None] = None

    @property
    def in_shape(self) -> Shape:
        """Shape of the input."""
        raise NotImplementedError

    @property
    def out_shape(self) -> Shape:
        """Shape of the output."""
        raise NotImplementedError

    @property
    def T(self) -> "Operator":
        """The transpose, the map of cotangents."""
        raise NotImplementedError

    def push(self, x_t: jax.Array) -> jax.Array:
        """A tangent of the input to the tangent of the output."""
        raise NotImplementedError

    def pull(self, y_ct: jax.Array) -> jax.Array:
        """A cotangent of the output to the cotangent of the input."""
        raise NotImplementedError

    def show(self, vec: Vec = "columns") -> str:
        """The formula of the matrix, for a vec that stacks rows or columns."""
        raise NotImplementedError

    def after(self, first: "Operator") -> "Operator | None":
        """This operator applied to the result of another as one structure; None if there is none."""
        del first
        return None

    def plus(self, other: "Operator") -> "Operator | None":
        """The sum of both as one structure; None if there is none."""
        del other
        return None

    @property
    def dtype(self) -> jnp.dtype:
        """Of its entries."""
        kinds = [leaf.dtype for leaf in jax.tree.leaves(self) if jnp.issubdtype(leaf.dtype, jnp.floating)]
        return jnp.result_type(*kinds) if kinds else jnp.zeros(()).dtype

    def __matmul__(self, other: Any) -> Any:
        if isinstance(other, Operator):
            from .product import compose

            return compose(self, other)
        return self.push(_shaped(other, self.in_shape, "J @ v", "the input"))

    def __rmatmul__(self, y_ct: Any) -> jax.Array:
        return self.pull(_shaped(y_ct, self.out_shape, "v @ J", "the output"))

    def __add__(self, other: "Operator") -> "Operator":
        from .sum import add

        return add(self, other)

    def __sub__(self, other: "Operator") -> "Operator":
        return self + (-other)

    def __mul__(self, factor: Any) -> "Operator":
        from .scaled import scale

        return scale(factor, self)

    __rmul__ = __mul__

    def __neg__(self) -> "Operator":
        return self * -1

    def as_tensor(self) -> jax.Array:
        """Dense, of shape `out_shape + in_shape`: the layout of `jax.jacrev`."""
        rows, columns = size(self.out_shape), size(self.in_shape)
        if rows < columns:
            return jax.vmap(self.pull)(_basis(self.out_shape, self.dtype)).reshape(
                *self.out_shape, *self.in_shape
            )
        pushed = jax.vmap(self.push, out_axes=-1)(_basis(self.in_shape, self.dtype))
        return pushed.reshape(*self.out_shape, *self.in_shape)

    def as_matrix(self, layout: Layout = "numerator", vec: Vec | None = None) -> jax.Array:
        """Dense, as a matrix.

        Args:
            layout: "numerator" has a row for every output, "denominator" is its transpose.
            vec: "rows" stacks rows (`jnp.ravel`), "columns" stacks columns, as `str(J)` is written. To be
                left out only where input and output are vectors, for which there is but one.

        Raises:
            ValueError: for another layout or vec, or none where it matters.
        """
        if layout not in ("numerator", "denominator"):
            raise ValueError(f"as_matrix: layout must be 'numerator' or 'denominator', got {layout!r}.")
        several = [shape for shape in (self.in_shape, self.out_shape) if sum(n != 1 for n in shape) > 1]
        if vec is None and several:
            raise ValueError(
                f"as_matrix: an array of shape {several[0]} can be stacked in two ways; say vec='rows' "
                "(jnp.ravel) or vec='columns' (as in the textbooks and in str(J))."
            )
        check_vec(vec or "rows")
        tensor, outer = self.as_tensor(), len(self.out_shape)
        if vec == "columns":
            axes = range(tensor.ndim)
            tensor = tensor.transpose(*reversed(axes[:outer]), *reversed(axes[outer:]))
        matrix = tensor.reshape(size(self.out_shape), size(self.in_shape))
        return matrix if layout == "numerator" else matrix.T

    def diagonal(self) -> jax.Array:
        """The entries ∂y[i…]/∂x[i…] of a square operator, in the shape of the input.

        Raises:
            ValueError: where input and output differ in shape, or no structure gives them without the rest.
        """
        raise self._no_shortcut("diagonal", "jnp.diagonal(J.as_matrix(vec='rows'))")

    def trace(self) -> jax.Array:
        """The trace of a square operator.

        Raises:
            ValueError: as for `diagonal`.
        """
        return jnp.sum(self.diagonal())

    def logdet(self) -> jax.Array:
        """log |det J| of a square operator; -∞ where it is singular.

        Raises:
            ValueError: where it is not square, or no structure gives it without the dense matrix.
        """
        raise self._no_shortcut("logdet", "jnp.linalg.slogdet(J.as_matrix(vec='rows'))")

    def singular_values(self) -> jax.Array:
        """The singular values, the largest first; min(outputs, inputs) of them.

        Raises:
            ValueError: where no structure gives them without the dense matrix.
        """
        raise self._no_shortcut("singular_values", "jnp.linalg.svdvals(J.as_matrix(vec='rows'))")

    def to_lineax(self) -> Any:
        """The same map as a `lineax.AbstractLinearOperator`, for its solvers.

        Raises:
            ImportError: where lineax is not installed.
        """
        from ._lineax import to_lineax

        return to_lineax(self)

    def __str__(self) -> str:
        return self.show()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.in_shape} → {self.out_shape}: {self.show()}, vec by columns>"

    def require_square(self, what: str) -> None:
        """Raise `ValueError` where there are more outputs than inputs, or fewer."""
        if size(self.in_shape) != size(self.out_shape):
            raise ValueError(
                f"{what}: needs as many outputs as inputs; this operator takes {self.in_shape} to "
                f"{self.out_shape}."
            )

    def _no_shortcut(self, what: str, dense: str) -> ValueError:
        if what != "singular_values":
            self.require_square(what)
        return ValueError(
            f"{what}: the structure of {self} does not give it; where the matrix fits into memory, use "
            f"{dense}."
        )


def held_in(field: str) -> Any:
    """A shape of an operator that is one of its fields."""
    return property(attrgetter(field), doc=f"The shape, `{field}`.")


def check_vec(vec: str) -> None:
    """Raise `ValueError` for another order than the two."""
    if vec not in ("rows", "columns"):
        raise ValueError(f"vec must be 'rows' (jnp.ravel) or 'columns', got {vec!r}.")


def _basis(shape: Shape, dtype: Any) -> jax.Array:
    return jnp.eye(size(shape), dtype=dtype).reshape(size(shape), *shape)


def _shaped(v: Any, shape: Shape, product: str, which: str) -> jax.Array:
    if np.shape(v) != shape:
        raise ValueError(f"{product}: v must have the shape of {which}, {shape}, got {np.shape(v)}.")
    return jnp.asarray(v)
