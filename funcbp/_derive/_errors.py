"""What `derive` refuses."""

__all__ = ["NotScalarError", "UnsupportedError"]


class UnsupportedError(NotImplementedError):
    """An operation that `derive` does not know; the message names it and the line of code that uses it."""


class NotScalarError(TypeError):
    """The function does not return one real number."""
