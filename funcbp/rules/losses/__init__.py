"""Losses: one value per example (or per element, where optax has it so); never reduced."""

from .cross_entropy import sigmoid_binary_cross_entropy as sigmoid_binary_cross_entropy
from .cross_entropy import softmax_cross_entropy as softmax_cross_entropy
from .cross_entropy import (
    softmax_cross_entropy_with_integer_labels as softmax_cross_entropy_with_integer_labels,
)
from .squared import l2_loss as l2_loss
from .squared import squared_error as squared_error

__all__ = [
    "l2_loss",
    "sigmoid_binary_cross_entropy",
    "softmax_cross_entropy",
    "softmax_cross_entropy_with_integer_labels",
    "squared_error",
]
