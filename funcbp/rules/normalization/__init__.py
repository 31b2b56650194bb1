"""Rescaling by statistics of the data."""

from .layer_norm import layer_norm as layer_norm

__all__ = ["layer_norm"]
