"""Elementwise functions and softmax."""

from .elementwise import gelu as gelu
from .elementwise import identity as identity
from .elementwise import relu as relu
from .elementwise import sigmoid as sigmoid
from .elementwise import silu as silu
from .elementwise import sin as sin
from .elementwise import softplus as softplus
from .elementwise import square as square
from .elementwise import tanh as tanh
from .softmax import softmax as softmax

__all__ = [
    "gelu",
    "identity",
    "relu",
    "sigmoid",
    "silu",
    "sin",
    "softmax",
    "softplus",
    "square",
    "tanh",
]
