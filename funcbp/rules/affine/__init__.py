"""Products of arrays, with and without a bias."""

from .products import dense as dense
from .products import matmul as matmul

__all__ = ["dense", "matmul"]
