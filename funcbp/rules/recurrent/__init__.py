"""Recurrences through time."""

__all__: list[str] = []
