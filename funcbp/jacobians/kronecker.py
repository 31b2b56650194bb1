"""Kronecker: matrix products from the left and from the right."""

import jax
from jax import numpy as jnp

from . import _names
from ._names import Name
from ._operator import Operator, Shape, Vec, size, structure

__all__ = ["Kronecker", "from_left", "from_right"]

Matrix = jax.Array | None


@structure("left", "right")
class Kronecker(Operator):
    """dY = L dX R: as a matrix Rᵀ ⊗ L when vec stacks columns, L ⊗ Rᵀ when it stacks rows.

    A factor that is None is the identity. Input and output are matrices; several axes may count as the rows
    (a batch of examples and positions), or none (a vector that is a row).

    Attributes:
        left: L, (rows of the output, rows of the input).
        right: R, (columns of the input, columns of the output).
        in_rows: the axes of the input that are its rows; `in_columns`, `out_rows`, `out_columns` likewise.
        left_name: of L.
        right_name: of R.

    >>> X, W = jnp.ones((4, 3)), jnp.ones((3, 2))
    >>> J = from_left(X, (2,), name="X")  # Y = X W by W
    >>> print(J, "or", J.show(vec="rows"))
    I₂ ⊗ X or X ⊗ I₂
    >>> J.in_shape, J.out_shape, (J @ W).shape, J.as_tensor().shape
    ((3, 2), (4, 2), (4, 2), (4, 2, 3, 2))
    >>> print(J @ J.T)
    I₂ ⊗ X Xᵀ
    """

    left: Matrix
    right: Matrix
    in_rows: Shape
    in_columns: Shape
    out_rows: Shape
    out_columns: Shape
    left_name: Name = Name.of("L")
    right_name: Name = Name.of("R")

    @property
    def in_shape(self) -> Shape:
        """Shape of the input."""
        return (*self.in_rows, *self.in_columns)

    @property
    def out_shape(self) -> Shape:
        """Shape of the output."""
        return (*self.out_rows, *self.out_columns)

    @property
    def T(self) -> Operator:
        """Lᵀ Ȳ Rᵀ."""
        return Kronecker(
            _transposed(self.left),
            _transposed(self.right),
            self.out_rows,
            self.out_columns,
            self.in_rows,
            self.in_columns,
            self.left_name.T,
            self.right_name.T,
        )

    def push(self, x_t: jax.Array) -> jax.Array:
        """L dX R."""
        x_t = x_t.reshape(size(self.in_rows), size(self.in_columns))
        return _sandwich(self.left, x_t, self.right).reshape(self.out_shape)

    def pull(self, y_ct: jax.Array) -> jax.Array:
        """Lᵀ Ȳ Rᵀ."""
        y_ct = y_ct.reshape(size(self.out_rows), size(self.out_columns))
        return _sandwich(_transposed(self.left), y_ct, _transposed(self.right)).reshape(self.in_shape)

    def show(self, vec: Vec = "columns") -> str:
        """Rᵀ ⊗ L, or L ⊗ Rᵀ."""
        if self.left is None and self.right is None:
            return _names.identity(size(self.in_shape)).text
        left = None if self._trivial(self.left, self.in_rows) else self._left_text()
        right = None if self._trivial(self.right, self.in_columns) else self._right_text()
        order = (right, left) if vec == "columns" else (left, right)
        return " ⊗ ".join(_names.parenthesized(t, "+−⊗") for t in order if t is not None) or "I₁"

    def after(self, first: Operator) -> Operator | None:
        """(L₂ · R₂) after (L₁ · R₁): L₂ L₁ dX R₁ R₂, as (A ⊗ B)(C ⊗ D) = AC ⊗ BD."""
        if not isinstance(first, Kronecker):
            return None
        if (first.out_rows, first.out_columns) != (self.in_rows, self.in_columns):
            return None
        return Kronecker(
            _product(self.left, first.left),
            _product(first.right, self.right),
            first.in_rows,
            first.in_columns,
            self.out_rows,
            self.out_columns,
            _joined(self.left, self.left_name, first.left, first.left_name),
            _joined(first.right, first.right_name, self.right, self.right_name),
        )

    def plus(self, other: Operator) -> Operator | None:
        """A common identity is taken out: I ⊗ A + I ⊗ B = I ⊗ (A + B)."""
        if not isinstance(other, Kronecker) or self._axes != other._axes:
            return None
        if self.right is None and other.right is None and self.left is not None and other.left is not None:
            return self._replaced(
                self.left + other.left, None, _sum(self.left_name, other.left_name), self.right_name
            )
        if self.left is None and other.left is None and self.right is not None and other.right is not None:
            return self._replaced(
                None, self.right + other.right, self.left_name, _sum(self.right_name, other.right_name)
            )
        return None

    def swapped(self) -> "Kronecker":
        """dXᵀ → dYᵀ: Rᵀ dXᵀ Lᵀ, which is K (Rᵀ ⊗ L) K = L ⊗ Rᵀ."""
        return Kronecker(
            _transposed(self.right),
            _transposed(self.left),
            self.in_columns,
            self.in_rows,
            self.out_columns,
            self.out_rows,
            self.right_name.T,
            self.left_name.T,
        )

    def as_tensor(self) -> jax.Array:
        """L_ac R_db, with a, b the axes of the output and c, d those of the input."""
        left = jnp.eye(size(self.in_rows), dtype=self.dtype) if self.left is None else self.left
        right = jnp.eye(size(self.in_columns), dtype=self.dtype) if self.right is None else self.right
        tensor = left[:, None, :, None] * right.T[None, :, None, :]
        return tensor.reshape(*self.out_shape, *self.in_shape)

    def diagonal(self) -> jax.Array:
        """diag(L) diag(R)ᵀ."""
        left, right = self._squares("diagonal")
        return jnp.outer(jnp.diagonal(left), jnp.diagonal(right)).reshape(self.in_shape)

    def logdet(self) -> jax.Array:
        """n_R log |det L| + n_L log |det R|."""
        left, right = self._squares("logdet")
        return len(right) * jnp.linalg.slogdet(left)[1] + len(left) * jnp.linalg.slogdet(right)[1]

    def singular_values(self) -> jax.Array:
        """Every σ(L) σ(R); those that are missing are 0."""
        left, right = (
            jnp.ones(size(axes), self.dtype) if matrix is None else jnp.linalg.svdvals(matrix)
            for matrix, axes in ((self.left, self.in_rows), (self.right, self.in_columns))
        )
        found = jnp.sort(jnp.outer(left, right).ravel(), descending=True)
        return jnp.pad(found, (0, min(size(self.in_shape), size(self.out_shape)) - len(found)))

    @property
    def _axes(self) -> tuple[Shape, Shape, Shape, Shape]:
        return self.in_rows, self.in_columns, self.out_rows, self.out_columns

    def _replaced(self, left: Matrix, right: Matrix, left_name: Name, right_name: Name) -> "Kronecker":
        return Kronecker(left, right, *self._axes, left_name, right_name)

    def _squares(self, what: str) -> tuple[jax.Array, jax.Array]:
        self.require_square(what)
        if size(self.in_rows) != size(self.out_rows):
            raise self._no_shortcut(what, "J.as_matrix(vec='rows')")
        return (
            jnp.eye(size(self.in_rows), dtype=self.dtype) if self.left is None else self.left,
            jnp.eye(size(self.in_columns), dtype=self.dtype) if self.right is None else self.right,
        )

    def _trivial(self, matrix: Matrix, axes: Shape) -> bool:
        return matrix is None and size(axes) == 1

    def _left_text(self) -> str:
        return _names.identity(size(self.in_rows)).text if self.left is None else self.left_name.text

    def _right_text(self) -> str:
        return (
            _names.identity(size(self.in_columns)).text if self.right is None else self.right_name.transposed
        )


