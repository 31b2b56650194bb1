"""Attention: scores, their softmax, and weighted values."""

__all__: list[str] = []
