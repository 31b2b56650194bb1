"""Rescaling by statistics of the data."""

from .batch_norm import batch_norm as batch_norm
from .batch_norm import batch_norm_inference as batch_norm_inference
from .group_norm import group_norm as group_norm
from .group_norm import instance_norm as instance_norm
from .layer_norm import layer_norm as layer_norm
from .moments import standardize as standardize
from .moments import std as std
from .moments import var as var
from .scaling import l2_normalize as l2_normalize
from .scaling import rms_norm as rms_norm
from .scaling import spectral_norm_by_vectors as spectral_norm_by_vectors
from .scaling import weight_norm as weight_norm
from .spectral_norm import spectral_norm as spectral_norm

__all__ = [
    "batch_norm",
    "batch_norm_inference",
    "group_norm",
    "instance_norm",
    "l2_normalize",
    "layer_norm",
    "rms_norm",
    "spectral_norm",
    "spectral_norm_by_vectors",
    "standardize",
    "std",
    "var",
    "weight_norm",
]
