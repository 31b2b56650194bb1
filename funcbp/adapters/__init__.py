"""Factors and contractions for models that others wrote: any loss of one example, in plain JAX.

An equinox module is a tree of parameters as it is; of a flax module, its parameters are.
"""

from ._clipping import Clipped as Clipped
from ._clipping import clipped_grad as clipped_grad
from ._per_example import PerExample as PerExample
from ._per_example import per_example as per_example
from ._sweep import Fallback as Fallback

__all__ = ["Clipped", "Fallback", "PerExample", "clipped_grad", "per_example"]
