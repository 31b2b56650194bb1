"""The one exception that a user of the command line is meant to see."""

__all__ = ["UsageError"]


class UsageError(Exception):
    """Something in the command does not fit; the message says what, and what to do."""
