"""Rescaling by statistics of the data."""
