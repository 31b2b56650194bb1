"""Attention: scores, their softmax, and weighted values."""

from .blocked import blocked_attention as blocked_attention
from .dot_product import dot_product_attention as dot_product_attention
from .linear import causal_linear_attention as causal_linear_attention
from .linear import linear_attention as linear_attention
from .rotary import rotary_embedding as rotary_embedding

__all__ = [
    "blocked_attention",
    "causal_linear_attention",
    "dot_product_attention",
    "linear_attention",
    "rotary_embedding",
]
