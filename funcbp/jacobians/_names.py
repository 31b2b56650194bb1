"""What matrices are called when an operator is written down."""

from typing import NamedTuple

__all__ = ["Name", "identity", "parenthesized", "subscript"]

_DIGITS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")


def subscript(*sizes: int) -> str:
    """Sizes as an index.

    >>> subscript(3), subscript(12, 4)
    ('₃', '₁₂,₄')
    """
    return ",".join(str(size).translate(_DIGITS) for size in sizes)


def identity(size: int) -> "Name":
    """The name of an identity matrix."""
    text = f"I{subscript(size)}"
    return Name(text, text)


class Name(NamedTuple):
    """The text of a matrix, and of its transpose.

    >>> (Name.of("A") @ Name.of("Bᵀ")).T.text
    'B Aᵀ'
    """

    text: str
    transposed: str

    @classmethod
    def of(cls, text: str) -> "Name":
        """That of a matrix which is written as one letter or one word."""
        return cls(text, text[:-1] if text.endswith("ᵀ") else f"{text}ᵀ")

    @property
    def T(self) -> "Name":
        """The name of the transpose."""
        return Name(self.transposed, self.text)

    def __matmul__(self, other: "Name") -> "Name":
        left, right = (Name(*(parenthesized(text, "+−") for text in name)) for name in (self, other))
        return Name(f"{left.text} {right.text}", f"{right.transposed} {left.transposed}")


def parenthesized(text: str, signs: str) -> str:
    """The text, in parentheses where one of the signs is in it outside of any.

    >>> parenthesized("A ⊗ B", "+⊗"), parenthesized("f(A ⊗ B)", "+⊗")
    ('(A ⊗ B)', 'f(A ⊗ B)')
    """
    depth = 0
    for sign in text:
        depth += (sign in "([") - (sign in ")]")
        if depth == 0 and sign in signs:
            return f"({text})"
    return text
