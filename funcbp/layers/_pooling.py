"""Pooling layers; arrays are (batch, *spatial, channels). Each is a rule of one array."""

from .. import rules
from ..rules.convolution._options import Numbers, Padding
from ._layer import Layer
from ._leaves import activation

__all__ = ["avg_pool", "global_avg_pool", "max_pool"]


def max_pool(window: Numbers, *, strides: Numbers = None, padding: Padding = None) -> Layer:
    """Maximum over windows; at a tie the first in the order of rows gets the cotangent.

    Args:
        window: size of the windows, a number for every spatial axis or one each.
        strides: steps from one window to the next; by default the window.
        padding: None (none), "SAME", a number, or pairs; of -∞.
    """
    return activation(rules.max_pool, window=window, strides=strides, padding=padding)


def avg_pool(
    window: Numbers, *, strides: Numbers = None, padding: Padding = None, count_include_pad: bool = True
) -> Layer:
    """Average over windows.

    Args:
        window: size of the windows, a number for every spatial axis or one each.
        strides: steps from one window to the next; by default the window.
        padding: None (none), "SAME", a number, or pairs; of 0.
        count_include_pad: False divides by what is in the input only.
    """
    return activation(
        rules.avg_pool, window=window, strides=strides, padding=padding, count_include_pad=count_include_pad
    )


def global_avg_pool() -> Layer:
    """Average over all positions: `(batch, *spatial, channels)` to `(batch, channels)`."""
    return activation(rules.global_avg_pool)
