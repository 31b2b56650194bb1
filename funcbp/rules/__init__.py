"""The catalogue: derivation, forward, backward, reference, domain and named points of a rule in one place."""

from .activations.elementwise import gelu as gelu
from .activations.elementwise import identity as identity
from .activations.elementwise import relu as relu
from .activations.elementwise import sigmoid as sigmoid
from .activations.elementwise import silu as silu
from .activations.elementwise import sin as sin
from .activations.elementwise import softplus as softplus
from .activations.elementwise import square as square
from .activations.elementwise import tanh as tanh
from .activations.softmax import softmax as softmax
from .affine.products import dense as dense
from .affine.products import matmul as matmul
from .losses.cross_entropy import sigmoid_binary_cross_entropy as sigmoid_binary_cross_entropy
from .losses.cross_entropy import softmax_cross_entropy as softmax_cross_entropy
from .losses.cross_entropy import (
    softmax_cross_entropy_with_integer_labels as softmax_cross_entropy_with_integer_labels,
)
from .losses.squared import l2_loss as l2_loss
from .losses.squared import squared_error as squared_error
from .normalization.layer_norm import layer_norm as layer_norm

__all__ = [
    "dense",
    "gelu",
    "identity",
    "l2_loss",
    "layer_norm",
    "matmul",
    "relu",
    "sigmoid",
    "sigmoid_binary_cross_entropy",
    "silu",
    "sin",
    "softmax",
    "softmax_cross_entropy",
    "softmax_cross_entropy_with_integer_labels",
    "softplus",
    "square",
    "squared_error",
    "tanh",
]
