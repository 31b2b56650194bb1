"""Log-densities and log-partition functions."""

__all__: list[str] = []