def from_left(left: jax.Array, columns: Shape, *, name: str = "L") -> Kronecker:
    """dY = L dX: the Jacobian of X W by W, I ⊗ X when vec stacks columns.

    Args:
        left: L, (*rows of the output, rows of the input).
        columns: the axes that are left alone.
        name: of L.
    """
    *rows, inner = left.shape
    return Kronecker(left.reshape(-1, inner), None, (inner,), columns, tuple(rows), columns, Name.of(name))


def from_right(right: jax.Array, rows: Shape, *, name: str = "R") -> Kronecker:
    """dY = dX R: the Jacobian of X W by X, Wᵀ ⊗ I when vec stacks columns.

    Args:
        right: R, (columns of the input, columns of the output).
        rows: the axes that are left alone.
        name: of R.
    """
    inner, outer = right.shape
    return Kronecker(None, right, rows, (inner,), rows, (outer,), right_name=Name.of(name))


def _transposed(matrix: Matrix) -> Matrix:
    return None if matrix is None else matrix.T


def _sandwich(left: Matrix, x: jax.Array, right: Matrix) -> jax.Array:
    """L X R, the cheaper product first."""
    if left is None:
        return x if right is None else x @ right
    if right is None:
        return left @ x
    (rows, inner), (columns, outer) = left.shape, right.shape
    left_first = rows * columns * (inner + outer)
    right_first = inner * outer * (columns + rows)
    return (left @ x) @ right if left_first <= right_first else left @ (x @ right)


def _product(a: Matrix, b: Matrix) -> Matrix:
    return b if a is None else a if b is None else a @ b


def _joined(a: Matrix, a_name: Name, b: Matrix, b_name: Name) -> Name:
    return b_name if a is None else a_name if b is None else a_name @ b_name


def _sum(a: Name, b: Name) -> Name:
    return Name(f"{a.text} + {b.text}", f"{a.transposed} + {b.transposed}")
