"""Products of arrays, with and without a bias."""

from .bilinear import bilinear as bilinear
from .bilinear import low_rank_adapter as low_rank_adapter
from .einsum import einsum as einsum
from .experts import mixture as mixture
from .experts import top_k_gates as top_k_gates
from .products import dense as dense
from .products import matmul as matmul

__all__ = [
    "bilinear",
    "dense",
    "einsum",
    "low_rank_adapter",
    "matmul",
    "mixture",
    "top_k_gates",
]
