"""Picking, placing, adding up, ordering and masking elements."""

__all__: list[str] = []
