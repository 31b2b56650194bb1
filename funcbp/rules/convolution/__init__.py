"""Convolutions, pooling and resizing: arrays are (batch, *spatial, channels)."""

from .adaptive import adaptive_avg_pool as adaptive_avg_pool
from .adaptive import adaptive_max_pool as adaptive_max_pool
from .convolutions import conv_general as conv_general
from .convolutions import conv_transpose as conv_transpose
from .pooling import avg_pool as avg_pool
from .pooling import global_avg_pool as global_avg_pool
from .pooling import global_max_pool as global_max_pool
from .pooling import max_pool as max_pool
from .resize import resize as resize

__all__ = [
    "adaptive_avg_pool",
    "adaptive_max_pool",
    "avg_pool",
    "conv_general",
    "conv_transpose",
    "global_avg_pool",
    "global_max_pool",
    "max_pool",
    "resize",
]
