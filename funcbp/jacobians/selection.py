"""Selections: every entry of the output is one of the input, or 0. Transposition is one with a name."""

from collections.abc import Callable, Sequence

import jax
import numpy as np
from jax import numpy as jnp

from ._names import subscript
from ._operator import Operator, Shape, Vec, held_in, size, structure
from .identity import Identity
from .transposed import Transposed

__all__ = ["Commutation", "Selection", "rearrangement", "swapping"]


@structure("index")
class Selection(Operator):
    """y_i = x_index(i), entries counted row by row: a matrix of zeros and ones, at most a one in each row.

    Attributes:
        index: for every entry of the output the place in the input, or the input's size for a 0.
        in_shape_: of the input.
        out_shape_: of the output.
        name: of the matrix.

    >>> last_two = Selection(jnp.array([1, 2]), (3,), (2,))
    >>> (last_two @ jnp.array([5.0, 6.0, 7.0])).tolist(), (jnp.array([6.0, 7.0]) @ last_two).tolist()
    ([6.0, 7.0], [0.0, 6.0, 7.0])
    """

    index: jax.Array
    in_shape_: Shape
    out_shape_: Shape
    name: str = "P"

    in_shape, out_shape = held_in("in_shape_"), held_in("out_shape_")

    @property
    def T(self) -> Operator:
        """Entries are put where they came from, and added up there."""
        return Transposed(self)

    def push(self, x_t: jax.Array) -> jax.Array:
        """Look up."""
        found = x_t.ravel().at[self.index.ravel()].get(mode="fill", fill_value=0)
        return found.reshape(self.out_shape)

    def pull(self, y_ct: jax.Array) -> jax.Array:
        """Put back, and add up."""
        zeros = jnp.zeros(size(self.in_shape), y_ct.dtype)
        return zeros.at[self.index.ravel()].add(y_ct.ravel(), mode="drop").reshape(self.in_shape)

    def show(self, vec: Vec = "columns") -> str:
        """Its name."""
        del vec
        return self.name

    def after(self, first: Operator) -> Operator | None:
        """A selection of a selection is one."""
        if not isinstance(first, Selection):
            return None
        nothing = size(first.in_shape)
        index = first.index.ravel().at[self.index.ravel()].get(mode="fill", fill_value=nothing)
        return Selection(index, first.in_shape, self.out_shape, f"{self.name} {first.name}")

    def diagonal(self) -> jax.Array:
        """1 where an entry stays."""
        if self.in_shape != self.out_shape:
            raise self._no_shortcut("diagonal", "jnp.diagonal(J.as_matrix(vec='rows'))")
        stays = self.index.ravel() == jnp.arange(size(self.in_shape))
        return stays.reshape(self.in_shape).astype(self.dtype)

    def logdet(self) -> jax.Array:
        """0 for a permutation, else -∞."""
        self.require_square("logdet")
        return jnp.where(jnp.all(self._counts() == 1), 0.0, -jnp.inf)

    def singular_values(self) -> jax.Array:
        """√(how often an entry is selected)."""
        roots = jnp.sort(jnp.sqrt(self._counts().astype(self.dtype)), descending=True)
        return roots[: min(size(self.in_shape), size(self.out_shape))]

    def _counts(self) -> jax.Array:
        return jnp.zeros(size(self.in_shape), int).at[self.index.ravel()].add(1, mode="drop")


@structure()
class Commutation(Operator):
    """The axes in another order; of a matrix dY = dXᵀ, the commutation matrix K: K vec X = vec Xᵀ.

    Attributes:
        shape: of the input.
        axes: the input's axes in the order of the output, as for `jnp.transpose`.

    >>> K = Commutation((3, 2))
    >>> print(K, "or", K.show(vec="rows")) # of X (3 × 2): K₃,₂ by columns
    K₃,₂ or K₂,₃
    >>> print(K.T @ K, int((K @ K.T).trace()))
    I₆ 6
    """

    shape: Shape
    axes: tuple[int, ...] = (1, 0)

    @property
    def in_shape(self) -> Shape:
        """Shape of the input."""
        return self.shape

    @property
    def out_shape(self) -> Shape:
        """Shape of the output."""
        return tuple(self.shape[axis] for axis in self.axes)

    @property
    def T(self) -> Operator:
        """The inverse."""
        return Commutation(self.out_shape, tuple(int(i) for i in np.argsort(self.axes)))

    def push(self, x_t: jax.Array) -> jax.Array:
        """Transpose."""
        return x_t.transpose(self.axes)

    def pull(self, y_ct: jax.Array) -> jax.Array:
        """Transpose back."""
        return y_ct.transpose(tuple(int(i) for i in np.argsort(self.axes)))

    def show(self, vec: Vec = "columns") -> str:
        """K, with the sizes of the matrix as vec stacks it."""
        if self.axes != (1, 0):
            return f"K({', '.join(map(str, self.axes))})"
        return f"K{subscript(*(self.shape if vec == 'columns' else self.out_shape))}"

    def after(self, first: Operator) -> Operator | None:
        """Orders follow on each other; K goes past a Kronecker product: K (A ⊗ B) = (B ⊗ A) K."""
        from .kronecker import Kronecker
        from .product import Product

        if isinstance(first, Commutation):
            axes = tuple(first.axes[axis] for axis in self.axes)
            return (
                Identity(first.shape) if axes == tuple(range(len(axes))) else Commutation(first.shape, axes)
            )
        if isinstance(first, Kronecker) and self.axes == swapping(first.out_rows, first.out_columns):
            order = swapping(first.in_rows, first.in_columns)
            if order == tuple(range(len(order))):
                return first.swapped()
            return Product((first.swapped(), Commutation(first.in_shape, order)))
        return None

    def diagonal(self) -> jax.Array:
        """1 where an entry stays."""
        if self.in_shape != self.out_shape:
            self.require_square("diagonal")
            raise ValueError(
                f"diagonal: {self.in_shape} to {self.out_shape} has none of a shape; its trace is there."
            )
        return jnp.asarray(self._fixed().reshape(self.shape), self.dtype)

    def trace(self) -> jax.Array:
        """How many entries stay."""
        return jnp.asarray(self._fixed().sum(), self.dtype)

    def logdet(self) -> jax.Array:
        """0."""
        return jnp.zeros(())

    def singular_values(self) -> jax.Array:
        """Ones."""
        return jnp.ones(size(self.shape))

    def _fixed(self) -> np.ndarray:
        numbers = np.arange(size(self.shape))
        return numbers.reshape(self.shape).transpose(self.axes).ravel() == numbers


def rearrangement(shape: Shape, move: Callable[[np.ndarray], np.ndarray], name: str = "K") -> "Selection":
    """The permutation that `move` is: reshaping and transposing, but every entry once.

    Args:
        shape: of the input.
        move: what is done to it.
        name: of the matrix.

    >>> print(rearrangement((2, 3), np.transpose) @ jnp.arange(6).reshape(2, 3))
    [[0 3]
     [1 4]
     [2 5]]
    """
    index = move(np.arange(size(shape)).reshape(shape))
    return Selection(jnp.asarray(index), shape, index.shape, name)


def swapping(rows: Sequence[int], columns: Sequence[int]) -> tuple[int, ...]:
    """The order of axes that puts columns before rows."""
    split, count = len(rows), len(rows) + len(columns)
    return (*range(split, count), *range(split))
