"""Convolutions and pooling."""

__all__: list[str] = []
